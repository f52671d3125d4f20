//! The sanitizer: watches a kernel as it is executed and reports what hardware may punish.
//!
//! - Accesses outside the launch's own ranges of memory ([`Extent`]), and at addresses that the hardware doesn't allow.
//! - Values that depend on registers, LDS, scratch or global memory that was never written, where they leave the registers: as an
//!   address, as data of a store to global memory or of an atomic, in a branch or in the mask of active lanes (`registers`).
//! - Registers used before the operation that fills them was waited for (`counters`).
//! - Races in LDS between waves and in global memory between workgroups (`races`).
//! - Barriers at which the waves of a workgroup don't meet. (Inside a wave nothing diverges: `s_barrier` doesn't look at `exec`.)
//!
//! Accesses outside every allocation, outside a workgroup's LDS or a lane's scratch, and stores to constants stop a kernel anyway: they
//! are faults. Memory is followed bit by bit in *shadow memory*, in which a bit is set if it has no value: to load, store or spill, the
//! instruction is executed once more on the shadows of its registers and of memory, so that it moves them as it moves the values.
//!
//! Workgroups run one after the other, so findings are the same each time. Without the sanitizer, all of this costs nothing.

mod counters;
mod effects;
mod finding;
mod memory;
mod races;
mod registers;
mod set;
mod twin;

pub(crate) use finding::{Access, Space};
pub use finding::{Finding, FindingKind};
pub(crate) use races::Mode;

use crate::Arch;
use crate::exec::Step;
use crate::memory::View;
use crate::module::Kernel;
use crate::operand::{EXEC, TTMP};
use crate::wave::{Flow, Group, Wave, lanes};
use counters::Counters;
use effects::{Counter, Effects, Work};
use finding::Findings;
use races::{GlobalRaces, LdsRaces};
use registers::{Influence, Origin, Shadow};
use set::{Register, Set};

/// A range of memory that a launch may access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First address.
    pub address: u64,
    /// Bytes.
    pub bytes: u64,
    /// Whether the launch may write it. Races aren't looked for in what nobody may write.
    pub writable: bool,
}

/// What is done around every instruction: nothing, or a sanitizer's work.
pub(crate) trait Observer<const W: usize> {
    /// A workgroup begins, with so many bytes of LDS.
    fn begin(&mut self, id: [u32; 3], waves: &[Wave<W>], lds: usize);
    /// Executes an instruction.
    fn step(&mut self, at: usize, step: &Step<W>, wave: &mut Wave<W>, group: &mut Group) -> Flow;
    /// All waves have run up to a barrier or to their end. `before`: those that had not ended then; `now`: those at the barrier.
    fn round(&mut self, waves: &[Wave<W>], before: &[bool], now: &[bool]);
}

/// Without the sanitizer.
pub(crate) struct Nobody;

impl<const W: usize> Observer<W> for Nobody {
    #[inline(always)]
    fn begin(&mut self, _id: [u32; 3], _waves: &[Wave<W>], _lds: usize) {}

    #[inline(always)]
    fn step(&mut self, _at: usize, step: &Step<W>, wave: &mut Wave<W>, group: &mut Group) -> Flow {
        (step.run)(wave, group)
    }

    #[inline(always)]
    fn round(&mut self, _waves: &[Wave<W>], _before: &[bool], _now: &[bool]) {}
}

/// Registers that the hardware sets up. Source: "Initial Kernel Execution State" in LLVM's guide.
pub(crate) struct Initial(Set);

impl Initial {
    /// `rsrc2`: of the kernel's descriptor.
    pub(crate) fn new(arch: &Arch, rsrc2: u32) -> Self {
        let user = rsrc2 >> 1 & 0x1f;
        // The workgroup's ids, its information, and where the wave's scratch begins.
        let more = if arch.ids_in_trap_registers() { 0 } else { (rsrc2 >> 7 & 0xf).count_ones() + (rsrc2 & 1) };
        let mut set: Set = (0..user + more).map(|n| Register::Scalar(n as u8)).collect();
        set.extend((TTMP..TTMP + 16).chain([EXEC, EXEC + 1]).map(Register::Scalar));
        let ids = if arch.packed_work_item_ids { 1 } else { (rsrc2 >> 11 & 3).min(2) + 1 };
        set.extend((0..ids).map(|n| Register::Vector(n as u16)));
        Self(set)
    }
}

/// What a kernel's instructions do to registers and memory.
pub(crate) fn effects(kernel: &Kernel, arch: &Arch, lanes: usize) -> Vec<Effects> {
    kernel.instructions().iter().map(|i| Effects::new(i, arch.generation, lanes)).collect()
}

/// A launch under watch.
pub(crate) struct Sanitizer<'a, const W: usize> {
    arch: &'static Arch,
    kernel: &'a Kernel,
    effects: &'a [Effects],
    /// Shadows of all allocations.
    shadows: &'a View,
    /// By address; `None`: all allocations.
    extents: Option<Vec<Extent>>,
    initial: Initial,
    grid: [u32; 3],
    findings: Findings,
    global: GlobalRaces,
    /// Of the workgroup: its number, LDS and waves.
    id: [u32; 3],
    lds: Vec<u8>,
    lds_races: LdsRaces,
    waves: Vec<Watched<W>>,
    /// What instructions are tried out on.
    twin: Option<Wave<W>>,
    accesses: Vec<Access>,
}

/// What is known of a wave.
struct Watched<const W: usize> {
    registers: Shadow<W>,
    counters: Counters,
    scratch: Vec<u8>,
}

impl<'a, const W: usize> Sanitizer<'a, W> {
    pub(crate) fn new(
        arch: &'static Arch,
        kernel: &'a Kernel,
        effects: &'a [Effects],
        shadows: &'a View,
        extents: Option<&[Extent]>,
        initial: Initial,
        grid: [u32; 3],
    ) -> Self {
        let extents = extents.map(|e| {
            let mut extents = e.to_vec();
            extents.sort_by_key(|e| e.address);
            extents
        });
        Self {
            arch,
            kernel,
            effects,
            shadows,
            extents,
            initial,
            grid,
            findings: Findings::default(),
            global: GlobalRaces::default(),
            id: [0; 3],
            lds: Vec::new(),
            lds_races: LdsRaces::new(0),
            waves: Vec::new(),
            twin: None,
            accesses: Vec::new(),
        }
    }

    pub(crate) fn finish(self) -> Vec<Finding> {
        self.findings.finish()
    }

    fn report(&mut self, at: usize, wave: u32, lane: Option<usize>, kind: FindingKind) {
        let instruction = &self.kernel.instructions()[at];
        let (kernel, workgroup) = (&self.kernel.facts.name, self.id);
        self.findings.add(at, kind, |kind| Finding {
            kernel: kernel.clone(),
            kind,
            address: instruction.address,
            instruction: instruction.text.clone(),
            workgroup,
            wave,
            lane: lane.map(|l| l as u32),
            times: 1,
        });
    }

    fn text(&self, at: usize) -> String {
        self.kernel.instructions()[at].text.clone()
    }

    fn source(&self, origin: Origin) -> String {
        match origin {
            Origin::Register(register) => format!("{register}, which was never written"),
            Origin::Memory { by, place } => {
                let place = place.map(|(space, address)| format!(" ({})", space.at(address))).unwrap_or_default();
                format!("memory that was never written{place}, read by `{}`", self.text(by))
            }
        }
    }

    fn undefined(&mut self, at: usize, wave: u32, lane: Option<usize>, what: &'static str, address: Option<u64>, origin: Origin) {
        let source_ = self.source(origin);
        self.report(at, wave, lane, FindingKind::Undefined { what, address, source_ });
    }

    /// Registers that are used while the operation that fills them is under way.
    fn unwaited(&mut self, at: usize, effects: &Effects, wave: &Wave<W>) {
        let watched = &self.waves[wave.index as usize];
        let loads = effects.work == Work::Load && effects.counters == [Counter::Load];
        let used = effects.touched & watched.counters.awaited;
        let early = used.iter().find_map(|register| {
            // Vector memory fills registers in order: a load may follow a load, and fill the other half, too.
            let in_order = loads
                && effects.written.contains(register)
                && !effects.address.contains(register)
                && watched.counters.only_loads(register);
            if in_order { None } else { watched.counters.awaits(register).map(|(from, counter)| (register, from, counter)) }
        });
        if let Some((register, from, counter)) = early {
            let counter = counters::name(counter, self.arch.generation);
            let from = self.text(from);
            // Of a vector register the first lane that uses it; a scalar one is used by all.
            let lane = lanes(wave.exec()).next().filter(|_| matches!(register, Register::Vector(_)));
            self.report(at, wave.index, lane, FindingKind::Unwaited { register: register.to_string(), counter, from });
        }
    }
}

impl<const W: usize> Observer<W> for Sanitizer<'_, W> {
    fn begin(&mut self, id: [u32; 3], waves: &[Wave<W>], lds: usize) {
        self.id = id;
        let [x, y, _] = self.grid;
        self.global.begin(id[0] + x * (id[1] + y * id[2]), waves.len());
        self.lds = vec![0xff; lds];
        self.lds_races = LdsRaces::new(lds);
        let watched = |wave: &Wave<W>| Watched {
            registers: Shadow::new(wave.vectors.len(), &self.initial.0),
            counters: Counters::default(),
            scratch: vec![0xff; wave.scratch.len()],
        };
        self.waves = waves.iter().map(watched).collect();
        self.twin = waves.first().cloned();
    }

    fn step(&mut self, at: usize, step: &Step<W>, wave: &mut Wave<W>, group: &mut Group) -> Flow {
        let index = wave.index as usize;
        let all = self.effects;
        let resolved = all[at].relative.map(|_| all[at].resolved(wave.m0()));
        let effects = resolved.as_ref().unwrap_or(&all[at]);
        let watched = &mut self.waves[index];
        if watched.counters.awaited.meets(&effects.touched) {
            self.unwaited(at, effects, wave);
        }
        let watched = &mut self.waves[index];
        match effects.work {
            Work::Load | Work::Store | Work::Atomic { .. } => return self.memory(at, effects, step, wave, group),
            Work::Wait(wait) => watched.counters.wait(&wait),
            Work::Invalidate => self.global.invalidate(),
            Work::Barrier => {
                if let Some(from) = watched.counters.lds_store() {
                    let (from, counter) = (self.text(from), counters::name(Counter::Lds, self.arch.generation));
                    self.report(at, wave.index, None, FindingKind::UnwaitedStore { counter, from });
                }
            }
            Work::Registers if watched.registers.undefined.meets(&effects.touched) => {
                let Some(twin) = self.twin.as_mut() else { return (step.run)(wave, group) };
                let origin = watched.registers.cause(effects);
                let (flow, influence) = watched.registers.run(step, effects, twin, wave, group);
                watched.counters.issue(at, effects, None);
                let (lane, what) = match influence {
                    None => return flow,
                    Some(Influence::Flow) => (None, "a branch"),
                    Some(Influence::Exec(lane)) => (Some(lane), "the mask of active lanes"),
                };
                if let Some(origin) = origin {
                    self.undefined(at, wave.index, lane, what, None, origin);
                }
                return flow;
            }
            Work::Registers => watched.counters.issue(at, effects, None),
        }
        (step.run)(wave, group)
    }

    fn round(&mut self, waves: &[Wave<W>], before: &[bool], now: &[bool]) {
        let waiting: Vec<&Wave<W>> = waves.iter().zip(now).filter(|(_, now)| **now).map(|(w, _)| w).collect();
        let ended = before.iter().zip(now).filter(|(before, now)| **before && !**now).count();
        if let Some(first) = waiting.first() {
            let at = first.next as usize - 1;
            let elsewhere = waiting.iter().find(|w| w.next != first.next);
            let what = match elsewhere {
                _ if ended > 0 => Some(format!("{} waves wait, {ended} have ended", waiting.len())),
                Some(other) => {
                    let address = self.kernel.instructions()[other.next as usize - 1].address;
                    Some(format!("wave {} waits at another one, at {address:#x}", other.index))
                }
                None => None,
            };
            if let Some(what) = what {
                self.report(at, first.index, None, FindingKind::DivergentBarrier { what });
            }
        }
        self.lds_races.barrier();
        let oldest: Vec<Option<u32>> = self.waves.iter().map(|w| w.counters.oldest_store()).collect();
        self.global.barrier(oldest.into_iter());
    }
}
