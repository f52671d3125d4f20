//! Fusion: a graph becomes a list of launches.

use crate::egraph::cost::CostModel;
use crate::egraph::extract::Menu;
use crate::egraph::link::{Chosen, link};
use crate::egraph::lower::{LowerError, Lowered, lower};
use crate::egraph::quantize::place_quantize;
use crate::egraph::region::{Regions, cut};
use crate::egraph::report::{self, FusionReport, RegionReport};
use crate::egraph::{Saturated, rules, saturate};
use crate::target::Target;
use crate::tuning::Tuning;
use egg::StopReason;
use hipc_ir::KvType;
use hipc_ir::fused::{FusedGraph, FusedLaunch, Operand, ProgramKind, Role};
use hipc_ir::graph::{Graph, Op};
use std::collections::HashMap;

/// What fusion is told beside graph and target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FuseOptions {
    /// Positions of the cache.
    pub ctx: u32,
    /// Storage type of the cache.
    pub kv: KvType,
    /// Tokens per step with which the prompt program is priced.
    pub chunk: u32,
    /// Rules to leave out, by name: to find the rule that makes a difference.
    pub without: Vec<String>,
    /// Whether the report weighs every candidate fusion, which takes some times longer than fusing.
    pub explain: bool,
    /// Geometries that were measured.
    pub tuning: Tuning,
}

impl FuseOptions {
    /// All rules; a short report.
    pub fn new(ctx: u32, kv: KvType) -> Self {
        Self { ctx, kv, chunk: 64, without: Vec::new(), explain: false, tuning: Tuning::NONE }
    }
}

/// A fused program.
#[derive(Clone, Debug)]
pub struct Fused {
    /// Launches in order.
    pub graph: FusedGraph,
    /// What the graph's outputs are bound to, parallel to [`Graph::outputs`].
    pub outputs: Vec<Operand>,
    /// How it came about.
    pub report: FusionReport,
}

/// Why a graph can't be fused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FuseError {
    /// Ours: the rules don't come to an end.
    #[error("fusion of region {region} stopped before it was saturated: {reason}; please report this")]
    NotSaturated {
        /// Region.
        region: usize,
        /// egg's reason.
        reason: String,
    },
    /// The user's: rules were left out without which something can't be computed; else ours.
    #[error("no launches compute region {region} ({ops}){}", if *rules_missing { "; rules were left out" } else { "; please report this" })]
    NoLaunches {
        /// Region.
        region: usize,
        /// Its ops.
        ops: String,
        /// Whether rules were left out.
        rules_missing: bool,
    },
    /// Ours.
    #[error("launches of region {0} depend on each other; please report this")]
    Cyclic(usize),
    /// Ours.
    #[error("operand {role:?} of a launch in region {region} is bound to nothing; please report this")]
    Unbound {
        /// Region.
        region: usize,
        /// The operand.
        role: Role,
    },
}

/// Finds the cheapest launches that compute a graph on a target.
///
/// Passes: `place_quantize`, cut into regions, saturate each distinct region, extract, link, lower.
///
/// # Errors
/// [`FuseError`]; with all rules only by a bug of ours.
pub fn fuse(graph: &Graph, kind: ProgramKind, opts: &FuseOptions, target: &Target) -> Result<Fused, FuseError> {
    let graph = place_quantize(graph);
    let regions = cut(&graph, opts.ctx, opts.kv);
    let rules = rules::rewrites(kind, &opts.without);
    let cost = CostModel::new(target, if kind == ProgramKind::Decode { 1 } else { opts.chunk }, &opts.tuning);
    let saturated: Vec<Saturated> = regions.templates.iter().map(|t| saturate(t, &rules)).collect();
    if let Some((region, s)) = saturated.iter().enumerate().find(|(_, s)| !matches!(s.stop, StopReason::Saturated)) {
        return Err(FuseError::NotSaturated { region, reason: format!("{:?}", s.stop) });
    }
    let menus: Vec<Menu> = regions.templates.iter().zip(&saturated).map(|(t, s)| s.menu(t, &cost)).collect();
    let chosen = link(&regions, &saturated, &menus).map_err(|region| {
        let template = &regions.templates[regions.regions[region].template];
        let ops: Vec<String> = template.nodes.iter().map(|(op, _)| name(op)).collect();
        FuseError::NoLaunches { region, ops: ops.join(", "), rules_missing: !opts.without.is_empty() }
    })?;
    let lowered = lower(&graph, kind, &regions, &saturated, &menus, &chosen).map_err(|e| match e {
        LowerError::Order(region) => FuseError::Cyclic(region),
        LowerError::Unbound(region, role) => FuseError::Unbound { region, role },
    })?;
    let stages = Stages { graph: &graph, regions: &regions, saturated: &saturated, menus: &menus, chosen: &chosen, cost: &cost };
    let report = stages.report(&lowered, opts.explain);
    Ok(Fused { graph: lowered.graph, outputs: lowered.outputs, report })
}

/// What the report is made from.
struct Stages<'a> {
    graph: &'a Graph,
    regions: &'a Regions,
    saturated: &'a [Saturated],
    menus: &'a [Menu],
    chosen: &'a [Chosen],
    cost: &'a CostModel<'a>,
}

impl Stages<'_> {
    fn report(&self, lowered: &Lowered, explain: bool) -> FusionReport {
        let mut index: HashMap<(usize, u64, u64), usize> = HashMap::new();
        let mut reports: Vec<RegionReport> = Vec::new();
        let ns = |launch: &FusedLaunch| self.cost.whole(&launch.op).unwrap_or(0) / 1000;
        for ((region, chosen), launches) in self.regions.regions.iter().zip(self.chosen).zip(&lowered.by_region) {
            let t = region.template;
            let at = *index.entry((t, chosen.solution.enter, chosen.leave)).or_insert_with(|| {
                let (s, menu) = (&self.saturated[t], &self.menus[t]);
                let launches: Vec<&FusedLaunch> = launches.iter().map(|l| &lowered.graph.launches[*l]).collect();
                let fusions = match explain {
                    true => report::fusions(self.graph, region, &self.regions.templates[t], s, menu, chosen),
                    false => Vec::new(),
                };
                reports.push(RegionReport {
                    layers: Vec::new(),
                    launches: launches.iter().map(|l| (l.label.clone(), ns(l))).collect(),
                    ns: launches.iter().map(|l| ns(l)).sum(),
                    classes: s.egraph.number_of_classes(),
                    nodes: s.egraph.total_number_of_nodes(),
                    iterations: s.iterations,
                    stop: format!("{:?}", s.stop),
                    time: s.time,
                    candidates: (menu.choices.len(), menu.cyclic),
                    rules: s.hits.clone(),
                    fusions,
                });
                reports.len() - 1
            });
            reports[at].layers.push(region.layer);
        }
        FusionReport {
            kind: lowered.graph.kind,
            launches: lowered.graph.launches.len(),
            ns: lowered.graph.launches.values().map(ns).sum(),
            regions: reports,
        }
    }
}

fn name(op: &Op) -> String {
    let text = format!("{op:?}");
    text.split(['(', ' ', '{']).next().unwrap_or_default().to_lowercase()
}
