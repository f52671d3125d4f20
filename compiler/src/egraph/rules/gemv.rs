//! GEMV launches: products with one input, and what follows them inside the launch.
//!
//! The stages of a GEMV are fixed: products, deferred norm, bias, then activation or rotation, then residual or append, then the
//! finish. A rule extends by one stage and asks that no later one is there yet.

use super::{Lhs, Match, Rhs, Rule, Site, Writer};
use crate::egraph::language::{Attr, EGraph, Lang, OutRole, Ty, results};
use egg::{Id, Subst, Var};
use hipc_ir::dtype::Layout;
use hipc_ir::fused::{Combine, Deferred, Finish, FusedOp, Gemv, Input, Role, RopeSpec, Segment, SegmentOut, Tail};

/// The tail of a single product that nothing follows yet.
const PLAIN: Tail = Tail::Vector { combine: Combine::One, residual: false, finish: Finish::RAW };

/// Rules.
pub const RULES: &[Rule] = &[
    Rule {
        name: "gemv",
        what: "a product is a launch",
        fuses: false,
        lhs: Lhs::Patterns(&["(matvec ?w ?x)"]),
        launches: 0,
        only: None,
        rhs: Rhs::Launch(single),
    },
    Rule {
        name: "gemv-group",
        what: "products with one input are one launch",
        fuses: true,
        lhs: Lhs::SharedInput,
        launches: 0,
        only: None,
        rhs: Rhs::Launch(group),
    },
    Rule {
        name: "gemv-deferred",
        what: "the deferred norm is applied to the products",
        fuses: true,
        lhs: Lhs::Patterns(&["(scale (rms ?e ?s) ?y)"]),
        launches: 1,
        only: None,
        rhs: Rhs::Launch(deferred),
    },
    Rule {
        name: "gemv-bias",
        what: "the bias is added in the launch",
        fuses: true,
        lhs: Lhs::Patterns(&["(bias ?y ?b)"]),
        launches: 1,
        only: None,
        rhs: Rhs::Launch(bias),
    },
    Rule {
        name: "gemv-act",
        what: "the activation is applied in the launch",
        fuses: true,
        lhs: Lhs::Patterns(&["(act ?a ?y)"]),
        launches: 1,
        only: None,
        rhs: Rhs::Launch(act),
    },
    Rule {
        name: "gemv-gated",
        what: "gate and up are one launch that writes act(gate) ⊙ up",
        fuses: true,
        lhs: Lhs::Patterns(&["(mul (act ?a ?g) ?u)"]),
        launches: 2,
        only: None,
        rhs: Rhs::Launch(gated),
    },
    Rule {
        name: "gemv-rope",
        what: "the heads are rotated in the launch",
        fuses: true,
        lhs: Lhs::Patterns(&["(rope ?r ?t ?y)"]),
        launches: 1,
        only: None,
        rhs: Rhs::Launch(rope),
    },
    Rule {
        name: "gemv-append",
        what: "the result goes to the cache instead of memory",
        fuses: true,
        lhs: Lhs::Patterns(&["(append ?c ?y)"]),
        launches: 1,
        only: None,
        rhs: Rhs::Launch(append),
    },
];

/// The GEMV's form of input and the segment of a weight, if the two fit.
fn product(site: &Site, w: Id, x: Id) -> Option<(u32, Input, Segment)> {
    let Ty::Weight(dtype, rows, cols) = site.ty(w) else { return None };
    let segment = Segment { dtype, layout: Layout::Gguf, rows, bias: false };
    match site.ty(x) {
        Ty::Q8(n) if n == cols && dtype.is_quantized() => Some((cols, Input::Q8, segment)),
        Ty::F32(n) if n == cols && !dtype.is_quantized() => Some((cols, Input::F32, segment)),
        _ => None,
    }
}

fn single(site: &mut Site, m: &Match) {
    let (w, x) = (m["?w"], m["?x"]);
    if let Some((k, input, segment)) = product(site, w, x) {
        let op = Gemv { k, input, deferred: None, segments: vec![segment], tail: PLAIN };
        site.form(FusedOp::Gemv(op), None, &[(Role::X(0), x), (Role::Weight(0), w)], &[(Role::Raw, m.root)]);
    }
}

/// The mat-vecs with input `x`: all of them as one group, ordered by the number of their weights (the graph's order), and once
/// more without those that already form gated pairs. Groups are found at their input, so each is formed once, not per member.
pub(super) fn shared_input(egraph: &EGraph, x: Id) -> Vec<Subst> {
    if !matches!(egraph[x].data, Ty::F32(_) | Ty::Q8(_)) {
        return Vec::new();
    }
    let mut weights = Vec::new();
    let mut paired = Vec::new();
    for parent in egraph[x].parents() {
        match egraph.id_to_node(parent) {
            Lang::MatVec([w, v]) if egraph.find(*v) == egraph.find(x) => weights.push(egraph.find(*w)),
            Lang::Launch(op, children) if matches!(&*op.0, FusedOp::Gemv(g) if is_gated(g)) => {
                paired.extend(children.iter().map(|c| egraph.find(*c)));
            }
            _ => {}
        }
    }
    weights.sort();
    weights.dedup();
    let rest: Vec<Id> = weights.iter().copied().filter(|w| !paired.contains(w)).collect();
    let mut groups = vec![weights];
    if rest.len() < groups[0].len() {
        groups.push(rest);
    }
    let var = |name: String| name.parse::<Var>().expect("a variable");
    let subst = |group: &Vec<Id>| {
        let mut subst = Subst::with_capacity(group.len() + 1);
        subst.insert(var("?x".to_owned()), x);
        for (i, w) in group.iter().enumerate() {
            subst.insert(var(format!("?w{i}")), *w);
        }
        subst
    };
    groups.iter().filter(|g| g.len() > 1).map(subst).collect()
}

fn is_gated(g: &Gemv) -> bool {
    matches!(g.tail, Tail::Vector { combine: Combine::Gated(_), .. })
}

fn group(site: &mut Site, m: &Match) {
    let x = m["?x"];
    let weights: Vec<Id> = (0..).map_while(|i| m.get(&format!("?w{i}"))).collect();
    let Some(products) = weights.iter().map(|w| product(site, *w, x)).collect::<Option<Vec<_>>>() else { return };
    let op = Gemv {
        k: products[0].0,
        input: products[0].1,
        deferred: None,
        segments: products.iter().map(|p| p.2).collect(),
        tail: Tail::Separate(vec![SegmentOut::Store(None); products.len()]),
    };
    let mut given = vec![(Role::X(0), x)];
    let mut computes = Vec::new();
    for (i, w) in (0..).zip(&weights) {
        given.push((Role::Weight(i), *w));
        computes.push((Role::Out(i), site.egraph.add(Lang::MatVec([*w, x]))));
    }
    site.form(FusedOp::Gemv(op), None, &given, &computes);
}

/// Whether the products are stored as they are.
fn is_plain(g: &Gemv) -> bool {
    g.segments.iter().all(|s| !s.bias)
        && match &g.tail {
            Tail::Separate(outs) => outs.iter().all(|o| *o == SegmentOut::Store(None)),
            tail => *tail == PLAIN,
        }
}

fn deferred(site: &mut Site, m: &Match) {
    let (Some(Attr::Real(eps)), Ty::Ssq(n)) = (site.attr(m["?e"]), site.ty(m["?s"])) else { return };
    let r = site.egraph.add(Lang::Rms([m["?e"], m["?s"]]));
    for w in site.writers(m["?y"]) {
        let FusedOp::Gemv(g) = &*w.op else { continue };
        if g.deferred.is_some() || !is_plain(g) {
            continue;
        }
        let mut computes = Vec::new();
        for p in results(&w.op) {
            let product = site.egraph.add(Lang::Out(OutRole(p.role), [w.launch]));
            computes.push((p.role, site.egraph.add(Lang::Scale([r, product]))));
        }
        let op = Gemv { deferred: Some(Deferred { n, eps }), ..g.clone() };
        site.form(FusedOp::Gemv(op), Some(&w), &[(Role::Ssq, m["?s"])], &computes);
    }
}

/// The segment whose products are a launch's result, if they are only stored so far.
fn stored_segment(g: &Gemv, role: Role) -> Option<(u32, Option<RopeSpec>)> {
    match (role, &g.tail) {
        (Role::Raw, tail) if *tail == PLAIN => Some((0, None)),
        (Role::Out(i), Tail::Separate(outs)) => match outs.get(i as usize)? {
            SegmentOut::Store(rope) => Some((i, *rope)),
            SegmentOut::Append(..) => None,
        },
        _ => None,
    }
}

fn bias(site: &mut Site, m: &Match) {
    for w in site.writers(m["?y"]) {
        let FusedOp::Gemv(g) = &*w.op else { continue };
        if let Some((i, None)) = stored_segment(g, w.role)
            && !g.segments[i as usize].bias
        {
            let mut op = g.clone();
            op.segments[i as usize].bias = true;
            site.form(FusedOp::Gemv(op), Some(&w), &[(Role::Bias(i), m["?b"])], &[(w.role, m.root)]);
        }
    }
}

fn act(site: &mut Site, m: &Match) {
    let Some(Attr::Act(act)) = site.attr(m["?a"]) else { return };
    for w in site.writers(m["?y"]) {
        let FusedOp::Gemv(g) = &*w.op else { continue };
        if g.tail == PLAIN {
            let tail = Tail::Vector { combine: Combine::Act(act), residual: false, finish: Finish::RAW };
            site.form(FusedOp::Gemv(Gemv { tail, ..g.clone() }), Some(&w), &[], &[(Role::Raw, m.root)]);
        }
    }
}

fn gated(site: &mut Site, m: &Match) {
    let Some(Attr::Act(act)) = site.attr(m["?a"]) else { return };
    let singles = |site: &Site, class: Id| -> Vec<(Writer, Gemv)> {
        let plain = |w: Writer| match &*w.op {
            FusedOp::Gemv(g) if g.tail == PLAIN => Some((w.clone(), g.clone())),
            _ => None,
        };
        site.writers(class).into_iter().filter_map(plain).collect()
    };
    let ups = singles(site, m["?u"]);
    for (gate, g) in singles(site, m["?g"]) {
        for (up, u) in &ups {
            let same_input = [Role::X(0), Role::Ssq].into_iter().all(|role| gate.operand(role) == up.operand(role));
            if !same_input || g.deferred != u.deferred || g.segments[0].rows != u.segments[0].rows {
                continue;
            }
            let op = Gemv {
                segments: vec![g.segments[0], u.segments[0]],
                tail: Tail::Vector { combine: Combine::Gated(act), residual: false, finish: Finish::RAW },
                ..g.clone()
            };
            let second = [(Role::Weight(0), Role::Weight(1)), (Role::Bias(0), Role::Bias(1))];
            let given: Vec<(Role, Id)> = second.into_iter().filter_map(|(from, to)| Some((to, up.operand(from)?))).collect();
            site.form(FusedOp::Gemv(op), Some(&gate), &given, &[(Role::Raw, m.root)]);
        }
    }
}

/// The same GEMV with segment `i` going elsewhere.
fn with_out(g: &Gemv, i: u32, out: SegmentOut) -> FusedOp {
    let mut op = g.clone();
    match &mut op.tail {
        Tail::Separate(outs) => outs[i as usize] = out,
        tail => *tail = Tail::Separate(vec![out]),
    }
    FusedOp::Gemv(op)
}

fn rope(site: &mut Site, m: &Match) {
    let Some(Attr::Rope(spec)) = site.attr(m["?r"]) else { return };
    let table = site.egraph.find(m["?t"]);
    for w in site.writers(m["?y"]) {
        let FusedOp::Gemv(g) = &*w.op else { continue };
        let Some((i, None)) = stored_segment(g, w.role) else { continue };
        if w.operand(Role::RopeTable).is_some_and(|other| other != table) {
            site.refuse("a launch has one rotation table");
            continue;
        }
        let op = with_out(g, i, SegmentOut::Store(Some(spec)));
        site.form(op, Some(&w), &[(Role::RopeTable, table)], &[(Role::Out(i), m.root)]);
    }
}

fn append(site: &mut Site, m: &Match) {
    let Ty::Cache(_, spec) = site.ty(m["?c"]) else { return };
    for w in site.writers(m["?y"]) {
        let FusedOp::Gemv(g) = &*w.op else { continue };
        let Some((i, rope)) = stored_segment(g, w.role) else { continue };
        if g.segments[i as usize].rows == spec.heads * spec.head_dim {
            let op = with_out(g, i, SegmentOut::Append(rope, spec));
            site.form(op, Some(&w), &[(Role::Cache(i), m["?c"])], &[(Role::Cache(i), m.root)]);
        }
    }
}
