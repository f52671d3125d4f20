//! LDS: loads, stores, atomics, and the permutations that use its crossbar.

use super::source::{destination, register};
use super::vector::vector_operand;
use super::{Context, Lack, Run, atomic};
use crate::FaultKind;
use crate::instruction::Operation;
use crate::sanitizer::{Access, Mode, Space};
use crate::wave::{Flow, Group, Wave, lanes};

/// Reads `bytes` (1, 2 or 4) of LDS, zero-extended.
fn load(lds: &[u8], offset: u32, bytes: u32) -> Option<u32> {
    let at = offset as usize;
    let mut word = [0; 4];
    word[..bytes as usize].copy_from_slice(lds.get(at..at.checked_add(bytes as usize)?)?);
    Some(u32::from_le_bytes(word))
}

fn store(lds: &mut [u8], offset: u32, value: u32, bytes: u32) -> Option<()> {
    let at = offset as usize;
    let target = lds.get_mut(at..at.checked_add(bytes as usize)?)?;
    target.copy_from_slice(&value.to_le_bytes()[..bytes as usize]);
    Some(())
}

fn outside(what: &'static str, group: &Group, offset: u32, bytes: u32, lane: usize) -> Flow {
    Flow::fault(FaultKind::LdsOutOfBounds { what, offset, bytes, size: group.lds.len() as u32 }, Some(lane))
}

/// An access as the sanitizer sees it. In the unaligned mode that HSA asks for (gfx9 and later), single loads and stores may have any
/// address; those of two places are made of aligned elements, and atomics are aligned in any mode. Source: LLVM's lowering of LDS
/// accesses (`unaligned-access-mode`), the ISA references' "LDS" chapters.
fn access(mode: Mode, offset: u32, bytes: u32, alignment: u32, lane: usize) -> Access {
    Access { space: Space::Lds, mode, address: offset.into(), bytes, alignment, lane: Some(lane as u8) }
}

/// Bytes of a type name and whether it is signed: `b32`, `u8`, `i16`.
fn width(of: &str) -> Option<(u32, bool)> {
    let bits: u32 = of.get(1..)?.parse().ok()?;
    Some((bits / 8, of.starts_with('i')))
}

fn sign_extend(value: u32, bytes: u32, signed: bool) -> u32 {
    if !signed || bytes == 4 {
        return value;
    }
    let shift = 32 - 8 * bytes;
    ((value << shift).cast_signed() >> shift).cast_unsigned()
}

pub(crate) fn build<const W: usize>(operation: &Operation, context: &Context) -> Result<Run<W>, Lack> {
    let name = operation.name.as_str();
    if operation.has("gds") {
        return Err("GDS".to_owned());
    }
    let rest = name.strip_prefix("ds_").unwrap_or(name);
    match rest {
        "bpermute_b32" => return permute(operation, context, true),
        "permute_b32" => return permute(operation, context, false),
        "swizzle_b32" => return swizzle(operation, context),
        "nop" => return Ok(Box::new(|_, _| Flow::Next)),
        _ => {}
    }
    if let Some(of) = rest.strip_prefix("load_2addr_") {
        return load_two(operation, of, context);
    }
    if let Some(of) = rest.strip_prefix("store_2addr_") {
        return store_two(operation, of, context);
    }
    if let Some(of) = rest.strip_prefix("load_") {
        return load_one(operation, of, context);
    }
    if let Some(of) = rest.strip_prefix("store_") {
        return store_one(operation, of, context);
    }
    update(operation, rest, context)
}

fn offset(operation: &Operation) -> Result<u32, Lack> {
    match operation.number("offset") {
        None if operation.has("offset") => Err(format!("offset:{}", operation.modifiers["offset"])),
        offset => Ok(offset.unwrap_or(0) as u32),
    }
}

/// Which part of a register a 16-bit access means: `d16_hi_b16` → (`b16`, upper, keeps the rest).
fn part(of: &str) -> (&str, bool, bool) {
    match of.strip_prefix("d16_hi_").or_else(|| of.strip_suffix("_d16_hi")) {
        Some(of) => (of, true, true),
        None => match of.strip_prefix("d16_").or_else(|| of.strip_suffix("_d16")) {
            Some(of) => (of, false, true),
            None => (of, false, false),
        },
    }
}

fn load_one<const W: usize>(operation: &Operation, of: &str, context: &Context) -> Result<Run<W>, Lack> {
    let (of, upper, half) = part(of);
    let (bytes, signed) = width(of).ok_or_else(|| operation.name.clone())?;
    let words = bytes.div_ceil(4).max(1);
    let target = destination(operation.operands.first(), words as u16, context)?;
    let address = usize::from(vector_operand(operation.operands.get(1))?);
    register(address as u16, context)?;
    let base = offset(operation)?;
    Ok(Box::new(move |wave, group| {
        for lane in lanes(wave.exec()) {
            let at = wave.vectors[address][lane].wrapping_add(base);
            group.note(|| access(Mode::Load, at, bytes, 1, lane));
            for word in 0..words {
                let n = bytes.min(4);
                let Some(value) = load(&group.lds, at.wrapping_add(4 * word), n) else {
                    return outside("load", group, at, bytes, lane);
                };
                let value = sign_extend(value, n, signed);
                let slot = &mut wave.vectors[target + word as usize][lane];
                *slot = match (half, upper) {
                    (false, _) => value,
                    (true, false) => *slot & 0xffff_0000 | value & 0xffff,
                    (true, true) => *slot & 0xffff | value << 16,
                };
            }
        }
        Flow::Next
    }))
}

fn store_one<const W: usize>(operation: &Operation, of: &str, context: &Context) -> Result<Run<W>, Lack> {
    let (of, upper, _) = part(of);
    let (bytes, _) = width(of).ok_or_else(|| operation.name.clone())?;
    let words = bytes.div_ceil(4).max(1);
    let address = usize::from(vector_operand(operation.operands.first())?);
    let data = destination(operation.operands.get(1), words as u16, context)?;
    let upper = upper || operation.operands[1].half == Some(crate::operand::Half::High);
    register(address as u16, context)?;
    let base = offset(operation)?;
    Ok(Box::new(move |wave, group| {
        for lane in lanes(wave.exec()) {
            let at = wave.vectors[address][lane].wrapping_add(base);
            group.note(|| access(Mode::Store, at, bytes, 1, lane));
            for word in 0..words {
                let value = wave.vectors[data + word as usize][lane] >> if upper { 16 } else { 0 };
                if store(&mut group.lds, at.wrapping_add(4 * word), value, bytes.min(4)).is_none() {
                    return outside("store", group, at, bytes, lane);
                }
            }
        }
        Flow::Next
    }))
}

/// Offsets of the two accesses in bytes, and words of each.
fn two(operation: &Operation, of: &str) -> Result<([u32; 2], u32), Lack> {
    let (of, stride) = of.strip_prefix("stride64_").map_or((of, 1), |of| (of, 64));
    let (bytes, _) = width(of).filter(|(b, _)| [4, 8].contains(b)).ok_or_else(|| operation.name.clone())?;
    let offset = |key| operation.number(key).unwrap_or(0) as u32 * stride * bytes;
    Ok(([offset("offset0"), offset("offset1")], bytes / 4))
}

fn load_two<const W: usize>(operation: &Operation, of: &str, context: &Context) -> Result<Run<W>, Lack> {
    let (offsets, words) = two(operation, of)?;
    let target = destination(operation.operands.first(), 2 * words as u16, context)?;
    let address = usize::from(vector_operand(operation.operands.get(1))?);
    register(address as u16, context)?;
    Ok(Box::new(move |wave, group| {
        for lane in lanes(wave.exec()) {
            // The destination may be the address register.
            let base = wave.vectors[address][lane];
            let mut slot = target;
            for offset in offsets {
                group.note(|| access(Mode::Load, base.wrapping_add(offset), 4 * words, 4 * words, lane));
                for word in 0..words {
                    let at = base.wrapping_add(offset + 4 * word);
                    let Some(value) = load(&group.lds, at, 4) else { return outside("load", group, at, 4, lane) };
                    wave.vectors[slot][lane] = value;
                    slot += 1;
                }
            }
        }
        Flow::Next
    }))
}

fn store_two<const W: usize>(operation: &Operation, of: &str, context: &Context) -> Result<Run<W>, Lack> {
    let (offsets, words) = two(operation, of)?;
    let address = usize::from(vector_operand(operation.operands.first())?);
    register(address as u16, context)?;
    let data = [
        destination(operation.operands.get(1), words as u16, context)?,
        destination(operation.operands.get(2), words as u16, context)?,
    ];
    Ok(Box::new(move |wave, group| {
        for lane in lanes(wave.exec()) {
            for (offset, data) in offsets.into_iter().zip(data) {
                let base = wave.vectors[address][lane];
                group.note(|| access(Mode::Store, base.wrapping_add(offset), 4 * words, 4 * words, lane));
                for word in 0..words {
                    let at = base.wrapping_add(offset + 4 * word);
                    let value = wave.vectors[data + word as usize][lane];
                    if store(&mut group.lds, at, value, 4).is_none() {
                        return outside("store", group, at, 4, lane);
                    }
                }
            }
        }
        Flow::Next
    }))
}

/// `add_u32`, `add_rtn_u32`, … Each lane in turn.
fn update<const W: usize>(operation: &Operation, rest: &str, context: &Context) -> Result<Run<W>, Lack> {
    // gfx9 and gfx10 put the type first: `add_rtn_u32` all the same.
    let returns = rest.contains("_rtn_");
    let mut plain = rest.replace("_rtn_", "_");
    // Up to gfx10 what is compared comes first.
    let compares_first = plain.starts_with("cmpst_");
    for (old, new) in [("wrxchg_", "swap_"), ("storexchg_", "swap_"), ("cmpst_", "cmpswap_"), ("cmpstore_", "cmpswap_")] {
        if let Some(rest) = plain.strip_prefix(old) {
            plain = format!("{new}{rest}");
        }
    }
    let (narrow, long) = (atomic::find32(&plain), atomic::find64(&plain));
    if narrow.is_none() && long.is_none() {
        return Err(operation.name.clone());
    }
    let wide = narrow.is_none();
    let words = if wide { 2 } else { 1 };
    let target = if returns { Some(destination(operation.operands.first(), words, context)?) } else { None };
    let rest = &operation.operands[usize::from(returns)..];
    let address = usize::from(vector_operand(rest.first())?);
    let first = destination(rest.get(1), words, context)?;
    let second = rest.get(2).map(|o| destination(Some(o), words, context)).transpose()?;
    let (data, other) = match second {
        Some(second) if compares_first => (second, Some(first)),
        other => (first, other),
    };
    register(address as u16, context)?;
    let base = offset(operation)?;
    Ok(Box::new(move |wave, group| {
        for lane in lanes(wave.exec()) {
            let at = wave.vectors[address][lane].wrapping_add(base);
            let bytes = 4 * u32::from(words);
            group.note(|| access(Mode::Atomic, at, bytes, bytes, lane));
            let read = |at: u32| load(&group.lds, at, 4).map(u64::from);
            let high = if wide { read(at.wrapping_add(4)) } else { Some(0) };
            let (Some(low), Some(high)) = (read(at), high) else { return outside("atomic", group, at, bytes, lane) };
            let word = |register: usize| u64::from(wave.vectors[register][lane]);
            let datum = |register: usize| if wide { word(register + 1) << 32 | word(register) } else { word(register) };
            let (old, value, other) = (high << 32 | low, datum(data), other.map_or(0, datum));
            let new = match (narrow, long) {
                (Some(f), _) => f(old as u32, value as u32, other as u32).into(),
                (None, Some(f)) => f(old, value, other),
                (None, None) => old,
            };
            let _ = store(&mut group.lds, at, new as u32, 4);
            if wide {
                let _ = store(&mut group.lds, at.wrapping_add(4), (new >> 32) as u32, 4);
            }
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

/// `pull`: each lane reads the one it names; else it sends to it. Addresses are four times the lane.
fn permute<const W: usize>(operation: &Operation, context: &Context, pull: bool) -> Result<Run<W>, Lack> {
    let target = destination(operation.operands.first(), 1, context)?;
    let address = usize::from(vector_operand(operation.operands.get(1))?);
    let data = usize::from(vector_operand(operation.operands.get(2))?);
    register(address as u16, context)?;
    register(data as u16, context)?;
    let base = offset(operation)?;
    let whole = context.arch.pulls_from_whole_wave();
    if W == 64 && !pull && whole && context.arch.has_wave32() {
        return Err("ds_permute_b32 in waves of 64 (whether it crosses their halves is not published for gfx12)".to_owned());
    }
    let within = if whole { W } else { 32 };
    Ok(Box::new(move |wave, _| {
        let exec = wave.exec();
        let values = wave.vectors[data];
        let mut out = [0; W];
        for lane in lanes(exec) {
            let other = (wave.vectors[address][lane].wrapping_add(base) / 4) as usize % within + lane / within * within;
            if pull {
                // Inactive lanes give 0.
                out[lane] = if exec >> other & 1 == 1 { values[other] } else { 0 };
            } else {
                out[other] = values[lane];
            }
        }
        wave.write(target, &out, exec);
        Flow::Next
    }))
}

/// The lane each lane reads. Source: `ds_swizzle_b32` in the ISA references; LLVM prints the common patterns as words.
fn swizzled(pattern: &str, lane: usize) -> Option<usize> {
    let inner = pattern.strip_prefix("swizzle(")?.strip_suffix(')')?;
    let mut parts = inner.split(',').map(str::trim);
    let kind = parts.next()?;
    let rest: Vec<&str> = parts.collect();
    let number = |at: usize| rest.get(at)?.parse::<usize>().ok();
    match kind {
        "SWAP" => Some(lane ^ number(0)?),
        "REVERSE" => Some(lane ^ (number(0)? - 1)),
        "BROADCAST" => Some(lane / number(0)? * number(0)? + number(1)?),
        "QUAD_PERM" => Some(lane / 4 * 4 + number(lane % 4)?),
        "BITMASK_PERM" => {
            let mask = rest.first()?.trim_matches('"');
            let mut to = 0;
            for (at, c) in mask.chars().enumerate() {
                let bit = 4usize.checked_sub(at)?;
                to |= match c {
                    '0' => 0,
                    '1' => 1 << bit,
                    'p' => lane & 1 << bit,
                    'i' => !lane & 1 << bit,
                    _ => return None,
                };
            }
            Some(lane / 32 * 32 + to)
        }
        _ => None,
    }
}

fn swizzle<const W: usize>(operation: &Operation, context: &Context) -> Result<Run<W>, Lack> {
    let target = destination(operation.operands.first(), 1, context)?;
    let source = usize::from(vector_operand(operation.operands.get(1))?);
    register(source as u16, context)?;
    let pattern = operation.modifiers.get("offset").map_or("", String::as_str);
    let mut from = [0; W];
    for (lane, from) in from.iter_mut().enumerate() {
        *from = if pattern.is_empty() { lane / 4 * 4 } else { swizzled(pattern, lane).filter(|&l| l < W).ok_or(pattern)? };
    }
    Ok(Box::new(move |wave: &mut Wave<W>, _| {
        let exec = wave.exec();
        let values = &wave.vectors[source];
        let mut out = [0; W];
        for lane in lanes(exec) {
            out[lane] = if exec >> from[lane] & 1 == 1 { values[from[lane]] } else { 0 };
        }
        wave.write(target, &out, exec);
        Flow::Next
    }))
}
