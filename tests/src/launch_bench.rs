//! Single launches on any driver: operands of a kernel made at random, executed, compared with the reference.

use half::{bf16, f16};
use hipc_ir::dtype::{DType, Layout};
use hipc_ir::fused::{Param, Role, Shape};
use hipc_ir::plan::{KernelSpec, StepState};
use hipc_reference::blocks::split_row;
use hipc_reference::launch::{Finding, check, strayed};
use hipfire_run::device::{DeviceError, DevicePtr, Driver, KernelLaunch};
pub use hipfire_run::verify::inputs::{Random, best_of_tiles};
use hipfire_run::verify::inputs::{Request, SAMPLED, UNTOUCHED};

/// A launch's kernel in a program of up to `tokens` tokens, with the bytes of its operands.
#[derive(Clone, Debug)]
pub struct Case {
    /// Kernel.
    pub spec: KernelSpec,
    /// Most tokens per step.
    pub tokens: u32,
    /// Bytes from before the launch, parallel to the op's parameters. What is only written holds NaNs.
    pub operands: Vec<Vec<u8>>,
}

impl Case {
    /// Random operands; `ctx` positions where the op itself names none.
    pub fn random(spec: &KernelSpec, tokens: u32, ctx: u32, seed: u64) -> Self {
        Self::of(&Request { spec, tokens, ctx, magnitude: 1.0, sampling: SAMPLED, seed })
    }

    /// The operands that are asked for, and weights and tables by the same seed.
    pub fn of(request: &Request<'_>) -> Self {
        let Request { spec, tokens, ctx, seed, .. } = *request;
        let params = spec.op.params();
        let made = request.operands().into_iter().zip(&params).zip(1000..);
        let operands = made.map(|((made, p), i)| made.unwrap_or_else(|| fixed(p, ctx, &mut Random::fork(seed, i)))).collect();
        Self { spec: spec.clone(), tokens, operands }
    }

    /// The operands with this state.
    pub(crate) fn with_state(&self, state: StepState) -> Vec<Vec<u8>> {
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
        let after = self.execute(on, state)?;
        let findings = self.compare(state, &after)?;
        Ok((after, findings))
    }

    /// Executes the launch once; the operands' bytes behind it.
    ///
    /// # Errors
    /// What the driver reports.
    pub fn execute(&self, on: &mut Loaded<'_>, state: StepState) -> Result<Vec<Vec<u8>>, DeviceError> {
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
        Ok(after)
    }

    /// Compares operands behind a launch with the reference.
    ///
    /// # Errors
    /// A launch that doesn't fit its operands.
    pub fn compare(&self, state: StepState, after: &[Vec<u8>]) -> Result<Vec<Finding>, DeviceError> {
        let before = self.with_state(state);
        let [b, a] = [before.as_slice(), after].map(|all| all.iter().map(Vec::as_slice).collect::<Vec<_>>());
        check(&self.spec, state, &b, &a).map_err(|e| DeviceError::Internal(e.to_string()))
    }

    /// Operands that a launch changed although it must not: what is only read, and results of tokens that the step lacks.
    pub fn strayed(&self, state: StepState, after: &[Vec<u8>]) -> Vec<Role> {
        let before = self.with_state(state);
        let [b, a] = [before.as_slice(), after].map(|all| all.iter().map(Vec::as_slice).collect::<Vec<_>>());
        strayed(&self.spec, self.tokens, state, &b, &a)
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

/// Weights and tables.
fn fixed(p: &Param, ctx: u32, random: &mut Random) -> Vec<u8> {
    match p.shape {
        Shape::RopeTable(rope) => {
            let angles = (0..ctx * (rope.dims / 2)).map(|_| 6.3 * random.unit());
            angles.flat_map(|a| [a.cos(), a.sin()]).flat_map(f32::to_le_bytes).collect()
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
        _ => Vec::new(),
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
