//! SentencePiece: the neighbours whose union is the token of the highest score merge first, characters that no token
//! covers become byte tokens.
//!
//! The heap holds at most two entries per merge, so n characters take n log n steps; each step hashes a string no longer
//! than the longest token.

use super::error::TextError;
use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

/// SentencePiece's mark for a space.
pub(super) const SPACE: char = '\u{2581}';

/// The vocabulary of an SPM model.
#[derive(Debug)]
pub(super) struct Spm {
    ids: HashMap<Box<str>, u32>,
    scores: Vec<f32>,
    /// Bytes of the longest token.
    longest: usize,
    /// The token of each byte.
    bytes: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Symbol {
    start: usize,
    /// 0 once it is swallowed by its left neighbour.
    len: usize,
    previous: Option<usize>,
    next: Option<usize>,
}

/// Two neighbours that may merge.
struct Bigram {
    score: f32,
    left: usize,
    right: usize,
    /// Bytes of both; a different sum later means that either has changed.
    len: usize,
}

impl Ord for Bigram {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_score = self.score.partial_cmp(&other.score).unwrap_or(Ordering::Equal);
        by_score.then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Bigram {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Bigram {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Bigram {}

impl Spm {
    /// Checks the scores and finds the byte tokens: `<0xNN>`, else the byte's own character, else the unknown token.
    pub(super) fn new(tokens: &[String], scores: &[f32], unknown: Option<u32>) -> Result<Spm, TextError> {
        if !scores.is_empty() && scores.len() != tokens.len() {
            return Err(TextError::Vocabulary(format!("{} scores for {} tokens", scores.len(), tokens.len())));
        }
        if let Some(id) = scores.iter().position(|score| score.is_nan()) {
            return Err(TextError::Vocabulary(format!("the score of token {id} is not a number")));
        }
        let scores = if scores.is_empty() { vec![0.0; tokens.len()] } else { scores.to_vec() };
        let mut ids: HashMap<Box<str>, u32> = HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate().filter(|(_, token)| !token.is_empty()) {
            ids.insert(token.as_str().into(), id as u32);
        }
        let mut bytes = Vec::with_capacity(256);
        for byte in 0..=255u8 {
            let own = if byte.is_ascii() { ids.get((byte as char).encode_utf8(&mut [0; 4]) as &str) } else { None };
            let id = ids.get(format!("<0x{byte:02X}>").as_str()).or(own).copied().or(unknown);
            bytes.push(id.ok_or_else(|| {
                TextError::Vocabulary(format!("it has neither a token for byte 0x{byte:02X} nor an unknown token"))
            })?);
        }
        let longest = tokens.iter().map(String::len).max().unwrap_or(0);
        Ok(Spm { ids, scores, longest, bytes })
    }

    /// Appends the ids of a text without special tokens, in which spaces are already marked.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        let mut symbols: Vec<Symbol> = Vec::with_capacity(text.len());
        for (index, (start, c)) in text.char_indices().enumerate() {
            let len = c.len_utf8();
            let next = (start + len < text.len()).then_some(index + 1);
            symbols.push(Symbol { start, len, previous: index.checked_sub(1), next });
        }
        let mut heap = BinaryHeap::with_capacity(symbols.len());
        for left in 1..symbols.len() {
            self.consider(text, &symbols, &mut heap, Some(left - 1), Some(left));
        }
        while let Some(Bigram { left, right, len, .. }) = heap.pop() {
            let (l, r) = (symbols[left], symbols[right]);
            if l.len == 0 || r.len == 0 || l.len + r.len != len {
                continue;
            }
            symbols[left].len = len;
            symbols[left].next = r.next;
            symbols[right].len = 0;
            if let Some(after) = r.next {
                symbols[after].previous = Some(left);
            }
            self.consider(text, &symbols, &mut heap, l.previous, Some(left));
            self.consider(text, &symbols, &mut heap, Some(left), r.next);
        }
        let mut at = (!symbols.is_empty()).then_some(0);
        while let Some(index) = at {
            let symbol = symbols[index];
            let piece = &text[symbol.start..symbol.start + symbol.len];
            match self.ids.get(piece) {
                Some(&id) => ids.push(id),
                None => ids.extend(piece.bytes().map(|byte| self.bytes[byte as usize])),
            }
            at = symbol.next;
        }
    }

    fn consider(&self, text: &str, symbols: &[Symbol], heap: &mut BinaryHeap<Bigram>, left: Option<usize>, right: Option<usize>) {
        let (Some(left), Some(right)) = (left, right) else { return };
        let len = symbols[left].len + symbols[right].len;
        if len > self.longest {
            return;
        }
        let start = symbols[left].start;
        if let Some(&id) = self.ids.get(&text[start..start + len]) {
            heap.push(Bigram { score: self.scores[id as usize], left, right, len });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(tokens: &[&str], scores: &[f32], text: &str) -> Vec<u32> {
        let tokens: Vec<String> = tokens.iter().map(|s| s.to_string()).collect();
        let spm = Spm::new(&tokens, scores, Some(0)).unwrap();
        let mut ids = Vec::new();
        spm.encode(text, &mut ids);
        ids
    }

    #[test]
    fn highest_score_first_then_leftmost() {
        let tokens = ["<unk>", "a", "b", "ab", "ba", "aba"];
        assert_eq!(encode(&tokens, &[0.0, 0.0, 0.0, -1.0, -2.0, -3.0], "aba"), [5]);
        assert_eq!(encode(&tokens, &[0.0, 0.0, 0.0, -1.0, -1.0, -3.0], "babab"), [4, 4, 2]);
    }

    #[test]
    fn uncovered_characters_become_bytes() {
        let tokens = ["<unk>", "<0xC3>", "a", "<0xA9>"];
        assert_eq!(encode(&tokens, &[], "aéz"), [2, 1, 3, 0]);
    }

    #[test]
    fn bad_vocabularies_are_named() {
        let tokens = vec!["a".to_string()];
        assert!(matches!(Spm::new(&tokens, &[f32::NAN], Some(0)), Err(TextError::Vocabulary(_))));
        assert!(matches!(Spm::new(&tokens, &[0.0, 1.0], Some(0)), Err(TextError::Vocabulary(_))));
        assert!(matches!(Spm::new(&tokens, &[0.0], None), Err(TextError::Vocabulary(_))));
    }
}
