//! Buffer instructions: scratch on gfx9 and gfx10, and untyped buffers with a descriptor.

use super::memory::{Shape, Space, access, near_load, near_store, outside, shape};
use super::scalar::Value;
use super::source::{Kind, destination, register, scalar_register};
use super::{Context, Lack, Run};
use crate::FaultKind;
use crate::instruction::Operation;
use crate::operand::{Half, Place};
use crate::sanitizer::Mode;
use crate::wave::{Flow, Wave, lanes};

/// Where a lane's bytes are.
enum At {
    Scratch(u32),
    Global(u64),
    /// Outside of the buffer: loads give 0, stores do nothing.
    Nowhere,
}

/// The parts of an address.
struct Address {
    /// Vector registers of the index and of the offset.
    index: Option<usize>,
    offset: Option<usize>,
    descriptor: u8,
    scalar: Value,
    immediate: u32,
}

/// What a descriptor says. Source: "Buffer Resource Descriptor" in the instruction set references.
struct Descriptor {
    base: u64,
    stride: u32,
    records: u32,
    swizzled: bool,
}

impl Descriptor {
    fn read<const W: usize>(wave: &Wave<W>, first: u8) -> Self {
        let word = |n: u8| wave.scalars[usize::from(first + n)];
        Self {
            base: u64::from(word(1) & 0xffff) << 32 | u64::from(word(0)),
            stride: word(1) >> 16 & 0x3fff,
            records: word(2),
            swizzled: word(1) >> 31 == 1,
        }
    }

    /// The one that a kernel is given for its scratch: no allocation is at 0.
    fn is_scratch(&self) -> bool {
        self.base == 0 && self.records == u32::MAX
    }
}

impl Address {
    fn new(operation: &Operation, context: &Context) -> Result<Self, Lack> {
        let (idxen, offen) = (operation.has("idxen"), operation.has("offen"));
        let (mut index, mut offset) = (None, None);
        if let Some(Place::Vector { first, .. }) = operation.operands.get(1).map(|o| o.place) {
            let first = register(first, context)?;
            index = idxen.then_some(first);
            if offen {
                let at = first + usize::from(idxen);
                offset = Some(register(at as u16, context)?);
            }
        } else if idxen || offen {
            return Err("a buffer's address without a register".to_owned());
        }
        let descriptor = scalar_register(operation.operands.get(2))?;
        if descriptor > crate::operand::TTMP + 12 {
            return Err("a descriptor beyond the scalar registers".to_owned());
        }
        let scalar = Value::new(operation.operands.get(3), Kind::U32)?;
        Ok(Self { index, offset, descriptor, scalar, immediate: operation.number("offset").unwrap_or(0) as u32 })
    }

    fn lane<const W: usize>(&self, wave: &Wave<W>, lane: usize, bytes: u32) -> Result<At, Flow> {
        let descriptor = Descriptor::read(wave, self.descriptor);
        let of = |register: Option<usize>| register.map_or(0, |r| wave.vectors[r][lane]);
        let (index, offset) = (of(self.index), of(self.offset).wrapping_add(self.immediate));
        let scalar = self.scalar.get32(wave);
        if descriptor.is_scratch() && self.index.is_none() {
            // The scalar offset counts bytes of the whole wave, the others those of a lane.
            return Ok(At::Scratch(offset.wrapping_add(scalar / W as u32)));
        }
        if descriptor.swizzled {
            return Err(Flow::fault(FaultKind::Unsupported("a swizzled buffer".to_owned()), Some(lane)));
        }
        let inside = if descriptor.stride == 0 {
            u64::from(offset) + u64::from(scalar) + u64::from(bytes) <= u64::from(descriptor.records)
        } else {
            index < descriptor.records && (self.offset.is_none() || offset < descriptor.stride)
        };
        let at = u64::from(index) * u64::from(descriptor.stride) + u64::from(offset) + u64::from(scalar);
        Ok(if inside { At::Global(descriptor.base + at) } else { At::Nowhere })
    }
}

pub(crate) fn build<const W: usize>(operation: &Operation, context: &Context) -> Result<Run<W>, Lack> {
    let lack = || operation.name.clone();
    if operation.has("lds") || operation.has("tfe") {
        return Err(format!("{} into LDS or with a status", operation.name));
    }
    let rest = operation.name.strip_prefix("buffer_").ok_or_else(lack)?;
    if let Some(of) = rest.strip_prefix("load_") {
        return load(operation, shape(of).ok_or_else(lack)?, context);
    }
    if let Some(of) = rest.strip_prefix("store_") {
        return store(operation, shape(of).ok_or_else(lack)?, context);
    }
    Err(lack())
}

fn load<const W: usize>(operation: &Operation, shape: Shape, context: &Context) -> Result<Run<W>, Lack> {
    let words = shape.words();
    let target = destination(operation.operands.first(), words as u16, context)?;
    let address = Address::new(operation, context)?;
    let bytes = shape.bytes;
    Ok(Box::new(move |wave, group| {
        for lane in lanes(wave.exec()) {
            let at = match address.lane(wave, lane, bytes) {
                Ok(at) => at,
                Err(flow) => return flow,
            };
            match at {
                At::Scratch(at) => group.note(|| access(Space::Scratch, Mode::Load, at.into(), bytes, lane)),
                At::Global(at) => group.note(|| access(Space::Global, Mode::Load, at, bytes, lane)),
                At::Nowhere => {}
            }
            for word in 0..words {
                let value = match at {
                    At::Nowhere => 0,
                    At::Scratch(at) => {
                        match near_load(wave, group, Space::Scratch, at.wrapping_add(4 * word), bytes.min(4), lane) {
                            Ok(value) => value,
                            Err(flow) => return flow,
                        }
                    }
                    At::Global(at) => {
                        let at = at + 4 * u64::from(word);
                        let Some((allocation, offset)) = group.memory.find(at, bytes.min(4), &mut group.hint) else {
                            return outside("load", group, at, bytes, Some(lane));
                        };
                        allocation.read32(offset)
                    }
                };
                let slot = &mut wave.vectors[target + word as usize][lane];
                *slot = shape.place(value, *slot);
            }
        }
        Flow::Next
    }))
}

fn store<const W: usize>(operation: &Operation, shape: Shape, context: &Context) -> Result<Run<W>, Lack> {
    let words = shape.words();
    let data = destination(operation.operands.first(), words as u16, context)?;
    let address = Address::new(operation, context)?;
    let bytes = shape.bytes;
    let upper = shape.half == Some(Half::High) || operation.operands[0].half == Some(Half::High);
    Ok(Box::new(move |wave, group| {
        for lane in lanes(wave.exec()) {
            let at = match address.lane(wave, lane, bytes) {
                Ok(at) => at,
                Err(flow) => return flow,
            };
            match at {
                At::Scratch(at) => group.note(|| access(Space::Scratch, Mode::Store, at.into(), bytes, lane)),
                At::Global(at) => group.note(|| access(Space::Global, Mode::Store, at, bytes, lane)),
                At::Nowhere => {}
            }
            for word in 0..words {
                let value = wave.vectors[data + word as usize][lane] >> if upper { 16 } else { 0 };
                match at {
                    At::Nowhere => {}
                    At::Scratch(at) => {
                        let at = at.wrapping_add(4 * word);
                        if let Err(flow) = near_store(wave, group, Space::Scratch, at, value, bytes.min(4), lane) {
                            return flow;
                        }
                    }
                    At::Global(at) => {
                        let at = at + 4 * u64::from(word);
                        let Some((allocation, offset)) = group.memory.find(at, bytes.min(4), &mut group.hint) else {
                            return outside("store", group, at, bytes, Some(lane));
                        };
                        if !allocation.writable {
                            return Flow::fault(FaultKind::ReadOnly(at), Some(lane));
                        }
                        allocation.write(offset, value, bytes.min(4));
                    }
                }
            }
        }
        Flow::Next
    }))
}
