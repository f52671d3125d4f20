//! Verifier of fused graphs.

use super::{VerifyError, ops, rule};
use crate::dtype::Layout;
use crate::form::write::attributes;
use crate::fused::{Access, FusedGraph, FusedLaunch, FusedOp, Operand, Param, ProgramKind, Role, RopeSpec, Shape, Slot};
use crate::graph::{Cache, CacheKind, Graph, Weight};
use cranelift_entity::EntitySet;
use std::collections::HashMap;

/// Checks every launch by itself, its operands against its parameters and the model graph's declarations, and that slots
/// and caches are written before they are read.
///
/// # Errors
/// The first broken rule.
pub fn fused(fused: &FusedGraph, graph: &Graph) -> Result<(), VerifyError> {
    let mut written: EntitySet<Slot> = EntitySet::new();
    let mut appended: EntitySet<Cache> = EntitySet::new();
    let mut layouts: HashMap<Weight, Layout> = HashMap::new();
    for (index, launch) in &fused.launches {
        let at = format!("{index} `{}`", launch.label);
        ops::op(&at, &launch.op)?;
        if let FusedOp::Attend(a) = &launch.op {
            rule(
                &at,
                a.prologue.is_none() || fused.kind == ProgramKind::Decode,
                "keys are appended by attention in the decode program only",
            )?;
        }
        if let FusedOp::Choose(c) = &launch.op {
            let last = fused.kind == ProgramKind::Decode && Some(index) == fused.launches.last().map(|(last, _)| last);
            rule(&at, !c.advance || last, "the state is advanced by the last launch of the decode program only")?;
        }
        let params = launch.op.params();
        if params.len() != launch.args.len() {
            return Err(VerifyError::Arity { at, expected: params.len(), found: launch.args.len() });
        }
        for (param, &operand) in params.iter().zip(&launch.args) {
            check_operand(&at, fused, graph, param, operand)?;
            if let (Operand::Weight(w), Shape::Weight { layout, .. }) = (operand, param.shape) {
                rule(&at, *layouts.entry(w).or_insert(layout) == layout, format!("{w} has two layouts"))?;
            }
        }
        check_order(&at, launch, &params, &mut written, &mut appended)?;
    }
    for slot in fused.slots.keys() {
        if !written.contains(slot) {
            return Err(VerifyError::Written { value: slot.to_string(), times: 0 });
        }
    }
    for (what, slot) in [("logits", fused.logits), ("ids", fused.ids)] {
        if !fused.slots.is_valid(slot) {
            return Err(VerifyError::Undeclared { at: what.into(), reference: slot.to_string() });
        }
    }
    rule(&"logits", matches!(fused.slots[fused.logits], Shape::F32(_)), "the logits are f32")?;
    rule(&"ids", fused.slots[fused.ids] == Shape::Ids, "the ids are ids")
}

/// Reads first, then writes: a launch can't read what it writes itself.
fn check_order(
    at: &str,
    launch: &FusedLaunch,
    params: &[Param],
    written: &mut EntitySet<Slot>,
    appended: &mut EntitySet<Cache>,
) -> Result<(), VerifyError> {
    for (param, &operand) in params.iter().zip(&launch.args).filter(|(p, _)| p.access == Access::Read) {
        let (ready, value) = match operand {
            Operand::Slot(slot) => (written.contains(slot), slot.to_string()),
            Operand::Cache(c) => (appended.contains(c), c.to_string()),
            _ => continue,
        };
        if !ready {
            return Err(VerifyError::Order { at: format!("{at}, {:?}", param.role), value });
        }
    }
    for (param, &operand) in params.iter().zip(&launch.args).filter(|(p, _)| p.access != Access::Read) {
        match operand {
            Operand::Slot(slot) if !written.insert(slot) => {
                return Err(VerifyError::Written { value: slot.to_string(), times: 2 });
            }
            Operand::Cache(c) if !appended.insert(c) => return Err(VerifyError::Written { value: c.to_string(), times: 2 }),
            Operand::Sampling | Operand::Draws | Operand::Weight(_) | Operand::Rope(_) => {
                return Err(VerifyError::Rule {
                    at: format!("{at}, {:?}", param.role),
                    rule: format!("{operand} can't be written"),
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether an operand is what its parameter points to.
fn check_operand(at: &str, fused: &FusedGraph, graph: &Graph, param: &Param, operand: Operand) -> Result<(), VerifyError> {
    let undeclared = || VerifyError::Undeclared { at: at.to_owned(), reference: operand.to_string() };
    let fits = match (operand, param.shape) {
        (Operand::State, Shape::State)
        | (Operand::Tokens, Shape::Tokens)
        | (Operand::Outbox, Shape::Outbox)
        | (Operand::Sampling, Shape::Sampling)
        | (Operand::Draws, Shape::Draws)
        | (Operand::Own, Shape::Scratch | Shape::Counters) => true,
        (Operand::Slot(slot), shape @ (Shape::F32(_) | Shape::Q8(_) | Shape::Ssq | Shape::Partials | Shape::Ids)) => {
            *fused.slots.get(slot).ok_or_else(undeclared)? == shape
        }
        (Operand::Weight(w), Shape::Weight { dtype, rows, cols, .. }) => {
            let decl = graph.weights.get(w).ok_or_else(undeclared)?;
            (decl.dtype, decl.rows, decl.cols) == (dtype, rows, cols)
        }
        (Operand::Rope(r), Shape::RopeTable(RopeSpec { style, dims, .. })) => {
            let decl = graph.ropes.get(r).ok_or_else(undeclared)?;
            (decl.style, decl.dims) == (style, dims)
        }
        (Operand::Cache(c), Shape::Cache(spec)) => {
            let decl = graph.caches.get(c).ok_or_else(undeclared)?;
            let kind = match param.role {
                Role::CacheK => decl.kind == CacheKind::K,
                Role::CacheV => decl.kind == CacheKind::V,
                _ => true,
            };
            kind && (decl.heads, decl.head_dim) == (spec.heads, spec.head_dim)
        }
        _ => false,
    };
    if fits {
        return Ok(());
    }
    let found = match operand {
        Operand::Slot(slot) => fused.slots.get(slot).map(attributes),
        Operand::Weight(w) => graph.weights.get(w).map(attributes),
        Operand::Rope(r) => graph.ropes.get(r).map(attributes),
        Operand::Cache(c) => graph.caches.get(c).map(attributes),
        Operand::State | Operand::Tokens | Operand::Outbox | Operand::Sampling | Operand::Draws | Operand::Own => None,
    };
    let found = found.map_or_else(|| operand.to_string(), |f| format!("{operand} = {f}"));
    Err(VerifyError::Type { at: at.to_owned(), what: format!("{:?}", param.role), expected: attributes(&param.shape), found })
}
