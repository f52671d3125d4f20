//! Weights at random, for measuring: what a model costs doesn't depend on their values.
//!
//! Blocks are valid and about as large as a trained model's: a matrix of `cols` inputs has values of variance 1/`cols`, so that
//! its products are as large as what goes in, and vectors (gains of norms) lie near 1. Nothing overflows, nothing becomes NaN.
//! The bytes depend on the seed, the weight and the place alone: pieces can be made in any order, on any number of threads.

use crate::device::WeightSource;
use half::f16;
use hipc_ir::PrimaryMap;
use hipc_ir::dtype::DType;
use hipc_ir::graph::{Weight, WeightDecl};
use rayon::prelude::*;
use std::borrow::Cow;
use std::sync::OnceLock;

/// Blocks that one generator makes.
const BLOCKS: u64 = 1024;

/// Weights of a plan or graph, made on demand.
#[derive(Debug)]
pub struct Synthetic {
    decls: PrimaryMap<Weight, WeightDecl>,
    seed: u64,
    /// What was asked for as a whole stays.
    whole: Vec<OnceLock<Vec<u8>>>,
}

impl Synthetic {
    /// Weights with these declarations.
    pub fn new(decls: PrimaryMap<Weight, WeightDecl>, seed: u64) -> Self {
        let whole = decls.values().map(|_| OnceLock::new()).collect();
        Self { decls, seed, whole }
    }

    /// Makes the bytes of a weight from `offset` on, in GGUF's layout, on all threads. What lies behind its end is zeroed.
    pub fn fill(&self, weight: Weight, offset: u64, out: &mut [u8]) {
        let Some(decl) = self.decls.get(weight) else { return out.fill(0) };
        let unit = BLOCKS * u64::from(decl.dtype.block_bytes());
        let end = decl.bytes();
        // The part before the first whole unit, then unit by unit.
        let head = (offset.next_multiple_of(unit) - offset).min(out.len() as u64) as usize;
        let (first, rest) = out.split_at_mut(head);
        self.part(weight, decl, offset, end, first);
        let from = offset + head as u64;
        rest.par_chunks_mut(unit as usize).enumerate().for_each(|(i, piece)| {
            self.part(weight, decl, from + i as u64 * unit, end, piece);
        });
    }

    fn make(&self, weight: Weight) -> Vec<u8> {
        let mut bytes = vec![0; self.decls.get(weight).map_or(0, WeightDecl::bytes) as usize];
        self.fill(weight, 0, &mut bytes);
        bytes
    }

    /// Bytes within one unit.
    fn part(&self, weight: Weight, decl: &WeightDecl, from: u64, end: u64, out: &mut [u8]) {
        let block = u64::from(decl.dtype.block_bytes());
        let unit = BLOCKS * block;
        let (number, skip) = (from / unit, (from % unit) as usize);
        let has = end.saturating_sub(from).min(out.len() as u64) as usize;
        let (there, behind) = out.split_at_mut(has);
        behind.fill(0);
        if there.is_empty() {
            return;
        }
        let seed = mix(self.seed ^ mix(u64::from(weight.as_u32()) << 40 ^ number));
        if skip == 0 && (has as u64).is_multiple_of(block) {
            return blocks(decl, seed, there);
        }
        let mut own = vec![0; (skip + has).next_multiple_of(block as usize)];
        blocks(decl, seed, &mut own);
        there.copy_from_slice(&own[skip..skip + has]);
    }
}

impl WeightSource for Synthetic {
    fn weight(&self, weight: Weight) -> &[u8] {
        self.whole.get(weight.as_u32() as usize).map_or(&[], |w| w.get_or_init(|| self.make(weight)))
    }
    fn once(&self, weight: Weight) -> Cow<'_, [u8]> {
        match self.whole.get(weight.as_u32() as usize).and_then(OnceLock::get) {
            Some(kept) => Cow::Borrowed(kept),
            None => Cow::Owned(self.make(weight)),
        }
    }
}

/// SplitMix64's finaliser (Steele, Lea, Flood 2014).
fn mix(z: u64) -> u64 {
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
    fn bytes(&mut self, out: &mut [u8]) {
        let (words, rest) = out.as_chunks_mut::<8>();
        words.iter_mut().for_each(|w| *w = self.bits().to_le_bytes());
        let last = self.bits().to_le_bytes();
        rest.iter_mut().zip(last).for_each(|(byte, bits)| *byte = bits);
    }
}

/// Root mean square of uniform quants as stored: 4 bits less 8, 8 bits, 6 bits less 32.
const RMS_4: f32 = 4.64;
const RMS_8: f32 = 73.9;
const RMS_6: f32 = 18.5;
/// Of Q4_K's `sc·q − m·dmin/d` with uniform sub-scales and minima and `dmin = 7.5·d`.
const RMS_4K: f32 = 260.0;
/// Of Q6_K's sub-scales as they are made here, 4 to 19.
const RMS_SCALES: f32 = 12.4;

/// Whole blocks of a weight.
fn blocks(decl: &WeightDecl, seed: u64, out: &mut [u8]) {
    let mut random = Random(seed);
    random.bytes(out);
    let rms = (decl.cols as f32).sqrt().recip();
    let scale = |quants: f32| f16::from_f32(rms / quants).to_le_bytes();
    let vector = decl.rows == 1;
    match decl.dtype {
        // Gains and biases: 1 with one more bit or less of the mantissa's upper eighth, 1 to 1.125.
        DType::F32 if vector => words::<4, u32>(out, |r| 0x3f80_0000 | (r & 0x000f_ffff)),
        DType::F16 if vector => words::<2, u16>(out, |r| 0x3c00 | (r & 0x007f)),
        DType::BF16 if vector => words::<2, u16>(out, |r| 0x3f80 | (r & 0x000f)),
        // Sign and mantissa at random, the exponent at most `exponent` and up to 3 less.
        DType::F32 => {
            let exponent = (127 + exponent(rms)) as u32;
            words::<4, u32>(out, |r| (r & 0x807f_ffff) | ((exponent << 23) - (r & 0x0180_0000)));
        }
        DType::BF16 => {
            let exponent = (127 + exponent(rms)) as u16;
            words::<2, u16>(out, |r| (r & 0x807f) | ((exponent << 7) - (r & 0x0180)));
        }
        DType::F16 => {
            let exponent = (15 + exponent(rms)).max(4) as u16;
            words::<2, u16>(out, |r| (r & 0x83ff) | ((exponent << 10) - (r & 0x0c00)));
        }
        DType::Q4_0 => each(out, 18, |b| b[..2].copy_from_slice(&scale(RMS_4))),
        DType::Q8_0 => each(out, 34, |b| b[..2].copy_from_slice(&scale(RMS_8))),
        DType::Q4_K => each(out, 144, |b| {
            b[..2].copy_from_slice(&scale(RMS_4K));
            b[2..4].copy_from_slice(&scale(RMS_4K / 7.5));
        }),
        DType::Q6_K => each(out, 210, |b| {
            b[192..208].iter_mut().for_each(|s| *s = 4 + (*s & 15));
            b[208..].copy_from_slice(&scale(RMS_6 * RMS_SCALES));
        }),
    }
}

/// Largest exponent of values whose root mean square is about this: sign, mantissa and four exponents at random have 0.88 of it.
fn exponent(rms: f32) -> i32 {
    (rms / 0.88).log2().round() as i32
}

fn each(out: &mut [u8], block: usize, f: impl Fn(&mut [u8])) {
    out.chunks_exact_mut(block).for_each(f);
}

/// A little-endian word of `N` bytes.
trait Word<const N: usize> {
    fn read(bytes: [u8; N]) -> Self;
    fn write(self) -> [u8; N];
}

impl Word<2> for u16 {
    fn read(bytes: [u8; 2]) -> Self {
        Self::from_le_bytes(bytes)
    }
    fn write(self) -> [u8; 2] {
        self.to_le_bytes()
    }
}

impl Word<4> for u32 {
    fn read(bytes: [u8; 4]) -> Self {
        Self::from_le_bytes(bytes)
    }
    fn write(self) -> [u8; 4] {
        self.to_le_bytes()
    }
}

fn words<const N: usize, W: Word<N>>(out: &mut [u8], f: impl Fn(W) -> W) {
    out.as_chunks_mut::<N>().0.iter_mut().for_each(|w| *w = f(W::read(*w)).write());
}

#[cfg(test)]
mod tests {
    use super::*;
    use hipc_reference::blocks::Matrix;

    fn source(dtype: DType, rows: u32, cols: u32, seed: u64) -> (Synthetic, Weight) {
        let mut decls = PrimaryMap::new();
        decls.push(WeightDecl { name: "other".into(), dtype: DType::F32, rows: 1, cols: 4 });
        let weight = decls.push(WeightDecl { name: "w".into(), dtype, rows, cols });
        (Synthetic::new(decls, seed), weight)
    }

    #[test]
    fn matrices_of_every_type_have_the_variance_that_keeps_activations_as_they_are() {
        for dtype in DType::ALL {
            for cols in [256, 4096, 53_248] {
                let (source, weight) = source(dtype, 16, cols, 7);
                let matrix = Matrix::new(dtype, cols, source.weight(weight)).unwrap();
                let (mut row, mut sum, mut squares) = (vec![0f32; cols as usize], 0.0, 0.0);
                for r in 0..16 {
                    matrix.dequantize(r, &mut row);
                    assert!(row.iter().all(|v| v.is_finite()), "{dtype}");
                    sum += row.iter().map(|v| f64::from(*v)).sum::<f64>();
                    squares += row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
                }
                let n = 16.0 * f64::from(cols);
                let (rms, mean) = ((squares / n * f64::from(cols)).sqrt(), sum / n * f64::from(cols).sqrt());
                // The middle of 16 quants lies half a quant off zero: 0.11 of their root mean square.
                assert!((0.6..1.6).contains(&rms) && mean.abs() < 0.16, "{dtype} {cols}: {rms} {mean}");
            }
        }
    }

    #[test]
    fn vectors_are_near_one() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let (source, weight) = source(dtype, 1, 4096, 7);
            let mut row = vec![0f32; 4096];
            Matrix::new(dtype, 4096, source.weight(weight)).unwrap().dequantize(0, &mut row);
            assert!(row.iter().all(|v| (1.0..1.13).contains(v)) && row[0] != row[1], "{dtype}");
        }
    }

    #[test]
    fn bytes_depend_on_seed_weight_and_place_alone() {
        for dtype in DType::ALL {
            let (one, weight) = source(dtype, 700, 1024, 1);
            let whole = one.weight(weight);
            let mut pieces = vec![0xaa; whole.len() + 5];
            let mut at = 0;
            for len in [1, 33, 4096, 100_001, usize::MAX] {
                let len = len.min(pieces.len() - at);
                one.fill(weight, at as u64, &mut pieces[at..at + len]);
                at += len;
            }
            assert!(pieces[..whole.len()] == *whole, "{dtype}");
            assert_eq!(pieces[whole.len()..], [0; 5]);
            let (other, _) = source(dtype, 700, 1024, 2);
            assert!(other.weight(weight) != whole, "{dtype}");
        }
    }
}
