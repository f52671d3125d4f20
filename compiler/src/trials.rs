//! Trials: the launches of the decode program in other geometries, compiled to be measured on a real device.
//!
//! They stand beside the plan in a bundle and are no part of it. Each trial is a unit of its own, so that units compile at the same
//! time and a device loads only what it measures.

use crate::cost;
use crate::emit::emit_unit;
use crate::pipeline::{CompileError, code_form};
use crate::select::{SelectError, alternatives};
use crate::target::{Platform, Target};
use crate::toolchain::{CompileOptions, Toolchain, UnitSource};
use hipc_codeobj::{CodeObject, Kernel};
use hipc_ir::PrimaryMap;
use hipc_ir::fused::{FusedOp, ProgramKind};
use hipc_ir::plan::{Geometry, KernelSpec, Plan};
use hipc_ir::tuning::{Candidate, Trial};
use rayon::prelude::*;

/// Most candidates of a trial: those that the cost model likes best.
pub const MOST: usize = 40;

/// A trial with its machine code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// What is to be measured.
    pub trial: Trial,
    /// Machine code of its kernels.
    pub code: Vec<u8>,
}

/// The trials of a plan: one for each distinct op of the decode program that has a choice.
///
/// # Errors
/// As [`alternatives`].
pub fn trials(plan: &Plan, target: &Target) -> Result<Vec<Trial>, SelectError> {
    let mut found: Vec<Trial> = Vec::new();
    let launches = plan.program(ProgramKind::Decode).map_or(&[][..], |p| &p.launches);
    for launch in launches {
        let chosen = &plan.kernels[launch.kernel];
        // The others have no choice; that of a token would also move on with every launch.
        if !matches!(chosen.op, FusedOp::Gemv(_) | FusedOp::Attend(_)) {
            continue;
        }
        if let Some(known) = found.iter_mut().find(|t| t.op == chosen.op) {
            known.launches += 1;
            continue;
        }
        let candidate = |geometry: Geometry| {
            let geometry = Geometry { parts_in: chosen.geometry.parts_in, ..geometry };
            let spec = KernelSpec { name: "candidate".into(), op: chosen.op.clone(), geometry };
            Candidate { number: 0, geometry, predicted_ns: cost::of(&spec, 1, target).ns }
        };
        let others = alternatives(&chosen.op, &launch.label, 1, target)?.into_iter().map(candidate);
        let mut others: Vec<Candidate> = others.filter(|c| c.geometry != chosen.geometry).collect();
        // A stable sort: what selection lists first stays first among equals.
        others.sort_by_key(|c| c.predicted_ns);
        others.truncate(MOST - 1);
        let all = std::iter::once(candidate(chosen.geometry)).chain(others);
        let candidates = (0..).zip(all).map(|(number, c)| Candidate { number, ..c }).collect();
        let summary = hipc_templates::summary(&chosen.op);
        found.push(Trial { label: launch.label.clone(), summary, op: chosen.op.clone(), launches: 1, candidates });
    }
    found.retain(|t| t.candidates.len() > 1);
    Ok(found)
}

/// Compiles the trials of a plan, as many at a time as there are cores. Candidates that would spill are left out.
///
/// # Errors
/// The first in the order of the trials.
pub fn build(
    model: &str,
    plan: &Plan,
    target: &Target,
    toolchain: &Toolchain,
    compile: &CompileOptions,
) -> Result<Vec<Tried>, CompileError> {
    let trials = trials(plan, target).map_err(crate::schedule::ScheduleError::from)?;
    let one = |trial: Trial| compile_one(model, trial, target, toolchain, compile);
    let built: Vec<Result<Tried, CompileError>> = trials.into_par_iter().map(one).collect();
    let built: Result<Vec<Tried>, CompileError> = built.into_iter().collect();
    Ok(built?.into_iter().filter(|t| t.trial.candidates.len() > 1).collect())
}

/// Compiles one trial.
///
/// # Errors
/// The unit can't be compiled.
pub fn compile_one(
    model: &str,
    mut trial: Trial,
    target: &Target,
    toolchain: &Toolchain,
    compile: &CompileOptions,
) -> Result<Tried, CompileError> {
    let kernels: PrimaryMap<_, KernelSpec> = trial.kernels().collect();
    let source = emit_unit(&format!("{model}, trial of {}", trial.label), target, &kernels);
    let unit = UnitSource { name: "trial", source: &source, headers: hipc_templates::HEADERS };
    let code = toolchain.compile(&unit, target, code_form(target), compile)?.bytes;
    if target.platform == Platform::Amd {
        let named = |error| CompileError::CodeObject { target: target.name.into(), error };
        let object = CodeObject::parse(&code).map_err(named)?;
        trial = without_spills(trial, &object);
    }
    Ok(Tried { trial, code })
}

/// The trial without the candidates that spill.
fn without_spills(mut trial: Trial, object: &CodeObject) -> Trial {
    let spills = |name: &str| object.kernel(name).is_none_or(Kernel::spills);
    trial.candidates.retain(|c| !spills(&c.kernel_name()));
    trial
}
