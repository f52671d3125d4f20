//! Plans from files: whether every reference points to something and no size overflows, so that using the plan can't
//! panic. That the plan is *right* is shown by the compiler's checker before it is written.

use super::{MOST, VerifyError, ops, weight_decl};
use crate::plan::{Buffer, BufferKind, Geometry, Launch, Plan, Program};
use crate::tuning::{Entry, Trial};

/// What is wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanFault {
    /// A reference to something that isn't there.
    #[error("{at} refers to something that isn't there")]
    Reference {
        /// Where.
        at: String,
    },
    /// A size out of all proportion.
    #[error("{at} has an impossible size")]
    Size {
        /// Where.
        at: String,
    },
    /// A kernel whose meaning contradicts itself.
    #[error(transparent)]
    Op(#[from] VerifyError),
}

/// End of the last byte that a space may have.
const MOST_BYTES: u64 = 1 << 48;
/// Most tokens per step.
const MOST_TOKENS: u32 = 1 << 16;

/// Checks references and sizes of a plan.
///
/// # Errors
/// The first fault.
pub fn plan_references(plan: &Plan) -> Result<(), PlanFault> {
    let reference = |at: String, ok: bool| if ok { Ok(()) } else { Err(PlanFault::Reference { at }) };
    let size = |at: String, ok: bool| if ok { Ok(()) } else { Err(PlanFault::Size { at }) };
    let buffer = |at: &str, b: Buffer| reference(format!("{at}: {b}"), plan.buffers.is_valid(b));
    size("the context".into(), (1..=MOST).contains(&plan.ctx))?;
    for (w, decl) in &plan.weights {
        size(w.to_string(), weight_decl(decl))?;
    }
    for (r, decl) in &plan.ropes {
        reference(r.to_string(), decl.factors.is_none_or(|w| plan.weights.is_valid(w)))?;
        size(r.to_string(), (1..=MOST).contains(&decl.dims))?;
    }
    for (c, decl) in &plan.caches {
        size(c.to_string(), u64::from(decl.heads) * u64::from(decl.head_dim) <= u64::from(MOST))?;
    }
    for (b, decl) in &plan.buffers {
        size(b.to_string(), decl.offset.checked_add(decl.bytes).is_some_and(|end| end <= MOST_BYTES))?;
        let ok = match decl.kind {
            BufferKind::Weight(w, _) => plan.weights.is_valid(w),
            BufferKind::Rope(r) => plan.ropes.is_valid(r),
            BufferKind::Cache(c) => plan.caches.is_valid(c),
            BufferKind::Q8(layout) => layout.block > 0 && layout.n <= MOST,
            _ => true,
        };
        reference(b.to_string(), ok)?;
    }
    for (k, spec) in &plan.kernels {
        ops::op(&k.to_string(), &spec.op)?;
        size(k.to_string(), geometry(&spec.geometry))?;
    }
    buffer("state", plan.state)?;
    buffer("tokens", plan.tokens)?;
    buffer("outbox", plan.outbox)?;
    buffer("sampling", plan.sampling)?;
    buffer("draws", plan.draws)?;
    check_launches(plan, &plan.load, &buffer, &reference)?;
    for program in &plan.programs {
        size("a program's tokens".into(), (1..=MOST_TOKENS).contains(&program.tokens))?;
        check_program(plan, program, &buffer, &reference)?;
    }
    Ok(())
}

fn check_program(
    plan: &Plan,
    program: &Program,
    buffer: &impl Fn(&str, Buffer) -> Result<(), PlanFault>,
    reference: &impl Fn(String, bool) -> Result<(), PlanFault>,
) -> Result<(), PlanFault> {
    buffer("logits", program.logits)?;
    buffer("ids", program.ids)?;
    check_launches(plan, &program.launches, buffer, reference)
}

fn check_launches(
    plan: &Plan,
    launches: &[Launch],
    buffer: &impl Fn(&str, Buffer) -> Result<(), PlanFault>,
    reference: &impl Fn(String, bool) -> Result<(), PlanFault>,
) -> Result<(), PlanFault> {
    for (i, launch) in launches.iter().enumerate() {
        let at = format!("launch {i} `{}`", launch.label);
        let spec = plan.kernels.get(launch.kernel);
        reference(at.clone(), spec.is_some_and(|s| s.op.params().len() == launch.args.len()))?;
        launch.args.iter().try_for_each(|&b| buffer(&at, b))?;
    }
    Ok(())
}

/// Checks a trial from a file.
///
/// # Errors
/// The first fault.
pub fn trial(trial: &Trial) -> Result<(), PlanFault> {
    let at = || format!("the trial `{}`", trial.label);
    ops::op(&at(), &trial.op)?;
    match trial.candidates.iter().all(|c| geometry(&c.geometry)) && !trial.candidates.is_empty() {
        true => Ok(()),
        false => Err(PlanFault::Size { at: at() }),
    }
}

/// Checks an entry of a tuning file by itself.
///
/// # Errors
/// The first fault.
pub fn tuned(entry: &Entry) -> Result<(), PlanFault> {
    let at = || format!("the entry `{}`", entry.label);
    ops::op(&at(), &entry.op)?;
    if geometry(&entry.geometry) { Ok(()) } else { Err(PlanFault::Size { at: at() }) }
}

/// Whether nothing divides by zero and a workgroup can exist.
fn geometry(g: &Geometry) -> bool {
    let counts = [g.waves, g.rows_per_wave, g.k_waves, g.row_steps, g.tokens, g.splits];
    matches!(g.wave, 32 | 64)
        && counts.iter().all(|n| (1..=1024).contains(n))
        && (1..=MOST).contains(&g.tile)
        && g.parts_in <= MOST
}
