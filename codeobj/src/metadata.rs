//! The `NT_AMDGPU_METADATA` note. Source: "Code Object V3 Metadata" to "V5" of LLVM's AMDGPU user guide.

use crate::{CodeObjectError, Kernel, KernelDescriptor, Resources, Usage};
use serde::Deserialize;

/// One kernel argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg {
    /// Offset in the kernarg segment, bytes.
    pub offset: u32,
    /// Size, bytes.
    pub size: u32,
    /// What is passed.
    pub kind: ArgKind,
}

/// `.value_kind` of an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArgKind {
    /// The value itself.
    ByValue,
    /// A pointer to global memory.
    GlobalBuffer,
    /// A pointer to LDS allotted at launch.
    DynamicSharedPointer,
    /// Filled in by the runtime (`hidden_*`).
    Hidden(String),
    /// Images, samplers, pipes, queues.
    Other(String),
}

impl ArgKind {
    fn from_name(name: String) -> Self {
        match name.as_str() {
            "by_value" => Self::ByValue,
            "global_buffer" => Self::GlobalBuffer,
            "dynamic_shared_pointer" => Self::DynamicSharedPointer,
            hidden if hidden.starts_with("hidden_") => Self::Hidden(name),
            _ => Self::Other(name),
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct Note {
    #[serde(rename = "amdhsa.target")]
    pub(crate) target: String,
    #[serde(rename = "amdhsa.kernels", default)]
    pub(crate) kernels: Vec<RawKernel>,
}

impl Note {
    /// The processor of a target id `ARCH-VENDOR-OS-ENV-PROCESSOR[:FEATURE±]…`.
    pub(crate) fn processor(&self) -> &str {
        let id = self.target.split(':').next().unwrap_or_default();
        id.rsplit('-').next().unwrap_or_default()
    }
}

#[derive(Deserialize)]
pub(crate) struct RawKernel {
    #[serde(rename = ".name")]
    pub(crate) name: String,
    #[serde(rename = ".symbol")]
    pub(crate) symbol: String,
    #[serde(rename = ".vgpr_count")]
    vgpr_count: u32,
    #[serde(rename = ".agpr_count", default)]
    agpr_count: u32,
    #[serde(rename = ".sgpr_count")]
    sgpr_count: u32,
    #[serde(rename = ".group_segment_fixed_size")]
    group_segment_fixed_size: u32,
    #[serde(rename = ".private_segment_fixed_size")]
    private_segment_fixed_size: u32,
    #[serde(rename = ".vgpr_spill_count", default)]
    vgpr_spill_count: u32,
    #[serde(rename = ".sgpr_spill_count", default)]
    sgpr_spill_count: u32,
    #[serde(rename = ".kernarg_segment_size")]
    kernarg_segment_size: u32,
    #[serde(rename = ".kernarg_segment_align")]
    kernarg_segment_align: u32,
    #[serde(rename = ".args", default)]
    args: Vec<RawArg>,
    #[serde(rename = ".max_flat_workgroup_size")]
    max_flat_workgroup_size: u32,
    #[serde(rename = ".wavefront_size")]
    wavefront_size: u32,
}

#[derive(Deserialize)]
struct RawArg {
    #[serde(rename = ".offset")]
    offset: u32,
    #[serde(rename = ".size")]
    size: u32,
    #[serde(rename = ".value_kind")]
    value_kind: String,
}

impl RawKernel {
    pub(crate) fn into_resources(self) -> Resources {
        let usage = Usage {
            vgprs: self.vgpr_count,
            sgprs: self.sgpr_count,
            lds_bytes: self.group_segment_fixed_size,
            workgroup_size: self.max_flat_workgroup_size,
        };
        let spills = self.private_segment_fixed_size > 0 || self.vgpr_spill_count > 0 || self.sgpr_spill_count > 0;
        Resources { name: self.name, usage, spills }
    }

    pub(crate) fn into_kernel(self, descriptor: KernelDescriptor) -> Kernel {
        let mut args: Vec<Arg> = self
            .args
            .into_iter()
            .map(|a| Arg { offset: a.offset, size: a.size, kind: ArgKind::from_name(a.value_kind) })
            .collect();
        args.sort_by_key(|a| a.offset);
        Kernel {
            name: self.name,
            symbol: self.symbol,
            vgpr_count: self.vgpr_count,
            agpr_count: self.agpr_count,
            sgpr_count: self.sgpr_count,
            group_segment_fixed_size: self.group_segment_fixed_size,
            private_segment_fixed_size: self.private_segment_fixed_size,
            vgpr_spill_count: self.vgpr_spill_count,
            sgpr_spill_count: self.sgpr_spill_count,
            kernarg_segment_size: self.kernarg_segment_size,
            kernarg_segment_align: self.kernarg_segment_align,
            args,
            max_flat_workgroup_size: self.max_flat_workgroup_size,
            wavefront_size: self.wavefront_size,
            descriptor,
        }
    }
}

/// Threads of a workgroup at most. Source: `max_flat_workgroup_size` in LLVM's *User Guide for AMDGPU Backend*.
const MOST_THREADS: u32 = 1024;

/// Bytes of the kernarg segment at most: many times what compilers accept (4 KiB).
const MOST_ARGUMENTS: u32 = 64 << 10;

pub(crate) fn read(bytes: &[u8]) -> Result<Note, CodeObjectError> {
    let note: Note = rmp_serde::from_slice(bytes).map_err(|e| CodeObjectError::BadMetadata(e.to_string()))?;
    for k in &note.kernels {
        if k.wavefront_size != 32 && k.wavefront_size != 64 {
            let what = format!("kernel `{}` has a wavefront of {} lanes", k.name, k.wavefront_size);
            return Err(CodeObjectError::BadMetadata(what));
        }
        // What the hardware's registers and the runtimes' buffers can hold: nothing larger is allocated because a file says so.
        for (value, most, what) in [
            (k.max_flat_workgroup_size, MOST_THREADS, "threads in a workgroup"),
            (k.kernarg_segment_size, MOST_ARGUMENTS, "bytes of arguments"),
        ] {
            if value > most {
                return Err(CodeObjectError::BadMetadata(format!("kernel `{}` takes {value} {what}; {most} at most", k.name)));
            }
        }
        // An argument may end beyond `.kernarg_segment_size` in no valid file.
        let end = |a: &RawArg| u64::from(a.offset) + u64::from(a.size);
        if let Some(a) = k.args.iter().find(|a| end(a) > u64::from(k.kernarg_segment_size)) {
            let what =
                format!("kernel `{}`: argument at {} of {} bytes lies outside the kernarg segment", k.name, a.offset, a.size);
            return Err(CodeObjectError::BadMetadata(what));
        }
    }
    Ok(note)
}
