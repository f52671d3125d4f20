//! Causal softmax attention over the cache, with the optional work on queries and the new key.

use super::arith::{Arithmetic, Num, Table, rms_norm, rotate};
use super::finish::Finisher;
use super::operands::{CacheRef, Operands};
use super::{LaunchError, Step};
use hipc_ir::fused::{Attend, Role};
use hipc_ir::plan::KernelSpec;
use rayon::prelude::*;

/// Positions of the cache converted at a time.
const BLOCK: usize = 32;

/// With a prologue, the new key is read as it was stored (rounded to the cache's type).
pub(super) fn attend<A: Arithmetic>(
    spec: &KernelSpec,
    op: &Attend,
    step: Step,
    mut operands: Operands<'_, '_>,
    unrounded: Option<&mut Vec<f64>>,
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
                q.chunks_exact_mut(head_dim).for_each(|q| rms_norm(q, q_gain, eps.0));
                new.chunks_exact_mut(head_dim).for_each(|k| rms_norm(k, k_gain, eps.0));
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
            cache.into_ref()
        }
    };
    let v = operands.cache(Role::CacheV, op.cache, step)?;
    let finisher = Finisher::take(&mut operands, op.finish, n as u32, spec.geometry.tile, step)?;
    // The query heads of one KV head lie together and share its loads.
    let group = heads / kv_heads * head_dim;
    let mut out = vec![A::T::default(); n * step.tokens];
    out.par_chunks_mut(group).zip(q.par_chunks(group)).enumerate().for_each(|(i, (out, q))| {
        let (t, kv_head) = (i / kv_heads, i % kv_heads);
        attend_group::<A>(q, k, v, kv_head, head_dim, step.pos + t + 1, A::T::of64(op.scale.0), out);
    });
    finisher.write::<A::T>(step.tokens, unrounded, |t, y| y.copy_from_slice(&out[t * n..][..n]));
    Ok(())
}

#[allow(clippy::too_many_arguments)]
fn attend_group<A: Arithmetic>(
    q: &[A::T],
    k: CacheRef<'_>,
    v: CacheRef<'_>,
    kv_head: usize,
    head_dim: usize,
    positions: usize,
    scale: A::T,
    out: &mut [A::T],
) {
    let mut rows = vec![0f32; BLOCK * head_dim];
    // [query head][position]
    let mut scores = vec![A::T::default(); q.len() / head_dim * positions];
    for from in (0..positions).step_by(BLOCK) {
        let rows = &mut rows[..BLOCK.min(positions - from) * head_dim];
        k.load(kv_head, from, rows);
        for (q, scores) in q.chunks_exact(head_dim).zip(scores.chunks_exact_mut(positions)) {
            for (score, k) in scores[from..].iter_mut().zip(rows.chunks_exact(head_dim)) {
                *score = scale * A::dot(q, k);
            }
        }
    }
    let mut sums = Vec::with_capacity(q.len() / head_dim);
    for scores in scores.chunks_exact_mut(positions) {
        let max = scores.iter().fold(scores[0], |max, &s| if s > max { s } else { max });
        scores.iter_mut().for_each(|s| *s = (*s - max).exp());
        sums.push(scores.iter().fold(A::T::default(), |sum, &s| sum + s));
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
}
