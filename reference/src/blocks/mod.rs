//! Weight matrices in their storage types, and int8 activations.
//!
//! A [`Matrix`] is the one accessor of a weight's bytes. It unpacks a row either to values ([`Matrix::dequantize`]) or to
//! integers with their scales ([`Matrix::unpack`], [`Quants`]), so code that computes never sees a block layout, nor whether the rows are
//! GGUF's or repacked for a device.
//!
//! Source of the layouts and of the order of the f32 operations: ggml's `ggml-quants.c` (`dequantize_row_*`); the results are equal bit
//! for bit to gguf-py's `dequantize`.

mod activations;
mod dot;
mod formats;
mod split;

pub use activations::{Q8Token, WideToken, quantize, quantize_block};
pub use dot::{dot_exact, dot_fast, dot_magnitude};
pub use split::{gguf_row, split_row};

use formats::{Block, Q4_0, Q4K, Q6K, Q8_0};
use hipc_ir::dtype::{DType, Layout};
use multiversion::multiversion;
use std::borrow::Cow;

/// A row of a quantised matrix as integers: value `i` is `scale[i / piece] · (q[i] + centre) − min[i / 32]`.
///
/// Types with a minimum have their quants taken off their middle, so that `scale · q` and `min − scale · centre` are both small: products
/// of either sum to little, where otherwise most of one cancels the other's, and of the f32 with it.
#[derive(Clone, Debug, Default)]
pub struct Quants {
    /// Quants, signed, one per value; 16 bits because that is what vectors multiply and add in pairs.
    pub q: Vec<i16>,
    /// Scale of every `piece` consecutive values.
    pub scale: Vec<f32>,
    /// Subtracted from every 32 consecutive values; empty for types without.
    pub min: Vec<f32>,
    /// What the quants are stored less: 8 for types with a minimum, else 0.
    pub centre: i16,
    /// Values per scale: 32, or 16 for Q6_K.
    pub piece: usize,
}

/// A weight matrix (or a vector: one row).
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    dtype: DType,
    layout: Layout,
    cols: usize,
    row_bytes: usize,
    bytes: &'a [u8],
}

impl<'a> Matrix<'a> {
    /// A matrix of `cols` inputs over these bytes in GGUF's layout; `None` if `cols` isn't a whole number of blocks or the bytes aren't
    /// whole rows.
    pub fn new(dtype: DType, cols: u32, bytes: &'a [u8]) -> Option<Self> {
        Self::with_layout(dtype, Layout::Gguf, cols, bytes)
    }

    /// The same over bytes in any layout that the type has.
    pub fn with_layout(dtype: DType, layout: Layout, cols: u32, bytes: &'a [u8]) -> Option<Self> {
        let row_bytes = usize::try_from(layout.row_bytes(dtype, cols)?).ok()?;
        let whole = row_bytes > 0 && bytes.len().is_multiple_of(row_bytes);
        whole.then_some(Self { dtype, layout, cols: cols as usize, row_bytes, bytes })
    }

    /// Storage type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Values per row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.bytes.len() / self.row_bytes
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// The stored bytes of a row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> &'a [u8] {
        &self.bytes[row * self.row_bytes..(row + 1) * self.row_bytes]
    }

    /// A row's blocks as GGUF has them.
    fn blocks(&self, row: usize) -> Cow<'a, [u8]> {
        match self.layout {
            Layout::Gguf => Cow::Borrowed(self.row(row)),
            Layout::Split => {
                let mut blocks = vec![0; self.cols / self.dtype.block_len() as usize * self.dtype.block_bytes() as usize];
                gguf_row(self.dtype, self.row(row), &mut blocks);
                Cow::Owned(blocks)
            }
        }
    }

    /// The values of a row, `out.len() == cols`.
    ///
    /// # Panics
    /// If there is no such row or `out` is too short.
    pub fn dequantize(&self, row: usize, out: &mut [f32]) {
        dequantize(self.dtype, &self.blocks(row), &mut out[..self.cols]);
    }

    /// The quants of a row of a quantised type. Float types have none: `out` becomes empty.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn unpack(&self, row: usize, out: &mut Quants) {
        let (piece, mins) = match self.dtype {
            DType::Q4_0 => (Q4_0::PIECE, Q4_0::MIN),
            DType::Q8_0 => (Q8_0::PIECE, Q8_0::MIN),
            DType::Q4_K => (Q4K::PIECE, Q4K::MIN),
            DType::Q6_K => (Q6K::PIECE, Q6K::MIN),
            DType::F32 | DType::F16 | DType::BF16 => {
                *out = Quants::default();
                return;
            }
        };
        out.piece = piece;
        out.centre = if mins { formats::CENTRE } else { 0 };
        out.q.resize(self.cols, 0);
        out.scale.resize(self.cols / piece, 0.0);
        out.min.resize(if mins { self.cols / 32 } else { 0 }, 0.0);
        unpack(self.dtype, &self.blocks(row), &mut out.q, &mut out.scale, &mut out.min);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx512vbmi", "x86_64+avx2+bmi2"))]
fn unpack(dtype: DType, row: &[u8], q: &mut [i16], scale: &mut [f32], min: &mut [f32]) {
    match dtype {
        DType::Q4_0 => formats::unpack_row::<Q4_0>(row, q, scale, min),
        DType::Q8_0 => formats::unpack_row::<Q8_0>(row, q, scale, min),
        DType::Q4_K => formats::unpack_row::<Q4K>(row, q, scale, min),
        DType::Q6_K => formats::unpack_row::<Q6K>(row, q, scale, min),
        DType::F32 | DType::F16 | DType::BF16 => {}
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx512vbmi", "x86_64+avx2+bmi2"))]
fn dequantize(dtype: DType, row: &[u8], out: &mut [f32]) {
    match dtype {
        DType::F32 => {
            for (o, b) in out.iter_mut().zip(row.as_chunks().0) {
                *o = f32::from_le_bytes(*b);
            }
        }
        DType::F16 => {
            for (o, b) in out.iter_mut().zip(row.as_chunks().0) {
                *o = formats::half_to_f32(u16::from_le_bytes(*b));
            }
        }
        DType::BF16 => {
            for (o, b) in out.iter_mut().zip(row.as_chunks().0) {
                *o = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
            }
        }
        DType::Q4_0 => formats::dequantize_row::<Q4_0>(row, out),
        DType::Q8_0 => formats::dequantize_row::<Q8_0>(row, out),
        DType::Q4_K => formats::dequantize_row::<Q4K>(row, out),
        DType::Q6_K => formats::dequantize_row::<Q6K>(row, out),
    }
}

/// Converts binary16 values.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub(crate) fn halves_to_f32(bits: &[u16], out: &mut [f32]) {
    for (o, &b) in out.iter_mut().zip(bits) {
        *o = formats::half_to_f32(b);
    }
}

#[cfg(test)]
mod tests {
    use super::formats::half_to_f32;

    #[test]
    fn every_half_converts_exactly() {
        for bits in 0..=u16::MAX {
            let (ours, expected) = (half_to_f32(bits), half::f16::from_bits(bits).to_f32());
            assert!(ours.to_bits() == expected.to_bits() || (ours.is_nan() && expected.is_nan()), "{bits:04x}");
        }
    }
}
