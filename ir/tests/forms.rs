//! Every IR prints and parses back, whatever is in it: values of all types are drawn at random through serde, so that a
//! new op is covered as soon as it exists.

mod draw;

use draw::drawn;
use hipc_ir::form::KernelList;
use hipc_ir::fused::{FusedGraph, FusedOp};
use hipc_ir::graph::{Graph, Op};
use hipc_ir::plan::Plan;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use std::fmt::{Debug, Display};
use std::str::FromStr;

fn round_trip<T: DeserializeOwned + Display + FromStr<Err: Debug> + PartialEq + Debug>(seed: u64) {
    let value: T = drawn(seed);
    let text = value.to_string();
    let parsed: T = text.parse().unwrap_or_else(|e| panic!("{e:?}\n{text}"));
    assert_eq!(parsed, value, "{text}");
    assert_eq!(parsed.to_string(), text);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn graphs_print_and_parse(seed: u64) {
        round_trip::<Graph>(seed);
    }

    #[test]
    fn fused_graphs_print_and_parse(seed: u64) {
        round_trip::<FusedGraph>(seed);
    }

    #[test]
    fn plans_print_and_parse(seed: u64) {
        round_trip::<Plan>(seed);
        let kernels = KernelList(drawn::<Plan>(seed).kernels);
        prop_assert_eq!(kernels.to_string().parse::<KernelList>().unwrap(), kernels);
    }

    /// Cut, doubled and changed texts are refused or mean something; they never panic.
    #[test]
    fn damaged_texts_do_not_panic(seed: u64, at: prop::sample::Index, with in "[ -~]{0,3}", cut in 0usize..4) {
        let texts = [drawn::<Graph>(seed).to_string(), drawn::<FusedGraph>(seed).to_string(), drawn::<Plan>(seed).to_string()];
        for text in texts {
            let chars: Vec<char> = text.chars().collect();
            let at = at.index(chars.len());
            let after = chars.iter().skip(at + cut);
            let damaged: String = chars[..at].iter().copied().chain(with.chars()).chain(after.copied()).collect();
            let _ = (damaged.parse::<Graph>(), damaged.parse::<FusedGraph>(), damaged.parse::<Plan>());
        }
    }
}

#[test]
fn every_op_is_drawn() {
    let name = |debug: String| debug.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_string();
    let ops: std::collections::BTreeSet<String> = (0..500).map(|s| name(format!("{:?}", drawn::<Op>(s)))).collect();
    assert_eq!(ops.len(), 13, "{ops:?}");
    let ops: std::collections::BTreeSet<String> = (0..500).map(|s| name(format!("{:?}", drawn::<FusedOp>(s)))).collect();
    assert_eq!(ops.len(), 7, "{ops:?}");
}

#[test]
fn a_graph_reads_as_written() {
    let text = r#"
; one norm and a matrix
graph "tiny"
w0 = {name: "embd", dtype: F16, rows: 8, cols: 4}
w1 = {name: "norm", dtype: F32, rows: 1, cols: 4}
rope0 = {style: Neox, dims: 4, base: 10000.0, freq_scale: 1.0, factors: w1}
kv0 = {layer: 0, kind: K, heads: 1, head_dim: 4}
v0 = Tokens : Ids
v1 = Embed(w0) v0 : F32(4)
v2 = RmsNorm{weight: w1, eps: 1e-5} v1 : F32(4) @0
v3 = MatVec(w0) v2 : F32(8)
outputs v3
"#;
    let graph: Graph = text.parse().unwrap();
    assert_eq!(graph.nodes.len(), 4);
    let printed = graph.to_string();
    assert_eq!(printed.trim(), text.split_once('\n').unwrap().1.split_once('\n').unwrap().1.trim());

    let fault = |text: &str| text.parse::<Graph>().unwrap_err().to_string();
    assert_eq!(fault(&text.replace("v3 =", "v4 =")), "line 11: v4 comes where v3 should");
    assert_eq!(fault(&text.replace(", cols: 4}\nrope", "}\nrope")), "line 5: the field `cols` is missing");
    assert_eq!(fault(&text.replace("eps:", "epsilon:")), "line 10: no field `epsilon` is expected here; there are: eps");
    assert_eq!(fault("graph \"x\"\n"), "line 2: the text ends too early");
    assert_eq!(fault(&format!("{text}\nv9\n")), "line 14: did not expect `v9`");
}

#[test]
fn launches_read_as_written() {
    let text = r#"fused Decode
s0 = F32(64)
s1 = Q8(64)
launch0 = "embed" Embed{vocab: 8, n: 64, dtype: Q8_0, finish: {raw, q8}} (state, tokens, w0, s0, s1)
launch1 = "mv" Gemv{k: 64, input: Q8, segments: [{dtype: Q8_0, rows: 8}], tail: Vector{combine: Gated(Silu), finish: {raw}}} (state, s1, w0, s0) @3
logits s0
ids s1
"#;
    assert_eq!(text.parse::<FusedGraph>().unwrap().to_string(), text);
}
