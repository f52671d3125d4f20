//! The GGUF container: version 3, little-endian, one file.
//!
//! The records are decoded by gguf-rs-lib, but we drive its record readers ourselves rather than its `GGUFFileReader`, for three
//! reasons: that one refuses keys that aren't lower_snake_case (`gpt-oss.block_count` is a real one), demands UTF-8 of every
//! string (a chat template may hold a stray byte), and its errors don't say where in the file they are.
//!
//! What is checked here, once, so that nobody else has to: every record fits in the file; keys and tensor names are
//! unique; the alignment is a power of two; each tensor is aligned, whole, and overlaps no other. Gaps and bytes behind the last
//! tensor are allowed. A vocabulary-only file (no tensors) is a valid container.
//!
//! Opening reads the header alone, by `read`; the data section is mapped and never touched, so the cost doesn't depend on the
//! size of the weights. **A mapped file must not be truncated while it is in use**: the kernel answers an access behind the new end
//! with SIGBUS. [`GgufFile::read_tensor`] copies with `pread` instead and turns that into an error.

mod error;
mod read;
mod types;
mod values;

pub use error::GgufError;
pub use types::GgmlType;

use gguf_rs_lib::format::metadata::MetadataValue;
use memmap2::{Mmap, MmapOptions};
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

/// Alignment of tensors where `general.alignment` doesn't say otherwise.
const DEFAULT_ALIGNMENT: u64 = 32;

/// A tensor's entry in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name, unique in the file.
    pub name: String,
    /// Storage type.
    pub ty: GgmlType,
    /// Dimensions, the contiguous one first (`[cols, rows]` for a matrix); 1 to 4, none of them 0.
    pub ne: Vec<u64>,
    /// First byte, from the beginning of the *file*.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
}

/// An open GGUF file whose header has been read and checked.
#[derive(Debug)]
pub struct GgufFile {
    path: PathBuf,
    file: File,
    map: Mmap,
    metadata: HashMap<String, MetadataValue>,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
    header_len: u64,
    header_hash: [u8; 32],
}

impl GgufFile {
    /// Opens, reads the header and maps the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, GgufError> {
        let path = path.as_ref();
        let io = |source| GgufError::Io { path: path.to_path_buf(), source };
        // Before opening: opening a pipe would wait for its other end.
        let kind = std::fs::metadata(path).map_err(io)?.file_type();
        if !kind.is_file() {
            let what = match () {
                () if kind.is_dir() => "a folder",
                () if kind.is_fifo() => "a pipe",
                () if kind.is_socket() => "a socket",
                () => "a device",
            };
            return Err(GgufError::NotAFile { path: path.to_path_buf(), what });
        }
        let file = File::open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        if len == 0 {
            return Err(GgufError::Empty);
        }
        let read::Header { metadata, mut tensors, end } = read::header(&file, len)?;
        refuse_split(&metadata)?;
        let alignment = alignment(&metadata)?;
        place(&mut tensors, end, alignment, len)?;
        let header_hash = hash_prefix(&file, end).map_err(io)?;
        // SAFETY: the mapping is read-only and private to this value; that nobody truncates the file meanwhile is the documented
        // condition of its use (see the module's documentation), which no API can enforce.
        let map = unsafe { MmapOptions::new().len(len as usize).map(&file) }.map_err(io)?;
        let by_name = tensors.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
        Ok(Self { path: path.to_path_buf(), file, map, metadata, tensors, by_name, header_len: end, header_hash })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file.
    pub fn file_len(&self) -> u64 {
        self.map.len() as u64
    }

    /// Bytes of header, keys and tensor table.
    pub fn header_len(&self) -> u64 {
        self.header_len
    }

    /// BLAKE3 of header, keys and tensor table: a bundle names the file it belongs to by it.
    pub fn header_hash(&self) -> [u8; 32] {
        self.header_hash
    }

    /// The tensor table, in the file's order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// Index of the tensor of this name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.find(name).map(|i| &self.tensors[i])
    }

    /// Data of tensor `index` of [`Self::tensors`], in the mapped file (see the module about truncation).
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn tensor_data(&self, index: usize) -> &[u8] {
        let t = &self.tensors[index];
        // `place` has shown that the tensor lies within the file that was mapped.
        &self.map[t.offset as usize..(t.offset + t.bytes) as usize]
    }

    /// Copies bytes of a tensor, beginning at `from`, through `pread`: the form that can't fault.
    ///
    /// # Errors
    /// [`GgufError::Changed`] if the file has become shorter, [`GgufError::Io`] if reading fails.
    pub fn read_tensor(&self, tensor: &TensorInfo, from: u64, into: &mut [u8]) -> Result<(), GgufError> {
        self.check_unchanged()?;
        self.file.read_exact_at(into, tensor.offset + from).map_err(|source| GgufError::Io { path: self.path.clone(), source })
    }

    /// Whether the file still has the length that it had when it was opened.
    pub fn check_unchanged(&self) -> Result<(), GgufError> {
        let now = self.file.metadata().map_err(|source| GgufError::Io { path: self.path.clone(), source })?.len();
        let was = self.file_len();
        if now == was { Ok(()) } else { Err(GgufError::Changed { was, now }) }
    }
}

/// The parts of a split model are refused: merging them is one command, and a plan refers to one file.
fn refuse_split(metadata: &HashMap<String, MetadataValue>) -> Result<(), GgufError> {
    let parts = values::unsigned(metadata, "split.count")?.unwrap_or(1);
    let part = values::unsigned(metadata, "split.no")?.unwrap_or(0);
    if parts <= 1 && part == 0 { Ok(()) } else { Err(GgufError::Split { part: part.saturating_add(1), parts }) }
}

fn alignment(metadata: &HashMap<String, MetadataValue>) -> Result<u64, GgufError> {
    match metadata.get("general.alignment") {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(MetadataValue::U32(a)) if a.is_power_of_two() && *a >= 8 => Ok(u64::from(*a)),
        Some(v) => Err(GgufError::Alignment(match v {
            MetadataValue::U32(a) => a.to_string(),
            v => format!("{} ({})", v.to_string_representation(), v.value_type()),
        })),
    }
}

/// Makes the offsets absolute and checks that all tensors are aligned, whole and disjoint.
fn place(tensors: &mut [TensorInfo], header_end: u64, alignment: u64, len: u64) -> Result<(), GgufError> {
    let base = header_end.next_multiple_of(alignment);
    for t in tensors.iter_mut() {
        if !t.offset.is_multiple_of(alignment) {
            return Err(GgufError::Misaligned { name: t.name.clone(), offset: t.offset, alignment });
        }
        let end = u128::from(base) + u128::from(t.offset) + u128::from(t.bytes);
        if end > u128::from(len) {
            return Err(GgufError::TruncatedData { name: t.name.clone(), end, len });
        }
        t.offset += base;
    }
    let mut order: Vec<&TensorInfo> = tensors.iter().collect();
    order.sort_by_key(|t| t.offset);
    for pair in order.windows(2) {
        if pair[0].offset + pair[0].bytes > pair[1].offset {
            let [first, second] = [pair[0].name.clone(), pair[1].name.clone()];
            return Err(GgufError::Overlap { first, second, offset: pair[1].offset });
        }
    }
    Ok(())
}

fn hash_prefix(file: &File, len: u64) -> std::io::Result<[u8; 32]> {
    let (mut hasher, mut buf, mut at) = (blake3::Hasher::new(), vec![0; 1 << 16], 0);
    while at < len {
        let n = buf.len().min((len - at) as usize);
        file.read_exact_at(&mut buf[..n], at)?;
        hasher.update(&buf[..n]);
        at += n as u64;
    }
    Ok(*hasher.finalize().as_bytes())
}
