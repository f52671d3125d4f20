//! Scheduling: fused graphs and chosen kernels become a plan with every address fixed.
//!
//! Before: each launch has its kernel, each slot one writer. After: each slot has a buffer; buffers in the arena share
//! addresses where their lives don't overlap; grids, arguments and costs are filled in. A launch's results never share
//! memory with its operands, because its workgroups run in no particular order.
//!
//! [`crate::check`] proves the result without using any of this.

use crate::cost;
use crate::select::{SelectError, repacking, select};
use crate::target::Target;
use crate::tuning::Tuning;
use hipc_ir::PrimaryMap;
use hipc_ir::dtype::{KvType, Layout, Q8Layout};
use hipc_ir::fused::{
    Access, CacheSpec, FusedGraph, FusedLaunch, FusedOp, HeadOut, LaunchRef, Operand, Repack, Role, SegmentOut, Shape, Slot, Tail,
};
use hipc_ir::graph::{Cache, Graph, Rope, Weight, WeightDecl};
use hipc_ir::plan::{
    Buffer, BufferDecl, BufferKind, Cost, Kernel, KernelSpec, Launch, ModelInfo, Plan, Program, SamplingState, Space, StepState,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Bytes of a weight that are repacked at a time: enough that the bus is busy, few enough to hide in the arena of most plans.
const STAGING: u64 = 16 << 20;

/// Why there is no plan. Ours, all of them: the fused graphs contradict themselves or the model graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// No geometry.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// An operand is bound to something that its role can't be.
    #[error("operand {index} of `{label}` can't be {operand:?}; please report it with `hipc dump --phase fused`")]
    BadOperand {
        /// The launch.
        label: String,
        /// Which operand.
        index: usize,
        /// What it is bound to.
        operand: Operand,
    },
    /// A slot is read that no launch writes, or is written twice.
    #[error("{slot} is {fault}; please report it with `hipc dump --phase fused`")]
    Slot {
        /// The value.
        slot: Slot,
        /// What is wrong.
        fault: &'static str,
    },
}

/// What a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The model graph: declarations of weights, tables and caches.
    pub graph: &'a Graph,
    /// Facts for the runtime.
    pub model: &'a ModelInfo,
    /// Positions of the cache; the fused graphs' caches have as many.
    pub ctx: u32,
    /// Storage type of the cache.
    pub kv: KvType,
    /// Programs: fused graph and most tokens per step; decode, then prompt.
    pub programs: &'a [(&'a FusedGraph, u32)],
    /// Target.
    pub target: &'a Target,
    /// Geometries that were measured.
    pub tuning: &'a Tuning,
}

/// Selects kernels, lays out memory and fills in launches.
///
/// # Errors
/// [`ScheduleError`]; on graphs that verify there is none.
pub fn schedule(request: &Request) -> Result<Plan, ScheduleError> {
    let mut selection = select(request.programs, request.target, request.tuning)?;
    let mut places = Places::new(request);
    let uses = || request.programs.iter().zip(&selection.programs);
    let counters = uses().flat_map(|(&(_, tokens), used)| used.iter().map(move |&k| (k, tokens)));
    let counters = counters.map(|(k, tokens)| selection.kernels[k].counter_bytes(tokens)).max().unwrap_or(0);
    if counters > 0 {
        places.counters = Some(places.append(BufferKind::Counters, Space::Persistent, counters));
    }
    let mut programs = Vec::new();
    for (&(graph, tokens), used) in uses() {
        let specs: Vec<&KernelSpec> = used.iter().map(|&k| &selection.kernels[k]).collect();
        let slots = places.program(graph, tokens, &specs)?;
        let mut launches = Vec::with_capacity(graph.launches.len());
        for ((index, launch), (&kernel, spec)) in graph.launches.iter().zip(used.iter().zip(&specs)) {
            launches.push(Launch {
                kernel,
                args: places.args(index, launch, &slots)?,
                grid: spec.grid(tokens),
                layer: launch.layer,
                label: launch.label.clone(),
                cost: cost::of(spec, tokens, request.target),
            });
        }
        let of =
            |slot| slots.values.get(&slot).copied().ok_or(ScheduleError::Slot { slot, fault: "an output that nothing writes" });
        programs.push(Program { kind: graph.kind, tokens, launches, logits: of(graph.logits)?, ids: of(graph.ids)? });
    }
    let load = places.load(request, &mut selection.kernels)?;
    let Places { buffers, state, tokens, outbox, sampling, draws, .. } = places;
    Ok(Plan {
        target: request.target.name.to_owned(),
        model: request.model.clone(),
        ctx: request.ctx,
        kv: request.kv,
        weights: request.graph.weights.clone(),
        ropes: request.graph.ropes.clone(),
        caches: request.graph.caches.clone(),
        buffers,
        kernels: selection.kernels,
        load,
        programs,
        state,
        tokens,
        outbox,
        sampling,
        draws,
    })
}

/// Bytes that a device allocates for a plan: all spaces.
pub fn memory_bytes(plan: &Plan) -> u64 {
    Space::ALL.iter().map(|&s| plan.space_bytes(s)).sum()
}

/// Bytes that the same model would allocate at other context lengths, by planning for each.
///
/// # Errors
/// As [`schedule`].
pub fn memory_by_context(request: &Request, contexts: &[u32]) -> Result<Vec<(u32, u64)>, ScheduleError> {
    let at = |ctx: u32| {
        let graphs: Vec<(FusedGraph, u32)> = request.programs.iter().map(|&(g, t)| (with_context(g, ctx), t)).collect();
        let programs: Vec<(&FusedGraph, u32)> = graphs.iter().map(|(g, t)| (g, *t)).collect();
        schedule(&Request { ctx, programs: &programs, ..*request }).map(|plan| (ctx, memory_bytes(&plan)))
    };
    contexts.iter().map(|&ctx| at(ctx)).collect()
}

/// The same launches with caches of `ctx` positions.
fn with_context(graph: &FusedGraph, ctx: u32) -> FusedGraph {
    let mut graph = graph.clone();
    let set = |spec: &mut CacheSpec| spec.ctx = ctx;
    for launch in graph.launches.values_mut() {
        match &mut launch.op {
            FusedOp::Attend(a) => set(&mut a.cache),
            FusedOp::Gemv(g) => {
                if let Tail::Separate(outs) = &mut g.tail {
                    outs.iter_mut().for_each(|o| {
                        if let SegmentOut::Append(_, spec) = o {
                            set(spec)
                        }
                    });
                }
            }
            FusedOp::Heads(h) => h.parts.iter_mut().for_each(|p| {
                if let HeadOut::Append(spec) = &mut p.out {
                    set(spec)
                }
            }),
            FusedOp::Embed(_) | FusedOp::Row(_) | FusedOp::Choose(_) | FusedOp::Repack(_) => {}
        }
    }
    for shape in graph.slots.values_mut() {
        if let Shape::Cache(spec) = shape {
            set(spec);
        }
    }
    graph
}

/// Buffers of one program's values.
#[derive(Default)]
struct Slots {
    values: HashMap<Slot, Buffer>,
    scratch: HashMap<LaunchRef, Buffer>,
}

/// Something to be placed in the arena: alive from launch `from` to launch `to`, both included.
struct Life {
    kind: BufferKind,
    bytes: u64,
    from: usize,
    to: usize,
    owner: Owner,
}

#[derive(Clone, Copy)]
enum Owner {
    Slot(Slot),
    Scratch(LaunchRef),
}

/// Buffers as they are being laid out.
struct Places {
    buffers: PrimaryMap<Buffer, BufferDecl>,
    end: BTreeMap<Space, u64>,
    weights: HashMap<Weight, Buffer>,
    ropes: HashMap<Rope, Buffer>,
    caches: HashMap<Cache, Buffer>,
    state: Buffer,
    tokens: Buffer,
    outbox: Buffer,
    sampling: Buffer,
    draws: Buffer,
    /// One serves all launches: each leaves it zeroed, and they run one after the other.
    counters: Option<Buffer>,
    /// Logits and ids, shared by the programs: at their largest from the start.
    results: HashMap<BufferKind, Buffer>,
    most_tokens: u32,
}

fn aligned(bytes: u64) -> u64 {
    bytes.next_multiple_of(Plan::ALIGN)
}

impl Places {
    /// Places everything that lives all the time.
    fn new(request: &Request) -> Self {
        let mut places = Self {
            buffers: PrimaryMap::new(),
            end: BTreeMap::new(),
            weights: HashMap::new(),
            ropes: HashMap::new(),
            caches: HashMap::new(),
            state: Buffer::from_u32(0),
            tokens: Buffer::from_u32(0),
            outbox: Buffer::from_u32(0),
            sampling: Buffer::from_u32(0),
            draws: Buffer::from_u32(0),
            counters: None,
            results: HashMap::new(),
            most_tokens: request.programs.iter().map(|&(_, t)| t).max().unwrap_or(1),
        };
        places.state = places.append(BufferKind::State, Space::Persistent, StepState::BYTES);
        // One more than positions: the token chosen after the last.
        let tokens = u64::from(request.ctx) + 1;
        places.tokens = places.append(BufferKind::Tokens, Space::Persistent, 4 * tokens);
        places.outbox = places.append(BufferKind::Outbox, Space::Pinned, 8 * tokens);
        places.sampling = places.append(BufferKind::Sampling, Space::Persistent, SamplingState::BYTES);
        places.draws = places.append(BufferKind::Draws, Space::Persistent, 8 * tokens);
        let (mut weights, mut ropes, mut caches) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        let launches = request.programs.iter().flat_map(|(g, _)| g.launches.values());
        for (param, operand) in launches.flat_map(|l| l.op.params().into_iter().zip(&l.args)) {
            match (*operand, param.shape) {
                (Operand::Weight(w), Shape::Weight { layout, .. }) => drop(weights.insert(w, layout)),
                (Operand::Rope(r), _) => drop(ropes.insert(r)),
                (Operand::Cache(c), _) => drop(caches.insert(c)),
                _ => {}
            }
        }
        for (w, of) in weights {
            let decl = &request.graph.weights[w];
            let bytes = u64::from(decl.rows) * of.row_bytes(decl.dtype, decl.cols).unwrap_or(0);
            let buffer = places.append(BufferKind::Weight(w, of), Space::Weights, bytes);
            places.weights.insert(w, buffer);
        }
        for r in ropes {
            let bytes = u64::from(request.ctx) * u64::from(request.graph.ropes[r].dims) * 4;
            let buffer = places.append(BufferKind::Rope(r), Space::Persistent, bytes);
            places.ropes.insert(r, buffer);
        }
        for c in caches {
            let decl = &request.graph.caches[c];
            let spec = CacheSpec { heads: decl.heads, head_dim: decl.head_dim, ctx: request.ctx, kv: request.kv };
            let buffer = places.append(BufferKind::Cache(c), Space::Cache, spec.bytes());
            places.caches.insert(c, buffer);
        }
        places
    }

    /// A buffer behind all others of its space.
    fn append(&mut self, kind: BufferKind, space: Space, bytes: u64) -> Buffer {
        let end = self.end.entry(space).or_default();
        let offset = *end;
        *end = aligned(offset + bytes);
        self.buffers.push(BufferDecl { kind, space, offset, bytes })
    }

    /// Gives every value of a program its buffer.
    fn program(&mut self, graph: &FusedGraph, tokens: u32, specs: &[&KernelSpec]) -> Result<Slots, ScheduleError> {
        let mut slots = Slots::default();
        let mut lives: Vec<Life> = Vec::new();
        let mut life_of: HashMap<Slot, Option<usize>> = HashMap::new();
        for (at, ((index, launch), spec)) in graph.launches.iter().zip(specs).enumerate() {
            for (param, &operand) in launch.op.params().iter().zip(&launch.args) {
                match (operand, param.access) {
                    (Operand::Slot(slot), Access::Write) => {
                        let (kind, bytes) = value_kind(param.shape, spec, tokens);
                        let kept = match param.role {
                            Role::Logits => Some(BufferKind::Logits),
                            Role::Ids => Some(BufferKind::Ids),
                            // Logits of a plan whose head isn't one launch.
                            _ if slot == graph.logits => Some(BufferKind::Logits),
                            _ => None,
                        };
                        let life = match kept {
                            Some(kept) => {
                                slots.values.insert(slot, self.result(kept, bytes / u64::from(tokens)));
                                None
                            }
                            None => {
                                lives.push(Life { kind, bytes, from: at, to: at, owner: Owner::Slot(slot) });
                                Some(lives.len() - 1)
                            }
                        };
                        if life_of.insert(slot, life).is_some() {
                            return Err(ScheduleError::Slot { slot, fault: "written twice" });
                        }
                    }
                    (Operand::Slot(slot), _) => match life_of.get(&slot) {
                        Some(&Some(life)) => lives[life].to = at,
                        Some(None) => {}
                        None => return Err(ScheduleError::Slot { slot, fault: "read before it is written" }),
                    },
                    (Operand::Own, _) if param.role == Role::Counters => {}
                    (Operand::Own, _) => {
                        let bytes = spec.scratch_bytes(tokens);
                        lives.push(Life { kind: BufferKind::Scratch, bytes, from: at, to: at, owner: Owner::Scratch(index) });
                    }
                    _ => {}
                }
            }
        }
        let offsets = place(&lives);
        for (life, offset) in lives.iter().zip(offsets) {
            let buffer = self.buffers.push(BufferDecl { kind: life.kind, space: Space::Arena, offset, bytes: life.bytes });
            match life.owner {
                Owner::Slot(slot) => slots.values.insert(slot, buffer),
                Owner::Scratch(launch) => slots.scratch.insert(launch, buffer),
            };
        }
        Ok(slots)
    }

    /// A launch for each weight that isn't in GGUF's layout, and the staging buffer. Nothing else is in the arena at load.
    fn load(&mut self, request: &Request, kernels: &mut PrimaryMap<Kernel, KernelSpec>) -> Result<Vec<Launch>, ScheduleError> {
        let row_bytes = |w: &WeightDecl, layout: Layout| layout.row_bytes(w.dtype, w.cols).unwrap_or(0);
        let mut repacked = Vec::new();
        for (buffer, decl) in &self.buffers {
            if let BufferKind::Weight(w, layout) = decl.kind
                && layout != Layout::Gguf
            {
                let w = &request.graph.weights[w];
                let piece = (STAGING / row_bytes(w, Layout::Gguf).max(1)).clamp(1, u64::from(w.rows)) as u32;
                repacked.push((buffer, w, Repack { dtype: w.dtype, layout, rows: w.rows, cols: w.cols, piece }));
            }
        }
        let most = repacked.iter().map(|(_, w, op)| u64::from(op.piece) * row_bytes(w, Layout::Gguf)).max();
        let Some(bytes) = most else { return Ok(Vec::new()) };
        let staging = self.buffers.push(BufferDecl { kind: BufferKind::Staging, space: Space::Arena, offset: 0, bytes });
        let mut known: HashMap<Repack, Kernel> = HashMap::new();
        let mut launches = Vec::with_capacity(repacked.len());
        for (buffer, w, op) in repacked {
            let kernel = match known.get(&op) {
                Some(&kernel) => kernel,
                None => kernels.push(repacking(op, kernels.len(), request.target)?),
            };
            known.insert(op, kernel);
            let moved = |layout| u64::from(op.piece) * row_bytes(w, layout);
            launches.push(Launch {
                kernel,
                args: vec![self.state, staging, buffer],
                grid: kernels[kernel].grid(1),
                layer: None,
                label: "repack".into(),
                cost: Cost { read: moved(Layout::Gguf), written: moved(op.layout), flops: 0, ns: 0 },
            });
        }
        Ok(launches)
    }

    /// The buffer of logits or ids.
    fn result(&mut self, kind: BufferKind, bytes_per_token: u64) -> Buffer {
        if let Some(&buffer) = self.results.get(&kind) {
            return buffer;
        }
        let buffer = self.append(kind, Space::Persistent, bytes_per_token * u64::from(self.most_tokens));
        self.results.insert(kind, buffer);
        buffer
    }

    /// The buffers of a launch's operands.
    fn args(&self, index: LaunchRef, launch: &FusedLaunch, slots: &Slots) -> Result<Vec<Buffer>, ScheduleError> {
        let params = launch.op.params();
        let bad = |i: usize, operand| ScheduleError::BadOperand { label: launch.label.clone(), index: i, operand };
        if params.len() != launch.args.len() {
            return Err(bad(params.len().min(launch.args.len()), launch.args.last().copied().unwrap_or(Operand::State)));
        }
        let buffer = |(i, (param, &operand)): (usize, (&hipc_ir::fused::Param, &Operand))| {
            let found = match operand {
                Operand::State => Some(self.state),
                Operand::Tokens => Some(self.tokens),
                Operand::Outbox => Some(self.outbox),
                Operand::Sampling => Some(self.sampling),
                Operand::Draws => Some(self.draws),
                Operand::Weight(w) => self.weights.get(&w).copied(),
                Operand::Rope(r) => self.ropes.get(&r).copied(),
                Operand::Cache(c) => self.caches.get(&c).copied(),
                Operand::Slot(slot) => slots.values.get(&slot).copied(),
                Operand::Own if param.role == Role::Counters => self.counters,
                Operand::Own => slots.scratch.get(&index).copied(),
            };
            found.ok_or_else(|| bad(i, operand))
        };
        params.iter().zip(&launch.args).enumerate().map(buffer).collect()
    }
}

/// Contents and bytes of a value that `spec` writes.
fn value_kind(shape: Shape, spec: &KernelSpec, tokens: u32) -> (BufferKind, u64) {
    let t = u64::from(tokens);
    match shape {
        Shape::Q8(n) => {
            let layout = Q8Layout { n, block: Q8Layout::DEFAULT_BLOCK };
            (BufferKind::Q8(layout), t * u64::from(layout.stride()))
        }
        Shape::Ssq => (BufferKind::Ssq(spec.parts_out()), 4 * t * u64::from(spec.parts_out())),
        Shape::Partials => (BufferKind::Partials(spec.parts_out()), 8 * t * u64::from(spec.parts_out())),
        Shape::Ids => (BufferKind::Ids, 4 * t),
        Shape::F32(n) => (BufferKind::F32(n), 4 * t * u64::from(n)),
        // No launch writes a value of another shape.
        _ => (BufferKind::Scratch, 0),
    }
}

/// Offsets of these lives: the largest first, each into the smallest gap between those alive at the same time, so that the
/// arena comes out the same everywhere and near its lower bound.
fn place(lives: &[Life]) -> Vec<u64> {
    let mut order: Vec<usize> = (0..lives.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(lives[i].bytes), lives[i].from, i));
    let mut offsets = vec![0u64; lives.len()];
    let mut placed: Vec<usize> = Vec::new();
    for i in order {
        let life = &lives[i];
        let mut taken: Vec<(u64, u64)> = placed
            .iter()
            .filter(|&&j| lives[j].from <= life.to && life.from <= lives[j].to)
            .map(|&j| (offsets[j], offsets[j] + aligned(lives[j].bytes)))
            .collect();
        taken.sort_unstable();
        let (mut end, mut best) = (0u64, None);
        for (from, to) in taken {
            if from >= end + life.bytes && best.is_none_or(|(gap, _)| from - end < gap) {
                best = Some((from - end, end));
            }
            end = end.max(to);
        }
        offsets[i] = best.map_or(end, |(_, at)| at);
        placed.push(i);
    }
    offsets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Llama, Model};

    #[test]
    fn kernels_and_memory_are_shared() {
        let model = Model::new(&Llama::L8B);
        let plan = model.plan("gfx1100");
        // embed, qkv of the first and of later layers, attn, o, gate_up, down, head, choose; the prompt shares embed.
        assert!(plan.kernels.len() <= 17, "{:?}", plan.kernels.values().map(|k| &k.name).collect::<Vec<_>>());
        assert_eq!(plan.programs[0].launches.len(), 5 * 32 + 3);
        // In the prompt no more is alive at once than x, its int8 form, partial sums, and the widest activation.
        let n = u64::from(Llama::L8B.n);
        assert!(plan.space_bytes(Space::Arena) < 64 * (2 * 4 * n + 3 * 14336 + 4 * 4096), "{}", plan.space_bytes(Space::Arena));
        assert_eq!(plan, model.plan("gfx1100"));
    }

    #[test]
    fn memory_follows_the_context() {
        let model = Model::new(&Llama::SMALL);
        let table = model.with_request("gfx1030", |r| memory_by_context(r, &[256, 512, 4096]).unwrap());
        assert_eq!(table[0].1, memory_bytes(&model.plan("gfx1030")));
        for &(ctx, bytes) in &table {
            assert_eq!(bytes, memory_bytes(&Model::new(&Llama { ctx, ..Llama::SMALL }).plan("gfx1030")));
        }
    }
}
