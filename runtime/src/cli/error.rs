//! What ends a command early, and the exit code that it gives.

use super::interrupt;
use crate::bundle::BundleError;
use crate::device::DeviceError;
use crate::engine::EngineError;
use crate::generate::GenerateError;
use crate::load::LoadError;
use crate::text::TextError;
use hipc_reference::EvalError;
use std::io;
use std::path::PathBuf;

/// Whatever ends a command early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The bundle, the device, or execution.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Tokenizer, template, sampling.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The request makes no sense, or an input file doesn't.
    #[error("{0}")]
    Usage(String),
    /// The prompt is longer than the context.
    #[error("{what} {tokens} tokens, the context of {bundle} has {ctx}\n{advice}")]
    TooLong {
        /// What has so many: `the prompt has`.
        what: &'static str,
        /// So many.
        tokens: usize,
        /// Path of the bundle.
        bundle: String,
        /// Its context.
        ctx: usize,
        /// What to do.
        advice: String,
    },
    /// A file can't be read.
    #[error("{} can't be read: {error}", path.display())]
    Read {
        /// Path.
        path: PathBuf,
        /// Reason.
        error: io::Error,
    },
    /// A file can't be written.
    #[error("{} can't be written: {error}", path.display())]
    Write {
        /// Path.
        path: PathBuf,
        /// Reason.
        error: io::Error,
    },
    /// Standard output can't be written.
    #[error("standard output can't be written: {0}")]
    Output(#[source] io::Error),
    /// The terminal can't be read.
    #[error("the terminal can't be read: {0}")]
    Terminal(String),
    /// Ours to fix.
    #[error("internal: {0}; please report it")]
    Internal(String),
    /// Something that was measured is not as it must be.
    #[error("{0}")]
    Check(String),
    /// Ctrl-C; what there was to say has been said.
    #[error("interrupted")]
    Interrupted,
}

impl From<BundleError> for CliError {
    fn from(error: BundleError) -> Self {
        Self::Load(error.into())
    }
}

impl From<DeviceError> for CliError {
    fn from(error: DeviceError) -> Self {
        Self::Load(error.into())
    }
}

impl From<EngineError> for CliError {
    fn from(error: EngineError) -> Self {
        Self::Load(error.into())
    }
}

impl From<GenerateError> for CliError {
    fn from(error: GenerateError) -> Self {
        match error {
            GenerateError::Engine(e) => e.into(),
            GenerateError::Text(e) => Self::Text(e),
            GenerateError::Output(e) => Self::Output(e),
            GenerateError::EmptyPrompt => Self::Usage(error.to_string()),
        }
    }
}

impl CliError {
    /// 0 done, 1 ours to fix or a check failed, 2 the input or the request is wrong, 3 the machine lacks something, 130 interrupted.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Load(LoadError::Bundle(e)) => e.exit_code(),
            Self::Load(LoadError::Device(e) | LoadError::Engine(EngineError::Device(e))) => device_code(e),
            Self::Load(LoadError::Engine(EngineError::Exact(EvalError::Malformed { .. })))
            | Self::Text(TextError::Logits(_))
            | Self::Internal(_)
            | Self::Check(_) => 1,
            Self::Load(_) | Self::Text(_) | Self::Usage(_) | Self::TooLong { .. } | Self::Read { .. } => 2,
            // The reader of a pipe has what it wanted.
            Self::Output(e) if super::is_closed_pipe(e) => 0,
            Self::Write { .. } | Self::Output(_) | Self::Terminal(_) => 3,
            Self::Interrupted => interrupt::EXIT_CODE,
        }
    }

    /// Whether there is nothing left to tell.
    pub fn is_silent(&self) -> bool {
        matches!(self, Self::Interrupted) || matches!(self, Self::Output(e) if super::is_closed_pipe(e))
    }
}

fn device_code(error: &DeviceError) -> u8 {
    match error {
        DeviceError::NoCode { .. } => 2,
        DeviceError::Fault { .. } | DeviceError::Internal(_) => 1,
        _ => 3,
    }
}
