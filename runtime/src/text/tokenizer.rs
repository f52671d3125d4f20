//! Text to token ids and back.

use super::bpe::{self, Bpe};
use super::error::TextError;
use super::special::{Fragment, Specials};
use super::spm::{self, Spm};
use super::stream::StreamDecoder;
use hipc_ir::text::{TokenType, TokenizerData, TokenizerKind};
use std::collections::{HashMap, HashSet};

/// A model's tokenizer. Gives the ids that llama.cpp gives for the same file.
#[derive(Debug)]
pub struct Tokenizer {
    model: Model,
    specials: Specials,
    tokens: Vec<String>,
    types: Vec<TokenType>,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    add_eos: bool,
    add_space_prefix: bool,
    clean_spaces: bool,
    end_of_generation: HashSet<u32>,
}

#[derive(Debug)]
enum Model {
    Bpe(Box<Bpe>, HashMap<char, u8>),
    Spm(Spm),
}

impl Tokenizer {
    /// Indexes a vocabulary: some 0.2 s for 150 000 tokens and as many merges.
    ///
    /// # Errors
    /// [`TextError::Vocabulary`] if the lists contradict each other: no tokens, lengths that differ, ids outside the
    /// vocabulary, a BOS or EOS to be added that isn't named, byte tokens that name no byte, scores that aren't numbers.
    pub fn new(data: &TokenizerData) -> Result<Tokenizer, TextError> {
        check(data)?;
        let model = match data.kind {
            TokenizerKind::Bpe(pre) => {
                let bytes = bpe::alphabet().into_iter().zip(0..=255u8).collect();
                Model::Bpe(Box::new(Bpe::new(pre, &data.tokens, &data.merges)), bytes)
            }
            TokenizerKind::Spm => Model::Spm(Spm::new(&data.tokens, &data.scores, data.unk)?),
        };
        Ok(Tokenizer {
            model,
            specials: Specials::new(data),
            tokens: data.tokens.clone(),
            types: data.types.clone(),
            bos: data.bos,
            eos: data.eos,
            add_bos: data.add_bos,
            add_eos: data.add_eos,
            add_space_prefix: data.add_space_prefix && data.kind == TokenizerKind::Spm,
            clean_spaces: data.clean_spaces,
            end_of_generation: data.end_of_generation.iter().copied().chain(data.eos).collect(),
        })
    }

    /// The ids of a text. `add_special` puts BOS before and EOS behind it where the model asks for them; `parse_special`
    /// makes control tokens out of their names in the text (chat templates need it, a user's raw text shouldn't have it).
    pub fn encode(&self, text: &str, add_special: bool, parse_special: bool) -> Vec<u32> {
        let mut ids = Vec::new();
        if add_special && self.add_bos {
            ids.extend(self.bos);
        }
        let mut after_special = true;
        for fragment in self.specials.cut(text, parse_special) {
            match (fragment, &self.model) {
                (Fragment::Token(id), _) => ids.push(id),
                (Fragment::Text(text), Model::Bpe(bpe, _)) => bpe.encode(text, &mut ids),
                (Fragment::Text(text), Model::Spm(spm)) => {
                    let prefix = if self.add_space_prefix && after_special { " " } else { "" };
                    let marked: String =
                        prefix.chars().chain(text.chars()).map(|c| if c == ' ' { spm::SPACE } else { c }).collect();
                    spm.encode(&marked, &mut ids);
                    after_special = false;
                    continue;
                }
            }
            after_special = true;
        }
        if add_special && self.add_eos {
            ids.extend(self.eos);
        }
        ids
    }

    /// The ids of a rendered chat template: special tokens parsed, BOS added where the model asks for one and the
    /// template hasn't written it itself.
    pub fn encode_chat(&self, rendered: &str) -> Vec<u32> {
        let mut ids = self.encode(rendered, false, true);
        if self.add_bos && ids.first().copied() != self.bos {
            ids.splice(0..0, self.bos);
        }
        ids
    }

    /// The bytes of a whole text, with special tokens written out if `special`, else left out. Like llama.cpp's
    /// `llama_detokenize`, it drops the space that encoding put before an SPM text, and the spaces before punctuation where
    /// the vocabulary asks for it ([`TokenizerData::clean_spaces`]).
    ///
    /// # Errors
    /// [`TextError::UnknownId`] for an id outside the vocabulary.
    pub fn decode(&self, ids: &[u32], special: bool) -> Result<Vec<u8>, TextError> {
        let mut text = Vec::new();
        for (index, &id) in ids.iter().enumerate() {
            self.piece(id, special, &mut text)?;
            if index == 0 && self.add_space_prefix && text.first() == Some(&b' ') {
                text.remove(0);
            }
        }
        Ok(if self.clean_spaces { clean_spaces(text) } else { text })
    }

    /// A decoder for ids that come one by one.
    pub fn stream(&self, special: bool) -> StreamDecoder<'_> {
        StreamDecoder::new(self, special)
    }

    /// Appends the bytes of one token.
    pub(super) fn piece(&self, id: u32, special: bool, out: &mut Vec<u8>) -> Result<(), TextError> {
        let unknown = TextError::UnknownId { id, vocab: self.tokens.len() };
        let (Some(text), Some(&kind)) = (self.tokens.get(id as usize), self.types.get(id as usize)) else {
            return Err(unknown);
        };
        match kind {
            TokenType::Control | TokenType::Unknown if !special => {}
            TokenType::Control | TokenType::Unknown | TokenType::UserDefined => out.extend_from_slice(text.as_bytes()),
            TokenType::Byte => out.extend(byte_of(text)),
            TokenType::Unused => {}
            TokenType::Normal => match &self.model {
                Model::Spm(_) => out.extend(text.replace(spm::SPACE, " ").into_bytes()),
                // A character outside the alphabet stands for itself: such tokens were added by hand.
                Model::Bpe(_, bytes) => text.chars().for_each(|c| match bytes.get(&c) {
                    Some(&byte) => out.push(byte),
                    None => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                }),
            },
        }
        Ok(())
    }

    /// Whether generation ends at this id: end of sequence, of turn or of message.
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.end_of_generation.contains(&id)
    }

    /// The id that begins a sequence, if the model has one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The id that ends a sequence, if the model has one.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Number of tokens. Logits may have more columns (padding); those aren't tokens.
    pub fn vocab_size(&self) -> usize {
        self.tokens.len()
    }
}

/// The byte that a token named `<0xNN>` stands for.
fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

fn check(data: &TokenizerData) -> Result<(), TextError> {
    let fail = |reason: String| Err(TextError::Vocabulary(reason));
    let count = data.tokens.len();
    if count == 0 {
        return fail("it has no tokens".into());
    }
    if u32::try_from(count + data.merges.len() * 3 + 256).is_err() {
        return fail(format!("{count} tokens are too many"));
    }
    if data.types.len() != count {
        return fail(format!("{} types for {count} tokens", data.types.len()));
    }
    let named = [("BOS", data.bos), ("EOS", data.eos), ("unknown token", data.unk)];
    let named = named.into_iter().filter_map(|(name, id)| Some((name, id?)));
    let ends = data.end_of_generation.iter().map(|&id| ("end of generation", id));
    let strips = data.lstrip.iter().chain(&data.rstrip).map(|&id| ("stripping token", id));
    if let Some((name, id)) = named.chain(ends).chain(strips).find(|&(_, id)| id as usize >= count) {
        return fail(format!("{name} is id {id} of {count} tokens"));
    }
    if (data.add_bos && data.bos.is_none()) || (data.add_eos && data.eos.is_none()) {
        return fail("it asks for a BOS or EOS around each text but names none".into());
    }
    let bad_byte = data.tokens.iter().zip(&data.types).find(|(text, kind)| **kind == TokenType::Byte && byte_of(text).is_none());
    if let Some((text, _)) = bad_byte {
        return fail(format!("the byte token {text:?} names no byte"));
    }
    Ok(())
}

/// Hugging Face's `clean_up_tokenization_spaces` as llama.cpp does it, in three passes: the space goes before `?!.,`, both
/// go around a lone apostrophe, and the one before `'s`, `'m`, `'re`, `'ve` goes.
fn clean_spaces(text: Vec<u8>) -> Vec<u8> {
    let space_before = |text: &[u8], at: usize| at > 0 && text[at - 1] == b' ';

    let mut first = Vec::with_capacity(text.len());
    for (at, &byte) in text.iter().enumerate() {
        if space_before(&text, at) && b"?!.,".contains(&byte) {
            first.pop();
        }
        first.push(byte);
    }

    let mut second = Vec::with_capacity(first.len());
    let mut at = 0;
    while at < first.len() {
        let lone = first[at] == b'\'' && space_before(&first, at) && first.get(at + 1) == Some(&b' ');
        if lone && second.last() == Some(&b' ') {
            second.pop();
            second.push(b'\'');
            at += 2;
        } else {
            second.push(first[at]);
            at += 1;
        }
    }

    let mut third = Vec::with_capacity(second.len());
    for (at, &byte) in second.iter().enumerate() {
        let rest = &second[at..];
        let ending = [&b"'s"[..], b"'m", b"'re", b"'ve"].iter().any(|ending| rest.starts_with(ending));
        if space_before(&second, at) && ending {
            third.pop();
        }
        third.push(byte);
    }
    third
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_are_cleaned() {
        let clean = |s: &str| String::from_utf8(clean_spaces(s.as_bytes().to_vec())).unwrap();
        assert_eq!(clean("a , b . c  ! ?"), "a, b. c !?");
        assert_eq!(clean("it 's we 're I 'm 'd 't"), "it's we're I'm 'd 't");
        assert_eq!(clean("a ' b"), "a'b");
        assert_eq!(clean(" ' ' x"), "'' x");
        assert_eq!(clean(" .x"), ".x");
        assert_eq!(clean(""), "");
    }
}
