//! Divisions step by step, literals, scaling.

use crate::soft::{fma, half, power, single, to_half, to_single};
use crate::state::{Kind, State};
use crate::{Case, Equal};

/// Steps of a division, and whole ones against the host's.
pub fn divisions() -> Vec<Case> {
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

/// Of `v_div_scale_f32`: denominator, numerator, then the denominator and the numerator as they come back, and the flag. Worked out by
/// hand from the definition in the instruction set references (Vega's, where 1/denominator is a single, too).
const SCALED: &[(u32, u32, u32, u32, bool)] = &[
    // 0 on either side: not a number.
    (0x3f80_0000, 0x0000_0000, 0x7fc0_0000, 0x7fc0_0000, false),
    (0x0000_0000, 0x3f80_0000, 0x7fc0_0000, 0x7fc0_0000, false),
    (0x8000_0000, 0x3f80_0000, 0x7fc0_0000, 0x7fc0_0000, false),
    // Exponents that differ by 96: only the denominator is scaled, by 2⁶⁴; by 95: nothing.
    (0x3f80_0000, 0x6f80_0000, 0x5f80_0000, 0x6f80_0000, true),
    (0x3f80_0000, 0x6f00_0000, 0x3f80_0000, 0x6f00_0000, false),
    (0xbf80_0000, 0x6f80_0000, 0xdf80_0000, 0x6f80_0000, true),
    (0x3f80_0000, 0xef80_0000, 0x5f80_0000, 0xef80_0000, true),
    (0x0080_0000, 0x3080_0000, 0x2080_0000, 0x3080_0000, true),
    // A denormal denominator, least and largest: both are scaled by 2⁶⁴, unless the exponents differ too much.
    (0x0000_0001, 0x2b80_0000, 0x1500_0000, 0x4b80_0000, false),
    (0x007f_ffff, 0x2b80_0000, 0x207f_fffe, 0x4b80_0000, false),
    (0x0000_0001, 0x3f80_0000, 0x1500_0000, 0x3f80_0000, true),
    // 1/2¹²⁷ is denormal, and so is the quotient: the denominator alone, which overflows.
    (0x7f00_0000, 0x3f80_0000, 0x7f80_0000, 0x3f80_0000, true),
    // 1/denominator is denormal, the quotient isn't: both by 2⁻⁶⁴. 1/2¹²⁶ is normal, that of its successor isn't.
    (0x7f00_0000, 0x7180_0000, 0x5f00_0000, 0x5180_0000, false),
    (0x7e80_0001, 0x7180_0000, 0x5e80_0001, 0x5180_0000, false),
    (0x7e80_0000, 0x7180_0000, 0x7e80_0000, 0x7180_0000, false),
    // The quotient alone is denormal: the numerator. Least normal, and 0 after rounding: nothing.
    (0x7180_0000, 0x3200_0000, 0x7180_0000, 0x5200_0000, true),
    (0x7180_0000, 0x3280_0000, 0x7180_0000, 0x3280_0000, false),
    (0x7180_0000, 0x2180_0000, 0x7180_0000, 0x2180_0000, false),
    (0x3f80_0000, 0x0000_0001, 0x3f80_0000, 0x1500_0000, true),
    // A tiny numerator, its exponent field 17, 23, 24, 0: both by 2⁶⁴.
    (0x3f80_0000, 0x0880_0000, 0x5f80_0000, 0x2880_0000, false),
    (0x3f80_0000, 0x0b80_0000, 0x5f80_0000, 0x2b80_0000, false),
    (0x3f80_0000, 0x0c00_0000, 0x3f80_0000, 0x0c00_0000, false),
    (0x2180_0000, 0x0000_0001, 0x4180_0000, 0x1500_0000, false),
    // Infinities and what is no number.
    (0x3f80_0000, 0x7f80_0000, 0x5f80_0000, 0x7f80_0000, true),
    (0x7f80_0000, 0x3f80_0000, 0x7f80_0000, 0x3f80_0000, false),
    (0x7fc0_0000, 0x3f80_0000, 0x7fc0_0000, 0x3f80_0000, false),
    (0x4040_0000, 0xc0e0_0000, 0x4040_0000, 0xc0e0_0000, false),
];

/// The same of `v_div_scale_f64`: 768, 2¹²⁸ and 53 in place of 96, 2⁶⁴ and 23.
const SCALED_DOUBLES: &[(u64, u64, u64, u64, bool)] = &[
    (0x3ff0 << 48, 0, 0x7ff8 << 48, 0x7ff8 << 48, false),
    (0x8000 << 48, 0x3ff0 << 48, 0x7ff8 << 48, 0x7ff8 << 48, false),
    (0x3ff0 << 48, 0x6ff0 << 48, 0x47f0 << 48, 0x6ff0 << 48, true),
    (0x3ff0 << 48, 0xeff0 << 48, 0x47f0 << 48, 0xeff0 << 48, true),
    (0x3ff0 << 48, 0x6fe0 << 48, 0x3ff0 << 48, 0x6fe0 << 48, false),
    (1, 0x26f0 << 48, 0x04d0 << 48, 0x2ef0 << 48, false),
    (0x7fe0 << 48, 0x3ff0 << 48, 0x7ff0 << 48, 0x3ff0 << 48, true),
    (0x7fe0 << 48, 0x7830 << 48, 0x77e0 << 48, 0x7030 << 48, false),
    (0x7830 << 48, 0x3840 << 48, 0x7830 << 48, 0x4040 << 48, true),
    (0x7830 << 48, 0x3850 << 48, 0x7830 << 48, 0x3850 << 48, false),
    (0x3ff0 << 48, 0x0350 << 48, 0x47f0 << 48, 0x0b50 << 48, false),
    (0x3ff0 << 48, 0x0360 << 48, 0x3ff0 << 48, 0x0360 << 48, false),
    (0x3ff0 << 48, 0x7ff0 << 48, 0x47f0 << 48, 0x7ff0 << 48, true),
    (0x7ff0 << 48, 0x3ff0 << 48, 0x7ff0 << 48, 0x3ff0 << 48, false),
    (0x7ff8 << 48, 0x3ff0 << 48, 0x7ff8 << 48, 0x3ff0 << 48, false),
];

/// Every row of the tables in a lane of its own.
pub fn scaling() -> Vec<Case> {
    let mut cases = Vec::new();
    for numerator in [false, true] {
        let own = if numerator { 12 } else { 11 };
        let own_pair = if numerator { "v[14:15]" } else { "v[12:13]" };
        for mask in ["s12", "s[12:13]"] {
            cases.push(
                Case::new(&format!("v_div_scale_f32 v20, {mask}, v{own}, v11, v12"), move |s| {
                    let mut flags = 0;
                    for lane in s.lanes() {
                        let (_, _, d, n, flag) = SCALED[lane % SCALED.len()];
                        s.set(20, lane, if numerator { n } else { d });
                        flags |= u64::from(flag) << lane;
                    }
                    s.set_mask(12, flags);
                })
                .equal(Equal::Single)
                .prepare(|s| {
                    for lane in 0..s.width {
                        s.set(11, lane, SCALED[lane % SCALED.len()].0);
                        s.set(12, lane, SCALED[lane % SCALED.len()].1);
                    }
                })
                .all_lanes(),
            );
            cases.push(
                Case::new(&format!("v_div_scale_f64 v[20:21], {mask}, {own_pair}, v[12:13], v[14:15]"), move |s| {
                    let mut flags = 0;
                    for lane in s.lanes() {
                        let (_, _, d, n, flag) = SCALED_DOUBLES[lane % SCALED_DOUBLES.len()];
                        s.set64(20, lane, if numerator { n } else { d });
                        flags |= u64::from(flag) << lane;
                    }
                    s.set_mask(12, flags);
                })
                .equal(Equal::Double)
                .prepare(|s| {
                    for lane in 0..s.width {
                        s.set64(12, lane, SCALED_DOUBLES[lane % SCALED_DOUBLES.len()].0);
                        s.set64(14, lane, SCALED_DOUBLES[lane % SCALED_DOUBLES.len()].1);
                    }
                })
                .all_lanes(),
            );
        }
    }
    cases
}

/// Literal multiplicands and addends, scaling by powers of two.
pub fn literals() -> Vec<Case> {
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
