//! int8 activation blocks ([`Q8Layout`]): the quantised vectors between launches.

use hipc_ir::dtype::Q8Layout;
use multiversion::multiversion;

/// One token of an int8 vector.
#[derive(Clone, Copy, Debug)]
pub struct Q8Token<'a> {
    /// Quants.
    pub q: &'a [i8],
    /// Scale of each block.
    pub scale: &'a [f32],
    /// Sum of the quants of each block.
    pub sum: &'a [i32],
    /// Values per block.
    pub block: usize,
}

impl<'a> Q8Token<'a> {
    /// Token `index` of a vector in device memory; `None` if the bytes end before it or aren't aligned to 4.
    pub fn new(layout: Q8Layout, bytes: &'a [u8], index: usize) -> Option<Self> {
        let (scales, sums, stride) = (layout.scales() as usize, layout.sums() as usize, layout.stride() as usize);
        let blocks = (layout.n / layout.block) as usize;
        let token = bytes.get(index * stride..(index + 1) * stride)?;
        Some(Self {
            q: bytemuck::try_cast_slice(&token[..layout.n as usize]).ok()?,
            scale: bytemuck::try_cast_slice(&token[scales..scales + 4 * blocks]).ok()?,
            sum: bytemuck::try_cast_slice(&token[sums..sums + 4 * blocks]).ok()?,
            block: layout.block as usize,
        })
    }
}

/// One token of an int8 vector, its quants widened once for many products.
#[derive(Clone, Debug)]
pub struct WideToken<'a> {
    /// Quants.
    pub q: Vec<i16>,
    /// Scale of each block.
    pub scale: &'a [f32],
    /// Sum of the quants of each block.
    pub sum: &'a [i32],
    /// Values per block.
    pub block: usize,
}

impl<'a> Q8Token<'a> {
    /// The same in 16 bits.
    pub fn widen(self) -> WideToken<'a> {
        WideToken { q: self.q.iter().map(|&q| i16::from(q)).collect(), scale: self.scale, sum: self.sum, block: self.block }
    }
}

/// Quantises one block: `scale = amax/127`, `q = round_ties_even(x / scale)`; a block of zeros has scale 0. Returns the scale and the
/// sum of the quants. NaN and infinity make the scale NaN or infinite.
#[inline(always)]
pub fn quantize_block(x: &[f32], q: &mut [i8]) -> (f32, i32) {
    // As integers, because their order is that of the absolute values (NaN above all) and integer maxima vectorise.
    let amax = f32::from_bits(x.iter().map(|v| v.to_bits() & 0x7fff_ffff).max().unwrap_or(0));
    let scale = amax / 127.0;
    if scale == 0.0 {
        q.fill(0);
        return (0.0, 0);
    }
    for (q, &x) in q.iter_mut().zip(x) {
        *q = (x / scale).round_ties_even() as i32 as i8;
    }
    (scale, q.iter().map(|&q| i32::from(q)).sum())
}

/// Quantises the values of one token into its place in device memory: `x` has `layout.n` values, `out` is `layout.stride()` bytes.
///
/// # Panics
/// If the lengths differ from these.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub fn quantize(layout: Q8Layout, x: &[f32], out: &mut [u8]) {
    let (n, block) = (layout.n as usize, layout.block as usize);
    let (quants, rest) = out[..layout.stride() as usize].split_at_mut(n);
    let (scales, sums) = rest.split_at_mut(4 * (n / block));
    let parts = x[..n].chunks_exact(block).zip(quants.chunks_exact_mut(block));
    for (((x, q), scale), sum) in parts.zip(scales.as_chunks_mut().0).zip(sums.as_chunks_mut().0) {
        let (d, s) = quantize_block(x, bytemuck::cast_slice_mut(q));
        *scale = d.to_le_bytes();
        *sum = s.to_le_bytes();
    }
}
