//! Where whole steps go wrong: the same steps on a device and on `cpu`, launch by launch up to one, each on its own results.
//!
//! Behind every launch what it left is compared with what `cpu` has there. The bound is [`super::chain`]'s at that place: three times
//! what `cpu`'s own results there, or at a place before, differ by when they are moved, plus the noise that needs no reason. The
//! first launch that leaves it is where to look, though each launch may be right by itself: it got something else than it should have,
//! or leaves something else behind other launches than it does alone.

use super::bytes::Bytes;
use super::chain::{FARTHER, FLOOR, MOVED, Run, Steps, noise, run_moved};
use super::inputs::Random;
use super::kind;
use crate::device::{Backend, DeviceError};
use half::f16;
use hipc_ir::dtype::{KvType, Q8Layout};
use hipc_ir::fused::{Access, Param, Role, Shape};
use hipc_reference::blocks::Q8Token;
use serde::Serialize;
use std::time::Instant;

/// Launches of whole steps compared one after the other.
#[derive(Clone, Debug, Serialize)]
pub struct Until {
    /// `decode` or `prompt`.
    pub program: &'static str,
    /// The last launch compared, counted over all programs.
    pub until: usize,
    /// Tokens fed.
    pub tokens: u32,
    /// Results compared.
    pub results: usize,
    /// Largest noise as a part of what is allowed.
    pub share: f64,
    /// The first result beyond its bound; behind it nothing was compared.
    pub first: Option<Left>,
}

/// A result of a launch that is farther from `cpu`'s than it may be.
#[derive(Clone, Debug, Serialize)]
pub struct Left {
    /// Number over all programs.
    pub launch: usize,
    /// Its label.
    pub label: String,
    /// Its kernel.
    pub kernel: String,
    /// Its layer.
    pub layer: Option<u32>,
    /// Position of the step's first token.
    pub position: usize,
    /// Which result.
    pub result: String,
    /// Noise, not a number if the results aren't.
    pub nmse: f64,
    /// Most noise allowed.
    pub bound: f64,
}

/// The results of each launch of all steps, in the order of execution.
type Trace = Vec<Vec<(Role, Vec<f32>)>>;

/// Runs the steps on both, the last one up to launch `last` of its program; `None` if the plan has no such program.
///
/// # Errors
/// The devices'.
pub fn until(
    device: &mut dyn Backend,
    cpu: &mut dyn Backend,
    asked: &Steps,
    last: usize,
    tell: &mut dyn FnMut(&str),
) -> Result<Option<Until>, DeviceError> {
    let start = Instant::now();
    let plan = device.plan().clone();
    let Some(run) = Run::new(&plan, asked) else { return Ok(None) };
    let program = &plan.programs[run.number];
    let before: usize = plan.programs[..run.number].iter().map(|p| p.launches.len()).sum();
    tell("launch by launch on cpu");
    run.prepare(cpu, &plan)?;
    let reference = trace(&run, cpu, last, None)?;
    // By place: how far cpu's own results are from these when they are moved.
    let (mut bounds, mut roundings) = (vec![FLOOR; reference.len()], 1.0);
    for i in (0..MOVED).filter(|i| *i == 0 || start.elapsed() < asked.limit) {
        tell("and with moved results");
        let moved = trace(&run, cpu, last, Some((roundings, Random::fork(asked.seed, 0x3071 + i))))?;
        let mut farthest = 0f64;
        for ((bound, moved), reference) in bounds.iter_mut().zip(&moved).zip(&reference) {
            farthest = moved.iter().zip(reference).map(|(m, r)| difference(m, r)).fold(farthest, f64::max);
            *bound = bound.max(FLOOR + 3.0 * farthest);
        }
        if farthest < FLOOR {
            roundings *= FARTHER;
        }
    }
    tell("launch by launch on the device");
    run.prepare(device, &plan)?;
    device.watch(asked.watched);
    let found = trace(&run, device, last, None);
    device.watch(false);
    let found = found?;
    let mut all = Until {
        program: kind(asked.kind),
        until: before + last,
        tokens: run.tokens.len() as u32,
        results: 0,
        share: 0.0,
        first: None,
    };
    for (place, ((found, reference), &bound)) in found.iter().zip(&reference).zip(&bounds).enumerate() {
        for (result, expected) in found.iter().zip(reference) {
            let nmse = difference(result, expected);
            all.results += 1;
            all.share = all.share.max(nmse / bound);
            if nmse.is_nan() || nmse > bound {
                let (step, index) = (place / program.launches.len(), place % program.launches.len());
                let launch = &program.launches[index];
                all.first = Some(Left {
                    launch: before + index,
                    label: launch.label.clone(),
                    kernel: plan.kernels[launch.kernel].name.clone(),
                    layer: launch.layer,
                    position: step * run.at_once,
                    result: format!("{:?}", result.0),
                    nmse,
                    bound,
                });
                return Ok(Some(all));
            }
        }
    }
    Ok(Some(all))
}

fn difference((_, x): &(Role, Vec<f32>), (_, reference): &(Role, Vec<f32>)) -> f64 {
    noise(x.iter().map(|&v| v.into()), reference.iter().map(|&v| v.into()))
}

/// Runs all steps, the last one up to launch `last`; behind each launch what it wrote is moved, if it is to be.
fn trace(run: &Run, backend: &mut dyn Backend, last: usize, mut moved: Option<(f32, Random)>) -> Result<Trace, DeviceError> {
    let mut trace = Trace::new();
    for at in (0..run.tokens.len()).step_by(run.at_once) {
        let ends = at + run.at_once == run.tokens.len();
        run.step(backend, at, &mut |backend, launches| {
            for i in launches.take_while(|i| !ends || *i <= last) {
                match &mut moved {
                    Some((roundings, random)) => run_moved(backend, run.number, i..i + 1, *roundings, random)?,
                    None => backend.run(run.number, i..i + 1)?,
                }
                trace.push(results(run, backend, i, at)?);
            }
            Ok(())
        })?;
    }
    Ok(trace)
}

/// What a launch left, as numbers: of its step's tokens and positions.
fn results(run: &Run, backend: &mut dyn Backend, index: usize, at: usize) -> Result<Vec<(Role, Vec<f32>)>, DeviceError> {
    let launch = backend.plan().programs[run.number].launches[index].clone();
    let spec = backend.plan().kernels[launch.kernel].clone();
    let mut all = Vec::new();
    for (param, &buffer) in spec.op.params().iter().zip(&launch.args) {
        let compared = matches!(param.shape, Shape::F32(_) | Shape::Q8(_) | Shape::Ssq | Shape::Cache(_));
        if param.access != Access::Read && compared {
            let bytes = Bytes::read(backend, buffer)?;
            all.push((param.role, values(param, &bytes, spec.parts_out(), at, run.at_once)));
        }
    }
    Ok(all)
}

fn values(param: &Param, bytes: &[u8], parts: u32, at: usize, n: usize) -> Vec<f32> {
    let floats = |bytes: &[u8]| bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let tokens = |each: u32, from: usize| floats(bytes.get(4 * from * each as usize..4 * n * each as usize).unwrap_or_default());
    match param.shape {
        // Nobody asks for the logits of others.
        Shape::F32(each) => tokens(each, if param.role == Role::Logits { n - 1 } else { 0 }),
        Shape::Ssq => tokens(parts, 0),
        Shape::Q8(each) => {
            let layout = Q8Layout { n: each, block: Q8Layout::DEFAULT_BLOCK };
            let token = |t| Q8Token::new(layout, bytes, t);
            let value = |t: Q8Token<'_>| t.q.iter().enumerate().map(|(i, &q)| t.scale[i / t.block] * f32::from(q)).collect();
            (0..n).filter_map(token).flat_map::<Vec<f32>, _>(value).collect()
        }
        Shape::Cache(cache) => {
            let row = cache.head_dim as usize * cache.kv.bytes() as usize;
            let heads = bytes.chunks_exact(cache.ctx as usize * row);
            let written = heads.filter_map(|head| head.get(at * row..(at + n) * row));
            match cache.kv {
                KvType::F32 => written.flat_map::<Vec<f32>, _>(floats).collect(),
                KvType::F16 => written.flat_map(|b| b.as_chunks::<2>().0).map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            }
        }
        _ => Vec::new(),
    }
}
