//! Loads and stores of lanes, wherever their bytes are: in global memory, LDS or scratch.

use super::source::destination;
use super::{Context, Lack, Run};
use crate::FaultKind;
use crate::operand::{Half, Operand};
use crate::sanitizer::{self, Access, Mode};
use crate::wave::{Flow, Group, Wave, lanes};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    Global,
    Flat,
    Scratch,
}

/// Where the lanes' bytes of an instruction are.
pub(super) trait Addresses: Send + Sync + 'static {
    /// What is the same for all lanes.
    fn base<const W: usize>(&self, wave: &Wave<W>) -> u64;
    /// Which memory a lane's bytes are in, and their address there. `None`: outside of a buffer, where loads give 0 and stores do nothing.
    fn lane<const W: usize>(&self, base: u64, wave: &Wave<W>, lane: usize, bytes: u32) -> Result<Option<(Space, u64)>, Flow>;
}

/// An access as the sanitizer sees it. Loads and stores of vectors may have any address: HSA asks for unaligned access.
pub(super) fn access(space: Space, mode: Mode, address: u64, bytes: u32, lane: usize) -> Access {
    let space = match space {
        Space::Global => sanitizer::Space::Global,
        Space::Flat => sanitizer::Space::Lds,
        Space::Scratch => sanitizer::Space::Scratch,
    };
    Access { space, mode, address, bytes, alignment: 1, lane: Some(lane as u8) }
}

/// The part of a register and its type: bytes, sign, upper half, rest kept.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    bytes: u32,
    signed: bool,
    half: Option<Half>,
}

pub(super) fn shape(of: &str) -> Option<Shape> {
    let (of, half) = match of.strip_prefix("d16_hi_") {
        Some(of) => (of, Some(Half::High)),
        None => of.strip_prefix("d16_").map_or((of, None), |of| (of, Some(Half::Low))),
    };
    let bits: u32 = of.get(1..)?.parse().ok()?;
    [8, 16, 32, 64, 96, 128].contains(&bits).then_some(Shape { bytes: bits / 8, signed: of.starts_with('i'), half })
}

impl Shape {
    fn words(self) -> u32 {
        self.bytes.div_ceil(4)
    }

    /// A value as it is put into a register that held `old`.
    fn place(self, value: u32, old: u32) -> u32 {
        let bytes = self.bytes.min(4);
        let value = if self.signed && bytes < 4 {
            let shift = 32 - 8 * bytes;
            ((value << shift).cast_signed() >> shift).cast_unsigned()
        } else if bytes < 4 {
            value & ((1 << (8 * bytes)) - 1)
        } else {
            value
        };
        match self.half {
            None => value,
            Some(Half::Low) => old & 0xffff_0000 | value & 0xffff,
            Some(Half::High) => old & 0xffff | value << 16,
        }
    }
}

pub(super) fn outside(what: &'static str, group: &Group, address: u64, bytes: u32, lane: Option<usize>) -> Flow {
    Flow::fault(FaultKind::OutOfBounds { what, address, bytes, near: group.memory.describe(address) }, lane)
}

/// `data`: the register that is filled.
pub(super) fn load<const W: usize>(
    data: Option<&Operand>,
    addresses: impl Addresses,
    shape: Shape,
    context: &Context,
) -> Result<Run<W>, Lack> {
    let words = shape.words() as usize;
    let target = destination(data, words as u16, context)?;
    let bytes = shape.bytes;
    let whole = bytes >= 4;
    Ok(Box::new(move |wave, group| {
        let base = addresses.base(wave);
        for lane in lanes(wave.exec()) {
            let (space, at) = match addresses.lane(base, wave, lane, bytes) {
                Ok(Some(at)) => at,
                Ok(None) => {
                    for register in &mut wave.vectors[target..target + words] {
                        register[lane] = shape.place(0, register[lane]);
                    }
                    continue;
                }
                Err(flow) => return flow,
            };
            group.note(|| access(space, Mode::Load, at, bytes, lane));
            if space != Space::Global {
                for word in 0..words {
                    let at = (at as u32).wrapping_add(4 * word as u32);
                    let value = match near_load(wave, group, space, at, bytes.min(4), lane) {
                        Ok(value) => value,
                        Err(flow) => return flow,
                    };
                    let slot = &mut wave.vectors[target + word][lane];
                    *slot = shape.place(value, *slot);
                }
                continue;
            }
            let Some((allocation, at)) = group.memory.find(at, bytes, &mut group.hint) else {
                return outside("load", group, at, bytes, Some(lane));
            };
            if whole {
                for word in 0..words {
                    wave.vectors[target + word][lane] = allocation.read32(at + 4 * word);
                }
            } else {
                let slot = &mut wave.vectors[target][lane];
                *slot = shape.place(allocation.read32(at), *slot);
            }
        }
        Flow::Next
    }))
}

/// A load from LDS (a flat address) or scratch.
fn near_load<const W: usize>(
    wave: &Wave<W>,
    group: &Group,
    space: Space,
    offset: u32,
    bytes: u32,
    lane: usize,
) -> Result<u32, Flow> {
    let (memory, base, size) = near(wave, group, space, lane);
    let at = base + offset as usize;
    if u64::from(offset) + u64::from(bytes) > size as u64 {
        return Err(near_fault("load", space, offset, bytes, size, lane));
    }
    let mut word = [0; 4];
    word[..bytes as usize].copy_from_slice(&memory[at..at + bytes as usize]);
    Ok(u32::from_le_bytes(word))
}

/// Bytes of a lane's LDS or scratch: all of it, where its part begins, how long that is.
fn near<'a, const W: usize>(wave: &'a Wave<W>, group: &'a Group, space: Space, lane: usize) -> (&'a [u8], usize, usize) {
    if space == Space::Flat {
        (&group.lds, 0, group.lds.len())
    } else {
        let size = wave.scratch_per_lane as usize;
        (&wave.scratch, lane * size, size)
    }
}

fn near_fault(what: &'static str, space: Space, offset: u32, bytes: u32, size: usize, lane: usize) -> Flow {
    let size = size as u32;
    let kind = if space == Space::Flat {
        FaultKind::LdsOutOfBounds { what, offset, bytes, size }
    } else {
        FaultKind::ScratchOutOfBounds { what, offset, bytes, size }
    };
    Flow::fault(kind, Some(lane))
}

/// `data`: the register that is stored.
pub(super) fn store<const W: usize>(
    data: Option<&Operand>,
    addresses: impl Addresses,
    shape: Shape,
    context: &Context,
) -> Result<Run<W>, Lack> {
    let words = shape.words() as usize;
    let upper = shape.half == Some(Half::High) || data.is_some_and(|d| d.half == Some(Half::High));
    let data = destination(data, words as u16, context)?;
    let (bytes, shift) = (shape.bytes, if upper { 16 } else { 0 });
    Ok(Box::new(move |wave, group| {
        let base = addresses.base(wave);
        for lane in lanes(wave.exec()) {
            let (space, at) = match addresses.lane(base, wave, lane, bytes) {
                Ok(Some(at)) => at,
                Ok(None) => continue,
                Err(flow) => return flow,
            };
            group.note(|| access(space, Mode::Store, at, bytes, lane));
            if space != Space::Global {
                for word in 0..words {
                    let value = wave.vectors[data + word][lane] >> shift;
                    let at = (at as u32).wrapping_add(4 * word as u32);
                    if let Err(flow) = near_store(wave, group, space, at, value, bytes.min(4), lane) {
                        return flow;
                    }
                }
                continue;
            }
            let Some((allocation, offset)) = group.memory.find(at, bytes, &mut group.hint) else {
                return outside("store", group, at, bytes, Some(lane));
            };
            if !allocation.writable {
                return Flow::fault(FaultKind::ReadOnly(at), Some(lane));
            }
            for word in 0..words {
                allocation.write(offset + 4 * word, wave.vectors[data + word][lane] >> shift, bytes.min(4));
            }
        }
        Flow::Next
    }))
}

fn near_store<const W: usize>(
    wave: &mut Wave<W>,
    group: &mut Group,
    space: Space,
    offset: u32,
    value: u32,
    bytes: u32,
    lane: usize,
) -> Result<(), Flow> {
    let (_, base, size) = near(wave, group, space, lane);
    if u64::from(offset) + u64::from(bytes) > size as u64 {
        return Err(near_fault("store", space, offset, bytes, size, lane));
    }
    let memory = if space == Space::Flat { &mut group.lds } else { &mut wave.scratch };
    let at = base + offset as usize;
    memory[at..at + bytes as usize].copy_from_slice(&value.to_le_bytes()[..bytes as usize]);
    Ok(())
}

/// An atomic through a flat address in LDS or scratch; gives the old value.
pub(super) fn near_update<const W: usize>(
    wave: &mut Wave<W>,
    group: &mut Group,
    space: Space,
    offset: u32,
    wide: bool,
    lane: usize,
    new: impl Fn(u64) -> u64,
) -> Result<u64, Flow> {
    let mut old = u64::from(near_load(wave, group, space, offset, 4, lane)?);
    if wide {
        old |= u64::from(near_load(wave, group, space, offset.wrapping_add(4), 4, lane)?) << 32;
    }
    let value = new(old);
    near_store(wave, group, space, offset, value as u32, 4, lane)?;
    if wide {
        near_store(wave, group, space, offset.wrapping_add(4), (value >> 32) as u32, 4, lane)?;
    }
    Ok(old)
}
