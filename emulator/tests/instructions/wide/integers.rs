//! Integers of 64 bits: shifts, moves, products with a sum.

use super::each;
use crate::Case;
use crate::state::{Kind, State};

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new(
            "v_lshlrev_b64 v[20:21], v10, v[12:13]",
            each(|s, l| {
                let value = (u128::from(s.get64(12, l)) << (s.get(10, l) % 64)) as u64;
                s.set64(20, l, value);
            }),
        )
        .kinds(&[Kind::Small]),
        Case::new(
            "v_lshlrev_b64_e32 v[20:21], v10, v[12:13]",
            each(|s, l| {
                let value = (u128::from(s.get64(12, l)) << (s.get(10, l) % 64)) as u64;
                s.set64(20, l, value);
            }),
        )
        .kinds(&[Kind::Small]),
        Case::new(
            "v_lshrrev_b64 v[20:21], v10, v[12:13]",
            each(|s, l| {
                let value = (u128::from(s.get64(12, l)) >> (s.get(10, l) % 64)) as u64;
                s.set64(20, l, value);
            }),
        )
        .kinds(&[Kind::Small]),
        Case::new(
            "v_ashrrev_i64 v[20:21], v10, v[12:13]",
            each(|s, l| {
                let value = (i128::from(s.get64(12, l) as i64) >> (s.get(10, l) % 64)) as u64;
                s.set64(20, l, value);
            }),
        )
        .kinds(&[Kind::Small]),
        Case::new(
            "v_lshl_add_u64 v[20:21], v[10:11], 3, v[14:15]",
            each(|s, l| {
                let value = (u128::from(s.get64(10, l)) * 8 + u128::from(s.get64(14, l))) as u64;
                s.set64(20, l, value);
            }),
        ),
        Case::new("v_mov_b64_e32 v[20:21], v[10:11]", each(|s, l| s.set64(20, l, s.get64(10, l)))),
        Case::new("v_mov_b64_e32 v[20:21], -1", each(|s, l| s.set64(20, l, u64::MAX))),
        Case::new(
            "v_swap_b32 v20, v10",
            each(|s, l| {
                let (a, b) = (s.get(10, l), s.get(20, l));
                s.set(20, l, a);
                s.set(10, l, b);
            }),
        ),
    ];
    for (name, signed) in
        [("v_mad_u64_u32", false), ("v_mad_co_u64_u32", false), ("v_mad_i64_i32", true), ("v_mad_co_i64_i32", true)]
    {
        for register in ["s[12:13]", "s12", "vcc", "null"] {
            let f = move |s: &mut State| {
                let mut carries = 0;
                for l in s.lanes() {
                    let (a, b, c) = (s.get(10, l), s.get(11, l), s.get64(12, l));
                    let sum = if signed {
                        i128::from(a as i32) * i128::from(b as i32) + i128::from(c as i64)
                    } else {
                        i128::from(a) * i128::from(b) + i128::from(c)
                    };
                    let fits = if signed { i64::try_from(sum).is_ok() } else { u64::try_from(sum).is_ok() };
                    carries |= u64::from(!fits) << l;
                    s.set64(20, l, sum as u64);
                }
                match register {
                    "null" => {}
                    "vcc" => s.vcc = carries,
                    _ => s.set_mask(12, carries),
                }
            };
            cases.push(Case::new(&format!("{name} v[20:21], {register}, v10, v11, v[12:13]"), f));
        }
    }
    cases
}
