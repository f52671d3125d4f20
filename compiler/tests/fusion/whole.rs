//! The launches that come out mean the same as the graph that went in: random graphs, cut into random layers, evaluated both ways.

use crate::oracle::{Oracle, V};
use crate::property::{differ, plain, random_graph};
use hipc::egraph::language::{Leaf, Ty, operands, results};
use hipc::egraph::quantize::place_quantize;
use hipc::egraph::region::{self, Region, cache_spec};
use hipc::fuse::{FuseOptions, Fused, fuse};
use hipc::target::Target;
use hipc_ir::fused::{Operand, ProgramKind, Role};
use hipc_ir::graph::Graph;
use hipc_ir::{EntityRef, KvType};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, HashMap};

const CTX: u32 = 16;

/// Tags runs of nodes as layers.
fn cut_at_random(graph: &mut Graph, rng: &mut impl Rng) {
    let mut layer = None;
    for node in graph.nodes.values_mut() {
        if rng.random_bool(0.2) {
            layer = Some(layer.map_or(0, |l: u32| l + 1));
        }
        node.layer = layer;
    }
}

/// Runs the launches one after the other; returns the values of the graph's outputs.
fn run(fused: &Fused, graph: &Graph, all: &Region, oracle: &Oracle) -> Vec<V> {
    let mut memory: HashMap<Operand, V> = HashMap::new();
    let number = |found: Option<usize>| found.expect("used by the graph") as u32;
    let leaf = |operand: Operand| match operand {
        Operand::Tokens => Leaf::Tokens,
        Operand::Weight(w) => {
            let decl = &graph.weights[w];
            Leaf::Weight(number(all.weights.iter().position(|x| *x == w)), decl.dtype, decl.rows, decl.cols)
        }
        Operand::Rope(r) => Leaf::Rope(number(all.ropes.iter().position(|x| *x == r)), graph.ropes[r].style, graph.ropes[r].dims),
        Operand::Cache(c) => Leaf::Cache(number(all.caches.iter().position(|x| *x == c)), cache_spec(graph, c, CTX, KvType::F32)),
        other => panic!("{other} is read before it is written"),
    };
    for launch in fused.graph.launches.values() {
        let bound: BTreeMap<Role, Operand> = launch.op.params().iter().map(|p| p.role).zip(launch.args.iter().copied()).collect();
        let mut given = BTreeMap::new();
        for role in operands(&launch.op).into_iter().map(|p| p.role) {
            let operand = bound[&role];
            let value = memory.get(&operand).cloned().unwrap_or_else(|| oracle.leaf(leaf(operand)));
            let ty = match operand {
                Operand::Weight(w) => Ty::Weight(graph.weights[w].dtype, graph.weights[w].rows, graph.weights[w].cols),
                Operand::Cache(c) => Ty::Cache(c.index() as u32, cache_spec(graph, c, CTX, KvType::F32)),
                _ => Ty::Wrong,
            };
            given.insert(role, (value, ty));
        }
        let written = oracle.launch(&launch.op, &given);
        for role in results(&launch.op).into_iter().map(|p| p.role) {
            memory.insert(bound[&role], written[&role].clone());
        }
    }
    fused.outputs.iter().map(|o| memory[o].clone()).collect()
}

#[test]
fn launches_mean_what_the_graph_means() {
    let target = Target::parse("gfx1100").unwrap();
    let mut compared = 0;
    for seed in 0..150 {
        let mut rng = ChaCha8Rng::seed_from_u64(1000 + seed);
        let graph = random_graph(&mut rng);
        let mut layered = graph.clone();
        cut_at_random(&mut layered, &mut rng);
        let kind = if rng.random_bool(0.7) { ProgramKind::Decode } else { ProgramKind::Prompt };
        let fused =
            fuse(&layered, kind, &FuseOptions::new(CTX, KvType::F32), target).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let quantized = place_quantize(&graph);
        let regions = region::cut(&quantized, CTX, KvType::F32);
        assert_eq!(regions.regions.len(), 1);
        let all = &regions.regions[0];
        for int8 in [false, true] {
            let oracle = Oracle::new(seed, int8);
            let values = plain(&regions.templates[0], &oracle);
            let found = run(&fused, &graph, all, &oracle);
            if oracle.tie.take() {
                continue;
            }
            for (output, found) in quantized.outputs.iter().zip(found) {
                let place = all.values.iter().position(|v| v == output).expect("an output is a node");
                assert!(!differ(&values[place], &found), "seed {seed}: {output} differs\n{layered}\n{}", fused.graph);
                compared += 1;
            }
        }
    }
    assert!(compared > 1000, "{compared}");
}
