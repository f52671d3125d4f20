//! The next token from logits: the parameters a person gives, the generator, and the memory of the repeat penalty. What is done
//! with them is [`hipc_reference::sampling`], which the devices do as well.
//!
//! The same logits, parameters and seed give the same tokens on every machine; the generator is ChaCha12.

use super::error::TextError;
use hipc_ir::plan::SamplingState;
use hipc_reference::sampling::Chain;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::collections::VecDeque;

/// How to pick a token. The default is llama.cpp's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplerParams {
    /// Divides the logits, at least 0; 0 is greedy. Default 0.8.
    pub temperature: f32,
    /// Keeps so many of the likeliest tokens; 0 keeps all. Default 40.
    pub top_k: usize,
    /// Keeps the fewest likeliest tokens whose probabilities sum to this, 0 to 1, but at least one; 1 keeps all. Default 0.95.
    pub top_p: f32,
    /// Keeps tokens at least so likely relative to the likeliest, 0 to 1; 0 keeps all. Default 0.05.
    pub min_p: f32,
    /// Divides positive logits, multiplies the others, of tokens in the window; above 0, and 1 does nothing. Default 1.
    pub repeat_penalty: f32,
    /// Tokens that the penalty looks back at. Default 64.
    pub repeat_last_n: usize,
    /// Seed of the generator. Default 0.
    pub seed: u64,
}

impl Default for SamplerParams {
    fn default() -> Self {
        SamplerParams { temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0.05, repeat_penalty: 1.0, repeat_last_n: 64, seed: 0 }
    }
}

impl SamplerParams {
    /// The likeliest token, always.
    pub fn greedy() -> SamplerParams {
        SamplerParams { temperature: 0.0, ..SamplerParams::default() }
    }

    /// The parameters as a device takes them.
    pub fn state(&self) -> SamplingState {
        let count = |n| u32::try_from(n).unwrap_or(u32::MAX);
        let &Self { temperature, top_k, top_p, min_p, repeat_penalty, repeat_last_n, .. } = self;
        SamplingState { temperature, top_k: count(top_k), top_p, min_p, repeat_penalty, repeat_last_n: count(repeat_last_n) }
    }

    fn chain(&self) -> Chain {
        let &Self { temperature, top_k, top_p, min_p, repeat_penalty, .. } = self;
        Chain { temperature, top_k, top_p, min_p, repeat_penalty }
    }

    fn check(&self) -> Result<(), TextError> {
        let unit = 0.0..=1.0;
        let rules = [
            ("--temp", self.temperature, self.temperature >= 0.0 && self.temperature.is_finite(), "0 (greedy) or more"),
            ("--top-p", self.top_p, unit.contains(&self.top_p), "0 to 1"),
            ("--min-p", self.min_p, unit.contains(&self.min_p), "0 to 1"),
            (
                "--repeat-penalty",
                self.repeat_penalty,
                self.repeat_penalty > 0.0 && self.repeat_penalty.is_finite(),
                "more than 0",
            ),
        ];
        match rules.into_iter().find(|rule| !rule.2) {
            Some((name, value, _, allowed)) => Err(TextError::Parameter { name, value: value.to_string(), allowed }),
            None => Ok(()),
        }
    }
}

/// Picks tokens; remembers the last ones for the repeat penalty.
#[derive(Clone, Debug)]
pub struct Sampler {
    params: SamplerParams,
    rng: ChaCha12Rng,
    recent: VecDeque<u32>,
}

impl Sampler {
    /// # Errors
    /// [`TextError::Parameter`] for a value out of its range.
    pub fn new(params: SamplerParams) -> Result<Sampler, TextError> {
        params.check()?;
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&params.seed.to_le_bytes());
        Ok(Sampler { params, rng: ChaCha12Rng::from_seed(seed), recent: VecDeque::new() })
    }

    /// The parameters.
    pub fn params(&self) -> &SamplerParams {
        &self.params
    }

    /// Makes the repeat penalty see the end of this sequence and nothing else.
    pub fn look_at(&mut self, sequence: &[u32]) {
        self.recent.clear();
        self.accept(sequence);
    }

    /// The uniform numbers that the next `n` tokens are drawn with; they stay to be drawn.
    pub fn draws(&self, n: usize) -> Vec<f64> {
        let mut twin = self.clone();
        (0..n).map(|_| twin.draw()).collect()
    }

    /// Takes over a token that was drawn elsewhere with the next of [`Sampler::draws`].
    pub fn take(&mut self, id: u32) {
        if self.params.temperature != 0.0 {
            self.draw();
        }
        self.accept(&[id]);
    }

    /// Makes the repeat penalty see tokens that weren't sampled here: the prompt's.
    pub fn accept(&mut self, ids: &[u32]) {
        let window = self.params.repeat_last_n;
        self.recent.extend(&ids[ids.len().saturating_sub(window)..]);
        self.recent.drain(..self.recent.len().saturating_sub(window));
    }

    /// The uniform number in 0 … 1 for the next token. Greedy choices take none.
    pub fn draw(&mut self) -> f64 {
        (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Picks the next token from one row of logits (f32 per token of the vocabulary; -∞ excludes a token) and remembers it.
    ///
    /// # Errors
    /// [`TextError::Logits`] for an empty row, a NaN, +∞, or nothing but -∞.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32, TextError> {
        if let Some(id) = logits.iter().position(|l| l.is_nan() || *l == f32::INFINITY) {
            return Err(TextError::Logits(format!("that of token {id} is {}", logits[id])));
        }
        let excluded = || TextError::Logits("every token is excluded".into());
        if logits.iter().all(|l| *l == f32::NEG_INFINITY) {
            return Err(excluded());
        }
        let draw = if self.params.temperature == 0.0 { 0.0 } else { self.draw() };
        let id = self.params.chain().choose(logits, self.recent.iter().copied(), draw).ok_or_else(excluded)?;
        self.accept(&[id]);
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Everything off.
    const PLAIN: SamplerParams =
        SamplerParams { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, repeat_penalty: 1.0, repeat_last_n: 64, seed: 7 };

    /// The chain written down naively: full sorts, std's exponential, a map of what is left.
    fn reference(logits: &[f32], recent: &[u32], p: &SamplerParams) -> Vec<f64> {
        let n = logits.len();
        let mut l: Vec<f64> = logits.iter().map(|&l| f64::from(l)).collect();
        let penalty = f64::from(p.repeat_penalty);
        for l in (0..).zip(&mut l).filter(|(id, _)| recent.contains(id)).map(|(_, l)| l) {
            *l = f64::from((if *l > 0.0 { *l / penalty } else { *l * penalty }) as f32);
        }
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&a, &b| l[b].total_cmp(&l[a]).then(a.cmp(&b)));
        if p.top_k > 0 {
            order.truncate(p.top_k);
        }
        let total: f64 = order.iter().map(|&i| l[i].exp()).sum();
        let mut kept = Vec::new();
        let mut sum = 0.0;
        for &i in &order {
            kept.push(i);
            sum += l[i].exp() / total;
            if p.top_p < 1.0 && sum >= f64::from(p.top_p) {
                break;
            }
        }
        let best = l[kept[0]];
        kept.retain(|&i| (l[i] - best).exp() >= f64::from(p.min_p));
        let total: f64 = kept.iter().map(|&i| (l[i] / f64::from(p.temperature)).exp()).sum();
        let mut probabilities = vec![0.0; n];
        kept.iter().for_each(|&i| probabilities[i] = (l[i] / f64::from(p.temperature)).exp() / total);
        probabilities
    }

    fn dense(n: usize, kept: &[(u32, f64)]) -> Vec<f64> {
        let mut all = vec![0.0; n];
        kept.iter().for_each(|&(id, p)| all[id as usize] = p);
        all
    }

    #[test]
    fn greedy_takes_the_first_largest() {
        let mut sampler = Sampler::new(SamplerParams::greedy()).unwrap();
        assert_eq!(sampler.sample(&[0.0, 3.0, f32::NEG_INFINITY, 3.0]), Ok(1));
        let mut sampler = Sampler::new(SamplerParams { repeat_penalty: 2.0, ..SamplerParams::greedy() }).unwrap();
        let row = [1.0, 1.5, -1.0];
        assert_eq!([sampler.sample(&row), sampler.sample(&row), sampler.sample(&row)], [Ok(1), Ok(0), Ok(1)]);
    }

    #[test]
    fn penalty_looks_back_no_further_than_its_window() {
        let params = SamplerParams { repeat_penalty: 4.0, repeat_last_n: 2, ..SamplerParams::greedy() };
        let mut sampler = Sampler::new(params).unwrap();
        sampler.accept(&[2, 0, 1]);
        assert_eq!(sampler.sample(&[3.0, 3.0, 2.0]), Ok(2));
        sampler.accept(&[0, 1]);
        assert_eq!(sampler.sample(&[-1.0, -1.0, -3.9]), Ok(2));
    }

    #[test]
    fn bad_logits_and_parameters_are_named() {
        let mut sampler = Sampler::new(PLAIN).unwrap();
        for bad in [&[][..], &[0.0, f32::NAN], &[f32::INFINITY], &[f32::NEG_INFINITY; 3]] {
            assert!(matches!(sampler.sample(bad), Err(TextError::Logits(_))), "{bad:?}");
        }
        let wrong = [
            SamplerParams { temperature: -0.1, ..PLAIN },
            SamplerParams { temperature: f32::NAN, ..PLAIN },
            SamplerParams { top_p: 1.1, ..PLAIN },
            SamplerParams { min_p: -1.0, ..PLAIN },
            SamplerParams { repeat_penalty: 0.0, ..PLAIN },
        ];
        for params in wrong {
            assert!(matches!(Sampler::new(params), Err(TextError::Parameter { .. })), "{params:?}");
        }
    }

    #[test]
    fn seeds_repeat_and_differ() {
        let row: Vec<f32> = (0..100).map(|i| (i as f32 * 0.7).sin()).collect();
        let run = |seed| {
            let mut sampler = Sampler::new(SamplerParams { seed, ..PLAIN }).unwrap();
            (0..20).map(|_| sampler.sample(&row).unwrap()).collect::<Vec<u32>>()
        };
        assert_eq!(run(1), run(1));
        assert_eq!(run(1)[..8], [93, 2, 3, 4, 85, 99, 93, 74], "the draws of another machine");
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn what_is_drawn_elsewhere_is_not_drawn_again() {
        let row: Vec<f32> = (0..100).map(|i| (i as f32 * 0.7).sin()).collect();
        let (mut all, mut some) = (Sampler::new(PLAIN).unwrap(), Sampler::new(PLAIN).unwrap());
        let ids: Vec<u32> = (0..6).map(|_| all.sample(&row).unwrap()).collect();
        for (draw, &id) in some.draws(4).into_iter().zip(&ids) {
            assert_eq!(PLAIN.chain().choose(&row, std::iter::empty(), draw), Some(id));
            some.take(id);
        }
        assert_eq!([some.sample(&row), some.sample(&row)], [Ok(ids[4]), Ok(ids[5])]);
        // Without a temperature nothing is drawn.
        let mut greedy = Sampler::new(SamplerParams { temperature: 0.0, ..PLAIN }).unwrap();
        let before = greedy.draws(1);
        greedy.take(5);
        assert_eq!(greedy.draws(1), before);
    }

    /// Counts of 50 000 draws against the reference's probabilities: chi-squared within five standard deviations.
    #[test]
    fn draws_follow_the_distribution() {
        let row: Vec<f32> = (0..40).map(|i| ((i * 7) % 40) as f32 * 0.15).collect();
        for params in [
            PLAIN,
            SamplerParams { temperature: 0.6, ..PLAIN },
            SamplerParams { temperature: 1.5, top_k: 12, ..PLAIN },
            SamplerParams { top_p: 0.8, ..PLAIN },
            SamplerParams { min_p: 0.2, temperature: 2.0, ..PLAIN },
            SamplerParams { seed: 3, ..SamplerParams::default() },
        ] {
            let expected = reference(&row, &[], &params);
            let mut sampler = Sampler::new(params).unwrap();
            let draws = 50_000;
            let mut counts = vec![0.0; row.len()];
            (0..draws).for_each(|_| counts[sampler.sample(&row).unwrap() as usize] += 1.0);
            let kept = expected.iter().filter(|p| **p > 0.0).count();
            let mut chi = 0.0;
            for (count, p) in counts.iter().zip(&expected) {
                let mean = p * f64::from(draws);
                assert!(mean > 0.0 || *count == 0.0, "{params:?} drew an excluded token");
                chi += if mean > 0.0 { (count - mean) * (count - mean) / mean } else { 0.0 };
            }
            let freedom = (kept - 1) as f64;
            assert!((chi - freedom).abs() < 5.0 * (2.0 * freedom).sqrt(), "{params:?}: chi² {chi} with {freedom} degrees");
        }
    }

    proptest! {
        #[test]
        fn distribution_is_the_references(
            logits in prop::collection::vec(-20.0f32..20.0, 1..60), recent in prop::collection::vec(0u32..60, 0..8),
            temperature in 0.2f32..3.0, top_k in 0usize..70, top_p in 0.0f32..=1.0, min_p in 0.0f32..=1.0, repeat_penalty in 0.5f32..2.0,
        ) {
            let params = SamplerParams { temperature, top_k, top_p, min_p, repeat_penalty, ..PLAIN };
            let mut sampler = Sampler::new(params).unwrap();
            sampler.accept(&recent);
            let got = dense(logits.len(), &params.chain().distribution(&logits, recent.iter().copied()));
            let expected = reference(&logits, &recent, &params);
            for (g, e) in got.iter().zip(&expected) {
                prop_assert!((g - e).abs() < 1e-9, "{:?} {:?}", got, expected);
            }
            prop_assert!(expected[sampler.sample(&logits).unwrap() as usize] > 0.0);
        }

        #[test]
        fn no_row_panics(logits in prop::collection::vec(prop_oneof![any::<f32>(), Just(f32::MAX), Just(f32::MIN), Just(f32::NEG_INFINITY)], 0..20), temperature in 0.0f32..2.0, repeat_penalty in 0.01f32..100.0) {
            let mut sampler = Sampler::new(SamplerParams { temperature, repeat_penalty, ..SamplerParams::default() }).unwrap();
            sampler.accept(&[0, 1, 2]);
            if let Ok(id) = sampler.sample(&logits) {
                prop_assert!(logits[id as usize] > f32::NEG_INFINITY);
            }
        }
    }
}
