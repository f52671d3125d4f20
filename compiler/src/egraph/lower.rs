//! Writes the chosen launches down as a [`FusedGraph`]: in order, with slots between them, without results that nobody reads.

use super::Saturated;
use super::extract::{Choice, Menu, bound_operands};
use super::language::{Lang, Leaf, Ty};
use super::link::Chosen;
use super::region::{Region, Regions};
use super::rules::without_results;
use egg::Id;
use hipc_ir::fused::{
    Access, Combine, FusedGraph, FusedLaunch, FusedOp, Gemv, LaunchRef, Operand, ProgramKind, Role, RowExpr, Shape, Slot, Tail,
};
use hipc_ir::graph::{Cache, Graph, Value};
use hipc_ir::{EntityRef, PrimaryMap};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What went wrong; a bug of ours, since extraction leaves out cyclic launches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LowerError {
    /// The launches of a region can't be ordered.
    Order(usize),
    /// An operand of a launch is bound to nothing.
    Unbound(usize, Role),
}

/// The fused graph, and what the graph's outputs are bound to.
pub struct Lowered {
    /// Launches.
    pub graph: FusedGraph,
    /// Operands parallel to the graph's outputs.
    pub outputs: Vec<Operand>,
    /// Launches of each region.
    pub by_region: Vec<Vec<LaunchRef>>,
}

struct Lowering {
    kind: ProgramKind,
    slots: PrimaryMap<Slot, Shape>,
    launches: PrimaryMap<LaunchRef, FusedLaunch>,
    values: HashMap<Value, Operand>,
}

/// Writes all regions.
pub fn lower(
    graph: &Graph,
    kind: ProgramKind,
    regions: &Regions,
    saturated: &[Saturated],
    menus: &[Menu],
    chosen: &[Chosen],
) -> Result<Lowered, LowerError> {
    let mut l = Lowering { kind, slots: PrimaryMap::new(), launches: PrimaryMap::new(), values: HashMap::new() };
    let mut crossing: Vec<Option<Operand>> = Vec::new();
    let mut by_region = Vec::new();
    for (i, (region, chosen)) in regions.regions.iter().zip(chosen).enumerate() {
        let first = l.launches.len();
        let t = region.template;
        let bound = l.region(i, region, &saturated[t], &menus[t], chosen, &crossing)?;
        for node in &regions.templates[t].roots {
            if let Some(operand) = bound.get(&saturated[t].nodes[*node]) {
                l.values.insert(region.values[*node], *operand);
            }
        }
        crossing = saturated[t].leave.iter().map(|class| bound.get(&(*class)?).copied()).collect();
        by_region.push((first..l.launches.len()).map(LaunchRef::new).collect());
    }
    let outputs: Vec<Operand> = graph.outputs.iter().filter_map(|v| l.values.get(v).copied()).collect();
    let slot = |operand: Option<&Operand>| match operand {
        Some(Operand::Slot(slot)) => *slot,
        _ => Slot::new(0),
    };
    let (logits, ids) = (slot(outputs.first()), slot(outputs.last()));
    let labels = labels(&l.launches);
    l.launches.values_mut().zip(labels).for_each(|(launch, label)| launch.label = label);
    let graph = FusedGraph { kind, slots: l.slots, launches: l.launches, logits, ids };
    Ok(Lowered { graph, outputs, by_region })
}

impl Lowering {
    /// Writes a region's launches; returns what its classes are bound to.
    fn region(
        &mut self,
        index: usize,
        region: &Region,
        saturated: &Saturated,
        menu: &Menu,
        chosen: &Chosen,
        crossing: &[Option<Operand>],
    ) -> Result<HashMap<Id, Operand>, LowerError> {
        let mut bound: HashMap<Id, Operand> = HashMap::new();
        for (i, class) in saturated.enter.iter().enumerate() {
            if chosen.solution.enter & (1 << i) != 0
                && let (Some(class), Some(Some(operand))) = (class, crossing.get(i))
            {
                bound.insert(*class, *operand);
            }
        }
        for (choice, roles) in in_order(index, saturated, menu, chosen)? {
            let mut op = without_results(&choice.op, |role| !roles.contains(&role));
            if let FusedOp::Choose(c) = &mut op {
                // It reads what everything else leads to, so it comes last.
                c.advance = self.kind == ProgramKind::Decode;
            }
            let mut args = Vec::new();
            for param in op.params() {
                let operand = if let Some(always) = Operand::always(param.role) {
                    always
                } else if param.access == Access::Write {
                    Operand::Slot(self.slots.push(param.shape))
                } else {
                    let class = bound_operands(choice).find(|(r, _)| *r == param.role).map(|(_, id)| id);
                    let given = class.and_then(|id| bound.get(&id).copied().or_else(|| leaf(region, saturated, id)));
                    given.ok_or(LowerError::Unbound(index, param.role))?
                };
                args.push(operand);
            }
            for (param, operand) in op.params().iter().zip(&args) {
                if let Some((_, at, _)) = choice.results.iter().find(|(role, ..)| *role == param.role && roles.contains(role)) {
                    bound.insert(menu.classes[*at], *operand);
                }
            }
            self.launches.push(FusedLaunch { op, args, layer: region.layer, label: String::new() });
        }
        Ok(bound)
    }
}

/// The operand of a class that the region is given.
fn leaf(region: &Region, saturated: &Saturated, class: Id) -> Option<Operand> {
    let class = &saturated.egraph[class];
    class.nodes.iter().find_map(|node| match node {
        Lang::Leaf(Leaf::Weight(i, ..)) => region.weights.get(*i as usize).map(|w| Operand::Weight(*w)),
        Lang::Leaf(Leaf::Rope(i, ..)) => region.ropes.get(*i as usize).map(|r| Operand::Rope(*r)),
        Lang::Leaf(Leaf::Cache(i, _)) => cache(region, *i),
        _ => None,
    })
}

fn cache(region: &Region, i: u32) -> Option<Operand> {
    region.caches.get(i as usize).copied().map(Operand::Cache)
}

/// The chosen launches in a deterministic topological order: of those that can run, the one whose results come first in the graph. A launch that
/// reads a version of a cache runs before the launch that makes the next version, which overwrites it.
fn in_order<'a>(
    index: usize,
    saturated: &Saturated,
    menu: &'a Menu,
    chosen: &Chosen,
) -> Result<Vec<(&'a Choice, Vec<Role>)>, LowerError> {
    let mut place: HashMap<Id, usize> = HashMap::new();
    saturated.nodes.iter().enumerate().for_each(|(i, id)| {
        place.entry(*id).or_insert(i);
    });
    let picks: Vec<(&Choice, Vec<Role>)> =
        chosen.solution.picks.iter().map(|(i, roles)| (&menu.choices[*i], roles.clone())).collect();
    let mut producer: HashMap<Id, usize> = HashMap::new();
    for (i, (choice, roles)) in picks.iter().enumerate() {
        for (role, at, _) in &choice.results {
            if roles.contains(role) {
                producer.insert(menu.classes[*at], i);
            }
        }
    }
    let is_cache = |id: &Id| matches!(saturated.egraph[*id].data, Ty::Cache(..));
    let mut before: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); picks.len()];
    for (i, (choice, _)) in picks.iter().enumerate() {
        before[i].extend(choice.children.iter().filter_map(|c| producer.get(c)));
        let params = super::language::operands(&choice.op);
        for (param, class) in params.iter().zip(&choice.children) {
            if param.access == Access::Update && is_cache(class) {
                let readers = picks.iter().enumerate().filter(|(j, (other, _))| *j != i && other.children.contains(class));
                before[i].extend(readers.map(|(j, _)| j));
            }
        }
    }
    let key = |i: usize| {
        let (choice, roles) = &picks[i];
        let written = choice.results.iter().filter(|(role, ..)| roles.contains(role));
        let last = written.filter_map(|(_, at, _)| place.get(&menu.classes[*at])).max();
        (last.copied().unwrap_or(usize::MAX), i)
    };
    let mut left: BTreeSet<(usize, usize)> = (0..picks.len()).map(key).collect();
    let mut done = BTreeSet::new();
    let mut order = Vec::new();
    while !left.is_empty() {
        let ready = left.iter().find(|(_, i)| before[*i].is_subset(&done)).copied();
        let Some(next) = ready else { return Err(LowerError::Order(index)) };
        left.remove(&next);
        done.insert(next.1);
        order.push(picks[next.1].clone());
    }
    Ok(order)
}

/// Short names from what launches do and what their results are used for.
fn labels(launches: &PrimaryMap<LaunchRef, FusedLaunch>) -> Vec<String> {
    let mut writer: BTreeMap<Slot, LaunchRef> = BTreeMap::new();
    let mut writes_cache: BTreeMap<Cache, Vec<LaunchRef>> = BTreeMap::new();
    let written = |l: &FusedLaunch| -> Vec<Operand> {
        let params = l.op.params();
        params.iter().zip(&l.args).filter(|(p, _)| p.access != Access::Read).map(|(_, a)| *a).collect()
    };
    for (launch, l) in launches.iter() {
        for operand in written(l) {
            match operand {
                Operand::Slot(slot) => drop(writer.insert(slot, launch)),
                Operand::Cache(cache) => writes_cache.entry(cache).or_default().push(launch),
                _ => {}
            }
        }
    }
    let sources = |l: &FusedLaunch| -> Vec<LaunchRef> {
        let params = l.op.params();
        let read = params.iter().zip(&l.args).filter(|(p, _)| p.access == Access::Read && p.role != Role::Residual);
        read.filter_map(|(_, a)| match a {
            Operand::Slot(slot) => writer.get(slot).copied(),
            _ => None,
        })
        .collect()
    };
    let mut feeds_attention: BTreeSet<LaunchRef> = BTreeSet::new();
    for l in launches.values().filter(|l| matches!(l.op, FusedOp::Attend(_))) {
        let mut direct = sources(l);
        let caches = l.args.iter().filter_map(|a| match a {
            Operand::Cache(c) => writes_cache.get(c),
            _ => None,
        });
        direct.extend(caches.flatten());
        // Through launches that only norm, rotate or add a bias.
        while let Some(launch) = direct.pop() {
            if feeds_attention.insert(launch) && matches!(launches[launch].op, FusedOp::Heads(_) | FusedOp::Row(_)) {
                direct.extend(sources(&launches[launch]));
            }
        }
    }
    let choices = launches.values().filter(|l| matches!(l.op, FusedOp::Choose(_)));
    let feeds_choice: BTreeSet<LaunchRef> = choices.flat_map(sources).collect();
    let reads = |l: &FusedLaunch, wanted: &dyn Fn(&FusedOp) -> bool| {
        let mut queue = sources(l);
        let mut seen = BTreeSet::new();
        while let Some(launch) = queue.pop() {
            match &launches[launch].op {
                op if wanted(op) => return true,
                FusedOp::Row(_) if seen.insert(launch) => queue.extend(sources(&launches[launch])),
                _ => {}
            }
        }
        false
    };
    let activates = |op: &FusedOp| match op {
        FusedOp::Gemv(Gemv { tail: Tail::Vector { combine, .. }, .. }) => *combine != Combine::One,
        FusedOp::Row(r) => matches!(r.expr, RowExpr::Gated(_) | RowExpr::Act(_)),
        _ => false,
    };
    let label = |launch: LaunchRef, l: &FusedLaunch| match &l.op {
        FusedOp::Embed(_) => "embed",
        FusedOp::Attend(_) => "attn",
        FusedOp::Choose(_) => "choose",
        FusedOp::Repack(_) => "repack",
        FusedOp::Heads(_) => "heads",
        FusedOp::Row(r) => match r.expr {
            RowExpr::Copy if r.finish.q8 => "quantize",
            RowExpr::Copy => "copy",
            RowExpr::Add => "add",
            RowExpr::Mul => "mul",
            RowExpr::Act(_) => "act",
            RowExpr::Gated(_) => "gated",
            RowExpr::Bias => "bias",
            RowExpr::Norm { .. } => "norm",
            RowExpr::Scale(_) => "scale",
        },
        FusedOp::Gemv(g) => match g.tail {
            Tail::Head => "head",
            Tail::Vector { combine: Combine::Gated(_), .. } => "gate_up",
            Tail::Vector { combine: Combine::Act(_), .. } => "up",
            _ if feeds_choice.contains(&launch) => "head",
            _ if feeds_attention.contains(&launch) => "qkv",
            _ if reads(l, &|op| matches!(op, FusedOp::Attend(_))) => "o",
            _ if reads(l, &activates) => "down",
            _ => "gemv",
        },
    };
    launches.iter().map(|(launch, l)| label(launch, l).to_owned()).collect()
}
