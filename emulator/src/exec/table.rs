//! Vector operations that treat each lane alone, by name.
//!
//! Sources: the RDNA 2, RDNA 3, RDNA 4, Vega and CDNA 3 instruction set references.

use super::float::*;
use super::lane::*;
use super::source::Kind;
use Kind::{F16, F32, U16, U32};

fn sign16(value: u32) -> i32 {
    i32::from((value as u16).cast_signed())
}

fn sign24(value: u32) -> i32 {
    (value << 8).cast_signed() >> 8
}

fn saturate16(value: i32) -> u32 {
    value.clamp(-32768, 32767).cast_unsigned()
}

/// Shift and width of a bit field.
fn field(value: u32, offset: u32, width: u32) -> u32 {
    let (offset, width) = (offset & 31, width & 31);
    if width == 0 { 0 } else { value >> offset & ((1 << width) - 1) }
}

fn signed_field(value: u32, offset: u32, width: u32) -> u32 {
    let (offset, width) = (offset & 31, width & 31);
    if width == 0 {
        return 0;
    }
    // A field that reaches beyond bit 31 is filled up with the sign.
    let shifted = value.cast_signed() >> offset;
    (shifted << (32 - width) >> (32 - width)).cast_unsigned()
}

/// Any function of three bits, for each of the 32: bit `4a + 2b + c` of the table. Source: `v_bitop3_b32` in the CDNA 4 reference.
pub(crate) fn truth_table<const W: usize>(table: u32) -> Lanewise<W> {
    u3(move |a, b, c| {
        let term = |row: u32| {
            let of = |value: u32, bit: u32| if row >> bit & 1 == 1 { value } else { !value };
            if table >> row & 1 == 1 { of(a, 2) & of(b, 1) & of(c, 0) } else { 0 }
        };
        (0..8).fold(0, |sum, row| sum | term(row))
    })
}

/// A byte of each of two words: `v_perm_b32`.
pub(crate) fn permute_bytes(high: u32, low: u32, selector: u32) -> u32 {
    let both = u64::from(high) << 32 | u64::from(low);
    let byte = |select: u32| match select {
        0..8 => (both >> (8 * select)) as u32 & 0xff,
        // The sign of one of the four words, spread.
        8..12 => (both >> (16 * (select - 8) + 15) & 1) as u32 * 0xff,
        12 => 0,
        _ => 0xff,
    };
    (0..4).map(|i| byte(selector >> (8 * i) & 0xff) << (8 * i)).sum()
}

fn leading_zeros(value: u32) -> u32 {
    if value == 0 { u32::MAX } else { value.leading_zeros() }
}

fn trailing_zeros(value: u32) -> u32 {
    if value == 0 { u32::MAX } else { value.trailing_zeros() }
}

/// Leading bits that equal the sign; −1 if all do.
fn leading_signs(value: u32) -> u32 {
    let flipped = if value >> 31 == 1 { !value } else { value };
    leading_zeros(flipped)
}

fn middle<T: Ord + Copy>(a: T, b: T, c: T) -> T {
    a.max(b).min(a.min(b).max(c))
}

fn sum_of_differences(a: u32, b: u32, c: u32) -> u32 {
    a.to_le_bytes().iter().zip(b.to_le_bytes()).fold(c, |sum, (x, y)| sum.wrapping_add(u32::from(x.abs_diff(y))))
}

/// `sin` and `cos` take turns (multiples of 2π).
fn turns(value: f32, f: impl Fn(f64) -> f64) -> f32 {
    let turn = f64::from(flush(value));
    if turn.is_finite() { f(turn.fract() * std::f64::consts::TAU) as f32 } else { f32::NAN }
}

fn mantissa(value: f32) -> f32 {
    if value == 0.0 || !value.is_finite() { value } else { scale(value, -exponent_of(value)) }
}

/// Such that the magnitude divided by 2^this is in [½, 1).
fn exponent_of(value: f32) -> i32 {
    if value == 0.0 || !value.is_finite() {
        return 0;
    }
    // The double of a denormal is normal.
    ((f64::from(value).to_bits() >> 52 & 0x7ff) as i32) - 1022
}

fn convert_normalised(value: f32, largest: f32) -> i32 {
    if value.is_nan() { 0 } else { (value.clamp(-1.0, 1.0) * largest).round_ties_even() as i32 }
}

/// The operation of a name, if it is one of these.
pub(crate) fn find<const W: usize>(name: &str) -> Option<Lanewise<W>> {
    integer(name).or_else(|| single(name)).or_else(|| conversion(name)).or_else(|| short(name))
}

/// The same with a result that stops at the ends of its range: `clamp` of an integer operation.
pub(crate) fn saturating<const W: usize>(name: &str) -> Option<Lanewise<W>> {
    Some(match name {
        "v_add_nc_u32" => u2(u32::saturating_add),
        "v_sub_nc_u32" => u2(u32::saturating_sub),
        "v_subrev_nc_u32" => u2(|a, b| b.saturating_sub(a)),
        "v_add_nc_i32" => i2(i32::saturating_add),
        "v_sub_nc_i32" => i2(i32::saturating_sub),
        "v_add_nc_u16" => s2(|a, b| (a + b).min(0xffff)),
        "v_sub_nc_u16" => s2(u32::saturating_sub),
        "v_add_nc_i16" => s2(|a, b| saturate16(sign16(a) + sign16(b))),
        "v_sub_nc_i16" => s2(|a, b| saturate16(sign16(a) - sign16(b))),
        "v_mad_u32_u24" => u3(|a, b, c| {
            let sum = u64::from(a & 0xff_ffff) * u64::from(b & 0xff_ffff) + u64::from(c);
            sum.min(u32::MAX.into()) as u32
        }),
        _ => return None,
    })
}

fn integer<const W: usize>(name: &str) -> Option<Lanewise<W>> {
    Some(match name {
        "v_mov_b32" | "v_accvgpr_read_b32" | "v_accvgpr_write_b32" | "v_accvgpr_mov_b32" => u1(|a| a),
        "v_not_b32" => u1(|a| !a),
        "v_bfrev_b32" => u1(u32::reverse_bits),
        "v_clz_i32_u32" => u1(leading_zeros),
        "v_ctz_i32_b32" => u1(trailing_zeros),
        "v_cls_i32" => u1(leading_signs),
        "v_and_b32" => u2(|a, b| a & b),
        "v_or_b32" => u2(|a, b| a | b),
        "v_xor_b32" => u2(|a, b| a ^ b),
        "v_xnor_b32" => u2(|a, b| !(a ^ b)),
        "v_add_nc_u32" => u2(u32::wrapping_add),
        "v_sub_nc_u32" => u2(u32::wrapping_sub),
        "v_subrev_nc_u32" => u2(|a, b| b.wrapping_sub(a)),
        "v_add_nc_i32" => i2(i32::wrapping_add),
        "v_sub_nc_i32" => i2(i32::wrapping_sub),
        "v_lshlrev_b32" => u2(|a, b| b << (a & 31)),
        "v_lshrrev_b32" => u2(|a, b| b >> (a & 31)),
        "v_ashrrev_i32" => u2(|a, b| (b.cast_signed() >> (a & 31)).cast_unsigned()),
        "v_min_u32" => u2(u32::min),
        "v_max_u32" => u2(u32::max),
        "v_min_i32" => i2(i32::min),
        "v_max_i32" => i2(i32::max),
        "v_mul_lo_u32" => u2(u32::wrapping_mul),
        "v_mul_hi_u32" => u2(|a, b| ((u64::from(a) * u64::from(b)) >> 32) as u32),
        "v_mul_hi_i32" => i2(|a, b| ((i64::from(a) * i64::from(b)) >> 32) as i32),
        "v_mul_u32_u24" => u2(|a, b| (a & 0xff_ffff).wrapping_mul(b & 0xff_ffff)),
        "v_mul_i32_i24" => u2(|a, b| sign24(a).wrapping_mul(sign24(b)).cast_unsigned()),
        "v_mul_hi_u32_u24" => u2(|a, b| ((u64::from(a & 0xff_ffff) * u64::from(b & 0xff_ffff)) >> 32) as u32),
        "v_mul_hi_i32_i24" => u2(|a, b| ((i64::from(sign24(a)) * i64::from(sign24(b))) >> 32) as u32),
        "v_mad_u32_u24" => u3(|a, b, c| (a & 0xff_ffff).wrapping_mul(b & 0xff_ffff).wrapping_add(c)),
        "v_mad_i32_i24" => u3(|a, b, c| sign24(a).wrapping_mul(sign24(b)).cast_unsigned().wrapping_add(c)),
        "v_add3_u32" => u3(|a, b, c| a.wrapping_add(b).wrapping_add(c)),
        "v_and_or_b32" => u3(|a, b, c| a & b | c),
        "v_or3_b32" => u3(|a, b, c| a | b | c),
        "v_xor3_b32" => u3(|a, b, c| a ^ b ^ c),
        "v_xad_u32" => u3(|a, b, c| (a ^ b).wrapping_add(c)),
        "v_lshl_or_b32" => u3(|a, b, c| a << (b & 31) | c),
        "v_lshl_add_u32" => u3(|a, b, c| (a << (b & 31)).wrapping_add(c)),
        "v_add_lshl_u32" => u3(|a, b, c| a.wrapping_add(b) << (c & 31)),
        "v_bfe_u32" => u3(field),
        "v_bfe_i32" => u3(signed_field),
        "v_bfi_b32" => u3(|a, b, c| a & b | !a & c),
        "v_bfm_b32" => u2(|a, b| ((1u32 << (a & 31)) - 1) << (b & 31)),
        "v_bcnt_u32_b32" => u2(|a, b| a.count_ones().wrapping_add(b)),
        "v_perm_b32" => u3(permute_bytes),
        "v_alignbit_b32" => u3(|a, b, c| ((u64::from(a) << 32 | u64::from(b)) >> (c & 31)) as u32),
        "v_alignbyte_b32" => u3(|a, b, c| ((u64::from(a) << 32 | u64::from(b)) >> (8 * (c & 3))) as u32),
        "v_sad_u8" => u3(sum_of_differences),
        "v_sad_u32" => u3(|a, b, c| a.abs_diff(b).wrapping_add(c)),
        "v_min3_u32" => u3(|a, b, c| a.min(b).min(c)),
        "v_max3_u32" => u3(|a, b, c| a.max(b).max(c)),
        "v_med3_u32" => u3(middle),
        "v_min3_i32" => i3(|a, b, c| a.min(b).min(c)),
        "v_max3_i32" => i3(|a, b, c| a.max(b).max(c)),
        "v_med3_i32" => i3(middle),
        "v_maxmin_u32" => u3(|a, b, c| a.max(b).min(c)),
        "v_minmax_u32" => u3(|a, b, c| a.min(b).max(c)),
        "v_maxmin_i32" => i3(|a, b, c| a.max(b).min(c)),
        "v_minmax_i32" => i3(|a, b, c| a.min(b).max(c)),
        _ => return None,
    })
}

fn single<const W: usize>(name: &str) -> Option<Lanewise<W>> {
    let fused = || Lanewise::new(&[F32; 3], F32, Box::new(|s: &[&[u32; W]; 3], out| fused(s[0], s[1], s[2], out)));
    Some(match name {
        "v_add_f32" => f2(|a, b| a + b),
        "v_sub_f32" => f2(|a, b| a - b),
        "v_subrev_f32" => f2(|a, b| b - a),
        "v_mul_f32" => f2(|a, b| a * b),
        "v_mul_legacy_f32" | "v_mul_dx9_zero_f32" => f2(|a, b| if a == 0.0 || b == 0.0 { 0.0 } else { a * b }),
        "v_fma_f32" | "v_fmaak_f32" | "v_fmamk_f32" => fused(),
        "v_fmac_f32" => fused().accumulating(),
        // Not fused: rounds the product.
        "v_mad_f32" | "v_madak_f32" | "v_madmk_f32" => f3(|a, b, c| flush(flush(flush(a) * flush(b)) + flush(c))),
        "v_mac_f32" => f3(|a, b, c| flush(flush(flush(a) * flush(b)) + flush(c))).accumulating(),
        "v_min_f32" => f2(minimum),
        "v_max_f32" => f2(maximum),
        "v_min3_f32" => f3(|a, b, c| minimum(minimum(a, b), c)),
        "v_max3_f32" => f3(|a, b, c| maximum(maximum(a, b), c)),
        "v_med3_f32" => f3(median),
        "v_maxmin_f32" => f3(|a, b, c| minimum(maximum(a, b), c)),
        "v_minmax_f32" => f3(|a, b, c| maximum(minimum(a, b), c)),
        "v_rcp_f32" | "v_rcp_iflag_f32" => f1(|a| approximate(a, |x| 1.0 / x)),
        "v_rsq_f32" => f1(|a| approximate(a, |x| 1.0 / x.sqrt())),
        "v_sqrt_f32" => f1(|a| approximate(a, f64::sqrt)),
        "v_exp_f32" => f1(|a| approximate(a, f64::exp2)),
        "v_log_f32" => f1(|a| approximate(a, f64::log2)),
        "v_sin_f32" => f1(|a| turns(a, f64::sin)),
        "v_cos_f32" => f1(|a| turns(a, f64::cos)),
        "v_floor_f32" => f1(f32::floor),
        "v_ceil_f32" => f1(f32::ceil),
        "v_trunc_f32" => f1(f32::trunc),
        "v_rndne_f32" => f1(f32::round_ties_even),
        "v_fract_f32" => f1(|a| if a.is_finite() { (a - a.floor()).min(1.0f32.next_down()) } else { f32::NAN }),
        "v_frexp_mant_f32" => f1(mantissa),
        "v_frexp_exp_i32_f32" => typed(&[F32], U32, u1(|a| exponent_of(f32::from_bits(a)).cast_unsigned())),
        "v_ldexp_f32" => typed(&[F32, U32], F32, u2(|a, b| scale(f32::from_bits(a), b.cast_signed()).to_bits())),
        "v_div_fixup_f32" => f3(div_fixup),
        _ => return None,
    })
}

fn conversion<const W: usize>(name: &str) -> Option<Lanewise<W>> {
    let float = |f: fn(u32) -> f32| typed(&[U32], F32, u1(move |a| f(a).to_bits()));
    let integer = |f: fn(f32) -> u32| typed(&[F32], U32, u1(move |a| f(f32::from_bits(a))));
    let packed =
        |f: fn(f32) -> u32| typed(&[F32; 2], U32, u2(move |a, b| f(f32::from_bits(a)) & 0xffff | f(f32::from_bits(b)) << 16));
    Some(match name {
        "v_cvt_f32_u32" => float(|a| a as f32),
        "v_cvt_f32_i32" => float(|a| a.cast_signed() as f32),
        "v_cvt_f32_ubyte0" => float(|a| (a & 0xff) as f32),
        "v_cvt_f32_ubyte1" => float(|a| (a >> 8 & 0xff) as f32),
        "v_cvt_f32_ubyte2" => float(|a| (a >> 16 & 0xff) as f32),
        "v_cvt_f32_ubyte3" => float(|a| (a >> 24) as f32),
        "v_cvt_u32_f32" => integer(to_u32),
        "v_cvt_i32_f32" => integer(to_i32),
        "v_cvt_rpi_i32_f32" | "v_cvt_nearest_i32_f32" => integer(|a| to_i32((f64::from(a) + 0.5).floor() as f32)),
        "v_cvt_flr_i32_f32" | "v_cvt_floor_i32_f32" => integer(|a| to_i32(a.floor())),
        "v_cvt_f16_f32" => typed(&[F32], F16, u1(|a| to_half(f32::from_bits(a)))),
        "v_cvt_f32_f16" => typed(&[F16], F32, u1(|a| from_half(a).to_bits())),
        "v_cvt_f16_u16" => typed(&[U16], F16, u1(|a| to_half((a & 0xffff) as f32))),
        "v_cvt_f16_i16" => typed(&[U16], F16, u1(|a| to_half(sign16(a) as f32))),
        "v_cvt_u16_f16" => typed(&[F16], U16, u1(|a| (from_half(a) as u16).into())),
        "v_cvt_i16_f16" => typed(&[F16], U16, u1(|a| u32::from((from_half(a) as i16).cast_unsigned()))),
        "v_cvt_pk_rtz_f16_f32" => packed(to_half_towards_zero),
        "v_cvt_pk_bf16_f32" => packed(to_bfloat),
        "v_cvt_pk_f16_f32" => packed(to_half),
        "v_cvt_f32_bf16" => typed(&[U16], F32, u1(|a| from_bfloat(a).to_bits())),
        "v_cvt_pknorm_i16_f32" | "v_cvt_pk_norm_i16_f32" => packed(|a| convert_normalised(a, 32767.0).cast_unsigned()),
        "v_cvt_pknorm_u16_f32" | "v_cvt_pk_norm_u16_f32" => packed(|a| convert_normalised(a.max(0.0), 65535.0).cast_unsigned()),
        "v_cvt_pk_u16_u32" => u2(|a, b| a.min(0xffff) | b.min(0xffff) << 16),
        "v_cvt_pk_i16_i32" => u2(|a, b| saturate16(a.cast_signed()) & 0xffff | saturate16(b.cast_signed()) << 16),
        "v_pack_b32_f16" => typed(&[F16; 2], U32, u2(|a, b| a & 0xffff | b << 16)),
        "v_cvt_pk_u8_f32" => typed(
            &[F32, U32, U32],
            U32,
            u3(|a, b, c| {
                let shift = 8 * (b & 3);
                let byte = f32::from_bits(a).round_ties_even() as u8;
                c & !(0xff << shift) | u32::from(byte) << shift
            }),
        ),
        _ => return None,
    })
}

fn short<const W: usize>(name: &str) -> Option<Lanewise<W>> {
    let half_fma = || {
        let wide = |h| f64::from(from_half(h));
        typed(&[F16; 3], F16, u3(move |a, b, c| half_fused(wide(a), wide(b), wide(c))))
    };
    Some(match name {
        "v_mov_b16" => typed(&[U16], U16, u1(|a| a)),
        "v_not_b16" => typed(&[U16], U16, u1(|a| !a)),
        "v_and_b16" => s2(|a, b| a & b),
        "v_or_b16" => s2(|a, b| a | b),
        "v_xor_b16" => s2(|a, b| a ^ b),
        "v_add_nc_u16" | "v_add_nc_i16" => s2(u32::wrapping_add),
        "v_sub_nc_u16" | "v_sub_nc_i16" => s2(u32::wrapping_sub),
        "v_subrev_nc_u16" | "v_subrev_u16" => s2(|a, b| b.wrapping_sub(a)),
        "v_mul_lo_u16" => s2(u32::wrapping_mul),
        "v_mad_u16" => s3(|a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        "v_lshlrev_b16" => s2(|a, b| b << (a & 15)),
        "v_lshrrev_b16" => s2(|a, b| b >> (a & 15)),
        "v_ashrrev_i16" => s2(|a, b| (sign16(b) >> (a & 15)).cast_unsigned()),
        "v_min_u16" => s2(u32::min),
        "v_max_u16" => s2(u32::max),
        "v_min_i16" => s2(|a, b| sign16(a).min(sign16(b)).cast_unsigned()),
        "v_max_i16" => s2(|a, b| sign16(a).max(sign16(b)).cast_unsigned()),
        "v_min3_u16" => s3(|a, b, c| a.min(b).min(c)),
        "v_max3_u16" => s3(|a, b, c| a.max(b).max(c)),
        "v_med3_u16" => s3(middle),
        "v_min3_i16" => s3(|a, b, c| sign16(a).min(sign16(b)).min(sign16(c)).cast_unsigned()),
        "v_max3_i16" => s3(|a, b, c| sign16(a).max(sign16(b)).max(sign16(c)).cast_unsigned()),
        "v_med3_i16" => s3(|a, b, c| middle(sign16(a), sign16(b), sign16(c)).cast_unsigned()),
        "v_mad_u32_u16" => typed(&[U16, U16, U32], U32, u3(|a, b, c| (a & 0xffff).wrapping_mul(b & 0xffff).wrapping_add(c))),
        "v_mad_i32_i16" => {
            let f = |a, b, c: u32| sign16(a).wrapping_mul(sign16(b)).cast_unsigned().wrapping_add(c);
            typed(&[U16, U16, U32], U32, u3(f))
        }
        "v_add_f16" => h2(|a, b| a + b),
        "v_sub_f16" => h2(|a, b| a - b),
        "v_subrev_f16" => h2(|a, b| b - a),
        "v_mul_f16" => h2(|a, b| a * b),
        "v_min_f16" => h2(minimum),
        "v_max_f16" => h2(maximum),
        "v_fma_f16" | "v_fmaak_f16" | "v_fmamk_f16" => half_fma(),
        "v_fmac_f16" => half_fma().accumulating(),
        "v_rcp_f16" => h1(|a| 1.0 / a),
        "v_rsq_f16" => h1(|a| (1.0 / f64::from(a).sqrt()) as f32),
        "v_sqrt_f16" => h1(f32::sqrt),
        "v_exp_f16" => h1(|a| f64::from(a).exp2() as f32),
        "v_log_f16" => h1(|a| f64::from(a).log2() as f32),
        "v_floor_f16" => h1(f32::floor),
        "v_ceil_f16" => h1(f32::ceil),
        "v_trunc_f16" => h1(f32::trunc),
        "v_rndne_f16" => h1(f32::round_ties_even),
        "v_ldexp_f16" => typed(&[F16, U16], F16, u2(|a, b| half_from_f64(f64::from(from_half(a)) * f64::from(sign16(b)).exp2()))),
        "v_max3_f16" => h3(|a, b, c| f64::from(maximum(maximum(a as f32, b as f32), c as f32))),
        "v_min3_f16" => h3(|a, b, c| f64::from(minimum(minimum(a as f32, b as f32), c as f32))),
        "v_med3_f16" => h3(|a, b, c| f64::from(median(a as f32, b as f32, c as f32))),
        _ => return None,
    })
}
