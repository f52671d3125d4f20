//! `s_getreg` and `s_setreg`: fields of hardware registers, as far as the emulator has an answer.
//!
//! Of the mode there are the rounding (to nearest even) and the denormals (kept); they can be read, and set to what they are.
//! Scratch needs no setting up. Everything else would be a guess. Source: "Hardware Registers" in the instruction set references.

use super::scalar::{Value, target};
use super::source::Kind;
use super::{Lack, Run};
use crate::FaultKind;
use crate::instruction::Operation;
use crate::wave::Flow;

/// The lowest byte of the mode: rounding of singles and of the others, denormals of singles and of the others, two bits each.
pub(crate) const FLOAT_MODE: u32 = 0xf0;

/// Bits of a hardware register: `hwreg(HW_REG_MODE, 4, 4)`; without numbers all 32.
struct Field<'a> {
    register: &'a str,
    offset: u32,
    size: u32,
}

impl<'a> Field<'a> {
    fn parse(operation: &'a Operation) -> Result<Self, Lack> {
        let lack = || format!("{} {}", operation.name, operation.words.join(" "));
        let inner = operation.words.first().and_then(|w| w.strip_prefix("hwreg(")?.strip_suffix(')')).ok_or_else(lack)?;
        let mut parts = inner.split(',').map(str::trim);
        let register = parts.next().ok_or_else(lack)?;
        let mut number = |default| parts.next().map_or(Some(default), |t| t.parse::<u32>().ok()).ok_or_else(lack);
        let field = Self { register, offset: number(0)?, size: number(32)? };
        if field.offset < 32 && (1..=32).contains(&field.size) { Ok(field) } else { Err(lack()) }
    }

    fn is_mode(&self) -> bool {
        matches!(self.register, "HW_REG_MODE" | "HW_REG_WAVE_MODE")
    }

    /// The mode's bits that the field covers, put to its beginning.
    fn mode(&self) -> Result<u32, Lack> {
        if !self.is_mode() {
            return Err(format!("hardware register {}", self.register));
        }
        if self.offset + self.size > 8 {
            let last = self.offset + self.size - 1;
            return Err(format!(
                "bits {} to {last} of {} (emulated are 0 to 7, rounding and denormals)",
                self.offset, self.register
            ));
        }
        Ok(FLOAT_MODE >> self.offset & self.mask())
    }

    fn mask(&self) -> u32 {
        u32::MAX >> (32 - self.size)
    }
}

pub(crate) fn get<const W: usize>(operation: &Operation) -> Result<Run<W>, Lack> {
    let (target, value) = (target(operation)?, Field::parse(operation)?.mode()?);
    Ok(Box::new(move |wave, _| {
        wave.set_scalar(target, value);
        Flow::Next
    }))
}

pub(crate) fn set<const W: usize>(operation: &Operation) -> Result<Run<W>, Lack> {
    let field = Field::parse(operation)?;
    if matches!(field.register, "HW_REG_FLAT_SCR_LO" | "HW_REG_FLAT_SCR_HI") {
        return Ok(Box::new(|_, _| Flow::Next));
    }
    let (is, mask) = (field.mode()?, field.mask());
    let source = Value::new(operation.operands.first(), Kind::U32)?;
    let (register, offset) = (field.register.to_owned(), field.offset);
    Ok(Box::new(move |wave, _| {
        let value = source.get32(wave) & mask;
        if value == is {
            return Flow::Next;
        }
        let what = format!("{register} with {value:#x} from bit {offset} on instead of {is:#x}: other rounding or denormals");
        Flow::fault(FaultKind::Unsupported(what), None)
    }))
}
