//! The targets: one table, one row per processor. No other place in the compiler may name a gfx.
//!
//! A row holds what selection, the cost model, emission and inspection need to know of a processor. Features stand in the
//! row because they don't follow the family: gfx906 has `sdot4` and gfx900 doesn't, gfx1010 has no dot product at all
//! between gfx906 and gfx1011. `tests/target_table.rs` compiles a probe per row and compares.

mod table;

use hipc_codeobj::SimdFacts;
use std::fmt;

pub use table::TARGETS;

/// Who makes the processor, and so which driver and which flags of clang it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Platform {
    /// AMD GPU: HIP source to code object.
    Amd,
    /// NVIDIA GPU: the test bench, the same source to PTX.
    Nvidia,
    /// x86-64: the same source as C++, for tests.
    Host,
}

/// How four products of int8 are added to an i32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dot4 {
    /// `__builtin_amdgcn_sdot4`.
    SDot4,
    /// `__builtin_amdgcn_sudot4`.
    SUDot4,
    /// No instruction: four multiplications and additions.
    MulAdd,
    /// PTX `dp4a.s32.s32`.
    Dp4a,
    /// Plain C++.
    Host,
}

/// A product with this processor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Card {
    /// Name as sold.
    pub name: &'static str,
    /// Compute units (streaming multiprocessors on NVIDIA; per device as the runtime counts them).
    pub cus: u32,
    /// Highest clock of the compute units, MHz.
    pub mhz: u32,
    /// Nominal memory bandwidth, GB/s = bytes per nanosecond. For APUs: of the memory they are usually sold with.
    pub gb_per_s: f64,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// Name as clang and the runtime know it.
    pub name: &'static str,
    /// Platform.
    pub platform: Platform,
    /// Registers, waves and LDS: what bounds occupancy. `simd.wave_size` is the wave the kernels are compiled for.
    pub simd: SimdFacts,
    /// SIMDs in one compute unit.
    pub simds_per_cu: u32,
    /// Vector registers one lane can address; beyond it they spill.
    pub max_vgprs: u32,
    /// LDS one workgroup can have, bytes.
    pub lds_per_workgroup: u32,
    /// int8 dot product.
    pub dot4: Dot4,
    /// Whether `fdot2` (two products of f16 added to an f32) is accepted.
    pub fdot2: bool,
    /// Time from one launch to the next that depends on it, ns: what a launch costs beside its bytes.
    pub launch_ns: f64,
    /// Part of the nominal bandwidth that a large pure read reaches.
    pub achievable: f64,
    /// What 16-byte loads at even addresses take longer than aligned ones, as a part of their time.
    pub even_loads: f64,
    /// What aligned loads take longer whose bytes are parted by others, as a part of their time.
    pub parted_loads: f64,
    /// Products; the first is the one the cost model reckons with.
    pub cards: &'static [Card],
}

impl Target {
    /// Threads of the largest workgroup, on every target.
    pub const MAX_WORKGROUP_SIZE: u32 = 1024;

    /// The target of this name; upper case and the runtime's feature suffix (`gfx90a:sramecc+:xnack-`) are accepted.
    ///
    /// # Errors
    /// [`TargetError::Unknown`] lists the known names and suggests the nearest.
    pub fn parse(name: &str) -> Result<&'static Self, TargetError> {
        let wanted = name.trim().to_ascii_lowercase();
        let wanted = wanted.split(':').next().unwrap_or_default();
        let found = TARGETS.iter().find(|t| t.name == wanted);
        found.ok_or_else(|| TargetError::Unknown { given: name.trim().to_owned(), nearest: nearest(wanted) })
    }

    /// The targets of a comma-separated list, in its order and each once; `all` stands for all AMD targets.
    ///
    /// # Errors
    /// As [`Target::parse`], and [`TargetError::Empty`].
    pub fn parse_list(list: &str) -> Result<Vec<&'static Self>, TargetError> {
        let mut targets: Vec<&'static Self> = Vec::new();
        for name in list.split(',').map(str::trim).filter(|n| !n.is_empty()) {
            let named = match name.eq_ignore_ascii_case("all") {
                true => Self::all_amd().collect(),
                false => vec![Self::parse(name)?],
            };
            for target in named {
                if !targets.iter().any(|t| t.name == target.name) {
                    targets.push(target);
                }
            }
        }
        if targets.is_empty() { Err(TargetError::Empty) } else { Ok(targets) }
    }

    /// The product targets, in the table's order.
    pub fn all_amd() -> impl Iterator<Item = &'static Self> {
        TARGETS.iter().filter(|t| t.platform == Platform::Amd)
    }

    /// Vector registers of a lane when a workgroup of [`Target::MAX_WORKGROUP_SIZE`] threads is to run.
    pub fn registers(&self) -> u32 {
        let lanes = self.simd.simds_per_pool * self.simd.wave_size;
        (self.simd.vgprs_per_simd * lanes / Self::MAX_WORKGROUP_SIZE).min(self.max_vgprs)
    }

    /// Vector registers of a lane in a workgroup of so many waves; as the kernels reckon (`registers_for` of `target.h`).
    pub fn registers_for(&self, waves: u32) -> u32 {
        (self.registers() * Self::MAX_WORKGROUP_SIZE / (waves * self.simd.wave_size).max(1)).min(256)
    }

    /// The card the cost model reckons with.
    pub fn reference_card(&self) -> &'static Card {
        &self.cards[0]
    }

    /// Bytes per nanosecond (GB/s) that a large pure read is reckoned to reach on one of the cards.
    pub fn bytes_per_ns(&self, card: &Card) -> f64 {
        card.gb_per_s * self.achievable
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// What is wrong with a request for targets. The user's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// No row of this name.
    #[error("unknown architecture `{given}`{}\nknown: {}", suggestion(*nearest), known())]
    Unknown {
        /// What was asked for.
        given: String,
        /// The row that was probably meant.
        nearest: Option<&'static str>,
    },
    /// An empty list.
    #[error("no architecture given\nknown: {}", known())]
    Empty,
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |n| format!(", did you mean `{n}`?"))
}

fn known() -> String {
    let names: Vec<&str> = TARGETS.iter().map(|t| t.name).collect();
    format!("{}, all (every gfx)", names.join(", "))
}

/// The target whose card bears this name, else the one spelled most alike.
fn nearest(wanted: &str) -> Option<&'static str> {
    let letters = |s: &str| s.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let plain = letters(wanted);
    if plain.len() < 3 {
        return None;
    }
    let sold = |t: &&Target| t.cards.iter().any(|c| letters(c.name).ends_with(&plain));
    if let Some(target) = TARGETS.iter().find(sold) {
        return Some(target.name);
    }
    let digits = TARGETS.iter().find(|t| t.name.strip_prefix("gfx") == Some(&plain));
    // Of equally alike names, the one that begins alike for longest.
    let unlike = |t: &&Target| (distance(t.name, &plain), std::cmp::Reverse(common_prefix(t.name, &plain)));
    let alike = || TARGETS.iter().min_by_key(unlike).filter(|t| distance(t.name, &plain) <= 2);
    digits.or_else(alike).map(|t| t.name)
}

fn common_prefix(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count()
}

/// Edit distance: insertions, deletions, substitutions.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_names_and_lists() {
        assert_eq!(Target::parse("gfx1100").unwrap().name, "gfx1100");
        assert_eq!(Target::parse(" GFX90A:sramecc+:xnack- ").unwrap().name, "gfx90a");
        let names = |list| Target::parse_list(list).map(|t| t.iter().map(|t| t.name).collect::<Vec<_>>());
        assert_eq!(names("gfx1201, gfx1100,gfx1201").unwrap(), ["gfx1201", "gfx1100"]);
        let all = names("all").unwrap();
        assert_eq!(all.len(), 26);
        assert!(all.iter().all(|n| n.starts_with("gfx")));
        assert_eq!(names("sm_90,all").unwrap().len(), 27);
        assert_eq!(names(" ,"), Err(TargetError::Empty));
    }

    #[test]
    fn suggests_what_was_meant() {
        let meant = |given| match Target::parse(given) {
            Err(TargetError::Unknown { nearest, .. }) => nearest,
            other => panic!("{other:?}"),
        };
        assert_eq!(meant("gfx1110"), Some("gfx1100"));
        assert_eq!(meant("gfx90b"), Some("gfx900"));
        assert_eq!(meant("1030"), Some("gfx1030"));
        assert_eq!(meant("RX 7900 XTX"), Some("gfx1100"));
        assert_eq!(meant("mi300x"), Some("gfx942"));
        assert_eq!(meant("rtx4090"), None);
        assert_eq!(meant(""), None);
        let text = Target::parse("gfx1110").unwrap_err().to_string();
        assert!(text.contains("did you mean `gfx1100`") && text.contains("gfx1201") && text.contains("gfx900"), "{text}");
    }

    #[test]
    fn rows_are_sane() {
        for t in &TARGETS {
            assert_eq!(TARGETS.iter().filter(|u| u.name == t.name).count(), 1, "{t} twice");
            assert!(!t.cards.is_empty() && t.achievable > 0.5 && t.achievable <= 1.0, "{t}");
            assert!(t.lds_per_workgroup <= t.simd.lds_per_pool, "{t}");
            assert!(t.max_vgprs <= t.simd.vgprs_per_simd, "{t}");
            assert!(t.launch_ns > 0.0 && t.cards.iter().all(|c| t.bytes_per_ns(c) > 0.0 && c.cus > 0 && c.mhz > 0), "{t}");
        }
    }
}
