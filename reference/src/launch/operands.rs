//! Typed access to a launch's operands by their role, with every length and alignment checked.

use super::{Arg, LaunchError, Step};
use crate::blocks::{Matrix, Q8Token, WideToken, halves_to_f32};
use half::f16;
use hipc_ir::dtype::{DType, KvType, Layout, Q8Layout};
use hipc_ir::fused::{CacheSpec, Role};
use hipc_ir::plan::KernelSpec;

/// The operands of one launch; each is taken once.
pub(super) struct Operands<'a, 's> {
    kernel: &'s str,
    args: Vec<(Role, Option<Arg<'a>>)>,
}

impl<'a, 's> Operands<'a, 's> {
    pub fn new(spec: &'s KernelSpec, args: Vec<Arg<'a>>) -> Result<Self, LaunchError> {
        let params = spec.op.params();
        if params.len() != args.len() {
            return Err(LaunchError::Count { kernel: spec.name.clone(), expected: params.len(), found: args.len() });
        }
        Ok(Self { kernel: &spec.name, args: params.iter().map(|p| p.role).zip(args.into_iter().map(Some)).collect() })
    }

    fn error(&self, role: Role, what: impl Into<String>) -> LaunchError {
        LaunchError::Operand { kernel: self.kernel.to_string(), role, what: what.into() }
    }

    fn take(&mut self, role: Role) -> Result<Arg<'a>, LaunchError> {
        let found = self.args.iter_mut().find(|(r, _)| *r == role).and_then(|(_, arg)| arg.take());
        found.ok_or_else(|| self.error(role, "is missing"))
    }

    /// The bytes of an operand that is read.
    pub fn bytes(&mut self, role: Role) -> Result<&'a [u8], LaunchError> {
        Ok(match self.take(role)? {
            Arg::Read(bytes) => bytes,
            Arg::Write(bytes) => bytes,
        })
    }

    pub fn bytes_mut(&mut self, role: Role) -> Result<&'a mut [u8], LaunchError> {
        match self.take(role)? {
            Arg::Write(bytes) => Ok(bytes),
            Arg::Read(_) => Err(self.error(role, "isn't writable")),
        }
    }

    /// The first `n` values of an operand that is read.
    pub fn read<T: bytemuck::AnyBitPattern>(&mut self, role: Role, n: usize) -> Result<&'a [T], LaunchError> {
        let bytes = self.bytes(role)?;
        let len = n * size_of::<T>();
        let bytes = bytes.get(..len).ok_or_else(|| self.error(role, format!("has {} bytes, {len} are needed", bytes.len())))?;
        bytemuck::try_cast_slice(bytes).map_err(|e| self.error(role, format!("can't be read: {e}")))
    }

    /// The first `n` values of an operand that is written.
    pub fn write<T: bytemuck::Pod>(&mut self, role: Role, n: usize) -> Result<&'a mut [T], LaunchError> {
        let bytes = self.bytes_mut(role)?;
        let (have, len) = (bytes.len(), n * size_of::<T>());
        let bytes = bytes.get_mut(..len).ok_or_else(|| self.error(role, format!("has {have} bytes, {len} are needed")))?;
        bytemuck::try_cast_slice_mut(bytes).map_err(|e| self.error(role, format!("can't be written: {e}")))
    }

    pub fn matrix(&mut self, role: Role, dtype: DType, layout: Layout, rows: u32, cols: u32) -> Result<Matrix<'a>, LaunchError> {
        let bytes = self.bytes(role)?;
        let len = layout.row_bytes(dtype, cols).map_or(0, |b| b * u64::from(rows)) as usize;
        let matrix = bytes.get(..len).and_then(|bytes| Matrix::with_layout(dtype, layout, cols, bytes));
        matrix.ok_or_else(|| {
            self.error(role, format!("has {} bytes, which isn't {rows} × {cols} of {dtype} in {layout:?}", bytes.len()))
        })
    }

    pub fn q8(&mut self, role: Role, n: u32, tokens: usize) -> Result<Vec<WideToken<'a>>, LaunchError> {
        let bytes = self.bytes(role)?;
        let parsed = (0..tokens).map(|t| Q8Token::new(q8_layout(n), bytes, t).map(Q8Token::widen)).collect::<Option<Vec<_>>>();
        parsed.ok_or_else(|| {
            self.error(role, format!("has {} bytes (or isn't aligned), {tokens} tokens of {n} are needed", bytes.len()))
        })
    }

    pub fn cache(&mut self, role: Role, spec: CacheSpec, step: Step) -> Result<CacheRef<'a>, LaunchError> {
        check_positions(spec, step)?;
        let n = cache_len(spec);
        let data = match spec.kv {
            KvType::F16 => CacheData::F16(self.read(role, n)?),
            KvType::F32 => CacheData::F32(self.read(role, n)?),
        };
        Ok(CacheRef { spec, data })
    }

    /// A cache as somebody else left it.
    pub fn stored<'b>(&self, role: Role, bytes: &'b [u8], spec: CacheSpec) -> Result<CacheRef<'b>, LaunchError> {
        let bad = || self.error(role, format!("was left with {} bytes (or isn't aligned)", bytes.len()));
        let n = cache_len(spec);
        let data = match spec.kv {
            KvType::F16 => bytemuck::try_cast_slice(bytes).ok().and_then(|all| all.get(..n)).map(CacheData::F16),
            KvType::F32 => bytemuck::try_cast_slice(bytes).ok().and_then(|all| all.get(..n)).map(CacheData::F32),
        };
        Ok(CacheRef { spec, data: data.ok_or_else(bad)? })
    }

    pub fn cache_mut(&mut self, role: Role, spec: CacheSpec, step: Step) -> Result<CacheMut<'a>, LaunchError> {
        check_positions(spec, step)?;
        let n = cache_len(spec);
        let data = match spec.kv {
            KvType::F16 => CacheDataMut::F16(self.write(role, n)?),
            KvType::F32 => CacheDataMut::F32(self.write(role, n)?),
        };
        Ok(CacheMut { spec, data })
    }
}

/// The int8 layout of a launch's operands.
pub(super) fn q8_layout(n: u32) -> Q8Layout {
    Q8Layout { n, block: Q8Layout::DEFAULT_BLOCK }
}

fn cache_len(spec: CacheSpec) -> usize {
    spec.heads as usize * spec.ctx as usize * spec.head_dim as usize
}

fn check_positions(spec: CacheSpec, step: Step) -> Result<(), LaunchError> {
    let end = step.pos + step.tokens;
    let fits = end <= spec.ctx as usize;
    if fits { Ok(()) } else { Err(LaunchError::State { pos: step.pos as i32, end: end as i32, ctx: spec.ctx }) }
}

#[derive(Clone, Copy)]
enum CacheData<'a> {
    F16(&'a [u16]),
    F32(&'a [f32]),
}

/// A cache that is read, `[heads, ctx, head_dim]`.
#[derive(Clone, Copy)]
pub(super) struct CacheRef<'a> {
    spec: CacheSpec,
    data: CacheData<'a>,
}

impl CacheRef<'_> {
    /// Positions from `pos` on of one head as f32, `out.len() / head_dim` of them.
    pub fn load(&self, head: usize, pos: usize, out: &mut [f32]) {
        let from = (head * self.spec.ctx as usize + pos) * self.spec.head_dim as usize;
        match self.data {
            CacheData::F16(bits) => halves_to_f32(&bits[from..from + out.len()], out),
            CacheData::F32(values) => out.copy_from_slice(&values[from..from + out.len()]),
        }
    }
}

enum CacheDataMut<'a> {
    F16(&'a mut [u16]),
    F32(&'a mut [f32]),
}

/// A cache that is written.
pub(super) struct CacheMut<'a> {
    spec: CacheSpec,
    data: CacheDataMut<'a>,
}

impl<'a> CacheMut<'a> {
    /// Writes one head's value at a position.
    pub fn store(&mut self, head: usize, pos: usize, value: impl Iterator<Item = f32>) {
        let n = self.spec.head_dim as usize;
        let from = (head * self.spec.ctx as usize + pos) * n;
        match &mut self.data {
            CacheDataMut::F16(bits) => {
                bits[from..from + n].iter_mut().zip(value).for_each(|(b, v)| *b = f16::from_f32(v).to_bits())
            }
            CacheDataMut::F32(values) => values[from..from + n].iter_mut().zip(value).for_each(|(o, v)| *o = v),
        }
    }

    /// The cache as it is now.
    pub fn into_ref(self) -> CacheRef<'a> {
        let data = match self.data {
            CacheDataMut::F16(bits) => CacheData::F16(bits),
            CacheDataMut::F32(values) => CacheData::F32(values),
        };
        CacheRef { spec: self.spec, data }
    }
}
