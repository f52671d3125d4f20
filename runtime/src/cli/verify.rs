//! `hipfire-run verify`.

use super::args::{Sanitizer, Verify};
use super::open::{Opened, Screen, progress_bar};
use super::verify_report::{About, command, json, markdown, on_screen, reproduce, steps};
use super::{CliError, murmur, note};
use crate::bundle::{Bundle, BundleError};
use crate::device::cpu::CpuBackend;
use crate::device::select::DeviceName;
use crate::device::{Backend, DeviceError, WeightSource};
use crate::load::{Checks, Request, load_backend};
use crate::synthetic::Synthetic;
use crate::verify::chain::{Steps, chain};
use crate::verify::{Options, Report, Stopped, WATCHED, launches, selected};
use hipc_ir::fused::ProgramKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub fn run(args: &Verify) -> Result<(), CliError> {
    let start = Instant::now();
    let opened = Opened::open(&args.bundle)?;
    let bundle = &opened.bundle;
    let (weights, from) = weights(bundle, args)?;
    let emulated = matches!(args.device, DeviceName::Emu(_));
    if args.sanitizer.is_some() && !emulated {
        return Err(CliError::Usage(format!("{} has no sanitizer\nleave out --sanitizer, or take emu:ARCH", args.device)));
    }
    let sanitizer = if emulated { args.sanitizer.unwrap_or(Sanitizer::Some) } else { Sanitizer::Off };
    let mut screen = Screen::new(args.verbose);
    let checks = if sanitizer == Sanitizer::Off { Checks::Memory } else { Checks::Sanitizer };
    let request = Request { device: args.device, exact: false, single_steps: false, trace: false, plain_launches: false, checks };
    let loaded = load_backend(bundle, weights.clone(), request, &mut screen);
    screen.clear();
    let mut backend = loaded?.backend;
    let options = Options {
        seed: args.seed,
        layers: args.layers,
        launch: args.launch,
        position: args.position,
        all: args.all,
        rows: args.rows,
        limit: Duration::from_secs(args.seconds),
        keep_going: args.keep_going,
        watched: match sanitizer {
            Sanitizer::Off => 0,
            Sanitizer::Some => WATCHED,
            Sanitizer::All => usize::MAX,
        },
    };
    let plan = backend.plan().clone();
    check_request(&opened, &options, &plan)?;
    let bar = progress_bar(selected(&plan, &options).len() as u64, "launches", "{pos}/{len} {msg}");
    let mut tell = |what: &str, done: usize, _: usize| {
        bar.set_message(what.to_owned());
        bar.set_position(done as u64);
        if args.verbose {
            bar.suspend(|| murmur(format_args!("verifying  {what}")));
        }
    };
    let rows = launches(&mut *backend, &*weights, &options, &mut tell)?;
    let mut report = Report::new(&plan, backend.describe(), args.seed).with_rows(rows);
    report.watch = sanitizer != Sanitizer::Off;
    let asked_for_one = args.launch.is_some() || args.position.is_some();
    report.no_chain = if args.no_chain {
        Some("--no-chain".into())
    } else if asked_for_one {
        Some("one launch was asked for".into())
    } else if report.failure().is_some() {
        Some("a launch is wrong".into())
    } else {
        whole(&mut *backend, &opened, &weights, &mut report, &options, &mut |what| bar.set_message(what.to_owned()))?
    };
    bar.finish_and_clear();
    let manifest = bundle.manifest();
    let about = About {
        bundle: bundle.path().display().to_string(),
        bundle_hash: bundle.hash().to_string(),
        model: manifest.model.clone(),
        context: manifest.ctx,
        weights: from,
        hipfire_run: env!("CARGO_PKG_VERSION"),
        emulated,
        decoder: emulated.then(|| hipc_emulator::disassembler_version().ok()).flatten(),
        provenance: manifest.provenance.clone(),
        seconds: start.elapsed().as_secs_f64(),
        command: command(args),
    };
    if let Some(path) = &args.report {
        let failed = |error| CliError::Write { path: path.clone(), error };
        std::fs::write(path, markdown(&about, &report, args)).map_err(failed)?;
    }
    match args.json {
        true => super::print(&json(&about, &report, args)?)?,
        false => super::print(&on_screen(&about, &report))?,
    }
    verdict(&report, args)
}

/// The bundle's weights, or random ones where they are asked for or the model file isn't there.
fn weights(bundle: &Bundle, args: &Verify) -> Result<(Arc<dyn WeightSource + Send>, &'static str), CliError> {
    let synthetic = || Ok((Arc::new(Synthetic::new(bundle.graph()?.weights, 0)) as Arc<dyn WeightSource + Send>, "synthetic"));
    if args.synthetic {
        return synthetic();
    }
    match bundle.weights(args.model.as_deref()) {
        Ok(weights) => {
            bundle.check(&weights)?;
            let embedded = bundle.manifest().weights.embedded && args.model.is_none();
            Ok((Arc::new(weights), if embedded { "bundle" } else { "file" }))
        }
        Err(error @ BundleError::ModelMissing { .. }) => {
            let what = error.to_string();
            note(&format!("{}: verifying with random weights", what.lines().next().unwrap_or_default()));
            synthetic()
        }
        Err(error) => Err(error.into()),
    }
}

fn check_request(opened: &Opened, options: &Options, plan: &hipc_ir::plan::Plan) -> Result<(), CliError> {
    let count: usize = plan.programs.iter().map(|p| p.launches.len()).sum();
    match (options.launch, options.position) {
        (Some(launch), _) if launch >= count => {
            Err(CliError::Usage(format!("there is no launch {launch}: the plan has {count}, from 0")))
        }
        (_, Some(position)) if position as usize >= opened.ctx() => {
            Err(CliError::Usage(format!("there is no position {position}: the context has {}", opened.ctx())))
        }
        _ => Ok(()),
    }
}

/// Compares whole steps; why not, if they aren't.
fn whole(
    backend: &mut dyn Backend,
    opened: &Opened,
    weights: &Arc<dyn WeightSource + Send>,
    report: &mut Report,
    options: &Options,
    tell: &mut dyn FnMut(&str),
) -> Result<Option<String>, CliError> {
    let mut cpu = match CpuBackend::new(backend.plan().clone(), weights.clone()) {
        Ok(cpu) => cpu,
        Err(error @ DeviceError::OutOfMemory { .. }) => return Ok(Some(format!("cpu has too little memory ({error})"))),
        Err(error) => return Err(error.into()),
    };
    let graph = Arc::new(opened.bundle.graph()?);
    for kind in [ProgramKind::Decode, ProgramKind::Prompt] {
        let graph = Some((graph.clone(), weights.clone()));
        let asked = Steps { kind, seed: options.seed, limit: options.limit, watched: report.watch, graph };
        match chain(backend, &mut cpu, &asked, tell) {
            Ok(row) => report.chain.extend(row),
            // A device that checks found something: that is a result, too.
            Err(DeviceError::Fault { what, .. }) => {
                report.stopped = Some(Stopped { program: crate::verify::kind(kind), what });
                return Ok(Some("the device stopped them".into()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(report.chain.is_empty().then(|| "the plan has no programs".into()))
}

fn verdict(report: &Report, args: &Verify) -> Result<(), CliError> {
    if let Some((row, failure)) = report.failure() {
        let case = &failure.case;
        return Err(CliError::Check(format!(
            "launch {} ({} {}, kernel {}) is wrong at position {}, {} token{}, inputs of size {:e}: {}\nreproduce with: {}",
            row.launch,
            row.program,
            row.label,
            row.kernel,
            case.position,
            case.tokens,
            if case.tokens == 1 { "" } else { "s" },
            case.magnitude,
            failure.what,
            reproduce(report, args).unwrap_or_default()
        )));
    }
    if let Some(stopped) = &report.stopped {
        return Err(CliError::Check(format!(
            "every launch is right by itself, but the device stopped whole steps ({}): {}\nreproduce with: {}",
            stopped.program,
            stopped.what,
            command(args)
        )));
    }
    match report.chain.iter().find(|c| !c.passes()) {
        None => Ok(()),
        Some(chain) => Err(CliError::Check(format!(
            "every launch is right by itself, but whole steps aren't: {}\nreproduce with: {}",
            steps(chain),
            command(args)
        ))),
    }
}
