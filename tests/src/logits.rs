//! Rows of logits, texts before them and ways to choose: such as a model and its users make, and such as they shouldn't.

use crate::launch_bench::{Case, best_of_tiles};
use hipc_ir::fused::{FusedOp, Role};
use hipc_ir::plan::SamplingState;
use hipfire_run::verify::inputs::{Random, SAMPLED};

/// Rows that a model makes, and rows that it shouldn't.
pub const ROWS: [&str; 10] = ["normal", "wide", "ties", "equal", "few", "two values", "last", "none", "nan", "infinite"];

/// A row of `n` logits of a kind of [`ROWS`].
pub fn row(kind: &str, n: usize, random: &mut Random) -> Vec<f32> {
    let few: Vec<usize> = (0..5).map(|_| random.below(n as u32) as usize).collect();
    (0..n)
        .map(|i| match kind {
            "normal" => 3.0 * random.normal(),
            "wide" => 60.0 * random.normal(),
            "ties" => (4.0 * random.normal()).round() / 2.0,
            "equal" => -1.25,
            "few" if few.contains(&i) => random.normal(),
            "two values" => [-0.0, 0.0, 1.5][random.below(3) as usize],
            "nan" if few.contains(&i) => f32::NAN,
            "last" if i + 1 == n => 60.0,
            "infinite" if few.contains(&i) => f32::INFINITY,
            "few" | "none" => f32::NEG_INFINITY,
            _ => random.normal(),
        })
        .collect()
}

/// Tokens of the text so far: some at random, some that the logits favour.
pub fn text(len: usize, row: &[f32], random: &mut Random) -> Vec<u32> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
    (0..len)
        .map(|_| match random.below(3) {
            0 => random.below(row.len() as u32),
            _ => order[random.below(row.len().min(30) as u32) as usize] as u32,
        })
        .collect()
}

/// Writes a part of an operand.
///
/// # Panics
/// If the kernel has no such operand.
pub fn set(case: &mut Case, role: Role, at: usize, bytes: &[u8]) {
    let place = case.spec.op.params().iter().position(|p| p.role == role).unwrap_or_else(|| panic!("{role:?}"));
    case.operands[place][at..at + bytes.len()].copy_from_slice(bytes);
}

/// Ids so far apart share their low bits, by which the kernel looks for a text's ids first (`Penalty::Filter` in `sample.h`).
const ALIKE: u32 = 4096;

/// Sets the logits of all tokens, and the partials that belong to them, if the kernel takes such.
///
/// # Panics
/// If the kernel chooses nothing.
pub fn set_logits(case: &mut Case, logits: &[f32]) {
    let FusedOp::Choose(op) = case.spec.op else { panic!("{} takes no logits", case.spec.name) };
    set(case, Role::Logits, 0, bytemuck::cast_slice(logits));
    if op.partials {
        let rows = logits.chunks_exact(op.n as usize);
        let partials: Vec<u8> = rows.flat_map(|row| best_of_tiles(row, case.spec.geometry.tile as usize)).collect();
        set(case, Role::Partials, 0, &partials);
    }
}

/// Cases of a kernel that chooses: greedy and drawn, with and without a penalty, from many candidates and from few, among ties.
///
/// # Panics
/// If the kernel chooses nothing.
pub fn choices(case: &Case, ctx: u32, seed: u64) -> Vec<Case> {
    let FusedOp::Choose(op) = case.spec.op else { panic!("{} chooses nothing", case.spec.name) };
    let most = case.spec.most_candidates();
    let greedy = SamplingState::default();
    let drawn = |temperature, top_k: u32, top_p, min_p| SamplingState {
        temperature,
        top_k: top_k.min(most),
        top_p,
        min_p,
        ..SamplingState::default()
    };
    let penalty = |state, repeat_penalty, repeat_last_n| SamplingState { repeat_penalty, repeat_last_n, ..state };
    let kinds = [
        ("normal", SAMPLED),
        ("normal", greedy),
        ("ties", greedy),
        ("ties", penalty(greedy, 8.0, 64)),
        ("ties", penalty(drawn(0.8, 40, 0.95, 0.0), 1.3, 64)),
        ("equal", drawn(2.0, u32::MAX, 1.0, 0.05)),
        ("wide", penalty(drawn(0.3, 2, 0.9, 0.0), 0.7, 200)),
        ("few", penalty(drawn(1.0, u32::MAX, 1.0, 0.0), 8.0, 200)),
        ("two values", penalty(drawn(1.5, 9, 0.5, 0.0), 1.3, 3)),
        ("none", greedy),
        ("last", greedy),
        // Nearly as likely as each other: who is missing among the candidates changes the draw.
        ("normal", drawn(50.0, 20, 1.0, 0.0)),
        ("normal", drawn(50.0, 40, 1.0, 0.0)),
        ("ties", drawn(50.0, u32::MAX, 1.0, 0.0)),
    ];
    let of = |(i, (kind, sampling)): (u64, (&str, SamplingState))| {
        let mut random = Random::fork(seed, i);
        let mut case = case.clone();
        let mut rows: Vec<Vec<f32>> = (0..case.tokens).map(|_| row(kind, op.n as usize, &mut random)).collect();
        let mut ids = text(ctx as usize + 1, &rows[0], &mut random);
        if let Some(most) = op.n.checked_sub(ALIKE).filter(|_| kind == "ties") {
            // The likeliest isn't in the text, where the penalty would find it, but its like is; it follows behind the text's end.
            let id = random.below(most);
            rows.iter_mut().for_each(|row| row[(id + ALIKE) as usize] = row.iter().fold(1.0, |a: f32, &b| a.max(b)));
            ids.iter_mut().filter(|i| **i == id + ALIKE).for_each(|i| *i = id);
            ids.splice(ctx as usize - 1.., [id, id + ALIKE]);
        }
        set_logits(&mut case, &rows.concat());
        set(&mut case, Role::Tokens, 0, bytemuck::cast_slice(&ids));
        set(&mut case, Role::Sampling, 0, &sampling.to_bytes());
        case
    };
    (0..).zip(kinds).map(of).collect()
}
