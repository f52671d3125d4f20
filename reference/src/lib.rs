//! The meaning of every op and block type: f64 oracle and int8 CPU arithmetic.
#![forbid(unsafe_code)]

pub mod blocks;
mod error;
pub mod graph;
pub mod launch;
pub mod sampling;

pub use error::EvalError;
pub use graph::{ExactState, WeightAccess};
