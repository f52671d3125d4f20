//! Fusion: whole models, file tests, and the soundness of the rules.

mod filetests;
mod models;
mod oracle;
mod property;
mod whole;

use hipc::egraph::report::{FusionReport, Verdict};
use hipc::fuse::{FuseOptions, Fused, fuse};
use hipc::target::{TARGETS, Target};
use hipc_ir::fused::{FusedGraph, ProgramKind};
use hipc_ir::graph::Graph;
use hipc_ir::{DType, KvType};
use models::{Dense, llama_8b, qwen3};

fn fused(graph: &Graph, kind: ProgramKind, target: &Target) -> Fused {
    let fused = fuse(graph, kind, &FuseOptions::new(4096, KvType::F16), target).unwrap();
    hipc_ir::verify::fused(&fused.graph, graph).unwrap();
    fused
}

fn gfx1100() -> &'static Target {
    Target::parse("gfx1100").unwrap()
}

fn labels(graph: &FusedGraph, layer: Option<u32>) -> Vec<&str> {
    graph.launches.values().filter(|l| l.layer == layer).map(|l| l.label.as_str()).collect()
}

fn assert_five(graph: &FusedGraph, model: &Dense, target: &Target) {
    assert_eq!(labels(graph, None), ["embed", "head", "choose"], "{target}");
    for layer in 0..model.layers {
        assert_eq!(labels(graph, Some(layer)), ["qkv", "attn", "o", "gate_up", "down"], "layer {layer} on {target}");
    }
}

#[test]
fn dense_layers_take_five_launches() {
    for dtype in DType::ALL {
        for model in [llama_8b().all(dtype), qwen3().all(dtype)] {
            assert_five(&fused(&model.build(), ProgramKind::Decode, gfx1100()).graph, &model, gfx1100());
        }
    }
}

#[test]
fn mixed_types_take_five_launches_on_every_target() {
    for target in &TARGETS {
        for model in [llama_8b(), qwen3()] {
            let model = Dense { layers: 1, ..model };
            assert_five(&fused(&model.build(), ProgramKind::Decode, target).graph, &model, target);
        }
    }
}

#[test]
fn the_prompt_program_norms_heads_apart() {
    let llama = fused(&llama_8b().build(), ProgramKind::Prompt, gfx1100()).graph;
    assert_eq!(labels(&llama, Some(7)), ["qkv", "attn", "o", "gate_up", "down"]);
    let qwen = fused(&qwen3().build(), ProgramKind::Prompt, gfx1100()).graph;
    assert_eq!(labels(&qwen, Some(7)), ["qkv", "heads", "attn", "o", "gate_up", "down"]);
}

#[test]
fn equal_layers_share_a_small_saturated_graph() {
    let report = fused(&llama_8b().build(), ProgramKind::Decode, gfx1100()).report;
    // Embedding, even and odd layers, the last layer (nobody reads its raw sum), head.
    assert_eq!(report.regions.len(), 5);
    assert_eq!(report.regions.iter().map(|r| r.layers.len()).sum::<usize>(), 34);
    for region in &report.regions {
        assert_eq!(region.stop, "Saturated");
        assert!(region.iterations <= 8 && region.nodes <= 700, "{}: {} nodes", region.name(), region.nodes);
        assert_eq!(region.candidates.1, 0, "launches on cycles in {}", region.name());
        println!("{}: {} classes, {} nodes, {:?}", region.name(), region.classes, region.nodes, region.time);
    }
}

#[test]
fn the_same_every_time() {
    let graph = llama_8b().build();
    let first = fused(&graph, ProgramKind::Decode, gfx1100()).graph.to_string();
    assert_eq!(first, fused(&graph, ProgramKind::Decode, gfx1100()).graph.to_string());
}

#[test]
fn every_fusion_is_explained() {
    let explain = |model: &Dense| -> FusionReport {
        let options = FuseOptions { explain: true, ..FuseOptions::new(4096, KvType::F16) };
        fuse(&model.build(), ProgramKind::Decode, &options, gfx1100()).unwrap().report
    };
    let report = explain(&Dense { layers: 1, ..llama_8b() });
    let layer = report.regions.iter().find(|r| r.layers == [Some(0)]).unwrap();
    let taken = |rule: &str| {
        let found = layer.fusions.iter().filter(|f| f.rule == rule && matches!(f.verdict, Verdict::Taken(_)));
        found.map(|f| &f.verdict).next()
    };
    for rule in ["gemv-group", "gemv-deferred", "gemv-rope", "gemv-append", "gemv-gated", "residual", "finish-ssq", "finish-gain"]
    {
        let verdict = taken(rule).unwrap_or_else(|| panic!("{rule} isn't taken:\n{report}"));
        assert!(matches!(verdict, Verdict::Taken(Some(d)) if d.ns > 0), "{rule}: {verdict}\n{report}");
    }
    // q and k are rotated by their products, so attention doesn't do it.
    assert!(taken("attend-rope").is_none());
    assert!(layer.fusions.iter().any(|f| f.rule == "attend-rope" && matches!(f.verdict, Verdict::Refused(_))));
    let odd =
        explain(&Dense { layers: 1, heads: 2, kv_heads: 2, head_dim: 48, embd: 96, ff: 256, ..llama_8b().all(DType::Q8_0) });
    assert!(odd.to_string().contains("aren't whole int8 blocks"), "{odd}");
}
