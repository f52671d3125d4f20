//! Fused launches: each op is what one kernel launch computes. This is the vocabulary shared by the e-graph (which chooses
//! them), the emitter (which instantiates a skeleton for each), and the reference (which gives each its meaning).
//!
//! A launch has an ordered list of operands; [`FusedOp::params`] is the only place that fixes that order. Every kernel
//! takes exactly these operands, in this order, as 64-bit pointers, and nothing else.
//!
//! Layouts: an f32 vector is `[tokens, n]`, row-major. An int8 vector is [`Q8Layout`](crate::dtype::Q8Layout) per token.
//! Partial sums of squares are f32 `[tokens, parts]`, arg-max partials `[tokens, parts]` pairs (f32 value, i32 index).
//! A cache is `[heads, ctx, head_dim]`. A rotation table is `[ctx, dims/2]` pairs (cos, sin) of f32.

mod params;

pub use params::{Access, Param, Role, Shape};

use crate::dtype::{DType, KvType, Layout, Real};
use crate::graph::{Act, Cache, Graph, Rope, RopeStyle, Weight};
use cranelift_entity::{PrimaryMap, entity_impl};
use serde::{Deserialize, Serialize};

/// Reference to a value that a launch writes for later launches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slot(u32);
entity_impl!(Slot, "s");

/// Reference to a launch of a fused graph.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LaunchRef(u32);
entity_impl!(LaunchRef, "launch");

/// Form in which a GEMV takes its activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Input {
    /// f32, for float weights.
    F32,
    /// int8 blocks, for quantised weights.
    Q8,
}

/// A deferred RMSNorm: the consumer multiplies by `r = 1/sqrt(Σ ssq / n + eps)`, one scalar per token. The partial sums are
/// added in the order of their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Deferred {
    /// Length of the normed vector.
    pub n: u32,
    /// Added to the mean of squares.
    pub eps: Real,
}

/// What is written of a freshly computed f32 vector `y[n]`. With `gain`, `z = y ⊙ g`; without, `z = y`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finish {
    /// Write `y` as f32.
    pub raw: bool,
    /// Multiply by a gain vector (operand [`Role::Gain`]) for the two next forms.
    pub gain: bool,
    /// Write `z` as f32 (only with `gain`).
    pub f32: bool,
    /// Write `z` as int8 blocks.
    pub q8: bool,
    /// Write partial sums of `y²`, one per workgroup that computes a part of `y`.
    pub ssq: bool,
}

impl Finish {
    /// Only the f32 vector.
    pub const RAW: Finish = Finish { raw: true, gain: false, f32: false, q8: false, ssq: false };
    /// Only int8 blocks.
    pub const Q8: Finish = Finish { raw: false, gain: false, f32: false, q8: true, ssq: false };
}

/// Rotation as a kernel needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RopeSpec {
    /// Pairing.
    pub style: RopeStyle,
    /// Rotated elements of each head; the rest passes.
    pub dims: u32,
    /// Values per head.
    pub head_dim: u32,
}

/// Shape of one layer's K or V cache, `[heads, ctx, head_dim]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CacheSpec {
    /// KV heads.
    pub heads: u32,
    /// Values per head.
    pub head_dim: u32,
    /// Positions.
    pub ctx: u32,
    /// Storage type.
    pub kv: KvType,
}

impl CacheSpec {
    /// Bytes of the cache.
    pub fn bytes(&self) -> u64 {
        u64::from(self.heads) * u64::from(self.ctx) * u64::from(self.head_dim) * u64::from(self.kv.bytes())
    }
}

/// Where the rows of a GEMV segment go (after deferred norm and bias), when the segments have results of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SegmentOut {
    /// f32 vector ([`Role::Out`]), rotated by position first if asked.
    Store(Option<RopeSpec>),
    /// Cache at the token's position ([`Role::Cache`]), rotated by position first if asked.
    Append(Option<RopeSpec>, CacheSpec),
}

/// One weight matrix of a GEMV launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Segment {
    /// Storage type of the matrix.
    pub dtype: DType,
    /// Its layout on the device.
    pub layout: Layout,
    /// Outputs.
    pub rows: u32,
    /// Whether a bias vector of f32 is added (after the deferred norm).
    pub bias: bool,
}

/// How the products of a GEMV with one vector result are combined: `p` are the segments' results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Combine {
    /// `y = p0`.
    One,
    /// `y = act(p0)`.
    Act(Act),
    /// `y = act(p0) ⊙ p1` (two segments of equal rows).
    Gated(Act),
}

/// What happens to the products.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Tail {
    /// Each segment has its own result; same length as the segments.
    Separate(Vec<SegmentOut>),
    /// One result vector `y`, plus the residual vector if asked, then finished.
    Vector {
        /// How segments become `y`.
        combine: Combine,
        /// Whether an f32 vector ([`Role::Residual`]) is added.
        residual: bool,
        /// What is written.
        finish: Finish,
    },
    /// Logits as f32 and one arg-max partial per workgroup (one segment). Only for tokens `≥ state.head_from`.
    Head,
}

/// Several matrix × vector products that share their input, with an epilogue.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Gemv {
    /// Inputs of every matrix.
    pub k: u32,
    /// Form of the activations. All segments of one launch are float types (with `F32`) or all quantised (with `Q8`).
    pub input: Input,
    /// Scalar that multiplies every product.
    pub deferred: Option<Deferred>,
    /// Matrices.
    pub segments: Vec<Segment>,
    /// Epilogue.
    pub tail: Tail,
}

/// Embedding rows of the chunk's tokens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Embed {
    /// Rows of the matrix.
    pub vocab: u32,
    /// Values per row.
    pub n: u32,
    /// Storage type.
    pub dtype: DType,
    /// Layout on the device.
    pub layout: Layout,
    /// What is written.
    pub finish: Finish,
}

/// Work on the queries and the new key inside the attention launch: RMSNorm per head, rotation, append of K.
/// Only in programs of one token; the new V is in the cache already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QkPrologue {
    /// Per-head RMSNorm of q and k with gains ([`Role::QNorm`], [`Role::KNorm`]).
    pub norm: Option<Real>,
    /// Rotation.
    pub rope: Option<RopeSpec>,
}

/// Causal softmax attention over the cache, positions `0 ..= state.pos + t` for token `t`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attend {
    /// Query heads; query head `h` uses KV head `h / (heads / cache.heads)`.
    pub heads: u32,
    /// Both caches' shape.
    pub cache: CacheSpec,
    /// Multiplies the scores.
    pub scale: Real,
    /// Norm and rotation of q and k, and the append of k, if they are done here.
    pub prologue: Option<QkPrologue>,
    /// What is written (no ssq). `q8` only where a KV head's query values are whole blocks.
    pub finish: Finish,
}

/// Where a part of a [`Heads`] launch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum HeadOut {
    /// f32 vector.
    Store,
    /// Cache at the token's position.
    Append(CacheSpec),
}

/// One vector of heads to be normed, rotated and stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HeadPart {
    /// Heads.
    pub heads: u32,
    /// Values per head.
    pub head_dim: u32,
    /// RMSNorm per head with gain.
    pub norm: Option<Real>,
    /// Rotation.
    pub rope: Option<RopeSpec>,
    /// Destination.
    pub out: HeadOut,
}

/// Per-head work outside of other launches (prompt program of models with q/k norm; unfused plans).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Heads {
    /// Independent parts, one after the other in the operands.
    pub parts: Vec<HeadPart>,
}

/// Element-wise expression of a [`Row`] launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RowExpr {
    /// `x`.
    Copy,
    /// `x + y`.
    Add,
    /// `x ⊙ y`.
    Mul,
    /// `act(x)`.
    Act(Act),
    /// `act(x) ⊙ y`.
    Gated(Act),
    /// `x + b` with a bias weight ([`Role::Bias`]).
    Bias,
    /// RMSNorm of each group of `group` values with gain ([`Role::Norm`], `[group]`).
    Norm {
        /// Added to the mean of squares.
        eps: Real,
        /// Values normed together; divides n.
        group: u32,
    },
    /// `r · x` with a deferred scalar from partial sums.
    Scale(Deferred),
}

/// Element-wise work on one vector that no other launch took.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Row {
    /// Values.
    pub n: u32,
    /// What is computed.
    pub expr: RowExpr,
    /// Whether an f32 vector ([`Role::Residual`]) is added to it.
    pub residual: bool,
    /// What is written.
    pub finish: Finish,
}

/// The choice of the next token, for tokens `≥ state.head_from`: an id per token. The last token's id is also written to
/// `tokens[state.pos + state.n]`, where the next step's embedding finds it, and with the state's generation to the same place of the outbox.
///
/// It is the arg-max (the lowest index wins ties), but for the last token where [`crate::plan::SamplingState`] asks for more:
/// then the logits go through the sampler's chain, and the uniform number is `draws[state.pos + state.n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Choose {
    /// Length of the logits.
    pub n: u32,
    /// Whether partials of the head launch are read besides the logits.
    pub partials: bool,
    /// Whether the state becomes that of the next step, `{pos: pos + n, n: 1, head_from: 0}` of the same generation, so that steps can follow each
    /// other without the host. Only in the decode program, whose last launch this is.
    pub advance: bool,
}

/// Rows of a weight from GGUF's layout into another: once, when a plan is loaded. Of a weight larger than the staging buffer
/// piece after piece: rows `state.pos ..` of it, `state.n` of them, which are the first rows of the staging buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Repack {
    /// Storage type.
    pub dtype: DType,
    /// Layout that is written.
    pub layout: Layout,
    /// Rows of the weight.
    pub rows: u32,
    /// Values per row.
    pub cols: u32,
    /// Most rows at a time.
    pub piece: u32,
}

/// What one launch computes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FusedOp {
    /// Embedding.
    Embed(Embed),
    /// Matrix × vector.
    Gemv(Gemv),
    /// Attention.
    Attend(Attend),
    /// Per-head work.
    Heads(Heads),
    /// Element-wise work.
    Row(Row),
    /// Choice of the next token.
    Choose(Choose),
    /// A weight's layout; not part of a step.
    Repack(Repack),
}

impl FusedOp {
    /// The same op on weights in the layout that `of` gives for their type and columns.
    pub fn with_layouts(mut self, of: impl Fn(DType, u32) -> Layout) -> Self {
        match &mut self {
            FusedOp::Embed(e) => e.layout = of(e.dtype, e.n),
            FusedOp::Gemv(g) => g.segments.iter_mut().for_each(|s| s.layout = of(s.dtype, g.k)),
            FusedOp::Attend(_) | FusedOp::Heads(_) | FusedOp::Row(_) | FusedOp::Choose(_) | FusedOp::Repack(_) => {}
        }
        self
    }
}

/// What an operand of a launch is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Operand {
    /// Step state.
    State,
    /// Token list.
    Tokens,
    /// Chosen ids for the host.
    Outbox,
    /// How to sample.
    Sampling,
    /// Uniform numbers to sample with.
    Draws,
    /// A weight.
    Weight(Weight),
    /// A rotation table.
    Rope(Rope),
    /// A cache.
    Cache(Cache),
    /// A value of this step.
    Slot(Slot),
    /// Scratch of the launch itself (also its counters).
    Own,
}

impl Operand {
    /// What an operand of this role is in every launch; `None` where it depends on the launch.
    pub fn always(role: Role) -> Option<Self> {
        Some(match role {
            Role::State => Self::State,
            Role::Tokens => Self::Tokens,
            Role::Outbox => Self::Outbox,
            Role::Sampling => Self::Sampling,
            Role::Draws => Self::Draws,
            Role::Scratch | Role::Counters => Self::Own,
            _ => return None,
        })
    }
}

/// A launch: op, operands parallel to [`FusedOp::params`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FusedLaunch {
    /// What is computed.
    pub op: FusedOp,
    /// Operands.
    pub args: Vec<Operand>,
    /// Layer, for reports.
    pub layer: Option<u32>,
    /// Short name for reports and kernel names: `qkv`, `attn`, `o`, `gate_up`, `down`, `head`, …
    pub label: String,
}

/// Which program a fused graph is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ProgramKind {
    /// One token per step.
    Decode,
    /// Up to a chunk of tokens per step.
    Prompt,
}

/// A program as an ordered list of launches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FusedGraph {
    /// Decode or prompt.
    pub kind: ProgramKind,
    /// Values between launches; each is written by exactly one launch before it is read.
    pub slots: PrimaryMap<Slot, Shape>,
    /// Launches in execution order.
    pub launches: PrimaryMap<LaunchRef, FusedLaunch>,
    /// The logits.
    pub logits: Slot,
    /// The arg-max ids.
    pub ids: Slot,
}

impl FusedGraph {
    /// Launches that belong to this layer.
    pub fn layer_launches(&self, layer: u32) -> usize {
        self.launches.values().filter(|l| l.layer == Some(layer)).count()
    }
}

/// How a rotation of the model graph looks to a kernel.
pub fn rope_spec(graph: &Graph, rope: Rope, head_dim: u32) -> RopeSpec {
    let decl = &graph.ropes[rope];
    RopeSpec { style: decl.style, dims: decl.dims, head_dim }
}
