//! The model graph: what is computed for one chunk of tokens, with nothing decided about how.
//!
//! A node has one result. Every vector value is `[tokens, n]`; the number of tokens is left open (1 in the decode
//! program, up to a chunk in the prompt program). The KV cache is threaded as a value: `append` yields a new version of the
//! cache and `attend` reads versions, so order follows from data flow alone.

use crate::dtype::{DType, Real};
use cranelift_entity::{PrimaryMap, entity_impl};
use serde::{Deserialize, Serialize};

/// Reference to a weight tensor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Weight(u32);
entity_impl!(Weight, "w");

/// Reference to a table of rotation angles.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rope(u32);
entity_impl!(Rope, "rope");

/// Reference to one layer's K or V cache.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cache(u32);
entity_impl!(Cache, "kv");

/// Reference to a node's result.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Value(u32);
entity_impl!(Value, "v");

/// A tensor of the model file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WeightDecl {
    /// The tensor's name in the GGUF file.
    pub name: String,
    /// Storage type.
    pub dtype: DType,
    /// Outputs of the matrix; 1 for a vector.
    pub rows: u32,
    /// Inputs of the matrix (the contiguous dimension), or the vector's length.
    pub cols: u32,
}

impl WeightDecl {
    /// Bytes of the tensor in GGUF's layout (`cols` is a whole number of blocks by construction).
    pub fn bytes(&self) -> u64 {
        u64::from(self.rows) * self.dtype.row_bytes(self.cols).unwrap_or(0)
    }
}

/// Which elements of a head are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RopeStyle {
    /// Pairs `(2i, 2i+1)` (llama).
    Norm,
    /// Pairs `(i, i + dims/2)` (qwen).
    Neox,
}

/// A table of rotation angles: position `p`, pair `i` turns by `p · freq_scale · base^(−2i/dims) / factors[i]`.
///
/// The runtime fills `[ctx, dims/2]` pairs `(cos, sin)` of f32 at load, computed in f64.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RopeDecl {
    /// Pairing.
    pub style: RopeStyle,
    /// Rotated elements of a head (even, ≤ head_dim).
    pub dims: u32,
    /// Frequency base.
    pub base: Real,
    /// Linear position scale (1 / factor).
    pub freq_scale: Real,
    /// Per-pair divisors of the frequency (`rope_freqs.weight`, f32 `[dims/2]`).
    pub factors: Option<Weight>,
}

/// K or V.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CacheKind {
    /// Keys.
    K,
    /// Values.
    V,
}

/// One layer's K or V cache, `[heads, ctx, head_dim]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CacheDecl {
    /// Layer.
    pub layer: u32,
    /// K or V.
    pub kind: CacheKind,
    /// KV heads.
    pub heads: u32,
    /// Values per head.
    pub head_dim: u32,
}

/// Non-linearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Act {
    /// `x / (1 + e^−x)`.
    Silu,
    /// `x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³)))`.
    Gelu,
}

/// Type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ty {
    /// Token ids, `[tokens]`.
    Ids,
    /// `[tokens, n]` of f32.
    F32(u32),
    /// `[tokens, n]` in int8 blocks.
    Q8(u32),
    /// A version of a cache.
    Cache(Cache),
}

/// What a node computes. Operands are values; weights, tables and caches are named in the op.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Op {
    /// The chunk's token ids. `() -> ids`
    Tokens,
    /// Rows of an embedding matrix. `(ids) -> f32[cols]`
    Embed(Weight),
    /// `x / sqrt(mean(x²) + eps) ⊙ weight` within each group of `weight.cols` consecutive values (the whole row, or a
    /// head). `(f32[n]) -> f32[n]`
    RmsNorm {
        /// Gain, one value per element of a group.
        weight: Weight,
        /// Added to the mean of squares.
        eps: Real,
    },
    /// `W · x`. `(f32[cols] or q8[cols]) -> f32[rows]`
    MatVec(Weight),
    /// `x + b`. `(f32[n]) -> f32[n]`
    Bias(Weight),
    /// `x + y`. `(f32[n], f32[n]) -> f32[n]`
    Add,
    /// `x ⊙ y`. `(f32[n], f32[n]) -> f32[n]`
    Mul,
    /// Non-linearity, element by element.
    Act(Act),
    /// Rotates every head by its token's position. `(f32[heads·head_dim]) -> same`
    Rope {
        /// Angles.
        rope: Rope,
        /// Values per head.
        head_dim: u32,
    },
    /// The cache with the chunk's keys or values written at the tokens' positions. `(f32[heads·head_dim]) -> cache`
    Append(Cache),
    /// Causal softmax attention: `softmax(scale · q·K) · V`, heads of q grouped over the KV heads.
    /// `(f32[heads·head_dim], cache K, cache V) -> f32[heads·head_dim]`
    Attend {
        /// Query heads.
        heads: u32,
        /// KV heads; divides `heads`.
        kv_heads: u32,
        /// Values per head.
        head_dim: u32,
        /// Multiplies the scores.
        scale: Real,
    },
    /// Rounds to int8 blocks ([`crate::dtype::Q8Layout`]). `(f32[n]) -> q8[n]`
    Quantize,
    /// Index of the largest value, the lowest on ties. `(f32[n]) -> ids`
    ArgMax,
}

/// A node: op, operands and result type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Node {
    /// What is computed.
    pub op: Op,
    /// Operands, each defined before.
    pub args: Vec<Value>,
    /// Type of the result.
    pub ty: Ty,
    /// Layer the node belongs to; `None` before and behind the layers.
    pub layer: Option<u32>,
}

/// A model as a graph in topological order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    /// A name to print.
    pub name: String,
    /// Tensors.
    pub weights: PrimaryMap<Weight, WeightDecl>,
    /// Rotation tables.
    pub ropes: PrimaryMap<Rope, RopeDecl>,
    /// Caches.
    pub caches: PrimaryMap<Cache, CacheDecl>,
    /// Nodes, operands before users.
    pub nodes: PrimaryMap<Value, Node>,
    /// What must be computed: the logits (`f32[vocab]`), then the arg-max (`ids`).
    pub outputs: Vec<Value>,
}

/// Adds nodes to a [`Graph`], working out their types; mismatches are programming errors of the builder, which must check a
/// file's shapes before, and are reported by [`crate::verify`].
#[derive(Debug, Default)]
pub struct GraphBuilder {
    graph: Graph,
    layer: Option<u32>,
}

impl GraphBuilder {
    /// An empty graph of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self { graph: Graph { name: name.into(), ..Graph::default() }, layer: None }
    }
    /// Marks the nodes added from now on as belonging to a layer (or to none).
    pub fn set_layer(&mut self, layer: Option<u32>) {
        self.layer = layer;
    }
    /// Declares a tensor.
    pub fn weight(&mut self, decl: WeightDecl) -> Weight {
        self.graph.weights.push(decl)
    }
    /// Declares a rotation table.
    pub fn rope_table(&mut self, decl: RopeDecl) -> Rope {
        self.graph.ropes.push(decl)
    }
    /// Declares a cache.
    pub fn cache(&mut self, decl: CacheDecl) -> Cache {
        self.graph.caches.push(decl)
    }
    /// The graph so far.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }
    /// Adds a node with the type its op implies.
    pub fn push(&mut self, op: Op, args: &[Value]) -> Value {
        let arg = |i: usize| args.get(i).map_or(Ty::F32(0), |&v| self.graph.nodes[v].ty);
        let ty = match &op {
            Op::Tokens | Op::ArgMax => Ty::Ids,
            Op::Embed(w) => Ty::F32(self.graph.weights[*w].cols),
            Op::MatVec(w) => Ty::F32(self.graph.weights[*w].rows),
            Op::Append(c) => Ty::Cache(*c),
            Op::Quantize => match arg(0) {
                Ty::F32(n) => Ty::Q8(n),
                other => other,
            },
            _ => arg(0),
        };
        self.graph.nodes.push(Node { op, args: args.to_vec(), ty, layer: self.layer })
    }
    /// Chunk's token ids.
    pub fn tokens(&mut self) -> Value {
        self.push(Op::Tokens, &[])
    }
    /// Embedding rows.
    pub fn embed(&mut self, w: Weight, ids: Value) -> Value {
        self.push(Op::Embed(w), &[ids])
    }
    /// RMSNorm with gain.
    pub fn rms_norm(&mut self, x: Value, weight: Weight, eps: f64) -> Value {
        self.push(Op::RmsNorm { weight, eps: Real(eps) }, &[x])
    }
    /// Matrix times vector.
    pub fn mat_vec(&mut self, w: Weight, x: Value) -> Value {
        self.push(Op::MatVec(w), &[x])
    }
    /// Adds a bias vector.
    pub fn bias(&mut self, x: Value, w: Weight) -> Value {
        self.push(Op::Bias(w), &[x])
    }
    /// Sum.
    pub fn add(&mut self, x: Value, y: Value) -> Value {
        self.push(Op::Add, &[x, y])
    }
    /// Product, element by element.
    pub fn mul(&mut self, x: Value, y: Value) -> Value {
        self.push(Op::Mul, &[x, y])
    }
    /// Non-linearity.
    pub fn act(&mut self, act: Act, x: Value) -> Value {
        self.push(Op::Act(act), &[x])
    }
    /// Rotary position embedding.
    pub fn rope(&mut self, x: Value, rope: Rope, head_dim: u32) -> Value {
        self.push(Op::Rope { rope, head_dim }, &[x])
    }
    /// Writes to a cache.
    pub fn append(&mut self, cache: Cache, x: Value) -> Value {
        self.push(Op::Append(cache), &[x])
    }
    /// Attention.
    #[allow(clippy::too_many_arguments)]
    pub fn attend(&mut self, q: Value, k: Value, v: Value, heads: u32, kv_heads: u32, head_dim: u32, scale: f64) -> Value {
        self.push(Op::Attend { heads, kv_heads, head_dim, scale: Real(scale) }, &[q, k, v])
    }
    /// Arg-max.
    pub fn arg_max(&mut self, x: Value) -> Value {
        self.push(Op::ArgMax, &[x])
    }
    /// Ends the graph with its outputs.
    pub fn finish(mut self, outputs: &[Value]) -> Graph {
        self.graph.outputs = outputs.to_vec();
        self.graph
    }
}
