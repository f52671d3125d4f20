//! The pipeline: the one page that shows every stage between a model and a bundle.
//!
//! [`plan`] is pure (no files, no compilers) and runs for one target; [`build`] does it for several at once and compiles the
//! emitted units. Verifiers run between the stages in debug builds; the plan checker always runs.

use crate::check::{CheckError, check, check_meaning};
use crate::emit::emit_unit;
use crate::fuse::{FuseError, FuseOptions, Fused, fuse};
use crate::layout::lay_out;
use crate::schedule::{self, Request, ScheduleError};
use crate::target::{Platform, Target};
use crate::toolchain::{Backend, CompileOptions, Emit, Toolchain, ToolchainError, UnitSource};
use crate::trials::{self, Tried};
use crate::tuning::Tuning;
use hipc_codeobj::{CodeObject, CodeObjectError};
use hipc_ir::bundle::KernelVariants;
use hipc_ir::dtype::KvType;
use hipc_ir::fused::ProgramKind;
use hipc_ir::plan::{ModelInfo, Plan};
use hipc_models::Model;
use rayon::prelude::*;

/// Most tokens in one step of the prompt program.
pub const PROMPT_CHUNK: u32 = 64;
/// Context where neither the user nor the model's own limit says less.
pub const DEFAULT_CTX: u32 = 4096;

/// Choices of the person who compiles.
#[derive(Clone, Debug)]
pub struct Options {
    /// Positions of the cache; by default what the model was trained with, at most [`DEFAULT_CTX`].
    pub ctx: Option<u32>,
    /// Storage type of the cache.
    pub kv: KvType,
    /// Geometries that were measured.
    pub tuning: Tuning,
    /// Whether the launches of the decode program are compiled in other geometries, too, to be measured.
    pub alternatives: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { ctx: None, kv: KvType::F16, tuning: Tuning::NONE, alternatives: false }
    }
}

impl Options {
    /// Positions for this model.
    pub fn ctx_for(&self, model: &Model) -> u32 {
        self.ctx.unwrap_or_else(|| model.hparams.context.clamp(1, DEFAULT_CTX))
    }
}

/// Why a model could not be compiled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// Fusion failed (ours).
    #[error(transparent)]
    Fuse(#[from] FuseError),
    /// Planning failed (ours).
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The checker found the plan wrong (ours).
    #[error("the plan for {target} is wrong; please report it with `hipc dump --phase plan`:\n{faults}")]
    Check {
        /// Target.
        target: String,
        /// One fault per line.
        faults: String,
    },
    /// The kernels could not be compiled.
    #[error(transparent)]
    Toolchain(#[from] ToolchainError),
    /// The compiler's output is not what we asked for.
    #[error("code object for {target}: {error}")]
    CodeObject {
        /// Target.
        target: String,
        /// What is wrong with it.
        error: CodeObjectError,
    },
    /// A kernel needs more registers than there are.
    #[error("kernel {kernel} for {target} spills ({vgprs} VGPRs, {sgprs} SGPRs, {scratch} bytes of scratch); please report it")]
    Spills {
        /// Target.
        target: String,
        /// Kernel.
        kernel: String,
        /// Scratch bytes.
        scratch: u32,
        /// Vector registers.
        vgprs: u32,
        /// Scalar registers.
        sgprs: u32,
    },
}

/// Everything about one target that needs no compiler.
pub struct Planned {
    /// The decode program as launches.
    pub decode: Fused,
    /// The prompt program, likewise.
    pub prompt: Fused,
    /// The launch plan.
    pub plan: Plan,
    /// Bytes to allocate by context length.
    pub memory: Vec<(u32, u64)>,
    /// HIP source of all kernels.
    pub unit: String,
}

/// A target's plan with its machine code.
pub struct Built {
    /// Target.
    pub target: &'static Target,
    /// Stages before compilation.
    pub planned: Planned,
    /// The code object (PTX on the test bench, a shared object for `host`).
    pub code: Vec<u8>,
    /// Resources by kernel; AMD targets only.
    pub object: Option<CodeObject>,
    /// How each kernel was compiled, where variants were searched.
    pub variants: Vec<KernelVariants>,
    /// What made the code.
    pub backend: Backend,
    /// Compiler and version.
    pub compiler: String,
    /// Whether the machine code came from the cache.
    pub cached: bool,
    /// Launches in other geometries, if they were asked for.
    pub trials: Vec<Tried>,
}

impl Built {
    /// With bytes that no compiler has seen: for tests of what becomes of them.
    pub fn uncompiled(target: &'static Target, planned: Planned, code: Vec<u8>) -> Self {
        let (variants, trials, compiler) = (Vec::new(), Vec::new(), "none".to_owned());
        Self { target, planned, code, object: None, variants, backend: Backend::Clang, compiler, cached: false, trials }
    }
}

/// Graph to plan and HIP unit, for one target.
///
/// # Errors
/// [`CompileError`], all of them ours: whatever is wrong with a file was found when it was loaded.
pub fn plan(model: &Model, target: &Target, options: &Options) -> Result<Planned, CompileError> {
    let ctx = options.ctx_for(model);
    let fuse_options = FuseOptions { tuning: options.tuning.clone(), ..FuseOptions::new(ctx, options.kv) };
    let fused = |kind| fuse(&model.graph, kind, &fuse_options, target);
    let (mut decode, mut prompt) = (fused(ProgramKind::Decode)?, fused(ProgramKind::Prompt)?);
    lay_out(&mut decode.graph, target);
    lay_out(&mut prompt.graph, target);
    debug_assert_eq!(hipc_ir::verify::graph(&model.graph), Ok(()));
    debug_assert_eq!(hipc_ir::verify::fused(&decode.graph, &model.graph), Ok(()));
    debug_assert_eq!(hipc_ir::verify::fused(&prompt.graph, &model.graph), Ok(()));
    let request = Request {
        graph: &model.graph,
        model: &model_info(model),
        ctx,
        kv: options.kv,
        programs: &[(&decode.graph, 1), (&prompt.graph, PROMPT_CHUNK.min(ctx))],
        target,
        tuning: &options.tuning,
    };
    let plan = schedule::schedule(&request)?;
    verify(target, check(&plan, None).and_then(|()| check_meaning(&plan, &model.graph, request.programs)))?;
    let memory = schedule::memory_by_context(&request, &contexts(ctx, model.hparams.context))?;
    let unit = emit_unit(&model.name, target, &plan.kernels);
    Ok(Planned { decode, prompt, plan, memory, unit })
}

/// Plans and compiles for every target, as many at a time as there are cores. `progress` is called with each finished target.
///
/// # Errors
/// The first in the order of `targets`.
pub fn build(
    model: &Model,
    targets: &[&'static Target],
    options: &Options,
    toolchain: &Toolchain,
    compile: &CompileOptions,
    progress: &(dyn Fn(&Built) + Sync),
) -> Result<Vec<Built>, CompileError> {
    let one = |&target: &&'static Target| {
        let planned = plan(model, target, options)?;
        let unit = unit_source(&planned);
        let compiled = toolchain.compile(&unit, target, code_form(target), compile)?;
        let object = check_object(&planned.plan, target, &compiled.bytes)?;
        let compiler = compiled.compiler.to_string();
        let trials = match options.alternatives {
            true => trials::build(&model.name, &planned.plan, target, toolchain, compile)?,
            false => Vec::new(),
        };
        let (code, variants, cached) = (compiled.bytes, compiled.variants, compiled.cached);
        let built = Built { target, planned, code, object, variants, backend: compile.backend, compiler, cached, trials };
        progress(&built);
        Ok(built)
    };
    let results: Vec<Result<Built, CompileError>> = targets.par_iter().map(one).collect();
    results.into_iter().collect()
}

fn verify(target: &Target, checked: Result<(), Vec<CheckError>>) -> Result<(), CompileError> {
    checked.map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        CompileError::Check { target: target.name.into(), faults: faults.join("\n") }
    })
}

/// The emitted unit as the toolchain takes it.
pub fn unit_source(planned: &Planned) -> UnitSource<'_> {
    UnitSource { name: "unit", source: &planned.unit, headers: hipc_templates::HEADERS }
}

/// The form of machine code that a target's devices load.
pub fn code_form(target: &Target) -> Emit {
    match target.platform {
        Platform::Amd => Emit::CodeObject,
        Platform::Nvidia => Emit::Ptx,
        Platform::Host => Emit::HostSharedObject,
    }
}

/// Facts that go into the plan.
pub fn model_info(model: &Model) -> ModelInfo {
    let h = &model.hparams;
    ModelInfo { name: model.name.clone(), arch: model.arch.to_owned(), layers: h.layers, vocab: h.vocab, ctx_train: h.context }
}

/// Context lengths that reports show memory for: powers of two up to the model's limit, and the one compiled for.
fn contexts(ctx: u32, trained: u32) -> Vec<u32> {
    let mut list: Vec<u32> = (9..=17).map(|p| 1 << p).filter(|&c| c <= trained.max(ctx)).chain([ctx]).collect();
    list.sort_unstable();
    list.dedup();
    list
}

/// A compiled object must have the kernels that the plan launches, take the arguments it passes, and never spill.
fn check_object(plan: &Plan, target: &Target, code: &[u8]) -> Result<Option<CodeObject>, CompileError> {
    if target.platform != Platform::Amd {
        return Ok(None);
    }
    let named = |error| CompileError::CodeObject { target: target.name.into(), error };
    let object = CodeObject::parse(code).map_err(named)?;
    verify(target, check(plan, Some(&object)))?;
    match object.kernels.iter().find(|k| k.spills()) {
        Some(k) => Err(CompileError::Spills {
            target: target.name.into(),
            kernel: k.name.clone(),
            scratch: k.private_segment_fixed_size,
            vgprs: k.vgpr_spill_count,
            sgprs: k.sgpr_spill_count,
        }),
        None => Ok(Some(object)),
    }
}
