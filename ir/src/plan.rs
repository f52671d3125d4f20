//! The launch plan: kernels with their geometry, buffers with fixed addresses, and programs of launches.
//!
//! Everything is fixed at compile time. The only values that change between steps live in [`StepState`], [`SamplingState`],
//! the token list and the uniform numbers to sample with.

use crate::dtype::{KvType, Layout, Q8Layout};
use crate::fused::{FusedOp, ProgramKind};
use crate::graph::{Cache, CacheDecl, Rope, RopeDecl, Weight, WeightDecl};
use cranelift_entity::{PrimaryMap, entity_impl};
use serde::{Deserialize, Serialize};

/// Reference to a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Kernel(u32);
entity_impl!(Kernel, "k");

/// Reference to a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Buffer(u32);
entity_impl!(Buffer, "b");

/// The first operand of every launch: four i32, little-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[repr(C)]
pub struct StepState {
    /// Position of the chunk's first token.
    pub pos: i32,
    /// Tokens in the chunk, `1..=program.tokens`; work for others is skipped.
    pub n: i32,
    /// First token of the chunk whose logits and arg-max are wanted.
    pub head_from: i32,
    /// Number of the generation that the step belongs to: what the host counts, and finds beside each id in the outbox.
    pub generation: i32,
}

impl StepState {
    /// Size in device memory.
    pub const BYTES: u64 = 16;
    /// The bytes a device sees.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut out = [0; 16];
        for (chunk, v) in out.chunks_exact_mut(4).zip([self.pos, self.n, self.head_from, self.generation]) {
            chunk.copy_from_slice(&v.to_le_bytes());
        }
        out
    }
}

/// An entry of the outbox: the id in the lower half, the generation's number in the upper. One word, so that whoever sees the
/// number sees the id that belongs to it.
pub fn outbox_entry(id: i32, generation: i32) -> u64 {
    u64::from(id.cast_unsigned()) | u64::from(generation.cast_unsigned()) << 32
}

/// How the next token is chosen: little-endian, [`SamplingState::BYTES`] in all, the rest zero. All zero is greedy.
///
/// The fields mean what the sampler's parameters mean (the reference has the chain).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[repr(C)]
pub struct SamplingState {
    /// Divides the logits; 0 is greedy.
    pub temperature: f32,
    /// Likeliest tokens kept; with a temperature 1 up to [`KernelSpec::most_candidates`].
    pub top_k: u32,
    /// Sum of probabilities kept.
    pub top_p: f32,
    /// Least probability kept, relative to the likeliest.
    pub min_p: f32,
    /// Divides positive logits of tokens in the window, multiplies others; 0 and 1 do nothing.
    pub repeat_penalty: f32,
    /// Tokens before the chosen one that the penalty looks at.
    pub repeat_last_n: u32,
}

impl SamplingState {
    /// Size in device memory.
    pub const BYTES: u64 = 64;
    /// The bytes a device sees.
    pub fn to_bytes(self) -> [u8; 64] {
        let mut out = [0; 64];
        let [t, p, m, r] = [self.temperature, self.top_p, self.min_p, self.repeat_penalty].map(f32::to_le_bytes);
        let [k, n] = [self.top_k, self.repeat_last_n].map(u32::to_le_bytes);
        out.chunks_exact_mut(4).zip([t, k, p, m, r, n]).for_each(|(chunk, v)| chunk.copy_from_slice(&v));
        out
    }
    /// Of the bytes a device sees; the rest doesn't matter.
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        let word = |i: usize| [bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]];
        Self {
            temperature: f32::from_le_bytes(word(0)),
            top_k: u32::from_le_bytes(word(1)),
            top_p: f32::from_le_bytes(word(2)),
            min_p: f32::from_le_bytes(word(3)),
            repeat_penalty: f32::from_le_bytes(word(4)),
            repeat_last_n: u32::from_le_bytes(word(5)),
        }
    }
    /// Whether the choice is the plain arg-max.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0 && !self.penalises()
    }
    /// Whether a device whose plan draws from up to `most` candidates ([`Plan::most_candidates`]) makes this choice. For others
    /// it finds the arg-max, and the host reads the logits.
    pub fn is_for_device(&self, most: u32) -> bool {
        self.is_greedy() || self.is_sampled(most)
    }
    /// Whether such a device makes more of it than the arg-max.
    pub fn is_sampled(&self, most: u32) -> bool {
        if self.temperature > 0.0 { (1..=most).contains(&self.top_k) } else { self.penalises() }
    }
    fn penalises(&self) -> bool {
        self.repeat_penalty != 1.0 && self.repeat_penalty != 0.0
    }
}

/// How a kernel's work is spread. Fields that a skeleton has no use for are 1 (or 0 for `ssq_parts`).
///
/// GEMV: a workgroup computes `tile` outputs for `tokens` tokens. `waves / k_waves` groups of waves take `rows_per_wave` rows at
/// a time, `row_steps` times, so `rows_per_wave · (waves / k_waves) · row_steps = tile` (`2 · tile` for a gated pair: the tile
/// then holds both matrices' rows). The waves of one group split K. Segments are cut into tiles one after the other; a tile
/// never spans two segments (but for a gated pair).
///
/// Embed and Row: a workgroup computes `tile` elements of one token; a Row norm of the whole vector has `tile = n`.
/// Heads: a workgroup computes `tile` heads of one token, one wave per head.
/// Attend: `splits` workgroups per (KV head, token), `waves` waves each; the last one to finish combines.
/// Choose: one workgroup per token; `tile` logits to a partial that it reads.
/// Repack: one workgroup per row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Geometry {
    /// Lanes per wave (32 or 64).
    pub wave: u32,
    /// Waves per workgroup.
    pub waves: u32,
    /// GEMV: rows a wave multiplies at a time.
    pub rows_per_wave: u32,
    /// GEMV: waves that share rows by splitting K; divides `waves`.
    pub k_waves: u32,
    /// GEMV: times a workgroup repeats.
    pub row_steps: u32,
    /// Outputs (elements, heads) per workgroup.
    pub tile: u32,
    /// Tokens per workgroup.
    pub tokens: u32,
    /// Attention: workgroups per KV head and token.
    pub splits: u32,
    /// Partial sums (or arg-max partials) per token that the kernel reads.
    pub parts_in: u32,
}

impl Geometry {
    /// `waves` waves of `wave` lanes for `tile` outputs: one token, one row, nothing split, no partial sums read.
    pub const fn plain(wave: u32, waves: u32, tile: u32) -> Self {
        Self { wave, waves, rows_per_wave: 1, k_waves: 1, row_steps: 1, tile, tokens: 1, splits: 1, parts_in: 0 }
    }
}

/// A kernel: meaning and geometry. Layers with equal specs share it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KernelSpec {
    /// Symbol in the code object: `k012_ffn_down`.
    pub name: String,
    /// What it computes.
    pub op: FusedOp,
    /// How.
    pub geometry: Geometry,
}

impl KernelSpec {
    /// Threads per workgroup.
    pub fn threads(&self) -> u32 {
        self.geometry.wave * self.geometry.waves
    }

    /// Workgroups along x: parts of one token's work (rows of a repacked piece). Also the number of partial sums (or arg-max
    /// partials) it writes.
    pub fn parts_out(&self) -> u32 {
        use crate::fused::{Combine, Tail};
        let g = &self.geometry;
        match &self.op {
            FusedOp::Embed(e) => e.n.div_ceil(g.tile),
            FusedOp::Row(r) => r.n.div_ceil(g.tile),
            FusedOp::Gemv(op) => match &op.tail {
                Tail::Vector { combine: Combine::Gated(_), .. } => op.segments[0].rows.div_ceil(g.tile),
                _ => op.segments.iter().map(|s| s.rows.div_ceil(g.tile)).sum(),
            },
            FusedOp::Attend(a) => a.cache.heads * g.splits,
            FusedOp::Heads(h) => h.parts.iter().map(|p| p.heads.div_ceil(g.tile)).sum(),
            FusedOp::Choose(_) => 1,
            FusedOp::Repack(r) => r.piece,
        }
    }

    /// The grid for a program of up to `tokens` tokens: x parts, y groups of tokens.
    pub fn grid(&self, tokens: u32) -> [u32; 3] {
        [self.parts_out(), tokens.div_ceil(self.geometry.tokens), 1]
    }

    /// Bytes of [`crate::fused::Role::Scratch`] for a program of `tokens` tokens: per (token, query head, split) the running
    /// maximum, the sum, and `head_dim` weighted values, all f32. Zero with one split.
    pub fn scratch_bytes(&self, tokens: u32) -> u64 {
        match &self.op {
            FusedOp::Attend(a) if self.geometry.splits > 1 => {
                u64::from(tokens) * u64::from(a.heads) * u64::from(self.geometry.splits) * 4 * u64::from(a.cache.head_dim + 2)
            }
            _ => 0,
        }
    }

    /// Most of the likeliest tokens that a [`FusedOp::Choose`] can draw from ([`SamplingState::top_k`]); 0 for other ops.
    pub fn most_candidates(&self) -> u32 {
        const MOST: u32 = 128;
        // The tiles of so many partials fit the workgroup's local memory.
        const ROWS: u32 = 4096;
        if matches!(self.op, FusedOp::Choose(_)) { MOST.min(ROWS / self.geometry.tile.max(1)) } else { 0 }
    }

    /// Bytes of [`crate::fused::Role::Counters`]: one u32 per (token, KV head).
    pub fn counter_bytes(&self, tokens: u32) -> u64 {
        match &self.op {
            FusedOp::Attend(a) => 4 * u64::from(tokens) * u64::from(a.cache.heads),
            _ => 0,
        }
    }
}

/// Which allocation a buffer lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Space {
    /// Weights, uploaded at load.
    Weights,
    /// KV caches.
    Cache,
    /// Rotation tables, state, tokens, sampling, counters, logits, ids: live all the time. Zeroed at load.
    Persistent,
    /// Written by the device, read by the host while it works: the host's memory that the device can address. Zeroed at load.
    Pinned,
    /// Values within a step; buffers share addresses when their lives don't overlap. Before the first step: staging.
    Arena,
}

impl Space {
    /// All spaces.
    pub const ALL: [Space; 5] = [Space::Weights, Space::Cache, Space::Persistent, Space::Pinned, Space::Arena];
}

/// What a buffer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BufferKind {
    /// A weight tensor in a layout.
    Weight(Weight, Layout),
    /// A rotation table `[ctx, dims/2]` of (cos, sin) f32.
    Rope(Rope),
    /// A cache.
    Cache(Cache),
    /// [`StepState`].
    State,
    /// i32 `[ctx + 1]`.
    Tokens,
    /// u64 `[ctx + 1]`: chosen ids by position, for the host; see [`outbox_entry`].
    Outbox,
    /// [`SamplingState`].
    Sampling,
    /// f64 `[ctx + 1]`: the uniform number for the token chosen for each position.
    Draws,
    /// f32 `[tokens, vocab]`.
    Logits,
    /// i32 `[tokens]`.
    Ids,
    /// u32 counters, zero between launches.
    Counters,
    /// f32 `[tokens, n]`.
    F32(u32),
    /// int8 blocks.
    Q8(Q8Layout),
    /// f32 `[tokens, parts]`.
    Ssq(u32),
    /// (f32, i32) `[tokens, parts]`.
    Partials(u32),
    /// Scratch of one launch.
    Scratch,
    /// Rows of a weight on their way into their layout; used at load only.
    Staging,
}

/// A buffer at a fixed place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BufferDecl {
    /// Contents.
    pub kind: BufferKind,
    /// Allocation.
    pub space: Space,
    /// Byte offset in the allocation; a multiple of [`Plan::ALIGN`].
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Predicted cost of a launch; bytes for a full program (all tokens), attention at [`Cost::POSITIONS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Bytes read from memory.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
    /// Floating-point (or integer multiply-add × 2) operations.
    pub flops: u64,
    /// Predicted time in nanoseconds on the target's reference card.
    pub ns: u64,
}

impl Cost {
    /// Positions in the cache at which attention is reckoned (fewer if the context is shorter).
    pub const POSITIONS: u32 = 512;
}

/// One launch: a kernel and its arguments, parallel to [`FusedOp::params`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Kernel.
    pub kernel: Kernel,
    /// Buffers passed.
    pub args: Vec<Buffer>,
    /// Workgroups.
    pub grid: [u32; 3],
    /// Layer, for reports.
    pub layer: Option<u32>,
    /// Short name.
    pub label: String,
    /// Prediction.
    pub cost: Cost,
}

/// A program: launches in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Decode or prompt.
    pub kind: ProgramKind,
    /// Most tokens per step.
    pub tokens: u32,
    /// Launches.
    pub launches: Vec<Launch>,
    /// Where the logits are.
    pub logits: Buffer,
    /// Where the chosen ids are.
    pub ids: Buffer,
}

/// Facts about the model that the runtime reports and checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Name to print.
    pub name: String,
    /// Architecture as the GGUF names it.
    pub arch: String,
    /// Layers.
    pub layers: u32,
    /// Vocabulary.
    pub vocab: u32,
    /// Context the model was trained with.
    pub ctx_train: u32,
}

/// The plan for one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Target name (`gfx1100`).
    pub target: String,
    /// The model.
    pub model: ModelInfo,
    /// Positions of the cache.
    pub ctx: u32,
    /// Cache type.
    pub kv: KvType,
    /// Tensors.
    pub weights: PrimaryMap<Weight, WeightDecl>,
    /// Rotation tables.
    pub ropes: PrimaryMap<Rope, RopeDecl>,
    /// Caches.
    pub caches: PrimaryMap<Cache, CacheDecl>,
    /// Buffers.
    pub buffers: PrimaryMap<Buffer, BufferDecl>,
    /// Kernels.
    pub kernels: PrimaryMap<Kernel, KernelSpec>,
    /// What brings weights into their layout at load: a [`Repack`](crate::fused::Repack) for each weight that isn't in GGUF's,
    /// all from one staging buffer. It runs once per piece of rows, with the piece's first row and number of rows as state.
    /// No time is predicted for it, since the bus is slower.
    pub load: Vec<Launch>,
    /// Decode, then prompt.
    pub programs: Vec<Program>,
    /// The step state's buffer.
    pub state: Buffer,
    /// The token list's buffer.
    pub tokens: Buffer,
    /// The outbox.
    pub outbox: Buffer,
    /// The buffer of [`SamplingState`].
    pub sampling: Buffer,
    /// The uniform numbers' buffer.
    pub draws: Buffer,
}

impl Plan {
    /// Alignment of every buffer in its space.
    pub const ALIGN: u64 = 256;

    /// Bytes to allocate for a space.
    pub fn space_bytes(&self, space: Space) -> u64 {
        self.buffers
            .values()
            .filter(|b| b.space == space)
            .map(|b| b.offset + b.bytes)
            .max()
            .unwrap_or(0)
            .next_multiple_of(Self::ALIGN)
    }

    /// The same plan with all weights in GGUF's layout, each at its place: for a device that reads them from the file.
    pub fn with_gguf_weights(mut self) -> Self {
        self.load.clear();
        for spec in self.kernels.values_mut() {
            spec.op = spec.op.clone().with_layouts(|_, _| Layout::Gguf);
        }
        for buffer in self.buffers.values_mut() {
            match &mut buffer.kind {
                BufferKind::Weight(w, layout) => {
                    *layout = Layout::Gguf;
                    buffer.bytes = self.weights.get(*w).map_or(buffer.bytes, WeightDecl::bytes);
                }
                BufferKind::Staging => buffer.bytes = 0,
                _ => {}
            }
        }
        self
    }

    /// Most of the likeliest tokens that every program can draw from, see [`KernelSpec::most_candidates`].
    pub fn most_candidates(&self) -> u32 {
        let choices = self.kernels.values().filter(|k| matches!(k.op, FusedOp::Choose(_)));
        choices.map(KernelSpec::most_candidates).min().unwrap_or(0)
    }

    /// The program of a kind.
    pub fn program(&self, kind: ProgramKind) -> Option<&Program> {
        self.programs.iter().find(|p| p.kind == kind)
    }
}
