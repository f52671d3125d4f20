//! `verify-all [ARCH,…]`: everything that the emulator can show of the kernels, in Markdown: every launch and whole steps, with the
//! sanitizer, of the demo model and of small models of every weight type, on all architectures and through both back ends, and the
//! questions. As many models at a time as there are cores.
//!
//! Standard output has each line as soon as it and those before it are known, so what was done isn't lost if the rest never comes.
//! Standard error says what is begun and done, with times.

use hipc::bundle::templates_hash;
use hipc::toolchain::{Backend, Toolchain};
use hipc_ir::bundle::Digest;
use hipc_tests::emulated::{Built, has, small_model};
use hipc_tests::gguf_writer::{LLAMA_3_1_8B, Mix, QWEN3_8B, TYPES};
use hipc_tests::parity::chat::{questions, wrong_answers};
use hipc_tests::shared::demo_model;
use hipfire_run::engine::PlanEngine;
use hipfire_run::verify::{ChainRow, Options};
use std::any::Any;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

/// One of each kind of machine that kernels are generated for: everything is verified there.
const ARCHS: &str = "gfx1100,gfx1010,gfx1012,gfx1030,gfx1201,gfx906,gfx90a,gfx942";
/// What differs from one of those only in what the back end makes of it.
const RELATED: &str = "gfx1101,gfx1102,gfx1103,gfx1151,gfx1200";
/// Where every weight type has a model of its own, and all questions are asked.
const FIRST: &str = "gfx1100";

/// Time for the launches of the demo model: on the first architecture, and on the others.
const DEMO: [Duration; 2] = [Duration::from_secs(240), Duration::from_secs(60)];
/// Time for those of a small model, likewise. The most telling cases come first; the report has how many there were. With what is compiled,
/// steps and questions, that makes about 50 minutes on two cores.
const SMALL: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(25)];

/// A model to be verified.
#[derive(Clone, Debug)]
struct Job {
    arch: String,
    name: String,
    model: Model,
}

#[derive(Clone, Copy, Debug)]
enum Model {
    Demo,
    Qwen3(Backend),
    /// With this type for all matrices.
    Llama(u32),
}

/// What became of a job: lines for the report, and what is wrong.
struct Outcome {
    text: String,
    wrong: Vec<String>,
}

fn main() {
    let start = Instant::now();
    let chosen = std::env::args().nth(1);
    let archs: Vec<String> = chosen.as_deref().unwrap_or(ARCHS).split(',').map(str::to_owned).collect();
    let related = if chosen.is_none() { RELATED.split(',').map(str::to_owned).collect() } else { Vec::new() };
    provenance();
    println!("\n## Launches and steps\n");
    println!(
        "| target | model | code object (BLAKE3) | launches | cases | with sanitizer | wrong | decode: noise against cpu, unfused | \
         prompt | seconds |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let mut wrong = all(start, &jobs(&archs, &related), |job| format!("{}, {}", job.arch, job.name), Job::run);
    println!("\n## Questions\n");
    wrong += all(start, &archs, |arch| format!("questions on {arch}"), |arch| ask_on(arch));
    println!("\n{} minutes in all; {wrong} lines are wrong.", start.elapsed().as_secs().div_ceil(60));
    std::process::exit(i32::from(wrong > 0));
}

/// Models in the order of the report.
fn jobs(archs: &[String], related: &[String]) -> Vec<Job> {
    let mut jobs = Vec::new();
    let mut add = |arch: &String, name: &str, model| jobs.push(Job { arch: arch.clone(), name: name.to_owned(), model });
    for arch in archs {
        add(arch, "rustdoc-26m-chat Q4_K_M", Model::Demo);
        add(arch, "small qwen3 Q4_K_M", Model::Qwen3(Backend::Clang));
        for (name, ty) in TYPES {
            add(arch, &format!("small llama {name}"), Model::Llama(ty));
        }
    }
    for arch in related {
        add(arch, "small qwen3 Q4_K_M", Model::Qwen3(Backend::Clang));
    }
    if has(Backend::Llvm) {
        let archs = archs.iter().chain(related);
        archs.for_each(|arch| add(arch, "small qwen3 Q4_K_M, back end llvm", Model::Qwen3(Backend::Llvm)));
    }
    jobs
}

/// Does all of these, as many at a time as there are cores, and says the lines in their order; how many have something wrong.
fn all<T: Sync>(start: Instant, items: &[T], name: impl Fn(&T) -> String + Sync, run: impl Fn(&T) -> Outcome + Sync) -> usize {
    let (next, wrong) = (AtomicUsize::new(0), AtomicUsize::new(0));
    // What is done but not said, because something before it isn't done.
    let done: Mutex<BTreeMap<usize, String>> = Mutex::default();
    let said = AtomicUsize::new(0);
    let tell = |what: &str| eprintln!("[{:>5} s] {what}", start.elapsed().as_secs());
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return };
            let (name, begun) = (name(item), Instant::now());
            tell(&format!("{name}: begins ({} of {})", at + 1, items.len()));
            // One that panics leaves the others be.
            let outcome = catch_unwind(AssertUnwindSafe(|| run(item))).unwrap_or_else(|panic| Outcome::panicked(&name, &*panic));
            let verdict = if outcome.wrong.is_empty() { "right" } else { "WRONG" };
            tell(&format!("{name}: {verdict}, {:.0} s", begun.elapsed().as_secs_f64()));
            outcome.wrong.iter().for_each(|what| eprintln!("{name}: {what}"));
            wrong.fetch_add(usize::from(!outcome.wrong.is_empty()), Ordering::Relaxed);
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.insert(at, outcome.text);
            while let Some(text) = done.remove(&said.load(Ordering::Relaxed)) {
                println!("{text}");
                said.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let threads = available_parallelism().map_or(1, NonZeroUsize::get);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    wrong.into_inner()
}

fn provenance() {
    let compiler = Toolchain::from_env().compiler(Backend::Clang).map_or_else(|e| e.to_string(), |c| c.to_string());
    let decoder = hipc_emulator::disassembler_version().unwrap_or("none");
    if let (true, Ok(library)) = (has(Backend::Llvm), Toolchain::from_env().compiler(Backend::Llvm)) {
        println!("- Back end llvm: {library}");
    }
    let model = std::fs::read(demo_model()).unwrap_or_else(|e| panic!("{e}"));
    println!("- Compiler: hipc {}, {compiler}", env!("CARGO_PKG_VERSION"));
    println!("- Instructions decoded by {decoder}");
    println!("- Kernel templates: BLAKE3 `{}`", templates_hash());
    println!("- Model: `{}`, BLAKE3 `{}`", demo_model().file_name().unwrap_or_default().display(), Digest::of(&model));
}

impl Outcome {
    fn panicked(name: &str, panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        let what = text.unwrap_or("panicked").to_owned();
        let first = what.lines().next().unwrap_or_default().replace('|', "\\|");
        Self { text: format!("| {name} | **{first}** |"), wrong: vec![what] }
    }
}

impl Job {
    fn run(&self) -> Outcome {
        let start = Instant::now();
        let arch = self.arch.as_str();
        let built = match self.model {
            Model::Demo => Built::file(&demo_model(), arch, 160),
            Model::Qwen3(backend) => Built::random(small_model(QWEN3_8B, 2), Mix::Q4KM, arch, 160, backend),
            Model::Llama(ty) => Built::random(small_model(LLAMA_3_1_8B, 2), Mix::All(ty), arch, 96, Backend::Clang),
        };
        let limits = match self.model {
            Model::Demo => DEMO,
            Model::Qwen3(_) | Model::Llama(_) => SMALL,
        };
        let limit = limits[usize::from(arch != FIRST)];
        let verified = built.verify(&Options { limit, keep_going: true, ..Options::default() });
        let verified = verified.unwrap_or_else(|e| panic!("{e}"));
        let steps = match &verified.steps {
            Ok(rows) => rows.iter().map(noise).collect(),
            Err(_) => vec!["**stopped**".to_owned(); 2],
        };
        let [cases, planned, watched] = verified.cases();
        let text = format!(
            "| {arch} | {} | `{}` | {} | {cases} of {planned} | {watched} | {} | {} | {:.0} |",
            self.name,
            &Digest::of(&built.module).to_string()[..16],
            verified.rows.len(),
            verified.rows.iter().filter(|r| r.failure.is_some()).count(),
            steps.join(" | "),
            start.elapsed().as_secs_f64()
        );
        Outcome { text, wrong: verified.wrong() }
    }
}

/// Against `cpu` and against the unfused graph.
fn noise(row: &ChainRow) -> String {
    let unfused = row.unfused.as_ref().map_or(0.0, |u| u.nmse);
    format!("{}{:.0e}, {unfused:.0e}", if row.passes() { "" } else { "**wrong** " }, row.nmse)
}

/// All questions on the first architecture, the demo's on others.
fn ask_on(arch: &str) -> Outcome {
    let all = questions();
    let asked = if arch == FIRST { &all[..] } else { &all[10..11] };
    let model = Built::file(&demo_model(), arch, 128);
    let wrong = wrong_answers(&mut PlanEngine::new(model.emulated(), false), asked);
    let text = format!("- emu:{arch}: {} of {} answered word for word", asked.len() - wrong.len(), asked.len());
    Outcome { text, wrong }
}
