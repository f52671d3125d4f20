//! Verifiers: a sound graph passes, and each rule, broken by one change of its text, is named.

use hipc_ir::fused::FusedGraph;
use hipc_ir::graph::Graph;
use hipc_ir::verify;

const GRAPH: &str = r#"graph "tiny"
w0 = {name: "embd", dtype: Q8_0, rows: 8, cols: 64}
w1 = {name: "norm", dtype: F32, rows: 1, cols: 64}
w2 = {name: "q", dtype: Q8_0, rows: 64, cols: 64}
w3 = {name: "k", dtype: Q8_0, rows: 32, cols: 64}
w4 = {name: "b", dtype: F32, rows: 1, cols: 32}
w5 = {name: "factors", dtype: F32, rows: 1, cols: 16}
rope0 = {style: Norm, dims: 32, base: 10000.0, freq_scale: 1.0, factors: w5}
kv0 = {layer: 0, kind: K, heads: 1, head_dim: 32}
kv1 = {layer: 0, kind: V, heads: 1, head_dim: 32}
v0 = Tokens : Ids
v1 = Embed(w0) v0 : F32(64)
v2 = RmsNorm{weight: w1, eps: 1e-5} v1 : F32(64) @0
v3 = Quantize v2 : Q8(64) @0
v4 = MatVec(w2) v3 : F32(64) @0
v5 = Rope{rope: rope0, head_dim: 32} v4 : F32(64) @0
v6 = MatVec(w3) v2 : F32(32) @0
v7 = Bias(w4) v6 : F32(32) @0
v8 = Append(kv0) v7 : Cache(kv0) @0
v9 = Append(kv1) v7 : Cache(kv1) @0
v10 = Attend{heads: 2, kv_heads: 1, head_dim: 32, scale: 0.5} v5 v8 v9 : F32(64) @0
v11 = Add v10 v1 : F32(64) @0
v12 = Act(Silu) v11 : F32(64)
v13 = Mul v12 v11 : F32(64)
v14 = MatVec(w0) v13 : F32(8)
v15 = ArgMax v14 : Ids
outputs v14 v15
"#;

fn graph_fault(from: &str, to: &str) -> String {
    assert!(GRAPH.contains(from), "{from}");
    let graph: Graph = GRAPH.replacen(from, to, 1).parse().unwrap();
    verify::graph(&graph).map_err(|e| e.to_string()).unwrap_err()
}

#[test]
fn graphs() {
    assert_eq!(verify::graph(&GRAPH.parse().unwrap()), Ok(()));
    for (from, to, expected) in [
        ("rows: 8, cols: 64", "rows: 8, cols: 65", "w0: embd [8 x 65] is not made of whole Q8_0 blocks"),
        ("dims: 32", "dims: 31", "rope0: the number of rotated elements must be even"),
        ("dims: 32", "dims: 34", "rope0: factors must be f32 [dims/2]"),
        ("factors: w5", "factors: w6", "rope0: w6 is not declared"),
        ("heads: 1, head_dim: 32}\nkv1", "heads: 0, head_dim: 32}\nkv1", "kv0: a cache has heads and elements"),
        ("Embed(w0) v0", "Embed(w9) v0", "v1: w9 is not declared"),
        ("Embed(w0) v0", "Embed(w0) v2", "v1: v2 is used before it is defined"),
        ("Embed(w0) v0", "Embed(w0)", "v1: 0 operands where 1 are needed"),
        ("RmsNorm{weight: w1, eps: 1e-5} v1", "RmsNorm{weight: w1, eps: 1e-5} v0", "v2: operand 0 is Ids, not F32"),
        ("RmsNorm{weight: w1", "RmsNorm{weight: w2", "v2: a gain of 64 doesn't divide 64 values"),
        ("MatVec(w2) v3 : F32(64)", "MatVec(w2) v3 : F32(32)", "v4: the result is F32(32), not F32(64)"),
        ("MatVec(w3) v2", "MatVec(w3) v0", "v6: operand 0 is Ids, not F32(64) or Q8(64)"),
        ("Bias(w4) v6", "Bias(w1) v6", "v7: a bias of 64 doesn't fit 32 values"),
        ("Rope{rope: rope0, head_dim: 32}", "Rope{rope: rope0, head_dim: 16}", "v5: more elements are rotated than a head has"),
        ("Rope{rope: rope0, head_dim: 32}", "Rope{rope: rope0, head_dim: 48}", "v5: heads of 48 don't divide 64 values"),
        ("Append(kv0) v7", "Append(kv0) v5", "v8: 64 values are no row of kv0"),
        ("Attend{heads: 2", "Attend{heads: 3", "v10: 64 values are not 3 heads of 32"),
        ("v5 v8 v9", "v5 v9 v8", "v10: kv1 is not K of 1 heads of 32"),
        ("v5 v8 v9", "v5 v8 v7", "v10: operand 2 is F32(32), not a cache"),
        ("Add v10 v1", "Add v10 v7", "v11: vectors of 64 and 32 values don't fit"),
        ("Add v10 v1", "Add v10 v1 v1", "v11: 3 operands where 2 are needed"),
        ("outputs v14 v15", "outputs v14 v16", "outputs: v16 is not declared"),
    ] {
        assert_eq!(graph_fault(from, to), expected, "{from} -> {to}");
    }
    let by_groups: Graph = GRAPH.replace("RmsNorm{weight: w1", "RmsNorm{weight: w4").parse().unwrap();
    assert_eq!(verify::graph(&by_groups), Ok(()));
}

const FUSED: &str = r#"fused Decode
s0 = F32(64)
s1 = Q8(64)
s2 = Ssq
s3 = F32(64)
s4 = Q8(64)
s5 = F32(8)
s6 = Partials
s7 = Ids
launch0 = "embed" Embed{vocab: 8, n: 64, dtype: Q8_0, finish: {raw, gain, q8, ssq}} (state, tokens, w0, w1, s0, s1, s2)
launch1 = "qk" Gemv{k: 64, input: Q8, deferred: {n: 64, eps: 1e-5}, segments: [{dtype: Q8_0, rows: 64}, {dtype: Q8_0, rows: 32, bias}, {dtype: Q8_0, rows: 32, bias}], tail: Separate([Store({style: Norm, dims: 32, head_dim: 32}), Append(_, {heads: 1, head_dim: 32, ctx: 16, kv: F16}), Append(_, {heads: 1, head_dim: 32, ctx: 16, kv: F16})])} (state, s1, s2, w2, w3, w4, w3, w4, rope0, s3, kv0, kv1) @0
launch2 = "attn" Attend{heads: 2, cache: {heads: 1, head_dim: 32, ctx: 16, kv: F16}, scale: 0.5, finish: {q8}} (state, s3, kv0, kv1, s4, own, own) @0
launch3 = "head" Gemv{k: 64, input: Q8, segments: [{dtype: Q8_0, rows: 8}], tail: Head} (state, s4, w0, s5, s6)
launch4 = "choose" Choose{n: 8, partials, advance} (state, s6, s5, tokens, s7, outbox, sampling, draws)
logits s5
ids s7
"#;

#[test]
fn fused_graphs() {
    let graph: Graph = GRAPH.parse().unwrap();
    let verified = |text: &str| verify::fused(&text.parse::<FusedGraph>().unwrap(), &graph).map_err(|e| e.to_string());
    assert_eq!(verified(FUSED), Ok(()));
    for (from, to, expected) in [
        ("finish: {raw, gain, q8, ssq}", "finish: {raw, gain, f32, q8, ssq}", "launch0 `embed`: 7 operands where 8 are needed"),
        ("finish: {raw, gain, q8, ssq}", "finish: {raw, gain, ssq}", "launch0 `embed`: a gain without a form that uses it"),
        ("finish: {q8}", "finish: {}", "launch2 `attn`: nothing is written"),
        ("vocab: 8, n: 64", "vocab: 8, n: 65", "launch0 `embed`: 65 values are not whole int8 blocks"),
        (
            "vocab: 8, n: 64",
            "vocab: 9, n: 64",
            "Weight(0) is w0 = {name: \"embd\", dtype: Q8_0, rows: 8, cols: 64}, not Weight{dtype: Q8_0, rows: 9, cols: 64}",
        ),
        ("(state, s1, s2,", "(state, s0, s2,", "launch1 `qk`: X(0) is s0 = F32(64), not Q8(64)"),
        ("(state, s1, s2,", "(state, s4, s2,", "launch1 `qk`, X(0): s4 is used before it is defined"),
        ("(state, s3, kv0, kv1,", "(state, s3, kv1, kv0,", "launch2 `attn`: CacheK is kv1"),
        ("rope0, s3, kv0, kv1)", "rope0, s3, kv0, kv0)", "kv0 is written 2 times"),
        ("(state, s4, w0, s5, s6)", "(state, s4, w0, s0, s6)", "Logits is s0 = F32(64), not F32(8)"),
        ("(state, s3, kv0", "(own, s3, kv0", "State is own, not State"),
        ("input: Q8, segments", "input: F32, segments", "launch3 `head`: Q8_0 weights with F32 activations"),
        ("rows: 32, bias}, {", "rows: 64, bias}, {", "launch1 `qk`: 64 values are no row of a cache of 1 x 32"),
        (
            "dims: 32, head_dim: 32}), ",
            "dims: 34, head_dim: 32}), ",
            "launch1 `qk`: rotated elements must be even and within a head",
        ),
        ("heads: 2, cache: {heads: 1", "heads: 3, cache: {heads: 2", "launch2 `attn`: KV heads must divide the query heads"),
        ("fused Decode", "fused Prompt", "launch4 `choose`: the state is advanced by the last launch of the decode program only"),
        ("tokens, s7, outbox", "tokens, s7, tokens", "launch4 `choose`: Outbox is tokens, not Outbox"),
        ("ids s7", "ids s9", "ids: s9 is not declared"),
        ("logits s5", "logits s6", "logits: the logits are f32"),
    ] {
        assert!(FUSED.contains(from), "{from}");
        let found = verified(&FUSED.replacen(from, to, 1)).unwrap_err();
        assert!(found.contains(expected), "{from} -> {to}\n{found}\n{expected}");
    }
    let unwritten = FUSED.replace("s7 = Ids\n", "s7 = Ids\ns8 = Ids\n");
    assert_eq!(verified(&unwritten).unwrap_err(), "s8 is written 0 times");
}
