//! Decoding without the host in between: the device chooses each token and takes it as the next step's own. The host only
//! enqueues steps, some ahead of the token that it waits for, and looks at memory that both sides see until the token is there:
//! nothing lies between two steps on the device. Beside each token stands the number of its generation, so that one that an
//! earlier generation left isn't taken for this one's.
//!
//! On the device about ten microseconds lie between two graphs (an H200), but one between two launches of a graph. So steps are enqueued in
//! groups, each a graph; the more, the more tokens the generation has already.
//!
//! What is enqueued beyond a generation's end leaves nothing but garbage behind the sequence, where it is overwritten. It also keeps
//! the device busy, so there are never more such steps than were asked for before, and at most [`AHEAD`] and a group's.

use super::{Engine, EngineError, PlanEngine, Want, check_request, not_recorded};
use crate::device::{Backend, DeviceError, Recording};
use hipc_ir::fused::ProgramKind;
use hipc_ir::plan::{SamplingState, StepState};

/// Steps of the groups that are recorded besides single steps.
pub(super) const GROUPS: [u32; 3] = [2, 4, 8];
/// Steps enqueued behind the one whose token is waited for, at least: time for the host to wake up and to enqueue more.
const AHEAD: usize = 2;

/// How tokens are to be chosen, and how many.
#[derive(Clone, Copy, Debug)]
pub struct Choices<'a> {
    /// What a device sees of the sampler's parameters.
    pub sampling: SamplingState,
    /// A uniform number in 0 … 1 for each token, in order: as many as `most`, or as the context can take. None if the choice is
    /// the likeliest token.
    pub draws: &'a [f64],
    /// Most tokens that will be asked for.
    pub most: usize,
}

/// Steps on their way.
#[derive(Debug)]
pub(super) struct Pipeline {
    /// Position of the first token chosen.
    first: usize,
    /// Tokens given out, and the last of them.
    given: usize,
    last: Option<u32>,
    /// Position of the next step to be enqueued, and the one that isn't any more.
    next: usize,
    end: usize,
}

impl<B: Backend> PlanEngine<B> {
    /// Makes the choices of steps to come these.
    pub(super) fn sample(&mut self, sampling: SamplingState) -> Result<(), DeviceError> {
        if self.sampling != sampling {
            let buffer = self.backend.plan().sampling;
            self.backend.write(buffer, 0, &sampling.to_bytes())?;
            self.sampling = sampling;
        }
        Ok(())
    }

    pub(super) fn begin(&mut self, ids: &[u32], choices: &Choices<'_>) -> Result<bool, EngineError> {
        self.pipeline = None;
        check_request(self, ids)?;
        let (plan, chunk) = (self.backend.plan(), self.chunk());
        let for_device = choices.sampling.is_for_device(plan.most_candidates());
        if self.trace || !for_device || choices.most == 0 || !(1..=chunk).contains(&ids.len()) {
            return Ok(false);
        }
        let (draws, state, ctx) = (plan.draws, plan.state, plan.ctx as usize);
        let first = self.pos() + ids.len();
        let most = choices.most.min(ctx + 1 - first);
        if choices.sampling.temperature > 0.0 {
            let Some(numbers) = choices.draws.get(..most) else {
                let what = format!("{} uniform numbers for {most} tokens", choices.draws.len());
                return Err(DeviceError::Internal(what).into());
            };
            let bytes: Vec<u8> = numbers.iter().flat_map(|d| d.to_le_bytes()).collect();
            self.backend.write(draws, 8 * first as u64, &bytes)?;
        }
        self.sample(choices.sampling)?;
        self.generation = self.generation.wrapping_add(1);
        self.enqueue(ids, Want::Next)?;
        let end = first + most - 1;
        if end > first {
            let step = StepState { pos: first as i32, n: 1, head_from: 0, generation: self.generation };
            self.backend.write(state, 0, &step.to_bytes())?;
        }
        self.pipeline = Some(Pipeline { first, given: 0, last: None, next: first, end });
        Ok(true)
    }

    pub(super) fn take(&mut self) -> Result<u32, EngineError> {
        // Where work is over when its call returns, a step ahead would only be waited for.
        let ahead = if self.backend.works_ahead() { AHEAD } else { 0 };
        let internal = |what: &str| DeviceError::Internal(what.to_owned());
        let decode = self.program(ProgramKind::Decode)?;
        let decode = self.recorded.get(decode).ok_or_else(|| not_recorded(decode))?;
        let pipeline = self.pipeline.as_mut().ok_or_else(|| internal("no tokens are being chosen"))?;
        let place = pipeline.first + pipeline.given;
        if place > pipeline.end {
            return Err(internal("more tokens are taken than were asked for").into());
        }
        while pipeline.next < pipeline.end.min(place + ahead) {
            let most = (pipeline.next - pipeline.first).min(pipeline.end - pipeline.next);
            let group = self.groups.iter().zip(GROUPS).rfind(|&(_, steps)| steps as usize <= most);
            let (recording, steps): (&Recording, usize) = group.map_or((decode, 1), |(group, steps)| (group, steps as usize));
            self.backend.replay(recording)?;
            pipeline.next += steps;
        }
        let id = self.backend.receive(place, self.generation)?;
        let vocab = self.backend.plan().model.vocab;
        let Some(id) = u32::try_from(id).ok().filter(|&id| id < vocab) else {
            return Err(internal(&format!("the device chose token {id} of {vocab}")).into());
        };
        // The token before is fed by having this one chosen after it.
        self.tokens.extend(pipeline.last.replace(id));
        pipeline.given += 1;
        Ok(id)
    }
}
