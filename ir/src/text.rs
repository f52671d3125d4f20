//! Tokenizer and chat template as data: what a bundle carries of a model's text side.

use serde::{Deserialize, Serialize};

/// How text becomes tokens, as `tokenizer.ggml.model` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenizerKind {
    /// Byte-level BPE with merges (`gpt2`).
    Bpe(PreTokenizer),
    /// SentencePiece with scores and byte fallback (`llama`).
    Spm,
}

/// The split applied before BPE merges, as `tokenizer.ggml.pre` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PreTokenizer {
    /// `default` and files without the key.
    Default,
    /// `gpt-2` and names that share its expression.
    Gpt2,
    /// `llama3`, `llama-bpe` and names that share its expression.
    Llama3,
    /// `qwen2` and names that share its expression.
    Qwen2,
}

/// `tokenizer.ggml.token_type`, numbered as in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenType {
    /// Ordinary text.
    Normal = 1,
    /// The unknown token.
    Unknown = 2,
    /// Control token, matched in text only where special tokens are parsed, and printed as nothing.
    Control = 3,
    /// Added by a user: matched in text always.
    UserDefined = 4,
    /// Never produced and printed as nothing. Type 0 ("undefined") and numbers that mean nothing read as this one.
    Unused = 5,
    /// One byte of the SPM fallback, written `<0xNN>`.
    Byte = 6,
}

/// Everything that turns text into token ids and back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenizerData {
    /// The algorithm.
    pub kind: TokenizerKind,
    /// Text of each token, by id. BPE: in GPT-2's byte-to-character alphabet; SPM: with U+2581 for a space.
    pub tokens: Vec<String>,
    /// SPM scores by id; empty for BPE.
    pub scores: Vec<f32>,
    /// Types by id.
    pub types: Vec<TokenType>,
    /// BPE merges in order of rank, `left right`; empty for SPM. Of a merge that is listed twice the first rank counts.
    pub merges: Vec<String>,
    /// Beginning of sequence. A file without the key: 1 for SPM and 11 for BPE (llama.cpp's defaults), none where that is outside the vocabulary.
    pub bos: Option<u32>,
    /// End of sequence. A file without the key: 2 for SPM and 11 for BPE, none where that is outside the vocabulary.
    pub eos: Option<u32>,
    /// Further ids at which generation ends (end of turn, end of message).
    pub end_of_generation: Vec<u32>,
    /// The unknown token. A file without the key: 0 for SPM, none for BPE.
    pub unk: Option<u32>,
    /// Whether BOS is put before a text. A file without the key: yes for SPM and [`PreTokenizer::Llama3`], else no.
    pub add_bos: bool,
    /// Whether EOS is put behind a text. A file without the key: no.
    pub add_eos: bool,
    /// SPM: whether a space is put before a text and behind every special token. A file without the key: yes for SPM.
    pub add_space_prefix: bool,
    /// Whether decoding a whole text drops the spaces before punctuation, as BPE vocabularies without a contrary
    /// pre-tokenizer ask (`default`, `gpt-2`, `llama-bpe` yes; `qwen2` no; SPM no). Streamed text never does.
    pub clean_spaces: bool,
    /// Special tokens that swallow the white space before them. No key carries them: llama.cpp knows them by name
    /// (`<mask>` of some BERT-like models).
    pub lstrip: Vec<u32>,
    /// Special tokens that swallow the white space behind them. No key carries them: in llama.cpp those of files whose
    /// `general.name` contains `phi-3` or `phi3` (any case), except `<unk>`, `<s>` and `<|endoftext|>`.
    pub rstrip: Vec<u32>,
    /// Jinja source of the chat template.
    pub chat_template: Option<String>,
}
