//! How many times a value is rounded on its way through a kernel's sums: what the kernels' geometry makes of the number of terms.
//!
//! The device `cpu` adds in another order, with longer chains for large matrices. It is held to the same bound nevertheless: roundings
//! cancel each other, and a quarter of the bound is the most that was seen, on `cpu` as on the kernels' own sums.

use hipc_ir::fused::Input;
use hipc_ir::plan::Geometry;

/// Values of an attention head that a lane holds.
const HEAD_VALUES: usize = 8;

/// Fewest values that a lane's piece of a row has: 16 bytes of quants of 8 bits at most, or of f32.
fn piece(input: Input) -> usize {
    match input {
        Input::Q8 => 16,
        Input::F32 => 4,
    }
}

/// Roundings of one piece's product, relative to what [`crate::blocks::dot_magnitude`] adds up: scales, their sum, the offset. A piece of
/// floats is a product and up to eight sums.
fn of_piece(input: Input) -> u32 {
    match input {
        Input::Q8 => 4,
        Input::F32 => 9,
    }
}

fn log2(n: usize) -> u32 {
    n.max(1).next_power_of_two().ilog2()
}

fn turns(n: usize, at_once: usize) -> u32 {
    n.div_ceil(at_once.max(1)) as u32
}

fn lanes(g: &Geometry) -> usize {
    g.wave.max(1) as usize
}

fn waves(g: &Geometry) -> usize {
    g.waves.max(1) as usize
}

/// A wave adds `n` terms: each lane its own, then a butterfly.
pub(super) fn wave(g: &Geometry, n: usize) -> u32 {
    turns(n, lanes(g)) + log2(lanes(g))
}

/// A workgroup adds `n` terms: as a wave does, then wave by wave.
pub(super) fn workgroup(g: &Geometry, n: usize) -> u32 {
    turns(n, lanes(g) * waves(g)) + log2(lanes(g)) + waves(g) as u32
}

/// A row of `k` weights meets its input: the pieces of a lane, a butterfly, the waves that split K.
pub(super) fn row(g: &Geometry, input: Input, k: usize) -> u32 {
    let k_waves = g.k_waves.max(1) as usize;
    of_piece(input) + turns(k.div_ceil(piece(input)), lanes(g) * k_waves) + log2(lanes(g)) + k_waves as u32 - 1
}

/// A query meets a key: a product and eight sums, a butterfly; before that log₂e as f32 and its product with the scale.
pub(super) fn score(head_dim: usize) -> u32 {
    1 + HEAD_VALUES as u32 + log2(head_dim.div_ceil(HEAD_VALUES)) + 2
}

/// How the values of `positions` come together in attention.
pub(super) struct Joins {
    /// Times that the maximum a weight is taken against can be replaced by a larger one.
    pub hops: u32,
    /// Roundings of a value's way into the weighted sum, besides those of its weight.
    pub sums: u32,
}

/// Positions are dealt to workgroups (sixteen at most until each has 512, and none fewer than 128), waves and slots of a wave, which take four at a time at most (and perhaps the new one after them). With few
/// registers the waves are in sets of as many as divide them, each with other ones of the `shared_by` heads.
pub(super) fn joins(g: &Geometry, shared_by: usize, head_dim: usize, positions: usize) -> Joins {
    let slots = (lanes(g) / head_dim.div_ceil(HEAD_VALUES).next_power_of_two()).max(1);
    let sets = (shared_by..waves(g)).find(|n| waves(g).is_multiple_of(*n)).unwrap_or(waves(g));
    let (waves, splits) = (waves(g) / sets, g.splits.max(1) as usize);
    let share = positions.div_ceil(splits).max(positions.div_ceil(16).clamp(128, 512)).min(positions);
    let each = 4 * turns(share, 4 * slots * waves) + 1;
    // A slot: the product, then per position the old sum's factor and the addition. Joins of slots: a factor and an addition. Of waves,
    // all at once: a factor and the additions. Of workgroups, some at a time: a factor and an addition each. The quotient.
    let splits = splits as u32;
    let sums = 1 + 2 * each + 2 * log2(slots) + 1 + waves as u32 + 1 + 2 * splits + 1;
    Joins { hops: each + log2(slots) + 1 + splits, sums }
}
