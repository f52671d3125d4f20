//! Operands of vector and scalar operations: where their values come from and go to.

use super::{Context, Lack};
use crate::operand::{ACCUMULATORS, Half, Operand, Place, SCALARS, Special};
use crate::wave::Wave;
use half::f16;

/// How the bits of an operand are understood: what an inline constant, `-x` and `|x|` mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 32-bit integer or bits.
    U32,
    /// 16-bit integer in the lower half.
    U16,
    /// IEEE single.
    F32,
    /// IEEE half, in the lower half.
    F16,
    /// 64-bit integer or bits.
    U64,
    /// IEEE double.
    F64,
    /// Two halves, each IEEE half.
    PackedF16,
    /// Two 16-bit integers.
    PackedU16,
    /// Two IEEE singles.
    PackedF32,
}

/// The bits of a constant of this kind. Source: the ISA documents' "inline constants".
pub(crate) fn constant(place: Place, kind: Kind) -> Option<u64> {
    let wide = matches!(kind, Kind::U64 | Kind::F64 | Kind::PackedF32);
    Some(match place {
        Place::Integer(value) if wide => value.cast_unsigned(),
        Place::Integer(value) => u64::from(value as u32),
        // A literal is the upper half of a double.
        Place::Bits(bits) if kind == Kind::F64 => u64::from(bits) << 32,
        Place::Bits(bits) => u64::from(bits),
        Place::Float(value) => {
            // 1/(2π), printed short.
            let inverse_two_pi = (value - 0.159_154_94).abs() < 1e-7;
            match kind {
                Kind::F16 | Kind::PackedF16 if inverse_two_pi => 0x3118,
                Kind::F16 | Kind::PackedF16 => u64::from(f16::from_f64(value).to_bits()),
                Kind::F64 if inverse_two_pi => 0x3fc4_5f30_6dc9_c882,
                Kind::F64 | Kind::U64 => value.to_bits(),
                _ if inverse_two_pi => 0x3e22_f983,
                _ => u64::from((value as f32).to_bits()),
            }
        }
        _ => return None,
    })
}

/// A 32-bit value per lane, before modifiers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    Vector(usize),
    Scalar(usize),
    Constant(u32),
    Special(Special),
    /// All ones in the lanes whose bit of the mask in this scalar register is set, else 0.
    Mask(u8),
}

impl Source {
    /// `word`: 0 for the lower 32 bits, 1 for the upper.
    pub(crate) fn new(operand: &Operand, kind: Kind, word: u8, context: &Context) -> Result<Self, Lack> {
        Ok(match operand.place {
            Place::Vector { first, .. } => Self::Vector(register(first + u16::from(word), context)?),
            Place::Scalar { first, .. } => Self::Scalar(scalar(first, word)?),
            Place::Special(special) if word == 1 => Self::Constant(crate::wave::aperture(special)),
            Place::Special(special) => Self::Special(special),
            place => {
                let bits = constant(place, kind).ok_or_else(|| format!("operand {place:?}"))?;
                Self::Constant((bits >> (32 * word)) as u32)
            }
        })
    }

    /// Its value in all lanes; `buffer` holds what isn't a vector register.
    #[inline]
    pub(crate) fn lanes<'a, const W: usize>(&self, wave: &'a Wave<W>, buffer: &'a mut [u32; W]) -> &'a [u32; W] {
        match *self {
            Self::Vector(register) => return &wave.vectors[register],
            Self::Scalar(register) => *buffer = [wave.scalars[register]; W],
            Self::Constant(value) => *buffer = [value; W],
            Self::Special(special) => *buffer = [wave.special(special); W],
            Self::Mask(register) => {
                let mask = wave.mask(register);
                for (lane, value) in buffer.iter_mut().enumerate() {
                    *value = ((mask >> lane & 1) as u32).wrapping_neg();
                }
            }
        }
        buffer
    }

    /// Its value in one lane.
    #[inline]
    pub(crate) fn lane<const W: usize>(&self, wave: &Wave<W>, lane: usize) -> u32 {
        match *self {
            Self::Vector(register) => wave.vectors[register][lane],
            Self::Scalar(register) => wave.scalars[register],
            Self::Constant(value) => value,
            Self::Special(special) => wave.special(special),
            Self::Mask(register) => ((wave.mask(register) >> lane & 1) as u32).wrapping_neg(),
        }
    }
}

/// `null` with two registers is still 0.
fn scalar(first: u8, word: u8) -> Result<usize, Lack> {
    let at = usize::from(first) + if first == crate::operand::NULL { 0 } else { usize::from(word) };
    if at < SCALARS { Ok(at) } else { Err(format!("scalar register {at}")) }
}

/// Index of a vector register that the kernel has.
pub(crate) fn register(register: u16, context: &Context) -> Result<usize, Lack> {
    let (at, limit, letter) = match register.checked_sub(ACCUMULATORS) {
        Some(a) => (a, context.accumulators, 'a'),
        None => (register, context.vectors, 'v'),
    };
    if at < limit { Ok(usize::from(register)) } else { Err(format!("{letter}{at}, beyond the kernel's {limit}")) }
}

/// Index of a destination's vector register, `count` of them.
pub(crate) fn destination(operand: Option<&Operand>, count: u16, context: &Context) -> Result<usize, Lack> {
    match operand.map(|o| o.place) {
        Some(Place::Vector { first, .. }) => {
            register(first + count - 1, context)?;
            register(first, context)
        }
        other => Err(format!("destination {other:?}")),
    }
}

/// A scalar operand's register.
pub(crate) fn scalar_register(operand: Option<&Operand>) -> Result<u8, Lack> {
    match operand.map(|o| o.place) {
        Some(Place::Scalar { first, .. }) => Ok(first),
        other => Err(format!("scalar destination {other:?}")),
    }
}

/// Which bits of a 32-bit register are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Select {
    Dword,
    Byte(u32),
    Word(u32),
}

impl Select {
    pub(crate) fn parse(text: Option<&String>) -> Result<Self, Lack> {
        Ok(match text.map(String::as_str) {
            None | Some("DWORD") => Self::Dword,
            Some("BYTE_0") => Self::Byte(0),
            Some("BYTE_1") => Self::Byte(1),
            Some("BYTE_2") => Self::Byte(2),
            Some("BYTE_3") => Self::Byte(3),
            Some("WORD_0") => Self::Word(0),
            Some("WORD_1") => Self::Word(1),
            Some(other) => return Err(format!("selection {other}")),
        })
    }

    pub(crate) fn of_half(half: Option<Half>) -> Self {
        match half {
            None => Self::Dword,
            Some(Half::Low) => Self::Word(0),
            Some(Half::High) => Self::Word(1),
        }
    }

    /// Shift and width of the bits.
    pub(crate) fn bits(self) -> (u32, u32) {
        match self {
            Self::Dword => (0, 32),
            Self::Byte(n) => (8 * n, 8),
            Self::Word(n) => (16 * n, 16),
        }
    }

    pub(crate) fn extract(self, value: u32, extend: bool) -> u32 {
        let (shift, width) = self.bits();
        let up = value << (32 - width - shift);
        if extend { (up.cast_signed() >> (32 - width)).cast_unsigned() } else { up >> (32 - width) }
    }
}

/// What is done to a source's value: selection, then `|x|`, then `-x`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) select: Select,
    pub(crate) extend: bool,
    pub(crate) absolute: bool,
    pub(crate) negate: bool,
    pub(crate) kind: Kind,
}

impl Change {
    pub(crate) fn is_none(&self) -> bool {
        self.select == Select::Dword && !self.absolute && !self.negate
    }

    #[inline]
    pub(crate) fn apply(&self, value: u32) -> u32 {
        let mut value = self.select.extract(value, self.extend);
        let sign = match self.kind {
            Kind::F32 => 1u32 << 31,
            Kind::F16 => 1 << 15,
            _ => 0,
        };
        if self.absolute {
            value &= !sign;
        }
        if self.negate {
            value = if sign == 0 { value.wrapping_neg() } else { value ^ sign };
        }
        value
    }
}
