//! Valid contents for the operands of any launch, at random.
//!
//! Activations are normal; int8 blocks are the reference's quantisation of such; partial sums of squares are those of the vector that
//! the launch reads beside them; caches hold noise; tokens are in the vocabulary; partials are those of the logits. All of it depends on
//! the seed alone.

use half::f16;
use hipc_ir::dtype::{KvType, Q8Layout};
use hipc_ir::fused::{Access, FusedOp, Param, Role, Shape};
use hipc_ir::plan::{KernelSpec, SamplingState, StepState, outbox_entry};
use hipc_reference::blocks::quantize;

/// What isn't a result holds this before a launch: NaN in every float format.
pub const UNTOUCHED: u8 = 0xff;

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    /// A generator of its own for one of many things.
    pub fn fork(seed: u64, number: u64) -> Self {
        Self(Self(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).bits())
    }
    /// From 0 up to `n`, without it.
    pub fn below(&mut self, n: u32) -> u32 {
        (self.bits() >> 32) as u32 % n.max(1)
    }
    /// Uniform in 0 … 1.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 24) as f32
    }
    /// About normal, variance 1: the sum of twelve uniform numbers of 16 bits.
    pub fn normal(&mut self) -> f32 {
        let sum: u64 =
            (0..3).map(|_| self.bits()).map(|b| (b & 0xffff) + (b >> 16 & 0xffff) + (b >> 32 & 0xffff) + (b >> 48)).sum();
        sum as f32 / 65536.0 - 6.0
    }
}

/// What contents are made for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The kernel.
    pub spec: &'a KernelSpec,
    /// Most tokens of its program.
    pub tokens: u32,
    /// Positions, where the op itself names none.
    pub ctx: u32,
    /// Standard deviation of activations. Queries, keys and cached keys aren't made larger than 1 unless the launch norms them: where
    /// scores are large, no f32 holds their exponentials to what int8 results are held to.
    pub magnitude: f32,
    /// How a choice is made.
    pub sampling: SamplingState,
    /// Of all that is random.
    pub seed: u64,
}

/// Everything that a device can be asked for when it chooses.
pub const SAMPLED: SamplingState =
    SamplingState { temperature: 0.9, top_k: 20, top_p: 0.9, min_p: 0.01, repeat_penalty: 1.2, repeat_last_n: 9 };

impl Request<'_> {
    /// Contents of every operand but weights and rotation tables (`None`), parallel to [`FusedOp::params`]. What is only written holds
    /// [`UNTOUCHED`]; the state is zero.
    pub fn operands(&self) -> Vec<Option<Vec<u8>>> {
        let params = self.spec.op.params();
        // The vector that partial sums belong to, or the logits that partials do.
        let source = params.iter().find_map(|p| match (p.role, p.access, p.shape) {
            (Role::X(0) | Role::Logits, Access::Read, Shape::F32(n) | Shape::Q8(n)) => Some(n),
            _ => None,
        });
        let source = source.map(|n| (n, self.normals(n, self.magnitude, &mut Random::fork(self.seed, 0))));
        let made = (1..).zip(&params).map(|(i, p)| self.operand(p, source.as_ref(), &mut Random::fork(self.seed, i)));
        made.collect()
    }

    fn normals(&self, n: u32, magnitude: f32, random: &mut Random) -> Vec<f32> {
        (0..self.tokens * n).map(|_| magnitude * random.normal()).collect()
    }

    fn operand(&self, p: &Param, source: Option<&(u32, Vec<f32>)>, random: &mut Random) -> Option<Vec<u8>> {
        let Self { spec, tokens, ctx, magnitude, .. } = *self;
        let parts = if p.access == Access::Read { spec.geometry.parts_in } else { spec.parts_out() };
        let bytes = |each: u32| (tokens * each) as usize;
        let size = match p.shape {
            Shape::F32(n) => 4 * bytes(n),
            Shape::Q8(n) => bytes(layout(n).stride()),
            Shape::Ssq => 4 * bytes(parts),
            Shape::Partials => 8 * bytes(parts),
            _ => 0,
        };
        Some(match p.shape {
            Shape::Weight { .. } | Shape::RopeTable(_) => return None,
            Shape::F32(_) | Shape::Q8(_) | Shape::Ssq | Shape::Partials if p.access == Access::Write => vec![UNTOUCHED; size],
            Shape::Ids => vec![UNTOUCHED; 4 * tokens as usize],
            Shape::State => vec![0; StepState::BYTES as usize],
            Shape::Sampling => self.sampling.to_bytes().to_vec(),
            Shape::Draws => (0..=ctx).flat_map(|_| f64::from(random.unit()).to_le_bytes()).collect(),
            Shape::Outbox => (0..=ctx).flat_map(|at| outbox_entry(at as i32, 0).to_le_bytes()).collect(),
            Shape::Tokens => {
                let vocab = match &spec.op {
                    FusedOp::Embed(e) => e.vocab,
                    FusedOp::Choose(c) => c.n,
                    _ => 1,
                };
                (0..=ctx).flat_map(|_| random.below(vocab).to_le_bytes()).collect()
            }
            Shape::Scratch => vec![UNTOUCHED; spec.scratch_bytes(tokens) as usize],
            Shape::Counters => vec![0; spec.counter_bytes(tokens) as usize],
            Shape::F32(_) if matches!(p.role, Role::X(0) | Role::Logits) => bytes_of(&source?.1),
            Shape::F32(n) => bytes_of(&self.normals(n, self.magnitude_of(p.role, magnitude), random)),
            Shape::Q8(n) => {
                let mut out = vec![UNTOUCHED; size];
                let rows = source?.1.chunks_exact(n as usize);
                out.chunks_exact_mut(layout(n).stride() as usize).zip(rows).for_each(|(out, x)| quantize(layout(n), x, out));
                out
            }
            Shape::Ssq => {
                let (n, x) = source?;
                let part = n.div_ceil(parts.max(1)).max(1) as usize;
                let sums = |x: &[f32]| {
                    let mut sums: Vec<f32> = x.chunks(part).map(|x| x.iter().map(|x| x * x).sum()).collect();
                    sums.resize(parts as usize, 0.0);
                    sums
                };
                bytes_of(&x.chunks_exact(*n as usize).flat_map(sums).collect::<Vec<_>>())
            }
            Shape::Partials => {
                let (n, logits) = source?;
                let rows = logits.chunks_exact(*n as usize);
                rows.flat_map(|row| best_of_tiles(row, spec.geometry.tile.max(1) as usize)).collect()
            }
            Shape::Cache(cache) => {
                let magnitude = self.magnitude_of(p.role, magnitude);
                let values = (0..cache.heads * cache.ctx * cache.head_dim).map(|_| magnitude * random.normal());
                match cache.kv {
                    KvType::F32 => values.flat_map(f32::to_le_bytes).collect(),
                    KvType::F16 => values.flat_map(|v| f16::from_f32(v).to_le_bytes()).collect(),
                }
            }
        })
    }

    fn magnitude_of(&self, role: Role, magnitude: f32) -> f32 {
        let norms = matches!(&self.spec.op, FusedOp::Attend(a) if a.prologue.is_some_and(|p| p.norm.is_some()));
        match role {
            Role::Q | Role::K if !norms => magnitude.min(1.0),
            Role::CacheK => magnitude.min(1.0),
            _ => magnitude,
        }
    }
}

/// Arg-max partials of a row of logits: the largest of each tile and where it is, the first among equals.
pub fn best_of_tiles(row: &[f32], tile: usize) -> Vec<u8> {
    let best = |(t, values): (usize, &[f32])| {
        // NaN is never the largest.
        let start = (f32::NEG_INFINITY, i32::MAX);
        let (value, index) = (0..).zip(values).fold(start, |best, (i, &v)| {
            let index = (t * tile) as i32 + i;
            if v > best.0 || (v == best.0 && index < best.1) { (v, index) } else { best }
        });
        [value.to_le_bytes(), index.to_le_bytes()].concat()
    };
    row.chunks(tile).enumerate().flat_map(best).collect()
}

fn layout(n: u32) -> Q8Layout {
    Q8Layout { n, block: Q8Layout::DEFAULT_BLOCK }
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}
