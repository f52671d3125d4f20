//! Where attention of one token begins to share the context out in another way: among more workgroups, or in larger parts.
//!
//! A second derivation of what `hipc/attention.h` does (`AttentionShape`), from the plan alone. How many query heads a wave takes and how
//! many positions at a time depends on the GPU's registers, which a plan doesn't name: all that they can be is tried.

use hipc_ir::dtype::KvType;
use hipc_ir::fused::Attend;
use hipc_ir::plan::Geometry;

/// Sixteen workgroups share the context, in parts of at least 128 positions, until each has 512; only then more take part.
const FEW: u32 = 16;
const PART: [u32; 2] = [128, 512];
/// Most query heads that a wave takes.
const MOST_HEADS: u32 = 4;
/// Values of a head that a lane holds.
const HELD: u32 = 8;

/// Positions of a workgroup.
fn share(positions: u32, splits: u32, step: u32) -> u32 {
    let wanted = positions.div_ceil(FEW).clamp(PART[0], PART[1]);
    positions.div_ceil(splits).max(wanted).next_multiple_of(step)
}

/// Positions that a workgroup can take at a time.
fn steps(a: &Attend, g: &Geometry) -> Vec<u32> {
    let slots = g.wave / (a.cache.head_dim / HELD).next_power_of_two().max(1);
    let shared_by = a.heads / a.cache.heads.max(1);
    let at_once = if a.cache.kv == KvType::F32 { &[1][..] } else { &[2, 4] };
    let sets = (1..=MOST_HEADS).filter_map(|heads| (shared_by.div_ceil(heads)..=g.waves).find(|n| g.waves.is_multiple_of(*n)));
    let mut steps: Vec<u32> = sets.flat_map(|sets| at_once.iter().map(move |n| g.waves / sets * slots * n)).collect();
    steps.retain(|&step| step > 0);
    steps.sort_unstable();
    steps.dedup();
    steps
}

/// The positions, in order, at which a workgroup more takes part for the first, second and last time, and those at which parts begin to
/// grow, end to, and begin again.
pub(super) fn edges(a: &Attend, g: &Geometry, ctx: u32) -> Vec<u32> {
    let mut edges = Vec::new();
    for step in steps(a, g) {
        let at = |positions: u32| {
            let each = share(positions, g.splits.max(1), step);
            ((positions - 1) / each + 1, each)
        };
        let (mut joins, mut grows, mut most) = (Vec::new(), Vec::new(), 1);
        for positions in 2..=ctx {
            let ((_, before), (used, each)) = (at(positions - 1), at(positions));
            if used > most {
                (most, _) = (used, joins.push(positions - 1));
            }
            if each > before {
                grows.push(positions - 1);
            }
        }
        edges.extend(joins.iter().take(2).chain(joins.last()));
        edges.extend(grows.first().into_iter().chain(grows.last()));
    }
    edges.sort_unstable();
    edges.dedup();
    edges
}

#[cfg(test)]
mod tests {
    use super::*;
    use hipc_ir::dtype::Real;
    use hipc_ir::fused::{CacheSpec, Finish};

    fn of(wave: u32, splits: u32, heads: u32, ctx: u32) -> Vec<u32> {
        let cache = CacheSpec { heads: 4, head_dim: 64, ctx, kv: KvType::F16 };
        let op = Attend { heads, cache, scale: Real(0.125), prologue: None, finish: Finish::RAW };
        let [waves, one] = [8, 1];
        let geometry = Geometry {
            wave,
            waves,
            rows_per_wave: one,
            k_waves: one,
            row_steps: one,
            tile: one,
            tokens: one,
            splits,
            parts_in: 0,
        };
        edges(&op, &geometry, ctx)
    }

    /// By hand, from the comment at `share` in attention.h.
    #[test]
    fn parts_grow_from_2048_positions_on_and_are_whole_steps() {
        // Wave 32, 8 query heads to a KV head, 4 to a wave: steps of 2 · 4 or 4 · 4 slots or fewer, which divide 128. Sixteen parts of 128
        // positions are full at 2,048; parts then grow up to 512 each and again as sixteen of them are full, at 8,192.
        let all = of(32, 16, 32, 16384);
        for edge in [128, 256, 15 * 128, 2048] {
            assert!(all.contains(&edge), "no {edge} in {all:?}");
        }
        // Few positions: no more than two parts.
        assert_eq!(of(32, 2, 32, 200), [128]);
        // Wave 64, a query head for each KV head: 8 waves of 8 slots, 2 or 4 positions each, are 128 or 256 positions.
        let all = of(64, 16, 4, 4096);
        for edge in [128, 256, 512, 15 * 128, 15 * 256, 2048] {
            assert!(all.contains(&edge), "no {edge} in {all:?}");
        }
    }
}
