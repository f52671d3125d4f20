//! Operands of a trial: values at random in the shapes that the op asks for, and places that change from launch to launch for what
//! a model reads once a step.

use crate::device::{DeviceError, DevicePtr, Driver, KernelLaunch, WeightSource};
use crate::synthetic::Synthetic;
use crate::tables::rope_table;
use hipc_ir::PrimaryMap;
use hipc_ir::dtype::{DType, KvType, Layout, Q8Layout, Real};
use hipc_ir::fused::{Access, CacheSpec, FusedOp, Param, Role, Shape};
use hipc_ir::graph::{RopeDecl, WeightDecl};
use hipc_ir::plan::{KernelSpec, SamplingState, StepState};
use hipc_reference::blocks::{quantize, split_row};

/// Seed of all values.
const SEED: u64 = 1;
/// What a result holds before a launch: NaN in every float format.
const UNTOUCHED: u8 = 0xff;
/// Alignment of places.
const ALIGN: u64 = 256;
/// Most copies of weights.
const MOST_COPIES: u64 = 512;

/// Positions at which an op is measured, rising: attention early, at some depth, and at the end of the cache.
pub(super) fn positions(op: &FusedOp, ctx: u32) -> Vec<u32> {
    let last = ctx.saturating_sub(1);
    match op {
        FusedOp::Attend(_) => {
            let mut all: Vec<u32> = [64, 512, last].into_iter().map(|p| p.min(last)).collect();
            all.dedup();
            all
        }
        _ => vec![last.min(64)],
    }
}

/// One operand in device memory.
struct Placed {
    param: Param,
    at: DevicePtr,
    /// Of one copy.
    bytes: u64,
    copies: u64,
    /// What it holds before a launch that may write it, unless that is all [`UNTOUCHED`].
    initial: Option<Vec<u8>>,
}

impl Placed {
    /// From a copy to the next.
    fn stride(&self) -> u64 {
        self.bytes.next_multiple_of(ALIGN)
    }

    /// The cache that it is read from, up to the step's position.
    fn read_cache(&self) -> Option<CacheSpec> {
        match (self.param.role, self.param.shape) {
            (Role::CacheK | Role::CacheV, Shape::Cache(cache)) => Some(cache),
            _ => None,
        }
    }

    /// Places that launches take in turn.
    fn places(&self, pos: u32) -> u64 {
        let windows = self.read_cache().map_or(1, |c| u64::from((c.ctx / (pos + 1)).max(1)));
        self.copies * windows
    }

    /// Place of launch number `index`. A cache is read up to `pos`, so launches begin so many positions later each; the last read beyond
    /// their copy, into the next or into what was allocated behind the last.
    fn address(&self, index: u64, pos: u32) -> DevicePtr {
        let place = index % self.places(pos);
        let windows = self.places(pos) / self.copies;
        let step = self.read_cache().map_or(0, |c| u64::from(pos + 1) * position_bytes(c));
        self.at + place / windows * self.stride() + place % windows * step
    }
}

/// From a position of a head to its next.
fn position_bytes(cache: CacheSpec) -> u64 {
    u64::from(cache.head_dim) * u64::from(cache.kv.bytes())
}

/// Everything that a trial's kernels take; the same for all of them.
pub(super) struct Operands {
    placed: Vec<Placed>,
}

impl Operands {
    /// Allocates and fills. `span`: bytes of what changes its place.
    pub fn new(driver: &mut dyn Driver, specs: &[KernelSpec], ctx: u32, span: u64) -> Result<Self, DeviceError> {
        let Some(first) = specs.first() else { return Ok(Self { placed: Vec::new() }) };
        let params = first.op.params();
        let contents: Vec<Vec<u8>> = params.iter().map(|p| contents(specs, p, ctx)).collect();
        let changes = |p: &Param| matches!(p.role, Role::CacheK | Role::CacheV) || is_matrix(p);
        let once: u64 = params.iter().zip(&contents).filter(|(p, _)| changes(p)).map(|(_, c)| c.len() as u64).sum();
        let (free, _) = driver.memory()?;
        let copies = (span.min(free / 2) / once.max(1)).clamp(1, MOST_COPIES);
        let mut placed = Vec::with_capacity(params.len());
        for (param, bytes) in params.into_iter().zip(contents) {
            let copies = if changes(&param) { copies } else { 1 };
            let initial = (param.access != Access::Write).then_some(bytes);
            let len = initial.as_ref().map_or_else(|| result_bytes(specs, &param), |b| b.len() as u64);
            let mut operand = Placed { param, at: 0, bytes: len, copies, initial };
            let behind = operand.read_cache().map_or(0, |c| u64::from(c.ctx) * position_bytes(c));
            operand.at = driver.alloc((copies * operand.stride() + behind).max(ALIGN))?;
            if let Some(bytes) = &operand.initial {
                for copy in 0..copies {
                    driver.upload(operand.at + copy * operand.stride(), bytes)?;
                }
            }
            if operand.param.access == Access::Read {
                operand.initial = None;
            }
            placed.push(operand);
        }
        Ok(Self { placed })
    }

    /// Steps of one token at this position.
    pub fn set_position(&mut self, driver: &mut dyn Driver, pos: u32) -> Result<(), DeviceError> {
        let state = StepState { pos: pos as i32, n: 1, ..StepState::default() };
        for p in self.placed.iter().filter(|p| p.param.role == Role::State) {
            driver.upload(p.at, &state.to_bytes())?;
        }
        Ok(())
    }

    /// Launches until places come again.
    pub fn places(&self, pos: u32) -> u32 {
        let most = self.placed.iter().map(|p| p.places(pos)).max().unwrap_or(1);
        u32::try_from(most).unwrap_or(u32::MAX)
    }

    /// Bytes of weights, or of caches up to this position.
    pub fn touched(&self, pos: u32) -> u64 {
        let of = |p: &Placed| match p.read_cache() {
            Some(cache) => u64::from(cache.heads) * u64::from(pos + 1) * position_bytes(cache),
            None if is_matrix(&p.param) => p.bytes,
            None => 0,
        };
        self.placed.iter().map(of).sum()
    }

    /// Arguments of launch number `index` of many.
    pub fn kernargs(&self, index: u32, pos: u32) -> Vec<u8> {
        self.placed.iter().flat_map(|p| p.address(u64::from(index), pos).to_le_bytes()).collect()
    }

    /// Executes a kernel once and returns what it wrote, by operand; others are empty. Memory that it shares with others is as
    /// before.
    pub fn results(&mut self, driver: &mut dyn Driver, spec: &KernelSpec, kernel: u64) -> Result<Vec<Vec<u8>>, DeviceError> {
        let written = |p: &&Placed| p.param.access != Access::Read && p.param.role != Role::Scratch;
        for p in self.placed.iter().filter(written) {
            match &p.initial {
                Some(bytes) => driver.upload(p.at, bytes)?,
                None => driver.upload(p.at, &vec![UNTOUCHED; p.bytes as usize])?,
            }
        }
        let kernargs: Vec<u8> = self.placed.iter().flat_map(|p| p.at.to_le_bytes()).collect();
        let (grid, threads) = (spec.grid(1), spec.threads());
        driver.launch(KernelLaunch { kernel, grid, threads, kernargs: &kernargs, operands: &[] })?;
        let mut all = Vec::with_capacity(self.placed.len());
        for p in &self.placed {
            let mut bytes = vec![0; if written(&p) { p.bytes as usize } else { 0 }];
            if !bytes.is_empty() {
                driver.download(p.at, &mut bytes)?;
            }
            all.push(bytes);
        }
        Ok(all)
    }
}

fn is_matrix(param: &Param) -> bool {
    matches!((param.role, param.shape), (Role::Weight(_), Shape::Weight { .. }))
}

/// Bytes of a result, for one token, for the geometry that writes most.
fn result_bytes(specs: &[KernelSpec], param: &Param) -> u64 {
    let most = |of: &dyn Fn(&KernelSpec) -> u64| specs.iter().map(of).max().unwrap_or(0);
    match param.shape {
        Shape::F32(n) => 4 * u64::from(n),
        Shape::Q8(n) => u64::from(q8(n).stride()),
        Shape::Ssq => most(&|s| 4 * u64::from(s.parts_out())),
        Shape::Partials => most(&|s| 8 * u64::from(s.parts_out())),
        Shape::Scratch => most(&|s| s.scratch_bytes(1)),
        Shape::Ids => 4,
        _ => 0,
    }
}

fn q8(n: u32) -> Q8Layout {
    Q8Layout { n, block: Q8Layout::DEFAULT_BLOCK }
}

/// Values of an operand that is read or kept; of a result nothing.
fn contents(specs: &[KernelSpec], param: &Param, ctx: u32) -> Vec<u8> {
    if param.access == Access::Write {
        return Vec::new();
    }
    // Operands of equal shapes differ.
    let seed = SEED ^ number(param);
    let floats = |n: u32| random(DType::F32, n.max(1), 1, seed);
    match param.shape {
        Shape::State => StepState { n: 1, ..StepState::default() }.to_bytes().to_vec(),
        Shape::Sampling => vec![0; SamplingState::BYTES as usize],
        Shape::Draws | Shape::Outbox => vec![0; 8 * (ctx as usize + 1)],
        Shape::Tokens => vec![0; 4 * (ctx as usize + 1)],
        Shape::Ids => vec![0; 4],
        Shape::Scratch => Vec::new(),
        Shape::Counters => vec![0; specs.iter().map(|s| s.counter_bytes(1)).max().unwrap_or(0) as usize],
        Shape::F32(n) => floats(n),
        Shape::Q8(n) => {
            let values: Vec<f32> = floats(n).as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            let mut token = vec![0; q8(n).stride() as usize];
            quantize(q8(n), &values, &mut token);
            token
        }
        // Positive, near 1.
        Shape::Ssq => random(DType::F32, 1, specs.iter().map(|s| s.geometry.parts_in).max().unwrap_or(1).max(1), seed),
        Shape::Partials => vec![0; 8 * specs.iter().map(|s| s.geometry.parts_in).max().unwrap_or(0) as usize],
        Shape::RopeTable(rope) => {
            let decl = RopeDecl { style: rope.style, dims: rope.dims, base: Real(1e4), freq_scale: Real(1.0), factors: None };
            rope_table(&decl, ctx, None).iter().flatten().flat_map(|v| v.to_le_bytes()).collect()
        }
        Shape::Cache(cache) => {
            let dtype = if cache.kv == KvType::F16 { DType::F16 } else { DType::F32 };
            random(dtype, cache.heads * cache.ctx, cache.head_dim, seed)
        }
        Shape::Weight { dtype, layout: Layout::Gguf, rows, cols } => random(dtype, rows, cols, seed),
        Shape::Weight { dtype, layout: Layout::Split, rows, cols } => {
            let [from, to] = Layout::ALL.map(|l| l.row_bytes(dtype, cols).unwrap_or(0).max(1) as usize);
            let mut split = vec![0; rows as usize * to];
            let blocks = random(dtype, rows, cols, seed);
            blocks.chunks_exact(from).zip(split.chunks_exact_mut(to)).for_each(|(row, out)| split_row(dtype, row, out));
            split
        }
    }
}

/// Values of a tensor, as large as a model's.
fn random(dtype: DType, rows: u32, cols: u32, seed: u64) -> Vec<u8> {
    let mut decls = PrimaryMap::new();
    let weight = decls.push(WeightDecl { name: String::new(), dtype, rows, cols });
    Synthetic::new(decls, seed).weight(weight).to_vec()
}

/// A number that differs between operands.
fn number(param: &Param) -> u64 {
    let hash = blake3::hash(format!("{:?}", param.role).as_bytes());
    hash.as_bytes().as_chunks().0.first().map_or(0, |b| u64::from_le_bytes(*b))
}
