//! f64 with a bound on what the same computation may differ by in f32.
//!
//! Running error analysis (Higham, *Accuracy and Stability of Numerical Algorithms*, 3.3): every operation passes on its operands' errors
//! and adds the rounding of its own result, 2⁻²⁴ of it. To first order: products of errors are left out. A sum's error is the number of
//! roundings on a term's way through it times Σ|terms|, whatever the order of the rest; how many there are follows from how a kernel
//! adds ([`super::depth`]). What is fused into one rounding counts as two.

use super::arith::Num;
use std::cmp::Ordering;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// Rounding to f32 moves a value by at most this part of it.
pub(super) const UNIT: f64 = 1.0 / (1 << 24) as f64;

/// 2^x and √x may be off by this part: the one ulp that `hipc/platform.h` promises is at most 2⁻²³ of a value.
pub(super) const ELEMENTARY: f64 = 2.0 * UNIT;

/// Products and quotients that are smaller may be 0.
const TINY: f64 = f32::MIN_POSITIVE as f64;

/// A value, and what its counterpart in f32 may differ from it by.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tracked {
    pub value: f64,
    pub error: f64,
}

impl Tracked {
    /// The result of an operation that rounds, with the error of its operands.
    fn rounded(value: f64, error: f64) -> Self {
        Self { value, error: error + UNIT * value.abs() }
    }
}

impl PartialEq for Tracked {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl PartialOrd for Tracked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.value.partial_cmp(&other.value)
    }
}

impl Add for Tracked {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self::rounded(self.value + other.value, self.error + other.error)
    }
}

impl AddAssign for Tracked {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Tracked {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Mul for Tracked {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        Self::rounded(self.value * other.value, self.error * other.value.abs() + other.error * self.value.abs() + TINY)
    }
}

impl Div for Tracked {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        let value = self.value / other.value;
        if other.value.abs() > f64::from(f32::MAX) {
            // Infinite in f32, so that nothing is left of the quotient.
            return Self { value, error: value.abs() };
        }
        Self::rounded(value, (self.error + other.error * value.abs()) / other.value.abs() + TINY)
    }
}

impl Neg for Tracked {
    type Output = Self;
    fn neg(self) -> Self {
        Self { value: -self.value, ..self }
    }
}

impl Num for Tracked {
    fn of(v: f32) -> Self {
        Self { value: f64::from(v), error: 0.0 }
    }
    fn of64(v: f64) -> Self {
        Self { value: v, error: (f64::from(v as f32) - v).abs() }
    }
    fn f32(self) -> f32 {
        self.value as f32
    }
    fn tracked(self) -> Tracked {
        self
    }
    fn with_error(self, error: f64) -> Self {
        Self { error, ..self }
    }
    /// Computed as 2^(x·log₂e): the constant and the product are rounded.
    fn exp(self) -> Self {
        let value = self.value.exp();
        Self { value, error: value * (self.error + 2.0 * UNIT * self.value.abs() + ELEMENTARY) }
    }
    fn sqrt(self) -> Self {
        let value = self.value.sqrt();
        Self { value, error: if self.error == 0.0 { 0.0 } else { 0.5 * self.error / value } + ELEMENTARY * value }
    }
    fn sum(terms: impl Iterator<Item = Self>, depth: u32) -> Self {
        let (mut value, mut error, mut magnitude) = (0.0, 0.0, 0.0);
        for term in terms {
            value += term.value;
            error += term.error;
            magnitude += term.value.abs();
        }
        Self { value, error: error + f64::from(depth) * UNIT * magnitude }
    }
}

#[cfg(test)]
mod tests {
    use super::super::arith::{act, rms_norm};
    use super::*;
    use hipc_ir::graph::Act;
    use proptest::prelude::*;

    /// The same computed in f32 lies within the bound, and the bound is a few roundings where nothing cancels.
    fn holds<const N: usize>(
        x: [f32; N],
        f: impl Fn([f32; N]) -> f32,
        g: impl Fn([Tracked; N]) -> Tracked,
    ) -> Result<(), TestCaseError> {
        let (found, bound) = (f64::from(f(x)), g(x.map(Tracked::of)));
        prop_assert!((found - bound.value).abs() <= bound.error, "{found} for {bound:?}");
        Ok(())
    }

    fn value() -> impl Strategy<Value = f32> {
        -20.0f32..20.0
    }

    proptest! {
        #[test]
        fn activations(x in value()) {
            for kind in [Act::Silu, Act::Gelu] {
                holds([x], |[x]| act(kind, x), |[x]| act(kind, x))?;
            }
        }

        #[test]
        fn operations(x in prop::array::uniform4(value())) {
            prop_assume!(x[3].abs() > 1e-3);
            holds(x, |[a, b, c, d]| (a * b + c) / d - a, |[a, b, c, d]| (a * b + c) / d - a)?;
            holds(x, |[a, b, c, d]| (a * a + d * d).sqrt() * (b - c), |[a, b, c, d]| (a * a + d * d).sqrt() * (b - c))?;
        }

        #[test]
        fn sums_in_any_order(x in prop::array::uniform8(value())) {
            let tracked = |x: [Tracked; 8], depth| Tracked::sum(x.into_iter(), depth);
            holds(x, |x| x.iter().sum(), |x| tracked(x, 7))?;
            holds(x, |[a, b, c, d, e, f, g, h]| ((a + b) + (c + d)) + ((e + f) + (g + h)), |x| tracked(x, 3))?;
        }

        #[test]
        fn norms(x in prop::array::uniform8(value())) {
            let gain = [0.5; 8];
            let first = |mut x: [f32; 8]| { rms_norm(&mut x, &gain, 1e-5, 8); x[0] };
            holds(x, first, |mut x| { rms_norm(&mut x, &gain, 1e-5, 8); x[0] })?;
        }
    }

    #[test]
    fn without_cancellation_a_bound_is_a_few_roundings() {
        let x = Tracked::of(3.0);
        for y in [x * x + x, act(Act::Silu, x), x / (x + x).sqrt()] {
            assert!(y.error > 0.0 && y.error < 10.0 * UNIT * y.value, "{y:?}");
        }
    }
}
