//! One launch by itself, again and again.

use super::bytes::Bytes;
use super::inputs::{Random, Request, SAMPLED, UNTOUCHED};
use super::report::Row;
use super::subset::Subset;
use super::{Case, Place};
use crate::device::{Backend, DeviceError, WeightSource};
use crate::tables::rope_table;
use hipc_ir::dtype::{Layout, Q8Layout};
use hipc_ir::fused::{Access, Param, Role, Shape};
use hipc_ir::graph::Weight;
use hipc_ir::plan::{Buffer, BufferKind, KernelSpec, Launch, Plan, SamplingState};
use hipc_reference::blocks::{Q8Token, split_row};
use hipc_reference::launch::{check, strayed};
use std::ops::Range;

/// A launch with what every case of it shares.
pub struct Bench<'a> {
    plan: &'a Plan,
    place: Place,
    launch: &'a Launch,
    spec: &'a KernelSpec,
    tokens: u32,
    params: Vec<Param>,
    /// Weights and tables as the files have them, in the plan's layout; by operand.
    fixed: Vec<Option<Bytes>>,
    /// The same of the chosen rows.
    picked: Vec<Option<Bytes>>,
    subset: Option<Subset>,
    seed: u64,
}

impl<'a> Bench<'a> {
    pub fn new(
        plan: &'a Plan,
        place: Place,
        weights: &dyn WeightSource,
        subset: Option<Subset>,
        seed: u64,
    ) -> Result<Self, DeviceError> {
        let program = &plan.programs[place.program];
        let launch = &program.launches[place.index];
        let spec = &plan.kernels[launch.kernel];
        let params = spec.op.params();
        let fixed: Vec<_> = launch.args.iter().map(|&b| fixed(plan, b, weights)).collect();
        let mut picked = Vec::new();
        if let Some(subset) = &subset {
            let pick = |(param, bytes): (&Param, &Option<Bytes>)| bytes.as_ref().map(|b| subset.gather(param, b, 1));
            picked = params.iter().zip(&fixed).map(pick).collect();
        }
        Ok(Self { plan, place, launch, spec, tokens: program.tokens, params, fixed, picked, subset, seed })
    }

    /// Operands that a case brings, with their buffers.
    fn own(&self) -> impl Iterator<Item = (usize, &Param, Buffer)> {
        let all = self.params.iter().zip(&self.launch.args).enumerate();
        all.filter(|(i, _)| self.fixed[*i].is_none()).map(|(i, (param, &buffer))| (i, param, buffer))
    }

    fn inputs(&self, case: Case) -> Result<Vec<Bytes>, DeviceError> {
        let number = u64::from(case.position) << 32 | u64::from(case.sampled) << 31 | u64::from(case.tokens);
        let sampling = if case.sampled { SAMPLED } else { SamplingState::default() };
        let seed = Random::fork(self.seed, number ^ u64::from(case.magnitude.to_bits()) << 20).bits();
        let request =
            Request { spec: self.spec, tokens: self.tokens, ctx: self.plan.ctx, magnitude: case.magnitude, sampling, seed };
        let mut all = Vec::with_capacity(self.params.len());
        for (i, made) in request.operands().into_iter().enumerate() {
            let Some(made) = made.filter(|_| self.fixed[i].is_none()) else {
                all.push(Bytes::default());
                continue;
            };
            let made = if self.params[i].role == Role::State { case.state().to_bytes().to_vec() } else { made };
            let planned = self.plan.buffers[self.launch.args[i]].bytes as usize;
            if made.len() > planned {
                let what = format!(
                    "launch {} needs {} bytes for {:?}, the plan has {planned}",
                    self.launch.label,
                    made.len(),
                    self.params[i].role
                );
                return Err(DeviceError::Internal(what));
            }
            let fill = if self.params[i].shape == Shape::Counters { 0 } else { UNTOUCHED };
            let mut bytes = Bytes::filled(fill, planned);
            bytes[..made.len()].copy_from_slice(&made);
            all.push(bytes);
        }
        Ok(all)
    }

    /// Runs a case twice; what is wrong, if anything is. `watched`: the first time under the device's watch, if it has one. That the
    /// second run leaves the same bits then shows, too, that the watch changed nothing.
    pub fn run(
        &mut self,
        backend: &mut dyn Backend,
        case: Case,
        watched: bool,
        row: &mut Row,
    ) -> Result<Option<String>, DeviceError> {
        let before = self.inputs(case)?;
        let once = |backend: &mut dyn Backend, all: bool| {
            for (i, param, buffer) in self.own().filter(|(_, p, _)| all || p.access != Access::Read) {
                backend.write(buffer, 0, &before[i])?;
                for range in unwritten(param, &before[i], case) {
                    backend.forget(buffer, range.start, range.end - range.start)?;
                }
            }
            backend.run(self.place.program, self.place.index..self.place.index + 1)?;
            let mut after = vec![Bytes::default(); self.params.len()];
            for (i, param, buffer) in self.own() {
                // What is only read is looked at once.
                if all || param.access != Access::Read {
                    after[i] = Bytes::read(backend, buffer)?;
                }
            }
            Ok::<_, DeviceError>(after)
        };
        backend.watch(watched);
        let after = once(backend, true);
        backend.watch(false);
        let after = after?;
        if let Some(what) = beside(backend, self.launch.args.iter().copied())? {
            return Ok(Some(what));
        }
        if let Some(what) = self.compare(case, &before, &after, row)? {
            return Ok(Some(what));
        }
        let again = once(backend, false)?;
        let differs = |(i, param, _): &(usize, &Param, Buffer)| {
            param.access != Access::Read && param.role != Role::Scratch && again[*i] != after[*i]
        };
        Ok(self.own().find(differs).map(|(i, param, _)| {
            let at = again[i].iter().zip(after[i].iter()).position(|(a, b)| a != b).unwrap_or(0);
            format!("{:?}: a second run on the same inputs leaves other bits, from byte {at} on", param.role)
        }))
    }

    fn compare(&self, case: Case, before: &[Bytes], after: &[Bytes], row: &mut Row) -> Result<Option<String>, DeviceError> {
        let internal = |e: hipc_reference::launch::LaunchError| DeviceError::Internal(e.to_string());
        let state = case.state();
        let b: Vec<&[u8]> = (0..before.len()).map(|i| self.fixed[i].as_deref().unwrap_or(&before[i])).collect();
        let a: Vec<&[u8]> = after.iter().map(|a| &**a).collect();
        if let Some(role) = strayed(self.spec, self.tokens, state, &b, &a).first() {
            return Ok(Some(format!("{role:?} was touched where it holds no results")));
        }
        let n = case.tokens as usize;
        let findings = match &self.subset {
            None => check(self.spec, state, &b, &a).map_err(internal)?,
            Some(subset) => {
                for (param, bytes) in self.params.iter().zip(&a) {
                    if let Some(what) = unfit(param, bytes, case) {
                        return Ok(Some(what));
                    }
                }
                let gather = |i: usize, bytes: &[u8]| subset.gather(&self.params[i], bytes, n);
                let own_before: Vec<Bytes> = before
                    .iter()
                    .enumerate()
                    .map(|(i, own)| if self.fixed[i].is_some() { Bytes::default() } else { gather(i, own) })
                    .collect();
                let few_after: Vec<Bytes> = a.iter().enumerate().map(|(i, bytes)| gather(i, bytes)).collect();
                let few_before: Vec<&[u8]> =
                    own_before.iter().zip(&self.picked).map(|(own, picked)| picked.as_deref().unwrap_or(own)).collect();
                let few_after: Vec<&[u8]> = few_after.iter().map(|b| &**b).collect();
                check(&subset.spec, state, &few_before, &few_after).map_err(internal)?
            }
        };
        for param in self.params.iter().filter(|p| p.access != Access::Read) {
            if let Shape::Q8(values) = param.shape {
                row.quants += u64::from(values) * u64::from(case.tokens);
            }
        }
        findings.iter().for_each(|f| row.take(f));
        let wrong = findings.iter().find(|f| !f.passes());
        Ok(wrong.map(describe))
    }

    /// Whether the weights on the device are still those of the file, and nothing was written beside any buffer; what is wrong, if
    /// anything is.
    pub fn finish(&self, backend: &mut dyn Backend) -> Result<Option<String>, DeviceError> {
        if let Some(what) = beside(backend, self.plan.buffers.keys())? {
            return Ok(Some(what));
        }
        for (i, fixed) in self.fixed.iter().enumerate() {
            if let Some(fixed) = fixed
                && Bytes::read(backend, self.launch.args[i])? != *fixed
            {
                return Ok(Some(format!("{:?} on the device isn't what the file has", self.params[i].role)));
            }
        }
        Ok(None)
    }
}

/// What was written beside the first of these buffers that something was written beside.
fn beside(backend: &mut dyn Backend, buffers: impl Iterator<Item = Buffer>) -> Result<Option<String>, DeviceError> {
    for buffer in buffers {
        if let Some(found) = backend.beside(buffer)? {
            return Ok(Some(found.to_string()));
        }
    }
    Ok(None)
}

/// The parts of an operand that hold nothing which the launch may rely on: results, and positions of a cache behind the step's.
fn unwritten(param: &Param, bytes: &[u8], case: Case) -> Vec<Range<u64>> {
    let all = bytes.len() as u64;
    match (param.access, param.shape) {
        (Access::Write, _) => std::iter::once(0..all).collect(),
        (_, Shape::Cache(cache)) => {
            let position = u64::from(cache.head_dim) * u64::from(cache.kv.bytes());
            let head = |h: u32| (u64::from(h) * u64::from(cache.ctx), u64::from(h + 1) * u64::from(cache.ctx));
            let next = u64::from(case.position + case.tokens);
            let behind = (0..cache.heads).map(head).map(|(from, to)| (from + next).min(to) * position..to * position);
            behind.filter(|r| r.end <= all && !r.is_empty()).collect()
        }
        _ => Vec::new(),
    }
}

fn describe(f: &hipc_reference::launch::Finding) -> String {
    let mut parts = vec![format!("{:?}", f.role)];
    if let Some(fault) = &f.fault {
        parts.push(fault.clone());
    }
    if f.nmse > f.bound || f.nmse.is_nan() {
        parts.push(format!("noise {:.1e}, at most {:.0e} is allowed", f.nmse, f.bound));
    }
    if f.strain > 1.0 {
        parts.push(format!("an int8 block's scale is off by {:.1e}, {:.1} times what it may be", f.scale, f.strain));
    }
    if f.scale_nmse > hipc_reference::launch::Finding::SCALE.powi(2) {
        parts.push(format!("int8 scales are off by {:.1e} together", f.scale_nmse.sqrt()));
    }
    parts.join(": ")
}

/// What must hold for all results where only some rows are compared: numbers everywhere, and sums that are their quants'.
fn unfit(param: &Param, bytes: &[u8], case: Case) -> Option<String> {
    if param.access != Access::Write {
        return None;
    }
    let n = case.tokens as usize;
    match (param.role, param.shape) {
        (role, Shape::F32(values)) => {
            let from = if role == Role::Logits { case.head_from as usize } else { 0 };
            let values = values as usize;
            let all = bytes.as_chunks::<4>().0.get(from * values..n * values)?;
            let bad = all.iter().position(|b| f32::from_le_bytes(*b).is_nan())?;
            Some(format!("{role:?}: value {bad} isn't a number, or wasn't written"))
        }
        (role, Shape::Q8(values)) => {
            let layout = Q8Layout { n: values, block: Q8Layout::DEFAULT_BLOCK };
            (0..n).filter_map(|t| Q8Token::new(layout, bytes, t)).find_map(|token| {
                let blocks = token.q.chunks_exact(token.block).zip(token.scale).zip(token.sum);
                let sum = |q: &[i8]| q.iter().map(|&q| i32::from(q)).sum::<i32>();
                let bad = { blocks }.position(|((q, scale), &s)| scale.is_nan() || sum(q) != s)?;
                Some(format!("{role:?}: block {bad} has no scale, or a sum that isn't its quants'"))
            })
        }
        _ => None,
    }
}

/// The contents of a weight or rotation table as its device must have them.
fn fixed(plan: &Plan, buffer: Buffer, weights: &dyn WeightSource) -> Option<Bytes> {
    let weight = |w: Weight| weights.once(w);
    match plan.buffers[buffer].kind {
        BufferKind::Weight(w, Layout::Gguf) => Some(Bytes::of(&weight(w))),
        BufferKind::Weight(w, Layout::Split) => {
            let decl = &plan.weights[w];
            let [from, to] = Layout::ALL.map(|l| l.row_bytes(decl.dtype, decl.cols).unwrap_or(0).max(1) as usize);
            let mut split = Bytes::filled(0, decl.rows as usize * to);
            let rows = weight(w);
            rows.chunks_exact(from).zip(split.chunks_exact_mut(to)).for_each(|(row, out)| split_row(decl.dtype, row, out));
            Some(split)
        }
        BufferKind::Rope(r) => {
            let decl = &plan.ropes[r];
            let factors: Option<Vec<f32>> =
                decl.factors.map(|w| weight(w).as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect());
            let table = rope_table(decl, plan.ctx, factors.as_deref());
            Some(Bytes::of(bytemuck::cast_slice(&table)))
        }
        _ => None,
    }
}
