//! `verify-all [ARCH,…]`: everything that the emulator can show of the kernels, in Markdown: every launch and whole steps of the demo
//! model and of small models of every weight type, for all architectures, and all questions. At most an hour on two cores.

use hipc::bundle::templates_hash;
use hipc::toolchain::{Backend, Toolchain};
use hipc_ir::bundle::Digest;
use hipc_tests::emulated::{Built, has};
use hipc_tests::gguf_writer::{LLAMA_3_1_8B, Mix, QWEN3_8B, Shape, ty};
use hipc_tests::parity::chat::{ask, questions};
use hipc_tests::shared::demo_model;
use hipfire_run::engine::PlanEngine;
use hipfire_run::verify::Options;
use std::time::{Duration, Instant};

const ARCHS: &str = "gfx1010,gfx1012,gfx1030,gfx1100,gfx1201,gfx906,gfx90a,gfx942";
const LLAMA: Shape = Shape { layers: 2, embd: 256, ff: 512, heads: 4, kv_heads: 2, head_dim: 64, vocab: 323, ..LLAMA_3_1_8B };
const QWEN3: Shape = Shape { layers: 2, embd: 256, ff: 512, heads: 4, kv_heads: 2, head_dim: 64, vocab: 323, ..QWEN3_8B };

/// Time for the launches of one model on one architecture.
const LIMIT: Duration = Duration::from_secs(150);

fn main() {
    let archs = std::env::args().nth(1).unwrap_or_else(|| ARCHS.to_owned());
    let archs: Vec<&str> = archs.split(',').collect();
    let start = Instant::now();
    provenance();
    let mut wrong = 0;
    println!("\n## Launches and steps\n");
    println!(
        "| target | model | code object (BLAKE3) | launches | cases | wrong | decode: noise against cpu, unfused | prompt | seconds |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for arch in &archs {
        wrong += row(arch, "rustdoc-26m-chat Q4_K_M", &Built::file(&demo_model(), arch, 160));
        wrong += row(arch, "small qwen3 Q4_K_M", &Built::random(QWEN3, Mix::Q4KM, arch, 160, Backend::Clang));
        if has(Backend::Llvm) {
            wrong += row(arch, "small qwen3 Q4_K_M, back end llvm", &Built::random(QWEN3, Mix::Q4KM, arch, 160, Backend::Llvm));
        }
        for (name, ty) in [
            ("F32", ty::F32),
            ("F16", ty::F16),
            ("BF16", ty::BF16),
            ("Q8_0", ty::Q8_0),
            ("Q4_0", ty::Q4_0),
            ("Q4_K", ty::Q4_K),
            ("Q6_K", ty::Q6_K),
        ] {
            wrong += row(arch, &format!("small llama {name}"), &Built::random(LLAMA, Mix::All(ty), arch, 96, Backend::Clang));
        }
    }
    println!("\n## Questions\n");
    for (i, arch) in archs.iter().enumerate() {
        // All of them on one architecture, the demo's on each.
        let all = questions();
        let asked = if i == 0 || *arch == "gfx1100" { &all[..] } else { &all[10..11] };
        let model = Built::file(&demo_model(), arch, 128);
        ask(&format!("- emu:{arch}"), &mut PlanEngine::new(model.emulated(), false), asked);
    }
    println!("\n{} minutes in all; {wrong} rows are wrong.", start.elapsed().as_secs().div_ceil(60));
    std::process::exit(i32::from(wrong > 0));
}

fn provenance() {
    let compiler = Toolchain::from_env().compiler(Backend::Clang).map_or_else(|e| e.to_string(), |c| c.to_string());
    let decoder = hipc_emulator::disassembler_version().unwrap_or("none");
    let model = std::fs::read(demo_model()).unwrap_or_else(|e| panic!("{e}"));
    println!("- Compiler: hipc {}, {compiler}", env!("CARGO_PKG_VERSION"));
    println!("- Instructions decoded by {decoder}");
    println!("- Kernel templates: BLAKE3 `{}`", templates_hash());
    println!("- Model: `{}`, BLAKE3 `{}`", demo_model().file_name().unwrap_or_default().display(), Digest::of(&model));
}

/// A line of the table; 1 if something is wrong.
fn row(arch: &str, name: &str, model: &Built) -> usize {
    let start = Instant::now();
    let rows = model.launches(&Options { limit: LIMIT, keep_going: true, ..Options::default() });
    let rows = rows.unwrap_or_else(|e| panic!("{arch}, {name}: {e}"));
    let wrong = rows.iter().filter(|r| r.failure.is_some()).count();
    for row in rows.iter().filter(|r| r.failure.is_some()) {
        eprintln!("{arch}, {name}: {row:?}");
    }
    let (cases, planned) = rows.iter().fold((0, 0), |(a, b), r| (a + r.cases, b + r.planned));
    let mut passes = wrong == 0;
    let steps: Vec<String> = match model.steps() {
        Ok(rows) => rows
            .iter()
            .map(|c| {
                passes &= c.passes();
                let unfused = c.unfused.as_ref().map_or(0.0, |u| u.nmse);
                format!("{}{:.0e}, {unfused:.0e}", if c.passes() { "" } else { "**wrong** " }, c.nmse)
            })
            .collect(),
        Err(error) => {
            passes = false;
            vec![format!("**{error}**"); 2]
        }
    };
    let hash = Digest::of(&model.module).to_string();
    println!(
        "| {arch} | {name} | `{}` | {} | {cases} of {planned} | {wrong} | {} | {:.0} |",
        &hash[..16],
        rows.len(),
        steps.join(" | "),
        start.elapsed().as_secs_f64()
    );
    usize::from(!passes)
}
