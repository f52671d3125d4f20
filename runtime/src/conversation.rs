//! A chat of several turns over one KV cache: each turn feeds only what the cache doesn't hold yet.

use crate::engine::{Engine, EngineError};
use crate::generate::{Chooser, GenerateError, Request, Summary, generate};
use crate::text::{ChatTemplate, Message, Tokenizer};
use std::io;
use std::sync::atomic::AtomicBool;

/// What bounds an answer.
#[derive(Clone, Copy, Debug)]
pub struct Limits<'a> {
    /// Most tokens of it.
    pub max_tokens: usize,
    /// Texts that end it.
    pub stop: &'a [String],
    /// Set from outside to end it early.
    pub interrupted: &'a AtomicBool,
}

/// Turns so far, and the ids that the engine's cache holds of them.
#[derive(Debug)]
pub struct Conversation {
    template: ChatTemplate,
    system: Option<String>,
    messages: Vec<Message>,
    fed: Vec<u32>,
}

impl Conversation {
    /// A conversation without turns, to be had with an engine that has been fed nothing.
    pub fn new(template: ChatTemplate, system: Option<String>) -> Self {
        let mut conversation = Self { template, system, messages: Vec::new(), fed: Vec::new() };
        conversation.forget();
        conversation
    }

    /// Begins anew. What both conversations begin with stays in the cache.
    pub fn forget(&mut self) {
        self.messages = self.system.iter().map(|s| Message::new("system", s)).collect();
    }

    /// The ids of the conversation with a further question, up to where the answer begins.
    ///
    /// # Errors
    /// Whatever the template reports.
    pub fn ids_with(&self, question: &str, tokenizer: &Tokenizer) -> Result<Vec<u32>, GenerateError> {
        let mut messages = self.messages.clone();
        messages.push(Message::new("user", question));
        Ok(tokenizer.encode_chat(&self.template.render(&messages, true)?))
    }

    /// Asks, and takes question and answer into the conversation.
    ///
    /// # Errors
    /// [`EngineError::ContextFull`] if the question doesn't fit any more, and as [`generate`]; the conversation is then what it was.
    pub fn ask(
        &mut self,
        question: &str,
        engine: &mut dyn Engine,
        tokenizer: &Tokenizer,
        chooser: &mut Chooser,
        limits: Limits<'_>,
        emit: &mut dyn FnMut(&str) -> io::Result<()>,
    ) -> Result<Summary, GenerateError> {
        let mut ids = self.ids_with(question, tokenizer)?;
        let (needed, ctx) = (ids.len(), engine.ctx());
        if needed > ctx {
            return Err(EngineError::ContextFull { needed, ctx }.into());
        }
        let same = self.fed.iter().zip(&ids).take_while(|(a, b)| a == b).count();
        // Something must be fed for the first token to be chosen after.
        let kept = same.min(ids.len().saturating_sub(1));
        engine.truncate(kept);
        self.fed.truncate(kept);

        let mut answer = String::new();
        let mut emit = |piece: &str| {
            answer.push_str(piece);
            emit(piece)
        };
        let Limits { max_tokens, stop, interrupted } = limits;
        let request = Request { prompt: &ids[kept..], max_tokens, stop, interrupted };
        let outcome = generate(engine, tokenizer, chooser, &request, &mut emit);
        let Ok(summary) = outcome else {
            engine.truncate(kept);
            return outcome;
        };
        ids.extend(&summary.ids);
        // An interrupted prompt isn't in the cache as a whole, and after the last token nothing may have been asked.
        ids.truncate(engine.pos());
        self.fed = ids;
        self.messages.push(Message::new("user", question));
        self.messages.push(Message::new("assistant", answer));
        Ok(summary)
    }
}
