//! Matrix instructions: products of small whole numbers.

use super::{WORDS, mix, run};
use hipc_emulator::Module;

/// Small whole numbers in A (16×16, by rows) and B (by columns): sums are exact in every type.
pub const MATRICES: &str = r#"
typedef int int2v __attribute__((ext_vector_type(2)));
typedef int int4v __attribute__((ext_vector_type(4)));
typedef int int8v __attribute__((ext_vector_type(8)));
typedef float f8 __attribute__((ext_vector_type(8)));
typedef _Float16 h8 __attribute__((ext_vector_type(8)));
typedef _Float16 h16 __attribute__((ext_vector_type(16)));
typedef short s4 __attribute__((ext_vector_type(4)));
typedef short s8 __attribute__((ext_vector_type(8)));
typedef short s16 __attribute__((ext_vector_type(16)));
#define A(r, k) ((int)in[(r) * 16 + (k)])
#define B(k, c) ((int)in[256 + (c) * 16 + (k)])
static __attribute__((device)) short bf(float v) { return (short)(b(v) >> 16); }
KERNEL(matrix_f16) {
#if defined(__gfx90a__) || defined(__gfx942__)
    if (t >= 64) return; half4 x, y; float4 c = {1, 2, 3, 4}; int r = t % 16, q = t / 16;
    for (int j = 0; j < 4; j++) { x[j] = A(r, 4 * q + j); y[j] = B(4 * q + j, r); }
    c = __builtin_amdgcn_mfma_f32_16x16x16f16(x, y, c, 0, 0, 0);
    for (int j = 0; j < 4; j++) out[(4 * q + j) * 16 + r] = (int)c[j] - (j + 1);
#elif defined(__gfx1100__)
    if (t >= 32) return; h16 x, y; f8 c; int r = t % 16;
    for (int k = 0; k < 16; k++) { x[k] = A(r, k); y[k] = B(k, r); }
    for (int j = 0; j < 8; j++) c[j] = j;
    c = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(x, y, c);
    for (int j = 0; j < 8; j++) out[(2 * j + t / 16) * 16 + r] = (int)c[j] - j;
#elif defined(__gfx1201__)
    if (t >= 32) return; h8 x, y; f8 c; int r = t % 16, q = t / 16;
    for (int j = 0; j < 8; j++) { x[j] = A(r, 8 * q + j); y[j] = B(8 * q + j, r); c[j] = j; }
    c = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(x, y, c);
    for (int j = 0; j < 8; j++) out[(8 * q + j) * 16 + r] = (int)c[j] - j;
#endif
}
KERNEL(matrix_bf16) {
#if defined(__gfx90a__) || defined(__gfx942__)
    if (t >= 64) return; s4 x, y; float4 c = {1, 2, 3, 4}; int r = t % 16, q = t / 16;
    for (int j = 0; j < 4; j++) { x[j] = bf(A(r, 4 * q + j)); y[j] = bf(B(4 * q + j, r)); }
    c = __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(x, y, c, 0, 0, 0);
    for (int j = 0; j < 4; j++) out[(4 * q + j) * 16 + r] = (int)c[j] - (j + 1);
#elif defined(__gfx1100__)
    if (t >= 32) return; s16 x, y; f8 c; int r = t % 16;
    for (int k = 0; k < 16; k++) { x[k] = bf(A(r, k)); y[k] = bf(B(k, r)); }
    for (int j = 0; j < 8; j++) c[j] = j;
    c = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(x, y, c);
    for (int j = 0; j < 8; j++) out[(2 * j + t / 16) * 16 + r] = (int)c[j] - j;
#elif defined(__gfx1201__)
    if (t >= 32) return; s8 x, y; f8 c; int r = t % 16, q = t / 16;
    for (int j = 0; j < 8; j++) { x[j] = bf(A(r, 8 * q + j)); y[j] = bf(B(8 * q + j, r)); c[j] = j; }
    c = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(x, y, c);
    for (int j = 0; j < 8; j++) out[(8 * q + j) * 16 + r] = (int)c[j] - j;
#endif
}
#define BYTE(word, j) ((word >> (8 * (j))) & 255)
KERNEL(matrix_i8) {
#if defined(__gfx90a__)
    if (t >= 64) return; int x = 0, y = 0; int4v c = {1, 2, 3, 4}; int r = t % 16, q = t / 16;
    for (int j = 0; j < 4; j++) { x |= (A(r, 4 * q + j) & 255) << 8 * j; y |= (B(4 * q + j, r) & 255) << 8 * j; }
    c = __builtin_amdgcn_mfma_i32_16x16x16i8(x, y, c, 0, 0, 0);
    for (int j = 0; j < 4; j++) out[(4 * q + j) * 16 + r] = c[j] - (j + 1);
#elif defined(__gfx942__)
    if (t >= 64) return; u64 x = 0, y = 0; int4v c = {1, 2, 3, 4}; int r = t % 16, q = t / 16;
    if (q < 2) for (int j = 0; j < 8; j++) { x |= (u64)(A(r, 8 * q + j) & 255) << 8 * j; y |= (u64)(B(8 * q + j, r) & 255) << 8 * j; }
    c = __builtin_amdgcn_mfma_i32_16x16x32_i8(x, y, c, 0, 0, 0);
    for (int j = 0; j < 4; j++) out[(4 * q + j) * 16 + r] = c[j] - (j + 1);
#elif defined(__gfx1100__)
    if (t >= 32) return; int4v x = 0, y = 0; int8v c; int r = t % 16;
    for (int k = 0; k < 16; k++) { x[k / 4] |= (A(r, k) & 255) << 8 * (k % 4); y[k / 4] |= (B(k, r) & 255) << 8 * (k % 4); }
    for (int j = 0; j < 8; j++) c[j] = j;
    c = __builtin_amdgcn_wmma_i32_16x16x16_iu8_w32(true, x, true, y, c, false);
    for (int j = 0; j < 8; j++) out[(2 * j + t / 16) * 16 + r] = c[j] - j;
#elif defined(__gfx1201__)
    if (t >= 32) return; int2v x = 0, y = 0; int8v c; int r = t % 16, q = t / 16;
    for (int j = 0; j < 8; j++) { x[j / 4] |= (A(r, 8 * q + j) & 255) << 8 * (j % 4); y[j / 4] |= (B(8 * q + j, r) & 255) << 8 * (j % 4); c[j] = j; }
    c = __builtin_amdgcn_wmma_i32_16x16x16_iu8_w32_gfx12(true, x, true, y, c, false);
    for (int j = 0; j < 8; j++) out[(8 * q + j) * 16 + r] = c[j] - j;
#endif
}
KERNEL(matrix_i4) {
#if defined(__gfx1100__)
    if (t >= 32) return; int2v x = 0, y = 0; int8v c; int r = t % 16;
    for (int k = 0; k < 16; k++) { x[k / 8] |= (A(r, k) & 15) << 4 * (k % 8); y[k / 8] |= (B(k, r) & 15) << 4 * (k % 8); }
    for (int j = 0; j < 8; j++) c[j] = j;
    c = __builtin_amdgcn_wmma_i32_16x16x16_iu4_w32(true, x, true, y, c, false);
    for (int j = 0; j < 8; j++) out[(2 * j + t / 16) * 16 + r] = c[j] - j;
#elif defined(__gfx1201__)
    if (t >= 32) return; int x = 0, y = 0; int8v c; int r = t % 16, q = t / 16;
    for (int j = 0; j < 8; j++) { x |= (A(r, 8 * q + j) & 15) << 4 * j; y |= (B(8 * q + j, r) & 15) << 4 * j; c[j] = j; }
    c = __builtin_amdgcn_wmma_i32_16x16x16_iu4_w32_gfx12(true, x, true, y, c, false);
    for (int j = 0; j < 8; j++) out[(8 * q + j) * 16 + r] = c[j] - j;
#endif
}
KERNEL(matrix_large) {
#if defined(__gfx90a__) || defined(__gfx942__)
    typedef float f16v __attribute__((ext_vector_type(16)));
    half4 x, y; f16v c = 0; int r = t % 32, q = t / 32;
    for (int j = 0; j < 4; j++) { x[j] = (int)in[r * 8 + 4 * q + j]; y[j] = (int)in[256 + r * 8 + 4 * q + j]; }
    c = __builtin_amdgcn_mfma_f32_32x32x8f16(x, y, c, 0, 0, 0);
    for (int j = 0; j < 16; j++) out[(8 * (j / 4) + 4 * q + j % 4) * 32 + r] = (int)c[j];
#endif
}
"#;

/// Which matrix kernels an architecture has, of the table of its instructions.
pub fn matrices(arch: &str, module: &Module) -> Vec<String> {
    let mut wrong = Vec::new();
    // −7 to 7, both signs in all types.
    let input: Vec<u32> = (0..WORDS).map(|i| (mix(i) % 15).wrapping_sub(7)).collect();
    let product = |size: usize, depth: usize| -> Vec<u32> {
        (0..size * size)
            .map(|at| {
                (0..depth).map(|k| input[at / size * depth + k] as i32 * input[256 + at % size * depth + k] as i32).sum::<i32>()
                    as u32
            })
            .collect()
    };
    let has: &[&str] = match arch {
        "gfx90a" | "gfx942" => &["matrix_f16", "matrix_bf16", "matrix_i8", "matrix_large"],
        "gfx1100" | "gfx1201" => &["matrix_f16", "matrix_bf16", "matrix_i8", "matrix_i4"],
        _ => &[],
    };
    for name in has {
        let expected = if *name == "matrix_large" { product(32, 8) } else { product(16, 16) };
        match run(module, name, &input, 1) {
            Err(why) => wrong.push(format!("{arch}: {why}")),
            Ok(got) => {
                if let Some(at) = got.iter().zip(&expected).position(|(a, b)| a != b) {
                    wrong.push(format!("{arch}: {name} at {at}: {}, not {}", got[at] as i32, expected[at] as i32));
                }
            }
        }
    }
    wrong
}
