//! The steps of a division of doubles: `v_div_scale_f64`, `v_div_fmas_f64`, `v_div_fixup_f64`.
//!
//! Source: their pseudocode in the RDNA 3 and RDNA 4 instruction set references.

use super::source::{Kind, destination, scalar_register};
use super::wide::operands;
use super::{Context, Lack, Run};
use crate::instruction::Operation;
use crate::wave::{Flow, lanes};

fn exponent(value: f64) -> i32 {
    (value.to_bits() >> 52 & 0x7ff) as i32
}

fn power(n: i32) -> f64 {
    f64::from_bits(((1023 + n) as u64) << 52)
}

/// The scaled `s0` (one of denominator `s1` and numerator `s2`), and whether the last step must scale back.
fn scaled(s0: f64, s1: f64, s2: f64) -> (f64, bool) {
    let (inverse, quotient) = ((1.0 / s1).is_subnormal(), (s2 / s1).is_subnormal());
    let only_if = |same: f64| if s0.to_bits() == same.to_bits() { s0 * power(128) } else { s0 };
    if s1 == 0.0 || s2 == 0.0 {
        (f64::NAN, false)
    } else if exponent(s2) - exponent(s1) >= 768 {
        (only_if(s1), true)
    } else if s1.is_subnormal() {
        (s0 * power(128), false)
    } else if inverse && quotient {
        (only_if(s1), true)
    } else if inverse {
        (s0 * power(-128), false)
    } else if quotient {
        (only_if(s2), true)
    } else if exponent(s2) <= 53 {
        (s0 * power(128), false)
    } else {
        (s0, false)
    }
}

/// The quotient, scaled back.
fn fused(a: f64, b: f64, c: f64, scaled: bool) -> f64 {
    let value = a.mul_add(b, c);
    match (scaled, exponent(c) > 1023) {
        (false, _) => value,
        (true, true) => value * power(128),
        (true, false) => value * power(-128),
    }
}

/// The quotient `q` of `numerator / denominator`, with IEEE's special cases.
pub(crate) fn fixup(q: f64, denominator: f64, numerator: f64) -> f64 {
    let sign = denominator.is_sign_negative() != numerator.is_sign_negative();
    let signed = |value: f64| if sign { -value } else { value };
    if numerator.is_nan() || denominator.is_nan() {
        numerator + denominator
    } else if (denominator == 0.0 && numerator == 0.0) || (denominator.is_infinite() && numerator.is_infinite()) {
        f64::from_bits(0xfff8 << 48)
    } else if denominator == 0.0 || numerator.is_infinite() {
        signed(f64::INFINITY)
    } else if denominator.is_infinite() || numerator == 0.0 || exponent(numerator) - exponent(denominator) < -1075 {
        signed(0.0)
    } else if q.is_nan() {
        // The steps before overflowed on the way to a quotient that does.
        signed(f64::INFINITY)
    } else {
        signed(q.abs())
    }
}

pub(crate) fn build<const W: usize>(operation: &Operation, context: &Context) -> Result<Option<Run<W>>, Lack> {
    let scales = match operation.name.as_str() {
        "v_div_scale_f64" => true,
        "v_div_fmas_f64" => false,
        _ => return Ok(None),
    };
    let target = destination(operation.operands.first(), 2, context)?;
    let out = if scales { Some(scalar_register(operation.operands.get(1))?) } else { None };
    let rest = operation.operands.get(if scales { 2 } else { 1 }..).unwrap_or_default();
    let sources = operands(rest, &[Kind::F64; 3], context)?;
    Ok(Some(Box::new(move |wave, _| {
        let (exec, vcc) = (wave.exec(), wave.vcc());
        let mut mask = 0;
        for lane in lanes(exec) {
            let [a, b, c] = [0, 1, 2].map(|i| f64::from_bits(sources[i].get(wave, lane)));
            let value = if scales {
                let (value, flag) = scaled(a, b, c);
                mask |= u64::from(flag) << lane;
                value
            } else {
                fused(a, b, c, vcc >> lane & 1 == 1)
            };
            wave.vectors[target][lane] = value.to_bits() as u32;
            wave.vectors[target + 1][lane] = (value.to_bits() >> 32) as u32;
        }
        if let Some(out) = out {
            wave.set_mask(out, mask);
        }
        Flow::Next
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sequence that LLVM makes of `n / d`.
    fn divide(n: f64, d: f64) -> f64 {
        let (low, _) = scaled(d, d, n);
        let (high, flag) = scaled(n, d, n);
        let mut r = 1.0 / low;
        for _ in 0..2 {
            r = (-low).mul_add(r, 1.0).mul_add(r, r);
        }
        let q = high * r;
        fixup(fused((-low).mul_add(q, high), r, q, flag), d, n)
    }

    #[test]
    fn the_whole_sequence_divides() {
        let odd = [1.0, -3.0, 1e300, 7e-300, f64::MIN_POSITIVE, f64::MAX, 1.5e-200, 0.0, f64::INFINITY, f64::NAN];
        for n in odd {
            for d in odd {
                let (ours, exact) = (divide(n, d), n / d);
                let close = ours == exact || (ours.is_nan() && exact.is_nan()) || exact.is_subnormal();
                assert!(close, "{n:e} / {d:e}: {ours:e}, not {exact:e}");
            }
        }
    }
}
