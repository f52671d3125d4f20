//! What was fused, what wasn't, and why: the page that `hipc explain` prints.
//!
//! Every candidate is weighed by extracting once more: a fusion that was taken saves what the region costs without it, one that was refused costs
//! what the region would cost with it. Both with the borders as they were chosen.

use super::Saturated;
use super::extract::{Menu, Only, Solution};
use super::language::{Formed, Lang, Leaf};
use super::link::{Chosen, wanted};
use super::region::{Form, Ref, Region, Template};
use super::rules;
use egg::Id;
use hipc_ir::fused::ProgramKind;
use hipc_ir::graph::Graph;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// How a program was fused.
#[derive(Clone, Debug, Serialize)]
pub struct FusionReport {
    /// Decode or prompt.
    pub kind: ProgramKind,
    /// Launches per step.
    pub launches: usize,
    /// Predicted time of a step, ns.
    pub ns: u64,
    /// Regions, equal ones (with equal borders) together.
    pub regions: Vec<RegionReport>,
}

/// How regions of one kind were fused.
#[derive(Clone, Debug, Serialize)]
pub struct RegionReport {
    /// Layers; `None` is what comes before or behind them.
    pub layers: Vec<Option<u32>>,
    /// Launches of one of them: label, predicted ns.
    pub launches: Vec<(String, u64)>,
    /// Predicted time of one of them, ns.
    pub ns: u64,
    /// Classes of the e-graph.
    pub classes: usize,
    /// Nodes of the e-graph.
    pub nodes: usize,
    /// Iterations to saturation.
    pub iterations: usize,
    /// Why egg stopped.
    pub stop: String,
    /// Time to saturation.
    #[serde(skip)]
    pub time: Duration,
    /// Launches that could be chosen, and how many more lie on a cycle.
    pub candidates: (usize, usize),
    /// Times each rule changed the e-graph.
    pub rules: BTreeMap<String, usize>,
    /// Candidate fusions; only on request ([`crate::fuse::FuseOptions::explain`]).
    pub fusions: Vec<Fusion>,
}

/// A candidate fusion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fusion {
    /// The rule.
    pub rule: &'static str,
    /// What the rule does.
    pub what: &'static str,
    /// The value it is about.
    pub at: String,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of a candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// Fused. Without it the region would take this much longer, with so many more launches; `None` if nothing else computes it.
    Taken(Option<Difference>),
    /// Not fused. With it the region would take this much longer, with so many more launches.
    Refused(Difference),
    /// Not legal, or no kernel does it on this target.
    Impossible(String),
    /// Legal, but of no use here.
    Inapplicable(String),
}

/// Two ways to compute a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Nanoseconds more.
    pub ns: u64,
    /// Launches more.
    pub launches: i64,
}

/// Weighs every candidate fusion of a region.
pub fn fusions(graph: &Graph, region: &Region, template: &Template, s: &Saturated, menu: &Menu, chosen: &Chosen) -> Vec<Fusion> {
    let egraph = &s.egraph;
    let describe = |root: Id| Names { graph, region, s }.describe(root, 4);
    let find = |id: Id| egraph.find(id);
    let formed: Vec<Formed> = egraph
        .analysis
        .formed
        .iter()
        .map(|f| Formed { launch: find(f.launch), root: find(f.root), from: f.from.map(find), ..*f })
        .collect();
    let what = |name: &str| rules::all().find(|r| r.name == name).map_or("", |r| r.what);
    let mut keys: Vec<(&'static str, Id)> = Vec::new();
    for f in formed.iter().filter(|f| f.fusion) {
        if !keys.contains(&(f.rule, f.root)) {
            keys.push((f.rule, f.root));
        }
    }
    let picked: BTreeSet<usize> = chosen.solution.picks.iter().map(|(i, _)| *i).collect();
    let Some(wanted) = wanted(template, s, menu, chosen.leave) else { return Vec::new() };
    let cheapest = |only: Only| -> Option<Solution> {
        let plain = (0..).zip(&template.enter).filter(|(_, f)| matches!(f, Form::Plain(Ref::Import(_)))).map(|(i, _)| 1u64 << i);
        let open = chosen.solution.enter | plain.sum::<u64>();
        menu.solve(&wanted, &only).into_iter().filter(|s| s.enter & !open == 0).min_by_key(|s| s.ps)
    };
    let more = |than: &Solution, other: &Solution| Difference {
        ns: other.ps.saturating_sub(than.ps) / 1000,
        launches: other.picks.len() as i64 - than.picks.len() as i64,
    };
    let mut fusions = Vec::new();
    for (rule, root) in keys {
        let launches = descendants(&formed, |f| f.fusion && f.rule == rule && f.root == root);
        let set: BTreeSet<usize> =
            (0..menu.choices.len()).filter(|i| launches.contains(&find(menu.choices[*i].launch))).collect();
        let offered = !set.is_empty();
        let verdict = if !set.is_disjoint(&picked) {
            Verdict::Taken(cheapest(Only::Without(set)).map(|other| more(&chosen.solution, &other)))
        } else if let Some(other) = cheapest(Only::With(set)) {
            Verdict::Refused(more(&chosen.solution, &other))
        } else if let Some((_, reason)) = menu.impossible.iter().find(|(id, _)| launches.contains(&find(*id))) {
            Verdict::Impossible(reason.clone())
        } else if offered {
            Verdict::Inapplicable("no launches compute the region with it, between these borders".to_owned())
        } else {
            Verdict::Inapplicable("nothing that the region needs comes from it".to_owned())
        };
        fusions.push(Fusion { rule, what: what(rule), at: describe(root), verdict });
    }
    // The dearest to do without come first, then the nearest misses.
    fusions.sort_by_key(|f| match &f.verdict {
        Verdict::Taken(None) => (0, 0),
        Verdict::Taken(Some(d)) => (1, u64::MAX - d.ns),
        Verdict::Refused(d) => (2, d.ns),
        Verdict::Impossible(_) => (3, 0),
        Verdict::Inapplicable(_) => (4, 0),
    });
    for r in &egraph.analysis.refused {
        let fusion = Fusion {
            rule: r.rule,
            what: what(r.rule),
            at: describe(find(r.root)),
            verdict: Verdict::Impossible(r.reason.to_owned()),
        };
        if !fusions.contains(&fusion) {
            fusions.push(fusion);
        }
    }
    fusions
}

/// Launches that meet a condition, and all that extend them.
fn descendants(formed: &[Formed], first: impl Fn(&Formed) -> bool) -> BTreeSet<Id> {
    let mut found: BTreeSet<Id> = formed.iter().filter(|f| first(f)).map(|f| f.launch).collect();
    loop {
        let before = found.len();
        let extended: Vec<Id> =
            formed.iter().filter(|f| f.from.is_some_and(|from| found.contains(&from))).map(|f| f.launch).collect();
        found.extend(extended);
        if found.len() == before {
            return found;
        }
    }
}

/// Names of a region's values.
struct Names<'a> {
    graph: &'a Graph,
    region: &'a Region,
    s: &'a Saturated,
}

impl Names<'_> {
    /// A class as a short formula with the names of tensors.
    fn describe(&self, class: Id, depth: usize) -> String {
        let egraph = &self.s.egraph;
        let given = egraph[class].nodes.iter().any(|n| matches!(n, Lang::Leaf(_)));
        if depth == 0 && !given {
            return "…".to_owned();
        }
        let Some(node) = egraph[class].nodes.iter().find(|n| !matches!(n, Lang::Out(..) | Lang::Launch(..))) else {
            return "…".to_owned();
        };
        let d = |id: &Id| self.describe(*id, depth.saturating_sub(1));
        match node {
            Lang::Leaf(Leaf::Weight(i, ..)) => self.weight(*i),
            Lang::Leaf(Leaf::Import(..)) => "x".to_owned(),
            Lang::Leaf(Leaf::Tokens) => "tokens".to_owned(),
            Lang::Leaf(Leaf::Cache(..)) => "cache".to_owned(),
            Lang::Leaf(Leaf::Rope(..)) | Lang::Attr(_) => String::new(),
            Lang::Ssq([x]) => format!("Σ({})²", d(x)),
            Lang::Rms(_) => "r".to_owned(),
            Lang::Scale([_, x]) => format!("r·{}", d(x)),
            Lang::Gain([x, g]) => format!("{} ⊙ {}", d(x), d(g)),
            Lang::Norm([_, x, g]) => format!("norm({}, {})", d(x), d(g)),
            Lang::MatVec([w, x]) => format!("{}·{}", d(w), d(x)),
            Lang::Bias([x, _]) => format!("{} + bias", d(x)),
            Lang::Add([x, y]) => format!("({} + {})", d(x), d(y)),
            Lang::Mul([x, y]) => format!("({} ⊙ {})", d(x), d(y)),
            Lang::Act([_, x]) => format!("act({})", d(x)),
            Lang::Rope([_, _, x]) => format!("rope({})", d(x)),
            Lang::Append([_, x]) => format!("append({})", d(x)),
            Lang::Attend(_) => "attention".to_owned(),
            Lang::Quantize([x]) => format!("q8({})", d(x)),
            Lang::Embed(_) => "embedding".to_owned(),
            Lang::ArgMax([x]) => format!("argmax({})", d(x)),
            Lang::Launch(..) | Lang::Out(..) => "…".to_owned(),
        }
    }

    /// `blk.3.attn_q.weight` is `attn_q`.
    fn weight(&self, i: u32) -> String {
        let name = self.region.weights.get(i as usize).map_or("?", |w| self.graph.weights[*w].name.as_str());
        let name = name.strip_suffix(".weight").unwrap_or(name);
        match name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
            Some((_, part)) => part.to_owned(),
            None => name.to_owned(),
        }
    }
}

impl RegionReport {
    /// `layers 0-30`, `layer 4`, `layers 1, 3, 5`, `outside of the layers`.
    pub fn name(&self) -> String {
        let numbers: Vec<u32> = self.layers.iter().flatten().copied().collect();
        match numbers[..] {
            [] => "outside of the layers".to_owned(),
            [one] => format!("layer {one}"),
            [first, .., last] if last - first + 1 == numbers.len() as u32 => format!("layers {first}-{last}"),
            _ => {
                let shown: Vec<String> = numbers.iter().map(u32::to_string).collect();
                format!("layers {}", shown.join(", "))
            }
        }
    }
}

fn us(ns: u64) -> String {
    format!("{:.1} µs", ns as f64 / 1000.0)
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let launches = |n: i64| match n {
            0 => String::new(),
            n if n.abs() == 1 => format!(", {n:+} launch"),
            n => format!(", {n:+} launches"),
        };
        match self {
            Verdict::Taken(None) => f.write_str("taken    nothing else computes it"),
            Verdict::Taken(Some(d)) => write!(f, "taken    saves {}{}", us(d.ns), launches(-d.launches)),
            Verdict::Refused(d) => write!(f, "refused  costs {}{}", us(d.ns), launches(d.launches)),
            Verdict::Impossible(_) => f.write_str("refused  can't be launched"),
            Verdict::Inapplicable(_) => f.write_str("not applicable"),
        }
    }
}

impl fmt::Display for FusionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?} program: {} launches, {} predicted", self.kind, self.launches, us(self.ns))?;
        for r in &self.regions {
            let n = r.launches.len();
            writeln!(f, "\n{}: {n} launch{}, {}", r.name(), if n == 1 { "" } else { "es" }, us(r.ns))?;
            let launches: Vec<String> = r.launches.iter().map(|(label, ns)| format!("{label} {}", us(*ns))).collect();
            writeln!(f, "  {}", launches.join(" · "))?;
            writeln!(
                f,
                "  e-graph: {} classes, {} nodes, {} iterations, stopped: {}; {} launches to choose from, {} on cycles",
                r.classes, r.nodes, r.iterations, r.stop, r.candidates.0, r.candidates.1
            )?;
            let hits: Vec<String> = r.rules.iter().map(|(rule, n)| format!("{rule} {n}")).collect();
            writeln!(f, "  rules: {}", hits.join(", "))?;
            for x in &r.fusions {
                let why = match &x.verdict {
                    Verdict::Impossible(reason) | Verdict::Inapplicable(reason) => format!(": {reason}"),
                    _ => String::new(),
                };
                writeln!(f, "  {:36} {:16} {}  [{}]{why}", x.verdict.to_string(), x.rule, x.what, x.at)?;
            }
        }
        Ok(())
    }
}
