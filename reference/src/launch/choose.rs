//! The choice of the next token.

use super::gemv::{Partial, largest};
use super::operands::Operands;
use super::{LaunchError, Step};
use hipc_ir::fused::{Choose, Role};
use hipc_ir::plan::KernelSpec;

pub(super) fn choose(spec: &KernelSpec, op: Choose, step: Step, mut operands: Operands<'_, '_>) -> Result<(), LaunchError> {
    let n = op.n as usize;
    let found: Vec<i32> = if op.partials {
        let parts = spec.geometry.parts_in as usize;
        let partials: &[Partial] = operands.read(Role::Partials, parts * step.tokens)?;
        let wanted = partials.chunks_exact(parts.max(1)).take(step.tokens).skip(step.head_from);
        wanted.map(|row| row[largest(row.iter().map(|p| f32::from_bits(p[0])))][1] as i32).collect()
    } else {
        let logits: &[f32] = operands.read(Role::Logits, n * step.tokens)?;
        logits.chunks_exact(n).skip(step.head_from).map(|row| largest(row.iter().copied()) as i32).collect()
    };
    let end = step.pos + step.tokens;
    let tokens: &mut [i32] = operands.write(Role::Tokens, end + 1)?;
    let outbox: &mut [i32] = operands.write(Role::Outbox, end + 1)?;
    let ids: &mut [i32] = operands.write(Role::Ids, step.tokens)?;
    ids[step.head_from..].copy_from_slice(&found);
    if let Some(&last) = found.last() {
        tokens[end] = last;
        outbox[end] = last;
    }
    if op.advance {
        let state: &mut [i32] = operands.write(Role::State, 4)?;
        state.copy_from_slice(&[end as i32, 1, 0, 0]);
    }
    Ok(())
}
