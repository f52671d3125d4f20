//! How fast a loaded bundle is: decoding, prompts, loading, memory, and the bandwidth of the device in the same run.

mod figures;

pub use figures::{Bandwidth, LAUNCH_PREDICTED_AT, Spread, launch_bytes, step_bytes};

use crate::device::{Backend, Executed, MemoryUse};
use crate::engine::{Engine, PlanEngine};
use crate::generate::{Chooser, GenerateError};
use crate::text::SamplerParams;
use hipc_ir::fused::ProgramKind;
use hipc_ir::plan::Plan;
use serde::Serialize;
use std::time::Instant;

/// An engine over any device.
pub type AnyEngine = PlanEngine<Box<dyn Backend>>;

/// Tokens that are generated before anything is measured.
const WARM_UP: u32 = 8;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tokens to generate.
    pub tokens: u32,
    /// Positions that the cache holds before the first of them.
    pub depths: Vec<u32>,
    /// Tokens of the prompt; 0: none.
    pub prompt: u32,
    /// Times that everything is measured.
    pub repeat: u32,
    /// How tokens are chosen.
    pub sampling: SamplerParams,
    /// Bytes of the bandwidth test.
    pub span: u64,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Device and architecture of its plan.
    pub device: String,
    /// `gfx1100`.
    pub arch: String,
    /// Where allocated bytes went.
    pub memory: Memory,
    /// Reads and nothing else.
    pub bandwidth: Bandwidth,
    /// Launches of a decode step.
    pub launches_per_token: usize,
    /// Launches of one layer in it, the most of any.
    pub launches_per_layer: usize,
    /// Calls of the driver that enqueue a decode step's launches.
    pub enqueues_per_token: usize,
    /// Whether a step is one graph.
    pub graph: bool,
    /// Prompts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Prompt>,
    /// Generation, by depth.
    pub decode: Vec<Decode>,
}

/// Bytes on the device.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Memory {
    /// As the plan says.
    pub planned: u64,
    /// Allocated by us.
    pub allocated: u64,
    /// `allocated` over `planned`, less 1, in percent.
    pub difference_percent: f64,
    /// Taken by the driver on top of that since the device was opened: modules, graphs, pools.
    pub driver: u64,
    /// In use before: the driver's context, other programs.
    pub before: u64,
    /// Of the device.
    pub total: u64,
}

impl Memory {
    /// Most that planned and allocated bytes may differ, in percent.
    pub const BOUND: f64 = 2.0;

    fn new(planned: u64, used: MemoryUse) -> Self {
        let difference_percent = 100.0 * (used.own as f64 / planned.max(1) as f64 - 1.0);
        let MemoryUse { own, driver, before, total } = used;
        Self { planned, allocated: own, difference_percent, driver, before, total }
    }

    /// Whether the plan told the truth.
    pub fn as_planned(&self) -> bool {
        self.difference_percent.abs() <= Self::BOUND
    }
}

/// A prompt, computed from an empty cache up to the choice of the first token.
#[derive(Clone, Debug, Serialize)]
pub struct Prompt {
    /// Tokens.
    pub tokens: u32,
    /// Tokens of one step.
    pub chunk: usize,
    /// Time to the first token.
    pub seconds: Spread,
    /// Tokens per second.
    pub tokens_per_s: Spread,
}

/// Generation from some depth on.
#[derive(Clone, Debug, Serialize)]
pub struct Decode {
    /// Positions in the cache before the first token. Beyond 0 they were skipped, not computed: the cache holds whatever was
    /// there, which takes as long to read.
    pub depth: u32,
    /// Tokens generated.
    pub tokens: u32,
    /// Seconds of all of them, each chosen on the host or the device as asked for.
    pub seconds: Spread,
    /// Tokens per second.
    pub tokens_per_s: Spread,
    /// Bytes that a step in the middle reads and writes, by the plan.
    pub bytes_per_token: u64,
    /// Those bytes by the median time, GB/s.
    pub gb_per_s: f64,
    /// Part of the bandwidth measured in this run.
    pub share_of_bandwidth: f64,
    /// Instructions, on an emulated device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emulated: Option<Emulated>,
}

/// What an emulated device executed.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Emulated {
    /// Active lanes, summed over all vector instructions, per token generated.
    pub lane_instructions_per_token: u64,
    /// The same per second of the median run.
    pub lane_instructions_per_s: f64,
}

impl Emulated {
    /// Of so many tokens, of which each took this long.
    fn new(executed: Executed, tokens: u64, seconds_per_token: f64) -> Self {
        let lane_instructions_per_token = executed.lane_instructions / tokens.max(1);
        let lane_instructions_per_s = lane_instructions_per_token as f64 / seconds_per_token;
        Self { lane_instructions_per_token, lane_instructions_per_s }
    }
}

/// Measures. `planned` is what the plan says that the device allocates; `tell` hears what is measured next.
///
/// # Errors
/// What the engine or the sampler report; tokens that don't fit the context.
pub fn bench(
    engine: &mut AnyEngine,
    planned: u64,
    options: &Options,
    tell: &mut dyn FnMut(&str),
) -> Result<Report, GenerateError> {
    let fail = crate::engine::EngineError::from;
    // Before the bandwidth test allocates.
    let memory = Memory::new(planned, engine.backend_mut().memory_use().map_err(fail)?);
    let mut chooser = Chooser::new(options.sampling)?;
    engine.truncate(0);
    tell("warming up");
    generate(engine, &mut chooser, 0, WARM_UP.min(options.tokens))?;
    tell("bandwidth");
    let times = engine.backend_mut().read_memory(options.span, options.repeat.max(3)).map_err(fail)?;
    let bandwidth = Bandwidth::new(&times);

    let prompt = match options.prompt {
        0 => None,
        tokens => {
            tell(&format!("prompt of {tokens} tokens"));
            let vocab = engine.vocab() as u64;
            let ids: Vec<u32> = (0..u64::from(tokens)).map(|i| ((13 + 7919 * i) % vocab) as u32).collect();
            let mut seconds = Vec::new();
            for _ in 0..options.repeat {
                engine.truncate(0);
                let start = Instant::now();
                chooser.tokens(engine, &ids, 1)?;
                seconds.push(start.elapsed().as_secs_f64());
            }
            let rates = seconds.iter().map(|s| f64::from(tokens) / s);
            let (tokens_per_s, chunk) = (Spread::of(rates), engine.chunk());
            Some(Prompt { tokens, chunk, seconds: Spread::of(seconds), tokens_per_s })
        }
    };

    let mut decode = Vec::new();
    for &depth in &options.depths {
        tell(&format!("{} tokens at depth {depth}", options.tokens));
        let mut seconds = Vec::new();
        let before = engine.backend_mut().executed();
        for _ in 0..options.repeat {
            seconds.push(generate(engine, &mut chooser, depth, options.tokens)?);
        }
        let executed = engine.backend_mut().executed().zip(before).map(|(after, before)| after.since(before));
        let plan = engine.backend_mut().plan();
        let bytes_per_token = step_bytes(plan, depth + options.tokens / 2);
        let tokens = f64::from(options.tokens);
        let tokens_per_s = Spread::of(seconds.iter().map(|s| tokens / s));
        let seconds = Spread::of(seconds);
        let gb_per_s = bytes_per_token as f64 * tokens / seconds.median / 1e9;
        let share_of_bandwidth = gb_per_s / bandwidth.gb_per_s.median;
        let emulated = executed.map(|executed| {
            let all = u64::from(options.tokens) * u64::from(options.repeat);
            Emulated::new(executed, all, seconds.median / tokens)
        });
        let tokens = options.tokens;
        decode.push(Decode { depth, tokens, seconds, tokens_per_s, bytes_per_token, gb_per_s, share_of_bandwidth, emulated });
    }

    let graph = engine.steps_are_graphs();
    let plan = engine.backend_mut().plan();
    let launches_per_token = plan.program(ProgramKind::Decode).map_or(0, |p| p.launches.len());
    Ok(Report {
        arch: plan.target.clone(),
        launches_per_token,
        launches_per_layer: launches_per_layer(plan),
        enqueues_per_token: if graph { 1 } else { launches_per_token },
        graph,
        device: engine.describe(),
        memory,
        bandwidth,
        prompt,
        decode,
    })
}

/// Seconds that `tokens` tokens take, one after the other, after `depth` positions.
fn generate(engine: &mut AnyEngine, chooser: &mut Chooser, depth: u32, tokens: u32) -> Result<f64, GenerateError> {
    engine.seek(depth as usize);
    let first = 1 % engine.vocab() as u32;
    let start = Instant::now();
    chooser.tokens(engine, &[first], tokens as usize)?;
    Ok(start.elapsed().as_secs_f64())
}

/// Most launches that any layer of the decode program takes.
fn launches_per_layer(plan: &Plan) -> usize {
    let Some(program) = plan.program(ProgramKind::Decode) else { return 0 };
    let of = |layer| program.launches.iter().filter(|l| l.layer == Some(layer)).count();
    (0..plan.model.layers).map(of).max().unwrap_or(0)
}
