//! `tokenizer.ggml.*` keys to [`TokenizerData`], by llama.cpp's rules (`llama_vocab::impl::load`).
//!
//! Where a file is silent llama.cpp fills in: BPE gets BOS = EOS = 11, SPM BOS 1, EOS 2, unknown 0; the LLaMA 3 family and SPM put BOS
//! before a text; an empty token is renamed `[EMPTY_id]`; tokens that end a turn are found by their text. Stricter than llama.cpp
//! on purpose: a special id outside of the vocabulary, a token twice, missing or non-finite SPM scores, a merge that
//! isn't two pieces, and a token type out of range are refused, as texts would come out wrong without a word.

use crate::{GgufFile, ModelError};
use hipc_ir::text::{PreTokenizer, TokenType, TokenizerData, TokenizerKind};
use std::collections::{BTreeSet, HashMap};

/// Tokenizer models (`tokenizer.ggml.model`) that are supported; `none` and `no_vocab` mean a model without a tokenizer.
pub const MODELS: [&str; 4] = ["gpt2", "llama", "none", "no_vocab"];

/// Pre-tokenizers (`tokenizer.ggml.pre`) that are supported, with the expression that they share.
pub const PRE_TOKENIZERS: [(&str, PreTokenizer); 25] = {
    use PreTokenizer::{Default, Gpt2, Llama3, Qwen2};
    [
        ("default", Default),
        ("gpt-2", Gpt2),
        ("phi-2", Gpt2),
        ("jina-es", Gpt2),
        ("jina-de", Gpt2),
        ("jina-v2-es", Gpt2),
        ("jina-v2-de", Gpt2),
        ("gigachat", Gpt2),
        ("a.x-4.0", Gpt2),
        ("mellum", Gpt2),
        ("modern-bert", Gpt2),
        ("exaone4", Gpt2),
        ("llama3", Llama3),
        ("llama-v3", Llama3),
        ("llama-bpe", Llama3),
        ("falcon3", Llama3),
        ("falcon-h1", Llama3),
        ("pixtral", Llama3),
        ("midm-2.0", Llama3),
        ("lfm2", Llama3),
        ("jina-v5-nano", Llama3),
        ("qwen2", Qwen2),
        ("deepseek-r1-qwen", Qwen2),
        ("kormo", Qwen2),
        ("f2llmv2", Qwen2),
    ]
};

/// Tokens at which generation ends wherever they occur, by text.
const END_OF_GENERATION: [&str; 22] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Fill-in-the-middle tokens: the key that names one, the texts it is found by otherwise, and whether it ends a generation.
const FILL_IN_MIDDLE: [(&str, &[&str], bool); 6] = [
    (
        "tokenizer.ggml.fim_pre_token_id",
        &[
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<｜fim▁begin｜>",
            "<PRE>",
            "▁<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ],
        false,
    ),
    (
        "tokenizer.ggml.fim_suf_token_id",
        &["<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>", "<|code_suffix|>", "<|suffix|>"],
        false,
    ),
    (
        "tokenizer.ggml.fim_mid_token_id",
        &["<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>", "<|code_middle|>", "<|middle|>"],
        false,
    ),
    ("tokenizer.ggml.fim_pad_token_id", &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"], true),
    ("tokenizer.ggml.fim_rep_token_id", &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"], true),
    ("tokenizer.ggml.fim_sep_token_id", &["<|file_sep|>"], true),
];

/// Marks of the harmony format, shown as text whatever the file says.
const ALWAYS_SHOWN: [&str; 4] = ["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// The names in [`PRE_TOKENIZERS`], for messages.
pub(crate) fn pre_tokenizers() -> String {
    PRE_TOKENIZERS.map(|(name, _)| name).join(", ")
}

fn bad(key: &'static str, reason: impl Into<String>) -> ModelError {
    ModelError::BadTokenizer { key, reason: reason.into() }
}

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";

/// Reads the tokenizer of a model or of a vocabulary-only file; `None` where the file says that there is none.
pub fn read(gguf: &GgufFile) -> Result<Option<TokenizerData>, ModelError> {
    let missing = |key: &str| ModelError::Gguf(crate::GgufError::MissingKey(key.into()));
    let model = gguf.text("tokenizer.ggml.model")?.ok_or_else(|| missing("tokenizer.ggml.model"))?;
    let kind = match model {
        "gpt2" => TokenizerKind::Bpe(pre_tokenizer(gguf)?),
        "llama" => TokenizerKind::Spm,
        "none" | "no_vocab" => return Ok(None),
        other => return Err(ModelError::UnsupportedTokenizer(other.into())),
    };
    let spm = kind == TokenizerKind::Spm;

    let tokens = tokens(gguf)?;
    let by_text = index(&tokens)?;
    let mut types = types(gguf, tokens.len())?;
    let scores = if spm { scores(gguf, tokens.len())? } else { Vec::new() };
    let merges = if spm { Vec::new() } else { merges(gguf)? };

    let n = tokens.len();
    let default = |id: u32| Some(id).filter(|&id| (id as usize) < n);
    let (bos, eos, unk) = if spm { (default(1), default(2), default(0)) } else { (default(11), default(11), None) };
    let bos = special(gguf, "tokenizer.ggml.bos_token_id", n)?.or(bos);
    let eos = special(gguf, "tokenizer.ggml.eos_token_id", n)?.or(eos);
    let unk = special(gguf, "tokenizer.ggml.unknown_token_id", n)?.or(unk);
    let end_of_generation = ends(gguf, &by_text, &mut types, eos)?;
    let (lstrip, rstrip) = strips(gguf, &by_text, &types)?;

    let llama3 = kind == TokenizerKind::Bpe(PreTokenizer::Llama3);
    Ok(Some(TokenizerData {
        kind,
        clean_spaces: !spm && kind != TokenizerKind::Bpe(PreTokenizer::Qwen2),
        lstrip,
        rstrip,
        types,
        scores,
        merges,
        bos,
        eos,
        end_of_generation,
        unk,
        add_bos: gguf.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(spm || llama3),
        add_eos: gguf.bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false),
        add_space_prefix: gguf.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(spm),
        chat_template: gguf.text("tokenizer.chat_template")?.map(str::to_string),
        tokens,
    }))
}

fn pre_tokenizer(gguf: &GgufFile) -> Result<PreTokenizer, ModelError> {
    let name = gguf.text("tokenizer.ggml.pre")?.filter(|s| !s.is_empty()).unwrap_or("default");
    let known = PRE_TOKENIZERS.iter().find(|(n, _)| *n == name);
    known.map(|&(_, p)| p).ok_or_else(|| ModelError::UnsupportedPreTokenizer(name.into()))
}

fn tokens(gguf: &GgufFile) -> Result<Vec<String>, ModelError> {
    let texts = gguf.texts(TOKENS)?.ok_or_else(|| bad(TOKENS, "the key is missing"))?;
    if texts.is_empty() {
        return Err(bad(TOKENS, "there are no tokens"));
    }
    let name = |(id, t): (usize, &str)| if t.is_empty() { format!("[EMPTY_{id}]") } else { t.to_string() };
    Ok(texts.into_iter().enumerate().map(name).collect())
}

fn index(tokens: &[String]) -> Result<HashMap<&str, u32>, ModelError> {
    let mut map = HashMap::with_capacity(tokens.len());
    for (id, t) in tokens.iter().enumerate() {
        let id = u32::try_from(id).map_err(|_| bad(TOKENS, "more than 2^32 tokens"))?;
        if let Some(first) = map.insert(t.as_str(), id) {
            return Err(bad(TOKENS, format!("ids {first} and {id} are both {t:?}")));
        }
    }
    Ok(map)
}

/// Longer lists than the vocabulary are cut, as llama.cpp does.
fn types(gguf: &GgufFile, n: usize) -> Result<Vec<TokenType>, ModelError> {
    let Some(ids) = gguf.integers(TYPES)? else { return Ok(vec![TokenType::Normal; n]) };
    if ids.len() < n {
        return Err(bad(TYPES, format!("{} types for {n} tokens", ids.len())));
    }
    let one = |(id, &t): (usize, &i64)| match t {
        1 => Ok(TokenType::Normal),
        2 => Ok(TokenType::Unknown),
        3 => Ok(TokenType::Control),
        4 => Ok(TokenType::UserDefined),
        // 0 is "undefined", which llama.cpp never prints either.
        0 | 5 => Ok(TokenType::Unused),
        6 => Ok(TokenType::Byte),
        t => Err(bad(TYPES, format!("token {id} has type {t}, known are 0 to 6"))),
    };
    ids.iter().take(n).enumerate().map(one).collect()
}

fn scores(gguf: &GgufFile, n: usize) -> Result<Vec<f32>, ModelError> {
    let mut scores = gguf.floats(SCORES)?.ok_or_else(|| bad(SCORES, "the key is missing"))?;
    if scores.len() < n {
        return Err(bad(SCORES, format!("{} scores for {n} tokens", scores.len())));
    }
    scores.truncate(n);
    match scores.iter().position(|s| !s.is_finite()) {
        Some(id) => Err(bad(SCORES, format!("the score of token {id} is {}", scores[id]))),
        None => Ok(scores),
    }
}

fn merges(gguf: &GgufFile) -> Result<Vec<String>, ModelError> {
    let merges = gguf.texts(MERGES)?.ok_or_else(|| bad(MERGES, "the key is missing"))?;
    let two = |m: &str| m.char_indices().skip(1).find(|&(_, c)| c == ' ').is_some_and(|(i, _)| i + 1 < m.len());
    match merges.iter().position(|m| !two(m)) {
        Some(i) => Err(bad(MERGES, format!("merge {i}, {:?}, is not two pieces with a space between", merges[i]))),
        None => Ok(merges.into_iter().map(str::to_string).collect()),
    }
}

/// A special id that a key names; it must be a token.
fn special(gguf: &GgufFile, key: &'static str, n: usize) -> Result<Option<u32>, ModelError> {
    let Some(id) = gguf.u32(key)? else { return Ok(None) };
    if (id as usize) < n { Ok(Some(id)) } else { Err(bad(key, format!("{id} is not one of the {n} tokens"))) }
}

/// Ids other than `eos` at which generation ends, ascending; tokens found by their text become control tokens.
fn ends(
    gguf: &GgufFile,
    by_text: &HashMap<&str, u32>,
    types: &mut [TokenType],
    eos: Option<u32>,
) -> Result<Vec<u32>, ModelError> {
    let n = types.len();
    let mut ends = BTreeSet::new();
    for (key, texts, is_end) in FILL_IN_MIDDLE {
        let keyed = special(gguf, key, n)?;
        let found = || texts.iter().filter_map(|t| by_text.get(t)).min().copied();
        let id = keyed.or_else(found);
        if let (Some(id), None) = (id, keyed) {
            types[id as usize] = TokenType::Control;
        }
        ends.extend(id.filter(|_| is_end));
    }
    for id in END_OF_GENERATION.iter().filter_map(|t| by_text.get(t)) {
        ends.insert(*id);
        types[*id as usize] = TokenType::Control;
    }
    for id in ALWAYS_SHOWN.iter().filter_map(|t| by_text.get(t)) {
        types[*id as usize] = TokenType::UserDefined;
    }
    ends.extend(special(gguf, "tokenizer.ggml.eot_token_id", n)?);
    ends.extend(special(gguf, "tokenizer.ggml.eom_token_id", n)?);
    Ok(ends.into_iter().filter(|&id| Some(id) != eos).collect())
}

/// Ids that swallow the white space before and behind them. No key says so: llama.cpp knows these models by name.
fn strips(gguf: &GgufFile, by_text: &HashMap<&str, u32>, types: &[TokenType]) -> Result<(Vec<u32>, Vec<u32>), ModelError> {
    let pre = gguf.text("tokenizer.ggml.pre")?.unwrap_or_default();
    let name = gguf.text("general.name")?.unwrap_or_default().to_ascii_lowercase();
    let mask = match () {
        () if ["jina-v2-de", "jina-v2-es"].contains(&pre) => by_text.get("<mask>"),
        () if name.contains("modern-bert") => by_text.get("[MASK]"),
        () => None,
    };
    let mut behind = BTreeSet::new();
    if name.contains("phi-3") || name.contains("phi3") {
        let special = |t: &TokenType| matches!(t, TokenType::Control | TokenType::UserDefined | TokenType::Unknown);
        behind.extend((0..).zip(types).filter(|(_, t)| special(t)).map(|(id, _)| id));
        behind.extend(by_text.get("</s>"));
        for not in ["<unk>", "<s>", "<|endoftext|>"] {
            by_text.get(not).map(|id| behind.remove(id));
        }
    }
    Ok((mask.into_iter().copied().collect(), behind.into_iter().collect()))
}
