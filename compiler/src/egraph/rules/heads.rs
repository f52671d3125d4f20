//! Launches for work on heads that neither a GEMV nor attention takes.

use super::{Lhs, Match, Rhs, Rule, Site, Writer};
use crate::egraph::language::{Attr, Ty};
use hipc_ir::fused::{FusedOp, HeadOut, HeadPart, Heads, Role};

/// Rules.
pub const RULES: &[Rule] = &[
    Rule {
        name: "heads-norm",
        what: "a norm per head is a launch",
        fuses: false,
        lhs: Lhs::Patterns(&["(norm ?e ?x ?g)"]),
        launches: 0,
        only: None,
        rhs: Rhs::Launch(norm),
    },
    Rule {
        name: "heads-rope",
        what: "a rotation is a launch, or part of the launch that norms the heads",
        fuses: true,
        lhs: Lhs::Patterns(&["(rope ?r ?t ?x)"]),
        launches: 1,
        only: None,
        rhs: Rhs::Launch(rope),
    },
    Rule {
        name: "heads-append",
        what: "an append is a launch, or part of the launch that norms or rotates the heads",
        fuses: true,
        lhs: Lhs::Patterns(&["(append ?c ?x)"]),
        launches: 1,
        only: None,
        rhs: Rhs::Launch(append),
    },
    Rule {
        name: "heads-group",
        what: "queries and keys of one attention are normed and rotated by one launch",
        fuses: true,
        lhs: Lhs::Patterns(&["(attend ?s ?q ?k ?v)"]),
        launches: 2,
        only: None,
        rhs: Rhs::Launch(group),
    },
];

fn one(part: HeadPart) -> FusedOp {
    FusedOp::Heads(Heads { parts: vec![part] })
}

/// The only part of a launch.
fn only_part(w: &Writer) -> Option<HeadPart> {
    match &*w.op {
        FusedOp::Heads(h) if h.parts.len() == 1 => Some(h.parts[0]),
        _ => None,
    }
}

fn norm(site: &mut Site, m: &Match) {
    let (Some(n), Ty::Weight(_, _, head_dim)) = (site.f32_len(m["?x"]), site.ty(m["?g"])) else { return };
    let Some(Attr::Real(eps)) = site.attr(m["?e"]) else { return };
    if head_dim < n && n.is_multiple_of(head_dim) {
        let part = HeadPart { heads: n / head_dim, head_dim, norm: Some(eps), rope: None, out: HeadOut::Store };
        site.form(one(part), None, &[(Role::X(0), m["?x"]), (Role::Norm(0), m["?g"])], &[(Role::Out(0), m.root)]);
    }
}

fn rope(site: &mut Site, m: &Match) {
    let (Some(n), Some(Attr::Rope(spec))) = (site.f32_len(m["?x"]), site.attr(m["?r"])) else { return };
    let head_dim = spec.head_dim;
    let plain = HeadPart { heads: n / head_dim, head_dim, norm: None, rope: Some(spec), out: HeadOut::Store };
    let result = [(Role::Out(0), m.root)];
    site.form(one(plain), None, &[(Role::X(0), m["?x"]), (Role::RopeTable, m["?t"])], &result);
    for w in site.writers(m["?x"]) {
        if let Some(part @ HeadPart { rope: None, out: HeadOut::Store, .. }) = only_part(&w)
            && part.head_dim == head_dim
        {
            site.form(one(HeadPart { rope: Some(spec), ..part }), Some(&w), &[(Role::RopeTable, m["?t"])], &result);
        }
    }
}

fn append(site: &mut Site, m: &Match) {
    let (Some(_), Ty::Cache(_, spec)) = (site.f32_len(m["?x"]), site.ty(m["?c"])) else { return };
    let (heads, head_dim, out) = (spec.heads, spec.head_dim, HeadOut::Append(spec));
    let result = [(Role::Cache(0), m.root)];
    let plain = HeadPart { heads, head_dim, norm: None, rope: None, out };
    site.form(one(plain), None, &[(Role::X(0), m["?x"]), (Role::Cache(0), m["?c"])], &result);
    for w in site.writers(m["?x"]) {
        if let Some(part @ HeadPart { out: HeadOut::Store, .. }) = only_part(&w)
            && (part.heads, part.head_dim) == (heads, head_dim)
        {
            site.form(one(HeadPart { out, ..part }), Some(&w), &[(Role::Cache(0), m["?c"])], &result);
        }
    }
}

fn group(site: &mut Site, m: &Match) {
    let keys = site.writers(m["?k"]);
    for q in site.writers(m["?q"]) {
        let Some(q_part) = only_part(&q) else { continue };
        for k in &keys {
            let Some(k_part) = only_part(k) else { continue };
            let (table, other) = (q.operand(Role::RopeTable), k.operand(Role::RopeTable));
            if table.is_some() && other.is_some() && table != other {
                site.refuse("a launch has one rotation table");
                continue;
            }
            let renamed = [
                (Role::X(1), k.operand(Role::X(0))),
                (Role::Norm(1), k.operand(Role::Norm(0))),
                (Role::Cache(1), k.operand(Role::Cache(0))),
                (Role::RopeTable, table.or(other)),
            ];
            let given: Vec<_> = renamed.into_iter().filter_map(|(role, id)| Some((role, id?))).collect();
            let op = FusedOp::Heads(Heads { parts: vec![q_part, k_part] });
            site.form(op, Some(&q), &given, &[(Role::Out(0), m["?q"]), (Role::Cache(1), m["?k"])]);
        }
    }
}
