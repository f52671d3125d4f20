//! Masks out of parts of registers (SDWA) and out of other lanes (DPP).

use crate::Case;
use crate::soft::single;
use crate::state::{Kind, State};
use crate::variants::CONTROLS;

pub fn cases() -> Vec<Case> {
    let mut cases = selected();
    cases.extend(permuted());
    cases
}

/// Carries, selections and comparisons of parts of registers (SDWA), whose text is behind the operands.
fn selected() -> Vec<Case> {
    let mut cases = Vec::new();
    // v10's upper half, v11's byte 2, with and without their signs.
    let plain: fn(&State, usize) -> (u32, u32) = |s, l| (s.get(10, l) >> 16, s.get(11, l) >> 16 & 255);
    let extended: fn(&State, usize) -> (u32, u32) =
        |s, l| ((s.get(10, l) as i32 >> 16) as u32, i32::from((s.get(11, l) >> 16) as u8 as i8) as u32);
    let of_sources = "src0_sel:WORD_1 src1_sel:BYTE_2";
    for (operands, values) in [("v10, v11", plain), ("sext(v10), sext(v11)", extended)] {
        type Less = fn(u32, u32) -> bool;
        for (name, less) in [("lt_u32", (|a, b| a < b) as Less), ("lt_i32", |a, b| (a as i32) < b as i32)] {
            let mask = move |s: &State| {
                s.lanes().into_iter().fold(0u64, |mask, l| {
                    let (a, b) = values(s, l);
                    mask | u64::from(less(a, b)) << l
                })
            };
            for register in ["vcc", "vcc_lo", "s[12:13]", "s12"] {
                let text = format!("v_cmp_{name}_sdwa {register}, {operands} {of_sources}");
                let vcc = register.starts_with("vcc");
                cases.push(Case::new(&text, move |s| if vcc { s.vcc = mask(s) } else { s.set_mask(12, mask(s)) }));
            }
            cases.push(Case::new(&format!("v_cmpx_{name}_sdwa vcc, {operands} {of_sources}"), move |s| {
                s.vcc = mask(s);
                s.exec = s.vcc;
            }));
            cases.push(Case::new(&format!("v_cmpx_{name}_sdwa {operands} {of_sources}"), move |s| s.exec = mask(s)));
        }
        // What is beside the destination's part: cleared, filled with the sign, kept.
        for (select, shift, width) in [("WORD_1", 16, 16), ("BYTE_1", 8, 8), ("DWORD", 0, 32)] {
            for unused in ["UNUSED_PAD", "UNUSED_SEXT", "UNUSED_PRESERVE"] {
                let place = move |value: u32, old: u32| {
                    let mask = (((1u64 << width) - 1) << shift) as u32;
                    let placed = (u64::from(value) << shift) as u32 & mask;
                    let above = (u64::from(u32::MAX) << (shift + width)) as u32;
                    match unused {
                        "UNUSED_PRESERVE" => placed | old & !mask,
                        "UNUSED_SEXT" if value >> (width - 1) & 1 == 1 => placed | above,
                        _ => placed,
                    }
                };
                let of_result = format!("dst_sel:{select} dst_unused:{unused}");
                for vcc in ["vcc", "vcc_lo"] {
                    let text = format!("v_cndmask_b32_sdwa v20, v10, v11, {vcc} {of_result} {of_sources}");
                    if operands == "v10, v11" {
                        cases.push(Case::new(&text, move |s| {
                            for l in s.lanes() {
                                let (a, b) = values(s, l);
                                let value = place(if s.vcc >> l & 1 == 1 { b } else { a }, s.get(20, l));
                                s.set(20, l, value);
                            }
                        }));
                    }
                    type Sum = fn(i64, i64, i64) -> i64;
                    let sums: [(&[&str], Sum); 3] = [
                        (&["v_add_co_u32", "v_addc_co_u32", "v_add_co_ci_u32"], |a, b, c| a + b + c),
                        (&["v_sub_co_u32", "v_subb_co_u32", "v_sub_co_ci_u32"], |a, b, c| a - b - c),
                        (&["v_subrev_co_u32", "v_subbrev_co_u32", "v_subrev_co_ci_u32"], |a, b, c| b - a - c),
                    ];
                    for (names, sum) in sums {
                        for (at, name) in names.iter().enumerate() {
                            let carry = if at == 0 { String::new() } else { format!(", {vcc}") };
                            let text = format!("{name}_sdwa v20, {vcc}, {operands}{carry} {of_result} {of_sources}");
                            cases.push(Case::new(&text, move |s| {
                                let mut carries = 0;
                                for l in s.lanes() {
                                    let ((a, b), c) = (values(s, l), if at == 0 { 0 } else { s.vcc >> l & 1 });
                                    let sum = sum(a.into(), b.into(), c as i64);
                                    carries |= u64::from(!(0..1 << 32).contains(&sum)) << l;
                                    let value = place(sum as u32, s.get(20, l));
                                    s.set(20, l, value);
                                }
                                s.vcc = carries;
                            }));
                        }
                    }
                }
            }
        }
    }
    for case in &mut cases {
        case.name = case.name.replace("_sdwa", "");
    }
    cases
}

/// Comparisons whose first source comes from other lanes.
fn permuted() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut push = |modifiers: &str, masks: (u32, u32), from: fn(usize, usize) -> Option<usize>| {
        // Excluded lanes get 0, and so do those whose source isn't there, as a source.
        let (row, bank) = masks;
        let enabled = move |l: usize| row >> (l / 16) & 1 == 1 && bank >> (l / 4 % 4) & 1 == 1;
        let other = move |s: &State, l: usize| from(l, s.width).filter(|&f| s.active(f)).map_or(0, |f| s.get(10, f));
        type Holds = fn(u32, u32) -> bool;
        let relations: [(&str, &str, Kind, Holds); 4] = [
            ("lt_u32", "v10, v11", Kind::Integer, |a, b| a < b),
            ("ge_i32", "v10, v11", Kind::Integer, |a, b| a as i32 >= b as i32),
            ("neq_f32", "-v10, |v11|", Kind::Single, |a, b| -single(a) != single(b).abs()),
            ("nlt_f32", "|v10|, v11", Kind::Single, |a, b| {
                single(a).abs() >= single(b) || single(a).is_nan() || single(b).is_nan()
            }),
        ];
        for (name, operands, kind, holds) in relations {
            let mask = move |s: &State| {
                s.lanes().into_iter().filter(|&l| enabled(l)).fold(0, |m, l| m | u64::from(holds(other(s, l), s.get(11, l))) << l)
            };
            for register in ["vcc", "vcc_lo", "s[12:13]", "s12"] {
                let text = format!("v_cmp_{name}_e64_dpp {register}, {operands} {modifiers}");
                let vcc = register.starts_with("vcc");
                let case = Case::new(&text, move |s| if vcc { s.vcc = mask(s) } else { s.set_mask(12, mask(s)) });
                cases.push(case.kinds(&[kind; 2]));
            }
            let text = format!("v_cmpx_{name}_e64_dpp {operands} {modifiers}");
            cases.push(Case::new(&text, move |s| s.exec = mask(s)).kinds(&[kind; 2]));
        }
        for vcc in ["vcc", "vcc_lo"] {
            let mask = move |s: &State| {
                s.lanes().into_iter().filter(|&l| enabled(l)).fold(0, |m, l| m | u64::from(other(s, l) == s.get(11, l)) << l)
            };
            cases.push(Case::new(&format!("v_cmp_eq_u32_dpp {vcc}, v10, v11 {modifiers}"), move |s| s.vcc = mask(s)));
        }
    };
    for &(control, from) in CONTROLS {
        push(&format!("{control} row_mask:0xf bank_mask:0xf bound_ctrl:1"), (15, 15), from);
        push(&format!("{control} row_mask:0xa bank_mask:0x6 bound_ctrl:1"), (10, 6), from);
    }
    push("dpp8:[7,6,5,4,3,2,1,0]", (15, 15), |l, _| Some(l ^ 7));
    // Without bound_ctrl it isn't published what a lane without a source gets.
    for control in ["row_shr:1", "row_shl:2"] {
        let text = format!("v_cmp_lt_u32_e64_dpp s12, v10, v11 {control} row_mask:0xf bank_mask:0xf");
        for text in [text.clone(), text.replace("s12", "s[12:13]")] {
            cases.push(Case::lacking(&text, "without bound_ctrl").all_lanes());
        }
    }
    // Where each lane has one it doesn't matter.
    for register in ["s12", "s[12:13]"] {
        let text = format!("v_cmp_lt_u32_e64_dpp {register}, v10, v11 row_mirror row_mask:0xf bank_mask:0xf");
        let less = |s: &mut State| {
            let mask = (0..s.width).fold(0, |mask, l| mask | u64::from(s.get(10, l ^ 15) < s.get(11, l)) << l);
            s.set_mask(12, mask);
        };
        cases.push(Case::new(&text, less).all_lanes());
    }
    for case in &mut cases {
        case.name = case.name.replace("_e64_dpp", "").replace("_dpp", "").replace("cmpx", "cmp");
    }
    cases
}
