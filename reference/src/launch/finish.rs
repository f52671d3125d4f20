//! What is written of a freshly computed vector ([`Finish`]).

use super::arith::Num;
use super::operands::{Operands, q8_layout};
use super::tracked::Tracked;
use super::{LaunchError, Step, Witness};
use crate::blocks::quantize;
use hipc_ir::fused::{Finish, Role};
use rayon::prelude::*;

/// The operands of a [`Finish`].
pub(super) struct Finisher<'a> {
    n: usize,
    tile: usize,
    gain: Option<&'a [f32]>,
    raw: Option<&'a mut [f32]>,
    gained: Option<&'a mut [f32]>,
    quantized: Option<&'a mut [u8]>,
    ssq: Option<&'a mut [f32]>,
}

/// One token's share of them.
struct Token<'a> {
    raw: Option<&'a mut [f32]>,
    gained: Option<&'a mut [f32]>,
    quantized: Option<&'a mut [u8]>,
    ssq: Option<&'a mut [f32]>,
    unrounded: Option<&'a mut [Tracked]>,
}

impl<'a> Finisher<'a> {
    /// Takes the operands for vectors of `n` values, of which a workgroup computes `tile`.
    pub fn take(operands: &mut Operands<'a, '_>, f: Finish, n: u32, tile: u32, step: Step) -> Result<Self, LaunchError> {
        let (n32, n, tile) = (n, n as usize, tile.max(1) as usize);
        let all = n * step.tokens;
        Ok(Self {
            n,
            tile,
            gain: f.gain.then(|| operands.read(Role::Gain, n)).transpose()?,
            raw: f.raw.then(|| operands.write(Role::Raw, all)).transpose()?,
            gained: f.f32.then(|| operands.write(Role::Gained, all)).transpose()?,
            quantized: f
                .q8
                .then(|| operands.write(Role::Quantized, q8_layout(n32).stride() as usize * step.tokens))
                .transpose()?,
            ssq: f.ssq.then(|| operands.write(Role::SsqOut, n.div_ceil(tile) * step.tokens)).transpose()?,
        })
    }

    /// Writes all tokens; `fill` computes the vector of one.
    pub fn write<T: Num>(self, tokens: usize, witness: Option<&mut Witness<'_>>, fill: impl Fn(usize, &mut [T]) + Sync) {
        let n = self.n;
        let layout = q8_layout(n as u32);
        let quantizes = self.quantized.is_some();
        let unrounded = witness.filter(|_| quantizes).map(|w| {
            w.quantized.resize(n * tokens, Tracked::default());
            &mut w.quantized[..]
        });
        let (raw, gained) = (split(self.raw, n, tokens), split(self.gained, n, tokens));
        let quantized = split(self.quantized, layout.stride() as usize, tokens);
        let (ssq, unrounded) = (split(self.ssq, n.div_ceil(self.tile), tokens), split(unrounded, n, tokens));
        let zipped = raw.zip(gained).zip(quantized).zip(ssq).zip(unrounded);
        let mut out: Vec<Token<'_>> = zipped
            .map(|((((raw, gained), quantized), ssq), unrounded)| Token { raw, gained, quantized, ssq, unrounded })
            .collect();
        let (gain, tile) = (self.gain, self.tile);
        out.par_iter_mut().enumerate().for_each(|(t, out)| {
            let mut y = vec![T::default(); n];
            fill(t, &mut y);
            if let Some(raw) = &mut out.raw {
                raw.iter_mut().zip(&y).for_each(|(o, y)| *o = y.f32());
            }
            if let Some(ssq) = &mut out.ssq {
                for (o, part) in ssq.iter_mut().zip(y.chunks(tile)) {
                    *o = part.iter().fold(T::default(), |sum, &y| sum + y * y).f32();
                }
            }
            if let Some(gain) = gain {
                y.iter_mut().zip(gain).for_each(|(y, &g)| *y = *y * T::of(g));
            }
            if out.gained.is_none() && out.quantized.is_none() {
                return;
            }
            let z: Vec<f32> = y.iter().map(|z| z.f32()).collect();
            if let Some(gained) = &mut out.gained {
                gained.copy_from_slice(&z);
            }
            if let Some(unrounded) = &mut out.unrounded {
                unrounded.iter_mut().zip(&y).for_each(|(o, z)| *o = z.tracked());
            }
            if let Some(bytes) = &mut out.quantized {
                quantize(layout, &z, bytes);
            }
        });
    }
}

/// One slice of `each` values per token, or as many times nothing.
fn split<T>(slice: Option<&mut [T]>, each: usize, tokens: usize) -> impl Iterator<Item = Option<&mut [T]>> {
    let mut chunks = slice.map(|s| s.chunks_exact_mut(each.max(1)));
    (0..tokens).map(move |_| chunks.as_mut().and_then(Iterator::next))
}
