//! Thin runtime that executes hipc bundles.
pub mod bench;
pub mod bundle;
pub mod cli;
pub mod conversation;
pub mod device;
pub mod doctor;
pub mod engine;
pub mod exact;
pub mod generate;
pub mod load;
pub mod npy;
pub mod profile;
pub mod synthetic;
pub mod tables;
pub mod text;
pub mod tune;
pub mod verify;
