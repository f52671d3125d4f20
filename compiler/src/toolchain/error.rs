//! What can go wrong between source and object, and whose fault it is.

use super::{Backend, Emit, Tool};
use std::io;
use std::path::{Path, PathBuf};

/// Diagnostics longer than this are cut.
const MAX_LINES: usize = 40;
const MAX_BYTES: usize = 8 << 10;

/// Why a unit wasn't compiled.
#[derive(Debug, thiserror::Error)]
pub enum ToolchainError {
    /// The machine lacks a compiler for this.
    #[error("no compiler for {what}\n{}{advice}", list(tried))]
    NoCompiler {
        /// Target and output.
        what: String,
        /// Each compiler looked at and why it doesn't serve.
        tried: Vec<String>,
        /// What to install.
        advice: &'static str,
    },
    /// The compiler refuses the source: our fault, or that of whoever edited the unit.
    #[error("{compiler} rejects unit `{unit}` for {target}:\n{diagnostics}")]
    Rejected {
        /// Unit.
        unit: String,
        /// Target.
        target: &'static str,
        /// Compiler and version.
        compiler: String,
        /// Its messages, cut to a screenful.
        diagnostics: String,
    },
    /// The compiler itself failed: its fault, or the machine ran out of memory.
    #[error("{compiler} failed on unit `{unit}` for {target} ({status}); {}\n{diagnostics}", tool.advice())]
    Crashed {
        /// Unit.
        unit: String,
        /// Target.
        target: &'static str,
        /// Compiler and version.
        compiler: String,
        /// How it ended.
        status: String,
        /// What kind of program it is.
        tool: Tool,
        /// Its messages, cut to a screenful.
        diagnostics: String,
    },
    /// The compiler says it succeeded, but the output isn't what was asked for.
    #[error("{compiler} made no usable code object of unit `{unit}` for {target}: {why}")]
    BadOutput {
        /// Unit.
        unit: String,
        /// Target.
        target: &'static str,
        /// Compiler and version.
        compiler: String,
        /// What is wrong with it.
        why: String,
    },
    /// This program can't do it: it was built without LLVM's library.
    #[error(
        "this hipc was built without the LLVM back end\n\
         It needs LLVM 22's development package (Debian: apt-get install llvm-22-dev) and a build without --no-default-features.\n\
         Or leave out --backend llvm: clang compiles the same kernels."
    )]
    NoLlvm,
    /// A request that makes no sense, such as PTX for an AMD GPU. The user's fault.
    #[error("{target} has no {}{}", emit.describe(), if *backend == Backend::Clang { String::new() } else { format!(" through {}", backend.name()) })]
    Unsupported {
        /// Target.
        target: &'static str,
        /// Output.
        emit: Emit,
        /// Compiler driver.
        backend: Backend,
    },
    /// A unit or header name that isn't a plain relative file name. Our fault.
    #[error("`{0}` is no name for a unit or header")]
    BadName(String),
    /// The machine's disk, or its process table.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The user interrupted the work.
    #[error("interrupted")]
    Interrupted,
}

impl ToolchainError {
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }

    pub(super) fn no_compiler(backend: Backend, wanted: Option<(&'static str, Emit)>, tried: Vec<String>) -> Self {
        let what = wanted.map_or_else(|| "AMD GPUs".to_owned(), |(target, emit)| format!("{target} ({})", emit.describe()));
        let advice = match (backend, wanted) {
            (Backend::Hipcc, _) => "Install it (Debian: apt-get install hipcc), or leave out --backend hipcc.",
            (_, Some((_, Emit::HostSharedObject))) => {
                "Needed: clang 19 or newer, lld of the same version and the C library's headers \
                 (Debian: apt-get install clang-22 lld-22 libc6-dev), or HIPC_CLANG=/path/to/clang."
            }
            (_, Some((_, Emit::HostAsanExecutable))) => {
                "Needed: clang 19 or newer, lld and the sanitizer runtime of the same version, and a C++ library \
                 (Debian: apt-get install clang-22 lld-22 libclang-rt-22-dev libstdc++-12-dev), or HIPC_CLANG=/path/to/clang."
            }
            _ => {
                "Needed: clang 19 or newer (20 for gfx950 and gfx1153) with ld.lld of the same version beside it \
                 (Debian: apt-get install clang-22 lld-22), or HIPC_CLANG=/path/to/clang."
            }
        };
        Self::NoCompiler { what, tried, advice }
    }
}

fn list(tried: &[String]) -> String {
    tried.iter().map(|line| format!("  {line}\n")).collect()
}

/// The first screenful of a compiler's messages.
pub(super) fn trim(stderr: &str) -> String {
    let mut text = String::new();
    let lines: Vec<&str> = stderr.trim_end().lines().collect();
    for (n, line) in lines.iter().enumerate() {
        if n == MAX_LINES || text.len() + line.len() > MAX_BYTES {
            text.push_str(&format!("… and {} more lines\n", lines.len() - n));
            break;
        }
        text.push_str(line);
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_diagnostics_are_cut() {
        let many: String = (0..100).map(|n| format!("line {n}\n")).collect();
        let cut = trim(&many);
        assert!(cut.starts_with("line 0\n") && cut.ends_with("line 39\n… and 60 more lines"), "{cut}");
        assert_eq!(trim(&"x".repeat(MAX_BYTES + 1)), "… and 1 more lines");
        assert_eq!(trim("a\nb\n\n"), "a\nb");
    }
}
