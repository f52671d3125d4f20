//! Bytes of a buffer on this machine.

use crate::device::{Backend, DeviceError};
use hipc_ir::plan::Buffer;
use std::ops::{Deref, DerefMut};

/// Bytes that are aligned for every type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    words: Vec<u64>,
    len: usize,
}

impl Bytes {
    /// So many times this byte.
    pub fn filled(byte: u8, len: usize) -> Self {
        Self { words: vec![u64::from_ne_bytes([byte; 8]); len.div_ceil(8)], len }
    }

    /// A copy.
    pub fn of(bytes: &[u8]) -> Self {
        let mut copy = Self::filled(0, bytes.len());
        copy.copy_from_slice(bytes);
        copy
    }

    /// All of a buffer as the device has it.
    ///
    /// # Errors
    /// The device's.
    pub fn read(backend: &mut dyn Backend, buffer: Buffer) -> Result<Self, DeviceError> {
        let decl = backend.plan().buffers.get(buffer);
        let mut bytes = Self::filled(0, decl.map_or(0, |d| d.bytes as usize));
        backend.read(buffer, 0, &mut bytes)?;
        Ok(bytes)
    }
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }
}

impl DerefMut for Bytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.len]
    }
}
