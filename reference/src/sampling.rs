//! The sampler's chain: from logits and one uniform number to a token. Pure; who remembers the last tokens and makes the
//! numbers calls it, and so does the launch that chooses on a device.
//!
//! The stages are those of llama.cpp's default chain, in its order: repeat penalty, top-k, top-p, min-p, temperature, draw.
//! So top-p and min-p look at the probabilities at temperature 1. A temperature of 0 takes the largest logit after the
//! penalty (the smallest id among equals) and skips the rest.
//!
//! The same logits, parameters and number give the same token on every machine: sums run in a fixed order in f64, nothing is
//! fused, and the exponential is computed here with additions and multiplications alone, because every library's differs in
//! its last bit. The kernel (`hipc/sample.h`) does the same operations in the same order.

use hipc_ir::plan::SamplingState;
use std::cmp::Ordering;
use std::collections::BTreeSet;

/// Parameters of the chain; see [`SamplingState`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chain {
    /// Divides the logits; 0 is greedy.
    pub temperature: f32,
    /// Keeps so many of the likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the fewest likeliest tokens whose probabilities sum to this, but at least one; 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least so likely relative to the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Divides positive logits, multiplies the others, of tokens in the window; 1 does nothing.
    pub repeat_penalty: f32,
}

impl From<SamplingState> for Chain {
    fn from(s: SamplingState) -> Self {
        let repeat_penalty = if s.repeat_penalty == 0.0 { 1.0 } else { s.repeat_penalty };
        Self { temperature: s.temperature, top_k: s.top_k as usize, top_p: s.top_p, min_p: s.min_p, repeat_penalty }
    }
}

/// A token that is still in the running.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Its id.
    pub id: u32,
    /// Its logit behind the penalty, above -∞.
    pub logit: f32,
}

impl Chain {
    /// The token for the uniform number `draw` (0 up to 1, without it), or none if every token is excluded. A logit of -∞ or
    /// NaN excludes its token, one of +∞ makes it certain.
    pub fn choose(&self, logits: &[f32], recent: impl IntoIterator<Item = u32>, draw: f64) -> Option<u32> {
        let mut kept = self.candidates(logits, recent);
        let likeliest = kept.iter().min_by(|a, b| likelier(a, b)).map(|c| c.id);
        if self.temperature > 0.0 {
            self.keep(&mut kept);
            drawn(&self.probabilities(&kept), draw).or(likeliest)
        } else {
            likeliest
        }
    }

    /// The tokens that may be drawn and their probabilities, which sum to 1; the temperature is above 0.
    pub fn distribution(&self, logits: &[f32], recent: impl IntoIterator<Item = u32>) -> Vec<(u32, f64)> {
        let mut kept = self.candidates(logits, recent);
        self.keep(&mut kept);
        self.probabilities(&kept)
    }

    /// Every token that isn't excluded, in order of id, with the repeat penalty applied to those that are recent.
    pub fn candidates(&self, logits: &[f32], recent: impl IntoIterator<Item = u32>) -> Vec<Candidate> {
        let mut all: Vec<Candidate> = (0..).zip(logits).map(|(id, &logit)| Candidate { id, logit }).collect();
        let penalty = self.repeat_penalty;
        if penalty != 1.0 {
            for id in recent.into_iter().collect::<BTreeSet<u32>>() {
                if let Some(c) = all.get_mut(id as usize) {
                    c.logit = if c.logit > 0.0 { (c.logit / penalty).min(f32::MAX) } else { c.logit * penalty };
                }
            }
        }
        all.retain(|c| c.logit > f32::NEG_INFINITY);
        all
    }

    /// Top-k, top-p, min-p. What is left is ordered, the likeliest first, unless neither of the first two is asked for.
    pub fn keep(&self, kept: &mut Vec<Candidate>) {
        let k = self.top_k;
        if k > 0 && k < kept.len() {
            kept.select_nth_unstable_by(k - 1, likelier);
            kept.truncate(k);
        }
        let (top_p, min_p) = (f64::from(self.top_p), f64::from(self.min_p));
        if k > 0 || top_p < 1.0 {
            kept.sort_unstable_by(likelier);
        }
        if top_p < 1.0 {
            let weights = weights(kept, 1.0);
            let enough = top_p * weights.iter().sum::<f64>();
            let mut sum = 0.0;
            let count = weights.iter().position(|w| {
                sum += w;
                sum >= enough
            });
            kept.truncate(count.map_or(kept.len(), |last| last + 1));
        }
        if min_p > 0.0 {
            let mut weights = weights(kept, 1.0).into_iter();
            kept.retain(|_| weights.next().is_some_and(|w| w >= min_p));
        }
    }

    fn probabilities(&self, kept: &[Candidate]) -> Vec<(u32, f64)> {
        let weights = weights(kept, 1.0 / f64::from(self.temperature));
        let sum: f64 = weights.iter().sum();
        kept.iter().zip(weights).map(|(c, w)| (c.id, w / sum)).collect()
    }
}

fn drawn(kept: &[(u32, f64)], draw: f64) -> Option<u32> {
    let mut left = draw;
    for &(id, p) in kept {
        left -= p;
        if left < 0.0 {
            return Some(id);
        }
    }
    // Rounding can leave a rest of 1e-16.
    kept.iter().rev().find(|(_, p)| *p > 0.0).map(|&(id, _)| id)
}

/// The likelier token first, the smaller id among equals.
fn likelier(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal).then(a.id.cmp(&b.id))
}

/// Probabilities up to a common factor: 1 for the likeliest.
pub fn weights(candidates: &[Candidate], factor: f64) -> Vec<f64> {
    let largest = candidates.iter().map(|c| c.logit).fold(f32::NEG_INFINITY, f32::max);
    candidates.iter().map(|c| exp((f64::from(c.logit) - f64::from(largest)) * factor)).collect()
}

/// 1/n! for n from 0.
const INVERSE_FACTORIALS: [f64; 15] = [
    1.0,
    1.0,
    1.0 / 2.0,
    1.0 / 6.0,
    1.0 / 24.0,
    1.0 / 120.0,
    1.0 / 720.0,
    1.0 / 5_040.0,
    1.0 / 40_320.0,
    1.0 / 362_880.0,
    1.0 / 3_628_800.0,
    1.0 / 39_916_800.0,
    1.0 / 479_001_600.0,
    1.0 / 6_227_020_800.0,
    1.0 / 87_178_291_200.0,
];

/// e to the power of x ≤ 0, to 1e-15 relative: 2^k · e^r with |r| ≤ ln 2 / 2, e^r by its Taylor series. 0 below -708, where
/// the result isn't a normal number, and for a NaN.
fn exp(x: f64) -> f64 {
    const LN2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    if x >= -708.0 {
        let k = (x * std::f64::consts::LOG2_E - 0.5) as i32;
        let r = (x - f64::from(k) * LN2_HIGH) - f64::from(k) * LN2_LOW;
        let series = INVERSE_FACTORIALS.iter().rev().fold(0.0, |sum, c| sum * r + c);
        series * f64::from_bits(((1023 + k) as u64) << 52)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_is_exact_to_1e_15() {
        for i in 0..70_000 {
            let x = f64::from(i) * -0.01003;
            let error = if x < -708.0 { 0.0 } else { exp(x) / x.exp() - 1.0 };
            assert!(error.abs() < 1e-15, "{x}: {error}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!([exp(f64::NEG_INFINITY), exp(f64::NAN), exp(-709.0)], [0.0; 3]);
    }

    #[test]
    fn infinite_logits_are_certain_or_excluded() {
        let chain = Chain { temperature: 1.0, top_k: 3, top_p: 0.9, min_p: 0.1, repeat_penalty: 1.0 };
        let row = [0.0, f32::INFINITY, f32::NAN, f32::INFINITY];
        assert_eq!(chain.choose(&row, [], 0.7), Some(1));
        assert_eq!(chain.choose(&[f32::NEG_INFINITY, f32::NAN], [], 0.7), None);
        assert_eq!(chain.choose(&[f32::NEG_INFINITY, -3.0], [], 0.999), Some(1));
    }
}
