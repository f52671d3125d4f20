//! Why something can't be evaluated.

use thiserror::Error;

/// An evaluation of a graph that failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EvalError {
    /// The weights' owner gave other bytes than the graph declares (the file changed, or it is another model's).
    #[error("tensor {name:?} has {found} bytes, its declaration asks for {expected}; is it the model this was made from?")]
    Weight {
        /// The tensor.
        name: String,
        /// Bytes by its type and shape.
        expected: u64,
        /// Bytes given.
        found: u64,
    },
    /// More positions than the context has (the caller's to check before).
    #[error("{needed} positions don't fit the context of {ctx}")]
    ContextFull {
        /// Positions needed.
        needed: usize,
        /// Positions there are.
        ctx: usize,
    },
    /// A token outside of the vocabulary (the caller's to check before).
    #[error("token id {id} isn't among the embedding's {rows} rows")]
    BadToken {
        /// The id.
        id: u32,
        /// Rows of the embedding.
        rows: usize,
    },
    /// A graph that isn't well-formed (ours).
    #[error("internal: {node} of the graph {what}; please report it")]
    Malformed {
        /// The node.
        node: String,
        /// What is wrong.
        what: &'static str,
    },
}
