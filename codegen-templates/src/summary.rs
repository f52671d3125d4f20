//! One line that says what a kernel does: `gemv Q6_K [4096 x 14336] · q8 in · + residual · store y, q8(y*g), sum y²`.

use hipc_ir::dtype::{DType, Layout};
use hipc_ir::fused::{Attend, Combine, Finish, FusedOp, Gemv, HeadOut, HeadPart, Input, Row, RowExpr, Segment, SegmentOut, Tail};
use hipc_ir::graph::Act;

/// What a launch computes, in one line without a line break.
pub fn summary(op: &FusedOp) -> String {
    match op {
        FusedOp::Embed(e) => format!("embed {} [{} x {}] · {}", weight_type(e.dtype, e.layout), e.vocab, e.n, finish(e.finish)),
        FusedOp::Gemv(g) => gemv(g),
        FusedOp::Attend(a) => attend(a),
        FusedOp::Heads(h) => format!("heads · {}", h.parts.iter().map(head_part).collect::<Vec<_>>().join("; ")),
        FusedOp::Row(r) => row(r),
        FusedOp::Repack(r) => {
            let to = weight_type(r.dtype, r.layout);
            format!("repack {} [{} x {}] · {} rows at a time · store {to}", r.dtype, r.rows, r.cols, r.piece)
        }
        FusedOp::Choose(c) => {
            let (from, advance) =
                (if c.partials { " · from partials" } else { "" }, if c.advance { " · state advanced" } else { "" });
            format!("choice of {}{from}{advance}", c.n)
        }
    }
}

/// A weight's type as the kernels name it: `Q4_K`, `Split<Q4_K>`.
pub fn weight_type(dtype: DType, layout: Layout) -> String {
    match layout {
        Layout::Gguf => dtype.name().to_owned(),
        Layout::Split => format!("Split<{dtype}>"),
    }
}

fn act(act: Act) -> &'static str {
    match act {
        Act::Silu => "silu",
        Act::Gelu => "gelu",
    }
}

fn finish(f: Finish) -> String {
    let z = if f.gain { "y*g" } else { "y" };
    let parts = [(f.raw, "y".to_owned()), (f.f32, z.to_owned()), (f.q8, format!("q8({z})")), (f.ssq, "sum y²".to_owned())];
    let parts: Vec<String> = parts.into_iter().filter_map(|(asked, part)| asked.then_some(part)).collect();
    format!("store {}", parts.join(", "))
}

fn gemv(g: &Gemv) -> String {
    let matrix = |s: &Segment| format!("{} [{} x {}]", weight_type(s.dtype, s.layout), s.rows, g.k);
    let matrices: Vec<String> = g.segments.iter().map(matrix).collect();
    let mut parts = vec![format!("gemv {}", matrices.join(" + "))];
    parts.push(if g.input == Input::Q8 { "q8 in" } else { "f32 in" }.to_owned());
    if g.deferred.is_some() {
        parts.push("* r".to_owned());
    }
    if g.segments.iter().any(|s| s.bias) {
        parts.push("+ bias".to_owned());
    }
    match &g.tail {
        Tail::Separate(outs) => parts.extend(outs.iter().map(|out| match out {
            SegmentOut::Store(None) => "store".to_owned(),
            SegmentOut::Store(Some(_)) => "rope, store".to_owned(),
            SegmentOut::Append(None, _) => "append".to_owned(),
            SegmentOut::Append(Some(_), _) => "rope, append".to_owned(),
        })),
        Tail::Vector { combine, residual, finish: f } => {
            match combine {
                Combine::One => {}
                Combine::Act(a) => parts.push(act(*a).to_owned()),
                Combine::Gated(a) => parts.push(format!("{}(gate)*up", act(*a))),
            }
            if *residual {
                parts.push("+ residual".to_owned());
            }
            parts.push(finish(*f));
        }
        Tail::Head => parts.push("store logits, best of tile".to_owned()),
    }
    parts.join(" · ")
}

fn attend(a: &Attend) -> String {
    let mut parts =
        vec![format!("attention {} heads / {} x {}, {} positions", a.heads, a.cache.heads, a.cache.head_dim, a.cache.ctx)];
    if let Some(p) = a.prologue {
        if p.norm.is_some() {
            parts.push("norm q, k".to_owned());
        }
        if p.rope.is_some() {
            parts.push("rope q, k".to_owned());
        }
        parts.push("append k".to_owned());
    }
    parts.push(finish(a.finish));
    parts.join(" · ")
}

fn head_part(p: &HeadPart) -> String {
    let mut words = vec![format!("{} x {}", p.heads, p.head_dim)];
    if p.norm.is_some() {
        words.push("norm".to_owned());
    }
    if p.rope.is_some() {
        words.push("rope".to_owned());
    }
    words.push(if p.out == HeadOut::Store { "store" } else { "append" }.to_owned());
    words.join(", ")
}

fn row(r: &Row) -> String {
    let expr = match r.expr {
        RowExpr::Copy => "x".to_owned(),
        RowExpr::Add => "x + y".to_owned(),
        RowExpr::Mul => "x*y".to_owned(),
        RowExpr::Act(a) => format!("{}(x)", act(a)),
        RowExpr::Gated(a) => format!("{}(x)*y", act(a)),
        RowExpr::Bias => "x + bias".to_owned(),
        RowExpr::Norm { group, .. } if group == r.n => "norm(x)".to_owned(),
        RowExpr::Norm { group, .. } => format!("norm(x) by {group}"),
        RowExpr::Scale(_) => "r*x".to_owned(),
    };
    let residual = if r.residual { " · + residual" } else { "" };
    format!("row of {} · {expr}{residual} · {}", r.n, finish(r.finish))
}
