//! The command line of `hipfire-run`.

use crate::device::select::DeviceName;
use crate::text::SamplerParams;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Runs a language model compiled by hipc.
#[derive(Debug, Parser)]
#[command(
    name = "hipfire-run",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  hipfire-run plan.bin -p 'The Rust standard library'        continue a text\n  \
                  hipfire-run plan.bin --chat -p 'What does Vec::pop do?'    ask a chat model once\n  \
                  hipfire-run plan.bin --chat                                talk to it\n  \
                  hipfire-run bench plan.bin                                 how fast it is\n  \
                  hipfire-run profile plan.bin                               and where the time goes\n  \
                  hipfire-run verify plan.bin                                whether this device computes what it must
  \
                  hipfire-run doctor                                         what this machine can run\n\n\
                  Exit codes: 0 done, 1 a check failed, 2 the input or the request is wrong, 3 the machine lacks something, \
                  130 interrupted (Ctrl-C)."
)]
pub struct Cli {
    /// Other tasks.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Generation.
    #[command(flatten)]
    pub run: Run,
}

/// Tasks besides generation.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write the logits of a list of token ids to a NumPy file
    Logits(Logits),
    /// Measure tokens per second, loading, memory, and the bandwidth of the device
    Bench(Bench),
    /// Measure every kernel of a decode step by itself
    Profile(Profile),
    /// Measure other geometries of a model's launches and write the best to a tuning file
    Tune(Tune),
    /// Compare every kernel on a device with the reference, and whole steps with the CPU
    Verify(Verify),
    /// Show what this machine can do and how to mend what it cannot
    Doctor(Doctor),
}

/// Which device executes, and where its weights come from.
#[derive(Clone, Debug, Args)]
pub struct DeviceArgs {
    /// What executes: auto (an AMD GPU that the bundle has code for, else the CPU), cpu, hip:N (the N-th AMD GPU), emu:ARCH (emulated), for tests host and cuda:N
    #[arg(long, default_value = "auto")]
    pub device: DeviceName,
    /// The model file, if it has moved since it was compiled
    #[arg(long, value_name = "GGUF")]
    pub model: Option<PathBuf>,
    /// Evaluate the unfused model in f64 on the CPU: slow, and as exact as the weights are
    #[arg(long)]
    pub exact: bool,
    /// Launch by launch, where a GPU could take a whole step at once
    #[arg(long, hide = true)]
    pub no_graph: bool,
    /// Say what is done; twice: every launch
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// Arguments of a generation.
#[derive(Debug, Args)]
pub struct Run {
    /// The bundle (written by hipc compile)
    #[arg(required = true)]
    pub bundle: Option<PathBuf>,
    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// The text to continue, or the question with --chat; `-` reads standard input
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    pub prompt: Option<String>,
    /// Use the model's chat template
    #[arg(long)]
    pub chat: bool,
    /// System message of a chat
    #[arg(long, requires = "chat", value_name = "TEXT")]
    pub system: Option<String>,
    /// Most tokens to generate [default: until the model ends its turn]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub tokens: Option<u32>,
    /// Stop when this text appears (may be given several times)
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Print one JSON object with text, ids and timings
    #[arg(long)]
    pub json: bool,
    /// Sampling.
    #[command(flatten)]
    pub sampling: Sampling,
}

/// How the next token is chosen.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub struct Sampling {
    /// Temperature; 0 takes the most probable token
    #[arg(long = "temp", default_value_t = 0.0, value_name = "T", allow_negative_numbers = true)]
    pub temperature: f32,
    /// Keep the K most probable tokens (0: all)
    #[arg(long, default_value_t = 40, value_name = "K")]
    pub top_k: usize,
    /// Keep the most probable tokens that together reach P
    #[arg(long, default_value_t = 0.95, value_name = "P", allow_negative_numbers = true)]
    pub top_p: f32,
    /// Keep tokens at least P times as probable as the best
    #[arg(long, default_value_t = 0.05, value_name = "P", allow_negative_numbers = true)]
    pub min_p: f32,
    /// Divide the logits of recent tokens by this (1: off)
    #[arg(long, default_value_t = 1.0, value_name = "R", allow_negative_numbers = true)]
    pub repeat_penalty: f32,
    /// How many recent tokens the penalty sees
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub repeat_last_n: usize,
    /// Seed of the random choice
    #[arg(long, default_value_t = 0, value_name = "S")]
    pub seed: u64,
}

impl Sampling {
    /// As the sampler takes them.
    pub fn params(&self) -> SamplerParams {
        let &Self { temperature, top_k, top_p, min_p, repeat_penalty, repeat_last_n, seed } = self;
        SamplerParams { temperature, top_k, top_p, min_p, repeat_penalty, repeat_last_n, seed }
    }
}

/// Arguments of `hipfire-run logits`.
#[derive(Debug, Args)]
pub struct Logits {
    /// The bundle
    pub bundle: PathBuf,
    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// File of token ids separated by white space
    #[arg(long, value_name = "FILE")]
    pub tokens: PathBuf,
    /// Where the logits are written: f32 [tokens, vocabulary], NumPy format
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Feed one token at a time (the decode program)
    #[arg(long)]
    pub step: bool,
}

/// What `bench` and `profile` share.
#[derive(Clone, Debug, Args)]
pub struct Measure {
    /// The bundle
    pub bundle: PathBuf,
    /// What executes: auto, cpu, hip:N (the N-th AMD GPU), emu:ARCH (emulated), for tests host and cuda:N
    #[arg(long, default_value = "auto")]
    pub device: DeviceName,
    /// The model file, if it has moved since it was compiled
    #[arg(long, value_name = "GGUF", conflicts_with = "synthetic")]
    pub model: Option<PathBuf>,
    /// Fill the weights at random instead of reading them: speed doesn't depend on their values, and the model file needn't be there
    #[arg(long)]
    pub synthetic: bool,
    /// Seed of random weights
    #[arg(long, default_value_t = 0, value_name = "S", requires = "synthetic")]
    pub seed: u64,
    /// Times that every figure is measured; the median is shown, and the spread
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub repeat: u32,
    /// Enqueue launch by launch instead of a step as one graph
    #[arg(long)]
    pub no_graph: bool,
    /// Working set of the bandwidth test in MiB, well beyond any cache; less where less memory is free
    #[arg(long, default_value_t = 2048, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub span: u64,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Say what is done
    #[arg(short, long)]
    pub verbose: bool,
}

/// How `bench` chooses tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// The most probable token
    Greedy,
    /// Temperature 0.8, top-k 40, top-p 0.95, min-p 0.05
    Default,
}

/// Arguments of `hipfire-run bench`.
#[derive(Debug, Args)]
#[command(
    after_help = "A token's time includes its choice. Beyond depth 0 positions are skipped, not computed: the cache then holds \
whatever was there, which takes as long to read. An emulated device's instructions are counted, too: active lanes, \
summed over vector instructions. The bandwidth is that of a kernel of ours that only reads, in the same run. Exit code \
1: the device holds 2 % more or less than the plan says.\n\nExamples:\n  hipfire-run bench plan.bin\n  \
hipfire-run bench plan.bin --depth 0,4096 -n 256 --json\n  hipfire-run bench plan.bin --synthetic       without the model file"
)]
pub struct Bench {
    /// Common.
    #[command(flatten)]
    pub measure: Measure,
    /// Tokens to generate
    #[arg(short = 'n', long, default_value_t = 128, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub tokens: u32,
    /// Positions in the cache before the first token; several with commas
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "0")]
    pub depth: Vec<u32>,
    /// Tokens of the prompt, 0 for none [default: 512, or the context if that is shorter]
    #[arg(long, value_name = "N")]
    pub prompt: Option<u32>,
    /// How tokens are chosen
    #[arg(long, value_enum, default_value = "greedy")]
    pub sampling: Choice,
}

/// Arguments of `hipfire-run profile`.
#[derive(Debug, Args)]
#[command(
    after_help = "All launches of a kernel are timed one after the other, over all layers, by the device's clock. Predictions \
are those of the compiler for its reference card, with 512 positions in the cache.\n\nExamples:\n  hipfire-run profile plan.bin\n  \
hipfire-run profile plan.bin --depth 4096 --json\n  hipfire-run profile plan.bin --synthetic     without the model file"
)]
pub struct Profile {
    /// Common.
    #[command(flatten)]
    pub measure: Measure,
    /// Positions in the cache before the step; they are skipped, not computed
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub depth: u32,
}

/// Arguments of `hipfire-run tune`.
#[derive(Debug, Args)]
#[command(
    after_help = "The bundle must have been made with hipc compile --alternatives; weights aren't needed. Every geometry must compute the \
same as the plan's, or the command ends with exit code 1. Weights and caches are read from other places at every launch, as a model does.\n\n\
Examples:\n  hipc compile model.gguf --arch gfx1100 --alternatives -o tune.bin\n  hipfire-run tune tune.bin --device hip:0 -o card.tune\n  \
hipc compile model.gguf --arch gfx1100 --tune card.tune"
)]
pub struct Tune {
    /// The bundle
    pub bundle: PathBuf,
    /// What executes: auto, hip:N (the N-th AMD GPU), emu:ARCH (emulated), for tests host and cuda:N
    #[arg(long, default_value = "auto")]
    pub device: DeviceName,
    /// Where the tuning file is written
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Labels of the launches to measure, with commas [default: all]
    #[arg(long, value_name = "LABEL,…", value_delimiter = ',')]
    pub launches: Vec<String>,
    /// Memory in MiB that weights and caches rotate through, three times the largest cache or more [default: 512]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub span: Option<u64>,
    /// Times that every geometry is measured; the median counts [default: 7]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub repeat: Option<u32>,
    /// Print one JSON object, with every geometry measured
    #[arg(long)]
    pub json: bool,
}

/// What the sanitizer of an emulated device watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sanitizer {
    /// Nothing
    Off,
    /// The first cases of each launch, and whole steps
    Some,
    /// Every case of each launch, and whole steps
    All,
}

impl std::fmt::Display for Sanitizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Some => "some",
            Self::All => "all",
        })
    }
}

/// Arguments of `hipfire-run verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "Every kernel is run by itself on inputs at random, at the edges of what it can be asked for: positions 0, 1, 31 to \
33, 127 to 129, where attention splits the context, and the last; inputs as large as 1e-4, 1 and 1e4, and zero; one token, a part of a \
chunk, a whole one. What it writes is compared with the reference (in f64, rounded once), by these bounds: integer products NMSE 1e-10, \
other f32 1e-7, copies exact; int8 scales 1e-6 or what f32 can hold, quants equal but at ties. What it must not write has to be as it \
was, and a second run has to leave the same bits. Then whole steps, decode and prompt, are compared with the CPU's, with the model's \
graph before fusion in f64, and with themselves as a graph of the device. Where whole steps are wrong, they are run launch by launch, \
and the first launch is named that leaves something else than on the CPU (--until K does the same up to launch K).\n\n\
An emulated device's sanitizer watches the first cases of each launch and the steps: accesses outside of a launch's operands, values that \
nobody wrote, registers used before they have arrived, races, barriers that waves don't meet at. A finding names kernel, instruction, \
wave, lane and address, and counts as wrong.\n\n\
Launches are numbered from 0: those of the decode program, then those of the prompt program (hipc inspect has them). Exit code 1: \
something is wrong; the last line says how to see it again.\n\nExamples:\n  hipfire-run verify plan.bin\n  \
hipfire-run verify plan.bin --device hip:0 --report verified.md\n  \
hipfire-run verify plan.bin --device emu:gfx1100        the machine code, executed on the CPU\n  hipfire-run verify plan.bin --launch 3 --position 128   one launch, \
at one position\n  hipfire-run verify plan.bin --synthetic                 without the model file"
)]
pub struct Verify {
    /// The bundle
    pub bundle: PathBuf,
    /// What is verified: auto, cpu, hip:N (the N-th AMD GPU), emu:ARCH (emulated), for tests host and cuda:N
    #[arg(long, default_value = "auto")]
    pub device: DeviceName,
    /// The model file, if it has moved since it was compiled
    #[arg(long, value_name = "GGUF", conflicts_with = "synthetic")]
    pub model: Option<PathBuf>,
    /// Fill the weights at random; done anyway where the model file isn't there
    #[arg(long)]
    pub synthetic: bool,
    /// Only the first N layers, and what belongs to none
    #[arg(long, value_name = "N")]
    pub layers: Option<u32>,
    /// Only the launches of layer N, from 0; no whole steps
    #[arg(long, value_name = "N", conflicts_with = "layers")]
    pub layer: Option<u32>,
    /// Only this launch
    #[arg(long, value_name = "K")]
    pub launch: Option<usize>,
    /// Only whole steps, launch by launch up to this one: what each leaves is compared with what it leaves on cpu, each device on its own results
    #[arg(long, value_name = "K", conflicts_with_all = ["launch", "layer", "layers", "position", "all", "no_chain"])]
    pub until: Option<usize>,
    /// Only cases at this position
    #[arg(long, value_name = "P")]
    pub position: Option<u32>,
    /// Every launch, not only the first of each kernel and those of the last layer
    #[arg(long)]
    pub all: bool,
    /// Rows of each mat-vec that are compared, at random, in whole tiles, int8 blocks and heads; 0: all [default: all of small ones, 256 of large ones]
    #[arg(long, value_name = "N")]
    pub rows: Option<u32>,
    /// Seed of all that is random
    #[arg(long, default_value_t = 1, value_name = "S")]
    pub seed: u64,
    /// Time for the launches; cases that don't fit are left out, and the report says so
    #[arg(long, default_value_t = Self::SECONDS, value_name = "SECONDS")]
    pub seconds: u64,
    /// Don't stop at the first launch that is wrong
    #[arg(long)]
    pub keep_going: bool,
    /// What the sanitizer of an emulated device watches: off; some (the first two cases of each launch, and whole steps once); all cases [default: some]
    #[arg(long, value_enum, value_name = "WHAT", hide_possible_values = true)]
    pub sanitizer: Option<Sanitizer>,
    /// Leave out whole steps
    #[arg(long)]
    pub no_chain: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Write a report with provenance, in Markdown
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Say what is done
    #[arg(short, long)]
    pub verbose: bool,
}

impl Verify {
    /// Time for the launches, unless told otherwise.
    pub const SECONDS: u64 = 600;
}

/// Arguments of `hipfire-run doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Print only the architectures of the AMD GPUs, a line each, in the order of hip:N; exit code 3 without one
    #[arg(long)]
    pub print_arch: bool,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}
