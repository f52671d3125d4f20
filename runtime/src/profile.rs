//! Where the time of a decode step goes: every distinct kernel by itself, against what the plan predicts and what the memory
//! could do.
//!
//! All launches of a kernel are recorded one after the other, over all layers, so that each reads other weights than the one
//! before it and a cache holds none of them; the device's clock times several passes. The values that come out mean nothing:
//! a launch takes as long with any.

use crate::bench::{Bandwidth, LAUNCH_PREDICTED_AT, Spread, launch_bytes};
use crate::device::{Backend, DeviceError};
use hipc_ir::fused::{FusedOp, ProgramKind};
use hipc_ir::plan::{KernelSpec, Plan, StepState};
use serde::Serialize;

/// Seconds that one timed pass should last at least, so that what surrounds it doesn't count.
const PASS_SECONDS: f64 = 2e-3;
/// Most launches in one recording.
const MOST_LAUNCHES: usize = 4096;

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Positions in the cache before the step.
    pub depth: u32,
    /// Times that everything is measured.
    pub repeat: u32,
    /// Bytes of the bandwidth test.
    pub span: u64,
}

/// A kernel of the decode program.
#[derive(Clone, Debug, Serialize)]
pub struct KernelProfile {
    /// Symbol.
    pub kernel: String,
    /// Label of its launches.
    pub label: String,
    /// Types and shapes.
    pub shape: String,
    /// How its work is spread.
    pub geometry: String,
    /// Launches per token.
    pub launches: usize,
    /// µs of one launch, from its begin to that of the next.
    pub us: Spread,
    /// Bytes that one launch reads and writes (the mean of its launches).
    pub bytes: u64,
    /// GB/s.
    pub gb_per_s: f64,
    /// Part of the bandwidth measured in this run.
    pub share_of_bandwidth: f64,
    /// µs that the plan predicts for the target's reference card, with 512 positions in the cache.
    pub predicted_us: f64,
    /// Prediction over measurement, less 1, in percent.
    pub error_percent: f64,
    /// Part of the measured step.
    pub share_of_step: f64,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Device.
    pub device: String,
    /// `gfx1100`.
    pub arch: String,
    /// Positions in the cache before the step.
    pub depth: u32,
    /// Positions that predictions are for.
    pub predicted_at: u32,
    /// Reads and nothing else.
    pub bandwidth: Bandwidth,
    /// Whether launches were timed as graphs; else each was enqueued by itself.
    pub graph: bool,
    /// Launches of the step.
    pub launches: usize,
    /// µs of a whole step, without the choice of a token on the host.
    pub step_us: Spread,
    /// Sum over the kernels: launches × µs.
    pub sum_us: f64,
    /// Sum over the measured step.
    pub sum_over_step: f64,
    /// Predicted µs of the step.
    pub predicted_us: f64,
    /// Kernels in the order of the step.
    pub kernels: Vec<KernelProfile>,
}

/// Measures; `tell` hears what is measured next.
///
/// # Errors
/// [`DeviceError`]; the depth must lie within the context.
pub fn profile(backend: &mut dyn Backend, options: &Options, tell: &mut dyn FnMut(&str)) -> Result<Report, DeviceError> {
    let plan = backend.plan().clone();
    let index = plan.programs.iter().position(|p| p.kind == ProgramKind::Decode);
    let index = index.ok_or_else(|| DeviceError::Internal("the plan has no decode program".into()))?;
    if options.depth >= plan.ctx {
        return Err(DeviceError::Internal(format!("depth {} of a context of {}", options.depth, plan.ctx)));
    }
    let launches = &plan.programs[index].launches;
    let mut timer = Timer { backend, plan: &plan, program: index, depth: options.depth, repeat: options.repeat };
    tell("bandwidth");
    let bandwidth = Bandwidth::new(&timer.backend.read_memory(options.span, options.repeat.max(3))?);

    tell("the whole step");
    let all: Vec<usize> = (0..launches.len()).collect();
    let (step_us, graph) = timer.time(&all)?;
    let mut kernels = Vec::new();
    let mut order: Vec<_> = launches.iter().map(|l| l.kernel).collect();
    let mut seen = std::collections::HashSet::new();
    order.retain(|k| seen.insert(*k));
    for kernel in order {
        let own: Vec<usize> = all.iter().copied().filter(|&i| launches[i].kernel == kernel).collect();
        let spec = &plan.kernels[kernel];
        tell(&spec.name);
        let (pass, _) = timer.time(&own)?;
        let n = own.len() as f64;
        let us = Spread { median: pass.median / n, min: pass.min / n, max: pass.max / n, count: pass.count };
        let sum = |f: &dyn Fn(usize) -> u64| own.iter().map(|&i| f(i)).sum::<u64>();
        let bytes = sum(&|i| launch_bytes(&plan, &launches[i], options.depth + 1)) / own.len() as u64;
        let predicted_us = sum(&|i| launches[i].cost.ns) as f64 / n / 1e3;
        let gb_per_s = bytes as f64 / us.median / 1e3;
        kernels.push(KernelProfile {
            kernel: spec.name.clone(),
            label: launches[own[0]].label.clone(),
            shape: shape(spec),
            geometry: geometry(spec, launches[own[0]].grid),
            launches: own.len(),
            us,
            bytes,
            gb_per_s,
            share_of_bandwidth: gb_per_s / bandwidth.gb_per_s.median,
            predicted_us,
            error_percent: 100.0 * (predicted_us / us.median - 1.0),
            share_of_step: pass.median / step_us.median,
        });
    }
    let sum_us = kernels.iter().map(|k| k.launches as f64 * k.us.median).sum::<f64>();
    Ok(Report {
        device: timer.backend.describe(),
        arch: plan.target.clone(),
        depth: options.depth,
        predicted_at: LAUNCH_PREDICTED_AT.min(plan.ctx),
        bandwidth,
        graph,
        launches: launches.len(),
        step_us,
        sum_us,
        sum_over_step: sum_us / step_us.median,
        predicted_us: launches.iter().map(|l| l.cost.ns as f64 / 1e3).sum(),
        kernels,
    })
}

struct Timer<'a> {
    backend: &'a mut dyn Backend,
    plan: &'a Plan,
    program: usize,
    depth: u32,
    repeat: u32,
}

impl Timer<'_> {
    /// µs of one pass over these launches, and whether it was a graph.
    fn time(&mut self, launches: &[usize]) -> Result<(Spread, bool), DeviceError> {
        let first = self.seconds(launches, 1, 1)?.0[0].max(1e-9);
        // Whoever chooses a token moves the state on by a position, which must stay within the context.
        let all = &self.plan.programs[self.program].launches;
        let chooses = launches.iter().any(|&i| matches!(self.plan.kernels[all[i].kernel].op, FusedOp::Choose(_)));
        let room = if chooses { (self.plan.ctx - self.depth) as usize } else { usize::MAX };
        let most = (MOST_LAUNCHES / launches.len().max(1)).clamp(1, room);
        let passes = ((PASS_SECONDS / first).ceil() as usize).clamp(1, most) as u32;
        let (all, graph) = self.seconds(launches, passes, self.repeat)?;
        Ok((Spread::of(all.iter().map(|s| 1e6 * s)), graph))
    }

    /// Seconds of a pass, by so many passes in a row, measured so often.
    fn seconds(&mut self, launches: &[usize], passes: u32, times: u32) -> Result<(Vec<f64>, bool), DeviceError> {
        let recording = self.backend.record_launches(self.program, launches, passes)?;
        let state = StepState { pos: self.depth as i32, n: 1, head_from: 0, generation: 0 }.to_bytes();
        let mut all = Vec::with_capacity(times as usize);
        // Once more beforehand: the first time brings the graph to the device.
        for i in 0..=times {
            self.backend.write(self.plan.state, 0, &state)?;
            let begin = self.backend.mark()?;
            self.backend.replay(&recording)?;
            let end = self.backend.mark()?;
            let seconds = self.backend.elapsed(&begin, &end)?;
            if i > 0 {
                all.push(seconds / f64::from(passes));
            }
        }
        Ok((all, recording.is_graph()))
    }
}

/// Types and shapes of what a kernel reads: `Q4_K [4096 x 4096] + Q6_K [1024 x 4096]`.
fn shape(spec: &KernelSpec) -> String {
    match &spec.op {
        FusedOp::Gemv(g) => {
            let parts: Vec<String> = g.segments.iter().map(|s| format!("{} [{} x {}]", s.dtype, s.rows, g.k)).collect();
            parts.join(" + ")
        }
        FusedOp::Embed(e) => format!("{} [{} x {}]", e.dtype, e.vocab, e.n),
        FusedOp::Attend(a) => format!("{:?} {} heads / {} x {}", a.cache.kv, a.heads, a.cache.heads, a.cache.head_dim),
        FusedOp::Heads(h) => {
            let parts: Vec<String> = h.parts.iter().map(|p| format!("{} x {}", p.heads, p.head_dim)).collect();
            parts.join(" + ")
        }
        FusedOp::Row(r) => format!("{}", r.n),
        FusedOp::Choose(c) => format!("{}", c.n),
        FusedOp::Repack(r) => format!("{} [{} x {}]", r.dtype, r.rows, r.cols),
    }
}

/// How a kernel's work is spread: what differs from 1, and the workgroups.
fn geometry(spec: &KernelSpec, grid: [u32; 3]) -> String {
    let g = &spec.geometry;
    let named = [
        ("k", g.k_waves),
        ("rows ", g.rows_per_wave),
        ("steps ", g.row_steps),
        ("tile ", g.tile),
        ("tokens ", g.tokens),
        ("splits ", g.splits),
    ];
    let parts = named.iter().filter(|(_, n)| *n > 1).map(|(name, n)| format!(", {name}{n}"));
    format!("{} x {} x {}{}", grid[0] * grid[1] * grid[2], g.waves, g.wave, parts.collect::<String>())
}
