//! Executes AMD GPU code objects on the CPU, instruction by instruction.
//!
//! What a GPU would run, the very bytes of a `.hsaco`, is decoded and interpreted: kernels can be run, compared and checked for faults
//! on machines without the card. Nothing of the source is used, and nothing that the compiler believed.
//!
//! ```no_run
//! use hipc_emulator::{Dispatch, Memory, Module, Options};
//!
//! let module = Module::load(&std::fs::read("kernels.hsaco")?)?;
//! let memory = Memory::new();
//! let buffer = memory.allocate(1024);
//! let report = module.run(
//!     &Dispatch { kernel: "scale", grid: [4, 1, 1], workgroup: [64, 1, 1], dynamic_lds: 0, kernarg: &buffer.to_le_bytes() },
//!     &memory,
//!     &Options::default(),
//! )?;
//! println!("{} instructions", report.instructions);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Instructions are decoded by LLVM's disassembler, opened at run time (Debian: `libllvm22`); what they do is written here, from the
//! instruction set references. An instruction that is missing is a fault with its text and address, never a guess.

// Loops over lanes index several arrays of lanes.
#![allow(clippy::needless_range_loop)]

mod arch;
mod disassembler;
mod dispatch;
mod error;
mod exec;
mod instruction;
mod memory;
mod module;
mod operand;
mod sanitizer;
mod wave;

pub use arch::{Arch, Generation, all as archs, find as find_arch};
pub use disassembler::version as disassembler_version;
pub use dispatch::{Dispatch, Options, Report};
pub use error::{EmulatorError, Fault, FaultKind};
pub use instruction::{Encoding, Instruction, Operation};
pub use memory::{Memory, Unmapped};
pub use module::{Kernel, Module};
pub use operand::{Half, Operand, Place, Special};
pub use sanitizer::{Extent, Finding, FindingKind};
