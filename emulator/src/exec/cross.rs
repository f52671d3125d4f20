//! Instructions across lanes: DPP, permutations, reading and writing single lanes, relative registers.

use super::source::{Kind, Source, destination, register, scalar_register};
use super::vector::{fetch, inputs, vector_operand};
use super::{Context, Lack, Run};
use crate::FaultKind;
use crate::instruction::{Operation, parse_number};
use crate::wave::{Flow, Wave, lanes};

/// Lanes of a DPP row.
const ROW: usize = 16;

/// Data parallel primitives: which lane each lane's first source comes from.
pub(crate) struct Dpp<const W: usize> {
    /// `None`: from outside.
    from: [Option<u8>; W],
    enabled: u64,
    /// Lanes without a source read 0; else they don't write.
    zero: bool,
    /// Inactive lanes can be read.
    fetch_inactive: bool,
}

impl<const W: usize> Dpp<W> {
    pub(crate) fn new(operation: &Operation) -> Result<Self, Lack> {
        let row_mask = operation.number("row_mask").unwrap_or(0xf);
        let bank_mask = operation.number("bank_mask").unwrap_or(0xf);
        let mut enabled = 0;
        let mut from = [None; W];
        for lane in 0..W {
            let open = row_mask >> (lane / ROW) & 1 == 1 && bank_mask >> (lane % ROW / 4) & 1 == 1;
            enabled |= u64::from(open) << lane;
            from[lane] = source_lane(operation, lane, W)?.map(|l| l as u8);
        }
        // `bound_ctrl:0` is how older assemblers print the bit set.
        let zero = operation.has("bound_ctrl") || operation.has("dpp8");
        let fetch_inactive = operation.number("fi") == Some(1);
        Ok(Self { from, enabled, zero, fetch_inactive })
    }

    /// Lanes that `row_mask` and `bank_mask` let write.
    pub(crate) fn enabled(&self) -> u64 {
        self.enabled
    }

    /// Permutes; gives the lanes that are to be written.
    pub(crate) fn apply(&self, values: &[u32; W], exec: u64, out: &mut [u32; W]) -> u64 {
        let mut enabled = exec & self.enabled;
        for lane in 0..W {
            let from = self.from[lane].filter(|&l| self.fetch_inactive || exec >> l & 1 == 1);
            match from {
                Some(from) => out[lane] = values[usize::from(from)],
                None if self.zero => out[lane] = 0,
                None => {
                    out[lane] = 0;
                    enabled &= !(1 << lane);
                }
            }
        }
        enabled
    }
}

/// The lane that `lane` reads, if it is one.
fn source_lane(operation: &Operation, lane: usize, width: usize) -> Result<Option<usize>, Lack> {
    let (row, column) = (lane / ROW * ROW, lane % ROW);
    let number = |key: &str| operation.modifiers.get(key).and_then(|v| parse_number(v)).map(|n| n as usize);
    let list = |key: &str| -> Option<Vec<usize>> {
        let text = operation.modifiers.get(key)?;
        text.trim_matches(['[', ']']).split(',').map(|n| n.trim().parse().ok()).collect()
    };
    if let Some(order) = list("quad_perm").filter(|o| o.len() == 4 && o.iter().all(|&n| n < 4)) {
        return Ok(Some(lane / 4 * 4 + order[lane % 4]));
    }
    if let Some(order) = list("dpp8").filter(|o| o.len() == 8 && o.iter().all(|&n| n < 8)) {
        return Ok(Some(lane / 8 * 8 + order[lane % 8]));
    }
    if operation.has("row_mirror") {
        return Ok(Some(row + 15 - column));
    }
    if operation.has("row_half_mirror") {
        return Ok(Some(row + (column ^ 7)));
    }
    if let Some(n) = number("row_ror") {
        return Ok(Some(row + (column + ROW - n % ROW) % ROW));
    }
    if let Some(n) = number("row_shl") {
        return Ok((column + n < ROW).then_some(lane + n));
    }
    if let Some(n) = number("row_shr") {
        return Ok(column.checked_sub(n).map(|c| row + c));
    }
    if let Some(n) = number("row_xmask") {
        return Ok(Some(row + (column ^ (n % ROW))));
    }
    if let Some(n) = number("row_share").or_else(|| number("row_newbcast")) {
        return Ok(Some(row + n % ROW));
    }
    if let Some(n) = number("row_bcast") {
        // The last lane of a row (of two rows) to the whole next one; the first has none.
        return match n {
            15 => Ok((row >= ROW).then(|| row - 1)),
            31 => Ok((lane >= 32).then_some(31)),
            _ => Err(format!("row_bcast:{n}")),
        };
    }
    for (key, shift) in [("wave_shl", 1), ("wave_shr", -1)] {
        if operation.has(key) {
            return Ok(lane.checked_add_signed(shift).filter(|&l| l < width));
        }
    }
    for (key, shift) in [("wave_rol", 1), ("wave_ror", width - 1)] {
        if operation.has(key) {
            return Ok(Some((lane + shift) % width));
        }
    }
    Err("DPP control".to_owned())
}

pub(crate) fn build<const W: usize>(operation: &Operation, context: &Context) -> Result<Option<Run<W>>, Lack> {
    let operands = &operation.operands;
    Ok(Some(match operation.name.as_str() {
        "v_readfirstlane_b32" => {
            let target = scalar_register(operands.first())?;
            let source = one(operation, 1, context)?;
            Box::new(move |wave, _| {
                let exec = wave.exec();
                // Lane 0 where none is active.
                let lane = if exec == 0 { 0 } else { exec.trailing_zeros() as usize };
                let value = source.lane(wave, lane);
                wave.set_scalar(target, value);
                Flow::Next
            })
        }
        "v_readlane_b32" => {
            let target = scalar_register(operands.first())?;
            let (source, select) = (one(operation, 1, context)?, one(operation, 2, context)?);
            Box::new(move |wave, _| {
                let lane = select.lane(wave, 0) as usize % W;
                let value = source.lane(wave, lane);
                wave.set_scalar(target, value);
                Flow::Next
            })
        }
        "v_writelane_b32" => {
            let target = destination(operands.first(), 1, context)?;
            let (source, select) = (one(operation, 1, context)?, one(operation, 2, context)?);
            Box::new(move |wave, _| {
                let lane = select.lane(wave, 0) as usize % W;
                wave.vectors[target][lane] = source.lane(wave, 0);
                Flow::Next
            })
        }
        "v_mbcnt_lo_u32_b32" => count_below(operation, context, 0)?,
        "v_mbcnt_hi_u32_b32" => count_below(operation, context, 32)?,
        "v_permlane16_b32" | "v_permlane16_var_b32" => permute_rows(operation, context, 0)?,
        "v_permlanex16_b32" | "v_permlanex16_var_b32" => permute_rows(operation, context, ROW)?,
        "v_permlane16_swap_b32" => swap_rows(operation, context, ROW)?,
        "v_permlane32_swap_b32" => swap_rows(operation, context, 2 * ROW)?,
        "v_permlane64_b32" => {
            let target = destination(operands.first(), 1, context)?;
            let source = usize::from(vector_operand(operands.get(1))?);
            register(source as u16, context)?;
            Box::new(move |wave, _| {
                let values = wave.vectors[source];
                let mut out = values;
                if W == 64 {
                    out.rotate_left(W / 2);
                }
                let exec = wave.exec();
                wave.write(target, &out, exec);
                Flow::Next
            })
        }
        "v_swap_b32" => {
            let (a, b) = (destination(operands.first(), 1, context)?, destination(operands.get(1), 1, context)?);
            Box::new(move |wave, _| {
                let (first, second, exec) = (wave.vectors[a], wave.vectors[b], wave.exec());
                wave.write(a, &second, exec);
                wave.write(b, &first, exec);
                Flow::Next
            })
        }
        "v_movrels_b32" => {
            let target = destination(operands.first(), 1, context)?;
            let first = u32::from(vector_operand(operands.get(1))?);
            relative(first, context, move |wave, register, exec| {
                let value = wave.vectors[register];
                wave.write(target, &value, exec);
            })
        }
        "v_movreld_b32" => {
            let first = u32::from(vector_operand(operands.first())?);
            let source = one(operation, 1, context)?;
            relative(first, context, move |wave, register, exec| {
                let mut buffer = [0; W];
                let value = *source.lanes(wave, &mut buffer);
                wave.write(register, &value, exec);
            })
        }
        _ => return Ok(None),
    }))
}

/// A source without modifiers.
fn one(operation: &Operation, at: usize, context: &Context) -> Result<Source, Lack> {
    let operand = operation.operands.get(at).ok_or("too few operands")?;
    if operand.negate || operand.absolute || operand.extend || operand.half.is_some() {
        return Err(format!("modifier of a source of {}", operation.name));
    }
    Source::new(operand, Kind::U32, 0, context)
}

/// `m0` is added to the register's number.
fn relative<const W: usize>(
    first: u32,
    context: &Context,
    f: impl Fn(&mut Wave<W>, usize, u64) + Send + Sync + 'static,
) -> Run<W> {
    let limit = u32::from(context.vectors);
    Box::new(move |wave, _| {
        let at = first.wrapping_add(wave.m0());
        if at >= limit {
            return Flow::fault(FaultKind::NoRegister(format!("v{at}")), None);
        }
        let exec = wave.exec();
        f(wave, at as usize, exec);
        Flow::Next
    })
}

fn count_below<const W: usize>(operation: &Operation, context: &Context, base: usize) -> Result<Run<W>, Lack> {
    let target = destination(operation.operands.first(), 1, context)?;
    let inputs = inputs(operation, &operation.operands[1..], &[Kind::U32; 2], context)?;
    Ok(Box::new(move |wave, _| {
        let (mut first, mut second, mut out) = ([0; W], [0; W], [0; W]);
        let mask = fetch(&inputs[0], wave, &mut first);
        let add = fetch(&inputs[1], wave, &mut second);
        for lane in 0..W {
            // Bits of this half of the mask for lanes below this one.
            let below = match lane.checked_sub(base) {
                None => 0,
                Some(n) if n >= 32 => u32::MAX,
                Some(n) => (1 << n) - 1,
            };
            out[lane] = (mask[lane] & below).count_ones().wrapping_add(add[lane]);
        }
        let exec = wave.exec();
        wave.write(target, &out, exec);
        Flow::Next
    }))
}

/// Within rows of sixteen lanes; with `other` = 16 from the other row of the pair. Which lane is read says a nibble of two scalar
/// sources, or (`_var`) each lane of a vector one.
fn permute_rows<const W: usize>(operation: &Operation, context: &Context, other: usize) -> Result<Run<W>, Lack> {
    let target = destination(operation.operands.first(), 1, context)?;
    let source = one(operation, 1, context)?;
    let low = one(operation, 2, context)?;
    let high = if operation.name.contains("_var_") { None } else { Some(one(operation, 3, context)?) };
    let [fetch_inactive, zero, ..] = operation.list("op_sel", false);
    Ok(Box::new(move |wave, _| {
        let exec = wave.exec();
        let select = |lane: usize| match &high {
            None => low.lane(wave, lane) as usize % ROW,
            Some(high) => {
                let half = if lane % ROW < 8 { &low } else { high };
                (half.lane(wave, lane) >> (4 * (lane % 8)) & 15) as usize
            }
        };
        let mut buffer = [0; W];
        let values = source.lanes(wave, &mut buffer);
        let mut out = [0; W];
        let mut enabled = exec;
        for lane in lanes(exec) {
            let from = ((lane / ROW * ROW) ^ other) + select(lane);
            if from < W && (fetch_inactive || exec >> from & 1 == 1) {
                out[lane] = values[from];
            } else if !zero {
                enabled &= !(1 << lane);
            }
        }
        wave.write(target, &out, enabled);
        Flow::Next
    }))
}

/// Odd groups of `size` lanes of the first register change places with even ones of the second. Source: LLVM's description of
/// `llvm.amdgcn.permlane16.swap` and `permlane32.swap`; it doesn't say what inactive lanes do.
fn swap_rows<const W: usize>(operation: &Operation, context: &Context, size: usize) -> Result<Run<W>, Lack> {
    let (first, second) =
        (destination(operation.operands.first(), 1, context)?, destination(operation.operands.get(1), 1, context)?);
    let name = operation.name.clone();
    Ok(Box::new(move |wave, _| {
        if wave.exec() != Wave::<W>::FULL {
            return Flow::fault(FaultKind::Unsupported(format!("{name} with inactive lanes")), None);
        }
        for lane in (0..W).filter(|l| l & size == 0) {
            let (even, odd) = (wave.vectors[second][lane], wave.vectors[first][lane + size]);
            wave.vectors[second][lane] = odd;
            wave.vectors[first][lane + size] = even;
        }
        Flow::Next
    }))
}
