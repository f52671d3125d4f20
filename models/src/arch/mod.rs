//! Architectures: a name and a function of builder calls each.
//!
//! To add one: a file beside `llama.rs` with its `build`, and a row in [`ALL`]. Reading the file, checking shapes and types,
//! and refusing what is left over is done by [`Net`]; an op that the graph lacks is added in `hipc_ir::graph`.

mod llama;
mod net;
mod qwen3;

use crate::{GgufFile, Hparams, ModelError};
use hipc_ir::graph::Graph;
use net::Net;

/// A supported architecture.
pub(crate) struct Architecture {
    /// `general.architecture`.
    pub name: &'static str,
    /// Adds the whole network.
    build: fn(&mut Net<'_>) -> Result<(), ModelError>,
}

/// Every supported architecture.
const ALL: [Architecture; 2] =
    [Architecture { name: "llama", build: llama::build }, Architecture { name: "qwen3", build: qwen3::build }];

/// The supported names, for messages.
pub(crate) fn names() -> String {
    ALL.map(|a| a.name).join(", ")
}

/// The architecture that the file names.
pub(crate) fn find(gguf: &GgufFile) -> Result<&'static Architecture, ModelError> {
    let name = gguf.text("general.architecture")?.ok_or_else(|| crate::GgufError::MissingKey("general.architecture".into()))?;
    ALL.iter().find(|a| a.name == name).ok_or_else(|| ModelError::UnsupportedArchitecture(name.into()))
}

impl Architecture {
    /// The graph of a model of this architecture. Reads the tensor table, never the data.
    pub fn graph(&self, gguf: &GgufFile, hparams: &Hparams, name: &str) -> Result<Graph, ModelError> {
        let mut net = Net::new(gguf, hparams, self.name, name);
        (self.build)(&mut net)?;
        net.finish()
    }
}
