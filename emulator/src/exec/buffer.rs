//! Buffer instructions: scratch on gfx9 and gfx10, and untyped buffers with a descriptor.

use super::access::{Addresses, Space, load, shape, store};
use super::scalar::Value;
use super::source::{Kind, register, scalar_register};
use super::{Context, Lack, Run, atomic};
use crate::FaultKind;
use crate::instruction::Operation;
use crate::operand::Place;
use crate::wave::{Flow, Wave};

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
}

impl Addresses for Address {
    /// The scalar offset.
    fn base<const W: usize>(&self, wave: &Wave<W>) -> u64 {
        self.scalar.get32(wave).into()
    }

    fn lane<const W: usize>(&self, base: u64, wave: &Wave<W>, lane: usize, bytes: u32) -> Result<Option<(Space, u64)>, Flow> {
        let descriptor = Descriptor::read(wave, self.descriptor);
        let of = |register: Option<usize>| register.map_or(0, |r| wave.vectors[r][lane]);
        let (index, offset) = (of(self.index), of(self.offset).wrapping_add(self.immediate));
        if descriptor.is_scratch() && self.index.is_none() {
            // The scalar offset counts bytes of the whole wave, the others those of a lane.
            return Ok(Some((Space::Scratch, offset.wrapping_add(base as u32 / W as u32).into())));
        }
        if descriptor.swizzled {
            return Err(Flow::fault(FaultKind::Unsupported("a swizzled buffer".to_owned()), Some(lane)));
        }
        let inside = if descriptor.stride == 0 {
            u64::from(offset) + base + u64::from(bytes) <= u64::from(descriptor.records)
        } else {
            index < descriptor.records && (self.offset.is_none() || offset < descriptor.stride)
        };
        let at = u64::from(index) * u64::from(descriptor.stride) + u64::from(offset) + base;
        Ok(inside.then_some((Space::Global, descriptor.base + at)))
    }
}

pub(crate) fn build<const W: usize>(operation: &Operation, context: &Context) -> Result<Run<W>, Lack> {
    let lack = || operation.name.clone();
    if operation.has("lds") || operation.has("tfe") {
        return Err(format!("{} into LDS or with a status", operation.name));
    }
    let rest = operation.name.strip_prefix("buffer_").ok_or_else(lack)?;
    if let Some(of) = rest.strip_prefix("load_") {
        return load(operation.operands.first(), Address::new(operation, context)?, shape(of).ok_or_else(lack)?, context);
    }
    if let Some(of) = rest.strip_prefix("store_") {
        return store(operation.operands.first(), Address::new(operation, context)?, shape(of).ok_or_else(lack)?, context);
    }
    if let Some(of) = rest.strip_prefix("atomic_") {
        // The old value replaces the data.
        let data = operation.operands.first();
        let target = if atomic::returns(operation) { data } else { None };
        return atomic::update(of, target, data, Address::new(operation, context)?, context);
    }
    Err(lack())
}
