//! Verifiers: whether an IR keeps the rules that its types can't express. They run between passes in debug builds, and on
//! whatever was read from a file.

mod fused;
mod graph;
mod ops;
mod plan;

pub use fused::fused;
pub use graph::graph;
pub use plan::{PlanFault, plan_references, trial, tuned};

use crate::graph::WeightDecl;

/// A broken rule. Ours, unless the IR was written by hand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A reference to something that isn't declared.
    #[error("{at}: {reference} is not declared")]
    Undeclared {
        /// Node, launch or declaration.
        at: String,
        /// The reference.
        reference: String,
    },
    /// A value is used before it is defined or written.
    #[error("{at}: {value} is used before it is defined")]
    Order {
        /// Node or launch.
        at: String,
        /// The value.
        value: String,
    },
    /// A value is written twice or never.
    #[error("{value} is written {times} times")]
    Written {
        /// The value.
        value: String,
        /// Launches that write it.
        times: usize,
    },
    /// Wrong number of operands.
    #[error("{at}: {found} operands where {expected} are needed")]
    Arity {
        /// Node or launch.
        at: String,
        /// Needed.
        expected: usize,
        /// Given.
        found: usize,
    },
    /// An operand or result of the wrong type or shape.
    #[error("{at}: {what} is {found}, not {expected}")]
    Type {
        /// Node or launch.
        at: String,
        /// Which operand, or the result.
        what: String,
        /// Type it must have.
        expected: String,
        /// Type it has.
        found: String,
    },
    /// An op whose attributes contradict each other.
    #[error("{at}: {rule}")]
    Rule {
        /// Node, launch or declaration.
        at: String,
        /// What must hold.
        rule: String,
    },
}

/// Largest size that any dimension may have; products of two dimensions and small factors then fit 64 bits.
pub(crate) const MOST: u32 = 1 << 27;

fn rule(at: &impl ToString, holds: bool, rule: impl Into<String>) -> Result<(), VerifyError> {
    if holds { Ok(()) } else { Err(VerifyError::Rule { at: at.to_string(), rule: rule.into() }) }
}

/// Whether a tensor has whole blocks and a size that can be reckoned with.
fn weight_decl(decl: &WeightDecl) -> bool {
    (1..=MOST).contains(&decl.rows) && (1..=MOST).contains(&decl.cols) && decl.dtype.row_bytes(decl.cols).is_some()
}
