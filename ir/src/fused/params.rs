//! The operands of every launch, in the order of the kernel's arguments.

use super::{CacheSpec, Finish, FusedOp, Gemv, HeadOut, Input, Repack, RopeSpec, RowExpr, SegmentOut, Tail};
use crate::dtype::{DType, Layout};
use serde::{Deserialize, Serialize};

/// What an operand is for. Indices count segments or parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// Step state, see [`crate::plan::StepState`].
    State,
    /// All token ids of the sequence by position, i32.
    Tokens,
    /// Weight matrix of a segment, or the embedding matrix (0).
    Weight(u32),
    /// Bias of a segment, f32.
    Bias(u32),
    /// Gain of an RMSNorm that is applied here (Row; part of Heads), f32.
    Norm(u32),
    /// Gain of [`Finish`], f32.
    Gain,
    /// First input vector, or input of a part.
    X(u32),
    /// Second input vector of an expression.
    Y,
    /// Partial sums of squares read.
    Ssq,
    /// Vector added.
    Residual,
    /// Rotation table.
    RopeTable,
    /// Query vector.
    Q,
    /// New key vector before norm and rotation.
    K,
    /// Gain of the query norm, f32.
    QNorm,
    /// Gain of the key norm, f32.
    KNorm,
    /// K cache.
    CacheK,
    /// V cache.
    CacheV,
    /// Cache written by a segment or part.
    Cache(u32),
    /// f32 result of a segment or part.
    Out(u32),
    /// `y` of [`Finish`].
    Raw,
    /// `z` of [`Finish`] as f32.
    Gained,
    /// `z` of [`Finish`] as int8 blocks.
    Quantized,
    /// Partial sums of squares written.
    SsqOut,
    /// Logits.
    Logits,
    /// Arg-max partials.
    Partials,
    /// Chosen ids written, i32 `[tokens]`.
    Ids,
    /// Chosen ids by position, for the host, see [`crate::plan::outbox_entry`].
    Outbox,
    /// How to sample, see [`crate::plan::SamplingState`].
    Sampling,
    /// Uniform numbers in 0 … 1 by position, f64.
    Draws,
    /// Memory for the launch's own partial results; its contents mean nothing outside.
    Scratch,
    /// Rows of a weight in GGUF's layout that are to be repacked.
    Staging,
    /// Zero between launches: counters of finished workgroups, u32.
    Counters,
}

/// How a launch uses an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Access {
    /// Read only.
    Read,
    /// Written completely (for the chunk's tokens) without being read.
    Write,
    /// Read or kept, and written in part: caches, the token list, the outbox, counters, the state.
    Update,
}

/// Shape of what an operand points to, per token where that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Shape {
    /// f32 `[tokens, n]`.
    F32(u32),
    /// int8 blocks of n values per token.
    Q8(u32),
    /// f32 `[tokens, parts]`; parts depend on the writer's geometry.
    Ssq,
    /// (f32, i32) `[tokens, parts]`; parts depend on the writer's geometry.
    Partials,
    /// i32 `[tokens]`.
    Ids,
    /// Matrix or vector of a storage type.
    Weight {
        /// Storage type.
        dtype: DType,
        /// Layout; GGUF's for vectors.
        layout: Layout,
        /// Outputs (1 for a vector).
        rows: u32,
        /// Inputs.
        cols: u32,
    },
    /// Rotation table.
    RopeTable(RopeSpec),
    /// Cache.
    Cache(CacheSpec),
    /// [`crate::plan::StepState`].
    State,
    /// i32 `[ctx + 1]`.
    Tokens,
    /// u64 `[ctx + 1]`.
    Outbox,
    /// [`crate::plan::SamplingState`].
    Sampling,
    /// f64 `[ctx + 1]`.
    Draws,
    /// Sized by the geometry.
    Scratch,
    /// Sized by the geometry.
    Counters,
}

/// One operand of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Param {
    /// What it is for.
    pub role: Role,
    /// How it is used.
    pub access: Access,
    /// What it points to.
    pub shape: Shape,
}

struct Params(Vec<Param>);

impl Params {
    fn add(&mut self, role: Role, access: Access, shape: Shape) {
        self.0.push(Param { role, access, shape });
    }
    fn read(&mut self, role: Role, shape: Shape) {
        self.add(role, Access::Read, shape);
    }
    fn write(&mut self, role: Role, shape: Shape) {
        self.add(role, Access::Write, shape);
    }
    fn vector(&mut self, role: Role, n: u32) {
        self.read(role, Shape::Weight { dtype: DType::F32, layout: Layout::Gguf, rows: 1, cols: n });
    }
    fn rope(&mut self, spec: Option<RopeSpec>) {
        if let Some(spec) = spec {
            self.read(Role::RopeTable, Shape::RopeTable(spec));
        }
    }
    fn finish(&mut self, f: Finish, n: u32) {
        if f.gain {
            self.vector(Role::Gain, n);
        }
        if f.raw {
            self.write(Role::Raw, Shape::F32(n));
        }
        if f.f32 {
            self.write(Role::Gained, Shape::F32(n));
        }
        if f.q8 {
            self.write(Role::Quantized, Shape::Q8(n));
        }
        if f.ssq {
            self.write(Role::SsqOut, Shape::Ssq);
        }
    }
}

impl FusedOp {
    /// The operands in the order of the kernel's arguments.
    ///
    /// A rotation table appears at most once per launch (all segments share it). `State` always comes first.
    pub fn params(&self) -> Vec<Param> {
        let mut p = Params(Vec::new());
        let advance = matches!(self, FusedOp::Choose(c) if c.advance);
        p.add(Role::State, if advance { Access::Update } else { Access::Read }, Shape::State);
        match self {
            FusedOp::Embed(e) => {
                p.read(Role::Tokens, Shape::Tokens);
                p.read(Role::Weight(0), Shape::Weight { dtype: e.dtype, layout: e.layout, rows: e.vocab, cols: e.n });
                p.finish(e.finish, e.n);
            }
            FusedOp::Gemv(g) => gemv_params(g, &mut p),
            FusedOp::Attend(a) => {
                let (q, kv) = (a.heads * a.cache.head_dim, a.cache.heads * a.cache.head_dim);
                p.read(Role::Q, Shape::F32(q));
                if let Some(pro) = a.prologue {
                    p.read(Role::K, Shape::F32(kv));
                    if pro.norm.is_some() {
                        p.vector(Role::QNorm, a.cache.head_dim);
                        p.vector(Role::KNorm, a.cache.head_dim);
                    }
                    p.rope(pro.rope);
                    p.add(Role::CacheK, Access::Update, Shape::Cache(a.cache));
                } else {
                    p.read(Role::CacheK, Shape::Cache(a.cache));
                }
                p.read(Role::CacheV, Shape::Cache(a.cache));
                p.finish(a.finish, q);
                p.add(Role::Scratch, Access::Write, Shape::Scratch);
                p.add(Role::Counters, Access::Update, Shape::Counters);
            }
            FusedOp::Heads(h) => {
                for (i, part) in (0..).zip(&h.parts) {
                    let n = part.heads * part.head_dim;
                    p.read(Role::X(i), Shape::F32(n));
                    if part.norm.is_some() {
                        p.vector(Role::Norm(i), part.head_dim);
                    }
                }
                p.rope(h.parts.iter().find_map(|part| part.rope));
                for (i, part) in (0..).zip(&h.parts) {
                    match part.out {
                        HeadOut::Store => p.write(Role::Out(i), Shape::F32(part.heads * part.head_dim)),
                        HeadOut::Append(cache) => p.add(Role::Cache(i), Access::Update, Shape::Cache(cache)),
                    }
                }
            }
            FusedOp::Row(r) => {
                p.read(Role::X(0), Shape::F32(r.n));
                match r.expr {
                    RowExpr::Copy | RowExpr::Act(_) => {}
                    RowExpr::Add | RowExpr::Mul | RowExpr::Gated(_) => p.read(Role::Y, Shape::F32(r.n)),
                    RowExpr::Bias => p.vector(Role::Bias(0), r.n),
                    RowExpr::Norm { group, .. } => p.vector(Role::Norm(0), group),
                    RowExpr::Scale(_) => p.read(Role::Ssq, Shape::Ssq),
                }
                if r.residual {
                    p.read(Role::Residual, Shape::F32(r.n));
                }
                p.finish(r.finish, r.n);
            }
            FusedOp::Choose(c) => {
                if c.partials {
                    p.read(Role::Partials, Shape::Partials);
                }
                p.read(Role::Logits, Shape::F32(c.n));
                p.add(Role::Tokens, Access::Update, Shape::Tokens);
                p.write(Role::Ids, Shape::Ids);
                p.add(Role::Outbox, Access::Update, Shape::Outbox);
                p.read(Role::Sampling, Shape::Sampling);
                p.read(Role::Draws, Shape::Draws);
            }
            &FusedOp::Repack(Repack { dtype, layout, rows, cols, piece }) => {
                p.read(Role::Staging, Shape::Weight { dtype, layout: Layout::Gguf, rows: piece, cols });
                p.add(Role::Weight(0), Access::Update, Shape::Weight { dtype, layout, rows, cols });
            }
        }
        p.0
    }
}

fn gemv_params(g: &Gemv, p: &mut Params) {
    p.read(Role::X(0), if g.input == Input::Q8 { Shape::Q8(g.k) } else { Shape::F32(g.k) });
    if g.deferred.is_some() {
        p.read(Role::Ssq, Shape::Ssq);
    }
    for (i, s) in (0..).zip(&g.segments) {
        p.read(Role::Weight(i), Shape::Weight { dtype: s.dtype, layout: s.layout, rows: s.rows, cols: g.k });
        if s.bias {
            p.vector(Role::Bias(i), s.rows);
        }
    }
    match &g.tail {
        Tail::Separate(outs) => {
            p.rope(outs.iter().find_map(|o| match o {
                SegmentOut::Store(rope) | SegmentOut::Append(rope, _) => *rope,
            }));
            for ((i, out), s) in (0..).zip(outs).zip(&g.segments) {
                match out {
                    SegmentOut::Store(_) => p.write(Role::Out(i), Shape::F32(s.rows)),
                    SegmentOut::Append(_, cache) => p.add(Role::Cache(i), Access::Update, Shape::Cache(*cache)),
                }
            }
        }
        Tail::Vector { residual, finish, .. } => {
            let n = g.segments.first().map_or(0, |s| s.rows);
            if *residual {
                p.read(Role::Residual, Shape::F32(n));
            }
            p.finish(*finish, n);
        }
        Tail::Head => {
            p.write(Role::Logits, Shape::F32(g.segments.first().map_or(0, |s| s.rows)));
            p.write(Role::Partials, Shape::Partials);
        }
    }
}
