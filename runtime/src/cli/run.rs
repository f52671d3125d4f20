//! `hipfire-run BUNDLE`: a text continued, a question answered, or a conversation.

use super::args::Run;
use super::chat;
use super::interrupt::Interrupts;
use super::open::Opened;
use super::{CliError, murmur, stdout_is_terminal};
use crate::conversation::{Conversation, Limits};
use crate::engine::Engine;
use crate::generate::{Chooser, Ended, Request, Summary, generate};
use crate::text::{ChatTemplate, Tokenizer};
use hipc_ir::units::rate;
use serde::Serialize;
use std::io::{self, IsTerminal, Read, Write};

pub fn run(args: &Run) -> Result<(), CliError> {
    let path = args.bundle.as_deref().ok_or_else(|| CliError::Usage("which bundle? hipfire-run plan.bin".into()))?;
    let interrupts = Interrupts::watch();
    // What can be refused without the model is.
    let chooser = Chooser::new(args.sampling.params())?;
    let opened = Opened::open(path)?;
    let prompt = prompt(args)?;
    let data = opened.tokenizer()?;
    let tokenizer = Tokenizer::new(&data)?;
    let template = ChatTemplate::of(&data)?;
    let session = Session { args, opened, tokenizer, chooser, interrupts };
    match (prompt, args.chat, template) {
        (_, true, None) => Err(CliError::Usage(
            "the model has no chat template, so --chat can't be used\nleave out --chat: the model then continues the text".into(),
        )),
        (Some(prompt), true, Some(template)) => session.answer(&prompt, template),
        (Some(prompt), false, _) => session.continue_text(&prompt),
        (None, _, template) => chat::run(session, template),
    }
}

/// The text that was given; `None` if a person is to be asked, who then must also see the answers.
fn prompt(args: &Run) -> Result<Option<String>, CliError> {
    let given = match args.prompt.as_deref() {
        Some("-") => standard_input()?,
        Some(text) => text.to_owned(),
        None if !(io::stdin().is_terminal() && stdout_is_terminal()) => standard_input()?,
        None if args.json => {
            return Err(CliError::Usage("--json needs a prompt\ngive a text with -p, or on standard input".into()));
        }
        None => return Ok(None),
    };
    if given.is_empty() {
        return Err(CliError::Usage("the prompt is empty\ngive a text with -p, or on standard input".into()));
    }
    Ok(Some(given))
}

/// Standard input without the line end that ends every text file.
fn standard_input() -> Result<String, CliError> {
    let mut text = String::new();
    let read = io::stdin().read_to_string(&mut text);
    read.map_err(|error| CliError::Read { path: "standard input".into(), error })?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

/// Everything that lasts from one generation to the next, but for the engine.
pub struct Session<'a> {
    pub args: &'a Run,
    pub opened: Opened,
    pub tokenizer: Tokenizer,
    pub chooser: Chooser,
    pub interrupts: Interrupts,
}

impl Session<'_> {
    pub fn max_tokens(&self) -> usize {
        self.args.tokens.map_or(usize::MAX, |n| n as usize)
    }

    fn answer(mut self, question: &str, template: ChatTemplate) -> Result<(), CliError> {
        let mut conversation = Conversation::new(template, self.args.system.clone());
        self.check_length(conversation.ids_with(question, &self.tokenizer)?.len())?;
        let mut engine = self.opened.engine(&self.args.device, false)?;
        let mut out = Output::new(self.args.json);
        let limits = Limits { max_tokens: self.max_tokens(), stop: &self.args.stop, interrupted: self.interrupts.listen() };
        let mut emit = |piece: &str| out.emit(piece);
        let summary = conversation.ask(question, &mut *engine, &self.tokenizer, &mut self.chooser, limits, &mut emit)?;
        self.finish(&*engine, out, &summary)
    }

    fn continue_text(mut self, prompt: &str) -> Result<(), CliError> {
        let ids = self.tokenizer.encode(prompt, true, false);
        self.check_length(ids.len())?;
        let mut engine = self.opened.engine(&self.args.device, false)?;
        let mut out = Output::new(self.args.json);
        let request =
            Request { prompt: &ids, max_tokens: self.max_tokens(), stop: &self.args.stop, interrupted: self.interrupts.listen() };
        let summary = generate(&mut *engine, &self.tokenizer, &mut self.chooser, &request, &mut |piece| out.emit(piece))?;
        self.finish(&*engine, out, &summary)
    }

    fn check_length(&self, tokens: usize) -> Result<(), CliError> {
        if tokens > self.opened.ctx() { Err(self.opened.too_long("the prompt has", tokens)) } else { Ok(()) }
    }

    fn finish(&self, engine: &dyn Engine, out: Output, summary: &Summary) -> Result<(), CliError> {
        if self.args.json {
            let report = Report {
                text: &out.text,
                ended: summary.ended,
                prompt: Phase::new(summary.prompt_tokens, summary.prompt_seconds, Some(summary.prompt_rate())),
                generation: Phase::new(summary.ids.len(), summary.decode_seconds, summary.decode_rate()),
                model: &self.opened.bundle.manifest().model.name,
                device: engine.describe(),
                context: engine.ctx(),
                ids: &summary.ids,
            };
            let report = serde_json::to_string(&report).map_err(|e| CliError::Internal(e.to_string()))?;
            super::print(&format!("{report}\n"))?;
        } else {
            out.end()?;
            murmur(closing_line(engine, summary));
        }
        if summary.ended == Ended::Interrupted { Err(CliError::Interrupted) } else { Ok(()) }
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    text: &'a str,
    ended: Ended,
    prompt: Phase,
    generation: Phase,
    model: &'a str,
    device: String,
    context: usize,
    ids: &'a [u32],
}

#[derive(Serialize)]
struct Phase {
    tokens: usize,
    seconds: f64,
    /// `null` where nothing was measured.
    tokens_per_second: Option<f64>,
}

impl Phase {
    /// Microseconds and hundredths are all that a clock is good for.
    fn new(tokens: usize, seconds: f64, rate: Option<f64>) -> Self {
        Self { tokens, seconds: (seconds * 1e6).round() / 1e6, tokens_per_second: rate.map(|r| (r * 100.0).round() / 100.0) }
    }
}

/// How many tokens, how fast, where, and why it ended if not by the model's own will.
pub fn closing_line(engine: &dyn Engine, summary: &Summary) -> String {
    let count = |n: usize| if n == 1 { "1 token".to_owned() } else { format!("{n} tokens") };
    let mut line = format!("prompt {}, {} tokens/s", count(summary.prompt_tokens), rate(summary.prompt_rate()));
    line += &format!(" | generated {}", count(summary.ids.len()));
    if let Some(decode) = summary.decode_rate() {
        line += &format!(", {} tokens/s", rate(decode));
    }
    line += &format!(" | {}", engine.describe());
    match summary.ended {
        Ended::EndOfTurn | Ended::StopString => {}
        Ended::Length => line += " | ended by -n",
        Ended::ContextFull => line += &format!(" | the context of {} tokens is full", engine.ctx()),
        Ended::Interrupted => line += " | interrupted",
    }
    line
}

/// Text on standard output as it comes, or kept for JSON.
pub struct Output {
    text: String,
    keep: bool,
}

impl Output {
    pub fn new(keep: bool) -> Self {
        Self { text: String::new(), keep }
    }

    pub fn emit(&mut self, piece: &str) -> io::Result<()> {
        if self.keep {
            self.text.push_str(piece);
            return Ok(());
        }
        if piece.is_empty() {
            return Ok(());
        }
        // Only whether the last line is ended is asked for later.
        piece.clone_into(&mut self.text);
        let mut out = io::stdout().lock();
        out.write_all(piece.as_bytes())?;
        out.flush()
    }

    /// Ends the last line.
    pub fn end(&self) -> Result<(), CliError> {
        let ended = self.text.is_empty() || self.text.ends_with('\n');
        if ended && !stdout_is_terminal() {
            return Ok(());
        }
        super::print("\n")
    }
}
