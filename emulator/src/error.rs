//! What can go wrong before and while a kernel runs, and whose fault it is.

use hipc_codeobj::CodeObjectError;

/// Why a code object can't be loaded, or a dispatch can't begin.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EmulatorError {
    /// The file is damaged or not for an AMD GPU.
    #[error("code object: {0}")]
    CodeObject(#[from] CodeObjectError),
    /// A GPU that isn't emulated.
    #[error("{0} is not emulated; emulated are {known}", known = crate::arch::known())]
    UnknownTarget(String),
    /// No library to decode instructions with: LLVM 22, whose texts are understood.
    #[error("no LLVM library to decode instructions with ({0}); on Debian: apt-get install libllvm22")]
    NoDisassembler(String),
    /// The library doesn't know the target.
    #[error("{library} has no disassembler for {target}")]
    NoTarget {
        /// The library's version.
        library: String,
        /// Processor.
        target: String,
    },
    /// The metadata lists a kernel whose code has no bounds.
    #[error("kernel `{0}` has no function symbol around its entry: the code object is damaged")]
    NoCode(String),
    /// Rounding or denormals other than those emulated.
    #[error("kernel `{kernel}` has float mode {mode:#x}; emulated is 0xf0: round to nearest even, keep denormals")]
    FloatMode {
        /// Kernel.
        kernel: String,
        /// As in its descriptor: rounding of singles and the others, denormals of singles and the others, two bits each.
        mode: u32,
    },
    /// The kernel's descriptor asks for something that isn't emulated.
    #[error("kernel `{kernel}` asks {what}, which is not emulated; compilers don't, unless they are told to")]
    Descriptor {
        /// Kernel.
        kernel: String,
        /// For what.
        what: &'static str,
    },
    /// No such kernel.
    #[error("no kernel `{0}` in the code object")]
    NoKernel(String),
    /// The dispatch doesn't fit the kernel.
    #[error("dispatch of `{kernel}`: {what}")]
    Dispatch {
        /// Kernel.
        kernel: String,
        /// What doesn't fit.
        what: String,
    },
    /// A kernel ran into a fault.
    #[error(transparent)]
    Fault(Box<Fault>),
}

/// A fault of the running kernel: where, and what.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kernel}: {kind}\n  at {address:#x}: {instruction}\n  workgroup {workgroup:?}, wave {wave}{}", .lane.map(|l| format!(", lane {l}")).unwrap_or_default())]
pub struct Fault {
    /// Kernel.
    pub kernel: String,
    /// What happened.
    pub kind: FaultKind,
    /// Virtual address of the instruction in the code object.
    pub address: u64,
    /// Its text.
    pub instruction: String,
    /// Workgroup.
    pub workgroup: [u32; 3],
    /// Wave of the workgroup.
    pub wave: u32,
    /// Lane of the wave, where one lane is to blame.
    pub lane: Option<u32>,
}

/// Kinds of faults.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// Bytes that are no instruction of the target.
    #[error("illegal instruction")]
    Illegal,
    /// An instruction, an operand or a modifier that the emulator lacks.
    #[error("not emulated: {0}")]
    Unsupported(String),
    /// A load, store or atomic outside every allocation.
    #[error("{what} of {bytes} bytes at {address:#x}, {near}")]
    OutOfBounds {
        /// `load`, `store`, `atomic`.
        what: &'static str,
        /// Its address.
        address: u64,
        /// Its bytes.
        bytes: u32,
        /// The nearest allocation.
        near: String,
    },
    /// An access at an address that the hardware doesn't allow.
    #[error("misaligned {what} of {bytes} bytes at {address:#x}")]
    Misaligned {
        /// `load`, `store`, `atomic`.
        what: &'static str,
        /// Its address.
        address: u64,
        /// Its bytes.
        bytes: u32,
    },
    /// A store to code or constants.
    #[error("store to read-only memory at {0:#x}")]
    ReadOnly(u64),
    /// LDS beyond what the workgroup has.
    #[error("{what} of {bytes} bytes at {offset:#x} of {size} bytes of LDS")]
    LdsOutOfBounds {
        /// `load`, `store`, `atomic`.
        what: &'static str,
        /// Byte offset.
        offset: u32,
        /// Bytes.
        bytes: u32,
        /// The workgroup's LDS.
        size: u32,
    },
    /// Scratch beyond what a lane has.
    #[error("{what} of {bytes} bytes at {offset:#x} of {size} bytes of scratch")]
    ScratchOutOfBounds {
        /// `load`, `store`.
        what: &'static str,
        /// Byte offset.
        offset: u32,
        /// Bytes.
        bytes: u32,
        /// A lane's scratch.
        size: u32,
    },
    /// A register beyond what the kernel was given.
    #[error("register {0} beyond the kernel's allocation")]
    NoRegister(String),
    /// A jump to somewhere that isn't an instruction of the kernel.
    #[error("jump to {0:#x}, outside the kernel's code")]
    Jump(u64),
    /// Too many instructions of a whole dispatch.
    #[error("the budget of {0} instructions of a dispatch is used up before this workgroup begins: too large a grid?")]
    DispatchBudget(u64),
    /// Too many instructions.
    #[error("the budget of {0} instructions per wave is used up: an infinite loop?")]
    Budget(u64),
}
