//! The four character classes that the pre-tokenizers tell apart, and punctuation.
//!
//! `\s` is the standard library's `is_whitespace` (White_Space). The general categories come from `regex-syntax`, whose
//! tables are those of the Unicode Character Database, cut back to the characters of Unicode 15.1: llama.cpp's tables are
//! of that version, and characters that were assigned since are "other" there.

use regex_syntax::hir::{Class as HirClass, HirKind};
use std::sync::LazyLock;

/// The version of llama.cpp's tables.
const VERSION: &str = "15.1";

/// What a character is to a pre-tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// `\p{L}`
    Letter,
    /// `\p{N}`
    Number,
    /// `\s`
    Space,
    /// Everything else, unassigned characters included.
    Other,
}

/// Sorted, disjoint, inclusive ranges.
struct Ranges(Vec<(char, char)>);

impl Ranges {
    /// The characters of a general category; none if there is no such category.
    fn of(category: &str) -> Ranges {
        let hir = regex_syntax::parse(&format!(r"[\p{{{category}}}&&\p{{age={VERSION}}}]")).ok();
        let ranges = match hir.as_ref().map(|h| h.kind()) {
            Some(HirKind::Class(HirClass::Unicode(class))) => class.iter().map(|r| (r.start(), r.end())).collect(),
            _ => Vec::new(),
        };
        Ranges(ranges)
    }

    fn contains(&self, c: char) -> bool {
        let after = self.0.partition_point(|&(start, _)| start <= c);
        after > 0 && c <= self.0[after - 1].1
    }
}

static LETTERS: LazyLock<Ranges> = LazyLock::new(|| Ranges::of("L"));
static NUMBERS: LazyLock<Ranges> = LazyLock::new(|| Ranges::of("N"));
static PUNCTUATION: LazyLock<Ranges> = LazyLock::new(|| Ranges::of("P"));

impl Class {
    /// The class of a character.
    pub(super) fn of(c: char) -> Class {
        if c.is_ascii() {
            match c {
                'a'..='z' | 'A'..='Z' => Class::Letter,
                '0'..='9' => Class::Number,
                '\t'..='\r' | ' ' => Class::Space,
                _ => Class::Other,
            }
        } else if LETTERS.contains(c) {
            Class::Letter
        } else if NUMBERS.contains(c) {
            Class::Number
        } else if c.is_whitespace() {
            Class::Space
        } else {
            Class::Other
        }
    }
}

/// Whether a character is in `\p{P}`.
pub(super) fn is_punctuation(c: char) -> bool {
    PUNCTUATION.contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_there_and_agree_with_ascii() {
        for byte in 0..128u8 {
            let c = byte as char;
            assert_eq!(Class::of(c) == Class::Letter, LETTERS.contains(c), "{c:?}");
            assert_eq!(Class::of(c) == Class::Number, NUMBERS.contains(c), "{c:?}");
            assert_eq!(Class::of(c) == Class::Space, c.is_whitespace(), "{c:?}");
            let symbol = "$+<=>^`|~".contains(c);
            assert_eq!(is_punctuation(c), c.is_ascii_punctuation() && !symbol, "{c:?}");
        }
        assert_eq!(Class::of('ß'), Class::Letter);
        assert_eq!(Class::of('語'), Class::Letter);
        assert_eq!(Class::of('Ⅷ'), Class::Number);
        assert_eq!(Class::of('²'), Class::Number);
        assert_eq!(Class::of('\u{3000}'), Class::Space);
        assert_eq!(Class::of('\u{85}'), Class::Space);
        assert_eq!(Class::of('\u{200b}'), Class::Other);
        assert_eq!(Class::of('😀'), Class::Other);
        assert_eq!(Class::of('\u{301}'), Class::Other);
        assert_eq!(Class::of('\u{1c89}'), Class::Other, "a letter since Unicode 16");
        assert!(is_punctuation('、'));
    }
}
