//! The machine code that the compiler makes, executed instruction by instruction: whole answers, whole steps, every launch.
//!
//! What takes minutes is in `scripts/verify-all`; docs/verification.md has its last result.

use hipc::toolchain::Backend;
use hipc_tests::emulated::{Built, Outcome, Trial, compile, has, small_model};
use hipc_tests::gguf_writer::{LLAMA_3_1_8B, Mix, QWEN3_8B, Shape, TYPES};
use hipc_tests::kernel_cases::small;
use hipc_tests::mutate::code::{Code, Verdict};
use hipc_tests::parity::chat::{ask, questions};
use hipc_tests::shared::demo_model;
use hipfire_run::device::emu::Emulator;
use hipfire_run::device::{DeviceError, Driver, DriverBackend, Placement};
use hipfire_run::engine::PlanEngine;
use hipfire_run::verify::{Options, inputs, launches};
use std::time::Duration;

/// Positions: so many that attention is shared among workgroups at the last ones, and that there is more than one chunk of a prompt.
const CTX: u32 = 160;

/// Time for the launches of a model: the most telling cases come first.
const LIMIT: Duration = Duration::from_secs(25);

fn target(name: &str, shape: Shape, backend: Backend) {
    let model = Built::random(small_model(shape, 1), Mix::Q4KM, name, CTX, backend);
    let verified = model.verify(&Options { limit: LIMIT, ..Options::default() }).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(verified.wrong().is_empty(), "{name}: {:#?}", verified.wrong());
    let [cases, _, watched] = verified.cases();
    println!(
        "{name}: {} launches, {cases} cases, {watched} of them with the sanitizer; {:?}",
        verified.rows.len(),
        verified.steps
    );
    assert_eq!(verified.steps.as_ref().map(Vec::len).ok(), Some(2), "{name}: a decode and a prompt step");
    assert!(cases > 80 && watched > 20, "{name}: only {cases} cases, {watched} of them with the sanitizer");
}

#[test]
fn the_llvm_back_end() {
    if has(Backend::Llvm) {
        target("gfx1100", QWEN3_8B, Backend::Llvm);
    }
}

#[test]
fn gfx1010() {
    target("gfx1010", LLAMA_3_1_8B, Backend::Clang);
}

#[test]
fn gfx1030() {
    target("gfx1030", QWEN3_8B, Backend::Clang);
}

#[test]
fn gfx1100() {
    target("gfx1100", QWEN3_8B, Backend::Clang);
}

#[test]
fn gfx1201() {
    target("gfx1201", LLAMA_3_1_8B, Backend::Clang);
}

#[test]
fn gfx90a() {
    target("gfx90a", QWEN3_8B, Backend::Clang);
}

#[test]
fn gfx942() {
    target("gfx942", LLAMA_3_1_8B, Backend::Clang);
}

/// Of another GPU it is refused, by whoever loads it.
#[test]
fn machine_code_of_another_gpu_is_refused() {
    let model = Built::random(small_model(LLAMA_3_1_8B, 1), Mix::Q4KM, "gfx1100", CTX, Backend::Clang);
    let other = || Emulator::new(hipc_emulator::find_arch("gfx1030").expect("it is emulated"));
    let of_plan =
        DriverBackend::new(other(), model.plan.clone(), &model.module, &*model.weights, Placement::Separate, &mut |_| ());
    let of_module = other().load(&model.module, &[]);
    for refused in [of_plan.err(), of_module.err()] {
        assert!(
            matches!(&refused, Some(DeviceError::NoCode { device, has }) if device == "gfx1030" && has == "gfx1100"),
            "{refused:?}"
        );
    }
}

#[test]
fn a_layer_of_every_weight_type() {
    for (name, ty) in TYPES {
        let model = Built::random(small_model(LLAMA_3_1_8B, 1), Mix::All(ty), "gfx1100", CTX, Backend::Clang);
        let steps = model.steps().unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(steps.len(), 2, "{name}: a decode and a prompt step");
        for row in steps {
            println!("{name}: {row:?}");
            assert!(row.passes(), "{name}: {row:?}");
        }
    }
}

/// A wait for memory that is left out changes nothing that an emulator computes; the sanitizer names it.
#[test]
fn waits_that_are_left_out_are_found_by_verify() {
    let mut model = Built::random(small_model(LLAMA_3_1_8B, 1), Mix::Q4KM, "gfx1100", CTX, Backend::Clang);
    // `s_waitcnt` becomes `s_nop 0`.
    for word in model.module.as_chunks_mut::<4>().0 {
        if u32::from_le_bytes(*word) >> 16 == 0xbf89 {
            *word = 0xbf80_0000_u32.to_le_bytes();
        }
    }
    let some = Options { launch: Some(1), limit: Duration::from_secs(20), ..Options::default() };
    let unwatched = Options { watched: 0, ..some.clone() };
    let mut device = model.emulated();
    let mut rows = |options| launches(&mut device, &*model.weights, options, &mut |_, _, _| ()).unwrap_or_else(|e| panic!("{e}"));
    assert!(rows(&unwatched)[0].failure.is_none() && rows(&unwatched)[0].watched == 0);
    let failure = rows(&some)[0].failure.clone().expect("the sanitizer found nothing");
    for part in
        ["the sanitizer: ", "is used before ", " says that it has arrived", "\n  at 0x", "\n  workgroup [0, 0, 0], wave 0"]
    {
        assert!(failure.what.contains(part), "no {part:?} in {}", failure.what);
    }
    // Steps stop there, too: of a device that was loaded unwatched. Where loading is watched, it does.
    for steps in [model.steps_on(&mut model.emulated()), model.steps()] {
        match steps {
            Err(DeviceError::Fault { what, .. }) => assert!(what.contains("is used before "), "{what}"),
            other => panic!("{other:?}"),
        }
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
