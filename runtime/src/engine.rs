//! Token ids in, logits out: the executor of a plan on a [`Backend`], and the exact evaluator behind the same trait.

mod pipeline;

use crate::device::{Backend, DeviceError, Recording};
use hipc_ir::fused::ProgramKind;
use hipc_ir::plan::{Program, SamplingState, StepState};
use pipeline::Pipeline;
use std::io::Write;

pub use pipeline::Choices;

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
    fn tokens(&self) -> &[u32];
    /// How many.
    fn pos(&self) -> usize {
        self.tokens().len()
    }
    /// Tokens that one step takes: whoever feeds that many at a time loses nothing and can stop in between.
    fn chunk(&self) -> usize;
    /// Forgets everything from position `pos` on.
    fn truncate(&mut self, pos: usize);
    /// Feeds tokens. `logits` is called with each wanted row, in order; the result is the arg-max of the last token
    /// (unless nothing was wanted).
    fn feed(&mut self, ids: &[u32], want: Want, logits: &mut dyn FnMut(&[f32])) -> Result<Option<u32>, EngineError>;
    /// Feeds the last tokens of a prompt, at most a chunk of them, and has tokens chosen from there on as `choices` says, without
    /// anything asked in between. False if this engine can't: then nothing was fed.
    fn choose(&mut self, ids: &[u32], choices: &Choices<'_>) -> Result<bool, EngineError> {
        let _ = (ids, choices);
        Ok(false)
    }
    /// The next token chosen, after [`Engine::choose`] and until something is fed. It counts as fed when one more is asked for.
    fn next(&mut self) -> Result<u32, EngineError> {
        Err(DeviceError::Internal("this engine chooses no tokens by itself".to_owned()).into())
    }
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

fn name(program: &Program) -> &'static str {
    if program.kind == ProgramKind::Prompt { "prompt" } else { "decode" }
}

fn not_recorded(index: usize) -> DeviceError {
    DeviceError::Internal(format!("program {index} isn't recorded"))
}

/// Runs the programs of a plan: chunks through the prompt program, single tokens through the decode program.
pub struct PlanEngine<B> {
    backend: B,
    tokens: Vec<u32>,
    /// What the device has been told of choices.
    sampling: SamplingState,
    /// By program, once they are needed.
    recorded: Vec<Recording>,
    /// 2, 4, … decode steps at once, where a device works ahead.
    groups: Vec<Recording>,
    /// Number of the generation, or of the last one.
    generation: i32,
    pipeline: Option<Pipeline>,
    single_steps: bool,
    trace: bool,
}

impl<B: Backend> PlanEngine<B> {
    /// An empty sequence on this backend. With `single_steps`, prompts go through the decode program too.
    pub fn new(backend: B, single_steps: bool) -> Self {
        Self {
            backend,
            tokens: Vec::new(),
            sampling: SamplingState::default(),
            recorded: Vec::new(),
            groups: Vec::new(),
            generation: 0,
            pipeline: None,
            single_steps,
            trace: false,
        }
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
        self.pipeline = None;
        self.tokens.clear();
        self.tokens.resize(pos, 0);
    }

    fn program(&self, kind: ProgramKind) -> Result<usize, DeviceError> {
        let found = self.backend.plan().programs.iter().position(|p| p.kind == kind);
        found.ok_or_else(|| DeviceError::Internal(format!("the plan has no {kind:?} program")))
    }

    /// Prepares the programs to be enqueued at once each; how they will be, to print. Done by the first step, if not before.
    ///
    /// # Errors
    /// Whatever the device reports.
    pub fn prepare(&mut self) -> Result<String, EngineError> {
        for index in self.recorded.len()..self.backend.plan().programs.len() {
            let count = self.backend.plan().programs[index].launches.len();
            self.recorded.push(self.backend.record(index, 0..count, 1)?);
        }
        if self.backend.works_ahead() && self.groups.is_empty() {
            let decode = self.program(ProgramKind::Decode)?;
            let count = self.backend.plan().programs[decode].launches.len();
            for steps in pipeline::GROUPS {
                self.groups.push(self.backend.record(decode, 0..count, steps)?);
            }
        }
        let told = self.backend.plan().programs.iter().zip(&self.recorded).map(|(program, recorded)| {
            let how = if recorded.is_graph() { "one graph of " } else { "" };
            format!("{}: {how}{} launches", name(program), recorded.launches())
        });
        Ok(told.collect::<Vec<_>>().join("; "))
    }

    /// Whether one call enqueues a whole decode step.
    pub fn steps_are_graphs(&self) -> bool {
        let decode = self.program(ProgramKind::Decode).ok();
        decode.and_then(|index| self.recorded.get(index)).is_some_and(Recording::is_graph)
    }

    fn run(&mut self, index: usize, count: usize) -> Result<(), EngineError> {
        if !self.trace {
            self.prepare()?;
            let recorded = self.recorded.get(index).ok_or_else(|| not_recorded(index))?;
            return Ok(self.backend.replay(recorded)?);
        }
        for i in 0..count {
            let plan = self.backend.plan();
            let (program, launch) = (&plan.programs[index], &plan.programs[index].launches[i]);
            let [x, y, z] = launch.grid;
            let (kernel, threads) = (&plan.kernels[launch.kernel].name, plan.kernels[launch.kernel].threads());
            let kind = name(program);
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

    /// Enqueues a step for these tokens; the number of its program.
    fn enqueue(&mut self, ids: &[u32], want: Want) -> Result<usize, EngineError> {
        let n = ids.len();
        let index = self.program(if n > 1 && !self.single_steps { ProgramKind::Prompt } else { ProgramKind::Decode })?;
        let plan = self.backend.plan();
        let (count, tokens, state) = (plan.programs[index].launches.len(), plan.tokens, plan.state);
        let (pos, generation) = (self.tokens.len(), self.generation);
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        self.backend.write(tokens, 4 * pos as u64, &bytes)?;
        let step = StepState { pos: pos as i32, n: n as i32, head_from: want.head_from(n) as i32, generation };
        self.backend.write(state, 0, &step.to_bytes())?;
        self.run(index, count)?;
        self.tokens.extend(ids);
        Ok(index)
    }

    fn step(&mut self, ids: &[u32], want: Want, logits: &mut dyn FnMut(&[f32])) -> Result<Option<u32>, EngineError> {
        let index = self.enqueue(ids, want)?;
        let (plan, n) = (self.backend.plan(), ids.len());
        let program = &plan.programs[index];
        let (logits_buffer, ids_buffer, vocab) = (program.logits, program.ids, plan.model.vocab as usize);
        if want == Want::Nothing {
            return Ok(None);
        }
        if want != Want::Next {
            let mut bytes = vec![0u8; 4 * vocab];
            let mut row = vec![0f32; vocab];
            for t in want.head_from(n)..n {
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
    fn tokens(&self) -> &[u32] {
        &self.tokens
    }
    fn chunk(&self) -> usize {
        let prompt = self.backend.plan().program(ProgramKind::Prompt).map_or(1, |p| p.tokens as usize);
        if self.single_steps { 1 } else { prompt.max(1) }
    }
    fn truncate(&mut self, pos: usize) {
        self.pipeline = None;
        self.tokens.truncate(pos);
    }
    fn feed(&mut self, ids: &[u32], want: Want, logits: &mut dyn FnMut(&[f32])) -> Result<Option<u32>, EngineError> {
        check_request(self, ids)?;
        self.pipeline = None;
        // What is asked for here is the likeliest token.
        self.sample(SamplingState::default())?;
        let chunk = self.chunk();
        let mut next = None;
        let last = ids.len().div_ceil(chunk);
        for (i, part) in ids.chunks(chunk).enumerate() {
            let want = if i + 1 == last || want == Want::All { want } else { Want::Nothing };
            next = self.step(part, want, logits)?;
        }
        Ok(next)
    }
    fn choose(&mut self, ids: &[u32], choices: &Choices<'_>) -> Result<bool, EngineError> {
        self.begin(ids, choices)
    }
    fn next(&mut self) -> Result<u32, EngineError> {
        self.take()
    }
}
