//! Chat templates: Jinja by minijinja, as Hugging Face renders them (blocks trimmed, `break` and `continue`, Python's
//! methods of strings), in a budget.
//!
//! A template comes out of a model file, so it is foreign code. It reaches no file, clock or environment, and it ends: the
//! engine counts its instructions ([`FUEL`]) and its depth, and the tree is rewritten before it is compiled so that text and
//! lists are paid for before they are made (see [`guard`] and [`budget`]). That rewriting needs minijinja's
//! `unstable_machinery`; only this folder knows of it.

mod budget;
mod builtins;
mod guard;

use super::error::TextError;
use budget::Budget;
use hipc_ir::text::TokenizerData;
use minijinja::machinery::{CodeGenerator, Token, eval, make_string_output, parse, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Error, ErrorKind, Value, context};
use std::sync::Arc;

/// Instructions of a rendering. The longest known templates take some hundred per message.
const FUEL: u64 = 2_000_000;
/// Nested calls and blocks of a rendering.
const RECURSION: usize = 200;
/// Bytes of a template; the longest known ones have 20 000.
const SOURCE: usize = 1 << 20;
/// Tokens between `{{` and `}}`, and `elif`s in the template: the parser's tree is that deep.
const CHAIN: usize = 1000;

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user`, `assistant`, or whatever the template knows.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A turn.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: content.into() }
    }
}

/// A model's own way of writing a conversation down.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    source: String,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// Checks a template. `bos` and `eos` are the texts of the tokens that it may write as `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// [`TextError::TemplateSyntax`], with the line, if it isn't valid or too large.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<ChatTemplate, TextError> {
        let too_large = |what: &str| Err(TextError::TemplateSyntax(format!("it has {what}")));
        if source.len() > SOURCE {
            return too_large("more than a megabyte");
        }
        let syntax = |error: Error| TextError::TemplateSyntax(describe(&error));
        let (mut in_tag, mut branches, mut statement) = (0, 0, false);
        for token in tokenize(source, false, config().map_err(syntax)?) {
            let token = token.map_err(syntax)?.0;
            match &token {
                Token::TemplateData(_) | Token::VariableStart | Token::BlockStart => in_tag = 0,
                Token::Ident(name) if statement && guard::REFUSED.contains(name) => {
                    return Err(TextError::TemplateSyntax(format!("{name:?} reaches for other templates")));
                }
                Token::Ident("elif") => branches += 1,
                _ => in_tag += 1,
            }
            if in_tag > CHAIN || branches > CHAIN {
                return too_large("an expression or a chain of conditions of more than a thousand parts");
            }
            statement = matches!(token, Token::BlockStart);
        }
        parse(source, "chat template", config().map_err(syntax)?).map_err(syntax)?;
        Ok(ChatTemplate { source: source.into(), bos: bos.into(), eos: eos.into() })
    }

    /// The template of a model, if it has one.
    ///
    /// # Errors
    /// As [`ChatTemplate::new`].
    pub fn of(data: &TokenizerData) -> Result<Option<ChatTemplate>, TextError> {
        let text = |id: Option<u32>| id.and_then(|id| data.tokens.get(id as usize)).map_or("", String::as_str);
        let source = data.chat_template.as_deref();
        source.map(|source| ChatTemplate::new(source, text(data.bos), text(data.eos))).transpose()
    }

    /// The text of a conversation; `add_generation_prompt` asks for the beginning of the model's answer at its end.
    /// Turn it into ids with [`super::Tokenizer::encode_chat`].
    ///
    /// # Errors
    /// [`TextError::TemplateRefused`] with the template's own message, [`TextError::TemplateLimit`] if it doesn't end in
    /// reasonable time and space, [`TextError::TemplateFailed`] for anything else that goes wrong in it.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, TextError> {
        let input = messages.iter().map(|m| m.role.len() + m.content.len()).sum();
        let budget = Arc::new(Budget::new(input));
        self.render_within(&budget, messages, add_generation_prompt).map_err(|error| {
            if let Some(message) = budget.refused.get() {
                TextError::TemplateRefused(message.clone())
            } else if let Some(limit) = budget.stopped.get() {
                TextError::TemplateLimit(limit.to_string())
            } else if error.kind() == ErrorKind::OutOfFuel {
                TextError::TemplateLimit("it takes too many steps".into())
            } else if error.detail().is_some_and(|detail| detail.contains("recursion limit")) {
                TextError::TemplateLimit("it calls itself too deep".into())
            } else {
                TextError::TemplateFailed(describe(&error))
            }
        })
    }

    fn render_within(&self, budget: &Arc<Budget>, messages: &[Message], prompt: bool) -> Result<String, Error> {
        let tree = guard::statement(&parse(&self.source, "chat template", config()?)?);
        let mut generator = CodeGenerator::new("chat template", &self.source);
        generator.compile_stmt(&tree);
        let (instructions, blocks) = generator.finish();

        let mut env = builtins::environment(budget);
        env.set_fuel(Some(FUEL));
        env.set_recursion_limit(RECURSION);
        let messages: Vec<Value> =
            messages.iter().map(|m| context! { role => m.role.as_str(), content => m.content.as_str() }).collect();
        // Hugging Face passes `tools` and `documents` always, as None where there are none.
        let root = context! {
            messages,
            add_generation_prompt => prompt,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
            tools => (),
            documents => (),
        };
        let mut text = String::new();
        let mut output = make_string_output(&mut text);
        eval(&env, &instructions, root, &blocks, &mut output, AutoEscape::None)?;
        drop(output);
        Ok(text)
    }
}

/// `trim_blocks` and `lstrip_blocks`, as Hugging Face's `apply_chat_template` sets them.
fn config() -> Result<SyntaxConfig, Error> {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()
}

/// What happened and in which line, without the stack of causes.
fn describe(error: &Error) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    error.line().map_or(what.clone(), |line| format!("{what} (line {line})"))
}
