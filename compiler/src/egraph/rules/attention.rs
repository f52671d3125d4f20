//! Attention, and the work on queries and the new key that can be done inside its launch when the program has one token.

use super::{Lhs, Match, Rhs, Rule, Site};
use crate::egraph::language::{Attr, Lang, Ty};
use egg::Id;
use hipc_ir::Real;
use hipc_ir::fused::{Attend, Finish, FusedOp, ProgramKind, QkPrologue, Role};

/// Rules.
pub const RULES: &[Rule] = &[
    Rule {
        name: "attend",
        what: "attention is a launch",
        fuses: false,
        lhs: Lhs::Patterns(&["(attend ?s ?q ?k ?v)"]),
        launches: 0,
        only: None,
        rhs: Rhs::Launch(plain),
    },
    Rule {
        name: "attend-append",
        what: "attention appends the new key itself",
        fuses: true,
        lhs: Lhs::Patterns(&["(attend ?s ?q (append ?c ?k) ?v)"]),
        launches: 0,
        only: Some(ProgramKind::Decode),
        rhs: Rhs::Launch(append),
    },
    Rule {
        name: "attend-rope",
        what: "attention rotates the queries and the new key",
        fuses: true,
        lhs: Lhs::Patterns(&["(attend ?s (rope ?r ?t ?q) (append ?c (rope ?r ?t ?k)) ?v)"]),
        launches: 0,
        only: Some(ProgramKind::Decode),
        rhs: Rhs::Launch(rope),
    },
    Rule {
        name: "attend-norm",
        what: "attention norms the queries and the new key",
        fuses: true,
        lhs: Lhs::Patterns(&["(attend ?s ?q ?k ?v)"]),
        launches: 3,
        only: Some(ProgramKind::Decode),
        rhs: Rhs::Launch(norm),
    },
];

fn op(site: &Site, m: &Match, prologue: Option<QkPrologue>) -> Option<FusedOp> {
    let (Some(Attr::Attend(heads, scale)), Ty::Cache(_, cache)) = (site.attr(m["?s"]), site.ty(m["?v"])) else {
        return None;
    };
    Some(FusedOp::Attend(Attend { heads, cache, scale, prologue, finish: Finish::RAW }))
}

fn plain(site: &mut Site, m: &Match) {
    if let Some(op) = op(site, m, None) {
        let given = [(Role::Q, m["?q"]), (Role::CacheK, m["?k"]), (Role::CacheV, m["?v"])];
        site.form(op, None, &given, &[(Role::Raw, m.root)]);
    }
}

/// The new version of the K cache, as the pattern has matched it.
fn appended(site: &mut Site, m: &Match, key: Id) -> Id {
    site.egraph.add(Lang::Append([m["?c"], key]))
}

fn append(site: &mut Site, m: &Match) {
    if let Some(op) = op(site, m, Some(QkPrologue { norm: None, rope: None })) {
        let cache = appended(site, m, m["?k"]);
        let given = [(Role::Q, m["?q"]), (Role::K, m["?k"]), (Role::CacheK, m["?c"]), (Role::CacheV, m["?v"])];
        site.form(op, None, &given, &[(Role::Raw, m.root), (Role::CacheK, cache)]);
    }
}

fn rope(site: &mut Site, m: &Match) {
    let Some(Attr::Rope(spec)) = site.attr(m["?r"]) else { return };
    if let Some(op) = op(site, m, Some(QkPrologue { norm: None, rope: Some(spec) })) {
        let key = site.egraph.add(Lang::Rope([m["?r"], m["?t"], m["?k"]]));
        let cache = appended(site, m, key);
        let given = [
            (Role::Q, m["?q"]),
            (Role::K, m["?k"]),
            (Role::RopeTable, m["?t"]),
            (Role::CacheK, m["?c"]),
            (Role::CacheV, m["?v"]),
        ];
        site.form(op, None, &given, &[(Role::Raw, m.root), (Role::CacheK, cache)]);
    }
}

/// Norms of a class per head: epsilon, vector, gain.
fn norms(site: &Site, class: Id, head_dim: u32) -> Vec<(Real, Id, Id)> {
    let mut found = Vec::new();
    for node in &site.egraph[class].nodes {
        if let Lang::Norm([e, x, g]) = node
            && let (Some(Attr::Real(eps)), Ty::Weight(_, _, cols)) = (site.attr(*e), site.ty(*g))
            && cols == head_dim
        {
            found.push((eps, *x, *g));
        }
    }
    found
}

/// Extends attention that takes a new key by the norms of what it takes.
fn norm(site: &mut Site, m: &Match) {
    for w in site.writers(m.root) {
        let FusedOp::Attend(a) = &*w.op else { continue };
        let (Some(QkPrologue { norm: None, rope }), Finish::RAW) = (a.prologue, a.finish) else { continue };
        let (Some(q), Some(k)) = (w.operand(Role::Q), w.operand(Role::K)) else { continue };
        for (eps, q, q_gain) in norms(site, q, a.cache.head_dim) {
            for (k_eps, k, k_gain) in norms(site, k, a.cache.head_dim) {
                if k_eps != eps {
                    site.refuse("the norms of queries and keys differ in epsilon");
                    continue;
                }
                let op = FusedOp::Attend(Attend { prologue: Some(QkPrologue { norm: Some(eps), rope }), ..a.clone() });
                let given = [(Role::Q, q), (Role::K, k), (Role::QNorm, q_gain), (Role::KNorm, k_gain)];
                site.form(op, Some(&w), &given, &[]);
            }
        }
    }
}
