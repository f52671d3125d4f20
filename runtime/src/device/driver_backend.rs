//! The generic [`Backend`] over a [`Driver`]: places a plan's buffers in device memory, uploads what is fixed, and packs the
//! kernel arguments of every launch once, so that a step is nothing but driver calls.

use super::{
    Around, Backend, Beside, DeviceError, DevicePtr, Driver, Executed, KernelLaunch, MARGIN, Mark, MemoryUse, Operand, ReadTimes,
    Recording, WeightSource, bandwidth, margins,
};
use crate::tables::rope_table;
use hipc_ir::EntityRef;
use hipc_ir::dtype::Layout;
use hipc_ir::fused::{Access, FusedOp, Repack, Shape};
use hipc_ir::plan::{Buffer, BufferDecl, BufferKind, Plan, Program, Space, StepState};
use std::ops::Range;

/// Where buffers lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// One allocation per space, buffers at the plan's offsets. What users get.
    #[default]
    Planned,
    /// One allocation per buffer, so that a device that checks its memory sees every step over a buffer's end; nothing shares memory.
    Separate,
    /// The same, and before and behind each buffer [`MARGIN`] bytes in which nothing may be written: for devices that don't check
    /// accesses themselves, see [`Backend::beside`].
    Guarded,
}

impl Placement {
    /// Bytes of the device's memory that a plan takes.
    pub fn bytes(self, plan: &Plan) -> u64 {
        let margins = if self == Self::Guarded { 2 * MARGIN } else { 0 };
        match self {
            Self::Planned => Space::ALL.iter().filter(|&&s| s != Space::Pinned).map(|&s| plan.space_bytes(s)).sum(),
            Self::Separate | Self::Guarded => {
                plan.buffers.values().filter(|b| b.space != Space::Pinned).map(|b| b.bytes + margins).sum()
            }
        }
    }
}

/// Bytes uploaded so far, and in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of weights (as the file has them) and tables on the device.
    pub done: u64,
    /// Weights and tables of the plan.
    pub total: u64,
}

/// Largest piece handed to the driver at a time, so that progress shows within one tensor, too.
const PIECE: usize = 32 << 20;

#[derive(Debug)]
struct Ready {
    kernel: u64,
    grid: [u32; 3],
    threads: u32,
    kernargs: Vec<u8>,
    operands: Vec<Operand>,
}

impl Ready {
    fn launch(&self) -> KernelLaunch<'_> {
        let Self { kernel, grid, threads, kernargs, operands } = self;
        KernelLaunch { kernel: *kernel, grid: *grid, threads: *threads, kernargs, operands }
    }
}

/// A launch that repacks a weight, and where its pieces go.
#[derive(Debug)]
struct Load {
    staging: DevicePtr,
    launch: Ready,
}

/// A plan loaded onto a driver's device.
#[derive(Debug)]
pub struct DriverBackend<D> {
    driver: D,
    plan: Plan,
    /// By buffer.
    addresses: Vec<DevicePtr>,
    /// By program and launch.
    programs: Vec<Vec<Ready>>,
    /// By launch of [`Plan::load`].
    load: Vec<Load>,
    /// As it was loaded; measuring the bandwidth takes a kernel from it that the plan doesn't have.
    module: Vec<u8>,
    /// Free memory before anything was loaded.
    free: u64,
    graphs: bool,
    placement: Placement,
}

impl<D: Driver> DriverBackend<D> {
    /// Loads `module` (what the driver takes: a code object, PTX, a shared object), allocates, and uploads the weights and
    /// tables; `progress` hears of every piece.
    ///
    /// # Errors
    /// [`DeviceError::ContextTooLarge`] or [`DeviceError::OutOfMemory`] if the device's memory doesn't hold the plan, whatever
    /// the driver reports, and [`DeviceError::Internal`] where plan and kernels contradict each other.
    pub fn new(
        mut driver: D,
        plan: Plan,
        module: &[u8],
        weights: &dyn WeightSource,
        placement: Placement,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, DeviceError> {
        // A unit for the host can have any target's geometry.
        if driver.arch() != "host" && plan.target != driver.arch() {
            return Err(DeviceError::NoCode { device: driver.arch().to_owned(), has: plan.target });
        }
        let memory = driver.memory()?;
        check_fits(&driver.describe(), &plan, placement.bytes(&plan), memory)?;
        let names: Vec<&str> = plan.kernels.values().map(|k| k.name.as_str()).collect();
        let kernels = driver.load(module, &names)?;
        if kernels.len() != names.len() {
            return Err(DeviceError::Internal(format!("{} of {} kernels resolved", kernels.len(), names.len())));
        }
        let addresses = allocate(&mut driver, &plan, placement)?;
        let (programs, load) = pack(&plan, &kernels, &addresses)?;
        let module = module.to_vec();
        let (free, _) = memory;
        let mut backend = Self { driver, plan, addresses, programs, load, module, free, graphs: true, placement };
        backend.fill(weights, progress)?;
        Ok(backend)
    }

    /// The driver underneath.
    pub fn driver_mut(&mut self) -> &mut D {
        &mut self.driver
    }

    /// Whether recordings become graphs where the driver has them (as they do unless told otherwise), or plain launches.
    pub fn use_graphs(&mut self, on: bool) {
        self.graphs = on;
    }

    /// Uploads weights and tables, and brings weights into their layout on the device.
    fn fill(&mut self, weights: &dyn WeightSource, progress: &mut dyn FnMut(Progress)) -> Result<(), DeviceError> {
        let plan = &self.plan;
        let total = plan.buffers.values().map(|b| match b.kind {
            BufferKind::Weight(w, _) => plan.weights[w].bytes(),
            BufferKind::Rope(_) => b.bytes,
            _ => 0,
        });
        let total = total.sum();
        let mut uploads = Uploads { driver: &mut self.driver, progress, done: 0, total };
        uploads.advance(0);
        for (buffer, decl) in &plan.buffers {
            let to = self.addresses[buffer.index()];
            match decl.kind {
                BufferKind::Weight(w, Layout::Gguf) => uploads.bytes(to, fitting(buffer, decl.bytes, &weights.once(w))?)?,
                BufferKind::Weight(w, _) => {
                    let launch = plan.load.iter().zip(&self.load).find(|(l, _)| l.args.last() == Some(&buffer));
                    let op = launch.and_then(|(l, ready)| match &plan.kernels.get(l.kernel)?.op {
                        FusedOp::Repack(op) => Some((op, ready)),
                        _ => None,
                    });
                    let (op, ready) =
                        op.ok_or_else(|| DeviceError::Internal(format!("nothing brings {buffer} into its layout")))?;
                    let bytes = weights.once(w);
                    let bytes = fitting(buffer, plan.weights[w].bytes(), &bytes)?;
                    uploads.repack(self.addresses[plan.state.index()], op, ready, bytes)?;
                }
                BufferKind::Rope(r) => {
                    let rope = &plan.ropes[r];
                    let factors: Option<Vec<f32>> = rope.factors.map(|w| {
                        let bytes = weights.weight(w).as_chunks::<4>().0;
                        bytes.iter().map(|c| f32::from_le_bytes(*c)).collect()
                    });
                    let values = rope_table(rope, plan.ctx, factors.as_deref());
                    let table: Vec<u8> = values.iter().flatten().flat_map(|v| v.to_le_bytes()).collect();
                    uploads.bytes(to, fitting(buffer, decl.bytes, &table)?)?;
                }
                _ => {}
            }
        }
        if !plan.load.is_empty() {
            self.driver.upload(self.addresses[plan.state.index()], &StepState::default().to_bytes())?;
        }
        self.driver.sync()
    }

    /// Address of `len` bytes at `offset` of a buffer.
    fn locate(&self, buffer: Buffer, offset: u64, len: usize) -> Result<DevicePtr, DeviceError> {
        let decl = self.plan.buffers.get(buffer);
        match decl.filter(|d| offset.checked_add(len as u64).is_some_and(|end| end <= d.bytes)) {
            Some(_) => Ok(self.addresses[buffer.index()] + offset),
            None => Err(DeviceError::Internal(format!("{len} bytes at {offset} of {buffer} are outside of it"))),
        }
    }
}

impl<D: Driver> Backend for DriverBackend<D> {
    fn describe(&self) -> String {
        self.driver.describe()
    }
    fn write(&mut self, buffer: Buffer, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        let at = self.locate(buffer, offset, bytes.len())?;
        self.driver.upload(at, bytes)
    }
    fn read(&mut self, buffer: Buffer, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        let at = self.locate(buffer, offset, bytes.len())?;
        self.driver.download(at, bytes)
    }
    fn forget(&mut self, buffer: Buffer, offset: u64, bytes: u64) -> Result<(), DeviceError> {
        let at = self.locate(buffer, offset, bytes as usize)?;
        self.driver.forget(at, bytes)
    }
    fn watch(&mut self, on: bool) {
        self.driver.watch(on);
    }
    fn run(&mut self, program: usize, range: Range<usize>) -> Result<(), DeviceError> {
        for ready in launches_of(&self.programs, program, &range)? {
            self.driver.launch(ready.launch())?;
        }
        Ok(())
    }
    fn record_launches(&mut self, program: usize, launches: &[usize], repeat: u32) -> Result<Recording, DeviceError> {
        let one = |&i: &usize| launches_of(&self.programs, program, &(i..i + 1)).map(|l| l[0].launch());
        let once = launches.iter().map(one).collect::<Result<Vec<KernelLaunch<'_>>, _>>()?;
        let graph = if self.graphs { self.driver.capture(&once.repeat(repeat as usize))? } else { None };
        Ok(Recording { program, launches: launches.to_vec(), repeat, graph })
    }
    fn read_memory(&mut self, bytes: u64, times: u32) -> Result<ReadTimes, DeviceError> {
        bandwidth::measure(&mut self.driver, &self.module, bytes, times)
    }
    fn replay(&mut self, recording: &Recording) -> Result<(), DeviceError> {
        match &recording.graph {
            Some(graph) => self.driver.replay(graph),
            None => recording.runs().try_for_each(|range| self.run(recording.program, range)),
        }
    }
    fn works_ahead(&self) -> bool {
        self.driver.works_ahead()
    }
    fn mark(&mut self) -> Result<Mark, DeviceError> {
        self.driver.mark()
    }
    fn elapsed(&mut self, from: &Mark, to: &Mark) -> Result<f64, DeviceError> {
        self.driver.elapsed(from, to)
    }
    fn receive(&mut self, index: usize, generation: i32) -> Result<i32, DeviceError> {
        let at = self.locate(self.plan.outbox, 8 * index as u64, 8)?;
        self.driver.receive(at, generation)
    }
    fn memory_use(&self) -> Result<MemoryUse, DeviceError> {
        let ((free, total), own) = (self.driver.memory()?, self.driver.allocated());
        let driver = self.free.saturating_sub(free).saturating_sub(own);
        Ok(MemoryUse { own, driver, before: total.saturating_sub(self.free), total })
    }
    fn around(&self) -> Around {
        match self.placement {
            Placement::Planned => Around::Unseen,
            Placement::Separate => Around::Fault,
            Placement::Guarded => Around::Margins,
        }
    }
    fn beside(&mut self, buffer: Buffer) -> Result<Option<Beside>, DeviceError> {
        match self.plan.buffers.get(buffer).filter(|_| self.placement == Placement::Guarded) {
            Some(decl) => margins::look(&mut self.driver, buffer, self.addresses[buffer.index()], decl.bytes),
            None => Ok(None),
        }
    }
    fn executed(&self) -> Option<Executed> {
        self.driver.executed()
    }
    fn plan(&self) -> &Plan {
        &self.plan
    }
}

fn launches_of<'a>(programs: &'a [Vec<Ready>], program: usize, range: &Range<usize>) -> Result<&'a [Ready], DeviceError> {
    let launches = programs.get(program).and_then(|p| p.get(range.clone()));
    launches.ok_or_else(|| DeviceError::Internal(format!("program {program} has no launches {range:?}")))
}

/// A buffer's contents, if they have its size.
fn fitting(buffer: Buffer, planned: u64, bytes: &[u8]) -> Result<&[u8], DeviceError> {
    if bytes.len() as u64 == planned {
        return Ok(bytes);
    }
    Err(DeviceError::Internal(format!("{buffer} has {planned} bytes in the plan, its contents have {}", bytes.len())))
}

/// What goes to the device at load, and who hears of it.
struct Uploads<'a, D> {
    driver: &'a mut D,
    progress: &'a mut dyn FnMut(Progress),
    done: u64,
    total: u64,
}

impl<D: Driver> Uploads<'_, D> {
    fn advance(&mut self, bytes: usize) {
        self.done += bytes as u64;
        (self.progress)(Progress { done: self.done, total: self.total });
    }

    fn bytes(&mut self, mut to: DevicePtr, bytes: &[u8]) -> Result<(), DeviceError> {
        for piece in bytes.chunks(PIECE) {
            self.driver.upload(to, piece)?;
            to += piece.len() as u64;
            self.advance(piece.len());
        }
        Ok(())
    }

    /// Piece after piece of a weight into the staging buffer, and from there to its place. The stream keeps the order, so that a piece
    /// isn't overwritten before it is repacked; meanwhile the host reads the next one. (A second staging buffer would let the
    /// bus go on while a piece is repacked, which takes a hundredth of the time that the bus needs for it.)
    fn repack(&mut self, state: DevicePtr, op: &Repack, load: &Load, bytes: &[u8]) -> Result<(), DeviceError> {
        let row = (bytes.len() / op.rows.max(1) as usize).max(1);
        let mut pos = 0;
        for piece in bytes.chunks(row * op.piece.max(1) as usize) {
            let n = (piece.len() / row) as i32;
            self.driver.upload(load.staging, piece)?;
            self.driver.upload(state, &StepState { pos, n, ..StepState::default() }.to_bytes())?;
            self.driver.launch(load.launch.launch())?;
            pos += n;
            self.advance(piece.len());
        }
        Ok(())
    }
}

/// The longest context that fits `free` bytes, if a shorter one than that of `bytes` does: caches, tables and the token list
/// grow with it.
fn context_that_fits(plan: &Plan, bytes: u64, free: u64) -> Option<u32> {
    let grows = |k: BufferKind| matches!(k, BufferKind::Cache(_) | BufferKind::Rope(_) | BufferKind::Tokens | BufferKind::Draws);
    let growing: u64 = plan.buffers.values().filter(|b| grows(b.kind)).map(|b| b.bytes).sum();
    let per_position = growing.div_ceil(u64::from(plan.ctx.max(1)));
    let room = free.checked_sub(bytes.saturating_sub(growing))?;
    let fits = u32::try_from(room.checked_div(per_position)?).unwrap_or(u32::MAX);
    // Alignment of each buffer may take a few positions more; a round figure leaves room for it.
    let fits = fits.min(plan.ctx) / 64 * 64;
    (fits > 0 && fits < plan.ctx).then_some(fits)
}

fn out_of_memory(device: String, plan: &Plan, bytes: u64, free: u64, total: u64) -> DeviceError {
    match context_that_fits(plan, bytes, free) {
        Some(fits) => DeviceError::ContextTooLarge { device, ctx: plan.ctx, bytes, free, total, fits },
        None => DeviceError::OutOfMemory { device, bytes, what: format!("{} with context {}", plan.model.name, plan.ctx), free },
    }
}

/// Refuses a plan of which a device keeps `bytes` in its memory if those aren't free.
///
/// # Errors
/// [`DeviceError::ContextTooLarge`] or, where no context would fit, [`DeviceError::OutOfMemory`].
pub(crate) fn check_fits(device: &str, plan: &Plan, bytes: u64, (free, total): (u64, u64)) -> Result<(), DeviceError> {
    if bytes <= free { Ok(()) } else { Err(out_of_memory(device.to_owned(), plan, bytes, free, total)) }
}

fn allocate<D: Driver>(driver: &mut D, plan: &Plan, placement: Placement) -> Result<Vec<DevicePtr>, DeviceError> {
    let mut alloc = |space: Space, bytes: u64| {
        let bytes = bytes.max(1);
        let given = if space == Space::Pinned { driver.alloc_pinned(bytes) } else { driver.alloc(bytes) };
        let at = given.map_err(|error| match error {
            DeviceError::OutOfMemory { free, .. } => out_of_memory(driver.describe(), plan, placement.bytes(plan), free, free),
            other => other,
        })?;
        // Drivers zero all of it, but a plan may rely on that in these spaces only.
        if !matches!(space, Space::Persistent | Space::Pinned) {
            driver.forget(at, bytes)?;
        }
        Ok(at)
    };
    match placement {
        Placement::Separate => plan.buffers.values().map(|b| alloc(b.space, b.bytes)).collect(),
        Placement::Guarded => {
            let around = |b: &BufferDecl| alloc(b.space, b.bytes + 2 * MARGIN).map(|at| at + MARGIN);
            let addresses = plan.buffers.values().map(around).collect::<Result<Vec<_>, _>>()?;
            plan.buffers.values().zip(&addresses).try_for_each(|(b, &at)| margins::fill(driver, at, b.bytes))?;
            Ok(addresses)
        }
        Placement::Planned => {
            let mut base = [0; Space::ALL.len()];
            for (at, &space) in base.iter_mut().zip(&Space::ALL) {
                *at = alloc(space, plan.space_bytes(space))?;
            }
            let base_of = |space| Space::ALL.iter().position(|&s| s == space).map_or(0, |i| base[i]);
            Ok(plan.buffers.values().map(|b| base_of(b.space) + b.offset).collect())
        }
    }
}

/// The launches of all programs, and those at load.
fn pack(plan: &Plan, kernels: &[u64], addresses: &[DevicePtr]) -> Result<(Vec<Vec<Ready>>, Vec<Load>), DeviceError> {
    let launch = |l: &hipc_ir::plan::Launch, tokens: u32| {
        let spec = plan.kernels.get(l.kernel);
        let Some(spec) = spec.filter(|s| s.op.params().len() == l.args.len()) else {
            return Err(DeviceError::Internal(format!("launch {} doesn't match its kernel {}", l.label, l.kernel)));
        };
        let (mut kernargs, mut operands) = (Vec::with_capacity(8 * l.args.len()), Vec::with_capacity(l.args.len()));
        for (param, &buffer) in spec.op.params().iter().zip(&l.args) {
            let Some(at) = addresses.get(buffer.index()) else {
                return Err(DeviceError::Internal(format!("launch {} takes {buffer}, which doesn't exist", l.label)));
            };
            kernargs.extend_from_slice(&at.to_le_bytes());
            let bytes = match param.shape {
                // Programs share one buffer of each, as large as the largest of their launches needs.
                Shape::Scratch => spec.scratch_bytes(tokens),
                Shape::Counters => spec.counter_bytes(tokens),
                Shape::F32(n) => 4 * u64::from(tokens) * u64::from(n),
                _ => plan.buffers[buffer].bytes,
            };
            operands.push(Operand { address: *at, bytes, writable: param.access != Access::Read });
        }
        Ok(Ready { kernel: kernels[l.kernel.index()], grid: l.grid, threads: spec.threads(), kernargs, operands })
    };
    let of = |p: &Program| p.launches.iter().map(|l| launch(l, p.tokens)).collect::<Result<_, _>>();
    let programs = plan.programs.iter().map(of).collect::<Result<_, _>>()?;
    let load = |l: &hipc_ir::plan::Launch| {
        let staging = l.args.get(1).map_or(0, |b| addresses[b.index()]);
        launch(l, 1).map(|launch| Load { staging, launch })
    };
    Ok((programs, plan.load.iter().map(load).collect::<Result<_, _>>()?))
}
