//! Every instruction against an answer worked out elsewhere: registers and memory before and after, on edge values.
//!
//! A case is a few lines of assembly and a function of the state that says what becomes of it. All cases that an architecture's
//! assembler takes go into one code object; everything is compared, so a case also notices what an instruction must leave alone.

// The tables index rows of lanes.
#![allow(clippy::needless_range_loop)]
#![allow(missing_docs)]

mod assembly;
mod buffer;
mod cross;
mod fp8;
mod hardware;
mod matrix;
mod memory;
mod scalar;
mod soft;
mod state;
mod variants;
mod vector;
mod wide;

use state::{Kind, State};
use std::collections::BTreeSet;

/// An architecture and the lanes of its waves.
pub struct Config {
    pub arch: &'static str,
    pub width: usize,
}

const CONFIGS: [Config; 11] = [
    Config { arch: "gfx906", width: 64 },
    Config { arch: "gfx90a", width: 64 },
    Config { arch: "gfx942", width: 64 },
    Config { arch: "gfx950", width: 64 },
    Config { arch: "gfx1010", width: 32 },
    Config { arch: "gfx1030", width: 32 },
    Config { arch: "gfx1030", width: 64 },
    Config { arch: "gfx1100", width: 32 },
    Config { arch: "gfx1100", width: 64 },
    Config { arch: "gfx1201", width: 32 },
    Config { arch: "gfx1201", width: 64 },
];

/// When two results are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Equal {
    /// Bit for bit.
    Bits,
    /// Any two NaNs are.
    Single,
    Halves,
    Double,
    /// Singles one unit in the last place apart, for functions that the hardware approximates; NaNs are equal.
    NearSingle,
    NearHalves,
    /// Of doubles, the last 2⁻²⁰ parts.
    NearDouble,
}

impl Equal {
    fn words(self, a: u32, b: u32) -> bool {
        let nan = |v: u32| f32::from_bits(v).is_nan();
        let half_nan = |v: u32| v & 0x7fff > 0x7c00;
        let halves = |near: u32| {
            [0, 16].iter().all(|shift| {
                let (a, b) = (a >> shift & 0xffff, b >> shift & 0xffff);
                a.abs_diff(b) <= near || half_nan(a) && half_nan(b)
            })
        };
        a == b
            || match self {
                Self::Bits | Self::Double | Self::NearDouble => false,
                Self::Single => nan(a) && nan(b),
                Self::NearSingle => nan(a) && nan(b) || a.abs_diff(b) <= 1,
                Self::Halves => halves(0),
                Self::NearHalves => halves(1),
            }
    }

    fn pairs(self, a: u64, b: u64) -> bool {
        let nan = f64::from_bits(a).is_nan() && f64::from_bits(b).is_nan();
        match self {
            Self::Double => nan,
            Self::NearDouble => nan || a.abs_diff(b) <= 1 << 32,
            _ => false,
        }
    }
}

/// The state before the instructions, made fit for them.
type Prepare = Box<dyn Fn(&mut State)>;

pub struct Case {
    pub name: String,
    pub text: String,
    /// Of `v10` to `v17`; integers if not said.
    pub kinds: Vec<Kind>,
    /// Of `s8` to `s23`.
    pub scalars: Kind,
    pub equal: Equal,
    pub all_lanes: bool,
    pub rounds: u64,
    /// An architecture and its lanes for which the emulator refuses it.
    pub refused: Option<(&'static str, usize)>,
    pub prepare: Option<Prepare>,
    pub expect: Box<dyn Fn(&mut State)>,
    /// Part of what the fault says that must come instead: the emulator has no answer.
    pub lacks: Option<&'static str>,
}

impl Case {
    /// Named as its first word.
    pub fn new(text: &str, expect: impl Fn(&mut State) + 'static) -> Self {
        let name = text.split_whitespace().next().expect("a mnemonic").to_owned();
        Self {
            name,
            text: text.to_owned(),
            kinds: Vec::new(),
            scalars: Kind::Integer,
            equal: Equal::Bits,
            all_lanes: false,
            rounds: 3,
            refused: None,
            prepare: None,
            expect: Box::new(expect),
            lacks: None,
        }
    }

    pub fn kinds(self, kinds: &[Kind]) -> Self {
        Self { kinds: kinds.to_vec(), ..self }
    }

    pub fn scalars(self, scalars: Kind) -> Self {
        Self { scalars, ..self }
    }

    pub fn equal(self, equal: Equal) -> Self {
        Self { equal, ..self }
    }

    pub fn prepare(self, prepare: impl Fn(&mut State) + 'static) -> Self {
        Self { prepare: Some(Box::new(prepare)), ..self }
    }

    /// A case that ends with a fault of what isn't emulated.
    pub fn lacking(text: &str, what: &'static str) -> Self {
        Self { lacks: Some(what), ..Self::new(text, |_| {}) }
    }

    pub fn refused(self, arch: &'static str, width: usize) -> Self {
        Self { refused: Some((arch, width)), ..self }
    }

    pub fn all_lanes(self) -> Self {
        Self { all_lanes: true, ..self }
    }
}

fn all_cases() -> Vec<Case> {
    let mut cases = scalar::cases();
    cases.extend(vector::cases());
    cases.extend(wide::cases());
    cases.extend(cross::cases());
    cases.extend(memory::cases());
    cases.extend(buffer::cases());
    cases.extend(hardware::cases());
    cases.extend(fp8::cases());
    cases.extend(matrix::cases());
    cases
}

/// Of these architectures there is no list of the trained model's instructions.
const WITHOUT_SNAPSHOT: [&str; 1] = ["gfx950"];

/// The mnemonics of the trained model's kernels on an architecture.
fn snapshot(arch: &str) -> BTreeSet<String> {
    if WITHOUT_SNAPSHOT.contains(&arch) {
        return BTreeSet::new();
    }
    let path = format!("{}/../snapshots/mnemonics-{arch}.snap", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let body = text.splitn(3, "---\n").nth(2).expect("a snapshot's header");
    body.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn every_instruction_does_what_the_reference_says() {
    let cases = all_cases();
    let (mut failures, mut missing, mut ran) = (Vec::new(), Vec::new(), BTreeSet::new());
    for config in &CONFIGS {
        let done = assembly::run(&cases, config);
        println!("{} ({} lanes): {} cases, {} mnemonics", config.arch, config.width, done.names.len(), done.mnemonics.len());
        failures.extend(done.failures);
        ran.extend(done.names);
        // The kernels are compiled for waves of 32 where there is a choice.
        if config.width == 32 || config.arch.starts_with("gfx9") {
            missing.extend(snapshot(config.arch).difference(&done.mnemonics).map(|m| format!("{}: {m}", config.arch)));
        }
    }
    let nowhere: Vec<&str> = cases.iter().map(|c| c.name.as_str()).filter(|n| !ran.contains(*n)).collect();
    assert!(nowhere.is_empty(), "cases that no assembler takes: {nowhere:?}");
    assert!(failures.is_empty(), "{} wrong:\n{}", failures.len(), failures.join("\n"));
    assert!(missing.is_empty(), "instructions of the trained model without a case here:\n{}", missing.join("\n"));
}
