//! Token ids in, logits out: the executor of a plan on a [`Backend`], and the exact evaluator behind the same trait.

use crate::device::{Backend, DeviceError, Mark, MemoryUse, ReadTimes, Recording};
use hipc_ir::fused::ProgramKind;
use hipc_ir::plan::{Buffer, Plan, StepState};
use std::io::Write;
use std::ops::Range;

/// Why a sequence could not be continued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The sequence is longer than the bundle's context.
    #[error(
        "{needed} tokens don't fit the context of {ctx}\ncompile for more: hipc compile MODEL.gguf --arch ARCH --ctx {needed}"
    )]
    ContextFull {
        /// Tokens the request needs.
        needed: usize,
        /// Positions of the bundle.
        ctx: usize,
    },
    /// An id outside of the vocabulary.
    #[error("token id {id} isn't in the vocabulary of {vocab} tokens")]
    BadToken {
        /// The id.
        id: u32,
        /// Tokens of the model.
        vocab: usize,
    },
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The exact evaluator failed.
    #[error(transparent)]
    Exact(#[from] hipc_reference::EvalError),
}

/// What a step is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Nothing but the cache.
    Nothing,
    /// The arg-max of the last token's logits.
    Next,
    /// The last token's logits.
    Last,
    /// Every token's logits.
    All,
}

impl Want {
    /// Of a step of `n` tokens, the first whose logits are computed.
    pub(crate) fn head_from(self, n: usize) -> usize {
        match self {
            Want::Nothing => n,
            Want::Next | Want::Last => n - 1,
            Want::All => 0,
        }
    }
}

/// Continues one sequence.
pub trait Engine {
    /// Device and architecture, to print.
    fn describe(&self) -> String;
    /// Tokens of the vocabulary.
    fn vocab(&self) -> usize;
    /// Positions of the context.
    fn ctx(&self) -> usize;
    /// Tokens fed so far.
    fn pos(&self) -> usize;
    /// Tokens that one step takes: whoever feeds that many at a time loses nothing and can stop in between.
    fn chunk(&self) -> usize;
    /// Forgets everything from position `pos` on.
    fn truncate(&mut self, pos: usize);
    /// Feeds tokens. `logits` is called with each wanted row, in order; the result is the arg-max of the last token
    /// (unless nothing was wanted).
    fn feed(&mut self, ids: &[u32], want: Want, logits: &mut dyn FnMut(&[f32])) -> Result<Option<u32>, EngineError>;
}

/// Refuses ids outside of the vocabulary and sequences longer than the context, before anything is computed.
pub(crate) fn check_request(engine: &dyn Engine, ids: &[u32]) -> Result<(), EngineError> {
    let (needed, ctx, vocab) = (engine.pos() + ids.len(), engine.ctx(), engine.vocab());
    if needed > ctx {
        return Err(EngineError::ContextFull { needed, ctx });
    }
    match ids.iter().find(|&&id| id as usize >= vocab) {
        Some(&id) => Err(EngineError::BadToken { id, vocab }),
        None => Ok(()),
    }
}

/// Runs the programs of a plan: chunks through the prompt program, single tokens through the decode program.
pub struct PlanEngine<B> {
    backend: B,
    pos: usize,
    single_steps: bool,
    trace: bool,
}

impl<B: Backend> PlanEngine<B> {
    /// An empty sequence on this backend. With `single_steps`, prompts go through the decode program too.
    pub fn new(backend: B, single_steps: bool) -> Self {
        Self { backend, pos: 0, single_steps, trace: false }
    }

    /// Prints every launch on standard error before it is enqueued, each by itself.
    pub fn trace(mut self, on: bool) -> Self {
        self.trace = on;
        self
    }

    /// The device underneath.
    pub fn backend_mut(&mut self) -> &mut B {
        &mut self.backend
    }

    /// Stands at position `pos` as if that many tokens had been fed; the cache holds whatever it holds. For measuring.
    pub fn seek(&mut self, pos: usize) {
        self.pos = pos;
    }

    fn program_for(&self, n: usize) -> Result<usize, DeviceError> {
        let kind = if n > 1 && !self.single_steps { ProgramKind::Prompt } else { ProgramKind::Decode };
        let found = self.backend.plan().programs.iter().position(|p| p.kind == kind);
        found.ok_or_else(|| DeviceError::Internal(format!("the plan has no {kind:?} program")))
    }

    fn run(&mut self, index: usize, count: usize) -> Result<(), DeviceError> {
        if !self.trace {
            return self.backend.run(index, 0..count);
        }
        for i in 0..count {
            let plan = self.backend.plan();
            let (program, launch) = (&plan.programs[index], &plan.programs[index].launches[i]);
            let [x, y, z] = launch.grid;
            let (kernel, threads) = (&plan.kernels[launch.kernel].name, plan.kernels[launch.kernel].threads());
            let kind = if program.kind == ProgramKind::Prompt { "prompt" } else { "decode" };
            // Where nobody can read it, it is lost, and nothing else.
            let _ = writeln!(
                std::io::stderr(),
                "{kind} {i:4}  {:<24} {kernel:<24} {x}x{y}x{z} workgroups of {threads}",
                launch.label
            );
            self.backend.run(index, i..i + 1)?;
        }
        Ok(())
    }

    fn step(&mut self, ids: &[u32], want: Want, logits: &mut dyn FnMut(&[f32])) -> Result<Option<u32>, EngineError> {
        let index = self.program_for(ids.len())?;
        let plan = self.backend.plan();
        let program = &plan.programs[index];
        let (count, tokens, state) = (program.launches.len(), plan.tokens, plan.state);
        let (logits_buffer, ids_buffer, vocab) = (program.logits, program.ids, plan.model.vocab as usize);
        let n = ids.len();
        let head_from = want.head_from(n);
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        self.backend.write(tokens, 4 * self.pos as u64, &bytes)?;
        let step = StepState { pos: self.pos as i32, n: n as i32, head_from: head_from as i32, reserved: 0 };
        self.backend.write(state, 0, &step.to_bytes())?;
        self.run(index, count)?;
        self.pos += n;
        if want == Want::Nothing {
            return Ok(None);
        }
        if want != Want::Next {
            let mut bytes = vec![0u8; 4 * vocab];
            let mut row = vec![0f32; vocab];
            for t in head_from..n {
                self.backend.read(logits_buffer, (4 * vocab * t) as u64, &mut bytes)?;
                for (value, chunk) in row.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *value = f32::from_le_bytes(*chunk);
                }
                logits(&row);
            }
        }
        let mut id = [0; 4];
        self.backend.read(ids_buffer, 4 * (n as u64 - 1), &mut id)?;
        Ok(Some(u32::from_le_bytes(id)))
    }
}

impl<B: Backend> Engine for PlanEngine<B> {
    fn describe(&self) -> String {
        self.backend.describe()
    }
    fn vocab(&self) -> usize {
        self.backend.plan().model.vocab as usize
    }
    fn ctx(&self) -> usize {
        self.backend.plan().ctx as usize
    }
    fn pos(&self) -> usize {
        self.pos
    }
    fn chunk(&self) -> usize {
        let prompt = self.backend.plan().program(ProgramKind::Prompt).map_or(1, |p| p.tokens as usize);
        if self.single_steps { 1 } else { prompt.max(1) }
    }
    fn truncate(&mut self, pos: usize) {
        self.pos = self.pos.min(pos);
    }
    fn feed(&mut self, ids: &[u32], want: Want, logits: &mut dyn FnMut(&[f32])) -> Result<Option<u32>, EngineError> {
        check_request(self, ids)?;
        let chunk = self.chunk();
        let mut next = None;
        let last = ids.len().div_ceil(chunk);
        for (i, part) in ids.chunks(chunk).enumerate() {
            let want = if i + 1 == last || want == Want::All { want } else { Want::Nothing };
            next = self.step(part, want, logits)?;
        }
        Ok(next)
    }
}

impl Backend for Box<dyn Backend> {
    fn describe(&self) -> String {
        (**self).describe()
    }
    fn write(&mut self, buffer: Buffer, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        (**self).write(buffer, offset, bytes)
    }
    fn read(&mut self, buffer: Buffer, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        (**self).read(buffer, offset, bytes)
    }
    fn run(&mut self, program: usize, range: Range<usize>) -> Result<(), DeviceError> {
        (**self).run(program, range)
    }
    fn record(&mut self, program: usize, range: Range<usize>, repeat: u32) -> Result<Recording, DeviceError> {
        (**self).record(program, range, repeat)
    }
    fn record_launches(&mut self, program: usize, launches: &[usize], repeat: u32) -> Result<Recording, DeviceError> {
        (**self).record_launches(program, launches, repeat)
    }
    fn read_memory(&mut self, bytes: u64, times: u32) -> Result<ReadTimes, DeviceError> {
        (**self).read_memory(bytes, times)
    }
    fn replay(&mut self, recording: &Recording) -> Result<(), DeviceError> {
        (**self).replay(recording)
    }
    fn mark(&mut self) -> Result<Mark, DeviceError> {
        (**self).mark()
    }
    fn wait(&mut self, mark: &Mark) -> Result<(), DeviceError> {
        (**self).wait(mark)
    }
    fn elapsed(&mut self, from: &Mark, to: &Mark) -> Result<f64, DeviceError> {
        (**self).elapsed(from, to)
    }
    fn peek(&mut self, buffer: Buffer, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        (**self).peek(buffer, offset, bytes)
    }
    fn memory_use(&self) -> Result<MemoryUse, DeviceError> {
        (**self).memory_use()
    }
    fn plan(&self) -> &Plan {
        (**self).plan()
    }
}
