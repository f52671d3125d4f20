//! The splits into words before BPE merges.
//!
//! Each is a single pass that follows llama.cpp's own splitter for the expression of the same name. They are written out
//! instead of being run by a regular-expression engine for two reasons: the expressions need look-ahead (`\s+(?!\S)`), so
//! only backtracking engines take them, whose step limits a long run of spaces reaches; and llama.cpp's splitters differ
//! from the expressions in places (its GPT-2 expression has no branch for a final run of spaces, its splitter has one).

use super::unicode::{Class, is_punctuation};
use hipc_ir::text::PreTokenizer;
use std::ops::Range;

/// The words of a text, in order; together they are the text.
pub(super) fn words(pre: PreTokenizer, text: &str) -> Vec<&str> {
    let split = Splitter::new(text);
    let all = 0..split.chars.len();
    let mut ranges = Vec::new();
    match pre {
        PreTokenizer::Gpt2 => split.gpt2(all, &mut ranges),
        PreTokenizer::Llama3 => split.cased(all, 3, &mut ranges),
        PreTokenizer::Qwen2 => split.cased(all, 1, &mut ranges),
        PreTokenizer::Default => ranges = split.default_rules(all),
    }
    ranges.into_iter().map(|r| &text[split.offset(r.start)..split.offset(r.end)]).collect()
}

struct Splitter<'t> {
    text: &'t str,
    /// Byte offset, character and class of each character.
    chars: Vec<(usize, char, Class)>,
}

impl<'t> Splitter<'t> {
    fn new(text: &'t str) -> Splitter<'t> {
        Splitter { text, chars: text.char_indices().map(|(at, c)| (at, c, Class::of(c))).collect() }
    }

    fn offset(&self, index: usize) -> usize {
        self.chars.get(index).map_or(self.text.len(), |c| c.0)
    }

    fn class(&self, index: usize, end: usize) -> Option<Class> {
        if index < end { Some(self.chars[index].2) } else { None }
    }

    fn char(&self, index: usize, end: usize) -> Option<char> {
        if index < end { Some(self.chars[index].1) } else { None }
    }

    /// End of the run of `class` that begins at `from`.
    fn run(&self, mut from: usize, end: usize, class: Class) -> usize {
        while self.class(from, end) == Some(class) {
            from += 1;
        }
        from
    }

    /// Length of `'s`, `'t`, `'m`, `'d`, `'re`, `'ve`, `'ll` at an apostrophe, else 0.
    fn contraction(&self, at: usize, end: usize, any_case: bool) -> usize {
        let letter = |index| {
            let c = self.char(index, end);
            if any_case { c.map(|c| c.to_ascii_lowercase()) } else { c }
        };
        match (letter(at + 1), letter(at + 2)) {
            (Some('s' | 't' | 'm' | 'd'), _) => 2,
            (Some('r' | 'v'), Some('e')) | (Some('l'), Some('l')) => 3,
            _ => 0,
        }
    }

    /// `\s+(?!\S)|\s+` at `at`: all the spaces at the end, all but the last before something else.
    fn spaces(&self, at: usize, end: usize) -> usize {
        let behind = self.run(at, end, Class::Space);
        if behind < end && behind - at > 1 { behind - 1 } else { behind }
    }

    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    fn gpt2(&self, range: Range<usize>, out: &mut Vec<Range<usize>>) {
        let end = range.end;
        let mut at = range.start;
        while at < end {
            let (_, c, class) = self.chars[at];
            let contraction = if c == '\'' { self.contraction(at, end, false) } else { 0 };
            let blank = usize::from(c == ' ');
            let stop = if contraction > 0 {
                at + contraction
            } else {
                match if blank == 1 { self.class(at + 1, end) } else { Some(class) } {
                    Some(class @ (Class::Letter | Class::Number | Class::Other)) => self.run(at + blank, end, class),
                    Some(Class::Space) | None => self.spaces(at, end),
                }
            };
            out.push(at..stop);
            at = stop;
        }
    }

    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
    fn cased(&self, range: Range<usize>, digits: usize, out: &mut Vec<Range<usize>>) {
        let end = range.end;
        let mut at = range.start;
        while at < end {
            let (_, c, class) = self.chars[at];
            let contraction = if c == '\'' { self.contraction(at, end, true) } else { 0 };
            let newline = |c: char| c == '\r' || c == '\n';
            let next_class = self.class(at + 1, end);
            let stop = if contraction > 0 {
                at + contraction
            } else if class == Class::Letter || (class != Class::Number && !newline(c) && next_class == Some(Class::Letter)) {
                self.run(at + 1, end, Class::Letter)
            } else if class == Class::Number {
                self.run(at, end.min(at + digits), Class::Number)
            } else if class == Class::Other || (c == ' ' && next_class == Some(Class::Other)) {
                let mut stop = self.run(at + usize::from(c == ' '), end, Class::Other);
                while self.char(stop, end).is_some_and(newline) {
                    stop += 1;
                }
                stop
            } else {
                let behind = self.run(at, end, Class::Space);
                match self.chars[at..behind].iter().rposition(|&(_, c, _)| newline(c)) {
                    Some(last) => at + last + 1,
                    None => self.spaces(at, end),
                }
            };
            out.push(at..stop);
            at = stop;
        }
    }

    /// Four expressions one after the other, each within the pieces of the one before:
    /// `[\p{P}\$\+<=>\^~\|]+`, GPT-2's, `\p{N}+`, `[0-9][0-9][0-9]`.
    fn default_rules(&self, range: Range<usize>) -> Vec<Range<usize>> {
        let marks = self.isolate(&[range], usize::MAX, |c, _| is_punctuation(c) || "$+<=>^~|".contains(c));
        let mut words = Vec::new();
        for piece in marks {
            self.gpt2(piece, &mut words);
        }
        let numbers = self.isolate(&words, usize::MAX, |_, class| class == Class::Number);
        self.isolate(&numbers, 3, |c, _| c.is_ascii_digit())
    }

    /// Cuts every piece so that runs of matching characters stand alone. With a `length`, only runs of exactly so many count.
    fn isolate(&self, pieces: &[Range<usize>], length: usize, matches: impl Fn(char, Class) -> bool) -> Vec<Range<usize>> {
        let mut out = Vec::new();
        for piece in pieces {
            let mut kept = piece.start;
            let mut at = piece.start;
            while at < piece.end {
                let run = self.chars[at..piece.end].iter().take(length).take_while(|&&(_, c, class)| matches(c, class)).count();
                if run == 0 || (length != usize::MAX && run < length) {
                    at += run.max(1);
                    continue;
                }
                if kept < at {
                    out.push(kept..at);
                }
                out.push(at..at + run);
                at += run;
                kept = at;
            }
            if kept < piece.end {
                out.push(kept..piece.end);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(pre: PreTokenizer, text: &str) -> String {
        words(pre, text).join("|")
    }

    #[test]
    fn gpt2_splits() {
        let s = |t| split(PreTokenizer::Gpt2, t);
        assert_eq!(s("Hello world's end"), "Hello| world|'s| end");
        assert_eq!(s("a   b"), "a|  | b");
        assert_eq!(s("a   "), "a|   ");
        assert_eq!(s("I'LL x12 !?"), "I|'|LL| x|12| !?");
        assert_eq!(s("x\n\n y"), "x|\n\n| y");
    }

    #[test]
    fn cased_splits() {
        let s = |t| split(PreTokenizer::Llama3, t);
        assert_eq!(s("I'LL do 12345"), "I|'LL| do| |123|45");
        assert_eq!(s("a,b (c)\n\n\nd"), "a|,b| (|c|)\n\n\n|d");
        assert_eq!(s("  \n  x"), "  \n| | x");
        assert_eq!(s("x "), "x| ");
        assert_eq!(s("x   "), "x|   ");
        assert_eq!(s("\tx\u{a0}y"), "\tx|\u{a0}y");
        assert_eq!(split(PreTokenizer::Qwen2, "in 123."), "in| |1|2|3|.");
    }

    #[test]
    fn default_splits() {
        let s = |t| split(PreTokenizer::Default, t);
        assert_eq!(s("a b, c"), "a| b|,| c");
        assert_eq!(s("x 12345"), "x| |123|45");
        assert_eq!(s("1²345"), "1²|345");
        assert_eq!(s("a+b"), "a|+|b");
    }

    proptest! {
        #[test]
        fn words_are_the_text(text in "\\PC{0,40}|[ \n\r\ta1'?.é語]{0,40}") {
            for pre in [PreTokenizer::Default, PreTokenizer::Gpt2, PreTokenizer::Llama3, PreTokenizer::Qwen2] {
                let words = words(pre, &text);
                prop_assert_eq!(words.concat(), text.clone());
                prop_assert!(words.iter().all(|w| !w.is_empty()));
            }
        }
    }
}
