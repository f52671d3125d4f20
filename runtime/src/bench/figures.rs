//! Medians, bandwidths, bytes.

use crate::device::ReadTimes;
use hipc_ir::fused::{FusedOp, ProgramKind};
use hipc_ir::plan::{Cost, Launch, Plan};
use serde::Serialize;

/// A figure measured several times.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one (of an even number, the mean of the two).
    pub median: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
    /// How often it was measured.
    pub count: usize,
}

impl Spread {
    /// Of figures in any order; zeros if there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut all: Vec<f64> = values.into_iter().collect();
        all.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (all.first(), all.last()) else {
            return Self { median: 0.0, min: 0.0, max: 0.0, count: 0 };
        };
        let middle = all.len() / 2;
        let median = if all.len() % 2 == 1 { all[middle] } else { (all[middle - 1] + all[middle]) / 2.0 };
        Self { median, min, max, count: all.len() }
    }

    /// From the smallest to the largest, in percent of the median.
    pub fn percent(&self) -> f64 {
        100.0 * (self.max - self.min) / self.median
    }
}

/// Reads of memory and nothing else.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Bandwidth {
    /// Working set.
    pub bytes: u64,
    /// GB/s.
    pub gb_per_s: Spread,
}

impl Bandwidth {
    /// From what the device measured.
    pub fn new(times: &ReadTimes) -> Self {
        let rates = times.seconds.iter().map(|s| times.bytes as f64 / s.max(1e-9) / 1e9);
        Self { bytes: times.bytes, gb_per_s: Spread::of(rates) }
    }
}

/// Positions at which the plan predicts attention.
pub const LAUNCH_PREDICTED_AT: u32 = Cost::POSITIONS;

/// Bytes that a launch of the decode program reads and writes with `positions` positions in the cache, the new one included: the
/// plan's figure, with attention's part set right.
pub fn launch_bytes(plan: &Plan, launch: &Launch, positions: u32) -> u64 {
    let planned = launch.cost.read + launch.cost.written;
    match plan.kernels.get(launch.kernel).map(|k| &k.op) {
        Some(FusedOp::Attend(a)) => {
            let row = 2 * u64::from(a.cache.heads) * u64::from(a.cache.head_dim) * u64::from(a.cache.kv.bytes());
            let at = |positions: u32| row * u64::from(a.cache.ctx.min(positions));
            (planned + at(positions)).saturating_sub(at(Cost::POSITIONS))
        }
        _ => planned,
    }
}

/// Bytes of a whole decode step.
pub fn step_bytes(plan: &Plan, positions: u32) -> u64 {
    let program = plan.program(ProgramKind::Decode);
    program.map_or(0, |p| p.launches.iter().map(|l| launch_bytes(plan, l, positions)).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0, count: 3 });
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(Spread::of([]).count, 0);
        assert_eq!(Spread::of([90.0, 110.0, 100.0]).percent(), 20.0);
    }

    #[test]
    fn bandwidth_is_bytes_by_time() {
        let times = ReadTimes { bytes: 2_000_000_000, seconds: vec![1.0, 0.5, 2.0], seen: 0 };
        let gb = Bandwidth::new(&times).gb_per_s;
        assert_eq!((gb.median, gb.min, gb.max), (2.0, 1.0, 4.0));
    }
}
