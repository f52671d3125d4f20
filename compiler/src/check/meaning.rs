//! The plan against what it was made from: the same launches in the same order, each operand bound to the buffer that holds
//! the fused graph's value at that moment.
//!
//! Together with [`check`](super::check), which proves that a buffer still holds what was last written through it, this
//! proves that the plan computes what the fused graphs say.

use super::error::{CheckError, Site, verdict};
use hipc_ir::fused::{Access, FusedGraph, FusedLaunch, Operand, Role, Slot};
use hipc_ir::graph::Graph;
use hipc_ir::plan::{Buffer, BufferKind, Launch, Plan, Program};
use std::collections::HashMap;

/// Proves that a plan does what these programs (fused graph, most tokens per step) of this model say.
///
/// # Errors
/// All differences; see [`CheckError::Meaning`].
pub fn check_meaning(plan: &Plan, graph: &Graph, programs: &[(&FusedGraph, u32)]) -> Result<(), Vec<CheckError>> {
    verdict(super::references::faults(plan))?;
    let mut faults = Vec::new();
    let declarations = (plan.weights == graph.weights, plan.ropes == graph.ropes, plan.caches == graph.caches);
    if declarations != (true, true, true) {
        faults.push(fault("plan", "the weights, tables or caches are not the model's"));
    }
    if plan.programs.len() != programs.len() {
        faults.push(fault("plan", "there is another number of programs"));
    }
    for (i, (program, &(graph, tokens))) in plan.programs.iter().zip(programs).enumerate() {
        if (program.kind, program.tokens) != (graph.kind, tokens) {
            faults.push(fault(format!("program {i}"), "kind or tokens are not those asked for"));
        }
        faults.extend(one(plan, i, program, graph));
    }
    verdict(faults)
}

fn fault(place: impl ToString, rule: &'static str) -> CheckError {
    CheckError::Meaning { place: place.to_string(), rule }
}

/// Which value each buffer holds, as far as launches wrote it.
type Held = HashMap<Buffer, Slot>;

fn one(plan: &Plan, index: usize, program: &Program, graph: &FusedGraph) -> Vec<CheckError> {
    let mut faults = Vec::new();
    if program.launches.len() != graph.launches.len() {
        faults.push(fault(format!("program {index}"), "there is another number of launches"));
    }
    let mut held = Held::new();
    for ((at, launch), meant) in Site::all(index, program).zip(graph.launches.values()) {
        faults.extend(bind(plan, launch, meant, &mut held).into_iter().map(|rule| fault(&at, rule)));
    }
    for (what, buffer, slot) in [("logits", program.logits, graph.logits), ("ids", program.ids, graph.ids)] {
        if held.get(&buffer) != Some(&slot) {
            faults.push(fault(format!("program {index}, {what}"), "the buffer does not hold the graph's result"));
        }
    }
    faults
}

/// Compares one launch and notes what it writes.
fn bind(plan: &Plan, launch: &Launch, meant: &FusedLaunch, held: &mut Held) -> Option<&'static str> {
    if plan.kernels[launch.kernel].op != meant.op {
        return Some("computes something else");
    }
    let params = meant.op.params();
    if launch.args.len() != meant.args.len() || params.len() != meant.args.len() {
        return Some("has another number of operands");
    }
    let mut fault = None;
    let mut written = Vec::new();
    for ((param, &buffer), &operand) in params.iter().zip(&launch.args).zip(&meant.args) {
        let kind = plan.buffers[buffer].kind;
        let holds = match operand {
            Operand::State => buffer == plan.state,
            Operand::Tokens => buffer == plan.tokens,
            Operand::Outbox => buffer == plan.outbox,
            Operand::Sampling => buffer == plan.sampling,
            Operand::Draws => buffer == plan.draws,
            Operand::Weight(w) => matches!(kind, BufferKind::Weight(found, _) if found == w),
            Operand::Rope(r) => kind == BufferKind::Rope(r),
            Operand::Cache(c) => kind == BufferKind::Cache(c),
            Operand::Own if param.role == Role::Counters => kind == BufferKind::Counters,
            Operand::Own => kind == BufferKind::Scratch,
            Operand::Slot(slot) if param.access == Access::Write => {
                written.push((buffer, slot));
                true
            }
            Operand::Slot(slot) => held.get(&buffer) == Some(&slot),
        };
        if !holds {
            fault = Some("an operand is bound to something else");
        }
    }
    held.extend(written);
    fault
}
