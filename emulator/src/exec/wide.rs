//! Operations on 64-bit values, on pairs packed into a register (VOP3P), and dot products.

use super::float::{clamp_unit, from_bfloat, from_half, half_fused, maximum, minimum, to_half};
use super::source::{Kind, Select, Source, constant, destination, register, scalar_register};
use super::vector::{fetch, inputs};
use super::{Context, Lack, Run};
use crate::instruction::Operation;
use crate::operand::{Operand, Place};
use crate::wave::{Flow, Wave, lanes};

/// A source of up to 64 bits, with `|x|` and `-x`.
pub(crate) struct Wide {
    low: Source,
    /// `None`: 32 bits.
    high: Option<Source>,
    absolute: bool,
    negate: bool,
    kind: Kind,
}

impl Wide {
    pub(crate) fn new(operand: &Operand, kind: Kind, context: &Context) -> Result<Self, Lack> {
        let wide = matches!(kind, Kind::U64 | Kind::F64 | Kind::PackedF32);
        if operand.extend
            || operand.half.is_some()
            || (operand.negate || operand.absolute) && !matches!(kind, Kind::F64 | Kind::F32)
        {
            return Err("a modifier of an integer source".to_owned());
        }
        let low = Source::new(operand, kind, 0, context)?;
        let high = wide.then(|| Source::new(operand, kind, 1, context)).transpose()?;
        Ok(Self { low, high, absolute: operand.absolute, negate: operand.negate, kind })
    }

    #[inline]
    pub(crate) fn get<const W: usize>(&self, wave: &Wave<W>, lane: usize) -> u64 {
        let mut value = u64::from(self.low.lane(wave, lane));
        if let Some(high) = &self.high {
            value |= u64::from(high.lane(wave, lane)) << 32;
        }
        let sign = match self.kind {
            Kind::F64 => 1 << 63,
            Kind::F32 => 1 << 31,
            _ => 0,
        };
        if self.absolute {
            value &= !sign;
        }
        if self.negate {
            value ^= sign;
        }
        value
    }
}

/// Sources of these kinds.
pub(crate) fn operands(operands: &[Operand], kinds: &[Kind], context: &Context) -> Result<Vec<Wide>, Lack> {
    if operands.len() < kinds.len() {
        return Err(format!("{} sources, not {}", operands.len(), kinds.len()));
    }
    operands.iter().zip(kinds).map(|(o, &k)| Wide::new(o, k, context)).collect()
}

/// Sources, whether the result is 64 bits wide, and the function.
type Function = (Vec<Kind>, bool, fn(u64, u64, u64) -> u64);

fn float(bits: u64) -> f64 {
    f64::from_bits(bits)
}

/// The other one for a NaN, +0 above −0.
fn larger(a: u64, b: u64) -> u64 {
    if float(a) == float(b) { a & b } else { float(a).max(float(b)).to_bits() }
}

fn single(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

fn find(name: &str) -> Option<Function> {
    use Kind::{F32, F64, U32, U64};
    let f64_2 = |f: fn(u64, u64, u64) -> u64| Some((vec![F64, F64], true, f));
    let f64_1 = |f: fn(u64, u64, u64) -> u64| Some((vec![F64], true, f));
    match name {
        "v_mov_b64" => Some((vec![U64], true, |a, _, _| a)),
        "v_lshlrev_b64" => Some((vec![U32, U64], true, |a, b, _| b << (a & 63))),
        "v_lshrrev_b64" => Some((vec![U32, U64], true, |a, b, _| b >> (a & 63))),
        "v_ashrrev_i64" => Some((vec![U32, U64], true, |a, b, _| (b.cast_signed() >> (a & 63)).cast_unsigned())),
        "v_lshl_add_u64" => Some((vec![U64, U32, U64], true, |a, b, c| (a << (b & 7)).wrapping_add(c))),
        "v_add_nc_u64" => Some((vec![U64, U64], true, |a, b, _| a.wrapping_add(b))),
        "v_sub_nc_u64" => Some((vec![U64, U64], true, |a, b, _| a.wrapping_sub(b))),
        "v_mul_u64" => Some((vec![U64, U64], true, |a, b, _| a.wrapping_mul(b))),
        "v_add_f64" => f64_2(|a, b, _| (float(a) + float(b)).to_bits()),
        "v_mul_f64" => f64_2(|a, b, _| (float(a) * float(b)).to_bits()),
        "v_max_f64" => f64_2(|a, b, _| larger(a, b)),
        "v_min_f64" => f64_2(|a, b, _| larger(a ^ 1 << 63, b ^ 1 << 63) ^ 1 << 63),
        "v_fma_f64" => Some((vec![F64; 3], true, |a, b, c| float(a).mul_add(float(b), float(c)).to_bits())),
        "v_fmac_f64" => Some((vec![F64; 3], true, |a, b, c| float(a).mul_add(float(b), float(c)).to_bits())),
        "v_div_fixup_f64" => Some((vec![F64; 3], true, |q, d, n| super::divide::fixup(float(q), float(d), float(n)).to_bits())),
        "v_rcp_f64" => f64_1(|a, _, _| (1.0 / float(a)).to_bits()),
        "v_rsq_f64" => f64_1(|a, _, _| (1.0 / float(a).sqrt()).to_bits()),
        "v_sqrt_f64" => f64_1(|a, _, _| float(a).sqrt().to_bits()),
        "v_floor_f64" => f64_1(|a, _, _| float(a).floor().to_bits()),
        "v_ceil_f64" => f64_1(|a, _, _| float(a).ceil().to_bits()),
        "v_trunc_f64" => f64_1(|a, _, _| float(a).trunc().to_bits()),
        "v_rndne_f64" => f64_1(|a, _, _| float(a).round_ties_even().to_bits()),
        "v_ldexp_f64" => Some((vec![F64, U32], true, |a, b, _| {
            // In two steps: 2^power alone may not be a double.
            let power = (b as u32).cast_signed().clamp(-2200, 2200);
            let half = f64::from(power / 2).exp2();
            (float(a) * half * f64::from(power - power / 2).exp2()).to_bits()
        })),
        "v_cvt_f64_f32" => Some((vec![F32], true, |a, _, _| f64::from(single(a)).to_bits())),
        "v_cvt_f64_i32" => Some((vec![U32], true, |a, _, _| f64::from((a as u32).cast_signed()).to_bits())),
        "v_cvt_f64_u32" => Some((vec![U32], true, |a, _, _| f64::from(a as u32).to_bits())),
        "v_cvt_f32_f64" => Some((vec![F64], false, |a, _, _| (float(a) as f32).to_bits().into())),
        "v_cvt_i32_f64" => Some((vec![F64], false, |a, _, _| (float(a) as i32).cast_unsigned().into())),
        "v_cvt_u32_f64" => Some((vec![F64], false, |a, _, _| (float(a) as u32).into())),
        _ => None,
    }
}

/// Whether it is one of the operations on 64-bit values that are a function of their sources alone.
pub(super) fn is_plain(name: &str) -> bool {
    find(name).is_some()
}

pub(crate) fn build<const W: usize>(operation: &Operation, context: &Context) -> Result<Option<Run<W>>, Lack> {
    let name = operation.name.as_str();
    if name.starts_with("v_pk_") {
        return packed(operation, context).map(Some);
    }
    if name.starts_with("v_fma_mix") || name.starts_with("v_mad_mix") {
        return mixed(operation, context).map(Some);
    }
    if name.starts_with("v_dot") {
        return dot(operation, context).map(Some);
    }
    if let Some(run) = super::divide::build(operation, context)? {
        return Ok(Some(run));
    }
    if matches!(name, "v_mad_u64_u32" | "v_mad_i64_i32") {
        return multiply_add(operation, context).map(Some);
    }
    if let Some(run) = scalar_result(operation, context)? {
        return Ok(Some(run));
    }
    let Some((kinds, wide, f)) = find(name) else { return Ok(None) };
    if operation.has("clamp") || operation.has("mul") || operation.has("div") {
        return Err("clamp or scaling of a 64-bit operation".to_owned());
    }
    let target = destination(operation.operands.first(), if wide { 2 } else { 1 }, context)?;
    let mut from = operation.operands[1..].to_vec();
    if name == "v_fmac_f64" {
        from.push(operation.operands[0]);
    }
    let sources = operands(&from, &kinds, context)?;
    Ok(Some(Box::new(move |wave, _| {
        let exec = wave.exec();
        for lane in lanes(exec) {
            let value = |i: usize| sources.get(i).map_or(0, |s| s.get(wave, lane));
            let result = f(value(0), value(1), value(2));
            wave.vectors[target][lane] = result as u32;
            if wide {
                wave.vectors[target + 1][lane] = (result >> 32) as u32;
            }
        }
        Flow::Next
    })))
}

/// A 32×32-bit product and a 64-bit addend, with a carry.
fn multiply_add<const W: usize>(operation: &Operation, context: &Context) -> Result<Run<W>, Lack> {
    let signed = operation.name == "v_mad_i64_i32";
    let target = destination(operation.operands.first(), 2, context)?;
    let carry = scalar_register(operation.operands.get(1))?;
    let rest = operation.operands.get(2..).unwrap_or_default();
    let sources = operands(rest, &[Kind::U32, Kind::U32, Kind::U64], context)?;
    Ok(Box::new(move |wave, _| {
        let exec = wave.exec();
        let mut carries = 0;
        for lane in lanes(exec) {
            let [a, b, c] = [0, 1, 2].map(|i| sources[i].get(wave, lane));
            let (result, overflow) = if signed {
                let product = i64::from((a as u32).cast_signed()) * i64::from((b as u32).cast_signed());
                let (sum, overflow) = product.overflowing_add(c.cast_signed());
                (sum.cast_unsigned(), overflow)
            } else {
                (a * b).overflowing_add(c)
            };
            carries |= u64::from(overflow) << lane;
            wave.vectors[target][lane] = result as u32;
            wave.vectors[target + 1][lane] = (result >> 32) as u32;
        }
        wave.set_mask(carry, carries);
        Flow::Next
    }))
}

/// gfx12's vector operations on scalar values: `v_s_exp_f32` and the like.
fn scalar_result<const W: usize>(operation: &Operation, context: &Context) -> Result<Option<Run<W>>, Lack> {
    use super::float::approximate;
    let f: fn(f32) -> f32 = match operation.name.as_str() {
        "v_s_exp_f32" => |a| approximate(a, f64::exp2),
        "v_s_log_f32" => |a| approximate(a, f64::log2),
        "v_s_rcp_f32" => |a| approximate(a, |x| 1.0 / x),
        "v_s_rsq_f32" => |a| approximate(a, |x| 1.0 / x.sqrt()),
        "v_s_sqrt_f32" => |a| approximate(a, f64::sqrt),
        _ => return Ok(None),
    };
    let target = scalar_register(operation.operands.first())?;
    let sources = operands(&operation.operands[1..], &[Kind::F32], context)?;
    Ok(Some(Box::new(move |wave, _| {
        let value = f(single(sources[0].get(wave, 0)));
        wave.set_scalar(target, value.to_bits());
        Flow::Next
    })))
}

/// One of the two halves of a packed operand.
struct Part {
    source: Source,
    select: Select,
    negate: bool,
    kind: Kind,
}

impl Part {
    /// `upper`: the half (of 16 or 32 bits) that is read.
    fn new(operand: &Operand, kind: Kind, upper: bool, negate: bool, context: &Context) -> Result<Self, Lack> {
        let word = u8::from(upper && kind == Kind::PackedF32);
        let select = if kind == Kind::PackedF32 { Select::Dword } else { Select::Word(u32::from(upper)) };
        if upper && kind == Kind::PackedF32 && constant(operand.place, Kind::F32).is_some_and(|c| c != 0) {
            return Err("upper half of a constant".to_owned());
        }
        // The constants of pairs of singles are singles.
        let of = if kind == Kind::PackedF32 { Kind::F32 } else { kind };
        let source = match operand.place {
            Place::Vector { .. } | Place::Scalar { .. } => Source::new(operand, of, word, context)?,
            _ => Source::new(operand, of, 0, context)?,
        };
        Ok(Self { source, select, negate, kind })
    }

    fn get<const W: usize>(&self, wave: &Wave<W>, lane: usize) -> u32 {
        let value = self.select.extract(self.source.lane(wave, lane), false);
        match self.kind {
            _ if !self.negate => value,
            Kind::PackedF32 => value ^ 1 << 31,
            Kind::PackedF16 => value ^ 1 << 15,
            _ => value.wrapping_neg() & 0xffff,
        }
    }
}

/// One half of a packed operation: kind, sources, function of the parts' bits.
fn packed_function(name: &str) -> Option<(Kind, usize, Three)> {
    use Kind::{PackedF16, PackedF32, PackedU16};
    fn s(v: u32) -> i32 {
        i32::from((v as u16).cast_signed())
    }
    fn f(v: u32) -> f32 {
        f32::from_bits(v)
    }
    fn h(v: u32) -> f32 {
        from_half(v)
    }
    Some(match name {
        "v_pk_add_f32" => (PackedF32, 2, |a, b, _| (f(a) + f(b)).to_bits()),
        "v_pk_mul_f32" => (PackedF32, 2, |a, b, _| (f(a) * f(b)).to_bits()),
        "v_pk_fma_f32" => (PackedF32, 3, |a, b, c| f(a).mul_add(f(b), f(c)).to_bits()),
        "v_pk_add_f16" => (PackedF16, 2, |a, b, _| to_half(h(a) + h(b))),
        "v_pk_mul_f16" => (PackedF16, 2, |a, b, _| to_half(h(a) * h(b))),
        "v_pk_max_f16" => (PackedF16, 2, |a, b, _| to_half(maximum(h(a), h(b)))),
        "v_pk_min_f16" => (PackedF16, 2, |a, b, _| to_half(minimum(h(a), h(b)))),
        "v_pk_fma_f16" => (PackedF16, 3, |a, b, c| half_fused(h(a).into(), h(b).into(), h(c).into())),
        "v_pk_add_u16" | "v_pk_add_i16" => (PackedU16, 2, |a, b, _| a.wrapping_add(b)),
        "v_pk_sub_u16" | "v_pk_sub_i16" => (PackedU16, 2, |a, b, _| a.wrapping_sub(b)),
        "v_pk_mul_lo_u16" => (PackedU16, 2, |a, b, _| a.wrapping_mul(b)),
        "v_pk_mad_u16" | "v_pk_mad_i16" => (PackedU16, 3, |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        "v_pk_lshlrev_b16" => (PackedU16, 2, |a, b, _| b << (a & 15)),
        "v_pk_lshrrev_b16" => (PackedU16, 2, |a, b, _| b >> (a & 15)),
        "v_pk_ashrrev_i16" => (PackedU16, 2, |a, b, _| (s(b) >> (a & 15)).cast_unsigned()),
        "v_pk_max_u16" => (PackedU16, 2, |a, b, _| a.max(b)),
        "v_pk_min_u16" => (PackedU16, 2, |a, b, _| a.min(b)),
        "v_pk_max_i16" => (PackedU16, 2, |a, b, _| s(a).max(s(b)).cast_unsigned()),
        "v_pk_min_i16" => (PackedU16, 2, |a, b, _| s(a).min(s(b)).cast_unsigned()),
        _ => return None,
    })
}

fn packed<const W: usize>(operation: &Operation, context: &Context) -> Result<Run<W>, Lack> {
    if operation.has("clamp") {
        return Err("clamp of a packed operation".to_owned());
    }
    let (kind, count, f) = match operation.name.as_str() {
        "v_pk_mov_b32" => return packed_move(operation, context),
        name => packed_function(name).ok_or_else(|| name.to_owned())?,
    };
    let rest = operation.operands.get(1..).filter(|r| r.len() >= count).ok_or("too few operands")?;
    let (low, high) = (operation.list("op_sel", false), operation.list("op_sel_hi", true));
    let (negate_low, negate_high) = (operation.list("neg_lo", false), operation.list("neg_hi", false));
    let part = |upper: [bool; 4], negate: [bool; 4]| -> Result<Vec<Part>, Lack> {
        let parts = rest.iter().take(count).enumerate();
        parts.map(|(i, o)| Part::new(o, kind, upper[i], negate[i] != o.negate, context)).collect()
    };
    let (low, high) = (part(low, negate_low)?, part(high, negate_high)?);
    let wide = kind == Kind::PackedF32;
    let target = destination(operation.operands.first(), if wide { 2 } else { 1 }, context)?;
    Ok(Box::new(move |wave, _| {
        let exec = wave.exec();
        for lane in lanes(exec) {
            let half = |parts: &[Part]| {
                let value = |i: usize| parts.get(i).map_or(0, |p: &Part| p.get(wave, lane));
                f(value(0), value(1), value(2))
            };
            let (a, b) = (half(&low), half(&high));
            if wide {
                wave.vectors[target][lane] = a;
                wave.vectors[target + 1][lane] = b;
            } else {
                wave.vectors[target][lane] = a & 0xffff | b << 16;
            }
        }
        Flow::Next
    }))
}

/// The lower result is a word of the first source, the upper one of the second; `op_sel` says which.
fn packed_move<const W: usize>(operation: &Operation, context: &Context) -> Result<Run<W>, Lack> {
    let target = destination(operation.operands.first(), 2, context)?;
    let select = operation.list("op_sel", false);
    let word = |i: usize| {
        let operand = operation.operands.get(i + 1).ok_or("too few operands")?;
        Source::new(operand, Kind::U32, u8::from(select[i] && constant(operand.place, Kind::U32).is_none()), context)
    };
    let (low, high) = (word(0)?, word(1)?);
    Ok(Box::new(move |wave, _| {
        for lane in lanes(wave.exec()) {
            let (a, b) = (low.lane(wave, lane), high.lane(wave, lane));
            wave.vectors[target][lane] = a;
            wave.vectors[target + 1][lane] = b;
        }
        Flow::Next
    }))
}

/// Fused multiply-add whose sources are singles or halves each (`op_sel_hi`: a half; `op_sel`: the upper one).
fn mixed<const W: usize>(operation: &Operation, context: &Context) -> Result<Run<W>, Lack> {
    let name = operation.name.as_str();
    let halves = operation.list("op_sel_hi", false);
    let upper = operation.list("op_sel", false);
    let mut kinds = Vec::new();
    let mut operands = operation.operands.get(1..4).ok_or("too few operands")?.to_vec();
    for (i, operand) in operands.iter_mut().enumerate() {
        let kind = if halves[i] { Kind::F16 } else { Kind::F32 };
        if halves[i] && operand.is_vector() {
            operand.half = Some(if upper[i] { crate::operand::Half::High } else { crate::operand::Half::Low });
        }
        kinds.push(kind);
    }
    let plain = Operation { modifiers: std::collections::HashMap::new(), ..operation.clone() };
    let inputs = inputs(&plain, &operands, &kinds, context)?;
    let half_result = match name.rsplit_once("_mix").map(|(_, rest)| rest) {
        Some("_f32") => None,
        Some("lo_f16") => Some(false),
        Some("hi_f16") => Some(true),
        _ => return Err(name.to_owned()),
    };
    let rounds_product = name.starts_with("v_mad");
    let clamp = operation.has("clamp");
    let target = destination(operation.operands.first(), 1, context)?;
    Ok(Box::new(move |wave, _| {
        let exec = wave.exec();
        let mut values = [[0; W]; 3];
        for (values, (input, kind)) in values.iter_mut().zip(inputs.iter().zip(&kinds)) {
            let mut buffer = [0; W];
            let bits = fetch(input, wave, &mut buffer);
            for lane in 0..W {
                values[lane] = if *kind == Kind::F16 { from_half(bits[lane]).to_bits() } else { bits[lane] };
            }
        }
        let mut out = [0; W];
        if rounds_product {
            for lane in 0..W {
                let [a, b, c] = [0, 1, 2].map(|i: usize| f32::from_bits(values[i][lane]));
                out[lane] = (a * b + c).to_bits();
            }
        } else {
            super::float::fused(&values[0], &values[1], &values[2], &mut out);
        }
        if clamp {
            out = out.map(|v| clamp_unit(f32::from_bits(v)).to_bits());
        }
        if let Some(upper) = half_result {
            let old = &wave.vectors[target];
            for lane in 0..W {
                let half = to_half(f32::from_bits(out[lane]));
                out[lane] = if upper { old[lane] & 0xffff | half << 16 } else { old[lane] & 0xffff_0000 | half };
            }
        }
        wave.write(target, &out, exec);
        Flow::Next
    }))
}

/// Of three registers, or halves of them.
type Three = fn(u32, u32, u32) -> u32;

fn bytes(value: u32, signed: bool) -> [i32; 4] {
    value.to_le_bytes().map(|b| if signed { i32::from(b.cast_signed()) } else { i32::from(b) })
}

fn dot4(a: u32, b: u32, c: u32, signed_a: bool, signed_b: bool) -> u32 {
    let (a, b) = (bytes(a, signed_a), bytes(b, signed_b));
    let sum = a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3];
    c.wrapping_add(sum.cast_unsigned())
}

fn dot8(a: u32, b: u32, c: u32, signed_a: bool, signed_b: bool) -> u32 {
    let part = |v: u32, i: u32, signed: bool| {
        let up = v << (28 - 4 * i);
        if signed { up.cast_signed() >> 28 } else { (up >> 28).cast_signed() }
    };
    (0..8).fold(c, |sum, i| sum.wrapping_add((part(a, i, signed_a) * part(b, i, signed_b)).cast_unsigned()))
}

fn dot2_float(a: u32, b: u32, c: u32, read: fn(u32) -> f32) -> u32 {
    let product = |shift: u32| f64::from(read(a >> shift & 0xffff)) * f64::from(read(b >> shift & 0xffff));
    ((product(0) + product(16) + f64::from(f32::from_bits(c))) as f32).to_bits()
}

fn dot2_integer(a: u32, b: u32, c: u32) -> u32 {
    let part = |v: u32| i32::from((v as u16).cast_signed());
    let sum = part(a).wrapping_mul(part(b)).wrapping_add(part(a >> 16).wrapping_mul(part(b >> 16)));
    c.wrapping_add(sum.cast_unsigned())
}

fn dot_function(operation: &Operation) -> Option<(Three, bool, Kind)> {
    let [a, b, ..] = operation.list("neg_lo", false);
    Some(match operation.name.as_str() {
        "v_dot4_i32_i8" => (|a, b, c| dot4(a, b, c, true, true), false, Kind::U32),
        "v_dot4c_i32_i8" => (|a, b, c| dot4(a, b, c, true, true), true, Kind::U32),
        "v_dot4_u32_u8" => (|a, b, c| dot4(a, b, c, false, false), false, Kind::U32),
        "v_dot4_i32_iu8" => (
            match (a, b) {
                (false, false) => |a, b, c| dot4(a, b, c, false, false),
                (false, true) => |a, b, c| dot4(a, b, c, false, true),
                (true, false) => |a, b, c| dot4(a, b, c, true, false),
                (true, true) => |a, b, c| dot4(a, b, c, true, true),
            },
            false,
            Kind::U32,
        ),
        "v_dot8_i32_i4" => (|a, b, c| dot8(a, b, c, true, true), false, Kind::U32),
        "v_dot8c_i32_i4" => (|a, b, c| dot8(a, b, c, true, true), true, Kind::U32),
        "v_dot8_u32_u4" => (|a, b, c| dot8(a, b, c, false, false), false, Kind::U32),
        "v_dot8_i32_iu4" => (
            match (a, b) {
                (false, false) => |a, b, c| dot8(a, b, c, false, false),
                (false, true) => |a, b, c| dot8(a, b, c, false, true),
                (true, false) => |a, b, c| dot8(a, b, c, true, false),
                (true, true) => |a, b, c| dot8(a, b, c, true, true),
            },
            false,
            Kind::U32,
        ),
        "v_dot2_f32_f16" => (|a, b, c| dot2_float(a, b, c, from_half), false, Kind::F32),
        "v_dot2c_f32_f16" | "v_dot2acc_f32_f16" => (|a, b, c| dot2_float(a, b, c, from_half), true, Kind::F32),
        "v_dot2_f32_bf16" => (|a, b, c| dot2_float(a, b, c, from_bfloat), false, Kind::F32),
        "v_dot2_i32_i16" => (dot2_integer, false, Kind::U32),
        "v_dot2c_i32_i16" => (dot2_integer, true, Kind::U32),
        _ => return None,
    })
}

fn dot<const W: usize>(operation: &Operation, context: &Context) -> Result<Run<W>, Lack> {
    let (f, accumulates, kind) = dot_function(operation).ok_or_else(|| operation.name.clone())?;
    let mixed_signs = operation.name.contains("_iu");
    let odd = ["op_sel", "op_sel_hi", "neg_hi", "clamp"].iter().any(|m| operation.has(m));
    if odd || (operation.has("neg_lo") && !mixed_signs) || operation.encoding != crate::instruction::Encoding::Plain {
        return Err("modifiers of a dot product".to_owned());
    }
    let target = destination(operation.operands.first(), 1, context)?;
    let mut operands = operation.operands.get(1..3).ok_or("too few operands")?.to_vec();
    operands.push(if accumulates { operation.operands[0] } else { *operation.operands.get(3).ok_or("too few operands")? });
    let plain = Operation { modifiers: std::collections::HashMap::new(), ..operation.clone() };
    let inputs = inputs(&plain, &operands, &[Kind::U32, Kind::U32, kind], context)?;
    register(target as u16, context)?;
    // A dispatch per instruction, not per lane.
    let eval: super::lane::Eval<W> = match (operation.name.as_str(), operation.list("neg_lo", false)) {
        ("v_dot4_i32_i8" | "v_dot4c_i32_i8", _) | ("v_dot4_i32_iu8", [true, true, ..]) => {
            super::lane::u3(|a, b, c| dot4(a, b, c, true, true)).eval
        }
        ("v_dot4_i32_iu8", [false, true, ..]) => super::lane::u3(|a, b, c| dot4(a, b, c, false, true)).eval,
        _ => super::lane::u3(f).eval,
    };
    Ok(Box::new(move |wave, _| {
        let (mut first, mut second, mut third, mut out) = ([0; W], [0; W], [0; W], [0; W]);
        let a = fetch(&inputs[0], wave, &mut first);
        let b = fetch(&inputs[1], wave, &mut second);
        let c = fetch(&inputs[2], wave, &mut third);
        eval(&[a, b, c], &mut out);
        let exec = wave.exec();
        wave.write(target, &out, exec);
        Flow::Next
    }))
}
