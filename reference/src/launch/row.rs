//! Embedding rows, element-wise work on a vector, and arg-max.

use super::arith::{Arithmetic, Num, act, deferred, rms_norm};
use super::finish::Finisher;
use super::gemv::{Partial, largest};
use super::operands::Operands;
use super::{LaunchError, Step};
use hipc_ir::fused::{ArgMax, Embed, Role, Row, RowExpr};
use hipc_ir::plan::KernelSpec;

pub(super) fn embed<A: Arithmetic>(
    spec: &KernelSpec,
    op: &Embed,
    step: Step,
    mut operands: Operands<'_, '_>,
    unrounded: Option<&mut Vec<f64>>,
) -> Result<(), LaunchError> {
    let ids: &[i32] = operands.read(Role::Tokens, step.pos + step.tokens)?;
    let ids = &ids[step.pos..];
    if let Some(&id) = ids.iter().find(|&&id| u32::try_from(id).is_ok_and(|id| id >= op.vocab) || id < 0) {
        return Err(LaunchError::BadToken { id, vocab: op.vocab });
    }
    let matrix = operands.matrix(Role::Weight(0), op.dtype, op.layout, op.vocab, op.n)?;
    let finisher = Finisher::take(&mut operands, op.finish, op.n, spec.geometry.tile, step)?;
    finisher.write::<A::T>(step.tokens, unrounded, |t, y| {
        let mut row = vec![0f32; y.len()];
        matrix.dequantize(ids[t] as usize, &mut row);
        y.iter_mut().zip(row).for_each(|(y, v)| *y = A::T::of(v));
    });
    Ok(())
}

pub(super) fn row<A: Arithmetic>(
    spec: &KernelSpec,
    op: &Row,
    step: Step,
    mut operands: Operands<'_, '_>,
    unrounded: Option<&mut Vec<f64>>,
) -> Result<(), LaunchError> {
    let n = op.n as usize;
    let all = n * step.tokens;
    let x: &[f32] = operands.read(Role::X(0), all)?;
    // The expression's second operand: per token, or the same for all.
    let y: &[f32] = match op.expr {
        RowExpr::Copy | RowExpr::Act(_) | RowExpr::Scale(_) => &[],
        RowExpr::Add | RowExpr::Mul | RowExpr::Gated(_) => operands.read(Role::Y, all)?,
        RowExpr::Bias => operands.read(Role::Bias(0), n)?,
        RowExpr::Norm { group, .. } => operands.read(Role::Norm(0), group as usize)?,
    };
    let scalars = match op.expr {
        RowExpr::Scale(d) => {
            let parts = spec.geometry.parts_in as usize;
            deferred::<A::T>(d, operands.read(Role::Ssq, parts * step.tokens)?, parts)
        }
        _ => Vec::new(),
    };
    let residual: &[f32] = if op.residual { operands.read(Role::Residual, all)? } else { &[] };
    let finisher = Finisher::take(&mut operands, op.finish, op.n, spec.geometry.tile, step)?;
    finisher.write::<A::T>(step.tokens, unrounded, |t, out| {
        out.iter_mut().zip(&x[t * n..]).for_each(|(o, &x)| *o = A::T::of(x));
        // Where `y` is per token.
        let second = y.get(t * n..).unwrap_or(&[]);
        match op.expr {
            RowExpr::Copy => {}
            RowExpr::Act(a) => out.iter_mut().for_each(|o| *o = act(a, *o)),
            RowExpr::Add => out.iter_mut().zip(second).for_each(|(o, &y)| *o += A::T::of(y)),
            RowExpr::Mul => out.iter_mut().zip(second).for_each(|(o, &y)| *o = *o * A::T::of(y)),
            RowExpr::Gated(a) => out.iter_mut().zip(second).for_each(|(o, &y)| *o = act(a, *o) * A::T::of(y)),
            RowExpr::Bias => out.iter_mut().zip(y).for_each(|(o, &b)| *o += A::T::of(b)),
            RowExpr::Norm { eps, group } => out.chunks_exact_mut(group as usize).for_each(|g| rms_norm(g, y, eps.0)),
            RowExpr::Scale(_) => out.iter_mut().for_each(|o| *o = *o * scalars[t]),
        }
        out.iter_mut().zip(residual.get(t * n..).unwrap_or(&[])).for_each(|(o, &r)| *o += A::T::of(r));
    });
    Ok(())
}

pub(super) fn arg_max(spec: &KernelSpec, op: ArgMax, step: Step, mut operands: Operands<'_, '_>) -> Result<(), LaunchError> {
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
    let tokens: &mut [i32] = operands.write(Role::Tokens, step.pos + step.tokens + 1)?;
    let ids: &mut [i32] = operands.write(Role::Ids, step.tokens)?;
    ids[step.head_from..].copy_from_slice(&found);
    if let Some(&last) = found.last() {
        tokens[step.pos + step.tokens] = last;
    }
    Ok(())
}
