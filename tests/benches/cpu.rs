//! Speed of the device `cpu` on the model of the repository: tokens per second of decode and of a prompt chunk, on one and two cores.
//!
//! `cargo bench -p hipc-tests --bench cpu`; the portable binary, its vectors chosen at run time.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hipc_ir::dtype::KvType;
use hipc_tests::parity::device::compile;
use hipc_tests::shared::demo_model;
use hipfire_run::device::cpu::CpuBackend;
use hipfire_run::engine::{Engine, PlanEngine, Want};

fn engine() -> PlanEngine<CpuBackend> {
    PlanEngine::new(compile(&demo_model(), "gfx1100", 512, KvType::F16).cpu(), false)
}

fn speed(c: &mut Criterion) {
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut group = c.benchmark_group(format!("cpu/{threads} threads"));
        let mut engine = engine();
        let prompt: Vec<u32> = (0..64).map(|i| 100 + 7 * i).collect();
        group.throughput(Throughput::Elements(64));
        group.bench_function("prompt of 64", |b| {
            b.iter(|| {
                engine.truncate(0);
                pool.install(|| engine.feed(&prompt, Want::Next, &mut |_| ())).unwrap()
            });
        });
        group.throughput(Throughput::Elements(1));
        let mut next = 100;
        group.bench_function("decode at 64 to 128", |b| {
            b.iter(|| {
                if engine.pos() == 128 {
                    engine.truncate(64);
                }
                next = pool.install(|| engine.feed(&[next], Want::Next, &mut |_| ())).unwrap().unwrap();
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(4));
    targets = speed
}
criterion_main!(benches);
