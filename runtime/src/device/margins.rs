//! Margins: filled memory before and behind a buffer, in which nothing may ever be written.

use super::{DeviceError, DevicePtr, Driver};
use hipc_ir::plan::Buffer;
use serde::Serialize;
use std::fmt;

/// Bytes of a margin, on each side of a buffer. A multiple of the alignment that drivers give.
pub const MARGIN: u64 = 4096;

/// What margins hold: no float that a kernel writes by chance.
const FILL: u8 = 0xa5;

/// What becomes of a write beside a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Around {
    /// There is none: launches get slices.
    Slices,
    /// The device stops.
    Fault,
    /// It is found in a margin, see [`super::Backend::beside`], if it isn't beyond that.
    Margins,
    /// Nothing.
    Unseen,
}

/// Something was written beside a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beside {
    /// The buffer that lies next to it.
    pub buffer: Buffer,
    /// First byte that was changed, from the buffer's beginning on; below 0 before it.
    pub offset: i64,
    /// Bytes of the buffer.
    pub len: u64,
    /// Bytes changed.
    pub changed: usize,
}

impl fmt::Display for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { buffer, offset, len, changed } = self;
        let side = if *offset < 0 { "before" } else { "behind" };
        write!(f, "{changed} bytes were written {side} the {len} of buffer {buffer}, the first at its offset {offset}")
    }
}

/// The parts of a margin's two sides: where they begin, and from the buffer's beginning on.
fn sides(address: DevicePtr, len: u64) -> [(DevicePtr, i64); 2] {
    [(address - MARGIN, -(MARGIN as i64)), (address + len, len as i64)]
}

/// Fills the margins of a buffer.
pub(super) fn fill<D: Driver>(driver: &mut D, address: DevicePtr, len: u64) -> Result<(), DeviceError> {
    sides(address, len).into_iter().try_for_each(|(at, _)| driver.upload(at, &[FILL; MARGIN as usize]))
}

/// Looks at the margins of a buffer, and fills them again if something was written there.
pub(super) fn look<D: Driver>(
    driver: &mut D,
    buffer: Buffer,
    address: DevicePtr,
    len: u64,
) -> Result<Option<Beside>, DeviceError> {
    let mut found: Option<Beside> = None;
    for (at, from) in sides(address, len) {
        let mut bytes = [0; MARGIN as usize];
        driver.download(at, &mut bytes)?;
        if let Some(first) = bytes.iter().position(|&b| b != FILL) {
            let changed = bytes.iter().filter(|&&b| b != FILL).count();
            let beside = found.get_or_insert(Beside { buffer, offset: from + first as i64, len, changed: 0 });
            beside.changed += changed;
        }
    }
    if found.is_some() {
        fill(driver, address, len)?;
    }
    Ok(found)
}
