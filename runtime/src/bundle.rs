//! The bundle on disk, and the weights it names.
//!
//! Opening checks everything but weights. [`Bundle::weights`] checks a model file by its length and the hash of its header, keys and
//! tensor table, so that a plan never meets other tensors than it was made for; [`Bundle::check`] checks embedded weights by their
//! hash, which takes about as long as loading them and is done meanwhile.
//!
//! Both files are mapped. **A mapped file must not be truncated while it is in use** (`hipc` never does that: it writes a new
//! file and renames it).

use crate::device::WeightSource;
use hipc_ir::PrimaryMap;
use hipc_ir::bundle::{Bundle as Contents, FormatError, Manifest, SectionKind, TensorPlace};
use hipc_ir::dtype::KvType;
use hipc_ir::graph::{Graph, Weight};
use hipc_ir::plan::Plan;
use hipc_ir::text::TokenizerData;
use hipc_ir::tuning::Trial;
use hipc_reference::WeightAccess;
use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a bundle, or the model file it refers to, can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// A file can't be opened or read.
    #[error("{} can't be read: {error}", path.display())]
    Read {
        /// Path.
        path: PathBuf,
        /// Reason.
        error: io::Error,
    },
    /// The bundle itself.
    #[error("{}: {error}", path.display())]
    Format {
        /// Path of the bundle.
        path: PathBuf,
        /// What is wrong.
        error: FormatError,
    },
    /// The model file isn't where the bundle says.
    #[error(
        "the bundle takes its weights from {model}, which isn't there (looked for {tried})\n  \
             name the file with --model FILE, or compile with --embed-weights"
    )]
    ModelMissing {
        /// The model file as it was given to the compiler.
        model: String,
        /// Paths looked at.
        tried: String,
    },
    /// Another model file than the one compiled.
    #[error("{} is not the file that the bundle was compiled from: {difference}\n  compile it again: {command}", path.display())]
    ModelChanged {
        /// The model file.
        path: PathBuf,
        /// How it differs.
        difference: String,
        /// Command that mends it.
        command: String,
    },
}

impl BundleError {
    /// 1 ours to fix, 2 the file or the request is wrong, 3 the machine fails.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Read { error, .. } if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => 2,
            Self::Read { .. } => 3,
            Self::Format { error: FormatError::Malformed { .. }, .. } => 1,
            Self::Format { .. } | Self::ModelMissing { .. } | Self::ModelChanged { .. } => 2,
        }
    }
}

/// A mapped file, shared by whoever reads it.
#[derive(Clone, Debug)]
struct Mapped(Arc<Mmap>);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn map(path: &Path) -> Result<Mapped, BundleError> {
    let fail = |error| BundleError::Read { path: path.to_owned(), error };
    // Asked before opening: opening a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(fail)?.is_file() {
        return Err(fail(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    let file = File::open(path).map_err(fail)?;
    // SAFETY: the mapping is read-only and lives as long as the value; that nobody truncates the file meanwhile is the documented
    // condition of its use (see the module's documentation), which no API can enforce.
    let map = unsafe { Mmap::map(&file) }.map_err(fail)?;
    Ok(Mapped(Arc::new(map)))
}

/// An open bundle; all of it is checked but embedded weights.
#[derive(Debug)]
pub struct Bundle {
    path: PathBuf,
    mapped: Mapped,
    contents: Contents<Mapped>,
}

impl Bundle {
    /// Opens and checks a bundle.
    ///
    /// # Errors
    /// [`BundleError::Read`] or [`BundleError::Format`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, BundleError> {
        let path = path.as_ref().to_owned();
        let mapped = map(&path)?;
        match Contents::parse(mapped.clone()) {
            Ok(contents) => Ok(Self { path, mapped, contents }),
            Err(error) => Err(BundleError::Format { path, error }),
        }
    }

    fn format(&self, error: FormatError) -> BundleError {
        BundleError::Format { path: self.path.clone(), error }
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The hash of its table, which has the hashes of all sections: what it is known by.
    pub fn hash(&self) -> hipc_ir::bundle::Digest {
        let stored = self.mapped.as_ref().get(32..64).and_then(|b| <[u8; 32]>::try_from(b).ok());
        hipc_ir::bundle::Digest(stored.unwrap_or_default())
    }

    /// What is in it.
    pub fn manifest(&self) -> &Manifest {
        self.contents.manifest()
    }

    /// Architectures, in the order they were compiled for.
    pub fn archs(&self) -> impl Iterator<Item = &str> {
        self.contents.archs()
    }

    /// The plan of an architecture.
    ///
    /// # Errors
    /// There is none, or it makes no sense.
    pub fn plan(&self, arch: &str) -> Result<Plan, BundleError> {
        self.contents.plan(arch).map_err(|e| self.format(e))
    }

    /// Machine code of an architecture, as its driver takes it.
    ///
    /// # Errors
    /// There is none.
    pub fn code(&self, arch: &str) -> Result<&[u8], BundleError> {
        self.contents.code(arch).map_err(|e| self.format(e))
    }

    /// Launches of an architecture in several geometries, to be measured.
    ///
    /// # Errors
    /// The section makes no sense.
    pub fn trials(&self, arch: &str) -> Result<Vec<Trial>, BundleError> {
        self.contents.trials(arch).map_err(|e| self.format(e))
    }

    /// Machine code of one of them.
    ///
    /// # Errors
    /// There is none.
    pub fn trial_code(&self, arch: &str, index: usize) -> Result<&[u8], BundleError> {
        self.contents.trial_code(arch, index).map_err(|e| self.format(e))
    }

    /// Tokenizer and chat template; `None` for a model without.
    ///
    /// # Errors
    /// The section makes no sense.
    pub fn tokenizer(&self) -> Result<Option<TokenizerData>, BundleError> {
        self.contents.tokenizer().map_err(|e| self.format(e))
    }

    /// The unfused graph.
    ///
    /// # Errors
    /// The section makes no sense.
    pub fn graph(&self) -> Result<Graph, BundleError> {
        self.contents.graph().map_err(|e| self.format(e))
    }

    /// The weights, embedded ones unchecked ([`Bundle::check`]); a model file is looked for at `model` if given, else at the stored path
    /// relative to the bundle, else at the stored absolute path, and compared with what the bundle was made from.
    ///
    /// # Errors
    /// [`BundleError::ModelMissing`], [`BundleError::ModelChanged`].
    pub fn weights(&self, model: Option<&Path>) -> Result<Weights, BundleError> {
        let stored = &self.manifest().weights;
        let section = self.contents.sections().iter().find(|s| s.kind == SectionKind::Weights);
        let (mapped, base, embedded) = match (model, section) {
            (Some(path), _) => (self.model_file(path)?, stored.data_offset, 0),
            (None, Some(section)) => (self.mapped.clone(), section.offset, section.len),
            (None, None) => (self.find_model()?, stored.data_offset, 0),
        };
        Ok(Weights { mapped, base, embedded, places: stored.tensors.clone() })
    }

    /// Hashes weights that are embedded, on all cores; how many bytes there were.
    ///
    /// # Errors
    /// [`BundleError::Format`] for damaged weights.
    pub fn check(&self, weights: &Weights) -> Result<u64, BundleError> {
        if weights.embedded > 0 {
            self.contents.check_weights().map_err(|e| self.format(e))?;
        }
        Ok(weights.embedded)
    }

    fn find_model(&self) -> Result<Mapped, BundleError> {
        let stored = &self.manifest().weights;
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let mut tried: Vec<PathBuf> =
            stored.relative.iter().map(|r| folder.join(r)).chain([PathBuf::from(&stored.absolute)]).collect();
        tried.dedup();
        let mut changed = None;
        for path in &tried {
            match self.model_file(path) {
                Ok(mapped) => return Ok(mapped),
                Err(BundleError::Read { error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
                Err(other) => drop(changed.get_or_insert(other)),
            }
        }
        let tried: Vec<String> = tried.iter().map(|p| p.display().to_string()).collect();
        let model = self.manifest().provenance.model_path.clone();
        Err(changed.unwrap_or(BundleError::ModelMissing { model, tried: tried.join(" and ") }))
    }

    /// Maps a model file and makes sure that it is the one compiled.
    fn model_file(&self, path: &Path) -> Result<Mapped, BundleError> {
        let stored = &self.manifest().weights;
        let changed =
            |difference| BundleError::ModelChanged { path: path.to_owned(), difference, command: self.compile_again(path) };
        let mapped = map(path)?;
        let bytes = mapped.as_ref();
        if bytes.len() as u64 != stored.file_bytes {
            return Err(changed(format!("it has {} bytes, not {}", bytes.len(), stored.file_bytes)));
        }
        let header = bytes.get(..stored.header_bytes as usize).map(hipc_ir::bundle::Digest::of);
        if header != Some(self.manifest().provenance.model_header) {
            return Err(changed("its header or tensor table is another".into()));
        }
        Ok(mapped)
    }

    /// The command that makes this bundle again from a model file.
    fn compile_again(&self, model: &Path) -> String {
        let manifest = self.manifest();
        let archs: Vec<&str> = self.archs().collect();
        let mut command = format!("hipc compile {} --arch {} --ctx {}", model.display(), archs.join(","), manifest.ctx);
        if manifest.kv == KvType::F32 {
            command.push_str(" --kv f32");
        }
        if manifest.weights.embedded {
            command.push_str(" --embed-weights");
        }
        format!("{command} -o {}", self.path.display())
    }
}

/// Weights in a mapped file.
#[derive(Clone, Debug)]
pub struct Weights {
    mapped: Mapped,
    base: u64,
    /// Bytes of the section if they are embedded.
    embedded: u64,
    places: PrimaryMap<Weight, TensorPlace>,
}

impl Weights {
    /// The bytes of a weight, in GGUF's layout.
    ///
    /// # Panics
    /// If the bundle has no such weight.
    pub fn bytes(&self, weight: Weight) -> &[u8] {
        let place = self.places[weight];
        let from = (self.base + place.offset) as usize;
        // The bundle's reader has shown that every place lies within the data.
        &self.mapped.as_ref()[from..from + place.bytes as usize]
    }
}

impl WeightSource for Weights {
    fn weight(&self, weight: Weight) -> &[u8] {
        self.bytes(weight)
    }
}

impl WeightAccess for Weights {
    fn weight(&self, weight: Weight) -> &[u8] {
        self.bytes(weight)
    }
}
