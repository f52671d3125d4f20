//! Engines on the devices that every machine has, by plans of the compiler.

use crate::file_weights::FileWeights;
use crate::sanitizers;
use hipc::emit::emit_unit;
use hipc::pipeline::{self, Options};
use hipc::target::Target;
use hipc::toolchain::{self, CompileOptions, Emit, Toolchain, ToolchainError, UnitSource};
use hipc_codeobj::SimdFacts;
use hipc_ir::dtype::KvType;
use hipc_ir::plan::Plan;
use hipfire_run::device::cpu::CpuBackend;
use hipfire_run::device::host::{HostLibrary, HostProcess, Order};
use hipfire_run::device::{DriverBackend, Placement};
use hipfire_run::exact::ExactEngine;
use std::path::Path;
use std::sync::{Arc, LazyLock};

/// A model compiled for a target, without machine code.
pub struct Compiled {
    /// The plan, as the pipeline makes it.
    pub plan: Plan,
    /// The file's tensors.
    pub weights: Arc<FileWeights>,
    unit: String,
}

/// Compiles a file for a target's geometry. On the devices `cpu` and `host` any target's plan can be executed.
///
/// # Panics
/// If it can't be compiled: the test has failed.
pub fn compile(path: &Path, target: &str, ctx: u32, kv: KvType) -> Compiled {
    let model = hipc_models::load(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let target = Target::parse(target).unwrap_or_else(|e| panic!("{e}"));
    let planned = pipeline::plan(&model, target, &Options { ctx: Some(ctx), kv, ..Options::default() });
    let plan = planned.unwrap_or_else(|e| panic!("{}: {e}", path.display())).plan;
    let host = Target::parse("host").expect("the table has the host");
    // The plan's kernels for this machine: only the width of a wave is the target's.
    let host = Target { simd: SimdFacts { wave_size: target.simd.wave_size, ..host.simd }, ..*host };
    let unit = emit_unit(&model.name, &host, &plan.kernels);
    Compiled { plan, weights: Arc::new(FileWeights::new(model.gguf, &model.graph)), unit }
}

impl Compiled {
    /// With kernels that do something else than the plan says: each pair's first text is replaced by its second everywhere.
    ///
    /// # Panics
    /// If the unit has no such text.
    pub fn altered(mut self, changes: &[(&str, &str)]) -> Self {
        for (from, to) in changes {
            assert!(self.unit.contains(from), "the unit has no {from}");
            self.unit = self.unit.replace(from, to);
        }
        self
    }

    /// The plan's meaning, in parallel.
    pub fn cpu(&self) -> CpuBackend {
        CpuBackend::new(self.plan.clone(), self.weights.clone()).unwrap_or_else(|e| panic!("{e}"))
    }

    /// The plan's kernels in this process, buffers where the plan puts them.
    pub fn host(&self, order: Order) -> DriverBackend<HostLibrary> {
        self.host_with(order, Placement::Planned)
    }

    /// The same with buffers elsewhere.
    ///
    /// # Panics
    /// If they can't be compiled or loaded: the test has failed.
    pub fn host_with(&self, order: Order, placement: Placement) -> DriverBackend<HostLibrary> {
        let module = self.compile(Emit::HostSharedObject).unwrap_or_else(|e| panic!("{e}")).bytes;
        let (driver, plan) = (HostLibrary::new(order), self.plan.clone());
        let backend = DriverBackend::new(driver, plan, &module, &*self.weights, placement, &mut |_| ());
        backend.unwrap_or_else(|e| panic!("{e}"))
    }

    /// The plan's kernels in a process with AddressSanitizer and UBSan, every buffer in an allocation of its own. `None` where the
    /// machine lacks the sanitizers.
    pub fn sanitized(&self, order: Order) -> Option<DriverBackend<HostProcess>> {
        let module = sanitizers::program(self.compile(Emit::HostAsanExecutable))?;
        let (driver, plan) = (HostProcess::new(order), self.plan.clone());
        let backend = DriverBackend::new(driver, plan, &module, &*self.weights, Placement::Separate, &mut |_| ());
        Some(backend.unwrap_or_else(|e| panic!("{e}")))
    }

    fn compile(&self, emit: Emit) -> Result<toolchain::Compiled, ToolchainError> {
        static TOOLCHAIN: LazyLock<Toolchain> = LazyLock::new(Toolchain::from_env);
        let mut source = self.unit.clone();
        if emit == Emit::HostAsanExecutable {
            source.push_str("\n#include \"hipc/host_main.cpp\"\n");
        }
        let unit = UnitSource { name: "unit", source: &source, headers: hipc_templates::HEADERS };
        let host = Target::parse("host").expect("the table has the host");
        TOOLCHAIN.compile(&unit, host, emit, &CompileOptions::default())
    }
}

/// The exact evaluator on a file.
///
/// # Panics
/// If the file can't be opened.
pub fn exact(path: &Path, ctx: usize, single_steps: bool) -> ExactEngine {
    let model = hipc_models::load(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let weights = FileWeights::new(model.gguf, &model.graph);
    ExactEngine::new(Arc::new(model.graph), ctx, Arc::new(weights), single_steps).unwrap_or_else(|e| panic!("{e}"))
}
