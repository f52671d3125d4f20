//! Vector instructions: sources, modifiers, destinations; comparisons, carries and selections.

use super::float::{clamp_unit, div_fmas, div_scale, from_half, to_half};
use super::lane::Lanewise;
use super::source::{Change, Kind, Select, Source, destination, scalar_register};
use super::{Context, Lack, Run, compare, cross, fp8, matrix, table, wide};
use crate::instruction::{Encoding, Operation};
use crate::operand::{Operand, Place, VCC};
use crate::wave::{Flow, Wave, lanes};
use cross::Dpp;

/// A source with what is done to its value.
pub(crate) struct Input {
    pub(crate) source: Source,
    pub(crate) change: Change,
}

/// Reads the sources of an operation: `operands` are those without destinations.
pub(crate) fn inputs(operation: &Operation, operands: &[Operand], kinds: &[Kind], context: &Context) -> Result<Vec<Input>, Lack> {
    if operands.len() < kinds.len() {
        return Err(format!("{} sources, not {}", operands.len(), kinds.len()));
    }
    let select_half = operation.list("op_sel", false);
    let input = |(i, (operand, &kind)): (usize, (&Operand, &Kind))| {
        let short = matches!(kind, Kind::F16 | Kind::U16);
        let select = if operation.encoding == Encoding::Sdwa && i < 2 {
            Select::parse(operation.modifiers.get(&format!("src{i}_sel")))?
        } else if operand.half.is_some() {
            Select::of_half(operand.half)
        } else if short && select_half[i] {
            Select::Word(1)
        } else if short && operand.is_vector() {
            Select::Word(0)
        } else {
            Select::Dword
        };
        let float = matches!(kind, Kind::F16 | Kind::F32);
        if (operand.negate || operand.absolute) && !float {
            return Err("the sign of an integer source".to_owned());
        }
        let change = Change { select, extend: operand.extend, absolute: operand.absolute, negate: operand.negate, kind };
        Ok(Input { source: Source::new(operand, kind, 0, context)?, change })
    };
    operands.iter().zip(kinds).enumerate().map(input).collect()
}

/// The values of an input in all lanes.
#[inline]
pub(crate) fn fetch<'a, const W: usize>(input: &Input, wave: &'a Wave<W>, buffer: &'a mut [u32; W]) -> &'a [u32; W] {
    if input.change.is_none() {
        return input.source.lanes(wave, buffer);
    }
    let mut plain = [0; W];
    let plain = input.source.lanes(wave, &mut plain);
    for lane in 0..W {
        buffer[lane] = input.change.apply(plain[lane]);
    }
    buffer
}

/// The values of an input whose lanes are permuted, which comes before `|x|` and `-x`; gives the lanes that are to be written.
pub(crate) fn fetch_permuted<const W: usize>(input: &Input, dpp: &Dpp<W>, wave: &Wave<W>, buffer: &mut [u32; W]) -> u64 {
    let mut plain = [0; W];
    let plain = input.source.lanes(wave, &mut plain);
    let enabled = dpp.apply(plain, wave.exec(), buffer);
    if !input.change.is_none() {
        buffer.iter_mut().for_each(|v| *v = input.change.apply(*v));
    }
    enabled
}

/// 16-bit operations that gfx9 introduced with `op_sel`: they leave the other half of the destination alone, as all do later.
const KEEPS_ON_GFX9: &[&str] = &[
    "v_fma_f16",
    "v_mad_u16",
    "v_mad_i16",
    "v_div_fixup_f16",
    "v_add_nc_i16",
    "v_sub_nc_i16",
    "v_min3_f16",
    "v_max3_f16",
    "v_med3_f16",
    "v_min3_i16",
    "v_max3_i16",
    "v_med3_i16",
    "v_min3_u16",
    "v_max3_u16",
    "v_med3_u16",
];

/// What becomes of a result before it is written.
#[derive(Clone, Copy, Debug)]
struct Output {
    clamp: bool,
    kind: Kind,
    select: Select,
    /// What is outside of the selection: kept, or else cleared, or filled with the sign.
    keep: bool,
    extend: bool,
}

impl Output {
    fn new(operation: &Operation, kind: Kind, clamp: bool, sources: usize, context: &Context) -> Result<Self, Lack> {
        // `mul:2`, `mul:4` and `div:2` are ignored while denormals are kept. Source: "Output Modifiers" in the Vega reference.
        if clamp && kind != Kind::F32 && kind != Kind::F16 {
            return Err("clamp of this operation".to_owned());
        }
        let short = matches!(kind, Kind::F16 | Kind::U16);
        let mut output = Self { clamp, kind, select: Select::Dword, keep: false, extend: false };
        let half = operation.operands.first().and_then(|o| o.half);
        if operation.encoding == Encoding::Sdwa {
            output.select = Select::parse(operation.modifiers.get("dst_sel"))?;
            match operation.modifiers.get("dst_unused").map(String::as_str) {
                None | Some("UNUSED_PAD") => {}
                Some("UNUSED_SEXT") => output.extend = true,
                Some("UNUSED_PRESERVE") => output.keep = true,
                Some(other) => return Err(format!("dst_unused:{other}")),
            }
        } else if half.is_some() {
            (output.select, output.keep) = (Select::of_half(half), true);
        } else if short && operation.list("op_sel", false)[sources.min(3)] {
            (output.select, output.keep) = (Select::Word(1), true);
        } else if short {
            (output.select, output.keep) =
                (Select::Word(0), context.arch.keeps_upper_half() || KEEPS_ON_GFX9.contains(&operation.name.as_str()));
        }
        Ok(output)
    }

    /// What is written where `results` come out and the register held `old`.
    fn place<const W: usize>(&self, results: &mut [u32; W], old: &[u32; W]) {
        if self.clamp || self.select != Select::Dword {
            for lane in 0..W {
                results[lane] = self.apply(results[lane], old[lane]);
            }
        }
    }

    fn apply(&self, value: u32, old: u32) -> u32 {
        let mut value = value;
        if self.clamp {
            value = match self.kind {
                Kind::F32 => clamp_unit(f32::from_bits(value)).to_bits(),
                _ => to_half(clamp_unit(from_half(value))),
            };
        }
        let (shift, width) = self.select.bits();
        if width == 32 {
            return value;
        }
        let mask = ((1u32 << width) - 1) << shift;
        let placed = value << shift & mask;
        if self.keep {
            placed | old & !mask
        } else if self.extend {
            // Everything above gets the sign, everything below is cleared.
            let up = value << (32 - width);
            ((up.cast_signed() >> (32 - width)) << shift).cast_unsigned()
        } else {
            placed
        }
    }
}

/// An operation on 32-bit values, lane by lane.
struct Vop<const W: usize> {
    inputs: Vec<Input>,
    dpp: Option<Dpp<W>>,
    lanewise: Lanewise<W>,
    output: Output,
    destination: usize,
}

impl<const W: usize> Vop<W> {
    fn new(operation: &Operation, context: &Context) -> Result<Self, Lack> {
        let name = operation.name.as_str();
        let saturates = if operation.has("clamp") { table::saturating(name) } else { None };
        let clamps = operation.has("clamp") && saturates.is_none();
        let lanewise = if let Some(saturating) = saturates {
            saturating
        } else if name == "v_cndmask_b32" {
            let select = super::lane::u3(|a, b, mask| if mask == 0 { a } else { b });
            super::lane::typed(&[Kind::F32, Kind::F32], Kind::U32, select)
        } else if name == "v_bitop3_b32" {
            table::truth_table(operation.number("bitop3").unwrap_or(0) as u32)
        } else {
            table::find(name).ok_or_else(|| name.to_owned())?
        };
        let mut kinds = lanewise.sources.clone();
        let mut operands = operation.operands.get(1..).unwrap_or_default().to_vec();
        if lanewise.accumulates {
            operands.truncate(kinds.len() - 1);
            operands.push(Operand { negate: false, absolute: false, extend: false, ..operation.operands[0] });
        }
        let dpp = (operation.encoding == Encoding::Dpp).then(|| Dpp::new(operation)).transpose()?;
        let mut inputs = inputs(operation, &operands, &kinds, context)?;
        if name == "v_cndmask_b32" {
            let mask = operands.get(2).map_or(Ok(VCC), |o| scalar_register(Some(o)))?;
            let change = Change { select: Select::Dword, extend: false, absolute: false, negate: false, kind: Kind::U32 };
            inputs.push(Input { source: Source::Mask(mask), change });
            kinds.push(Kind::U32);
        }
        let output = Output::new(operation, lanewise.result, clamps, kinds.len(), context)?;
        Ok(Self { inputs, dpp, lanewise, output, destination: destination(operation.operands.first(), 1, context)? })
    }

    /// The results, and the lanes that are to be written.
    #[inline]
    fn compute(&self, wave: &Wave<W>, out: &mut [u32; W]) -> u64 {
        let mut buffers = [[0; W]; 3];
        let [first, second, third] = &mut buffers;
        let none = &[0; W];
        let mut sources = [none; 3];
        let mut enabled = wave.exec();
        if let Some(dpp) = &self.dpp {
            enabled = fetch_permuted(&self.inputs[0], dpp, wave, first);
            sources[0] = first;
        } else if let Some(input) = self.inputs.first() {
            sources[0] = fetch(input, wave, first);
        }
        if let Some(input) = self.inputs.get(1) {
            sources[1] = fetch(input, wave, second);
        }
        if let Some(input) = self.inputs.get(2) {
            sources[2] = fetch(input, wave, third);
        }
        (self.lanewise.eval)(&sources, out);
        self.output.place(out, &wave.vectors[self.destination]);
        enabled
    }
}

/// Both halves of a dual-issue pair read before either writes.
pub(crate) fn pair<const W: usize>(first: &Operation, second: &Operation, context: &Context) -> Result<Run<W>, Lack> {
    if let Some(word) = first.words.first().or_else(|| second.words.first()) {
        return Err(format!("operand {word}"));
    }
    super::modifiers::check(first)?;
    super::modifiers::check(second)?;
    let (first, second) = (Vop::<W>::new(first, context)?, Vop::<W>::new(second, context)?);
    Ok(Box::new(move |wave, _| {
        let (mut a, mut b) = ([0; W], [0; W]);
        let (lanes_a, lanes_b) = (first.compute(wave, &mut a), second.compute(wave, &mut b));
        wave.write(first.destination, &a, lanes_a);
        wave.write(second.destination, &b, lanes_b);
        Flow::Next
    }))
}

pub(crate) fn build<const W: usize>(operation: &Operation, context: &Context) -> Result<Run<W>, Lack> {
    let name = operation.name.as_str();
    if name == "v_nop" {
        return Ok(Box::new(|_, _| Flow::Next));
    }
    if let Some(word) = operation.words.first() {
        return Err(format!("operand {word}"));
    }
    if name.starts_with("v_cmp") {
        return compare::build(operation, context);
    }
    if let Some(run) = carry(operation, context)? {
        return Ok(run);
    }
    if let Some(run) = fp8::build(operation, context)? {
        return Ok(run);
    }
    for family in [cross::build, wide::build, matrix::build] {
        if let Some(run) = family(operation, context)? {
            return Ok(run);
        }
    }
    let vop = Vop::<W>::new(operation, context)?;
    Ok(Box::new(move |wave, _| {
        let mut out = [0; W];
        let enabled = vop.compute(wave, &mut out);
        wave.write(vop.destination, &out, enabled);
        Flow::Next
    }))
}

/// Operations with a mask per lane as a second result or a third source.
fn carry<const W: usize>(operation: &Operation, context: &Context) -> Result<Option<Run<W>>, Lack> {
    // Of the two sources and the carry: the result and the new carry.
    let f: fn(u32, u32, bool) -> (u32, bool) = match operation.name.as_str() {
        "v_add_co_u32" => |a, b, _| a.overflowing_add(b),
        "v_sub_co_u32" => |a, b, _| a.overflowing_sub(b),
        "v_subrev_co_u32" => |a, b, _| b.overflowing_sub(a),
        "v_add_co_ci_u32" => |a, b, c| a.carrying_add_(b, c),
        "v_sub_co_ci_u32" => |a, b, c| a.borrowing_sub_(b, c),
        "v_subrev_co_ci_u32" => |a, b, c| b.borrowing_sub_(a, c),
        "v_div_scale_f32" => return divide_scale(operation, context).map(Some),
        "v_div_fmas_f32" => return divide_fused(operation, context).map(Some),
        _ => return Ok(None),
    };
    if operation.encoding == Encoding::Dpp {
        return Err("carry with DPP".to_owned());
    }
    let takes = operation.name.contains("_ci_");
    let target = destination(operation.operands.first(), 1, context)?;
    let out = scalar_register(operation.operands.get(1))?;
    let inputs = inputs(operation, operation.operands.get(2..).unwrap_or_default(), &[Kind::U32; 2], context)?;
    let output = Output::new(operation, Kind::U32, operation.has("clamp"), 2, context)?;
    let taken = if takes { scalar_register(operation.operands.get(4))? } else { VCC };
    Ok(Some(Box::new(move |wave, _| {
        let exec = wave.exec();
        let carry_in = if takes { wave.mask(taken) } else { 0 };
        let (mut first, mut second, mut result) = ([0; W], [0; W], [0; W]);
        let a = fetch(&inputs[0], wave, &mut first);
        let b = fetch(&inputs[1], wave, &mut second);
        let mut carries = 0;
        for lane in 0..W {
            let (value, carry) = f(a[lane], b[lane], carry_in >> lane & 1 == 1);
            result[lane] = value;
            carries |= u64::from(carry) << lane;
        }
        output.place(&mut result, &wave.vectors[target]);
        wave.write(target, &result, exec);
        wave.set_mask(out, carries & exec);
        Flow::Next
    })))
}

/// Addition and subtraction with a carry.
trait Carrying: Sized {
    fn carrying_add_(self, other: Self, carry: bool) -> (Self, bool);
    fn borrowing_sub_(self, other: Self, borrow: bool) -> (Self, bool);
}

impl Carrying for u32 {
    fn carrying_add_(self, other: Self, carry: bool) -> (Self, bool) {
        let sum = u64::from(self) + u64::from(other) + u64::from(carry);
        (sum as Self, sum >> 32 != 0)
    }

    fn borrowing_sub_(self, other: Self, borrow: bool) -> (Self, bool) {
        let difference = i64::from(self) - i64::from(other) - i64::from(borrow);
        (difference as Self, difference < 0)
    }
}

fn floats<const W: usize>(inputs: &[Input], wave: &Wave<W>) -> [[f32; W]; 3] {
    let mut values = [[0.0; W]; 3];
    for (values, input) in values.iter_mut().zip(inputs) {
        let mut buffer = [0; W];
        let bits = fetch(input, wave, &mut buffer);
        for lane in 0..W {
            values[lane] = f32::from_bits(bits[lane]);
        }
    }
    values
}

fn divide_scale<const W: usize>(operation: &Operation, context: &Context) -> Result<Run<W>, Lack> {
    let target = destination(operation.operands.first(), 1, context)?;
    let out = scalar_register(operation.operands.get(1))?;
    let inputs = inputs(operation, operation.operands.get(2..).unwrap_or_default(), &[Kind::F32; 3], context)?;
    Ok(Box::new(move |wave, _| {
        let exec = wave.exec();
        let values = floats(&inputs, wave);
        let (mut result, mut mask) = ([0; W], 0);
        for lane in lanes(exec) {
            let (value, flag) = div_scale(values[0][lane], values[1][lane], values[2][lane]);
            result[lane] = value.to_bits();
            mask |= u64::from(flag) << lane;
        }
        wave.write(target, &result, exec);
        wave.set_mask(out, mask);
        Flow::Next
    }))
}

fn divide_fused<const W: usize>(operation: &Operation, context: &Context) -> Result<Run<W>, Lack> {
    let target = destination(operation.operands.first(), 1, context)?;
    let inputs = inputs(operation, operation.operands.get(1..).unwrap_or_default(), &[Kind::F32; 3], context)?;
    Ok(Box::new(move |wave, _| {
        let (exec, vcc) = (wave.exec(), wave.vcc());
        let values = floats(&inputs, wave);
        let mut result = [0; W];
        for lane in lanes(exec) {
            result[lane] = div_fmas(values[0][lane], values[1][lane], values[2][lane], vcc >> lane & 1 == 1).to_bits();
        }
        wave.write(target, &result, exec);
        Flow::Next
    }))
}

/// Whether an operand is a vector register, for those that must be.
pub(crate) fn vector_operand(operand: Option<&Operand>) -> Result<u16, Lack> {
    match operand.map(|o| o.place) {
        Some(Place::Vector { first, .. }) => Ok(first),
        other => Err(format!("operand {other:?}, not a vector register")),
    }
}
