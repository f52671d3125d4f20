//! Distances between logits, as the reference data defines them.

/// `Σ (x − r)² / Σ r²` over everything pushed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nmse {
    error: f64,
    norm: f64,
}

impl Nmse {
    /// Adds a row. A value that is NaN where the reference is not makes the result NaN, which no bound admits.
    pub fn push(&mut self, x: &[f32], reference: &[f32]) {
        assert_eq!(x.len(), reference.len(), "rows of different lengths");
        for (&x, &r) in x.iter().zip(reference) {
            self.error += (f64::from(x) - f64::from(r)).powi(2);
            self.norm += f64::from(r).powi(2);
        }
    }
    /// The figure.
    pub fn value(&self) -> f64 {
        self.error / self.norm
    }
}

/// `ln Σ exp(x)` in f64.
pub fn log_sum_exp(x: &[f32]) -> f64 {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    f64::from(max) + x.iter().map(|&v| f64::from(v - max).exp()).sum::<f64>().ln()
}

/// Kullback–Leibler divergence of the softmax of `x` from the softmax of `reference`, in nats.
pub fn kl_divergence(reference: &[f32], x: &[f32]) -> f64 {
    let (lr, lx) = (log_sum_exp(reference), log_sum_exp(x));
    reference
        .iter()
        .zip(x)
        .map(|(&r, &x)| {
            let p = f64::from(r) - lr;
            p.exp() * (p - (f64::from(x) - lx))
        })
        .sum()
}

/// Index of the largest value, the lowest on ties.
pub fn arg_max(x: &[f32]) -> usize {
    (0..x.len()).fold(0, |best, i| if x[i] > x[best] { i } else { best })
}

/// Distance of the two largest values.
pub fn margin(x: &[f32]) -> f32 {
    let best = arg_max(x);
    let second = x.iter().enumerate().filter(|(i, _)| *i != best).map(|(_, &v)| v).fold(f32::NEG_INFINITY, f32::max);
    x[best] - second
}

/// Perplexity and divergence over windows, as `llama-perplexity` takes them: in each window of `len` ids, the logits of positions
/// `len/2 .. len − 1` predict the next id.
#[derive(Clone, Copy, Debug, Default)]
pub struct Perplexity {
    nll: f64,
    count: usize,
}

impl Perplexity {
    /// Adds one prediction.
    pub fn push(&mut self, logits: &[f32], next: u32) {
        self.nll += log_sum_exp(logits) - f64::from(logits[next as usize]);
        self.count += 1;
    }
    /// `exp` of the mean negative log-likelihood.
    pub fn value(&self) -> f64 {
        (self.nll / self.count as f64).exp()
    }
}
