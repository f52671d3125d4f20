//! Variants of code generation and the choice between them. They need no front end: each is a few attributes of a kernel.
//!
//! All kernels are compiled as clang would. Those whose occupancy registers bound are compiled again in each variant; the one with
//! the best predicted occupancy is taken.
//!
//! Asking for more waves and grouping loads each win kernels that the other doesn't. `max-ilp` takes more registers by its nature:
//! on gfx906, 942, 1030 and 1100 it won none of the demo model's kernels, so it isn't tried.

use crate::target::Target;
use hipc_codeobj::{Limit, Resources, occupancy};
use hipc_ir::bundle::Variant;
use std::cmp::Reverse;

/// Attributes that differ from clang's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tuning {
    /// As bundles call it.
    pub(super) name: &'static str,
    /// `amdgpu-sched-strategy`.
    pub(super) schedule: Option<&'static str>,
    /// `amdgpu-waves-per-eu`: waves per SIMD to make room for, beyond those that fit as clang compiles it.
    pub(super) more_waves: u32,
}

/// As clang does it.
pub(super) const DEFAULT: Tuning = Tuning { name: "default", schedule: None, more_waves: 0 };

/// In the order in which the first of equals is taken.
pub(super) const VARIANTS: [Tuning; 4] = [
    DEFAULT,
    Tuning { name: "one more wave", schedule: None, more_waves: 1 },
    Tuning { name: "two more waves", schedule: None, more_waves: 2 },
    Tuning { name: "max-memory-clause", schedule: Some("max-memory-clause"), more_waves: 0 },
];

/// What a kernel takes in a variant.
pub(super) fn result(tuning: &Tuning, resources: &Resources, target: &Target) -> Variant {
    let waves = occupancy(&target.simd, &resources.usage).waves_per_simd;
    Variant { name: tuning.name.to_owned(), vgpr: resources.usage.vgprs, waves, spills: resources.spills }
}

/// Whether fewer registers would let more waves run.
pub(super) fn bound_by_registers(resources: &Resources, target: &Target) -> bool {
    resources.spills || matches!(occupancy(&target.simd, &resources.usage).limit, Limit::Vgprs | Limit::Sgprs)
}

/// The best variant: no spills, then most waves, then fewest vector registers, then the first.
pub(super) fn choose(tried: &[Variant]) -> usize {
    let key = |i: &usize| (tried[*i].spills, Reverse(tried[*i].waves), tried[*i].vgpr, *i);
    (0..tried.len()).min_by_key(key).unwrap_or(0)
}

/// What the choice depends on, for keys of the compile cache.
pub(super) fn describe() -> String {
    format!("{VARIANTS:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use hipc_codeobj::Usage;

    fn variant(vgpr: u32, waves: u32, spills: bool) -> Variant {
        Variant { name: String::new(), vgpr, waves, spills }
    }

    #[test]
    fn waves_decide_then_registers_then_the_order() {
        assert_eq!(choose(&[variant(64, 4, false)]), 0);
        assert_eq!(choose(&[variant(64, 4, false), variant(48, 5, false)]), 1);
        assert_eq!(choose(&[variant(64, 4, false), variant(48, 5, true)]), 0, "spills");
        assert_eq!(choose(&[variant(64, 4, true), variant(84, 3, false)]), 1, "fewer waves rather than spills");
        assert_eq!(choose(&[variant(64, 4, false), variant(62, 4, false), variant(63, 4, false)]), 1);
        assert_eq!(choose(&[variant(64, 4, false), variant(64, 4, false)]), 0);
    }

    #[test]
    fn only_registers_are_worth_a_search() {
        let target = Target::parse("gfx906").unwrap();
        let with = |vgprs, lds_bytes, spills| {
            let usage = Usage { vgprs, sgprs: 32, lds_bytes, workgroup_size: 256 };
            bound_by_registers(&Resources { name: String::new(), usage, spills }, target)
        };
        assert!(with(76, 0, false));
        assert!(!with(24, 0, false), "all ten waves");
        assert!(!with(40, 32 << 10, false), "two workgroups by their LDS");
        assert!(with(40, 32 << 10, true));
    }
}
