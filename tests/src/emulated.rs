//! Machine code on the emulator: kernels of the case table, and small whole models with weights at random.

use crate::file_weights::FileWeights;
use crate::gguf_writer::{Mix, Shape, model};
use crate::kernel_cases::{positions, states};
use crate::launch_bench::{Case, Loaded};
use crate::logits::choices;
use hipc::emit::emit_unit;
use hipc::pipeline::{Options, plan};
use hipc::target::Target;
use hipc::toolchain::{Backend, CompileOptions, Emit, Toolchain, ToolchainError, UnitSource};
use hipc_emulator::{Dispatch, Memory, Module};
use hipc_ir::PrimaryMap;
use hipc_ir::fused::{FusedOp, ProgramKind};
use hipc_ir::graph::Graph;
use hipc_ir::plan::{KernelSpec, Plan, StepState};
use hipc_models::Model;
use hipfire_run::device::cpu::CpuBackend;
use hipfire_run::device::emu::Emulator;
use hipfire_run::device::{DeviceError, Driver, DriverBackend, Placement, WeightSource};
use hipfire_run::synthetic::Synthetic;
use hipfire_run::verify::chain::{Steps, chain};
use hipfire_run::verify::inputs::{Request, SAMPLED};
use hipfire_run::verify::{self, ChainRow, Row};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// Instructions of a wave: many times what the largest kernel of the table takes.
const BUDGET: u64 = 2_000_000;

static TOOLCHAIN: LazyLock<Toolchain> = LazyLock::new(Toolchain::from_env);

/// Whether this build has a back end and this machine what it needs; a line that says so if not.
pub fn has(backend: Backend) -> bool {
    let found = TOOLCHAIN.compiler(backend);
    if let Err(error) = &found {
        println!("skipped: {error}");
    }
    found.is_ok()
}

/// Compiles kernels for an AMD target into one code object.
///
/// # Errors
/// The compiler's.
pub fn compile(
    target: &Target,
    specs: &[KernelSpec],
    headers: &[(&str, &str)],
    backend: Backend,
) -> Result<Vec<u8>, ToolchainError> {
    let source = emit_unit("cases", target, &specs.iter().cloned().collect::<PrimaryMap<_, _>>());
    let unit = UnitSource { name: "cases", source: &source, headers };
    Ok(TOOLCHAIN.compile(&unit, target, Emit::CodeObject, &CompileOptions { backend, ..CompileOptions::default() })?.bytes)
}

/// What all launches of a kernel left behind, or how they went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Right, with these bytes in all operands, launch by launch.
    Right(Vec<Vec<Vec<u8>>>),
    /// Results that the reference doesn't have, or that lie elsewhere.
    Wrong(String),
    /// The emulator stopped it.
    Fault(String),
}

impl Outcome {
    /// Whether nothing is wrong.
    pub fn is_right(&self) -> bool {
        matches!(self, Self::Right(_))
    }
}

/// A kernel with operands at random, tried at the edges of what it can be asked for. Each operand is an allocation of its own, across a
/// multiple of 4 GiB: beside it is nothing, and addresses need their carries.
pub struct Trial {
    spec: KernelSpec,
    tokens: u32,
    launches: Vec<(Case, StepState)>,
}

impl Trial {
    /// Operands by this seed, in a program of up to `tokens` tokens.
    pub fn new(spec: &KernelSpec, tokens: u32, seed: u64) -> Self {
        Self::of(spec, tokens, seed, 1.0)
    }

    fn of(spec: &KernelSpec, tokens: u32, seed: u64, magnitude: f32) -> Self {
        let ctx = positions(&spec.op);
        let case = Case::of(&Request { spec, tokens, ctx, magnitude, sampling: SAMPLED, seed });
        let cases = if let FusedOp::Choose(_) = spec.op { choices(&case, ctx, seed) } else { vec![case] };
        let states = states(&spec.op, tokens);
        let launches = cases.iter().flat_map(|case| states.iter().map(|&state| (case.clone(), state))).collect();
        Self { spec: spec.clone(), tokens, launches }
    }

    /// The same with other operands; `magnitude` is that of activations.
    pub fn again(&self, seed: u64, magnitude: f32) -> Self {
        Self::of(&self.spec, self.tokens, seed, magnitude)
    }

    /// Launches in all.
    pub fn len(&self) -> usize {
        self.launches.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.launches.is_empty()
    }

    /// Runs this code object's kernel. `known` are the right bytes, if they are known: what equals them isn't compared again.
    ///
    /// # Panics
    /// If the reference can't judge the launch: the trial is wrong.
    pub fn run(&self, target: &str, module: &[u8], known: Option<&[Vec<Vec<u8>>]>) -> Outcome {
        self.run_on(Emulator::new(emulated(target)), module, known)
    }

    /// The same with the sanitizer.
    ///
    /// # Panics
    /// As [`Self::run`].
    pub fn run_sanitized(&self, target: &str, module: &[u8], known: Option<&[Vec<Vec<u8>>]>) -> Outcome {
        self.run_on(Emulator::new(emulated(target)).sanitizing(), module, known)
    }

    /// Whether the instruction at this address does the same in both code objects each time that it is executed.
    ///
    /// # Panics
    /// If the first code object's kernel can't be run.
    pub fn same_effect(&self, modules: [&[u8]; 2], address: u64) -> bool {
        let [module, other] = modules.map(|m| Module::load(m).unwrap_or_else(|e| panic!("{e}")));
        let spec = &self.spec;
        self.launches.iter().all(|(case, state)| {
            let memory = Memory::new().straddling();
            let placed = case.with_state(*state).into_iter().map(|bytes| {
                let address = memory.allocate(bytes.len() as u64);
                memory.write(address, &bytes).unwrap_or_else(|e| panic!("{e}"));
                address
            });
            let kernarg: Vec<u8> = placed.flat_map(u64::to_le_bytes).collect();
            let (kernel, grid, workgroup) = (spec.name.as_str(), spec.grid(self.tokens), [spec.threads(), 1, 1]);
            let dispatch = Dispatch { kernel, grid, workgroup, dynamic_lds: 0, kernarg: &kernarg };
            let options = hipc_emulator::Options { budget: BUDGET, ..hipc_emulator::Options::default() };
            module.same_effect(&other, address, &dispatch, &memory, &options).unwrap_or_else(|e| panic!("{}: {e}", spec.name))
        })
    }

    fn run_on(&self, device: Emulator, module: &[u8], known: Option<&[Vec<Vec<u8>>]>) -> Outcome {
        let mut device = device.with_budget(BUDGET).straddling();
        let kernel = match device.load(module, &[&self.spec.name]) {
            Ok(kernels) => kernels[0],
            Err(error) => return Outcome::Fault(error.to_string()),
        };
        let Some((first, _)) = self.launches.first() else { return Outcome::Right(Vec::new()) };
        let mut loaded = Loaded::new(&mut device, kernel, first).unwrap_or_else(|e| panic!("{e}"));
        let mut all = Vec::with_capacity(self.launches.len());
        for (i, &(ref case, state)) in self.launches.iter().enumerate() {
            let at = || format!("{} at {}+{}", self.spec.name, state.pos, state.n);
            let after = match case.execute(&mut loaded, state) {
                Ok(after) => after,
                Err(DeviceError::Fault { what, .. }) => return Outcome::Fault(format!("{}: {what}", at())),
                Err(error) => panic!("{}: {error}", at()),
            };
            if known.is_none_or(|known| known[i] != after) {
                if let Some(role) = case.strayed(state, &after).first() {
                    return Outcome::Wrong(format!("{}: {role:?} was touched where it must not be", at()));
                }
                let findings = case.compare(state, &after).unwrap_or_else(|e| panic!("{}: {e}", at()));
                if let Some(finding) = findings.iter().find(|f| !f.passes()) {
                    return Outcome::Wrong(format!("{}: {finding:?}", at()));
                }
            }
            all.push(after);
        }
        Outcome::Right(all)
    }
}

/// The smallest model of an architecture in which every kernel has several workgroups and attention groups heads.
pub const fn small_model(of: Shape, layers: u32) -> Shape {
    Shape { layers, embd: 256, ff: 512, heads: 4, kv_heads: 2, head_dim: 64, vocab: 323, ..of }
}

/// What `hipfire-run verify` compares, compared.
#[derive(Debug)]
pub struct Verified {
    /// Launches.
    pub rows: Vec<Row>,
    /// Whole steps by program, or how the device stopped them.
    pub steps: Result<Vec<ChainRow>, DeviceError>,
}

impl Verified {
    /// Everything that is wrong, a line or more each.
    pub fn wrong(&self) -> Vec<String> {
        let launch = |r: &Row| r.failure.as_ref().map(|f| format!("{} {} (kernel {}): {f:?}", r.program, r.label, r.kernel));
        let mut all: Vec<String> = self.rows.iter().filter_map(launch).collect();
        match &self.steps {
            Ok(steps) => all.extend(steps.iter().filter(|c| !c.passes()).map(|c| format!("{c:?}"))),
            Err(error) => all.push(error.to_string()),
        }
        all
    }

    /// Cases compared, cases that there are, and cases watched by the sanitizer.
    pub fn cases(&self) -> [usize; 3] {
        self.rows.iter().fold([0; 3], |[a, b, c], r| [a + r.cases, b + r.planned, c + r.watched])
    }
}

/// A model compiled for a target, with its machine code.
pub struct Built {
    /// The plan.
    pub plan: Plan,
    /// The code object.
    pub module: Vec<u8>,
    /// Before fusion.
    pub graph: Arc<Graph>,
    /// Weights, as every device takes them.
    pub weights: Arc<dyn WeightSource + Send>,
}

impl Built {
    /// A file.
    ///
    /// # Panics
    /// If it can't be compiled: the test has failed.
    pub fn file(path: &Path, target: &str, ctx: u32) -> Self {
        Self::new(
            hipc_models::load(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())),
            target,
            ctx,
            Backend::Clang,
            |model| Arc::new(FileWeights::new(model.gguf, &model.graph)),
        )
    }

    /// A shape with weights at random.
    ///
    /// # Panics
    /// If it can't be compiled: the test has failed.
    pub fn random(shape: Shape, mix: Mix, target: &str, ctx: u32, backend: Backend) -> Self {
        let folder = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
        let path = folder.path().join("model.gguf");
        // Without any data.
        model(shape, mix).write_sparse(&path).unwrap_or_else(|e| panic!("{e}"));
        let model = hipc_models::load(&path).unwrap_or_else(|e| panic!("{e}"));
        Self::new(model, target, ctx, backend, |model| Arc::new(Synthetic::new(model.graph.weights, 1)))
    }

    fn new(
        model: Model,
        target: &str,
        ctx: u32,
        backend: Backend,
        weights: impl FnOnce(Model) -> Arc<dyn WeightSource + Send>,
    ) -> Self {
        let target = Target::parse(target).unwrap_or_else(|e| panic!("{e}"));
        let planned = plan(&model, target, &Options { ctx: Some(ctx), ..Options::default() });
        let plan = planned.unwrap_or_else(|e| panic!("{}: {e}", target.name)).plan;
        let specs: Vec<KernelSpec> = plan.kernels.values().cloned().collect();
        let module = compile(target, &specs, hipc_templates::HEADERS, backend).unwrap_or_else(|e| panic!("{}: {e}", target.name));
        Self { plan, module, graph: Arc::new(model.graph.clone()), weights: weights(model) }
    }

    /// Its machine code on the emulated GPU, every buffer in an allocation of its own.
    ///
    /// # Panics
    /// If it can't be loaded.
    pub fn emulated(&self) -> DriverBackend<Emulator> {
        self.load(Emulator::new(emulated(&self.plan.target))).unwrap_or_else(|e| panic!("{e}"))
    }

    fn load(&self, driver: Emulator) -> Result<DriverBackend<Emulator>, DeviceError> {
        let plan = self.plan.clone();
        DriverBackend::new(driver, plan, &self.module, &*self.weights, Placement::Separate, &mut |_| ())
    }

    /// Every launch by itself, and whole steps, both with the sanitizer.
    ///
    /// # Errors
    /// The device's, but for faults.
    ///
    /// # Panics
    /// If `cpu` can't execute the plan.
    pub fn verify(&self, options: &verify::Options) -> Result<Verified, DeviceError> {
        let mut device = self.load(Emulator::new(emulated(&self.plan.target)).sanitizing())?;
        let rows = verify::launches(&mut device, &*self.weights, options, &mut |_, _, _| ())?;
        let steps = match self.steps_on(&mut device) {
            Err(error) if !matches!(error, DeviceError::Fault { .. }) => return Err(error),
            steps => steps,
        };
        Ok(Verified { rows, steps })
    }

    /// Whole decode and prompt steps on the emulated GPU, with its sanitizer, against `cpu` and the unfused graph.
    ///
    /// # Errors
    /// A fault.
    ///
    /// # Panics
    /// If `cpu` can't execute the plan.
    pub fn steps(&self) -> Result<Vec<ChainRow>, DeviceError> {
        self.steps_on(&mut self.load(Emulator::new(emulated(&self.plan.target)).sanitizing())?)
    }

    /// [`Self::steps`] on a device that is loaded, whether its sanitizer watched that or not.
    ///
    /// # Errors
    /// A fault.
    ///
    /// # Panics
    /// If `cpu` can't execute the plan.
    pub fn steps_on(&self, device: &mut DriverBackend<Emulator>) -> Result<Vec<ChainRow>, DeviceError> {
        let mut cpu = CpuBackend::new(self.plan.clone(), self.weights.clone()).unwrap_or_else(|e| panic!("{e}"));
        let mut rows = Vec::new();
        for kind in [ProgramKind::Decode, ProgramKind::Prompt] {
            let graph = Some((self.graph.clone(), self.weights.clone()));
            let asked = Steps { kind, seed: 1, limit: Duration::from_secs(60), watched: true, graph };
            rows.extend(chain(device, &mut cpu, &asked, &mut |_| ())?);
        }
        Ok(rows)
    }
}

/// The row of an architecture.
fn emulated(target: &str) -> &'static hipc_emulator::Arch {
    hipc_emulator::find_arch(target).unwrap_or_else(|| panic!("{target} isn't emulated"))
}
