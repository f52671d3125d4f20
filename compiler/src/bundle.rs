//! Writing bundles; the format is [`hipc_ir::bundle`]'s.
//!
//! A bundle appears whole or not at all: it is written to a temporary file in the same folder, synchronised, and renamed.
//! Whatever goes wrong before (a full disk, Ctrl-C), the temporary file is removed and an older bundle stays as it was.

use crate::pipeline::{Built, Options};
use crate::toolchain::Backend;
use crate::tuning;
use hipc_ir::PrimaryMap;
use hipc_ir::bundle::{
    ArchEntry, Digest, FormatError, Manifest, Provenance, Section, SectionKind, TensorPlace, WeightsRef, encode, file_bytes,
    header, place, split_plan,
};
use hipc_ir::dtype::KvType;
use hipc_ir::tuning::Trial;
use hipc_models::{GgufError, GgufFile, Model};
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Where a bundle's weights are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightsMode {
    /// In the model file, which the bundle names.
    Referenced,
    /// Copied into the bundle.
    Embedded,
}

/// What a bundle is made from.
#[derive(Clone, Copy)]
pub struct BundleRequest<'a> {
    /// The model.
    pub model: &'a Model,
    /// Plans and machine code, one per architecture; at least one.
    pub built: &'a [Built],
    /// Choices of the person who compiles.
    pub options: &'a Options,
    /// Where the weights are to be.
    pub weights: WeightsMode,
    /// Set by Ctrl-C: what is being written is given up.
    pub interrupted: &'a AtomicBool,
}

/// Why no bundle was written. Nothing is left of it then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The machine's fault: no space, no permission, no such folder.
    #[error("{} can't be written: {error}", path.display())]
    Write {
        /// The bundle.
        path: PathBuf,
        /// Reason.
        error: io::Error,
    },
    /// The request's: a folder or device of that name.
    #[error("{} is not a regular file; name another with -o", path.display())]
    NotAFile {
        /// The path asked for.
        path: PathBuf,
    },
    /// The model file can't be read any more.
    #[error(transparent)]
    Model(#[from] GgufError),
    /// Ours.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Ctrl-C.
    #[error("interrupted; nothing was written")]
    Interrupted,
}

impl BundleError {
    /// 1 ours, 2 the request, 3 the machine, 130 interrupted.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Write { .. } => 3,
            Self::NotAFile { .. } => 2,
            Self::Model(e) => 2 + u8::from(e.is_machine()),
            Self::Format(_) => 1,
            Self::Interrupted => 130,
        }
    }
}

/// A section and its contents; `None` stands for the model's tensor data.
type Content = (SectionKind, String, Option<Vec<u8>>);

/// Writes a bundle to `path` and returns its length.
///
/// # Errors
/// [`BundleError`]; then nothing is left at `path` but what was there before.
pub fn write(path: &Path, request: &BundleRequest) -> Result<u64, BundleError> {
    let fail = |error| BundleError::Write { path: path.to_owned(), error };
    if std::fs::metadata(path).is_ok_and(|m| !m.is_file()) {
        return Err(BundleError::NotAFile { path: path.to_owned() });
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = folder.canonicalize().map_err(fail)?;
    let data = TensorData::of(&request.model.gguf);
    let contents = contents(request, &folder, &data)?;
    let permissions = std::fs::Permissions::from_mode(0o666);
    let temporary = tempfile::Builder::new().prefix(".hipc-").permissions(permissions).tempfile_in(&folder);
    let mut temporary = temporary.map_err(fail)?;
    let bytes = write_sections(temporary.as_file_mut(), &contents, &data, request.interrupted).map_err(|fault| match fault {
        Fault::Io(error) => fail(error),
        Fault::Bundle(error) => error,
    })?;
    if request.interrupted.load(Ordering::Relaxed) {
        return Err(BundleError::Interrupted);
    }
    temporary.persist(path).map_err(|e| fail(e.error))?;
    // The rename is on disk only when the folder is. Not every file system has that; the bundle itself is complete.
    let _ = File::open(&folder).and_then(|f| f.sync_all());
    Ok(bytes)
}

fn contents(request: &BundleRequest, folder: &Path, data: &TensorData) -> Result<Vec<Content>, BundleError> {
    let mut contents: Vec<Content> = Vec::new();
    let mut archs = Vec::new();
    let mut add = |kind, name: &str, bytes| contents.push((kind, name.to_owned(), Some(bytes)));
    // The manifest comes first and is known last.
    add(SectionKind::Manifest, "", Vec::new());
    if let Some(tokenizer) = &request.model.tokenizer {
        add(SectionKind::Tokenizer, "", encode(SectionKind::Tokenizer, tokenizer)?);
    }
    add(SectionKind::Graph, "", encode(SectionKind::Graph, &request.model.graph)?);
    for built in request.built {
        let name = built.target.name;
        let (plan, ns) = split_plan(&built.planned.plan);
        add(SectionKind::Plan, name, encode(SectionKind::Plan, &plan)?);
        add(SectionKind::Code, name, built.code.clone());
        add(SectionKind::Unit, name, built.planned.unit.clone().into_bytes());
        if !built.variants.is_empty() {
            add(SectionKind::Variants, name, encode(SectionKind::Variants, &built.variants)?);
        }
        if !built.trials.is_empty() {
            let trials: Vec<&Trial> = built.trials.iter().map(|t| &t.trial).collect();
            add(SectionKind::Trials, name, encode(SectionKind::Trials, &trials)?);
            for (i, tried) in built.trials.iter().enumerate() {
                add(SectionKind::TrialCode, &format!("{name}/{i}"), tried.code.clone());
            }
        }
        archs.push(ArchEntry { name: name.to_owned(), ns, memory: built.planned.memory.clone() });
    }
    for (i, source) in request.options.tuning.sources().iter().enumerate() {
        add(SectionKind::Tuning, &i.to_string(), source.text.clone().into_bytes());
    }
    let ctx = request.options.ctx_for(request.model);
    let manifest = Manifest {
        model: crate::pipeline::model_info(request.model),
        ctx,
        kv: request.options.kv,
        provenance: provenance(request, ctx),
        weights: weights_ref(request, folder, data),
        archs,
    };
    contents[0].2 = Some(encode(SectionKind::Manifest, &manifest)?);
    if request.weights == WeightsMode::Embedded {
        contents.push((SectionKind::Weights, String::new(), None));
    }
    Ok(contents)
}

/// Hash of the kernel templates.
pub fn templates_hash() -> Digest {
    let mut templates = blake3::Hasher::new();
    for (path, text) in hipc_templates::HEADERS {
        for part in [path, text] {
            templates.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
    }
    Digest(templates.finalize().into())
}

fn provenance(request: &BundleRequest, ctx: u32) -> Provenance {
    let kv = if request.options.kv == KvType::F32 { "--kv f32" } else { "--kv f16" };
    let tuning = request.options.tuning.sources().iter().map(tuning::provenance);
    let backends = request.built.iter().map(|b| b.backend).find(|&b| b != Backend::default());
    let backend = backends.map(|b| format!("--backend {}", b.name()));
    let flags = [format!("--ctx {ctx}"), kv.to_owned()].into_iter().chain(backend).chain(tuning).collect();
    Provenance {
        hipc: env!("CARGO_PKG_VERSION").to_owned(),
        templates: templates_hash(),
        model_header: Digest(request.model.gguf.header_hash()),
        model_path: request.model.gguf.path().display().to_string(),
        compilers: request.built.iter().map(|b| (b.target.name.to_owned(), b.compiler.clone())).collect(),
        flags,
    }
}

fn weights_ref(request: &BundleRequest, folder: &Path, data: &TensorData) -> WeightsRef {
    let gguf = &request.model.gguf;
    let absolute = gguf.path().canonicalize().unwrap_or_else(|_| gguf.path().to_owned());
    let mut tensors = PrimaryMap::new();
    for decl in request.model.graph.weights.values() {
        // The loader has found every tensor of the graph.
        let place = gguf.tensor(&decl.name).map(|t| TensorPlace { offset: t.offset - data.start, bytes: t.bytes });
        tensors.push(place.unwrap_or(TensorPlace { offset: 0, bytes: 0 }));
    }
    WeightsRef {
        embedded: request.weights == WeightsMode::Embedded,
        relative: relative(folder, &absolute),
        absolute: absolute.display().to_string(),
        file_bytes: gguf.file_len(),
        header_bytes: gguf.header_len(),
        data_offset: data.start,
        tensors,
    }
}

/// The path from one absolute folder to a file, both canonical; `None` if it isn't UTF-8.
fn relative(folder: &Path, file: &Path) -> Option<String> {
    let (from, to): (Vec<Component>, Vec<Component>) = (folder.components().collect(), file.components().collect());
    let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n(Component::ParentDir, from.len() - shared);
    let path: PathBuf = up.chain(to[shared..].iter().copied()).collect();
    path.to_str().map(str::to_owned)
}

/// The part of a model file that holds tensors. Bytes between tensors mean nothing and are copied as zeros.
struct TensorData<'a> {
    gguf: &'a GgufFile,
    start: u64,
    end: u64,
}

impl<'a> TensorData<'a> {
    fn of(gguf: &'a GgufFile) -> Self {
        let start = gguf.tensors().iter().map(|t| t.offset).min().unwrap_or(0);
        let end = gguf.tensors().iter().map(|t| t.offset + t.bytes).max().unwrap_or(start);
        Self { gguf, start, end }
    }

    fn len(&self) -> u64 {
        self.end - self.start
    }
}

/// Why writing stopped.
enum Fault {
    Io(io::Error),
    Bundle(BundleError),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Writes sections, then the header, and synchronises.
fn write_sections(file: &mut File, contents: &[Content], data: &TensorData, interrupted: &AtomicBool) -> Result<u64, Fault> {
    let entry = |(kind, name, bytes): &'_ Content| match bytes {
        Some(bytes) => (*kind, name.clone(), bytes.len() as u64, Digest::of(bytes)),
        // Its hash is known when it is written; until then it equals nothing else.
        None => (*kind, name.clone(), data.len(), Digest([0; 32])),
    };
    let entries: Vec<(SectionKind, String, u64, Digest)> = contents.iter().map(entry).collect();
    let entries: Vec<_> = entries.iter().map(|(k, n, len, hash)| (*k, n.as_str(), *len, *hash)).collect();
    let mut sections = place(&entries).map_err(|e| Fault::Bundle(e.into()))?;
    let bytes = file_bytes(&sections);
    file.set_len(bytes)?;
    for (section, (.., contents)) in sections.iter_mut().zip(contents) {
        file.seek(SeekFrom::Start(section.offset))?;
        match contents {
            Some(contents) => file.write_all(contents)?,
            None => section.hash = copy_tensors(file, data, section, interrupted)?,
        }
    }
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&header(&sections))?;
    file.sync_all()?;
    Ok(bytes)
}

/// Bytes copied at a time; between two pieces Ctrl-C is seen.
const PIECE: usize = 8 << 20;

/// Copies tensor data to where the file stands and returns their hash.
fn copy_tensors(file: &mut File, data: &TensorData, section: &Section, interrupted: &AtomicBool) -> Result<Digest, Fault> {
    let mut tensors: Vec<_> = data.gguf.tensors().iter().collect();
    tensors.sort_by_key(|t| t.offset);
    let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; PIECE]);
    let mut at = data.start;
    for tensor in tensors {
        hash_zeros(&mut hasher, tensor.offset - at);
        file.seek(SeekFrom::Start(section.offset + (tensor.offset - data.start)))?;
        for from in (0..tensor.bytes).step_by(PIECE) {
            if interrupted.load(Ordering::Relaxed) {
                return Err(Fault::Bundle(BundleError::Interrupted));
            }
            let piece = &mut buffer[..(tensor.bytes - from).min(PIECE as u64) as usize];
            data.gguf.read_tensor(tensor, from, piece).map_err(|e| Fault::Bundle(e.into()))?;
            hasher.update_rayon(piece);
            file.write_all(piece)?;
        }
        at = tensor.offset + tensor.bytes;
    }
    Ok(Digest(hasher.finalize().into()))
}

fn hash_zeros(hasher: &mut blake3::Hasher, mut bytes: u64) {
    const ZEROS: [u8; 4096] = [0; 4096];
    while bytes > 0 {
        let piece = bytes.min(ZEROS.len() as u64);
        hasher.update(&ZEROS[..piece as usize]);
        bytes -= piece;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_lead_from_the_bundle_to_the_model() {
        let path = |from: &str, to: &str| relative(Path::new(from), Path::new(to)).unwrap();
        assert_eq!(path("/a/b", "/a/b/m.gguf"), "m.gguf");
        assert_eq!(path("/a/b", "/a/c/m.gguf"), "../c/m.gguf");
        assert_eq!(path("/a/b", "/m.gguf"), "../../m.gguf");
        assert_eq!(path("/", "/a/m.gguf"), "a/m.gguf");
    }
}
