//! Per-head norm, rotation, storing and appending.

use super::arith::{Arithmetic, Num, Table, rms_norm, rotate};
use super::depth;
use super::operands::Operands;
use super::{LaunchError, Step, Witness};
use hipc_ir::fused::{HeadOut, Heads, Role};
use hipc_ir::plan::KernelSpec;

pub(super) fn heads<A: Arithmetic>(
    spec: &KernelSpec,
    op: &Heads,
    step: Step,
    mut operands: Operands<'_, '_>,
    mut witness: Option<&mut Witness<'_>>,
) -> Result<(), LaunchError> {
    let table = op.parts.iter().find_map(|p| p.rope).map(|rope| Table::take(rope, step, &mut operands)).transpose()?;
    for (i, part) in (0..).zip(&op.parts) {
        let (n, head_dim) = ((part.heads * part.head_dim) as usize, part.head_dim as usize);
        let x: &[f32] = operands.read(Role::X(i), n * step.tokens)?;
        let gain: Option<&[f32]> = if part.norm.is_some() { Some(operands.read(Role::Norm(i), head_dim)?) } else { None };
        let transformed = |index: usize, head: &mut [A::T]| {
            head.iter_mut().zip(&x[index * head_dim..]).for_each(|(h, &x)| *h = A::T::of(x));
            if let (Some(eps), Some(gain)) = (part.norm, gain) {
                rms_norm(head, gain, eps.0, depth::wave(&spec.geometry, head_dim));
            }
            if let (Some(rope), Some(table)) = (part.rope, &table) {
                rotate(head, rope, table.token(index / part.heads as usize));
            }
        };
        let mut head = vec![A::T::default(); head_dim];
        match part.out {
            HeadOut::Store => {
                let out: &mut [f32] = operands.write(Role::Out(i), n * step.tokens)?;
                for (index, out) in out.chunks_exact_mut(head_dim).enumerate() {
                    transformed(index, &mut head);
                    out.iter_mut().zip(&head).for_each(|(o, h)| *o = h.f32());
                }
            }
            HeadOut::Append(to) => {
                let mut cache = operands.cache_mut(Role::Cache(i), to, step)?;
                let heads = part.heads as usize;
                for index in 0..heads * step.tokens {
                    transformed(index, &mut head);
                    cache.store(index % heads, step.pos + index / heads, head.iter().map(|h| h.f32()));
                    if let Some(witness) = &mut witness {
                        witness.append(Role::Cache(i), head.iter().map(|h| h.tracked()));
                    }
                }
            }
        }
    }
    Ok(())
}
