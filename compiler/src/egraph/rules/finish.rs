//! What a launch writes of the vector it has computed: the vector, its residual sum, its form for the next product, and partial sums
//! of its squares for the next norm. Each rule extends the one launch that writes the vector, so a producer is never duplicated.

use super::{Lhs, Match, Rhs, Rule, Site, Writer};
use hipc_ir::fused::{Finish, FusedOp, Gemv, Role, Row, RowExpr, Tail};

/// Rules.
pub const RULES: &[Rule] = &[
    Rule {
        name: "residual",
        what: "the residual is added by the launch that writes the other summand",
        fuses: true,
        lhs: Lhs::Patterns(&["(add ?y ?r)", "(add ?r ?y)"]),
        launches: 1,
        only: None,
        rhs: Rhs::Launch(residual),
    },
    Rule {
        name: "finish-ssq",
        what: "the producer writes partial sums of squares",
        fuses: true,
        lhs: Lhs::Patterns(&["(ssq ?y)"]),
        launches: 1,
        only: None,
        rhs: Rhs::Launch(ssq),
    },
    Rule {
        name: "finish-gain",
        what: "the producer applies the next norm's gain",
        fuses: true,
        lhs: Lhs::Patterns(&["(gain ?y ?g)"]),
        launches: 1,
        only: None,
        rhs: Rhs::Launch(gain),
    },
    Rule {
        name: "finish-quantize",
        what: "the producer writes int8 blocks",
        fuses: true,
        lhs: Lhs::Patterns(&["(quantize ?y)"]),
        launches: 1,
        only: None,
        rhs: Rhs::Launch(quantize),
    },
    Rule {
        name: "copy",
        what: "a launch of its own writes other forms of a vector",
        fuses: false,
        lhs: Lhs::Patterns(&["(ssq ?y)", "(gain ?y ?g)", "(quantize ?y)"]),
        launches: 0,
        only: None,
        rhs: Rhs::Launch(copy),
    },
];

/// The finish of a launch.
pub(crate) fn finish_of(op: &FusedOp) -> Option<Finish> {
    match op {
        FusedOp::Embed(e) => Some(e.finish),
        FusedOp::Row(r) => Some(r.finish),
        FusedOp::Attend(a) => Some(a.finish),
        FusedOp::Gemv(Gemv { tail: Tail::Vector { finish, .. }, .. }) => Some(*finish),
        _ => None,
    }
}

/// The op without the results that are `dropped`. Only a finish can leave results out.
pub(crate) fn without_results(op: &FusedOp, dropped: impl Fn(Role) -> bool) -> FusedOp {
    let Some(f) = finish_of(op) else { return op.clone() };
    let mut kept = Finish {
        raw: f.raw && !dropped(Role::Raw),
        gain: false,
        f32: f.f32 && !dropped(Role::Gained),
        q8: f.q8 && !dropped(Role::Quantized),
        ssq: f.ssq && !dropped(Role::SsqOut),
    };
    kept.gain = f.gain && (kept.f32 || kept.q8);
    with_finish(op, kept)
}

/// The op with another finish.
fn with_finish(op: &FusedOp, new: Finish) -> FusedOp {
    let mut op = op.clone();
    match &mut op {
        FusedOp::Embed(e) => e.finish = new,
        FusedOp::Row(r) => r.finish = new,
        FusedOp::Attend(a) => a.finish = new,
        FusedOp::Gemv(Gemv { tail: Tail::Vector { finish, .. }, .. }) => *finish = new,
        _ => {}
    }
    op
}

fn residual(site: &mut Site, m: &Match) {
    let result = [(Role::Raw, m.root)];
    for w in site.writers(m["?y"]) {
        let op = match &*w.op {
            FusedOp::Gemv(g) => match g.tail {
                Tail::Vector { combine, residual: false, finish: Finish::RAW } => {
                    let tail = Tail::Vector { combine, residual: true, finish: Finish::RAW };
                    FusedOp::Gemv(Gemv { tail, ..g.clone() })
                }
                _ => continue,
            },
            FusedOp::Row(r) if !r.residual && r.finish == Finish::RAW && r.expr != RowExpr::Copy => {
                FusedOp::Row(Row { residual: true, ..r.clone() })
            }
            _ => continue,
        };
        site.form(op, Some(&w), &[(Role::Residual, m["?r"])], &result);
    }
}

/// Launches that write a vector and can still write other forms of it.
fn unfinished(site: &Site, m: &Match) -> Vec<(Writer, Finish)> {
    let writers = site.writers(m["?y"]).into_iter();
    writers.filter_map(|w| finish_of(&w.op).map(|f| (w, f))).collect()
}

fn ssq(site: &mut Site, m: &Match) {
    for (w, f) in unfinished(site, m) {
        if w.role != Role::Raw || f.ssq {
            continue;
        }
        if matches!(*w.op, FusedOp::Attend(_)) {
            site.refuse("attention writes no sums of squares");
            continue;
        }
        site.form(with_finish(&w.op, Finish { ssq: true, ..f }), Some(&w), &[], &[(Role::SsqOut, m.root)]);
    }
}

fn gain(site: &mut Site, m: &Match) {
    for (w, f) in unfinished(site, m) {
        if w.role != Role::Raw || f.gain || f.q8 {
            continue;
        }
        if matches!(*w.op, FusedOp::Attend(_)) {
            site.refuse("attention applies no gain");
            continue;
        }
        let op = with_finish(&w.op, Finish { gain: true, f32: true, ..f });
        site.form(op, Some(&w), &[(Role::Gain, m["?g"])], &[(Role::Gained, m.root)]);
    }
}

fn quantize(site: &mut Site, m: &Match) {
    for (w, f) in unfinished(site, m) {
        let of_z = if f.gain { Role::Gained } else { Role::Raw };
        if w.role != of_z || f.q8 {
            continue;
        }
        if let FusedOp::Attend(a) = &*w.op
            && !(a.heads / a.cache.heads * a.cache.head_dim).is_multiple_of(32)
        {
            site.refuse("the query heads of a KV head aren't whole int8 blocks");
            continue;
        }
        site.form(with_finish(&w.op, Finish { q8: true, ..f }), Some(&w), &[], &[(Role::Quantized, m.root)]);
    }
}

/// The vector itself counts as written by the copy, so that the finish rules extend a copy as they extend any launch; extraction
/// knows that a launch doesn't give what it reads.
fn copy(site: &mut Site, m: &Match) {
    let y = m["?y"];
    if let Some(n) = site.f32_len(y) {
        let row = Row { n, expr: RowExpr::Copy, residual: false, finish: Finish::RAW };
        site.form(FusedOp::Row(row), None, &[(Role::X(0), y)], &[(Role::Raw, y)]);
    }
}
