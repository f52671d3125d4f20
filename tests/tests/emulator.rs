//! The machine code that the compiler makes, executed instruction by instruction: whole answers, whole steps, every launch.
//!
//! What takes minutes is in `scripts/verify-all`; docs/verification.md has its last result.

use hipc::toolchain::Backend;
use hipc_tests::emulated::{Built, Outcome, Trial, compile, has};
use hipc_tests::gguf_writer::{LLAMA_3_1_8B, Mix, QWEN3_8B, Shape, ty};
use hipc_tests::kernel_cases::small;
use hipc_tests::mutate::code::{Code, Verdict};
use hipc_tests::parity::chat::{ask, questions};
use hipc_tests::shared::demo_model;
use hipfire_run::engine::PlanEngine;
use hipfire_run::verify::{Options, inputs};

const LLAMA: Shape = Shape { layers: 1, embd: 256, ff: 512, heads: 4, kv_heads: 2, head_dim: 64, vocab: 323, ..LLAMA_3_1_8B };
const QWEN3: Shape = Shape { layers: 1, embd: 256, ff: 512, heads: 4, kv_heads: 2, head_dim: 64, vocab: 323, ..QWEN3_8B };

/// Positions: so many that 33 and the last are different places.
const CTX: u32 = 64;

fn steps(what: &str, model: &Built) {
    for row in model.steps().unwrap_or_else(|e| panic!("{what}: {e}")) {
        println!("{what}: {row:?}");
        assert!(row.passes(), "{what}: {row:?}");
    }
}

fn every_launch(what: &str, model: &Built) {
    let rows = model.launches(&Options::default()).unwrap_or_else(|e| panic!("{what}: {e}"));
    let wrong: Vec<_> = rows.iter().filter_map(|r| r.failure.as_ref().map(|f| (r.program, &r.label, f))).collect();
    assert!(wrong.is_empty(), "{what}: {wrong:#?}");
    let cases: usize = rows.iter().map(|r| r.cases).sum();
    println!("{what}: {} launches, {cases} cases", rows.len());
    assert!(cases > 80, "{what}: only {cases} cases");
}

fn target(name: &str, shape: Shape) {
    let model = Built::random(shape, Mix::Q4KM, name, CTX, Backend::Clang);
    steps(name, &model);
    every_launch(name, &model);
}

#[test]
fn the_llvm_back_end() {
    if has(Backend::Llvm) {
        let model = Built::random(QWEN3, Mix::Q4KM, "gfx1100", CTX, Backend::Llvm);
        steps("llvm", &model);
        every_launch("llvm", &model);
    }
}

#[test]
fn gfx1010() {
    target("gfx1010", LLAMA);
}

#[test]
fn gfx1030() {
    target("gfx1030", QWEN3);
}

#[test]
fn gfx1100() {
    target("gfx1100", QWEN3);
}

#[test]
fn gfx1201() {
    target("gfx1201", LLAMA);
}

#[test]
fn gfx90a() {
    target("gfx90a", QWEN3);
}

#[test]
fn gfx942() {
    target("gfx942", LLAMA);
}

#[test]
fn a_layer_of_every_weight_type() {
    for (name, ty) in [
        ("F32", ty::F32),
        ("F16", ty::F16),
        ("BF16", ty::BF16),
        ("Q8_0", ty::Q8_0),
        ("Q4_0", ty::Q4_0),
        ("Q4_K", ty::Q4_K),
        ("Q6_K", ty::Q6_K),
    ] {
        steps(name, &Built::random(LLAMA, Mix::All(ty), "gfx1100", CTX, Backend::Clang));
    }
}

#[test]
fn two_questions_are_answered_word_for_word() {
    let model = Built::file(&demo_model(), "gfx1100", 128);
    // What the demo asks, and the shortest answer.
    let chosen: Vec<_> = questions().into_iter().enumerate().filter(|(i, _)| [2, 10].contains(i)).map(|(_, q)| q).collect();
    assert_eq!(chosen[1].0, "What does `Vec::pop` do?");
    ask("emu:gfx1100", &mut PlanEngine::new(model.emulated(), false), &chosen);
}

/// A few of the flipped bits that `mutate code` tries by the hundred.
#[test]
fn flipped_bits_are_found() {
    let target = hipc::target::Target::parse("gfx1100").expect("the table has it");
    let wanted = ["down_q4_k", "attend_4_2_32_f16", "row_norm_all", "choose_partials"];
    let specs: Vec<_> = small(32, 1).into_iter().filter(|s| wanted.iter().any(|w| s.name.ends_with(w))).collect();
    assert_eq!(specs.len(), wanted.len());
    let module = compile(target, &specs, hipc_templates::HEADERS, Backend::Clang).unwrap_or_else(|e| panic!("{e}"));
    let mut verdicts = Vec::new();
    for spec in &specs {
        let code = Code::new(target.name, &module, &spec.name, Trial::new(spec, 1, 7));
        let mut random = inputs::Random::fork(3, verdicts.len() as u64);
        verdicts.extend((0..5).map(|_| code.flip(&mut random).verdict));
    }
    // Of twenty bits a few are without effect, which the tool shows for each; what has one is found.
    let found = verdicts.iter().filter(|v| v.found()).count();
    let harmless = verdicts.iter().filter(|v| matches!(v, Verdict::Equivalent)).count();
    assert!(10 * found >= 9 * (verdicts.len() - harmless) && 2 * found >= verdicts.len(), "{verdicts:?}");
}

#[test]
fn a_changed_header_is_found() {
    let target = hipc::target::Target::parse("gfx1030").expect("the table has it");
    let spec = small(32, 1).into_iter().find(|s| s.name.ends_with("row_norm_all")).expect("the table has it");
    let trial = Trial::new(&spec, 1, 7);
    let changed = |from: &str, to: &str| {
        let headers: Vec<(&str, String)> = hipc_templates::HEADERS.iter().map(|(p, s)| (*p, s.replace(from, to))).collect();
        assert!(hipc_templates::HEADERS.iter().any(|(_, s)| s.contains(from)));
        let headers: Vec<(&str, &str)> = headers.iter().map(|(p, s)| (*p, s.as_str())).collect();
        let specs = std::slice::from_ref(&spec);
        trial.run(target.name, &compile(target, specs, &headers, Backend::Clang).unwrap_or_else(|e| panic!("{e}")), None)
    };
    assert!(matches!(changed("fmaxf(a, b)", "fminf(a, b)"), Outcome::Wrong(_)));
    assert!(matches!(changed("fmaxf(a, b)", "fmaxf(b, a)"), Outcome::Right(_)));
}
