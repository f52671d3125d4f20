//! What differs between GPUs, as far as a program can tell: one row each.

/// Instruction set generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Generation {
    /// GCN 5 and CDNA: wave64.
    Gfx9,
    /// RDNA 1 and 2.
    Gfx10,
    /// RDNA 3.
    Gfx11,
    /// RDNA 4.
    Gfx12,
}

/// Facts of one GPU. Source: LLVM's *User Guide for AMDGPU Backend* ("Processors", "Initial Kernel Execution State").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arch {
    /// Processor, e.g. `gfx1100`.
    pub name: &'static str,
    /// Instruction set.
    pub generation: Generation,
    /// The work-item's three ids are packed into v0, ten bits each.
    pub packed_work_item_ids: bool,
    /// Accumulation registers are part of the vector registers, from `ACCUM_OFFSET` of the descriptor on.
    pub unified_registers: bool,
    /// LDS of a workgroup at most, bytes.
    pub lds: u32,
}

impl Arch {
    /// Lanes of a wave of our kernels; only gfx10 and later have a choice.
    pub fn has_wave32(&self) -> bool {
        self.generation >= Generation::Gfx10
    }

    /// Workgroup ids are in `ttmp9` and `ttmp7` rather than behind the user SGPRs.
    pub(crate) fn ids_in_trap_registers(&self) -> bool {
        self.generation >= Generation::Gfx12
    }

    /// 16-bit results leave the upper half of the register alone (before, they clear it).
    pub(crate) fn keeps_upper_half(&self) -> bool {
        self.generation >= Generation::Gfx10
    }

    /// `ds_bpermute` reaches all lanes of a wave of 64 (else half of them). Source: `supportsWaveWideBPermute` of LLVM's AMDGPU back end.
    pub(crate) fn pulls_from_whole_wave(&self) -> bool {
        !matches!(self.generation, Generation::Gfx10 | Generation::Gfx11)
    }

    /// `v_cmpx` writes `exec` only (before, also its scalar destination).
    pub(crate) fn compares_into_exec_only(&self) -> bool {
        self.generation >= Generation::Gfx10
    }
}

const fn arch(name: &'static str, generation: Generation, packed: bool, unified: bool) -> Arch {
    Arch { name, generation, packed_work_item_ids: packed, unified_registers: unified, lds: 64 << 10 }
}

const ARCHS: [Arch; 26] = {
    use Generation::*;
    [
        arch("gfx900", Gfx9, false, false),
        arch("gfx906", Gfx9, false, false),
        arch("gfx908", Gfx9, false, false),
        arch("gfx90a", Gfx9, true, true),
        arch("gfx942", Gfx9, true, true),
        Arch { lds: 160 << 10, ..arch("gfx950", Gfx9, true, true) },
        arch("gfx1010", Gfx10, false, false),
        arch("gfx1011", Gfx10, false, false),
        arch("gfx1012", Gfx10, false, false),
        arch("gfx1030", Gfx10, false, false),
        arch("gfx1031", Gfx10, false, false),
        arch("gfx1032", Gfx10, false, false),
        arch("gfx1033", Gfx10, false, false),
        arch("gfx1034", Gfx10, false, false),
        arch("gfx1035", Gfx10, false, false),
        arch("gfx1036", Gfx10, false, false),
        arch("gfx1100", Gfx11, true, false),
        arch("gfx1101", Gfx11, true, false),
        arch("gfx1102", Gfx11, true, false),
        arch("gfx1103", Gfx11, true, false),
        arch("gfx1150", Gfx11, true, false),
        arch("gfx1151", Gfx11, true, false),
        arch("gfx1152", Gfx11, true, false),
        arch("gfx1153", Gfx11, true, false),
        arch("gfx1200", Gfx12, true, false),
        arch("gfx1201", Gfx12, true, false),
    ]
};

/// The row of a processor.
pub fn find(name: &str) -> Option<&'static Arch> {
    ARCHS.iter().find(|a| a.name == name)
}

/// All names, for messages.
pub(crate) fn known() -> String {
    ARCHS.map(|a| a.name).join(" ")
}

/// All rows.
pub fn all() -> &'static [Arch] {
    &ARCHS
}
