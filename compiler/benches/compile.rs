//! How long a compile takes: planning alone, one architecture with a cold and with a warm cache, every architecture.

use criterion::{Criterion, criterion_group, criterion_main};
use hipc::pipeline::{self, Options};
use hipc::target::Target;
use hipc::toolchain::{CacheSetting, CompileOptions, Settings, Toolchain};
use std::path::Path;

fn compile(c: &mut Criterion) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/rustdoc-26m-chat-Q4_K_M.gguf");
    let model = hipc_models::load(path).expect("the model of the repository");
    let target = Target::parse("gfx1100").expect("a known target");
    let all: Vec<_> = Target::all_amd().collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let toolchain = |cache| Toolchain::new(Settings { cache, ..Settings::from_env() });
    let (cold, warm) = (toolchain(CacheSetting::Off), toolchain(CacheSetting::Dir(folder.path().to_owned())));
    let build = |targets: &[&'static Target], toolchain: &Toolchain| {
        pipeline::build(&model, targets, &Options::default(), toolchain, &CompileOptions::default(), &|_| ())
            .expect("it compiles")
    };

    let mut group = c.benchmark_group("compile");
    group.sample_size(10);
    group.bench_function("plan gfx1100", |b| b.iter(|| pipeline::plan(&model, target, &Options::default())));
    group.bench_function("gfx1100, cold cache", |b| b.iter(|| build(&[target], &cold)));
    build(&[target], &warm);
    group.bench_function("gfx1100, warm cache", |b| b.iter(|| build(&[target], &warm)));
    group.bench_function("all 26, cold cache", |b| b.iter(|| build(&all, &cold)));
    build(&all, &warm);
    group.bench_function("all 26, warm cache", |b| b.iter(|| build(&all, &warm)));
    group.finish();
}

criterion_group!(benches, compile);
criterion_main!(benches);
