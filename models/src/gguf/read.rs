//! Reads the header record by record through gguf-rs-lib, keeping every record's place in the file.

use super::{GgmlType, GgufError, TensorInfo};
use gguf_rs_lib::GGUFError;
use gguf_rs_lib::format::metadata::MetadataValue;
use gguf_rs_lib::format::{GGUFHeader, GGUFValueType, TensorInfo as Record};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::os::unix::fs::FileExt;

/// Longest string that is read outside an array (names, licences, chat templates).
const MAX_STRING: u64 = 16 << 20;
/// Longest key, from the GGUF specification.
const MAX_KEY: u64 = 65_535;
/// Shortest key-value record: a key of one byte, a type and a value of one byte.
const MIN_KEY_RECORD: u64 = 8 + 1 + 4 + 1;
/// Shortest tensor record: a name of one byte, one dimension.
const MIN_TENSOR_RECORD: u64 = 8 + 1 + 4 + 8 + 4 + 8;

/// The header as it lies in the file; tensor offsets are still relative to the data section.
pub(super) struct Header {
    pub metadata: HashMap<String, MetadataValue>,
    pub tensors: Vec<TensorInfo>,
    /// First byte behind the tensor table.
    pub end: u64,
}

/// A reader that knows where it is.
struct Source<'a> {
    inner: BufReader<&'a File>,
    pos: u64,
    len: u64,
}

impl Read for Source<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.pos += n as u64;
        Ok(n)
    }
}

impl Source<'_> {
    fn left(&self) -> u64 {
        self.len.saturating_sub(self.pos)
    }

    /// Turns a failure of the library, or of the system, into ours.
    fn lift(&self, e: GGUFError, what: &str, offset: u64) -> GgufError {
        match e {
            GGUFError::UnexpectedEof => self.ends_within(what),
            GGUFError::Io(e) if e.kind() == ErrorKind::UnexpectedEof => self.ends_within(what),
            e => GgufError::Malformed { what: what.to_string(), offset, reason: e.to_string() },
        }
    }

    fn ends_within(&self, what: &str) -> GgufError {
        GgufError::TruncatedHeader { len: self.len, what: what.to_string() }
    }

    fn word<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        let (mut b, at) = ([0; N], self.pos);
        self.read_exact(&mut b).map_err(|e| self.lift(e.into(), what, at))?;
        Ok(b)
    }

    /// Length and bytes of a string; the length is checked against the rest of the file before anything is allocated.
    fn bytes(&mut self, max: u64, what: &str) -> Result<Vec<u8>, GgufError> {
        let at = self.pos;
        let n = u64::from_le_bytes(self.word(what)?);
        if n > max {
            return Err(GgufError::Malformed {
                what: what.into(),
                offset: at,
                reason: format!("it says to be {n} bytes long, at most {max} are read"),
            });
        }
        if n > self.left() {
            return Err(self.ends_within(what));
        }
        let mut b = vec![0; n as usize];
        let at = self.pos;
        self.read_exact(&mut b).map_err(|e| self.lift(e.into(), what, at))?;
        Ok(b)
    }
}

/// Reads everything up to the end of the tensor table of a file of `len` bytes.
pub(super) fn header(file: &File, len: u64) -> Result<Header, GgufError> {
    let mut src = Source { inner: BufReader::with_capacity(1 << 16, file), pos: 0, len };
    let head = GGUFHeader::read_from(&mut src).map_err(|e| match e {
        GGUFError::InvalidMagic { found, .. } => not_gguf(found.to_le_bytes()),
        GGUFError::UnsupportedVersion(v @ 1..=2) => GgufError::OldVersion(v),
        GGUFError::UnsupportedVersion(v) if (1..=3).contains(&v.swap_bytes()) => GgufError::BigEndian,
        GGUFError::UnsupportedVersion(v) => GgufError::UnknownVersion(v),
        e => src.lift(e, "the first 24 bytes", 0),
    })?;
    for (what, n, min) in [
        ("the number of keys", head.metadata_kv_count, MIN_KEY_RECORD),
        ("the number of tensors", head.tensor_count, MIN_TENSOR_RECORD),
    ] {
        if n.checked_mul(min).is_none_or(|bytes| bytes > src.left()) {
            let offset = if min == MIN_KEY_RECORD { 16 } else { 8 };
            return Err(GgufError::Malformed {
                what: what.into(),
                offset,
                reason: format!("{n} cannot fit into a file of {len} bytes (is it truncated?)"),
            });
        }
    }
    let metadata = keys(&mut src, head.metadata_kv_count)?;
    let tensors = tensors(&mut src, file, head.tensor_count)?;
    Ok(Header { metadata, tensors, end: src.pos })
}

fn not_gguf(magic: [u8; 4]) -> GgufError {
    let advice = match &magic {
        b"GGML" | b"lmgg" | b"GGMF" | b"fmgg" | b"GGJT" | b"tjgg" => "; this is an older ggml format, convert the model again",
        b"FUGG" => "; its byte order is swapped, convert it with llama.cpp's `gguf_convert_endian.py FILE little`",
        b"PK\x03\x04" => "; this is a zip archive (a PyTorch checkpoint?), convert it with llama.cpp's convert_hf_to_gguf.py",
        _ => "",
    };
    GgufError::NotGguf { found: format!("{:?}", magic.escape_ascii().to_string()), advice }
}

fn keys(src: &mut Source<'_>, count: u64) -> Result<HashMap<String, MetadataValue>, GgufError> {
    let mut map = HashMap::new();
    for i in 0..count {
        let at = src.pos;
        let what = format!("key #{i}");
        let bad = |reason: &str| GgufError::Malformed { what: what.clone(), offset: at, reason: reason.into() };
        let key = String::from_utf8(src.bytes(MAX_KEY, &what)?).map_err(|_| bad("its name is not UTF-8"))?;
        if key.is_empty() {
            return Err(bad("its name is empty"));
        }
        if map.contains_key(&key) {
            return Err(GgufError::Duplicate { kind: "key", name: key, offset: at });
        }
        let what = format!("the value of key {key:?}");
        let at = src.pos;
        let ty = GGUFValueType::from_u32(u32::from_le_bytes(src.word(&what)?)).map_err(|e| src.lift(e, &what, at))?;
        let value = match ty {
            // Lossily, as the library demands UTF-8 while a file may hold, say, a licence in another encoding.
            GGUFValueType::String => MetadataValue::String(String::from_utf8_lossy(&src.bytes(MAX_STRING, &what)?).into_owned()),
            _ => MetadataValue::read_from(src, ty).map_err(|e| src.lift(e, &what, at))?,
        };
        map.insert(key, value);
    }
    Ok(map)
}

fn tensors(src: &mut Source<'_>, file: &File, count: u64) -> Result<Vec<TensorInfo>, GgufError> {
    let (mut list, mut names) = (Vec::new(), HashSet::new());
    for i in 0..count {
        let at = src.pos;
        let r = Record::read_from(src).map_err(|e| src.lift(e, &describe(file, at, i), at))?;
        let what = || format!("tensor {:?}", r.name);
        let bad = |reason: &str| GgufError::Malformed { what: what(), offset: at, reason: reason.into() };
        if r.name.contains('\0') {
            return Err(bad("its name holds a NUL"));
        }
        if r.dimensions.contains(&0) {
            return Err(bad("it has no elements"));
        }
        if !names.insert(r.name.clone()) {
            return Err(GgufError::Duplicate { kind: "tensor", name: r.name, offset: at });
        }
        let ty = GgmlType::from_id(r.tensor_type).ok_or_else(|| bad("unknown type"))?;
        // The record was validated by the library: the product fits and the rows are whole blocks.
        let elements = r.checked_element_count().ok_or_else(|| bad("its size overflows"))?;
        let bytes = (elements / ty.block_len()).checked_mul(ty.block_bytes()).ok_or_else(|| bad("its size overflows"))?;
        list.push(TensorInfo { name: r.name, ty, ne: r.dimensions, offset: r.offset, bytes });
    }
    Ok(list)
}

/// Names a tensor record that couldn't be read, as far as its name can.
fn describe(file: &File, at: u64, index: u64) -> String {
    let mut b = [0; 8 + 64];
    let n = file.read_at(&mut b, at).unwrap_or(0);
    let (len, name) = b[..n].split_at_checked(8).unwrap_or((&[], &[]));
    let len = len.try_into().map_or(0, u64::from_le_bytes);
    match name.get(..usize::try_from(len).unwrap_or(usize::MAX)) {
        Some(name) if !name.is_empty() => format!("tensor {:?} (#{index})", String::from_utf8_lossy(name)),
        _ => format!("tensor #{index}"),
    }
}
