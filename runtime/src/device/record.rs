//! What is prepared once and used every step: launches, graphs, recordings; and marks in the stream of work.

use super::DevicePtr;
use super::slots::Slot;
use std::ops::Range;
use std::time::Instant;

/// Memory that a launch may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// First byte.
    pub address: DevicePtr,
    /// Bytes.
    pub bytes: u64,
    /// Whether the launch may write it.
    pub writable: bool,
}

/// A kernel with all that a launch of it needs.
#[derive(Clone, Copy, Debug)]
pub struct KernelLaunch<'a> {
    /// A handle from [`super::Driver::load`].
    pub kernel: u64,
    /// Workgroups.
    pub grid: [u32; 3],
    /// Threads per workgroup.
    pub threads: u32,
    /// Packed kernel arguments; copied by the call that takes them.
    pub kernargs: &'a [u8],
    /// All that it may touch, for devices that check it. Empty: whatever is allocated.
    pub operands: &'a [Operand],
}

/// A graph of launches that its driver can enqueue with one call. Dropping it gives it back.
#[derive(Debug)]
pub struct Graph(pub(super) Slot);

/// A point in a device's work. Dropping it gives its event back.
#[derive(Debug)]
pub struct Mark {
    /// `None` for drivers whose work is over when its call returns.
    pub(super) event: Option<Slot>,
    at: Instant,
}

impl Mark {
    /// For work that is over when its call returns: this moment.
    pub(super) fn now() -> Self {
        Self { event: None, at: Instant::now() }
    }
    /// With an event that the device reaches.
    pub(super) fn of(event: Slot) -> Self {
        Self { event: Some(event), at: Instant::now() }
    }
    /// Seconds by this machine's clock.
    pub(super) fn since(&self, from: &Mark) -> f64 {
        self.at.saturating_duration_since(from.at).as_secs_f64()
    }
}

/// Launches of a program that are enqueued together.
#[derive(Debug)]
pub struct Recording {
    pub(super) program: usize,
    pub(super) launches: Vec<usize>,
    pub(super) repeat: u32,
    pub(super) graph: Option<Graph>,
}

impl Recording {
    /// The launches as ranges of neighbours, as often as they are repeated.
    pub(super) fn runs(&self) -> impl Iterator<Item = Range<usize>> {
        let one = self.launches.chunk_by(|a, b| a + 1 == *b).map(|run| run[0]..run[0] + run.len());
        std::iter::repeat_n(one, self.repeat as usize).flatten()
    }
    /// Whether one call enqueues all of it; else each launch takes one.
    pub fn is_graph(&self) -> bool {
        self.graph.is_some()
    }
    /// Launches that it stands for.
    pub fn launches(&self) -> usize {
        self.launches.len() * self.repeat as usize
    }
}

/// Work that was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Executed {
    /// Instructions, each counted once per wave.
    pub instructions: u64,
    /// Active lanes, summed over all vector instructions.
    pub lane_instructions: u64,
}

impl Executed {
    /// What came on top of an earlier count.
    pub fn since(self, before: Self) -> Self {
        Self {
            instructions: self.instructions - before.instructions,
            lane_instructions: self.lane_instructions - before.lane_instructions,
        }
    }
}

/// Where a device's memory went, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUse {
    /// Allocated for the plan.
    pub own: u64,
    /// Taken by the driver since the device was opened, on top of that: modules, graphs, pools. Another program's, too, if it
    /// allocated meanwhile.
    pub driver: u64,
    /// In use when the device was opened: the driver's context, other programs.
    pub before: u64,
    /// Memory of the device.
    pub total: u64,
}
