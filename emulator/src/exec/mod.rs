//! Decoded instructions as closures over the state of a wave.

mod access;
mod atomic;
mod buffer;
mod compare;
mod cross;
mod divide;
mod float;
mod fp8;
mod hardware;
mod lane;
mod lds;
mod matrix;
mod memory;
mod modifiers;
mod scalar;
mod scalar_alu;
mod source;
mod table;
mod vector;
mod wide;

use crate::instruction::{Instruction, Operation};
use crate::reserved::ILLEGAL;
use crate::wave::{Flow, Group, Wave};
use crate::{Arch, FaultKind};
pub(crate) use hardware::FLOAT_MODE;
use source::Kind;
use std::collections::HashMap;
use std::sync::Arc;

/// What an instruction does to a wave and its workgroup.
pub(crate) type Run<const W: usize> = Box<dyn Fn(&mut Wave<W>, &mut Group) -> Flow + Send + Sync>;

/// An instruction that can be executed.
pub(crate) struct Step<const W: usize> {
    pub(crate) run: Run<W>,
    /// Counts as vector work.
    pub(crate) vector: bool,
}

/// What building a step needs to know.
pub(crate) struct Context<'a> {
    pub(crate) arch: &'static Arch,
    /// Vector registers of the kernel, and accumulation registers.
    pub(crate) vectors: u16,
    pub(crate) accumulators: u16,
    /// Index of the instruction at an address.
    pub(crate) index: &'a Arc<HashMap<u64, u32>>,
}

/// Why a step can't be built: what the emulator lacks.
pub(crate) type Lack = String;

/// Makes the instruction executable. What isn't known becomes a fault if it is ever reached.
pub(crate) fn build<const W: usize>(instruction: &Instruction, context: &Context) -> Step<W> {
    let vector = instruction.operations.first().is_some_and(|o| o.name.starts_with("v_"));
    let run = match instruction.operations.as_slice() {
        [] if instruction.text == ILLEGAL => fault(FaultKind::Illegal),
        [] => fault(FaultKind::Unsupported(instruction.text.clone())),
        [one] => operation(one, instruction, context).unwrap_or_else(|lack| fault(FaultKind::Unsupported(lack))),
        [first, second, ..] => vector::pair(first, second, context).unwrap_or_else(|lack| fault(FaultKind::Unsupported(lack))),
    };
    Step { run, vector }
}

fn fault<const W: usize>(kind: FaultKind) -> Run<W> {
    Box::new(move |_, _| Flow::fault(kind.clone(), None))
}

/// Whether the emulator has the operation, whatever its operands.
pub(crate) fn operation<const W: usize>(
    operation: &Operation,
    instruction: &Instruction,
    context: &Context,
) -> Result<Run<W>, Lack> {
    let name = operation.name.as_str();
    modifiers::check(operation)?;
    match name.split_once('_').map_or(name, |(family, _)| family) {
        "s" if name.starts_with("s_load_") || name.starts_with("s_buffer_load_") => memory::scalar_load(operation),
        "s" => scalar::build(operation, instruction, context),
        "v" => vector::build(operation, context),
        "ds" => lds::build(operation, context),
        "global" | "flat" | "scratch" | "buffer" => memory::build(operation, context),
        _ => Err(format!("{name} (no such family)")),
    }
}
