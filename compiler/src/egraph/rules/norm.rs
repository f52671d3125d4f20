//! Deferred normalisation: a scalar per token moves from the norm towards the end of the products.

use super::{Lhs, Match, Rhs, Rule};
use crate::egraph::language::{EGraph, Ty};

fn always(_: &EGraph, _: &Match) -> bool {
    true
}

/// The gain is as long as the vector: one scalar for all of it. A norm per head has one per head and can't be deferred.
fn whole_vector(egraph: &EGraph, m: &Match) -> bool {
    matches!((egraph[m["?x"]].data, egraph[m["?g"]].data), (Ty::F32(n), Ty::Weight(_, _, cols)) if n == cols)
}

/// Rules.
pub const RULES: &[Rule] = &[
    Rule {
        name: "norm-defer",
        what: "rmsnorm(x, g) = r · (x ⊙ g)",
        fuses: false,
        lhs: Lhs::Patterns(&["(norm ?e ?x ?g)"]),
        launches: 0,
        only: None,
        rhs: Rhs::Term("(scale (rms ?e (ssq ?x)) (gain ?x ?g))", whole_vector),
    },
    Rule {
        name: "scale-quantize",
        what: "q8(r · v) = r · q8(v), r > 0",
        fuses: false,
        lhs: Lhs::Patterns(&["(quantize (scale ?r ?v))"]),
        launches: 0,
        only: None,
        rhs: Rhs::Term("(scale ?r (quantize ?v))", always),
    },
    Rule {
        name: "scale-matvec",
        what: "W · (r · v) = r · (W · v)",
        fuses: false,
        lhs: Lhs::Patterns(&["(matvec ?w (scale ?r ?v))"]),
        launches: 0,
        only: None,
        rhs: Rhs::Term("(scale ?r (matvec ?w ?v))", always),
    },
    Rule {
        name: "scale-rope",
        what: "rope(r · q) = r · rope(q)",
        fuses: false,
        lhs: Lhs::Patterns(&["(rope ?s ?t (scale ?r ?v))"]),
        launches: 0,
        only: None,
        rhs: Rhs::Term("(scale ?r (rope ?s ?t ?v))", always),
    },
];
