//! Floats of eight bits: their values, and the conversions from and to singles.
//!
//! gfx942 has formats of its own (one zero, one NaN, no infinity, another bias), gfx950 and gfx12 have those of the Open Compute
//! Project. What a value becomes that the format doesn't have (beyond its largest, infinite, no number) depends on a mode that isn't
//! emulated and is a fault; programs keep within the range first. Stochastic rounding is missing: which bits of the seed count isn't
//! published. Sources: the CDNA 3 and RDNA 4 instruction set references; *OCP 8-bit Floating Point Specification*, revision 1.0.

use super::cross::Dpp;
use super::source::{Kind, Select, destination};
use super::vector::{Input, fetch, fetch_permuted, inputs};
use super::{Context, Lack, Run};
use crate::arch::Arch;
use crate::instruction::{Encoding, Operation};
use crate::operand::Half;
use crate::wave::{Flow, Wave, lanes};
use crate::{FaultKind, Generation};

/// A format: a sign, exponent and mantissa.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    mantissa: u32,
    bias: i32,
    /// The largest finite number, without the sign; what is above is infinite or no number.
    largest: u32,
    /// Infinity, without the sign.
    infinity: Option<u32>,
    /// The code that would be −0 is the only NaN.
    one_zero: bool,
}

impl Format {
    /// Four bits of exponent and three of mantissa (`fp8`), or five and two (`bf8`).
    pub(crate) fn find(name: &str, arch: &Arch) -> Option<Self> {
        let format = |mantissa, bias, largest, infinity, one_zero| Self { mantissa, bias, largest, infinity, one_zero };
        let open_compute = arch.name == "gfx950" || arch.generation >= Generation::Gfx12;
        Some(match (name, open_compute) {
            ("fp8", false) => format(3, 8, 0x7f, None, true),
            ("bf8", false) => format(2, 16, 0x7f, None, true),
            ("fp8", true) => format(3, 7, 0x7e, None, false),
            ("bf8", true) => format(2, 15, 0x7b, Some(0x7c), false),
            _ => return None,
        })
    }

    pub(crate) fn value(&self, bits: u32) -> f32 {
        let (negative, magnitude) = (bits & 0x80 != 0, bits & 0x7f);
        let value = if magnitude > self.largest || (self.one_zero && bits & 0xff == 0x80) {
            if Some(magnitude) == self.infinity { f32::INFINITY } else { f32::NAN }
        } else {
            let (exponent, fraction) = (magnitude >> self.mantissa, magnitude & ((1 << self.mantissa) - 1));
            let units = if exponent == 0 { fraction } else { fraction | 1 << self.mantissa };
            units as f32 * 2f32.powi(exponent.max(1).cast_signed() - self.bias - self.mantissa.cast_signed())
        };
        if negative { -value } else { value }
    }

    /// To the nearest, even if there are two; `None` if the format has no such number.
    fn nearest(&self, value: f32) -> Option<u32> {
        if !value.is_finite() {
            return None;
        }
        let magnitude = f64::from(value.abs());
        // Of the binade, or that of the denormals.
        let exponent = ((magnitude.to_bits() >> 52) as i32 - 1023).max(1 - self.bias);
        let units = (magnitude * 2f64.powi(self.mantissa.cast_signed() - exponent)).round_ties_even() as u32;
        // The bit that a normal number doesn't store is the exponent's last.
        let code = (((exponent + self.bias - 1).cast_unsigned()) << self.mantissa) + units;
        let sign = if value.is_sign_negative() && !(self.one_zero && code == 0) { 0x80 } else { 0 };
        (code <= self.largest).then_some(code | sign)
    }
}

/// Inputs with the permutation of the first.
struct Sources<const W: usize> {
    inputs: Vec<Input>,
    dpp: Option<Dpp<W>>,
}

impl<const W: usize> Sources<W> {
    fn new(operation: &Operation, kinds: &[Kind], context: &Context) -> Result<Self, Lack> {
        let dpp = (operation.encoding == Encoding::Dpp).then(|| Dpp::new(operation)).transpose()?;
        let inputs = inputs(operation, operation.operands.get(1..).unwrap_or_default(), kinds, context)?;
        Ok(Self { inputs, dpp })
    }

    /// The first one's values, and the lanes that are to be written.
    fn first<'a>(&self, wave: &'a Wave<W>, buffer: &'a mut [u32; W]) -> (&'a [u32; W], u64) {
        match &self.dpp {
            Some(dpp) => {
                let enabled = fetch_permuted(&self.inputs[0], dpp, wave, buffer);
                (buffer, enabled)
            }
            None => (fetch(&self.inputs[0], wave, buffer), wave.exec()),
        }
    }
}

pub(crate) fn build<const W: usize>(operation: &Operation, context: &Context) -> Result<Option<Run<W>>, Lack> {
    let name = operation.name.as_str();
    let Some((to, from)) = name.strip_prefix("v_cvt_").and_then(|rest| rest.rsplit_once('_')) else { return Ok(None) };
    let odd = ["clamp", "mul", "div"].iter().any(|m| operation.has(m))
        || Select::parse(operation.modifiers.get("dst_sel"))? != Select::Dword;
    let run = match (to, Format::find(from, context.arch), from) {
        ("f32", Some(format), _) => widen(operation, format, 1, context),
        ("pk_f32", Some(format), _) => widen(operation, format, 2, context),
        ("pk_fp8" | "pk_bf8", _, "f32") => narrow(operation, &to[3..], context),
        _ => return Ok(None),
    };
    if odd { Err(format!("{name} with modifiers")) } else { run.map(Some) }
}

/// The lowest `count` numbers of the selected part of a register become singles in as many.
fn widen<const W: usize>(operation: &Operation, format: Format, count: usize, context: &Context) -> Result<Run<W>, Lack> {
    let target = destination(operation.operands.first(), count as u16, context)?;
    let sources = Sources::<W>::new(operation, &[Kind::U32], context)?;
    // SDWA and halves of registers are selected with the source.
    let shift = match (count, operation.number("byte_sel"), operation.list("op_sel", false)[0]) {
        (1, byte, false) => 8 * (byte.unwrap_or(0) as u32 & 3),
        (2, None, upper) => 16 * u32::from(upper),
        _ => return Err(format!("{} with op_sel", operation.name)),
    };
    Ok(Box::new(move |wave, _| {
        let mut buffer = [0; W];
        let (bits, enabled) = sources.first(wave, &mut buffer);
        let bits = *bits;
        for part in 0..count {
            let values = bits.map(|b| format.value(b >> shift >> (8 * part)).to_bits());
            wave.write(target + part, &values, enabled);
        }
        Flow::Next
    }))
}

/// Two singles become a half of a register; the other half stays.
fn narrow<const W: usize>(operation: &Operation, to: &str, context: &Context) -> Result<Run<W>, Lack> {
    let format = Format::find(to, context.arch).ok_or_else(|| operation.name.clone())?;
    let target = destination(operation.operands.first(), 1, context)?;
    let sources = Sources::<W>::new(operation, &[Kind::F32; 2], context)?;
    let upper = operation.list("op_sel", false)[2] || operation.operands[0].half == Some(Half::High);
    let shift = if upper { 16 } else { 0 };
    Ok(Box::new(move |wave, _| {
        let (mut first, mut second) = ([0; W], [0; W]);
        let (a, enabled) = sources.first(wave, &mut first);
        let b = fetch(&sources.inputs[1], wave, &mut second);
        let mut out = wave.vectors[target];
        for lane in lanes(enabled) {
            let nearest = |bits| format.nearest(f32::from_bits(bits));
            let (Some(low), Some(high)) = (nearest(a[lane]), nearest(b[lane])) else {
                let what = format!("a conversion of {} and {} to eight bits", f32::from_bits(a[lane]), f32::from_bits(b[lane]));
                return Flow::fault(FaultKind::Unsupported(what), Some(lane));
            };
            out[lane] = out[lane] & !(0xffff << shift) | (low | high << 8) << shift;
        }
        wave.write(target, &out, enabled);
        Flow::Next
    }))
}
