//! What reads or writes a bit per lane: selections, carries, comparisons.

use super::{short, signed};
use crate::Case;
use crate::soft::{half, single};
use crate::state::{Kind, State};

/// `v_cndmask_b32` in its encodings.
pub fn selections() -> Vec<Case> {
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

/// `v_bitop3_b32`: functions whose tables clang computed.
pub fn truth_tables() -> Vec<Case> {
    type Bitwise = fn(u32, u32, u32) -> u32;
    let functions: [(&str, Bitwise); 7] = [
        (" bitop3:0x30", |a, b, _| a & !b),
        (" bitop3:1", |a, b, c| !(a | b | c)),
        (" bitop3:0x9c", |a, b, c| b ^ (a & !c)),
        (" bitop3:0x6c", |a, b, c| b ^ (a & c)),
        (" bitop3:0xca", |a, b, c| if_set(a, b, c)),
        (" bitop3:0xff", |_, _, _| u32::MAX),
        ("", |_, _, _| 0),
    ];
    let case = |(table, f): (&str, Bitwise)| {
        Case::new(&format!("v_bitop3_b32 v20, v10, v11, v12{table}"), move |s| {
            for l in s.lanes() {
                s.set(20, l, f(s.get(10, l), s.get(11, l), s.get(12, l)));
            }
        })
    };
    functions.into_iter().map(case).collect()
}

/// Bits of `b` where `a` has ones, of `c` elsewhere.
fn if_set(a: u32, b: u32, c: u32) -> u32 {
    (0..32).map(|i| (if a >> i & 1 == 1 { b } else { c }) & 1 << i).sum()
}

/// Additions and subtractions with carries, in and out.
pub fn carries() -> Vec<Case> {
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

/// `v_cmp_*`, `v_cmpx_*`: all relations of all types.
pub fn comparisons() -> Vec<Case> {
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
