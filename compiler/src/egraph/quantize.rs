//! Puts `quantize` before products with quantised weights.
//!
//! A named pass before the e-graph, with one policy: a mat-vec whose weights are quantised takes int8 blocks, any other takes f32. Rules move a
//! `quantize` across positive scalars later on, but never make or drop one, so that rounding happens where this pass says it does.

use hipc_ir::graph::{Graph, Node, Op, Ty, Value};
use hipc_ir::{EntityRef, PrimaryMap};
use std::collections::HashMap;

/// The graph with a `quantize` before each mat-vec of quantised weights, one per input vector.
///
/// Before: mat-vecs take f32. After: the input of every mat-vec of quantised weights is `q8`; everything else is as it was.
pub fn place_quantize(graph: &Graph) -> Graph {
    let mut out = Graph { nodes: PrimaryMap::new(), outputs: Vec::new(), ..graph.clone() };
    let mut new: Vec<Value> = Vec::with_capacity(graph.nodes.len());
    let mut quantized: HashMap<Value, Value> = HashMap::new();
    for node in graph.nodes.values() {
        let mut args: Vec<Value> = node.args.iter().map(|a| new[a.index()]).collect();
        if let Op::MatVec(w) = node.op
            && graph.weights[w].dtype.is_quantized()
        {
            for x in &mut args {
                if let Ty::F32(n) = out.nodes[*x].ty {
                    let source = *x;
                    *x = *quantized.entry(source).or_insert_with(|| {
                        out.nodes.push(Node { op: Op::Quantize, args: vec![source], ty: Ty::Q8(n), layer: node.layer })
                    });
                }
            }
        }
        new.push(out.nodes.push(Node { args, ..node.clone() }));
    }
    out.outputs = graph.outputs.iter().map(|v| new[v.index()]).collect();
    out
}
