//! Single launches on any driver: operands of a kernel made at random, executed, compared with the reference.

use half::{bf16, f16};
use hipc_ir::dtype::{DType, KvType, Layout, Q8Layout};
use hipc_ir::fused::{Access, Choose, FusedOp, Param, Role, Shape};
use hipc_ir::plan::{KernelSpec, SamplingState, StepState};
use hipc_reference::blocks::{quantize, split_row};
use hipc_reference::launch::{Finding, check};
use hipfire_run::device::{DeviceError, DevicePtr, Driver, KernelLaunch};

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
    /// From 0 up to `n`, without it.
    pub fn below(&mut self, n: u32) -> u32 {
        (self.bits() >> 32) as u32 % n.max(1)
    }
    /// Uniform in 0 … 1.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 24) as f32
    }
    /// About normal, variance 1: the sum of twelve uniform numbers.
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.unit()).sum::<f32>() - 6.0
    }
}

/// A launch's kernel in a program of up to `tokens` tokens, with the bytes of its operands.
#[derive(Clone, Debug)]
pub struct Case {
    /// Kernel.
    pub spec: KernelSpec,
    /// Most tokens per step.
    pub tokens: u32,
    /// Bytes from before the launch, parallel to [`FusedOp::params`]. What is only written holds NaNs.
    pub operands: Vec<Vec<u8>>,
}

/// What isn't a result holds this before a launch: NaN in every float format.
const UNTOUCHED: u8 = 0xff;

impl Case {
    /// Random operands; `ctx` positions where the op itself names none.
    pub fn random(spec: &KernelSpec, tokens: u32, ctx: u32, seed: u64) -> Self {
        let mut random = Random(seed);
        let make = |p: &Param| operand(spec, p, tokens, ctx, &mut random);
        let mut operands: Vec<Vec<u8>> = spec.op.params().iter().map(make).collect();
        if let FusedOp::Choose(Choose { n, partials: true, .. }) = spec.op {
            // A choice relies on partials that are its logits'.
            let place = |role| spec.op.params().iter().position(|p| p.role == role);
            if let (Some(partials), Some(logits)) = (place(Role::Partials), place(Role::Logits)) {
                let rows = operands[logits].as_chunks::<4>().0.chunks_exact(n as usize);
                let best = |row: &[[u8; 4]]| {
                    let row: Vec<f32> = row.iter().map(|b| f32::from_le_bytes(*b)).collect();
                    best_of_tiles(&row, spec.geometry.tile as usize)
                };
                operands[partials] = rows.flat_map(best).collect();
            }
        }
        Self { spec: spec.clone(), tokens, operands }
    }

    /// Where the state stands among the operands, and the same operands with this state.
    fn with_state(&self, state: StepState) -> Vec<Vec<u8>> {
        let mut operands = self.operands.clone();
        for (param, bytes) in self.spec.op.params().iter().zip(&mut operands) {
            if param.role == Role::State {
                *bytes = state.to_bytes().to_vec();
            }
        }
        operands
    }

    /// Executes the launch once and compares with the reference; the operands' bytes behind it, and what was found.
    ///
    /// # Errors
    /// What the driver reports, or a launch that doesn't fit its operands.
    pub fn run(&self, on: &mut Loaded<'_>, state: StepState) -> Result<(Vec<Vec<u8>>, Vec<Finding>), DeviceError> {
        let before = self.with_state(state);
        let mut after = before.clone();
        for (bytes, &at) in before.iter().zip(&on.addresses) {
            on.driver.upload(at, bytes)?;
        }
        let kernargs: Vec<u8> = on.addresses.iter().flat_map(|a| a.to_le_bytes()).collect();
        let (grid, threads) = (self.spec.grid(self.tokens), self.spec.threads());
        on.driver.launch(KernelLaunch { kernel: on.kernel, grid, threads, kernargs: &kernargs })?;
        for (bytes, &at) in after.iter_mut().zip(&on.addresses) {
            on.driver.download(at, bytes)?;
        }
        let [b, a] = [&before, &after].map(|all| all.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let findings = check(&self.spec, state, &b, &a).map_err(|e| DeviceError::Internal(e.to_string()))?;
        Ok((after, findings))
    }

    /// Operands that a launch changed although it must not: what is only read, and results of tokens that the step lacks.
    pub fn strayed(&self, state: StepState, after: &[Vec<u8>]) -> Vec<Role> {
        let before = self.with_state(state);
        let params = self.spec.op.params();
        let strayed = |((p, b), a): &((&Param, &Vec<u8>), &Vec<u8>)| {
            let first = match (p.access, p.shape) {
                (Access::Read, _) => 0,
                (_, Shape::F32(_) | Shape::Q8(_) | Shape::Ssq | Shape::Partials | Shape::Ids) => {
                    b.len() / self.tokens as usize * state.n as usize
                }
                _ => b.len(),
            };
            a[first..] != b[first..]
        };
        params.iter().zip(&before).zip(after).filter(strayed).map(|((p, _), _)| p.role).collect()
    }
}

/// A kernel on a driver, with memory for its operands, each in an allocation of its own.
pub struct Loaded<'d> {
    driver: &'d mut dyn Driver,
    kernel: u64,
    addresses: Vec<DevicePtr>,
}

impl<'d> Loaded<'d> {
    /// Allocates.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(driver: &'d mut dyn Driver, kernel: u64, case: &Case) -> Result<Self, DeviceError> {
        let addresses = case.operands.iter().map(|o| driver.alloc(o.len() as u64)).collect::<Result<_, _>>()?;
        Ok(Self { driver, kernel, addresses })
    }
}

/// Arg-max partials of a row of logits: the largest of each tile and where it is, the first among equals.
pub fn best_of_tiles(row: &[f32], tile: usize) -> Vec<u8> {
    let best = |(t, values): (usize, &[f32])| {
        let start = (f32::NEG_INFINITY, i32::MAX);
        let (value, index) = (0..).zip(values).fold(start, |best, (i, &v)| {
            let index = (t * tile) as i32 + i;
            if v > best.0 || (v == best.0 && index < best.1) { (v, index) } else { best }
        });
        [value.to_le_bytes(), index.to_le_bytes()].concat()
    };
    row.chunks(tile).enumerate().flat_map(best).collect()
}

fn bytes_of(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

fn operand(spec: &KernelSpec, p: &Param, tokens: u32, ctx: u32, random: &mut Random) -> Vec<u8> {
    let (parts_in, parts_out) = (spec.geometry.parts_in, spec.parts_out());
    let parts = if p.access == Access::Read { parts_in } else { parts_out };
    let size = |n: u32| (tokens * n) as usize;
    let only_written = p.access == Access::Write;
    match p.shape {
        Shape::State => vec![0; StepState::BYTES as usize],
        Shape::Sampling => {
            let how =
                SamplingState { temperature: 0.9, top_k: 20, top_p: 0.9, min_p: 0.01, repeat_penalty: 1.2, repeat_last_n: 9 };
            how.to_bytes().to_vec()
        }
        Shape::Draws => (0..=ctx).flat_map(|_| f64::from(random.unit()).to_le_bytes()).collect(),
        Shape::Tokens | Shape::Outbox => {
            let vocab = if let FusedOp::Embed(e) = &spec.op { e.vocab } else { 1 << 15 };
            (0..=ctx).flat_map(|_| random.below(vocab).to_le_bytes()).collect()
        }
        Shape::Scratch => vec![UNTOUCHED; spec.scratch_bytes(tokens) as usize],
        Shape::Counters => vec![0; spec.counter_bytes(tokens) as usize],
        Shape::F32(n) if only_written => vec![UNTOUCHED; 4 * size(n)],
        Shape::F32(n) => bytes_of((0..size(n)).map(|_| random.normal())),
        Shape::Q8(n) => {
            let layout = Q8Layout { n, block: Q8Layout::DEFAULT_BLOCK };
            let mut bytes = vec![UNTOUCHED; size(layout.stride())];
            for token in bytes.chunks_exact_mut(layout.stride() as usize).filter(|_| !only_written) {
                let x: Vec<f32> = (0..n).map(|_| random.normal()).collect();
                quantize(layout, &x, token);
            }
            bytes
        }
        Shape::Ssq if only_written => vec![UNTOUCHED; 4 * size(parts)],
        Shape::Ssq => bytes_of((0..size(parts)).map(|_| 32.0 * random.unit())),
        Shape::Partials if only_written => vec![UNTOUCHED; 8 * size(parts)],
        Shape::Partials => {
            // Every part has the arg-max of its own rows.
            let n = if let FusedOp::Choose(a) = &spec.op { a.n } else { parts };
            let rows = n.div_ceil(parts);
            let pair = |i: usize| {
                let index = ((i as u32 % parts) * rows + random.below(rows)).min(n - 1);
                [random.normal().to_le_bytes(), index.to_le_bytes()].concat()
            };
            (0..size(parts)).flat_map(pair).collect()
        }
        Shape::Ids => vec![UNTOUCHED; 4 * tokens as usize],
        Shape::RopeTable(rope) => {
            let angles = (0..ctx * (rope.dims / 2)).map(|_| 6.3 * random.unit());
            bytes_of(angles.flat_map(|a| [a.cos(), a.sin()]))
        }
        Shape::Cache(cache) => {
            let values = (0..cache.heads * cache.ctx * cache.head_dim).map(|_| random.normal());
            match cache.kv {
                KvType::F32 => bytes_of(values),
                KvType::F16 => values.flat_map(|v| f16::from_f32(v).to_le_bytes()).collect(),
            }
        }
        Shape::Weight { dtype, layout: Layout::Gguf, rows, cols } => weights(dtype, rows * cols, random),
        Shape::Weight { dtype, layout: Layout::Split, rows, cols } => {
            let [from, to] = Layout::ALL.map(|l| l.row_bytes(dtype, cols).unwrap_or(1) as usize);
            let (blocks, mut split) = (weights(dtype, rows * cols, random), vec![0; rows as usize * to]);
            for (row, out) in blocks.chunks_exact(from).zip(split.chunks_exact_mut(to)) {
                split_row(dtype, row, out);
                out[from..].fill(UNTOUCHED);
            }
            split
        }
    }
}

/// Random blocks of a storage type; block scales about as large as those of real weights.
pub fn weights(dtype: DType, n: u32, random: &mut Random) -> Vec<u8> {
    let blocks = n / dtype.block_len();
    let mut bytes = Vec::with_capacity((blocks * dtype.block_bytes()) as usize);
    for _ in 0..blocks {
        let value = random.normal();
        let scale = f16::from_f32(0.004 * (1.0 + random.unit())).to_le_bytes();
        let minimum = f16::from_f32(0.01 * (1.0 + random.unit())).to_le_bytes();
        let mut any = |n: usize| -> Vec<u8> { (0..n).map(|_| random.bits() as u8).collect() };
        match dtype {
            DType::F32 => bytes.extend(value.to_le_bytes()),
            DType::F16 => bytes.extend(f16::from_f32(value).to_le_bytes()),
            DType::BF16 => bytes.extend(bf16::from_f32(value).to_le_bytes()),
            DType::Q4_0 => bytes.extend([scale.to_vec(), any(16)].concat()),
            DType::Q8_0 => bytes.extend([scale.to_vec(), any(32)].concat()),
            DType::Q4_K => bytes.extend([scale.to_vec(), minimum.to_vec(), any(12), any(128)].concat()),
            DType::Q6_K => bytes.extend([any(128), any(64), any(16), scale.to_vec()].concat()),
        }
    }
    bytes
}
