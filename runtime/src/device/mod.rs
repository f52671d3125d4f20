//! Devices: whatever can execute a plan.
//!
//! [`Backend`] is what the executor talks to: buffers by name, launches by number. `cpu` implements it directly by the
//! plan's meaning. GPUs (and `host`, which runs the same kernels compiled for this machine) implement the much smaller
//! [`Driver`]: memory, modules, launches of raw kernel arguments; one generic adapter turns a driver into a backend.

mod bandwidth;
mod boxed;
pub mod cpu;
pub mod cuda;
mod driver_backend;
pub mod emu;
mod gpu;
pub mod hip;
pub mod host;
mod margins;
mod record;
pub mod select;
mod slots;

use hipc_ir::plan::{Buffer, Plan};
use std::borrow::Cow;
use std::ops::Range;

pub use bandwidth::{ReadTimes, measure as read_memory};
pub(crate) use driver_backend::check_fits;
pub use driver_backend::{DriverBackend, Placement, Progress};
pub use gpu::GpuDevice;
pub use margins::{Around, Beside, MARGIN};
pub use record::{Executed, Graph, KernelLaunch, Mark, MemoryUse, Operand, Recording};

/// Why a device could not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The machine lacks the device or its driver.
    #[error("{what}\n  {advice}")]
    Missing {
        /// What is missing.
        what: String,
        /// What to do.
        advice: String,
    },
    /// The bundle has no code for this device.
    #[error("the bundle has no code for {device} (it has {has})\nrecompile with: hipc compile MODEL.gguf --arch {device}")]
    NoCode {
        /// Architecture of the device.
        device: String,
        /// Architectures in the bundle.
        has: String,
    },
    /// Memory ran out.
    #[error("{device} has {} free, {what} needs {}\nfree some, or take a smaller model or another --device", hipc_ir::units::bytes(*free), hipc_ir::units::bytes(*bytes))]
    OutOfMemory {
        /// Device.
        device: String,
        /// Requested.
        bytes: u64,
        /// For what.
        what: String,
        /// Free memory.
        free: u64,
    },
    /// The plan doesn't fit the device, but would with a shorter context.
    #[error(
        "{device} has {} of {} free, the bundle needs {} for its context of {ctx}\n{fits} positions would fit: hipc compile MODEL.gguf \
         --arch ARCH --ctx {fits}",
        hipc_ir::units::bytes(*free),
        hipc_ir::units::bytes(*total),
        hipc_ir::units::bytes(*bytes)
    )]
    ContextTooLarge {
        /// Device.
        device: String,
        /// Positions of the bundle.
        ctx: u32,
        /// Requested in all.
        bytes: u64,
        /// Free memory.
        free: u64,
        /// Memory of the device.
        total: u64,
        /// Positions that fit.
        fits: u32,
    },
    /// A kernel did something that it must not, found by a device that checks (ours to fix).
    #[error("{device}: {what}; please report it with the bundle's provenance (hipc inspect)")]
    Fault {
        /// Device.
        device: String,
        /// What was found.
        what: String,
    },
    /// A driver call failed.
    #[error("{call} failed on {device}: {code} ({name})")]
    Call {
        /// Device.
        device: String,
        /// Name of the driver's function.
        call: String,
        /// Error code.
        code: i32,
        /// Error name.
        name: String,
    },
    /// The bundle contradicts itself or the device (ours to fix).
    #[error("internal: {0}; please report it with the bundle's provenance (hipc inspect)")]
    Internal(String),
}

/// Where weights come from: tensor bytes by weight reference, in GGUF's layout.
pub trait WeightSource: Sync {
    /// The bytes of a weight; its length is the declared one.
    fn weight(&self, weight: hipc_ir::graph::Weight) -> &[u8];
    /// The same for a single use: a source that makes its bytes needn't keep them.
    fn once(&self, weight: hipc_ir::graph::Weight) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.weight(weight))
    }
}

/// Executes programs of one plan.
pub trait Backend {
    /// `cpu`, `hip:0 AMD Radeon RX 7900 XTX (gfx1100)`, …
    fn describe(&self) -> String;
    /// Overwrites part of a buffer; ordered with launches.
    fn write(&mut self, buffer: Buffer, offset: u64, bytes: &[u8]) -> Result<(), DeviceError>;
    /// Reads part of a buffer after everything enqueued before.
    fn read(&mut self, buffer: Buffer, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError>;
    /// From here on no launch may rely on what a part of a buffer holds, until it is written: for devices that watch it.
    fn forget(&mut self, buffer: Buffer, offset: u64, bytes: u64) -> Result<(), DeviceError> {
        let _ = (buffer, offset, bytes);
        Ok(())
    }
    /// Whether launches from here on are watched, on devices that can: what hardware may punish is a [`DeviceError::Fault`] then.
    fn watch(&mut self, on: bool) {
        let _ = on;
    }
    /// Enqueues launches `range` of program number `program` of the plan.
    fn run(&mut self, program: usize, range: Range<usize>) -> Result<(), DeviceError>;
    /// Prepares launches `range` of a program, `repeat` times in a row, to be enqueued at once: as a graph where the device has
    /// them.
    fn record(&mut self, program: usize, range: Range<usize>, repeat: u32) -> Result<Recording, DeviceError> {
        self.record_launches(program, &range.collect::<Vec<_>>(), repeat)
    }
    /// The same for launches by number, in this order.
    fn record_launches(&mut self, program: usize, launches: &[usize], repeat: u32) -> Result<Recording, DeviceError>;
    /// Enqueues what was recorded.
    fn replay(&mut self, recording: &Recording) -> Result<(), DeviceError>;
    /// Marks the point behind everything enqueued so far.
    fn mark(&mut self) -> Result<Mark, DeviceError>;
    /// Seconds that the device took from one mark to a later one; waits for the latter.
    fn elapsed(&mut self, from: &Mark, to: &Mark) -> Result<f64, DeviceError>;
    /// Waits until entry `index` of the outbox is of this generation; the id in it. What is enqueued behind its step may still be
    /// under way.
    fn receive(&mut self, index: usize, generation: i32) -> Result<i32, DeviceError>;
    /// Whether work goes on when the call that enqueues it has returned.
    fn works_ahead(&self) -> bool {
        false
    }
    /// Where the device's memory went.
    fn memory_use(&self) -> Result<MemoryUse, DeviceError>;
    /// Reads `bytes` of fresh memory (fewer where less is free) `times` times and does nothing else: how fast that goes.
    fn read_memory(&mut self, bytes: u64, times: u32) -> Result<ReadTimes, DeviceError>;
    /// What becomes of a write beside a buffer.
    fn around(&self) -> Around {
        Around::Unseen
    }
    /// What was written beside a buffer since this was last asked, where buffers have margins.
    fn beside(&mut self, buffer: Buffer) -> Result<Option<Beside>, DeviceError> {
        let _ = buffer;
        Ok(None)
    }
    /// What all launches so far executed, on devices that count instructions.
    fn executed(&self) -> Option<Executed> {
        None
    }
    /// The plan being executed.
    fn plan(&self) -> &Plan;
}

/// The lower half of a word whose upper half is this number.
fn received(word: u64, number: i32) -> Option<i32> {
    let [low, high] = [word as u32, (word >> 32) as u32].map(u32::cast_signed);
    (high == number).then_some(low)
}

/// The device is done, and what is waited for isn't there.
fn never_sent(number: i32) -> DeviceError {
    DeviceError::Internal(format!("the device is done, but nothing came from it for number {number}"))
}

/// Address on a device.
pub type DevicePtr = u64;

/// The few calls that a GPU driver offers. All work goes to one stream, in order.
///
/// What has a default is right for a driver that executes a launch before [`Driver::launch`] returns.
pub trait Driver {
    /// Name for messages: `hip:0 AMD Radeon RX 7900 XTX (gfx1100)`.
    fn describe(&self) -> String;
    /// Architecture whose code it runs: `gfx1100`, `sm_90`, `host`.
    fn arch(&self) -> &str;
    /// (free, total) bytes of device memory.
    fn memory(&self) -> Result<(u64, u64), DeviceError>;
    /// Bytes of device memory that [`Driver::alloc`] gave.
    fn allocated(&self) -> u64;
    /// Allocates at least 256-byte aligned memory, zeroed.
    fn alloc(&mut self, bytes: u64) -> Result<DevicePtr, DeviceError>;
    /// Allocates zeroed memory of this machine that kernels write and [`Driver::receive`] reads. It doesn't count as allocated.
    fn alloc_pinned(&mut self, bytes: u64) -> Result<DevicePtr, DeviceError> {
        self.alloc(bytes)
    }
    /// Copies to the device, ordered with launches; returns when `bytes` may be reused.
    fn upload(&mut self, to: DevicePtr, bytes: &[u8]) -> Result<(), DeviceError>;
    /// From here on no launch may rely on what these bytes hold, until they are written: for drivers that watch it.
    fn forget(&mut self, from: DevicePtr, bytes: u64) -> Result<(), DeviceError> {
        let _ = (from, bytes);
        Ok(())
    }
    /// Whether launches from here on are watched, see [`Backend::watch`].
    fn watch(&mut self, on: bool) {
        let _ = on;
    }
    /// Copies from the device after everything enqueued before.
    fn download(&mut self, from: DevicePtr, bytes: &mut [u8]) -> Result<(), DeviceError>;
    /// Waits until the upper half of this word of [`Driver::alloc_pinned`]'s memory is `number`; the lower half, which was written
    /// with it.
    fn receive(&mut self, from: DevicePtr, number: i32) -> Result<i32, DeviceError> {
        let mut word = [0; 8];
        self.download(from, &mut word)?;
        received(u64::from_le_bytes(word), number).ok_or_else(|| never_sent(number))
    }
    /// Loads a module (code object, PTX, shared object) and resolves these kernels, in order.
    fn load(&mut self, module: &[u8], kernels: &[&str]) -> Result<Vec<u64>, DeviceError>;
    /// Enqueues a kernel.
    fn launch(&mut self, launch: KernelLaunch<'_>) -> Result<(), DeviceError>;
    /// Makes a graph of these launches, one after the other, without executing them; `None` if the driver has no graphs.
    fn capture(&mut self, launches: &[KernelLaunch<'_>]) -> Result<Option<Graph>, DeviceError> {
        let _ = launches;
        Ok(None)
    }
    /// Enqueues a graph of this driver.
    fn replay(&mut self, graph: &Graph) -> Result<(), DeviceError> {
        let _ = graph;
        Err(DeviceError::Internal(format!("{} has no graphs", self.describe())))
    }
    /// Whether a launch may be under way when [`Driver::launch`] has returned.
    fn works_ahead(&self) -> bool {
        false
    }
    /// Marks the point behind everything enqueued so far.
    fn mark(&mut self) -> Result<Mark, DeviceError> {
        Ok(Mark::now())
    }
    /// What all launches so far executed, for drivers that count instructions.
    fn executed(&self) -> Option<Executed> {
        None
    }
    /// Waits until the device is there.
    fn wait(&mut self, mark: &Mark) -> Result<(), DeviceError> {
        let _ = mark;
        self.sync()
    }
    /// Seconds from one mark to a later one; waits for the latter.
    fn elapsed(&mut self, from: &Mark, to: &Mark) -> Result<f64, DeviceError> {
        Ok(to.since(from))
    }
    /// Waits for everything enqueued.
    fn sync(&mut self) -> Result<(), DeviceError>;
}
