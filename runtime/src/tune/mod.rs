//! Measuring launches in other geometries on a real device (`hipfire-run tune`).
//!
//! A bundle made with `hipc compile --alternatives` has trials beside its plan: the launches of the decode program, each in the geometry of
//! the plan and in others. Here they are executed on inputs at random. All geometries of a launch must compute the same
//! ([`agree`]); then each is timed alone, as a graph of many launches whose weights (for attention: caches) are read from other places
//! each time, so that no cache has them ([`operands`]). The best few are measured again, in turn with the plan's own, and the best of
//! those goes into the tuning file.

mod agree;
mod operands;

use crate::device::{DeviceError, Driver, KernelLaunch};
use hipc_ir::fused::FusedOp;
use hipc_ir::plan::{Geometry, KernelSpec};
use hipc_ir::tuning::{Entry, Times, Trial};
use operands::Operands;
use serde::Serialize;

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TuneError {
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A geometry computes something else than the plan's (ours to fix).
    #[error(
        "`{label}` computes something else with another geometry: {why}\n{geometry}\nplease report it with the bundle's provenance \
         (hipc inspect)"
    )]
    Disagrees {
        /// The launch.
        label: String,
        /// The operand and how far it is off.
        why: String,
        /// The geometry.
        geometry: String,
    },
}

/// How to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of weights (or caches) that a launch's operands rotate through: well beyond any cache.
    pub span: u64,
    /// Fewest launches that are timed together.
    pub launches: u32,
    /// Times that they are; the median counts.
    pub repeat: u32,
}

/// A gain below this is noise: the plan's geometry stays.
const WORTH: f64 = 0.98;
/// Geometries that are measured again, besides the plan's.
const FINALISTS: usize = 4;
/// Rounds of the second measurement.
const ROUNDS: usize = 3;
/// Most launches of one graph.
const MOST_LAUNCHES: u32 = 256;

/// A launch as it was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Label.
    pub label: String,
    /// What it computes.
    pub summary: String,
    /// Launches of a step.
    pub launches: u32,
    /// Bytes that must come from memory: weights; caches up to the last position below.
    pub bytes: u64,
    /// Positions at which it was measured; where there are several, times are geometric means.
    pub positions: Vec<u32>,
    /// All geometries; the plan's first.
    pub candidates: Vec<Timed>,
    /// The best of them.
    pub best: usize,
}

/// A geometry's times, in nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Timed {
    /// The geometry.
    pub geometry: Geometry,
    /// As the cost model predicts it.
    pub predicted_ns: u64,
    /// As it was measured; of the best and of the plan's the second time.
    pub ns: f64,
    /// By position.
    pub by_position: Vec<f64>,
}

impl Measured {
    /// The plan's geometry.
    pub fn before(&self) -> &Timed {
        &self.candidates[0]
    }

    /// The best geometry.
    pub fn now(&self) -> &Timed {
        &self.candidates[self.best]
    }

    /// Nanoseconds of a step that the best geometry saves.
    pub fn saved_ns(&self) -> f64 {
        f64::from(self.launches) * (self.before().ns - self.now().ns)
    }

    /// The line of the tuning file.
    pub fn entry(&self, target: &str, op: &FusedOp) -> Entry {
        let (now, before) = (self.now(), self.before());
        let times = Times { ns: now.ns.round() as u64, before_ns: before.ns.round() as u64, predicted_ns: now.predicted_ns };
        let geometry = Geometry { parts_in: 0, ..now.geometry };
        Entry { target: target.to_owned(), label: self.label.clone(), times, geometry, op: op.clone() }
    }
}

/// A geometry in a few letters: waves, of which so many split K, rows at a time, steps, tile; attention: waves, splits.
pub fn brief(op: &FusedOp, g: &Geometry) -> String {
    match op {
        FusedOp::Gemv(_) => format!("w{} k{} r{} s{} t{}", g.waves, g.k_waves, g.rows_per_wave, g.row_steps, g.tile),
        FusedOp::Attend(_) => format!("w{} splits {}", g.waves, g.splits),
        _ => format!("w{} t{}", g.waves, g.tile),
    }
}

/// Measures one trial on a fresh driver. `tick` is called with each geometry done.
///
/// # Errors
/// [`TuneError`].
pub fn measure(
    driver: &mut dyn Driver,
    trial: &Trial,
    code: &[u8],
    ctx: u32,
    options: &Options,
    tick: &mut dyn FnMut(),
) -> Result<Measured, TuneError> {
    let specs: Vec<KernelSpec> = trial.kernels().collect();
    let names: Vec<&str> = specs.iter().map(|s| s.name.as_str()).collect();
    let kernels = driver.load(code, &names)?;
    if kernels.len() != specs.len() || specs.is_empty() {
        return Err(DeviceError::Internal(format!("{} of {} kernels resolved", kernels.len(), specs.len())).into());
    }
    let mut operands = Operands::new(driver, &specs, ctx, options.span)?;
    let positions = operands::positions(&trial.op, ctx);
    for &pos in &positions {
        operands.set_position(driver, pos)?;
        let expected = operands.results(driver, &specs[0], kernels[0])?;
        for (spec, &kernel) in specs.iter().zip(&kernels) {
            let found = operands.results(driver, spec, kernel)?;
            let agreed = agree::agree(spec, &expected, &found);
            let fail = |why| TuneError::Disagrees { label: trial.label.clone(), why, geometry: format!("{:?}", spec.geometry) };
            agreed.map_err(fail)?;
        }
    }
    let mut bench = Bench { driver, operands, specs, kernels, positions, options: *options };
    let mut candidates = Vec::with_capacity(bench.specs.len());
    for (i, candidate) in trial.candidates.iter().enumerate() {
        let by_position = bench.times(i)?;
        let (geometry, predicted_ns) = (candidate.geometry, candidate.predicted_ns);
        candidates.push(Timed { geometry, predicted_ns, ns: mean(&by_position), by_position });
        tick();
    }
    let mut order: Vec<usize> = (1..candidates.len()).collect();
    order.sort_by(|&a, &b| candidates[a].ns.total_cmp(&candidates[b].ns));
    order.truncate(FINALISTS);
    order.insert(0, 0);
    let mut rounds: Vec<Vec<Vec<f64>>> = vec![Vec::new(); order.len()];
    for _ in 0..ROUNDS {
        for (&i, times) in order.iter().zip(&mut rounds) {
            times.push(bench.times(i)?);
        }
    }
    for (&i, times) in order.iter().zip(&rounds) {
        let at = |p: usize| median(times.iter().map(|round| round[p]).collect());
        candidates[i].by_position = (0..bench.positions.len()).map(at).collect();
        candidates[i].ns = mean(&candidates[i].by_position);
    }
    let fastest = order.iter().copied().min_by(|&a, &b| candidates[a].ns.total_cmp(&candidates[b].ns)).unwrap_or(0);
    let best = if candidates[fastest].ns < WORTH * candidates[0].ns { fastest } else { 0 };
    let bytes = bench.operands.touched(bench.positions.last().copied().unwrap_or(0));
    let Trial { label, summary, launches, .. } = trial.clone();
    Ok(Measured { label, summary, launches, bytes, positions: bench.positions, candidates, best })
}

/// Kernels with their operands on a device.
struct Bench<'d> {
    driver: &'d mut dyn Driver,
    operands: Operands,
    specs: Vec<KernelSpec>,
    kernels: Vec<u64>,
    positions: Vec<u32>,
    options: Options,
}

impl Bench<'_> {
    /// Nanoseconds of a launch, by position.
    fn times(&mut self, candidate: usize) -> Result<Vec<f64>, DeviceError> {
        (0..self.positions.len()).map(|i| self.time(candidate, self.positions[i])).collect()
    }

    /// All is enqueued before anything is waited for, so that the device never waits for us.
    fn time(&mut self, candidate: usize, pos: u32) -> Result<f64, DeviceError> {
        self.operands.set_position(self.driver, pos)?;
        let (spec, kernel) = (&self.specs[candidate], self.kernels[candidate]);
        let n = self.operands.places(pos).clamp(self.options.launches, MOST_LAUNCHES.max(self.options.launches));
        let kernargs: Vec<Vec<u8>> = (0..n).map(|i| self.operands.kernargs(i, pos)).collect();
        let (grid, threads) = (spec.grid(1), spec.threads());
        let launches: Vec<KernelLaunch<'_>> =
            kernargs.iter().map(|kernargs| KernelLaunch { kernel, grid, threads, kernargs, operands: &[] }).collect();
        let graph = self.driver.capture(&launches)?;
        let driver = &mut *self.driver;
        let run = |driver: &mut dyn Driver| match &graph {
            Some(graph) => driver.replay(graph),
            None => launches.iter().try_for_each(|launch| driver.launch(*launch)),
        };
        run(driver)?;
        let mut marks = vec![driver.mark()?];
        for _ in 0..self.options.repeat.max(1) {
            run(driver)?;
            marks.push(driver.mark()?);
        }
        let seconds: Result<Vec<f64>, DeviceError> = marks.windows(2).map(|m| driver.elapsed(&m[0], &m[1])).collect();
        Ok(1e9 * median(seconds?) / f64::from(n))
    }
}

/// Middle value; of an even number the lower.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

/// Geometric mean.
fn mean(values: &[f64]) -> f64 {
    let logs: f64 = values.iter().map(|v| v.max(1e-3).ln()).sum();
    (logs / values.len().max(1) as f64).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn middles() {
        assert_eq!(median(vec![5.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.0);
        assert!((mean(&[2.0, 8.0]) - 4.0).abs() < 1e-12);
    }
}
