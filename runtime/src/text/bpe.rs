//! Byte-level BPE: GPT-2's byte alphabet, and merges by rank on a heap.
//!
//! Strings are interned once ("pieces": the tokens, then the strings that only merges know), so a merge is a look-up of a
//! pair of numbers, and a word of n bytes takes n log n steps however long it is.

use super::split;
use hipc_ir::text::PreTokenizer;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// GPT-2's alphabet: the character that stands for each byte. Printable Latin-1 stands for itself, the others are U+0100
/// and up in order (`bytes_to_unicode` of GPT-2's encoder.py).
pub(super) fn alphabet() -> [char; 256] {
    let mut table = ['\0'; 256];
    let mut next = 0x100u32;
    for byte in 0..=255u8 {
        table[byte as usize] = if matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) {
            byte as char
        } else {
            next += 1;
            char::from_u32(next - 1).unwrap_or(char::REPLACEMENT_CHARACTER)
        };
    }
    table
}

/// No piece, no symbol, no token.
const NONE: u32 = u32::MAX;

/// What a pair of neighbours becomes.
#[derive(Clone, Copy, Debug)]
struct Merge {
    rank: u32,
    piece: u32,
}

/// The merges and the vocabulary of a BPE model.
#[derive(Debug)]
pub(super) struct Bpe {
    pre: PreTokenizer,
    /// Llama 3's: a word that is a token isn't split, whatever the merges say.
    ignore_merges: bool,
    alphabet: [char; 256],
    /// The piece of each byte.
    bytes: [u32; 256],
    /// Tokens come first: a piece below this number is the token of that id.
    tokens: u32,
    pieces: HashMap<Box<str>, u32>,
    merges: HashMap<(u32, u32), Merge>,
}

/// One symbol of a word that is being merged; a list linked by index.
#[derive(Clone, Copy)]
struct Symbol {
    piece: u32,
    /// Bytes of the word that it stands for.
    start: u32,
    previous: u32,
    next: u32,
}

impl Bpe {
    /// Interns the vocabulary. Merges that aren't two strings with a space between can never apply and are left out, like
    /// repetitions of an earlier one: llama.cpp does the same.
    pub(super) fn new(pre: PreTokenizer, tokens: &[String], merges: &[String]) -> Bpe {
        let mut pieces: HashMap<Box<str>, u32> = HashMap::with_capacity(tokens.len() + 256);
        for (id, token) in tokens.iter().enumerate().filter(|(_, token)| !token.is_empty()) {
            pieces.insert(token.as_str().into(), id as u32);
        }
        let mut count = tokens.len() as u32;
        let mut intern = |text: &str| match pieces.get(text) {
            Some(&piece) => piece,
            None => {
                pieces.insert(text.into(), count);
                count += 1;
                count - 1
            }
        };
        let alphabet = alphabet();
        let bytes = alphabet.map(|c| intern(c.encode_utf8(&mut [0; 4])));
        let mut table = HashMap::with_capacity(merges.len());
        let mut whole = String::new();
        for (rank, merge) in merges.iter().enumerate() {
            // A token may itself begin with a space, so the first byte is never the separator.
            let Some(space) = merge.bytes().skip(1).position(|b| b == b' ').map(|at| at + 1) else { continue };
            let (Some(left), Some(right)) = (merge.get(..space), merge.get(space + 1..)) else { continue };
            whole.clear();
            whole.push_str(left);
            whole.push_str(right);
            let made = Merge { rank: rank as u32, piece: intern(&whole) };
            table.entry((intern(left), intern(right))).or_insert(made);
        }
        let ignore_merges = pre == PreTokenizer::Llama3;
        Bpe { pre, ignore_merges, alphabet, bytes, tokens: tokens.len() as u32, pieces, merges: table }
    }

    /// Appends the ids of a text without special tokens. Bytes that no token stands for are dropped.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        let mut scratch = Scratch::default();
        for word in split::words(self.pre, text) {
            self.encode_word(word.as_bytes(), &mut scratch, ids);
        }
    }

    fn encode_word(&self, word: &[u8], scratch: &mut Scratch, ids: &mut Vec<u32>) {
        if self.ignore_merges {
            scratch.spelled.clear();
            scratch.spelled.extend(word.iter().map(|&byte| self.alphabet[byte as usize]));
            if let Some(&piece) = self.pieces.get(scratch.spelled.as_str()).filter(|&&piece| piece < self.tokens) {
                ids.push(piece);
                return;
            }
        }
        self.merge(word, scratch);
        let mut at = 0;
        while at != NONE {
            let symbol = scratch.symbols[at as usize];
            if symbol.piece < self.tokens {
                ids.push(symbol.piece);
            } else {
                let end = scratch.symbols.get(symbol.next as usize).map_or(word.len(), |next| next.start as usize);
                self.spell(&word[symbol.start as usize..end], ids);
            }
            at = symbol.next;
        }
    }

    /// What llama.cpp does with a merged string that isn't a token: one token per byte of its *spelling*, which exists only
    /// for the bytes that the alphabet spells in ASCII; the others are dropped.
    fn spell(&self, bytes: &[u8], ids: &mut Vec<u32>) {
        let ascii = bytes.iter().filter(|&&byte| self.alphabet[byte as usize].is_ascii());
        ids.extend(ascii.map(|&byte| self.bytes[byte as usize]).filter(|&piece| piece < self.tokens));
    }

    /// Applies merges, lowest rank first, leftmost first among equals, until none is left. The first symbol stays first.
    fn merge(&self, word: &[u8], scratch: &mut Scratch) {
        let Scratch { symbols, heap, .. } = scratch;
        symbols.clear();
        heap.clear();
        symbols.extend(word.iter().enumerate().map(|(at, &byte)| Symbol {
            piece: self.bytes[byte as usize],
            start: at as u32,
            previous: (at as u32).wrapping_sub(1),
            next: if at + 1 < word.len() { at as u32 + 1 } else { NONE },
        }));
        let consider = |symbols: &[Symbol], heap: &mut Heap, left: u32, right: u32| {
            if left == NONE || right == NONE {
                return;
            }
            let pair = (symbols[left as usize].piece, symbols[right as usize].piece);
            if let Some(merge) = self.merges.get(&pair) {
                heap.push(Reverse((merge.rank, left, right, pair)));
            }
        };
        for left in 1..symbols.len() as u32 {
            consider(symbols, heap, left - 1, left);
        }
        while let Some(Reverse((_, left, right, pair))) = heap.pop() {
            // An entry is stale when either side has been merged since: a swallowed symbol has no piece any more.
            let (l, r) = (symbols[left as usize], symbols[right as usize]);
            if (l.piece, r.piece) != pair {
                continue;
            }
            let Some(merge) = self.merges.get(&pair) else { continue };
            symbols[left as usize].piece = merge.piece;
            symbols[left as usize].next = r.next;
            symbols[right as usize].piece = NONE;
            if let Some(after) = symbols.get_mut(r.next as usize) {
                after.previous = left;
            }
            consider(symbols, heap, l.previous, left);
            consider(symbols, heap, left, r.next);
        }
    }
}

type Heap = BinaryHeap<Reverse<(u32, u32, u32, (u32, u32))>>;

/// Buffers kept from word to word.
#[derive(Default)]
struct Scratch {
    symbols: Vec<Symbol>,
    heap: Heap,
    spelled: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| s.to_string()).collect()
    }

    fn encode(bpe: &Bpe, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        bpe.encode(text, &mut ids);
        ids
    }

    #[test]
    fn alphabet_is_gpt2s() {
        let table = alphabet();
        assert_eq!(table[b' ' as usize], 'Ġ');
        assert_eq!(table[b'\n' as usize], 'Ċ');
        assert_eq!(table[0], 'Ā');
        assert_eq!(table[0xad], 'Ń');
        assert_eq!(table.iter().collect::<std::collections::HashSet<_>>().len(), 256);
    }

    #[test]
    fn lowest_rank_wins_and_equals_go_left_to_right() {
        let tokens = strings(&["a", "b", "c", "ab", "bc", "abc", "aa"]);
        let bpe = Bpe::new(PreTokenizer::Gpt2, &tokens, &strings(&["b c", "a b", "a bc", "a a"]));
        assert_eq!(encode(&bpe, "abc"), [5]);
        assert_eq!(encode(&bpe, "aaa"), [6, 0]);
        assert_eq!(encode(&bpe, "ab"), [3]);
    }

    #[test]
    fn results_outside_the_vocabulary_are_spelled() {
        let tokens = strings(&["a", "b"]);
        let bpe = Bpe::new(PreTokenizer::Gpt2, &tokens, &strings(&["a b", "", "nospace", "a b"]));
        assert_eq!(encode(&bpe, "abx"), [0, 1]);
    }

    #[test]
    fn llama3_takes_whole_words() {
        let tokens = strings(&["a", "b", "c", "ab", "abc"]);
        let merges = strings(&["a b"]);
        assert_eq!(encode(&Bpe::new(PreTokenizer::Llama3, &tokens, &merges), "abc"), [4]);
        assert_eq!(encode(&Bpe::new(PreTokenizer::Qwen2, &tokens, &merges), "abc"), [3, 2]);
    }
}
