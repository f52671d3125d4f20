//! Scalar instructions, branches and program control.

use super::source::constant;
use super::{Context, Kind, Lack, Run, hardware, scalar_alu};
use crate::FaultKind;
use crate::instruction::{Instruction, Operation};
use crate::operand::{EXEC, NULL, Operand, Place};
use crate::wave::{Flow, Group, Wave};
use std::collections::HashMap;
use std::sync::Arc;

/// A scalar source of 32 or 64 bits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value {
    Register(u8),
    Constant(u64),
    Special(crate::operand::Special),
}

impl Value {
    pub(crate) fn new(operand: Option<&Operand>, kind: Kind) -> Result<Self, Lack> {
        let operand = operand.ok_or("too few operands")?;
        if operand.absolute || operand.extend || operand.half.is_some() {
            return Err("modifier of a scalar operand".to_owned());
        }
        Ok(match operand.place {
            Place::Scalar { first, .. } if !operand.negate => Self::Register(first),
            Place::Special(special) if !operand.negate => Self::Special(special),
            // A literal of a 64-bit operation is extended with its sign.
            Place::Bits(bits) if kind == Kind::U64 => Self::Constant(i64::from(bits.cast_signed()).cast_unsigned()),
            place => Self::Constant(constant(place, kind).ok_or_else(|| format!("operand {place:?}"))?),
        })
    }

    #[inline]
    pub(crate) fn get32<const W: usize>(self, wave: &Wave<W>) -> u32 {
        match self {
            Self::Register(r) => wave.scalars[usize::from(r)],
            Self::Constant(c) => c as u32,
            Self::Special(s) => wave.special(s),
        }
    }

    #[inline]
    pub(crate) fn get64<const W: usize>(self, wave: &Wave<W>) -> u64 {
        match self {
            Self::Register(r) => wave.pair(r),
            Self::Constant(c) => c,
            Self::Special(s) => wave.special64(s),
        }
    }
}

/// The register an instruction writes.
pub(crate) fn target(operation: &Operation) -> Result<u8, Lack> {
    super::source::scalar_register(operation.operands.first())
}

/// Instructions about time, caches, priorities and the like, which change no value.
const NOTHING: &[&str] = &[
    "s_nop",
    "s_clause",
    "s_delay_alu",
    "s_waitcnt",
    "s_waitcnt_depctr",
    "s_waitcnt_vscnt",
    "s_waitcnt_vmcnt",
    "s_waitcnt_expcnt",
    "s_waitcnt_lgkmcnt",
    "s_wait_alu",
    "s_wait_idle",
    "s_wait_event",
    "s_sleep",
    "s_setprio",
    "s_set_inst_prefetch_distance",
    "s_sendmsg",
    "s_icache_inv",
    "s_dcache_inv",
    "s_dcache_wb",
    "s_gl1_inv",
    "s_wait_loadcnt",
    "s_wait_storecnt",
    "s_wait_dscnt",
    "s_wait_kmcnt",
    "s_wait_samplecnt",
    "s_wait_bvhcnt",
    "s_wait_expcnt",
    "s_wait_loadcnt_dscnt",
    "s_wait_storecnt_dscnt",
    "s_barrier_signal",
    "s_prefetch_inst",
    "s_prefetch_data",
    "s_version",
    "s_ttracedata",
    "s_inst_prefetch",
];

pub(crate) fn build<const W: usize>(operation: &Operation, instruction: &Instruction, context: &Context) -> Result<Run<W>, Lack> {
    let name = operation.name.as_str();
    if let Some(condition) = name.strip_prefix("s_cbranch_") {
        return branch(condition, operation, instruction, context);
    }
    if name.ends_with("_saveexec_b32") || name.ends_with("_saveexec_b64") {
        return save_exec(operation);
    }
    Ok(match name {
        // The modes must stay what the kernel descriptor says: denormals kept, nearest even.
        "s_denorm_mode" if immediate_operand(operation, 0) == Some(0xf) => Box::new(|_, _| Flow::Next),
        "s_round_mode" if immediate_operand(operation, 0) == Some(0) => Box::new(|_, _| Flow::Next),
        "s_denorm_mode" | "s_round_mode" => return Err(instruction.text.clone()),
        "s_getreg_b32" => return hardware::get(operation),
        "s_setreg_b32" | "s_setreg_imm32_b32" => return hardware::set(operation),
        "s_setpc_b64" => {
            let (to, index) = (Value::new(operation.operands.first(), Kind::U64)?, Arc::clone(context.index));
            Box::new(move |wave, group| jump(to.get64(wave), group, &index))
        }
        "s_swappc_b64" => {
            let (target, to) = (target(operation)?, Value::new(operation.operands.get(1), Kind::U64)?);
            let (next, index) = (instruction.address + u64::from(instruction.size), Arc::clone(context.index));
            Box::new(move |wave, group| {
                let address = to.get64(wave);
                wave.set_pair(target, group.code_base + next);
                jump(address, group, &index)
            })
        }
        "s_call_b64" => {
            let (target, next) = (target(operation)?, instruction.address + u64::from(instruction.size));
            let to = branch_target(operation, 1, instruction, context)?;
            Box::new(move |wave, group| {
                wave.set_pair(target, group.code_base + next);
                to.map_or_else(|address| Flow::fault(FaultKind::Jump(address), None), Flow::Jump)
            })
        }
        _ if NOTHING.contains(&name) => Box::new(|_, _| Flow::Next),
        "s_endpgm" | "s_endpgm_saved" => Box::new(|_, _| Flow::End),
        "s_code_end" => Box::new(|_, _| Flow::fault(FaultKind::Illegal, None)),
        "s_barrier" | "s_barrier_wait" => Box::new(|_, _| Flow::Barrier),
        "s_branch" => {
            let target = branch_target(operation, 0, instruction, context)?;
            Box::new(move |_, _| target.map_or_else(|address| Flow::fault(FaultKind::Jump(address), None), Flow::Jump))
        }
        "s_getpc_b64" => {
            let (target, next) = (target(operation)?, instruction.address + u64::from(instruction.size));
            Box::new(move |wave, group| {
                wave.set_pair(target, group.code_base + next);
                Flow::Next
            })
        }
        _ => scalar_alu::build(operation)?,
    })
}

/// To a loaded address.
fn jump(address: u64, group: &Group, index: &HashMap<u64, u32>) -> Flow {
    let to = address.wrapping_sub(group.code_base);
    index.get(&to).map_or_else(|| Flow::fault(FaultKind::Jump(to), None), |&to| Flow::Jump(to))
}

/// An operand that is a number.
fn immediate_operand(operation: &Operation, at: usize) -> Option<i64> {
    match operation.operands.get(at)?.place {
        Place::Integer(n) => Some(n),
        Place::Bits(n) => Some(n.into()),
        _ => None,
    }
}

/// Where a branch goes: an index, or an address that is no instruction.
fn branch_target(
    operation: &Operation,
    at: usize,
    instruction: &Instruction,
    context: &Context,
) -> Result<Result<u32, u64>, Lack> {
    let offset = match operation.operands.get(at).map(|o| o.place) {
        Some(Place::Integer(n)) => n as u16,
        Some(Place::Bits(n)) => n as u16,
        other => return Err(format!("branch to {other:?}")),
    };
    let next = instruction.address + u64::from(instruction.size);
    let address = next.wrapping_add_signed(i64::from(offset.cast_signed()) * 4);
    Ok(context.index.get(&address).copied().ok_or(address))
}

fn branch<const W: usize>(
    condition: &str,
    operation: &Operation,
    instruction: &Instruction,
    context: &Context,
) -> Result<Run<W>, Lack> {
    let holds: fn(&Wave<W>) -> bool = match condition {
        "scc0" => |w| !w.scc,
        "scc1" => |w| w.scc,
        "vccz" => |w| w.vcc() == 0,
        "vccnz" => |w| w.vcc() != 0,
        "execz" => |w| w.exec() == 0,
        "execnz" => |w| w.exec() != 0,
        other => return Err(format!("s_cbranch_{other}")),
    };
    let target = branch_target(operation, 0, instruction, context)?;
    Ok(Box::new(move |wave, _| {
        if !holds(wave) {
            return Flow::Next;
        }
        target.map_or_else(|address| Flow::fault(FaultKind::Jump(address), None), Flow::Jump)
    }))
}

/// `exec` into a register, then a function of it and a source into `exec`.
fn save_exec<const W: usize>(operation: &Operation) -> Result<Run<W>, Lack> {
    let name = operation.name.as_str();
    // Of the source and the old mask.
    let f: fn(u64, u64) -> u64 = match name.trim_start_matches("s_").rsplit_once("_saveexec").map_or("", |(f, _)| f) {
        "and" => |s, e| s & e,
        "or" => |s, e| s | e,
        "xor" => |s, e| s ^ e,
        "nand" => |s, e| !(s & e),
        "nor" => |s, e| !(s | e),
        "xnor" => |s, e| !(s ^ e),
        "and_not0" | "andn1" => |s, e| !s & e,
        "and_not1" | "andn2" => |s, e| s & !e,
        "or_not0" | "orn1" => |s, e| !s | e,
        "or_not1" | "orn2" => |s, e| s | !e,
        _ => return Err(name.to_owned()),
    };
    let wide = name.ends_with("b64");
    let target = target(operation)?;
    let source = Value::new(operation.operands.get(1), if wide { Kind::U64 } else { Kind::U32 })?;
    Ok(Box::new(move |wave, _| {
        if wide {
            let (old, value) = (wave.pair(EXEC), source.get64(wave));
            let new = f(value, old);
            wave.set_pair(target, old);
            wave.set_pair(EXEC, new);
            wave.scc = new != 0;
        } else {
            let old = wave.scalars[usize::from(EXEC)];
            let new = f(source.get32(wave).into(), old.into()) as u32;
            wave.set_scalar(target, old);
            wave.scalars[usize::from(EXEC)] = new;
            wave.scc = new != 0;
        }
        debug_assert!(wave.scalars[usize::from(NULL)] == 0);
        Flow::Next
    }))
}
