//! Text forms: every IR prints itself and parses back, line by line.
//!
//! A line is one declaration, node or launch; lines that are empty or begin with `;` say nothing. What a line has
//! beside references (attributes of an op, a geometry, a cost) is written by one uniform syntax for all types, see
//! [`write`](mod@write) and [`read`], so that a new op needs nothing here.

mod fused;
mod graph;
mod plan;
pub mod read;
mod tuning;
pub mod write;

pub use plan::KernelList;

use cranelift_entity::{EntityRef, PrimaryMap};
use read::Cursor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Display;

/// Why a text is not the form of an IR. The text's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct FormError {
    /// Line, from 1; the last one plus 1 where something is missing at the end.
    pub line: usize,
    /// What was expected or is wrong.
    pub message: String,
}

/// Lines that say something, with their numbers.
struct Lines<'a> {
    lines: Vec<(usize, &'a str)>,
    next: usize,
    end: usize,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let said = |line: &&str| !line.is_empty() && !line.starts_with(';');
        let lines = text.lines().map(str::trim).enumerate().filter(|(_, l)| said(l)).map(|(i, l)| (i + 1, l)).collect();
        Self { lines, next: 0, end: text.lines().count() + 1 }
    }

    /// The next line, if there is one.
    fn peek(&self) -> Option<&'a str> {
        self.lines.get(self.next).map(|&(_, line)| line)
    }

    /// Parses the next line; the parser must use all of it.
    fn take<T>(&mut self, parse: impl FnOnce(&mut Cursor<'a>) -> Result<T, String>) -> Result<T, FormError> {
        let Some(&(line, text)) = self.lines.get(self.next) else {
            return Err(FormError { line: self.end, message: "the text ends too early".into() });
        };
        self.next += 1;
        let mut cursor = Cursor::new(text);
        let parsed = parse(&mut cursor).and_then(|value| cursor.end().map(|()| value));
        parsed.map_err(|message| FormError { line, message })
    }

    /// Parses lines of the form `PREFIX<n> = REST`, as long as they come, with n counting from 0.
    fn table<K: EntityRef + Display, T>(
        &mut self,
        prefix: &str,
        mut parse: impl FnMut(&mut Cursor<'a>) -> Result<T, String>,
    ) -> Result<PrimaryMap<K, T>, FormError> {
        let mut map = PrimaryMap::new();
        while self.peek().is_some_and(|line| is_entity(line, prefix)) {
            let item = self.take(|c| {
                let found: K = c.entity(prefix)?;
                let expected: K = map.next_key();
                if found.index() != expected.index() {
                    return Err(format!("{found} comes where {expected} should"));
                }
                c.expect("=")?;
                parse(c)
            })?;
            map.push(item);
        }
        Ok(map)
    }

    /// Parses lines of the form `PREFIX<n> = ATTRIBUTES`.
    fn attributes<K: EntityRef + Display, T: DeserializeOwned>(&mut self, prefix: &str) -> Result<PrimaryMap<K, T>, FormError> {
        self.table(prefix, Cursor::value)
    }

    /// Nothing is left.
    fn finish(self) -> Result<(), FormError> {
        match self.lines.get(self.next) {
            None => Ok(()),
            Some(&(line, text)) => Err(FormError { line, message: format!("did not expect `{text}`") }),
        }
    }
}

/// Whether a line begins with an entity of this prefix.
fn is_entity(line: &str, prefix: &str) -> bool {
    line.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// `@3`, or nothing outside of the layers.
fn layer_suffix(layer: Option<u32>) -> String {
    layer.map_or_else(String::new, |l| format!(" @{l}"))
}

fn layer(c: &mut Cursor) -> Result<Option<u32>, String> {
    if c.eat("@") { c.number().map(Some) } else { Ok(None) }
}

fn write_table<K: EntityRef + Display, T: Serialize>(f: &mut std::fmt::Formatter, map: &PrimaryMap<K, T>) -> std::fmt::Result {
    map.iter().try_for_each(|(key, item)| writeln!(f, "{key} = {}", write::attributes(item)))
}
