//! GGUF files to graphs: container checks, hyper-parameters, one builder per architecture.
//!
//! [`load`] is the way in. It reads the file's header alone: tensor data are mapped and never touched, so that compiling
//! an 80 GB model costs what compiling its header costs.

mod arch;
mod error;
pub mod gguf;
mod hparams;
pub mod tokenizer;

pub use error::ModelError;
pub use gguf::{GgmlType, GgufError, GgufFile, TensorInfo};
pub use hparams::Hparams;

use hipc_ir::graph::Graph;
use hipc_ir::text::TokenizerData;
use std::path::Path;

/// A model, ready to be compiled.
#[derive(Debug)]
pub struct Model {
    /// The file; the graph's weights are its tensors by name.
    pub gguf: GgufFile,
    /// Sizes and constants.
    pub hparams: Hparams,
    /// What is computed.
    pub graph: Graph,
    /// Tokenizer and chat template; `None` where the file says that it has none.
    pub tokenizer: Option<TokenizerData>,
    /// `general.name`, else the file's name.
    pub name: String,
    /// `general.architecture`.
    pub arch: &'static str,
}

impl Model {
    /// Opens a sound file of a supported architecture, of whatever head size. [`load`] is this and the head size's check.
    ///
    /// Every tensor must have a place in the architecture and the shape that the hyper-parameters give it. The tokenizer
    /// must have as many tokens as the embedding matrix has rows.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let gguf = GgufFile::open(path)?;
        let architecture = arch::find(&gguf)?;
        if gguf.tensors().is_empty() {
            return Err(ModelError::NoTensors);
        }
        let hparams = Hparams::read(&gguf, architecture.name)?;
        let stem = || gguf.path().file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let name = gguf.text("general.name")?.filter(|n| !n.is_empty()).map_or_else(stem, str::to_string);
        let graph = architecture.graph(&gguf, &hparams, &name)?;
        let tokenizer = tokenizer::read(&gguf)?;
        if let Some(t) = &tokenizer
            && t.tokens.len() != hparams.vocab as usize
        {
            return Err(ModelError::BadValue {
                key: "tokenizer.ggml.tokens".into(),
                value: format!("a list of {}", t.tokens.len()),
                rule: format!("token_embd.weight has {} rows", hparams.vocab),
            });
        }
        Ok(Self { gguf, hparams, graph, tokenizer, name, arch: architecture.name })
    }
}

/// Opens a model that can be compiled.
///
/// # Errors
/// What is wrong with the file, or what of it isn't supported, by name and with the list of what is.
pub fn load(path: impl AsRef<Path>) -> Result<Model, ModelError> {
    let model = Model::open(path)?;
    if model.hparams.head_dim_supported() { Ok(model) } else { Err(ModelError::UnsupportedHeadDim(model.hparams.head_dim)) }
}
