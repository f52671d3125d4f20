//! Matrix product in f64 over dequantised weights: 4 rows × 8 tokens in registers, summed over the inputs in order.

use crate::blocks::Matrix;
use multiversion::multiversion;
use rayon::prelude::*;

const ROWS: usize = 4;
const TOKENS: usize = 8;

/// `W · x` for every token: `x` is `[tokens, cols]`, the result `[tokens, rows]`.
pub(super) fn mat_vec(w: &Matrix<'_>, x: &[f64]) -> Vec<f64> {
    let (rows, cols) = (w.rows(), w.cols());
    let tokens = x.len() / cols;
    let panels = tokens.div_ceil(TOKENS);
    // Tokens of a panel side by side, padded with zeros.
    let mut packed = vec![[0f64; TOKENS]; panels * cols];
    for (t, x) in x.chunks_exact(cols).enumerate() {
        for (k, &x) in x.iter().enumerate() {
            packed[t / TOKENS * cols + k][t % TOKENS] = x;
        }
    }
    let mut by_row = vec![0f64; rows * tokens];
    let scratch = || (vec![0f32; cols], vec![[0f64; ROWS]; cols]);
    by_row.par_chunks_mut(ROWS * tokens).enumerate().for_each_init(scratch, |(row, quad), (i, out)| {
        for r in 0..out.len() / tokens {
            w.dequantize(i * ROWS + r, row);
            for (quad, &value) in quad.iter_mut().zip(row.iter()) {
                quad[r] = f64::from(value);
            }
        }
        for (p, panel) in packed.chunks_exact(cols).enumerate() {
            let mut sums = [[0f64; TOKENS]; ROWS];
            multiply(quad, panel, &mut sums);
            for (out, sums) in out.chunks_exact_mut(tokens).zip(&sums) {
                let n = TOKENS.min(tokens - p * TOKENS);
                out[p * TOKENS..][..n].copy_from_slice(&sums[..n]);
            }
        }
    });
    let mut out = vec![0f64; rows * tokens];
    for (t, out) in out.chunks_exact_mut(rows).enumerate() {
        for (r, out) in out.iter_mut().enumerate() {
            *out = by_row[r * tokens + t];
        }
    }
    out
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn multiply(w: &[[f64; ROWS]], x: &[[f64; TOKENS]], out: &mut [[f64; TOKENS]; ROWS]) {
    let mut sums = [[0f64; TOKENS]; ROWS];
    for (w, x) in w.iter().zip(x) {
        for r in 0..ROWS {
            for t in 0..TOKENS {
                sums[r][t] += w[r] * x[t];
            }
        }
    }
    *out = sums;
}
