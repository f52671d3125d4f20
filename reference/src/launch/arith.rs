//! The two arithmetics a launch can be computed in, and the small functions that all ops share.

use super::depth;
use super::tracked::{Tracked, UNIT};
use crate::blocks::{Quants, WideToken, dot_exact, dot_fast, dot_magnitude};
use hipc_ir::fused::{Deferred, RopeSpec};
use hipc_ir::graph::{Act, RopeStyle};
use hipc_ir::plan::Geometry;
use multiversion::multiversion;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// f32, or f64 with its error.
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
    fn tracked(self) -> Tracked;
    /// With another bound of its error, where there is one.
    fn with_error(self, error: f64) -> Self;
    fn exp(self) -> Self;
    fn sqrt(self) -> Self;
    /// Added up in order; a kernel rounds each term `depth` times ([`super::depth`]).
    fn sum(terms: impl Iterator<Item = Self>, depth: u32) -> Self;
}

impl Num for f32 {
    fn of(v: f32) -> Self {
        v
    }
    fn of64(v: f64) -> Self {
        v as f32
    }
    fn f32(self) -> f32 {
        self
    }
    fn tracked(self) -> Tracked {
        Tracked::of(self)
    }
    fn with_error(self, _: f64) -> Self {
        self
    }
    fn exp(self) -> Self {
        f32::exp(self)
    }
    fn sqrt(self) -> Self {
        f32::sqrt(self)
    }
    fn sum(terms: impl Iterator<Item = Self>, _: u32) -> Self {
        terms.sum()
    }
}

/// What a launch is computed in. A kernel rounds each term of an inner product `depth` times.
pub(super) trait Arithmetic {
    /// The type of every intermediate.
    type T: Num;
    /// Whether it knows its error.
    const TRACKS: bool;
    /// Row of a quantised matrix × int8 vector.
    fn dot_q8(w: &Quants, x: &WideToken<'_>, depth: u32) -> Self::T;
    /// Inner product.
    fn dot(x: &[Self::T], y: &[f32], depth: u32) -> Self::T;
    /// `y += a · x`.
    fn axpy(a: Self::T, x: &[f32], y: &mut [Self::T]);
}

/// f64, for comparing.
pub(super) struct Exact;
/// f32 with the machine's vectors, for computing.
pub(super) struct Fast;

impl Arithmetic for Exact {
    type T = Tracked;
    const TRACKS: bool = true;
    fn dot_q8(w: &Quants, x: &WideToken<'_>, depth: u32) -> Tracked {
        Tracked { value: dot_exact(w, x), error: f64::from(depth) * UNIT * dot_magnitude(w, x) }
    }
    fn dot(x: &[Tracked], y: &[f32], depth: u32) -> Tracked {
        let term = |(x, y): (&Tracked, &f32)| {
            let y = f64::from(*y);
            Tracked { value: x.value * y, error: x.error * y.abs() }
        };
        Tracked::sum(x.iter().zip(y).map(term), depth)
    }
    /// Only the values: what rounds here, attention counts itself.
    fn axpy(a: Tracked, x: &[f32], y: &mut [Tracked]) {
        y.iter_mut().zip(x).for_each(|(y, &x)| y.value += a.value * f64::from(x));
    }
}

impl Arithmetic for Fast {
    type T = f32;
    const TRACKS: bool = false;
    fn dot_q8(w: &Quants, x: &WideToken<'_>, _: u32) -> f32 {
        dot_fast(w, x)
    }
    fn dot(x: &[f32], y: &[f32], _: u32) -> f32 {
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
        // x/2 · (1 + tanh u), without the cancellation where u is negative.
        Act::Gelu => {
            let u = T::of64((2.0 / std::f64::consts::PI).sqrt()) * (x + T::of64(0.044715) * x * x * x);
            x / (one + (T::of(-2.0) * u).exp())
        }
    }
}

/// The scalar of a deferred norm for every token; `ssq` is `[tokens, parts]`, added in order.
pub(super) fn deferred<T: Num>(d: Deferred, ssq: &[f32], geometry: &Geometry) -> Vec<T> {
    let parts = geometry.parts_in as usize;
    let scalar = |values: &[f32]| {
        let sum = T::sum(values.iter().map(|&s| T::of(s)), depth::workgroup(geometry, parts));
        T::of(1.0) / (sum / T::of64(f64::from(d.n)) + T::of64(d.eps.0)).sqrt()
    };
    ssq.chunks_exact(parts).map(scalar).collect()
}

/// RMSNorm of one group in place, whose squares are rounded `depth` times.
pub(super) fn rms_norm<T: Num>(x: &mut [T], gain: &[f32], eps: f64, depth: u32) {
    let sum = T::sum(x.iter().map(|&x| x * x), depth);
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
