//! Scalar loads, and vector loads, stores and atomics of global memory, LDS (flat) and scratch.

use super::scalar::Value;
use super::source::{Kind, destination, register};
use super::{Context, Lack, Run, atomic};
use crate::FaultKind;
use crate::instruction::Operation;
use crate::operand::{Half, NULL, Operand, Place};
use crate::sanitizer::{self, Access, Mode};
use crate::wave::{Flow, Group, PRIVATE_APERTURE, SHARED_APERTURE, Wave, lanes};

/// `s_load_b128 s[0:3], s[4:5], 0x10` or `…, s8 offset:0x10`.
pub(crate) fn scalar_load<const W: usize>(operation: &Operation) -> Result<Run<W>, Lack> {
    let words: u8 = match operation.name.rsplit_once('_').map_or("", |(_, width)| width) {
        "b32" => 1,
        "b64" => 2,
        "b96" => 3,
        "b128" => 4,
        "b256" => 8,
        "b512" => 16,
        _ => return Err(operation.name.clone()),
    };
    if operation.name.starts_with("s_buffer_") {
        return Err(operation.name.clone());
    }
    let target = super::scalar::target(operation)?;
    if usize::from(target) + usize::from(words) > usize::from(NULL) {
        return Err("destination beyond the scalar registers".to_owned());
    }
    let base = Value::new(operation.operands.get(1), Kind::U64)?;
    let offset = operation.operands.get(2).map_or(Ok(Value::Constant(0)), |o| Value::new(Some(o), Kind::U32))?;
    let more = operation.number("offset").unwrap_or(0);
    // An immediate is signed, a register's value isn't.
    let signed = matches!(offset, Value::Constant(_));
    Ok(Box::new(move |wave, group| {
        let offset = offset.get32(wave);
        let offset = if signed { i64::from(offset.cast_signed()) } else { i64::from(offset) };
        let (base, bytes) = (base.get64(wave), 4 * u32::from(words));
        group.note(|| Access {
            space: sanitizer::Space::Global,
            mode: Mode::Load,
            address: base.wrapping_add_signed(offset).wrapping_add_signed(more),
            bytes,
            alignment: 4,
            lane: None,
        });
        let address = (base & !3).wrapping_add_signed(offset).wrapping_add_signed(more) & !3;
        let Some((allocation, at)) = group.memory.find(address, bytes, &mut group.hint) else {
            return outside("load", group, address, bytes, None);
        };
        for word in 0..words {
            wave.set_scalar(target + word, allocation.read32(at + 4 * usize::from(word)));
        }
        Flow::Next
    }))
}

pub(super) fn outside(what: &'static str, group: &Group, address: u64, bytes: u32, lane: Option<usize>) -> Flow {
    Flow::fault(FaultKind::OutOfBounds { what, address, bytes, near: group.memory.describe(address) }, lane)
}

/// How the address of a lane is put together.
struct Address {
    /// 64 or 32 bits in vector registers.
    vector: Option<(usize, bool)>,
    /// 64 (global) or 32 bits (scratch) in scalar registers.
    scalar: Option<u8>,
    offset: i64,
    space: Space,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    Global,
    Flat,
    Scratch,
}

impl Address {
    /// Of the address operand and the scalar one, as they follow in the text.
    fn new(operation: &Operation, vector: Option<&Operand>, scalar: Option<&Operand>, context: &Context) -> Result<Self, Lack> {
        let space = match operation.name.split_once('_').map_or("", |(family, _)| family) {
            "global" => Space::Global,
            "flat" => Space::Flat,
            "scratch" => Space::Scratch,
            other => return Err(format!("{other} addresses")),
        };
        let vector = match vector.map(|o| o.place) {
            Some(Place::Vector { first, count }) => {
                register(first + u16::from(count) - 1, context)?;
                Some((register(first, context)?, count == 2))
            }
            Some(Place::Off) | None => None,
            other => return Err(format!("address {other:?}")),
        };
        let scalar = match scalar.map(|o| o.place) {
            Some(Place::Scalar { first, .. }) if first != NULL => Some(first),
            Some(Place::Off | Place::Scalar { .. }) | None => None,
            other => return Err(format!("address {other:?}")),
        };
        Ok(Self { vector, scalar, offset: operation.number("offset").unwrap_or(0), space })
    }

    #[inline]
    fn base<const W: usize>(&self, wave: &Wave<W>) -> u64 {
        let scalar = match (self.scalar, self.space) {
            (Some(s), Space::Scratch) => wave.scalars[usize::from(s)].into(),
            (Some(s), _) => wave.pair(s),
            (None, _) => 0,
        };
        scalar.wrapping_add_signed(self.offset)
    }

    #[inline]
    fn lane<const W: usize>(&self, base: u64, wave: &Wave<W>, lane: usize) -> u64 {
        match self.vector {
            None => base,
            Some((first, false)) => base.wrapping_add(wave.vectors[first][lane].into()),
            Some((first, true)) => {
                let (low, high) = (wave.vectors[first][lane], wave.vectors[first + 1][lane]);
                base.wrapping_add(u64::from(high) << 32 | u64::from(low))
            }
        }
    }

    /// Which memory a lane's address means, and the address there.
    fn resolve(&self, address: u64) -> (Space, u64) {
        match (self.space, (address >> 32) as u32) {
            (Space::Flat, SHARED_APERTURE) => (Space::Flat, address & 0xffff_ffff),
            (Space::Flat, PRIVATE_APERTURE) => (Space::Scratch, address & 0xffff_ffff),
            (Space::Flat, _) => (Space::Global, address),
            (space, _) => (space, if space == Space::Scratch { address & 0xffff_ffff } else { address }),
        }
    }
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
    pub(super) bytes: u32,
    signed: bool,
    pub(super) half: Option<Half>,
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
    pub(super) fn words(self) -> u32 {
        self.bytes.div_ceil(4)
    }

    /// A value as it is put into a register that held `old`.
    pub(super) fn place(self, value: u32, old: u32) -> u32 {
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

/// Cache control and the like, named as instructions.
const NOTHING: &[&str] = &[
    "buffer_gl0_inv",
    "buffer_gl1_inv",
    "buffer_inv",
    "buffer_wbl2",
    "buffer_wbinvl1",
    "buffer_wbinvl1_vol",
    "global_inv",
    "global_wb",
    "global_wbinv",
];

pub(crate) fn build<const W: usize>(operation: &Operation, context: &Context) -> Result<Run<W>, Lack> {
    let name = operation.name.as_str();
    if NOTHING.contains(&name) {
        return Ok(Box::new(|_, _| Flow::Next));
    }
    if name.starts_with("buffer_") {
        return super::buffer::build(operation, context);
    }
    if operation.has("lds") {
        return Err("load into LDS".to_owned());
    }
    let (_, rest) = name.split_once('_').ok_or_else(|| name.to_owned())?;
    if let Some(of) = rest.strip_prefix("load_") {
        let shape = shape(of).ok_or_else(|| name.to_owned())?;
        return load(operation, shape, context);
    }
    if let Some(of) = rest.strip_prefix("store_") {
        let shape = shape(of).ok_or_else(|| name.to_owned())?;
        return store(operation, shape, context);
    }
    if let Some(of) = rest.strip_prefix("atomic_") {
        return update(operation, of, context);
    }
    Err(name.to_owned())
}

fn load<const W: usize>(operation: &Operation, shape: Shape, context: &Context) -> Result<Run<W>, Lack> {
    let words = shape.words();
    let target = destination(operation.operands.first(), words as u16, context)?;
    let address = Address::new(operation, operation.operands.get(1), operation.operands.get(2), context)?;
    let bytes = shape.bytes;
    let whole = bytes >= 4;
    Ok(Box::new(move |wave, group| {
        let base = address.base(wave);
        for lane in lanes(wave.exec()) {
            let plain = address.lane(base, wave, lane);
            let (space, at) = address.resolve(plain);
            group.note(|| access(space, Mode::Load, at, bytes, lane));
            if space != Space::Global {
                for word in 0..words {
                    let old = wave.vectors[target + word as usize][lane];
                    let value = match near_load(wave, group, space, (at as u32).wrapping_add(4 * word), bytes.min(4), lane) {
                        Ok(value) => value,
                        Err(flow) => return flow,
                    };
                    wave.vectors[target + word as usize][lane] = shape.place(value, old);
                }
                continue;
            }
            let Some((allocation, at)) = group.memory.find(at, bytes, &mut group.hint) else {
                return outside("load", group, at, bytes, Some(lane));
            };
            if whole {
                for word in 0..words as usize {
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
pub(super) fn near_load<const W: usize>(
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

fn store<const W: usize>(operation: &Operation, shape: Shape, context: &Context) -> Result<Run<W>, Lack> {
    let words = shape.words();
    let data = destination(operation.operands.get(1), words as u16, context)?;
    let upper = shape.half == Some(Half::High) || operation.operands[1].half == Some(Half::High);
    let address = Address::new(operation, operation.operands.first(), operation.operands.get(2), context)?;
    let bytes = shape.bytes;
    Ok(Box::new(move |wave, group| {
        let base = address.base(wave);
        for lane in lanes(wave.exec()) {
            let plain = address.lane(base, wave, lane);
            let (space, at) = address.resolve(plain);
            group.note(|| access(space, Mode::Store, at, bytes, lane));
            let shift = if upper { 16 } else { 0 };
            if space != Space::Global {
                for word in 0..words {
                    let value = wave.vectors[data + word as usize][lane] >> shift;
                    if let Err(flow) =
                        near_store(wave, group, space, (at as u32).wrapping_add(4 * word), value, bytes.min(4), lane)
                    {
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
            for word in 0..words as usize {
                allocation.write(offset + 4 * word, wave.vectors[data + word][lane] >> shift, bytes.min(4));
            }
        }
        Flow::Next
    }))
}

pub(super) fn near_store<const W: usize>(
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
fn near_update<const W: usize>(
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

fn update<const W: usize>(operation: &Operation, of: &str, context: &Context) -> Result<Run<W>, Lack> {
    // It gives the old value back if it says so; then the destination comes first.
    let returns = operation.has("glc")
        || operation.has("sc0")
        || operation.modifiers.get("th").is_some_and(|t| t.contains("ATOMIC_RETURN"));
    let wide = of.ends_with("64");
    let words: u16 = if wide { 2 } else { 1 };
    let target = if returns { Some(destination(operation.operands.first(), words, context)?) } else { None };
    let rest = &operation.operands[usize::from(returns)..];
    let address = Address::new(operation, rest.first(), rest.get(2), context)?;
    let swaps = of.starts_with("cmpswap");
    let data = destination(rest.get(1), if swaps { 2 * words } else { words }, context)?;
    let compare = data + usize::from(words);
    let lack = || operation.name.clone();
    if address.space == Space::Scratch {
        return Err(lack());
    }
    let (narrow, long) = (atomic::find32(of), atomic::find64(of));
    if narrow.is_none() && long.is_none() {
        return Err(lack());
    }
    Ok(Box::new(move |wave, group| {
        let base = address.base(wave);
        for lane in lanes(wave.exec()) {
            let (space, at) = address.resolve(address.lane(base, wave, lane));
            let bytes = 4 * u32::from(words);
            group.note(|| Access { alignment: bytes, ..access(space, Mode::Atomic, at, bytes, lane) });
            if at % u64::from(bytes) != 0 {
                return Flow::fault(FaultKind::Misaligned { what: "atomic", address: at, bytes }, Some(lane));
            }
            let word = |register: usize| u64::from(wave.vectors[register][lane]);
            let datum = |register: usize| if wide { word(register + 1) << 32 | word(register) } else { word(register) };
            let (value, other) = (datum(data), if swaps { datum(compare) } else { 0 });
            let new = |old: u64| match (narrow, long) {
                (Some(f), _) => f(old as u32, value as u32, other as u32).into(),
                (None, Some(f)) => f(old, value, other),
                (None, None) => old,
            };
            let old = if space == Space::Global {
                let Some((allocation, offset)) = group.memory.find(at, bytes, &mut group.hint) else {
                    return outside("atomic", group, at, bytes, Some(lane));
                };
                if !allocation.writable {
                    return Flow::fault(FaultKind::ReadOnly(at), Some(lane));
                }
                if wide {
                    allocation.update64(offset, new)
                } else {
                    allocation.update32(offset, |old| new(old.into()) as u32).into()
                }
            } else {
                match near_update(wave, group, space, at as u32, wide, lane, new) {
                    Ok(old) => old,
                    Err(flow) => return flow,
                }
            };
            if let Some(target) = target {
                wave.vectors[target][lane] = old as u32;
                if wide {
                    wave.vectors[target + 1][lane] = (old >> 32) as u32;
                }
            }
        }
        Flow::Next
    }))
}
