//! Compares what a device wrote in one launch with the reference on that launch's own inputs.
//!
//! Bounds (noise is NMSE = Σ(x−ref)² / Σref²): vectors made of integer products 1e-10, other vectors 1e-7, copies 0. int8 blocks: scales
//! within 1e-6 relative, all of an operand together and each by itself; a single one may be off by more where f32 can't do better with
//! the block's largest value. A quant may differ by 1 only where the reference lies within 1e-3 of a tie. A value stored as f16 must be
//! the rounding of one that is as near to the exact one. Arg-max equal, or the reference's gap below 1e-5; a draw equal, or
//! the reference's sum of probabilities within 1e-6 of the uniform number, or the edge of what it keeps within 1e-5 of another.
//! NaN where the reference has none, a touched byte outside of the results, or a counter that isn't zero again fails.
//!
//! What f32 can do is computed with every value ([`super::tracked`]): the roundings on its way through the kernel's sums, each 2⁻²⁴ of
//! Σ|terms|. No constant is chosen. Two sums need it: an attention score's, whose absolute error is the relative one of its weight, and
//! that of Q4_K's products less their minimums, which cancel: `d·sc·Σqx − dmin·m·Σx`. Computed in f64 in the kernels, one thing at a
//! time, these remove what is over 1e-6; exp, weighted sums, norms and activations don't (`docs/experiments.md`). In decode there was a
//! third reason, a new key whose f16 is rounded the other way; attention is judged by the key that it stored.

mod rounded;
mod strayed;

pub use strayed::strayed;

use super::choose::Sampled;
use super::{Arg, LaunchError, Witness, exec_exact};
use hipc_ir::fused::{Access, FusedOp, Input, Param, Role, RowExpr, Shape};
use hipc_ir::plan::{KernelSpec, StepState};

/// One result operand compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The operand.
    pub role: Role,
    /// Noise of its values against the reference.
    pub nmse: f64,
    /// Most noise allowed.
    pub bound: f64,
    /// Largest relative distance of an int8 block's scale.
    pub scale: f64,
    /// Largest distance of an int8 block's scale as a part of what it may be off by; at most 1 where it's right.
    pub strain: f64,
    /// Noise of the int8 blocks' scales, at most [`Finding::SCALE`]².
    pub scale_nmse: f64,
    /// Quants and f16 that differ by a tie's rounding, and arg-maxes that differ within the gap; they are left out.
    pub ties: usize,
    /// What is wrong besides noise.
    pub fault: Option<String>,
}

impl Finding {
    /// Most relative distance of an int8 block's scale that needs no reason, and of all scales of an operand together.
    pub const SCALE: f64 = 1e-6;

    /// Whether the operand is right.
    pub fn passes(&self) -> bool {
        let scales = self.strain <= 1.0 && self.scale_nmse <= Self::SCALE.powi(2);
        self.fault.is_none() && self.nmse <= self.bound && scales
    }
}

/// Noise and faults while comparing.
#[derive(Default)]
struct Tally {
    error: f64,
    norm: f64,
    scale_error: f64,
    scale_norm: f64,
    scale: f64,
    strain: f64,
    ties: usize,
    fault: Option<String>,
}

impl Tally {
    fn value(&mut self, index: usize, found: f32, expected: f32) {
        if found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()) {
            self.norm += if expected.is_finite() { f64::from(expected).powi(2) } else { 0.0 };
        } else if !found.is_finite() || !expected.is_finite() {
            self.fail(|| format!("value {index} is {found}, the reference has {expected}"));
        } else {
            self.error += (f64::from(found) - f64::from(expected)).powi(2);
            self.norm += f64::from(expected).powi(2);
        }
    }
    fn fail(&mut self, what: impl FnOnce() -> String) {
        self.fault.get_or_insert_with(what);
    }
}

/// Executes the launch on `before`, its operands' bytes from before it ran, and compares all that it may write with `after`. Both are parallel
/// to [`FusedOp::params`]; of `after` only the written operands are read, the others may be empty.
///
/// # Errors
/// If the operands don't fit the op.
pub fn check(spec: &KernelSpec, state: StepState, before: &[&[u8]], after: &[&[u8]]) -> Result<Vec<Finding>, LaunchError> {
    let params = spec.op.params();
    if before.len() != params.len() || after.len() != params.len() {
        let found = before.len().min(after.len());
        return Err(LaunchError::Count { kernel: spec.name.clone(), expected: params.len(), found });
    }
    let written = |(param, bytes): (&Param, &&[u8])| if param.access == Access::Read { Vec::new() } else { aligned(bytes) };
    let mut copies: Vec<Vec<u64>> = params.iter().zip(before).map(written).collect();
    let mut args = Vec::with_capacity(params.len());
    for ((param, bytes), copy) in params.iter().zip(before).zip(&mut copies) {
        args.push(match param.access {
            Access::Read => Arg::Read(bytes),
            Access::Write | Access::Update => Arg::Write(&mut bytemuck::cast_slice_mut(copy)[..bytes.len()]),
        });
    }
    let keys = params.iter().position(|p| p.role == Role::CacheK && p.access == Access::Update);
    let keys = keys.filter(|&i| after[i].len() == before[i].len()).map(|i| aligned(after[i]));
    let keys = keys.as_ref().map(|copy| bytemuck::cast_slice(copy));
    let mut witness = Witness { keys, ..Witness::default() };
    exec_exact(spec, state, args, &mut witness)?;
    let comparison = Comparison { spec, state, params: &params, before, witness: &witness };
    let mut findings = Vec::new();
    for (i, param) in params.iter().enumerate() {
        if param.access != Access::Read && param.role != Role::Scratch {
            let expected = &bytemuck::cast_slice::<u64, u8>(&copies[i])[..before[i].len()];
            findings.push(comparison.operand(*param, before[i], expected, after[i], &copies));
        }
    }
    Ok(findings)
}

struct Comparison<'a> {
    spec: &'a KernelSpec,
    state: StepState,
    params: &'a [Param],
    before: &'a [&'a [u8]],
    witness: &'a Witness<'a>,
}

impl Comparison<'_> {
    fn operand(&self, param: Param, before: &[u8], expected: &[u8], after: &[u8], copies: &[Vec<u64>]) -> Finding {
        let mut tally = Tally::default();
        if after.len() != expected.len() {
            tally.fail(|| format!("has {} bytes, {} were expected", after.len(), expected.len()));
        } else {
            let (n, from) = (self.state.n.max(0) as usize, self.state.head_from.max(0) as usize);
            match (param.role, param.shape) {
                (Role::Counters, _) => {
                    if after.iter().any(|&b| b != 0) {
                        tally.fail(|| "a counter isn't zero again".into());
                    }
                }
                (Role::Logits, Shape::F32(v)) => floats(&mut tally, expected, after, from * v as usize..n * v as usize),
                (_, Shape::F32(v)) => floats(&mut tally, expected, after, 0..n * v as usize),
                (_, Shape::Ssq) => floats(&mut tally, expected, after, 0..n * self.spec.parts_out() as usize),
                (_, Shape::Q8(v)) => self.quants(&mut tally, v, n, expected, after),
                (_, Shape::Cache(cache)) => self.cache(&mut tally, param.role, cache, before, expected, after),
                (_, Shape::Partials) => self.partials(&mut tally, expected, after, copies),
                (_, Shape::State) => {
                    if after != expected {
                        tally.fail(|| format!("the state is {after:?}, the reference has {expected:?}"));
                    }
                }
                (_, Shape::Weight { .. }) => {
                    if let Some(i) = expected.iter().zip(after).position(|(e, a)| e != a) {
                        tally.fail(|| format!("byte {i} is {:#x}, the reference has {:#x}", after[i], expected[i]));
                    }
                }
                (_, Shape::Ids | Shape::Tokens | Shape::Outbox) => self.ids(&mut tally, param, expected, after),
                _ => tally.fail(|| "isn't an operand that a launch writes".into()),
            }
        }
        let nmse = |error: f64, norm: f64| if error == 0.0 { 0.0 } else { error / norm };
        Finding {
            role: param.role,
            nmse: nmse(tally.error, tally.norm),
            bound: self.bound(param.role),
            scale: tally.scale,
            strain: tally.strain,
            scale_nmse: nmse(tally.scale_error, tally.scale_norm),
            ties: tally.ties,
            fault: tally.fault,
        }
    }

    fn bound(&self, role: Role) -> f64 {
        match (&self.spec.op, role) {
            (FusedOp::Row(r), Role::Raw) if r.expr == RowExpr::Copy && !r.residual => 0.0,
            (FusedOp::Gemv(g), _) if g.input == Input::Q8 => 1e-10,
            _ => 1e-7,
        }
    }

    /// A partial may name another index only if the reference's logits there are as good as equal.
    fn partials(&self, tally: &mut Tally, expected: &[u8], after: &[u8], copies: &[Vec<u64>]) {
        let parts = self.spec.parts_out() as usize;
        let FusedOp::Gemv(op) = &self.spec.op else { return tally.fail(|| "isn't written by a head".into()) };
        let vocab = op.segments.first().map_or(0, |s| s.rows as usize);
        let logits = self
            .params
            .iter()
            .position(|p| p.role == Role::Logits)
            .map_or(&[][..], |i| bytemuck::cast_slice::<u64, f32>(&copies[i]));
        let (e, a) = (expected.as_chunks::<8>().0, after.as_chunks::<8>().0);
        for t in self.state.head_from.max(0) as usize..self.state.n.max(0) as usize {
            for p in t * parts..(t + 1) * parts {
                let ((ev, ei), (av, ai)) = (partial(e[p]), partial(a[p]));
                tally.value(p, av, ev);
                if ei == ai {
                    continue;
                }
                let at = |i: i32| usize::try_from(i).ok().filter(|&i| i < vocab).and_then(|i| logits.get(t * vocab + i)).copied();
                match at(ai) {
                    Some(other) if (ev - other).abs() < 1e-5 => tally.ties += 1,
                    _ => tally.fail(|| format!("token {t}: partial {} names {ai}, the reference {ei}", p % parts)),
                }
            }
        }
    }

    fn ids(&self, tally: &mut Tally, param: Param, expected: &[u8], after: &[u8]) {
        let (e, a) = (entries(param.role, expected), entries(param.role, after));
        let (n, from) = (self.state.n.max(0) as usize, self.state.head_from.max(0) as usize);
        for i in 0..e.len() {
            // Ids before `head_from` and behind the chunk are nobody's; of the token list and the outbox one place may change.
            let token = if param.role == Role::Ids { i } else { (n.max(1)) - 1 };
            if param.role == Role::Ids && !(from..n).contains(&i) {
                continue;
            }
            let ((e, e_generation), (a, generation)) = (e[i], a[i]);
            if generation != e_generation {
                tally.fail(|| format!("id {i} is of generation {generation}, the reference's of {e_generation}"));
            }
            if e == a {
                continue;
            }
            let place = param.role == Role::Ids || i == (self.state.pos + self.state.n) as usize;
            if place
                && token + 1 == n
                && let Some(sampled) = self.sampled()
            {
                match sampled.is_near(a) {
                    true => tally.ties += 1,
                    false => tally.fail(|| format!("id {i} is {a}, the reference draws {e}")),
                }
                continue;
            }
            match (self.score(token, e), self.score(token, a)) {
                (Some(best), Some(other)) if place && (best - other).abs() < 1e-5 => tally.ties += 1,
                _ => tally.fail(|| format!("id {i} is {a}, the reference has {e}")),
            }
        }
    }

    /// What the last token's choice is made from if it is more than the arg-max.
    fn sampled(&self) -> Option<Sampled<'_>> {
        let FusedOp::Choose(op) = &self.spec.op else { return None };
        let operand = |role| self.params.iter().position(|p| p.role == role).map(|i| self.before[i]);
        let (logits, tokens) = (operand(Role::Logits)?, operand(Role::Tokens)?);
        let (n, end) = (op.n as usize, usize::try_from(self.state.pos + self.state.n).ok()?);
        let last = bytemuck::try_cast_slice(logits).ok()?.get(n * (self.state.n - 1) as usize..)?.get(..n)?;
        let tokens = bytemuck::try_cast_slice(tokens).ok()?;
        Sampled::new(self.spec, last, tokens, end, operand(Role::Sampling)?, operand(Role::Draws)?)
    }

    /// The value by which an arg-max launch judged this id.
    fn score(&self, token: usize, id: i32) -> Option<f32> {
        let FusedOp::Choose(op) = &self.spec.op else { return None };
        let input = self.params.iter().position(|p| matches!(p.role, Role::Partials | Role::Logits))?;
        let bytes = self.before[input];
        if op.partials {
            let parts = self.spec.geometry.parts_in as usize;
            let row = bytes.as_chunks::<8>().0.get(token * parts..(token + 1) * parts)?;
            row.iter().map(|&b| partial(b)).find(|&(_, i)| i == id).map(|(v, _)| v)
        } else {
            let id = usize::try_from(id).ok().filter(|&id| id < op.n as usize)?;
            bytes.as_chunks().0.get(token * op.n as usize + id).map(|b| f32::from_le_bytes(*b))
        }
    }
}

/// A copy that is aligned for every type.
fn aligned(bytes: &[u8]) -> Vec<u64> {
    let mut copy = vec![0u64; bytes.len().div_ceil(8)];
    bytemuck::cast_slice_mut(&mut copy)[..bytes.len()].copy_from_slice(bytes);
    copy
}

fn floats(tally: &mut Tally, expected: &[u8], after: &[u8], range: std::ops::Range<usize>) {
    let (e, a) = (expected.as_chunks().0, after.as_chunks().0);
    for i in range {
        if let (Some(&e), Some(&a)) = (e.get(i), a.get(i)) {
            tally.value(i, f32::from_le_bytes(a), f32::from_le_bytes(e));
        }
    }
}

/// Ids with their generations, which only the outbox has.
fn entries(role: Role, bytes: &[u8]) -> Vec<(i32, i32)> {
    match role {
        Role::Outbox => {
            bytes.as_chunks().0.iter().map(|&b| u64::from_le_bytes(b)).map(|v| (v as i32, (v >> 32) as i32)).collect()
        }
        _ => bytes.as_chunks().0.iter().map(|&b| (i32::from_le_bytes(b), 0)).collect(),
    }
}

fn partial([a, b, c, d, e, f, g, h]: [u8; 8]) -> (f32, i32) {
    (f32::from_le_bytes([a, b, c, d]), i32::from_le_bytes([e, f, g, h]))
}
