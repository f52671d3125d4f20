//! Header and table of a bundle: writing and reading.

use super::{Digest, FormatError, MAGIC, SectionKind, VERSION};

const HEADER_BYTES: usize = 64;
const ENTRY_BYTES: usize = 96;
const NAME_BYTES: usize = 40;
/// A bundle for every target there is has some 90.
const MOST_SECTIONS: u32 = 4096;

/// An entry of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// What it holds.
    pub kind: SectionKind,
    /// Architecture, or empty.
    pub name: String,
    /// First byte in the file.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// Hash of its contents.
    pub hash: Digest,
}

impl Section {
    pub(super) fn describe(&self) -> String {
        if self.name.is_empty() { self.kind.to_string() } else { format!("{} of {}", self.kind, self.name) }
    }

    pub(super) fn range(&self) -> std::ops::Range<usize> {
        self.offset as usize..(self.offset + self.len) as usize
    }
}

/// Gives sections their places: (kind, name, length, hash), those of equal contents one place. In the result offsets rise.
///
/// # Errors
/// [`FormatError::Malformed`] if a name doesn't fit the table.
pub fn place(contents: &[(SectionKind, &str, u64, Digest)]) -> Result<Vec<Section>, FormatError> {
    let mut sections: Vec<Section> = Vec::new();
    let mut end = (HEADER_BYTES + ENTRY_BYTES * contents.len()) as u64;
    for &(kind, name, len, hash) in contents {
        if name.len() > NAME_BYTES || name.bytes().any(|b| b == 0) {
            return Err(FormatError::malformed("table", format!("the name `{name}` doesn't fit")));
        }
        let same = sections.iter().find(|s| (s.hash, s.len, s.kind.align()) == (hash, len, kind.align()));
        let offset = same.map_or_else(|| end.next_multiple_of(kind.align()), |s| s.offset);
        end = end.max(offset + len);
        sections.push(Section { kind, name: name.to_owned(), offset, len, hash });
    }
    Ok(sections)
}

/// Length of the file with these sections.
pub fn file_bytes(sections: &[Section]) -> u64 {
    let table = (HEADER_BYTES + ENTRY_BYTES * sections.len()) as u64;
    sections.iter().map(|s| s.offset + s.len).fold(table, u64::max)
}

/// Header and table of a file with these sections.
pub fn header(sections: &[Section]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES + ENTRY_BYTES * sections.len());
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend((sections.len() as u32).to_le_bytes());
    out.extend(file_bytes(sections).to_le_bytes());
    out.resize(HEADER_BYTES, 0);
    for s in sections {
        out.extend(s.kind.id().to_le_bytes());
        out.extend([0; 4]);
        out.extend(s.offset.to_le_bytes());
        out.extend(s.len.to_le_bytes());
        let mut name = [0; NAME_BYTES];
        name[..s.name.len()].copy_from_slice(s.name.as_bytes());
        out.extend(name);
        out.extend(s.hash.0);
    }
    let hash = header_hash(&out);
    out[32..HEADER_BYTES].copy_from_slice(&hash.0);
    out
}

fn header_hash(head: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&head[..32]).update(&head[HEADER_BYTES..]);
    Digest(hasher.finalize().into())
}

/// Little-endian numbers, one after the other; zero behind the end.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, n: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(n.min(self.0.len()));
        self.0 = tail;
        head
    }
    fn u32(&mut self) -> u32 {
        self.take(4).iter().rev().fold(0, |v, &b| v << 8 | u32::from(b))
    }
    fn u64(&mut self) -> u64 {
        self.take(8).iter().rev().fold(0, |v, &b| v << 8 | u64::from(b))
    }
    fn digest(&mut self) -> Digest {
        let mut hash = [0; 32];
        let bytes = self.take(32);
        hash[..bytes.len()].copy_from_slice(bytes);
        Digest(hash)
    }
}

/// Reads and checks header, table and padding.
pub(super) fn read_table(bytes: &[u8]) -> Result<Vec<Section>, FormatError> {
    let found = bytes.len() as u64;
    if !bytes.starts_with(&MAGIC) {
        return Err(FormatError::NotABundle);
    }
    let short = |expected: usize| FormatError::Length { expected: expected as u64, found };
    let mut fields = Fields(bytes.get(8..HEADER_BYTES).ok_or_else(|| short(HEADER_BYTES))?);
    let version = fields.u32();
    if version != VERSION {
        return Err(FormatError::Version { found: version });
    }
    let (count, expected, reserved) = (fields.u32(), fields.u64(), fields.u64());
    let damaged = || FormatError::Damaged { what: "header".into() };
    if count > MOST_SECTIONS {
        return Err(damaged());
    }
    let end = HEADER_BYTES + ENTRY_BYTES * count as usize;
    let head = bytes.get(..end).ok_or_else(|| short(end))?;
    if fields.digest() != header_hash(head) {
        return Err(damaged());
    }
    if expected != found {
        return Err(FormatError::Length { expected, found });
    }
    let mut sections = Vec::with_capacity(count as usize);
    for entry in head[HEADER_BYTES..].chunks_exact(ENTRY_BYTES) {
        sections.push(read_entry(entry)?);
    }
    if reserved != 0 {
        return Err(FormatError::malformed("header", "a reserved field is in use"));
    }
    check_places(bytes, end as u64, &sections)?;
    Ok(sections)
}

fn read_entry(entry: &[u8]) -> Result<Section, FormatError> {
    let mut fields = Fields(entry);
    let (id, reserved, offset, len) = (fields.u32(), fields.u32(), fields.u64(), fields.u64());
    let name = fields.take(NAME_BYTES);
    let kind = SectionKind::ALL.into_iter().find(|k| k.id() == id && reserved == 0);
    let kind = kind.ok_or_else(|| FormatError::malformed("table", format!("there is no section kind {id}")))?;
    let used = name.iter().position(|&b| b == 0).unwrap_or(NAME_BYTES);
    let name = std::str::from_utf8(&name[..used]).map_err(|e| FormatError::malformed("table", e))?;
    Ok(Section { kind, name: name.to_owned(), offset, len, hash: fields.digest() })
}

/// Sections must lie where [`place`] puts them, with zeros between.
fn check_places(bytes: &[u8], table_end: u64, sections: &[Section]) -> Result<(), FormatError> {
    let mut places: Vec<(u64, u64, u64)> = sections.iter().map(|s| (s.offset, s.len, s.kind.align())).collect();
    places.sort_unstable();
    places.dedup();
    let mut end = table_end;
    for (offset, len, align) in places {
        let next = offset.checked_add(len).filter(|&next| next <= bytes.len() as u64);
        let Some(next) = next.filter(|_| offset == end.next_multiple_of(align)) else {
            return Err(FormatError::malformed("table", format!("a section at {offset} is out of place")));
        };
        if bytes[end as usize..offset as usize].iter().any(|&b| b != 0) {
            return Err(FormatError::Damaged { what: format!("padding at {end}") });
        }
        end = next;
    }
    if end == bytes.len() as u64 { Ok(()) } else { Err(FormatError::malformed("table", "bytes behind the last section")) }
}
