//! The other ops of the graph in f64. Vectors are `[tokens, n]`.

use crate::blocks::Matrix;
use hipc_ir::graph::{Act, RopeStyle};
use multiversion::multiversion;
use rayon::prelude::*;

/// A rotation: position `p` turns pair `i` by `p · frequencies[i]`.
pub(super) struct Angles {
    pub style: RopeStyle,
    pub frequencies: Vec<f64>,
}

/// Shape of an attention.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

pub(super) fn embed(w: &Matrix<'_>, tokens: &[u32]) -> Vec<f64> {
    let mut row = vec![0f32; w.cols()];
    let mut out = Vec::with_capacity(tokens.len() * w.cols());
    for &id in tokens {
        w.dequantize(id as usize, &mut row);
        out.extend(row.iter().map(|&v| f64::from(v)));
    }
    out
}

pub(super) fn rms_norm(x: &[f64], gain: &[f64], eps: f64) -> Vec<f64> {
    let mut out = Vec::with_capacity(x.len());
    for group in x.chunks_exact(gain.len()) {
        let mean = group.iter().map(|x| x * x).sum::<f64>() / group.len() as f64;
        let r = 1.0 / (mean + eps).sqrt();
        out.extend(group.iter().zip(gain).map(|(x, g)| x * r * g));
    }
    out
}

pub(super) fn bias(x: &[f64], b: &[f64]) -> Vec<f64> {
    x.chunks_exact(b.len()).flat_map(|x| x.iter().zip(b).map(|(x, b)| x + b)).collect()
}

pub(super) fn zip(x: &[f64], y: &[f64], f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    x.iter().zip(y).map(|(&x, &y)| f(x, y)).collect()
}

/// One value of a non-linearity.
pub(crate) fn act(act: Act, x: f64) -> f64 {
    match act {
        Act::Silu => x / (1.0 + (-x).exp()),
        Act::Gelu => 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh()),
    }
}

/// Rotates every head; the token at `pos` is the first, each has `n` values.
pub(super) fn rope(x: &[f64], n: usize, head_dim: usize, angles: &Angles, pos: usize) -> Vec<f64> {
    let half = angles.frequencies.len();
    let mut out = x.to_vec();
    for (t, token) in out.chunks_exact_mut(n).enumerate() {
        let turns: Vec<(f64, f64)> = angles.frequencies.iter().map(|f| ((pos + t) as f64 * f).sin_cos()).collect();
        for head in token.chunks_exact_mut(head_dim) {
            for (i, (sin, cos)) in turns.iter().enumerate() {
                let (a, b) = match angles.style {
                    RopeStyle::Norm => (2 * i, 2 * i + 1),
                    RopeStyle::Neox => (i, i + half),
                };
                (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
            }
        }
    }
    out
}

/// Causal attention; the first query is at position `pos`, the caches are `[positions, kv_heads · head_dim]`.
pub(super) fn attend(q: &[f64], k: &[f64], v: &[f64], shape: Heads, scale: f64, pos: usize) -> Vec<f64> {
    let Heads { heads, kv_heads, head_dim } = shape;
    let stride = kv_heads * head_dim;
    let mut out = vec![0f64; q.len()];
    let jobs = out.par_chunks_mut(head_dim).zip(q.par_chunks(head_dim)).enumerate();
    jobs.for_each_init(Vec::new, |weights, (i, (out, q))| {
        let (token, head) = (i / heads, i % heads);
        let from = head / (heads / kv_heads) * head_dim;
        attend_head(q, &k[from..], &v[from..], stride, pos + token + 1, scale, weights, out);
    });
    out
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
#[allow(clippy::too_many_arguments)]
fn attend_head(
    q: &[f64],
    k: &[f64],
    v: &[f64],
    stride: usize,
    positions: usize,
    scale: f64,
    weights: &mut Vec<f64>,
    out: &mut [f64],
) {
    weights.clear();
    weights.extend(k.chunks(stride).take(positions).map(|k| scale * dot(q, &k[..q.len()])));
    let max = weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for (w, v) in weights.iter_mut().zip(v.chunks(stride)) {
        *w = (*w - max).exp();
        sum += *w;
        for (o, v) in out.iter_mut().zip(v) {
            *o += *w * v;
        }
    }
    for o in out {
        *o /= sum;
    }
}

#[inline(always)]
fn dot(x: &[f64], y: &[f64]) -> f64 {
    let mut lanes = [0f64; 8];
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<8>(), y.as_chunks::<8>());
    for (x, y) in x.iter().zip(y) {
        for l in 0..8 {
            lanes[l] += x[l] * y[l];
        }
    }
    let rest: f64 = x_rest.iter().zip(y_rest).map(|(x, y)| x * y).sum();
    lanes.iter().sum::<f64>() + rest
}
