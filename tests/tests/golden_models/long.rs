//! A prompt in chunks and the same ids one at a time are the same sequence.
//!
//! Within the bounds of a launch on `cpu`, where the programs differ only in how sums of squares are parted. On `host` attention and products
//! are also added up in another order wherever the programs split them differently. That moves values by the last bit of an f32, and
//! with int8 activations such a bit sometimes turns a quant at a tie, which the layers above carry on: there the caches of the first
//! layer (whose int8 inputs come from the embedding alone) keep the bounds of a launch, and the logits those of int8.

use hipc_ir::dtype::KvType;
use hipc_ir::plan::{BufferKind, Plan};
use hipc_tests::metrics::Nmse;
use hipc_tests::parity::arch::bound;
use hipc_tests::parity::device::{Compiled, compile};
use hipc_tests::parity::trained::trained;
use hipc_tests::shared::demo_model;
use hipfire_run::device::Backend;
use hipfire_run::device::host::Order;
use hipfire_run::engine::{Engine, PlanEngine, Want};

/// What a sequence leaves behind.
struct Fed {
    rows: Vec<Vec<f32>>,
    /// K and V of the first layer.
    caches: Vec<Vec<f32>>,
}

fn feed<B: Backend>(backend: B, ids: &[u32], single_steps: bool) -> Fed {
    let mut engine = PlanEngine::new(backend, single_steps);
    let mut rows = Vec::new();
    engine.feed(ids, Want::All, &mut |row| rows.push(row.to_vec())).unwrap();
    let plan: Plan = engine.backend_mut().plan().clone();
    assert_eq!(plan.kv, KvType::F32);
    let of_cache = |n: u32| plan.buffers.iter().find(|(_, d)| matches!(d.kind, BufferKind::Cache(c) if c.as_u32() == n)).unwrap();
    let mut caches = Vec::new();
    for (buffer, decl) in [0, 1].map(of_cache) {
        let mut bytes = vec![0; decl.bytes as usize];
        engine.backend_mut().read(buffer, 0, &mut bytes).unwrap();
        caches.push(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect());
    }
    Fed { rows, caches }
}

fn nmse(a: &[Vec<f32>], b: &[Vec<f32>]) -> f64 {
    assert_eq!(a.len(), b.len());
    let mut nmse = Nmse::default();
    a.iter().zip(b).for_each(|(a, b)| nmse.push(a, b));
    nmse.value()
}

/// A launch's bounds: of integer products, of the rest.
const LAUNCH: [f64; 2] = [1e-10, 1e-7];

fn launch_bound(id: &str) -> f64 {
    if id.ends_with("-F16") { LAUNCH[1] } else { LAUNCH[0] }
}

fn compare<B: Backend>(what: &str, device: impl Fn(&Compiled) -> B, compiled: &Compiled, ids: &[u32], allowed: f64) {
    let (at_once, singly) = (feed(device(compiled), ids, false), feed(device(compiled), ids, true));
    let (caches, logits) = (nmse(&at_once.caches, &singly.caches), nmse(&at_once.rows, &singly.rows));
    let n = ids.len();
    println!(
        "{what}: {n} ids at once and singly: first caches NMSE {caches:.1e} (bound {:.0e}), logits {logits:.1e} (bound {allowed:.1e})",
        LAUNCH[0]
    );
    assert!(caches <= LAUNCH[0], "{what}: first layer's caches differ by {caches:e}");
    assert!(logits <= allowed, "{what}: logits differ by {logits:e}, bound {allowed:e}");
}

#[test]
fn a_prompt_of_700_equals_700_single_steps_on_cpu() {
    for model in trained().iter().flatten() {
        let prompt = model.prompts.iter().find(|p| p.name == "long").unwrap();
        assert_eq!(prompt.ids.len(), 700);
        let compiled = compile(&model.path, "gfx1100", 700, KvType::F32);
        compare(&format!("{} cpu", model.id), Compiled::cpu, &compiled, &prompt.ids, launch_bound(&model.id));
    }
}

#[test]
fn a_prompt_equals_single_steps_on_host() {
    let host = |c: &Compiled| c.host(Order::Ascending);
    for model in trained().iter().flatten().filter(|m| m.id.starts_with("rustdoc-7m-")) {
        let prompt = model.prompts.iter().find(|p| p.name == "long").unwrap();
        let compiled = compile(&model.path, "gfx1100", 60, KvType::F32);
        // Decode programs split products' inputs between waves, prompt programs otherwise: sums of f32 differ in their last bits.
        let allowed = if model.id.ends_with("-F16") { LAUNCH[1] } else { bound(prompt.noise, KvType::F32) };
        compare(&format!("{} host", model.id), host, &compiled, &prompt.ids[..60], allowed);
    }
    let compiled = compile(&demo_model(), "gfx1100", 70, KvType::F32);
    let ids: Vec<u32> = (0..45).map(|i| 1000 + 37 * i).collect();
    // There is no golden for these ids; the noise of the model's prompts is 4e-4 to 6e-4.
    compare("demo host", host, &compiled, &ids, bound(4e-4, KvType::F32));
}
