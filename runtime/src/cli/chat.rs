//! The interactive session: a chat where the model has a template, else texts to continue.

use super::run::{Output, Session, closing_line};
use super::style::{HEAD, paint};
use super::{CliError, murmur, tell};
use crate::conversation::{Conversation, Limits};
use crate::engine::{Engine, EngineError};
use crate::generate::{Ended, GenerateError, Request, Summary, generate};
use crate::text::ChatTemplate;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

const HELP: &str = "  /reset   begin a new conversation
  /help    this list
  /exit    leave (as does Ctrl-D)
  Ctrl-C   ends an answer; at the prompt, drops the line";

/// Talks until the person leaves.
pub fn run(mut session: Session<'_>, template: Option<ChatTemplate>) -> Result<(), CliError> {
    let mut engine = session.opened.engine(&session.args.device, false)?;
    let mut conversation = template.map(|t| Conversation::new(t, session.args.system.clone()));
    greet(&session, &*engine, conversation.is_some());
    let mut editor = DefaultEditor::new().map_err(terminal)?;
    loop {
        let line = match session.interrupts.while_reading(|| editor.readline("> ")) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(terminal(error)),
        };
        let text = line.trim();
        match text {
            "" => continue,
            "/exit" | "/quit" => return Ok(()),
            "/help" => murmur(HELP),
            "/reset" => {
                if let Some(conversation) = &mut conversation {
                    conversation.forget();
                }
                murmur("a new conversation begins");
            }
            command if command.starts_with('/') && !command.contains(' ') => {
                murmur(format!("there is no command {command}; /help lists them"));
            }
            text => {
                // A history that can't be kept is no reason to stop.
                let _ = editor.add_history_entry(text);
                turn(&mut session, &mut *engine, conversation.as_mut(), text)?;
            }
        }
    }
}

fn greet(session: &Session<'_>, engine: &dyn Engine, chat: bool) {
    let (name, device, ctx) = (&session.opened.bundle.manifest().model.name, engine.describe(), engine.ctx());
    tell(format_args!("{} on {device}, {ctx} tokens of context", paint(HEAD, name)));
    let kind = if chat { "ask a question" } else { "the model has no chat template: it continues each text that you type" };
    murmur(format!("{kind}; /help lists the commands, Ctrl-D leaves"));
}

/// One question and its answer. Errors that the next question may not have are told, and the session goes on.
fn turn(
    session: &mut Session<'_>,
    engine: &mut dyn Engine,
    conversation: Option<&mut Conversation>,
    text: &str,
) -> Result<(), CliError> {
    let mut out = Output::new(false);
    let (max_tokens, stop) = (session.max_tokens(), &session.args.stop[..]);
    let interrupted = session.interrupts.listen();
    let (tokenizer, chooser) = (&session.tokenizer, &mut session.chooser);
    let chat = conversation.is_some();
    let outcome = match conversation {
        Some(conversation) => {
            let limits = Limits { max_tokens, stop, interrupted };
            conversation.ask(text, engine, tokenizer, chooser, limits, &mut |piece| out.emit(piece))
        }
        None => {
            engine.truncate(0);
            let ids = tokenizer.encode(text, true, false);
            let request = Request { prompt: &ids, max_tokens, stop, interrupted };
            generate(engine, tokenizer, chooser, &request, &mut |piece| out.emit(piece))
        }
    };
    session.interrupts.leave();
    match outcome {
        Ok(summary) => finish(engine, &out, &summary, chat),
        Err(GenerateError::Engine(EngineError::ContextFull { needed, ctx })) => {
            let what = if chat { "the conversation" } else { "the text" };
            let way_out = if chat { "; /reset begins a new one" } else { "" };
            murmur(format!("{what} has {needed} tokens with this, the context {ctx}{way_out}"));
            Ok(())
        }
        Err(GenerateError::Text(error)) => {
            super::report(&error.into());
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn finish(engine: &dyn Engine, out: &Output, summary: &Summary, chat: bool) -> Result<(), CliError> {
    out.end()?;
    let mut line = closing_line(engine, summary);
    if summary.ended == Ended::ContextFull && chat {
        line += "; /reset begins a new conversation";
    }
    murmur(line);
    tell("");
    Ok(())
}

fn terminal(error: ReadlineError) -> CliError {
    CliError::Terminal(error.to_string())
}
