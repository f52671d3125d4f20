//! `hipfire-run profile`.

use super::CliError;
use super::args::Profile;
use super::measure::{self, About, check_depth, percent, spread, table};
use crate::profile::{Options, Report, profile};
use hipc_ir::units::{bytes, rate};
use std::fmt::Write;

pub fn run(args: &Profile) -> Result<(), CliError> {
    let common = &args.measure;
    check_depth(&super::open::Opened::open(&common.bundle)?, args.depth, 1)?;
    let (_, about, mut loaded) = measure::load(common)?;
    let options = Options { depth: args.depth, repeat: common.repeat, span: common.span << 20 };
    let report = profile(&mut *loaded.backend, &options, &mut measure::teller(common.verbose))?;
    if common.json { measure::print_json(&about, &report) } else { super::print(&screen(&about, &report)?) }
}

fn screen(about: &About, report: &Report) -> Result<String, CliError> {
    let mut out = measure::heading(about, &report.device, &report.arch, &report.bandwidth);
    let failed = |_| CliError::Internal("a report could not be written".into());
    writeln!(
        out,
        "step at depth {}: {} us, {} launches {}; predicted {} us\n",
        report.depth,
        spread(&report.step_us),
        report.launches,
        if report.graph { "in a graph" } else { "one by one" },
        rate(report.predicted_us)
    )
    .map_err(failed)?;
    let rows = report.kernels.iter().map(|k| {
        vec![
            k.kernel.clone(),
            k.shape.clone(),
            k.geometry.clone(),
            k.launches.to_string(),
            format!("{:.2}", k.us.median),
            bytes(k.bytes),
            rate(k.gb_per_s),
            percent(k.share_of_bandwidth),
            format!("{:.2}", k.predicted_us),
            format!("{:+.0} %", k.error_percent),
            percent(k.share_of_step),
        ]
    });
    let header = [
        "kernel",
        "shape",
        "workgroups x waves x lanes",
        "launches",
        "us",
        "bytes",
        "GB/s",
        "of reads",
        "predicted",
        "error",
        "of step",
    ];
    out.push_str(&table(&header, 3, rows));
    writeln!(out, "\nsum {} us, {} of the step", rate(report.sum_us), percent(report.sum_over_step)).map_err(failed)?;
    Ok(out)
}
