//! Integers of 32 and 16 bits.

use super::{F, op, short, signed};
use crate::variants::{Of, Op};
use Of::{Bits, Short};

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

pub fn integers() -> Vec<Op> {
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

pub fn shorts() -> Vec<Op> {
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
