//! Whole models, compiled as users compile them, against llama.cpp on dequantised weights: random ones per architecture, the two trained
//! ones, a chat. On `cpu`, on `cpu --exact`, and on `host`, where every launch is compared as well, under sanitizers.
//!
//! The bounds are those of the design; the figures are printed (`cargo test -p hipc-tests --test golden_models -- --nocapture`).
//! `HIPC_FULL=1` takes all of the validation text.

mod arch;
mod chat;
mod launches;
mod long;
mod trained;
