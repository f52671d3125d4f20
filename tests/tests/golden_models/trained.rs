//! The trained models on held-out text: perplexity, divergence from exact evaluation, logits and greedy ids after prompts.

use hipc_ir::dtype::KvType;
use hipc_tests::metrics::{Nmse, Perplexity, kl_divergence, log_sum_exp};
use hipc_tests::parity::arch::bound;
use hipc_tests::parity::device::{compile, exact};
use hipc_tests::parity::greedy::{self, Compared};
use hipc_tests::parity::trained::{Prompt, Trained, WINDOW, trained};
use hipfire_run::device::host::Order;
use hipfire_run::engine::{Engine, PlanEngine, Want};

/// The prompts of the reference data; the last one is of 700 ids.
const PROMPTS: [&str; 4] = ["chat", "docs", "code", "long"];

/// Positions of the longest prompt with its continuation.
const CTX: u32 = 768;

/// The default run takes every twentieth window of the validation text, from this one on.
const EVERY: usize = 20;
const FIRST: usize = 10;

/// Logits of the positions of a window that are judged: `WINDOW/2 .. WINDOW − 1`.
fn judged(engine: &mut dyn Engine, window: &[u32]) -> Vec<Vec<f32>> {
    engine.truncate(0);
    let mut rows = Vec::new();
    engine.feed(&window[..WINDOW / 2], Want::Nothing, &mut |_| ()).unwrap();
    engine.feed(&window[WINDOW / 2..WINDOW - 1], Want::All, &mut |row| rows.push(row.to_vec())).unwrap();
    rows
}

/// All of the validation text is to be taken.
fn full() -> bool {
    std::env::var_os("HIPC_FULL").is_some_and(|v| v == "1")
}

/// What is judged of some windows.
#[derive(Default)]
struct Judged {
    ours: Perplexity,
    exactly: Perplexity,
    divergence: f64,
    /// What the log-likelihood of each id loses against exact evaluation.
    losses: Vec<f64>,
}

impl Judged {
    fn push(&mut self, row: &[f32], exact: &[f32], next: u32) {
        self.ours.push(row, next);
        self.exactly.push(exact, next);
        self.divergence += kl_divergence(exact, row);
        let likelihood = |row: &[f32]| f64::from(row[next as usize]) - log_sum_exp(row);
        self.losses.push(likelihood(exact) - likelihood(row));
    }

    fn mean_divergence(&self) -> f64 {
        self.divergence / self.losses.len() as f64
    }

    /// Standard error of the mean loss, so of the logarithm of the ratio of the perplexities.
    fn standard_error(&self) -> f64 {
        let n = self.losses.len() as f64;
        let mean = self.losses.iter().sum::<f64>() / n;
        let variance = self.losses.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (variance / n).sqrt()
    }
}

/// Judges a model; what is wrong.
fn validation(model: &Trained) -> Vec<String> {
    let (first, every) = if full() { (0, 1) } else { (FIRST, EVERY) };
    let windows: Vec<usize> = (first..model.windows.len()).step_by(every).collect();
    let compiled = compile(&model.path, "gfx1100", WINDOW as u32, KvType::F16);
    let mut device = PlanEngine::new(compiled.cpu(), false);
    let mut oracle = exact(&model.path, WINDOW, false);
    let mut all = Judged::default();
    for &i in &windows {
        let window = &model.windows[i];
        let (expected, found) = (judged(&mut oracle, window), judged(&mut device, window));
        let mut here = Judged::default();
        for ((row, exact), &next) in found.iter().zip(&expected).zip(&window[WINDOW / 2 + 1..]) {
            here.push(row, exact, next);
            all.push(row, exact, next);
        }
        let (ours, exactly) = (here.ours.value(), here.exactly.value());
        println!("  window {i}: perplexity {ours:.4}, exact {exactly:.4}, KLD {:.6}", here.mean_divergence());
    }
    let (ours, exactly, divergence) = (all.ours.value(), all.exactly.value(), all.mean_divergence());
    let (b, allowed) = (model.perplexity, model.kld_bound());
    println!(
        "{}: {} of {} windows: perplexity {ours:.4}, exact {exactly:.4} ((b) on all: {b:.4}); mean KLD {divergence:.6}, allowed {allowed:?}",
        model.id,
        windows.len(),
        model.windows.len(),
    );
    let mut wrong = Vec::new();
    let mut bounded = |what: &str, found: f64, bound: f64| {
        if found.is_nan() || found > bound {
            wrong.push(format!("{}: {what} is {found}, allowed {bound}", model.id));
        }
    };
    // What few windows say is uncertain itself; the bound is for the whole text.
    let uncertain = if full() { 0.0 } else { 2.0 * all.standard_error() };
    bounded("distance of the perplexity from the exact one", (ours / exactly - 1.0).abs(), 0.005 + uncertain);
    if full() {
        bounded("distance of the perplexity from (b)", (ours / b - 1.0).abs(), 0.005);
        bounded("distance of the exact perplexity from (b)", (exactly / b - 1.0).abs(), 1e-4);
    }
    if let Some(allowed) = allowed {
        bounded("mean divergence", divergence, allowed);
    }
    wrong
}

#[test]
fn held_out_text_costs_what_int8_may_cost() {
    let wrong: Vec<String> = trained().iter().flatten().flat_map(validation).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Logits after the prompt and after each id of the continuation but the last.
fn continued(engine: &mut dyn Engine, prompt: &Prompt) -> Vec<Vec<f32>> {
    engine.truncate(0);
    let (last, before) = prompt.ids.split_last().unwrap();
    engine.feed(before, Want::Nothing, &mut |_| ()).unwrap();
    let ids: Vec<u32> = [&[*last], &prompt.greedy[..prompt.greedy.len() - 1]].concat();
    let mut rows = Vec::new();
    engine.feed(&ids, Want::All, &mut |row| rows.push(row.to_vec())).unwrap();
    rows
}

fn prompts(device: &str, model: &Trained, names: &[&str], engine: &mut dyn Engine, bound: &dyn Fn(&Prompt) -> f64) -> Compared {
    let mut compared = Compared::default();
    for prompt in model.prompts.iter().filter(|p| names.contains(&&*p.name)) {
        let what = format!("{} {device} {}", model.id, prompt.name);
        let rows = continued(engine, prompt);
        let (mut nmse, bound) = (Nmse::default(), bound(prompt));
        nmse.push(&rows[0], &prompt.last);
        println!("{what}: NMSE {:.1e} (bound {bound:.1e})", nmse.value());
        assert!(nmse.value() <= bound, "{what}: NMSE {:e} over {bound:e}", nmse.value());
        let threshold = greedy::threshold(bound, greedy::mean_square([&prompt.last[..]]));
        let rows = rows.iter().map(Vec::as_slice);
        compared.add(greedy::compare(&what, rows, &prompt.greedy, &prompt.margins, threshold));
    }
    compared
}

/// Prints the share that could be compared, and demands enough.
fn enough(device: &str, compared: Compared) {
    println!("{device}: {} of {} greedy ids compared, {:.0} %", compared.equal, compared.all, 100.0 * compared.share());
    assert!(compared.all == 0 || compared.share() >= 0.6, "{device}: {compared:?}");
}

#[test]
fn prompts_are_continued_on_cpu() {
    let mut compared = Compared::default();
    for model in trained().iter().flatten() {
        for kv in [KvType::F16, KvType::F32] {
            let compiled = compile(&model.path, "gfx1100", CTX, kv);
            let mut engine = PlanEngine::new(compiled.cpu(), false);
            compared.add(prompts(&format!("cpu {kv:?}"), model, &PROMPTS, &mut engine, &|p| bound(p.noise, kv)));
        }
    }
    enough("cpu", compared);
}

#[test]
fn prompts_are_continued_exactly() {
    let mut compared = Compared::default();
    for model in trained().iter().flatten() {
        let mut engine = exact(&model.path, CTX as usize, false);
        compared.add(prompts("exact", model, &PROMPTS, &mut engine, &|_| 1e-9));
    }
    enough("exact", compared);
}

#[test]
fn short_prompts_are_continued_on_host() {
    let mut compared = Compared::default();
    for model in trained().iter().flatten() {
        let names: &[&str] = match model.id.as_str() {
            "rustdoc-26m-chat-Q4_K_M" => &PROMPTS[..2],
            // Nothing new, and slow.
            "rustdoc-26m-chat-Q8_0" => continue,
            _ => &PROMPTS[..3],
        };
        let mut engine = PlanEngine::new(compile(&model.path, "gfx1100", 64, KvType::F16).host(Order::Stride(3)), false);
        compared.add(prompts("host", model, names, &mut engine, &|p| bound(p.noise, KvType::F16)));
    }
    enough("host", compared);
}
