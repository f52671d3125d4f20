//! The storage types a GGUF file may name, supported by us or not.

use gguf_rs_lib::format::GGUFTensorType;
use hipc_ir::dtype::DType;
use std::fmt;

/// Any of ggml's tensor types, so that a file's sizes can be checked before a model asks for what we support.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GgmlType(pub(super) GGUFTensorType);

impl GgmlType {
    /// The type with this `ggml_type` number; `None` for removed and unknown ones.
    pub fn from_id(id: u32) -> Option<Self> {
        GGUFTensorType::from_u32(id).ok().map(Self)
    }

    /// The `ggml_type` number.
    pub fn id(self) -> u32 {
        self.0 as u32
    }

    /// llama.cpp's name.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// Values in one block (1 for plain types).
    pub fn block_len(self) -> u64 {
        self.0.block_size() as u64
    }

    /// Bytes of one block.
    pub fn block_bytes(self) -> u64 {
        self.0.block_size_bytes().unwrap_or(0) as u64
    }

    /// The same type in the IR, if kernels exist for it.
    pub fn supported(self) -> Option<DType> {
        DType::from_ggml_id(self.id())
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometry_agrees_with_the_ir() {
        for t in DType::ALL {
            let g = GgmlType::from_id(t.ggml_id()).unwrap();
            assert_eq!(
                (g.name(), g.block_len(), g.block_bytes()),
                (t.name(), u64::from(t.block_len()), u64::from(t.block_bytes()))
            );
            assert_eq!(g.supported(), Some(t));
        }
        assert_eq!(GgmlType::from_id(13).unwrap().name(), "Q5_K");
        assert_eq!(GgmlType::from_id(13).unwrap().supported(), None);
        for removed in [4, 5, 31, 32, 33, 36, 37, 38, 99, u32::MAX] {
            assert_eq!(GgmlType::from_id(removed), None, "{removed}");
        }
    }
}
