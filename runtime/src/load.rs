//! From a bundle to an engine: device, memory, weights.

use crate::bundle::{Bundle, BundleError, Weights};
use crate::device::cpu::CpuBackend;
use crate::device::cuda::CudaDriver;
use crate::device::emu::Emulator;
use crate::device::hip::HipDriver;
use crate::device::host::{HostLibrary, Order, memory};
use crate::device::select::{DeviceName, HOST, Selected, select};
use crate::device::{Backend, DeviceError, Driver, DriverBackend, Placement, Progress, WeightSource, check_fits};
use crate::engine::{Engine, EngineError, PlanEngine};
use crate::exact::ExactEngine;
use hipc_ir::plan::{BufferKind, Plan, Space};
use hipc_ir::units::bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How a bundle is to be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What executes.
    pub device: DeviceName,
    /// The unfused graph in f64 instead of a plan.
    pub exact: bool,
    /// One token at a time, prompts too.
    pub single_steps: bool,
    /// Print every launch.
    pub trace: bool,
    /// Launch by launch where a device could take a whole step at once.
    pub plain_launches: bool,
    /// What is checked.
    pub checks: Checks,
}

/// What is checked beyond what stops a device anyway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checks {
    /// Nothing.
    #[default]
    None,
    /// Every buffer has an allocation of its own. What lies beside it is a fault where the device finds that itself, a margin elsewhere
    /// ([`Placement::Guarded`]) if there is memory for it.
    Memory,
    /// That, and launches are watched from loading on, see [`Backend::watch`].
    Sanitizer,
}

/// Why nothing could be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The bundle, or the model file it refers to.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The exact evaluator.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The exact evaluator is asked for on a device that it doesn't run on.
    #[error("--exact runs on the CPU, not on {0}\nleave out --device, or --exact")]
    ExactElsewhere(DeviceName),
}

/// What a person may want to know while something is loaded.
pub trait Listener {
    /// Something that wasn't asked for, such as the CPU in place of a GPU.
    fn note(&mut self, text: &str);
    /// What is about to be done: the device, the plan, its memory.
    fn detail(&mut self, what: &str, text: &str);
    /// Weights on their way to the device.
    fn progress(&mut self, progress: Progress);
}

/// Loads a bundle. Embedded weights are checked while they are on their way to the device: before anything can be computed with them.
///
/// # Errors
/// [`LoadError`].
pub fn load(
    bundle: &Bundle,
    weights: Arc<Weights>,
    request: Request,
    listener: &mut dyn Listener,
) -> Result<Box<dyn Engine>, LoadError> {
    std::thread::scope(|scope| {
        let checked = Arc::clone(&weights);
        let check = scope.spawn(move || {
            let started = Instant::now();
            bundle.check(&checked).map(|bytes| (bytes, started.elapsed()))
        });
        let engine = engine(bundle, weights, request, listener)?;
        let (bytes, time) = check.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        if bytes > 0 {
            listener.detail("checked", &format!("embedded weights, {}", speed(bytes, time)));
        }
        Ok(engine)
    })
}

fn engine(
    bundle: &Bundle,
    weights: Arc<Weights>,
    request: Request,
    listener: &mut dyn Listener,
) -> Result<Box<dyn Engine>, LoadError> {
    if request.exact {
        if !matches!(request.device, DeviceName::Auto | DeviceName::Cpu) {
            return Err(LoadError::ExactElsewhere(request.device));
        }
        listener.detail("device", "cpu, exact: the unfused graph in f64");
        let graph = Arc::new(bundle.graph()?);
        return Ok(Box::new(ExactEngine::new(graph, bundle.manifest().ctx as usize, weights, request.single_steps)?));
    }
    let loaded = load_backend(bundle, weights, request, listener)?;
    let mut engine = PlanEngine::new(loaded.backend, request.single_steps).trace(request.trace);
    let steps = engine.prepare()?;
    listener.detail("steps", &steps);
    Ok(Box::new(engine))
}

/// A plan on its device.
pub struct Loaded {
    /// The device.
    pub backend: Box<dyn Backend>,
    /// Bytes that it allocates by the plan.
    pub planned: u64,
}

/// Loads a bundle's plan onto a device; the weights can come from anywhere.
///
/// # Errors
/// [`LoadError`].
pub fn load_backend(
    bundle: &Bundle,
    weights: Arc<dyn WeightSource + Send>,
    request: Request,
    listener: &mut dyn Listener,
) -> Result<Loaded, LoadError> {
    let archs: Vec<&str> = bundle.archs().collect();
    let (selected, note) = select(request.device, &archs)?;
    if let Some(note) = note {
        listener.note(&note);
    }
    let placement = if request.checks == Checks::None { Placement::Planned } else { Placement::Guarded };
    Ok(match selected {
        Selected::Cpu(arch) => cpu(bundle.plan(&arch)?, weights, listener)?,
        Selected::Hip(runtime, device) => {
            let (plan, code) = (bundle.plan(&device.arch)?, bundle.code(&device.arch)?);
            driver(HipDriver::new(&runtime, device.index)?, plan, code, &*weights, placement, request, listener)?
        }
        Selected::Cuda(runtime, device) => {
            let (plan, code) = (bundle.plan(&device.arch)?, bundle.code(&device.arch)?);
            driver(CudaDriver::new(&runtime, device.index)?, plan, code, &*weights, placement, request, listener)?
        }
        Selected::Emu(arch) => {
            let (plan, code) = (bundle.plan(arch.name)?, bundle.code(arch.name)?);
            // It stops at what lies beside a buffer's allocation.
            let placement = if placement == Placement::Guarded { Placement::Separate } else { placement };
            let mut emulator = Emulator::new(arch);
            emulator.watch(request.checks == Checks::Sanitizer);
            driver(emulator, plan, code, &*weights, placement, request, listener)?
        }
        Selected::Host => {
            let (plan, code) = (bundle.plan(HOST)?, bundle.code(HOST)?);
            driver(HostLibrary::new(Order::default()), plan, code, &*weights, placement, request, listener)?
        }
    })
}

fn cpu(plan: Plan, weights: Arc<dyn WeightSource + Send>, listener: &mut dyn Listener) -> Result<Loaded, DeviceError> {
    // Weights are read where they are mapped, and nothing shares memory.
    let plan = plan.with_gguf_weights();
    let own = plan.buffers.values().filter(|b| !matches!(b.kind, BufferKind::Weight(..)));
    let bytes_needed = own.map(|b| b.bytes).sum();
    check_fits("cpu", &plan, bytes_needed, memory()?)?;
    let described = planned(&plan);
    let target = plan.target.clone();
    let backend = CpuBackend::new(plan, weights)?;
    listener.detail("device", &format!("{}, by the plan for {target}", backend.describe()));
    listener.detail("memory", &described);
    listener.detail(
        "allocated",
        &format!("{}, since no buffers share memory on the CPU; the weights stay in the mapped file", bytes(bytes_needed)),
    );
    Ok(Loaded { backend: Box::new(backend), planned: bytes_needed })
}

fn driver<D: Driver + 'static>(
    driver: D,
    plan: Plan,
    code: &[u8],
    weights: &dyn WeightSource,
    placement: Placement,
    request: Request,
    listener: &mut dyn Listener,
) -> Result<Loaded, DeviceError> {
    listener.detail("device", &driver.describe());
    listener.detail("memory", &planned(&plan));
    let planned = Space::ALL.iter().map(|&space| plan.space_bytes(space)).sum();
    let (free, _) = driver.memory()?;
    let placement = match placement {
        Placement::Guarded if placement.bytes(&plan) > free => {
            listener.note("too little memory for buffers with margins: what is written beside them isn't looked for");
            Placement::Planned
        }
        other => other,
    };
    // Begins when the kernels are loaded.
    let (mut started, mut loaded) = (Instant::now(), 0);
    let mut progress = |p: Progress| {
        if p.done == 0 {
            started = Instant::now();
        }
        loaded = p.done;
        listener.progress(p);
    };
    let mut backend = DriverBackend::new(driver, plan, code, weights, placement, &mut progress)?;
    let time = started.elapsed();
    listener.detail("loaded", &format!("weights and tables, {}", speed(loaded, time)));
    backend.use_graphs(!request.plain_launches);
    let used = backend.memory_use()?;
    let [own, driver, before, total] = [used.own, used.driver, used.before, used.total].map(bytes);
    listener.detail("allocated", &format!("{own} by us, {driver} more by the driver; {before} of {total} were in use before"));
    Ok(Loaded { backend: Box::new(backend), planned })
}

/// `4.6 GiB in 0.25 s: 19.8 GB/s`.
fn speed(amount: u64, time: Duration) -> String {
    let seconds = time.as_secs_f64();
    format!("{} in {seconds:.2} s: {:.1} GB/s", bytes(amount), amount as f64 / 1e9 / seconds.max(1e-9))
}

/// Bytes of every space of the plan.
fn planned(plan: &Plan) -> String {
    let parts =
        Space::ALL.iter().map(|&space| format!("{} {}", format!("{space:?}").to_lowercase(), bytes(plan.space_bytes(space))));
    let all: u64 = Space::ALL.iter().map(|&space| plan.space_bytes(space)).sum();
    format!("{} planned: {}", bytes(all), parts.collect::<Vec<_>>().join(", "))
}
