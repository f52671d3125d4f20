//! `hipfire-run doctor`.

use super::CliError;
use super::args::Doctor;
use super::style::{BAD, DIM, GOOD, HEAD, NOTE, paint};
use crate::device::DeviceError;
use crate::doctor::{Check, Report, Tier, examine};
use std::fmt::Write;

pub fn run(args: &Doctor) -> Result<(), CliError> {
    if args.print_arch {
        let runtime = crate::device::hip::HipRuntime::from_env()?;
        let no_device = || DeviceError::Missing { what: "no AMD GPU found".into(), advice: "see: hipfire-run doctor".into() };
        let archs: String = runtime.devices().iter().map(|device| format!("{}\n", device.arch)).collect();
        return if archs.is_empty() { Err(no_device().into()) } else { super::print(&archs) };
    }
    let report = examine();
    if args.json {
        let text = serde_json::to_string_pretty(&report).map_err(|e| CliError::Internal(e.to_string()))?;
        return super::print(&format!("{text}\n"));
    }
    super::print(&screen(&report, super::stdout_is_terminal()))
}

/// The report for people; marks are ASCII in a pipe.
fn screen(report: &Report, terminal: bool) -> String {
    let mut out = String::new();
    tier(&mut out, &report.cpu, "CPU", "runs every bundle (--device cpu)", "", terminal);
    out.push('\n');
    let ready = "ready (--device hip:0, or auto)";
    tier(&mut out, &report.amd, "AMD GPU", ready, "not available: the CPU takes its place", terminal);
    out.push('\n');
    tier(
        &mut out,
        &report.compiler,
        "Compiler",
        "hipc can compile models here",
        "hipc can't compile models here; bundles run without it",
        terminal,
    );
    out
}

fn tier(out: &mut String, tier: &Tier, name: &str, usable: &str, unusable: &str, terminal: bool) {
    let verdict = if tier.usable { paint(GOOD, usable) } else { paint(NOTE, unusable) };
    let _ = writeln!(out, "{}  {verdict}", paint(HEAD, format!("{name:<16}")));
    tier.checks.iter().for_each(|c| check(out, c, terminal));
}

fn check(out: &mut String, check: &Check, terminal: bool) {
    let mark = match (check.ok, terminal) {
        (true, true) => paint(GOOD, "✓"),
        (true, false) => "+".to_owned(),
        (false, true) => paint(BAD, "✗"),
        (false, false) => "-".to_owned(),
    };
    line(out, mark, check.name, &check.found);
    if let Some(advice) = &check.advice {
        for part in wrap(advice, 92) {
            let _ = writeln!(out, "{:18}{}", "", paint(DIM, part));
        }
    }
}

fn line(out: &mut String, mark: String, name: &str, found: &str) {
    let _ = writeln!(out, "  {mark} {name:<14}{found}");
}

/// Breaks a text at spaces.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() || line.chars().count() + 1 + word.chars().count() <= width => {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
