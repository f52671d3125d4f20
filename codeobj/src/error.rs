//! What can be wrong with a code object. Every variant is the file's fault.

/// Why bytes are not a code object that we can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeObjectError {
    /// Truncated, damaged or not ELF at all.
    #[error("not a readable 64-bit little-endian ELF file: {0}")]
    Elf(String),
    /// ELF for another machine.
    #[error("an ELF file for machine {0}, not for AMD GPUs (224)")]
    WrongMachine(u16),
    /// ELF for an AMD GPU under another operating-system ABI (PAL, Mesa).
    #[error("an AMD GPU ELF file for OS ABI {0}, not for the HSA runtime (64)")]
    WrongOsAbi(u8),
    /// An ABI version outside v4 to v6.
    #[error(
        "code object with ABI version byte {0}: only v4 (2), v5 (3) and v6 (4) are read; compile with -mcode-object-version=5"
    )]
    UnsupportedAbi(u8),
    /// A processor number this crate has no name for.
    #[error("unknown processor in e_flags {flags:#x}")]
    UnknownMachine {
        /// The ELF header's `e_flags`.
        flags: u32,
    },
    /// The header and the metadata name different processors.
    #[error("the ELF header is for {header}, the metadata for {metadata}: the file is damaged")]
    TargetMismatch {
        /// From `e_flags`.
        header: String,
        /// From `amdhsa.target`.
        metadata: String,
    },
    /// No `NT_AMDGPU_METADATA` note.
    #[error("no AMDGPU metadata note: the file is damaged or is a relocatable object")]
    MissingMetadata,
    /// The note isn't the MessagePack map that the ABI describes.
    #[error("unreadable AMDGPU metadata: {0}")]
    BadMetadata(String),
    /// The metadata names a descriptor that the symbol table lacks.
    #[error("no symbol `{0}` for a kernel that the metadata lists")]
    MissingDescriptor(String),
    /// A descriptor outside the file's loaded bytes.
    #[error("kernel descriptor `{symbol}` at {address:#x} lies outside the file")]
    DescriptorOutOfFile {
        /// Descriptor symbol.
        symbol: String,
        /// Virtual address.
        address: u64,
    },
    /// A kernel whose first instruction lies outside the file's loaded bytes.
    #[error("code of kernel `{kernel}` at {address:#x} lies outside the file")]
    EntryOutOfFile {
        /// Kernel.
        kernel: String,
        /// Virtual address.
        address: u64,
    },
    /// A relocation that a loader of ours can't apply.
    #[error("relocation of type {kind} at {address:#x}: {why}")]
    Relocation {
        /// What is to be relocated.
        address: u64,
        /// `R_AMDGPU_*`.
        kind: u32,
        /// What is wrong with it.
        why: String,
    },
    /// An offload bundle that is damaged or has nothing for the target.
    #[error("offload bundle: {0}")]
    Bundle(String),
}
