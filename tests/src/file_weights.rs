//! A GGUF file's tensors as the weights of its graph, for every consumer.

use hipc_ir::graph::{Graph, Weight};
use hipc_models::GgufFile;
use hipc_reference::WeightAccess;
use hipfire_run::device::WeightSource;

/// Tensors of a mapped file by the graph's weight references.
pub struct FileWeights {
    gguf: GgufFile,
    index: Vec<usize>,
}

impl FileWeights {
    /// The weights that the graph declares, in this file.
    ///
    /// # Panics
    /// If a tensor isn't in the file: the graph is another's.
    pub fn new(gguf: GgufFile, graph: &Graph) -> Self {
        let index = graph.weights.values().map(|d| gguf.find(&d.name).expect("the graph's tensors are the file's")).collect();
        Self { gguf, index }
    }
}

impl WeightAccess for FileWeights {
    fn weight(&self, w: Weight) -> &[u8] {
        self.gguf.tensor_data(self.index[w.as_u32() as usize])
    }
}

impl WeightSource for FileWeights {
    fn weight(&self, w: Weight) -> &[u8] {
        WeightAccess::weight(self, w)
    }
}
