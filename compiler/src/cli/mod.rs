//! The commands of `hipc`, and how their errors become exit codes.

pub mod args;
mod compile;
mod dump;
mod explain;
mod inspect;

mod style;

use crate::bundle::BundleError;
use crate::pipeline::CompileError;
use crate::target::{Target, TargetError};
use crate::toolchain::llvm::{self, Job};
use crate::toolchain::{Backend, CompileOptions, Settings, Toolchain, ToolchainError};
use crate::tuning::{Tuning, TuningError};
use args::{BackendArg, Cli, Command, Generate, Kv, ModelArgs};
use hipc_ir::bundle::FormatError;
use hipc_ir::dtype::KvType;
use hipc_models::{Model, ModelError};
use std::path::{Path, PathBuf};

/// Whatever ends a command early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The model file.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The list of architectures.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Compilation.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The compiler of the kernels.
    #[error(transparent)]
    Toolchain(#[from] ToolchainError),
    /// A tuning file.
    #[error(transparent)]
    Tuning(#[from] TuningError),
    /// The bundle being written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The bundle being read.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A file could not be read.
    #[error("could not read {}: {error}", path.display())]
    Read {
        /// Path.
        path: PathBuf,
        /// Reason.
        error: std::io::Error,
    },
    /// A file or folder could not be written.
    #[error("could not write {}: {error}", path.display())]
    Write {
        /// Path.
        path: PathBuf,
        /// Reason.
        error: std::io::Error,
    },
    /// The request makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Ctrl-C.
    #[error("interrupted; nothing was written")]
    Interrupted,
}

impl CliError {
    /// 2 the input or the request is wrong, 3 the machine lacks something, 1 ours, 130 interrupted.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Model(e) if e.is_machine() => 3,
            Self::Model(_) | Self::Target(_) | Self::Usage(_) | Self::Format(_) | Self::Tuning(_) | Self::Read { .. } => 2,
            Self::Toolchain(e) | Self::Compile(CompileError::Toolchain(e)) => toolchain_code(e),
            Self::Compile(_) => 1,
            Self::Bundle(e) => e.exit_code(),
            Self::Write { .. } => 3,
            Self::Interrupted => 130,
        }
    }
}

fn toolchain_code(error: &ToolchainError) -> u8 {
    match error {
        ToolchainError::Rejected { .. } => 1,
        ToolchainError::Unsupported { .. } => 2,
        ToolchainError::Interrupted => 130,
        _ => 3,
    }
}

/// Runs a parsed command line.
///
/// # Errors
/// [`CliError`], whose [`CliError::exit_code`] the process ends with.
pub fn run(cli: &Cli) -> Result<(), CliError> {
    match &cli.command {
        Command::Compile(args) => compile::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Dump(args) => dump::run(args),
        Command::Generate(args) => generate(args),
    }
}

fn generate(args: &Generate) -> Result<(), CliError> {
    let job = Job::parse(Target::parse(&args.arch)?, &args.form, &args.input, &args.output);
    let job = job.ok_or_else(|| CliError::Usage(format!("there is no form `{}`", args.form)))?;
    Ok(llvm::serve(&job)?)
}

/// The environment's compilers; LLVM generates code in a child of this program.
fn toolchain() -> Toolchain {
    Toolchain::new(Settings { generator: std::env::current_exe().ok(), ..Settings::from_env() })
}

/// The compiler that was asked for.
fn compile_options(backend: BackendArg) -> CompileOptions {
    let backend = match backend {
        BackendArg::Clang => Backend::Clang,
        BackendArg::Llvm => Backend::Llvm,
        BackendArg::Hipcc => Backend::Hipcc,
    };
    CompileOptions { backend, ..CompileOptions::default() }
}

/// Prints an error as a person wants to see it.
pub fn report(error: &CliError) {
    let text = error.to_string();
    let mut lines = text.lines();
    anstream::eprintln!("{}error:{} {}", style::ERROR.render(), style::ERROR.render_reset(), lines.next().unwrap_or_default());
    for line in lines {
        anstream::eprintln!("  {}", line.trim_start());
    }
}

fn open(args: &ModelArgs) -> Result<(Model, crate::pipeline::Options), CliError> {
    let tuning = Tuning::read(&args.tune)?;
    let model = hipc_models::load(&args.model)?;
    let kv = match args.kv {
        Kv::F16 => KvType::F16,
        Kv::F32 => KvType::F32,
    };
    Ok((model, crate::pipeline::Options { ctx: args.ctx, kv, tuning, alternatives: false }))
}

/// Maps a file to be read.
fn map(path: &Path) -> Result<memmap2::Mmap, CliError> {
    let file = std::fs::File::open(path)
        .and_then(|file| if file.metadata()?.is_file() { Ok(file) } else { Err(std::io::Error::other("not a file")) });
    // SAFETY: the map is only read. Whoever truncates the file meanwhile ends this process by a signal, as with any mapped file;
    // other changes show as bytes that differ, which every reader here must expect of a damaged file anyway.
    file.and_then(|file| unsafe { memmap2::Mmap::map(&file) }).map_err(|error| CliError::Read { path: path.to_owned(), error })
}
