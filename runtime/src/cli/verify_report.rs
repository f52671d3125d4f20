//! What `hipfire-run verify` says: a table, JSON, a report in Markdown, and the command that shows a failure again.

use super::CliError;
use super::args::Verify;
use super::measure::table;
use super::style::{BAD, GOOD, HEAD, paint};
use crate::verify::until::Until;
use crate::verify::{ChainRow, Report, Row};
use hipc_ir::bundle::{Digest, Provenance};
use hipc_ir::plan::ModelInfo;
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;

/// What was verified, for whoever reads the report.
#[derive(Debug, Serialize)]
pub(super) struct About {
    pub(super) bundle: String,
    /// BLAKE3 of the bundle's table, which has the hashes of all that is in it.
    pub(super) bundle_hash: Digest,
    /// BLAKE3 of the code object that was executed; none on the CPU, which executes the plan.
    pub(super) code_hash: Option<Digest>,
    pub(super) model: ModelInfo,
    pub(super) context: u32,
    /// `file`, `bundle` or `synthetic`.
    pub(super) weights: &'static str,
    pub(super) hipfire_run: &'static str,
    /// Whether the machine code was interpreted.
    pub(super) emulated: bool,
    /// The library that decoded it, then.
    pub(super) decoder: Option<&'static str>,
    pub(super) provenance: Provenance,
    pub(super) seconds: f64,
    pub(super) command: String,
}

/// A path as a shell takes it for one word.
fn in_shell(path: &Path) -> String {
    let path = path.display().to_string();
    shlex::try_quote(&path).map_or_else(|_| path.clone(), Into::into)
}

/// The command that does the same again.
pub(super) fn command(args: &Verify) -> String {
    let mut command = base(args);
    for (option, value) in [("layers", args.layers), ("layer", args.layer)] {
        if let Some(value) = value {
            let _ = write!(command, " --{option} {value}");
        }
    }
    for (option, value) in [("launch", args.launch), ("until", args.until)] {
        if let Some(value) = value {
            let _ = write!(command, " --{option} {value}");
        }
    }
    if let Some(position) = args.position {
        let _ = write!(command, " --position {position}");
    }
    for (option, given) in [("all", args.all), ("keep-going", args.keep_going), ("no-chain", args.no_chain)] {
        if given {
            let _ = write!(command, " --{option}");
        }
    }
    if args.seconds != Verify::SECONDS {
        let _ = write!(command, " --seconds {}", args.seconds);
    }
    command
}

/// The part of it that says what is compared on what, but not which launches.
fn base(args: &Verify) -> String {
    let mut command = format!("hipfire-run verify {} --device {} --seed {}", in_shell(&args.bundle), args.device, args.seed);
    if let Some(model) = &args.model {
        let _ = write!(command, " --model {}", in_shell(model));
    }
    if args.synthetic {
        command.push_str(" --synthetic");
    }
    if let Some(rows) = args.rows {
        let _ = write!(command, " --rows {rows}");
    }
    if let Some(sanitizer) = args.sanitizer {
        let _ = write!(command, " --sanitizer {sanitizer}");
    }
    command
}

/// The command that shows a failure again, if there is one.
pub(super) fn reproduce(report: &Report, args: &Verify) -> Option<String> {
    match report.failure() {
        Some((row, failure)) => Some(format!("{} --launch {} --position {}", base(args), row.launch, failure.case.position)),
        None if report.passes() => None,
        None => Some(match report.until.iter().find_map(|u| u.first.as_ref()).map(|first| first.launch).or(args.until) {
            Some(launch) => format!("{} --until {launch}", base(args)),
            None => command(args),
        }),
    }
}

/// What whole steps gave launch by launch, in one line.
pub(super) fn one_by_one(until: &Until) -> String {
    let Until { program, until: last, tokens, results, share, first } = until;
    match first {
        None => format!(
            "{program}: launch by launch up to number {last} over {tokens} tokens, {results} results are within their bounds against \
             cpu's (the farthest at {:.0} % of it)",
            100.0 * share
        ),
        Some(f) => format!(
            "{program}: launch by launch the first that leaves something else than on cpu is launch {} ({}, {}, kernel {}) at position \
             {}, {}: noise {:.1e}, {:.1e} allowed",
            f.launch,
            f.label,
            f.layer.map_or_else(|| "no layer".to_owned(), |layer| format!("layer {layer}")),
            f.kernel,
            f.position,
            f.result,
            f.nmse,
            f.bound
        ),
    }
}

/// What whole steps gave, in one line.
pub(super) fn steps(c: &ChainRow) -> String {
    let same = |yes: bool| if yes { "identical bits" } else { "OTHER BITS" };
    let unfused = c.unfused.as_ref().map_or(String::new(), |u| {
        let same = if u.same_choice { "the same" } else { "another" };
        format!("noise {:.1e} against the unfused graph in f64, {:.1e} allowed, {same} largest; ", u.nmse, u.bound)
    });
    format!(
        "{}: logits after {} tokens: noise {:.1e} against cpu, {:.1e} allowed ({:.1e} when cpu's embedding moves), {} \
         largest; {unfused}the step again: {}; recorded{}: {}",
        c.program,
        c.steps,
        c.nmse,
        c.bound,
        c.sensitivity,
        if c.same_choice { "the same" } else { "another" },
        same(c.twice),
        if c.graph { " as a graph" } else { "" },
        same(c.replayed)
    )
}

const HEADER: [&str; 13] = [
    "launch",
    "program",
    "label",
    "shape",
    "layer",
    "stands for",
    "cases",
    "watched",
    "rows",
    "worst NMSE",
    "of bound",
    "scale error",
    "ties",
];

fn cells(row: &Row) -> Vec<String> {
    let of = |part: String, whole: String| if part == whole { part } else { format!("{part} of {whole}") };
    let figure = |v: f64| if v == 0.0 { "0".to_owned() } else { format!("{v:.1e}") };
    vec![
        row.launch.to_string(),
        row.program.to_owned(),
        row.label.clone(),
        row.shape.clone(),
        row.layer.map_or_else(|| "-".to_owned(), |l| l.to_string()),
        row.stands_for.to_string(),
        of(row.cases.to_string(), row.planned.to_string()),
        row.watched.to_string(),
        row.rows.map_or_else(|| "all".to_owned(), |(some, all)| format!("{some} of {all}")),
        figure(row.nmse),
        format!("{:.0} %", 100.0 * row.share),
        if row.quants == 0 { "-".to_owned() } else { format!("{} ({:.0} %)", figure(row.scale), 100.0 * row.strain) },
        row.ties.to_string(),
    ]
}

fn heading(about: &About, report: &Report) -> String {
    let weights = match about.weights {
        "synthetic" => "random weights",
        "bundle" => "weights from the bundle",
        _ => "weights from the model file",
    };
    let m = &about.model;
    format!(
        "{} ({}, {} layers), context {}, {weights}\n{}, plan for {}\n",
        m.name, m.arch, m.layers, about.context, report.device, report.target
    )
}

fn not_shown(about: &About, report: &Report) -> Vec<String> {
    report.not_shown(about.weights == "synthetic", about.emulated)
}

/// One sentence.
fn summary(report: &Report, seconds: f64) -> String {
    let cases: usize = report.rows.iter().map(|r| r.cases).sum();
    let wrong = report.rows.iter().filter(|r| r.failure.is_some()).count();
    let watched = match report.watched() {
        0 => String::new(),
        watched => format!(" ({watched} with the sanitizer)"),
    };
    format!(
        "{} of {} launches compared, {} of {} kernels, {cases} cases{watched}, {wrong} wrong, {seconds:.0} s",
        report.rows.len(),
        report.launches,
        report.kernels_compared,
        report.kernels
    )
}

pub(super) fn on_screen(about: &About, report: &Report) -> String {
    let mut out = heading(about, report);
    out.push('\n');
    let plain = table(
        &[&HEADER[..], &["result"]].concat(),
        4,
        report.rows.iter().map(|row| {
            let mut cells = cells(row);
            cells.push(if row.failure.is_some() { "WRONG".into() } else { "pass".into() });
            cells
        }),
    );
    // Coloured behind the layout, so that it doesn't count.
    for (i, line) in plain.lines().enumerate() {
        let painted = match (i, line.strip_suffix("WRONG"), line.strip_suffix("pass")) {
            (0, ..) => paint(HEAD, line),
            (_, Some(rest), _) => format!("{rest}{}", paint(BAD, "WRONG")),
            (_, _, Some(rest)) => format!("{rest}{}", paint(GOOD, "pass")),
            _ => line.to_owned(),
        };
        let _ = writeln!(out, "{painted}");
    }
    out.push('\n');
    for chain in &report.chain {
        let _ = writeln!(out, "{} {}", if chain.passes() { paint(GOOD, "pass") } else { paint(BAD, "WRONG") }, steps(chain));
    }
    for until in &report.until {
        let _ = writeln!(
            out,
            "{} {}",
            if until.first.is_none() { paint(GOOD, "pass") } else { paint(BAD, "WRONG") },
            one_by_one(until)
        );
    }
    if let Some(stopped) = &report.stopped {
        let _ = writeln!(out, "{} {}: {}", paint(BAD, "WRONG"), stopped.program, stopped.what);
    }
    let _ = writeln!(out, "{}", summary(report, about.seconds));
    let _ = writeln!(out, "not shown:");
    for line in not_shown(about, report) {
        let _ = writeln!(out, "  {line}");
    }
    out
}

pub(super) fn json(about: &About, report: &Report, args: &Verify) -> Result<String, CliError> {
    #[derive(Serialize)]
    struct All<'a> {
        #[serde(flatten)]
        about: &'a About,
        #[serde(flatten)]
        report: &'a Report,
        passes: bool,
        reproduce: Option<String>,
        shown: Vec<String>,
        not_shown: Vec<String>,
    }
    let (passes, reproduce) = (report.passes(), reproduce(report, args));
    let all = All { about, report, passes, reproduce, shown: report.shown(), not_shown: not_shown(about, report) };
    let text = serde_json::to_string_pretty(&all).map_err(|e| CliError::Internal(e.to_string()))?;
    Ok(format!("{text}\n"))
}

/// As code, line by line.
fn quoted(text: &str) -> String {
    text.lines().fold(String::new(), |out, line| out + "    " + line + "\n")
}

pub(super) fn markdown(about: &About, report: &Report, args: &Verify) -> String {
    let mut out = String::from("# Verification\n\n");
    let verdict = if report.passes() { "**Passed.**" } else { "**Failed.**" };
    let _ = writeln!(out, "{verdict} {}.\n", summary(report, about.seconds));
    if let Some((row, failure)) = report.failure() {
        let _ = writeln!(out, "Launch {} ({} {}):\n\n{}", row.launch, row.program, row.label, quoted(&failure.what));
    }
    if let Some(stopped) = &report.stopped {
        let _ = writeln!(out, "Whole steps, {}:\n\n{}", stopped.program, quoted(&stopped.what));
    }
    if let Some(command) = reproduce(report, args) {
        let _ = writeln!(out, "Reproduce with\n\n{}", quoted(&command));
    }
    let p = &about.provenance;
    let compiler = p.compilers.iter().find(|(arch, _)| *arch == report.target).map_or("unknown", |(_, with)| with);
    let weights = match about.weights {
        "synthetic" => "random".to_owned(),
        from => format!("those of the {from}"),
    };
    let m = &about.model;
    for (what, text) in [
        ("Device", about.decoder.map_or(report.device.clone(), |d| format!("{}, instructions decoded by {d}", report.device))),
        ("Target", report.target.clone()),
        ("Model", format!("{} ({}, {} layers), context {}", m.name, m.arch, m.layers, about.context)),
        ("Weights", weights),
        ("Bundle", format!("`{}`, BLAKE3 of its table `{}`", about.bundle, about.bundle_hash)),
        ("Code object", about.code_hash.map_or_else(|| "none executed".to_owned(), |hash| format!("BLAKE3 `{hash}`"))),
        ("Model file", format!("`{}`, BLAKE3 of its header `{}`", p.model_path, p.model_header)),
        ("Kernel templates", format!("BLAKE3 `{}`", p.templates)),
        ("Compiler", format!("hipc {}; {compiler}; {}", p.hipc, p.flags.join(" "))),
        ("hipfire-run", about.hipfire_run.to_owned()),
        ("Command", format!("`{}`", about.command)),
    ] {
        let _ = writeln!(out, "- {what}: {text}");
    }
    let _ = writeln!(
        out,
        "\n## Launches\n\nEach by itself, on inputs at random, against the reference on the same inputs; every case ran twice.\n"
    );
    let _ = writeln!(out, "| {} | result |\n|{}", HEADER.join(" | "), "---|".repeat(HEADER.len() + 1));
    for row in &report.rows {
        let _ = writeln!(out, "| {} | {} |", cells(row).join(" | "), if row.failure.is_some() { "**wrong**" } else { "pass" });
    }
    if !report.chain.is_empty() || !report.until.is_empty() {
        let _ = writeln!(out, "\n## Whole steps\n");
    }
    for chain in &report.chain {
        let _ = writeln!(out, "- {} {}.", if chain.passes() { "Pass:" } else { "**Wrong:**" }, steps(chain));
    }
    for until in &report.until {
        let _ = writeln!(out, "- {} {}.", if until.first.is_none() { "Pass:" } else { "**Wrong:**" }, one_by_one(until));
    }
    let _ = writeln!(out, "\n## What was shown\n");
    for line in report.shown() {
        let _ = writeln!(out, "- {line}");
    }
    let _ = writeln!(out, "\n## What was not\n");
    for line in not_shown(about, report) {
        let _ = writeln!(out, "- {line}");
    }
    out
}
