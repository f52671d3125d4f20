//! What extraction pays, in picoseconds on the target's reference card.
//!
//! The price of a launch is that of [`crate::cost`] with the geometry that [`crate::select`] would give it (a GEMV's without what that geometry
//! loses, see [`predict`]): launch overhead, then the largest of memory, arithmetic and latency. Only here it is split: a launch offers all its
//! results, but what nobody reads isn't written in the end, so each result that a launch can leave out is priced apart, at what the
//! launch would save without it.
//!
//! Whole picoseconds: sums don't depend on their order, and a tie is a tie on every machine.

use super::language::results;
use super::rules::{finish_of, without_results};
use crate::layout;
use crate::select::{SelectError, predict};
use crate::target::{Platform, Target};
use crate::tuning::Tuning;
use hipc_ir::fused::{FusedOp, Role};
use std::cell::RefCell;
use std::collections::HashMap;

/// What one launch more costs beside its own time, in parts of the launch overhead: the launch before it drains and the one behind it fills the
/// card again. On an H200, where the overhead is 1.3 µs, each small launch removed saved 2.5 to 4.3 µs. It also keeps differences
/// that the model can't know (a thousandth of a long launch) from being worth a launch.
const DRAIN: f64 = 1.0;

/// Prices of launches on one target, for programs of some number of tokens.
#[derive(Debug)]
pub struct CostModel<'a> {
    target: &'a Target,
    tokens: u32,
    tuning: &'a Tuning,
    known: RefCell<HashMap<FusedOp, Result<u64, SelectError>>>,
}

/// Price of a launch, in picoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// Without the results below.
    pub launch: u64,
    /// What each result adds if it is read, in the order of [`results`]; 0 where it is always written.
    pub results: Vec<(Role, u64)>,
}

impl<'a> CostModel<'a> {
    /// Prices of steps of `tokens` tokens, with the geometries that were measured.
    pub fn new(target: &'a Target, tokens: u32, tuning: &'a Tuning) -> Self {
        // The host runs plans to test the kernels that GPUs run, so it is priced as one: the first with its wave size.
        let same_wave = |t: &&Target| t.simd.wave_size == target.simd.wave_size;
        let gpu = if target.platform == Platform::Host { Target::all_amd().find(same_wave) } else { None };
        Self { target: gpu.unwrap_or(target), tokens, tuning, known: RefCell::default() }
    }

    /// Picoseconds of a launch by itself, with all its results.
    ///
    /// # Errors
    /// No skeleton does this op on the target.
    pub fn whole(&self, op: &FusedOp) -> Result<u64, SelectError> {
        if let Some(known) = self.known.borrow().get(op) {
            return known.clone();
        }
        // With the layouts that the weights will have.
        let laid_out = op.clone().with_layouts(|dtype, cols| layout::choose(dtype, cols, self.target));
        let price = predict(&laid_out, self.tokens, self.target, self.tuning).map(|cost| 1000 * cost.ns);
        self.known.borrow_mut().insert(op.clone(), price.clone());
        price
    }

    /// Price of a launch, split.
    ///
    /// # Errors
    /// As [`CostModel::whole`].
    pub fn price(&self, op: &FusedOp) -> Result<Price, SelectError> {
        let whole = self.whole(op)?;
        let mut split = Vec::new();
        for p in results(op) {
            let ps = match finish_of(op) {
                Some(_) => whole.saturating_sub(self.whole(&without_results(op, |role| role == p.role))?),
                None => 0,
            };
            split.push((p.role, ps));
        }
        let apart: u64 = split.iter().map(|(_, ps)| ps).sum();
        let drain = (1e3 * DRAIN * self.target.launch_ns) as u64;
        Ok(Price { launch: whole.saturating_sub(apart) + drain, results: split })
    }
}
