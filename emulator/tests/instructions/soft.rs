//! Arithmetic worked out another way than the emulator's: halves through fixed point, singles through doubles and rounding to odd.

/// The value of a half, from its fields.
pub fn half(bits: u32) -> f64 {
    let (sign, exponent, fraction) = (bits >> 15 & 1, (bits >> 10 & 31) as i32, f64::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => fraction * power(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        e => (1024.0 + fraction) * power(e - 25),
    };
    if sign == 1 { -magnitude } else { magnitude }
}

/// 2ⁿ for n a double can hold as a normal number.
pub fn power(n: i32) -> f64 {
    f64::from_bits(((1023 + n) as u64) << 52)
}

/// To a half, nearest even, by counting its smallest unit at that magnitude.
pub fn to_half(value: f64) -> u32 {
    let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
    if value.is_nan() {
        return 0x7e00;
    }
    let magnitude = value.abs();
    if magnitude >= 65520.0 {
        return sign | 0x7c00;
    }
    let exponent = if magnitude == 0.0 { -14 } else { (((magnitude.to_bits() >> 52) as i32) - 1023).max(-14) };
    let units = (magnitude * power(10 - exponent)).round_ties_even() as u32;
    // The carry of a mantissa that is full goes into the exponent by itself.
    sign | if units < 1024 { units } else { ((exponent + 14) as u32) * 1024 + units }
}

/// Half·half + half with one rounding: exact in units of 2⁻⁴⁸.
pub fn half_fma(a: u32, b: u32, c: u32) -> u32 {
    let (x, y, z) = (half(a), half(b), half(c));
    if !(x.is_finite() && y.is_finite() && z.is_finite()) {
        return to_half(x * y + z);
    }
    let fixed = |v: f64| (v * power(24)) as i128;
    let sum = fixed(x) * fixed(y) + (fixed(z) << 24);
    if sum == 0 {
        return to_half(x * y + z);
    }
    // To 40 bits with the rest as a sticky bit: more than enough for eleven.
    let bits = 128 - sum.unsigned_abs().leading_zeros() as i32;
    let drop = (bits - 40).max(0);
    let magnitude = sum.unsigned_abs();
    let kept = (magnitude >> drop) | u128::from(magnitude & ((1 << drop) - 1) != 0);
    let value = kept as f64 * power(drop - 48);
    to_half(if sum < 0 { -value } else { value })
}

/// Single·single + single with one rounding: the product is exact in double precision, the sum is rounded to odd.
pub fn fma(a: u32, b: u32, c: u32) -> u32 {
    let (x, y, z) = (single(a), single(b), single(c));
    let product = x * y;
    let sum = product + z;
    if !sum.is_finite() || sum == 0.0 {
        return to_single(sum);
    }
    let z_part = sum - product;
    let error = (product - (sum - z_part)) + (z - z_part);
    let mut odd = sum;
    if error != 0.0 && sum.to_bits() & 1 == 0 {
        let away = (error > 0.0) == (sum > 0.0);
        odd = f64::from_bits(if away { sum.to_bits() + 1 } else { sum.to_bits() - 1 });
    }
    to_single(odd)
}

pub fn single(bits: u32) -> f64 {
    f64::from(f32::from_bits(bits))
}

/// One rounding: of a sum, product or quotient of singles the double in between changes nothing.
pub fn to_single(value: f64) -> u32 {
    (value as f32).to_bits()
}

/// Larger of two: the other one of a NaN, +0 above −0.
pub fn larger(a: f64, b: f64) -> f64 {
    let rank = |v: f64| {
        let bits = v.to_bits() as i64;
        if bits < 0 { i64::MIN.wrapping_sub(bits).wrapping_sub(1) } else { bits }
    };
    match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ => {
            if rank(a) >= rank(b) {
                a
            } else {
                b
            }
        }
    }
}

pub fn smaller(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { larger(a, b) } else { -larger(-a, -b) }
}

/// Truncated and kept within a range; NaN is 0.
pub fn to_integer(value: f64, least: i128, most: i128) -> i128 {
    if value.is_nan() { 0 } else { (value.clamp(-1e30, 1e30) as i128).clamp(least, most) }
}

/// Denormals to zero.
pub fn flushed(value: f64) -> f64 {
    if value.abs() < f64::from(f32::MIN_POSITIVE) { value * 0.0 } else { value }
}
