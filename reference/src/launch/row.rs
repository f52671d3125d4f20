//! Embedding rows, and element-wise work on a vector.

use super::arith::{Arithmetic, Num, act, deferred, rms_norm};
use super::depth;
use super::finish::Finisher;
use super::operands::Operands;
use super::{LaunchError, Step, Witness};
use hipc_ir::fused::{Embed, Role, Row, RowExpr};
use hipc_ir::plan::KernelSpec;

pub(super) fn embed<A: Arithmetic>(
    spec: &KernelSpec,
    op: &Embed,
    step: Step,
    mut operands: Operands<'_, '_>,
    witness: Option<&mut Witness<'_>>,
) -> Result<(), LaunchError> {
    let ids: &[i32] = operands.read(Role::Tokens, step.pos + step.tokens)?;
    let ids = &ids[step.pos..];
    if let Some(&id) = ids.iter().find(|&&id| u32::try_from(id).is_ok_and(|id| id >= op.vocab) || id < 0) {
        return Err(LaunchError::BadToken { id, vocab: op.vocab });
    }
    let matrix = operands.matrix(Role::Weight(0), op.dtype, op.layout, op.vocab, op.n)?;
    let finisher = Finisher::take(&mut operands, op.finish, op.n, spec.geometry.tile, step)?;
    finisher.write::<A::T>(step.tokens, witness, |t, y| {
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
    witness: Option<&mut Witness<'_>>,
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
            deferred::<A::T>(d, operands.read(Role::Ssq, parts * step.tokens)?, &spec.geometry)
        }
        _ => Vec::new(),
    };
    let residual: &[f32] = if op.residual { operands.read(Role::Residual, all)? } else { &[] };
    let finisher = Finisher::take(&mut operands, op.finish, op.n, spec.geometry.tile, step)?;
    finisher.write::<A::T>(step.tokens, witness, |t, out| {
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
            RowExpr::Norm { eps, group } => {
                let group = group as usize;
                let sum = if group == spec.geometry.tile as usize { depth::workgroup } else { depth::wave };
                out.chunks_exact_mut(group).for_each(|g| rms_norm(g, y, eps.0, sum(&spec.geometry, group)));
            }
            RowExpr::Scale(_) => out.iter_mut().for_each(|o| *o = *o * scalars[t]),
        }
        out.iter_mut().zip(residual.get(t * n..).unwrap_or(&[])).for_each(|(o, &r)| *o += A::T::of(r));
    });
    Ok(())
}
