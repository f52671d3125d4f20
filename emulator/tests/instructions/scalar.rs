//! Scalar instructions, branches, masks, waits.

use crate::soft::{fma, single, to_integer, to_single};
use crate::state::{Kind, State};
use crate::{Case, Equal};

fn signed(v: u32) -> i128 {
    i128::from(v as i32)
}

fn fits(v: i128) -> bool {
    i32::try_from(v).is_ok()
}

/// Of two words and scc: the result and scc.
type Two = fn(u32, u32, bool) -> (u32, bool);
type Two64 = fn(u64, u64, bool) -> (u64, bool);

fn two(names: &[&str], kind: Kind, f: Two) -> Vec<Case> {
    let run = move |a: usize, b: Option<u32>| {
        move |s: &mut State| {
            let b = b.unwrap_or_else(|| s.scalar(9));
            let (value, scc) = f(s.scalar(a), b, s.scc);
            s.set_scalar(12, value);
            s.scc = scc;
        }
    };
    let forms = |name: &&str| {
        [
            Case::new(&format!("{name} s12, s8, s9"), run(8, None)).scalars(kind),
            Case::new(&format!("{name} s12, s8, 0x12345"), run(8, Some(0x12345))).scalars(kind),
            Case::new(&format!("{name} s12, s12, -7"), run(12, Some(-7i32 as u32))).scalars(kind),
        ]
    };
    names.iter().flat_map(forms).collect()
}

fn two64(names: &[&str], f: Two64) -> Vec<Case> {
    let run = move |b: Option<u64>| {
        move |s: &mut State| {
            let (value, scc) = f(s.scalar64(8), b.unwrap_or_else(|| s.scalar64(10)), s.scc);
            s.set_scalar64(12, value);
            s.scc = scc;
        }
    };
    let forms = |name: &&str| {
        [
            Case::new(&format!("{name} s[12:13], s[8:9], s[10:11]"), run(None)),
            Case::new(&format!("{name} s[12:13], s[8:9], -7"), run(Some(-7i64 as u64))),
        ]
    };
    names.iter().flat_map(forms).collect()
}

/// 64 bits moved by a number of 32.
fn shift64(name: &str, f: fn(i128, u32) -> i128, is_signed: bool) -> Case {
    Case::new(&format!("{name} s[12:13], s[8:9], s10"), move |s| {
        let value = s.scalar64(8);
        let value = if is_signed { i128::from(value as i64) } else { i128::from(value) };
        let result = f(value, s.scalar(10) % 64) as u64;
        s.set_scalar64(12, result);
        s.scc = result != 0;
    })
    .prepare(|s| {
        let small = s.scalar(10) % 80;
        s.set_scalar(10, small);
    })
}

fn one(name: &str, f: fn(u32) -> (u32, Option<bool>)) -> Case {
    Case::new(&format!("{name} s12, s8"), move |s| {
        let (value, scc) = f(s.scalar(8));
        s.set_scalar(12, value);
        s.scc = scc.unwrap_or(s.scc);
    })
}

fn arithmetic() -> Vec<Case> {
    use Kind::{Integer, Small};
    let mut cases = Vec::new();
    cases.extend(two(&["s_add_u32", "s_add_co_u32"], Integer, |a, b, _| {
        let sum = u64::from(a) + u64::from(b);
        (sum as u32, sum > u64::from(u32::MAX))
    }));
    cases.extend(two(&["s_sub_u32", "s_sub_co_u32"], Integer, |a, b, _| ((i64::from(a) - i64::from(b)) as u32, b > a)));
    cases.extend(two(&["s_add_i32", "s_add_co_i32"], Integer, |a, b, _| {
        ((signed(a) + signed(b)) as u32, !fits(signed(a) + signed(b)))
    }));
    cases.extend(two(&["s_sub_i32", "s_sub_co_i32"], Integer, |a, b, _| {
        ((signed(a) - signed(b)) as u32, !fits(signed(a) - signed(b)))
    }));
    cases.extend(two(&["s_addc_u32", "s_add_co_ci_u32"], Integer, |a, b, c| {
        let sum = i128::from(a) + i128::from(b) + i128::from(c);
        (sum as u32, sum >= 1 << 32)
    }));
    cases.extend(two(&["s_subb_u32", "s_sub_co_ci_u32"], Integer, |a, b, c| {
        let difference = i128::from(a) - i128::from(b) - i128::from(c);
        (difference as u32, difference < 0)
    }));
    cases.extend(two(&["s_mul_i32"], Integer, |a, b, c| ((signed(a) * signed(b)) as u32, c)));
    cases.extend(two(&["s_mul_hi_u32"], Integer, |a, b, c| (((u128::from(a) * u128::from(b)) >> 32) as u32, c)));
    cases.extend(two(&["s_mul_hi_i32"], Integer, |a, b, c| (((signed(a) * signed(b)) >> 32) as u32, c)));
    for (n, name) in (1..5).zip(["s_lshl1_add_u32", "s_lshl2_add_u32", "s_lshl3_add_u32", "s_lshl4_add_u32"]) {
        let f: Two = match n {
            1 => |a, b, _| ((u64::from(a) * 2 + u64::from(b)) as u32, u64::from(a) * 2 + u64::from(b) > 0xffff_ffff),
            2 => |a, b, _| ((u64::from(a) * 4 + u64::from(b)) as u32, u64::from(a) * 4 + u64::from(b) > 0xffff_ffff),
            3 => |a, b, _| ((u64::from(a) * 8 + u64::from(b)) as u32, u64::from(a) * 8 + u64::from(b) > 0xffff_ffff),
            _ => |a, b, _| ((u64::from(a) * 16 + u64::from(b)) as u32, u64::from(a) * 16 + u64::from(b) > 0xffff_ffff),
        };
        cases.extend(two(&[name], Integer, f));
    }
    cases.extend(two(&["s_and_b32"], Integer, |a, b, _| (!(!a | !b), !(!a | !b) != 0)));
    cases.extend(two(&["s_or_b32"], Integer, |a, b, _| (!(!a & !b), a != 0 || b != 0)));
    cases.extend(two(&["s_xor_b32"], Integer, |a, b, _| ((a | b) - (a & b), a != b)));
    cases.extend(two(&["s_andn2_b32", "s_and_not1_b32"], Integer, |a, b, _| (a - (a & b), a != a & b)));
    cases.extend(two(&["s_orn2_b32", "s_or_not1_b32"], Integer, |a, b, _| (!(!a & b), !(!a & b) != 0)));
    cases.extend(two(&["s_nand_b32"], Integer, |a, b, _| (!a | !b, !a | !b != 0)));
    cases.extend(two(&["s_nor_b32"], Integer, |a, b, _| (!a & !b, !a & !b != 0)));
    cases.extend(two(&["s_xnor_b32"], Integer, |a, b, _| (!((a | b) - (a & b)), a != !b)));
    cases.extend(two(&["s_lshl_b32"], Small, |a, b, _| {
        let v = (u64::from(a) * (1 << (b % 32))) as u32;
        (v, v != 0)
    }));
    cases.extend(two(&["s_lshr_b32"], Small, |a, b, _| {
        let v = (u64::from(a) / (1 << (b % 32))) as u32;
        (v, v != 0)
    }));
    cases.extend(two(&["s_ashr_i32"], Small, |a, b, _| {
        let v = signed(a).div_euclid(1 << (b % 32)) as u32;
        (v, v != 0)
    }));
    cases.extend(two(&["s_min_u32"], Integer, |a, b, _| if a < b { (a, true) } else { (b, false) }));
    cases.extend(two(&["s_max_u32"], Integer, |a, b, _| if a > b { (a, true) } else { (b, false) }));
    cases.extend(two(&["s_min_i32"], Integer, |a, b, _| if signed(a) < signed(b) { (a, true) } else { (b, false) }));
    cases.extend(two(&["s_max_i32"], Integer, |a, b, _| if signed(a) > signed(b) { (a, true) } else { (b, false) }));
    cases.extend(two(&["s_absdiff_i32"], Integer, |a, b, _| {
        // The difference wraps, as its magnitude does.
        let v = ((signed(a) - signed(b)) as u32 as i32).unsigned_abs();
        (v, v != 0)
    }));
    cases.extend(two(&["s_cselect_b32"], Integer, |a, b, c| (if c { a } else { b }, c)));
    cases.extend(two(&["s_pack_ll_b32_b16"], Integer, |a, b, c| (a % 65536 + b % 65536 * 65536, c)));
    cases.extend(two(&["s_pack_lh_b32_b16"], Integer, |a, b, c| (a % 65536 + b / 65536 * 65536, c)));
    cases.extend(two(&["s_pack_hh_b32_b16"], Integer, |a, b, c| (a / 65536 + b / 65536 * 65536, c)));
    cases.extend(two(&["s_bfm_b32"], Small, |a, b, c| ((((1u64 << (a % 32)) - 1) << (b % 32)) as u32, c)));
    // Offset in bits 0 to 4, width in 16 to 22: fields that are empty, whole, and beyond the end.
    let fields = |s: &mut State| {
        let of = |v: u32| (v % 40) | (v / 7 % 70) << 16;
        for r in [9, 10] {
            let field = of(s.scalar(r));
            s.set_scalar(r, field);
        }
    };
    let field = |value: i128, b: u32, offset_bits: u32, bits: u32, is_signed: bool| {
        let (offset, width) = (b % (1 << offset_bits), (b >> 16) % 128);
        let width = width.min(bits - offset);
        let part = (value >> offset) & ((1 << width) - 1);
        if is_signed && width > 0 && part >> (width - 1) & 1 == 1 { part - (1 << width) } else { part }
    };
    for (name, is_signed) in [("s_bfe_u32", false), ("s_bfe_i32", true)] {
        let f = move |s: &mut State| {
            let value = field(s.scalar(8).into(), s.scalar(9), 5, 32, is_signed) as u32;
            s.set_scalar(12, value);
            s.scc = value != 0;
        };
        cases.push(Case::new(&format!("{name} s12, s8, s9"), f).prepare(fields));
    }
    for (name, is_signed) in [("s_bfe_u64", false), ("s_bfe_i64", true)] {
        let f = move |s: &mut State| {
            let value = field(s.scalar64(8).into(), s.scalar(10), 6, 64, is_signed) as u64;
            s.set_scalar64(12, value);
            s.scc = value != 0;
        };
        cases.push(Case::new(&format!("{name} s[12:13], s[8:9], s10"), f).prepare(fields));
    }
    cases
}

fn wide() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(two64(&["s_and_b64"], |a, b, _| (!(!a | !b), !(!a | !b) != 0)));
    cases.extend(two64(&["s_or_b64"], |a, b, _| (!(!a & !b), !(!a & !b) != 0)));
    cases.extend(two64(&["s_xor_b64"], |a, b, _| ((a | b) - (a & b), a != b)));
    cases.extend(two64(&["s_andn2_b64", "s_and_not1_b64"], |a, b, _| (a - (a & b), a != a & b)));
    cases.extend(two64(&["s_orn2_b64", "s_or_not1_b64"], |a, b, _| (!(!a & b), !(!a & b) != 0)));
    cases.extend(two64(&["s_nor_b64"], |a, b, _| (!a & !b, !a & !b != 0)));
    cases.extend(two64(&["s_cselect_b64"], |a, b, c| (if c { a } else { b }, c)));
    cases.extend(two64(&["s_add_nc_u64"], |a, b, c| ((u128::from(a) + u128::from(b)) as u64, c)));
    cases.extend(two64(&["s_sub_nc_u64"], |a, b, c| ((i128::from(a) - i128::from(b)) as u64, c)));
    cases.extend(two64(&["s_mul_u64"], |a, b, c| ((u128::from(a) * u128::from(b)) as u64, c)));
    cases.push(shift64("s_lshl_b64", |v, n| v << n, false));
    cases.push(shift64("s_lshr_b64", |v, n| v >> n, false));
    cases.push(shift64("s_ashr_i64", |v, n| v >> n, true));
    cases.push(Case::new("s_mov_b64 s[12:13], s[8:9]", |s| s.set_scalar64(12, s.scalar64(8))));
    cases.push(Case::new("s_mov_b64 s[12:13], -5", |s| s.set_scalar64(12, -5i64 as u64)));
    cases.push(Case::new("s_not_b64 s[12:13], s[8:9]", |s| {
        let value = u64::MAX - s.scalar64(8);
        s.set_scalar64(12, value);
        s.scc = value != 0;
    }));
    cases.push(Case::new("s_bcnt1_i32_b64 s12, s[8:9]", |s| {
        let count = (0..64).filter(|i| s.scalar64(8) >> i & 1 == 1).count() as u32;
        s.set_scalar(12, count);
        s.scc = count != 0;
    }));
    for name in ["s_ff1_i32_b64", "s_ctz_i32_b64"] {
        cases.push(Case::new(&format!("{name} s12, s[8:9]"), |s| {
            let at = (0..64).find(|i| s.scalar64(8) >> i & 1 == 1).unwrap_or(u32::MAX);
            s.set_scalar(12, at);
        }));
    }
    for name in ["s_flbit_i32_b64", "s_clz_i32_u64"] {
        cases.push(Case::new(&format!("{name} s12, s[8:9]"), |s| {
            let at = (0..64).find(|i| s.scalar64(8) >> (63 - i) & 1 == 1).unwrap_or(u32::MAX);
            s.set_scalar(12, at);
        }));
    }
    cases
}

fn unary() -> Vec<Case> {
    let mut cases = vec![
        one("s_mov_b32", |a| (a, None)),
        one("s_not_b32", |a| (u32::MAX - a, Some(a != u32::MAX))),
        one("s_brev_b32", |a| ((0..32).map(|i| (a >> i & 1) << (31 - i)).sum(), None)),
        one("s_bcnt1_i32_b32", |a| ((0..32).map(|i| a >> i & 1).sum(), Some(a != 0))),
        one("s_bcnt0_i32_b32", |a| ((0..32).map(|i| !a >> i & 1).sum(), Some(a != u32::MAX))),
        one("s_abs_i32", |a| (signed(a).unsigned_abs() as u32, Some(a != 0))),
        one("s_sext_i32_i8", |a| (if a % 256 >= 128 { (a % 256) | 0xffff_ff00 } else { a % 256 }, None)),
        one("s_sext_i32_i16", |a| (if a % 65536 >= 32768 { (a % 65536) | 0xffff_0000 } else { a % 65536 }, None)),
        Case::new("s_mov_b32 s12, 0x89abcdef", |s| s.set_scalar(12, 0x89ab_cdef)),
        Case::new("s_movk_i32 s12, 0x8001", |s| s.set_scalar(12, 0xffff_8001)),
        Case::new("s_mulk_i32 s12, 0xfffe", |s| s.set_scalar(12, (signed(s.scalar(12)) * -2) as u32)),
        Case::new("s_cmov_b32 s12, s8", |s| {
            if s.scc {
                s.set_scalar(12, s.scalar(8))
            }
        }),
        Case::new("s_bitset1_b32 s12, s8", |s| s.set_scalar(12, s.scalar(12) | 1 << (s.scalar(8) % 32))),
        Case::new("s_bitset0_b32 s12, s8", |s| s.set_scalar(12, s.scalar(12) & !(1 << (s.scalar(8) % 32)))),
    ];
    for name in ["s_ff1_i32_b32", "s_ctz_i32_b32"] {
        cases.push(one(name, |a| ((0..32).find(|i| a >> i & 1 == 1).unwrap_or(u32::MAX), None)));
    }
    for name in ["s_flbit_i32_b32", "s_clz_i32_u32"] {
        cases.push(one(name, |a| ((0..32).find(|i| a >> (31 - i) & 1 == 1).unwrap_or(u32::MAX), None)));
    }
    for name in ["s_addk_i32", "s_addk_co_i32"] {
        cases.push(Case::new(&format!("{name} s12, 0xff00"), |s| {
            let sum = signed(s.scalar(12)) - 256;
            s.set_scalar(12, sum as u32);
            s.scc = !fits(sum);
        }));
    }
    cases
}

fn floats() -> Vec<Case> {
    let f2 = |name: &str, f: fn(f64, f64) -> f64| {
        Case::new(&format!("{name} s12, s8, s9"), move |s| {
            s.set_scalar(12, to_single(f(single(s.scalar(8)), single(s.scalar(9)))))
        })
        .scalars(Kind::Single)
        .equal(Equal::Single)
    };
    vec![
        f2("s_add_f32", |a, b| a + b),
        f2("s_sub_f32", |a, b| a - b),
        f2("s_mul_f32", |a, b| a * b),
        Case::new("s_fmac_f32 s12, s8, s9", |s| s.set_scalar(12, fma(s.scalar(8), s.scalar(9), s.scalar(12))))
            .scalars(Kind::Single)
            .equal(Equal::Single),
        Case::new("s_fmaak_f32 s12, s8, s9, 0x40490fdb", |s| s.set_scalar(12, fma(s.scalar(8), s.scalar(9), 0x4049_0fdb)))
            .scalars(Kind::Single)
            .equal(Equal::Single),
        Case::new("s_cvt_f32_u32 s12, s8", |s| s.set_scalar(12, to_single(f64::from(s.scalar(8))))),
        Case::new("s_cvt_f32_i32 s12, s8", |s| s.set_scalar(12, to_single(f64::from(s.scalar(8) as i32)))),
        Case::new("s_cvt_u32_f32 s12, s8", |s| s.set_scalar(12, to_integer(single(s.scalar(8)), 0, u32::MAX.into()) as u32))
            .scalars(Kind::Single),
        Case::new("s_cvt_i32_f32 s12, s8", |s| {
            s.set_scalar(12, to_integer(single(s.scalar(8)), i32::MIN.into(), i32::MAX.into()) as u32);
        })
        .scalars(Kind::Single),
        Case::new("v_s_sqrt_f32 s12, s8", |s| s.set_scalar(12, to_single(crate::soft::flushed(single(s.scalar(8))).sqrt())))
            .scalars(Kind::Single)
            .equal(Equal::NearSingle),
    ]
}

fn comparisons() -> Vec<Case> {
    let mut cases = Vec::new();
    // Of less, equal, greater.
    type Holds = fn(bool, bool, bool) -> bool;
    const RELATIONS: [(&str, Holds); 6] = [
        ("eq", |_, e, _| e),
        ("lg", |l, _, g| l || g),
        ("gt", |_, _, g| g),
        ("ge", |_, e, g| g || e),
        ("lt", |l, _, _| l),
        ("le", |l, e, _| l || e),
    ];
    for (relation, holds) in RELATIONS {
        cases.push(Case::new(&format!("s_cmp_{relation}_u32 s8, s9"), move |s| {
            let (a, b) = (s.scalar(8), s.scalar(9));
            s.scc = holds(a < b, a == b, a > b);
        }));
        cases.push(Case::new(&format!("s_cmp_{relation}_i32 s8, s9"), move |s| {
            let (a, b) = (signed(s.scalar(8)), signed(s.scalar(9)));
            s.scc = holds(a < b, a == b, a > b);
        }));
        let float = move |s: &mut State| {
            let (a, b) = (single(s.scalar(8)), single(s.scalar(9)));
            s.scc = holds(a < b, a == b, a > b);
        };
        cases.push(Case::new(&format!("s_cmp_{relation}_f32 s8, s9"), float).scalars(Kind::Single));
        // The negated ones hold between unordered numbers, too.
        let negated = move |s: &mut State| {
            let (a, b) = (single(s.scalar(8)), single(s.scalar(9)));
            s.scc = !holds(a < b, a == b, a > b);
        };
        let name = if relation == "eq" { "neq".to_owned() } else { format!("n{relation}") };
        cases.push(Case::new(&format!("s_cmp_{name}_f32 s8, s9"), negated).scalars(Kind::Single));
        cases.push(Case::new(&format!("s_cmpk_{relation}_u32 s8, 0x8000"), move |s| {
            let (a, b) = (s.scalar(8), 0x8000);
            s.scc = holds(a < b, a == b, a > b);
        }));
        cases.push(Case::new(&format!("s_cmpk_{relation}_i32 s8, 0x8000"), move |s| {
            let (a, b) = (signed(s.scalar(8)), -0x8000);
            s.scc = holds(a < b, a == b, a > b);
        }));
    }
    for (relation, equal) in [("eq", true), ("lg", false)] {
        let same = |s: &mut State| {
            if s.scalar(12).is_multiple_of(2) {
                s.set_scalar64(10, s.scalar64(8));
            }
        };
        let f = move |s: &mut State| s.scc = (s.scalar64(8) == s.scalar64(10)) == equal;
        cases.push(Case::new(&format!("s_cmp_{relation}_u64 s[8:9], s[10:11]"), f).prepare(same));
    }
    for (name, wanted) in [("s_bitcmp0_b32", 0), ("s_bitcmp1_b32", 1)] {
        cases.push(Case::new(&format!("{name} s8, s9"), move |s| s.scc = s.scalar(8) >> (s.scalar(9) % 32) & 1 == wanted));
    }
    cases
}

fn masks() -> Vec<Case> {
    // Of the source and exec.
    type Mask = fn(u64, u64) -> u64;
    const FUNCTIONS: [(&str, Mask); 8] = [
        ("and", |a, e| a & e),
        ("or", |a, e| a | e),
        ("xor", |a, e| a ^ e),
        ("andn2", |a, e| a & !e),
        ("and_not1", |a, e| a & !e),
        ("orn2", |a, e| a | !e),
        ("andn1", |a, e| !a & e),
        ("nand", |a, e| !(a & e)),
    ];
    let mut cases = Vec::new();
    for (name, f) in FUNCTIONS {
        cases.push(Case::new(&format!("s_{name}_saveexec_b64 s[12:13], s[8:9]"), move |s| {
            // In waves of 32 lanes the upper half of exec is 0 here.
            let old = s.exec;
            s.exec = f(s.scalar64(8), old);
            s.set_scalar64(12, old);
            s.scc = s.exec != 0;
        }));
        cases.push(Case::new(&format!("s_{name}_saveexec_b32 s12, s8"), move |s| {
            let old = s.exec;
            s.exec = old & !0xffff_ffff | f(s.scalar(8).into(), old & 0xffff_ffff) & 0xffff_ffff;
            s.set_scalar(12, old as u32);
            s.scc = s.exec & 0xffff_ffff != 0;
        }));
    }
    cases
}

/// Branches: a move is jumped over, or not.
fn branches() -> Vec<Case> {
    type Taken = fn(&State) -> bool;
    const CONDITIONS: [(&str, Taken); 7] = [
        ("s_branch", |_| true),
        ("s_cbranch_scc0", |s| !s.scc),
        ("s_cbranch_scc1", |s| s.scc),
        ("s_cbranch_vccz", |s| s.vcc == 0),
        ("s_cbranch_vccnz", |s| s.vcc != 0),
        ("s_cbranch_execz", |s| s.exec == 0),
        ("s_cbranch_execnz", |s| s.exec != 0),
    ];
    let prepare = |s: &mut State| {
        let dice = s.scalar(8) ^ s.memory32(0);
        if dice.is_multiple_of(3) {
            s.vcc = 0;
        }
        if dice % 5 < 2 {
            s.exec = 0;
        }
    };
    let forward = |name: &str, taken: Taken| {
        Case::new(&format!("{name} .Lover{{n}}\ns_mov_b32 s12, 7\n.Lover{{n}}:\ns_mov_b32 s13, 8"), move |s: &mut State| {
            if !taken(s) {
                s.set_scalar(12, 7);
            }
            s.set_scalar(13, 8);
        })
        .prepare(prepare)
    };
    let mut cases: Vec<Case> = CONDITIONS.iter().map(|&(name, taken)| forward(name, taken)).collect();
    // A loop: 5 + 4 + … + 1.
    cases.push(Case::new(
        "s_mov_b32 s12, 0\ns_movk_i32 s13, 0x5\n.Lagain{n}:\ns_lshl1_add_u32 s12, s13, s12\ns_addk_i32 s13, 0xffff\ns_cmp_lg_u32 s13, 0\ns_cbranch_scc1 .Lagain{n}",
        |s| {
            s.set_scalar(12, 30);
            s.set_scalar(13, 0);
            s.scc = false;
        },
    ));
    cases
}

/// Waits and hints change nothing.
fn nothing() -> Vec<Case> {
    [
        "s_nop 3",
        "s_waitcnt vmcnt(0) lgkmcnt(0)",
        "s_waitcnt_vscnt null, 0x0",
        "s_waitcnt_depctr 0xfffd",
        "s_wait_alu 0xfffd",
        "s_wait_loadcnt 0x0",
        "s_wait_storecnt 0x0",
        "s_wait_dscnt 0x0",
        "s_wait_kmcnt 0x0",
        "s_wait_loadcnt_dscnt 0x0",
        "s_wait_storecnt_dscnt 0x0",
        "s_clause 0x0\ns_nop 0",
        "s_delay_alu instid0(VALU_DEP_1)",
        "s_inst_prefetch 0x1",
        "s_set_inst_prefetch_distance 0x1",
        "s_setprio 1",
        "s_sleep 1",
        "s_barrier",
        "s_barrier_signal -1\ns_barrier_wait 0xffff",
        "buffer_gl0_inv",
        "buffer_gl1_inv",
        "buffer_wbinvl1_vol",
        "buffer_inv sc1",
        "buffer_wbl2 sc1",
        "global_inv scope:SCOPE_DEV",
        "global_wb scope:SCOPE_DEV",
    ]
    .iter()
    .map(|text| Case::new(text, |_| {}))
    .chain([
        // What stands behind the end isn't reached.
        Case::new(
            "s_cbranch_execz .Lout{n}\ns_branch .Lout{n}\ns_sendmsg sendmsg(MSG_DEALLOC_VGPRS)\ns_endpgm\n.Lout{n}:",
            |_| {},
        ),
        Case::new("s_branch .Lout{n}\ns_endpgm\n.Lout{n}:", |_| {}),
    ])
    .collect()
}

pub fn cases() -> Vec<Case> {
    let mut cases = arithmetic();
    cases.extend(wide());
    cases.extend(unary());
    cases.extend(floats());
    cases.extend(comparisons());
    cases.extend(masks());
    cases.extend(branches());
    cases.extend(nothing());
    cases
}
