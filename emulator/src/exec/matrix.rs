//! Matrix instructions: MFMA (CDNA) and WMMA (RDNA 3 and 4).
//!
//! They work on whole waves, whatever `exec` says. Sums are made of doubles and rounded to the result's type once, at the end: in which order
//! and with how many bits the hardware adds isn't published. Sources: the RDNA 3, RDNA 4 and CDNA 3 instruction set references, chapters "Wave Matrix Multiply Accumulate" and
//! "Matrix Arithmetic Instructions"; AMD's Matrix Instruction Calculator for where blocks lie.

use super::float::{bfloat_from_f64, from_bfloat, from_half, half_from_f64};
use super::fp8::Format;
use super::source::{Kind, Source, destination, register};
use super::vector::vector_operand;
use super::{Context, Lack, Run};
use crate::Generation;
use crate::instruction::Operation;
use crate::operand::Place;
use crate::wave::{Flow, Wave};

/// Type of a matrix's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    F32,
    F16,
    Bf16,
    F8(Format),
    /// Whether they are signed.
    I8(bool),
    I4(bool),
    I32,
}

impl Element {
    fn bits(self) -> usize {
        match self {
            Self::F32 | Self::I32 => 32,
            Self::F16 | Self::Bf16 => 16,
            Self::I8(_) | Self::F8(_) => 8,
            Self::I4(_) => 4,
        }
    }

    /// The value of an element; all of them are doubles.
    fn value(self, bits: u32) -> f64 {
        let integer = |width: u32, signed: bool| {
            let up = bits << (32 - width);
            if signed { f64::from(up.cast_signed() >> (32 - width)) } else { f64::from(up >> (32 - width)) }
        };
        match self {
            Self::F32 => f32::from_bits(bits).into(),
            Self::F16 => from_half(bits).into(),
            Self::Bf16 => from_bfloat(bits).into(),
            Self::F8(format) => format.value(bits & 0xff).into(),
            Self::I8(signed) => integer(8, signed),
            Self::I4(signed) => integer(4, signed),
            Self::I32 => integer(32, true),
        }
    }
}

/// Where elements are. Rows of A and columns of B lie in the lanes of a group; each lane has `k` elements, one behind the other.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// Rows of A, columns of B: 4, 16 or 32.
    size: usize,
    /// Columns of A.
    depth: usize,
    /// Products of their own. Groups of lanes are those of the blocks, one behind the other.
    blocks: usize,
    a: Element,
    b: Element,
    result: Element,
    /// Lanes beyond the first `size` of each block hold the rest of the columns of A; else they repeat the first ones.
    splits: bool,
    layout: Layout,
}

/// Which row a lane's `i`-th result is in.
#[derive(Clone, Copy, Debug)]
enum Layout {
    /// Groups of lanes take turns (WMMA of RDNA 3).
    Interleaved,
    /// A group of lanes has neighbours (WMMA of RDNA 4).
    Blocks,
    /// Neighbours in fours (MFMA).
    Fours,
}

impl Shape {
    /// Elements of A and B that a lane holds.
    fn per_lane(&self, width: usize) -> usize {
        if self.splits { self.depth * self.size * self.blocks / width } else { self.depth }
    }

    /// Results that a lane holds.
    fn results(&self, width: usize) -> usize {
        self.size * self.size * self.blocks / width
    }

    /// Block and row of a lane's `i`-th result.
    fn place(&self, lane: usize, i: usize, width: usize) -> (usize, usize) {
        let (group, groups) = (lane / self.size, width / self.size);
        match self.layout {
            Layout::Interleaved => (0, groups * i + group),
            // The second half of a wave of 64 has what would be the upper registers of one of 32.
            Layout::Blocks => (0, 8 * (group % 2) + 16 / groups * (group / 2) + i),
            // Of small blocks each group of lanes has one.
            Layout::Fours if self.size == 4 => (group, i),
            Layout::Fours => {
                let of_block = self.results(width) / self.blocks;
                let (block, i) = (i / of_block, i % of_block);
                (block, 4 * (groups * (i / 4) + group) + i % 4)
            }
        }
    }
}

/// Of the name's last parts: `16x16x16_f16`, `16x16x16f16`, `32x32x8bf16_1k`, `32x32x4_2b_f16`, `16x16x32_fp8_bf8`.
fn shape(name: &str, operation: &Operation, context: &Context, width: usize) -> Option<Shape> {
    let wmma = name.starts_with("v_wmma_");
    let rest = name.strip_prefix("v_wmma_").or_else(|| name.strip_prefix("v_mfma_"))?;
    let (result, rest) = rest.split_once('_')?;
    let (size, rest) =
        [(16, "16x16x"), (32, "32x32x"), (4, "4x4x")].iter().find_map(|(n, p)| Some((*n, rest.strip_prefix(p)?)))?;
    let digits = rest.find(|c: char| !c.is_ascii_digit())?;
    let depth: usize = rest[..digits].parse().ok().filter(|d| (1..=128).contains(d))?;
    let types = rest[digits..].trim_start_matches('_');
    // The number of blocks follows from the rest.
    let types = ["2b_", "4b_", "16b_"].iter().find_map(|b| types.strip_prefix(b)).unwrap_or(types);
    let [signed_a, signed_b, ..] = operation.list("neg_lo", false);
    let eight = |name| Format::find(name, context.arch).map(Element::F8);
    // And how many elements a lane has at least.
    let (a, b, least) = match types {
        "f32" => (Element::F32, Element::F32, 1),
        "f16" => (Element::F16, Element::F16, 4),
        "bf16" if !wmma && context.arch.name < "gfx942" => (Element::Bf16, Element::Bf16, 2),
        "bf16_1k" | "bf16" => (Element::Bf16, Element::Bf16, 4),
        "i8" => (Element::I8(true), Element::I8(true), 4),
        "iu8" => (Element::I8(signed_a), Element::I8(signed_b), 4),
        "iu4" => (Element::I4(signed_a), Element::I4(signed_b), 4),
        "fp8_fp8" => (eight("fp8")?, eight("fp8")?, 8),
        "fp8_bf8" => (eight("fp8")?, eight("bf8")?, 8),
        "bf8_fp8" => (eight("bf8")?, eight("fp8")?, 8),
        "bf8_bf8" => (eight("bf8")?, eight("bf8")?, 8),
        _ => return None,
    };
    let result = match result {
        "f32" => Element::F32,
        "f16" => Element::F16,
        "bf16" => Element::Bf16,
        "i32" => Element::I32,
        _ => return None,
    };
    let new = context.arch.generation >= Generation::Gfx12;
    let four_bits = matches!(a, Element::I4(_));
    // Of 4-bit elements, waves of 64 leave half of their lanes out.
    let known = if wmma {
        size == 16 && (depth == 16 && !(four_bits && new && width == 64) || depth == 32 && four_bits)
    } else {
        width == 64
    };
    // As many as it takes to fill all lanes.
    let blocks = if wmma { 1 } else { (least * width / (depth * size)).max(1) };
    let layout = match (wmma, new) {
        (false, _) => Layout::Fours,
        (true, false) => Layout::Interleaved,
        (true, true) => Layout::Blocks,
    };
    known.then_some(Shape { size, depth, blocks, a, b, result, splits: !wmma || new, layout })
}

/// The `at`-th element of a lane's registers.
fn element<const W: usize>(wave: &Wave<W>, first: usize, lane: usize, at: usize, of: Element) -> f64 {
    let (bits, per) = (of.bits(), 32 / of.bits());
    of.value(wave.vectors[first + at / per][lane] >> (at % per * bits))
}

pub(crate) fn build<const W: usize>(operation: &Operation, context: &Context) -> Result<Option<Run<W>>, Lack> {
    let name = operation.name.as_str();
    if !name.starts_with("v_wmma_") && !name.starts_with("v_mfma_") {
        return Ok(None);
    }
    let shape = shape(name, operation, context, W).ok_or_else(|| name.to_owned())?;
    let mixed_signs = name.contains("_iu");
    let odd = ["clamp", "neg_hi", "cbsz", "abid", "blgp", "matrix_a_reuse", "matrix_b_reuse"].iter().any(|m| operation.has(m));
    if odd || (operation.has("neg_lo") && !mixed_signs) {
        return Err(format!("{name} with modifiers"));
    }
    let packed = shape.result.bits() == 16;
    // RDNA 3 leaves one half of each register of a 16-bit result alone; `op_sel` says which.
    let spaced = packed && matches!(shape.layout, Layout::Interleaved);
    let upper = operation.list("op_sel", false)[2];
    if operation.has("op_sel") && !spaced {
        return Err(format!("{name} with op_sel"));
    }
    let results = shape.results(W);
    let words = if packed && !spaced { results / 2 } else { results };
    let target = destination(operation.operands.first(), words as u16, context)?;
    let source = |at: usize, of: Element| -> Result<usize, Lack> {
        let first = vector_operand(operation.operands.get(at))?;
        let words = (shape.per_lane(W) * of.bits()).div_ceil(32) as u16;
        register(first + words - 1, context)?;
        register(first, context)
    };
    let (a, b) = (source(1, shape.a)?, source(2, shape.b)?);
    let addend = operation.operands.get(3).ok_or("too few operands")?;
    let constant = match addend.place {
        Place::Vector { first, .. } => {
            register(first + words as u16 - 1, context)?;
            None
        }
        _ => Some(Source::new(addend, if shape.result == Element::I32 { Kind::U32 } else { Kind::F32 }, 0, context)?),
    };
    let addend = if constant.is_none() { usize::from(vector_operand(Some(addend))?) } else { 0 };
    Ok(Some(Box::new(move |wave, _| {
        let per_lane = shape.per_lane(W);
        let step = shape.size * shape.blocks;
        // Row or column `at % size` of A or B, all its elements, as the lanes from `at` on have it.
        let line = |first: usize, at: usize, of: Element| -> Vec<f64> {
            (0..shape.depth).map(|k| element(wave, first, at + k / per_lane * step, k % per_lane, of)).collect()
        };
        // Lanes that repeat the first ones must really do so: each group of lanes computes with its own.
        let lines = if shape.splits { step } else { W };
        let rows: Vec<Vec<f64>> = (0..lines).map(|r| line(a, r, shape.a)).collect();
        let columns: Vec<Vec<f64>> = (0..lines).map(|c| line(b, c, shape.b)).collect();
        let mut out = vec![[0u32; W]; words];
        for lane in 0..W {
            for i in 0..results {
                let (word, high) = if packed && !spaced { (i / 2, i % 2 == 1) } else { (i, spaced && upper) };
                let shift = if high { 16 } else { 0 };
                let c = match &constant {
                    Some(constant) => shape.result.value(constant.lane(wave, lane)),
                    None => shape.result.value(wave.vectors[addend + word][lane] >> shift),
                };
                let (block, row) = shape.place(lane, i, W);
                let group = if shape.splits { block * shape.size } else { lane / shape.size * shape.size };
                let (row, column) = (&rows[group + row], &columns[group + lane % shape.size]);
                let sum: f64 = c + row.iter().zip(column).map(|(x, y)| x * y).sum::<f64>();
                let (bits, mask) = match shape.result {
                    Element::F16 => (half_from_f64(sum), 0xffff),
                    Element::Bf16 => (bfloat_from_f64(sum), 0xffff),
                    Element::F32 => ((sum as f32).to_bits(), u32::MAX),
                    // Integers wrap; the sum is far below 2⁵³.
                    _ => (sum as i64 as u32, u32::MAX),
                };
                let old = if spaced { wave.vectors[target + word][lane] } else { out[word][lane] };
                out[word][lane] = old & !(mask << shift) | bits << shift;
            }
        }
        for (word, value) in out.iter().enumerate() {
            wave.vectors[target + word] = *value;
        }
        Flow::Next
    })))
}
