//! Matrix instructions: MFMA (CDNA) and WMMA (RDNA 3 and 4).

use super::{Context, Lack, Run};
use crate::instruction::Operation;

pub(crate) fn build<const W: usize>(_operation: &Operation, _context: &Context) -> Result<Option<Run<W>>, Lack> {
    Ok(None)
}
