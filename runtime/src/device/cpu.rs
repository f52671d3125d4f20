//! The device `cpu`: executes a plan by the meaning of its launches, in parallel, with the machine's vectors.
//!
//! Every buffer of the plan has memory of its own, except weights: those are read where they are (usually in the mapped file), so
//! the plan that is executed has them in GGUF's layout.

use super::bandwidth::noise;
use super::host::memory as machine_memory;
use super::{Around, Backend, DeviceError, Mark, MemoryUse, ReadTimes, Recording, WeightSource, never_sent, received};
use crate::tables::rope_table;
use hipc_ir::EntityRef;
use hipc_ir::fused::{Access, Param};
use hipc_ir::graph::Weight;
use hipc_ir::plan::{Buffer, BufferKind, Launch, Plan, StepState};
use hipc_reference::launch::{Arg, exec};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

const NAME: &str = "cpu";

enum Memory {
    /// Zeroed at load; u64 so that it is aligned for every element type. The last may lie partly behind the buffer's end.
    Own(Vec<u64>),
    Weight(Weight),
}

/// A plan on this machine's processor.
pub struct CpuBackend {
    plan: Plan,
    weights: Arc<dyn WeightSource + Send>,
    memory: Vec<Memory>,
    /// Operands of every kernel.
    params: Vec<Vec<Param>>,
}

impl CpuBackend {
    /// Allocates the plan's buffers and fills the rotation tables.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`], and [`DeviceError::Internal`] where the weights aren't the plan's.
    pub fn new(plan: Plan, weights: Arc<dyn WeightSource + Send>) -> Result<Self, DeviceError> {
        let plan = plan.with_gguf_weights();
        for (w, decl) in plan.weights.iter() {
            let (expected, found) = (decl.bytes(), weights.weight(w).len() as u64);
            if expected != found {
                return Err(DeviceError::Internal(format!(
                    "tensor {:?} has {found} bytes, the plan expects {expected}",
                    decl.name
                )));
            }
        }
        let mut memory = Vec::with_capacity(plan.buffers.len());
        for (buffer, decl) in plan.buffers.iter() {
            memory.push(match decl.kind {
                BufferKind::Weight(w, _) => Memory::Weight(w),
                BufferKind::Rope(r) => {
                    let rope = &plan.ropes[r];
                    let factors: Option<Vec<f32>> =
                        rope.factors.map(|w| weights.weight(w).as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect());
                    let mut own = allocate(decl.bytes, buffer)?;
                    let table = rope_table(rope, plan.ctx, factors.as_deref());
                    let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut own);
                    for (out, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(table.iter().flatten()) {
                        *out = value.to_le_bytes();
                    }
                    Memory::Own(own)
                }
                _ => Memory::Own(allocate(decl.bytes, buffer)?),
            });
        }
        let params = plan.kernels.values().map(|k| k.op.params()).collect();
        Ok(Self { plan, weights, memory, params })
    }

    fn locate(&self, buffer: Buffer, offset: u64, len: usize) -> Result<Range<usize>, DeviceError> {
        let end = offset.checked_add(len as u64);
        match (self.plan.buffers.get(buffer), end) {
            (Some(decl), Some(end)) if end <= decl.bytes => Ok(offset as usize..end as usize),
            _ => Err(DeviceError::Internal(format!("{len} bytes at {offset} of {buffer} are outside of it"))),
        }
    }
}

impl Backend for CpuBackend {
    fn describe(&self) -> String {
        let threads = rayon::current_num_threads();
        format!("{NAME} ({threads} thread{})", if threads == 1 { "" } else { "s" })
    }

    fn write(&mut self, buffer: Buffer, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        let range = self.locate(buffer, offset, bytes.len())?;
        match &mut self.memory[buffer.index()] {
            Memory::Own(own) => {
                bytemuck::cast_slice_mut::<u64, u8>(own)[range].copy_from_slice(bytes);
                Ok(())
            }
            Memory::Weight(_) => Err(DeviceError::Internal(format!("{buffer} is a weight and can't be written"))),
        }
    }

    fn read(&mut self, buffer: Buffer, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        let range = self.locate(buffer, offset, bytes.len())?;
        bytes.copy_from_slice(match &self.memory[buffer.index()] {
            Memory::Own(own) => &bytemuck::cast_slice::<u64, u8>(own)[range],
            Memory::Weight(w) => &self.weights.weight(*w)[range],
        });
        Ok(())
    }

    fn run(&mut self, program: usize, range: Range<usize>) -> Result<(), DeviceError> {
        let mut bytes = [0; StepState::BYTES as usize];
        self.read(self.plan.state, 0, &mut bytes)?;
        let [pos, n, head_from, generation] =
            [0, 4, 8, 12].map(|at| i32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
        let state = StepState { pos, n, head_from, generation };
        let (plan, params, weights, memory) = (&self.plan, &self.params, &*self.weights, &mut self.memory);
        let launches = plan.programs.get(program).and_then(|p| p.launches.get(range.clone()));
        let launches = launches.ok_or_else(|| no_launches(program, &range))?;
        // On a thread of the pool, so that a launch needs no hand-over to begin and the other threads stay awake between launches.
        rayon::scope(|_| {
            launches.iter().try_for_each(|launch| execute(plan, &params[launch.kernel.index()], weights, memory, launch, state))
        })
    }

    fn record_launches(&mut self, program: usize, launches: &[usize], repeat: u32) -> Result<Recording, DeviceError> {
        let there = self.plan.programs.get(program).map_or(0, |p| p.launches.len());
        match launches.iter().find(|&&i| i >= there) {
            None => Ok(Recording { program, launches: launches.to_vec(), repeat, graph: None }),
            Some(&i) => Err(no_launches(program, &(i..i + 1))),
        }
    }

    fn replay(&mut self, recording: &Recording) -> Result<(), DeviceError> {
        recording.runs().try_for_each(|range| self.run(recording.program, range))
    }

    fn mark(&mut self) -> Result<Mark, DeviceError> {
        Ok(Mark::now())
    }

    fn elapsed(&mut self, from: &Mark, to: &Mark) -> Result<f64, DeviceError> {
        Ok(to.since(from))
    }

    fn receive(&mut self, index: usize, generation: i32) -> Result<i32, DeviceError> {
        let mut word = [0; 8];
        self.read(self.plan.outbox, 8 * index as u64, &mut word)?;
        received(u64::from_le_bytes(word), generation).ok_or_else(|| never_sent(generation))
    }

    fn memory_use(&self) -> Result<MemoryUse, DeviceError> {
        let own = |m: &Memory| if let Memory::Own(words) = m { 8 * words.len() as u64 } else { 0 };
        let own = self.memory.iter().map(own).sum();
        let (free, total) = machine_memory()?;
        Ok(MemoryUse { own, driver: 0, before: total.saturating_sub(free).saturating_sub(own), total })
    }

    fn read_memory(&mut self, bytes: u64, times: u32) -> Result<ReadTimes, DeviceError> {
        let (free, _) = machine_memory()?;
        let words = noise((bytes.min(free / 2) / 4096).max(1) * 4096);
        let mut result = ReadTimes { bytes: 8 * words.len() as u64, seconds: Vec::new(), seen: 0 };
        for i in 0..=times {
            let start = Instant::now();
            // Pieces that are large for a thread, and small enough that all threads end together.
            let all = words.par_chunks(1 << 15).map(|piece| piece.iter().fold(0, |all, w| all ^ w)).reduce(|| 0, |a, b| a ^ b);
            let seconds = start.elapsed().as_secs_f64();
            result.seen = (all ^ all >> 32) as u32;
            // The first pass is for the page tables.
            if i > 0 {
                result.seconds.push(seconds);
            }
        }
        Ok(result)
    }

    fn around(&self) -> Around {
        Around::Slices
    }

    fn plan(&self) -> &Plan {
        &self.plan
    }
}

fn no_launches(program: usize, range: &Range<usize>) -> DeviceError {
    DeviceError::Internal(format!("program {program} has no launches {range:?}"))
}

fn execute(
    plan: &Plan,
    params: &[Param],
    weights: &dyn WeightSource,
    memory: &mut [Memory],
    launch: &Launch,
    state: StepState,
) -> Result<(), DeviceError> {
    // What is written is taken out for the time being. A buffer that is read as well is then found empty, and refused.
    let mut written: Vec<Vec<u64>> = Vec::new();
    for (param, buffer) in params.iter().zip(&launch.args) {
        if let (Access::Write | Access::Update, Memory::Own(own)) = (param.access, &mut memory[buffer.index()]) {
            written.push(std::mem::take(own));
        }
    }
    let mut args = Vec::with_capacity(launch.args.len());
    let mut results = written.iter_mut();
    for (param, buffer) in params.iter().zip(&launch.args) {
        let len = plan.buffers[*buffer].bytes as usize;
        args.push(match (&memory[buffer.index()], param.access) {
            (Memory::Weight(w), _) => Arg::Read(weights.weight(*w)),
            (Memory::Own(own), Access::Read) => Arg::Read(up_to(bytemuck::cast_slice(own), len)),
            (Memory::Own(_), Access::Write | Access::Update) => {
                let bytes: &mut [u8] = results.next().map_or(&mut [], |own| bytemuck::cast_slice_mut(own));
                let len = len.min(bytes.len());
                Arg::Write(&mut bytes[..len])
            }
        });
    }
    let kernel = &plan.kernels[launch.kernel];
    let result = exec(kernel, state, args).map_err(|e| DeviceError::Internal(format!("launch `{}`: {e}", launch.label)));
    // The other way round, so that of a buffer that is written twice the full one stays.
    for (param, buffer) in params.iter().zip(&launch.args).rev() {
        if let (Access::Write | Access::Update, Memory::Own(own)) = (param.access, &mut memory[buffer.index()]) {
            *own = written.pop().unwrap_or_default();
        }
    }
    result
}

fn up_to(bytes: &[u8], len: usize) -> &[u8] {
    &bytes[..len.min(bytes.len())]
}

fn allocate(bytes: u64, buffer: Buffer) -> Result<Vec<u64>, DeviceError> {
    let error = || DeviceError::OutOfMemory { device: NAME.into(), bytes, what: buffer.to_string(), free: 0 };
    let words = usize::try_from(bytes.div_ceil(8)).map_err(|_| error())?;
    // Asked for once in a way that can fail; the second, zeroed one isn't touched before it is used.
    Vec::<u64>::new().try_reserve_exact(words).map_err(|_| error())?;
    Ok(vec![0; words])
}
