//! The container: header checks, the metadata note, descriptor symbols, bytes by virtual address.

use crate::{AbiVersion, CodeObjectError, Relocation, Segment};
use object::LittleEndian;
use object::elf;
use object::read::elf::{FileHeader as _, NoteIterator, ProgramHeader as _, Rela as _, SectionHeader as _, Sym as _};
use std::collections::HashMap;

const ENDIAN: LittleEndian = LittleEndian;
const OSABI_AMDGPU_HSA: u8 = 64;
const NT_AMDGPU_METADATA: u32 = 32;
/// Relocations of 64 bits. Source: "Relocation Records" of LLVM's AMDGPU user guide.
const R_AMDGPU_ABS64: u32 = 3;
const R_AMDGPU_RELATIVE64: u32 = 13;

type Header = elf::FileHeader64<LittleEndian>;

/// The first `NT_AMDGPU_METADATA` among these notes.
fn metadata<'a>(mut notes: NoteIterator<'a, Header>) -> Result<Option<&'a [u8]>, CodeObjectError> {
    while let Some(note) = notes.next().map_err(bad)? {
        if note.name() == b"AMDGPU" && note.n_type(ENDIAN).0 == NT_AMDGPU_METADATA {
            return Ok(Some(note.desc()));
        }
    }
    Ok(None)
}

/// A checked ELF header and the file behind it.
pub(crate) struct Elf<'a> {
    bytes: &'a [u8],
    header: &'a Header,
    segments: &'a [elf::ProgramHeader64<LittleEndian>],
    pub(crate) flags: u32,
    pub(crate) abi: AbiVersion,
}

fn bad(e: object::Error) -> CodeObjectError {
    CodeObjectError::Elf(e.to_string())
}

impl<'a> Elf<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, CodeObjectError> {
        let header = Header::parse(bytes).map_err(bad)?;
        if !header.is_little_endian() {
            return Err(CodeObjectError::Elf("big-endian".to_owned()));
        }
        let machine = header.e_machine(ENDIAN);
        if machine != elf::EM_AMDGPU {
            return Err(CodeObjectError::WrongMachine(machine.0));
        }
        let ident = header.e_ident();
        if ident.os_abi.0 != OSABI_AMDGPU_HSA {
            return Err(CodeObjectError::WrongOsAbi(ident.os_abi.0));
        }
        let abi = match ident.abi_version {
            2 => AbiVersion::V4,
            3 => AbiVersion::V5,
            4 => AbiVersion::V6,
            other => return Err(CodeObjectError::UnsupportedAbi(other)),
        };
        let segments = header.program_headers(ENDIAN, bytes).map_err(bad)?;
        Ok(Self { bytes, header, segments, flags: header.e_flags(ENDIAN).0, abi })
    }

    /// Contents of the first `NT_AMDGPU_METADATA` note.
    pub(crate) fn metadata_note(&self) -> Result<&'a [u8], CodeObjectError> {
        for segment in self.segments {
            let Some(notes) = segment.notes(ENDIAN, self.bytes).map_err(bad)? else { continue };
            if let Some(note) = metadata(notes)? {
                return Ok(note);
            }
        }
        Err(CodeObjectError::MissingMetadata)
    }

    /// The same of an object that isn't linked yet, where notes lie in sections alone.
    pub(crate) fn unlinked_metadata_note(&self) -> Result<&'a [u8], CodeObjectError> {
        let sections = self.header.sections(ENDIAN, self.bytes).map_err(bad)?;
        for section in sections.iter() {
            let Some(notes) = section.notes(ENDIAN, self.bytes).map_err(bad)? else { continue };
            if let Some(note) = metadata(notes)? {
                return Ok(note);
            }
        }
        Err(CodeObjectError::MissingMetadata)
    }

    /// Virtual addresses of the dynamic symbols that end in `.kd`.
    pub(crate) fn descriptor_symbols(&self) -> Result<HashMap<&'a str, u64>, CodeObjectError> {
        let sections = self.header.sections(ENDIAN, self.bytes).map_err(bad)?;
        let table = sections.symbols(ENDIAN, self.bytes, elf::SHT_DYNSYM).map_err(bad)?;
        let mut found = HashMap::new();
        for symbol in table.iter() {
            let Ok(name) = std::str::from_utf8(symbol.name(ENDIAN, table.strings()).map_err(bad)?) else { continue };
            if name.ends_with(".kd") {
                found.insert(name, symbol.st_value(ENDIAN));
            }
        }
        Ok(found)
    }

    /// What is to be loaded, in the file's order.
    pub(crate) fn load_segments(&self) -> Result<Vec<Segment>, CodeObjectError> {
        let outside = || CodeObjectError::Elf("a segment outside the file".to_owned());
        let load = self.segments.iter().filter(|s| s.p_type(ENDIAN) == elf::PT_LOAD);
        load.map(|s| {
            let bytes = s.data(ENDIAN, self.bytes).map_err(|()| outside())?;
            Ok(Segment {
                address: s.p_vaddr(ENDIAN),
                size: s.p_memsz(ENDIAN).max(bytes.len() as u64),
                bytes: bytes.to_vec(),
                writable: s.p_flags(ENDIAN).0 & elf::PF_W.0 != 0,
                executable: s.p_flags(ENDIAN).0 & elf::PF_X.0 != 0,
            })
        })
        .collect()
    }

    /// Words that hold addresses, in the file's order.
    pub(crate) fn relocations(&self) -> Result<Vec<Relocation>, CodeObjectError> {
        let sections = self.header.sections(ENDIAN, self.bytes).map_err(bad)?;
        let symbols = sections.symbols(ENDIAN, self.bytes, elf::SHT_DYNSYM).map_err(bad)?;
        let mut found = Vec::new();
        for section in sections.iter() {
            if section.rel(ENDIAN, self.bytes).map_err(bad)?.is_some_and(|(records, _)| !records.is_empty()) {
                return Err(CodeObjectError::Elf("relocations without addends".to_owned()));
            }
            let Some((records, _)) = section.rela(ENDIAN, self.bytes).map_err(bad)? else { continue };
            for record in records {
                let (address, kind) = (record.r_offset(ENDIAN), record.r_type(ENDIAN, false).0);
                let refuse = |why: &str| CodeObjectError::Relocation { address, kind, why: why.to_owned() };
                let base = match kind {
                    R_AMDGPU_RELATIVE64 => 0,
                    R_AMDGPU_ABS64 => {
                        let index = record.symbol(ENDIAN, false).ok_or_else(|| refuse("it names no symbol"))?;
                        let symbol = symbols.symbol(index).map_err(bad)?;
                        if symbol.st_shndx(ENDIAN) == elf::SHN_UNDEF {
                            let name = symbol.name(ENDIAN, symbols.strings()).map_err(bad)?;
                            return Err(refuse(&format!("`{}` is not in the code object", String::from_utf8_lossy(name))));
                        }
                        symbol.st_value(ENDIAN)
                    }
                    _ => return Err(refuse("only RELATIVE64 (13) and ABS64 (3) are known")),
                };
                found.push(Relocation { address, target: base.wrapping_add_signed(record.r_addend(ENDIAN)) });
            }
        }
        Ok(found)
    }

    /// Functions of the dynamic symbol table: name, virtual address, size.
    pub(crate) fn functions(&self) -> Result<Vec<(String, u64, u64)>, CodeObjectError> {
        let sections = self.header.sections(ENDIAN, self.bytes).map_err(bad)?;
        let table = sections.symbols(ENDIAN, self.bytes, elf::SHT_DYNSYM).map_err(bad)?;
        let functions = table.iter().filter(|s| s.st_type() == elf::STT_FUNC);
        functions
            .map(|s| {
                let name = s.name(ENDIAN, table.strings()).map_err(bad)?;
                Ok((String::from_utf8_lossy(name).into_owned(), s.st_value(ENDIAN), s.st_size(ENDIAN)))
            })
            .collect()
    }

    /// `len` bytes of the file that are loaded at a virtual address.
    pub(crate) fn bytes_at(&self, address: u64, len: u64) -> Option<&'a [u8]> {
        let segment = self.segments.iter().find(|s| {
            let start = s.p_vaddr(ENDIAN);
            s.p_type(ENDIAN) == elf::PT_LOAD
                && address >= start
                && address.checked_add(len).is_some_and(|end| end - start <= s.p_filesz(ENDIAN))
        })?;
        let offset = segment.p_offset(ENDIAN).checked_add(address - segment.p_vaddr(ENDIAN))?;
        let start = usize::try_from(offset).ok()?;
        self.bytes.get(start..start.checked_add(usize::try_from(len).ok()?)?)
    }
}
