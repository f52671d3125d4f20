//! Tuning files: measured geometries that selection takes in place of the cost model's, launch by launch.
//!
//! An entry holds for the decode program of whatever model has a launch of exactly its op on its target. What a file says is checked when
//! it is read; whether it was of any use is known when the plans are made ([`Tuning::unused`]).

use crate::target::Target;
use hipc_ir::bundle::Digest;
use hipc_ir::form::FormError;
use hipc_ir::fused::{FusedOp, ProgramKind};
use hipc_ir::plan::{Geometry, Kernel, KernelSpec, Plan};
use hipc_ir::tuning::{Entry, TuningFile};
use std::path::{Path, PathBuf};

/// Why a tuning file isn't used. The request's fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TuningError {
    /// It can't be read.
    #[error("the tuning file {} can't be read: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Reason.
        error: std::io::Error,
    },
    /// It says something else than a tuning file should.
    #[error("{}, {error}\nwrite it again with: hipfire-run tune BUNDLE -o {}", path.display(), path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Line and reason.
        error: FormError,
    },
}

/// A tuning file as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// As it was named.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// What it says.
    pub file: TuningFile,
}

/// Measured geometries from any number of files; later files win.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    sources: Vec<Source>,
}

impl Tuning {
    /// Nothing was measured.
    pub const NONE: Tuning = Tuning { sources: Vec::new() };

    /// Reads these files.
    ///
    /// # Errors
    /// [`TuningError`] names the file and the line.
    pub fn read<P: AsRef<Path>>(paths: &[P]) -> Result<Self, TuningError> {
        let mut sources = Vec::new();
        for path in paths {
            let path = path.as_ref().to_owned();
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) => return Err(TuningError::Read { path, error }),
            };
            match TuningFile::parse(&text, accept) {
                Ok(file) => sources.push(Source { path, text, file }),
                Err(error) => return Err(TuningError::Form { path, error }),
            }
        }
        Ok(Self { sources })
    }

    /// The files, in the order they were named.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// The measured geometry of a launch in a program of `tokens` tokens; `parts_in` is 0.
    pub fn geometry(&self, op: &FusedOp, tokens: u32, target: &Target) -> Option<Geometry> {
        let entries = self.sources.iter().rev().flat_map(|s| &s.file.entries);
        let mut entries = entries.filter(|_| tokens == 1);
        entries.find(|e| e.is_for(target.name, op)).map(|e| e.geometry)
    }

    /// Entries that none of these plans has a launch for, by file.
    pub fn unused<'a>(&'a self, plans: &[&Plan]) -> Vec<(&'a Source, Vec<&'a Entry>)> {
        let used = |entry: &Entry| plans.iter().any(|plan| decode_kernels(plan).any(|(_, k)| entry.is_for(&plan.target, &k.op)));
        let of = |s: &'a Source| (s, s.file.entries.iter().filter(|e| !used(e)).collect());
        self.sources.iter().map(of).filter(|(_, unused): &(_, Vec<_>)| !unused.is_empty()).collect()
    }
}

/// What every entry must keep: a known target, and a geometry that its op's skeleton takes there.
fn accept(entry: &Entry) -> Result<(), String> {
    let target = Target::parse(&entry.target).map_err(|e| e.to_string())?;
    let g = entry.geometry;
    if g.wave != target.simd.wave_size {
        return Err(format!("waves of {} have {} lanes, not {}", target.name, target.simd.wave_size, g.wave));
    }
    if g.tokens != 1 || g.parts_in != 0 {
        return Err("an entry is for steps of one token, and leaves parts_in at 0".to_owned());
    }
    let spec = KernelSpec { name: "entry".into(), op: entry.op.clone(), geometry: Geometry { parts_in: 1, ..g } };
    hipc_templates::check_geometry(&spec)
}

/// Kernels of the decode program, each once.
fn decode_kernels(plan: &Plan) -> impl Iterator<Item = (Kernel, &KernelSpec)> {
    let decode = plan.program(ProgramKind::Decode);
    let uses = move |k| decode.is_some_and(|p| p.launches.iter().any(|l| l.kernel == k));
    plan.kernels.iter().filter(move |&(k, _)| uses(k))
}

/// Kernels of a plan's decode program that have the geometry of an entry.
pub fn tuned_kernels<'a>(plan: &'a Plan, files: &[TuningFile]) -> Vec<&'a str> {
    let entries = || files.iter().flat_map(|f| &f.entries);
    let tuned = |k: &KernelSpec| entries().any(|e| e.is_in(&plan.target, k));
    decode_kernels(plan).filter(|(_, k)| tuned(k)).map(|(_, k)| k.name.as_str()).collect()
}

/// How a bundle's provenance names a file: not by where it lay on the machine that compiled.
pub fn provenance(source: &Source) -> String {
    let name = source.path.file_name().unwrap_or(source.path.as_os_str());
    format!("--tune {} (BLAKE3 {})", name.display(), Digest::of(source.text.as_bytes()))
}
