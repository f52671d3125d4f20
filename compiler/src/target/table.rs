//! The rows.
//!
//! Sources: register files, granules, wave slots and LDS from LLVM's `AMDGPUBaseInfo.cpp` and `GCNProcessors.td` (checked
//! against clang's printed occupancy by test), dot products by probing clang 22 (likewise), cards from their makers' data
//! sheets: compute units, highest engine clock in MHz, GB/s. All rows compile to code object v5.
//!
//! Launch times and achievable fractions of the AMD rows are **estimates**: nothing here has been run on an AMD card. The
//! order of magnitude is that of published traces of dependent kernels in one HIP stream. Those of `sm_90` were measured
//! on an H200: a pure-read kernel in a graph takes 1.3 µs + bytes / (4,600 GB/s).
//!
//! So are its prices of loads: against repacked weights, products with GGUF's blocks took 17 % longer for Q4_0, 27 % for Q8_0
//! and 12 % for Q6_K, whose 16 bytes at even addresses take several loads there, and 11 % for Q4_K. AMD's GPUs load 16 bytes
//! from an even address in one instruction, but from two cache lines more often; 5 % is a guess at that, and nothing is
//! assumed of parted loads.

use super::{Card, Dot4, Platform, Target};
use hipc_codeobj::SimdFacts;

const KIB: u32 = 1024;

/// A vector register file: (registers per lane and SIMD, granule, wave slots) in wave64 on CUs with their own LDS.
const fn cu(vgprs_per_simd: u32, vgpr_granule: u32, max_waves_per_simd: u32, lds: u32, lds_granule: u32) -> SimdFacts {
    SimdFacts {
        wave_size: 64,
        vgprs_per_simd,
        vgpr_granule,
        sgprs_per_simd: 800,
        sgpr_granule: 16,
        max_waves_per_simd,
        simds_per_pool: 4,
        lds_per_pool: lds,
        lds_granule,
        max_workgroups_per_pool: 16,
    }
}

/// The same in wave32 on workgroup processors: two CUs of two SIMDs each share 128 KiB of LDS.
const fn wgp(vgprs_per_simd: u32, vgpr_granule: u32, max_waves_per_simd: u32, lds_granule: u32) -> SimdFacts {
    SimdFacts {
        wave_size: 32,
        vgprs_per_simd,
        vgpr_granule,
        sgprs_per_simd: 0,
        sgpr_granule: 1,
        max_waves_per_simd,
        simds_per_pool: 4,
        lds_per_pool: 128 * KIB,
        lds_granule,
        max_workgroups_per_pool: 32,
    }
}

const VGPR_256: SimdFacts = cu(256, 4, 10, 64 * KIB, 512);
const VGPR_512: SimdFacts = cu(512, 8, 8, 64 * KIB, 512);
const VGPR_512_LDS_160: SimdFacts = cu(512, 8, 8, 160 * KIB, 1280);
const VGPR_1024_BY_8: SimdFacts = wgp(1024, 8, 20, 512);
const VGPR_1024_BY_16: SimdFacts = wgp(1024, 16, 16, 1024);
const VGPR_1536: SimdFacts = wgp(1536, 24, 16, 1024);

/// A warp scheduler of an SM: 16,384 registers, 16 warps; the SM's 228 KiB of shared memory.
const SM_90: SimdFacts = SimdFacts {
    wave_size: 32,
    vgprs_per_simd: 512,
    vgpr_granule: 8,
    sgprs_per_simd: 0,
    sgpr_granule: 1,
    max_waves_per_simd: 16,
    simds_per_pool: 4,
    lds_per_pool: 228 * KIB,
    lds_granule: 128,
    max_workgroups_per_pool: 32,
};

/// Lanes are fibers of one thread; a stand-in so that the plan has a wave and a workgroup to reckon with.
const HOST: SimdFacts = SimdFacts {
    wave_size: 32,
    vgprs_per_simd: 1024,
    vgpr_granule: 8,
    sgprs_per_simd: 0,
    sgpr_granule: 1,
    max_waves_per_simd: 32,
    simds_per_pool: 1,
    lds_per_pool: 64 * KIB,
    lds_granule: 1,
    max_workgroups_per_pool: 1,
};

const fn card(name: &'static str, cus: u32, mhz: u32, gb_per_s: f64) -> Card {
    Card { name, cus, mhz, gb_per_s }
}

const fn gfx(
    name: &'static str,
    simd: SimdFacts,
    dot4: Dot4,
    fdot2: bool,
    launch_ns: f64,
    achievable: f64,
    cards: &'static [Card],
) -> Target {
    let lds = if simd.lds_per_pool == 160 * KIB { 160 * KIB } else { 64 * KIB };
    Target {
        name,
        platform: Platform::Amd,
        simd,
        simds_per_cu: if simd.wave_size == 64 { 4 } else { 2 },
        max_vgprs: if simd.vgprs_per_simd == 512 { 512 } else { 256 },
        lds_per_workgroup: lds,
        dot4,
        fdot2,
        launch_ns,
        achievable,
        even_loads: 0.05,
        parted_loads: 0.0,
        cards,
    }
}

use Dot4::{MulAdd, SDot4, SUDot4};

/// Every target, AMD's in order of number, then the test bench and the host.
#[rustfmt::skip]
pub static TARGETS: [Target; 28] = [
    //  name       registers         dot4    fdot2  ns      share cards
    gfx("gfx900",  VGPR_256,         MulAdd, false, 5000.0, 0.80, &[card("Radeon RX Vega 64", 64, 1546, 483.8), card("Radeon RX Vega 56", 56, 1471, 409.6)]),
    gfx("gfx906",  VGPR_256,         SDot4,  true,  5000.0, 0.80, &[card("Radeon VII", 60, 1750, 1024.0), card("Instinct MI50", 60, 1725, 1024.0), card("Instinct MI60", 64, 1800, 1024.0)]),
    gfx("gfx908",  VGPR_256,         SDot4,  true,  5000.0, 0.80, &[card("Instinct MI100", 120, 1502, 1228.8)]),
    gfx("gfx90a",  VGPR_512,         SDot4,  true,  5000.0, 0.80, &[card("Instinct MI210", 104, 1700, 1638.4), card("Instinct MI250X", 110, 1700, 1638.4)]),
    gfx("gfx942",  VGPR_512,         SDot4,  true,  5000.0, 0.80, &[card("Instinct MI300X", 304, 2100, 5300.0), card("Instinct MI300A", 228, 2100, 5300.0), card("Instinct MI325X", 304, 2100, 6000.0)]),
    gfx("gfx950",  VGPR_512_LDS_160, SDot4,  true,  5000.0, 0.80, &[card("Instinct MI350X", 256, 2200, 8000.0), card("Instinct MI355X", 256, 2400, 8000.0)]),
    gfx("gfx1010", VGPR_1024_BY_8,   MulAdd, false, 4000.0, 0.85, &[card("Radeon RX 5700 XT", 40, 1905, 448.0), card("Radeon RX 5700", 36, 1725, 448.0), card("Radeon RX 5600 XT", 36, 1560, 288.0)]),
    gfx("gfx1011", VGPR_1024_BY_8,   SDot4,  true,  4000.0, 0.85, &[card("Radeon Pro V520", 36, 1600, 512.0), card("Radeon Pro 5600M", 40, 1035, 394.0)]),
    gfx("gfx1012", VGPR_1024_BY_8,   SDot4,  true,  4000.0, 0.85, &[card("Radeon RX 5500 XT", 22, 1845, 224.0)]),
    gfx("gfx1030", VGPR_1024_BY_16,  SDot4,  true,  3500.0, 0.85, &[card("Radeon RX 6900 XT", 80, 2250, 512.0), card("Radeon RX 6950 XT", 80, 2310, 576.0), card("Radeon RX 6800 XT", 72, 2250, 512.0), card("Radeon RX 6800", 60, 2105, 512.0), card("Radeon PRO W6800", 60, 2320, 512.0)]),
    gfx("gfx1031", VGPR_1024_BY_16,  SDot4,  true,  3500.0, 0.85, &[card("Radeon RX 6700 XT", 40, 2581, 384.0), card("Radeon RX 6750 XT", 40, 2600, 432.0)]),
    gfx("gfx1032", VGPR_1024_BY_16,  SDot4,  true,  3500.0, 0.85, &[card("Radeon RX 6600 XT", 32, 2589, 256.0), card("Radeon RX 6650 XT", 32, 2635, 280.0), card("Radeon RX 6600", 28, 2491, 224.0)]),
    gfx("gfx1033", VGPR_1024_BY_16,  SDot4,  true,  3500.0, 0.75, &[card("Steam Deck", 8, 1600, 88.0)]),
    gfx("gfx1034", VGPR_1024_BY_16,  SDot4,  true,  3500.0, 0.85, &[card("Radeon RX 6500 XT", 16, 2815, 144.0), card("Radeon RX 6400", 12, 2321, 128.0)]),
    gfx("gfx1035", VGPR_1024_BY_16,  SDot4,  true,  3500.0, 0.75, &[card("Radeon 680M", 12, 2400, 102.0), card("Radeon 660M", 6, 1900, 102.0)]),
    gfx("gfx1036", VGPR_1024_BY_16,  SDot4,  true,  3500.0, 0.75, &[card("Ryzen 7000 graphics", 2, 2200, 83.0)]),
    gfx("gfx1100", VGPR_1536,        SUDot4, true,  3000.0, 0.85, &[card("Radeon RX 7900 XTX", 96, 2500, 960.0), card("Radeon RX 7900 XT", 84, 2400, 800.0), card("Radeon RX 7900 GRE", 80, 2245, 576.0), card("Radeon PRO W7900", 96, 2495, 864.0), card("Radeon PRO W7800", 70, 2525, 576.0)]),
    gfx("gfx1101", VGPR_1536,        SUDot4, true,  3000.0, 0.85, &[card("Radeon RX 7800 XT", 60, 2430, 624.0), card("Radeon RX 7700 XT", 54, 2544, 432.0)]),
    gfx("gfx1102", VGPR_1024_BY_16,  SUDot4, true,  3000.0, 0.85, &[card("Radeon RX 7600", 32, 2655, 288.0), card("Radeon RX 7600 XT", 32, 2755, 288.0)]),
    gfx("gfx1103", VGPR_1024_BY_16,  SUDot4, true,  3000.0, 0.75, &[card("Radeon 780M", 12, 2700, 120.0), card("Radeon 760M", 8, 2600, 120.0)]),
    gfx("gfx1150", VGPR_1024_BY_16,  SUDot4, true,  3000.0, 0.75, &[card("Radeon 890M", 16, 2900, 120.0), card("Radeon 880M", 12, 2900, 120.0)]),
    gfx("gfx1151", VGPR_1536,        SUDot4, true,  3000.0, 0.80, &[card("Radeon 8060S (Strix Halo)", 40, 2900, 256.0), card("Radeon 8050S", 32, 2800, 256.0)]),
    gfx("gfx1152", VGPR_1024_BY_16,  SUDot4, true,  3000.0, 0.75, &[card("Radeon 860M", 8, 3000, 128.0), card("Radeon 840M", 4, 2900, 128.0)]),
    gfx("gfx1153", VGPR_1024_BY_16,  SUDot4, true,  3000.0, 0.75, &[card("Radeon 820M", 2, 2800, 128.0)]),
    gfx("gfx1200", VGPR_1536,        SUDot4, true,  3000.0, 0.85, &[card("Radeon RX 9060 XT", 32, 3130, 320.0)]),
    gfx("gfx1201", VGPR_1536,        SUDot4, true,  3000.0, 0.85, &[card("Radeon RX 9070 XT", 64, 2970, 640.0), card("Radeon RX 9070", 56, 2520, 640.0), card("Radeon AI PRO R9700", 64, 2920, 640.0)]),
    Target {
        name: "sm_90", platform: Platform::Nvidia, simd: SM_90, simds_per_cu: 4, max_vgprs: 255, lds_per_workgroup: 48 * KIB,
        dot4: Dot4::Dp4a, fdot2: false, launch_ns: 1300.0, achievable: 0.96, even_loads: 0.17, parted_loads: 0.11,
        cards: &[card("H200", 132, 1980, 4800.0), card("H100 SXM", 132, 1980, 3350.0)],
    },
    Target {
        name: "host", platform: Platform::Host, simd: HOST, simds_per_cu: 1, max_vgprs: 1024, lds_per_workgroup: 64 * KIB,
        dot4: Dot4::Host, fdot2: false, launch_ns: 1000.0, achievable: 0.80, even_loads: 0.05, parted_loads: 0.0,
        cards: &[card("x86-64 core", 1, 3000, 20.0)],
    },
];
