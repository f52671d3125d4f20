//! Block types against gguf-py's numbers, and products against naive arithmetic.

use hipc_ir::dtype::{DType, Layout, Q8Layout};
use hipc_reference::blocks::{Matrix, Q8Token, Quants, dot_exact, dot_fast, gguf_row, quantize, split_row};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const N: u32 = 512;

fn fixture(dtype: DType) -> (Vec<u8>, Vec<f32>) {
    let path = format!("{}/tests/fixtures/{dtype}.bin", env!("CARGO_MANIFEST_DIR"));
    let mut bytes = std::fs::read(path).unwrap();
    let values = bytes.split_off(dtype.row_bytes(N).unwrap() as usize);
    (bytes, values.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

/// Random blocks with sensible scales.
pub fn random_row(dtype: DType, n: u32, rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = vec![0u8; dtype.row_bytes(n).unwrap() as usize];
    rng.fill(&mut bytes[..]);
    let halves: &[usize] = match dtype {
        DType::Q4_K => &[0, 2],
        DType::Q6_K => &[208],
        _ => &[0],
    };
    for block in bytes.chunks_exact_mut(dtype.block_bytes() as usize) {
        for &at in halves {
            let d = half::f16::from_f32(rng.random_range(-0.01..0.01));
            block[at..at + 2].copy_from_slice(&d.to_le_bytes());
        }
    }
    bytes
}

#[test]
fn dequantised_rows_equal_gguf_py_bit_for_bit() {
    for dtype in DType::ALL.into_iter().filter(|&t| t != DType::F32) {
        let (bytes, expected) = fixture(dtype);
        let matrix = Matrix::new(dtype, N, &bytes).unwrap();
        let mut row = vec![f32::NAN; N as usize];
        matrix.dequantize(0, &mut row);
        let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&row), bits(&expected), "{dtype}");
    }
}

#[test]
fn quants_and_scales_give_the_same_values() {
    for dtype in DType::ALL.into_iter().filter(|t| t.is_quantized()) {
        let (bytes, expected) = fixture(dtype);
        let mut quants = Quants::default();
        Matrix::new(dtype, N, &bytes).unwrap().unpack(0, &mut quants);
        for (i, &e) in expected.iter().enumerate() {
            let min = quants.min.get(i / 32).copied().unwrap_or(0.0);
            assert_eq!(quants.scale[i / quants.piece] * f32::from(quants.q[i] + quants.centre) - min, e, "{dtype} value {i}");
        }
    }
}

#[test]
fn a_split_row_has_every_bit_of_the_blocks_once() {
    for dtype in DType::ALL.into_iter().filter(|t| t.is_quantized()) {
        for n in [256, 512, 768, 2304] {
            let [len, stride] = Layout::ALL.map(|l| l.row_bytes(dtype, n).unwrap() as usize);
            let (mut split, mut back) = (vec![0xff; stride], vec![0xff; len]);
            let mut places = vec![false; 8 * stride];
            for bit in 0..8 * len {
                let mut row = vec![0u8; len];
                row[bit / 8] |= 1 << (bit % 8);
                split_row(dtype, &row, &mut split);
                gguf_row(dtype, &split, &mut back);
                assert_eq!(back, row, "{dtype} {n}: bit {bit}");
                let set: Vec<usize> = (0..8 * stride).filter(|i| split[i / 8] >> (i % 8) & 1 == 1).collect();
                assert!(set.len() == 1 && set[0] < 8 * len, "{dtype} {n}: bit {bit} is at {set:?}");
                assert!(!std::mem::replace(&mut places[set[0]], true), "{dtype} {n}: bit {bit} has another's place");
            }
        }
    }
}

#[test]
fn a_split_matrix_has_the_same_values_and_quants() {
    let rng = &mut ChaCha8Rng::seed_from_u64(5);
    for dtype in DType::ALL.into_iter().filter(|t| t.is_quantized()) {
        let row = random_row(dtype, N, rng);
        let mut split = vec![0; Layout::Split.row_bytes(dtype, N).unwrap() as usize];
        split_row(dtype, &row, &mut split);
        let [gguf, split] = [(Layout::Gguf, &row), (Layout::Split, &split)].map(|(layout, bytes)| {
            let matrix = Matrix::with_layout(dtype, layout, N, bytes).unwrap();
            let (mut values, mut quants) = (vec![0f32; N as usize], Quants::default());
            matrix.dequantize(0, &mut values);
            matrix.unpack(0, &mut quants);
            (values, quants.q, quants.scale, quants.min)
        });
        assert_eq!(gguf, split, "{dtype}");
    }
    assert!(Matrix::with_layout(DType::F16, Layout::Split, N, &[0; 2 * N as usize]).is_none());
}

#[test]
fn rounding_to_int8_is_to_even_and_zero_blocks_have_scale_zero() {
    let layout = Q8Layout { n: 64, block: 32 };
    let mut x = [0f32; 64];
    // amax 127 makes the scale 1, so these are ties.
    x[..5].copy_from_slice(&[127.0, 0.5, 1.5, -0.5, -2.5]);
    let mut bytes: Vec<u32> = vec![u32::MAX; layout.stride() as usize / 4];
    quantize(layout, &x, bytemuck::cast_slice_mut(&mut bytes));
    let token = Q8Token::new(layout, bytemuck::cast_slice(&bytes), 0).unwrap();
    assert_eq!(&token.q[..5], &[127, 0, 2, 0, -2]);
    assert_eq!((token.scale, token.sum), (&[1.0, 0.0][..], &[127, 0][..]));
    assert!(token.q[32..].iter().all(|&q| q == 0));
}

proptest! {
    #[test]
    fn products(seed: u64, dtype in prop::sample::select(vec![DType::Q4_0, DType::Q8_0, DType::Q4_K, DType::Q6_K]), block in prop::sample::select(vec![16u32, 32])) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let n = 1024;
        let bytes = random_row(dtype, n, rng);
        let x: Vec<f32> = (0..n).map(|_| rng.random_range(-1.0f32..1.0)).collect();
        let layout = Q8Layout { n, block };
        let mut buffer = vec![0u32; layout.stride() as usize / 4];
        quantize(layout, &x, bytemuck::cast_slice_mut(&mut buffer));
        let token = Q8Token::new(layout, bytemuck::cast_slice(&buffer), 0).unwrap();

        let matrix = Matrix::new(dtype, n, &bytes).unwrap();
        let mut quants = Quants::default();
        matrix.unpack(0, &mut quants);
        let mut row = vec![0f32; n as usize];
        matrix.dequantize(0, &mut row);

        let (mut naive, mut exact, mut scale) = (0f64, 0f64, 0f64);
        for i in 0..n as usize {
            let min = quants.min.get(i / 32).copied().unwrap_or(0.0);
            let w = f64::from(quants.scale[i / quants.piece]) * f64::from(quants.q[i] + quants.centre) - f64::from(min);
            naive += w * f64::from(token.q[i]) * f64::from(token.scale[i / block as usize]);
            exact += f64::from(row[i]) * f64::from(x[i]);
            scale += (f64::from(row[i]) * f64::from(x[i])).powi(2);
        }
        // scale is the expected square of the result, which one random result may fall far below.
        let wide = token.widen();
        let dot = dot_exact(&quants, &wide);
        prop_assert!((dot - naive).abs() <= 1e-12 * scale.sqrt(), "{dot} {naive}");
        prop_assert!((f64::from(dot_fast(&quants, &wide)) - naive).powi(2) <= 1e-11 * scale);
        prop_assert!((dot - exact).powi(2) <= 5e-4 * scale, "{dot} {exact} {}", scale.sqrt());
    }
}
