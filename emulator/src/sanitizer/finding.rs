//! What the sanitizer reports.

use super::Mode;
use std::collections::HashMap;

/// Findings of a launch at most.
const MOST: usize = 100;

/// Something a kernel did that hardware may punish: where, and what.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{kernel}: {kind}\n  at {address:#x}: {instruction}\n  workgroup {workgroup:?}, wave {wave}{}{}",
    .lane.map(|l| format!(", lane {l}")).unwrap_or_default(),
    if *.times > 1 { format!(" ({times} times)") } else { String::new() }
)]
pub struct Finding {
    /// Kernel.
    pub kernel: String,
    /// What it did.
    pub kind: FindingKind,
    /// Virtual address of the instruction in the code object.
    pub address: u64,
    /// Its text.
    pub instruction: String,
    /// Workgroup.
    pub workgroup: [u32; 3],
    /// Wave of the workgroup.
    pub wave: u32,
    /// Lane of the wave, where one lane is to blame.
    pub lane: Option<u32>,
    /// How often the instruction did such a thing; the rest tells of the first time.
    pub times: u64,
}

/// Kinds of findings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindingKind {
    /// An access of memory that is allocated, but not for this launch.
    #[error("{what} of {bytes} bytes at {address:#x}, {near}")]
    OutOfExtent {
        /// `load`, `store`, `atomic`.
        what: &'static str,
        /// Its address.
        address: u64,
        /// Its bytes.
        bytes: u32,
        /// The nearest extent, or that it is read-only.
        near: String,
    },
    /// An access at an address that the hardware doesn't allow.
    #[error("misaligned {what} of {bytes} bytes at {address:#x} of {space}; it takes multiples of {alignment}")]
    Misaligned {
        /// `load`, `store`, `atomic`.
        what: &'static str,
        /// `global memory`, `LDS`, `scratch`.
        space: &'static str,
        /// Its address (LDS, scratch: offset).
        address: u64,
        /// Its bytes.
        bytes: u32,
        /// What the address must be a multiple of.
        alignment: u32,
    },
    /// A value that depends on what was never written.
    #[error("{what}{} depends on {source_}", .address.map(|a| format!(" at {a:#x}")).unwrap_or_default())]
    Undefined {
        /// What the value is used for.
        what: &'static str,
        /// Address of the access, where it is one of memory.
        address: Option<u64>,
        /// The register or memory that was never written.
        source_: String,
    },
    /// A register was used before the operation that fills it was waited for.
    #[error("{register} is used before {counter} says that it has arrived; it comes from `{from}`")]
    Unwaited {
        /// Register.
        register: String,
        /// The counter that must be waited for.
        counter: &'static str,
        /// The instruction that fills it.
        from: String,
    },
    /// A store to LDS wasn't waited for before a barrier.
    #[error("barrier before {counter} says that a store to LDS is done: `{from}`")]
    UnwaitedStore {
        /// The counter that must be waited for.
        counter: &'static str,
        /// The store.
        from: String,
    },
    /// Two waves access the same byte of LDS without a barrier between.
    #[error("LDS race: {what} at {offset:#x} after the {other} of wave {wave}, without a barrier")]
    LdsRace {
        /// `load`, `store`, `atomic`.
        what: &'static str,
        /// The byte.
        offset: u64,
        /// What the other wave did.
        other: &'static str,
        /// The other wave.
        wave: u32,
    },
    /// Two workgroups access the same bytes of global memory in no order.
    #[error("race between workgroups: {what} at {address:#x} after the {other} of workgroup {workgroup:?}")]
    GlobalRace {
        /// `load`, `store`, `atomic`.
        what: &'static str,
        /// The byte.
        address: u64,
        /// What the other workgroup did.
        other: &'static str,
        /// The other workgroup.
        workgroup: [u32; 3],
    },
    /// Waves of a workgroup don't meet at the same barrier.
    #[error("divergent barrier: {what}")]
    DivergentBarrier {
        /// What the others do.
        what: String,
    },
    /// More hand-overs between workgroups than are kept: races were not looked for to the end.
    #[error("too many hand-overs between workgroups; from here on, races between them are not looked for")]
    Incomplete,
}

/// Findings of a launch: one per instruction and kind.
#[derive(Default)]
pub(super) struct Findings {
    all: Vec<(usize, Finding)>,
    known: HashMap<(usize, std::mem::Discriminant<FindingKind>, &'static str), usize>,
}

impl Findings {
    /// Counts a finding; `make` is called for the first of its instruction and kind.
    pub(super) fn add(&mut self, instruction: usize, kind: FindingKind, make: impl FnOnce(FindingKind) -> Finding) {
        let what = match &kind {
            FindingKind::Undefined { what, .. } => what,
            _ => "",
        };
        let key = (instruction, std::mem::discriminant(&kind), what);
        if let Some(&at) = self.known.get(&key) {
            self.all[at].1.times += 1;
        } else if self.all.len() < MOST {
            self.known.insert(key, self.all.len());
            self.all.push((instruction, make(kind)));
        }
    }

    /// By instruction.
    pub(super) fn finish(mut self) -> Vec<Finding> {
        self.all.sort_by_key(|(instruction, _)| *instruction);
        self.all.into_iter().map(|(_, finding)| finding).collect()
    }
}

/// One access of a lane, as the instruction made it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    pub(crate) space: Space,
    pub(crate) mode: Mode,
    /// Before the hardware drops low bits.
    pub(crate) address: u64,
    pub(crate) bytes: u32,
    /// What the address must be a multiple of.
    pub(crate) alignment: u32,
    pub(crate) lane: Option<u8>,
}

/// Which memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    Global,
    Lds,
    Scratch,
}

impl Space {
    /// For messages: `LDS at 0x10`.
    pub(super) fn at(self, address: u64) -> String {
        format!("{} at {address:#x}", self.name())
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Global => "global memory",
            Self::Lds => "LDS",
            Self::Scratch => "scratch",
        }
    }
}
