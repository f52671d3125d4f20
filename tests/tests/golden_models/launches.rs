//! Launches on `host` against the reference, under AddressSanitizer and UBSan.

use hipc_ir::dtype::KvType;
use hipc_ir::fused::ProgramKind;
use hipc_ir::plan::StepState;
use hipc_tests::parity::arch::goldens;
use hipc_tests::parity::device::{Compiled, compile};
use hipc_tests::parity::launches::{Compared, step};
use hipc_tests::shared::demo_model;
use hipfire_run::device::Backend;
use hipfire_run::device::host::Order;
use rayon::prelude::*;

/// Positions of the cache.
const CTX: u32 = 96;

/// One sequence: prompt steps and decode steps so that each begins where a block, wave or split of the context begins or ends.
fn sequence(backend: &mut impl Backend, ids: &[u32], steps: &[(ProgramKind, usize)]) -> Compared {
    let (mut compared, mut pos) = (Compared::default(), 0);
    for (i, &(kind, n)) in steps.iter().enumerate() {
        // Every other prompt step is asked for its last token only.
        let head_from = if i % 2 == 0 { 0 } else { n as i32 - 1 };
        let state = StepState { pos: pos as i32, n: n as i32, head_from, generation: 0 };
        step(backend, kind, state, &ids[pos..pos + n], &mut compared);
        pos += n;
    }
    compared
}

/// Positions 0, 1, 31, 32 and 33 by the decode program, the ones between by the prompt program.
const STEPS: [(ProgramKind, usize); 8] = [
    (ProgramKind::Decode, 1),
    (ProgramKind::Decode, 1),
    (ProgramKind::Prompt, 7),
    (ProgramKind::Prompt, 22),
    (ProgramKind::Decode, 1),
    (ProgramKind::Decode, 1),
    (ProgramKind::Decode, 1),
    (ProgramKind::Prompt, 5),
];

/// What is wrong.
fn sanitized(what: &str, compiled: &Compiled, ids: &[u32], steps: &[(ProgramKind, usize)]) -> String {
    let Some(mut backend) = compiled.sanitized(Order::Stride(7)) else { return String::new() };
    let compared = sequence(&mut backend, ids, steps);
    std::mem::take(backend.driver_mut()).finish().unwrap_or_else(|e| panic!("{what}: {e}"));
    compared.report(what)
}

fn ids() -> Vec<u32> {
    (0..64).map(|i| 1000 + 37 * i).collect()
}

#[test]
fn every_launch_of_the_random_models_is_right() {
    let Some(goldens) = goldens() else { return };
    let wrong = goldens.par_iter().flat_map_iter(|golden| {
        [("gfx1100", KvType::F16), ("gfx942", KvType::F32)].map(|(target, kv)| {
            let compiled = compile(&golden.path, target, CTX, kv);
            sanitized(&format!("{} {target} {kv:?}", golden.id), &compiled, &golden.ids, &STEPS)
        })
    });
    let wrong: String = wrong.collect();
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_launch_of_the_demo_model_is_right() {
    let compiled = compile(&demo_model(), "gfx1100", CTX, KvType::F16);
    let wrong = sanitized("demo gfx1100", &compiled, &ids(), &STEPS);
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_launch_on_cpu_is_right() {
    let compiled = compile(&demo_model(), "gfx1100", CTX, KvType::F16);
    sequence(&mut compiled.cpu(), &ids(), &STEPS).finish("demo cpu");
}

#[test]
fn kernels_that_do_something_else_are_found() {
    let changes = [
        // Another epsilon, scale, activation; one addend less.
        ("Norm<512, 16>{ssq, 1e-6f}", "Norm<512, 16>{ssq, 1e-3f}"),
        ("0.125f", "0.1251f"),
        ("Gated{Silu{}", "Gated{Gelu{}"),
        ("Residual{residual}", "NoResidual{}"),
    ];
    let compiled = compile(&demo_model(), "gfx1100", CTX, KvType::F16).altered(&changes);
    let compared = sequence(&mut compiled.host(Order::Ascending), &ids(), &STEPS[..3]);
    for kind in ["Decode", "Prompt"] {
        let found = |label: &str| compared.wrong.iter().any(|w| w.starts_with(kind) && w.contains(&format!(" {label}: ")));
        for label in ["qkv", "attn", "gate_up", "o", "down"] {
            assert!(found(label), "{kind}: a wrong {label} isn't found");
        }
        for label in ["embed", "choose"] {
            assert!(!found(label), "{kind}: a right {label} is found wrong");
        }
    }
}
