//! The choice of the next token, and whether another choice is as good.

use super::gemv::{Partial, largest};
use super::operands::Operands;
use super::{LaunchError, Step};
use crate::sampling::{Chain, weights};
use hipc_ir::fused::{Choose, Role};
use hipc_ir::plan::{KernelSpec, SamplingState, outbox_entry};

/// Logits, and relative weights, that differ by less are a tie.
const NEAR_LOGIT: f64 = 1e-5;
/// Sums of probabilities that differ by no more are a tie.
const NEAR_SUM: f64 = 1e-6;

pub(super) fn choose(spec: &KernelSpec, op: Choose, step: Step, mut operands: Operands<'_, '_>) -> Result<(), LaunchError> {
    let (n, end) = (op.n as usize, step.pos + step.tokens);
    let logits: &[f32] = operands.read(Role::Logits, n * step.tokens)?;
    let mut found: Vec<i32> = if op.partials {
        let parts = spec.geometry.parts_in as usize;
        let partials: &[Partial] = operands.read(Role::Partials, parts * step.tokens)?;
        let wanted = partials.chunks_exact(parts.max(1)).take(step.tokens).skip(step.head_from);
        wanted.map(|row| row[largest(row.iter().map(|p| f32::from_bits(p[0])))][1] as i32).collect()
    } else {
        logits.chunks_exact(n).skip(step.head_from).map(|row| largest(row.iter().copied()) as i32).collect()
    };
    let tokens: &mut [i32] = operands.write(Role::Tokens, end + 1)?;
    let outbox: &mut [u64] = operands.write(Role::Outbox, end + 1)?;
    let ids: &mut [i32] = operands.write(Role::Ids, step.tokens)?;
    let (sampling, draws): (&[u8], &[u8]) =
        (operands.read(Role::Sampling, SamplingState::BYTES as usize)?, operands.read(Role::Draws, 8 * (end + 1))?);
    if let Some(last) = found.last_mut() {
        if let Some(sampled) = Sampled::new(spec, &logits[n * (step.tokens - 1)..], tokens, end, sampling, draws) {
            let recent = sampled.recent.iter().map(|&id| id as u32);
            *last = sampled.chain.choose(sampled.logits, recent, sampled.draw).unwrap_or(0) as i32;
        }
        tokens[end] = *last;
        outbox[end] = outbox_entry(*last, step.generation);
    }
    ids[step.head_from..].copy_from_slice(&found);
    if op.advance {
        let state: &mut [i32] = operands.write(Role::State, 4)?;
        state.copy_from_slice(&[end as i32, 1, 0, step.generation]);
    }
    Ok(())
}

/// A choice that is more than the arg-max, and not for the host to make.
pub(super) struct Sampled<'a> {
    chain: Chain,
    logits: &'a [f32],
    /// Ids under the penalty.
    recent: &'a [i32],
    draw: f64,
}

impl<'a> Sampled<'a> {
    /// From the last token's logits, the token list, the position that is chosen for, and the bytes of the two operands that say how.
    /// None if it is the arg-max.
    pub fn new(
        spec: &KernelSpec,
        logits: &'a [f32],
        tokens: &'a [i32],
        end: usize,
        sampling: &[u8],
        draws: &[u8],
    ) -> Option<Self> {
        let how = SamplingState::from_bytes(sampling.first_chunk()?);
        let draw = f64::from_le_bytes(*draws.get(8 * end..)?.first_chunk()?);
        let window = tokens.get(end.saturating_sub(how.repeat_last_n as usize)..end)?;
        how.is_sampled(spec.most_candidates()).then(|| Self { chain: how.into(), logits, recent: window, draw })
    }

    /// Whether only rounding decides between this id and the reference's: the draw lies at the border of both, or what is kept
    /// has its edge between equals.
    pub fn is_near(&self, id: i32) -> bool {
        let recent = || self.recent.iter().map(|&id| id as u32);
        let mut order = self.chain.candidates(self.logits, recent());
        order.sort_by(|a, b| b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id)));
        let Some(at) = order.iter().position(|c| i64::from(c.id) == i64::from(id)) else { return false };
        let gap = |a: usize, b: usize| (f64::from(order[a].logit) - f64::from(order[b].logit)).abs();
        if self.chain.temperature == 0.0 {
            return gap(0, at) < NEAR_LOGIT;
        }
        let k = self.chain.top_k.clamp(1, order.len());
        if at >= k && gap(k - 1, at) >= NEAR_LOGIT {
            return false;
        }
        let all = weights(&order[..k], 1.0);
        let total: f64 = all.iter().sum();
        let sums = all.iter().scan(0.0, |sum, w| {
            *sum += w;
            Some(*sum)
        });
        let (top_p, min_p) = (f64::from(self.chain.top_p), f64::from(self.chain.min_p));
        let edges = [
            k < order.len() && gap(k - 1, k) < NEAR_LOGIT,
            top_p < 1.0 && sums.into_iter().any(|sum| (sum / total - top_p).abs() < NEAR_LOGIT),
            min_p > 0.0 && all.iter().any(|w| (w - min_p).abs() < NEAR_LOGIT),
        ];
        let kept = self.chain.distribution(self.logits, recent());
        let mut sum = 0.0;
        let borders = kept.windows(2).any(|pair| {
            sum += pair[0].1;
            (sum - self.draw).abs() <= NEAR_SUM && pair.iter().any(|&(other, _)| i64::from(other) == i64::from(id))
        });
        borders || edges.contains(&true)
    }
}
