//! Decoding without the host in between: the device chooses each token and takes it as the next step's own. The host only
//! enqueues steps, one ahead of the token that it waits for, and reads what was chosen from memory that both sides see.
//!
//! What is enqueued beyond a generation's end leaves nothing but garbage behind the sequence, where it is overwritten.

use super::{Engine, EngineError, PlanEngine, Want, check_request, not_recorded};
use crate::device::{Backend, DeviceError, Mark};
use hipc_ir::fused::ProgramKind;
use hipc_ir::plan::{SamplingState, StepState};
use std::collections::VecDeque;

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
    /// Behind each step that chose a token which hasn't been given out.
    marks: VecDeque<Mark>,
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
        self.enqueue(ids, Want::Next)?;
        let marks = VecDeque::from([self.backend.mark()?]);
        let end = first + most - 1;
        if end > first {
            let step = StepState { pos: first as i32, n: 1, head_from: 0, reserved: 0 };
            self.backend.write(state, 0, &step.to_bytes())?;
        }
        self.pipeline = Some(Pipeline { first, given: 0, last: None, next: first, end, marks });
        Ok(true)
    }

    pub(super) fn take(&mut self) -> Result<u32, EngineError> {
        // Where work is over when its call returns, a step ahead would only be waited for.
        let ahead = usize::from(self.backend.works_ahead());
        let internal = |what: &str| DeviceError::Internal(what.to_owned());
        let decode = self.program(ProgramKind::Decode)?;
        let decode = self.recorded.get(decode).ok_or_else(|| not_recorded(decode))?;
        let pipeline = self.pipeline.as_mut().ok_or_else(|| internal("no tokens are being chosen"))?;
        let place = pipeline.first + pipeline.given;
        while pipeline.next < pipeline.end.min(place + ahead) {
            self.backend.replay(decode)?;
            pipeline.marks.push_back(self.backend.mark()?);
            pipeline.next += 1;
        }
        let mark = pipeline.marks.pop_front().ok_or_else(|| internal("more tokens are taken than were asked for"))?;
        self.backend.wait(&mark)?;
        let outbox = self.backend.plan().outbox;
        let mut id = [0; 4];
        self.backend.peek(outbox, 4 * place as u64, &mut id)?;
        let id = u32::from_le_bytes(id);
        let vocab = self.backend.plan().model.vocab;
        if id >= vocab {
            return Err(internal(&format!("the device chose token {id} of {vocab}")).into());
        }
        // The token before is fed by having this one chosen after it.
        self.tokens.extend(pipeline.last.replace(id));
        pipeline.given += 1;
        Ok(id)
    }
}
