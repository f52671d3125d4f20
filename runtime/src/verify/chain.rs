//! Whole steps of a program: a device against `cpu`, against the unfused graph, and against itself.
//!
//! A decode program is fed six tokens one by one, a prompt program the same six at once.
//!
//! Two right devices don't give the same logits: where a value lies at a tie of its int8 rounding, they differ by one quant, and what
//! follows amplifies it. How far that goes depends on the model, so it is measured: `cpu` runs the same steps with what every launch leaves
//! behind, its f32 values and the scales of its int8 blocks, moved by one rounding of f32, some times, and the device's logits may be three
//! times as far from `cpu`'s as the farthest of these, plus 3e-6 (NMSE). In a small model such moves needn't meet a tie, where another order
//! of a sum does: as long as none has, the next are eight times as large. (Moving the embedding alone isn't enough: where what layers
//! add dwarfs it, nothing behind them meets a tie.) The same step twice, and as the device's graph, must give identical bits.
//!
//! Fused against unfused: the model's graph as it was before any rule rewrote it, in f64 with an f64 cache and without int8
//! ([`hipc_reference::ExactState`]), on the same tokens. int8 activations cost up to 5e-3 of the logits in the models that we have
//! figures of, and a rule that is wrong (a gain that is applied twice, a bias before its scalar) costs all of them.

use super::bytes::Bytes;
use super::inputs::Random;
use super::kind;
use super::report::{ChainRow, Unfused};
use crate::device::{Backend, DeviceError, WeightSource};
use hipc_ir::dtype::Q8Layout;
use hipc_ir::fused::{Access, ProgramKind, Shape};
use hipc_ir::graph::{Graph, Weight};
use hipc_ir::plan::{Buffer, Plan, Program, SamplingState, Space, StepState};
use hipc_reference::{ExactState, WeightAccess};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Tokens of the sequence.
const STEPS: u32 = 6;
/// Times that `cpu` runs with moved results.
pub(super) const MOVED: u64 = 4;
/// Noise that needs no reason.
pub(super) const FLOOR: f64 = 3e-6;
/// By how much more they are moved where the logits were nearer than [`FLOOR`], so that no int8 value met a tie.
pub(super) const FARTHER: f32 = 8.0;

/// Most noise against the unfused graph, where activations are int8 and where all of them are floats (the cache is f16).
const UNFUSED: [f64; 2] = [2e-2, 1e-5];

/// What is compared.
pub struct Steps {
    /// Which program.
    pub kind: ProgramKind,
    /// Of the tokens.
    pub seed: u64,
    /// Where `cpu` has taken as long as this, it moves its results no further time. (What the device takes doesn't count: a slow one would
    /// have a tighter bound.)
    pub limit: Duration,
    /// Whether the device watches the steps, if it can; not when they are repeated.
    pub watched: bool,
    /// The unfused graph with its weights, if it is compared with.
    pub graph: Option<(Arc<Graph>, Arc<dyn WeightSource + Send>)>,
}

/// Runs the steps on both; `None` if the plan has no such program.
///
/// # Errors
/// The devices'.
pub fn chain(
    device: &mut dyn Backend,
    cpu: &mut dyn Backend,
    asked: &Steps,
    tell: &mut dyn FnMut(&str),
) -> Result<Option<ChainRow>, DeviceError> {
    let plan = device.plan().clone();
    let Some(run) = Run::new(&plan, asked) else { return Ok(None) };
    let number = run.number;
    tell(&format!("{} steps on the device", kind(asked.kind)));
    device.watch(asked.watched);
    let first = run.prepare(device, &plan).and_then(|()| run.all(device, &mut |backend, launches| backend.run(number, launches)));
    device.watch(false);
    let (logits, ids) = first?;
    let twice = run.last(device, &mut |backend, launches| backend.run(number, launches))? == (logits.clone(), ids.clone());
    let recording = device.record(number, 0..plan.programs[number].launches.len(), 1)?;
    let replayed = run.last(device, &mut |backend, _| backend.replay(&recording))? == (logits.clone(), ids);
    tell("the same on cpu");
    let start = Instant::now();
    run.prepare(cpu, &plan)?;
    let (reference, _) = run.all(cpu, &mut |backend, launches| backend.run(number, launches))?;
    let (mut sensitivity, mut roundings) = (0f64, 1.0);
    for i in (0..MOVED).filter(|i| *i == 0 || start.elapsed() < asked.limit) {
        tell("and with moved results");
        let mut random = Random::fork(asked.seed, 0x3071 + i);
        let (moved, _) = run.all(cpu, &mut |backend, launches| run_moved(backend, number, launches, roundings, &mut random))?;
        sensitivity = sensitivity.max(nmse(&moved, &reference));
        if sensitivity < FLOOR {
            roundings *= FARTHER;
        }
    }
    let unfused = match &asked.graph {
        Some((graph, weights)) => {
            tell("the unfused graph");
            Some(unfused(graph, weights, &run.tokens, plan.ctx, &logits)?)
        }
        None => None,
    };
    let row = ChainRow {
        program: kind(asked.kind),
        steps: run.tokens.len() as u32,
        nmse: nmse(&logits, &reference),
        sensitivity,
        bound: FLOOR + 3.0 * sensitivity,
        same_choice: largest(&logits) == largest(&reference),
        unfused,
        twice,
        graph: recording.is_graph(),
        replayed,
    };
    Ok(Some(row))
}

/// Weights by the trait that the exact evaluator reads them through.
struct Weights(Arc<dyn WeightSource + Send>);

impl WeightAccess for Weights {
    fn weight(&self, weight: Weight) -> &[u8] {
        self.0.weight(weight)
    }
}

fn unfused(
    graph: &Arc<Graph>,
    weights: &Arc<dyn WeightSource + Send>,
    tokens: &[u32],
    ctx: u32,
    logits: &[u8],
) -> Result<Unfused, DeviceError> {
    let internal = |e: hipc_reference::EvalError| DeviceError::Internal(e.to_string());
    let access = Arc::new(Weights(weights.clone()));
    let mut exact = ExactState::new(graph.clone(), ctx as usize, access).map_err(internal)?;
    let row = exact.step(tokens, tokens.len() - 1).map_err(internal)?;
    let row: Vec<u8> = row.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect();
    let quantized = graph.weights.values().any(|w| w.dtype.is_quantized());
    let bound = UNFUSED[usize::from(!quantized)];
    Ok(Unfused { nmse: nmse(logits, &row), bound, same_choice: largest(logits) == largest(&row) })
}

type Enqueue<'a> = &'a mut dyn FnMut(&mut dyn Backend, std::ops::Range<usize>) -> Result<(), DeviceError>;

/// Steps of a program.
pub(super) struct Run {
    /// Which program.
    pub(super) number: usize,
    /// Tokens of a step.
    pub(super) at_once: usize,
    /// Those of all steps.
    pub(super) tokens: Vec<u32>,
}

impl Run {
    pub(super) fn new(plan: &Plan, asked: &Steps) -> Option<Self> {
        let number = plan.programs.iter().position(|p| p.kind == asked.kind)?;
        let at_once = plan.programs[number].tokens.clamp(1, STEPS.min(plan.ctx));
        let count = if at_once > 1 { at_once } else { STEPS.min(plan.ctx) };
        let mut random = Random::fork(asked.seed, 0xc4a1);
        let tokens = (0..count).map(|_| random.below(plan.model.vocab)).collect();
        Some(Self { number, at_once: at_once as usize, tokens })
    }

    fn program<'a>(&self, plan: &'a Plan) -> &'a Program {
        &plan.programs[self.number]
    }

    /// What no step writes: greedy, and counters at zero. Caches hold nothing yet.
    pub(super) fn prepare(&self, backend: &mut dyn Backend, plan: &Plan) -> Result<(), DeviceError> {
        forget(backend, Space::Cache)?;
        backend.write(plan.sampling, 0, &SamplingState::default().to_bytes())?;
        for launch in &self.program(plan).launches {
            for (param, &buffer) in plan.kernels[launch.kernel].op.params().iter().zip(&launch.args) {
                if param.shape == Shape::Counters {
                    backend.write(buffer, 0, &Bytes::filled(0, plan.buffers[buffer].bytes as usize))?;
                }
            }
        }
        Ok(())
    }

    /// The step whose first token is number `at`.
    pub(super) fn step(&self, backend: &mut dyn Backend, at: usize, enqueue: Enqueue<'_>) -> Result<(), DeviceError> {
        let plan = backend.plan();
        let (state, tokens, launches) = (plan.state, plan.tokens, self.program(plan).launches.len());
        let fed: Vec<u8> = self.tokens[at..at + self.at_once].iter().flat_map(|t| t.to_le_bytes()).collect();
        let n = self.at_once as i32;
        forget(backend, Space::Arena)?;
        backend.write(tokens, 4 * at as u64, &fed)?;
        backend.write(state, 0, &StepState { pos: at as i32, n, head_from: n - 1, generation: 0 }.to_bytes())?;
        enqueue(backend, 0..launches)
    }

    /// All steps; the logits and the choice of the last.
    fn all(&self, backend: &mut dyn Backend, enqueue: Enqueue<'_>) -> Result<(Bytes, Bytes), DeviceError> {
        (0..self.tokens.len()).step_by(self.at_once).try_for_each(|at| self.step(backend, at, enqueue))?;
        self.results(backend)
    }

    /// The last step again.
    fn last(&self, backend: &mut dyn Backend, enqueue: Enqueue<'_>) -> Result<(Bytes, Bytes), DeviceError> {
        let program = self.program(backend.plan());
        let logits = program.logits;
        let len = backend.plan().buffers[logits].bytes as usize;
        // So that nothing is found that was there before.
        backend.write(logits, 0, &Bytes::filled(super::inputs::UNTOUCHED, len))?;
        self.step(backend, self.tokens.len() - self.at_once, enqueue)?;
        self.results(backend)
    }

    fn results(&self, backend: &mut dyn Backend) -> Result<(Bytes, Bytes), DeviceError> {
        let program = self.program(backend.plan());
        let (logits, ids) = (program.logits, program.ids);
        let (row, last) = (4 * backend.plan().model.vocab as usize, self.at_once as u64 - 1);
        let mut read = |buffer, len: usize| {
            let mut bytes = Bytes::filled(0, len);
            backend.read(buffer, last * len as u64, &mut bytes).map(|()| bytes)
        };
        let ids = read(ids, 4)?;
        Ok((read(logits, row)?, ids))
    }
}

/// Whatever buffers of a space hold is left from before: no step may rely on it.
fn forget(backend: &mut dyn Backend, space: Space) -> Result<(), DeviceError> {
    let of_space = backend.plan().buffers.iter().filter(|(_, decl)| decl.space == space);
    let all: Vec<(Buffer, u64)> = of_space.map(|(buffer, decl)| (buffer, decl.bytes)).collect();
    all.into_iter().try_for_each(|(buffer, bytes)| backend.forget(buffer, 0, bytes))
}

/// Launches one after the other; behind each, what it wrote is moved by ± 2⁻²³, so many times.
pub(super) fn run_moved(
    backend: &mut dyn Backend,
    number: usize,
    launches: std::ops::Range<usize>,
    roundings: f32,
    random: &mut Random,
) -> Result<(), DeviceError> {
    let plan = backend.plan().clone();
    let mut moved = |value: &mut [u8; 4]| {
        let by = if random.bits() & 1 == 0 { f32::EPSILON } else { -f32::EPSILON };
        *value = (f32::from_le_bytes(*value) * (1.0 + roundings * by)).to_le_bytes();
    };
    for at in launches {
        backend.run(number, at..at + 1)?;
        let launch = &plan.programs[number].launches[at];
        let params = plan.kernels[launch.kernel].op.params();
        let written = params.iter().zip(&launch.args).filter(|(param, _)| param.access == Access::Write);
        for (param, &buffer) in written {
            match param.shape {
                Shape::F32(_) | Shape::Ssq => {
                    let mut bytes = Bytes::read(backend, buffer)?;
                    bytes.as_chunks_mut().0.iter_mut().for_each(&mut moved);
                    backend.write(buffer, 0, &bytes)?;
                }
                Shape::Q8(n) => {
                    let layout = Q8Layout { n, block: Q8Layout::DEFAULT_BLOCK };
                    let mut bytes = Bytes::read(backend, buffer)?;
                    for token in bytes.chunks_exact_mut(layout.stride() as usize) {
                        let scales = &mut token[layout.scales() as usize..layout.sums() as usize];
                        scales.as_chunks_mut().0.iter_mut().for_each(&mut moved);
                    }
                    backend.write(buffer, 0, &bytes)?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn values(bytes: &[u8]) -> impl Iterator<Item = f64> {
    bytes.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b)))
}

fn nmse(x: &[u8], reference: &[u8]) -> f64 {
    noise(values(x), values(reference))
}

/// Squared error by the squares of the reference.
pub(super) fn noise(x: impl Iterator<Item = f64>, reference: impl Iterator<Item = f64>) -> f64 {
    let (error, norm) = x.zip(reference).fold((0.0, 0.0), |(error, norm), (x, r)| (error + (x - r) * (x - r), norm + r * r));
    if error == 0.0 { 0.0 } else { error / norm }
}

fn largest(bytes: &[u8]) -> usize {
    let all: Vec<f64> = values(bytes).collect();
    (0..all.len()).fold(0, |best, i| if all[i] > all[best] { i } else { best })
}
