//! Rules that a kernel's meaning keeps by itself: what the documentation of [`hipc_ir::fused`] demands of the numbers in an op.
//!
//! After this, `params()` can be asked for without overflow.

use super::broken;
use super::error::{CheckError, kernel_fault};
use hipc_ir::Real;
use hipc_ir::dtype::{DType, Layout};
use hipc_ir::fused::{
    Attend, CacheSpec, Choose, Combine, Deferred, Embed, Finish, FusedOp, Gemv, HeadOut, Heads, Input, Repack, RopeSpec, Row,
    RowExpr, SegmentOut, Tail,
};
use hipc_ir::plan::Plan;

/// Values of an int8 block with one scale, as the kernels have it.
pub(super) const Q8_BLOCK: u32 = 32;

/// Broken rules of all kernels.
pub(super) fn faults(plan: &Plan) -> Vec<CheckError> {
    let of = |op: &FusedOp| match op {
        FusedOp::Embed(e) => embed(e),
        FusedOp::Gemv(g) => gemv(g),
        FusedOp::Attend(a) => attend(a),
        FusedOp::Heads(h) => heads(h),
        FusedOp::Row(r) => row(r),
        FusedOp::Choose(c) => choose(c),
        FusedOp::Repack(r) => repack(r),
    };
    plan.kernels.iter().flat_map(|(k, spec)| of(&spec.op).into_iter().map(move |rule| kernel_fault(plan, k, rule))).collect()
}

fn whole_blocks(dtype: DType, layout: Layout, n: u32) -> bool {
    n > 0 && n.is_multiple_of(dtype.block_len()) && (layout == Layout::Gguf || dtype.block_len() > 1)
}

/// `a · b`, if it is a length: positive and a u32.
fn length(a: u32, b: u32) -> Option<u32> {
    a.checked_mul(b).filter(|&n| n > 0)
}

fn is_epsilon(eps: Real) -> bool {
    eps.0.is_finite() && eps.0 >= 0.0
}

fn deferred_is_sound(deferred: Option<Deferred>) -> bool {
    deferred.is_none_or(|d| d.n > 0 && is_epsilon(d.eps))
}

fn finish(f: Finish, n: u32) -> Vec<&'static str> {
    let rules = [
        (f.raw || f.f32 || f.q8 || f.ssq, "writes nothing"),
        (f.gain || !f.f32, "z as f32 without a gain is y"),
        (!f.q8 || n.is_multiple_of(Q8_BLOCK), "an int8 vector is whole blocks"),
    ];
    broken(&rules).collect()
}

/// Rotations within one launch: each fits its heads, and all use the one table.
fn ropes(specs: &[(RopeSpec, u32)]) -> Vec<&'static str> {
    let sound = |&(r, head_dim): &(RopeSpec, u32)| {
        r.dims > 0 && r.dims.is_multiple_of(2) && r.dims <= r.head_dim && r.head_dim == head_dim
    };
    let rules = [
        (specs.iter().all(sound), "the rotated part is pairs within a head"),
        (specs.windows(2).all(|w| (w[0].0.style, w[0].0.dims) == (w[1].0.style, w[1].0.dims)), "a launch has one rotation table"),
    ];
    broken(&rules).collect()
}

fn embed(e: &Embed) -> Vec<&'static str> {
    let rules = [(e.vocab > 0, "the vocabulary is empty"), (whole_blocks(e.dtype, e.layout, e.n), "a row is whole blocks")];
    broken(&rules).chain(finish(e.finish, e.n)).collect()
}

fn gemv(g: &Gemv) -> Vec<&'static str> {
    let rows = g.segments.first().map_or(0, |s| s.rows);
    let rules = [
        (!g.segments.is_empty() && g.segments.iter().all(|s| s.rows > 0), "a GEMV has matrices, and these have rows"),
        (g.segments.iter().all(|s| whole_blocks(s.dtype, s.layout, g.k)), "K is whole blocks of every matrix"),
        (
            g.segments.iter().all(|s| s.dtype.is_quantized() == (g.input == Input::Q8)),
            "quantised weights meet int8, float weights f32",
        ),
        (g.input == Input::F32 || g.k.is_multiple_of(Q8_BLOCK), "an int8 vector is whole blocks"),
        (deferred_is_sound(g.deferred), "a deferred norm has a length and an epsilon"),
    ];
    let mut faults: Vec<_> = broken(&rules).collect();
    match &g.tail {
        Tail::Separate(outs) => {
            let pairs = || outs.iter().zip(&g.segments);
            let appended = |out: &SegmentOut| match out {
                SegmentOut::Append(_, cache) => Some(*cache),
                SegmentOut::Store(_) => None,
            };
            let rotated = |out: &SegmentOut| match out {
                SegmentOut::Append(rope, _) | SegmentOut::Store(rope) => *rope,
            };
            let fits = |c: CacheSpec, rows| length(c.heads, c.head_dim) == Some(rows);
            let head_of = |out: &SegmentOut, rope: RopeSpec| appended(out).map_or(rope.head_dim, |c| c.head_dim);
            let rules = [
                (outs.len() == g.segments.len(), "every matrix has a result"),
                (pairs().all(|(o, s)| appended(o).is_none_or(|c| fits(c, s.rows))), "a row of the cache is the matrix's result"),
                (
                    pairs().all(|(o, s)| rotated(o).is_none_or(|r| s.rows.is_multiple_of(r.head_dim))),
                    "a rotated result is whole heads",
                ),
            ];
            faults.extend(broken(&rules));
            faults.extend(ropes(&outs.iter().filter_map(|o| rotated(o).map(|r| (r, head_of(o, r)))).collect::<Vec<_>>()));
        }
        Tail::Vector { combine, finish: f, .. } => {
            let gated = matches!(combine, Combine::Gated(_));
            let rules = [
                (g.segments.len() == if gated { 2 } else { 1 }, "a combination of another number of matrices"),
                (g.segments.iter().all(|s| s.rows == rows), "the factors are of one length"),
            ];
            faults.extend(broken(&rules).chain(finish(*f, rows)));
        }
        Tail::Head => faults.extend(broken(&[(g.segments.len() == 1, "a head is one matrix")])),
    }
    faults
}

fn attend(a: &Attend) -> Vec<&'static str> {
    let c = a.cache;
    let group = a.heads.checked_div(c.heads).unwrap_or(0);
    let rules = [
        (length(a.heads, c.head_dim).is_some() && length(c.heads, c.head_dim).is_some(), "heads and their length are positive"),
        (c.heads > 0 && a.heads.is_multiple_of(c.heads), "KV heads divide the query heads"),
        (a.scale.0.is_finite(), "the scale is a number"),
        (a.prologue.is_none_or(|p| p.norm.is_none_or(is_epsilon)), "a norm has an epsilon"),
        (!a.finish.ssq, "attention writes no partial sums of squares"),
        // A workgroup finishes one KV head's queries.
        (
            !a.finish.q8 || group.checked_mul(c.head_dim).is_some_and(|n| n.is_multiple_of(Q8_BLOCK)),
            "an int8 block has one owner",
        ),
    ];
    let rope = a.prologue.and_then(|p| p.rope).map(|r| (r, c.head_dim));
    let n = length(a.heads, c.head_dim).unwrap_or(0);
    broken(&rules).chain(ropes(rope.as_slice())).chain(finish(a.finish, n)).collect()
}

fn heads(h: &Heads) -> Vec<&'static str> {
    let fits = |out, heads, head_dim| match out {
        HeadOut::Store => true,
        HeadOut::Append(c) => (c.heads, c.head_dim) == (heads, head_dim),
    };
    let rules = [
        (!h.parts.is_empty(), "there are no heads"),
        (h.parts.iter().all(|p| length(p.heads, p.head_dim).is_some()), "heads and their length are positive"),
        (h.parts.iter().all(|p| p.norm.is_none_or(is_epsilon)), "a norm has an epsilon"),
        (h.parts.iter().all(|p| fits(p.out, p.heads, p.head_dim)), "a row of the cache is the part's heads"),
    ];
    let rotated: Vec<_> = h.parts.iter().filter_map(|p| p.rope.map(|r| (r, p.head_dim))).collect();
    broken(&rules).chain(ropes(&rotated)).collect()
}

fn repack(r: &Repack) -> Vec<&'static str> {
    let rules = [
        (r.rows > 0 && (1..=r.rows).contains(&r.piece), "a piece is rows of the weight"),
        (whole_blocks(r.dtype, r.layout, r.cols), "a row is whole blocks"),
        (r.layout != Layout::Gguf, "GGUF's layout is what files have"),
    ];
    broken(&rules).collect()
}

fn row(r: &Row) -> Vec<&'static str> {
    let expression = match r.expr {
        RowExpr::Norm { eps, group } => is_epsilon(eps) && group > 0 && r.n.is_multiple_of(group),
        RowExpr::Scale(deferred) => deferred_is_sound(Some(deferred)),
        _ => true,
    };
    let rules = [(r.n > 0, "the vector is empty"), (expression, "a norm has an epsilon and whole groups")];
    broken(&rules).chain(finish(r.finish, r.n)).collect()
}

fn choose(c: &Choose) -> Vec<&'static str> {
    broken(&[(c.n > 0, "there are no logits")]).collect()
}
