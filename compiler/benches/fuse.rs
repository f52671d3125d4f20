//! How long fusion takes: the graph of one layer, with embedding and head, through the e-graph to launches, for both programs.
//!
//! Llama-3.1-8B's and Qwen3-8B's shapes (Q4_K_M), with one layer and with all of them: equal layers share an e-graph.

use criterion::{Criterion, criterion_group, criterion_main};
use hipc::fuse::{FuseOptions, fuse};
use hipc::target::Target;
use hipc_ir::dtype::KvType;
use hipc_ir::fused::ProgramKind;
use hipc_tests::gguf_writer::{LLAMA_3_1_8B, Mix, QWEN3_8B, Shape, model};

fn fusion(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let target = Target::parse("gfx1100").expect("a known target");
    let options = FuseOptions::new(4096, KvType::F16);
    let mut group = c.benchmark_group("fuse");
    group.sample_size(20);
    for (name, shape) in [("llama", LLAMA_3_1_8B), ("qwen3", QWEN3_8B)] {
        for layers in [1, shape.layers] {
            let path = folder.path().join(format!("{name}-{layers}"));
            model(Shape { layers, ..shape }, Mix::Q4KM).write_sparse(&path).expect("space for a few kilobytes");
            let loaded = hipc_models::load(&path).expect("it loads");
            for kind in [ProgramKind::Decode, ProgramKind::Prompt] {
                let label = format!("{name}, {layers} layers, {kind:?}");
                group.bench_function(label, |b| b.iter(|| fuse(&loaded.graph, kind, &options, target).expect("it fuses")));
            }
        }
    }
    group.finish();
}

criterion_group!(benches, fusion);
criterion_main!(benches);
