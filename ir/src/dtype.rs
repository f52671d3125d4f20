//! Storage types of weights and caches, with the block geometry of ggml's quantised formats.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Storage type of a weight tensor, in GGUF's own layout.
///
/// Source of the block layouts: ggml's `ggml-common.h` (`block_q4_0`, `block_q8_0`, `block_q4_K`, `block_q6_K`).
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DType {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// bfloat16.
    BF16,
    /// 32 values: f16 scale, 16 bytes of 4-bit quants (low nibbles first half), value `d·(q−8)`. 18 bytes.
    Q4_0,
    /// 32 values: f16 scale, 32 signed bytes, value `d·q`. 34 bytes.
    Q8_0,
    /// 256 values: f16 d and dmin, 12 bytes of 6-bit scales and mins for 8 sub-blocks, 128 bytes of 4-bit quants,
    /// value `d·sc·q − dmin·m`. 144 bytes.
    Q4_K,
    /// 256 values: 128 bytes low 4 bits, 64 bytes high 2 bits, 16 signed 8-bit scales, f16 d, value `d·sc·(q−32)`. 210 bytes.
    Q6_K,
}

impl DType {
    /// Every supported type.
    pub const ALL: [DType; 7] = [Self::F32, Self::F16, Self::BF16, Self::Q4_0, Self::Q8_0, Self::Q4_K, Self::Q6_K];

    /// The number by which GGUF names the type (`ggml_type`).
    pub fn ggml_id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 8,
            Self::Q4_K => 12,
            Self::Q6_K => 14,
            Self::BF16 => 30,
        }
    }

    /// The type with this `ggml_type` number, if it is supported.
    pub fn from_ggml_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.ggml_id() == id)
    }

    /// llama.cpp's name of the type.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q8_0 => "Q8_0",
            Self::Q4_K => "Q4_K",
            Self::Q6_K => "Q6_K",
        }
    }

    /// The type of this name, case sensitive.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }

    /// Values in one block (1 for float types).
    pub fn block_len(self) -> u32 {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q8_0 => 32,
            Self::Q4_K | Self::Q6_K => 256,
        }
    }

    /// Bytes of one block.
    pub fn block_bytes(self) -> u32 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 18,
            Self::Q8_0 => 34,
            Self::Q4_K => 144,
            Self::Q6_K => 210,
        }
    }

    /// Bytes of a row of `n` values, or `None` if `n` isn't a whole number of blocks.
    pub fn row_bytes(self, n: u32) -> Option<u64> {
        n.is_multiple_of(self.block_len()).then(|| u64::from(n / self.block_len()) * u64::from(self.block_bytes()))
    }

    /// Whether products with this type take int8 activation blocks (the others take f32).
    pub fn is_quantized(self) -> bool {
        self.block_len() > 1
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Storage type of the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum KvType {
    /// IEEE binary16, the default.
    F16,
    /// IEEE binary32 (`--kv f32`).
    F32,
}

impl KvType {
    /// Bytes of one value.
    pub fn bytes(self) -> u32 {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

/// A finite real attribute (an epsilon, a frequency base) that compares and hashes by its bits, so that ops can be map keys.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Real(pub f64);

impl PartialEq for Real {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}
impl Eq for Real {}
impl std::hash::Hash for Real {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}
impl PartialOrd for Real {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Real {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}
impl fmt::Display for Real {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// An int8 activation vector: per token, `n` quants, then one f32 scale per block, then one i32 sum of quants per block.
///
/// For one token: bytes `0..n` quants (i8), `n..n+4·n/B` scales (f32), then sums (i32); the token stride is rounded up to
/// 128 bytes. The scale is `amax/127` (0 for a zero block), the quant `round_ties_even(x/scale)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Q8Layout {
    /// Values per token; a multiple of `block`.
    pub n: u32,
    /// Values per scale (B).
    pub block: u32,
}

impl Q8Layout {
    /// Values per scale unless a plan says otherwise.
    pub const DEFAULT_BLOCK: u32 = 32;

    /// Offset of the scales within a token.
    pub fn scales(self) -> u32 {
        self.n
    }
    /// Offset of the sums within a token.
    pub fn sums(self) -> u32 {
        self.n + 4 * (self.n / self.block)
    }
    /// Bytes from one token to the next.
    pub fn stride(self) -> u32 {
        (self.n + 8 * (self.n / self.block)).next_multiple_of(128)
    }
}
