//! Whole decode steps: a device against `cpu`, and against itself.
//!
//! Two right devices don't give the same logits: where a value lies at a tie of its int8 rounding, they differ by one quant, and what
//! follows amplifies it. How far that goes depends on the model, so it is measured: `cpu` runs the same steps with the embedding's values
//! moved by one rounding of f32, some times, and the device's logits may be three times as far from `cpu`'s as the farthest of these, plus
//! 3e-6 (NMSE). The same step twice, and as the device's graph, must give identical bits.

use super::bytes::Bytes;
use super::inputs::Random;
use super::report::ChainRow;
use crate::device::{Backend, DeviceError};
use hipc_ir::fused::{FusedOp, ProgramKind, Role, Shape};
use hipc_ir::plan::{Plan, Program, SamplingState, StepState};
use std::time::{Duration, Instant};

/// Tokens of the sequence.
const STEPS: u32 = 6;
/// Times that `cpu` runs with a moved embedding.
const MOVED: u64 = 4;
/// Noise that needs no reason.
const FLOOR: f64 = 3e-6;

/// Runs the steps on both; `None` if the plan has no decode program. Where `limit` has passed, `cpu` moves its embedding no further time.
///
/// # Errors
/// The devices'.
pub fn chain(
    device: &mut dyn Backend,
    cpu: &mut dyn Backend,
    seed: u64,
    limit: Duration,
    tell: &mut dyn FnMut(&str),
) -> Result<Option<ChainRow>, DeviceError> {
    let start = Instant::now();
    let plan = device.plan().clone();
    let Some(number) = plan.programs.iter().position(|p| p.kind == ProgramKind::Decode) else { return Ok(None) };
    let steps = STEPS.min(plan.ctx);
    let mut random = Random::fork(seed, 0xc4a1);
    let run = Run { number, tokens: (0..steps).map(|_| random.below(plan.model.vocab)).collect() };
    tell("decode steps on the device");
    run.prepare(device, &plan)?;
    let (logits, ids) = run.all(device, &mut |backend, launches| backend.run(number, launches))?;
    let twice = run.last(device, &mut |backend, launches| backend.run(number, launches))? == (logits.clone(), ids.clone());
    let recording = device.record(number, 0..plan.programs[number].launches.len(), 1)?;
    let replayed = run.last(device, &mut |backend, _| backend.replay(&recording))? == (logits.clone(), ids);
    tell("the same on cpu");
    run.prepare(cpu, &plan)?;
    let (reference, _) = run.all(cpu, &mut |backend, launches| backend.run(number, launches))?;
    let mut sensitivity = 0f64;
    for i in (0..MOVED).filter(|i| *i == 0 || start.elapsed() < limit) {
        tell("and with a moved embedding");
        let mut random = Random::fork(seed, 0x3071 + i);
        let (moved, _) = run.all(cpu, &mut |backend, launches| run_moved(backend, number, launches, &mut random))?;
        sensitivity = sensitivity.max(nmse(&moved, &reference));
    }
    let (a, b) = (largest(&logits), largest(&reference));
    let row = ChainRow {
        steps,
        nmse: nmse(&logits, &reference),
        sensitivity,
        bound: FLOOR + 3.0 * sensitivity,
        same_choice: a == b,
        twice,
        graph: recording.is_graph(),
        replayed,
    };
    Ok(Some(row))
}

type Enqueue<'a> = &'a mut dyn FnMut(&mut dyn Backend, std::ops::Range<usize>) -> Result<(), DeviceError>;

struct Run {
    number: usize,
    tokens: Vec<u32>,
}

impl Run {
    fn program<'a>(&self, plan: &'a Plan) -> &'a Program {
        &plan.programs[self.number]
    }

    /// What no step writes: greedy, and counters at zero.
    fn prepare(&self, backend: &mut dyn Backend, plan: &Plan) -> Result<(), DeviceError> {
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

    fn step(&self, backend: &mut dyn Backend, at: usize, enqueue: Enqueue<'_>) -> Result<(), DeviceError> {
        let plan = backend.plan();
        let (state, tokens, launches) = (plan.state, plan.tokens, self.program(plan).launches.len());
        backend.write(tokens, 4 * at as u64, &self.tokens[at].to_le_bytes())?;
        backend.write(state, 0, &StepState { pos: at as i32, n: 1, head_from: 0, generation: 0 }.to_bytes())?;
        enqueue(backend, 0..launches)
    }

    /// All steps; the logits and the choice of the last.
    fn all(&self, backend: &mut dyn Backend, enqueue: Enqueue<'_>) -> Result<(Bytes, Bytes), DeviceError> {
        (0..self.tokens.len()).try_for_each(|at| self.step(backend, at, enqueue))?;
        self.results(backend)
    }

    /// The last step again.
    fn last(&self, backend: &mut dyn Backend, enqueue: Enqueue<'_>) -> Result<(Bytes, Bytes), DeviceError> {
        let program = self.program(backend.plan());
        let logits = program.logits;
        let len = backend.plan().buffers[logits].bytes as usize;
        // So that nothing is found that was there before.
        backend.write(logits, 0, &Bytes::filled(super::inputs::UNTOUCHED, len))?;
        self.step(backend, self.tokens.len() - 1, enqueue)?;
        self.results(backend)
    }

    fn results(&self, backend: &mut dyn Backend) -> Result<(Bytes, Bytes), DeviceError> {
        let program = self.program(backend.plan());
        let (logits, ids) = (program.logits, program.ids);
        let mut read = |buffer, len| {
            let mut bytes = Bytes::filled(0, len);
            backend.read(buffer, 0, &mut bytes).map(|()| bytes)
        };
        let ids = read(ids, 4)?;
        let vocab = backend.plan().model.vocab as usize;
        let mut bytes = Bytes::filled(0, 4 * vocab);
        backend.read(logits, 0, &mut bytes)?;
        Ok((bytes, ids))
    }
}

/// Launches one after the other; behind the embedding, its values are moved by ± 2⁻²³.
fn run_moved(
    backend: &mut dyn Backend,
    number: usize,
    launches: std::ops::Range<usize>,
    random: &mut Random,
) -> Result<(), DeviceError> {
    let plan = backend.plan();
    let program = &plan.programs[number];
    let embed = program.launches.iter().position(|l| matches!(plan.kernels[l.kernel].op, FusedOp::Embed(_)));
    let Some(at) = embed else { return backend.run(number, launches) };
    let launch = &program.launches[at];
    let params = plan.kernels[launch.kernel].op.params();
    let raw = params.iter().zip(&launch.args).find(|(p, _)| p.role == Role::Raw).map(|(_, &b)| b);
    backend.run(number, launches.start..at + 1)?;
    if let Some(raw) = raw {
        let mut bytes = Bytes::read(backend, raw)?;
        for value in bytes.as_chunks_mut::<4>().0 {
            let moved = f32::from_le_bytes(*value) * if random.bits() & 1 == 0 { 1.0 + f32::EPSILON } else { 1.0 - f32::EPSILON };
            *value = moved.to_le_bytes();
        }
        backend.write(raw, 0, &bytes)?;
    }
    backend.run(number, at + 1..launches.end)
}

fn values(bytes: &[u8]) -> impl Iterator<Item = f64> {
    bytes.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b)))
}

fn nmse(x: &[u8], reference: &[u8]) -> f64 {
    let (error, norm) =
        values(x).zip(values(reference)).fold((0.0, 0.0), |(error, norm), (x, r)| (error + (x - r) * (x - r), norm + r * r));
    if error == 0.0 { 0.0 } else { error / norm }
}

fn largest(bytes: &[u8]) -> usize {
    let all: Vec<f64> = values(bytes).collect();
    (0..all.len()).fold(0, |best, i| if all[i] > all[best] { i } else { best })
}
