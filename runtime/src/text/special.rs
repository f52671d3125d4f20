//! Special and user-defined tokens inside a text.
//!
//! llama.cpp searches the text for one special token after the other, the longest first, each in the pieces that the
//! earlier ones left. Done literally, that costs vocabulary × text. The same cut comes from collecting all occurrences in
//! one pass per length and accepting them in that order where they don't overlap an accepted one.

use hipc_ir::text::{TokenType, TokenizerData};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

/// A piece of text, or a token that was written out in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fragment<'t> {
    Text(&'t str),
    Token(u32),
}

#[derive(Clone, Copy, Debug)]
struct Special {
    id: u32,
    /// Control and unknown tokens: matched only where special tokens are parsed.
    hidden: bool,
    lstrip: bool,
    rstrip: bool,
}

/// The tokens that are matched before the text is tokenized.
#[derive(Debug, Default)]
pub(super) struct Specials {
    /// By length, then by text.
    by_length: BTreeMap<usize, HashMap<Box<[u8]>, Special>>,
    first_bytes: HashSet<u8>,
}

/// `isspace` of the C locale, which llama.cpp strips.
fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ')
}

impl Specials {
    pub(super) fn new(data: &TokenizerData) -> Specials {
        let mut specials = Specials::default();
        let lstrip: HashSet<u32> = data.lstrip.iter().copied().collect();
        let rstrip: HashSet<u32> = data.rstrip.iter().copied().collect();
        for (id, (text, kind)) in data.tokens.iter().zip(&data.types).enumerate() {
            let id = id as u32;
            let hidden = match kind {
                TokenType::Control | TokenType::Unknown => true,
                TokenType::UserDefined => false,
                TokenType::Normal | TokenType::Unused | TokenType::Byte => continue,
            };
            let Some(&first) = text.as_bytes().first() else { continue };
            let special = Special { id, hidden, lstrip: lstrip.contains(&id), rstrip: rstrip.contains(&id) };
            specials.first_bytes.insert(first);
            specials.by_length.entry(text.len()).or_default().insert(text.as_bytes().into(), special);
        }
        specials
    }

    /// Cuts a text at its special tokens.
    pub(super) fn cut<'t>(&self, text: &'t str, parse_special: bool) -> Vec<Fragment<'t>> {
        let bytes = text.as_bytes();
        let mut open: Vec<usize> = (0..bytes.len()).filter(|&at| self.first_bytes.contains(&bytes[at])).collect();
        let mut taken = vec![false; bytes.len()];
        let mut accepted = Vec::new();
        for (&len, texts) in self.by_length.iter().rev() {
            let special = |at: usize| texts.get(bytes.get(at..at + len)?).filter(|s| parse_special || !s.hidden);
            let mut found: Vec<(Special, usize)> = open.iter().filter_map(|&at| Some((*special(at)?, at))).collect();
            // Of one length in order of id, of one token from left to right.
            found.sort_by_key(|&(special, at)| (special.id, at));
            for (special, at) in found {
                if !taken[at..at + len].contains(&true) {
                    take(&mut taken, bytes, special, at..at + len);
                    accepted.push((at, len, special.id));
                }
            }
            open.retain(|&at| !taken[at]);
        }
        accepted.sort_unstable();
        assemble(text, &taken, &accepted)
    }
}

/// Takes the bytes of a token, and the white space that it swallows.
fn take(taken: &mut [bool], bytes: &[u8], special: Special, range: Range<usize>) {
    taken[range.clone()].fill(true);
    let free = |taken: &[bool], i: usize| !taken[i] && is_space(bytes[i]);
    let mut before = range.start;
    while special.lstrip && before > 0 && free(taken, before - 1) {
        before -= 1;
        taken[before] = true;
    }
    let mut behind = range.end;
    while special.rstrip && behind < bytes.len() && free(taken, behind) {
        taken[behind] = true;
        behind += 1;
    }
}

/// The tokens and the untaken runs between them, in order.
fn assemble<'t>(text: &'t str, taken: &[bool], accepted: &[(usize, usize, u32)]) -> Vec<Fragment<'t>> {
    let mut fragments = Vec::new();
    let text_between = |from: usize, to: usize, fragments: &mut Vec<Fragment<'t>>| {
        // Only white space at either end can be taken, so what is left is one run.
        let start = (from..to).find(|&i| !taken[i]);
        let end = (from..to).rfind(|&i| !taken[i]);
        if let (Some(start), Some(end)) = (start, end) {
            fragments.push(Fragment::Text(&text[start..=end]));
        }
    };
    let mut at = 0;
    for &(start, len, id) in accepted {
        text_between(at, start, &mut fragments);
        fragments.push(Fragment::Token(id));
        at = start + len;
    }
    text_between(at, text.len(), &mut fragments);
    fragments
}

#[cfg(test)]
mod tests {
    use super::*;
    use hipc_ir::text::{PreTokenizer, TokenizerKind};
    use proptest::prelude::*;

    fn data(tokens: &[&str], kinds: &[TokenType], lstrip: &[u32], rstrip: &[u32]) -> TokenizerData {
        TokenizerData {
            kind: TokenizerKind::Bpe(PreTokenizer::Gpt2),
            tokens: tokens.iter().map(|t| t.to_string()).collect(),
            scores: Vec::new(),
            types: kinds.to_vec(),
            merges: Vec::new(),
            bos: None,
            eos: None,
            end_of_generation: Vec::new(),
            unk: None,
            add_bos: false,
            add_eos: false,
            add_space_prefix: false,
            clean_spaces: false,
            lstrip: lstrip.to_vec(),
            rstrip: rstrip.to_vec(),
            chat_template: None,
        }
    }

    /// The cut as it is defined: one token after the other, the longest first, in every piece that is still text.
    fn literally(data: &TokenizerData, text: &str) -> Vec<(Option<u32>, String)> {
        let mut order: Vec<u32> =
            (0..data.tokens.len() as u32).filter(|&id| data.types[id as usize] != TokenType::Normal).collect();
        order.sort_by_key(|&id| std::cmp::Reverse(data.tokens[id as usize].len()));
        let mut pieces = vec![(None, text.to_string())];
        let space = |c: char| c.is_ascii() && is_space(c as u8);
        for id in order {
            let token = &data.tokens[id as usize];
            let mut next = Vec::new();
            for (kind, piece) in pieces {
                let mut rest = piece.as_str();
                while let (None, Some(at)) = (kind, rest.find(token.as_str())) {
                    let left = if data.lstrip.contains(&id) { rest[..at].trim_end_matches(space) } else { &rest[..at] };
                    next.push((None, left.to_string()));
                    next.push((Some(id), token.clone()));
                    let right = &rest[at + token.len()..];
                    rest = if data.rstrip.contains(&id) { right.trim_start_matches(space) } else { right };
                }
                next.push((kind, rest.to_string()));
            }
            pieces = next;
        }
        pieces.retain(|(kind, piece)| kind.is_some() || !piece.is_empty());
        pieces
    }

    proptest! {
        #[test]
        fn cut_is_the_literal_one(text in "[ab<>é \n]{0,30}") {
            let tokens = ["a", "<a>", "<b>", "a>", "<", "é<", "ab", "x"];
            let mut kinds = [TokenType::UserDefined; 8];
            kinds[0] = TokenType::Normal;
            kinds[2] = TokenType::Control;
            let data = data(&tokens, &kinds, &[1], &[2, 4]);
            let got: Vec<(Option<u32>, String)> = Specials::new(&data).cut(&text, true).into_iter().map(|fragment| match fragment {
                Fragment::Text(text) => (None, text.to_string()),
                Fragment::Token(id) => (Some(id), tokens[id as usize].to_string()),
            }).collect();
            prop_assert_eq!(got, literally(&data, &text));
        }
    }

    #[test]
    fn control_tokens_are_matched_only_when_asked_for() {
        let data = data(&["<c>", "<u>", "<n>"], &[TokenType::Control, TokenType::UserDefined, TokenType::Normal], &[], &[]);
        let specials = Specials::new(&data);
        assert_eq!(specials.cut("<c><u><n>", false), [Fragment::Text("<c>"), Fragment::Token(1), Fragment::Text("<n>")]);
        assert_eq!(specials.cut("<c><u><n>", true), [Fragment::Token(0), Fragment::Token(1), Fragment::Text("<n>")]);
    }
}
