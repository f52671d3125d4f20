//! Why a model can't be used.

use crate::GgufError;
use crate::arch;
use crate::tokenizer;
use hipc_ir::dtype::DType;
use thiserror::Error;

/// A model that can't be compiled.
///
/// The variants named `Unsupported…` are ours: the file is sound, this program doesn't know the thing yet. All others but
/// [`ModelError::Gguf`] (which see) are the file's.
#[derive(Debug, Error)]
pub enum ModelError {
    /// The container.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// An architecture without a builder.
    #[error("architecture {0:?} is not supported; supported are {list}", list = arch::names())]
    UnsupportedArchitecture(String),
    /// A weight type without kernels.
    #[error("tensor {tensor:?} is {ty}, which is not supported; supported are {list}. Quantise the model again, e.g. with `llama-quantize in.gguf out.gguf Q4_K_M`", list = dtypes())]
    UnsupportedType {
        /// The tensor.
        tensor: String,
        /// Its type.
        ty: &'static str,
    },
    /// A head size without kernels.
    #[error("head_dim {0} is not supported; supported are {list}", list = crate::hparams::head_dims())]
    UnsupportedHeadDim(u32),
    /// A tokenizer that isn't implemented.
    #[error("tokenizer model {0:?} is not supported; supported are {list}", list = tokenizer::MODELS.join(", "))]
    UnsupportedTokenizer(String),
    /// A split before BPE that isn't implemented.
    #[error("pre-tokenizer {0:?} is not supported; supported are {list}", list = tokenizer::pre_tokenizers())]
    UnsupportedPreTokenizer(String),
    /// A property of the model that the graph can't express.
    #[error("{key} = {value}: {what} is not supported{instead}")]
    UnsupportedFeature {
        /// The key that asks for it.
        key: String,
        /// Its value.
        value: String,
        /// What it is.
        what: &'static str,
        /// What is supported, with a leading semicolon, or nothing.
        instead: &'static str,
    },
    /// Keys without any tensor.
    #[error("the file has no tensors: it holds a vocabulary, not a model")]
    NoTensors,
    /// Tensors that the architecture's builder doesn't know; leaving them out would give another model.
    #[error("{count} tensor(s) have no place in architecture {arch}: {names}; the model is a variant that is not supported")]
    UnknownTensors {
        /// The architecture.
        arch: &'static str,
        /// How many.
        count: usize,
        /// The first few.
        names: String,
    },
    /// A hyper-parameter out of its range, or in contradiction with another.
    #[error("{key} is {value}, but {rule}; convert the model again")]
    BadValue {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What must hold.
        rule: String,
    },
    /// A tensor that the architecture needs.
    #[error("tensor {name:?} is missing (architecture {arch}, shape {expected}); convert the model again")]
    MissingTensor {
        /// The tensor.
        name: String,
        /// The architecture.
        arch: &'static str,
        /// The shape it should have, contiguous dimension first.
        expected: String,
    },
    /// A tensor of another shape than the hyper-parameters say.
    #[error(
        "tensor {name:?} has shape {found}, expected {expected}; the file contradicts its own hyper-parameters, convert the model again"
    )]
    WrongShape {
        /// The tensor.
        name: String,
        /// Shape by the hyper-parameters, contiguous dimension first.
        expected: String,
        /// Shape in the file.
        found: String,
    },
    /// A vector that isn't stored as F32.
    #[error("tensor {name:?} is {ty}; norms, biases and rope factors must be F32, convert the model again")]
    NotF32 {
        /// The tensor.
        name: String,
        /// Its type.
        ty: &'static str,
    },
    /// Tokens, merges, scores or special ids that don't fit together.
    #[error("the tokenizer is damaged: {key}: {reason}; convert the model again")]
    BadTokenizer {
        /// The key.
        key: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl ModelError {
    /// Whether the machine failed, rather than the file or the request.
    pub fn is_machine(&self) -> bool {
        matches!(self, Self::Gguf(e) if e.is_machine())
    }
}

fn dtypes() -> String {
    DType::ALL.map(DType::name).join(", ")
}
