//! The quantised block formats of ggml, each by one function: bytes to signed integers, scales and minimums.

/// Middle of the 4-bit quants of types with a minimum, which are unpacked less this.
pub(super) const CENTRE: i16 = 8;

/// A block format.
pub(super) trait Block {
    /// Values per block.
    const LEN: usize;
    /// Bytes per block.
    const BYTES: usize;
    /// Values per scale.
    const PIECE: usize;
    /// Whether every 32 values have a minimum; the quants are then unpacked less [`CENTRE`].
    const MIN: bool;
    /// Writes `LEN` quants, `LEN / PIECE` scales and, if `MIN`, `LEN / 32` minimums.
    fn unpack(block: &[u8], q: &mut [i16], scale: &mut [f32], min: &mut [f32]);
}

#[inline(always)]
pub(super) fn unpack_row<B: Block>(row: &[u8], q: &mut [i16], scale: &mut [f32], min: &mut [f32]) {
    let blocks = row.chunks_exact(B::BYTES).zip(q.chunks_exact_mut(B::LEN)).zip(scale.chunks_exact_mut(B::LEN / B::PIECE));
    if B::MIN {
        for (((block, q), scale), min) in blocks.zip(min.chunks_exact_mut(B::LEN / 32)) {
            B::unpack(block, q, scale, min);
        }
    } else {
        for ((block, q), scale) in blocks {
            B::unpack(block, q, scale, &mut []);
        }
    }
}

#[inline(always)]
pub(super) fn dequantize_row<B: Block>(row: &[u8], out: &mut [f32]) {
    let (mut q, mut scale, mut min) = ([0i16; 256], [0f32; 16], [0f32; 8]);
    for (block, out) in row.chunks_exact(B::BYTES).zip(out.chunks_exact_mut(B::LEN)) {
        B::unpack(block, &mut q[..B::LEN], &mut scale[..B::LEN / B::PIECE], &mut min[..if B::MIN { B::LEN / 32 } else { 0 }]);
        for (piece, out) in out.chunks_exact_mut(B::PIECE).enumerate() {
            let (d, m) = (scale[piece], min[piece * B::PIECE / 32]);
            for (o, &q) in out.iter_mut().zip(&q[piece * B::PIECE..]) {
                *o = d * f32::from(if B::MIN { q + CENTRE } else { q }) - m;
            }
        }
    }
}

#[inline(always)]
fn half_at(block: &[u8], at: usize) -> f32 {
    half_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// IEEE binary16 to binary32, exactly. Without calls and branches, so that loops over it vectorise (the crate `half` asks for the machine's
/// features in every call), and without f32 subnormals on the way: they cost a hundred cycles each, and the scales of Q6_K are
/// subnormal halves more often than not.
#[inline(always)]
pub(crate) fn half_to_f32(bits: u16) -> f32 {
    const EXPONENT: u32 = 1 << 23;
    let magnitude = u32::from(bits & 0x7fff);
    let shifted = magnitude << 13;
    let normal = shifted + 112 * EXPONENT;
    // The mantissa on top of 2^-14, which is then taken off.
    let subnormal = (f32::from_bits(shifted + 113 * EXPONENT) - f32::from_bits(113 * EXPONENT)).to_bits();
    let value = match magnitude {
        0..0x400 => subnormal,
        0x400..0x7c00 => normal,
        _ => shifted | 0x7f80_0000,
    };
    f32::from_bits(value | (u32::from(bits & 0x8000) << 16))
}

/// `block_q4_0`: d f16, 16 bytes; low nibbles are values 0..16, high nibbles 16..32; `d·(q−8)`.
pub(super) struct Q4_0;

impl Block for Q4_0 {
    const LEN: usize = 32;
    const BYTES: usize = 18;
    const PIECE: usize = 32;
    const MIN: bool = false;
    #[inline(always)]
    fn unpack(block: &[u8], q: &mut [i16], scale: &mut [f32], _: &mut [f32]) {
        scale[0] = half_at(block, 0);
        // Two loops, whole: LLVM unrolls one over both halves into single bytes.
        let (low, high) = q.split_at_mut(16);
        low.iter_mut().zip(&block[2..18]).for_each(|(q, &byte)| *q = i16::from(byte & 15) - 8);
        high.iter_mut().zip(&block[2..18]).for_each(|(q, &byte)| *q = i16::from(byte >> 4) - 8);
    }
}

/// `block_q8_0`: d f16, 32 signed bytes; `d·q`.
pub(super) struct Q8_0;

impl Block for Q8_0 {
    const LEN: usize = 32;
    const BYTES: usize = 34;
    const PIECE: usize = 32;
    const MIN: bool = false;
    #[inline(always)]
    fn unpack(block: &[u8], q: &mut [i16], scale: &mut [f32], _: &mut [f32]) {
        scale[0] = half_at(block, 0);
        for (q, &byte) in q.iter_mut().zip(&block[2..34]) {
            *q = i16::from(byte as i8);
        }
    }
}

/// `block_q4_K`: d and dmin f16; 8 pairs of a 6-bit scale and a 6-bit minimum in 12 bytes; 128 bytes, of which 32 hold a pair of
/// sub-blocks of 32 values, the first in the low nibbles; `d·sc·q − dmin·m`.
pub(super) struct Q4K;

impl Block for Q4K {
    const LEN: usize = 256;
    const BYTES: usize = 144;
    const PIECE: usize = 32;
    const MIN: bool = true;
    #[inline(always)]
    fn unpack(block: &[u8], q: &mut [i16], scale: &mut [f32], min: &mut [f32]) {
        let (d, dmin) = (half_at(block, 0), half_at(block, 2));
        // Four at a time: the low six bits of the first eight bytes, and the last four bytes' nibbles with the top two bits of those.
        let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
        let (s, m, rest) = (word(4), word(8), word(12));
        let low = |w: u32| u64::from(w & 0x3f3f_3f3f);
        let high = |nibbles: u32, w: u32| u64::from(nibbles & 0x0f0f_0f0f | (w >> 6 & 0x0303_0303) << 4);
        let scales = (low(s) | high(rest, s) << 32).to_le_bytes();
        let mins = (low(m) | high(rest >> 4, m) << 32).to_le_bytes();
        for j in 0..8 {
            scale[j] = d * f32::from(scales[j]);
            min[j] = dmin * f32::from(mins[j]);
        }
        for (q, bytes) in q.chunks_exact_mut(64).zip(block[16..144].chunks_exact(32)) {
            let (low, high) = q.split_at_mut(32);
            for ((low, high), &byte) in low.iter_mut().zip(high).zip(bytes) {
                *low = i16::from(byte & 15) - CENTRE;
                *high = i16::from(byte >> 4) - CENTRE;
            }
        }
    }
}

/// `block_q6_K`: low four bits of 256 values in 128 bytes, their high two bits in 64 bytes, 16 signed scales, d f16; `d·sc·(q−32)`.
pub(super) struct Q6K;

impl Block for Q6K {
    const LEN: usize = 256;
    const BYTES: usize = 210;
    const PIECE: usize = 16;
    const MIN: bool = false;
    #[inline(always)]
    fn unpack(block: &[u8], q: &mut [i16], scale: &mut [f32], _: &mut [f32]) {
        let d = half_at(block, 208);
        for (scale, &s) in scale.iter_mut().zip(&block[192..208]) {
            *scale = d * f32::from(s as i8);
        }
        let (lows, highs) = (&block[..128], &block[128..192]);
        for ((q, low), high) in q.chunks_exact_mut(128).zip(lows.chunks_exact(64)).zip(highs.chunks_exact(32)) {
            for l in 0..32 {
                let (a, b, h) = (low[l], low[l + 32], high[l]);
                q[l] = i16::from((a & 15) | ((h & 3) << 4)) - 32;
                q[l + 32] = i16::from((b & 15) | (((h >> 2) & 3) << 4)) - 32;
                q[l + 64] = i16::from((a >> 4) | (((h >> 4) & 3) << 4)) - 32;
                q[l + 96] = i16::from((b >> 4) | ((h >> 6) << 4)) - 32;
            }
        }
    }
}
