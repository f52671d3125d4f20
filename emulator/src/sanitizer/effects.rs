//! What an instruction reads and writes, from its text: registers, memory, counters. Computed once per kernel.

use super::set::{Register, Set};
use crate::arch::Generation;
use crate::instruction::{Instruction, Operation};
use crate::operand::{ACCUMULATORS, EXEC, M0, NULL, Operand, Place, Special, VCC};

/// What an instruction does beyond registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// A function of registers.
    Registers,
    /// Fills registers (or LDS) from memory.
    Load,
    /// Writes registers to memory.
    Store,
    /// Changes memory; whether it gives the old value back.
    Atomic { returns: bool },
    /// Waits until at most this many operations of each counter are outstanding.
    Wait(Wait),
    /// Makes stale caches forget: what other workgroups released is seen from here on.
    Invalidate,
    /// Arrives at a barrier.
    Barrier,
}

/// Counters of outstanding operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counter {
    /// `vmcnt`, `loadcnt`: vector loads; before gfx10 also stores.
    Load,
    /// `vscnt`, `storecnt`: vector stores.
    Store,
    /// LDS's share of `lgkmcnt`, `dscnt`.
    Lds,
    /// The scalar unit's share of `lgkmcnt`, `kmcnt`: out of order.
    Scalar,
}

impl Counter {
    pub(super) const ALL: [Self; 4] = [Self::Load, Self::Store, Self::Lds, Self::Scalar];
}

/// By counter (in the order of [`Counter::ALL`]): operations that may stay outstanding.
pub(super) type Wait = [Option<u32>; 4];

/// An instruction's effects.
#[derive(Clone, Debug)]
pub(crate) struct Effects {
    pub(super) work: Work,
    /// Registers that are read or written.
    pub(super) touched: Set,
    /// Registers that are written, wholly or in part.
    pub(super) written: Set,
    /// Registers that an address is made of.
    pub(super) address: Set,
    /// Registers that go to memory.
    pub(super) data: Set,
    /// Counters that count it. Two for flat accesses.
    pub(super) counters: Vec<Counter>,
    /// Results come in no order with those of other operations.
    pub(super) unordered: bool,
    /// The half of its register that a 16-bit load fills.
    pub(super) half: Option<u32>,
    /// `m0` is added to the number of this register; whether it is the one written.
    pub(super) relative: Option<(u16, bool)>,
}

/// Makes later reads see what other workgroups released. Source: "Memory Model" in LLVM's guide.
const INVALIDATES: &[&str] =
    &["buffer_gl0_inv", "buffer_gl1_inv", "buffer_inv", "buffer_wbinvl1", "buffer_wbinvl1_vol", "global_inv", "global_wbinv"];

/// Scalar instructions without a destination, by their beginning.
const NO_DESTINATION: &[&str] = &[
    "s_cmp",
    "s_bitcmp",
    "s_cbranch",
    "s_branch",
    "s_wait",
    "s_barrier",
    "s_nop",
    "s_set",
    "s_sleep",
    "s_endpgm",
    "s_code_end",
    "s_icache",
    "s_dcache",
    "s_gl1",
    "s_prefetch",
    "s_clause",
    "s_delay",
    "s_version",
    "s_ttrace",
    "s_inst",
    "s_denorm",
    "s_round",
    "s_incperf",
    "s_decperf",
    "s_trap",
    "s_store",
    "s_buffer_store",
    "s_sendmsghalt",
    "s_wakeup",
];

/// Vector instructions with two destinations, by their beginning.
const TWO_DESTINATIONS: &[&str] = &["v_mad_u64_u32", "v_mad_i64_i32", "v_div_scale_", "v_swap_", "v_swaprel_"];

/// Vector instructions whose operands are all read and written: swaps.
const SWAPS: &[&str] = &["v_swap_", "v_permlane16_swap", "v_permlane32_swap"];

fn starts(name: &str, with: &[&str]) -> bool {
    with.iter().any(|w| name.starts_with(w))
}

/// How many of the operands, from the first, are written.
fn destinations(operation: &Operation) -> usize {
    let name = operation.name.as_str();
    if name.starts_with("s_") {
        return usize::from(!starts(name, NO_DESTINATION) && name != "s_sendmsg");
    }
    if name.starts_with("v_cmp") {
        return operation.operands.len().saturating_sub(2).min(1);
    }
    if starts(name, TWO_DESTINATIONS) || starts(name, SWAPS) || (name.contains("_co_") && !name.starts_with("v_cvt")) {
        return 2;
    }
    usize::from(name != "v_nop")
}

/// Registers of an operand.
fn registers(operand: &Operand) -> Vec<Register> {
    match operand.place {
        Place::Vector { first, count } => (first..first + u16::from(count)).map(Register::Vector).collect(),
        Place::Scalar { first: NULL, .. } => Vec::new(),
        Place::Scalar { first, count } => (first..first.saturating_add(count).min(128)).map(Register::Scalar).collect(),
        Place::Special(Special::Scc) => vec![Register::Scc],
        Place::Special(Special::Vccz) => vec![Register::Scalar(VCC), Register::Scalar(VCC + 1)],
        _ => Vec::new(),
    }
}

fn set(operands: &[Operand]) -> Set {
    operands.iter().flat_map(registers).collect()
}

impl Effects {
    /// `lanes`: of a wave.
    pub(super) fn new(instruction: &Instruction, generation: Generation, lanes: usize) -> Self {
        let nothing = Self {
            work: Work::Registers,
            touched: Set::default(),
            written: Set::default(),
            address: Set::default(),
            data: Set::default(),
            counters: Vec::new(),
            unordered: false,
            half: None,
            relative: None,
        };
        let mut effects = nothing;
        for operation in &instruction.operations {
            match Memory::find(operation) {
                Some(memory) => effects.memory(operation, &memory, generation),
                None => effects.registers(operation, lanes),
            }
        }
        effects.touched = effects.touched | effects.written | effects.address | effects.data;
        // `exec` always has a value: what would give it an undefined one is a finding.
        effects.touched.remove(Register::Scalar(EXEC));
        effects.touched.remove(Register::Scalar(EXEC + 1));
        effects
    }

    /// With the register that `m0` chooses.
    pub(super) fn resolved(&self, m0: u32) -> Self {
        let mut effects = self.clone();
        if let Some((first, written)) = self.relative {
            let chosen = u16::try_from(u32::from(first).wrapping_add(m0)).ok().filter(|&r| r < ACCUMULATORS);
            let registers = chosen.map(Register::Vector);
            effects.touched.extend(registers);
            if written {
                effects.written.remove(Register::Vector(first));
                effects.written.extend(registers);
            }
        }
        effects
    }

    fn registers(&mut self, operation: &Operation, lanes: usize) {
        let name = operation.name.as_str();
        if name.starts_with("s_wait") {
            if let Some(wait) = wait(operation) {
                self.work = Work::Wait(wait);
            }
            return;
        }
        if matches!(name, "s_barrier" | "s_barrier_signal" | "s_barrier_wait") {
            self.work = Work::Barrier;
            return;
        }
        if INVALIDATES.contains(&name) {
            self.work = Work::Invalidate;
            return;
        }
        let split = destinations(operation).min(operation.operands.len());
        let (to, from) = operation.operands.split_at(split);
        self.written = self.written | set(to);
        self.touched = self.touched | set(from);
        let vcc = [Register::Scalar(VCC), Register::Scalar(VCC + 1)];
        let vcc = if lanes == 64 { &vcc[..] } else { &vcc[..1] };
        let implicit_vcc = name.starts_with("v_div_fmas")
            || (name.starts_with("v_cndmask") && operation.operands.len() == 3)
            || name.starts_with("s_cbranch_vcc");
        if implicit_vcc {
            self.touched.extend(vcc.iter().copied());
        }
        if name.starts_with("s_") {
            // Most read or write it, and those that don't leave it as it is.
            let branch = name.starts_with("s_cbranch_vcc") || name.starts_with("s_cbranch_exec") || name == "s_branch";
            if !branch && !starts(name, &["s_nop", "s_clause", "s_delay", "s_set", "s_sleep", "s_endpgm", "s_sendmsg"]) {
                self.written.insert(Register::Scc);
            }
        }
        if name.starts_with("v_cmpx") || name.contains("_saveexec") || name.contains("_wrexec") {
            self.written.extend([Register::Scalar(EXEC), Register::Scalar(EXEC + 1)]);
        }
        let first = |at: usize| match operation.operands.get(at).map(|o| o.place) {
            Some(Place::Vector { first, .. }) => Some(first),
            _ => None,
        };
        if let Some(written) = [("v_movreld", true), ("v_movrels", false)].iter().find(|(n, _)| name.starts_with(n)).map(|p| p.1)
        {
            self.relative = first(usize::from(!written)).map(|register| (register, written));
            self.address.insert(Register::Scalar(M0));
        }
        if name.starts_with("ds_") {
            self.counters.push(Counter::Lds);
        } else if name.starts_with("s_memtime") || name.starts_with("s_memrealtime") || name.starts_with("s_sendmsg_rtn") {
            self.counters.push(Counter::Scalar);
            self.unordered = true;
        }
    }

    fn memory(&mut self, operation: &Operation, memory: &Memory, generation: Generation) {
        let operands = &operation.operands;
        let name = operation.name.as_str();
        let results = usize::from(memory.has_destination).min(operands.len());
        let (to, from) = operands.split_at(results);
        self.written = self.written | set(to);
        if let ("buffer", Some(Place::Vector { first, count })) = (memory.family, to.first().map(|o| o.place))
            && name.contains("_cmpswap_")
        {
            // The old value replaces the first of the two data alone.
            self.written = (first..first + u16::from(count / 2)).map(Register::Vector).collect();
        }
        // Buffer instructions have their data first, where others have the result; LDS's behind the address, up to two.
        let buffer = memory.family == "buffer" && memory.work != Work::Load;
        if buffer {
            self.data = self.data | set(operands.get(..1).unwrap_or_default());
        }
        for (at, operand) in from.iter().enumerate().skip(usize::from(buffer && results == 0)) {
            let data = memory.work != Work::Load && !buffer && (at == 1 || (at > 0 && memory.family == "ds"));
            if data { self.data.extend(registers(operand)) } else { self.address.extend(registers(operand)) }
        }
        self.work = memory.work;
        if name.contains("_d16_hi") {
            self.half = Some(0xffff_0000);
        } else if name.contains("_d16") {
            self.half = Some(0xffff);
        }
        let stores = memory.work == Work::Store || memory.work == Work::Atomic { returns: false };
        let vector = if stores && generation >= Generation::Gfx10 { Counter::Store } else { Counter::Load };
        (self.counters, self.unordered) = match memory.family {
            "s" => (vec![Counter::Scalar], true),
            "ds" => (vec![Counter::Lds], false),
            "flat" => (vec![vector, Counter::Lds], true),
            _ => (vec![vector], false),
        };
    }
}

/// A memory instruction.
struct Memory<'a> {
    family: &'a str,
    work: Work,
    has_destination: bool,
}

impl<'a> Memory<'a> {
    fn find(operation: &'a Operation) -> Option<Self> {
        let name = operation.name.as_str();
        let (family, rest) = name.split_once('_')?;
        if family == "s" && (rest.starts_with("load_") || rest.starts_with("buffer_load_")) {
            return Some(Self { family, work: Work::Load, has_destination: true });
        }
        if !["global", "flat", "scratch", "buffer", "ds"].contains(&family) || INVALIDATES.contains(&name) {
            return None;
        }
        // These use the crossbar of LDS, not its memory.
        if family == "ds" && ["bpermute", "permute", "swizzle", "nop"].iter().any(|n| rest.starts_with(n)) {
            return None;
        }
        if rest.starts_with("load_") {
            return Some(Self { family, work: Work::Load, has_destination: !operation.has("lds") });
        }
        if rest.starts_with("store_") && !rest.starts_with("storexchg") {
            return Some(Self { family, work: Work::Store, has_destination: false });
        }
        let atomic = family == "ds" || rest.starts_with("atomic_");
        let returns = if family == "ds" {
            rest.contains("_rtn") || ["consume", "append", "ordered"].iter().any(|n| rest.starts_with(n))
        } else {
            operation.has("glc")
                || operation.has("sc0")
                || operation.modifiers.get("th").is_some_and(|t| t.contains("ATOMIC_RETURN"))
        };
        atomic.then_some(Self { family, work: Work::Atomic { returns }, has_destination: returns })
    }
}

/// What a waiting instruction waits for; `None` if for nothing that is modelled.
fn wait(operation: &Operation) -> Option<Wait> {
    let immediate = || {
        operation.operands.iter().rev().find_map(|o| match o.place {
            Place::Integer(n) => u32::try_from(n).ok(),
            Place::Bits(n) => Some(n),
            _ => None,
        })
    };
    let mut wait = [None; 4];
    let mut set = |counters: &[Counter], n: u32| counters.iter().for_each(|&c| wait[c as usize] = Some(n));
    use Counter::{Lds, Load, Scalar, Store};
    match operation.name.as_str() {
        "s_waitcnt" => {
            for word in &operation.words {
                let Some((name, rest)) = word.split_once('(') else { continue };
                let Ok(n) = rest.trim_end_matches(')').parse() else { continue };
                match name {
                    "vmcnt" => set(&[Load], n),
                    "lgkmcnt" => set(&[Lds, Scalar], n),
                    _ => {}
                }
            }
        }
        "s_waitcnt_vscnt" | "s_wait_storecnt" => set(&[Store], immediate()?),
        "s_waitcnt_vmcnt" | "s_wait_loadcnt" => set(&[Load], immediate()?),
        "s_waitcnt_lgkmcnt" => set(&[Lds, Scalar], immediate()?),
        "s_wait_dscnt" => set(&[Lds], immediate()?),
        "s_wait_kmcnt" => set(&[Scalar], immediate()?),
        "s_wait_idle" => set(&Counter::ALL, 0),
        name @ ("s_wait_loadcnt_dscnt" | "s_wait_storecnt_dscnt") => {
            let both = immediate()?;
            set(&[if name == "s_wait_loadcnt_dscnt" { Load } else { Store }], both >> 8 & 63);
            set(&[Lds], both & 63);
        }
        _ => return None,
    }
    Some(wait)
}
