//! The layout [`Layout::Split`](hipc_ir::dtype::Layout::Split) of a row, to and from GGUF's: each bit of a block has one place in either.
//!
//! Written by the meaning of the fields (which value, which sub-block), not as a copy of bytes, so that it says the same as
//! the kernels for another reason.

use hipc_ir::dtype::DType;

/// Rewrites a row of blocks; the padding behind it is zero. `out` has the bytes of a row in the split layout.
///
/// # Panics
/// If `row` isn't whole blocks of a quantised type or `out` is too short.
pub fn split_row(dtype: DType, row: &[u8], out: &mut [u8]) {
    out.fill(0);
    let blocks = row.chunks_exact(dtype.block_bytes() as usize);
    let cols = blocks.len() * dtype.block_len() as usize;
    for (b, block) in blocks.enumerate() {
        match dtype {
            DType::Q4_0 => {
                put(out, 16 * b, &block[2..]);
                put(out, cols / 2 + 2 * b, &block[..2]);
            }
            DType::Q8_0 => {
                put(out, 32 * b, &block[2..]);
                put(out, cols + 2 * b, &block[..2]);
            }
            DType::Q4_K => {
                put(out, 128 * b, &block[16..]);
                let header = cols / 2 + 16 * b;
                put(out, header, &block[..4]);
                put(out, header + 4, &pack_scales(unpack_gguf_scales(&block[4..16])));
            }
            DType::Q6_K => {
                put(out, 128 * b, &block[..128]);
                let (pairs, scales, d) = (cols / 2 + 64 * b, cols / 4 * 3 + 16 * b, cols / 16 * 13 + 2 * b);
                for place in PairPlace::all() {
                    let pair = block[128 + place.gguf_byte] >> place.gguf_shift & 3;
                    out[pairs + place.split_byte] |= pair << place.split_shift;
                }
                for (i, &scale) in block[192..208].iter().enumerate() {
                    out[scales + q6k_scale(i)] = scale;
                }
                put(out, d, &block[208..]);
            }
            DType::F32 | DType::F16 | DType::BF16 => {}
        }
    }
}

/// The way back. `out` has the bytes of the row's blocks.
///
/// # Panics
/// If `out` isn't whole blocks of a quantised type or `row` is too short.
pub fn gguf_row(dtype: DType, row: &[u8], out: &mut [u8]) {
    let blocks = out.chunks_exact_mut(dtype.block_bytes() as usize);
    let cols = blocks.len() * dtype.block_len() as usize;
    for (b, block) in blocks.enumerate() {
        match dtype {
            DType::Q4_0 => {
                block[2..].copy_from_slice(&row[16 * b..][..16]);
                block[..2].copy_from_slice(&row[cols / 2 + 2 * b..][..2]);
            }
            DType::Q8_0 => {
                block[2..].copy_from_slice(&row[32 * b..][..32]);
                block[..2].copy_from_slice(&row[cols + 2 * b..][..2]);
            }
            DType::Q4_K => {
                block[16..].copy_from_slice(&row[128 * b..][..128]);
                let header = &row[cols / 2 + 16 * b..][..16];
                block[..4].copy_from_slice(&header[..4]);
                block[4..16].copy_from_slice(&pack_gguf_scales(unpack_scales(&header[4..])));
            }
            DType::Q6_K => {
                block.fill(0);
                block[..128].copy_from_slice(&row[128 * b..][..128]);
                let (pairs, scales) = (&row[cols / 2 + 64 * b..][..64], &row[cols / 4 * 3 + 16 * b..][..16]);
                for place in PairPlace::all() {
                    let pair = pairs[place.split_byte] >> place.split_shift & 3;
                    block[128 + place.gguf_byte] |= pair << place.gguf_shift;
                }
                for (i, scale) in block[192..208].iter_mut().enumerate() {
                    *scale = scales[q6k_scale(i)];
                }
                block[208..].copy_from_slice(&row[cols / 16 * 13 + 2 * b..][..2]);
            }
            DType::F32 | DType::F16 | DType::BF16 => {}
        }
    }
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The 6-bit scales and minimums of eight sub-blocks.
type Scales = [(u8, u8); 8];

fn unpack_gguf_scales(s: &[u8]) -> Scales {
    std::array::from_fn(|j| match j {
        0..4 => (s[j] & 63, s[j + 4] & 63),
        _ => (s[j + 4] & 15 | s[j - 4] >> 6 << 4, s[j + 4] >> 4 | s[j] >> 6 << 4),
    })
}

fn pack_gguf_scales(scales: Scales) -> [u8; 12] {
    std::array::from_fn(|i| match i {
        0..4 => scales[i].0 | scales[i + 4].0 >> 4 << 6,
        4..8 => scales[i - 4].1 | scales[i].1 >> 4 << 6,
        _ => scales[i - 4].0 & 15 | scales[i - 4].1 << 4,
    })
}

fn unpack_scales(packed: &[u8]) -> Scales {
    std::array::from_fn(|j| {
        let pair = u16::from_le_bytes([packed[j / 2 * 2], packed[j / 2 * 2 + 1]]);
        let (scale, upper) = (pair >> (j % 2 * 6) & 63, pair >> (12 + j % 2 * 2) & 3);
        let lower = packed[8 + j / 2] >> (j % 2 * 4) & 15;
        (scale as u8, lower | (upper as u8) << 4)
    })
}

fn pack_scales(scales: Scales) -> [u8; 12] {
    let mut packed = [0; 12];
    for (g, pair) in scales.as_chunks::<2>().0.iter().enumerate() {
        let [(s0, m0), (s1, m1)] = pair.map(|(s, m)| (u16::from(s), u16::from(m)));
        let bits = s0 | s1 << 6 | m0 >> 4 << 12 | m1 >> 4 << 14;
        put(&mut packed, 2 * g, &bits.to_le_bytes());
        packed[8 + g] = (m0 & 15 | (m1 & 15) << 4) as u8;
    }
    packed
}

/// Where the upper bits of one value of a Q6_K block are, from the beginning of all upper bits of the block.
struct PairPlace {
    gguf_byte: usize,
    gguf_shift: usize,
    split_byte: usize,
    split_shift: usize,
}

impl PairPlace {
    fn all() -> impl Iterator<Item = Self> {
        (0..256).map(|value| {
            let (half, in_half) = (value / 128, value % 128);
            // The nibbles of value v are in byte v % 64 of its half; 16 such bytes are a piece.
            let (piece, byte, high) = (half * 4 + in_half % 64 / 16, in_half % 16, in_half / 64);
            Self {
                gguf_byte: half * 32 + in_half % 32,
                gguf_shift: in_half / 32 * 2,
                split_byte: piece * 8 + high * 4 + byte % 4,
                split_shift: byte / 4 * 2,
            }
        })
    }
}

/// Where the scale of the `i`-th 16 values goes: behind each other those of a piece's low and high nibbles.
fn q6k_scale(i: usize) -> usize {
    let (half, in_half) = (i / 8, i % 8);
    (half * 4 + in_half % 4) * 2 + in_half / 4
}
