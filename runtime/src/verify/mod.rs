//! Whether a device computes what a plan means: launch by launch on inputs at random, then a whole step.
//!
//! Every launch gets valid inputs of its own (see [`inputs`]), at the edges of what it can be asked for (see [`cases`]), is run by
//! itself, and all that it wrote is compared with the reference on the same inputs, by the bounds of [`hipc_reference::launch::check`].
//! What it must not write has to be as it was; a second run has to leave the same bits. Last, whole steps are compared with the
//! device `cpu` and with the unfused graph, see [`chain`]; where they differ, [`until`] finds the first launch that does.

pub mod bytes;
pub mod cases;
pub mod chain;
pub mod inputs;
mod launch;
pub mod report;
mod splits;
mod subset;
pub mod until;

pub use cases::Case;
pub use report::{ChainRow, Failure, Report, Row, Stopped, Unfused};

use crate::device::{Backend, DeviceError, WeightSource};
use hipc_ir::fused::{FusedOp, ProgramKind};
use hipc_ir::plan::{KernelSpec, Plan};
use inputs::Random;
use launch::Bench;
use std::time::{Duration, Instant};

/// Products of a launch (rows · inputs · tokens) beyond which some rows stand for all.
const PRODUCTS: u64 = 1 << 25;

/// What is verified.
#[derive(Clone, Debug)]
pub struct Options {
    /// Of all that is random.
    pub seed: u64,
    /// Only launches of layers below this, and those of no layer.
    pub layers: Option<u32>,
    /// Only launches of this layer.
    pub layer: Option<u32>,
    /// Only this launch, counted over all programs.
    pub launch: Option<usize>,
    /// Only cases at this position.
    pub position: Option<u32>,
    /// Every launch, not only the first of each kernel and the last layer's.
    pub all: bool,
    /// Rows of a large mat-vec that are compared; `None` chooses: all of small ones, 256 of others. 0 is all.
    pub rows: Option<u32>,
    /// Time for the launches; cases that don't fit are left out, and counted.
    pub limit: Duration,
    /// Go on behind a launch that is wrong.
    pub keep_going: bool,
    /// Cases of each launch, from the first, that run under the device's watch, if it has one.
    pub watched: usize,
}

/// Cases of a launch that are watched unless told otherwise: two different places, so that watching takes not much longer.
pub const WATCHED: usize = 2;

impl Default for Options {
    fn default() -> Self {
        let limit = Duration::from_secs(600);
        let keep_going = false;
        Self {
            seed: 1,
            layers: None,
            layer: None,
            launch: None,
            position: None,
            all: false,
            rows: None,
            limit,
            keep_going,
            watched: WATCHED,
        }
    }
}

/// A launch of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number over all programs: those of the first one, then those of the next.
    pub number: usize,
    /// Program.
    pub program: usize,
    /// Number in it.
    pub index: usize,
}

/// The launches that these options ask for.
pub fn selected(plan: &Plan, options: &Options) -> Vec<Place> {
    let (mut places, mut number) = (Vec::new(), 0);
    let last = options.layer.or(plan.model.layers.min(options.layers.unwrap_or(u32::MAX)).checked_sub(1));
    for (program, p) in plan.programs.iter().enumerate() {
        let mut seen = Vec::new();
        for (index, launch) in p.launches.iter().enumerate() {
            let place = Place { number, program, index };
            number += 1;
            let within = options.layers.is_none_or(|layers| launch.layer.is_none_or(|layer| layer < layers))
                && options.layer.is_none_or(|layer| launch.layer == Some(layer));
            let fresh = !seen.contains(&launch.kernel) || (launch.layer.is_some() && launch.layer == last);
            let wanted = match options.launch {
                Some(number) => place.number == number,
                None => within && (fresh || options.all),
            };
            if wanted {
                seen.push(launch.kernel);
                places.push(place);
            }
        }
    }
    places
}

/// Verifies launch by launch; `tell` hears what comes next, how many launches are done, and of how many.
///
/// # Errors
/// The device's. What is wrong with results stands in the rows.
pub fn launches(
    backend: &mut dyn Backend,
    weights: &dyn WeightSource,
    options: &Options,
    tell: &mut dyn FnMut(&str, usize, usize),
) -> Result<Vec<Row>, DeviceError> {
    let plan = backend.plan().clone();
    let places = selected(&plan, options);
    let end = Instant::now() + options.limit;
    let mut rows = Vec::with_capacity(places.len());
    for (done, &place) in places.iter().enumerate() {
        let program = &plan.programs[place.program];
        tell(&format!("{} {}", kind(program.kind), program.launches[place.index].label), done, places.len());
        let left = end.saturating_duration_since(Instant::now());
        // The time is dealt evenly to the launches that are left; who needs less leaves it to the others.
        let until = Instant::now() + left / (places.len() - done) as u32;
        let row = one(backend, &plan, weights, place, options, until)?;
        let failed = row.failure.is_some();
        rows.push(row);
        if failed && !options.keep_going {
            break;
        }
    }
    Ok(rows)
}

fn one(
    backend: &mut dyn Backend,
    plan: &Plan,
    weights: &dyn WeightSource,
    place: Place,
    options: &Options,
    until: Instant,
) -> Result<Row, DeviceError> {
    let program = &plan.programs[place.program];
    let spec = &plan.kernels[program.launches[place.index].kernel];
    let mut cases = Case::all(spec, program.tokens, plan.ctx);
    if let Some(position) = options.position {
        let known: Vec<Case> = cases.iter().copied().filter(|c| c.position == position).collect();
        let fits = position < plan.ctx;
        let alone = Case { position, tokens: 1, head_from: 0, magnitude: 1.0, sampled: false };
        cases = if known.is_empty() && fits { vec![alone] } else { known };
    }
    let most = cases.iter().map(|c| c.tokens).max().unwrap_or(0);
    let wanted = match options.rows {
        Some(0) => None,
        None if products(spec, most) <= PRODUCTS => None,
        other => Some(other.unwrap_or(256)),
    };
    // The rows are those of the launch, whichever case is asked for.
    let seed = Random::fork(options.seed, place.number as u64).bits();
    let subset = wanted.and_then(|rows| subset::Subset::of(spec, rows, seed));
    let mut row = Row::new(plan, place, cases.len());
    row.rows = subset.as_ref().map(|s| (s.len(), s.of));
    let mut bench = Bench::new(plan, place, weights, subset, seed)?;
    for case in cases {
        if row.cases > 0 && Instant::now() >= until {
            break;
        }
        let watched = row.cases < options.watched;
        let wrong = match bench.run(backend, case, watched, &mut row) {
            // A device that checks found something: that is a result, too.
            Err(DeviceError::Fault { what, .. }) => Some(what),
            other => other?,
        };
        row.cases += 1;
        row.watched += usize::from(watched);
        if let Some(what) = wrong {
            row.failure = Some(Failure { case, what });
            return Ok(row);
        }
    }
    if let Some(what) = bench.finish(backend)? {
        let case = Case { position: 0, tokens: 1, head_from: 0, magnitude: 1.0, sampled: false };
        row.failure = Some(Failure { case, what });
    }
    Ok(row)
}

fn products(spec: &KernelSpec, tokens: u32) -> u64 {
    match &spec.op {
        FusedOp::Gemv(g) => g.segments.iter().map(|s| u64::from(s.rows)).sum::<u64>() * u64::from(g.k) * u64::from(tokens),
        _ => 0,
    }
}

/// `decode` or `prompt`.
pub(crate) fn kind(kind: ProgramKind) -> &'static str {
    match kind {
        ProgramKind::Decode => "decode",
        ProgramKind::Prompt => "prompt",
    }
}
