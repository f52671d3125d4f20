//! What a GEMV launch takes, by its geometry.
//!
//! Three things overlap: the memory gives its bytes, the SIMDs issue their instructions, and every wave goes through a chain of loads of which
//! only the next is in flight. The slowest of them decides, the others still show a little where they are close: the fourth root of the
//! sum of fourth powers. Beside that there is what no overlap hides: the launch, the first load, the sums over lanes and waves, the end.
//!
//! The constants were fitted to 726 measurements on an H200: seven launches of an 8B Q4_K_M model in all the geometries that
//! [`crate::select::alternatives`] lists, repacked weights, in graphs, rotating past the cache. Over those the median error is 7 %, and what
//! is chosen by it is 1 to 7 % slower than the best that was measured. Other cards differ in the target's row alone; that the rest holds
//! there is an assumption, which `hipfire-run tune` checks.

use crate::target::{Card, Dot4, Target};
use hipc_ir::dtype::DType;
use hipc_ir::fused::Gemv;
use hipc_ir::plan::{Geometry, KernelSpec};

/// Beside the launch itself: the first loads, the sums over a workgroup, what follows them. ns.
const ENDS_NS: f64 = 1740.0;
/// What a GEMV reaches of the bandwidth of a pure read.
const OF_PURE_READ: f64 = 0.905;
/// From the first load of a workgroup to its first product, and what another turn of the loop adds with one row in flight. ns.
const FIRST_TURN_NS: f64 = 594.0;
const NEXT_TURN_NS: f64 = 493.0;
/// More rows in flight make a turn longer by this power of their number.
const ROWS_IN_FLIGHT: f64 = 0.31;
/// A turn that begins to load when the last is over.
const NOT_AHEAD: f64 = 2.1;
/// Instructions of a wave: to meet the activations, once per turn unless they are kept; per row of a turn; to add over the lanes, per step.
const MEET: f64 = 66.0;
const KEPT: f64 = 0.2;
const PER_ROW: f64 = 29.0;
const PER_SUM: f64 = 25.0;
/// Wave instructions of 32 lanes that a CU issues per clock: four schedulers, or two SIMDs of twice the width.
const ISSUES_PER_CLOCK: f64 = 4.0;
/// Until a workgroup's place is taken by the next, if the CU has no other meanwhile. ns.
const REPLACED_NS: f64 = 90.0;
/// How much of an uneven share of workgroups is felt.
const UNEVEN: f64 = 0.07;

/// Values of a row that a lane takes at a time: 16 bytes of quants.
pub fn piece(dtype: DType) -> u32 {
    match dtype {
        DType::Q4_0 | DType::Q4_K | DType::Q6_K => 32,
        DType::Q8_0 => 16,
        DType::F16 | DType::BF16 => 8,
        DType::F32 => 4,
    }
}

/// Turns of a wave within a step: chunks of a row.
pub fn chunks(dtype: DType, k: u32, geometry: &Geometry) -> u32 {
    (k / piece(dtype)).div_ceil(geometry.wave * geometry.k_waves)
}

/// Whether a lane has registers for the weights of the next turn beside those of this one. The kernels decide by the same rule.
pub fn runs_ahead(geometry: &Geometry, target: &Target) -> bool {
    geometry.tokens == 1 && target.registers_for(geometry.waves) >= 64 + 16 * geometry.rows_per_wave
}

/// Instructions of a type for a row's piece, in parts of those of Q4_K with a dot product.
fn work(dtype: DType, target: &Target) -> f64 {
    let of_type = match dtype {
        DType::Q4_0 | DType::Q4_K => 1.0,
        DType::Q6_K => 1.25,
        DType::Q8_0 => 0.4,
        DType::F16 | DType::BF16 => 0.6,
        DType::F32 => 0.3,
    };
    of_type * if dtype.is_quantized() && target.dot4 == Dot4::MulAdd { 2.5 } else { 1.0 }
}

/// Predicted time, if the memory alone takes `memory` ns.
pub(super) fn nanoseconds(kernel: &KernelSpec, op: &Gemv, tokens: u32, target: &Target, card: &Card, memory: f64) -> f64 {
    let g = &kernel.geometry;
    let (rows, at_once, waves) = (f64::from(g.rows_per_wave), f64::from(g.tokens), f64::from(g.waves));
    let [x, y, z] = kernel.grid(tokens);
    let workgroups = f64::from(x) * f64::from(y) * f64::from(z);
    // The type of most bytes stands for all: it is the one that most workgroups have.
    let widest = op.segments.iter().max_by_key(|s| u64::from(s.rows) * s.dtype.row_bytes(op.k).unwrap_or(0));
    let Some(dtype) = widest.map(|s| s.dtype) else { return target.launch_ns };
    let (chunks, ahead) = (f64::from(chunks(dtype, op.k, g)), runs_ahead(g, target));
    let turns = chunks * f64::from(g.row_steps);

    let meet = MEET * at_once * if ahead && chunks <= 1.0 { KEPT } else { 1.0 };
    let products = PER_ROW * rows * at_once * work(dtype, target);
    let per_wave = f64::from(g.row_steps) * (chunks * (meet + products) + PER_SUM * at_once * (1.0 + rows / 4.0));
    let cus = f64::from(card.cus);
    let issue = workgroups * waves * per_wave * f64::from(g.wave) / 32.0 / (cus * ISSUES_PER_CLOCK * f64::from(card.mhz) / 1e3);

    let next = NEXT_TURN_NS * rows.powf(ROWS_IN_FLIGHT) * if ahead { 1.0 } else { NOT_AHEAD };
    let chain = FIRST_TURN_NS + (turns - 1.0) * next;
    let per_cu = per_cu(g, target);
    let resident = (cus * per_cu).max(1.0);
    let latency = (workgroups / resident).max(1.0) * chain;

    let fourth = |x: f64| x * x * x * x;
    let overlapped = (fourth(memory / OF_PURE_READ) + fourth(issue) + fourth(latency)).sqrt().sqrt();
    let share = workgroups / cus;
    let uneven = if share < per_cu { share.ceil() / share } else { 1.0 };
    let replaced = REPLACED_NS * ((workgroups / resident).ceil() - 1.0) / per_cu.max(1.0);
    target.launch_ns + ENDS_NS + overlapped * (1.0 + UNEVEN * (uneven - 1.0)) + replaced
}

/// The time that no geometry can go below: launch and ends, then memory or products, whichever is slower.
pub(super) fn at_best(op: &Gemv, tokens: u32, target: &Target, memory: f64) -> f64 {
    let card = target.reference_card();
    let pieces = op.segments.iter().map(|s| f64::from(s.rows) * f64::from(op.k / piece(s.dtype)) * work(s.dtype, target));
    let products = pieces.sum::<f64>() * f64::from(tokens) * PER_ROW / 32.0;
    let issue = products / (f64::from(card.cus) * ISSUES_PER_CLOCK * f64::from(card.mhz) / 1e3);
    target.launch_ns + ENDS_NS + (memory / OF_PURE_READ).max(issue)
}

/// Workgroups that a CU holds, by the registers that a lane takes.
fn per_cu(g: &Geometry, target: &Target) -> f64 {
    let wanted = 36 + 20 * g.rows_per_wave * g.tokens;
    let registers = wanted.min(target.registers_for(g.waves)).max(1);
    let waves = (target.simd.vgprs_per_simd / registers).min(target.simd.max_waves_per_simd) * target.simds_per_cu;
    f64::from((waves / g.waves).max(1))
}
