//! Devices: whatever can execute a plan.
//!
//! [`Backend`] is what the executor talks to: buffers by name, launches by number. `cpu` implements it directly by the
//! plan's meaning. GPUs (and `host`, which runs the same kernels compiled for this machine) implement the much smaller
//! [`Driver`]: memory, modules, launches of raw kernel arguments; one generic adapter turns a driver into a backend.

pub mod cpu;
pub mod cuda;
mod driver_backend;
mod gpu;
pub mod hip;
pub mod host;
pub mod select;

use hipc_ir::plan::{Buffer, Plan};

pub(crate) use driver_backend::check_fits;
pub use driver_backend::{DriverBackend, Placement, Progress};
pub use gpu::GpuDevice;

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
    #[error("{device} has {} free, {what} needs {}\nfree some, or take a smaller model or another --device", crate::units::bytes(*free), crate::units::bytes(*bytes))]
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
        crate::units::bytes(*free),
        crate::units::bytes(*total),
        crate::units::bytes(*bytes)
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
}

/// Executes programs of one plan.
pub trait Backend {
    /// `cpu`, `hip:0 AMD Radeon RX 7900 XTX (gfx1100)`, …
    fn describe(&self) -> String;
    /// Overwrites part of a buffer; ordered with launches.
    fn write(&mut self, buffer: Buffer, offset: u64, bytes: &[u8]) -> Result<(), DeviceError>;
    /// Reads part of a buffer after everything enqueued before.
    fn read(&mut self, buffer: Buffer, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError>;
    /// Enqueues launches `range` of program number `program` of the plan.
    fn run(&mut self, program: usize, range: std::ops::Range<usize>) -> Result<(), DeviceError>;
    /// The plan being executed.
    fn plan(&self) -> &Plan;
}

/// Address on a device.
pub type DevicePtr = u64;

/// The few calls that a GPU driver offers. All work goes to one stream, in order.
pub trait Driver {
    /// Name for messages: `hip:0 AMD Radeon RX 7900 XTX (gfx1100)`.
    fn describe(&self) -> String;
    /// Architecture whose code it runs: `gfx1100`, `sm_90`, `host`.
    fn arch(&self) -> &str;
    /// (free, total) bytes of device memory.
    fn memory(&self) -> Result<(u64, u64), DeviceError>;
    /// Allocates at least 256-byte aligned memory, zeroed.
    fn alloc(&mut self, bytes: u64) -> Result<DevicePtr, DeviceError>;
    /// Copies to the device, ordered with launches; returns when `bytes` may be reused.
    fn upload(&mut self, to: DevicePtr, bytes: &[u8]) -> Result<(), DeviceError>;
    /// Copies from the device after everything enqueued before.
    fn download(&mut self, from: DevicePtr, bytes: &mut [u8]) -> Result<(), DeviceError>;
    /// Loads a module (code object, PTX, shared object) and resolves these kernels, in order.
    fn load(&mut self, module: &[u8], kernels: &[&str]) -> Result<Vec<u64>, DeviceError>;
    /// Enqueues a kernel (a handle from [`Driver::load`]) with its packed kernel arguments.
    fn launch(&mut self, kernel: u64, grid: [u32; 3], threads: u32, kernargs: &[u8]) -> Result<(), DeviceError>;
    /// Waits for everything enqueued.
    fn sync(&mut self) -> Result<(), DeviceError>;
}
