//! Operations of a wave that are still under way, as the hardware's counters see them.
//!
//! Vector loads come back in order, LDS operations too, scalar loads in any order and flat accesses through either path: those are
//! known to be done only when their counter is 0. Source: "Memory Model" and `s_waitcnt` in LLVM's guide; the ISA references.

use super::effects::{Counter, Effects, Wait};
use super::set::{Register, Set};
use crate::arch::Generation;
use std::collections::VecDeque;

/// Operations in flight at most, those of the largest counter: hardware issues no more before the oldest is done.
const MOST: usize = 64;

/// An operation under way.
#[derive(Clone, Debug)]
struct Pending {
    /// Index of the instruction.
    instruction: usize,
    /// Registers it will write.
    registers: Set,
    /// When it wrote, if it is a store.
    stored: Option<u32>,
    unordered: bool,
}

/// What a wave has under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    queues: [VecDeque<Pending>; 4],
    /// Registers that await a result.
    pub(super) awaited: Set,
}

impl Counters {
    /// Notes an operation. `stored`: the time of a store.
    pub(super) fn issue(&mut self, instruction: usize, effects: &Effects, stored: Option<u32>) {
        for &counter in &effects.counters {
            let queue = &mut self.queues[counter as usize];
            queue.push_back(Pending { instruction, registers: effects.written, stored, unordered: effects.unordered });
            if queue.len() > MOST {
                queue.pop_front();
            }
            self.awaited = self.awaited | effects.written;
        }
    }

    pub(super) fn wait(&mut self, wait: &Wait) {
        for (queue, &most) in self.queues.iter_mut().zip(wait) {
            let Some(most) = most else { continue };
            let mut done = queue.iter().filter(|p| !p.unordered).count().saturating_sub(most as usize);
            queue.retain(|pending| {
                if pending.unordered {
                    return most > 0;
                }
                let keep = done == 0;
                done = done.saturating_sub(1);
                keep
            });
        }
        self.awaited = self.queues.iter().flatten().fold(Set::default(), |all, p| all | p.registers);
    }

    /// Of a register that is awaited: the instruction that will write it, and its counter.
    pub(super) fn awaits(&self, register: Register) -> Option<(usize, Counter)> {
        let of = |(queue, counter): (&VecDeque<Pending>, Counter)| {
            queue.iter().rev().find(|p| p.registers.contains(register)).map(|p| (p.instruction, counter))
        };
        self.queues.iter().zip(Counter::ALL).find_map(of)
    }

    /// Whether a register is awaited from vector memory alone: another load of it comes later, in order.
    pub(super) fn only_loads(&self, register: Register) -> bool {
        let waits = |counter: Counter| self.queues[counter as usize].iter().any(|p| p.registers.contains(register));
        !waits(Counter::Lds) && !waits(Counter::Scalar)
    }

    /// The time of the oldest store to global memory that isn't known to be done.
    pub(super) fn oldest_store(&self) -> Option<u32> {
        [Counter::Load, Counter::Store].iter().flat_map(|&c| &self.queues[c as usize]).filter_map(|p| p.stored).min()
    }

    /// A store to LDS that isn't known to be done.
    pub(super) fn lds_store(&self) -> Option<usize> {
        self.queues[Counter::Lds as usize].iter().find(|p| p.stored.is_some()).map(|p| p.instruction)
    }
}

/// The counter's name on a generation.
pub(super) fn name(counter: Counter, generation: Generation) -> &'static str {
    let new = generation >= Generation::Gfx12;
    match counter {
        Counter::Load if new => "loadcnt",
        Counter::Load => "vmcnt",
        Counter::Store if new => "storecnt",
        Counter::Store => "vscnt",
        Counter::Lds if new => "dscnt",
        Counter::Scalar if new => "kmcnt",
        Counter::Lds | Counter::Scalar => "lgkmcnt",
    }
}
