//! The 64-byte kernel descriptor. Source: "Kernel Descriptor" and "compute_pgm_rsrc*" of LLVM's AMDGPU user guide.

/// What the packet processor reads before it launches a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelDescriptor {
    /// Virtual address of the descriptor within the code object.
    pub address: u64,
    /// Virtual address of the first instruction.
    pub entry: u64,
    /// Static LDS, bytes per workgroup.
    pub group_segment_fixed_size: u32,
    /// Scratch, bytes per lane.
    pub private_segment_fixed_size: u32,
    /// Kernel arguments, bytes (0 where the compiler leaves it open).
    pub kernarg_size: u32,
    /// `COMPUTE_PGM_RSRC1`: register blocks, float mode, WGP mode.
    pub rsrc1: u32,
    /// `COMPUTE_PGM_RSRC2`: user SGPRs, workgroup ids, work-item id width.
    pub rsrc2: u32,
    /// `COMPUTE_PGM_RSRC3`: offset of the accumulation registers (gfx90a, gfx942), shared VGPRs (gfx10, gfx11).
    pub rsrc3: u32,
    /// Which user SGPRs are set up; bit 10: wave32.
    pub code_properties: u16,
    /// Kernel arguments loaded into user SGPRs beforehand.
    pub kernarg_preload: u16,
}

impl KernelDescriptor {
    /// Size in the file.
    pub const BYTES: usize = 64;

    /// Reads the descriptor that is loaded at `address`; `None` if `raw` is too short or the entry would wrap round.
    pub(crate) fn read(raw: &[u8], address: u64) -> Option<Self> {
        let raw: &[u8; Self::BYTES] = raw.get(..Self::BYTES)?.try_into().ok()?;
        let word = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let half = |at: usize| u16::from_le_bytes([raw[at], raw[at + 1]]);
        let entry_offset = i64::from_le_bytes(raw[16..24].try_into().ok()?);
        Some(Self {
            address,
            entry: address.checked_add_signed(entry_offset)?,
            group_segment_fixed_size: word(0),
            private_segment_fixed_size: word(4),
            kernarg_size: word(8),
            rsrc3: word(44),
            rsrc1: word(48),
            rsrc2: word(52),
            code_properties: half(56),
            kernarg_preload: half(58),
        })
    }

    /// Whether the kernel runs with 32 lanes per wave (`ENABLE_WAVEFRONT_SIZE32`).
    pub fn is_wave32(&self) -> bool {
        self.code_properties & (1 << 10) != 0
    }
}
