//! Which geometries the skeletons take.
//!
//! The rules, by skeleton (`threads = wave · waves ≤ 1024` everywhere):
//!
//! | skeleton | rule |
//! |---|---|
//! | GEMV | `k_waves` divides `waves`; `rows_per_wave · (waves / k_waves) · row_steps = tile` (`2 · tile` for a gated pair, and then `rows_per_wave` divides `tile`); `rows_per_wave` is 1, 2 or 4; `rows_per_wave · row_steps` ≤ `wave`; at most 8 waves of 64 lanes, so that a lane has 128 registers on every target |
//! | | `k` is whole blocks and whole 16-byte pieces of every segment's type: a multiple of 8 for F16 and BF16, of 4 for F32 |
//! | | int8 results: `tile` and the result's length are multiples of 32. Any other length may end in a part of a tile |
//! | | rotation of pairs (2i, 2i+1): `tile` is even |
//! | | rotation of pairs (i, i + dims/2): `tile` is a multiple of `head_dim`; or `tile` divides `head_dim` and `dims`, and `rows_per_wave` divides `tile / 2`: then a tile takes half its rows from each half of the rotated part |
//! | embed, row | int8 results: `tile` and n multiples of 32; a norm by groups: `tile` and n are whole groups |
//! | attention | `head_dim` a multiple of 16 up to 256; int8 results: `heads / kv_heads · head_dim` a multiple of 32; at least one wave for every 4 query heads of a KV head (3, 2 or 1 where registers are few: `registers(1024) · 1024 / threads` under 152, 128, 96); a prologue takes one token |
//! | heads | `waves = tile` |
//! | all | LDS of at most 64 KiB, as [`check_geometry`] adds it up |
//!
//! Fewer partial sums (`parts_out` of a producer with `ssq`) than threads in the consumer cost it nothing.

use hipc_ir::dtype::{DType, Q8Layout};
use hipc_ir::fused::{Attend, Combine, Finish, FusedOp, Gemv, RopeSpec, Row, RowExpr, SegmentOut, Tail};
use hipc_ir::graph::RopeStyle;
use hipc_ir::plan::{Geometry, KernelSpec};

/// LDS that a workgroup can have on every target.
const LDS: u64 = 64 << 10;

/// LDS of a choice that draws (`DrawMemory`), rounded up.
const DRAW_LDS: u64 = 46 << 10;

macro_rules! require {
    ($condition:expr, $($message:tt)*) => {
        if !$condition {
            return Err(format!($($message)*));
        }
    };
}

/// Whether the kernel's skeleton can be instantiated with this geometry.
///
/// # Errors
/// The rule that is broken, with the numbers.
pub fn check_geometry(spec: &KernelSpec) -> Result<(), String> {
    let g = &spec.geometry;
    require!(matches!(g.wave, 32 | 64), "waves have 32 or 64 lanes, not {}", g.wave);
    require!((1..=1024).contains(&spec.threads()), "{} waves of {} lanes are not 1 to 1024 threads", g.waves, g.wave);
    require!(g.tile > 0 && g.tokens > 0 && g.splits > 0, "tile, tokens and splits are at least 1");
    require!(is_identifier(&spec.name), "`{}` is no name of a kernel", spec.name);
    let lds = match &spec.op {
        FusedOp::Embed(e) => {
            require!(
                e.layout.row_bytes(e.dtype, e.n).is_some(),
                "{} values are no whole blocks of {} in {:?}",
                e.n,
                e.dtype,
                e.layout
            );
            finish(e.finish, e.n, g)?
        }
        FusedOp::Row(r) => row(r, g)?,
        FusedOp::Gemv(op) => gemv(op, g)?,
        FusedOp::Attend(a) => attend(a, g)?,
        FusedOp::Heads(h) => {
            require!(g.waves == g.tile, "{} heads take as many waves, not {}", g.tile, g.waves);
            4 * u64::from(g.tile) * h.parts.iter().map(|p| u64::from(p.head_dim)).max().unwrap_or(0)
        }
        FusedOp::Choose(a) => {
            require!(!a.partials || g.parts_in > 0, "partials are read, but there are none");
            8 * u64::from(g.waves) + DRAW_LDS
        }
        FusedOp::Repack(r) => {
            require!(r.layout.row_bytes(r.dtype, r.cols).is_some(), "{} has no layout {:?}", r.dtype, r.layout);
            0
        }
    };
    require!(lds <= LDS, "{lds} bytes of LDS are more than {LDS}");
    Ok(())
}

fn is_identifier(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(word)
}

/// Bytes of LDS.
fn finish(f: Finish, n: u32, g: &Geometry) -> Result<u64, String> {
    const BLOCK: u32 = Q8Layout::DEFAULT_BLOCK;
    require!(!f.q8 || g.tile.is_multiple_of(BLOCK), "int8 blocks of {BLOCK} have one owner: tile {} is no multiple", g.tile);
    require!(!f.q8 || n.is_multiple_of(BLOCK), "int8 vectors are whole blocks of {BLOCK}, not {n} values");
    require!(!f.f32 || f.gain, "f32 with a gain, but no gain");
    Ok(if f.ssq { 4 * u64::from(g.tokens) * u64::from(g.tile.div_ceil(BLOCK)) } else { 0 })
}

fn row(r: &Row, g: &Geometry) -> Result<u64, String> {
    match r.expr {
        RowExpr::Norm { group, .. } => {
            require!(group > 0 && r.n.is_multiple_of(group), "groups of {group} don't divide {} values", r.n);
            require!(g.tile.is_multiple_of(group), "a group of {group} has one owner: tile {} is no multiple", g.tile);
        }
        RowExpr::Scale(_) => require!(g.parts_in > 0, "a deferred norm reads partial sums, but there are none"),
        _ => {}
    }
    Ok(finish(r.finish, r.n, g)? + 4 * u64::from(g.tile + g.waves))
}

fn gemv(op: &Gemv, g: &Geometry) -> Result<u64, String> {
    let Geometry { waves, k_waves, rows_per_wave, row_steps, tile, .. } = *g;
    require!(k_waves > 0 && waves.is_multiple_of(k_waves), "k_waves {k_waves} divides waves {waves}");
    require!(!op.segments.is_empty(), "a GEMV has a matrix");
    require!(op.deferred.is_none() || g.parts_in > 0, "a deferred norm reads partial sums, but there are none");
    let gated = matches!(op.tail, Tail::Vector { combine: Combine::Gated(_), .. });
    let (local, asked) = (rows_per_wave * (waves / k_waves) * row_steps, if gated { 2 * tile } else { tile });
    require!(
        local == asked,
        "rows {rows_per_wave} x waves {waves} / {k_waves} x steps {row_steps} are {local} rows, not {asked}"
    );
    require!(waves * g.wave <= if g.wave == 64 { 512 } else { 1024 }, "{waves} waves of 64 lanes leave too few registers");
    require!(matches!(rows_per_wave, 1 | 2 | 4), "a wave takes 1, 2 or 4 rows at a time, not {rows_per_wave}");
    require!(
        rows_per_wave * row_steps <= g.wave,
        "a lane keeps one sum: {row_steps} steps of {rows_per_wave} rows are more than {} lanes",
        g.wave
    );
    for s in &op.segments {
        let piece = match s.dtype {
            DType::F32 => 4,
            DType::F16 | DType::BF16 => 8,
            DType::Q4_0 | DType::Q8_0 | DType::Q4_K | DType::Q6_K => s.dtype.block_len(),
        };
        require!(op.k > 0 && op.k.is_multiple_of(piece), "k {} is no multiple of {piece}, as {} needs", op.k, s.dtype);
        require!(s.layout.row_bytes(s.dtype, op.k).is_some(), "{} has no layout {:?}", s.dtype, s.layout);
    }
    let mut lds = 4 * u64::from(g.tokens) * u64::from(k_waves * local + waves);
    match &op.tail {
        Tail::Separate(outs) => {
            require!(outs.len() == op.segments.len(), "a destination for every matrix");
            let ropes = outs.iter().filter_map(|out| match out {
                SegmentOut::Store(rope) | SegmentOut::Append(rope, _) => *rope,
            });
            for rope in ropes {
                rotation(rope, g)?;
            }
        }
        Tail::Vector { finish: f, .. } => {
            require!(op.segments.len() == 1 + usize::from(gated), "{} matrices for one result", op.segments.len());
            require!(!gated || tile.is_multiple_of(rows_per_wave), "rows {rows_per_wave} divide a gated tile of {tile}");
            lds += finish(*f, op.segments[0].rows, g)?;
        }
        Tail::Head => {
            require!(op.segments.len() == 1, "{} matrices for the logits", op.segments.len());
            lds += 8 * u64::from(g.tokens) * u64::from(tile.div_ceil(32));
        }
    }
    Ok(lds)
}

fn rotation(rope: RopeSpec, g: &Geometry) -> Result<(), String> {
    let RopeSpec { style, dims, head_dim } = rope;
    match style {
        RopeStyle::Norm => require!(g.tile.is_multiple_of(2), "pairs (2i, 2i + 1) have one owner: tile {} is odd", g.tile),
        RopeStyle::Neox => {
            let folded = head_dim.is_multiple_of(g.tile) && dims.is_multiple_of(g.tile);
            let folded = folded && g.tile.is_multiple_of(2) && (g.tile / 2).is_multiple_of(g.rows_per_wave);
            require!(
                g.tile.is_multiple_of(head_dim) || folded,
                "pairs (i, i + {}) of heads of {head_dim} have one owner: tile {}, rows {}",
                dims / 2,
                g.tile,
                g.rows_per_wave
            );
        }
    }
    Ok(())
}

fn attend(a: &Attend, g: &Geometry) -> Result<u64, String> {
    let (head_dim, kv) = (a.cache.head_dim, a.cache.heads);
    require!(head_dim.is_multiple_of(16) && (16..=256).contains(&head_dim), "head_dim {head_dim} is no multiple of 16 up to 256");
    require!(kv > 0 && a.heads.is_multiple_of(kv), "{} query heads don't share {kv} KV heads evenly", a.heads);
    let shared_by = a.heads / kv;
    // The kernel decides by the target's registers; with 8 waves or fewer every target affords 3 heads to a wave.
    require!(shared_by <= 4 * g.waves, "{} waves are too few for {shared_by} query heads per KV head", g.waves);
    require!(a.prologue.is_none() || g.tokens == 1, "a prologue takes one token");
    let block = Q8Layout::DEFAULT_BLOCK;
    let whole = (shared_by * head_dim).is_multiple_of(block);
    require!(!a.finish.q8 || whole, "int8 blocks of {block} have one owner: {shared_by} heads of {head_dim}");
    require!(!a.finish.ssq, "attention writes no sums of squares");
    let [shared_by, head_dim, waves] = [shared_by, head_dim, g.waves].map(u64::from);
    // Results of every wave and its (up to four) query heads; queries and the new key.
    Ok(4 * ((waves * shared_by.min(4) + shared_by + 2) * head_dim + 2 * waves * shared_by.min(4)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hipc_ir::dtype::{KvType, Layout, Real};
    use hipc_ir::fused::{CacheSpec, Input, Segment};
    use hipc_ir::graph::Act;

    fn one(dtype: DType, k: u32, rows: u32, finish: Finish) -> FusedOp {
        let input = if dtype.is_quantized() { Input::Q8 } else { Input::F32 };
        let tail = Tail::Vector { combine: Combine::One, residual: false, finish };
        FusedOp::Gemv(Gemv {
            k,
            input,
            deferred: None,
            segments: vec![Segment { dtype, layout: Layout::Gguf, rows, bias: false }],
            tail,
        })
    }

    fn rotated(style: RopeStyle, dims: u32) -> FusedOp {
        let rope = RopeSpec { style, dims, head_dim: 64 };
        let segments = vec![Segment { dtype: DType::Q8_0, layout: Layout::Split, rows: 256, bias: false }];
        let tail = Tail::Separate(vec![SegmentOut::Store(Some(rope))]);
        FusedOp::Gemv(Gemv { k: 256, input: Input::Q8, deferred: None, segments, tail })
    }

    fn attention(heads: u32, head_dim: u32) -> FusedOp {
        let cache = CacheSpec { heads: 1, head_dim, ctx: 64, kv: KvType::F16 };
        FusedOp::Attend(Attend { heads, cache, scale: Real(0.1), prologue: None, finish: Finish::Q8 })
    }

    /// Four waves, two of which split K; two rows at a time.
    fn spread(tile: u32) -> Geometry {
        // A lane keeps one sum, so larger tiles have more waves.
        let waves = if tile > 64 { 16 } else { 4 };
        let row_steps = (tile / waves).max(1);
        Geometry { rows_per_wave: 2, k_waves: 2, row_steps, ..Geometry::plain(32, waves, tile) }
    }

    fn refused(op: FusedOp, geometry: Geometry, why: &str) {
        let error = check_geometry(&KernelSpec { name: "k000_test".into(), op, geometry }).unwrap_err();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn rules_are_named() {
        let q8 = || one(DType::Q8_0, 256, 256, Finish::Q8);
        assert_eq!(check_geometry(&KernelSpec { name: "k000_test".into(), op: q8(), geometry: spread(32) }), Ok(()));
        refused(q8(), Geometry { wave: 16, ..spread(32) }, "32 or 64 lanes");
        refused(q8(), Geometry { waves: 33, ..spread(32) }, "1 to 1024 threads");
        refused(q8(), Geometry { k_waves: 3, ..spread(32) }, "divides waves");
        refused(q8(), Geometry { row_steps: 7, ..spread(32) }, "28 rows, not 32");
        refused(q8(), spread(16), "one owner: tile 16");
        refused(one(DType::Q8_0, 256, 250, Finish::Q8), spread(32), "whole blocks of 32, not 250");
        refused(one(DType::F16, 252, 256, Finish::RAW), spread(32), "no multiple of 8");
        refused(one(DType::Q4_K, 128, 256, Finish::RAW), spread(32), "no multiple of 256");
        refused(rotated(RopeStyle::Neox, 64), spread(24), "pairs (i, i + 32)");
        refused(rotated(RopeStyle::Neox, 16), spread(32), "pairs (i, i + 8)");
        let FusedOp::Gemv(mut split) = one(DType::F16, 256, 256, Finish::RAW) else { return };
        split.segments[0].layout = Layout::Split;
        refused(FusedOp::Gemv(split), spread(32), "F16 has no layout Split");
        refused(attention(4, 40), spread(1), "head_dim 40");
        refused(attention(1, 48), spread(1), "1 heads of 48");
        refused(attention(20, 64), spread(1), "too few");
    }

    #[test]
    fn rotated_tiles_are_heads_or_even_parts_of_them() {
        for (style, dims, tile) in [
            (RopeStyle::Norm, 64, 8),
            (RopeStyle::Neox, 64, 64),
            (RopeStyle::Neox, 64, 128),
            (RopeStyle::Neox, 64, 16),
            (RopeStyle::Neox, 32, 32),
        ] {
            let spec = KernelSpec { name: "k000_test".into(), op: rotated(style, dims), geometry: spread(tile) };
            assert_eq!(check_geometry(&spec), Ok(()), "{style:?} {dims} {tile}");
        }
    }

    #[test]
    fn a_gated_tile_holds_both_matrices() {
        let segment = Segment { dtype: DType::Q4_0, layout: Layout::Gguf, rows: 256, bias: false };
        let tail = Tail::Vector { combine: Combine::Gated(Act::Silu), residual: false, finish: Finish::Q8 };
        let op = FusedOp::Gemv(Gemv { k: 256, input: Input::Q8, deferred: None, segments: vec![segment; 2], tail });
        let spec = |row_steps| Geometry { row_steps, ..spread(32) };
        assert_eq!(check_geometry(&KernelSpec { name: "k".into(), op: op.clone(), geometry: spec(16) }), Ok(()));
        refused(op, spec(8), "32 rows, not 64");
    }
}
