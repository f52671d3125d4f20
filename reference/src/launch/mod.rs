//! The meaning of a launch: what each [`FusedOp`] computes from its operands' bytes, as the kernels lay them out.
//!
//! One body per op, generic over an [`Arithmetic`]: [`exec`] runs it in f32 with the machine's vectors (the `cpu` device), [`exec_exact`] in f64
//! with every stored result rounded once (what a device's launch is compared with, see [`check`]). Products of int8 with
//! quantised weights are integers in both. Work for tokens `≥ state.n` is skipped, as are logits and arg-max before
//! `state.head_from`; `Scratch` and `Counters` are left alone.

mod arith;
mod attend;
mod check;
mod choose;
mod depth;
mod finish;
mod gemv;
mod heads;
mod operands;
mod row;
mod tracked;

pub use check::{Finding, check, strayed};

use crate::blocks::split_row;
use arith::{Arithmetic, Exact, Fast};
use hipc_ir::dtype::Layout;
use hipc_ir::fused::{FusedOp, Repack, Role};
use hipc_ir::plan::{KernelSpec, StepState};
use operands::Operands;
use thiserror::Error;
use tracked::Tracked;

/// An operand: bytes in device layout, aligned to 4 where they hold f32, i32 or caches.
#[derive(Debug)]
pub enum Arg<'a> {
    /// Only read.
    Read(&'a [u8]),
    /// Written, or read and written.
    Write(&'a mut [u8]),
}

/// A launch whose operands don't fit it. All but `BadToken` are ours: the plan or the device gave it the wrong memory.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// Another number of operands than the op has.
    #[error("internal: kernel {kernel} takes {expected} operands, got {found}")]
    Count {
        /// The kernel.
        kernel: String,
        /// Operands of the op.
        expected: usize,
        /// Operands given.
        found: usize,
    },
    /// An operand that is missing, too short, not aligned, or not writable.
    #[error("internal: operand {role:?} of kernel {kernel} {what}")]
    Operand {
        /// The kernel.
        kernel: String,
        /// The operand.
        role: Role,
        /// What is wrong.
        what: String,
    },
    /// A step outside of the context.
    #[error("internal: the step's positions {pos}..{end} don't fit the context of {ctx}")]
    State {
        /// First position.
        pos: i32,
        /// Behind the last.
        end: i32,
        /// Positions of the cache.
        ctx: u32,
    },
    /// A token outside of the vocabulary.
    #[error("token id {id} isn't in the vocabulary of {vocab} tokens")]
    BadToken {
        /// The id.
        id: i32,
        /// Rows of the embedding.
        vocab: u32,
    },
}

/// The chunk of a launch.
#[derive(Clone, Copy, Debug)]
struct Step {
    pos: usize,
    tokens: usize,
    head_from: usize,
    generation: i32,
}

/// Executes a launch in f32; `args` are parallel to [`FusedOp::params`].
///
/// # Errors
/// If the operands don't fit the op; some results may be written then.
pub fn exec(spec: &KernelSpec, state: StepState, args: Vec<Arg<'_>>) -> Result<(), LaunchError> {
    run::<Fast>(spec, state, args, None)
}

/// What comparing takes besides a launch's results.
#[derive(Default)]
struct Witness<'a> {
    /// In: the K cache as the device left it, for attention that appends the key itself. Where the key's rounding falls the other way,
    /// all that follows from it does too, so attention is judged by the key that was stored, and that key by itself.
    keys: Option<&'a [u8]>,
    /// Out: what was quantised to int8, before it was, `[tokens, n]`; empty if the launch has no int8 result.
    quantized: Vec<Tracked>,
    /// Out: what was appended to each cache, before it was rounded, `[tokens, heads, head_dim]`.
    appended: Vec<(Role, Vec<Tracked>)>,
}

impl Witness<'_> {
    fn append(&mut self, role: Role, values: impl Iterator<Item = Tracked>) {
        match self.appended.iter_mut().find(|(r, _)| *r == role) {
            Some((_, all)) => all.extend(values),
            None => self.appended.push((role, values.collect())),
        }
    }
}

/// Executes a launch in f64, rounding only what is stored.
///
/// # Errors
/// As [`exec`].
fn exec_exact(spec: &KernelSpec, state: StepState, args: Vec<Arg<'_>>, witness: &mut Witness<'_>) -> Result<(), LaunchError> {
    run::<Exact>(spec, state, args, Some(witness))
}

fn run<A: Arithmetic>(
    spec: &KernelSpec,
    state: StepState,
    args: Vec<Arg<'_>>,
    witness: Option<&mut Witness<'_>>,
) -> Result<(), LaunchError> {
    let bad_state = || LaunchError::State { pos: state.pos, end: state.pos.saturating_add(state.n), ctx: 0 };
    let (Ok(pos), Ok(tokens)) = (usize::try_from(state.pos), usize::try_from(state.n)) else { return Err(bad_state()) };
    let head_from = usize::try_from(state.head_from).unwrap_or(0).min(tokens);
    let step = Step { pos, tokens, head_from, generation: state.generation };
    let operands = Operands::new(spec, args)?;
    match &spec.op {
        FusedOp::Embed(op) => row::embed::<A>(spec, op, step, operands, witness),
        FusedOp::Gemv(op) => gemv::gemv::<A>(spec, op, step, operands, witness),
        FusedOp::Attend(op) => attend::attend::<A>(spec, op, step, operands, witness),
        FusedOp::Heads(op) => heads::heads::<A>(spec, op, step, operands, witness),
        FusedOp::Row(op) => row::row::<A>(spec, op, step, operands, witness),
        FusedOp::Choose(op) => choose::choose(spec, *op, step, operands),
        FusedOp::Repack(op) => repack(op, step, operands),
    }
}

fn repack(op: &Repack, step: Step, mut operands: Operands<'_, '_>) -> Result<(), LaunchError> {
    let row_bytes = |layout: Layout| layout.row_bytes(op.dtype, op.cols).unwrap_or(0) as usize;
    let (from, to) = (row_bytes(Layout::Gguf), row_bytes(op.layout));
    let end = step.pos + step.tokens;
    if from == 0 || to == 0 || end > op.rows as usize || step.tokens > op.piece as usize {
        return Err(LaunchError::State { pos: step.pos as i32, end: end as i32, ctx: op.rows });
    }
    let staging: &[u8] = operands.read(Role::Staging, from * step.tokens)?;
    let weight: &mut [u8] = operands.write(Role::Weight(0), to * op.rows as usize)?;
    let rows = staging.chunks_exact(from).zip(weight[to * step.pos..].chunks_exact_mut(to));
    rows.for_each(|(row, out)| split_row(op.dtype, row, out));
    Ok(())
}
