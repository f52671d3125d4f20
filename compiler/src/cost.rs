//! What a launch costs: bytes, operations, and nanoseconds on a target's reference card. One formula for everybody: the
//! e-graph compares fusions by it, selection compares geometries by it, and the plan records it for profiles.
//!
//! A launch takes `launch_ns` plus the largest of memory, arithmetic and latency, plus a tenth of the others since they overlap
//! imperfectly, plus the dispatch of its workgroups:
//! - *memory*: bytes moved / the bandwidth that large reads reach, more for weights whose layout doesn't suit the target. Measured for pure reads of 2 MB to 300 MB
//!   (1.3 µs + bytes / bandwidth on an H200); that AMD cards follow the same line is an assumption.
//! - *arithmetic*: operations / what the CUs can do with the instruction at hand.
//! - *latency*: rounds of workgroups times the time of one, which is a chain of dependent loads. It is what small
//!   matrices and bad geometries lose to.
//!
//! GEMVs, which are nearly all of a step, have a formula of their own: see [`gemv`].

pub mod gemv;

use crate::layout;
use crate::target::{Card, Target};
use hipc_ir::dtype::Q8Layout;
use hipc_ir::fused::{Access, FusedOp, Param, Role, Segment, Shape};
use hipc_ir::plan::{Cost, Geometry, KernelSpec, SamplingState};

/// Positions at which attention is reckoned (fewer if the context is shorter).
pub const COST_POS: u32 = Cost::POSITIONS;

/// Likeliest tokens that a choice is reckoned to draw from: the sampler's default.
const COST_TOP_K: u32 = 40;
/// From a load to its use, ns: main memory behind two cache levels under load.
const LOAD_NS: f64 = 700.0;
/// From a load to its use when loads before it already run: what one more chunk in a row of chunks adds.
const NEXT_LOAD_NS: f64 = LOAD_NS / 4.0;
/// A barrier of the workgroup with a pass through LDS, ns.
const BARRIER_NS: f64 = 40.0;
/// What the shorter of the overlapping times still add, as a part.
const IMPERFECT_OVERLAP: f64 = 0.1;
/// Workgroups that the dispatcher starts per nanosecond.
const WORKGROUPS_PER_NS: f64 = 2.0;
/// Waves that a SIMD really holds with the registers of these kernels.
const WAVES_PER_SIMD: f64 = 8.0;
/// Lanes that a CU's vector units retire per clock.
const LANES_PER_CLOCK: f64 = 64.0;

/// Predicted cost of a kernel in a program of `tokens` tokens, all of them used, on the target's reference card; attention at
/// [`COST_POS`].
pub fn of(kernel: &KernelSpec, tokens: u32, target: &Target) -> Cost {
    on_card(kernel, tokens, target, target.reference_card())
}

/// The same with a GEMV in the best geometry that there could be.
pub fn at_best(kernel: &KernelSpec, tokens: u32, target: &Target) -> Cost {
    let cost = of(kernel, tokens, target);
    let FusedOp::Gemv(op) = &kernel.op else { return cost };
    let memory = memory(kernel, tokens, target, target.reference_card(), &cost);
    Cost { ns: gemv::at_best(op, tokens, target, memory).ceil() as u64, ..cost }
}

/// The same on any card of the target. Bytes and operations don't depend on it.
///
/// Weights count once for each group of tokens that reads them, since the plan asks the memory for them that often.
pub fn on_card(kernel: &KernelSpec, tokens: u32, target: &Target, card: &Card) -> Cost {
    let mut cost = traffic(kernel, tokens);
    cost.flops = flops(&kernel.op, tokens);
    cost.ns = nanoseconds(kernel, tokens, target, card, &cost).ceil() as u64;
    cost
}

/// Bytes read and written.
fn traffic(kernel: &KernelSpec, tokens: u32) -> Cost {
    let mut cost = Cost::default();
    let groups = u64::from(tokens.div_ceil(kernel.geometry.tokens.max(1)));
    for param in kernel.op.params() {
        let bytes = operand_bytes(kernel, &param, tokens);
        match param.access {
            Access::Read if matches!(param.role, Role::Weight(_)) && matches!(kernel.op, FusedOp::Gemv(_)) => {
                cost.read += bytes * groups
            }
            Access::Read => cost.read += bytes,
            Access::Write if param.role == Role::Scratch => {
                cost.read += bytes;
                cost.written += bytes;
            }
            Access::Write => cost.written += bytes,
            Access::Update => {
                cost.written += bytes;
                if matches!((&kernel.op, param.role), (FusedOp::Attend(_), Role::CacheK)) {
                    cost.read += cached(kernel, tokens);
                }
            }
        }
    }
    cost
}

/// Bytes that could have been read in the time that loads of weights take longer in their layout.
fn lost(kernel: &KernelSpec, tokens: u32, target: &Target) -> f64 {
    let FusedOp::Gemv(op) = &kernel.op else { return 0.0 };
    let groups = f64::from(tokens.div_ceil(kernel.geometry.tokens.max(1)));
    let of = |s: &Segment| u64::from(s.rows) * s.layout.row_bytes(s.dtype, op.k).unwrap_or(0);
    groups * op.segments.iter().map(|s| layout::loss(s.dtype, s.layout, target) * of(s) as f64).sum::<f64>()
}

/// Bytes of an operand that a launch of `tokens` tokens touches (of a cache that is read: all positions; of one that is
/// written: those of the tokens).
fn operand_bytes(kernel: &KernelSpec, param: &Param, tokens: u32) -> u64 {
    let t = u64::from(tokens);
    match param.shape {
        // Logits of the tiles with the largest partials, for one token.
        Shape::F32(n) if matches!(kernel.op, FusedOp::Choose(c) if c.partials) => {
            4 * u64::from(n.min(COST_TOP_K * kernel.geometry.tile))
        }
        Shape::F32(n) => 4 * t * u64::from(n),
        Shape::Q8(n) => t * u64::from(Q8Layout { n, block: Q8Layout::DEFAULT_BLOCK }.stride()),
        Shape::Ssq if param.access == Access::Read => 4 * t * u64::from(kernel.geometry.parts_in),
        Shape::Ssq => 4 * t * u64::from(kernel.parts_out()),
        Shape::Partials if param.access == Access::Read => 8 * t * u64::from(kernel.geometry.parts_in),
        Shape::Partials => 8 * t * u64::from(kernel.parts_out()),
        Shape::Ids | Shape::Tokens => 4 * t,
        Shape::Sampling => SamplingState::BYTES,
        Shape::Draws | Shape::Outbox => 8,
        Shape::Weight { dtype, layout, rows, cols } => {
            let rows = if matches!(kernel.op, FusedOp::Embed(_)) && param.role == Role::Weight(0) { t } else { u64::from(rows) };
            rows * layout.row_bytes(dtype, cols).unwrap_or(0)
        }
        Shape::RopeTable(rope) => 4 * t * u64::from(rope.dims),
        Shape::Cache(cache) if param.access == Access::Update => {
            t * u64::from(cache.heads) * u64::from(cache.head_dim) * u64::from(cache.kv.bytes())
        }
        Shape::Cache(_) => cached(kernel, tokens),
        Shape::State => 16,
        Shape::Scratch => kernel.scratch_bytes(tokens),
        Shape::Counters => kernel.counter_bytes(tokens),
    }
}

/// Bytes of K (or V) that attention reads.
fn cached(kernel: &KernelSpec, tokens: u32) -> u64 {
    match &kernel.op {
        FusedOp::Attend(a) => {
            let row = u64::from(a.cache.heads) * u64::from(a.cache.head_dim) * u64::from(a.cache.kv.bytes());
            u64::from(tokens) * u64::from(a.cache.ctx.min(COST_POS)) * row
        }
        _ => 0,
    }
}

/// Additions and multiplications, those of products only where there are any.
fn flops(op: &FusedOp, tokens: u32) -> u64 {
    let t = u64::from(tokens);
    t * match op {
        FusedOp::Gemv(g) => g.segments.iter().map(|s| 2 * u64::from(s.rows) * u64::from(g.k)).sum(),
        FusedOp::Attend(a) => 4 * u64::from(a.heads) * u64::from(a.cache.head_dim) * u64::from(a.cache.ctx.min(COST_POS)),
        FusedOp::Embed(e) => 2 * u64::from(e.n),
        FusedOp::Row(r) => 4 * u64::from(r.n),
        FusedOp::Heads(h) => h.parts.iter().map(|p| 8 * u64::from(p.heads) * u64::from(p.head_dim)).sum(),
        FusedOp::Choose(c) => u64::from(c.n),
        FusedOp::Repack(_) => 0,
    }
}

/// What the memory alone takes.
fn memory(kernel: &KernelSpec, tokens: u32, target: &Target, card: &Card, cost: &Cost) -> f64 {
    ((cost.read + cost.written) as f64 + lost(kernel, tokens, target)) / target.bytes_per_ns(card)
}

fn nanoseconds(kernel: &KernelSpec, tokens: u32, target: &Target, card: &Card, cost: &Cost) -> f64 {
    let memory = memory(kernel, tokens, target, card, cost);
    if let FusedOp::Gemv(op) = &kernel.op {
        return gemv::nanoseconds(kernel, op, tokens, target, card, memory);
    }
    let lanes_per_ns = f64::from(card.cus) * LANES_PER_CLOCK * f64::from(card.mhz) / 1e3;
    let arithmetic = cost.flops as f64 / (lanes_per_ns * 2.0);
    let [x, y, z] = kernel.grid(tokens);
    let workgroups = f64::from(x) * f64::from(y) * f64::from(z);
    let latency = (workgroups / resident_on(&kernel.geometry, target, card)).max(1.0) * workgroup_ns(kernel);
    let (most, sum) = (memory.max(arithmetic).max(latency), memory + arithmetic + latency);
    target.launch_ns + most + IMPERFECT_OVERLAP * (sum - most) + workgroups / WORKGROUPS_PER_NS
}

/// Workgroups that the target's reference card holds at once; at least one.
pub fn resident_workgroups(geometry: &Geometry, target: &Target) -> f64 {
    resident_on(geometry, target, target.reference_card())
}

fn resident_on(geometry: &Geometry, target: &Target, card: &Card) -> f64 {
    let simds = f64::from(card.cus) * f64::from(target.simds_per_cu);
    (simds * WAVES_PER_SIMD / f64::from(geometry.waves)).floor().max(1.0)
}

/// One workgroup's chain of dependent loads and barriers.
fn workgroup_ns(kernel: &KernelSpec) -> f64 {
    let g = &kernel.geometry;
    let chain = |loads: f64| LOAD_NS + (loads - 1.0).max(0.0) * NEXT_LOAD_NS;
    match &kernel.op {
        // Has a formula of its own.
        FusedOp::Gemv(_) => 0.0,
        FusedOp::Attend(a) => {
            let positions = a.cache.ctx.min(COST_POS).div_ceil(g.splits);
            let prologue = if a.prologue.is_some() { LOAD_NS + BARRIER_NS } else { 0.0 };
            let combine = if g.splits > 1 { LOAD_NS + f64::from(g.splits) * BARRIER_NS / 4.0 } else { 0.0 };
            // A wave takes one row of the cache per quarter of its lanes or more; K, then V.
            chain(2.0 * f64::from(positions.div_ceil(4 * g.waves))) + prologue + combine + BARRIER_NS
        }
        FusedOp::Embed(_) | FusedOp::Row(_) => chain(2.0 * f64::from(g.tile.div_ceil(g.wave * g.waves))) + BARRIER_NS,
        FusedOp::Heads(_) | FusedOp::Repack(_) => 2.0 * LOAD_NS + BARRIER_NS,
        FusedOp::Choose(c) => {
            let read = if c.partials { g.parts_in } else { c.n };
            chain(f64::from(read.div_ceil(g.wave * g.waves))) + BARRIER_NS
        }
    }
}
