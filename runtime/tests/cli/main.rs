//! The binary `hipfire-run` as a person meets it: what it prints, where, and what it exits with.

mod bench;
mod common;
mod compare;
mod hip;
mod logits;
mod run;
mod terminal;
mod tune;
mod verify;
