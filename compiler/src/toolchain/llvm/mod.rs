//! The LLVM back end: clang's bitcode of a unit in, machine code out, through LLVM's library.
//!
//! clang is only the front end: it writes bitcode on which no pass has run. What follows is ours (`generate`): verification,
//! `default<O3>`, the choice of a variant of code generation for every kernel, and the object, which the front end's linker makes a
//! code object of.
//!
//! LLVM ends the process on input that it can't translate. So `hipc` runs [`serve`] in a child of its own, one per unit: an abort
//! becomes [`super::ToolchainError::Crashed`], units compile side by side, and Ctrl-C ends them. A child is told what to do by its
//! arguments ([`Job`]) and answers with a file.

mod driver;
#[cfg(feature = "llvm")]
mod generate;
#[cfg_attr(not(feature = "llvm"), allow(dead_code))]
mod variants;

use super::{Emit, ToolchainError};
use crate::target::Target;
use hipc_ir::bundle::KernelVariants;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

pub(super) use driver::{key, name, supported};

/// Machine code, assembly or IR, and how each kernel was compiled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Generated {
    /// An object that isn't linked, or text. In the compile cache: what the toolchain returns.
    pub(super) bytes: Vec<u8>,
    /// In the order of the object.
    pub(super) variants: Vec<KernelVariants>,
}

/// Why there is no machine code, where LLVM returns to say so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub(super) enum GenerateError {
    /// The front end's output can't be read: it is of a newer LLVM, or damaged.
    #[error("this is no LLVM IR: {0}")]
    Parse(String),
    /// It breaks LLVM's rules.
    #[error("the IR is wrong: {0}")]
    Verify(String),
    /// A pass or the code generator gave up. LLVM's fault.
    #[error("{0}")]
    Generate(String),
    /// A kernel came out in other registers than when its variant was tried. Ours, or LLVM's.
    #[error("kernel {0} came out otherwise than when its variant was tried")]
    Differs(String),
}

/// What a child is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Target.
    pub target: &'static Target,
    /// Code object (it isn't linked yet), IR or assembly.
    pub emit: Emit,
    /// IR, as text or bitcode.
    pub input: PathBuf,
    /// Where the answer is written.
    pub output: PathBuf,
}

type Answer = Result<Generated, GenerateError>;

/// Name and version of the library, e.g. `LLVM 22.1.8`; `None` if hipc was built without it.
pub fn version() -> Option<String> {
    #[cfg(feature = "llvm")]
    return Some(generate::version());
    #[cfg(not(feature = "llvm"))]
    return None;
}

/// Does what a child is started for. LLVM may end the process meanwhile.
///
/// # Errors
/// Files can't be read or written. What LLVM says about the input stands in the answer.
pub fn serve(job: &Job) -> Result<(), ToolchainError> {
    let input = std::fs::read(&job.input).map_err(|e| ToolchainError::io("read", &job.input, e))?;
    let answer = answer(&input, job.target, job.emit);
    let bytes = postcard::to_stdvec(&answer).map_err(|e| ToolchainError::io("write", &job.output, std::io::Error::other(e)))?;
    std::fs::write(&job.output, bytes).map_err(|e| ToolchainError::io("write", &job.output, e))
}

fn answer(input: &[u8], target: &Target, emit: Emit) -> Answer {
    #[cfg(feature = "llvm")]
    return generate::generate(input, target, emit);
    #[cfg(not(feature = "llvm"))]
    {
        let _ = (input, target, emit);
        Err(GenerateError::Generate("hipc was built without LLVM".to_owned()))
    }
}

/// Reads what [`serve`] has written.
fn read_answer(path: &Path) -> std::io::Result<Answer> {
    postcard::from_bytes(&std::fs::read(path)?).map_err(std::io::Error::other)
}
