//! The two ends of a model: embedding rows in, logits and the next token out.

use super::{Lhs, Match, Rhs, Rule, Site};
use crate::egraph::language::{Lang, OutRole, Ty};
use hipc_ir::dtype::Layout;
use hipc_ir::fused::{Choose, Combine, Embed, Finish, FusedOp, Gemv, Role, Tail};

/// Rules.
pub const RULES: &[Rule] = &[
    Rule {
        name: "embed",
        what: "the embedding is a launch",
        fuses: false,
        lhs: Lhs::Patterns(&["(embed ?w ?t)"]),
        launches: 0,
        only: None,
        rhs: Rhs::Launch(embed),
    },
    Rule {
        name: "choose",
        what: "the choice of the next token is a launch; what it is beyond arg-max is decided as it runs",
        fuses: false,
        lhs: Lhs::Patterns(&["(argmax ?y)"]),
        launches: 0,
        only: None,
        rhs: Rhs::Launch(choose),
    },
    Rule {
        name: "head-partials",
        what: "the product that makes the logits finds the largest of each workgroup",
        fuses: true,
        lhs: Lhs::Patterns(&["(argmax ?y)"]),
        launches: 1,
        only: None,
        rhs: Rhs::Launch(head),
    },
];

fn embed(site: &mut Site, m: &Match) {
    if let Ty::Weight(dtype, vocab, n) = site.ty(m["?w"]) {
        let op = FusedOp::Embed(Embed { vocab, n, dtype, layout: Layout::Gguf, finish: Finish::RAW });
        site.form(op, None, &[(Role::Tokens, m["?t"]), (Role::Weight(0), m["?w"])], &[(Role::Raw, m.root)]);
    }
}

fn choose(site: &mut Site, m: &Match) {
    if let Some(n) = site.f32_len(m["?y"]) {
        let op = FusedOp::Choose(Choose { n, partials: false, advance: false });
        site.form(op, None, &[(Role::Logits, m["?y"])], &[(Role::Ids, m.root)]);
    }
}

fn head(site: &mut Site, m: &Match) {
    for w in site.writers(m["?y"]) {
        let FusedOp::Gemv(g) = &*w.op else { continue };
        if !matches!(g.tail, Tail::Vector { combine: Combine::One, residual: false, finish: Finish::RAW }) {
            continue;
        }
        let n = g.segments[0].rows;
        let head = FusedOp::Gemv(Gemv { tail: Tail::Head, ..g.clone() });
        site.form(head, Some(&w), &[], &[(Role::Logits, m["?y"])]);
        for head in site.writers(m["?y"]).into_iter().filter(|h| h.role == Role::Logits) {
            let partials = site.egraph.add(Lang::Out(OutRole(Role::Partials), [head.launch]));
            let op = FusedOp::Choose(Choose { n, partials: true, advance: false });
            site.form(op, Some(&head), &[(Role::Partials, partials), (Role::Logits, m["?y"])], &[(Role::Ids, m.root)]);
        }
    }
}
