//! Typed intermediate representations of hipc: graph, fused launches, plan. Types only: no IO, no unsafe.
#![forbid(unsafe_code)]

pub mod bundle;
pub mod dtype;
pub mod form;
pub mod fused;
pub mod graph;
pub mod plan;
pub mod text;
pub mod tuning;
pub mod units;
pub mod verify;

pub use cranelift_entity::{EntityRef, PrimaryMap};
pub use dtype::{DType, KvType, Layout, Q8Layout, Real};
