//! clang's offload bundle, which `hipcc --genco` writes around code objects.
//!
//! Source: "Clang Offload Bundler" of the clang manual: 24 bytes of magic, the number of entries, then per entry offset,
//! size, length of the id and the id; all numbers u64 little-endian.

use crate::CodeObjectError;

const MAGIC: &[u8] = b"__CLANG_OFFLOAD_BUNDLE__";

/// The code object for `processor` (e.g. `gfx1030`) in an uncompressed offload bundle; bytes that are no bundle are returned as they are.
///
/// # Errors
/// [`CodeObjectError::Bundle`] if the bundle is damaged or has no entry for the processor.
pub fn unbundle<'a>(bytes: &'a [u8], processor: &str) -> Result<&'a [u8], CodeObjectError> {
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else { return Ok(bytes) };
    let damaged = || CodeObjectError::Bundle("truncated".to_owned());
    let number = |rest: &mut &'a [u8]| {
        let (head, tail) = rest.split_first_chunk::<8>()?;
        *rest = tail;
        usize::try_from(u64::from_le_bytes(*head)).ok()
    };
    let count = number(&mut rest).ok_or_else(damaged)?;
    let mut ids = Vec::new();
    for _ in 0..count {
        let offset = number(&mut rest).ok_or_else(damaged)?;
        let size = number(&mut rest).ok_or_else(damaged)?;
        let id_len = number(&mut rest).ok_or_else(damaged)?;
        let (id, tail) = rest.split_at_checked(id_len).ok_or_else(damaged)?;
        rest = tail;
        let id = String::from_utf8_lossy(id).into_owned();
        if id.starts_with("hip") && id.split(':').next().and_then(|id| id.rsplit('-').next()) == Some(processor) {
            let end = offset.checked_add(size).ok_or_else(damaged)?;
            return bytes.get(offset..end).ok_or_else(damaged);
        }
        ids.push(id);
    }
    Err(CodeObjectError::Bundle(format!("nothing for {processor}; it holds {}", ids.join(", "))))
}
