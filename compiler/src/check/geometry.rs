//! Kernels by themselves: names, and geometries by the documentation of [`hipc_ir::plan::Geometry`]; how many parts a
//! launch's work has.

use super::broken;
use super::error::{CheckError, kernel_fault};
use super::ops::Q8_BLOCK;
use crate::target::Target;
use hipc_ir::fused::{Access, Combine, Finish, FusedOp, Gemv, RopeSpec, RowExpr, SegmentOut, Shape, Tail};
use hipc_ir::graph::RopeStyle;
use hipc_ir::plan::{Geometry, KernelSpec, Plan};
use std::collections::HashSet;

/// Threads that a workgroup may have on every target.
const MAX_THREADS: u64 = 1024;

/// Outputs and tokens that a workgroup has at most: local memory holds a few bytes of each, and 64 KiB in all.
const MOST_OUTPUTS: u32 = 64 << 10;

/// Broken rules of all kernels; their ops are sound.
pub(super) fn faults(plan: &Plan) -> Vec<CheckError> {
    let Ok(target) = Target::parse(&plan.target) else { return vec![CheckError::Target(plan.target.clone())] };
    let mut names = HashSet::new();
    let mut faults = Vec::new();
    for (kernel, spec) in &plan.kernels {
        let named = [
            (is_identifier(&spec.name), "the name is not a C identifier"),
            (names.insert(spec.name.as_str()), "the name is taken"),
        ];
        let rules = broken(&named).chain(common(spec, target.simd.wave_size)).chain(by_op(&spec.op, &spec.geometry));
        let rules: Vec<_> = rules.map(|rule| kernel_fault(plan, kernel, rule)).collect();
        // What else its skeleton needs (local memory, pieces of K) is for the templates to say; their sums need sane numbers.
        if rules.is_empty()
            && let Err(reason) = hipc_templates::check_geometry(spec)
        {
            faults.push(CheckError::Skeleton { kernel, name: spec.name.clone(), reason });
        }
        faults.extend(rules);
    }
    faults
}

fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_') && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn common(spec: &KernelSpec, wave: u32) -> Vec<&'static str> {
    let g = &spec.geometry;
    let positive = [g.waves, g.rows_per_wave, g.k_waves, g.row_steps, g.tile, g.tokens, g.splits].iter().all(|&v| v > 0);
    let reads_parts =
        spec.op.params().iter().any(|p| p.access == Access::Read && matches!(p.shape, Shape::Ssq | Shape::Partials));
    let rules = [
        (g.wave == wave, "the wave is not the target's"),
        (positive, "a field of the geometry is zero"),
        (g.tile <= MOST_OUTPUTS && g.tokens <= MOST_OUTPUTS, "more outputs than a workgroup can have"),
        (u64::from(g.wave) * u64::from(g.waves) <= MAX_THREADS, "more than 1024 threads"),
        ((g.parts_in > 0) == reads_parts, "parts are read by those kernels that have such an operand"),
    ];
    broken(&rules).collect()
}

fn by_op(op: &FusedOp, g: &Geometry) -> Vec<&'static str> {
    // Fields that the skeleton has no use for are 1.
    let plain = (g.rows_per_wave, g.k_waves, g.row_steps, g.tokens) == (1, 1, 1, 1);
    let unused = |holds: bool| (holds, "a field that the skeleton has no use for is not 1");
    let rules = match op {
        FusedOp::Gemv(op) => return gemv(op, g),
        FusedOp::Embed(e) => vec![unused(plain && g.splits == 1), tile_of_finish(e.finish, g.tile)],
        FusedOp::Row(r) => {
            let grouped = match r.expr {
                RowExpr::Norm { group, .. } if group == r.n => g.tile == r.n,
                RowExpr::Norm { group, .. } => g.tile.is_multiple_of(group),
                _ => true,
            };
            vec![
                unused(plain && g.splits == 1),
                tile_of_finish(r.finish, g.tile),
                (grouped, "a group is normed by one workgroup"),
            ]
        }
        FusedOp::Heads(_) => vec![unused(plain && g.splits == 1), (g.waves == g.tile, "a head has one wave")],
        FusedOp::Attend(_) => vec![unused(plain && g.tile == 1)],
        FusedOp::Repack(_) => vec![unused(plain && g.tile == 1 && g.splits == 1)],
        FusedOp::Choose(c) => vec![
            unused(plain && (c.partials || g.tile == 1) && g.splits == 1),
            (!c.partials || c.n.div_ceil(g.tile.max(1)) == g.parts_in, "the partials are not those of tiles of the logits"),
        ],
    };
    broken(&rules).collect()
}

fn tile_of_finish(finish: Finish, tile: u32) -> (bool, &'static str) {
    (!finish.q8 || tile.is_multiple_of(Q8_BLOCK), "an int8 block has one owner")
}

fn gemv(op: &Gemv, g: &Geometry) -> Vec<&'static str> {
    let [rows, waves, k_waves, steps, tile] = [g.rows_per_wave, g.waves, g.k_waves, g.row_steps, g.tile].map(u64::from);
    let gated = matches!(op.tail, Tail::Vector { combine: Combine::Gated(_), .. });
    let tile_rows = if gated { 2 * tile } else { tile };
    // Three u32 may overflow a u64, but not a u128.
    let computed = u128::from(rows) * u128::from(waves / k_waves.max(1)) * u128::from(steps);
    let finish = match op.tail {
        Tail::Vector { finish, .. } => finish,
        _ => Finish::RAW,
    };
    let rules = [
        (waves.is_multiple_of(k_waves), "the waves that split K divide the waves"),
        (computed == u128::from(tile_rows), "the waves' rows fill the tile"),
        (!gated || tile.is_multiple_of(rows), "the rows that a wave takes at a time are of one matrix"),
        (g.splits == 1, "a field that the skeleton has no use for is not 1"),
        tile_of_finish(finish, g.tile),
        (rotations(op).all(|rope| holds_pairs(rope, g)), "values that turn together are in one tile"),
    ];
    broken(&rules).collect()
}

fn rotations(op: &Gemv) -> impl Iterator<Item = RopeSpec> {
    let outs = if let Tail::Separate(outs) = &op.tail { outs.as_slice() } else { &[] };
    outs.iter().filter_map(|out| match out {
        SegmentOut::Store(rope) | SegmentOut::Append(rope, _) => *rope,
    })
}

/// Whether a tile holds both values of every pair: pairs of neighbours in an even tile, or whole heads. A tile smaller than a
/// head may also take half of its rows from each half of the rotated part; these halves are whole steps of a wave.
fn holds_pairs(rope: RopeSpec, g: &Geometry) -> bool {
    if rope.style == RopeStyle::Norm {
        return g.tile.is_multiple_of(2);
    }
    let folded =
        rope.head_dim.is_multiple_of(g.tile) && rope.dims.is_multiple_of(g.tile) && (g.tile / 2).is_multiple_of(g.rows_per_wave);
    g.tile.is_multiple_of(rope.head_dim) || (g.tile < rope.head_dim && g.tile.is_multiple_of(2) && folded)
}

/// Workgroups that one token's (or group of tokens') outputs take: tiles of a result vector, or splits of KV heads. Partial
/// results are one per such workgroup. The tile isn't zero.
pub(super) fn parts(spec: &KernelSpec) -> u64 {
    let g = &spec.geometry;
    let tiles = |n: u32| u64::from(n).div_ceil(u64::from(g.tile));
    match &spec.op {
        FusedOp::Embed(e) => tiles(e.n),
        FusedOp::Row(r) => tiles(r.n),
        FusedOp::Heads(h) => h.parts.iter().map(|p| tiles(p.heads)).sum(),
        FusedOp::Attend(a) => u64::from(a.cache.heads) * u64::from(g.splits),
        FusedOp::Choose(_) => 1,
        FusedOp::Repack(r) => r.piece.into(),
        // One result: a gated pair's tile has both matrices' rows.
        FusedOp::Gemv(op) if matches!(op.tail, Tail::Vector { .. }) => result_length(&spec.op).map_or(0, tiles),
        FusedOp::Gemv(op) => op.segments.iter().map(|s| tiles(s.rows)).sum(),
    }
}

/// Length of the one f32 vector `y` that a launch computes, of which partial sums or arg-max partials are made.
pub(super) fn result_length(op: &FusedOp) -> Option<u32> {
    match op {
        FusedOp::Embed(e) => Some(e.n),
        FusedOp::Row(r) => Some(r.n),
        FusedOp::Gemv(Gemv { tail: Tail::Vector { .. } | Tail::Head, segments, .. }) => segments.first().map(|s| s.rows),
        _ => None,
    }
}
