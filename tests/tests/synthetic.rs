//! Models with weights at random: whatever the type, what comes out is finite, and the same for the same seed; and speed can be
//! measured with them.

use hipc::pipeline::{Options, build, plan};
use hipc::target::Target;
use hipc::toolchain::{CompileOptions, Toolchain};
use hipc_ir::fused::ProgramKind;
use hipc_ir::plan::Space;
use hipc_tests::gguf_writer::{LLAMA_3_1_8B, Mix, QWEN3_8B, Shape, model, ty};
use hipfire_run::device::cpu::CpuBackend;
use hipfire_run::device::host::{HostLibrary, Order};
use hipfire_run::device::{Backend, DriverBackend, Placement};
use hipfire_run::engine::{Engine, PlanEngine, Want};
use hipfire_run::synthetic::Synthetic;
use hipfire_run::text::SamplerParams;
use hipfire_run::{bench, profile};
use std::sync::Arc;

/// Deep enough for values to grow, if they do.
const LLAMA: Shape = Shape { layers: 24, embd: 256, ff: 768, heads: 8, kv_heads: 2, head_dim: 32, vocab: 323, ..LLAMA_3_1_8B };
const QWEN3: Shape = Shape { layers: 24, embd: 256, ff: 768, heads: 8, kv_heads: 2, head_dim: 32, vocab: 323, ..QWEN3_8B };

fn logits(shape: Shape, mix: Mix, seed: u64) -> Vec<f32> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    // Without any data.
    model(shape, mix).write_sparse(&path).unwrap();
    let model = hipc_models::load(&path).unwrap();
    let options = Options { ctx: Some(64), ..Options::default() };
    let planned = plan(&model, Target::parse("gfx1100").unwrap(), &options).unwrap();
    let weights = Arc::new(Synthetic::new(model.graph.weights.clone(), seed));
    let mut engine = PlanEngine::new(CpuBackend::new(planned.plan, weights).unwrap(), false);
    let mut all = Vec::new();
    let mut keep = |row: &[f32]| all.extend_from_slice(row);
    engine.feed(&[1, 5, 300, 7, 7, 12, 9, 200], Want::All, &mut keep).unwrap();
    engine.feed(&[2], Want::All, &mut keep).unwrap();
    all
}

#[test]
fn logits_are_finite_for_every_type() {
    let types = [ty::F32, ty::F16, ty::BF16, ty::Q4_0, ty::Q8_0, ty::Q4_K, ty::Q6_K];
    for (name, shape) in [("llama", LLAMA), ("qwen3", QWEN3)] {
        for mix in types.into_iter().map(Mix::All).chain([Mix::Q4KM]) {
            let logits = logits(shape, mix, 1);
            assert_eq!(logits.len(), 9 * shape.vocab as usize);
            assert!(logits.iter().all(|v| v.is_finite()), "{name} {mix:?}");
            let rms = (logits.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / logits.len() as f64).sqrt();
            assert!((0.1..10.0).contains(&rms), "{name} {mix:?}: {rms}");
        }
    }
}

#[test]
fn the_seed_decides() {
    let [a, b, c] = [3, 3, 4].map(|seed| logits(Shape { layers: 2, ..LLAMA }, Mix::Q4KM, seed));
    assert!(a == b && a != c);
}

/// The whole way on a device that executes the emitted kernels: bandwidth (whose sum the device checks), speed, profile.
#[test]
fn a_device_with_kernels_measures_itself() {
    let toolchain = Toolchain::from_env();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    model(Shape { layers: 3, ..LLAMA }, Mix::Q4KM).write_sparse(&path).unwrap();
    let model = hipc_models::load(&path).unwrap();
    let options = Options { ctx: Some(64), ..Options::default() };
    let target = Target::parse("host").unwrap();
    let built = build(&model, &[target], &options, &toolchain, &CompileOptions::default(), &|_| ()).unwrap().remove(0);
    let weights = Synthetic::new(model.graph.weights.clone(), 1);
    let plan = built.planned.plan.clone();
    let planned = Space::ALL.iter().map(|&s| plan.space_bytes(s)).sum();
    let driver = HostLibrary::new(Order::default());
    let backend = DriverBackend::new(driver, plan.clone(), &built.code, &weights, Placement::Planned, &mut |_| ()).unwrap();
    let mut engine = PlanEngine::new(Box::new(backend) as Box<dyn Backend>, false);
    let ask = bench::Options {
        tokens: 3,
        depths: vec![0, 30],
        prompt: 5,
        repeat: 1,
        sampling: SamplerParams::default(),
        // Not a whole number of tiles, so that what is left over is seen to.
        span: (1 << 20) + 12345,
    };
    let report = bench::bench(&mut engine, planned, &ask, &mut |_| ()).unwrap();
    assert!(report.memory.as_planned(), "{:?}", report.memory);
    assert_eq!((report.bandwidth.bytes, report.decode.len(), report.launches_per_layer), (1 << 20, 2, 5));
    let ask = profile::Options { depth: 60, repeat: 1, span: 1 << 20 };
    let report = profile::profile(engine.backend_mut(), &ask, &mut |_| ()).unwrap();
    let decode = plan.program(ProgramKind::Decode).unwrap();
    assert_eq!(report.kernels.iter().map(|k| k.launches).sum::<usize>(), decode.launches.len());
    let step: u64 = report.kernels.iter().map(|k| k.launches as u64 * k.bytes).sum();
    assert!(step.abs_diff(bench::step_bytes(&plan, 61)) <= report.kernels.len() as u64 * 3, "{step}");
}
