//! The language of the e-graph: the model's algebra, and launches that compute parts of it.
//!
//! An *algebra* node says what a value is; it can't be executed. A [`Lang::Launch`] is one kernel launch with all its results;
//! [`Lang::Out`] names one of them. Rules put `Out` nodes into the classes of the algebra that they compute, so that a class holds
//! both the meaning of a value and every way to get it. Extraction takes launches only.

use egg::{Analysis, DidMerge, Id};
use hipc_ir::fused::{Access, CacheSpec, FusedOp, Param, Role, RopeSpec, Shape, Tail};
use hipc_ir::graph::{Act, RopeStyle};
use hipc_ir::{DType, Real};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The e-graph of one region.
pub type EGraph = egg::EGraph<Lang, Types>;

egg::define_language! {
    /// Operators. The first child of an operator is an attribute where it has one.
    #[allow(missing_docs)]
    pub enum Lang {
        // Operands and attributes.
        Leaf(Leaf),
        Attr(Attr),
        // (ssq x): sum of squares of a vector, as partial sums.
        "ssq" = Ssq([Id; 1]),
        // (rms eps s): 1 / sqrt(s / n + eps), the scalar of an RMSNorm; positive.
        "rms" = Rms([Id; 2]),
        // (scale r v): a scalar times a vector, of f32 or of int8 blocks.
        "scale" = Scale([Id; 2]),
        // (gain x g): a vector times a gain vector of the model.
        "gain" = Gain([Id; 2]),
        // (norm eps x g): RMSNorm of each group of len(g) values.
        "norm" = Norm([Id; 3]),
        "matvec" = MatVec([Id; 2]),
        "bias" = Bias([Id; 2]),
        "add" = Add([Id; 2]),
        "mul" = Mul([Id; 2]),
        // (act f x)
        "act" = Act([Id; 2]),
        // (rope spec table x)
        "rope" = Rope([Id; 3]),
        // (append cache x): the next version of the cache.
        "append" = Append([Id; 2]),
        // (attend spec q k v)
        "attend" = Attend([Id; 4]),
        "quantize" = Quantize([Id; 1]),
        // (embed w tokens)
        "embed" = Embed([Id; 2]),
        "argmax" = ArgMax([Id; 1]),
        // One launch; children are the operands it reads, see `operands`.
        Launch(LaunchOp, Box<[Id]>),
        // One result of a launch, see `results`.
        Out(OutRole, [Id; 1]),
    }
}

/// An operand that the region is given. Numbers are local to the region, so that equal layers make equal e-graphs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Leaf {
    /// The chunk's token ids.
    Tokens,
    /// A value computed by an earlier region.
    Import(u32, Ty),
    /// A tensor: number, type, rows, columns.
    Weight(u32, DType, u32, u32),
    /// A rotation table: number, pairing, rotated elements of a head.
    Rope(u32, RopeStyle, u32),
    /// A cache before the region's appends.
    Cache(u32, CacheSpec),
}

/// An attribute of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attr {
    /// An epsilon.
    Real(Real),
    /// A non-linearity.
    Act(Act),
    /// A rotation.
    Rope(RopeSpec),
    /// Query heads and score scale.
    Attend(u32, Real),
}

/// The op of a launch; shared, because an extension copies little of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaunchOp(pub Arc<FusedOp>);

/// The result of a launch that an [`Lang::Out`] names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OutRole(pub Role);

/// Patterns name operators; operands, attributes and launches are bound by variables and never written out.
macro_rules! not_in_patterns {
    ($($payload:ty),*) => {$(
        impl FromStr for $payload {
            type Err = NotInPatterns;
            fn from_str(_: &str) -> Result<Self, NotInPatterns> {
                Err(NotInPatterns)
            }
        }
        impl fmt::Display for $payload {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self:?}")
            }
        }
    )*};
}
not_in_patterns!(Leaf, Attr, LaunchOp, OutRole);

/// Why a payload doesn't parse.
#[derive(Clone, Copy, Debug)]
pub struct NotInPatterns;

/// Type of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ty {
    /// f32 vector.
    F32(u32),
    /// int8 blocks.
    Q8(u32),
    /// Partial sums of squares of a vector of this length.
    Ssq(u32),
    /// A positive scalar per token.
    Scalar,
    /// Token ids.
    Ids,
    /// Arg-max partials.
    Partials,
    /// A version of the cache of this number.
    Cache(u32, CacheSpec),
    /// A tensor.
    Weight(DType, u32, u32),
    /// A rotation table.
    Rope(RopeStyle, u32),
    /// An attribute.
    Attr(Attr),
    /// A launch.
    Launch,
    /// A term that no graph and no rule can make; extraction never meets it.
    Wrong,
}

impl Ty {
    /// Values of a vector.
    pub fn values(self) -> Option<u32> {
        match self {
            Ty::F32(n) | Ty::Q8(n) | Ty::Ssq(n) => Some(n),
            _ => None,
        }
    }
}

/// The analysis: types of classes, and a record of which rule formed which launch.
#[derive(Clone, Debug, Default)]
pub struct Types {
    /// Launches in the order they were formed, for the report.
    pub formed: Vec<Formed>,
    /// Fusions that a rule saw but may not make, for the report.
    pub refused: Vec<Refused>,
}

/// A launch was formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formed {
    /// The launch.
    pub launch: Id,
    /// The rule.
    pub rule: &'static str,
    /// Whether it does the work of several launches.
    pub fusion: bool,
    /// The class the rule matched.
    pub root: Id,
    /// The launch that was extended.
    pub from: Option<Id>,
}

/// A fusion that isn't legal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The rule.
    pub rule: &'static str,
    /// The class the rule matched.
    pub root: Id,
    /// Why.
    pub reason: &'static str,
}

impl Analysis<Lang> for Types {
    type Data = Ty;

    fn make(egraph: &mut EGraph, node: &Lang, _: Id) -> Ty {
        let ty = |id: &Id| egraph[*id].data;
        match node {
            Lang::Leaf(leaf) => match *leaf {
                Leaf::Tokens => Ty::Ids,
                Leaf::Import(_, ty) => ty,
                Leaf::Weight(_, dtype, rows, cols) => Ty::Weight(dtype, rows, cols),
                Leaf::Rope(_, style, dims) => Ty::Rope(style, dims),
                Leaf::Cache(cache, spec) => Ty::Cache(cache, spec),
            },
            Lang::Attr(attr) => Ty::Attr(*attr),
            Lang::Ssq([x]) => ty(x).values().map_or(Ty::Wrong, Ty::Ssq),
            Lang::Rms(_) => Ty::Scalar,
            Lang::MatVec([w, _]) => match ty(w) {
                Ty::Weight(_, rows, _) => Ty::F32(rows),
                _ => Ty::Wrong,
            },
            Lang::Embed([w, _]) => match ty(w) {
                Ty::Weight(_, _, cols) => Ty::F32(cols),
                _ => Ty::Wrong,
            },
            Lang::Quantize([x]) => ty(x).values().map_or(Ty::Wrong, Ty::Q8),
            Lang::ArgMax(_) => Ty::Ids,
            Lang::Scale([_, x])
            | Lang::Gain([x, _])
            | Lang::Norm([_, x, _])
            | Lang::Bias([x, _])
            | Lang::Add([x, _])
            | Lang::Mul([x, _])
            | Lang::Act([_, x])
            | Lang::Rope([_, _, x])
            | Lang::Append([x, _])
            | Lang::Attend([_, x, _, _]) => ty(x),
            Lang::Launch(..) => Ty::Launch,
            Lang::Out(role, [launch]) => {
                let found = egraph[*launch].nodes.iter().find_map(|n| match n {
                    Lang::Launch(op, children) => Some((op.0.clone(), children)),
                    _ => None,
                });
                found.map_or(Ty::Wrong, |(op, children)| result_ty(&op, role.0, |i| ty(&children[i])))
            }
        }
    }

    fn merge(&mut self, to: &mut Ty, from: Ty) -> DidMerge {
        debug_assert_eq!(*to, from, "a rule united values of different types");
        DidMerge(false, false)
    }
}

/// The operands that are children of a launch, in the order of the kernel's arguments: what is read of the model or of earlier
/// launches. Step state, the token list that a choice extends, what else a choice takes, and a launch's own scratch are no values.
pub fn operands(op: &FusedOp) -> Vec<Param> {
    let mut params = op.params();
    params.retain(|p| match p.role {
        Role::State | Role::Outbox | Role::Sampling | Role::Draws | Role::Scratch | Role::Counters => false,
        Role::Tokens => p.access == Access::Read,
        _ => p.access != Access::Write,
    });
    params
}

/// The results of a launch: what later launches can read. An updated cache is a new version.
pub fn results(op: &FusedOp) -> Vec<Param> {
    let mut params = op.params();
    params.retain(|p| match p.role {
        Role::State | Role::Outbox | Role::Scratch | Role::Counters | Role::Tokens => false,
        _ => p.access != Access::Read,
    });
    params
}

/// Length of the vector that a launch with a [`hipc_ir::fused::Finish`] writes.
pub fn vector_len(op: &FusedOp) -> Option<u32> {
    match op {
        FusedOp::Embed(e) => Some(e.n),
        FusedOp::Row(r) => Some(r.n),
        FusedOp::Attend(a) => Some(a.heads * a.cache.head_dim),
        FusedOp::Gemv(g) => match g.tail {
            Tail::Vector { .. } => g.segments.first().map(|s| s.rows),
            _ => None,
        },
        _ => None,
    }
}

fn result_ty(op: &FusedOp, role: Role, child: impl Fn(usize) -> Ty) -> Ty {
    let Some(param) = results(op).into_iter().find(|p| p.role == role) else {
        return Ty::Wrong;
    };
    match param.shape {
        Shape::F32(n) => Ty::F32(n),
        Shape::Q8(n) => Ty::Q8(n),
        Shape::Ssq => vector_len(op).map_or(Ty::Wrong, Ty::Ssq),
        Shape::Partials => Ty::Partials,
        Shape::Ids => Ty::Ids,
        Shape::Cache(_) => operands(op).iter().position(|p| p.role == role).map_or(Ty::Wrong, child),
        _ => Ty::Wrong,
    }
}
