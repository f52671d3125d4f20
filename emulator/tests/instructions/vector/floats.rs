//! Floats of 32 and 16 bits, and conversions between types.

use super::{F, op, short, signed};
use crate::Equal;
use crate::soft::{flushed, fma, half, half_fma, larger, single, smaller, to_half, to_integer, to_single};
use crate::variants::{Of, Op};
use Of::{Bits, Half, Short, Single};

pub fn floats() -> Vec<Op> {
    let near = |op: Op| Op { equal: if op.result == Half { Equal::NearHalves } else { Equal::NearSingle }, ..op };
    let accumulates = |op: Op| Op { accumulates: true, ..op };
    let fma_op = |name| op(name, &[Single; 3], Single, |[a, b, c]| fma(a, b, c));
    let mut all = vec![
        op("v_add_f32", &[Single; 2], Single, |[a, b, _]| to_single(single(a) + single(b))),
        op("v_sub_f32", &[Single; 2], Single, |[a, b, _]| to_single(single(a) - single(b))),
        op("v_subrev_f32", &[Single; 2], Single, |[a, b, _]| to_single(single(b) - single(a))),
        op("v_mul_f32", &[Single; 2], Single, |[a, b, _]| to_single(single(a) * single(b))),
        fma_op("v_fma_f32"),
        accumulates(fma_op("v_fmac_f32")),
        near(op("v_rcp_f32", &[Single], Single, |[a, ..]| to_single(flushed(1.0 / flushed(single(a)))))),
        near(op("v_rcp_iflag_f32", &[Single], Single, |[a, ..]| to_single(flushed(1.0 / flushed(single(a)))))),
        near(op("v_rsq_f32", &[Single], Single, |[a, ..]| to_single(flushed(single(a)).sqrt().recip()))),
        near(op("v_sqrt_f32", &[Single], Single, |[a, ..]| to_single(flushed(single(a)).sqrt()))),
        near(op("v_exp_f32", &[Single], Single, |[a, ..]| {
            to_single(flushed((flushed(single(a)) * std::f64::consts::LN_2).exp()))
        })),
        near(op("v_log_f32", &[Single], Single, |[a, ..]| to_single(flushed(single(a)).ln() / std::f64::consts::LN_2))),
        op("v_floor_f32", &[Single], Single, |[a, ..]| to_single(single(a).floor())),
        op("v_ceil_f32", &[Single], Single, |[a, ..]| to_single(single(a).ceil())),
        op("v_trunc_f32", &[Single], Single, |[a, ..]| to_single(single(a).trunc())),
        op("v_rndne_f32", &[Single], Single, |[a, ..]| {
            let (v, whole) = (single(a), single(a).floor());
            let up = v - whole > 0.5 || v - whole == 0.5 && whole % 2.0 != 0.0;
            to_single(if up { whole + 1.0 } else { whole }.copysign(v))
        }),
        op("v_fract_f32", &[Single], Single, |[a, ..]| {
            let part = single(a) - single(a).floor();
            // Never 1.
            if part.is_nan() { 0x7fc0_0000 } else { to_single(part).min(0x3f7f_ffff) }
        }),
        op("v_frexp_exp_i32_f32", &[Single], Bits, |[a, ..]| {
            let mut v = single(a).abs();
            if v == 0.0 || !v.is_finite() {
                return 0;
            }
            let mut n = 0i32;
            while v >= 1.0 {
                (v, n) = (v / 2.0, n + 1);
            }
            while v < 0.5 {
                (v, n) = (v * 2.0, n - 1);
            }
            n as u32
        }),
        op("v_frexp_mant_f32", &[Single], Single, |[a, ..]| {
            let mut v = single(a);
            while v.is_finite() && v.abs() >= 1.0 {
                v /= 2.0;
            }
            while v != 0.0 && v.abs() < 0.5 {
                v *= 2.0;
            }
            to_single(v)
        }),
        op("v_div_fixup_f32", &[Single; 3], Single, |[q, d, n]| {
            let (q, d, n) = (single(q), single(d), single(n));
            let sign = if d.is_sign_negative() == n.is_sign_negative() { 1.0 } else { -1.0 };
            let exact = n / d;
            let special = exact.is_nan() || exact == 0.0 || exact.is_infinite();
            let exponent = |v: f64| (to_single(v) >> 23 & 255) as i32;
            if special {
                to_single(exact)
            } else if exponent(n) - exponent(d) < -150 {
                to_single(0.0 * sign)
            } else if q.is_nan() {
                // Only a quotient beyond all numbers gets there: compilers count on an infinity.
                to_single(f64::INFINITY * sign)
            } else {
                to_single(q.abs() * sign)
            }
        }),
        op("v_mul_legacy_f32", &[Single; 2], Single, |[a, b, _]| {
            let zero = single(a) == 0.0 || single(b) == 0.0;
            if zero { 0 } else { to_single(single(a) * single(b)) }
        }),
        op("v_add_f16", &[Half; 2], Half, |[a, b, _]| to_half(half(a) + half(b))),
        op("v_sub_f16", &[Half; 2], Half, |[a, b, _]| to_half(half(a) - half(b))),
        op("v_mul_f16", &[Half; 2], Half, |[a, b, _]| to_half(half(a) * half(b))),
        Op { keeps: true, ..op("v_fma_f16", &[Half; 3], Half, |[a, b, c]| half_fma(a, b, c)) },
        accumulates(op("v_fmac_f16", &[Half; 3], Half, |[a, b, c]| half_fma(a, b, c))),
        near(op("v_rcp_f16", &[Half], Half, |[a, ..]| to_half(1.0 / half(a)))),
        near(op("v_rsq_f16", &[Half], Half, |[a, ..]| to_half(half(a).sqrt().recip()))),
        near(op("v_sqrt_f16", &[Half], Half, |[a, ..]| to_half(half(a).sqrt()))),
        near(op("v_exp_f16", &[Half], Half, |[a, ..]| to_half((half(a) * std::f64::consts::LN_2).exp()))),
        near(op("v_log_f16", &[Half], Half, |[a, ..]| to_half(half(a).ln() / std::f64::consts::LN_2))),
        op("v_floor_f16", &[Half], Half, |[a, ..]| to_half(half(a).floor())),
        op("v_ceil_f16", &[Half], Half, |[a, ..]| to_half(half(a).ceil())),
        op("v_trunc_f16", &[Half], Half, |[a, ..]| to_half(half(a).trunc())),
        op("v_rndne_f16", &[Half], Half, |[a, ..]| to_half(half(a).round_ties_even())),
    ];
    for (name, f) in [
        ("v_max_f32", (|[a, b, _]| to_single(larger(single(a), single(b)))) as F),
        ("v_max_num_f32", |[a, b, _]| to_single(larger(single(a), single(b)))),
        ("v_min_f32", |[a, b, _]| to_single(smaller(single(a), single(b)))),
        ("v_min_num_f32", |[a, b, _]| to_single(smaller(single(a), single(b)))),
    ] {
        all.push(op(name, &[Single; 2], Single, f));
    }
    for (name, f) in [
        ("v_max_f16", (|[a, b, _]| to_half(larger(half(a), half(b)))) as F),
        ("v_max_num_f16", |[a, b, _]| to_half(larger(half(a), half(b)))),
        ("v_min_f16", |[a, b, _]| to_half(smaller(half(a), half(b)))),
        ("v_min_num_f16", |[a, b, _]| to_half(smaller(half(a), half(b)))),
    ] {
        all.push(op(name, &[Half; 2], Half, f));
    }
    let three: F = |[a, b, c]| to_single(larger(larger(single(a), single(b)), single(c)));
    let least: F = |[a, b, c]| to_single(smaller(smaller(single(a), single(b)), single(c)));
    let middle: F = |s| {
        let values = s.map(single);
        if values.iter().any(|v| v.is_nan()) {
            return to_single(smaller(smaller(values[0], values[1]), values[2]));
        }
        // The largest is taken out (the first of those equal to it: zeros are), then the larger of the others.
        let at = (0..3).find(|&i| values.iter().all(|v| values[i] >= *v)).expect("numbers");
        to_single(larger(values[(at + 1) % 3], values[(at + 2) % 3]))
    };
    for (name, f) in [
        ("v_max3_f32", three),
        ("v_max3_num_f32", three),
        ("v_min3_f32", least),
        ("v_min3_num_f32", least),
        ("v_med3_f32", middle),
        ("v_med3_num_f32", middle),
    ] {
        all.push(op(name, &[Single; 3], Single, f));
    }
    all
}

pub fn conversions() -> Vec<Op> {
    vec![
        op("v_cvt_f32_u32", &[Bits], Single, |[a, ..]| to_single(f64::from(a))),
        op("v_cvt_f32_i32", &[Bits], Single, |[a, ..]| to_single(signed(a) as f64)),
        op("v_cvt_u32_f32", &[Single], Bits, |[a, ..]| to_integer(single(a), 0, u32::MAX.into()) as u32),
        op("v_cvt_i32_f32", &[Single], Bits, |[a, ..]| to_integer(single(a), i32::MIN.into(), i32::MAX.into()) as u32),
        op("v_cvt_f32_ubyte0", &[Bits], Single, |[a, ..]| to_single(f64::from(a.to_le_bytes()[0]))),
        op("v_cvt_f32_ubyte1", &[Bits], Single, |[a, ..]| to_single(f64::from(a.to_le_bytes()[1]))),
        op("v_cvt_f32_ubyte2", &[Bits], Single, |[a, ..]| to_single(f64::from(a.to_le_bytes()[2]))),
        op("v_cvt_f32_ubyte3", &[Bits], Single, |[a, ..]| to_single(f64::from(a.to_le_bytes()[3]))),
        op("v_cvt_f16_f32", &[Single], Half, |[a, ..]| to_half(single(a))),
        op("v_cvt_f32_f16", &[Half], Single, |[a, ..]| to_single(half(a))),
        op("v_cvt_f16_u16", &[Short], Half, |[a, ..]| to_half(f64::from(a))),
        op("v_cvt_f16_i16", &[Short], Half, |[a, ..]| to_half(short(a) as f64)),
        op("v_cvt_u16_f16", &[Half], Short, |[a, ..]| to_integer(half(a), 0, 65535) as u32),
        op("v_cvt_i16_f16", &[Half], Short, |[a, ..]| to_integer(half(a), -32768, 32767) as u16 as u32),
    ]
}
