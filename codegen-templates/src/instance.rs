//! A kernel as C++ text: its parameters, and the one call of a skeleton that is its body.

use crate::summary::weight_type;
use hipc_ir::dtype::{KvType, Real};
use hipc_ir::fused::{
    Attend, CacheSpec, Choose, Combine, Embed, Finish, FusedOp, Gemv, HeadOut, HeadPart, Heads, Input, Param, Role, RopeSpec,
    Row, RowExpr, Segment, SegmentOut, Shape, Tail,
};
use hipc_ir::graph::{Act, RopeStyle};
use hipc_ir::plan::{Geometry, KernelSpec};

/// A kernel's parts in C++.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Header of the skeleton, as an `#include` names it.
    pub header: &'static str,
    /// Parameters (type and name), parallel to [`FusedOp::params`].
    pub params: Vec<(String, String)>,
    /// The skeleton's name with its template arguments: `gemv<Gpu, Geometry<…>>`.
    pub skeleton: String,
    /// The call's arguments.
    pub args: Vec<String>,
}

/// Spells a kernel. `Gpu` stands for the target, which the unit defines once.
pub fn instantiate(spec: &KernelSpec) -> Instance {
    let g = &spec.geometry;
    let (header, skeleton, args) = match &spec.op {
        FusedOp::Embed(e) => ("hipc/embed.h", format!("embed<Gpu, Waves<{}>, Tile<{}>>", g.waves, g.tile), embed(e)),
        FusedOp::Gemv(op) => ("hipc/gemv.h", format!("gemv<Gpu, {}>", gemv_geometry(g)), gemv(op, g)),
        FusedOp::Attend(a) => {
            ("hipc/attention.h", format!("attend<Gpu, Waves<{}>, Splits<{}>, Heads<{}>>", g.waves, g.splits, a.heads), attend(a))
        }
        FusedOp::Heads(h) => ("hipc/heads.h", format!("heads<Gpu, Tile<{}>>", g.tile), heads(h)),
        FusedOp::Row(r) => ("hipc/row.h", format!("row<Gpu, Waves<{}>, Tile<{}>, {}>", g.waves, g.tile, r.n), row(r, g)),
        FusedOp::Repack(r) => ("hipc/repack.h", format!("repack<Gpu, Waves<{}>, {}, {}>", g.waves, r.dtype, r.cols), repack()),
        FusedOp::Choose(c) => {
            ("hipc/choose.h", format!("choose<Gpu, Waves<{}>, Tile<{}>, {}>", g.waves, g.tile, c.n), choose(c, g))
        }
    };
    let params = spec.op.params().iter().map(|p| (cpp_type(p), name(p.role))).collect();
    Instance { header, params, skeleton, args }
}

fn gemv_geometry(g: &Geometry) -> String {
    let Geometry { waves, k_waves, rows_per_wave, row_steps, tile, tokens, .. } = g;
    format!(
        "Geometry<Waves<{waves}>, KWaves<{k_waves}>, Rows<{rows_per_wave}>, Steps<{row_steps}>, Tile<{tile}>, Tokens<{tokens}>>"
    )
}

/// What a parameter is called.
fn name(role: Role) -> String {
    let fixed = match role {
        Role::Weight(i) => return format!("w{i}"),
        Role::Bias(i) => return format!("bias{i}"),
        Role::Norm(i) => return format!("norm{i}"),
        Role::X(i) => return format!("x{i}"),
        Role::Cache(i) => return format!("cache{i}"),
        Role::Out(i) => return format!("out{i}"),
        Role::State => "state",
        Role::Tokens => "tokens",
        Role::Gain => "gain",
        Role::Y => "y",
        Role::Ssq => "ssq",
        Role::Residual => "residual",
        Role::RopeTable => "rope",
        Role::Q => "q",
        Role::K => "k",
        Role::QNorm => "q_norm",
        Role::KNorm => "k_norm",
        Role::CacheK => "cache_k",
        Role::CacheV => "cache_v",
        Role::Raw => "raw",
        Role::Gained => "gained",
        Role::Quantized => "quantized",
        Role::SsqOut => "ssq_out",
        Role::Logits => "logits",
        Role::Partials => "partials",
        Role::Ids => "ids",
        Role::Outbox => "outbox",
        Role::Sampling => "sampling",
        Role::Draws => "draws",
        Role::Scratch => "scratch",
        Role::Staging => "staging",
        Role::Counters => "counters",
    };
    fixed.to_owned()
}

fn cpp_type(param: &Param) -> String {
    let weight;
    let of = match param.shape {
        Shape::F32(_) | Shape::Ssq | Shape::Scratch => "f32",
        Shape::Q8(_) => "Q8",
        Shape::Partials => "Best",
        Shape::Ids | Shape::Tokens => "i32",
        Shape::Outbox => "u64",
        Shape::Sampling => "Sampling",
        Shape::Draws => "f64",
        // A vector is read as plain values, a matrix as its type.
        Shape::Weight { .. } if !matches!(param.role, Role::Weight(_) | Role::Staging) => "f32",
        Shape::Weight { dtype, layout, .. } => {
            weight = weight_type(dtype, layout);
            &weight
        }
        Shape::RopeTable(_) => "f32x2",
        Shape::Cache(cache) => kv(cache.kv),
        Shape::State => "State",
        Shape::Counters => "u32",
    };
    // The caches of attention share a type, whether the launch appends to one or not.
    let written = param.access != hipc_ir::fused::Access::Read || matches!(param.shape, Shape::Cache(_));
    if written { format!("{of}*") } else { format!("const {of}*") }
}

fn kv(kv: KvType) -> &'static str {
    match kv {
        KvType::F16 => "f16",
        KvType::F32 => "f32",
    }
}

/// A literal of f32: shortest digits that give the same value.
fn real(value: Real) -> String {
    format!("{:?}f", value.0 as f32)
}

fn act(act: Act) -> &'static str {
    match act {
        Act::Silu => "Silu",
        Act::Gelu => "Gelu",
    }
}

fn cache_type(c: &CacheSpec) -> String {
    format!("{}, {}, {}, {}", kv(c.kv), c.heads, c.head_dim, c.ctx)
}

fn rotation_type(rope: Option<RopeSpec>) -> String {
    match rope {
        None => "Straight".to_owned(),
        Some(RopeSpec { style: RopeStyle::Norm, dims, head_dim }) => format!("Rotate<Adjacent, {dims}, {head_dim}>"),
        Some(RopeSpec { style: RopeStyle::Neox, dims, head_dim }) => format!("Rotate<Halves, {dims}, {head_dim}>"),
    }
}

fn rotation(rope: Option<RopeSpec>) -> String {
    let arg = if rope.is_some() { "rope" } else { "" };
    format!("{}{{{arg}}}", rotation_type(rope))
}

fn finish(f: Finish) -> String {
    let parts = [
        (f.raw, "Raw{raw}"),
        (f.gain, "Gain{gain}"),
        (f.f32, "Gained{gained}"),
        (f.q8, "Quantized{quantized}"),
        (f.ssq, "Ssq{ssq_out}"),
    ];
    let parts: Vec<&str> = parts.into_iter().filter_map(|(asked, part)| asked.then_some(part)).collect();
    format!("Finish{{{}}}", parts.join(", "))
}

fn residual(asked: bool) -> &'static str {
    if asked { "Residual{residual}" } else { "NoResidual{}" }
}

fn embed(e: &Embed) -> Vec<String> {
    let Embed { vocab, n, dtype, layout, finish: f } = e;
    let ty = weight_type(*dtype, *layout);
    vec!["state".into(), "tokens".into(), format!("Embedding<{ty}, {vocab}, {n}>{{w0}}"), finish(*f)]
}

fn matrix(i: usize, s: &Segment) -> String {
    let (ty, rows) = (weight_type(s.dtype, s.layout), s.rows);
    if s.bias { format!("Biased<{ty}, {rows}>{{w{i}, bias{i}}}") } else { format!("Matrix<{ty}, {rows}>{{w{i}}}") }
}

fn gemv(op: &Gemv, g: &Geometry) -> Vec<String> {
    let form = match op.input {
        Input::F32 => "f32",
        Input::Q8 => "Q8",
    };
    let norm = match op.deferred {
        None => "NoNorm{}".to_owned(),
        Some(d) => format!("Norm<{}, {}>{{ssq, {}}}", d.n, g.parts_in, real(d.eps)),
    };
    let matrices: Vec<String> = op.segments.iter().enumerate().map(|(i, s)| matrix(i, s)).collect();
    let tail = match &op.tail {
        Tail::Separate(outs) => {
            let to: Vec<String> =
                outs.iter().zip(&matrices).enumerate().map(|(i, (out, matrix))| separate(i, out, matrix)).collect();
            format!("Separate{{\n          {}}}", to.join(",\n          "))
        }
        Tail::Vector { combine, residual: r, finish: f } => {
            let combination = match combine {
                Combine::One => format!("One{{{}}}", matrices.join(", ")),
                Combine::Act(a) => format!("Activated{{{}{{}}, {}}}", act(*a), matrices.join(", ")),
                Combine::Gated(a) => format!("Gated{{{}{{}}, {}}}", act(*a), matrices.join(", ")),
            };
            format!("Vector{{{combination}, {}, {}}}", residual(*r), finish(*f))
        }
        Tail::Head => format!("Head{{{}, logits, partials}}", matrices.join(", ")),
    };
    vec!["state".into(), format!("Activations<{form}, {}>{{x0}}", op.k), norm, tail]
}

fn separate(i: usize, out: &SegmentOut, matrix: &str) -> String {
    match out {
        SegmentOut::Store(rope) => format!("To{{{matrix}, Store{{out{i}}}, {}}}", rotation(*rope)),
        SegmentOut::Append(rope, cache) => {
            format!("To{{{matrix}, Append<{}>{{cache{i}}}, {}}}", cache_type(cache), rotation(*rope))
        }
    }
}

fn attend(a: &Attend) -> Vec<String> {
    let queries = match a.prologue {
        None => "Queries{q}".to_owned(),
        Some(p) => {
            let norm = |gain: &str| match p.norm {
                Some(eps) => format!("HeadNorm{{{gain}, {}}}", real(eps)),
                None => "NoHeadNorm{}".to_owned(),
            };
            format!("Prologue{{q, k, {}, {}, {}}}", norm("q_norm"), norm("k_norm"), rotation(p.rope))
        }
    };
    let cache = cache_type(&a.cache);
    vec![
        "state".into(),
        queries,
        format!("Cache<{cache}>{{cache_k}}"),
        format!("Cache<{cache}>{{cache_v}}"),
        real(a.scale),
        finish(a.finish),
        "scratch".into(),
        "counters".into(),
    ]
}

fn heads(h: &Heads) -> Vec<String> {
    let parts = h.parts.iter().enumerate().map(|(i, part)| head_part(i, part));
    std::iter::once("state".to_owned()).chain(parts).collect()
}

fn head_part(i: usize, part: &HeadPart) -> String {
    let (norm, norm_value) = match part.norm {
        Some(eps) => ("HeadNorm", format!("{{norm{i}, {}}}", real(eps))),
        None => ("NoHeadNorm", "{}".to_owned()),
    };
    let rope = if part.rope.is_some() { "{rope}" } else { "{}" };
    let (to, value) = match &part.out {
        HeadOut::Store => ("Store".to_owned(), format!("{{out{i}}}")),
        HeadOut::Append(cache) => (format!("Append<{}>", cache_type(cache)), format!("{{cache{i}}}")),
    };
    let rotation = rotation_type(part.rope);
    format!("HeadPart<{}, {}, {norm}, {rotation}, {to}>{{x{i}, {norm_value}, {rope}, {value}}}", part.heads, part.head_dim)
}

fn repack() -> Vec<String> {
    ["state", "staging", "w0"].map(str::to_owned).to_vec()
}

fn row(r: &Row, g: &Geometry) -> Vec<String> {
    let expr = match r.expr {
        RowExpr::Copy => "Copy{x0}".to_owned(),
        RowExpr::Add => "Sum{{x0}, y}".to_owned(),
        RowExpr::Mul => "Product{{x0}, y}".to_owned(),
        RowExpr::Act(a) => format!("ActOf<{}>{{{{x0}}}}", act(a)),
        RowExpr::Gated(a) => format!("GatedBy<{}>{{{{x0}}, y}}", act(a)),
        RowExpr::Bias => "WithBias{{x0}, bias0}".to_owned(),
        RowExpr::Norm { eps, group } => format!("Normed<{group}>{{{{x0}}, norm0, {}}}", real(eps)),
        RowExpr::Scale(d) => format!("Scaled<{}, {}>{{{{x0}}, ssq, {}}}", d.n, g.parts_in, real(d.eps)),
    };
    vec!["state".into(), expr, residual(r.residual).into(), finish(r.finish)]
}

fn choose(c: &Choose, g: &Geometry) -> Vec<String> {
    let from = match c.partials {
        true => format!("FromPartials<{}>{{partials}}", g.parts_in),
        false => format!("FromLogits<{}>{{logits}}", c.n),
    };
    let after = if c.advance { "Advance{state}" } else { "Stay{}" };
    ["state", &from, "logits", "tokens", "ids", "outbox", "sampling", "draws", after].map(str::to_owned).to_vec()
}
