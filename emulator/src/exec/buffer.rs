//! Buffer instructions, as far as gfx9 and gfx10 use them for scratch.

use super::{Context, Lack, Run};
use crate::instruction::Operation;

pub(crate) fn build<const W: usize>(operation: &Operation, _context: &Context) -> Result<Run<W>, Lack> {
    Err(operation.name.clone())
}
