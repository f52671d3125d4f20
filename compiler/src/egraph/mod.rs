//! Fusion by equality saturation.
//!
//! A graph is cut into regions, mostly layers ([`region`]). Each distinct region becomes an e-graph ([`language`]); named rules ([`rules`])
//! add every way to compute its values by launches, without deciding anything; [`extract`] finds the cheapest set of launches under a
//! cost model ([`cost`]), for each way in which values can cross the region's borders; [`link`] chooses those over all regions; [`lower`]
//! writes the launches down. [`report`] tells what was fused, what wasn't, and why.
//!
//! Read in this order: `language`, `rules/mod`, `rules/norm`, `rules/gemv`, `extract`.

pub mod cost;
pub mod extract;
pub mod language;
pub mod link;
pub mod lower;
pub mod quantize;
pub mod region;
pub mod report;
pub mod rules;

use cost::CostModel;
use egg::{Id, Rewrite, Runner, SimpleScheduler, StopReason};
use extract::Menu;
use hipc_ir::EntityRef;
use hipc_ir::fused::RopeSpec;
use hipc_ir::graph::{Op, Ty as GraphTy};
use language::{Attr, EGraph, Lang, Leaf, Ty, Types};
use region::{Form, Ref, Template};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Nodes beyond which a region's saturation is given up; a dense layer takes a few hundred.
const NODE_LIMIT: usize = 200_000;
/// Iterations beyond which it is given up; a dense layer takes about ten.
const ITERATION_LIMIT: usize = 60;

/// A template's e-graph after saturation.
#[derive(Debug)]
pub struct Saturated {
    /// The e-graph.
    pub egraph: EGraph,
    /// Classes of the template's nodes.
    pub nodes: Vec<Id>,
    /// Classes of the forms that can come in; `None` where the rules know no such form.
    pub enter: Vec<Option<Id>>,
    /// Classes of the forms that can go out.
    pub leave: Vec<Option<Id>>,
    /// Why egg stopped.
    pub stop: StopReason,
    /// Iterations.
    pub iterations: usize,
    /// Times each rule changed something.
    pub hits: BTreeMap<String, usize>,
    /// Time taken.
    pub time: Duration,
}

/// Writes a template as an e-graph and applies the rules until nothing changes.
pub fn saturate(template: &Template, rules: &[Rewrite<Lang, Types>]) -> Saturated {
    let start = Instant::now();
    let mut egraph = EGraph::new(Types::default());
    let built = build(template, &mut egraph);
    let runner = Runner::<Lang, Types>::new(Types::default())
        .with_egraph(egraph)
        .with_scheduler(SimpleScheduler)
        .with_node_limit(NODE_LIMIT)
        .with_iter_limit(ITERATION_LIMIT)
        .with_time_limit(Duration::from_secs(60))
        .run(rules);
    let mut hits = BTreeMap::new();
    for iteration in &runner.iterations {
        for (rule, n) in &iteration.applied {
            *hits.entry(rule.to_string()).or_insert(0) += n;
        }
    }
    let egraph = runner.egraph;
    let forms = |forms: &[Form<Ref, usize>]| forms.iter().map(|f| form_class(&egraph, &built, *f)).collect();
    Saturated {
        nodes: built.nodes.iter().map(|id| egraph.find(*id)).collect(),
        enter: forms(&template.enter),
        leave: forms(&template.leave),
        stop: runner.stop_reason.unwrap_or(StopReason::Other("not run".to_owned())),
        iterations: runner.iterations.len(),
        hits,
        time: start.elapsed(),
        egraph,
    }
}

impl Saturated {
    /// What extraction can choose from.
    pub fn menu(&self, template: &Template, cost: &CostModel) -> Menu {
        let wanted: Vec<Id> = self.leave.iter().flatten().copied().chain(template.roots.iter().map(|n| self.nodes[*n])).collect();
        Menu::new(&self.egraph, cost, &wanted, &self.enter)
    }
}

struct Built {
    tokens: Id,
    imports: Vec<Id>,
    weights: Vec<Id>,
    nodes: Vec<Id>,
}

impl Built {
    fn class(&self, r: Ref) -> Id {
        match r {
            Ref::Tokens => self.tokens,
            Ref::Import(i) => self.imports[i],
            Ref::Node(i) => self.nodes[i],
        }
    }
}

/// Adds a template's terms. `act(x)` comes first in a product with another vector, so that one pattern finds gated pairs.
fn build(t: &Template, egraph: &mut EGraph) -> Built {
    let mut number = 0..;
    let mut next = || number.next().unwrap_or(u32::MAX);
    let tokens = egraph.add(Lang::Leaf(Leaf::Tokens));
    let weights: Vec<Id> =
        t.weights.iter().map(|&(dtype, rows, cols)| egraph.add(Lang::Leaf(Leaf::Weight(next(), dtype, rows, cols)))).collect();
    let ropes: Vec<Id> = (0..).zip(&t.ropes).map(|(i, &(s, dims))| egraph.add(Lang::Leaf(Leaf::Rope(i, s, dims)))).collect();
    let mut caches: Vec<Id> = (0..).zip(&t.caches).map(|(i, c)| egraph.add(Lang::Leaf(Leaf::Cache(i, *c)))).collect();
    let imports = (0..).zip(&t.imports).map(|(i, ty)| egraph.add(Lang::Leaf(Leaf::Import(i, import_ty(*ty, t))))).collect();
    let mut b = Built { tokens, imports, weights, nodes: Vec::new() };
    for (op, args) in &t.nodes {
        let args: Vec<Id> = args.iter().map(|r| b.class(*r)).collect();
        let arg = |i: usize| args.get(i).copied().unwrap_or(tokens);
        let node = match op {
            Op::Tokens => Lang::Leaf(Leaf::Tokens),
            Op::Embed(w) => Lang::Embed([b.weights[w.index()], arg(0)]),
            Op::RmsNorm { weight, eps } => {
                let eps = egraph.add(Lang::Attr(Attr::Real(*eps)));
                Lang::Norm([eps, arg(0), b.weights[weight.index()]])
            }
            Op::MatVec(w) => Lang::MatVec([b.weights[w.index()], arg(0)]),
            Op::Bias(w) => Lang::Bias([arg(0), b.weights[w.index()]]),
            Op::Add => Lang::Add([arg(0), arg(1)]),
            Op::Mul => {
                let is_act = |id: Id| egraph[id].nodes.iter().any(|n| matches!(n, Lang::Act(_)));
                let swap = is_act(arg(1)) && !is_act(arg(0));
                if swap { Lang::Mul([arg(1), arg(0)]) } else { Lang::Mul([arg(0), arg(1)]) }
            }
            Op::Act(act) => Lang::Act([egraph.add(Lang::Attr(Attr::Act(*act))), arg(0)]),
            Op::Rope { rope, head_dim } => {
                let (style, dims) = t.ropes[rope.index()];
                let spec = egraph.add(Lang::Attr(Attr::Rope(RopeSpec { style, dims, head_dim: *head_dim })));
                Lang::Rope([spec, ropes[rope.index()], arg(0)])
            }
            Op::Append(c) => {
                let id = egraph.add(Lang::Append([caches[c.index()], arg(0)]));
                caches[c.index()] = id;
                b.nodes.push(id);
                continue;
            }
            Op::Attend { heads, scale, .. } => {
                let spec = egraph.add(Lang::Attr(Attr::Attend(*heads, *scale)));
                Lang::Attend([spec, arg(0), arg(1), arg(2)])
            }
            Op::Quantize => Lang::Quantize([arg(0)]),
            Op::ArgMax => Lang::ArgMax([arg(0)]),
        };
        b.nodes.push(egraph.add(node));
    }
    b
}

fn import_ty(ty: GraphTy, t: &Template) -> Ty {
    match ty {
        GraphTy::Ids => Ty::Ids,
        GraphTy::F32(n) => Ty::F32(n),
        GraphTy::Q8(n) => Ty::Q8(n),
        GraphTy::Cache(c) => t.caches.get(c.index()).map_or(Ty::Wrong, |spec| Ty::Cache(c.as_u32(), *spec)),
    }
}

fn form_class(egraph: &EGraph, b: &Built, form: Form<Ref, usize>) -> Option<Id> {
    let gained = |r: Ref, w: usize| egraph.lookup(Lang::Gain([b.class(r), b.weights[w]]));
    match form {
        Form::Plain(r) => Some(egraph.find(b.class(r))),
        Form::Ssq(r) => egraph.lookup(Lang::Ssq([b.class(r)])),
        Form::Gained(r, w) => gained(r, w),
        Form::GainedQ8(r, w) => egraph.lookup(Lang::Quantize([gained(r, w)?])),
    }
}
