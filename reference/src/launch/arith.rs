//! The two arithmetics a launch can be computed in, and the small functions that all ops share.

use crate::blocks::{Quants, WideToken, dot_exact, dot_fast};
use hipc_ir::fused::{Deferred, RopeSpec};
use hipc_ir::graph::{Act, RopeStyle};
use multiversion::multiversion;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// f32 or f64.
pub(super) trait Num:
    Copy
    + Default
    + PartialOrd
    + Send
    + Sync
    + Add<Output = Self>
    + AddAssign
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    fn of(v: f32) -> Self;
    fn of64(v: f64) -> Self;
    fn f32(self) -> f32;
    fn f64(self) -> f64;
    fn exp(self) -> Self;
    fn tanh(self) -> Self;
    fn sqrt(self) -> Self;
}

macro_rules! num {
    ($t:ty) => {
        impl Num for $t {
            fn of(v: f32) -> Self {
                v as $t
            }
            fn of64(v: f64) -> Self {
                v as $t
            }
            fn f32(self) -> f32 {
                self as f32
            }
            fn f64(self) -> f64 {
                self as f64
            }
            fn exp(self) -> Self {
                <$t>::exp(self)
            }
            fn tanh(self) -> Self {
                <$t>::tanh(self)
            }
            fn sqrt(self) -> Self {
                <$t>::sqrt(self)
            }
        }
    };
}
num!(f32);
num!(f64);

/// What a launch is computed in.
pub(super) trait Arithmetic {
    /// The type of every intermediate.
    type T: Num;
    /// Row of a quantised matrix × int8 vector.
    fn dot_q8(w: &Quants, x: &WideToken<'_>) -> Self::T;
    /// Inner product.
    fn dot(x: &[Self::T], y: &[f32]) -> Self::T;
    /// `y += a · x`.
    fn axpy(a: Self::T, x: &[f32], y: &mut [Self::T]);
}

/// f64, for comparing.
pub(super) struct Exact;
/// f32 with the machine's vectors, for computing.
pub(super) struct Fast;

impl Arithmetic for Exact {
    type T = f64;
    fn dot_q8(w: &Quants, x: &WideToken<'_>) -> f64 {
        dot_exact(w, x)
    }
    fn dot(x: &[f64], y: &[f32]) -> f64 {
        x.iter().zip(y).map(|(x, &y)| x * f64::from(y)).sum()
    }
    fn axpy(a: f64, x: &[f32], y: &mut [f64]) {
        y.iter_mut().zip(x).for_each(|(y, &x)| *y += a * f64::from(x));
    }
}

impl Arithmetic for Fast {
    type T = f32;
    fn dot_q8(w: &Quants, x: &WideToken<'_>) -> f32 {
        dot_fast(w, x)
    }
    fn dot(x: &[f32], y: &[f32]) -> f32 {
        dot_f32(x, y)
    }
    fn axpy(a: f32, x: &[f32], y: &mut [f32]) {
        axpy_f32(a, x, y);
    }
}

/// Sixteen sums side by side: the order doesn't depend on the width of the machine's vectors.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn dot_f32(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<16>(), y.as_chunks::<16>());
    for (x, y) in x.iter().zip(y) {
        for l in 0..16 {
            lanes[l] += x[l] * y[l];
        }
    }
    let rest: f32 = x_rest.iter().zip(y_rest).map(|(x, y)| x * y).sum();
    lanes.iter().sum::<f32>() + rest
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn axpy_f32(a: f32, x: &[f32], y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

/// A non-linearity.
pub(super) fn act<T: Num>(act: Act, x: T) -> T {
    let one = T::of(1.0);
    match act {
        Act::Silu => x / (one + (-x).exp()),
        Act::Gelu => {
            let inner = T::of64((2.0 / std::f64::consts::PI).sqrt()) * (x + T::of64(0.044715) * x * x * x);
            T::of(0.5) * x * (one + inner.tanh())
        }
    }
}

/// The scalar of a deferred norm for every token; `ssq` is `[tokens, parts]`, added in order.
pub(super) fn deferred<T: Num>(d: Deferred, ssq: &[f32], parts: usize) -> Vec<T> {
    let scalar = |parts: &[f32]| {
        let sum = parts.iter().fold(T::default(), |sum, &s| sum + T::of(s));
        T::of(1.0) / (sum / T::of64(f64::from(d.n)) + T::of64(d.eps.0)).sqrt()
    };
    ssq.chunks_exact(parts).map(scalar).collect()
}

/// RMSNorm of one group in place.
pub(super) fn rms_norm<T: Num>(x: &mut [T], gain: &[f32], eps: f64) {
    let sum = x.iter().fold(T::default(), |sum, &x| sum + x * x);
    let r = T::of(1.0) / (sum / T::of64(x.len() as f64) + T::of64(eps)).sqrt();
    for (x, &g) in x.iter_mut().zip(gain) {
        *x = *x * r * T::of(g);
    }
}

/// Rotates one head in place; `table` is the position's row of (cos, sin).
pub(super) fn rotate<T: Num>(head: &mut [T], spec: RopeSpec, table: &[[f32; 2]]) {
    let half = spec.dims as usize / 2;
    for (i, &[cos, sin]) in table[..half].iter().enumerate() {
        let (a, b) = match spec.style {
            RopeStyle::Norm => (2 * i, 2 * i + 1),
            RopeStyle::Neox => (i, i + half),
        };
        let (cos, sin) = (T::of(cos), T::of(sin));
        (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
    }
}

/// The rows of a rotation table for the chunk's tokens.
pub(super) struct Table<'a> {
    rows: &'a [[f32; 2]],
    half: usize,
    pos: usize,
}

impl<'a> Table<'a> {
    pub fn take(spec: RopeSpec, step: super::Step, operands: &mut super::Operands<'a, '_>) -> Result<Self, super::LaunchError> {
        let half = spec.dims as usize / 2;
        let rows = operands.read(hipc_ir::fused::Role::RopeTable, (step.pos + step.tokens) * half)?;
        Ok(Self { rows, half, pos: step.pos })
    }

    /// The row of token `t`.
    pub fn token(&self, t: usize) -> &'a [[f32; 2]] {
        &self.rows[(self.pos + t) * self.half..][..self.half]
    }
}
