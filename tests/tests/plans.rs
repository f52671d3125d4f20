//! Every stage of every supported reference model: graphs verify, plans pass the independent checker and compute what the fused
//! graphs say, and all of them print and parse back.

use hipc::check::{check, check_meaning};
use hipc::pipeline::{Options, PROMPT_CHUNK, plan};
use hipc::schedule::memory_bytes;
use hipc::target::{TARGETS, Target};
use hipc_ir::form::KernelList;
use hipc_ir::fused::FusedGraph;
use hipc_ir::graph::Graph;
use hipc_ir::plan::Plan;
use hipc_ir::verify;
use hipc_tests::parity::arch::SUPPORTED;
use hipc_tests::shared::{demo_model, shared};
use rayon::prelude::*;
use std::path::Path;

fn stages(path: &Path, target: &Target, ctx: u32) {
    let model = hipc_models::load(path).unwrap();
    let at = format!("{} for {target}", path.display());
    assert_eq!(verify::graph(&model.graph), Ok(()), "{at}");
    assert!(model.graph.to_string().parse::<Graph>().as_ref() == Ok(&model.graph), "{at}");

    let options = Options { ctx: Some(ctx), ..Options::default() };
    let planned = plan(&model, target, &options).unwrap_or_else(|e| panic!("{at}: {e}"));
    for fused in [&planned.decode.graph, &planned.prompt.graph] {
        assert_eq!(verify::fused(fused, &model.graph), Ok(()), "{at}");
        assert!(fused.to_string().parse::<FusedGraph>().as_ref() == Ok(fused), "{at}");
    }
    for layer in 0..model.hparams.layers {
        assert!(planned.decode.graph.layer_launches(layer) <= 5, "{at}: more than five launches in layer {layer}");
    }
    let p = &planned.plan;
    assert_eq!(verify::plan_references(p), Ok(()), "{at}");
    assert_eq!(check(p, None), Ok(()), "{at}");
    let programs = [(&planned.decode.graph, 1), (&planned.prompt.graph, PROMPT_CHUNK.min(ctx))];
    assert_eq!(check_meaning(p, &model.graph, &programs), Ok(()), "{at}");
    assert!(p.to_string().parse::<Plan>().as_ref() == Ok(p), "{at}");
    let kernels = KernelList(p.kernels.clone());
    assert_eq!(kernels.to_string().parse::<KernelList>(), Ok(kernels), "{at}");

    // Memory by context is what compiling for that context would allocate.
    assert!(planned.memory.contains(&(ctx, memory_bytes(p))), "{at}");
    let others = if target.name == "gfx1100" { 2 } else { 0 };
    for &(other, bytes) in planned.memory.iter().filter(|(c, _)| *c != ctx).take(others) {
        let there = plan(&model, target, &Options { ctx: Some(other), ..options.clone() }).unwrap();
        assert_eq!(memory_bytes(&there.plan), bytes, "{at}, context {other}");
    }
}

#[test]
fn reference_models_on_three_targets() {
    let targets = ["gfx1100", "gfx1030", "gfx942"].map(|t| Target::parse(t).unwrap());
    let cases: Vec<(&str, &Target)> = SUPPORTED.iter().flat_map(|&m| targets.iter().map(move |&t| (m, t))).collect();
    cases.par_iter().for_each(|(name, target)| {
        if let Some(path) = shared(&format!("golden/arch/{name}.gguf")) {
            stages(&path, target, 256);
        }
    });
}

#[test]
fn the_demo_model_on_every_target() {
    TARGETS.par_iter().for_each(|target| stages(&demo_model(), target, 1024));
}
