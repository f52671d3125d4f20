//! What a loader maps: segments, and the functions in them.

use crate::elf::Elf;
use crate::{CodeObject, CodeObjectError};

/// A `PT_LOAD` segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Virtual address, relative to where the code object is loaded.
    pub address: u64,
    /// Bytes in memory; those behind `bytes` are zero.
    pub size: u64,
    /// Bytes in the file.
    pub bytes: Vec<u8>,
    /// Whether code may write to it.
    pub writable: bool,
    /// Whether it holds instructions.
    pub executable: bool,
}

/// Eight bytes that hold an address, so they depend on where the code object is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// Virtual address of the eight bytes; they lie within one segment.
    pub address: u64,
    /// What they hold, a virtual address like all others: the loader adds where the code object's address 0 is.
    pub target: u64,
}

/// A code object with what is loaded of it.
#[derive(Clone, Debug)]
pub struct Image {
    /// Target, kernels, descriptors.
    pub object: CodeObject,
    /// Segments by address; they don't overlap and end below 2⁴⁰.
    pub segments: Vec<Segment>,
    /// What a loader puts into the segments.
    pub relocations: Vec<Relocation>,
    /// Functions of the dynamic symbol table (kernels are functions): name, virtual address, bytes.
    pub functions: Vec<(String, u64, u64)>,
}

/// No code object of ours is a hundredth of this; a damaged header must not ask for all memory.
const MOST_BYTES: u64 = 1 << 30;

impl Image {
    /// Reads a code object and its segments.
    ///
    /// # Errors
    /// As [`CodeObject::parse`]; also for segments that overlap, wrap round or need more than 1 GiB, and for relocations other than
    /// those of 64-bit addresses.
    pub fn parse(bytes: &[u8]) -> Result<Self, CodeObjectError> {
        let object = CodeObject::parse(bytes)?;
        let elf = Elf::parse(bytes)?;
        let mut segments = elf.load_segments()?;
        segments.sort_by_key(|s| s.address);
        let damaged = |what: &str| CodeObjectError::Elf(format!("segments {what}"));
        let total = segments.iter().try_fold(0u64, |sum, s| sum.checked_add(s.size));
        if total.is_none_or(|t| t > MOST_BYTES) {
            return Err(damaged("of more than 1 GiB"));
        }
        let end = |s: &Segment| s.address.checked_add(s.size).filter(|&end| end <= 1 << 40);
        if segments.iter().any(|s| end(s).is_none()) {
            return Err(damaged("beyond the address space"));
        }
        if segments.windows(2).any(|pair| pair[0].address + pair[0].size > pair[1].address) {
            return Err(damaged("that overlap"));
        }
        let relocations = elf.relocations()?;
        let inside = |r: &Relocation| {
            segments.iter().any(|s| r.address >= s.address && s.size >= 8 && r.address - s.address <= s.size - 8)
        };
        if !relocations.iter().all(inside) {
            return Err(CodeObjectError::Elf("a relocation outside of the segments".to_owned()));
        }
        Ok(Self { object, segments, relocations, functions: elf.functions()? })
    }

    /// Bytes of the code of a kernel: from its entry to the end of its symbol.
    pub fn code(&self, kernel: &str) -> Option<(u64, &[u8])> {
        let entry = self.object.kernel(kernel)?.descriptor.entry;
        let (_, address, size) = self.functions.iter().find(|(_, address, size)| entry >= *address && entry - address < *size)?;
        let end = address.checked_add(*size)?;
        let segment =
            self.segments.iter().find(|s| s.executable && entry >= s.address && end - s.address <= s.bytes.len() as u64)?;
        let at = |address: u64| usize::try_from(address - segment.address).ok();
        Some((entry, segment.bytes.get(at(entry)?..at(end)?)?))
    }
}
