//! Runs a grid of workgroups: initial registers, waves, barriers.

use crate::exec::Step;
use crate::memory::{Allocation, Memory, QUEUE_BASE, View};
use crate::module::{CODE_BASE, Kernel, Module, Steps, registers};
use crate::operand::{ACCUMULATORS, EXEC, SCALARS, TTMP};
use crate::sanitizer::{self, Initial, Nobody, Observer, Sanitizer};
use crate::wave::{Flow, Group, PRIVATE_APERTURE, SHARED_APERTURE, Wave};
use crate::{Arch, EmulatorError, Extent, Fault, FaultKind, Finding};
use rayon::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where the kernel arguments of a dispatch lie.
const KERNARG_BASE: u64 = 0x8_0000_0000;

/// Where its packet lies.
const PACKET_BASE: u64 = 0x9_0000_0000;

/// A kernel, its arguments and how often it runs.
#[derive(Clone, Copy, Debug)]
pub struct Dispatch<'a> {
    /// Name.
    pub kernel: &'a str,
    /// Workgroups.
    pub grid: [u32; 3],
    /// Threads of a workgroup.
    pub workgroup: [u32; 3],
    /// LDS beyond the kernel's own, bytes.
    pub dynamic_lds: u32,
    /// The explicit arguments, laid out as the metadata says.
    pub kernarg: &'a [u8],
}

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Instructions that a wave may execute: what never ends is a fault.
    pub budget: u64,
    /// Instructions of all waves together; when they are used up, no further workgroup begins.
    pub dispatch_budget: u64,
    /// Workgroups on several threads (one after the other with the sanitizer).
    pub parallel: bool,
    /// Watch for what hardware may punish: [`Report::findings`].
    pub sanitize: bool,
    /// For the sanitizer: the memory that the launch may access; without, all that is allocated.
    pub extents: Option<&'a [Extent]>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { budget: 100_000_000, dispatch_budget: 1 << 40, parallel: true, sanitize: false, extents: None }
    }
}

/// What a dispatch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Instructions, counted per wave.
    pub instructions: u64,
    /// Active lanes, summed over all vector instructions.
    pub lane_instructions: u64,
    /// Waves.
    pub waves: u64,
    /// What the sanitizer found, by instruction: one finding per instruction and kind.
    pub findings: Vec<Finding>,
}

impl Report {
    fn add(mut self, other: Self) -> Self {
        self.instructions += other.instructions;
        self.lane_instructions += other.lane_instructions;
        self.waves += other.waves;
        self
    }
}

impl Module {
    /// Runs a dispatch to its end.
    ///
    /// # Errors
    /// If the dispatch doesn't fit the kernel, or the kernel runs into a fault; other workgroups may have written by then.
    pub fn run(&self, dispatch: &Dispatch, memory: &Memory, options: &Options) -> Result<Report, EmulatorError> {
        let kernel = self.kernel(dispatch.kernel)?;
        let setup = Setup::new(self.arch(), &kernel, dispatch)?;
        let view = self.view(&setup, memory);
        let (groups, id) = groups(dispatch.grid);
        let executed = AtomicU64::new(0);
        if options.sanitize {
            let shadows = view.shadows();
            let launch = Launch { setup: &setup, kernel: &kernel, view: &view, shadows: &shadows, options, executed: &executed };
            return match &kernel.steps {
                Steps::Wave32(steps) => launch.watched(steps, (0..groups).map(id)),
                Steps::Wave64(steps) => launch.watched(steps, (0..groups).map(id)),
            }
            .map_err(EmulatorError::Fault);
        }
        view.forget_shadows();
        let launch = Launch { setup: &setup, kernel: &kernel, view: &view, shadows: &view, options, executed: &executed };
        let one = |n: u64| match &kernel.steps {
            Steps::Wave32(steps) => launch.group(steps, id(n), &mut Nobody),
            Steps::Wave64(steps) => launch.group(steps, id(n), &mut Nobody),
        };
        let done = if options.parallel {
            (0..groups).into_par_iter().map(one).try_reduce(Report::default, |a, b| Ok(a.add(b)))
        } else {
            (0..groups).try_fold(Report::default(), |sum, n| Ok(sum.add(one(n)?)))
        };
        done.map_err(EmulatorError::Fault)
    }

    /// Runs all workgroups, one after the other, before an observer's eyes.
    pub(crate) fn observed<const W: usize>(
        &self,
        kernel: &Kernel,
        steps: &[Step<W>],
        dispatch: &Dispatch,
        memory: &Memory,
        options: &Options,
        observer: &mut impl Observer<W>,
    ) -> Result<(), EmulatorError> {
        let setup = Setup::new(self.arch(), kernel, dispatch)?;
        let view = self.view(&setup, memory);
        let executed = AtomicU64::new(0);
        let launch = Launch { setup: &setup, kernel, view: &view, shadows: &view, options, executed: &executed };
        let (groups, id) = groups(dispatch.grid);
        (0..groups).try_for_each(|n| launch.group(steps, id(n), observer).map(drop)).map_err(EmulatorError::Fault)
    }

    /// Memory, the code object's segments and the arguments.
    fn view(&self, setup: &Setup, memory: &Memory) -> View {
        let mut own = self.segments.clone();
        let kernarg = Allocation::new(KERNARG_BASE, setup.kernarg.len() as u64, false);
        kernarg.fill(&setup.kernarg);
        own.push(Arc::new(kernarg));
        let packet = setup.packet();
        let allocation = Allocation::new(PACKET_BASE, packet.len() as u64, false);
        allocation.fill(&packet);
        own.push(Arc::new(allocation));
        memory.view(own)
    }
}

/// Workgroups of a grid, and the position of each.
fn groups([x, y, z]: [u32; 3]) -> (u64, impl Fn(u64) -> [u32; 3]) {
    let [x, y, z] = [x, y, z].map(u64::from);
    (x * y * z, move |n| [(n % x) as u32, (n / x % y) as u32, (n / x / y) as u32])
}

/// What is the same for all workgroups of a dispatch.
struct Setup<'a> {
    arch: &'static Arch,
    dispatch: &'a Dispatch<'a>,
    threads: u32,
    lds: u32,
    kernarg: Vec<u8>,
    vectors: u16,
    accumulators: u16,
    code_properties: u16,
    rsrc2: u32,
    scratch: u32,
    /// Address of the kernel's descriptor.
    descriptor: u64,
}

/// Workgroups of a grid at most: those of the packet's 32-bit sizes in threads.
const MOST_THREADS: u64 = u32::MAX as u64;

impl<'a> Setup<'a> {
    fn new(arch: &'static Arch, kernel: &Kernel, dispatch: &'a Dispatch<'a>) -> Result<Self, EmulatorError> {
        let facts = &kernel.facts;
        let wrong = |what: String| EmulatorError::Dispatch { kernel: facts.name.clone(), what };
        let threads = dispatch.workgroup.iter().try_fold(1u32, |n, &w| n.checked_mul(w)).unwrap_or(u32::MAX);
        if threads == 0 || threads > facts.max_flat_workgroup_size {
            return Err(wrong(format!(
                "workgroups of {:?} threads; it takes 1 to {}",
                dispatch.workgroup, facts.max_flat_workgroup_size
            )));
        }
        let fits = |(&g, &w): (&u32, &u32)| g > 0 && u64::from(g) * u64::from(w) <= MOST_THREADS;
        let countable = dispatch.grid.iter().try_fold(1u64, |n, &g| n.checked_mul(g.into())).is_some();
        if !countable || !dispatch.grid.iter().zip(&dispatch.workgroup).all(fits) {
            return Err(wrong(format!("a grid of {:?} workgroups of {:?} threads", dispatch.grid, dispatch.workgroup)));
        }
        let [_, y, z] = dispatch.grid;
        if arch.ids_in_trap_registers() && facts.descriptor.rsrc2 >> 9 & 1 == 1 && y.max(z) > 1 << 16 {
            return Err(wrong(format!("a grid of {:?} workgroups; {} has 16 bits for y and z", dispatch.grid, arch.name)));
        }
        let explicit = facts.explicit_kernarg_size() as usize;
        if dispatch.kernarg.len() < explicit || dispatch.kernarg.len() > (facts.kernarg_segment_size as usize).max(explicit) {
            return Err(wrong(format!("{} bytes of arguments; it takes {explicit}", dispatch.kernarg.len())));
        }
        let lds = facts.group_segment_fixed_size.saturating_add(dispatch.dynamic_lds);
        if lds > arch.lds {
            return Err(wrong(format!("{lds} bytes of LDS; {} has {}", arch.name, arch.lds)));
        }
        let wave32 = matches!(kernel.steps, Steps::Wave32(_));
        let (vectors, accumulators) = registers(arch, facts, wave32);
        let scratch = facts.descriptor.private_segment_fixed_size;
        if u64::from(scratch) * u64::from(threads) > 1 << 28 {
            return Err(wrong(format!("{scratch} bytes of scratch per lane")));
        }
        Ok(Self {
            arch,
            dispatch,
            threads,
            lds,
            kernarg: kernarg(facts, dispatch),
            vectors,
            accumulators,
            code_properties: facts.descriptor.code_properties,
            rsrc2: facts.descriptor.rsrc2,
            scratch,
            descriptor: CODE_BASE + facts.descriptor.address,
        })
    }

    /// The packet that a runtime would put into its queue. Source: `hsa_kernel_dispatch_packet_t` of the HSA runtime specification.
    fn packet(&self) -> [u8; 64] {
        let mut packet = [0; 64];
        let mut put = |at: usize, bytes: &[u8]| packet[at..at + bytes.len()].copy_from_slice(bytes);
        // A kernel's packet that acquires from and releases to the whole system; of that many dimensions.
        put(0, &(2u16 | 2 << 9 | 2 << 11).to_le_bytes());
        put(2, &(dimensions(self.dispatch) as u16).to_le_bytes());
        for (axis, (&groups, &threads)) in self.dispatch.grid.iter().zip(&self.dispatch.workgroup).enumerate() {
            put(4 + 2 * axis, &(threads as u16).to_le_bytes());
            // At most 2³² − 1, as was checked.
            put(12 + 4 * axis, &groups.wrapping_mul(threads).to_le_bytes());
        }
        put(24, &self.scratch.to_le_bytes());
        put(28, &self.lds.to_le_bytes());
        put(32, &self.descriptor.to_le_bytes());
        put(40, &KERNARG_BASE.to_le_bytes());
        packet
    }

    /// A wave's registers as the hardware sets them up. Source: "Initial Kernel Execution State" in LLVM's guide.
    fn wave<const W: usize>(&self, index: u32, id: [u32; 3]) -> Wave<W> {
        let mut scalars = [0; SCALARS];
        let mut next = 0;
        let mut push = |value: u64, words: usize| {
            for word in 0..words {
                if let Some(slot) = scalars.get_mut(next) {
                    *slot = (value >> (32 * word)) as u32;
                }
                next += 1;
            }
        };
        let has = |bit: u32| self.code_properties >> bit & 1 == 1;
        if has(0) {
            // The scratch's buffer descriptor: the emulator's own scratch, whatever base.
            push(0, 2);
            push(u64::from(u32::MAX), 2);
        }
        // Whoever calls through a pointer is given all of these, for what might be called. There is no queue: who reads it has a fault.
        // Each dispatch is the first of its own, so its number is 0. Scratch needs no setting up.
        let given =
            [(1, PACKET_BASE, 2), (2, QUEUE_BASE, 2), (3, KERNARG_BASE, 2), (4, 0, 2), (5, 0, 2), (6, self.scratch.into(), 1)];
        for (_, value, words) in given.into_iter().filter(|&(bit, ..)| has(bit)) {
            push(value, words);
        }
        // Padding up to the number of user SGPRs, then the workgroup's ids.
        next = (self.rsrc2 >> 1 & 0x1f) as usize;
        if self.arch.ids_in_trap_registers() {
            scalars[usize::from(TTMP) + 9] = id[0];
            // The third id shares the second's register only where it is asked for.
            let third = self.rsrc2 >> 9 & 1 == 1;
            scalars[usize::from(TTMP) + 7] = if third { id[1] & 0xffff | id[2] << 16 } else { id[1] };
        } else {
            for (axis, &id) in id.iter().enumerate() {
                if self.rsrc2 >> (7 + axis) & 1 == 1 {
                    scalars[next] = id;
                    next += 1;
                }
            }
        }
        let first = index * W as u32;
        let active = (self.threads - first).min(W as u32);
        let exec = if active == 64 { u64::MAX } else { (1 << active) - 1 };
        scalars[usize::from(EXEC)] = exec as u32;
        scalars[usize::from(EXEC) + 1] = (exec >> 32) as u32;
        let accumulators = if self.accumulators == 0 { 0 } else { ACCUMULATORS - self.vectors + self.accumulators };
        let mut vectors = vec![[0; W]; usize::from(self.vectors + accumulators)];
        self.work_item_ids(&mut vectors, first);
        let scratch = vec![0; self.scratch as usize * W];
        Wave {
            vectors,
            scalars,
            scc: false,
            next: 0,
            index,
            scratch,
            scratch_per_lane: self.scratch,
            executed: 0,
            lane_instructions: 0,
        }
    }

    fn work_item_ids<const W: usize>(&self, vectors: &mut [[u32; W]], first: u32) {
        let [x, y, _] = self.dispatch.workgroup;
        let dimensions = self.rsrc2 >> 11 & 3;
        for lane in 0..W {
            let flat = first + lane as u32;
            let ids = [flat % x, flat / x % y, flat / x / y];
            if self.arch.packed_work_item_ids {
                let wanted = |axis: u32| if axis <= dimensions { ids[axis as usize] << (10 * axis) } else { 0 };
                vectors[0][lane] = wanted(0) | wanted(1) | wanted(2);
            } else {
                for axis in 0..=dimensions.min(2) as usize {
                    vectors[axis][lane] = ids[axis];
                }
            }
        }
    }
}

/// 1 to 3.
fn dimensions(dispatch: &Dispatch) -> u32 {
    let extends = |(&g, &w): (&u32, &u32)| g > 1 || w > 1;
    1 + dispatch.grid.iter().zip(&dispatch.workgroup).rposition(extends).unwrap_or(0) as u32
}

/// The kernarg segment: explicit arguments, then the hidden ones that the metadata lists.
fn kernarg(facts: &hipc_codeobj::Kernel, dispatch: &Dispatch) -> Vec<u8> {
    let mut bytes = dispatch.kernarg.to_vec();
    // The compiler reads arguments in aligned blocks of up to 64 bytes: runtimes allocate such.
    bytes.resize((facts.kernarg_segment_size as usize).max(bytes.len()).next_multiple_of(64), 0);
    for arg in &facts.args {
        let hipc_codeobj::ArgKind::Hidden(name) = &arg.kind else { continue };
        let axis = match name.as_bytes().last() {
            Some(b'x') => 0,
            Some(b'y') => 1,
            _ => 2,
        };
        let value = match name.trim_end_matches(['x', 'y', 'z']) {
            "hidden_block_count_" => dispatch.grid[axis],
            "hidden_group_size_" => dispatch.workgroup[axis],
            "hidden_grid_dims" => dimensions(dispatch),
            "hidden_dynamic_lds_size" => dispatch.dynamic_lds,
            "hidden_private_base" => PRIVATE_APERTURE,
            "hidden_shared_base" => SHARED_APERTURE,
            // All groups are whole and begin at 0; pointers to what the emulator lacks are null: who follows them has a fault.
            _ => 0,
        };
        let (at, size) = (arg.offset as usize, (arg.size as usize).min(4));
        if let Some(slot) = bytes.get_mut(at..at + size) {
            slot.copy_from_slice(&value.to_le_bytes()[..size]);
        }
    }
    bytes
}

/// A dispatch that runs.
struct Launch<'a> {
    setup: &'a Setup<'a>,
    kernel: &'a Kernel,
    view: &'a View,
    shadows: &'a View,
    options: &'a Options<'a>,
    /// Instructions of the workgroups that have ended.
    executed: &'a AtomicU64,
}

impl Launch<'_> {
    /// All workgroups, one after the other, under the sanitizer's eyes.
    fn watched<const W: usize>(&self, steps: &[Step<W>], ids: impl Iterator<Item = [u32; 3]>) -> Result<Report, Box<Fault>> {
        let Setup { arch, dispatch, rsrc2, .. } = *self.setup;
        let effects = sanitizer::effects(self.kernel, arch, W);
        let initial = Initial::new(arch, rsrc2);
        let mut sanitizer =
            Sanitizer::new(arch, self.kernel, &effects, self.shadows, self.options.extents, initial, dispatch.grid);
        let mut sum = Report::default();
        for id in ids {
            sum = sum.add(self.group(steps, id, &mut sanitizer)?);
        }
        sum.findings = sanitizer.finish();
        Ok(sum)
    }

    fn group<const W: usize>(
        &self,
        steps: &[Step<W>],
        id: [u32; 3],
        observer: &mut impl Observer<W>,
    ) -> Result<Report, Box<Fault>> {
        let Setup { threads, lds, .. } = *self.setup;
        let budget = self.options.dispatch_budget;
        if self.executed.load(Ordering::Relaxed) >= budget {
            return Err(self.fault(id, 0, self.kernel.entry as usize, FaultKind::DispatchBudget(budget), None));
        }
        let (memory, shadows) = (self.view, self.shadows);
        let mut group = Group { memory, hint: 0, lds: vec![0; lds as usize], code_base: CODE_BASE, shadows, trace: None };
        let count = threads.div_ceil(W as u32);
        let mut waves: Vec<Wave<W>> = (0..count).map(|index| self.setup.wave(index, id)).collect();
        waves.iter_mut().for_each(|w| w.next = self.kernel.entry);
        observer.begin(id, &waves, lds as usize);
        let mut running: Vec<bool> = vec![true; waves.len()];
        // Each wave runs up to the next barrier, then all go on: the order between barriers is theirs to synchronise.
        while running.iter().any(|r| *r) {
            let before = running.clone();
            for (wave, running) in waves.iter_mut().zip(&mut running).filter(|(_, running)| **running) {
                *running = self.wave(wave, &mut group, steps, id, observer)?;
            }
            observer.round(&waves, &before, &running);
        }
        let sum = |f: fn(&Wave<W>) -> u64| waves.iter().map(f).sum();
        let (instructions, lane_instructions) = (sum(|w| w.executed), sum(|w| w.lane_instructions));
        self.executed.fetch_add(instructions, Ordering::Relaxed);
        Ok(Report { instructions, lane_instructions, waves: u64::from(count), findings: Vec::new() })
    }

    /// A fault at the instruction of an index.
    fn fault(&self, workgroup: [u32; 3], wave: u32, at: usize, kind: FaultKind, lane: Option<u32>) -> Box<Fault> {
        let instruction = self.kernel.instructions().get(at);
        Box::new(Fault {
            kernel: self.kernel.facts.name.clone(),
            kind,
            address: instruction.map_or(0, |i| i.address),
            instruction: instruction.map_or("(behind the end of the code)".to_owned(), |i| i.text.clone()),
            workgroup,
            wave,
            lane,
        })
    }

    /// Runs a wave up to its next barrier (true) or its end (false).
    fn wave<const W: usize>(
        &self,
        wave: &mut Wave<W>,
        group: &mut Group,
        steps: &[Step<W>],
        id: [u32; 3],
        observer: &mut impl Observer<W>,
    ) -> Result<bool, Box<Fault>> {
        let options = self.options;
        loop {
            let at = wave.next as usize;
            let index = wave.index;
            let fault = |kind, lane| self.fault(id, index, at, kind, lane);
            let Some(step) = steps.get(at) else { return Err(fault(FaultKind::Illegal, None)) };
            if wave.executed >= options.budget {
                return Err(fault(FaultKind::Budget(options.budget), None));
            }
            wave.executed += 1;
            wave.next += 1;
            if step.vector {
                wave.lane_instructions += u64::from(wave.exec().count_ones());
            }
            match observer.step(at, step, wave, group) {
                Flow::Next => {}
                Flow::Jump(to) => wave.next = to,
                Flow::Barrier => return Ok(true),
                Flow::End => return Ok(false),
                Flow::Fault(boxed) => {
                    let (kind, lane) = *boxed;
                    return Err(fault(kind, lane));
                }
            }
        }
    }
}
