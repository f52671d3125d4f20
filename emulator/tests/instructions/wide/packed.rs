//! One operation on both halves of registers, or on two registers.

use super::each;
use crate::soft::{fma, half, half_fma, larger, single, smaller, to_half, to_single};
use crate::state::Kind;
use crate::{Case, Equal};

/// One operation on both halves of registers; `op_sel` and the like choose and negate.
pub fn cases() -> Vec<Case> {
    /// Name, floats, sources, function of a half.
    type Row = (&'static str, bool, usize, fn(u32, u32, u32) -> u32);
    const ROWS: &[Row] = &[
        ("v_pk_add_f16", true, 2, |a, b, _| to_half(half(a) + half(b))),
        ("v_pk_mul_f16", true, 2, |a, b, _| to_half(half(a) * half(b))),
        ("v_pk_fma_f16", true, 3, half_fma),
        ("v_pk_max_f16", true, 2, |a, b, _| to_half(larger(half(a), half(b)))),
        ("v_pk_max_num_f16", true, 2, |a, b, _| to_half(larger(half(a), half(b)))),
        ("v_pk_min_f16", true, 2, |a, b, _| to_half(smaller(half(a), half(b)))),
        ("v_pk_min_num_f16", true, 2, |a, b, _| to_half(smaller(half(a), half(b)))),
        ("v_pk_add_u16", false, 2, |a, b, _| (a + b) % 65536),
        ("v_pk_sub_i16", false, 2, |a, b, _| (65536 + a - b) % 65536),
        ("v_pk_mul_lo_u16", false, 2, |a, b, _| a.wrapping_mul(b) % 65536),
        ("v_pk_mad_u16", false, 3, |a, b, c| a.wrapping_mul(b).wrapping_add(c) % 65536),
        ("v_pk_lshlrev_b16", false, 2, |a, b, _| (b << (a % 16)) % 65536),
        ("v_pk_lshrrev_b16", false, 2, |a, b, _| b >> (a % 16)),
        ("v_pk_ashrrev_i16", false, 2, |a, b, _| (i32::from(b as u16 as i16) >> (a % 16)) as u16 as u32),
        ("v_pk_max_u16", false, 2, |a, b, _| if a > b { a } else { b }),
        ("v_pk_min_i16", false, 2, |a, b, _| if (a as u16 as i16) < (b as u16 as i16) { a } else { b }),
    ];
    let mut cases = Vec::new();
    for &(name, float, n, f) in ROWS {
        // Bits: source i reads its upper half for the lower (upper) result; negation of the lower and upper one.
        for (low, high, negate_low, negate_high) in [(0, 7, 0, 0), (1, 6, 0, 0), (7, 0, 0, 0), (2, 3, 5, 3)] {
            if !float && negate_low != 0 {
                continue;
            }
            let list = |key: &str, bits: u32, default: u32| {
                let bit = |i: usize| (bits >> i & 1).to_string();
                let all: Vec<String> = (0..n).map(bit).collect();
                if bits == default { String::new() } else { format!(" {key}:[{}]", all.join(",")) }
            };
            let sources = if n == 3 { "v10, v11, v12" } else { "v10, v11" };
            let text = format!(
                "{name} v20, {sources}{}{}{}{}",
                list("op_sel", low, 0),
                list("op_sel_hi", high, 7),
                list("neg_lo", negate_low, 0),
                list("neg_hi", negate_high, 0)
            );
            let kind = if float { Kind::Halves } else { Kind::Integer };
            cases.push(
                Case::new(
                    &text,
                    each(move |s, l| {
                        let part = |upper: u32, negate: u32| {
                            let value = |i: usize| {
                                let word = s.get(10 + i, l);
                                let half = if upper >> i & 1 == 1 { word >> 16 } else { word & 0xffff };
                                half ^ (negate >> i & 1) << 15
                            };
                            f(value(0), value(1), value(2))
                        };
                        let value = part(low, negate_low) | part(high, negate_high) << 16;
                        s.set(20, l, value);
                    }),
                )
                .kinds(&[kind; 3])
                .equal(if float { Equal::Halves } else { Equal::Bits }),
            );
        }
    }
    /// Of a half, nothing is left: pairs of singles.
    type Pair = (&'static str, usize, fn(u32, u32, u32) -> u32);
    const PAIRS: &[Pair] = &[
        ("v_pk_add_f32", 2, |a, b, _| to_single(single(a) + single(b))),
        ("v_pk_mul_f32", 2, |a, b, _| to_single(single(a) * single(b))),
        ("v_pk_fma_f32", 3, fma),
    ];
    for &(name, n, f) in PAIRS {
        let sources = if n == 3 { "v[10:11], v[12:13], v[14:15]" } else { "v[10:11], v[12:13]" };
        for (modifiers, low, high, negate_low, negate_high) in [
            ("", 0usize, 7usize, 0usize, 0usize),
            (" op_sel_hi:[1,0] ", 0, 5, 0, 0),
            (" op_sel:[1,0]", 1, 7, 0, 0),
            (" neg_lo:[1,0] neg_hi:[0,1]", 0, 7, 1, 2),
        ] {
            let modifiers = if n == 3 {
                modifiers
                    .replace("0]", "0,1]")
                    .replace("neg_lo:[1,0,1]", "neg_lo:[1,0,0]")
                    .replace("neg_hi:[0,1]", "neg_hi:[0,1,0]")
                    .replace("op_sel:[1,0,1]", "op_sel:[1,0,0]")
            } else {
                modifiers.to_owned()
            };
            cases.push(
                Case::new(
                    &format!("{name} v[20:21], {sources}{modifiers}"),
                    each(move |s, l| {
                        let part = |upper: usize, negate: usize| {
                            let value = |i: usize| s.get(10 + 2 * i + (upper >> i & 1), l) ^ ((negate >> i & 1) as u32) << 31;
                            f(value(0), value(1), value(2))
                        };
                        let (a, b) = (part(low, negate_low), part(high, negate_high));
                        s.set(20, l, a);
                        s.set(21, l, b);
                    }),
                )
                .kinds(&[Kind::Single; 6])
                .equal(Equal::Single),
            );
        }
    }
    for (select, a, b) in [("", 10, 13), (" op_sel:[1,0]", 11, 12), (" op_sel:[0,1]", 10, 13)] {
        // Without `op_sel` the assembler means the first words of both: op_sel_hi does not matter.
        let second = if select.ends_with("1]") { b } else { 12 };
        cases.push(Case::new(
            &format!("v_pk_mov_b32 v[20:21], v[10:11], v[12:13]{select}"),
            each(move |s, l| {
                let (low, high) = (s.get(a, l), s.get(second, l));
                s.set(20, l, low);
                s.set(21, l, high);
            }),
        ));
    }
    cases
}
