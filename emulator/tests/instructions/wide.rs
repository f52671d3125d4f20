//! Values of 64 bits, packed pairs, mixed precision, dot products.

use crate::soft::{fma, half, half_fma, larger, single, smaller, to_half, to_integer, to_single};
use crate::state::{Kind, State};
use crate::{Case, Equal};

/// A function of each active lane.
fn each(f: impl Fn(&mut State, usize) + 'static) -> impl Fn(&mut State) + 'static {
    move |s| s.lanes().into_iter().for_each(|lane| f(s, lane))
}

fn double(bits: u64) -> f64 {
    f64::from_bits(bits)
}

fn doubles() -> Vec<Case> {
    let d2 = |name: &str, f: fn(f64, f64) -> f64| {
        [("", 1.0, false), ("_e64", 1.0, false)]
            .map(|(suffix, ..)| {
                Case::new(
                    &format!("{name}{suffix} v[20:21], v[10:11], v[12:13]"),
                    each(move |s, l| {
                        let value = f(double(s.get64(10, l)), double(s.get64(12, l)));
                        s.set64(20, l, value.to_bits());
                    }),
                )
            })
            .into_iter()
            .chain([Case::new(
                &format!("{name} v[20:21], -v[10:11], |v[12:13]|"),
                each(move |s, l| {
                    let value = f(-double(s.get64(10, l)), double(s.get64(12, l)).abs());
                    s.set64(20, l, value.to_bits());
                }),
            )])
            .map(|c| c.kinds(&[Kind::Double; 8]).equal(Equal::Double))
            .collect::<Vec<_>>()
    };
    let d1 = |name: &str, f: fn(f64) -> f64| {
        Case::new(&format!("{name} v[20:21], v[10:11]"), each(move |s, l| s.set64(20, l, f(double(s.get64(10, l))).to_bits())))
            .kinds(&[Kind::Double; 8])
            .equal(Equal::Double)
    };
    let mut cases = d2("v_add_f64", |a, b| a + b);
    cases.extend(d2("v_mul_f64", |a, b| a * b));
    for name in ["v_max_f64", "v_max_num_f64"] {
        cases.extend(d2(name, larger));
    }
    for name in ["v_min_f64", "v_min_num_f64"] {
        cases.extend(d2(name, smaller));
    }
    cases.extend([
        d1("v_floor_f64", f64::floor),
        d1("v_ceil_f64", f64::ceil),
        d1("v_trunc_f64", f64::trunc),
        d1("v_rndne_f64", f64::round_ties_even),
        d1("v_rcp_f64", |a| 1.0 / a).equal(Equal::NearDouble),
        d1("v_rsq_f64", |a| 1.0 / a.sqrt()).equal(Equal::NearDouble),
        d1("v_sqrt_f64", f64::sqrt).equal(Equal::NearDouble),
        Case::new(
            "v_fma_f64 v[20:21], v[10:11], -v[12:13], v[14:15]",
            each(|s, l| {
                let [a, b, c] = [10, 12, 14].map(|r| double(s.get64(r, l)));
                s.set64(20, l, a.mul_add(-b, c).to_bits());
            }),
        )
        .kinds(&[Kind::Double; 8])
        .equal(Equal::Double),
        Case::new("v_cvt_f64_f32 v[20:21], v10", each(|s, l| s.set64(20, l, single(s.get(10, l)).to_bits())))
            .kinds(&[Kind::Single])
            .equal(Equal::Double),
        Case::new("v_cvt_f64_i32 v[20:21], v10", each(|s, l| s.set64(20, l, f64::from(s.get(10, l) as i32).to_bits()))),
        Case::new("v_cvt_f64_u32 v[20:21], v10", each(|s, l| s.set64(20, l, f64::from(s.get(10, l)).to_bits()))),
        Case::new("v_cvt_f32_f64 v20, v[10:11]", each(|s, l| s.set(20, l, to_single(double(s.get64(10, l))))))
            .kinds(&[Kind::Double; 2])
            .equal(Equal::Single),
        Case::new(
            "v_cvt_i32_f64 v20, v[10:11]",
            each(|s, l| {
                s.set(20, l, to_integer(double(s.get64(10, l)), i32::MIN.into(), i32::MAX.into()) as u32);
            }),
        )
        .kinds(&[Kind::Double; 2]),
        Case::new(
            "v_cvt_u32_f64 v20, v[10:11]",
            each(|s, l| {
                s.set(20, l, to_integer(double(s.get64(10, l)), 0, u32::MAX.into()) as u32);
            }),
        )
        .kinds(&[Kind::Double; 2]),
    ]);
    cases.extend(divisions());
    cases
}

/// Steps of a division of doubles, and whole ones against the host's.
fn divisions() -> Vec<Case> {
    // Nothing extreme: nothing to scale, so the sources come back.
    let plain = |s: &mut State| {
        for lane in 0..s.width {
            for r in [10, 12] {
                let bits = s.get64(r, lane);
                s.set64(r, lane, bits & 0x800f_ffff_ffff_ffff | (900 + bits % 200) << 52);
            }
        }
    };
    let whole = |scale: &str, vcc: &str| {
        format!(
            "v_div_scale_f64 v[20:21], {scale}, v[12:13], v[12:13], v[10:11]
            v_div_scale_f64 v[22:23], {vcc}, v[10:11], v[12:13], v[10:11]
            v_rcp_f64_e32 v[24:25], v[20:21]
            v_fma_f64 v[26:27], -v[20:21], v[24:25], 1.0
            v_fma_f64 v[24:25], v[24:25], v[26:27], v[24:25]
            v_mul_f64 v[26:27], v[22:23], v[24:25]
            v_fma_f64 v[22:23], -v[20:21], v[26:27], v[22:23]
            v_div_fmas_f64 v[22:23], v[22:23], v[24:25], v[26:27]
            v_div_fixup_f64 v[20:21], v[22:23], v[12:13], v[10:11]
            v_mov_b32_e32 v22, 0
            v_mov_b32_e32 v23, 0
            v_mov_b32_e32 v24, 0
            v_mov_b32_e32 v25, 0
            v_mov_b32_e32 v26, 0
            v_mov_b32_e32 v27, 0
            s_mov_b64 s[8:9], 0
            s_mov_b64 vcc, 0"
        )
    };
    let quotient = |s: &mut State| {
        for lane in s.lanes() {
            s.set64(20, lane, (double(s.get64(10, lane)) / double(s.get64(12, lane))).to_bits());
            (22..28).for_each(|r| s.set(r, lane, 0));
        }
        s.set_scalar64(8, 0);
        s.vcc = 0;
    };
    let fmas = |s: &mut State| {
        for lane in s.lanes() {
            let [a, b, c] = [10, 12, 14].map(|r| double(s.get64(r, lane)));
            // 2 to the 128, up for large addends, down for small ones.
            let power = if s.get64(14, lane) >> 52 & 2047 > 1023 { 2f64.powi(128) } else { 2f64.powi(-128) };
            let fused = a.mul_add(b, c);
            s.set64(20, lane, if s.vcc >> lane & 1 == 1 { fused * power } else { fused }.to_bits());
        }
    };
    let fixup = |s: &mut State, lane: usize| {
        let [q, d, n] = [10, 12, 14].map(|r| double(s.get64(r, lane)));
        let (exact, exponent) = (n / d, |v: f64| (v.to_bits() >> 52 & 2047) as i32);
        let special = !d.is_normal() && !d.is_subnormal() || !n.is_normal() && !n.is_subnormal();
        let sign = if d.is_sign_negative() == n.is_sign_negative() { 1.0 } else { -1.0 };
        let value = if special {
            exact
        } else if exponent(n) - exponent(d) < -1075 {
            0.0 * sign
        } else if q.is_nan() {
            f64::INFINITY * sign
        } else {
            q.abs() * sign
        };
        s.set64(20, lane, value.to_bits());
    };
    let doubles = [Kind::Double; 8];
    let accumulate = |s: &mut State, lane: usize| {
        let [a, b, c] = [10, 12, 20].map(|r| double(s.get64(r, lane)));
        s.set64(20, lane, a.mul_add(b, c).to_bits());
    };
    vec![
        Case::new("v_div_fmas_f64 v[20:21], v[10:11], v[12:13], v[14:15]", fmas).kinds(&doubles).equal(Equal::Double),
        Case::new("v_div_fixup_f64 v[20:21], v[10:11], v[12:13], v[14:15]", each(fixup)).kinds(&doubles).equal(Equal::Double),
        Case::new("v_fmac_f64_e32 v[20:21], v[10:11], v[12:13]", each(accumulate)).kinds(&doubles).equal(Equal::Double),
        Case::new(&whole("s[8:9]", "vcc"), quotient).kinds(&doubles).equal(Equal::NearDouble).prepare(plain),
        Case::new(&whole("s8", "vcc_lo"), quotient).kinds(&doubles).equal(Equal::NearDouble).prepare(plain),
    ]
}

fn integers() -> Vec<Case> {
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

/// One operation on both halves of registers; `op_sel` and the like choose and negate.
fn packed() -> Vec<Case> {
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

pub fn cases() -> Vec<Case> {
    let mut cases = doubles();
    cases.extend(integers());
    cases.extend(packed());
    cases.extend(mixed());
    cases.extend(dots());
    cases
}
