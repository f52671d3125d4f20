//! A launch of fewer rows: some units of a mat-vec's outputs, chosen at random, with all that belongs to them.
//!
//! A unit is whole in every respect: tiles of the geometry (which partial sums and arg-maxes belong to), int8 blocks, heads. So what was
//! gathered is itself a launch that the reference can judge.

use super::bytes::Bytes;
use super::inputs::Random;
use hipc_ir::dtype::Q8Layout;
use hipc_ir::fused::{FusedOp, Gemv, Param, Role, SegmentOut, Shape, Tail};
use hipc_ir::plan::KernelSpec;
use std::ops::Range;

/// The chosen rows of each segment.
#[derive(Clone, Debug)]
pub struct Subset {
    /// The kernel with these rows only.
    pub spec: KernelSpec,
    rows: Vec<Vec<Range<usize>>>,
    tile: usize,
    /// Rows in all.
    pub of: u32,
}

fn count(ranges: &[Range<usize>]) -> u32 {
    ranges.iter().map(|r| r.len() as u32).sum()
}

fn lcm(a: u32, b: u32) -> u32 {
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    a / x.max(1) * b
}

/// Some of the units of so many rows: the first, the last, and others.
fn choose(rows: u32, unit: u32, wanted: u32, random: &mut Random) -> Vec<Range<usize>> {
    let units = rows.div_ceil(unit.max(1));
    let wanted = wanted.div_ceil(unit.max(1)).clamp(2, units.max(2)).min(units);
    let mut chosen = vec![0, units.saturating_sub(1)];
    chosen.dedup();
    while (chosen.len() as u32) < wanted {
        let unit = random.below(units);
        if !chosen.contains(&unit) {
            chosen.push(unit);
        }
    }
    chosen.sort_unstable();
    chosen.into_iter().map(|u| (u * unit) as usize..((u + 1) * unit).min(rows) as usize).collect()
}

impl Subset {
    /// About `wanted` rows of a mat-vec; `None` for other launches, and where that would be about all of them.
    pub fn of(spec: &KernelSpec, wanted: u32, seed: u64) -> Option<Self> {
        let FusedOp::Gemv(op) = &spec.op else { return None };
        let total: u32 = op.segments.iter().map(|s| s.rows).sum();
        let (mut op, tile, mut random) = (op.clone(), spec.geometry.tile.max(1), Random(seed));
        let mut rows = Vec::with_capacity(op.segments.len());
        for i in 0..op.segments.len() {
            let all = op.segments[i].rows;
            let share = (u64::from(wanted) * u64::from(all) / u64::from(total.max(1))) as u32;
            let chosen = match &op.tail {
                // Both matrices of a pair give the same outputs.
                Tail::Vector { .. } if i > 0 => rows.first().cloned().unwrap_or_default(),
                Tail::Vector { .. } => choose(all, lcm(tile, Q8Layout::DEFAULT_BLOCK), share, &mut random),
                Tail::Head => choose(all, tile, share, &mut random),
                Tail::Separate(outs) => choose(all, head_of(&outs[i]), share, &mut random),
            };
            rows.push(chosen);
        }
        shrink(&mut op, &rows);
        let few = op.segments.iter().map(|s| s.rows).sum::<u32>();
        let spec = KernelSpec { op: FusedOp::Gemv(op), ..spec.clone() };
        (few < total / 2).then_some(Self { spec, rows, tile: tile as usize, of: total })
    }

    /// Rows chosen.
    pub fn len(&self) -> u32 {
        self.rows.iter().map(|r| count(r)).sum()
    }

    /// What belongs to the chosen rows of an operand of the whole launch, for `n` tokens.
    pub fn gather(&self, whole: &Param, bytes: &[u8], n: usize) -> Bytes {
        let first = self.rows.first().map_or(&[][..], Vec::as_slice);
        let of = |i: u32| self.rows.get(i as usize).map_or(&[][..], Vec::as_slice);
        match (whole.role, whole.shape) {
            (Role::Weight(i), Shape::Weight { dtype, layout, cols, .. }) => {
                let row = layout.row_bytes(dtype, cols).unwrap_or(0) as usize;
                pick(bytes, of(i), row, bytes.len(), 1)
            }
            (Role::Bias(i), _) => pick(bytes, of(i), 4, bytes.len(), 1),
            (Role::Gain, _) => pick(bytes, first, 4, bytes.len(), 1),
            (Role::Out(i), Shape::F32(rows)) => pick(bytes, of(i), 4, 4 * rows as usize, n),
            (Role::Residual | Role::Raw | Role::Gained | Role::Logits, Shape::F32(rows)) => {
                pick(bytes, first, 4, 4 * rows as usize, n)
            }
            (Role::Quantized, Shape::Q8(rows)) => quants(bytes, first, rows, n),
            (Role::SsqOut, _) => pick(bytes, &self.parts(first), 4, 4 * self.all_parts(), n),
            (Role::Partials, _) => self.partials(bytes, first, n),
            (Role::Cache(i), Shape::Cache(cache)) => {
                let head = cache.head_dim as usize;
                let heads: Vec<Range<usize>> = of(i).iter().map(|r| r.start / head..r.end / head).collect();
                let each = cache.bytes() as usize / cache.heads.max(1) as usize;
                pick(bytes, &heads, each, bytes.len(), 1)
            }
            _ => Bytes::of(bytes),
        }
    }

    fn parts(&self, rows: &[Range<usize>]) -> Vec<Range<usize>> {
        rows.iter().map(|r| r.start / self.tile..r.end.div_ceil(self.tile)).collect()
    }

    /// Tiles of the whole launch.
    fn all_parts(&self) -> usize {
        let segments =
            if matches!(&self.spec.op, FusedOp::Gemv(g) if matches!(g.tail, Tail::Vector { .. })) { self.rows.len() } else { 1 };
        (self.of as usize / segments.max(1)).div_ceil(self.tile)
    }

    /// Arg-maxes name rows by their place among the chosen ones.
    fn partials(&self, bytes: &[u8], rows: &[Range<usize>], n: usize) -> Bytes {
        let stride = 8 * self.all_parts();
        let mut picked = pick(bytes, &self.parts(rows), 8, stride, n);
        for pair in picked.as_chunks_mut::<8>().0 {
            let index = i32::from_le_bytes([pair[4], pair[5], pair[6], pair[7]]);
            let mut before = 0;
            for range in rows {
                if usize::try_from(index).is_ok_and(|i| range.contains(&i)) {
                    let place = (before + index as usize - range.start) as i32;
                    pair[4..].copy_from_slice(&place.to_le_bytes());
                    break;
                }
                before += range.len();
            }
        }
        picked
    }
}

/// Rows that belong together in a segment with a result of its own.
fn head_of(out: &SegmentOut) -> u32 {
    match out {
        SegmentOut::Store(rope) => rope.map_or(1, |r| r.head_dim),
        SegmentOut::Append(_, cache) => cache.head_dim,
    }
}

fn shrink(op: &mut Gemv, rows: &[Vec<Range<usize>>]) {
    for (segment, rows) in op.segments.iter_mut().zip(rows) {
        segment.rows = count(rows);
    }
    if let Tail::Separate(outs) = &mut op.tail {
        for (out, rows) in outs.iter_mut().zip(rows) {
            if let SegmentOut::Append(_, cache) = out {
                cache.heads = count(rows) / cache.head_dim.max(1);
            }
        }
    }
}

/// Ranges of elements of so many bytes, from each of `n` tokens.
fn pick(bytes: &[u8], ranges: &[Range<usize>], each: usize, stride: usize, n: usize) -> Bytes {
    let mut out = Vec::with_capacity(n * count(ranges) as usize * each);
    for token in bytes.chunks(stride.max(1)).take(n) {
        for range in ranges {
            out.extend_from_slice(token.get(range.start * each..range.end * each).unwrap_or_default());
        }
    }
    Bytes::of(&out)
}

fn quants(bytes: &[u8], ranges: &[Range<usize>], rows: u32, n: usize) -> Bytes {
    let from = Q8Layout { n: rows, block: Q8Layout::DEFAULT_BLOCK };
    let to = Q8Layout { n: count(ranges), ..from };
    let block = from.block as usize;
    let blocks: Vec<Range<usize>> = ranges.iter().map(|r| r.start / block..r.end / block).collect();
    let mut out = Bytes::filled(0, n * to.stride() as usize);
    for (token, out) in bytes.chunks_exact(from.stride() as usize).zip(out.chunks_exact_mut(to.stride() as usize)) {
        let (quants, rest) = token.split_at(from.n as usize);
        let (scales, sums) = rest.split_at((from.sums() - from.scales()) as usize);
        let all = [
            pick(quants, ranges, 1, quants.len(), 1),
            pick(scales, &blocks, 4, scales.len(), 1),
            pick(sums, &blocks, 4, sums.len(), 1),
        ];
        let mut at = 0;
        for part in &all {
            out[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
    }
    out
}
