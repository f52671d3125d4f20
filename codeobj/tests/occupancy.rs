//! Occupancy against figures that clang 22 prints (`; Occupancy: N` of its assembly) for the same registers and LDS.

use hipc_codeobj::{Limit, SimdFacts, Usage, occupancy};

const GFX900: SimdFacts = SimdFacts {
    wave_size: 64,
    vgprs_per_simd: 256,
    vgpr_granule: 4,
    sgprs_per_simd: 800,
    sgpr_granule: 16,
    max_waves_per_simd: 10,
    simds_per_pool: 4,
    lds_per_pool: 64 << 10,
    lds_granule: 512,
    max_workgroups_per_pool: 16,
};
const GFX1100: SimdFacts = SimdFacts {
    wave_size: 32,
    vgprs_per_simd: 1536,
    vgpr_granule: 24,
    sgprs_per_simd: 0,
    sgpr_granule: 1,
    max_waves_per_simd: 16,
    simds_per_pool: 4,
    lds_per_pool: 128 << 10,
    lds_granule: 1024,
    max_workgroups_per_pool: 32,
};

#[track_caller]
fn check(facts: &SimdFacts, (vgprs, sgprs, lds_bytes, workgroup_size): (u32, u32, u32, u32), waves: u32, limit: Limit) {
    let found = occupancy(facts, &Usage { vgprs, sgprs, lds_bytes, workgroup_size });
    assert_eq!((found.waves_per_simd, found.limit), (waves, limit));
}

#[test]
fn registers() {
    check(&GFX900, (24, 10, 0, 64), 10, Limit::WaveSlots);
    check(&GFX900, (33, 10, 0, 64), 7, Limit::Vgprs);
    check(&GFX900, (256, 10, 0, 64), 1, Limit::Vgprs);
    check(&GFX900, (8, 106, 0, 64), 7, Limit::Sgprs);
    check(&GFX1100, (96, 106, 0, 64), 16, Limit::WaveSlots);
    check(&GFX1100, (97, 106, 0, 64), 12, Limit::Vgprs);
    check(&GFX1100, (168, 106, 0, 64), 9, Limit::Vgprs);
    check(&GFX1100, (256, 106, 0, 64), 5, Limit::Vgprs);
}

#[test]
fn lds_and_workgroups() {
    check(&GFX900, (8, 10, 8192, 64), 2, Limit::Lds);
    check(&GFX900, (8, 10, 20000, 256), 3, Limit::Lds);
    check(&GFX900, (8, 10, 1024, 1024), 8, Limit::Workgroups);
    check(&GFX900, (8, 10, 65536, 1024), 4, Limit::Lds);
    check(&GFX1100, (8, 10, 1024, 64), 16, Limit::WaveSlots);
    check(&GFX1100, (8, 10, 8192, 64), 8, Limit::Lds);
    check(&GFX1100, (8, 10, 20000, 256), 12, Limit::Lds);
    check(&GFX1100, (8, 10, 65536, 256), 4, Limit::Lds);
}

#[test]
fn what_cannot_run_has_none() {
    check(&GFX1100, (8, 10, 200 << 10, 256), 0, Limit::Lds);
    check(&GFX1100, (u32::MAX, 10, 0, 256), 0, Limit::Vgprs);
    // 32 waves over four SIMDs need eight each; 256 registers leave room for five.
    check(&GFX1100, (256, 10, 0, 1024), 0, Limit::Vgprs);
}
