//! The processor and its features in `e_flags`. Source: "AMDGPU ELF Header e_flags" of LLVM's AMDGPU user guide.

/// Whether a processor feature is demanded of the GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// The processor has no such feature.
    Unsupported,
    /// The code runs either way.
    Any,
    /// Must be off.
    Off,
    /// Must be on.
    On,
}

impl Feature {
    fn from_bits(bits: u32) -> Self {
        match bits & 3 {
            0 => Self::Unsupported,
            1 => Self::Any,
            2 => Self::Off,
            _ => Self::On,
        }
    }

    /// `EF_AMDGPU_FEATURE_XNACK_V4`, bits 8 and 9.
    pub(crate) fn xnack(flags: u32) -> Self {
        Self::from_bits(flags >> 8)
    }

    /// `EF_AMDGPU_FEATURE_SRAMECC_V4`, bits 10 and 11.
    pub(crate) fn sramecc(flags: u32) -> Self {
        Self::from_bits(flags >> 10)
    }
}

/// `EF_AMDGPU_MACH_*`: low byte of `e_flags` and the processor it stands for.
const MACHINES: [(u8, &str); 26] = [
    (0x2c, "gfx900"),
    (0x2f, "gfx906"),
    (0x30, "gfx908"),
    (0x33, "gfx1010"),
    (0x34, "gfx1011"),
    (0x35, "gfx1012"),
    (0x36, "gfx1030"),
    (0x37, "gfx1031"),
    (0x38, "gfx1032"),
    (0x39, "gfx1033"),
    (0x3d, "gfx1035"),
    (0x3e, "gfx1034"),
    (0x3f, "gfx90a"),
    (0x41, "gfx1100"),
    (0x43, "gfx1150"),
    (0x44, "gfx1103"),
    (0x45, "gfx1036"),
    (0x46, "gfx1101"),
    (0x47, "gfx1102"),
    (0x48, "gfx1200"),
    (0x4a, "gfx1151"),
    (0x4c, "gfx942"),
    (0x4e, "gfx1201"),
    (0x4f, "gfx950"),
    (0x55, "gfx1152"),
    (0x58, "gfx1153"),
];

/// Name of the processor in the low byte of `e_flags`, if it is one of those that hipc compiles for.
pub fn machine_name(flags: u32) -> Option<&'static str> {
    MACHINES.iter().find(|&&(number, _)| u32::from(number) == flags & 0xff).map(|&(_, name)| name)
}
