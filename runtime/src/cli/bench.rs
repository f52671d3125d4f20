//! `hipfire-run bench`.

use super::CliError;
use super::args::{Bench, Choice};
use super::measure::{self, About, check_depth, percent, spread, table};
use crate::bench::{Memory, Options, Report, bench};
use crate::engine::PlanEngine;
use crate::text::SamplerParams;
use hipc_ir::units::{bytes, rate};
use std::fmt::Write;

pub fn run(args: &Bench) -> Result<(), CliError> {
    let common = &args.measure;
    let opened = super::open::Opened::open(&common.bundle)?;
    for &depth in &args.depth {
        check_depth(&opened, depth, args.tokens)?;
    }
    let ctx = opened.ctx() as u32;
    let prompt = args.prompt.unwrap_or(512.min(ctx));
    check_depth(&opened, 0, prompt)?;
    let (_, about, loaded) = measure::load(common)?;
    let mut engine = PlanEngine::new(loaded.backend, false);
    let options = Options {
        tokens: args.tokens,
        depths: args.depth.clone(),
        prompt,
        repeat: common.repeat,
        sampling: match args.sampling {
            Choice::Greedy => SamplerParams::greedy(),
            Choice::Default => SamplerParams::default(),
        },
        span: common.span << 20,
    };
    let report = bench(&mut engine, loaded.planned, &options, &mut measure::teller(common.verbose))?;
    if common.json {
        measure::print_json(&about, &report)?;
    } else {
        super::print(&screen(&about, &report)?)?;
    }
    match report.memory.as_planned() {
        true => Ok(()),
        false => Err(CliError::Check(format!(
            "the device holds {} for the plan, which says {}: more than {} % apart\nplease report it with the bundle's provenance \
             (hipc inspect)",
            bytes(report.memory.allocated),
            bytes(report.memory.planned),
            Memory::BOUND
        ))),
    }
}

fn screen(about: &About, report: &Report) -> Result<String, CliError> {
    let mut out = measure::heading(about, &report.device, &report.arch, &report.bandwidth);
    let failed = |_| CliError::Internal("a report could not be written".into());
    let load = &about.load;
    let upload = load.gb_per_s.map_or_else(
        || "weights stay in the mapped file".to_owned(),
        |gb| format!("{} of weights in {:.2} s, {} GB/s", bytes(load.bytes), load.upload_seconds, rate(gb)),
    );
    writeln!(out, "loaded in {:.2} s: {upload}", load.seconds).map_err(failed)?;
    let m = &report.memory;
    writeln!(
        out,
        "memory: {} allocated, {} planned ({:+.2} %); the driver took {} more",
        bytes(m.allocated),
        bytes(m.planned),
        m.difference_percent,
        bytes(m.driver)
    )
    .map_err(failed)?;
    let enqueued = if report.graph { "one graph".to_owned() } else { format!("{} calls", report.enqueues_per_token) };
    writeln!(
        out,
        "launches: {} per token, {} per layer, enqueued as {enqueued}\n",
        report.launches_per_token, report.launches_per_layer
    )
    .map_err(failed)?;
    if let Some(p) = &report.prompt {
        writeln!(
            out,
            "prompt of {} tokens in steps of {}: {} tokens/s, first token after {:.1} ms\n",
            p.tokens,
            p.chunk,
            spread(&p.tokens_per_s),
            1e3 * p.seconds.median
        )
        .map_err(failed)?;
    }
    let rows = report.decode.iter().map(|d| {
        vec![
            d.depth.to_string(),
            d.tokens.to_string(),
            rate(d.tokens_per_s.median),
            format!("{} to {}", rate(d.tokens_per_s.min), rate(d.tokens_per_s.max)),
            format!("{:.3}", 1e3 * d.seconds.median / f64::from(d.tokens)),
            bytes(d.bytes_per_token),
            rate(d.gb_per_s),
            percent(d.share_of_bandwidth),
        ]
    });
    let header = ["depth", "tokens", "tokens/s", "spread", "ms/token", "bytes/token", "GB/s", "of reads"];
    out.push_str(&table(&header, 0, rows));
    for (depth, emulated) in report.decode.iter().filter_map(|d| Some((d.depth, d.emulated?))) {
        writeln!(
            out,
            "emulated at depth {depth}: {} lane-instructions per token, {:.1} million per second",
            emulated.lane_instructions_per_token,
            emulated.lane_instructions_per_s / 1e6
        )
        .map_err(failed)?;
    }
    Ok(out)
}
