//! Product of a quantised row with an int8 vector: integers within a piece of one weight scale and one activation scale,
//! then `Σ d_w · d_x · Σ q_w·q_x − Σ (min − centre·d_w) · d_x · Σ q_x`.
//!
//! The fast form keeps sums side by side, in an order that doesn't depend on the machine's vectors, so the bits are the same everywhere.
//! Its heart is the instruction that multiplies 16-bit integers and adds neighbours (`vpmaddwd`), asked for by name where AVX2 is:
//! whether LLVM finds it in the portable form changes with the target and with what stands around it, and without it a product takes
//! three times as long.

use super::{Quants, WideToken};
use multiversion::multiversion;
use multiversion::target::match_target;

/// Sums side by side of each half of a block.
const LANES: usize = 8;

/// The product with f64 outside of the integers.
pub fn dot_exact(w: &Quants, x: &WideToken<'_>) -> f64 {
    let piece = w.piece.min(x.block);
    let mut acc = 0.0;
    for (i, (wq, xq)) in w.q.chunks_exact(piece).zip(x.q.chunks_exact(piece)).enumerate() {
        let at = i * piece;
        let integer: i32 = wq.iter().zip(xq).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum();
        acc += f64::from(w.scale[at / w.piece]) * f64::from(x.scale[at / x.block]) * f64::from(integer);
    }
    for (i, &sum) in x.sum.iter().enumerate().take(if w.min.is_empty() { 0 } else { x.sum.len() }) {
        let at = i * x.block;
        let offset = f64::from(w.min[at / 32]) - f64::from(w.centre) * f64::from(w.scale[at / w.piece]);
        acc -= offset * f64::from(x.scale[i]) * f64::from(sum);
    }
    acc
}

/// Σ|terms| of the product: what its rounding errors in f32 are relative to. A term is what a device has as an f32 at the earliest, the
/// integer of 16 values with its scales, and the offset of 32; of quants off their middle or not, whichever is larger.
pub fn dot_magnitude(w: &Quants, x: &WideToken<'_>) -> f64 {
    const PIECE: usize = 16;
    let mut magnitude = 0.0;
    for (i, (wq, xq)) in w.q.chunks(PIECE).zip(x.q.chunks(PIECE)).enumerate() {
        let integer = |centre: i16| wq.iter().zip(xq).map(|(&w, &x)| i32::from(w + centre) * i32::from(x)).sum::<i32>();
        let scale = f64::from(w.scale[i * PIECE / w.piece]) * f64::from(x.scale[i * PIECE / x.block]);
        magnitude += scale.abs() * f64::from(integer(0).abs().max(integer(w.centre).abs()));
    }
    for (i, &sum) in x.sum.iter().enumerate().take(if w.min.is_empty() { 0 } else { x.sum.len() }) {
        let at = i * x.block;
        let min = f64::from(w.min[at / 32]);
        let offset = min - f64::from(w.centre) * f64::from(w.scale[at / w.piece]);
        magnitude += min.abs().max(offset.abs()) * (f64::from(x.scale[i]) * f64::from(sum)).abs();
    }
    magnitude
}

/// The same in f32. `x.block` is 16 or 32.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx512vnni", "x86_64+avx2"))]
pub fn dot_fast(w: &Quants, x: &WideToken<'_>) -> f32 {
    let pairs = match_target! {
        "x86_64+avx2" => |w: &[i16; 16], x: &[i16; 16]| -> [i32; LANES] {
            bytemuck::cast(std::arch::x86_64::_mm256_madd_epi16(bytemuck::cast(*w), bytemuck::cast(*x)))
        },
        _ => pairs,
    };
    let twice = |d: &f32| [*d, *d];
    let (w_pairs, x_pairs) = (w.scale.as_chunks().0.iter().copied(), x.scale.as_chunks().0.iter().copied());
    let (w_twice, x_twice) = (w.scale.iter().map(twice), x.scale.iter().map(twice));
    let mut lanes = [[0f32; LANES]; 2];
    match (w.piece, x.block) {
        (32, 32) => add_blocks(&mut lanes, w, x, pairs),
        (32, 16) => add_halves(&mut lanes, &w.q, &x.q, w_twice, x_pairs, pairs),
        (_, 16) => add_halves(&mut lanes, &w.q, &x.q, w_pairs, x_pairs, pairs),
        _ => add_halves(&mut lanes, &w.q, &x.q, w_pairs, x_twice, pairs),
    }
    match (w.min.is_empty(), x.block) {
        (true, _) => {}
        (false, 16) => subtract_minimums::<2>(&mut lanes[0], w, x),
        (false, _) => subtract_minimums::<1>(&mut lanes[0], w, x),
    }
    let [a, b] = lanes;
    let sum = |i: usize| (a[i] + b[i]) + (a[i + 4] + b[i + 4]);
    (sum(0) + sum(2)) + (sum(1) + sum(3))
}

/// Blocks of 32 values with one scale on either side; even and odd ones are added up apart, because an addition waits for the one before.
#[inline(always)]
fn add_blocks<'a>(
    lanes: &mut [[f32; LANES]; 2],
    w: &'a Quants,
    x: &'a WideToken<'_>,
    pairs: impl Fn(&[i16; 16], &[i16; 16]) -> [i32; LANES],
) {
    let mut add = |parity: usize, w: &[[i16; 16]; 2], x: &[[i16; 16]; 2], scale: f32| {
        let (first, second) = (pairs(&w[0], &x[0]), pairs(&w[1], &x[1]));
        for l in 0..LANES {
            lanes[parity][l] += scale * (first[l] + second[l]) as f32;
        }
    };
    let blocks = |q: &'a [i16]| q.as_chunks::<16>().0.as_chunks::<2>().0.as_chunks::<2>();
    let ((wq, wq_rest), (xq, xq_rest)) = (blocks(&w.q), blocks(&x.q));
    let ((ws, ws_rest), (xs, xs_rest)) = (w.scale.as_chunks::<2>(), x.scale.as_chunks::<2>());
    for (((w, x), ws), xs) in wq.iter().zip(xq).zip(ws).zip(xs) {
        add(0, &w[0], &x[0], ws[0] * xs[0]);
        add(1, &w[1], &x[1], ws[1] * xs[1]);
    }
    for (((w, x), ws), xs) in wq_rest.iter().zip(xq_rest).zip(ws_rest).zip(xs_rest) {
        add(0, w, x, ws * xs);
    }
}

/// Blocks of 32 values, with the scales of their halves, which are added up apart.
#[inline(always)]
fn add_halves(
    lanes: &mut [[f32; LANES]; 2],
    w: &[i16],
    x: &[i16],
    ws: impl Iterator<Item = [f32; 2]>,
    xs: impl Iterator<Item = [f32; 2]>,
    pairs: impl Fn(&[i16; 16], &[i16; 16]) -> [i32; LANES],
) {
    for (((w, x), ws), xs) in w.as_chunks::<32>().0.iter().zip(x.as_chunks::<32>().0).zip(ws).zip(xs) {
        let (w, x) = (w.as_chunks::<16>().0, x.as_chunks::<16>().0);
        for half in 0..2 {
            let (products, scale) = (pairs(&w[half], &x[half]), ws[half] * xs[half]);
            for l in 0..LANES {
                lanes[half][l] += scale * products[l] as f32;
            }
        }
    }
}

/// Blocks of 32 weights with one scale and a minimum, and `X` activation blocks.
#[inline(always)]
fn subtract_minimums<const X: usize>(lanes: &mut [f32; LANES], w: &Quants, x: &WideToken<'_>) {
    let (scale, sum) = (x.scale.as_chunks::<X>().0, x.sum.as_chunks::<X>().0);
    let centre = f32::from(w.centre);
    let offset = |min: f32, d: f32, scale: &[f32; X], sum: &[i32; X]| {
        let x: f32 = (0..X).map(|i| scale[i] * sum[i] as f32).sum();
        (min - centre * d) * x
    };
    let ((min, min_rest), (d, d_rest)) = (w.min.as_chunks::<LANES>(), w.scale.as_chunks::<LANES>());
    let ((scale, scale_rest), (sum, sum_rest)) = (scale.as_chunks::<LANES>(), sum.as_chunks::<LANES>());
    for (((min, d), scale), sum) in min.iter().zip(d).zip(scale).zip(sum) {
        for l in 0..LANES {
            lanes[l] -= offset(min[l], d[l], &scale[l], &sum[l]);
        }
    }
    for (l, (((min, d), scale), sum)) in min_rest.iter().zip(d_rest).zip(scale_rest).zip(sum_rest).enumerate() {
        lanes[l] -= offset(*min, *d, scale, sum);
    }
}

/// Products of sixteen values, neighbours added.
#[inline(always)]
#[cfg_attr(target_feature = "avx2", expect(dead_code, reason = "the instruction is there"))]
fn pairs(w: &[i16; 16], x: &[i16; 16]) -> [i32; LANES] {
    let mut sums = [0; LANES];
    for l in 0..LANES {
        sums[l] = i32::from(w[2 * l]) * i32::from(x[2 * l]) + i32::from(w[2 * l + 1]) * i32::from(x[2 * l + 1]);
    }
    sums
}
