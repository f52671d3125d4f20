//! Atomics: what they make of the old value and their data, and how they do it in memory.

use super::access::{Addresses, Space, access, near_update, outside};
use super::float::{from_bfloat, from_half, to_bfloat, to_half};
use super::source::destination;
use super::{Context, Lack, Run};
use crate::FaultKind;
use crate::instruction::Operation;
use crate::operand::Operand;
use crate::sanitizer::{Access, Mode};
use crate::wave::{Flow, lanes};

/// New value of the old one, the data and the second datum (the new value of a compare-and-swap).
pub(crate) type Update32 = fn(u32, u32, u32) -> u32;
pub(crate) type Update64 = fn(u64, u64, u64) -> u64;

fn float(f: fn(f32, f32) -> f32, a: u32, b: u32) -> u32 {
    f(f32::from_bits(a), f32::from_bits(b)).to_bits()
}

/// Both halves of a word.
fn halves(f: fn(u32, u32) -> u32, a: u32, b: u32) -> u32 {
    f(a & 0xffff, b & 0xffff) | f(a >> 16, b >> 16) << 16
}

/// Of a name without its family: `add_u32`.
pub(crate) fn find32(name: &str) -> Option<Update32> {
    Some(match name {
        "add_u32" => |old, data, _| old.wrapping_add(data),
        "sub_u32" => |old, data, _| old.wrapping_sub(data),
        "rsub_u32" => |old, data, _| data.wrapping_sub(old),
        "inc_u32" => |old, data, _| if old >= data { 0 } else { old + 1 },
        "dec_u32" => |old, data, _| if old == 0 || old > data { data } else { old - 1 },
        "min_u32" => |old, data, _| old.min(data),
        "max_u32" => |old, data, _| old.max(data),
        "min_i32" => |old, data, _| old.cast_signed().min(data.cast_signed()).cast_unsigned(),
        "max_i32" => |old, data, _| old.cast_signed().max(data.cast_signed()).cast_unsigned(),
        "and_b32" => |old, data, _| old & data,
        "or_b32" => |old, data, _| old | data,
        "xor_b32" => |old, data, _| old ^ data,
        "swap_b32" => |_, data, _| data,
        "add_f32" => |old, data, _| float(|a, b| a + b, old, data),
        "min_f32" => |old, data, _| float(super::float::minimum, old, data),
        "fmin" => |old, data, _| float(super::float::minimum, old, data),
        "fmax" => |old, data, _| float(super::float::maximum, old, data),
        "pk_add_f16" => |old, data, _| halves(|a, b| to_half(from_half(a) + from_half(b)), old, data),
        "pk_add_bf16" => |old, data, _| halves(|a, b| to_bfloat(from_bfloat(a) + from_bfloat(b)), old, data),
        "max_f32" => |old, data, _| float(super::float::maximum, old, data),
        // Global memory: data, then what is compared; the callers give them in this order.
        "cmpswap_b32" => |old, data, compare| if old == compare { data } else { old },
        _ => return None,
    })
}

/// Of 64 bits.
pub(crate) fn find64(name: &str) -> Option<Update64> {
    Some(match name {
        "add_u64" => |old, data, _| old.wrapping_add(data),
        "sub_u64" => |old, data, _| old.wrapping_sub(data),
        "inc_u64" => |old, data, _| if old >= data { 0 } else { old + 1 },
        "dec_u64" => |old, data, _| if old == 0 || old > data { data } else { old - 1 },
        "min_u64" => |old, data, _| old.min(data),
        "max_u64" => |old, data, _| old.max(data),
        "min_i64" => |old, data, _| old.cast_signed().min(data.cast_signed()).cast_unsigned(),
        "max_i64" => |old, data, _| old.cast_signed().max(data.cast_signed()).cast_unsigned(),
        "and_b64" => |old, data, _| old & data,
        "or_b64" => |old, data, _| old | data,
        "xor_b64" => |old, data, _| old ^ data,
        "swap_b64" => |_, data, _| data,
        "cmpswap_b64" => |old, data, compare| if old == compare { data } else { old },
        "min_f64" => |old, data, _| f64::from_bits(old).min(f64::from_bits(data)).to_bits(),
        "max_f64" => |old, data, _| f64::from_bits(old).max(f64::from_bits(data)).to_bits(),
        "rsub_u64" => |old, data, _| data.wrapping_sub(old),
        "add_f64" => |old, data, _| (f64::from_bits(old) + f64::from_bits(data)).to_bits(),
        _ => return None,
    })
}

/// Whether an atomic of global memory gives the old value back.
pub(crate) fn returns(operation: &Operation) -> bool {
    operation.has("glc") || operation.has("sc0") || operation.modifiers.get("th").is_some_and(|t| t.contains("ATOMIC_RETURN"))
}

/// The atomic `of` (`add_u32`) of each lane: `data` is its datum, with what is compared behind it, `target` gets the old value.
/// What lies outside of a buffer isn't changed; which old value comes back from there isn't published.
pub(super) fn update<const W: usize>(
    of: &str,
    target: Option<&Operand>,
    data: Option<&Operand>,
    addresses: impl Addresses,
    context: &Context,
) -> Result<Run<W>, Lack> {
    let wide = of.ends_with("64");
    let words: u16 = if wide { 2 } else { 1 };
    let target = target.map(|t| destination(Some(t), words, context)).transpose()?;
    let swaps = of.starts_with("cmpswap");
    let data = destination(data, if swaps { 2 * words } else { words }, context)?;
    let compare = data + usize::from(words);
    let (narrow, long) = (find32(of), find64(of));
    if narrow.is_none() && long.is_none() {
        return Err(format!("atomic {of}"));
    }
    let bytes = 4 * u32::from(words);
    Ok(Box::new(move |wave, group| {
        let base = addresses.base(wave);
        for lane in lanes(wave.exec()) {
            let (space, at) = match addresses.lane(base, wave, lane, bytes) {
                Ok(Some(at)) => at,
                Ok(None) if target.is_none() => continue,
                Ok(None) => {
                    let what = "the result of an atomic outside of its buffer".to_owned();
                    return Flow::fault(FaultKind::Unsupported(what), Some(lane));
                }
                Err(flow) => return flow,
            };
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
