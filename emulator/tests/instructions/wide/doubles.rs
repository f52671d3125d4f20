//! Doubles: arithmetic, conversions, the steps of a division.

use super::each;
use crate::soft::{larger, single, smaller, to_integer, to_single};
use crate::state::{Kind, State};
use crate::{Case, Equal};

fn double(bits: u64) -> f64 {
    f64::from_bits(bits)
}

pub fn cases() -> Vec<Case> {
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
