//! The state of one wave, and what it shares with its workgroup.

use crate::FaultKind;
use crate::memory::View;
use crate::operand::{EXEC, M0, NULL, SCALARS, Special, VCC};
use crate::sanitizer::Access;

/// Upper half of flat addresses that mean LDS.
pub(crate) const SHARED_APERTURE: u32 = 0x0001_0000;
/// Upper half of flat addresses that mean scratch.
pub(crate) const PRIVATE_APERTURE: u32 = 0x0002_0000;

/// What became of an instruction.
#[derive(Debug)]
pub(crate) enum Flow {
    /// The next one follows.
    Next,
    /// The instruction of this index follows.
    Jump(u32),
    /// The wave waits for the others of its workgroup.
    Barrier,
    /// The wave has ended.
    End,
    /// It can't go on; the lane, where one is to blame.
    Fault(Box<(FaultKind, Option<u32>)>),
}

impl Flow {
    pub(crate) fn fault(kind: FaultKind, lane: Option<usize>) -> Self {
        Self::Fault(Box::new((kind, lane.map(|l| l as u32))))
    }
}

/// A wave of `W` lanes.
#[derive(Clone, Debug)]
pub(crate) struct Wave<const W: usize> {
    /// v0 and up; from 256 on the accumulation registers.
    pub(crate) vectors: Vec<[u32; W]>,
    /// s0 and up, then the special ones (see `operand`).
    pub(crate) scalars: [u32; SCALARS],
    /// The scalar condition code.
    pub(crate) scc: bool,
    /// Index of the next instruction.
    pub(crate) next: u32,
    /// Number within the workgroup.
    pub(crate) index: u32,
    /// Scratch of all lanes, one behind the other.
    pub(crate) scratch: Vec<u8>,
    /// Bytes of scratch per lane.
    pub(crate) scratch_per_lane: u32,
    /// Address of the scratch, as the kernel was told (gfx9, gfx10).
    pub(crate) executed: u64,
    /// Lanes that were active, over all vector instructions.
    pub(crate) lane_instructions: u64,
}

/// What the waves of a workgroup share.
pub(crate) struct Group<'a> {
    pub(crate) memory: &'a View,
    /// Where the last access was found.
    pub(crate) hint: usize,
    pub(crate) lds: Vec<u8>,
    /// Where the code object's address 0 is loaded.
    pub(crate) code_base: u64,
    /// For the sanitizer: the memory's shadows, and the accesses of the instruction.
    pub(crate) shadows: &'a View,
    pub(crate) trace: Option<Vec<Access>>,
}

impl Group<'_> {
    /// Tells the sanitizer, if there is one, of an access.
    #[inline]
    pub(crate) fn note(&mut self, access: impl FnOnce() -> Access) {
        if let Some(trace) = &mut self.trace {
            trace.push(access());
        }
    }
}

impl<const W: usize> Wave<W> {
    /// All lanes.
    pub(crate) const FULL: u64 = if W == 64 { u64::MAX } else { (1 << W) - 1 };

    #[inline]
    pub(crate) fn exec(&self) -> u64 {
        self.pair(EXEC) & Self::FULL
    }

    #[inline]
    pub(crate) fn vcc(&self) -> u64 {
        self.mask(VCC)
    }

    /// Two scalar registers as one number.
    #[inline]
    pub(crate) fn pair(&self, first: u8) -> u64 {
        if first == NULL {
            return 0;
        }
        u64::from(self.scalars[usize::from(first) + 1]) << 32 | u64::from(self.scalars[usize::from(first)])
    }

    #[inline]
    pub(crate) fn set_scalar(&mut self, register: u8, value: u32) {
        if register != NULL {
            self.scalars[usize::from(register)] = value;
        }
    }

    #[inline]
    pub(crate) fn set_pair(&mut self, first: u8, value: u64) {
        if first != NULL {
            self.scalars[usize::from(first)] = value as u32;
            self.scalars[usize::from(first) + 1] = (value >> 32) as u32;
        }
    }

    /// A bit per lane: one scalar register of a wave of 32, two of one of 64.
    #[inline]
    pub(crate) fn mask(&self, first: u8) -> u64 {
        if W == 64 { self.pair(first) } else { u64::from(self.scalars[usize::from(first)]) }
    }

    #[inline]
    pub(crate) fn set_mask(&mut self, first: u8, value: u64) {
        if W == 64 { self.set_pair(first, value) } else { self.set_scalar(first, value as u32) }
    }

    pub(crate) fn special(&self, special: Special) -> u32 {
        match special {
            Special::Scc => u32::from(self.scc),
            Special::Vccz => u32::from(self.vcc() == 0),
            Special::Execz => u32::from(self.exec() == 0),
            // As LLVM has it, they have 64 bits and the lower half is 0.
            Special::SharedBase | Special::SharedLimit | Special::PrivateBase | Special::PrivateLimit => 0,
        }
    }

    /// As a source of 64 bits.
    pub(crate) fn special64(&self, special: Special) -> u64 {
        u64::from(aperture(special)) << 32 | u64::from(self.special(special))
    }

    pub(crate) fn m0(&self) -> u32 {
        self.scalars[usize::from(M0)]
    }

    /// Writes a vector register in the lanes of `exec`.
    #[inline]
    pub(crate) fn write(&mut self, register: usize, value: &[u32; W], exec: u64) {
        let target = &mut self.vectors[register];
        if exec == Self::FULL {
            *target = *value;
        } else {
            for lane in 0..W {
                let keep = ((exec >> lane & 1) as u32).wrapping_sub(1);
                target[lane] = target[lane] & keep | value[lane] & !keep;
            }
        }
    }
}

/// Upper half of what a special source means with 64 bits.
pub(crate) fn aperture(special: Special) -> u32 {
    match special {
        Special::SharedBase | Special::SharedLimit => SHARED_APERTURE,
        Special::PrivateBase | Special::PrivateLimit => PRIVATE_APERTURE,
        Special::Scc | Special::Vccz | Special::Execz => 0,
    }
}

/// The lanes whose bit is set.
pub(crate) fn lanes(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let lane = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            lane
        })
    })
}
