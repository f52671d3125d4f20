//! `hipc compile`.

use super::args::Compile;
use super::style::{self, DIM, GOOD, say};
use super::{CliError, compile_options, open, toolchain};
use crate::bundle::{self, BundleRequest, WeightsMode};
use crate::pipeline::{self, Built, Options};
use crate::target::{Platform, Target};
use crate::toolchain::{CompileOptions, Emit, Toolchain};
use crate::tuning::Tuning;
use hipc_ir::plan::Plan;
use hipc_ir::units::bytes;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Forms of `--emit`.
const FORMS: [(&str, &str); 3] = [("hip", "hip"), ("llvm-ir", "ll"), ("asm", "s")];

pub fn run(args: &Compile) -> Result<(), CliError> {
    let start = Instant::now();
    let targets = Target::parse_list(&args.arch)?;
    let emit = args.emit.as_deref().map(emit_request).transpose()?;
    let (model, options) = open(&args.model)?;
    let options = Options { alternatives: args.alternatives, ..options };
    let toolchain = toolchain();
    let interrupted = watch_interrupts(&toolchain);

    let bar = progress_bar(targets.len() as u64, args.quiet || args.json);
    let compile = compile_options(args.backend);
    let progress = |built: &Built| {
        bar.set_message(built.target.name);
        bar.inc(1);
    };
    let built = pipeline::build(&model, &targets, &options, &toolchain, &compile, &progress);
    bar.finish_and_clear();
    for warning in toolchain.take_warnings() {
        anstream::eprintln!("{}warning:{} {warning}", style::HEAD.render(), style::HEAD.render_reset());
    }
    let built = built?;
    note_unused(&options.tuning, &built);
    if let Some((form, folder)) = emit {
        write_forms(&built, form, folder, &toolchain, &compile)?;
    }
    if interrupted.load(Ordering::Relaxed) {
        return Err(CliError::Interrupted);
    }
    let weights = if args.embed_weights { WeightsMode::Embedded } else { WeightsMode::Referenced };
    let written = bundle::write(
        &args.output,
        &BundleRequest { model: &model, built: &built, options: &options, weights, interrupted: &interrupted },
    )?;
    if args.json {
        print_json(args, &built, written, start);
    } else if !args.quiet {
        print_summary(args, &built, written, start);
    }
    Ok(())
}

/// Says which measured geometries no launch has taken.
fn note_unused(tuning: &Tuning, built: &[Built]) {
    let plans: Vec<&Plan> = built.iter().map(|b| &b.planned.plan).collect();
    for (source, unused) in tuning.unused(&plans) {
        let (all, path) = (source.file.entries.len(), source.path.display());
        let names: Vec<String> = unused.iter().map(|e| format!("{} for {}", e.label, e.target)).collect();
        let of = format!("{} of {all} entries of {path} aren't used, since no launch computes the same", unused.len());
        anstream::eprintln!("{}note:{} {of}: {}", style::HEAD.render(), style::HEAD.render_reset(), names.join(", "));
    }
    for source in tuning.sources().iter().filter(|s| s.file.made.templates != bundle::templates_hash()) {
        let path = source.path.display();
        anstream::eprintln!(
            "{}note:{} {path} was measured with other versions of the kernels",
            style::HEAD.render(),
            style::HEAD.render_reset()
        );
    }
}

/// Ends compilers on Ctrl-C; the command then returns through its ordinary error path, so nothing half-written stays.
fn watch_interrupts(toolchain: &Toolchain) -> Arc<AtomicBool> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let (flag, interrupter) = (Arc::clone(&interrupted), toolchain.interrupter());
    // Without a handler (there is one already, in tests) Ctrl-C ends the process, which is safe too.
    let _ = ctrlc::set_handler(move || {
        flag.store(true, Ordering::Relaxed);
        interrupter.interrupt();
    });
    interrupted
}

fn progress_bar(len: u64, hidden: bool) -> ProgressBar {
    if hidden {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("compiling {bar:30} {pos}/{len} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(len).with_style(style)
}

fn emit_request(values: &[String]) -> Result<((&'static str, &'static str), &Path), CliError> {
    let [form, folder] = values else { return Err(CliError::Usage("--emit takes a form and a folder".into())) };
    match FORMS.iter().find(|(name, _)| name == form) {
        Some(&found) => Ok((found, Path::new(folder))),
        None => Err(CliError::Usage(format!("--emit knows hip, llvm-ir and asm, not `{form}`"))),
    }
}

/// One file per architecture, and the headers beside HIP source so that any hipcc can take it from there.
fn write_forms(
    built: &[Built],
    (form, extension): (&str, &str),
    folder: &Path,
    toolchain: &Toolchain,
    compile: &CompileOptions,
) -> Result<(), CliError> {
    for b in built {
        let text = match form {
            "hip" => b.planned.unit.clone().into_bytes(),
            form => {
                let emit = if form == "asm" { Emit::Asm } else { Emit::LlvmIr };
                toolchain.compile(&pipeline::unit_source(&b.planned), b.target, emit, compile)?.bytes
            }
        };
        write_file(&folder.join(format!("{}.{extension}", b.target.name)), &text)?;
    }
    if form == "hip" {
        for (path, contents) in hipc_templates::HEADERS {
            write_file(&folder.join(path), contents.as_bytes())?;
        }
    }
    Ok(())
}

/// Writes a file and the folders above it.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    made.and_then(|()| std::fs::write(path, bytes)).map_err(|error| CliError::Write { path: path.to_owned(), error })
}

fn print_summary(args: &Compile, built: &[Built], written: u64, start: Instant) {
    let rows = built.iter().map(|b| {
        let decode = &b.planned.plan.programs[0];
        let ns: u64 = decode.launches.iter().map(|l| l.cost.ns).sum();
        vec![
            b.target.name.to_owned(),
            b.planned.plan.kernels.len().to_string(),
            decode.launches.len().to_string(),
            crate::inspect::launches_per_layer(decode, b.planned.plan.model.layers).to_string(),
            bytes(b.code.len() as u64),
            b.object.as_ref().map_or_else(String::new, |o| o.kernels.iter().map(|k| k.vgpr_count).max().unwrap_or(0).to_string()),
            if b.target.platform == Platform::Host { String::new() } else { style::micros(ns as f64) },
            if b.cached { "cached".into() } else { String::new() },
        ]
    });
    let header = ["arch", "kernels", "launches/token", "per layer", "code", "max VGPRs", "predicted µs/token", ""];
    say!("{}", style::table(&header, 1, rows));
    let dim = (DIM.render(), DIM.render_reset());
    let good = (GOOD.render(), GOOD.render_reset());
    say!(
        "{}wrote{} {} ({}) in {:.2} s  {}{}plan checked, {}{}",
        good.0,
        good.1,
        args.output.display(),
        bytes(written),
        start.elapsed().as_secs_f64(),
        dim.0,
        if built.iter().all(|b| b.object.is_some()) { "no spills, " } else { "" },
        built.first().map_or("", |b| b.compiler.as_str()),
        dim.1
    );
}

fn print_json(args: &Compile, built: &[Built], written: u64, start: Instant) {
    let archs: Vec<_> = built
        .iter()
        .map(|b| json!({"name": b.target.name, "kernels": b.planned.plan.kernels.len(), "code_bytes": b.code.len(), "cached": b.cached}))
        .collect();
    let summary = json!({"output": args.output, "bytes": written, "seconds": start.elapsed().as_secs_f64(), "archs": archs});
    say!("{summary}");
}
