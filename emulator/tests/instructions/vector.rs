//! Vector operations of 32 and 16 bits: a function each, in all encodings; carries and comparisons.

use crate::soft::{flushed, fma, half, half_fma, larger, power, single, smaller, to_half, to_integer, to_single};
use crate::state::{Kind, State};
use crate::variants::{Of, Op, of};
use crate::{Case, Equal};
use Of::{Bits, Half, Short, Single};

type F = fn([u32; 3]) -> u32;

fn op(name: &'static str, sources: &'static [Of], result: Of, f: F) -> Op {
    let equal = match result {
        Single => Equal::Single,
        Half => Equal::Halves,
        _ => Equal::Bits,
    };
    Op { name, sources, result, f, accumulates: false, equal, keeps: false, small: &[] }
}

fn signed(v: u32) -> i64 {
    i64::from(v as i32)
}

fn short(v: u32) -> i64 {
    i64::from(v as u16 as i16)
}

/// Bits 0 to 23, with and without a sign.
fn low24(v: u32) -> u64 {
    u64::from(v % (1 << 24))
}

fn signed24(v: u32) -> i64 {
    let low = low24(v) as i64;
    if low >= 1 << 23 { low - (1 << 24) } else { low }
}

fn sorted<T: Ord + Copy>(mut values: [T; 3]) -> [T; 3] {
    values.sort();
    values
}

fn bit_field(value: i128, offset: u32, width: u32) -> u32 {
    if width == 0 { 0 } else { (value >> offset) as u32 & ((1u64 << width) - 1) as u32 }
}

fn sign_fill(value: u32, width: u32) -> u32 {
    if width == 0 || value >> (width - 1) & 1 == 0 { value } else { value | !(((1u64 << width) - 1) as u32) }
}

fn integers() -> Vec<Op> {
    let small = |op: Op, small| Op { small, ..op };
    let mut all = vec![
        op("v_mov_b32", &[Bits], Bits, |[a, ..]| a),
        op("v_not_b32", &[Bits], Bits, |[a, ..]| u32::MAX - a),
        op("v_bfrev_b32", &[Bits], Bits, |[a, ..]| (0..32).map(|i| (a >> i & 1) << (31 - i)).sum()),
        op("v_and_b32", &[Bits; 2], Bits, |[a, b, _]| !(!a | !b)),
        op("v_or_b32", &[Bits; 2], Bits, |[a, b, _]| !(!a & !b)),
        op("v_xor_b32", &[Bits; 2], Bits, |[a, b, _]| (a | b) - (a & b)),
        op("v_xnor_b32", &[Bits; 2], Bits, |[a, b, _]| !((a | b) - (a & b))),
        op("v_and_or_b32", &[Bits; 3], Bits, |[a, b, c]| !(!a | !b) | c),
        op("v_or3_b32", &[Bits; 3], Bits, |[a, b, c]| !(!a & !b & !c)),
        op("v_xor3_b32", &[Bits; 3], Bits, |[a, b, c]| {
            (0..32).map(|i| (((a >> i & 1) + (b >> i & 1) + (c >> i & 1)) % 2) << i).sum()
        }),
        op("v_add3_u32", &[Bits; 3], Bits, |[a, b, c]| (u64::from(a) + u64::from(b) + u64::from(c)) as u32),
        op("v_xad_u32", &[Bits; 3], Bits, |[a, b, c]| (u64::from((a | b) - (a & b)) + u64::from(c)) as u32),
        op("v_mul_lo_u32", &[Bits; 2], Bits, |[a, b, _]| (u64::from(a) * u64::from(b)) as u32),
        op("v_mul_hi_u32", &[Bits; 2], Bits, |[a, b, _]| ((i128::from(a) * i128::from(b)) >> 32) as u32),
        op("v_mul_hi_i32", &[Bits; 2], Bits, |[a, b, _]| ((signed(a) * signed(b)) >> 32) as u32),
        op("v_mul_u32_u24", &[Bits; 2], Bits, |[a, b, _]| (low24(a) * low24(b)) as u32),
        op("v_mul_hi_u32_u24", &[Bits; 2], Bits, |[a, b, _]| ((low24(a) * low24(b)) >> 32) as u32),
        op("v_mul_i32_i24", &[Bits; 2], Bits, |[a, b, _]| (signed24(a) * signed24(b)) as u32),
        op("v_mul_hi_i32_i24", &[Bits; 2], Bits, |[a, b, _]| ((signed24(a) * signed24(b)) >> 32) as u32),
        op("v_mad_u32_u24", &[Bits; 3], Bits, |[a, b, c]| (low24(a) * low24(b) + u64::from(c)) as u32),
        op("v_mad_i32_i24", &[Bits; 3], Bits, |[a, b, c]| (signed24(a) * signed24(b) + signed(c)) as u32),
        op("v_min_u32", &[Bits; 2], Bits, |[a, b, _]| if b < a { b } else { a }),
        op("v_max_u32", &[Bits; 2], Bits, |[a, b, _]| if b > a { b } else { a }),
        op("v_min_i32", &[Bits; 2], Bits, |[a, b, _]| if signed(b) < signed(a) { b } else { a }),
        op("v_max_i32", &[Bits; 2], Bits, |[a, b, _]| if signed(b) > signed(a) { b } else { a }),
        op("v_min3_u32", &[Bits; 3], Bits, |s| sorted(s)[0]),
        op("v_med3_u32", &[Bits; 3], Bits, |s| sorted(s)[1]),
        op("v_max3_u32", &[Bits; 3], Bits, |s| sorted(s)[2]),
        op("v_min3_i32", &[Bits; 3], Bits, |s| sorted(s.map(signed))[0] as u32),
        op("v_med3_i32", &[Bits; 3], Bits, |s| sorted(s.map(signed))[1] as u32),
        op("v_max3_i32", &[Bits; 3], Bits, |s| sorted(s.map(signed))[2] as u32),
        op("v_bfi_b32", &[Bits; 3], Bits, |[a, b, c]| {
            (0..32).map(|i| ((if a >> i & 1 == 1 { b } else { c }) >> i & 1) << i).sum()
        }),
        op("v_bcnt_u32_b32", &[Bits; 2], Bits, |[a, b, _]| (0..32).fold(b, |n, i| n.wrapping_add(a >> i & 1))),
        op("v_ffbh_u32", &[Bits], Bits, |[a, ..]| (0..32).find(|i| a >> (31 - i) & 1 == 1).unwrap_or(u32::MAX)),
        op("v_clz_i32_u32", &[Bits], Bits, |[a, ..]| (0..32).find(|i| a >> (31 - i) & 1 == 1).unwrap_or(u32::MAX)),
        op("v_ffbl_b32", &[Bits], Bits, |[a, ..]| (0..32).find(|i| a >> i & 1 == 1).unwrap_or(u32::MAX)),
        op("v_ctz_i32_b32", &[Bits], Bits, |[a, ..]| (0..32).find(|i| a >> i & 1 == 1).unwrap_or(u32::MAX)),
        op("v_ffbh_i32", &[Bits], Bits, |[a, ..]| (1..32).find(|i| a >> (31 - i) & 1 != a >> 31).unwrap_or(u32::MAX)),
        op("v_cls_i32", &[Bits], Bits, |[a, ..]| (1..32).find(|i| a >> (31 - i) & 1 != a >> 31).unwrap_or(u32::MAX)),
        op("v_sad_u8", &[Bits; 3], Bits, |[a, b, c]| {
            (0..4).fold(c, |sum, i| {
                let byte = |v: u32| i64::from(v >> (8 * i) & 255);
                sum.wrapping_add((byte(a) - byte(b)).unsigned_abs() as u32)
            })
        }),
        op("v_perm_b32", &[Bits; 3], Bits, |[a, b, c]| {
            // Bytes 0 to 3 are those of the second source, 4 to 7 of the first.
            let all: Vec<u32> = [b, a].iter().flat_map(|w| w.to_le_bytes()).map(u32::from).collect();
            let byte = |selector: u32| match selector {
                0..=7 => all[selector as usize],
                8 => all[1] / 128 * 255,
                9 => all[3] / 128 * 255,
                10 => all[5] / 128 * 255,
                11 => all[7] / 128 * 255,
                12 => 0,
                _ => 255,
            };
            (0..4).map(|i| byte(c >> (8 * i) & 255) << (8 * i)).sum()
        }),
    ];
    for name in ["v_add_u32", "v_add_nc_u32"] {
        all.push(op(name, &[Bits; 2], Bits, |[a, b, _]| (u64::from(a) + u64::from(b)) as u32));
    }
    for name in ["v_sub_u32", "v_sub_nc_u32"] {
        all.push(op(name, &[Bits; 2], Bits, |[a, b, _]| (signed(a) - signed(b)) as u32));
    }
    for name in ["v_subrev_u32", "v_subrev_nc_u32"] {
        all.push(op(name, &[Bits; 2], Bits, |[a, b, _]| (signed(b) - signed(a)) as u32));
    }
    // Shifts use five bits of their count.
    let shifts: [(&str, &'static [Of], &'static [usize], F); 10] = [
        ("v_lshlrev_b32", &[Bits; 2], &[0], |[a, b, _]| (u64::from(b) * (1 << (a % 32))) as u32),
        ("v_lshrrev_b32", &[Bits; 2], &[0], |[a, b, _]| b / (1u64 << (a % 32)) as u32),
        ("v_ashrrev_i32", &[Bits; 2], &[0], |[a, b, _]| signed(b).div_euclid(1 << (a % 32)) as u32),
        ("v_lshl_or_b32", &[Bits; 3], &[1], |[a, b, c]| (u64::from(a) * (1 << (b % 32))) as u32 | c),
        ("v_lshl_add_u32", &[Bits; 3], &[1], |[a, b, c]| (u64::from(a) * (1 << (b % 32)) + u64::from(c)) as u32),
        ("v_add_lshl_u32", &[Bits; 3], &[2], |[a, b, c]| ((u128::from(a) + u128::from(b)) << (c % 32)) as u32),
        ("v_alignbit_b32", &[Bits; 3], &[2], |[a, b, c]| ((u128::from(a) * (1 << 32) + u128::from(b)) >> (c % 32)) as u32),
        ("v_alignbyte_b32", &[Bits; 3], &[2], |[a, b, c]| ((u128::from(a) * (1 << 32) + u128::from(b)) >> (8 * (c % 4))) as u32),
        ("v_bfe_u32", &[Bits; 3], &[1, 2], |[a, b, c]| bit_field(a.into(), b % 32, c % 32)),
        ("v_bfe_i32", &[Bits; 3], &[1, 2], |[a, b, c]| sign_fill(bit_field(signed(a).into(), b % 32, c % 32), c % 32)),
    ];
    all.extend(shifts.map(|(name, sources, counts, f)| small(op(name, sources, Bits, f), counts)));
    all.push(small(op("v_bfm_b32", &[Bits; 2], Bits, |[a, b, _]| (((1u64 << (a % 32)) - 1) << (b % 32)) as u32), &[0, 1]));
    all
}

fn floats() -> Vec<Op> {
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

fn conversions() -> Vec<Op> {
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

fn shorts() -> Vec<Op> {
    let mut all = vec![
        op("v_mov_b16", &[Short], Short, |[a, ..]| a),
        op("v_mul_lo_u16", &[Short; 2], Short, |[a, b, _]| a.wrapping_mul(b) % 65536),
        op("v_max_u16", &[Short; 2], Short, |[a, b, _]| if a > b { a } else { b }),
        op("v_min_u16", &[Short; 2], Short, |[a, b, _]| if a < b { a } else { b }),
        op("v_max_i16", &[Short; 2], Short, |[a, b, _]| if short(a) > short(b) { a } else { b }),
        op("v_min_i16", &[Short; 2], Short, |[a, b, _]| if short(a) < short(b) { a } else { b }),
        Op {
            keeps: true,
            ..op("v_mad_u16", &[Short; 3], Short, |[a, b, c]| (u64::from(a) * u64::from(b) + u64::from(c)) as u32 % 65536)
        },
        op("v_mad_u32_u16", &[Short, Short, Bits], Bits, |[a, b, c]| (u64::from(a) * u64::from(b) + u64::from(c)) as u32),
        op("v_mad_i32_i16", &[Short, Short, Bits], Bits, |[a, b, c]| (short(a) * short(b) + signed(c)) as u32),
    ];
    for name in ["v_add_u16", "v_add_nc_u16"] {
        all.push(op(name, &[Short; 2], Short, |[a, b, _]| (a + b) % 65536));
    }
    for name in ["v_sub_u16", "v_sub_nc_u16"] {
        all.push(op(name, &[Short; 2], Short, |[a, b, _]| (65536 + a - b) % 65536));
    }
    for (name, f) in [
        ("v_lshlrev_b16", (|[a, b, _]| (b << (a % 16)) % 65536) as F),
        ("v_lshrrev_b16", |[a, b, _]| b >> (a % 16)),
        ("v_ashrrev_i16", |[a, b, _]| short(b).div_euclid(1 << (a % 16)) as u16 as u32),
    ] {
        all.push(Op { small: &[0], ..op(name, &[Short; 2], Short, f) });
    }
    all
}

/// `v_cndmask_b32` in its encodings.
fn selections() -> Vec<Case> {
    let choose = |mask: fn(&State) -> u64, lowest: bool| {
        move |state: &mut State| {
            let mask = mask(state);
            for lane in state.lanes() {
                let value = if mask >> lane & 1 == 1 { state.get(11, lane) } else { state.get(10, lane) };
                state.set(20, lane, if lowest && mask >> lane & 1 == 0 { value ^ 1 << 31 } else { value });
            }
        }
    };
    let vcc: fn(&State) -> u64 = |s| s.vcc;
    let scalar: fn(&State) -> u64 = |s| s.mask(8);
    ["vcc", "vcc_lo"]
        .iter()
        .flat_map(|name| {
            [
                Case::new(&format!("v_cndmask_b32_e32 v20, v10, v11, {name}"), choose(vcc, false)),
                Case::new(&format!("v_cndmask_b32_e64 v20, v10, v11, {name}"), choose(vcc, false)),
                Case::new(&format!("v_cndmask_b32_e64 v20, -v10, v11, {name}"), choose(vcc, true)),
            ]
        })
        .chain([
            Case::new("v_cndmask_b32_e64 v20, v10, v11, s8", choose(scalar, false)),
            Case::new("v_cndmask_b32_e64 v20, v10, v11, s[8:9]", choose(scalar, false)),
        ])
        .collect()
}

/// Additions and subtractions with carries, in and out.
fn carries() -> Vec<Case> {
    // Of the two sources and the carry: the sum, which may be negative.
    type Sum = fn(i64, i64, i64) -> i64;
    let add: Sum = |a, b, c| a + b + c;
    let sub: Sum = |a, b, c| a - b - c;
    let subrev: Sum = |a, b, c| b - a - c;
    let mut cases = Vec::new();
    let mut push = |text: String, f: Sum, out: Option<usize>, takes: Option<Option<usize>>| {
        let expect = move |s: &mut State| {
            let carry_in = match takes {
                None => 0,
                Some(None) => s.vcc,
                Some(Some(r)) => s.mask(r),
            };
            let mut carries = 0;
            for lane in s.lanes() {
                let sum = f(s.get(10, lane).into(), s.get(11, lane).into(), (carry_in >> lane & 1) as i64);
                s.set(20, lane, sum as u32);
                carries |= u64::from(!(0..1 << 32).contains(&sum)) << lane;
            }
            match out {
                None => s.vcc = carries,
                Some(r) => s.set_mask(r, carries),
            }
        };
        cases.push(Case::new(&text, expect));
    };
    for (name, f) in [("v_add_co_u32", add), ("v_sub_co_u32", sub), ("v_subrev_co_u32", subrev)] {
        push(format!("{name}_e32 v20, vcc, v10, v11"), f, None, None);
        for (register, suffix) in [("s[12:13]", "_e64"), ("s12", ""), ("s[12:13]", "")] {
            push(format!("{name}{suffix} v20, {register}, v10, v11"), f, Some(12), None);
        }
        for vcc in ["vcc", "vcc_lo"] {
            push(format!("{name} v20, {vcc}, v10, v11"), f, None, None);
        }
    }
    for (name, f) in [
        ("v_addc_co_u32", add),
        ("v_add_co_ci_u32", add),
        ("v_subb_co_u32", sub),
        ("v_sub_co_ci_u32", sub),
        ("v_subbrev_co_u32", subrev),
        ("v_subrev_co_ci_u32", subrev),
    ] {
        for vcc in ["vcc", "vcc_lo"] {
            push(format!("{name}_e32 v20, {vcc}, v10, v11, {vcc}"), f, None, Some(None));
            push(format!("{name}_e64 v20, {vcc}, v10, v11, {vcc}"), f, None, Some(None));
        }
        push(format!("{name}_e64 v20, s12, v10, v11, s14"), f, Some(12), Some(Some(14)));
        push(format!("{name}_e64 v20, s[12:13], v10, v11, s[14:15]"), f, Some(12), Some(Some(14)));
    }
    cases
}

/// Steps of a division, and whole ones against the host's.
fn divisions() -> Vec<Case> {
    let fmas = |s: &mut State| {
        for lane in s.lanes() {
            let fused = fma(s.get(10, lane), s.get(11, lane), s.get(12, lane));
            let value = match (s.vcc >> lane & 1 == 1, (s.get(12, lane) >> 23 & 255) > 127) {
                (false, _) => fused,
                (true, true) => to_single(single(fused) * power(64)),
                (true, false) => to_single(single(fused) * power(-64)),
            };
            s.set(20, lane, value);
        }
    };
    // No NaN, no zero, no infinity, nothing extreme: nothing to scale, so the sources come back.
    let plain = |s: &mut State| {
        for lane in 0..s.width {
            for r in [10, 11] {
                let value = s.get(r, lane) & 0x807f_ffff | (100 + s.get(r, lane) % 50) << 23;
                s.set(r, lane, value);
            }
        }
    };
    let whole = |scale: &str, sign: &str| {
        format!(
            "{scale} v20, {sign}, v11, v11, v10
            {scale} v21, vcc{}, v10, v11, v10
            v_rcp_f32_e32 v22, v20
            v_fma_f32 v23, -v20, v22, 1.0
            v_fma_f32 v22, v23, v22, v22
            v_mul_f32_e32 v23, v21, v22
            v_fma_f32 v24, -v20, v23, v21
            v_fma_f32 v23, v24, v22, v23
            v_fma_f32 v24, -v20, v23, v21
            v_div_fmas_f32 v24, v24, v22, v23
            v_div_fixup_f32 v27, v24, v11, v10
            v_mov_b32_e32 v20, 0
            v_mov_b32_e32 v21, 0
            v_mov_b32_e32 v22, 0
            v_mov_b32_e32 v23, 0
            v_mov_b32_e32 v24, 0
            s_mov_b64 s[8:9], 0
            s_mov_b64 vcc, 0",
            if sign == "s8" { "_lo" } else { "" }
        )
    };
    let quotient = |s: &mut State| {
        for lane in s.lanes() {
            // The refinement above is good to the last bit.
            s.set(27, lane, to_single(single(s.get(10, lane)) / single(s.get(11, lane))));
            (20..25).for_each(|r| s.set(r, lane, 0));
        }
        s.set_scalar64(8, 0);
        s.vcc = 0;
    };
    let single3 = [Kind::Single; 3];
    let scaled = |s: &mut State| {
        for lane in s.lanes() {
            let value = s.get(10, lane);
            s.set(20, lane, value);
        }
        s.vcc = 0;
    };
    vec![
        Case::new("v_div_fmas_f32 v20, v10, v11, v12", fmas).kinds(&single3).equal(Equal::Single),
        Case::new("v_div_scale_f32 v20, vcc, v10, v11, v10", scaled).kinds(&single3).prepare(plain),
        Case::new("v_div_scale_f32 v20, vcc_lo, v10, v11, v10", scaled).kinds(&single3).prepare(plain),
        Case::new(&whole("v_div_scale_f32", "s8"), quotient).kinds(&single3).equal(Equal::NearSingle).prepare(plain),
        Case::new(&whole("v_div_scale_f32", "s[8:9]"), quotient).kinds(&single3).equal(Equal::NearSingle).prepare(plain),
    ]
}

/// `v_cmp_*`, `v_cmpx_*`: all relations of all types.
fn comparisons() -> Vec<Case> {
    // Whether it holds of (a < b, a == b, a > b); with all false the two are unordered.
    type Holds = fn(bool, bool, bool) -> bool;
    const RELATIONS: &[(&str, &str, Holds)] = &[
        ("lt", "fiu", |l, _, _| l),
        ("eq", "fiu", |_, e, _| e),
        ("le", "fiu", |l, e, _| l || e),
        ("gt", "fiu", |_, _, g| g),
        ("ge", "fiu", |_, e, g| g || e),
        ("ne", "iu", |_, e, _| !e),
        ("lg", "f", |l, _, g| l || g),
        ("o", "f", |l, e, g| l || e || g),
        ("u", "f", |l, e, g| !(l || e || g)),
        ("nge", "f", |_, e, g| !(g || e)),
        ("nlg", "f", |l, _, g| !(l || g)),
        ("ngt", "f", |_, _, g| !g),
        ("nle", "f", |l, e, _| !(l || e)),
        ("neq", "f", |_, e, _| !e),
        ("nlt", "f", |l, _, _| !l),
    ];
    /// Suffix, registers of a source, kind of inputs, value (integers of 64 bits and floats share a pair).
    type Type = (&'static str, usize, Kind, fn(&State, usize, usize) -> (i128, f64));
    const TYPES: &[Type] = &[
        ("i16", 1, Kind::Integer, |s, r, l| (short(s.get(r, l)).into(), 0.0)),
        ("u16", 1, Kind::Integer, |s, r, l| ((s.get(r, l) % 65536).into(), 0.0)),
        ("i32", 1, Kind::Integer, |s, r, l| (signed(s.get(r, l)).into(), 0.0)),
        ("u32", 1, Kind::Integer, |s, r, l| (s.get(r, l).into(), 0.0)),
        ("i64", 2, Kind::Integer, |s, r, l| ((s.get64(r, l) as i64).into(), 0.0)),
        ("u64", 2, Kind::Integer, |s, r, l| (s.get64(r, l).into(), 0.0)),
        ("f16", 1, Kind::Halves, |s, r, l| (0, half(s.get(r, l)))),
        ("f32", 1, Kind::Single, |s, r, l| (0, single(s.get(r, l)))),
        ("f64", 2, Kind::Double, |s, r, l| (0, f64::from_bits(s.get64(r, l)))),
    ];
    let mut cases = Vec::new();
    for &(suffix, registers, kind, value) in TYPES {
        for &(relation, of, holds) in RELATIONS {
            if !of.contains(&suffix[..1]) {
                continue;
            }
            let mask = move |s: &State| {
                s.lanes().into_iter().fold(0u64, |mask, lane| {
                    let ((i, x), (j, y)) = (value(s, 10, lane), value(s, 12, lane));
                    let float = suffix.starts_with('f');
                    let [l, e, g] = if float { [x < y, x == y, x > y] } else { [i < j, i == j, i > j] };
                    mask | u64::from(holds(l, e, g)) << lane
                })
            };
            let (a, b) = if registers == 2 { ("v[10:11]", "v[12:13]") } else { ("v10", "v12") };
            {
                let name = format!("{relation}_{suffix}");
                let kinds = [kind; 4];
                for vcc in ["vcc", "vcc_lo"] {
                    let text = format!("v_cmp_{name}_e32 {vcc}, {a}, {b}");
                    cases.push(Case::new(&text, move |s| s.vcc = mask(s)).kinds(&kinds));
                }
                for register in ["s[12:13]", "s12"] {
                    let text = format!("v_cmp_{name}_e64 {register}, {a}, {b}");
                    cases.push(Case::new(&text, move |s| s.set_mask(12, mask(s))).kinds(&kinds));
                }
                let old = format!("v_cmpx_{name}_e32 vcc, {a}, {b}");
                cases.push(
                    Case::new(&old, move |s| {
                        s.vcc = mask(s);
                        s.exec = s.vcc;
                    })
                    .kinds(&kinds),
                );
                let new = format!("v_cmpx_{name}_e32 {a}, {b}");
                cases.push(
                    Case::new(&new, move |s| {
                        s.exec = mask(s);
                        // gfx9's assembler means the same by both.
                        if s.generation() == 9 {
                            s.vcc = s.exec;
                        }
                    })
                    .kinds(&kinds),
                );
                let long = format!("v_cmpx_{name}_e64 {a}, {b}");
                cases.push(
                    Case::new(&long, move |s| {
                        s.exec = mask(s);
                        if s.generation() == 9 {
                            s.vcc = s.exec;
                        }
                    })
                    .kinds(&kinds),
                );
            }
        }
    }
    // Not all types have all encodings: the family stands for the name.
    for case in &mut cases {
        case.name = case.name.replace("_e32", "").replace("_e64", "").replace("cmpx", "cmp");
    }
    let classes = |s: &State| {
        s.lanes().into_iter().fold(0u64, |mask, lane| {
            let (bits, wanted) = (s.get(10, lane), s.get(11, lane));
            let (negative, exponent, fraction) = (bits >> 31 == 1, bits >> 23 & 255, bits & 0x7f_ffff);
            let class = match (exponent, fraction) {
                (255, 0) => [9, 2][usize::from(negative)],
                (255, f) => u32::from(f >> 22 == 1),
                (0, 0) => [6, 5][usize::from(negative)],
                (0, _) => [7, 4][usize::from(negative)],
                _ => [8, 3][usize::from(negative)],
            };
            mask | u64::from(wanted >> class & 1) << lane
        })
    };
    let kinds = [Kind::Single, Kind::Integer];
    for vcc in ["vcc", "vcc_lo"] {
        cases.push(Case::new(&format!("v_cmp_class_f32_e32 {vcc}, v10, v11"), move |s| s.vcc = classes(s)).kinds(&kinds));
    }
    for register in ["s[12:13]", "s12"] {
        let text = format!("v_cmp_class_f32_e64 {register}, v10, v11");
        cases.push(Case::new(&text, move |s| s.set_mask(12, classes(s))).kinds(&kinds));
    }
    let folded = cases.len() - 4;
    cases[folded..].iter_mut().for_each(|c| c.name = "v_cmp_class_f32".to_owned());
    cases
}

/// Literal multiplicands and addends, scaling by powers of two.
fn literals() -> Vec<Case> {
    let lanewise = |f: fn(u32, u32) -> u32| {
        move |s: &mut State| {
            for lane in s.lanes() {
                let value = f(s.get(10, lane), s.get(11, lane));
                s.set(20, lane, value);
            }
        }
    };
    let single2 = [Kind::Single; 2];
    let scale = |s: &mut State| {
        for lane in s.lanes() {
            let steps = (s.get(11, lane) as i32).clamp(-400, 400);
            let value = single(s.get(10, lane)) * power(steps);
            s.set(20, lane, to_single(value));
        }
    };
    let mut cases = vec![
        Case::new("v_fmaak_f32 v20, v10, v11, 0x40490fdb", lanewise(|a, b| fma(a, b, 0x4049_0fdb)))
            .kinds(&single2)
            .equal(Equal::Single),
        Case::new("v_fmamk_f32 v20, v10, 0x40490fdb, v11", lanewise(|a, b| fma(a, 0x4049_0fdb, b)))
            .kinds(&single2)
            .equal(Equal::Single),
        Case::new("v_ldexp_f32 v20, v10, v11", scale).kinds(&[Kind::Single, Kind::Small]).equal(Equal::Single),
    ];
    cases.extend(["v_cvt_pkrtz_f16_f32", "v_cvt_pk_rtz_f16_f32"].iter().flat_map(|name| {
        ["_e32", "_e64", ""].map(|suffix| {
            // Towards zero: the largest half that isn't beyond it.
            let part = |bits: u32| {
                let value = single(bits);
                let mut h = to_half(value);
                if half(h).abs() > value.abs() && value.is_finite() {
                    h -= 1;
                }
                h
            };
            let mut case = Case::new(&format!("{name}{suffix} v20, v10, v11"), move |s| {
                for lane in s.lanes() {
                    let value = part(s.get(10, lane)) | part(s.get(11, lane)) << 16;
                    s.set(20, lane, value);
                }
            })
            .kinds(&single2)
            .equal(Equal::Halves);
            case.name = (*name).to_owned();
            case
        })
    }));
    cases
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for op in integers().iter().chain(&floats()).chain(&conversions()).chain(&shorts()) {
        let every = ["v_mov_b32", "v_add_f32", "v_add_u32", "v_add_nc_u32"].contains(&op.name);
        cases.extend(of(op, every));
    }
    cases.extend(selections());
    cases.extend(carries());
    cases.extend(divisions());
    cases.extend(comparisons());
    cases.extend(literals());
    cases
}
