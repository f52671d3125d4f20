//! The plain form of everything element-wise: a launch of its own. These make every graph executable; the others make it fast.

use super::{Lhs, Match, Rhs, Rule, Site};
use crate::egraph::language::{Attr, Ty};
use egg::Id;
use hipc_ir::fused::{Deferred, Finish, FusedOp, Role, Row, RowExpr};

/// Rules.
pub const RULES: &[Rule] = &[
    Rule {
        name: "row-add",
        what: "a sum is a launch",
        fuses: false,
        lhs: Lhs::Patterns(&["(add ?x ?y)"]),
        launches: 0,
        only: None,
        rhs: Rhs::Launch(|site, m| row(site, m, RowExpr::Add, &[(Role::Y, m["?y"])])),
    },
    Rule {
        name: "row-mul",
        what: "a product of vectors is a launch",
        fuses: false,
        lhs: Lhs::Patterns(&["(mul ?x ?y)"]),
        launches: 0,
        only: None,
        rhs: Rhs::Launch(|site, m| row(site, m, RowExpr::Mul, &[(Role::Y, m["?y"])])),
    },
    Rule {
        name: "row-act",
        what: "an activation is a launch",
        fuses: false,
        lhs: Lhs::Patterns(&["(act ?a ?x)"]),
        launches: 0,
        only: None,
        rhs: Rhs::Launch(|site, m| {
            if let Some(Attr::Act(act)) = site.attr(m["?a"]) {
                row(site, m, RowExpr::Act(act), &[]);
            }
        }),
    },
    Rule {
        name: "row-gated",
        what: "act(x) ⊙ y is a launch",
        fuses: false,
        lhs: Lhs::Patterns(&["(mul (act ?a ?x) ?y)"]),
        launches: 0,
        only: None,
        rhs: Rhs::Launch(|site, m| {
            if let Some(Attr::Act(act)) = site.attr(m["?a"]) {
                row(site, m, RowExpr::Gated(act), &[(Role::Y, m["?y"])]);
            }
        }),
    },
    Rule {
        name: "row-bias",
        what: "a bias is a launch",
        fuses: false,
        lhs: Lhs::Patterns(&["(bias ?x ?b)"]),
        launches: 0,
        only: None,
        rhs: Rhs::Launch(|site, m| row(site, m, RowExpr::Bias, &[(Role::Bias(0), m["?b"])])),
    },
    Rule {
        name: "row-norm",
        what: "a norm is a launch",
        fuses: false,
        lhs: Lhs::Patterns(&["(norm ?e ?x ?g)"]),
        launches: 0,
        only: None,
        rhs: Rhs::Launch(|site, m| {
            if let (Some(Attr::Real(eps)), Ty::Weight(_, _, group)) = (site.attr(m["?e"]), site.ty(m["?g"])) {
                row(site, m, RowExpr::Norm { eps, group }, &[(Role::Norm(0), m["?g"])]);
            }
        }),
    },
    Rule {
        name: "row-scale",
        what: "a deferred norm is applied by a launch",
        fuses: false,
        lhs: Lhs::Patterns(&["(scale (rms ?e ?s) ?x)"]),
        launches: 0,
        only: None,
        rhs: Rhs::Launch(|site, m| {
            if let (Some(Attr::Real(eps)), Ty::Ssq(n)) = (site.attr(m["?e"]), site.ty(m["?s"])) {
                row(site, m, RowExpr::Scale(Deferred { n, eps }), &[(Role::Ssq, m["?s"])]);
            }
        }),
    },
];

/// A launch of `expr` over `?x`.
fn row(site: &mut Site, m: &Match, expr: RowExpr, others: &[(Role, Id)]) {
    let x = m["?x"];
    if let Some(n) = site.f32_len(x) {
        let op = FusedOp::Row(Row { n, expr, residual: false, finish: Finish::RAW });
        let given: Vec<_> = std::iter::once((Role::X(0), x)).chain(others.iter().copied()).collect();
        site.form(op, None, &given, &[(Role::Raw, m.root)]);
    }
}
