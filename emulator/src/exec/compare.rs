//! Comparisons: vector ones into a mask or `exec`, and the relations that scalar ones share.

use super::cross::Dpp;
use super::float::{class16, class32, class64, from_half};
use super::source::{Kind, scalar_register};
use super::vector::{Input, fetch, fetch_permuted, inputs};
use super::wide::{Wide, operands};
use super::{Context, Lack, Run};
use crate::FaultKind;
use crate::instruction::{Encoding, Operation};
use crate::operand::{EXEC, Operand};
use crate::wave::{Flow, Wave, lanes};
use std::cmp::Ordering;

/// Outcomes of a comparison that make it true, a bit each: less, equal, greater, unordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Relation(u8);

impl Relation {
    const LESS: u8 = 1;
    const EQUAL: u8 = 2;
    const GREATER: u8 = 4;
    const UNORDERED: u8 = 8;

    /// Of a name; those with `n` in front are true for unordered floats, too.
    pub(crate) fn find(name: &str) -> Option<Self> {
        Some(Self(match name {
            "f" => 0,
            "lt" => Self::LESS,
            "eq" => Self::EQUAL,
            "le" => Self::LESS | Self::EQUAL,
            "gt" => Self::GREATER,
            "lg" => Self::LESS | Self::GREATER,
            "ge" => Self::GREATER | Self::EQUAL,
            "o" => Self::LESS | Self::EQUAL | Self::GREATER,
            "u" => Self::UNORDERED,
            "nge" => Self::LESS | Self::UNORDERED,
            "nlg" => Self::EQUAL | Self::UNORDERED,
            "ngt" => Self::LESS | Self::EQUAL | Self::UNORDERED,
            "nle" => Self::GREATER | Self::UNORDERED,
            "ne" | "neq" => Self::LESS | Self::GREATER | Self::UNORDERED,
            "nlt" => Self::GREATER | Self::EQUAL | Self::UNORDERED,
            "t" | "tru" => 15,
            _ => return None,
        }))
    }

    /// Whether it holds between two values.
    #[inline]
    pub(crate) fn holds<T: PartialOrd>(self, a: &T, b: &T) -> bool {
        let outcome = match a.partial_cmp(b) {
            Some(Ordering::Less) => Self::LESS,
            Some(Ordering::Equal) => Self::EQUAL,
            Some(Ordering::Greater) => Self::GREATER,
            None => Self::UNORDERED,
        };
        self.0 & outcome != 0
    }
}

/// A bit for each lane in which the comparison holds; the lane whose permuted source is missing, if there is one.
type Test<const W: usize> = Box<dyn Fn(&Wave<W>) -> Result<u64, usize> + Send + Sync>;

fn narrow<const W: usize>(
    sources: Vec<Input>,
    dpp: Option<Dpp<W>>,
    test: impl Fn(u32, u32) -> bool + Send + Sync + 'static,
) -> Test<W> {
    Box::new(move |wave| {
        let (mut first, mut second, mut enabled) = ([0; W], [0; W], Wave::<W>::FULL);
        let a = if let Some(dpp) = &dpp {
            enabled = fetch_permuted(&sources[0], dpp, wave, &mut first);
            if let Some(missing) = lanes(wave.exec() & dpp.enabled() & !enabled).next() {
                return Err(missing);
            }
            &first
        } else {
            fetch(&sources[0], wave, &mut first)
        };
        let b = fetch(&sources[1], wave, &mut second);
        Ok((0..W).fold(0, |mask, lane| mask | u64::from(test(a[lane], b[lane])) << lane) & enabled)
    })
}

fn wide<const W: usize>(sources: Vec<Wide>, test: impl Fn(u64, u64) -> bool + Send + Sync + 'static) -> Test<W> {
    Box::new(move |wave| {
        let test = |lane| test(sources[0].get(wave, lane), sources[1].get(wave, lane));
        Ok((0..W).fold(0, |mask, lane| mask | u64::from(test(lane)) << lane))
    })
}

fn test<const W: usize>(
    operation: &Operation,
    relation: &str,
    of: &str,
    sources: &[Operand],
    context: &Context,
) -> Result<Test<W>, Lack> {
    let lack = || operation.name.clone();
    let dpp = (operation.encoding == Encoding::Dpp).then(|| Dpp::new(operation)).transpose()?;
    if of.ends_with("64") && operation.encoding != Encoding::Plain {
        return Err(format!("{} with DPP or SDWA", operation.name));
    }
    let narrow_sources = |kinds: [Kind; 2]| inputs(operation, sources, &kinds, context);
    let wide_sources = |kinds: [Kind; 2]| operands(sources, &kinds, context);
    if relation == "class" {
        return Ok(match of {
            "f16" => narrow(narrow_sources([Kind::F16, Kind::U32])?, dpp, |a, b| class16(a) & b != 0),
            "f32" => narrow(narrow_sources([Kind::F32, Kind::U32])?, dpp, |a, b| class32(a) & b != 0),
            "f64" => wide(wide_sources([Kind::F64, Kind::U32])?, |a, b| class64(a) & b as u32 != 0),
            _ => return Err(lack()),
        });
    }
    let relation = Relation::find(relation).ok_or_else(lack)?;
    let signed16 = |v: u32| (v as u16).cast_signed();
    Ok(match of {
        "f16" => narrow(narrow_sources([Kind::F16; 2])?, dpp, move |a, b| relation.holds(&from_half(a), &from_half(b))),
        "f32" => narrow(narrow_sources([Kind::F32; 2])?, dpp, move |a, b| relation.holds(&f32::from_bits(a), &f32::from_bits(b))),
        "f64" => wide(wide_sources([Kind::F64; 2])?, move |a, b| relation.holds(&f64::from_bits(a), &f64::from_bits(b))),
        "i16" => narrow(narrow_sources([Kind::U16; 2])?, dpp, move |a, b| relation.holds(&signed16(a), &signed16(b))),
        "u16" => narrow(narrow_sources([Kind::U16; 2])?, dpp, move |a, b| relation.holds(&(a as u16), &(b as u16))),
        "i32" => narrow(narrow_sources([Kind::U32; 2])?, dpp, move |a, b| relation.holds(&a.cast_signed(), &b.cast_signed())),
        "u32" => narrow(narrow_sources([Kind::U32; 2])?, dpp, move |a, b| relation.holds(&a, &b)),
        "i64" => wide(wide_sources([Kind::U64; 2])?, move |a, b| relation.holds(&a.cast_signed(), &b.cast_signed())),
        "u64" => wide(wide_sources([Kind::U64; 2])?, move |a, b| relation.holds(&a, &b)),
        _ => return Err(lack()),
    })
}

/// `v_cmp_*` and `v_cmpx_*`.
pub(crate) fn build<const W: usize>(operation: &Operation, context: &Context) -> Result<Run<W>, Lack> {
    let into_exec = operation.name.starts_with("v_cmpx_");
    let rest = operation.name.trim_start_matches("v_cmpx_").trim_start_matches("v_cmp_");
    let (relation, of) = rest.split_once('_').ok_or_else(|| operation.name.clone())?;
    // gfx10 and later have no scalar destination for v_cmpx, and print none.
    let has_destination = operation.operands.len() > 2;
    let target = if has_destination { Some(scalar_register(operation.operands.first())?) } else { None };
    if target.is_none() && !into_exec {
        return Err("a comparison without a destination".to_owned());
    }
    let target = target.filter(|_| !(into_exec && context.arch.compares_into_exec_only()));
    let test = test(operation, relation, of, &operation.operands[usize::from(has_destination)..], context)?;
    Ok(Box::new(move |wave, _| {
        // A lane that `row_mask` or `bank_mask` excludes gets 0; what one without a source gets isn't published.
        let mask = match test(wave) {
            Ok(mask) => mask & wave.exec(),
            Err(lane) => {
                let what = "comparison with a DPP source outside of the row or inactive, without bound_ctrl".to_owned();
                return Flow::fault(FaultKind::Unsupported(what), Some(lane));
            }
        };
        if let Some(target) = target {
            wave.set_mask(target, mask);
        }
        if into_exec {
            wave.set_mask(EXEC, mask);
        }
        Flow::Next
    }))
}
