//! Storage types of weights and caches, with the block geometry of ggml's quantised formats and their layouts on a device.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Storage type of a weight tensor; blocks as GGUF has them.
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

    /// Bytes of a row of `n` values in GGUF's layout, or `None` if `n` isn't a whole number of blocks.
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

/// How the blocks of a weight lie in a device's memory. Files have [`Layout::Gguf`]; a device's copy is repacked at load.
///
/// [`Layout::Split`] keeps every bit, at another place: within a row of `K` values first the quants, in pieces of 16 bytes as
/// lanes take them, then what belongs to blocks, so that every load is aligned to its size and neighbouring lanes load
/// neighbouring bytes. Rows begin at multiples of 16 bytes.
///
/// | type | bytes of a row, by their offset |
/// |---|---|
/// | Q4_0 | `0`: the 16 bytes of nibbles of each block; `K/2`: f16 d of each block |
/// | Q8_0 | `0`: the 32 quants of each block; `K`: f16 d of each block |
/// | Q4_K | `0`: the 128 bytes of nibbles of each block; `K/2`: 16 bytes for each block: f16 d, f16 dmin, four u16, one u32. u16 number `g` has in bits 0–5 the scale of sub-block `2g`, in 6–11 that of `2g+1`, in 12–13 the upper two bits of the minimum of `2g`, in 14–15 those of `2g+1`; nibble `j` of the u32 is the lower part of the minimum of sub-block `j` |
/// | Q6_K | `0`: the 128 bytes of low nibbles of each block, of which 16 are a piece; `K/2`: 8 bytes for each piece; `3K/4`: for each piece the i8 scales of its low and of its high nibbles; `13K/16`: f16 d of each block. The 8 bytes are a u32 for the piece's low nibbles and one for its high nibbles; bit pair `i` of byte `b` belongs to the piece's byte `4i + b` |
///
/// Text forms leave GGUF's layout out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "Option<Repacked>", from = "Option<Repacked>")]
pub enum Layout {
    /// Block after block, as in the file.
    Gguf,
    /// Quants of a row, then its scales. Only for types with blocks.
    Split,
}

/// The layouts that a weight must be brought into.
#[derive(Serialize, Deserialize)]
enum Repacked {
    Split,
}

impl From<Layout> for Option<Repacked> {
    fn from(layout: Layout) -> Self {
        match layout {
            Layout::Gguf => None,
            Layout::Split => Some(Repacked::Split),
        }
    }
}

impl From<Option<Repacked>> for Layout {
    fn from(repacked: Option<Repacked>) -> Self {
        match repacked {
            None => Self::Gguf,
            Some(Repacked::Split) => Self::Split,
        }
    }
}

impl Layout {
    /// All layouts.
    pub const ALL: [Layout; 2] = [Self::Gguf, Self::Split];
    /// Bytes of which a row in [`Layout::Split`] is a multiple.
    pub const ALIGN: u64 = 16;

    /// Bytes from one row of `n` values to the next, or `None` if `n` isn't a whole number of blocks or the type doesn't have
    /// this layout.
    pub fn row_bytes(self, dtype: DType, n: u32) -> Option<u64> {
        let bytes = dtype.row_bytes(n)?;
        match self {
            Self::Gguf => Some(bytes),
            Self::Split => dtype.is_quantized().then(|| bytes.next_multiple_of(Self::ALIGN)),
        }
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
