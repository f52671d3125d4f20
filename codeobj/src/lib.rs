//! Reads AMD GPU code objects: target, kernel descriptors, metadata, and what they say about occupancy.
//!
//! A code object is an ELF shared object for `EM_AMDGPU`. What a kernel needs stands in it twice: in the 64-byte kernel
//! descriptor that the hardware's packet processor reads (symbol `NAME.kd`), and in the `NT_AMDGPU_METADATA` note (a
//! MessagePack map) that loaders and people read. Source: LLVM's *User Guide for AMDGPU Backend*, chapters "ELF Code
//! Object", "Code Object Metadata" and "Kernel Descriptor".
#![forbid(unsafe_code)]

mod bundle;
mod descriptor;
mod elf;
mod error;
mod image;
mod machine;
mod metadata;
mod occupancy;

pub use bundle::unbundle;
pub use descriptor::KernelDescriptor;
pub use error::CodeObjectError;
pub use image::{Image, Relocation, Segment};
pub use machine::{Feature, machine_name};
pub use metadata::{Arg, ArgKind};
pub use occupancy::{Limit, Occupancy, SimdFacts, Usage, occupancy};

/// Version of the code object ABI, from `EI_ABIVERSION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AbiVersion {
    /// Code object v4, ROCm ≥ 4.1.
    V4,
    /// Code object v5, ROCm ≥ 5.2.
    V5,
    /// Code object v6, ROCm ≥ 6.3.
    V6,
}

/// A code object: what it runs on and what it holds.
#[derive(Clone, Debug, PartialEq)]
pub struct CodeObject {
    /// Processor, e.g. `gfx1100`. The ELF header and the metadata agree on it.
    pub target: String,
    /// Whether XNACK (page-fault replay) must be on or off, or does not matter.
    pub xnack: Feature,
    /// Whether SRAM-ECC must be on or off, or does not matter.
    pub sramecc: Feature,
    /// ABI version.
    pub abi: AbiVersion,
    /// Kernels in the metadata's order.
    pub kernels: Vec<Kernel>,
}

/// A kernel: resources and arguments from the metadata, and its descriptor.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// Name in the source.
    pub name: String,
    /// Symbol of the descriptor, `NAME.kd`.
    pub symbol: String,
    /// Vector registers per lane; where vector and accumulation registers share one file (gfx90a and later CDNA), both.
    pub vgpr_count: u32,
    /// Accumulation registers per lane, 0 where there are none.
    pub agpr_count: u32,
    /// Scalar registers per wave, VCC and the like included.
    pub sgpr_count: u32,
    /// Static LDS per workgroup, bytes.
    pub group_segment_fixed_size: u32,
    /// Scratch per lane, bytes.
    pub private_segment_fixed_size: u32,
    /// Vector registers spilled to scratch.
    pub vgpr_spill_count: u32,
    /// Scalar registers spilled to vector registers or scratch.
    pub sgpr_spill_count: u32,
    /// Kernel arguments, bytes, hidden ones included.
    pub kernarg_segment_size: u32,
    /// Alignment of the kernel arguments, bytes.
    pub kernarg_segment_align: u32,
    /// Arguments by offset, hidden ones included.
    pub args: Vec<Arg>,
    /// Largest workgroup, threads.
    pub max_flat_workgroup_size: u32,
    /// Lanes per wave, 32 or 64.
    pub wavefront_size: u32,
    /// The 64 bytes the packet processor reads.
    pub descriptor: KernelDescriptor,
}

impl Kernel {
    /// Arguments the launcher passes: all but the hidden ones.
    pub fn explicit_args(&self) -> impl Iterator<Item = &Arg> {
        self.args.iter().filter(|a| !matches!(a.kind, ArgKind::Hidden(_)))
    }

    /// Bytes up to the end of the last argument that isn't hidden.
    pub fn explicit_kernarg_size(&self) -> u32 {
        self.explicit_args().map(|a| a.offset.saturating_add(a.size)).max().unwrap_or(0)
    }

    /// Whether it needs scratch memory or has spilled registers of either kind.
    pub fn spills(&self) -> bool {
        self.private_segment_fixed_size > 0 || self.vgpr_spill_count > 0 || self.sgpr_spill_count > 0
    }

    /// What this kernel takes of a SIMD when launched with `workgroup_size` threads and `dynamic_lds` bytes beside the static LDS.
    pub fn usage(&self, workgroup_size: u32, dynamic_lds: u32) -> Usage {
        Usage {
            vgprs: self.vgpr_count,
            sgprs: self.sgpr_count,
            lds_bytes: self.group_segment_fixed_size.saturating_add(dynamic_lds),
            workgroup_size,
        }
    }
}

/// What a kernel of an object that isn't linked yet takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Name in the source.
    pub name: String,
    /// Registers and LDS, in the largest workgroup it may be launched with.
    pub usage: Usage,
    /// Whether it needs scratch memory or has spilled registers of either kind.
    pub spills: bool,
}

/// Resources of the kernels of a relocatable object, as a compiler writes it before the linker makes a code object of it; in
/// the metadata's order.
///
/// # Errors
/// As [`CodeObject::parse`].
pub fn unlinked_resources(bytes: &[u8]) -> Result<Vec<Resources>, CodeObjectError> {
    let note = metadata::read(elf::Elf::parse(bytes)?.unlinked_metadata_note()?)?;
    Ok(note.kernels.into_iter().map(metadata::RawKernel::into_resources).collect())
}

impl CodeObject {
    /// Reads a code object.
    ///
    /// Everything is bounds-checked against `bytes`; memory and time are linear in their length.
    ///
    /// # Errors
    /// [`CodeObjectError`] says which part of the file is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, CodeObjectError> {
        let elf = elf::Elf::parse(bytes)?;
        let note = metadata::read(elf.metadata_note()?)?;
        let target = machine_name(elf.flags).ok_or(CodeObjectError::UnknownMachine { flags: elf.flags })?;
        if note.processor() != target {
            return Err(CodeObjectError::TargetMismatch { header: target.to_owned(), metadata: note.target });
        }
        let symbols = elf.descriptor_symbols()?;
        let mut kernels = Vec::with_capacity(note.kernels.len());
        for k in note.kernels {
            let &address = symbols.get(k.symbol.as_str()).ok_or_else(|| CodeObjectError::MissingDescriptor(k.symbol.clone()))?;
            let raw = elf.bytes_at(address, KernelDescriptor::BYTES as u64);
            let raw = raw.ok_or_else(|| CodeObjectError::DescriptorOutOfFile { symbol: k.symbol.clone(), address })?;
            let descriptor = KernelDescriptor::read(raw, address)
                .ok_or_else(|| CodeObjectError::DescriptorOutOfFile { symbol: k.symbol.clone(), address })?;
            if elf.bytes_at(descriptor.entry, 4).is_none() {
                return Err(CodeObjectError::EntryOutOfFile { kernel: k.name, address: descriptor.entry });
            }
            kernels.push(k.into_kernel(descriptor));
        }
        Ok(Self {
            target: target.to_owned(),
            xnack: Feature::xnack(elf.flags),
            sramecc: Feature::sramecc(elf.flags),
            abi: elf.abi,
            kernels,
        })
    }

    /// The kernel of this name.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|k| k.name == name)
    }
}
