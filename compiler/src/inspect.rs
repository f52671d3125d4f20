//! What `hipc inspect` shows, as data: resources from the code objects, traffic and memory from the plans.

use crate::cost;
use crate::target::{Card, Platform, Target};
use hipc_codeobj::{CodeObject, occupancy};
use hipc_ir::bundle::{KernelVariants, Variant};
use hipc_ir::dtype::{DType, Layout};
use hipc_ir::fused::ProgramKind;
use hipc_ir::plan::{BufferKind, Plan, Program, Space};
use serde::Serialize;
use std::collections::BTreeMap;

/// One kernel of a code object.
#[derive(Clone, Debug, Serialize)]
pub struct KernelReport {
    /// Symbol.
    pub name: String,
    /// Vector registers per lane.
    pub vgpr: u32,
    /// Scalar registers per wave.
    pub sgpr: u32,
    /// Bytes of LDS per workgroup.
    pub lds: u32,
    /// Bytes of scratch per lane; zero, or the compile would have failed.
    pub scratch: u32,
    /// Vector registers spilled.
    pub vgpr_spills: u32,
    /// Scalar registers spilled (into vector registers).
    pub sgpr_spills: u32,
    /// Waves per SIMD that fit, of the most possible.
    pub occupancy: u32,
    /// Most waves per SIMD.
    pub max_waves: u32,
    /// What limits them.
    pub limited_by: String,
    /// Threads per workgroup.
    pub threads: u32,
    /// Launches in the decode and in the prompt program.
    pub launches: [usize; 2],
    /// The variant of code generation that was taken; only where there was a search.
    pub variant: Option<String>,
    /// The variants it was taken from.
    pub variants_tried: Vec<Variant>,
}

/// Predicted speed of the decode program on a card, by the cost model from the card's data sheet; no measurement.
#[derive(Clone, Debug, Serialize)]
pub struct CardReport {
    /// Card.
    pub card: String,
    /// Compute units.
    pub cus: u32,
    /// Highest clock, MHz.
    pub mhz: u32,
    /// Nominal bandwidth, GB/s.
    pub gb_per_s: f64,
    /// Bandwidth that large reads are reckoned to reach, GB/s.
    pub read_gb_per_s: f64,
    /// Positions in the cache that attention is reckoned with.
    pub positions: u32,
    /// Predicted µs of a decode step, without the choice of a token on the host.
    pub predicted_us_per_token: f64,
    /// Predicted tokens per second.
    pub predicted_tokens_per_s: f64,
    /// Part of `read_gb_per_s` that the whole step is predicted to use.
    pub predicted_share: f64,
    /// By kernel, in the order of the plan.
    pub kernels: Vec<KernelPrediction>,
}

/// A kernel of the decode program as the cost model sees it.
#[derive(Clone, Debug, Serialize)]
pub struct KernelPrediction {
    /// Symbol.
    pub name: String,
    /// Launches per token.
    pub launches: usize,
    /// Bytes that one launch reads and writes.
    pub bytes: u64,
    /// Predicted µs of one launch, from its begin to that of the next.
    pub predicted_us: f64,
}

/// The weights of one type in one layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WeightsReport {
    /// Storage type.
    pub dtype: String,
    /// `gguf`, or `split`: repacked when it is loaded.
    pub layout: &'static str,
    /// How many there are.
    pub weights: usize,
    /// Bytes on the device, without what aligns each.
    pub bytes: u64,
    /// Bytes in the file.
    pub file_bytes: u64,
}

/// Bytes that a plan allocates.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MemoryReport {
    /// Weights.
    pub weights: u64,
    /// KV caches.
    pub cache: u64,
    /// Tables, logits, state.
    pub persistent: u64,
    /// Memory of the host that the device writes.
    pub pinned: u64,
    /// Activations.
    pub arena: u64,
}

/// One architecture of a bundle.
#[derive(Clone, Debug, Serialize)]
pub struct ArchReport {
    /// `gfx1100`.
    pub name: String,
    /// Bytes of machine code.
    pub code_bytes: usize,
    /// Launches of one decoder layer in the decode program (the most of any layer).
    pub launches_per_layer: usize,
    /// Launches of a decode step.
    pub launches_per_token: usize,
    /// Bytes read and written by a decode step, from the plan's costs.
    pub bytes_per_token: u64,
    /// Bytes to allocate at the compiled context.
    pub memory: MemoryReport,
    /// Weights by type and layout.
    pub weights: Vec<WeightsReport>,
    /// Kernels in the order of the plan; empty where the machine code has no metadata (PTX, host).
    pub kernels: Vec<KernelReport>,
    /// Predictions.
    pub cards: Vec<CardReport>,
}

/// The report on one architecture.
pub fn arch_report(plan: &Plan, code: &[u8], target: &Target) -> ArchReport {
    let decode = plan.program(ProgramKind::Decode);
    let launches = decode.map_or(&[][..], |p| &p.launches);
    let object = if target.platform == Platform::Amd { CodeObject::parse(code).ok() } else { None };
    let space = |s| plan.space_bytes(s);
    ArchReport {
        name: plan.target.clone(),
        code_bytes: code.len(),
        launches_per_layer: decode.map_or(0, |p| launches_per_layer(p, plan.model.layers)),
        launches_per_token: launches.len(),
        bytes_per_token: launches.iter().map(|l| l.cost.read + l.cost.written).sum(),
        memory: MemoryReport {
            weights: space(Space::Weights),
            cache: space(Space::Cache),
            persistent: space(Space::Persistent),
            pinned: space(Space::Pinned),
            arena: space(Space::Arena),
        },
        weights: weight_reports(plan),
        kernels: object.map_or_else(Vec::new, |object| kernel_reports(plan, &object, target)),
        cards: card_reports(plan, target),
    }
}

impl ArchReport {
    /// Adds what is known of the kernels' variants.
    pub fn add_variants(&mut self, variants: &[KernelVariants]) {
        for kernel in &mut self.kernels {
            if let Some(found) = variants.iter().find(|v| v.kernel == kernel.name) {
                kernel.variant = found.chosen().map(|v| v.name.clone());
                kernel.variants_tried.clone_from(&found.tried);
            }
        }
    }
}

fn weight_reports(plan: &Plan) -> Vec<WeightsReport> {
    let mut found: BTreeMap<(DType, Layout), (usize, u64, u64)> = BTreeMap::new();
    for decl in plan.buffers.values() {
        if let BufferKind::Weight(w, layout) = decl.kind {
            let (weights, bytes, file_bytes) = found.entry((plan.weights[w].dtype, layout)).or_default();
            (*weights, *bytes, *file_bytes) = (*weights + 1, *bytes + decl.bytes, *file_bytes + plan.weights[w].bytes());
        }
    }
    let report = |((dtype, layout), (weights, bytes, file_bytes)): ((DType, Layout), _)| {
        let layout = if layout == Layout::Gguf { "gguf" } else { "split" };
        WeightsReport { dtype: dtype.to_string(), layout, weights, bytes, file_bytes }
    };
    found.into_iter().map(report).collect()
}

/// Most launches that any layer of a program takes.
pub fn launches_per_layer(program: &Program, layers: u32) -> usize {
    (0..layers).map(|layer| program.launches.iter().filter(|l| l.layer == Some(layer)).count()).max().unwrap_or(0)
}

fn kernel_reports(plan: &Plan, object: &CodeObject, target: &Target) -> Vec<KernelReport> {
    let launches = |kernel, kind| plan.program(kind).map_or(0, |p| p.launches.iter().filter(|l| l.kernel == kernel).count());
    let report = |(id, spec): (_, &hipc_ir::plan::KernelSpec)| {
        let k = object.kernel(&spec.name)?;
        let occupancy = occupancy(&target.simd, &k.usage(spec.threads(), 0));
        Some(KernelReport {
            name: spec.name.clone(),
            vgpr: k.vgpr_count,
            sgpr: k.sgpr_count,
            lds: k.group_segment_fixed_size,
            scratch: k.private_segment_fixed_size,
            vgpr_spills: k.vgpr_spill_count,
            sgpr_spills: k.sgpr_spill_count,
            occupancy: occupancy.waves_per_simd,
            max_waves: occupancy.max_waves_per_simd,
            limited_by: occupancy.limit.to_string(),
            threads: spec.threads(),
            launches: [launches(id, ProgramKind::Decode), launches(id, ProgramKind::Prompt)],
            variant: None,
            variants_tried: Vec::new(),
        })
    };
    plan.kernels.iter().filter_map(report).collect()
}

/// The cost model asked anew for each card: same plan, other bandwidth, clock and number of compute units.
fn card_reports(plan: &Plan, target: &Target) -> Vec<CardReport> {
    let Some(program) = plan.program(ProgramKind::Decode) else { return Vec::new() };
    let launches = |kernel| program.launches.iter().filter(|l| l.kernel == kernel).count();
    let used: Vec<_> = plan.kernels.iter().map(|(id, spec)| (spec, launches(id))).filter(|(_, n)| *n > 0).collect();
    let report = |card: &Card| {
        let kernels: Vec<KernelPrediction> = used
            .iter()
            .map(|&(spec, launches)| {
                let cost = cost::on_card(spec, program.tokens, target, card);
                let (bytes, predicted_us) = (cost.read + cost.written, cost.ns as f64 / 1e3);
                KernelPrediction { name: spec.name.clone(), launches, bytes, predicted_us }
            })
            .collect();
        let us: f64 = kernels.iter().map(|k| k.launches as f64 * k.predicted_us).sum();
        let bytes: u64 = kernels.iter().map(|k| k.launches as u64 * k.bytes).sum();
        let read = target.bytes_per_ns(card);
        CardReport {
            card: card.name.to_owned(),
            cus: card.cus,
            mhz: card.mhz,
            gb_per_s: card.gb_per_s,
            read_gb_per_s: read,
            positions: plan.ctx.min(cost::COST_POS),
            predicted_us_per_token: us,
            predicted_tokens_per_s: 1e6 / us,
            predicted_share: bytes as f64 / (1e3 * us * read),
            kernels,
        }
    };
    target.cards.iter().map(report).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Llama, Model};

    fn cards(arch: &str) -> (Plan, Vec<CardReport>) {
        let target = Target::parse(arch).unwrap();
        let plan = Model::new(&Llama::L8B).plan(arch);
        let cards = arch_report(&plan, b"", target).cards;
        (plan, cards)
    }

    #[test]
    fn the_reference_card_has_the_plans_own_costs() {
        let (plan, cards) = cards("gfx1100");
        let launches = &plan.program(ProgramKind::Decode).unwrap().launches;
        let ns: u64 = launches.iter().map(|l| l.cost.ns).sum();
        assert!((cards[0].predicted_us_per_token - ns as f64 / 1e3).abs() < 1e-6 * ns as f64, "{:?}", cards[0]);
        assert_eq!(cards[0].kernels.iter().map(|k| k.launches).sum::<usize>(), launches.len());
        let bytes: u64 = launches.iter().map(|l| l.cost.read + l.cost.written).sum();
        assert_eq!(cards[0].kernels.iter().map(|k| k.launches as u64 * k.bytes).sum::<u64>(), bytes);
    }

    #[test]
    fn a_slower_card_is_predicted_slower_and_always_the_same() {
        let (_, first) = cards("gfx1100");
        let named = |name: &str| first.iter().find(|c| c.card.ends_with(name)).unwrap();
        let [xtx, xt, gre] = ["7900 XTX", "7900 XT", "7900 GRE"].map(|n| named(n).predicted_tokens_per_s);
        assert!(xtx > xt && xt > gre && gre > 0.5 * xtx, "{xtx} {xt} {gre}");
        assert!(first.iter().all(|c| c.predicted_share > 0.0 && c.predicted_share < 1.0));
        let (_, again) = cards("gfx1100");
        assert_eq!(format!("{first:?}"), format!("{again:?}"));
    }

    #[test]
    fn the_cards_that_reports_are_about_are_known() {
        let known = |name: &str| crate::target::TARGETS.iter().flat_map(|t| t.cards).any(|c| c.name.ends_with(name));
        for name in [
            "7900 XTX",
            "9070 XT",
            "7900 XT",
            "W7900",
            "6900 XT",
            "5700 XT",
            "(Strix Halo)",
            "MI210",
            "MI300X",
            "Radeon VII",
            "H200",
        ] {
            assert!(known(name), "{name}");
        }
    }
}
