//! Hand-made fused graphs for tests of the stages behind the e-graph: a llama in its five launches per layer.

use crate::schedule::Request;
use crate::tuning::Tuning;
use hipc_ir::dtype::{DType, KvType, Layout, Real};
use hipc_ir::fused::{
    Attend, CacheSpec, Choose, Combine, Deferred, Embed, Finish, FusedGraph, FusedLaunch, FusedOp, Gemv, Input, Operand,
    ProgramKind, Role, Segment, SegmentOut, Shape, Slot, Tail, rope_spec,
};
use hipc_ir::graph::{Act, CacheDecl, CacheKind, Graph, RopeDecl, RopeStyle, Weight, WeightDecl};
use hipc_ir::plan::ModelInfo;
use hipc_ir::{EntityRef, PrimaryMap};

/// Sizes of a llama.
#[derive(Clone, Copy, Debug)]
pub struct Llama {
    pub layers: u32,
    pub vocab: u32,
    pub n: u32,
    pub ffn: u32,
    pub heads: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    pub ctx: u32,
    pub dtype: DType,
    pub style: RopeStyle,
}

impl Llama {
    pub const SMALL: Llama = Llama {
        layers: 2,
        vocab: 323,
        n: 256,
        ffn: 768,
        heads: 8,
        kv_heads: 2,
        head_dim: 32,
        ctx: 256,
        dtype: DType::Q4_K,
        style: RopeStyle::Norm,
    };
    pub const L8B: Llama = Llama {
        layers: 32,
        vocab: 128256,
        n: 4096,
        ffn: 14336,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        ctx: 4096,
        dtype: DType::Q4_K,
        style: RopeStyle::Norm,
    };
}

/// A model with both programs.
pub struct Model {
    pub graph: Graph,
    pub info: ModelInfo,
    pub decode: FusedGraph,
    pub prompt: FusedGraph,
    pub ctx: u32,
}

impl Model {
    pub fn new(l: &Llama) -> Self {
        let graph = declarations(l);
        let info = ModelInfo { name: "test".into(), arch: "llama".into(), layers: l.layers, vocab: l.vocab, ctx_train: 8192 };
        let (decode, prompt) = (fused(l, &graph, ProgramKind::Decode), fused(l, &graph, ProgramKind::Prompt));
        Self { graph, info, decode, prompt, ctx: l.ctx }
    }

    pub fn with_request<T>(&self, target: &str, f: impl FnOnce(&Request) -> T) -> T {
        let target = crate::target::Target::parse(target).unwrap();
        let programs = [(&self.decode, 1), (&self.prompt, 64)];
        f(&Request {
            graph: &self.graph,
            model: &self.info,
            ctx: self.ctx,
            kv: KvType::F16,
            programs: &programs,
            target,
            tuning: &Tuning::NONE,
        })
    }

    pub fn plan(&self, target: &str) -> hipc_ir::plan::Plan {
        self.with_request(target, |r| crate::schedule::schedule(r).unwrap())
    }
}

fn declarations(l: &Llama) -> Graph {
    let mut graph = Graph { name: "test".into(), ..Graph::default() };
    let mut matrix = |name: String, rows, cols| graph.weights.push(WeightDecl { name, dtype: l.dtype, rows, cols });
    matrix("token_embd.weight".into(), l.vocab, l.n);
    matrix("output.weight".into(), l.vocab, l.n);
    for i in 0..l.layers {
        matrix(format!("blk.{i}.attn_q.weight"), l.heads * l.head_dim, l.n);
        matrix(format!("blk.{i}.attn_k.weight"), l.kv_heads * l.head_dim, l.n);
        matrix(format!("blk.{i}.attn_v.weight"), l.kv_heads * l.head_dim, l.n);
        matrix(format!("blk.{i}.attn_output.weight"), l.n, l.heads * l.head_dim);
        matrix(format!("blk.{i}.ffn_gate.weight"), l.ffn, l.n);
        matrix(format!("blk.{i}.ffn_up.weight"), l.ffn, l.n);
        matrix(format!("blk.{i}.ffn_down.weight"), l.n, l.ffn);
    }
    let mut vector = |name: String| graph.weights.push(WeightDecl { name, dtype: DType::F32, rows: 1, cols: l.n });
    vector("output_norm.weight".into());
    for i in 0..l.layers {
        vector(format!("blk.{i}.attn_norm.weight"));
        vector(format!("blk.{i}.ffn_norm.weight"));
    }
    graph.ropes.push(RopeDecl { style: l.style, dims: l.head_dim, base: Real(1e4), freq_scale: Real(1.0), factors: None });
    for layer in 0..l.layers {
        for kind in [CacheKind::K, CacheKind::V] {
            graph.caches.push(CacheDecl { layer, kind, heads: l.kv_heads, head_dim: l.head_dim });
        }
    }
    graph
}

struct Builder<'a> {
    graph: &'a Graph,
    fused: FusedGraph,
}

impl Builder<'_> {
    fn weight(&self, name: &str) -> Operand {
        let found = self.graph.weights.iter().find(|(_, d)| d.name == name);
        Operand::Weight(found.unwrap_or_else(|| panic!("{name}")).0)
    }

    /// Adds a launch; written operands that `bind` does not know become slots. Returns the slots written, in order.
    fn launch(&mut self, op: FusedOp, label: &str, layer: Option<u32>, bind: impl Fn(Role) -> Option<Operand>) -> Vec<Slot> {
        let mut written = Vec::new();
        let mut args = Vec::new();
        for param in op.params() {
            let rope = || (param.role == Role::RopeTable).then(|| Operand::Rope(EntityRef::new(0)));
            args.push(Operand::always(param.role).or_else(rope).or_else(|| bind(param.role)).unwrap_or_else(|| {
                let slot = self.fused.slots.push(param.shape);
                written.push(slot);
                Operand::Slot(slot)
            }));
        }
        self.fused.launches.push(FusedLaunch { op, args, layer, label: label.into() });
        written
    }
}

fn fused(l: &Llama, graph: &Graph, kind: ProgramKind) -> FusedGraph {
    let none = Slot::from_u32(0);
    let fused = FusedGraph { kind, slots: PrimaryMap::new(), launches: PrimaryMap::new(), logits: none, ids: none };
    let mut b = Builder { graph, fused };
    let q8 = l.dtype.is_quantized();
    let input = if q8 { Input::Q8 } else { Input::F32 };
    let next = Finish { raw: true, gain: true, f32: !q8, q8, ssq: true };
    let last = if q8 { Finish::Q8 } else { Finish::RAW };
    let deferred = Some(Deferred { n: l.n, eps: Real(1e-5) });
    let cache = CacheSpec { heads: l.kv_heads, head_dim: l.head_dim, ctx: l.ctx, kv: KvType::F16 };
    let segment = |rows| Segment { dtype: l.dtype, layout: Layout::Gguf, rows, bias: false };
    let rope = Some(rope_spec(graph, EntityRef::new(0), l.head_dim));
    let (dq, dkv) = (l.heads * l.head_dim, l.kv_heads * l.head_dim);
    let weights = |b: &Builder, names: &[String]| -> Vec<Operand> { names.iter().map(|n| b.weight(n)).collect() };

    let (w, g) = (b.weight("token_embd.weight"), b.weight("blk.0.attn_norm.weight"));
    let op = FusedOp::Embed(Embed { vocab: l.vocab, n: l.n, dtype: l.dtype, layout: Layout::Gguf, finish: next });
    let mut x = b.launch(op, "embed", None, |r| match r {
        Role::Weight(0) => Some(w),
        Role::Gain => Some(g),
        _ => None,
    });
    for i in 0..l.layers {
        let w = weights(&b, &["q", "k", "v"].map(|m| format!("blk.{i}.attn_{m}.weight")));
        let op = FusedOp::Gemv(Gemv {
            k: l.n,
            input,
            deferred,
            segments: vec![segment(dq), segment(dkv), segment(dkv)],
            tail: Tail::Separate(vec![SegmentOut::Store(rope), SegmentOut::Append(rope, cache), SegmentOut::Append(None, cache)]),
        });
        let caches = [Operand::Cache(EntityRef::new(2 * i as usize)), Operand::Cache(EntityRef::new(2 * i as usize + 1))];
        let q = b.launch(op, "qkv", Some(i), |r| match r {
            Role::X(_) => Some(Operand::Slot(x[1])),
            Role::Ssq => Some(Operand::Slot(x[2])),
            Role::Weight(j) => Some(w[j as usize]),
            Role::Cache(j) => Some(caches[j as usize - 1]),
            _ => None,
        });
        let op = FusedOp::Attend(Attend { heads: l.heads, cache, scale: Real(0.125), prologue: None, finish: last });
        let a = b.launch(op, "attn", Some(i), |r| match r {
            Role::Q => Some(Operand::Slot(q[0])),
            Role::CacheK => Some(caches[0]),
            Role::CacheV => Some(caches[1]),
            _ => None,
        });
        let residual = |b: &mut Builder, k, label: &str, w: Operand, g: Operand, input_slot: Slot, x: Slot| {
            let tail = Tail::Vector { combine: Combine::One, residual: true, finish: next };
            let op = FusedOp::Gemv(Gemv { k, input, deferred: None, segments: vec![segment(l.n)], tail });
            b.launch(op, label, Some(i), |r| match r {
                Role::X(_) => Some(Operand::Slot(input_slot)),
                Role::Weight(_) => Some(w),
                Role::Residual => Some(Operand::Slot(x)),
                Role::Gain => Some(g),
                _ => None,
            })
        };
        let (w, g) = (b.weight(&format!("blk.{i}.attn_output.weight")), b.weight(&format!("blk.{i}.ffn_norm.weight")));
        x = residual(&mut b, dq, "o", w, g, a[0], x[0]);
        let w = weights(&b, &["gate", "up"].map(|m| format!("blk.{i}.ffn_{m}.weight")));
        let op = FusedOp::Gemv(Gemv {
            k: l.n,
            input,
            deferred,
            segments: vec![segment(l.ffn), segment(l.ffn)],
            tail: Tail::Vector { combine: Combine::Gated(Act::Silu), residual: false, finish: last },
        });
        let y = b.launch(op, "gate_up", Some(i), |r| match r {
            Role::X(_) => Some(Operand::Slot(x[1])),
            Role::Ssq => Some(Operand::Slot(x[2])),
            Role::Weight(j) => Some(w[j as usize]),
            _ => None,
        });
        let norm = if i + 1 == l.layers { "output_norm.weight".into() } else { format!("blk.{}.attn_norm.weight", i + 1) };
        let (w, g) = (b.weight(&format!("blk.{i}.ffn_down.weight")), b.weight(&norm));
        x = residual(&mut b, l.ffn, "down", w, g, y[0], x[0]);
    }
    let w = b.weight("output.weight");
    let op = FusedOp::Gemv(Gemv { k: l.n, input, deferred, segments: vec![segment(l.vocab)], tail: Tail::Head });
    let head = b.launch(op, "head", None, |r| match r {
        Role::X(_) => Some(Operand::Slot(x[1])),
        Role::Ssq => Some(Operand::Slot(x[2])),
        Role::Weight(_) => Some(w),
        _ => None,
    });
    let choose = Choose { n: l.vocab, partials: true, advance: kind == ProgramKind::Decode };
    let ids = b.launch(FusedOp::Choose(choose), "choose", None, |r| match r {
        Role::Partials => Some(Operand::Slot(head[1])),
        Role::Logits => Some(Operand::Slot(head[0])),
        _ => None,
    });
    b.fused.logits = head[0];
    b.fused.ids = ids[0];
    b.fused
}

#[test]
fn weights_are_found() {
    let model = Model::new(&Llama::SMALL);
    assert_eq!(model.decode.launches.len(), 1 + 5 * 2 + 2);
    assert!(model.decode.launches.values().all(|l| l.op.params().len() == l.args.len()));
    assert!(matches!(model.decode.slots[model.decode.logits], Shape::F32(323)));
    let _: Weight = EntityRef::new(0);
}
