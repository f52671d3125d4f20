//! What can be wrong with a GGUF container, and what to do about it.

use std::path::PathBuf;
use thiserror::Error;

/// A container that can't be used.
///
/// `Io` is the machine's fault and `NotAFile` the caller's; every other variant is the file's.
#[derive(Debug, Error)]
pub enum GgufError {
    /// The operating system refused.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A folder, a pipe, a device.
    #[error("{path} is {what}, not a file; give the path of a .gguf file")]
    NotAFile {
        /// What was opened.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// No bytes at all.
    #[error("the file is empty; download it again")]
    Empty,
    /// The first four bytes aren't `GGUF`.
    #[error("not a GGUF file: it begins with {found}{advice}")]
    NotGguf {
        /// The first bytes, printable.
        found: String,
        /// What such a file may be, with a leading semicolon, or nothing.
        advice: &'static str,
    },
    /// Versions 1 and 2.
    #[error("GGUF version {0} is no longer read (3 is); convert the model again with llama.cpp's convert_hf_to_gguf.py{more}", more = if *.0 == 2 { ", or rewrite it with `llama-quantize old.gguf new.gguf COPY`" } else { "" })]
    OldVersion(u32),
    /// Byte-swapped.
    #[error("the file is big-endian; convert it with llama.cpp's `gguf_convert_endian.py FILE little`")]
    BigEndian,
    /// Versions of the future, or damage.
    #[error("GGUF version {0} is unknown (3 is read); the file is damaged or newer than this program")]
    UnknownVersion(u32),
    /// The file ends inside the header.
    #[error("the file is truncated: it ends after {len} bytes, within {what}; download it again")]
    TruncatedHeader {
        /// Bytes of the file.
        len: u64,
        /// What was being read.
        what: String,
    },
    /// A record that can't be what it says.
    #[error("the file is damaged: {what} at byte {offset}: {reason}")]
    Malformed {
        /// Which record.
        what: String,
        /// Where it begins in the file.
        offset: u64,
        /// Why it can't be.
        reason: String,
    },
    /// The same key or tensor twice.
    #[error("the file is damaged: {kind} {name:?} occurs twice (again at byte {offset}); convert the model again")]
    Duplicate {
        /// `key` or `tensor`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Where the second begins.
        offset: u64,
    },
    /// `general.alignment` is not a power of two of at least 8.
    #[error("general.alignment is {0}; it must be a u32 that is a power of two of at least 8. Convert the model again")]
    Alignment(String),
    /// A tensor that begins at a forbidden place.
    #[error(
        "tensor {name:?} is at offset {offset} of the data, which is no multiple of the alignment {alignment}; the file is damaged"
    )]
    Misaligned {
        /// The tensor.
        name: String,
        /// Offset within the data section.
        offset: u64,
        /// The file's alignment.
        alignment: u64,
    },
    /// A tensor that ends behind the file's end.
    #[error("the file is truncated: tensor {name:?} ends at byte {end}, the file has {len}; download it again")]
    TruncatedData {
        /// The tensor.
        name: String,
        /// Where its data would end.
        end: u128,
        /// Bytes of the file.
        len: u64,
    },
    /// Two tensors share bytes.
    #[error("tensors {first:?} and {second:?} overlap at byte {offset}; the file is damaged")]
    Overlap {
        /// The one that begins first.
        first: String,
        /// The one that begins within it.
        second: String,
        /// Where the second begins.
        offset: u64,
    },
    /// One part of a model.
    #[error(
        "the file is part {part} of {parts} of a split model; merge the parts with `llama-gguf-split --merge FIRST-PART merged.gguf`"
    )]
    Split {
        /// This part, from 1.
        part: u64,
        /// How many parts there are.
        parts: u64,
    },
    /// A key with a value of the wrong type.
    #[error("key {key} is {found}, expected {expected}; convert the model again")]
    KeyType {
        /// The key.
        key: String,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A key that must be there.
    #[error("key {0} is missing; convert the model again")]
    MissingKey(String),
    /// The file became shorter or longer after it was opened.
    #[error("the file changed while it was in use: it had {was} bytes, now {now}")]
    Changed {
        /// Bytes when opened.
        was: u64,
        /// Bytes now.
        now: u64,
    },
}

impl GgufError {
    /// Whether the machine failed, rather than the file or the request.
    pub fn is_machine(&self) -> bool {
        // EIO, ENOMEM, ENFILE, EMFILE; a missing, forbidden or looping path is the caller's.
        matches!(self, Self::Io { source, .. } if matches!(source.raw_os_error(), Some(5 | 12 | 23 | 24)))
    }
}
