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
//! A whole program is `examples/saxpy.rs`: `cargo run -p hipc-emulator --example saxpy`. What the code object says of its kernels
//! ([`Kernel::facts`]) has the types of [`hipc_codeobj`], which is exported again.
//!
//! Instructions are decoded by LLVM 22's disassembler, opened at run time (Debian: `libllvm22`); what they do is written here, from the
//! instruction set references. An instruction that is missing is a fault with its text and address, never a guess.
//!
//! # What is missing
//!
//! Ends with [`FaultKind::Unsupported`]:
//!
//! - matrices: of doubles, `xf32`, with scales (`f8f6f4`), sparse ones (`smfmac`, `swmmac`), and the modifiers `cbsz`, `abid`, `blgp`
//!   and negation of floats;
//! - floats of eight bits: stochastic rounding, scales, and what becomes of numbers beyond the format (a mode decides);
//! - DPP of carries, dot products, mixed precision and values of 64 bits; in comparisons, a source that isn't there without
//!   `bound_ctrl`; `v_permlane16_swap` and `v_permlane32_swap` with inactive lanes;
//! - hardware registers but rounding and denormals, and these other than to the nearest even and kept;
//! - buffers with swizzled addresses, typed ones, images; the old value of an atomic beyond the end of its buffer;
//! - multiply-adds of halves with the constant 0xff, on which LLVM's disassembler crashes;
//! - loads from memory straight into LDS, GDS, and everything of graphics.

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
mod reserved;
mod sanitizer;
mod wave;

pub use arch::{Arch, Generation, all as archs, find as find_arch};
pub use disassembler::version as disassembler_version;
pub use dispatch::{Dispatch, Options, Report};
pub use error::{EmulatorError, Fault, FaultKind};
pub use hipc_codeobj;
pub use instruction::{Encoding, Instruction, Operation};
pub use memory::{Memory, Unmapped};
pub use module::{Kernel, Module};
pub use operand::{Half, Operand, Place, Special};
pub use sanitizer::{Extent, Finding, FindingKind};
