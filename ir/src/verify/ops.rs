//! Rules that the attributes of one fused op must keep, whatever graph it is in.

use super::{MOST, VerifyError, rule};
use crate::dtype::{Layout, Q8Layout};
use crate::fused::{
    Attend, CacheSpec, Combine, Embed, Finish, FusedOp, Gemv, HeadOut, Heads, Input, Repack, RopeSpec, Row, RowExpr, SegmentOut,
    Tail,
};

/// Most segments or parts of a launch.
const MOST_PARTS: usize = 16;
/// Most query heads.
const MOST_HEADS: u32 = 1 << 16;

/// Checks an op by itself. Sizes are bounded, so that whatever [`FusedOp::params`] and the plan's formulas multiply fits.
pub(super) fn op(at: &str, op: &FusedOp) -> Result<(), VerifyError> {
    match op {
        FusedOp::Embed(e) => embed(at, e),
        FusedOp::Gemv(g) => gemv(at, g),
        FusedOp::Attend(a) => attend(at, a),
        FusedOp::Heads(h) => heads(at, h),
        FusedOp::Row(r) => row(at, r),
        FusedOp::Choose(c) => size(at, "logits", c.n),
        FusedOp::Repack(r) => repack(at, r),
    }
}

fn size(at: &str, what: &str, n: u32) -> Result<(), VerifyError> {
    rule(&at, (1..=MOST).contains(&n), format!("{what}: {n} values"))
}

fn finish(at: &str, f: Finish, n: u32) -> Result<(), VerifyError> {
    size(at, "result", n)?;
    rule(&at, f.raw || f.f32 || f.q8 || f.ssq, "nothing is written")?;
    rule(&at, !f.f32 || f.gain, "the gained f32 form needs a gain")?;
    rule(&at, !f.gain || f.f32 || f.q8, "a gain without a form that uses it")?;
    rule(&at, !f.q8 || n.is_multiple_of(Q8Layout::DEFAULT_BLOCK), format!("{n} values are not whole int8 blocks"))
}

fn rope(at: &str, r: RopeSpec, n: u32) -> Result<(), VerifyError> {
    rule(&at, r.dims > 0 && r.dims.is_multiple_of(2) && r.dims <= r.head_dim, "rotated elements must be even and within a head")?;
    rule(&at, n.is_multiple_of(r.head_dim), format!("heads of {} don't divide {n} values", r.head_dim))
}

/// All rotations of a launch take their angles from one table and have one form.
fn one_rope(at: &str, ropes: impl Iterator<Item = RopeSpec>) -> Result<(), VerifyError> {
    let ropes: Vec<RopeSpec> = ropes.collect();
    rule(&at, ropes.windows(2).all(|r| r[0] == r[1]), "rotations of one launch differ")
}

fn cache(at: &str, c: CacheSpec) -> Result<(), VerifyError> {
    size(at, "context", c.ctx)?;
    let values = u64::from(c.heads) * u64::from(c.head_dim);
    rule(&at, c.heads > 0 && c.head_dim > 0 && values <= u64::from(MOST), "a cache has heads and elements")
}

fn cache_row(at: &str, c: CacheSpec, n: u32) -> Result<(), VerifyError> {
    cache(at, c)?;
    rule(
        &at,
        u64::from(c.heads) * u64::from(c.head_dim) == u64::from(n),
        format!("{n} values are no row of a cache of {} x {}", c.heads, c.head_dim),
    )
}

fn repack(at: &str, r: &Repack) -> Result<(), VerifyError> {
    size(at, "rows", r.rows)?;
    size(at, "columns", r.cols)?;
    rule(&at, (1..=r.rows).contains(&r.piece), format!("{} of {} rows at a time", r.piece, r.rows))?;
    rule(&at, r.layout != Layout::Gguf, "GGUF's layout needs no repacking")?;
    let whole = r.layout.row_bytes(r.dtype, r.cols).is_some();
    rule(&at, whole, format!("{} values are not whole {} blocks in {:?}", r.cols, r.dtype, r.layout))
}

fn embed(at: &str, e: &Embed) -> Result<(), VerifyError> {
    size(at, "vocabulary", e.vocab)?;
    finish(at, e.finish, e.n)?;
    rule(
        &at,
        e.layout.row_bytes(e.dtype, e.n).is_some(),
        format!("{} values are not whole {} blocks in {:?}", e.n, e.dtype, e.layout),
    )
}

fn gemv(at: &str, g: &Gemv) -> Result<(), VerifyError> {
    size(at, "inputs", g.k)?;
    rule(&at, (1..=MOST_PARTS).contains(&g.segments.len()), format!("{} segments", g.segments.len()))?;
    for s in &g.segments {
        size(at, "outputs of a segment", s.rows)?;
        let whole = s.layout.row_bytes(s.dtype, g.k).is_some();
        rule(&at, whole, format!("{} inputs are not whole {} blocks in {:?}", g.k, s.dtype, s.layout))?;
        rule(
            &at,
            s.dtype.is_quantized() == (g.input == Input::Q8),
            format!("{} weights with {:?} activations", s.dtype, g.input),
        )?;
    }
    if g.input == Input::Q8 {
        rule(&at, g.k.is_multiple_of(Q8Layout::DEFAULT_BLOCK), format!("{} inputs are not whole int8 blocks", g.k))?;
    }
    if let Some(d) = g.deferred {
        rule(&at, d.n > 0, "a norm of nothing")?;
    }
    match &g.tail {
        Tail::Separate(outs) => {
            rule(&at, outs.len() == g.segments.len(), "each segment needs one destination")?;
            let of = |o: &SegmentOut| match o {
                SegmentOut::Store(rope) | SegmentOut::Append(rope, _) => *rope,
            };
            one_rope(at, outs.iter().filter_map(of))?;
            for (out, s) in outs.iter().zip(&g.segments) {
                if let Some(r) = of(out) {
                    rope(at, r, s.rows)?;
                }
                if let SegmentOut::Append(_, c) = out {
                    cache_row(at, *c, s.rows)?;
                }
            }
            Ok(())
        }
        Tail::Vector { combine, finish: f, .. } => {
            let needed = if matches!(combine, Combine::Gated(_)) { 2 } else { 1 };
            let equal = g.segments.iter().all(|s| s.rows == g.segments[0].rows);
            rule(&at, g.segments.len() == needed && equal, format!("{combine:?} needs {needed} segments of equal rows"))?;
            finish(at, *f, g.segments[0].rows)
        }
        Tail::Head => rule(&at, g.segments.len() == 1, "the head has one segment"),
    }
}

fn attend(at: &str, a: &Attend) -> Result<(), VerifyError> {
    cache(at, a.cache)?;
    rule(
        &at,
        (1..=MOST_HEADS).contains(&a.heads) && a.heads.is_multiple_of(a.cache.heads),
        "KV heads must divide the query heads",
    )?;
    let n = u64::from(a.heads) * u64::from(a.cache.head_dim);
    rule(&at, n <= u64::from(MOST), format!("{n} query values"))?;
    finish(at, a.finish, n as u32)?;
    rule(&at, !a.finish.ssq, "attention writes no sums of squares")?;
    let group = a.heads / a.cache.heads * a.cache.head_dim;
    rule(
        &at,
        !a.finish.q8 || group.is_multiple_of(Q8Layout::DEFAULT_BLOCK),
        "a KV head's query values are not whole int8 blocks",
    )?;
    let spec = a.prologue.and_then(|p| p.rope);
    spec.map_or(Ok(()), |r| rope(at, r, a.cache.head_dim))
}

fn heads(at: &str, h: &Heads) -> Result<(), VerifyError> {
    rule(&at, (1..=MOST_PARTS).contains(&h.parts.len()), format!("{} parts", h.parts.len()))?;
    one_rope(at, h.parts.iter().filter_map(|p| p.rope))?;
    for p in &h.parts {
        let n = u64::from(p.heads) * u64::from(p.head_dim);
        rule(&at, (1..=u64::from(MOST)).contains(&n), format!("a part of {n} values"))?;
        if let Some(r) = p.rope {
            rope(at, r, p.head_dim)?;
        }
        if let HeadOut::Append(c) = p.out {
            cache_row(at, c, n as u32)?;
        }
    }
    Ok(())
}

fn row(at: &str, r: &Row) -> Result<(), VerifyError> {
    finish(at, r.finish, r.n)?;
    match r.expr {
        RowExpr::Norm { group, .. } => {
            rule(&at, group > 0 && r.n.is_multiple_of(group), format!("groups of {group} don't divide {} values", r.n))
        }
        RowExpr::Scale(d) => rule(&at, d.n > 0, "a norm of nothing"),
        RowExpr::Copy | RowExpr::Add | RowExpr::Mul | RowExpr::Act(_) | RowExpr::Gated(_) | RowExpr::Bias => Ok(()),
    }
}
