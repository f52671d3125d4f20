//! Ahead-of-time compiler: GGUF in, bundle of GPU kernels and a static launch plan out.

pub mod bundle;
pub mod check;
pub mod cli;
pub mod cost;
pub mod egraph;
pub mod emit;
pub mod fuse;
pub mod inspect;
pub mod layout;
pub mod pipeline;
pub mod schedule;
pub mod select;
pub mod target;
pub mod toolchain;
pub mod trials;
pub mod tuning;

#[cfg(test)]
mod testing;
