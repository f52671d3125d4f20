//! Do the checks find what is wrong? Kernels with one thing changed, in their machine code or in their source, run by the emulator
//! and judged by the same comparisons as right ones.

pub mod code;
pub mod source;

use std::collections::BTreeMap;
use std::fmt::Write;

/// A Markdown table of how often each of these occurs, most often first.
pub fn tally(heading: &str, of: impl Iterator<Item = String>) -> String {
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    of.for_each(|what| *count.entry(what).or_insert(0) += 1);
    let mut rows: Vec<_> = count.into_iter().collect();
    rows.sort_by_key(|(what, n)| (std::cmp::Reverse(*n), what.clone()));
    let mut out = format!("| {heading} | times |\n|---|---|\n");
    for (what, n) in rows {
        let _ = writeln!(out, "| {what} | {n} |");
    }
    out
}
