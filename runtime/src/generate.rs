//! The generation loop: prompt in, text out as it is produced.

use crate::device::DeviceError;
use crate::engine::{Choices, Engine, EngineError, Want};
use crate::text::{Sampler, SamplerParams, StopMatcher, TextError, Tokenizer};
use serde::Serialize;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// The model produced an end-of-generation token.
    EndOfTurn,
    /// A stop string appeared.
    StopString,
    /// As many tokens as asked for.
    Length,
    /// The context is full.
    ContextFull,
    /// The person interrupted it.
    Interrupted,
}

/// What a generation did.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Ids produced, the end-of-generation token not included.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub ended: Ended,
    /// Tokens of the prompt that were computed.
    pub prompt_tokens: usize,
    /// Seconds until the first token was chosen.
    pub prompt_seconds: f64,
    /// Steps after the prompt, the one that gave the end of generation included.
    pub decode_steps: usize,
    /// Seconds of those steps.
    pub decode_seconds: f64,
}

impl Summary {
    /// Prompt tokens per second.
    pub fn prompt_rate(&self) -> f64 {
        self.prompt_tokens as f64 / self.prompt_seconds.max(1e-9)
    }
    /// Steps per second after the prompt; none if there was no step.
    pub fn decode_rate(&self) -> Option<f64> {
        (self.decode_steps > 0).then(|| self.decode_steps as f64 / self.decode_seconds.max(1e-9))
    }
}

/// Why a generation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Sampling or text failed.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The text could not be given out.
    #[error("the text can't be written: {0}")]
    Output(#[from] io::Error),
    /// There is nothing to continue.
    #[error("the prompt is empty\ngive a text with -p, or on standard input")]
    EmptyPrompt,
}

/// Chooses tokens; the random state lasts for a whole conversation.
#[derive(Debug)]
pub struct Chooser {
    sampler: Sampler,
    /// The likeliest token is the choice: no logits have to leave a device.
    greedy: bool,
    on_host: bool,
}

/// Where the tokens of a generation are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// By the engine, one after the other.
    Device,
    /// By the sampler from logits.
    Host,
}

impl Chooser {
    /// # Errors
    /// [`TextError::Parameter`] for a value out of its range.
    pub fn new(params: SamplerParams) -> Result<Self, TextError> {
        let greedy = params.temperature == 0.0 && params.repeat_penalty == 1.0;
        Ok(Self { sampler: Sampler::new(params)?, greedy, on_host: false })
    }

    /// Reads every token's logits and chooses here, where engines would choose by themselves. The tokens are the same.
    pub fn on_host(self) -> Self {
        Self { on_host: true, ..self }
    }

    /// Has the engine choose up to `most` tokens, the first after these ids; where it can't, nothing has happened.
    fn begin(&self, engine: &mut dyn Engine, feed: &[u32], most: usize) -> Result<Place, EngineError> {
        if self.on_host {
            return Ok(Place::Host);
        }
        let sampling = self.sampler.params().state();
        let most = most.min((engine.ctx() + 1).saturating_sub(engine.pos() + feed.len()));
        let draws = if sampling.temperature > 0.0 { self.sampler.draws(most) } else { Vec::new() };
        let taken = engine.choose(feed, &Choices { sampling, draws: &draws, most })?;
        Ok(if taken { Place::Device } else { Place::Host })
    }

    /// Chooses what follows these ids.
    fn choose(&mut self, engine: &mut dyn Engine, feed: &[u32], place: Place) -> Result<u32, GenerateError> {
        if place == Place::Device {
            let next = engine.next()?;
            self.sampler.take(next);
            return Ok(next);
        }
        if self.greedy && !self.on_host {
            let next = engine.feed(feed, Want::Next, &mut |_| ())?;
            let missing = || DeviceError::Internal("the step chose no token".to_owned());
            return Ok(next.ok_or_else(missing).map_err(EngineError::from)?);
        }
        let mut row = Vec::new();
        engine.feed(feed, Want::Last, &mut |logits| row.extend_from_slice(logits))?;
        self.sampler.look_at(engine.tokens());
        Ok(self.sampler.sample(&row)?)
    }
}

impl Chooser {
    /// Feeds these ids and lets `count` tokens follow, whatever they are: what [`generate`] does, without text.
    ///
    /// # Errors
    /// What the engine or the sampler report.
    pub fn tokens(&mut self, engine: &mut dyn Engine, ids: &[u32], count: usize) -> Result<Vec<u32>, GenerateError> {
        if ids.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        let most = feed_most(engine, ids, &AtomicBool::new(false))?;
        let mut feed = ids[most..].to_vec();
        let mut chosen = Vec::with_capacity(count);
        if count > 0 {
            let place = self.begin(engine, &feed, count)?;
            for _ in 0..count {
                let next = self.choose(engine, &feed, place)?;
                chosen.push(next);
                feed = vec![next];
            }
        }
        Ok(chosen)
    }
}

/// What a generation is asked for.
pub struct Request<'a> {
    /// Ids to feed before the first choice.
    pub prompt: &'a [u32],
    /// Most tokens to produce.
    pub max_tokens: usize,
    /// Texts that end the generation.
    pub stop: &'a [String],
    /// Set from outside to end early.
    pub interrupted: &'a AtomicBool,
}

/// Feeds the prompt and produces tokens until something ends it; `emit` gets text as soon as it is certain.
///
/// Afterwards the engine holds the prompt and what was produced, but for a last token that nothing was asked after.
///
/// # Errors
/// [`EngineError::ContextFull`] if the prompt doesn't fit (nothing has been fed then); whatever the device, the sampler or `emit` report.
pub fn generate(
    engine: &mut dyn Engine,
    tokenizer: &Tokenizer,
    chooser: &mut Chooser,
    request: &Request<'_>,
    emit: &mut dyn FnMut(&str) -> io::Result<()>,
) -> Result<Summary, GenerateError> {
    let prompt = request.prompt;
    if prompt.is_empty() {
        return Err(GenerateError::EmptyPrompt);
    }
    let (needed, ctx) = (engine.pos() + prompt.len(), engine.ctx());
    if needed > ctx {
        return Err(EngineError::ContextFull { needed, ctx }.into());
    }
    let start = Instant::now();
    let mut first: Option<Duration> = None;
    let (mut ids, mut decode_steps, mut place) = (Vec::new(), 0, None);
    let mut stream = tokenizer.stream(false);
    let mut stops = StopMatcher::new(request.stop);
    let mut prompt_tokens = feed_most(engine, prompt, request.interrupted)?;
    let mut feed = prompt[prompt_tokens..].to_vec();
    let ended = loop {
        if ids.len() >= request.max_tokens {
            break Ended::Length;
        }
        if request.interrupted.load(Ordering::Relaxed) {
            break Ended::Interrupted;
        }
        if engine.pos() + feed.len() > ctx {
            break Ended::ContextFull;
        }
        let at = match place {
            Some(place) => place,
            None => *place.insert(chooser.begin(engine, &feed, request.max_tokens)?),
        };
        let next = chooser.choose(engine, &feed, at)?;
        if first.is_none() {
            first = Some(start.elapsed());
            prompt_tokens = prompt.len();
        } else {
            decode_steps += 1;
        }
        if tokenizer.is_end_of_generation(next) {
            break Ended::EndOfTurn;
        }
        ids.push(next);
        feed = vec![next];
        let piece = stops.push(&stream.push(next)?);
        emit(&piece.text)?;
        if piece.stopped {
            break Ended::StopString;
        }
    };
    if ended != Ended::StopString {
        let rest = stops.push(&stream.finish());
        emit(&rest.text)?;
        emit(&stops.finish())?;
    }
    let prompt_seconds = first.unwrap_or_else(|| start.elapsed()).as_secs_f64();
    let decode_seconds = start.elapsed().as_secs_f64() - prompt_seconds;
    Ok(Summary { ids, ended, prompt_tokens, prompt_seconds, decode_steps, decode_seconds })
}

/// Feeds the prompt up to its last step, the one that a token is chosen from. Returns how many tokens went in before that or
/// before an interrupt.
fn feed_most(engine: &mut dyn Engine, prompt: &[u32], interrupted: &AtomicBool) -> Result<usize, EngineError> {
    let chunk = engine.chunk();
    let most = (prompt.len() - 1) / chunk * chunk;
    for (i, part) in prompt[..most].chunks(chunk).enumerate() {
        if interrupted.load(Ordering::Relaxed) {
            return Ok(i * chunk);
        }
        engine.feed(part, Want::Nothing, &mut |_| ())?;
    }
    Ok(most)
}
