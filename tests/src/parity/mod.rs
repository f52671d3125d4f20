//! Whole models on every device, and their launches one by one: what the parity tests share.

pub mod arch;
pub mod chat;
pub mod device;
pub mod greedy;
pub mod launches;
pub mod trained;
