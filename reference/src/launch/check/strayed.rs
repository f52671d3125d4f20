//! What a launch must leave as it was.

use hipc_ir::fused::{Access, Param, Role, Shape};
use hipc_ir::plan::{KernelSpec, StepState};
use std::ops::Range;

use crate::launch::operands::q8_layout;

/// Operands that a launch changed where it must not: what is only read, results of tokens that the step lacks, and the bytes between
/// the tokens of int8 vectors. Operands are as for [`super::check`], in a program of up to `tokens` tokens; one that is empty in `after`
/// is left out. What lies around the results in caches, lists and the state is the business of [`super::check`].
pub fn strayed(spec: &KernelSpec, tokens: u32, state: StepState, before: &[&[u8]], after: &[&[u8]]) -> Vec<Role> {
    let params = spec.op.params();
    let operands = params.iter().zip(before.iter().zip(after)).filter(|(_, (_, after))| !after.is_empty());
    let touched = operands.filter(|(param, (before, after))| {
        before.len() != after.len() || kept(param, before.len(), tokens, state).any(|kept| before[kept.clone()] != after[kept])
    });
    touched.map(|(param, _)| param.role).collect()
}

/// The parts of an operand of so many bytes that aren't results.
fn kept(param: &Param, bytes: usize, tokens: u32, state: StepState) -> impl Iterator<Item = Range<usize>> {
    let (n, tokens) = (state.n.max(0) as usize, tokens.max(1) as usize);
    let end = match (param.access, param.shape) {
        (Access::Read, _) => 0,
        (Access::Write, Shape::F32(_) | Shape::Q8(_) | Shape::Ssq | Shape::Partials | Shape::Ids) => bytes / tokens * n,
        _ => bytes,
    };
    let between = match (param.access, param.shape) {
        (Access::Write, Shape::Q8(values)) => {
            let layout = q8_layout(values);
            let (results, stride) = (layout.n + 8 * (layout.n / layout.block), layout.stride());
            Some((results as usize, stride as usize))
        }
        _ => None,
    };
    let between =
        between.into_iter().flat_map(move |(results, stride)| (0..n).map(move |t| t * stride + results..(t + 1) * stride));
    std::iter::once(end.min(bytes)..bytes).chain(between.filter(move |r| r.end <= bytes))
}
