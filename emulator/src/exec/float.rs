//! Floating-point behaviour of the vector unit where it isn't plain IEEE arithmetic of the host.
//!
//! Approximate instructions (`v_rcp`, `v_rsq`, `v_sqrt`, `v_exp`, `v_log`, `v_sin`, `v_cos`) are one unit in the last place off on
//! hardware, in a way that isn't published; here they are the correctly rounded result (or nearly, through f64). As there, they flush
//! denormals of single precision.

use half::{bf16, f16};

pub(crate) fn from_half(bits: u32) -> f32 {
    f16::from_bits(bits as u16).to_f32()
}

pub(crate) fn to_half(value: f32) -> u32 {
    u32::from(f16::from_f32(value).to_bits())
}

/// Rounded to odd: of what is lost, enough is left for another rounding.
fn odd_single(value: f64) -> f32 {
    let single = value as f32;
    if f64::from(single) == value || value.is_nan() {
        return single;
    }
    let below = if f64::from(single.abs()) > value.abs() { single.to_bits() - 1 } else { single.to_bits() };
    f32::from_bits(below | 1)
}

/// With one rounding.
pub(crate) fn half_from_f64(value: f64) -> u32 {
    to_half(odd_single(value))
}

/// Half·half + half with one rounding: the product is exact, the sum is rounded to odd.
pub(crate) fn half_fused(a: f64, b: f64, c: f64) -> u32 {
    let product = a * b;
    let sum = product + c;
    if !sum.is_finite() {
        return half_from_f64(sum);
    }
    let rest = sum - product;
    let error = (product - (sum - rest)) + (c - rest);
    if error == 0.0 || sum.to_bits() & 1 == 1 {
        return half_from_f64(sum);
    }
    let outwards = (error > 0.0) == (sum > 0.0);
    half_from_f64(f64::from_bits(if outwards { sum.to_bits() + 1 } else { sum.to_bits() - 1 }))
}

/// To 0 … 1; a NaN becomes 0 (`DX10_CLAMP`, as compilers set it), and so does −0.
pub(crate) fn clamp_unit(value: f32) -> f32 {
    if value > 0.0 { value.min(1.0) } else { 0.0 }
}

/// With one rounding, likewise.
pub(crate) fn bfloat_from_f64(value: f64) -> u32 {
    to_bfloat(odd_single(value))
}

pub(crate) fn from_bfloat(bits: u32) -> f32 {
    bf16::from_bits(bits as u16).to_f32()
}

pub(crate) fn to_bfloat(value: f32) -> u32 {
    u32::from(bf16::from_f32(value).to_bits())
}

/// Rounds to half precision towards zero.
pub(crate) fn to_half_towards_zero(value: f32) -> u32 {
    let nearest = f16::from_f32(value);
    if nearest.to_f32().abs() > value.abs() && !value.is_infinite() {
        // The magnitude's predecessor.
        return u32::from(nearest.to_bits() - 1);
    }
    u32::from(nearest.to_bits())
}

/// Denormals become zeros of their sign.
pub(crate) fn flush(value: f32) -> f32 {
    if value.is_subnormal() { 0f32.copysign(value) } else { value }
}

/// An approximate function, flushed before and after.
pub(crate) fn approximate(value: f32, f: impl Fn(f64) -> f64) -> f32 {
    flush(f(f64::from(flush(value))) as f32)
}

/// `maxNum` of IEEE 754-2008 as the hardware has it: the other one for a NaN, +0 above −0.
pub(crate) fn maximum(a: f32, b: f32) -> f32 {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => quiet(a),
        (true, false) => b,
        (false, true) => a,
        _ if a == b => f32::from_bits(a.to_bits() & b.to_bits()),
        _ if a > b => a,
        _ => b,
    }
}

/// `minNum`, likewise.
pub(crate) fn minimum(a: f32, b: f32) -> f32 {
    -maximum(-a, -b)
}

/// Sets the quiet bit of a NaN.
pub(crate) fn quiet(value: f32) -> f32 {
    if value.is_nan() { f32::from_bits(value.to_bits() | 1 << 22) } else { value }
}

/// The middle of three.
pub(crate) fn median(a: f32, b: f32, c: f32) -> f32 {
    if a.is_nan() || b.is_nan() || c.is_nan() {
        return minimum(minimum(a, b), c);
    }
    let largest = maximum(maximum(a, b), c);
    if largest == a {
        maximum(b, c)
    } else if largest == b {
        maximum(a, c)
    } else {
        maximum(a, b)
    }
}

/// Bits of `v_cmp_class`: signalling and quiet NaN, then −∞, −normal, −denormal, −0, +0, +denormal, +normal, +∞.
pub(crate) fn class(value: f64, signalling: bool, denormal: bool) -> u32 {
    let negative = value.is_sign_negative();
    let bit = if value.is_nan() {
        u32::from(!signalling)
    } else {
        let kind = if value.is_infinite() {
            0
        } else if value == 0.0 {
            3
        } else if denormal {
            2
        } else {
            1
        };
        if negative { 2 + kind } else { 9 - kind }
    };
    1 << bit
}

pub(crate) fn class32(bits: u32) -> u32 {
    let value = f32::from_bits(bits);
    class(f64::from(value), bits >> 22 & 1 == 0, value.is_subnormal())
}

pub(crate) fn class16(bits: u32) -> u32 {
    let value = f16::from_bits(bits as u16);
    let denormal = bits & 0x7c00 == 0 && bits & 0x3ff != 0;
    class(value.to_f64(), bits >> 9 & 1 == 0, denormal)
}

pub(crate) fn class64(bits: u64) -> u32 {
    let value = f64::from_bits(bits);
    class(value, bits >> 51 & 1 == 0, value.is_subnormal())
}

fn exponent(value: f32) -> i32 {
    (value.to_bits() >> 23 & 0xff) as i32
}

/// Multiplies by a power of two, exactly but for over- and underflow.
pub(crate) fn scale(value: f32, power: i32) -> f32 {
    let power = power.clamp(-500, 500);
    (f64::from(value) * f64::from_bits(((1023 + i64::from(power)) as u64) << 52)) as f32
}

/// `v_div_scale_f32`: the scaled `s0` (one of denominator `s1` and numerator `s2`), and whether `v_div_fmas` must scale back.
pub(crate) fn div_scale(s0: f32, s1: f32, s2: f32) -> (f32, bool) {
    let (inverse, quotient) = ((1.0 / s1).is_subnormal(), (s2 / s1).is_subnormal());
    if s1 == 0.0 || s2 == 0.0 {
        (f32::NAN, false)
    } else if exponent(s2) - exponent(s1) >= 96 {
        (if s0.to_bits() == s1.to_bits() { scale(s0, 64) } else { s0 }, true)
    } else if s1.is_subnormal() {
        (scale(s0, 64), false)
    } else if inverse && quotient {
        (if s0.to_bits() == s1.to_bits() { scale(s0, 64) } else { s0 }, true)
    } else if inverse {
        (scale(s0, -64), false)
    } else if quotient {
        (if s0.to_bits() == s2.to_bits() { scale(s0, 64) } else { s0 }, true)
    } else if exponent(s2) <= 23 {
        (scale(s0, 64), false)
    } else {
        (s0, false)
    }
}

/// `v_div_fmas_f32`.
pub(crate) fn div_fmas(a: f32, b: f32, c: f32, scaled: bool) -> f32 {
    let fused = a.mul_add(b, c);
    match (scaled, exponent(c) > 127) {
        (false, _) => fused,
        (true, true) => scale(fused, 64),
        (true, false) => scale(fused, -64),
    }
}

/// `v_div_fixup_f32`: the quotient `q` of `numerator / denominator`, with IEEE's special cases.
pub(crate) fn div_fixup(q: f32, denominator: f32, numerator: f32) -> f32 {
    let sign = denominator.is_sign_negative() != numerator.is_sign_negative();
    let signed = |value: f32| if sign { -value } else { value };
    if numerator.is_nan() {
        quiet(numerator)
    } else if denominator.is_nan() {
        quiet(denominator)
    } else if (denominator == 0.0 && numerator == 0.0) || (denominator.is_infinite() && numerator.is_infinite()) {
        f32::from_bits(0xffc0_0000)
    } else if denominator == 0.0 || numerator.is_infinite() {
        signed(f32::INFINITY)
    } else if denominator.is_infinite() || numerator == 0.0 || exponent(numerator) - exponent(denominator) < -150 {
        signed(0.0)
    } else if q.is_nan() {
        // The steps before overflowed on the way to a quotient that does.
        signed(f32::INFINITY)
    } else {
        signed(q.abs())
    }
}

/// To an unsigned integer: truncated, clamped, NaN is 0.
pub(crate) fn to_u32(value: f32) -> u32 {
    value as u32
}

/// To a signed integer, likewise.
pub(crate) fn to_i32(value: f32) -> u32 {
    (value as i32).cast_unsigned()
}

/// `out[i] = a[i]·b[i] + c[i]` with one rounding.
#[multiversion::multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
pub(crate) fn fused(a: &[u32], b: &[u32], c: &[u32], out: &mut [u32]) {
    let n = out.len();
    let (a, b, c) = (&a[..n], &b[..n], &c[..n]);
    for i in 0..n {
        out[i] = f32::from_bits(a[i]).mul_add(f32::from_bits(b[i]), f32::from_bits(c[i])).to_bits();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Just beside the middle of two neighbours: a single in between would be the middle, and go to the even one.
    #[test]
    fn doubles_become_halves_and_bfloats_with_one_rounding() {
        let little = f64::from_bits(0x3cb0_0000_0000_0000); // 2⁻⁵²
        for (value, half, bfloat) in [
            (1.0 + 2f64.powi(-11) + little, 0x3c01, 0x3f80),
            (1.0 + 2f64.powi(-11), 0x3c00, 0x3f80),
            (1.0 + 2f64.powi(-11) - little, 0x3c00, 0x3f80),
            (1.0 + 2f64.powi(-8) + little, 0x3c04, 0x3f81),
            (1.0 + 2f64.powi(-8), 0x3c04, 0x3f80),
            (-1.0 - 2f64.powi(-8) - little, 0xbc04, 0xbf81),
            (1.0 + 3.0 * 2f64.powi(-8) - little, 0x3c0c, 0x3f81),
            (f64::INFINITY, 0x7c00, 0x7f80),
            (0.0, 0, 0),
        ] {
            assert_eq!((half_from_f64(value), bfloat_from_f64(value)), (half, bfloat), "{value:e}");
        }
    }
}
