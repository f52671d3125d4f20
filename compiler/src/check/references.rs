//! Every entity that a plan names must exist, before anything is looked up.

use super::error::{CheckError, Site};
use hipc_ir::plan::{Buffer, BufferKind, Plan};
use std::fmt::Display;

/// References to nothing.
pub(super) fn faults(plan: &Plan) -> Vec<CheckError> {
    let mut faults = Vec::new();
    let mut require = |exists: bool, user: &dyn Display, entity: &dyn Display| {
        if !exists {
            faults.push(CheckError::Dangling { user: user.to_string(), entity: entity.to_string() });
        }
    };
    let is_buffer = |b: Buffer| plan.buffers.is_valid(b);
    require(is_buffer(plan.state), &"the plan's state", &plan.state);
    require(is_buffer(plan.tokens), &"the plan's token list", &plan.tokens);
    require(is_buffer(plan.outbox), &"the plan's outbox", &plan.outbox);
    require(is_buffer(plan.sampling), &"the plan's sampling", &plan.sampling);
    require(is_buffer(plan.draws), &"the plan's draws", &plan.draws);
    for (rope, decl) in &plan.ropes {
        if let Some(factors) = decl.factors {
            require(plan.weights.is_valid(factors), &rope, &factors);
        }
    }
    for (buffer, decl) in &plan.buffers {
        match decl.kind {
            BufferKind::Weight(w, _) => require(plan.weights.is_valid(w), &buffer, &w),
            BufferKind::Rope(r) => require(plan.ropes.is_valid(r), &buffer, &r),
            BufferKind::Cache(c) => require(plan.caches.is_valid(c), &buffer, &c),
            _ => {}
        }
    }
    for (i, program) in plan.programs.iter().enumerate() {
        require(is_buffer(program.logits), &format!("program {i}"), &program.logits);
        require(is_buffer(program.ids), &format!("program {i}"), &program.ids);
    }
    let programs = plan.programs.iter().enumerate().flat_map(|(i, program)| Site::all(i, program));
    for (site, launch) in programs.chain(Site::load(plan)) {
        require(plan.kernels.is_valid(launch.kernel), &site, &launch.kernel);
        for &arg in &launch.args {
            require(is_buffer(arg), &site, &arg);
        }
    }
    faults
}
