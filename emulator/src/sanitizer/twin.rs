//! Whether an instruction in the place of another does anything else: for tools that change kernels and ask what the change is worth.

use super::Observer;
use super::effects::{Effects, Work};
use crate::exec::Step;
use crate::instruction::Instruction;
use crate::module::{Kernel, Steps};
use crate::wave::{Flow, Group, Wave};
use crate::{Dispatch, EmulatorError, Memory, Module, Options};

impl Module {
    /// Runs a dispatch and, each time that the instruction at `address` is executed, also the one that `other` has there, on a copy of
    /// the wave. Whether both left the same registers and went the same way each time. What can't be told so counts as different: stores,
    /// atomics, barriers, waits that allow more, instructions of another size.
    ///
    /// # Errors
    /// As [`Module::run`].
    pub fn same_effect(
        &self,
        other: &Self,
        address: u64,
        dispatch: &Dispatch,
        memory: &Memory,
        options: &Options,
    ) -> Result<bool, EmulatorError> {
        let (kernel, changed) = (self.kernel(dispatch.kernel)?, other.kernel(dispatch.kernel)?);
        let find = |k: &Kernel| k.instructions().iter().position(|i| i.address == address);
        let (Some(at), Some(there)) = (find(&kernel), find(&changed)) else { return Ok(false) };
        let [mine, theirs] = [&kernel.instructions()[at], &changed.instructions()[there]];
        if at != there || mine.size != theirs.size || theirs.operations.is_empty() {
            return Ok(false);
        }
        let same = match kernel.steps {
            Steps::Wave32(_) => self.by_text::<32>(mine, theirs),
            Steps::Wave64(_) => self.by_text::<64>(mine, theirs),
        };
        if let Some(same) = same {
            return Ok(same);
        }
        match (&kernel.steps, &changed.steps) {
            (Steps::Wave32(steps), Steps::Wave32(other)) => {
                let mut twin = Twin { at, other: &other[at], differs: false };
                self.observed(&kernel, steps, dispatch, memory, options, &mut twin)?;
                Ok(!twin.differs)
            }
            (Steps::Wave64(steps), Steps::Wave64(other)) => {
                let mut twin = Twin { at, other: &other[at], differs: false };
                self.observed(&kernel, steps, dispatch, memory, options, &mut twin)?;
                Ok(!twin.differs)
            }
            _ => Ok(false),
        }
    }

    /// Whether they do the same, where that follows without execution.
    fn by_text<const W: usize>(&self, mine: &Instruction, theirs: &Instruction) -> Option<bool> {
        let [mine, theirs] = [mine, theirs].map(|i| Effects::new(i, self.arch().generation, W).work);
        match (mine, theirs) {
            (Work::Wait(mine), Work::Wait(theirs)) => {
                let bound = |most: Option<u32>| most.unwrap_or(u32::MAX);
                Some(mine.iter().zip(theirs).all(|(&mine, theirs)| bound(theirs) <= bound(mine)))
            }
            (Work::Registers, Work::Registers | Work::Wait(_)) | (Work::Load, Work::Load) => None,
            _ => Some(false),
        }
    }
}

/// Executes another instruction, too, whenever that of an index is executed.
struct Twin<'a, const W: usize> {
    at: usize,
    other: &'a Step<W>,
    differs: bool,
}

impl<const W: usize> Observer<W> for Twin<'_, W> {
    fn begin(&mut self, _id: [u32; 3], _waves: &[Wave<W>], _lds: usize) {}

    fn step(&mut self, at: usize, step: &Step<W>, wave: &mut Wave<W>, group: &mut Group) -> Flow {
        if at != self.at || self.differs {
            return (step.run)(wave, group);
        }
        let mut twin = wave.clone();
        let theirs = (self.other.run)(&mut twin, group);
        let flow = (step.run)(wave, group);
        let way = match (&flow, &theirs) {
            (Flow::Next, Flow::Next) | (Flow::End, Flow::End) => true,
            (Flow::Jump(a), Flow::Jump(b)) => a == b,
            // To the instruction that follows.
            (Flow::Next, Flow::Jump(to)) | (Flow::Jump(to), Flow::Next) => *to == wave.next,
            _ => false,
        };
        let registers = (&wave.vectors, &wave.scalars, wave.scc) == (&twin.vectors, &twin.scalars, twin.scc);
        self.differs = !way || !registers || wave.scratch != twin.scratch;
        flow
    }

    fn round(&mut self, _waves: &[Wave<W>], _before: &[bool], _now: &[bool]) {}
}
