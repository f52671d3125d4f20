//! What can go wrong between text and token ids.

use thiserror::Error;

/// An error of the text side. Each variant says whose fault it is and what helps.
#[derive(Debug, Error, Clone, PartialEq)]
#[non_exhaustive]
pub enum TextError {
    /// The model's tokenizer contradicts itself (the file's fault).
    #[error("the model's tokenizer is unusable: {0}; convert the model again with a current converter")]
    Vocabulary(String),
    /// An id outside the vocabulary was to be decoded (the caller's fault).
    #[error("token id {id} is outside the vocabulary of {vocab} tokens")]
    UnknownId {
        /// The id.
        id: u32,
        /// Tokens in the vocabulary.
        vocab: usize,
    },
    /// The chat template isn't valid Jinja, or uses what isn't supported (the file's fault).
    #[error("the model's chat template can't be compiled: {0}; give the prompt without --chat, or another template")]
    TemplateSyntax(String),
    /// The chat template refused these messages through `raise_exception` (the user's fault).
    #[error("the model's chat template refuses these messages: {0}")]
    TemplateRefused(String),
    /// The chat template failed while it ran (the file's fault).
    #[error("the model's chat template failed: {0}; give the prompt without --chat, or another template")]
    TemplateFailed(String),
    /// The chat template ran longer, deeper or larger than any honest one (the file's fault).
    #[error("the model's chat template was stopped: {0}; it may be hostile or broken")]
    TemplateLimit(String),
    /// A sampling parameter is out of its range (the user's fault).
    #[error("{name} = {value} is out of range: {allowed}")]
    Parameter {
        /// The parameter as the command line names it.
        name: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// The model produced logits that can't be sampled from (ours, or the weights').
    #[error("the logits can't be sampled from: {0}; run `hipfire-run verify` on this bundle")]
    Logits(String),
}
