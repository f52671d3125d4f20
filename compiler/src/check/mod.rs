//! An independent checker of launch plans: it knows what a plan means and nothing of how plans are made.
//!
//! Nothing of the planner is called, nor the formulas by which it fills in a plan (grids, parts, sizes): they are derived
//! here again from the documented meaning of ops and geometries, so that a mistake must be made twice to go unseen. Only
//! [`FusedOp::params`](hipc_ir::fused::FusedOp::params), which *defines* the operands, is shared, and
//! [`hipc_templates::check_geometry`], which says what the headers' own assertions say.
//!
//! The stages, each relying on those before it:
//!
//! 1. `references`: every entity that is named exists.
//! 2. `ops`, `geometry`, `declarations`: each kernel, buffer, weight, table, cache and program is sound by itself.
//! 3. `operands`: arguments are what the operands say, and large enough; grids cover the outputs exactly.
//! 4. `flow`: each program is walked with a map of who wrote which bytes last. What is read was written before, whole, by a
//!    launch of the same step, and overwritten by none; workgroups of one launch can't disturb each other.
//! 5. `object`: the code object's kernels take exactly these arguments.
//!
//! [`check_meaning`] compares a plan with the fused graphs it was made from, operand by operand: it finds what a plan can't
//! show by itself, such as two weights of one shape in each other's place.

mod declarations;
mod error;
mod flow;
mod geometry;
mod meaning;
mod object;
mod operands;
mod ops;
mod references;

pub use error::{CheckError, Site};
pub use meaning::check_meaning;

use error::verdict;
use hipc_codeobj::CodeObject;
use hipc_ir::plan::Plan;

/// Proves that a plan can be run as it stands, and that `object` (if given) holds its kernels.
///
/// Never panics, whatever the plan: its numbers are not trusted.
///
/// # Errors
/// All faults of the first stage that finds any; see [`CheckError`].
pub fn check(plan: &Plan, object: Option<&CodeObject>) -> Result<(), Vec<CheckError>> {
    verdict(references::faults(plan))?;
    let mut faults = ops::faults(plan);
    faults.extend(declarations::faults(plan));
    verdict(faults)?;
    verdict(geometry::faults(plan))?;
    let mut faults = operands::faults(plan);
    faults.extend(flow::faults(plan));
    faults.extend(object.into_iter().flat_map(|o| object::faults(plan, o)));
    verdict(faults)
}

/// The rules of a table that don't hold.
fn broken(rules: &[(bool, &'static str)]) -> impl Iterator<Item = &'static str> {
    rules.iter().filter(|(holds, _)| !holds).map(|&(_, rule)| rule)
}
