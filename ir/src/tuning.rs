//! Measured geometries: what a bundle offers to be measured ([`Trial`]), and the file that a measurement leaves ([`TuningFile`]),
//! which a later compile takes.
//!
//! The file is text (see `form`), one line for a launch's meaning on a target, so that it can be read, compared and kept beside
//! the source. Nothing that was measured is used unless its file is named.

use crate::bundle::Digest;
use crate::fused::{FusedOp, Gemv, SegmentOut, Tail};
use crate::plan::{Geometry, KernelSpec};
use serde::{Deserialize, Serialize};

/// A launch of the decode program in all geometries that are worth measuring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Label of its launches: `qkv`, `down`, ….
    pub label: String,
    /// What it computes, in one line for people.
    pub summary: String,
    /// What it computes.
    pub op: FusedOp,
    /// Launches of a step.
    pub launches: u32,
    /// The plan's own geometry, then the others, the most promising first.
    pub candidates: Vec<Candidate>,
}

/// One geometry of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Number of its kernel in the trial's module.
    pub number: u32,
    /// The geometry.
    pub geometry: Geometry,
    /// Time that the cost model predicts, in nanoseconds.
    pub predicted_ns: u64,
}

impl Candidate {
    /// Its kernel's symbol.
    pub fn kernel_name(&self) -> String {
        format!("c{:03}", self.number)
    }
}

impl Trial {
    /// The kernel of candidate `index`, a kernel of the trial's own module; `None` behind the last.
    pub fn kernel(&self, index: usize) -> Option<KernelSpec> {
        let candidate = self.candidates.get(index)?;
        Some(KernelSpec { name: candidate.kernel_name(), op: self.op.clone(), geometry: candidate.geometry })
    }

    /// All kernels.
    pub fn kernels(&self) -> impl Iterator<Item = KernelSpec> {
        (0..self.candidates.len()).filter_map(|i| self.kernel(i))
    }
}

/// What was measured, where, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TuningFile {
    /// Where it comes from.
    pub made: Made,
    /// Measured choices.
    pub entries: Vec<Entry>,
}

/// Where a tuning file comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Day, `2026-11-21`.
    pub date: String,
    /// The device: `hip:0 AMD Radeon RX 7900 XTX (gfx1100)`.
    pub device: String,
    /// Its driver and version, as far as it tells.
    pub driver: String,
    /// Version of hipc.
    pub hipc: String,
    /// Hash of the kernel templates.
    pub templates: Digest,
    /// The model whose launches were measured.
    pub model: String,
    /// Bytes per nanosecond that plain reads reach, if that was measured.
    pub gb_per_s: Option<u32>,
}

/// The best geometry of a launch on a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `gfx1100`.
    pub target: String,
    /// Label of the launch when it was measured; it decides nothing.
    pub label: String,
    /// Times.
    pub times: Times,
    /// The geometry; `parts_in` is 0, since it follows from other launches.
    pub geometry: Geometry,
    /// What is computed, by one token.
    pub op: FusedOp,
}

/// Times of a launch, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// With the entry's geometry.
    pub ns: u64,
    /// With the geometry that the bundle measured had, in the same minute.
    pub before_ns: u64,
    /// What the cost model predicts for the entry's geometry.
    pub predicted_ns: u64,
}

/// The op, but for what its time doesn't depend on: the length of a cache that a GEMV appends to.
fn timed(op: &FusedOp) -> FusedOp {
    let mut op = op.clone();
    if let FusedOp::Gemv(Gemv { tail: Tail::Separate(outs), .. }) = &mut op {
        for out in outs {
            if let SegmentOut::Append(_, cache) = out {
                cache.ctx = 0;
            }
        }
    }
    op
}

impl Entry {
    /// Whether it speaks of this launch, whose program has steps of one token; in bundles of any context, unless it reads the cache.
    pub fn is_for(&self, target: &str, op: &FusedOp) -> bool {
        self.target == target && timed(&self.op) == timed(op)
    }

    /// Whether a kernel has its geometry.
    pub fn is_in(&self, target: &str, kernel: &KernelSpec) -> bool {
        self.is_for(target, &kernel.op) && Geometry { parts_in: 0, ..kernel.geometry } == self.geometry
    }
}
