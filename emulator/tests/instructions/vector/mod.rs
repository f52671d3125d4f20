//! Vector operations of 32 and 16 bits: a function each, in all encodings; carries and comparisons.

mod floats;
mod integers;
mod masks;
mod parts;
mod steps;

use crate::variants::{Of, Op, of};
use crate::{Case, Equal};
use Of::{Half, Single};

type F = fn([u32; 3]) -> u32;

fn op(name: &'static str, sources: &'static [Of], result: Of, f: F) -> Op {
    let equal = match result {
        Single => Equal::Single,
        Half => Equal::Halves,
        _ => Equal::Bits,
    };
    Op { name, sources, result, f, accumulates: false, equal, keeps: false, small: &[] }
}

fn signed(v: u32) -> i64 {
    i64::from(v as i32)
}

fn short(v: u32) -> i64 {
    i64::from(v as u16 as i16)
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for op in integers::integers().iter().chain(&floats::floats()).chain(&floats::conversions()).chain(&integers::shorts()) {
        let every = ["v_mov_b32", "v_add_f32", "v_add_u32", "v_add_nc_u32"].contains(&op.name);
        cases.extend(of(op, every));
    }
    cases.extend(masks::selections());
    cases.extend(masks::truth_tables());
    cases.extend(masks::carries());
    cases.extend(steps::divisions());
    cases.extend(steps::scaling());
    cases.extend(masks::comparisons());
    cases.extend(parts::cases());
    cases.extend(steps::literals());
    cases
}
