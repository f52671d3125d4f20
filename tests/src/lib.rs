//! End-to-end, parity and file tests.

pub mod emulated;
pub mod file_weights;
pub mod gguf_writer;
pub mod kernel_cases;
pub mod launch_bench;
pub mod logits;
pub mod metrics;
pub mod mutate;
pub mod npz;
pub mod parity;
pub mod sanitizers;
pub mod shared;
pub mod standin;
