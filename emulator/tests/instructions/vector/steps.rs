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
