//! Theoretical occupancy: how many waves fit on a SIMD at once.
//!
//! A SIMD holds as many waves as the scarcest of its resources allows. Registers are allotted per wave in granules; LDS
//! and barriers are allotted per workgroup from the pool of the CU (gfx9) or of the WGP, two CUs (gfx10 and later in
//! workgroup-processor mode, clang's default). The rules are those of LLVM's `AMDGPUBaseInfo.cpp` (`IsaInfo`):
//!
//! | generation | VGPRs per lane and SIMD | granule | most waves | SIMDs per pool | LDS per pool |
//! |---|---|---|---|---|---|
//! | gfx900, 906, 908 | 256 | 4 | 10 | 4 (CU) | 64 KiB |
//! | gfx90a, 942, 950 | 512, shared with AGPRs | 8 | 8 | 4 (CU) | 64 KiB; gfx950 160 KiB |
//! | gfx10.1, wave32 | 1024 | 8 | 20 | 4 (WGP) | 128 KiB |
//! | gfx10.3, gfx1102, 1103, 1150, 1152, 1153, wave32 | 1024 | 16 | 16 | 4 (WGP) | 128 KiB |
//! | gfx1100, 1101, 1151, gfx12, wave32 | 1536 | 24 | 16 | 4 (WGP) | 128 KiB |
//!
//! gfx9 also has 800 SGPRs per SIMD in granules of 16; from gfx10 on every wave has its full set.

/// The facts about a target that bound occupancy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimdFacts {
    /// Lanes per wave.
    pub wave_size: u32,
    /// Vector registers per lane that the waves of a SIMD share.
    pub vgprs_per_simd: u32,
    /// Vector registers are allotted in multiples of this.
    pub vgpr_granule: u32,
    /// Scalar registers that the waves of a SIMD share; 0 where they are no limit.
    pub sgprs_per_simd: u32,
    /// Scalar registers are allotted in multiples of this.
    pub sgpr_granule: u32,
    /// Waves a SIMD can hold.
    pub max_waves_per_simd: u32,
    /// SIMDs over which the waves of a workgroup may be spread.
    pub simds_per_pool: u32,
    /// LDS of these SIMDs, bytes.
    pub lds_per_pool: u32,
    /// LDS is allotted in multiples of this, bytes.
    pub lds_granule: u32,
    /// Workgroups of more than one wave that these SIMDs can hold (barrier slots).
    pub max_workgroups_per_pool: u32,
}

/// What a kernel takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Vector registers per lane (with the AGPRs where they share the file).
    pub vgprs: u32,
    /// Scalar registers per wave.
    pub sgprs: u32,
    /// LDS per workgroup, bytes.
    pub lds_bytes: u32,
    /// Threads per workgroup.
    pub workgroup_size: u32,
}

/// The resource that bounds occupancy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Nothing but the hardware's wave slots.
    WaveSlots,
    /// Vector registers.
    Vgprs,
    /// Scalar registers.
    Sgprs,
    /// LDS.
    Lds,
    /// Whole workgroups: their size, or the barrier slots.
    Workgroups,
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::WaveSlots => "wave slots",
            Self::Vgprs => "VGPRs",
            Self::Sgprs => "SGPRs",
            Self::Lds => "LDS",
            Self::Workgroups => "workgroups",
        })
    }
}

/// Theoretical occupancy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// Waves that fit on a SIMD; 0 if not even one workgroup fits.
    pub waves_per_simd: u32,
    /// Waves a SIMD can hold at most.
    pub max_waves_per_simd: u32,
    /// What keeps it from being more.
    pub limit: Limit,
}

/// Waves per SIMD that the registers, LDS and workgroup size of a kernel leave room for.
///
/// `min(slots, ⌊VGPRs / align(vgprs)⌋, ⌊SGPRs / align(sgprs)⌋, ⌈workgroups · waves / SIMDs⌉)` with as many workgroups as LDS,
/// barrier slots and wave slots allow. Zero if the registers do not let all waves of one workgroup be resident together.
pub fn occupancy(facts: &SimdFacts, usage: &Usage) -> Occupancy {
    let slots = facts.max_waves_per_simd;
    let by_registers = |total: u32, granule: u32, used: u32| match used {
        0 => slots,
        _ => total / used.checked_next_multiple_of(granule.max(1)).unwrap_or(u32::MAX),
    };
    let vgprs = by_registers(facts.vgprs_per_simd, facts.vgpr_granule, usage.vgprs);
    let sgprs = match facts.sgprs_per_simd {
        0 => slots,
        total => by_registers(total, facts.sgpr_granule, usage.sgprs),
    };

    let simds = facts.simds_per_pool.max(1);
    let waves = usage.workgroup_size.div_ceil(facts.wave_size.max(1)).max(1);
    let spread = |groups: u32| groups.saturating_mul(waves).div_ceil(simds);
    let barriers = if waves > 1 { facts.max_workgroups_per_pool } else { u32::MAX };
    let groups = (slots.saturating_mul(simds) / waves).min(barriers);
    let lds_groups = match usage.lds_bytes {
        0 => u32::MAX,
        used => facts.lds_per_pool / used.checked_next_multiple_of(facts.lds_granule.max(1)).unwrap_or(u32::MAX),
    };

    let candidates = [
        (slots, Limit::WaveSlots),
        (vgprs, Limit::Vgprs),
        (sgprs, Limit::Sgprs),
        (spread(groups), Limit::Workgroups),
        (spread(lds_groups), Limit::Lds),
    ];
    // The first of equals: a full SIMD is not said to be limited by anything else.
    let (waves_per_simd, limit) = candidates.into_iter().min_by_key(|&(n, _)| n).unwrap_or((0, Limit::WaveSlots));
    let resident = vgprs.min(sgprs).min(slots).saturating_mul(simds) >= waves;
    Occupancy { waves_per_simd: if resident { waves_per_simd } else { 0 }, max_waves_per_simd: slots, limit }
}
