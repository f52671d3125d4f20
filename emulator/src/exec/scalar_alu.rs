//! Scalar arithmetic and logic.

use super::compare::Relation;
use super::float::{from_half, maximum, minimum, to_half, to_i32, to_u32};
use super::scalar::{Value, target};
use super::{Kind, Lack, Run};
use crate::instruction::Operation;
use crate::wave::Flow;

/// Result and, where it is written, the new condition code, of two sources and the old one.
type Narrow = fn(u32, u32, bool) -> (u32, Option<bool>);
type Wide = fn(u64, u64, bool) -> (u64, Option<bool>);

fn set(value: u32) -> (u32, Option<bool>) {
    (value, Some(value != 0))
}

fn set64(value: u64) -> (u64, Option<bool>) {
    (value, Some(value != 0))
}

/// Overflow of a signed sum.
fn add_signed(a: u32, b: u32) -> (u32, Option<bool>) {
    let (sum, overflow) = a.cast_signed().overflowing_add(b.cast_signed());
    (sum.cast_unsigned(), Some(overflow))
}

fn subtract_signed(a: u32, b: u32) -> (u32, Option<bool>) {
    let (difference, overflow) = a.cast_signed().overflowing_sub(b.cast_signed());
    (difference.cast_unsigned(), Some(overflow))
}

fn shift_add(a: u32, shift: u32, b: u32) -> (u32, Option<bool>) {
    let sum = (u64::from(a) << shift) + u64::from(b);
    (sum as u32, Some(sum >> 32 != 0))
}

fn field(value: u64, offset: u32, width: u32, bits: u32) -> u64 {
    let width = width.min(bits);
    let value = if offset >= bits { 0 } else { value >> offset };
    if width >= 64 { value } else { value & ((1 << width) - 1) }
}

fn signed_field(value: u64, offset: u32, width: u32, bits: u32) -> u64 {
    let width = width.min(bits.saturating_sub(offset));
    if width == 0 {
        return 0;
    }
    let up = field(value, offset, width, bits) << (64 - width);
    (up.cast_signed() >> (64 - width)).cast_unsigned()
}

/// Which of a scalar's bit groups aren't 0: whole groups of four.
fn whole_quads(value: u64) -> u64 {
    (0..16).map(|q| if value >> (4 * q) & 15 != 0 { 15 << (4 * q) } else { 0 }).sum()
}

fn narrow(name: &str) -> Option<Narrow> {
    Some(match name {
        "s_add_u32" => |a, b, _| {
            let (sum, carry) = a.overflowing_add(b);
            (sum, Some(carry))
        },
        "s_sub_u32" => |a, b, _| {
            let (difference, borrow) = a.overflowing_sub(b);
            (difference, Some(borrow))
        },
        "s_add_i32" => |a, b, _| add_signed(a, b),
        "s_sub_i32" => |a, b, _| subtract_signed(a, b),
        "s_addc_u32" => |a, b, c| {
            let sum = u64::from(a) + u64::from(b) + u64::from(c);
            (sum as u32, Some(sum >> 32 != 0))
        },
        "s_subb_u32" => |a, b, c| {
            let difference = i64::from(a) - i64::from(b) - i64::from(c);
            (difference as u32, Some(difference < 0))
        },
        "s_mul_i32" => |a, b, _| (a.wrapping_mul(b), None),
        "s_mul_hi_u32" => |a, b, _| (((u64::from(a) * u64::from(b)) >> 32) as u32, None),
        "s_mul_hi_i32" => |a, b, _| (((i64::from(a.cast_signed()) * i64::from(b.cast_signed())) >> 32) as u32, None),
        "s_lshl1_add_u32" => |a, b, _| shift_add(a, 1, b),
        "s_lshl2_add_u32" => |a, b, _| shift_add(a, 2, b),
        "s_lshl3_add_u32" => |a, b, _| shift_add(a, 3, b),
        "s_lshl4_add_u32" => |a, b, _| shift_add(a, 4, b),
        "s_and_b32" => |a, b, _| set(a & b),
        "s_or_b32" => |a, b, _| set(a | b),
        "s_xor_b32" => |a, b, _| set(a ^ b),
        "s_nand_b32" => |a, b, _| set(!(a & b)),
        "s_nor_b32" => |a, b, _| set(!(a | b)),
        "s_xnor_b32" => |a, b, _| set(!(a ^ b)),
        "s_and_not1_b32" => |a, b, _| set(a & !b),
        "s_or_not1_b32" => |a, b, _| set(a | !b),
        "s_lshl_b32" => |a, b, _| set(a << (b & 31)),
        "s_lshr_b32" => |a, b, _| set(a >> (b & 31)),
        "s_ashr_i32" => |a, b, _| set((a.cast_signed() >> (b & 31)).cast_unsigned()),
        "s_min_u32" => |a, b, _| (a.min(b), Some(a < b)),
        "s_max_u32" => |a, b, _| (a.max(b), Some(a > b)),
        "s_min_i32" => |a, b, _| (a.cast_signed().min(b.cast_signed()).cast_unsigned(), Some(a.cast_signed() < b.cast_signed())),
        "s_max_i32" => |a, b, _| (a.cast_signed().max(b.cast_signed()).cast_unsigned(), Some(a.cast_signed() > b.cast_signed())),
        "s_absdiff_i32" => |a, b, _| set(a.wrapping_sub(b).cast_signed().unsigned_abs()),
        "s_bfe_u32" => |a, b, _| set(field(a.into(), b & 31, b >> 16 & 127, 32) as u32),
        "s_bfe_i32" => |a, b, _| set(signed_field(a.into(), b & 31, b >> 16 & 127, 32) as u32),
        "s_bfm_b32" => |a, b, _| (((1u32 << (a & 31)) - 1) << (b & 31), None),
        "s_pack_ll_b32_b16" => |a, b, _| (a & 0xffff | b << 16, None),
        "s_pack_lh_b32_b16" => |a, b, _| (a & 0xffff | b & 0xffff_0000, None),
        "s_pack_hl_b32_b16" => |a, b, _| (a >> 16 | b << 16, None),
        "s_pack_hh_b32_b16" => |a, b, _| (a >> 16 | b & 0xffff_0000, None),
        "s_cselect_b32" => |a, b, c| (if c { a } else { b }, None),
        "s_mov_b32" | "s_movk_i32" => |a, _, _| (a, None),
        "s_not_b32" => |a, _, _| set(!a),
        "s_brev_b32" => |a, _, _| (a.reverse_bits(), None),
        "s_bcnt0_i32_b32" => |a, _, _| set(a.count_zeros()),
        "s_bcnt1_i32_b32" => |a, _, _| set(a.count_ones()),
        "s_ctz_i32_b32" => |a, _, _| (if a == 0 { u32::MAX } else { a.trailing_zeros() }, None),
        "s_clz_i32_u32" => |a, _, _| (if a == 0 { u32::MAX } else { a.leading_zeros() }, None),
        "s_sext_i32_i8" => |a, _, _| (i32::from((a as u8).cast_signed()).cast_unsigned(), None),
        "s_sext_i32_i16" => |a, _, _| (i32::from((a as u16).cast_signed()).cast_unsigned(), None),
        "s_abs_i32" => |a, _, _| set(a.cast_signed().unsigned_abs()),
        "s_wqm_b32" => |a, _, _| set(whole_quads(a.into()) as u32),
        _ => return float(name),
    })
}

/// Single and half precision in scalar registers: gfx1150 and later.
fn float(name: &str) -> Option<Narrow> {
    fn f(bits: u32) -> f32 {
        f32::from_bits(bits)
    }
    fn h(bits: u32) -> f32 {
        from_half(bits & 0xffff)
    }
    Some(match name {
        "s_add_f32" => |a, b, _| ((f(a) + f(b)).to_bits(), None),
        "s_sub_f32" => |a, b, _| ((f(a) - f(b)).to_bits(), None),
        "s_mul_f32" => |a, b, _| ((f(a) * f(b)).to_bits(), None),
        "s_max_f32" => |a, b, _| (maximum(f(a), f(b)).to_bits(), None),
        "s_min_f32" => |a, b, _| (minimum(f(a), f(b)).to_bits(), None),
        "s_cvt_f32_f16" => |a, _, _| (h(a).to_bits(), None),
        "s_cvt_hi_f32_f16" => |a, _, _| (h(a >> 16).to_bits(), None),
        "s_cvt_f16_f32" => |a, _, _| (to_half(f(a)), None),
        "s_add_f16" => |a, b, _| (to_half(h(a) + h(b)), None),
        "s_sub_f16" => |a, b, _| (to_half(h(a) - h(b)), None),
        "s_mul_f16" => |a, b, _| (to_half(h(a) * h(b)), None),
        "s_max_f16" => |a, b, _| (to_half(maximum(h(a), h(b))), None),
        "s_min_f16" => |a, b, _| (to_half(minimum(h(a), h(b))), None),
        "s_cvt_f32_u32" => |a, _, _| ((a as f32).to_bits(), None),
        "s_cvt_f32_i32" => |a, _, _| ((a.cast_signed() as f32).to_bits(), None),
        "s_cvt_u32_f32" => |a, _, _| (to_u32(f(a)), None),
        "s_cvt_i32_f32" => |a, _, _| (to_i32(f(a)), None),
        "s_ceil_f32" => |a, _, _| (f(a).ceil().to_bits(), None),
        "s_floor_f32" => |a, _, _| (f(a).floor().to_bits(), None),
        "s_trunc_f32" => |a, _, _| (f(a).trunc().to_bits(), None),
        "s_rndne_f32" => |a, _, _| (f(a).round_ties_even().to_bits(), None),
        _ => return None,
    })
}

fn wide(name: &str) -> Option<Wide> {
    Some(match name {
        "s_add_nc_u64" => |a, b, _| (a.wrapping_add(b), None),
        "s_sub_nc_u64" => |a, b, _| (a.wrapping_sub(b), None),
        "s_mul_u64" => |a, b, _| (a.wrapping_mul(b), None),
        "s_and_b64" => |a, b, _| set64(a & b),
        "s_or_b64" => |a, b, _| set64(a | b),
        "s_xor_b64" => |a, b, _| set64(a ^ b),
        "s_nand_b64" => |a, b, _| set64(!(a & b)),
        "s_nor_b64" => |a, b, _| set64(!(a | b)),
        "s_xnor_b64" => |a, b, _| set64(!(a ^ b)),
        "s_and_not1_b64" => |a, b, _| set64(a & !b),
        "s_or_not1_b64" => |a, b, _| set64(a | !b),
        "s_lshl_b64" => |a, b, _| set64(a << (b & 63)),
        "s_lshr_b64" => |a, b, _| set64(a >> (b & 63)),
        "s_ashr_i64" => |a, b, _| set64((a.cast_signed() >> (b & 63)).cast_unsigned()),
        "s_bfe_u64" => |a, b, _| set64(field(a, b as u32 & 63, (b >> 16) as u32 & 127, 64)),
        "s_bfe_i64" => |a, b, _| set64(signed_field(a, b as u32 & 63, (b >> 16) as u32 & 127, 64)),
        "s_bfm_b64" => |a, b, _| (((1u64 << (a & 63)) - 1) << (b & 63), None),
        "s_cselect_b64" => |a, b, c| (if c { a } else { b }, None),
        "s_mov_b64" => |a, _, _| (a, None),
        "s_not_b64" => |a, _, _| set64(!a),
        "s_brev_b64" => |a, _, _| (a.reverse_bits(), None),
        "s_wqm_b64" => |a, _, _| set64(whole_quads(a)),
        _ => return None,
    })
}

/// 64-bit sources, 32-bit result.
fn shrinking(name: &str) -> Option<Wide> {
    Some(match name {
        "s_bcnt0_i32_b64" => |a, _, _| set64(a.count_zeros().into()),
        "s_bcnt1_i32_b64" => |a, _, _| set64(a.count_ones().into()),
        "s_ctz_i32_b64" => |a, _, _| (if a == 0 { u64::MAX } else { a.trailing_zeros().into() }, None),
        "s_clz_i32_u64" => |a, _, _| (if a == 0 { u64::MAX } else { a.leading_zeros().into() }, None),
        _ => return None,
    })
}

/// Whether the second source of a 64-bit operation is a 32-bit number (shifts, fields).
fn second_is_narrow(name: &str) -> bool {
    ["s_lshl_b64", "s_lshr_b64", "s_ashr_i64", "s_bfe_u64", "s_bfe_i64", "s_bfm_b64"].contains(&name)
}

/// A comparison of 64-bit patterns.
type Comparison = Box<dyn Fn(u64, u64) -> bool + Send + Sync>;

/// Of a name, and whether its sources have 64 bits.
fn comparison(name: &str) -> Option<(Comparison, bool)> {
    match name {
        "s_bitcmp0_b32" => return Some((Box::new(|a, b| a >> (b & 31) & 1 == 0), false)),
        "s_bitcmp1_b32" => return Some((Box::new(|a, b| a >> (b & 31) & 1 == 1), false)),
        _ => {}
    }
    let (relation, of) = name.strip_prefix("s_cmp_").or_else(|| name.strip_prefix("s_cmpk_"))?.split_once('_')?;
    let relation = Relation::find(relation)?;
    let signed = |v: u64| (v as u32).cast_signed();
    let single = |v: u64| f32::from_bits(v as u32);
    Some(match of {
        "i32" => (Box::new(move |a, b| relation.holds(&signed(a), &signed(b))), false),
        "u32" => (Box::new(move |a, b| relation.holds(&(a as u32), &(b as u32))), false),
        "u64" => (Box::new(move |a, b| relation.holds(&a, &b)), true),
        "f32" => (Box::new(move |a, b| relation.holds(&single(a), &single(b))), false),
        "f16" => (Box::new(move |a, b| relation.holds(&from_half(a as u32 & 0xffff), &from_half(b as u32 & 0xffff))), false),
        _ => return None,
    })
}

/// The sign-extended immediate of `s_movk`, `s_addk`, `s_mulk`, `s_cmpk_*_i32`; `s_cmpk_*_u32` takes it unsigned.
fn immediate(value: Value, signed: bool) -> Value {
    match value {
        Value::Constant(c) if signed => Value::Constant(i64::from((c as u16).cast_signed()).cast_unsigned()),
        Value::Constant(c) => Value::Constant(c & 0xffff),
        other => other,
    }
}

pub(crate) fn build<const W: usize>(operation: &Operation) -> Result<Run<W>, Lack> {
    let name = operation.name.as_str();
    if let Some(word) = operation.words.first() {
        return Err(format!("operand {word}"));
    }
    let operands = &operation.operands;
    // The last word of a conversion's name is what it reads.
    let kind = match name.rsplit_once('_') {
        Some((_, "f32")) => Kind::F32,
        Some((_, "f16")) => Kind::F16,
        _ => Kind::U32,
    };
    if let Some((holds, wide)) = comparison(name) {
        let kind = if wide { Kind::U64 } else { kind };
        let (a, mut b) = (Value::new(operands.first(), kind)?, Value::new(operands.get(1), kind)?);
        if name.starts_with("s_cmpk_") {
            b = immediate(b, name.ends_with("i32"));
        }
        return Ok(Box::new(move |wave, _| {
            wave.scc = if wide { holds(a.get64(wave), b.get64(wave)) } else { holds(a.get32(wave).into(), b.get32(wave).into()) };
            Flow::Next
        }));
    }
    let target = target(operation)?;
    match name {
        // The destination is a source.
        "s_addk_i32" | "s_mulk_i32" | "s_cmovk_i32" | "s_cmov_b32" => {
            let source = Value::new(operands.get(1), Kind::U32)?;
            let source = if name == "s_cmov_b32" { source } else { immediate(source, true) };
            let f: Narrow = match name {
                "s_addk_i32" => |a, b, _| add_signed(a, b),
                "s_mulk_i32" => |a, b, _| (a.wrapping_mul(b), None),
                _ => |a, b, c| (if c { b } else { a }, None),
            };
            return Ok(Box::new(move |wave, _| {
                let (value, scc) = f(wave.scalars[usize::from(target)], source.get32(wave), wave.scc);
                wave.set_scalar(target, value);
                wave.scc = scc.unwrap_or(wave.scc);
                Flow::Next
            }));
        }
        "s_fmac_f32" | "s_fmaak_f32" | "s_fmamk_f32" => return fused(operation, target),
        "s_bitset0_b32" | "s_bitset1_b32" => {
            let (source, one) = (Value::new(operands.get(1), Kind::U32)?, name == "s_bitset1_b32");
            return Ok(Box::new(move |wave, _| {
                let bit = 1 << (source.get32(wave) & 31);
                let old = wave.scalars[usize::from(target)];
                wave.set_scalar(target, if one { old | bit } else { old & !bit });
                Flow::Next
            }));
        }
        _ => {}
    }
    let optional = |at: usize, kind| operands.get(at).map_or(Ok(Value::Constant(0)), |o| Value::new(Some(o), kind));
    if let Some(f) = narrow(name) {
        let (mut a, b) = (Value::new(operands.get(1), kind)?, optional(2, kind)?);
        if name == "s_movk_i32" {
            a = immediate(a, true);
        }
        return Ok(Box::new(move |wave, _| {
            let (value, scc) = f(a.get32(wave), b.get32(wave), wave.scc);
            wave.set_scalar(target, value);
            wave.scc = scc.unwrap_or(wave.scc);
            Flow::Next
        }));
    }
    let (f, narrow_result) = match (wide(name), shrinking(name)) {
        (Some(f), _) => (f, false),
        (None, Some(f)) => (f, true),
        (None, None) => return Err(name.to_owned()),
    };
    // `s_bfm_b64` takes two 32-bit numbers.
    let first = if name == "s_bfm_b64" { Kind::U32 } else { Kind::U64 };
    let second = if second_is_narrow(name) { Kind::U32 } else { Kind::U64 };
    let (a, b) = (Value::new(operands.get(1), first)?, optional(2, second)?);
    Ok(Box::new(move |wave, _| {
        let get = |value: Value, kind| if kind == Kind::U64 { value.get64(wave) } else { value.get32(wave).into() };
        let (value, scc) = f(get(a, first), get(b, second), wave.scc);
        if narrow_result {
            wave.set_scalar(target, value as u32);
        } else {
            wave.set_pair(target, value);
        }
        wave.scc = scc.unwrap_or(wave.scc);
        Flow::Next
    }))
}

fn fused<const W: usize>(operation: &Operation, target: u8) -> Result<Run<W>, Lack> {
    let accumulates = operation.name == "s_fmac_f32";
    let source = |at| Value::new(operation.operands.get(at), Kind::F32);
    let (a, b) = (source(1)?, source(2)?);
    let c = if accumulates { Value::Register(target) } else { source(3)? };
    Ok(Box::new(move |wave, _| {
        let [a, b, c] = [a, b, c].map(|v| f32::from_bits(v.get32(wave)));
        wave.set_scalar(target, a.mul_add(b, c).to_bits());
        Flow::Next
    }))
}
