//! The command line of `hipc`.

use crate::toolchain::llvm::Job;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Compiles a GGUF language model ahead of time for AMD GPUs.
#[derive(Debug, Parser)]
#[command(
    name = "hipc",
    version,
    after_help = "Examples:\n  hipc compile model.gguf --arch gfx1100             compile for a Radeon RX 7900\n  \
                  hipc compile model.gguf --arch gfx1100,gfx1201     one bundle for two architectures\n  \
                  hipc inspect plan.bin                              what is in a bundle\n  \
                  hipc explain model.gguf --arch gfx1100             which fusions were taken, and why\n  \
                  hipc compile model.gguf --arch all --backend llvm  search code generation for more waves per kernel\n\n\
                  Exit codes: 0 done, 1 a check failed, 2 the input or the request is wrong, 3 the machine lacks something, \
                  130 interrupted (Ctrl-C)."
)]
pub struct Cli {
    /// The task.
    #[command(subcommand)]
    pub command: Command,
}

/// Tasks of `hipc`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compile a model into a bundle that hipfire-run executes
    Compile(Compile),
    /// Show what a bundle holds: architectures, kernels, memory, provenance
    Inspect(Inspect),
    /// Show every fusion that was considered, taken or refused, with its cost
    Explain(Explain),
    /// Print a stage of the compilation as text
    Dump(Dump),
    /// What the LLVM back end starts for each unit; not for people
    #[command(hide = true, name = Job::COMMAND)]
    Generate(Generate),
}

/// What is compiled and for what.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// The model file (GGUF, version 3)
    pub model: PathBuf,
    /// Positions of the KV cache [default: what the model was trained with, at most 4096]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    pub ctx: Option<u32>,
    /// Storage type of the KV cache
    #[arg(long, value_enum, default_value_t = Kv::F16)]
    pub kv: Kv,
    /// Take the geometries that hipfire-run tune has measured, where the file has any (may be given several times; the last wins)
    #[arg(long, value_name = "FILE")]
    pub tune: Vec<PathBuf>,
}

/// Arguments of `hipc compile`.
#[derive(Debug, Args)]
pub struct Compile {
    /// Model, context, cache.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Architectures: a comma-separated list such as gfx1100,gfx1201, or `all`
    #[arg(long, value_name = "ARCHS")]
    pub arch: String,
    /// Where the bundle is written
    #[arg(short, long, default_value = "plan.bin")]
    pub output: PathBuf,
    /// Compiler of the kernels
    #[arg(long, value_enum, default_value_t = BackendArg::Clang)]
    pub backend: BackendArg,
    /// Also write the emitted source, LLVM IR or assembly of every architecture to a folder
    #[arg(long, num_args = 2, value_names = ["FORM", "DIR"])]
    pub emit: Option<Vec<String>>,
    /// Copy the weights into the bundle instead of referring to the model file
    #[arg(long)]
    pub embed_weights: bool,
    /// Also compile the launches in other geometries, for hipfire-run tune to measure
    #[arg(long)]
    pub alternatives: bool,
    /// Print a machine-readable summary
    #[arg(long)]
    pub json: bool,
    /// No progress bar
    #[arg(short, long)]
    pub quiet: bool,
}

/// Arguments of `hipc inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// The bundle
    pub bundle: PathBuf,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
    /// Write the units (.hip), the code objects (ARCH.hsaco) and the plans (.plan) to a folder
    #[arg(long, value_name = "DIR")]
    pub extract: Option<PathBuf>,
}

/// Arguments of `hipc explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// Model, context, cache.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Architecture
    #[arg(long)]
    pub arch: String,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `hipc dump`.
#[derive(Debug, Args)]
pub struct Dump {
    /// Model, context, cache.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Architecture
    #[arg(long)]
    pub arch: String,
    /// Stage
    #[arg(long, value_enum)]
    pub phase: Phase,
    /// Compiler of the kernels, for llvm-ir and asm
    #[arg(long, value_enum, default_value_t = BackendArg::Clang)]
    pub backend: BackendArg,
    /// Program, where the stage has one of each
    #[arg(long, value_enum, default_value_t = ProgramArg::Decode)]
    pub program: ProgramArg,
}

/// Storage type of the KV cache.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Kv {
    /// IEEE binary16
    F16,
    /// IEEE binary32
    F32,
}

/// Compiler of the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackendArg {
    /// clang, without any ROCm
    Clang,
    /// LLVM's library behind clang's front end; tries variants of code generation and takes the best of each kernel
    Llvm,
    /// ROCm's or Debian's hipcc
    Hipcc,
}

/// What a child of the LLVM back end is told.
#[derive(Debug, Args)]
pub struct Generate {
    /// Architecture
    pub arch: String,
    /// Form of the output
    pub form: String,
    /// IR
    pub input: PathBuf,
    /// Answer
    pub output: PathBuf,
}

/// Stage of the compilation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "kebab-case")]
pub enum Phase {
    /// The model's operations
    Graph,
    /// Launches after fusion
    Fused,
    /// Kernels with their geometry
    Kernels,
    /// Buffers and launches
    Plan,
    /// Emitted HIP source
    Hip,
    /// LLVM IR of the unit
    LlvmIr,
    /// Machine code as assembly
    Asm,
}

/// A program of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProgramArg {
    /// One token per step
    Decode,
    /// A chunk of tokens per step
    Prompt,
}
