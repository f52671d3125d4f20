//! What a plan declares, by itself: weights, tables, caches, programs; buffers' places and sizes. What lives all the time
//! shares memory with nothing.

use super::broken;
use super::error::CheckError;
use super::ops::Q8_BLOCK;
use hipc_ir::fused::ProgramKind;
use hipc_ir::graph::WeightDecl;
use hipc_ir::plan::{BufferDecl, BufferKind, Plan, Program, Space};
use hipc_ir::{DType, Layout};
use std::collections::BTreeSet;
use std::fmt::Display;

/// Bytes of the largest allocation: virtual addresses have 48 bits, and a process has half of them.
const MOST_BYTES: u64 = 1 << 47;

/// Broken rules of all declarations.
pub(super) fn faults(plan: &Plan) -> Vec<CheckError> {
    let mut faults = model(plan);
    faults.extend(programs(plan));
    for (buffer, decl) in &plan.buffers {
        let rules = [
            (decl.space == home(decl.kind), "is in an allocation where its kind does not belong"),
            (decl.offset.is_multiple_of(Plan::ALIGN), "the offset is not a multiple of the alignment"),
            (end(decl).is_some_and(|end| end <= MOST_BYTES), "ends beyond what can be addressed"),
            (is_vector(decl.kind), "an int8 vector is whole blocks of 32"),
            (has_blocks(plan, decl.kind), "only blocks have quants and scales to split"),
        ];
        faults.extend(broken(&rules).map(|rule| CheckError::Buffer { buffer, kind: decl.kind, rule }));
        if let Some(needs) = filled_bytes(plan, decl.kind).filter(|&needs| needs != decl.bytes) {
            faults.push(CheckError::Bytes { buffer, kind: decl.kind, has: decl.bytes, needs });
        }
    }
    faults.extend(duplicates(plan));
    faults.extend(overlaps(plan));
    faults
}

/// The allocation that a kind of contents lives in.
fn home(kind: BufferKind) -> Space {
    match kind {
        BufferKind::Weight(..) => Space::Weights,
        BufferKind::Cache(_) => Space::Cache,
        BufferKind::Rope(_)
        | BufferKind::State
        | BufferKind::Tokens
        | BufferKind::Sampling
        | BufferKind::Draws
        | BufferKind::Logits
        | BufferKind::Ids
        | BufferKind::Counters => Space::Persistent,
        BufferKind::Outbox => Space::Pinned,
        BufferKind::F32(_)
        | BufferKind::Q8(_)
        | BufferKind::Ssq(_)
        | BufferKind::Partials(_)
        | BufferKind::Scratch
        | BufferKind::Staging => Space::Arena,
    }
}

fn end(decl: &BufferDecl) -> Option<u64> {
    decl.offset.checked_add(decl.bytes)
}

/// No kernel says what an int8 block is; it is what all of them are made for.
fn is_vector(kind: BufferKind) -> bool {
    match kind {
        BufferKind::Q8(layout) => layout.block == Q8_BLOCK && layout.n > 0 && layout.n.is_multiple_of(Q8_BLOCK),
        _ => true,
    }
}

fn has_blocks(plan: &Plan, kind: BufferKind) -> bool {
    match kind {
        BufferKind::Weight(w, Layout::Split) => plan.weights[w].dtype.block_len() > 1,
        _ => true,
    }
}

fn product(factors: &[u32]) -> Option<u64> {
    factors.iter().try_fold(1u64, |p, &f| p.checked_mul(f.into()))
}

/// Bytes of a tensor: its blocks, and what makes each row of split ones a multiple of 16 bytes.
pub(super) fn weight_bytes(w: &WeightDecl, layout: Layout) -> Option<u64> {
    let row = product(&[w.cols / w.dtype.block_len(), w.dtype.block_bytes()])?;
    let padding = if layout == Layout::Split { row.wrapping_neg() % 16 } else { 0 };
    u64::from(w.rows).checked_mul(row.checked_add(padding)?)
}

/// Exact bytes of what the runtime fills in; `None` for what launches write. `u64::MAX` is more than there can be.
fn filled_bytes(plan: &Plan, kind: BufferKind) -> Option<u64> {
    let bytes = match kind {
        BufferKind::Weight(w, layout) => weight_bytes(&plan.weights[w], layout),
        // Pairs of f32 per position.
        BufferKind::Rope(r) => product(&[plan.ctx, plan.ropes[r].dims / 2, 2 * 4]),
        BufferKind::Cache(c) => product(&[plan.caches[c].heads, plan.ctx, plan.caches[c].head_dim, plan.kv.bytes()]),
        BufferKind::State => Some(4 * 4),
        // One more than positions: the id behind the last.
        BufferKind::Tokens => Some(4 * (u64::from(plan.ctx) + 1)),
        BufferKind::Sampling => Some(64),
        BufferKind::Draws | BufferKind::Outbox => Some(8 * (u64::from(plan.ctx) + 1)),
        _ => return None,
    };
    Some(bytes.unwrap_or(u64::MAX))
}

fn declaration(entity: &dyn Display, rules: &[(bool, &'static str)], faults: &mut Vec<CheckError>) {
    faults.extend(broken(rules).map(|rule| CheckError::Declaration { entity: entity.to_string(), rule }));
}

fn model(plan: &Plan) -> Vec<CheckError> {
    let mut faults = Vec::new();
    declaration(&"plan", &[(plan.ctx > 0, "there are no positions")], &mut faults);
    for (weight, decl) in &plan.weights {
        let blocks = decl.cols > 0 && decl.cols.is_multiple_of(decl.dtype.block_len());
        let rules = [
            (decl.rows > 0 && blocks, "rows are whole blocks"),
            (weight_bytes(decl, Layout::Gguf).is_some(), "is larger than 64 bits"),
        ];
        declaration(&weight, &rules, &mut faults);
    }
    for (rope, decl) in &plan.ropes {
        let factors = decl.factors.map(|w| &plan.weights[w]);
        let fit = factors.is_none_or(|w| w.dtype == DType::F32 && product(&[w.rows, w.cols]) == Some(u64::from(decl.dims / 2)));
        let rules = [(decl.dims > 0 && decl.dims.is_multiple_of(2), "the rotated part is pairs"), (fit, "a divisor per pair")];
        declaration(&rope, &rules, &mut faults);
    }
    for (cache, decl) in &plan.caches {
        declaration(&cache, &[(decl.heads > 0 && decl.head_dim > 0, "is empty")], &mut faults);
    }
    let own = [
        (plan.buffers[plan.state].kind == BufferKind::State, "the state's buffer holds something else"),
        (plan.buffers[plan.tokens].kind == BufferKind::Tokens, "the token list's buffer holds something else"),
        (plan.buffers[plan.outbox].kind == BufferKind::Outbox, "the outbox's buffer holds something else"),
        (plan.buffers[plan.sampling].kind == BufferKind::Sampling, "the sampling's buffer holds something else"),
        (plan.buffers[plan.draws].kind == BufferKind::Draws, "the draws' buffer holds something else"),
    ];
    declaration(&"plan", &own, &mut faults);
    faults
}

fn programs(plan: &Plan) -> Vec<CheckError> {
    let mut faults = Vec::new();
    let kinds: Vec<ProgramKind> = plan.programs.iter().map(|p| p.kind).collect();
    let order = matches!(kinds[..], [ProgramKind::Decode] | [ProgramKind::Decode, ProgramKind::Prompt]);
    declaration(&"plan", &[(order, "the programs are decode, then prompt")], &mut faults);
    for (i, &Program { kind, tokens, logits, ids, .. }) in plan.programs.iter().enumerate() {
        let rules = [
            (tokens > 0 && tokens <= plan.ctx, "a step has tokens, and no more than there are positions"),
            (kind != ProgramKind::Decode || tokens == 1, "a decode step is one token"),
            (plan.buffers[logits].kind == BufferKind::Logits, "the logits' buffer holds something else"),
            (plan.buffers[ids].kind == BufferKind::Ids, "the ids' buffer holds something else"),
        ];
        declaration(&format!("program {i}"), &rules, &mut faults);
    }
    faults
}

/// The runtime fills in one of each; the programs share the caches.
fn duplicates(plan: &Plan) -> impl Iterator<Item = CheckError> {
    let mut seen: Vec<BufferKind> = Vec::new();
    plan.buffers.iter().filter_map(move |(buffer, decl)| {
        // In whatever layout.
        let kind = match decl.kind {
            BufferKind::Weight(w, _) => BufferKind::Weight(w, Layout::Gguf),
            kind => kind,
        };
        filled_bytes(plan, kind)?;
        if seen.contains(&kind) {
            return Some(CheckError::Buffer { buffer, kind: decl.kind, rule: "holds what another buffer holds already" });
        }
        seen.push(kind);
        None
    })
}

/// Overlapping buffers of the allocations where everything lives all the time.
fn overlaps(plan: &Plan) -> Vec<CheckError> {
    let mut faults = Vec::new();
    for space in [Space::Weights, Space::Cache, Space::Persistent, Space::Pinned] {
        let mut ranges: BTreeSet<_> = BTreeSet::new();
        for (buffer, decl) in plan.buffers.iter().filter(|(_, d)| d.space == space && d.bytes > 0) {
            ranges.insert((decl.offset, end(decl).unwrap_or(u64::MAX), buffer));
        }
        // The buffer that reaches furthest of those that begin before.
        let mut furthest = None;
        for (start, end, buffer) in ranges {
            if let Some((to, other)) = furthest
                && start < to
            {
                faults.push(CheckError::Overlap { a: other, b: buffer, space });
            }
            if furthest.is_none_or(|(to, _)| end > to) {
                furthest = Some((end, buffer));
            }
        }
    }
    faults
}
