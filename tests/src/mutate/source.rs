//! One place of the kernels' headers changed: a barrier dropped, an index off by one, lanes or operands swapped, a turn left out.
//!
//! Changes are generated: every place of every header that a pattern matches is one, and a seed chooses among them, as many of each
//! kind. A change that the compiler refuses, or that leaves the code object as it was, is none.

use crate::emulated::{Outcome, Trial, compile};
use crate::kernel_cases::small;
use hipc::target::Target;
use hipc::toolchain::Backend;
use hipc_ir::bundle::Digest;
use hipc_ir::plan::KernelSpec;
use hipfire_run::verify::inputs::Random;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::fmt;

/// Headers whose text is the kernels' own; the rest is for the host, for devices that aren't AMD's, or only declares.
const MUTATED: [&str; 13] = [
    "act.h",
    "attention.h",
    "choose.h",
    "embed.h",
    "finish.h",
    "gemv.h",
    "heads.h",
    "quant.h",
    "reduce.h",
    "repack.h",
    "rope.h",
    "row.h",
    "sample.h",
];

/// Kinds of changes: a name, and the pieces of text that are replaced.
const KINDS: [(&str, &[(&str, &str)]); 7] = [
    ("a barrier dropped", &[("barrier();", ";")]),
    (
        "an index one further",
        &[("[i]", "[i + 1]"), ("[j]", "[j + 1]"), ("thread_id()]", "thread_id() + 1]"), (" + i]", " + i + 1]")],
    ),
    ("a loop begins late", &[("u32 i = 0;", "u32 i = 1;"), ("int g = 1;", "int g = 2;"), ("u32 at = 0;", "u32 at = 1;")]),
    ("a bound off by one", &[(" < ", " <= "), (" >= ", " > ")]),
    ("operands swapped", &[(" - ", " + "), (" * ", " + "), (" && ", " || ")]),
    (
        "lanes swapped",
        &[
            ("Lanes / 2", "Lanes / 4"),
            ("% Gpu::wave", "% (Gpu::wave / 2)"),
            ("% 32 == 0", "% 32 == 1"),
            ("/ Gpu::wave", "/ (2 * Gpu::wave)"),
        ],
    ),
    ("the last block skipped", &[("; ++", " - 1; ++"), ("; i += ", " - 1; i += ")]),
];

/// A changed place.
#[derive(Clone, Debug)]
pub struct Change {
    /// Name of the header.
    pub header: &'static str,
    /// Line, from 1.
    pub line: usize,
    /// Of [`KINDS`].
    pub kind: &'static str,
    /// The line before and after, without its indentation.
    pub text: [String; 2],
    /// The whole header.
    source: String,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// By wrong results or by the emulator, which says this.
    Yes(String),
    /// Not at all.
    No,
    /// The compiler refuses it.
    Refused,
    /// The machine code is the same.
    SameCode,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} {}: `{}` → `{}`", self.header, self.line, self.kind, self.text[0], self.text[1])
    }
}

/// Every place that a pattern matches, by kind.
fn places() -> Vec<Vec<Change>> {
    let mut all: Vec<Vec<Change>> = KINDS.iter().map(|_| Vec::new()).collect();
    for (path, source) in hipc_templates::HEADERS {
        let Some(&header) = MUTATED.iter().find(|m| path.ends_with(&format!("/{m}"))) else { continue };
        let mut start = 0;
        for (number, line) in source.split_inclusive('\n').enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let declares = ["template", "static_assert", "static constexpr", "constexpr", "#", "using"];
            let skipped = declares.iter().any(|d| code.trim_start().starts_with(d));
            for (of_kind, (kind, pieces)) in all.iter_mut().zip(KINDS).filter(|_| !skipped) {
                for (from, to) in pieces {
                    for (at, _) in code.match_indices(from) {
                        let changed = format!("{}{to}{}", &line[..at], &line[at + from.len()..]);
                        let text = [line, changed.as_str()].map(|l| l.trim().to_owned());
                        let source = format!("{}{changed}{}", &source[..start], &source[start + line.len()..]);
                        of_kind.push(Change { header, line: number + 1, kind, text, source });
                    }
                }
            }
            start += line.len();
        }
    }
    all
}

/// Changes in an order that takes the kinds in turn, and the headers within a kind; which place of a header is by this seed.
pub fn changes(seed: u64) -> Vec<Change> {
    let mut random = Random::fork(seed, 0x5eed);
    // By kind: by header, those of one in any order.
    let mut kinds: Vec<Vec<Vec<Change>>> = places().into_iter().map(|of_kind| by_header(of_kind, &mut random)).collect();
    let mut all = Vec::new();
    while kinds.iter().any(|k| !k.is_empty()) {
        for kind in kinds.iter_mut().filter(|k| !k.is_empty()) {
            let mut header = kind.remove(0);
            all.push(header.swap_remove(random.below(header.len() as u32) as usize));
            if !header.is_empty() {
                kind.push(header);
            }
        }
    }
    all
}

/// Changes of each header, the headers in any order.
fn by_header(changes: Vec<Change>, random: &mut Random) -> Vec<Vec<Change>> {
    let mut headers: BTreeMap<&str, Vec<Change>> = BTreeMap::new();
    changes.into_iter().for_each(|change| headers.entry(change.header).or_default().push(change));
    let mut headers: Vec<_> = headers.into_values().collect();
    let mut shuffled = Vec::with_capacity(headers.len());
    while !headers.is_empty() {
        shuffled.push(headers.swap_remove(random.below(headers.len() as u32) as usize));
    }
    shuffled
}

/// Kernels that use every header in every way, few enough to be compiled often: with their program's tokens.
pub fn kernels(wave: u32) -> Vec<(KernelSpec, u32)> {
    let wanted = |name: &str| {
        let skeletons = ["row_", "heads", "choose", "mixed_k", "gated_q", "repack_768", "repack_1536", "_long_"];
        let attention = ["_4_2_32_f16", "_5_1_96_f32", "_7_1_128_f16", "_16_1_256_f16", "_2_2_80_f32"];
        let types = ["_q4_k", "_q6_k_split", "_bf16", "_q8_0_split"];
        skeletons.iter().any(|s| name.contains(s))
            || attention.iter().any(|s| name.ends_with(s))
            || (types.iter().any(|t| name.ends_with(t)) && !name.contains("deep") && !name.contains("repack"))
    };
    let of = |tokens: u32, tag: &'static str| {
        let specs = small(wave, tokens).into_iter().filter(move |s| wanted(&s.name));
        specs.map(move |s| (KernelSpec { name: format!("{}{tag}", s.name), ..s }, tokens))
    };
    // Several tokens: what differs then.
    let several = of(6, "_chunk").filter(|(s, _)| !s.name.contains("_q6_k") && !s.name.contains("repack"));
    of(1, "").chain(several).collect()
}

/// Kernels of a unit at most: those that share it are compiled for nothing once one of them is wrong.
const UNIT: usize = 12;

/// Kernels that are compiled together, all of one skeleton.
struct Unit {
    /// Header of the skeleton, without its folder, and all that it includes.
    headers: Vec<&'static str>,
    specs: Vec<KernelSpec>,
    /// With what they leave behind as they are.
    trials: Vec<(Trial, Vec<Vec<Vec<u8>>>)>,
    right: Vec<u8>,
}

/// Headers, kernels and how they are tried, for many changes.
pub struct Bench {
    target: &'static Target,
    units: Vec<Unit>,
}

/// A header, without its folder, and all that it includes.
fn reached(header: &'static str) -> Vec<&'static str> {
    let mut all = vec![header];
    let mut at = 0;
    while let Some(&name) = all.get(at) {
        let source = hipc_templates::HEADERS.iter().find(|(path, _)| path.ends_with(&format!("/{name}"))).map_or("", |(_, s)| s);
        for included in source.lines().filter_map(|line| line.strip_prefix("#include \"")?.strip_suffix('"')) {
            if !all.contains(&included) {
                all.push(included);
            }
        }
        at += 1;
    }
    all
}

impl Unit {
    fn new(target: &Target, header: &'static str, kernels: &[(KernelSpec, u32)]) -> Self {
        let specs: Vec<KernelSpec> = kernels.iter().map(|(s, _)| s.clone()).collect();
        let right = compile(target, &specs, hipc_templates::HEADERS, Backend::Clang).unwrap_or_else(|e| panic!("{e}"));
        let known = |((spec, tokens), seed): (&(KernelSpec, u32), u64)| {
            let trial = Trial::new(spec, *tokens, seed);
            match trial.run_sanitized(target.name, &right, None) {
                Outcome::Right(bits) => (trial, bits),
                other => panic!("a kernel that is wrong as it is: {other:?}"),
            }
        };
        let trials = kernels.iter().zip(40..).map(known).collect();
        Self { headers: reached(header.rsplit('/').next().unwrap_or(header)), specs, trials, right }
    }

    /// What is wrong with one of the kernels in this code object, if one is.
    fn judge(&self, module: &[u8], run: impl Fn(&Trial, &[u8], &[Vec<Vec<u8>>]) -> Outcome) -> Option<String> {
        self.trials.iter().find_map(|(trial, right)| match run(trial, module, right) {
            Outcome::Right(_) => None,
            Outcome::Wrong(what) | Outcome::Fault(what) => Some(what),
        })
    }
}

impl Bench {
    /// For a target by name.
    ///
    /// # Panics
    /// If the kernels aren't right as they are.
    pub fn new(target: &str) -> Self {
        let target = Target::parse(target).unwrap_or_else(|e| panic!("{e}"));
        let mut by_skeleton: BTreeMap<&'static str, Vec<(KernelSpec, u32)>> = BTreeMap::new();
        for (spec, tokens) in kernels(target.simd.wave_size) {
            by_skeleton.entry(hipc_templates::instantiate(&spec).header).or_default().push((spec, tokens));
        }
        let parts: Vec<_> = by_skeleton.iter().flat_map(|(&h, all)| all.chunks(UNIT).map(move |part| (h, part))).collect();
        Self { target, units: parts.par_iter().map(|(header, part)| Unit::new(target, header, part)).collect() }
    }

    /// Kernels in all.
    pub fn kernels(&self) -> usize {
        self.units.iter().map(|u| u.specs.len()).sum()
    }

    /// Of all code objects as they are.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.units.iter().flat_map(|u| u.right.iter().copied()).collect::<Vec<u8>>())
    }

    /// Compiles the kernels that a change reaches and runs those of which it changes the code, up to the first that is wrong: all of
    /// them without the sanitizer, then all with it.
    pub fn run(&self, change: &Change) -> Found {
        let headers: Vec<(&str, &str)> = hipc_templates::HEADERS
            .iter()
            .map(|&(path, source)| {
                let changed = path.ends_with(&format!("/{}", change.header));
                (path, if changed { change.source.as_str() } else { source })
            })
            .collect();
        let mut changed = Vec::new();
        for unit in self.units.iter().filter(|u| u.headers.contains(&change.header)) {
            let Ok(module) = compile(self.target, &unit.specs, &headers, Backend::Clang) else { return Found::Refused };
            if module == unit.right {
                continue;
            }
            if let Some(what) = unit.judge(&module, |trial, module, right| trial.run(self.target.name, module, Some(right))) {
                return Found::Yes(what);
            }
            changed.push((unit, module));
        }
        let sanitized =
            |trial: &Trial, module: &[u8], right: &[Vec<Vec<u8>>]| trial.run_sanitized(self.target.name, module, Some(right));
        match changed.iter().find_map(|(unit, module)| unit.judge(module, sanitized)) {
            Some(what) => Found::Yes(what),
            None if changed.is_empty() => Found::SameCode,
            None => Found::No,
        }
    }
}
