//! Scalar loads, and vector loads, stores and atomics of global memory, LDS (flat) and scratch: their addresses.

use super::access::{Addresses, Space, load, outside, shape, store};
use super::scalar::Value;
use super::source::{Kind, register};
use super::{Context, Lack, Run, atomic};
use crate::instruction::Operation;
use crate::operand::{NULL, Operand, Place};
use crate::sanitizer::{self, Access, Mode};
use crate::wave::{Flow, PRIVATE_APERTURE, SHARED_APERTURE, Wave};

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
/// How the address of a lane is put together.
struct Address {
    /// 64 or 32 bits in vector registers.
    vector: Option<(usize, bool)>,
    /// 64 (global) or 32 bits (scratch) in scalar registers.
    scalar: Option<u8>,
    offset: i64,
    space: Space,
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

    /// Which memory a lane's address means, and the address there.
    #[inline]
    fn at<const W: usize>(&self, base: u64, wave: &Wave<W>, lane: usize) -> (Space, u64) {
        let address = match self.vector {
            None => base,
            Some((first, false)) => base.wrapping_add(wave.vectors[first][lane].into()),
            Some((first, true)) => {
                let (low, high) = (wave.vectors[first][lane], wave.vectors[first + 1][lane]);
                base.wrapping_add(u64::from(high) << 32 | u64::from(low))
            }
        };
        match (self.space, (address >> 32) as u32) {
            (Space::Flat, SHARED_APERTURE) => (Space::Flat, address & 0xffff_ffff),
            (Space::Flat, PRIVATE_APERTURE) => (Space::Scratch, address & 0xffff_ffff),
            (Space::Flat, _) => (Space::Global, address),
            (space, _) => (space, if space == Space::Scratch { address & 0xffff_ffff } else { address }),
        }
    }
}

impl Addresses for Address {
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
    fn lane<const W: usize>(&self, base: u64, wave: &Wave<W>, lane: usize, _bytes: u32) -> Result<Option<(Space, u64)>, Flow> {
        Ok(Some(self.at(base, wave, lane)))
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
        let address = Address::new(operation, operation.operands.get(1), operation.operands.get(2), context)?;
        return load(operation.operands.first(), address, shape, context);
    }
    if let Some(of) = rest.strip_prefix("store_") {
        let shape = shape(of).ok_or_else(|| name.to_owned())?;
        let address = Address::new(operation, operation.operands.first(), operation.operands.get(2), context)?;
        return store(operation.operands.get(1), address, shape, context);
    }
    if let Some(of) = rest.strip_prefix("atomic_") {
        return update(operation, of, context);
    }
    Err(name.to_owned())
}

fn update<const W: usize>(operation: &Operation, of: &str, context: &Context) -> Result<Run<W>, Lack> {
    // It gives the old value back if it says so; then the destination comes first.
    let returns = atomic::returns(operation);
    let target = if returns { operation.operands.first() } else { None };
    let rest = &operation.operands[usize::from(returns)..];
    let address = Address::new(operation, rest.first(), rest.get(2), context)?;
    if address.space == Space::Scratch {
        return Err(operation.name.clone());
    }
    atomic::update(of, target, rest.get(1), address, context)
}
