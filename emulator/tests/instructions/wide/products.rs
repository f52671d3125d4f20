//! Fused products of mixed precision, and dot products.

use super::each;
use crate::soft::{fma, half, single, to_half, to_single};
use crate::state::{Kind, State};
use crate::{Case, Equal};

pub fn cases() -> Vec<Case> {
    let mut cases = mixed();
    cases.extend(dots());
    cases
}

/// Fused multiply-adds of singles and halves.
fn mixed() -> Vec<Case> {
    let mut cases = Vec::new();
    for (halves, upper) in [(0usize, 0usize), (1, 1), (7, 2), (6, 4), (2, 0)] {
        let list = |bits: usize| format!("[{},{},{}]", bits & 1, bits >> 1 & 1, bits >> 2 & 1);
        let modifiers = format!(" op_sel:{} op_sel_hi:{}", list(upper), list(halves));
        let value = move |s: &State, l: usize| {
            let source = |i: usize| {
                let word = s.get(10 + i, l);
                match (halves >> i & 1 == 1, upper >> i & 1 == 1) {
                    (true, true) => to_single(half(word >> 16)),
                    (true, false) => to_single(half(word & 0xffff)),
                    _ => word,
                }
            };
            fma(source(0), source(1) ^ 1 << 31, source(2))
        };
        // Singles whose halves are halves, too.
        let kinds = [0, 1, 2].map(|i| if halves >> i & 1 == 1 { Kind::Halves } else { Kind::Single });
        cases.push(
            Case::new(&format!("v_fma_mix_f32 v20, v10, -v11, v12{modifiers}"), each(move |s, l| s.set(20, l, value(s, l))))
                .kinds(&kinds)
                .equal(Equal::Single),
        );
        for (name, shift) in [("v_fma_mixlo_f16", 0), ("v_fma_mixhi_f16", 16)] {
            cases.push(
                Case::new(
                    &format!("{name} v20, v10, -v11, v12{modifiers}"),
                    each(move |s, l| {
                        let placed = to_half(single(value(s, l))) << shift;
                        let kept = s.get(20, l) & !(0xffff << shift);
                        s.set(20, l, placed | kept);
                    }),
                )
                .kinds(&kinds)
                .equal(Equal::Halves),
            );
        }
    }
    cases
}

fn dots() -> Vec<Case> {
    let bytes = |v: u32, signed: bool| v.to_le_bytes().map(|b| if signed { i64::from(b as i8) } else { i64::from(b) });
    let dot4 = move |a: u32, b: u32, c: u32, x: bool, y: bool| {
        let products = bytes(a, x).into_iter().zip(bytes(b, y)).map(|(a, b)| a * b);
        (products.sum::<i64>() + i64::from(c as i32)) as u32
    };
    let mut cases = Vec::new();
    let mut four = |text: &str, x: bool, y: bool, accumulates: bool| {
        let old_name = text.starts_with("v_dot4_i32_i8");
        cases.push(Case::new(
            text,
            each(move |s, l| {
                let c = s.get(if accumulates { 20 } else { 12 }, l);
                // Later assemblers take the name for `v_dot4_i32_iu8` without signs.
                let signs = !old_name || s.generation() < 11;
                let value = dot4(s.get(10, l), s.get(11, l), c, x && signs, y && signs);
                s.set(20, l, value);
            }),
        ));
    };
    four("v_dot4_i32_i8 v20, v10, v11, v12", true, true, false);
    four("v_dot4_u32_u8 v20, v10, v11, v12", false, false, false);
    four("v_dot4c_i32_i8 v20, v10, v11", true, true, true);
    four("v_dot4c_i32_i8_e32 v20, v10, v11", true, true, true);
    for (text, x, y) in
        [("", false, false), (" neg_lo:[1,0,0]", true, false), (" neg_lo:[0,1,0]", false, true), (" neg_lo:[1,1,0]", true, true)]
    {
        four(&format!("v_dot4_i32_iu8 v20, v10, v11, v12{text}"), x, y, false);
    }
    let nibbles = |v: u32, signed: bool| {
        (0..8).map(|i| i64::from(v >> (4 * i) & 15)).map(|n| if signed && n > 7 { n - 16 } else { n }).collect::<Vec<_>>()
    };
    for (text, signed) in [("v_dot8_i32_i4 v20, v10, v11, v12", true), ("v_dot8_u32_u4 v20, v10, v11, v12", false)] {
        cases.push(Case::new(
            text,
            each(move |s, l| {
                let signed = signed && s.generation() < 11;
                let products = nibbles(s.get(10, l), signed).into_iter().zip(nibbles(s.get(11, l), signed)).map(|(a, b)| a * b);
                let value = products.sum::<i64>() + i64::from(s.get(12, l) as i32);
                s.set(20, l, value as u32);
            }),
        ));
    }
    // Small whole halves: every order of adding them gives the same.
    let whole = |s: &mut State| {
        for l in 0..s.width {
            for r in [10, 11] {
                let word = s.get(r, l);
                let part = |v: u32| to_half(f64::from((v % 64) as i32 - 32));
                s.set(r, l, part(word) | part(word >> 8) << 16);
            }
            let c = to_single(f64::from((s.get(12, l) % 4096) as i32));
            s.set(12, l, c);
            let c = to_single(f64::from((s.get(20, l) % 4096) as i32));
            s.set(20, l, c);
        }
    };
    for (text, c) in [
        ("v_dot2_f32_f16 v20, v10, v11, v12", 12),
        ("v_dot2c_f32_f16 v20, v10, v11", 20),
        ("v_dot2acc_f32_f16 v20, v10, v11", 20),
    ] {
        cases.push(
            Case::new(
                text,
                each(move |s, l| {
                    let product = |shift: u32| half(s.get(10, l) >> shift & 0xffff) * half(s.get(11, l) >> shift & 0xffff);
                    let value = product(0) + product(16) + single(s.get(c, l));
                    s.set(20, l, to_single(value));
                }),
            )
            .prepare(whole),
        );
    }
    cases
}
