//! What a rendering may use up.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};
use std::fmt::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Bytes that a rendering may make besides [`BYTES_PER_BYTE`].
const BYTES: usize = 16 << 20;
/// Bytes that a rendering may make per byte of the messages: templates copy a message some ten times.
const BYTES_PER_BYTE: usize = 64;
/// A whole rendering; honest ones take a millisecond.
const TIME: Duration = Duration::from_secs(5);
/// Levels of lists within lists.
const DEPTH: usize = 32;
/// Bytes that count for an element of a list.
const ELEMENT: usize = 32;
/// Looking through a byte costs so much less than making one.
const LOOK: usize = 64;
/// Bytes that take as long to look through as one element.
const ELEMENT_LOOK: usize = 512;

/// What is left, and why it ended.
#[derive(Debug)]
pub(super) struct Budget {
    left: AtomicUsize,
    deadline: Instant,
    /// The limit that was reached.
    pub(super) stopped: OnceLock<&'static str>,
    /// The message of `raise_exception`.
    pub(super) refused: OnceLock<String>,
}

impl Budget {
    /// For messages of so many bytes.
    pub(super) fn new(input: usize) -> Budget {
        Budget {
            left: AtomicUsize::new(BYTES.saturating_add(input.saturating_mul(BYTES_PER_BYTE))),
            deadline: Instant::now() + TIME,
            stopped: OnceLock::new(),
            refused: OnceLock::new(),
        }
    }

    fn stop(&self, why: &'static str) -> Error {
        Error::new(ErrorKind::InvalidOperation, *self.stopped.get_or_init(|| why))
    }

    /// Pays for bytes before they are made.
    pub(super) fn charge(&self, bytes: usize) -> Result<(), Error> {
        let left = self.left.load(Ordering::Relaxed);
        if bytes > left {
            return Err(self.stop("it makes too much text"));
        }
        if Instant::now() > self.deadline {
            return Err(self.stop("it takes too long"));
        }
        self.left.store(left - bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Pays for elements of a list before they are made.
    pub(super) fn charge_elements(&self, count: usize) -> Result<(), Error> {
        self.charge(count.saturating_mul(ELEMENT))
    }

    /// Pays for looking through a value; fails if it is nested too deep to be handled on a stack.
    pub(super) fn weigh(&self, value: &Value) -> Result<(), Error> {
        let limit = self.left.load(Ordering::Relaxed).saturating_mul(LOOK);
        let size = self.size(value, DEPTH, limit)?;
        self.charge(size / LOOK)
    }

    /// Bytes in a value and all that it holds.
    fn size(&self, value: &Value, depth: usize, limit: usize) -> Result<usize, Error> {
        if let Some(text) = value.as_str() {
            return Ok(text.len());
        }
        let mut size = 1;
        each(value, |item| {
            if depth == 0 {
                return Err(self.stop("its values are nested too deep"));
            }
            size += ELEMENT_LOOK + self.size(item, depth - 1, limit)?;
            if size > limit { Err(self.stop("it looks through too much text")) } else { Ok(()) }
        })?;
        Ok(size)
    }

    /// Pays for a value that was made. Sequences become plain lists, because a view of a view of a list has no bounded
    /// depth.
    pub(super) fn made(&self, value: Value) -> Result<Value, Error> {
        if let Some(text) = value.as_str() {
            self.charge(text.len())?;
        } else if matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) && !value.is_tuple() {
            return Ok(Value::from(self.list(&[&value])?));
        } else {
            self.charge(1)?;
        }
        Ok(value)
    }

    /// The elements of sequences, one after the other.
    pub(super) fn list(&self, parts: &[&Value]) -> Result<Vec<Value>, Error> {
        let mut items = Vec::new();
        for part in parts {
            for item in part.try_iter()? {
                self.charge_elements(1)?;
                items.push(item);
            }
        }
        Ok(items)
    }

    /// Appends a value as Python's `str` shows it.
    pub(super) fn show(&self, value: &Value, out: &mut dyn Write) -> Result<(), Error> {
        match value.as_str() {
            Some(text) => self.write(text, out),
            None => self.literal(value, &PYTHON, DEPTH, out),
        }
    }

    /// Appends a value as JSON, as Python's `json.dumps(ensure_ascii=False)` does.
    pub(super) fn json(&self, value: &Value, out: &mut dyn Write) -> Result<(), Error> {
        self.literal(value, &JSON, DEPTH, out)
    }

    /// Appends text and pays for it.
    pub(super) fn write(&self, text: &str, out: &mut dyn Write) -> Result<(), Error> {
        self.charge(text.len())?;
        out.write_str(text).map_err(|_| Error::new(ErrorKind::WriteFailure, "the output can't be written"))
    }

    fn literal(&self, value: &Value, words: &Words, depth: usize, out: &mut dyn Write) -> Result<(), Error> {
        let (open, close) = match value.kind() {
            ValueKind::Undefined => return if words.json { self.write("null", out) } else { Ok(()) },
            ValueKind::None => return self.write(words.none, out),
            ValueKind::Bool => return self.write(if value.is_true() { words.yes } else { words.no }, out),
            ValueKind::String => return self.write(&quote(value.as_str().unwrap_or_default(), words.json), out),
            ValueKind::Seq | ValueKind::Iterable if value.is_tuple() && !words.json => ("(", ")"),
            ValueKind::Seq | ValueKind::Iterable => ("[", "]"),
            ValueKind::Map => ("{", "}"),
            ValueKind::Number => return self.write(&value.to_string(), out),
            _ => return Err(Error::new(ErrorKind::InvalidOperation, format!("a {} can't be shown", value.kind()))),
        };
        if depth == 0 {
            return Err(self.stop("its values are nested too deep"));
        }
        self.write(open, out)?;
        for (index, item) in value.try_iter()?.enumerate() {
            if index > 0 {
                self.write(", ", out)?;
            }
            self.literal(&item, words, depth - 1, out)?;
            if value.kind() == ValueKind::Map {
                self.write(": ", out)?;
                self.literal(&value.get_item(&item)?, words, depth - 1, out)?;
            }
        }
        self.write(close, out)
    }
}

/// Calls a function for every element of a list, and every key and value of a map.
fn each(value: &Value, mut visit: impl FnMut(&Value) -> Result<(), Error>) -> Result<(), Error> {
    match (value.kind(), value.as_object()) {
        (ValueKind::Map, Some(map)) => {
            for (key, item) in map.try_iter_pairs().into_iter().flatten() {
                visit(&key)?;
                visit(&item)?;
            }
        }
        (ValueKind::Seq | ValueKind::Iterable, Some(list)) => {
            for item in list.try_iter().into_iter().flatten() {
                visit(&item)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// How a language writes its constants.
struct Words {
    none: &'static str,
    yes: &'static str,
    no: &'static str,
    json: bool,
}

const PYTHON: Words = Words { none: "None", yes: "True", no: "False", json: false };
const JSON: Words = Words { none: "null", yes: "true", no: "false", json: true };

/// A string literal. Python's `repr` prefers single quotes.
fn quote(text: &str, json: bool) -> String {
    let mark = if !json && (!text.contains('\'') || text.contains('"')) { '\'' } else { '"' };
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push(mark);
    for c in text.chars() {
        match c {
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\\' => quoted.push_str("\\\\"),
            c if c == mark => quoted.extend(['\\', c]),
            c if c < ' ' && json => quoted.push_str(&format!("\\u{:04x}", c as u32)),
            c if c < ' ' => quoted.push_str(&format!("\\x{:02x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push(mark);
    quoted
}
