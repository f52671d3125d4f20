//! Matrix instructions, element by element: A[i][k], B[k][j] and D[i][j] of block b, at the lanes and registers where the formulas of
//! AMD's Matrix Instruction Calculator put them.

use crate::Case;
use crate::fp8;
use crate::soft::{half, single, to_single};
use crate::state::State;

/// Type of A or B.
#[derive(Clone, Copy, PartialEq)]
enum Of {
    Single,
    Half,
    Brain,
    Byte,
    Eight(&'static str),
}

impl Of {
    fn bits(self) -> usize {
        match self {
            Self::Single => 32,
            Self::Half | Self::Brain => 16,
            Self::Byte | Self::Eight(_) => 8,
        }
    }

    fn value(self, arch: &str, bits: u32) -> f64 {
        match self {
            Self::Single => single(bits),
            Self::Half => half(bits & 0xffff),
            Self::Brain => single(bits << 16),
            Self::Byte => f64::from(bits as u8 as i8),
            Self::Eight(name) => fp8::value(name, arch, bits & 255),
        }
    }

    /// Bits of a number whose sums are exact in any order.
    fn tame(self, random: u32) -> u32 {
        let small = f64::from(random % 15) - 7.0;
        match self {
            Self::Single => to_single(small),
            Self::Half => crate::soft::to_half(small),
            Self::Brain => to_single(small) >> 16,
            Self::Byte => random & 255,
            // Both signs, all mantissas, four binades around 1.
            Self::Eight("fp8") => (random & 0x87) + ((random >> 8 & 3) + 6) * 8,
            Self::Eight(_) => (random & 0x83) + ((random >> 8 & 3) + 14) * 4,
        }
    }
}

/// A shape: rows (and columns), depth, blocks.
#[derive(Clone, Copy)]
struct Shape(usize, usize, usize);

impl Shape {
    /// Where a lane's elements of A or B are: the lane, and which of its elements.
    fn source(self, at: usize, k: usize, block: usize, width: usize) -> (usize, usize) {
        let Self(size, depth, blocks) = self;
        let per = depth * size * blocks / width;
        (at + size * (block + blocks * (k / per)), k % per)
    }

    /// Register and lane of D[i][j].
    fn result(self, i: usize, j: usize, block: usize) -> (usize, usize) {
        match self.0 {
            32 => (16 * block + 4 * (i / 8) + i % 4, 32 * (i / 4 % 2) + j),
            16 => (4 * block + i % 4, 16 * (i / 4) + j),
            _ => (i, 4 * block + j),
        }
    }
}

fn element(s: &State, first: usize, lane: usize, at: usize, of: Of) -> f64 {
    let per = 32 / of.bits();
    of.value(s.arch, s.get(first + at / per, lane) >> (at % per * of.bits()))
}

/// `v10` to `v17`: the first `of_a` of A, the others of B; `v20` to `v27`: small whole numbers as C, integers or floats.
fn prepare(a: Of, b: Of, of_a: usize) -> impl Fn(&mut State) {
    move |s| {
        for l in 0..s.width {
            for r in 10..18 {
                let of = if r < 10 + of_a { a } else { b };
                let word = (0..32 / of.bits()).fold(0, |word, i| {
                    let random = (s.get(r, l) ^ (l * 64 + r * 7 + i) as u32).wrapping_mul(0x9e37_79b9) >> 12;
                    word | of.tame(random) << (i * of.bits())
                });
                s.set(r, l, word);
            }
            for r in 20..28 {
                let whole = s.get(r, l) % 2048;
                s.set(r, l, if a == Of::Byte { whole } else { to_single(f64::from(whole)) });
            }
        }
    }
}

/// Registers as text.
fn range(letter: &str, first: usize, count: usize) -> String {
    if count == 1 { format!("{letter}{first}") } else { format!("{letter}[{first}:{}]", first + count - 1) }
}

/// An element of D as bits: the sum of `terms` and `c`.
fn sum(terms: impl Iterator<Item = f64>, c: u32, of: Of) -> u32 {
    let terms: f64 = terms.sum();
    if of == Of::Byte { (terms as i64 + i64::from(c)) as u32 } else { to_single(terms + single(c)) }
}

/// One case for every eight registers of the result, which come to `v20` and on.
fn products(name: &str, shape: Shape, a: Of, b: Of) -> Vec<Case> {
    let Shape(size, depth, blocks) = shape;
    let words = move |of: Of| (depth * size * blocks / 64 * of.bits()).div_ceil(32);
    let registers = size * size * blocks / 64;
    let mut cases = Vec::new();
    for chunk in 0..registers.div_ceil(8) {
        // Results in vector registers or accumulation registers.
        for (letter, base, to, from) in
            [("v", 32, "v_mov_b32", "v_mov_b32"), ("a", 0, "v_accvgpr_write_b32", "v_accvgpr_read_b32")]
        {
            let sums = range(letter, base, registers);
            let (of_a, of_b) = (range("v", 10, words(a)), range("v", 10 + words(a), words(b)));
            let mut lines: Vec<String> = (0..registers).map(|r| format!("{to} {letter}{}, v{}", base + r, 20 + r % 8)).collect();
            lines.push(format!("{name} {sums}, {of_a}, {of_b}, {sums}"));
            let shown = 8.min(registers);
            lines.extend((0..shown).map(|r| format!("{from} v{}, {letter}{}", 20 + r, base + 8 * chunk + r)));
            let expect = move |s: &mut State| {
                let before = s.clone();
                for block in 0..blocks {
                    for (i, j) in (0..size * size).map(|at| (at / size, at % size)) {
                        let (register, lane) = shape.result(i, j, block);
                        if register / 8 != chunk {
                            continue;
                        }
                        let terms = (0..depth).map(|k| {
                            let ((la, ea), (lb, eb)) = (shape.source(i, k, block, 64), shape.source(j, k, block, 64));
                            element(&before, 10, la, ea, a) * element(&before, 10 + words(a), lb, eb, b)
                        });
                        let value = sum(terms, before.get(20 + register % 8, lane), a);
                        s.set(20 + register % 8, lane, value);
                    }
                }
            };
            let case = Case::new(&lines.join("\n"), expect).prepare(prepare(a, b, words(a))).all_lanes();
            cases.push(Case { name: name.to_owned(), rounds: 1, ..case });
        }
    }
    cases
}

fn mfma() -> Vec<Case> {
    use Of::{Brain, Byte, Half, Single};
    /// Names with and without the underscores of gfx942, shape, type.
    type Row = (&'static str, &'static str, Shape, Of);
    const ROWS: &[Row] = &[
        ("v_mfma_f32_32x32x1f32", "v_mfma_f32_32x32x1_2b_f32", Shape(32, 1, 2), Single),
        ("v_mfma_f32_16x16x1f32", "v_mfma_f32_16x16x1_4b_f32", Shape(16, 1, 4), Single),
        ("v_mfma_f32_4x4x1f32", "v_mfma_f32_4x4x1_16b_f32", Shape(4, 1, 16), Single),
        ("v_mfma_f32_32x32x2f32", "v_mfma_f32_32x32x2_f32", Shape(32, 2, 1), Single),
        ("v_mfma_f32_16x16x4f32", "v_mfma_f32_16x16x4_f32", Shape(16, 4, 1), Single),
        ("v_mfma_f32_32x32x4f16", "v_mfma_f32_32x32x4_2b_f16", Shape(32, 4, 2), Half),
        ("v_mfma_f32_16x16x4f16", "v_mfma_f32_16x16x4_4b_f16", Shape(16, 4, 4), Half),
        ("v_mfma_f32_4x4x4f16", "v_mfma_f32_4x4x4_16b_f16", Shape(4, 4, 16), Half),
        ("v_mfma_f32_32x32x8f16", "v_mfma_f32_32x32x8_f16", Shape(32, 8, 1), Half),
        ("v_mfma_f32_16x16x16f16", "v_mfma_f32_16x16x16_f16", Shape(16, 16, 1), Half),
        ("v_mfma_f32_32x32x2bf16", "", Shape(32, 2, 2), Brain),
        ("v_mfma_f32_16x16x2bf16", "", Shape(16, 2, 4), Brain),
        ("v_mfma_f32_4x4x2bf16", "", Shape(4, 2, 16), Brain),
        ("v_mfma_f32_32x32x4bf16", "", Shape(32, 4, 1), Brain),
        ("v_mfma_f32_16x16x8bf16", "", Shape(16, 8, 1), Brain),
        ("v_mfma_f32_32x32x4bf16_1k", "v_mfma_f32_32x32x4_2b_bf16", Shape(32, 4, 2), Brain),
        ("v_mfma_f32_16x16x4bf16_1k", "v_mfma_f32_16x16x4_4b_bf16", Shape(16, 4, 4), Brain),
        ("v_mfma_f32_4x4x4bf16_1k", "v_mfma_f32_4x4x4_16b_bf16", Shape(4, 4, 16), Brain),
        ("v_mfma_f32_32x32x8bf16_1k", "v_mfma_f32_32x32x8_bf16", Shape(32, 8, 1), Brain),
        ("v_mfma_f32_16x16x16bf16_1k", "v_mfma_f32_16x16x16_bf16", Shape(16, 16, 1), Brain),
        ("v_mfma_i32_32x32x4i8", "v_mfma_i32_32x32x4_2b_i8", Shape(32, 4, 2), Byte),
        ("v_mfma_i32_16x16x4i8", "v_mfma_i32_16x16x4_4b_i8", Shape(16, 4, 4), Byte),
        ("v_mfma_i32_4x4x4i8", "v_mfma_i32_4x4x4_16b_i8", Shape(4, 4, 16), Byte),
        ("v_mfma_i32_32x32x8i8", "", Shape(32, 8, 1), Byte),
        ("v_mfma_i32_16x16x16i8", "", Shape(16, 16, 1), Byte),
        ("", "v_mfma_i32_32x32x16_i8", Shape(32, 16, 1), Byte),
        ("", "v_mfma_i32_16x16x32_i8", Shape(16, 32, 1), Byte),
        ("", "v_mfma_f32_32x32x16_f16", Shape(32, 16, 1), Half),
        ("", "v_mfma_f32_16x16x32_f16", Shape(16, 32, 1), Half),
        ("", "v_mfma_f32_32x32x16_bf16", Shape(32, 16, 1), Brain),
        ("", "v_mfma_f32_16x16x32_bf16", Shape(16, 32, 1), Brain),
        ("", "v_mfma_i32_32x32x32_i8", Shape(32, 32, 1), Byte),
        ("", "v_mfma_i32_16x16x64_i8", Shape(16, 64, 1), Byte),
    ];
    let mut cases = Vec::new();
    for &(old, new, shape, of) in ROWS {
        for name in [old, new].into_iter().filter(|n| !n.is_empty()) {
            cases.extend(products(name, shape, of, of));
        }
    }
    for a in ["fp8", "bf8"] {
        for b in ["fp8", "bf8"] {
            for (size, depth) in [(16, 32), (32, 16)] {
                let name = format!("v_mfma_f32_{size}x{size}x{depth}_{a}_{b}");
                cases.extend(products(&name, Shape(size, depth, 1), Of::Eight(a), Of::Eight(b)));
            }
        }
    }
    cases
}

/// gfx12: eight neighbouring rows in a lane's registers, sixteen columns in the lanes.
fn wmma() -> Vec<Case> {
    use Of::{Brain, Byte, Eight, Half};
    /// Name, types, modifiers.
    type Row = (&'static str, Of, Of, &'static str);
    const ROWS: &[Row] = &[
        ("v_wmma_f32_16x16x16_f16", Half, Half, ""),
        ("v_wmma_f32_16x16x16_bf16", Brain, Brain, ""),
        ("v_wmma_i32_16x16x16_iu8", Byte, Byte, " neg_lo:[1,1,0]"),
        ("v_wmma_f32_16x16x16_fp8_fp8", Eight("fp8"), Eight("fp8"), ""),
        ("v_wmma_f32_16x16x16_fp8_bf8", Eight("fp8"), Eight("bf8"), ""),
        ("v_wmma_f32_16x16x16_bf8_fp8", Eight("bf8"), Eight("fp8"), ""),
        ("v_wmma_f32_16x16x16_bf8_bf8", Eight("bf8"), Eight("bf8"), ""),
    ];
    let mut cases = Vec::new();
    for &(name, a, b, modifiers) in ROWS {
        for width in [32, 64] {
            let words = 256 / width * a.bits() / 32;
            let expect = move |s: &mut State| {
                let before = s.clone();
                for (i, j) in (0..256).map(|at| (at / 16, at % 16)) {
                    // The second half of a wave of 64 has rows 4 to 7 and 12 to 15.
                    let (lane, register) =
                        if width == 32 { (16 * (i / 8) + j, i % 8) } else { (16 * (i / 8) + 32 * (i / 4 % 2) + j, i % 4) };
                    let shape = Shape(16, 16, 1);
                    let terms = (0..16).map(|k| {
                        let ((la, ea), (lb, eb)) = (shape.source(i, k, 0, width), shape.source(j, k, 0, width));
                        element(&before, 10, la, ea, a) * element(&before, 10 + words, lb, eb, b)
                    });
                    s.set(20 + register, lane, sum(terms, before.get(20 + register, lane), a));
                }
            };
            let d = range("v", 20, 256 / width);
            let text = format!("{name} {d}, {}, {}, {d}{modifiers}", range("v", 10, words), range("v", 10 + words, words));
            cases.push(Case::new(&text, expect).prepare(prepare(a, b, words)));
        }
    }
    cases
}

pub fn cases() -> Vec<Case> {
    let mut cases = mfma();
    cases.extend(wmma());
    // Blocks of A for others, lanes of B for others, negation: not emulated.
    cases.push(Case::lacking("v_mfma_f32_4x4x1f32 v[20:23], v10, v11, v[20:23] cbsz:1 abid:1", "with modifiers"));
    cases.push(Case::lacking("v_mfma_f32_4x4x1f32 v[20:23], v10, v11, v[20:23] blgp:1", "with modifiers"));
    cases.push(Case::lacking("v_mfma_f64_4x4x4f64 v[20:21], v[10:11], v[12:13], v[20:21]", "v_mfma_f64_4x4x4"));
    cases
}
