//! Sets of registers.

use crate::operand::ACCUMULATORS;
use std::ops::{BitAnd, BitOr};

/// Vector registers, accumulation registers included.
const VECTORS: usize = 2 * ACCUMULATORS as usize;
const WORDS: usize = (VECTORS + 128) / 64 + 1;

/// A register of a wave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Register {
    Vector(u16),
    Scalar(u8),
    Scc,
}

impl Register {
    fn bit(self) -> usize {
        match self {
            Self::Vector(n) => usize::from(n),
            Self::Scalar(n) => VECTORS + usize::from(n),
            Self::Scc => VECTORS + 128,
        }
    }

    fn of_bit(bit: usize) -> Self {
        match bit.checked_sub(VECTORS) {
            None => Self::Vector(bit as u16),
            Some(128) => Self::Scc,
            Some(n) => Self::Scalar(n as u8),
        }
    }
}

impl std::fmt::Display for Register {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use crate::operand::{EXEC, M0, TTMP, VCC};
        match *self {
            Self::Vector(n) if n >= ACCUMULATORS => write!(f, "a{}", n - ACCUMULATORS),
            Self::Vector(n) => write!(f, "v{n}"),
            Self::Scalar(VCC) => f.write_str("vcc_lo"),
            Self::Scalar(n) if n == VCC + 1 => f.write_str("vcc_hi"),
            Self::Scalar(M0) => f.write_str("m0"),
            Self::Scalar(EXEC) => f.write_str("exec_lo"),
            Self::Scalar(n) if n == EXEC + 1 => f.write_str("exec_hi"),
            Self::Scalar(n) if n >= TTMP => write!(f, "ttmp{}", n - TTMP),
            Self::Scalar(n) => write!(f, "s{n}"),
            Self::Scc => f.write_str("scc"),
        }
    }
}

/// A set of registers, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Set([u64; WORDS]);

impl Set {
    #[inline]
    pub(super) fn insert(&mut self, register: Register) {
        self.0[register.bit() / 64] |= 1 << (register.bit() % 64);
    }

    #[inline]
    pub(super) fn remove(&mut self, register: Register) {
        self.0[register.bit() / 64] &= !(1 << (register.bit() % 64));
    }

    pub(super) fn extend(&mut self, registers: impl IntoIterator<Item = Register>) {
        registers.into_iter().for_each(|r| self.insert(r));
    }

    #[inline]
    pub(super) fn contains(&self, register: Register) -> bool {
        self.0[register.bit() / 64] >> (register.bit() % 64) & 1 == 1
    }

    #[inline]
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).fold(0, |any, (a, b)| any | a & b) != 0
    }

    pub(super) fn without(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & !other.0[i]))
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// By number: vector registers, then scalar ones, then `scc`.
    pub(super) fn iter(&self) -> impl Iterator<Item = Register> + '_ {
        self.0
            .iter()
            .enumerate()
            .flat_map(|(word, &bits)| crate::wave::lanes(bits).map(move |bit| Register::of_bit(64 * word + bit)))
    }
}

impl FromIterator<Register> for Set {
    fn from_iter<I: IntoIterator<Item = Register>>(registers: I) -> Self {
        let mut set = Self::default();
        set.extend(registers);
        set
    }
}

impl BitOr for Set {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] | other.0[i]))
    }
}

impl BitAnd for Set {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & other.0[i]))
    }
}
