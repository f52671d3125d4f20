//! Causal softmax attention over the cache, with the optional work on queries and the new key.

use super::arith::{Arithmetic, Num, Table, rms_norm, rotate};
use super::depth;
use super::finish::Finisher;
use super::operands::{CacheRef, Operands};
use super::tracked::{ELEMENTARY, UNIT};
use super::{LaunchError, Step, Witness};
use hipc_ir::fused::{Attend, Role};
use hipc_ir::plan::{Geometry, KernelSpec};
use rayon::prelude::*;

/// Positions of the cache converted at a time.
const BLOCK: usize = 32;

/// With a prologue, the new key is read as it was stored (rounded to the cache's type).
pub(super) fn attend<A: Arithmetic>(
    spec: &KernelSpec,
    op: &Attend,
    step: Step,
    mut operands: Operands<'_, '_>,
    mut witness: Option<&mut Witness<'_>>,
) -> Result<(), LaunchError> {
    let (heads, kv_heads, head_dim) = (op.heads as usize, op.cache.heads as usize, op.cache.head_dim as usize);
    let n = heads * head_dim;
    let q: &[f32] = operands.read(Role::Q, n * step.tokens)?;
    let mut q: Vec<A::T> = q.iter().map(|&q| A::T::of(q)).collect();
    let k = match op.prologue {
        None => operands.cache(Role::CacheK, op.cache, step)?,
        Some(prologue) => {
            let new: &[f32] = operands.read(Role::K, kv_heads * head_dim * step.tokens)?;
            let mut new: Vec<A::T> = new.iter().map(|&k| A::T::of(k)).collect();
            if let Some(eps) = prologue.norm {
                let (q_gain, k_gain) = (operands.read(Role::QNorm, head_dim)?, operands.read(Role::KNorm, head_dim)?);
                let depth = depth::wave(&spec.geometry, head_dim);
                q.chunks_exact_mut(head_dim).for_each(|q| rms_norm(q, q_gain, eps.0, depth));
                new.chunks_exact_mut(head_dim).for_each(|k| rms_norm(k, k_gain, eps.0, depth));
            }
            if let Some(rope) = prologue.rope {
                let table = Table::take(rope, step, &mut operands)?;
                q.chunks_exact_mut(head_dim).enumerate().for_each(|(i, q)| rotate(q, rope, table.token(i / heads)));
                new.chunks_exact_mut(head_dim).enumerate().for_each(|(i, k)| rotate(k, rope, table.token(i / kv_heads)));
            }
            let mut cache = operands.cache_mut(Role::CacheK, op.cache, step)?;
            for (i, k) in new.chunks_exact(head_dim).enumerate() {
                cache.store(i % kv_heads, step.pos + i / kv_heads, k.iter().map(|k| k.f32()));
            }
            let mut keys = None;
            if let Some(witness) = &mut witness {
                witness.append(Role::CacheK, new.iter().map(|k| k.tracked()));
                keys = witness.keys.map(|bytes| operands.stored(Role::CacheK, bytes, op.cache)).transpose()?;
            }
            keys.unwrap_or(cache.into_ref())
        }
    };
    let v = operands.cache(Role::CacheV, op.cache, step)?;
    let finisher = Finisher::take(&mut operands, op.finish, n as u32, spec.geometry.tile, step)?;
    // The query heads of one KV head lie together and share its loads.
    let shape = Shape { head_dim, group: heads / kv_heads, scale: A::T::of64(op.scale.0), geometry: &spec.geometry };
    let group = shape.group * head_dim;
    let mut out = vec![A::T::default(); n * step.tokens];
    out.par_chunks_mut(group).zip(q.par_chunks(group)).enumerate().for_each(|(i, (out, q))| {
        let (t, kv_head) = (i / kv_heads, i % kv_heads);
        attend_group::<A>(&shape, q, k, v, kv_head, step.pos + t + 1, out);
    });
    finisher.write::<A::T>(step.tokens, witness, |t, y| y.copy_from_slice(&out[t * n..][..n]));
    Ok(())
}

/// What all query heads of a launch share.
struct Shape<'a, T> {
    head_dim: usize,
    /// Query heads per KV head.
    group: usize,
    scale: T,
    geometry: &'a Geometry,
}

fn attend_group<A: Arithmetic>(
    shape: &Shape<'_, A::T>,
    q: &[A::T],
    k: CacheRef<'_>,
    v: CacheRef<'_>,
    kv_head: usize,
    positions: usize,
    out: &mut [A::T],
) {
    let (head_dim, depth) = (shape.head_dim, depth::score(shape.head_dim));
    let mut rows = vec![0f32; BLOCK * head_dim];
    // [query head][position]
    let mut scores = vec![A::T::default(); q.len() / head_dim * positions];
    for from in (0..positions).step_by(BLOCK) {
        let rows = &mut rows[..BLOCK.min(positions - from) * head_dim];
        k.load(kv_head, from, rows);
        for (q, scores) in q.chunks_exact(head_dim).zip(scores.chunks_exact_mut(positions)) {
            for (score, k) in scores[from..].iter_mut().zip(rows.chunks_exact(head_dim)) {
                *score = shape.scale * A::dot(q, k, depth);
            }
        }
    }
    let joins = depth::joins(shape.geometry, shape.group, head_dim, positions);
    let mut sums = Vec::with_capacity(shape.group);
    for scores in scores.chunks_exact_mut(positions) {
        let max = scores.iter().fold(scores[0], |max, &s| if s > max { s } else { max });
        for score in scores.iter_mut() {
            let weight = (*score - max).exp();
            *score = if A::TRACKS { weight.with_error(weight_error(*score, max, weight, joins.hops)) } else { weight };
        }
        sums.push(A::T::sum(scores.iter().copied(), 0));
    }
    for from in (0..positions).step_by(BLOCK) {
        let rows = &mut rows[..BLOCK.min(positions - from) * head_dim];
        v.load(kv_head, from, rows);
        for (out, scores) in out.chunks_exact_mut(head_dim).zip(scores.chunks_exact(positions)) {
            for (&score, v) in scores[from..].iter().zip(rows.chunks_exact(head_dim)) {
                A::axpy(score, v, out);
            }
        }
    }
    for (out, &sum) in out.chunks_exact_mut(head_dim).zip(&sums) {
        out.iter_mut().for_each(|o| *o = *o / sum);
    }
    if A::TRACKS {
        for (h, (out, scores)) in out.chunks_exact_mut(head_dim).zip(scores.chunks_exact(positions)).enumerate() {
            track(out, scores, sums[h], joins.sums, |at, row| v.load(kv_head, at, row));
        }
    }
}

/// What a position's weight 2^(score − max) may be off by: the score's error (the maximum's is in all weights alike, and in their sum), a
/// rounded difference and a power of two. Where a maximum so far gives way to a larger one, the weight becomes a product of powers; the
/// differences still add up to the same.
fn weight_error<T: Num>(score: T, max: T, weight: T, hops: u32) -> f64 {
    let (score, below) = (score.tracked(), max.tracked().value - score.tracked().value);
    weight.tracked().value * (score.error + UNIT * below + ELEMENTARY * f64::from(1 + hops))
}

/// Gives a head's result Σ wv / Σ w its error. An error ε of a weight moves it by ε(v − result) / Σ w: it counts in both sums. The sums
/// themselves, and the quotient, round what is in them.
fn track<T: Num>(out: &mut [T], weights: &[T], sum: T, roundings: u32, load: impl Fn(usize, &mut [f32])) {
    let mut v = vec![0f32; out.len()];
    let (mut moved, mut magnitude) = (vec![0f64; out.len()], vec![0f64; out.len()]);
    for (at, weight) in weights.iter().map(|w| w.tracked()).enumerate() {
        load(at, &mut v);
        for (d, &v) in v.iter().enumerate() {
            let v = f64::from(v);
            moved[d] += weight.error * (v - out[d].tracked().value).abs();
            magnitude[d] += weight.value * v.abs();
        }
    }
    let sum = sum.tracked().value;
    for (d, out) in out.iter_mut().enumerate() {
        let rounded = f64::from(roundings) * UNIT * (magnitude[d] / sum + out.tracked().value.abs());
        *out = out.with_error(moved[d] / sum + rounded);
    }
}
