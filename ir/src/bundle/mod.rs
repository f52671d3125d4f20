//! The bundle: one file with plans and machine code for several architectures, and what they were made from.
//!
//! All numbers are little-endian.
//!
//! | bytes | contents |
//! |---|---|
//! | 0..8 | [`MAGIC`] |
//! | 8..12 | [`VERSION`], u32 |
//! | 12..16 | number of sections, u32 |
//! | 16..24 | length of the file, u64 |
//! | 24..32 | zero |
//! | 32..64 | BLAKE3 of bytes 0..32 and of the table |
//! | 64.. | table, 96 bytes a section: kind u32, zero u32, offset u64, length u64, name (40 bytes, padded with zeros), BLAKE3 (32) |
//!
//! Sections follow in the order of their offsets, each at the next multiple of [`ALIGN`] (weights: [`WEIGHTS_ALIGN`]), zeros
//! between them, nothing behind the last. So every byte of the file is covered by a hash or must be zero. Sections of equal
//! contents share their place. Everything but [`SectionKind::Weights`] is checked when a bundle is opened.
//!
//! This module reads and writes slices; files are the business of `hipc` and `hipfire-run`.

mod read;
mod table;

pub use read::Bundle;
pub use table::{Section, file_bytes, header, place};

use crate::dtype::KvType;
use crate::graph::Weight;
use crate::plan::{ModelInfo, Plan};
use crate::verify::PlanFault;
use cranelift_entity::PrimaryMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// First bytes of every bundle.
pub const MAGIC: [u8; 8] = *b"HIPCBNDL";
/// Version of the format that this code reads and writes.
pub const VERSION: u32 = 2;
/// Alignment of sections.
pub const ALIGN: u64 = 64;
/// Alignment of embedded weights: a page, so that they can be mapped.
pub const WEIGHTS_ALIGN: u64 = 4096;

/// A BLAKE3 hash; hexadecimal in JSON and text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The hash of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { s.collect_str(self) } else { self.0.serialize(s) }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if !d.is_human_readable() {
            return <[u8; 32]>::deserialize(d).map(Self);
        }
        let text = String::deserialize(d)?;
        let byte = |i: usize| text.get(2 * i..2 * i + 2).and_then(|b| u8::from_str_radix(b, 16).ok());
        let bytes: Option<Vec<u8>> = (0..32).map(byte).collect();
        let bytes = bytes.filter(|_| text.len() == 64).and_then(|b| b.try_into().ok());
        bytes.map(Self).ok_or_else(|| serde::de::Error::custom("a hash has 64 hexadecimal digits"))
    }
}

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SectionKind {
    /// [`Manifest`], postcard.
    Manifest,
    /// [`TokenizerData`](crate::text::TokenizerData), postcard.
    Tokenizer,
    /// The unfused [`Graph`](crate::graph::Graph) (for `--exact`), postcard.
    Graph,
    /// The [`Plan`] of an architecture, without what differs between architectures of equal plans (see [`ArchEntry`]), postcard.
    Plan,
    /// Machine code of an architecture as its driver takes it.
    Code,
    /// HIP source of an architecture.
    Unit,
    /// The data section of the GGUF file.
    Weights,
    /// [`Trial`](crate::tuning::Trial)s of an architecture, postcard; only in bundles made to be measured.
    Trials,
    /// Machine code of one trial, named `ARCH/N`.
    TrialCode,
    /// A [`TuningFile`](crate::tuning::TuningFile) that the plans were made with, as text; named by its number.
    Tuning,
    /// [`KernelVariants`] of an architecture, postcard; only where variants of code generation were searched.
    Variants,
}

impl SectionKind {
    const ALL: [Self; 11] = [
        Self::Manifest,
        Self::Tokenizer,
        Self::Graph,
        Self::Plan,
        Self::Code,
        Self::Unit,
        Self::Weights,
        Self::Trials,
        Self::TrialCode,
        Self::Tuning,
        Self::Variants,
    ];

    /// Number in the file.
    fn id(self) -> u32 {
        self as u32 + 1
    }

    fn align(self) -> u64 {
        if self == Self::Weights { WEIGHTS_ALIGN } else { ALIGN }
    }
}

impl fmt::Display for SectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manifest => "manifest",
            Self::Tokenizer => "tokenizer",
            Self::Graph => "graph",
            Self::Plan => "plan",
            Self::Code => "code",
            Self::Unit => "unit",
            Self::Weights => "weights",
            Self::Trials => "trials",
            Self::TrialCode => "code of the trial",
            Self::Tuning => "tuning file",
            Self::Variants => "variants",
        })
    }
}

/// What a bundle was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of hipc.
    pub hipc: String,
    /// Hash of the kernel templates.
    pub templates: Digest,
    /// Hash of the model file's header, keys and tensor table.
    pub model_header: Digest,
    /// Model file as it was given.
    pub model_path: String,
    /// What the kernels were compiled with, compiler and flags, one entry per architecture.
    pub compilers: Vec<(String, String)>,
    /// Choices of the person who compiled: context, cache type, back end.
    pub flags: Vec<String>,
}

/// The variants of code generation that were tried for a kernel, and the one its machine code was made in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelVariants {
    /// Symbol of the kernel.
    pub kernel: String,
    /// Index into `tried`.
    pub chosen: u32,
    /// In the order in which the first of equals is taken; one if the kernel had nothing to gain.
    pub tried: Vec<Variant>,
}

impl KernelVariants {
    /// The variant that was taken.
    pub fn chosen(&self) -> Option<&Variant> {
        self.tried.get(self.chosen as usize)
    }
}

/// A kernel compiled in one variant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// What was asked of the code generator.
    pub name: String,
    /// Vector registers per lane.
    pub vgpr: u32,
    /// Waves per SIMD that fit.
    pub waves: u32,
    /// Whether registers were spilled.
    pub spills: bool,
}

/// Where the weights are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightsRef {
    /// Whether they are in the bundle.
    pub embedded: bool,
    /// The model file relative to the bundle's folder, if there is such a path.
    pub relative: Option<String>,
    /// The model file, absolute.
    pub absolute: String,
    /// Length of the model file.
    pub file_bytes: u64,
    /// Length of its header, keys and tensor table, whose hash is [`Provenance::model_header`].
    pub header_bytes: u64,
    /// Where tensor data begin in the model file; an embedded section holds the file from here on.
    pub data_offset: u64,
    /// Place of each weight's data from `data_offset` on.
    pub tensors: PrimaryMap<Weight, TensorPlace>,
}

/// Bytes of one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorPlace {
    /// First byte, from the beginning of the data.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
}

/// An architecture of a bundle. Name and predicted times stand here and not in the plan, so that architectures with
/// equal plans share one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchEntry {
    /// Name (`gfx1100`).
    pub name: String,
    /// [`Cost::ns`](crate::plan::Cost::ns) of every launch, program by program.
    pub ns: Vec<Vec<u64>>,
    /// Bytes that a device allocates, by context length.
    pub memory: Vec<(u32, u64)>,
}

/// What is in a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The model.
    pub model: ModelInfo,
    /// Positions of the cache.
    pub ctx: u32,
    /// Storage type of the cache.
    pub kv: KvType,
    /// What it was made from.
    pub provenance: Provenance,
    /// Where the weights are.
    pub weights: WeightsRef,
    /// Architectures.
    pub archs: Vec<ArchEntry>,
}

/// Why bytes are not a bundle that can be used. The file's fault, or the request's (`Version`, `NoArch`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Another kind of file.
    #[error("this is not a bundle; make one with: hipc compile MODEL.gguf --arch ARCH")]
    NotABundle,
    /// Written by another version.
    #[error("the bundle has format version {found}, this program reads version {VERSION}; {}", if *found > VERSION { "use a newer hipfire-run, or compile the model again with this hipc" } else { "compile the model again with this hipc" })]
    Version {
        /// Version of the file.
        found: u32,
    },
    /// The file ends too early, or goes on behind its end.
    #[error("the bundle has {found} bytes and should have {expected}; it was not copied completely")]
    Length {
        /// Bytes it should have.
        expected: u64,
        /// Bytes it has.
        found: u64,
    },
    /// A hash doesn't match.
    #[error("the bundle is damaged: its {what} changed after it was written; compile the model again")]
    Damaged {
        /// Which part.
        what: String,
    },
    /// Hashes match, but the contents make no sense: it was never right.
    #[error("the bundle's {what} makes no sense ({reason}); please report it with the command that wrote it")]
    Malformed {
        /// Which part.
        what: String,
        /// Why.
        reason: String,
    },
    /// No code for this architecture.
    #[error("the bundle has no code for {wanted} (it has {has}); compile again with: hipc compile MODEL.gguf --arch {wanted}")]
    NoArch {
        /// The architecture asked for.
        wanted: String,
        /// Those present.
        has: String,
    },
}

impl FormatError {
    fn malformed(what: impl fmt::Display, reason: impl fmt::Display) -> Self {
        Self::Malformed { what: what.to_string(), reason: reason.to_string() }
    }
}

impl From<PlanFault> for FormatError {
    fn from(fault: PlanFault) -> Self {
        Self::malformed("plan", fault)
    }
}

/// A value as a section's bytes.
///
/// # Errors
/// [`FormatError::Malformed`] for a type that postcard can't write; none of ours.
pub fn encode<T: Serialize>(kind: SectionKind, value: &T) -> Result<Vec<u8>, FormatError> {
    postcard::to_stdvec(value).map_err(|e| FormatError::malformed(kind, e))
}

/// What [`SectionKind::Plan`] holds of a plan, and what [`ArchEntry::ns`] does.
pub fn split_plan(plan: &Plan) -> (Plan, Vec<Vec<u64>>) {
    let mut shared = Plan { target: String::new(), ..plan.clone() };
    let launches = shared.programs.iter_mut().map(|p| p.launches.iter_mut());
    let ns = launches.map(|l| l.map(|l| std::mem::take(&mut l.cost.ns)).collect()).collect();
    (shared, ns)
}
