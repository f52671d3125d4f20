//! `hipfire-run verify`.

use super::args::{Sanitizer, Verify};
use super::open::{Opened, Screen, progress_bar};
use super::verify_report::{About, command, json, markdown, on_screen, one_by_one, reproduce, steps};
use super::{CliError, murmur, note};
use crate::bundle::{Bundle, BundleError};
use crate::device::cpu::CpuBackend;
use crate::device::select::DeviceName;
use crate::device::{Around, Backend, DeviceError, WeightSource};
use crate::load::{Checks, Request, load_backend};
use crate::synthetic::Synthetic;
use crate::verify::chain::{Steps, chain};
use crate::verify::until::until;
use crate::verify::{ChainRow, Options, Report, Stopped, WATCHED, launches, selected};
use hipc_ir::bundle::Digest;
use hipc_ir::plan::Plan;
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
        layer: args.layer,
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
    check_request(&opened, args, &plan)?;
    let bar = progress_bar(selected(&plan, &options).len() as u64, "launches", "{pos}/{len} {msg}");
    let mut tell = |what: &str, done: usize, _: usize| {
        bar.set_message(what.to_owned());
        bar.set_position(done as u64);
        if args.verbose {
            bar.suspend(|| murmur(format_args!("verifying  {what}")));
        }
    };
    let mut report = Report::new(&*backend, args.seed);
    if args.until.is_none() {
        report = report.with_rows(launches(&mut *backend, &*weights, &options, &mut tell)?);
    }
    report.watch = sanitizer != Sanitizer::Off;
    report.no_chain = if args.no_chain {
        Some("--no-chain".into())
    } else if args.launch.is_some() || args.layer.is_some() || args.position.is_some() {
        Some("one launch, layer or position was asked for".into())
    } else if report.failure().is_some() {
        Some("a launch is wrong".into())
    } else {
        if report.around == Around::Margins {
            // Whole steps as users have them: buffers where the plan puts them.
            drop(backend);
            backend = load_backend(bundle, weights.clone(), Request { checks: Checks::None, ..request }, &mut screen)?.backend;
            screen.clear();
        }
        let mut tell = |what: &str| bar.set_message(what.to_owned());
        whole(&mut *backend, &opened, &weights, &mut report, &options, args.until, &mut tell)?
    };
    bar.finish_and_clear();
    let manifest = bundle.manifest();
    let about = About {
        bundle: bundle.path().display().to_string(),
        bundle_hash: bundle.hash(),
        code_hash: (report.around != Around::Slices).then(|| bundle.code(&report.target).map(Digest::of)).transpose()?,
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

fn check_request(opened: &Opened, args: &Verify, plan: &Plan) -> Result<(), CliError> {
    let (count, layers): (usize, _) = (plan.programs.iter().map(|p| p.launches.len()).sum(), plan.model.layers);
    let launch = args.launch.or(args.until).filter(|launch| *launch >= count);
    let refusal = match (launch, args.layer, args.position) {
        (Some(launch), ..) => format!("there is no launch {launch}: the plan has {count}, from 0"),
        (_, Some(layer), _) if layer >= layers => format!("there is no layer {layer}: the model has {layers}, from 0"),
        (.., Some(position)) if position as usize >= opened.ctx() => {
            format!("there is no position {position}: the context has {}", opened.ctx())
        }
        _ => return Ok(()),
    };
    Err(CliError::Usage(refusal))
}

/// Compares whole steps, or launch by launch up to number `last`; why not, if they aren't.
fn whole(
    backend: &mut dyn Backend,
    opened: &Opened,
    weights: &Arc<dyn WeightSource + Send>,
    report: &mut Report,
    options: &Options,
    last: Option<usize>,
    tell: &mut dyn FnMut(&str),
) -> Result<Option<String>, CliError> {
    let mut cpu = match CpuBackend::new(backend.plan().clone(), weights.clone()) {
        Ok(cpu) => cpu,
        Err(error @ DeviceError::OutOfMemory { .. }) => return Ok(Some(format!("cpu has too little memory ({error})"))),
        Err(error) => return Err(error.into()),
    };
    let graph = Arc::new(opened.bundle.graph()?);
    let programs: Vec<_> = backend.plan().programs.iter().map(|p| (p.kind, p.launches.len())).collect();
    let mut first = 0;
    for (kind, count) in programs {
        let launches = first..first + count;
        first = launches.end;
        if last.is_some_and(|last| !launches.contains(&last)) {
            continue;
        }
        let graph = Some((graph.clone(), weights.clone()));
        let asked = Steps { kind, seed: options.seed, limit: options.limit, watched: report.watch, graph };
        let mut compare = || {
            if let Some(last) = last {
                report.until.extend(until(backend, &mut cpu, &asked, last - launches.start, tell)?);
                return Ok(());
            }
            let row = chain(backend, &mut cpu, &asked, tell)?;
            if row.as_ref().is_some_and(ChainRow::strays) {
                report.until.extend(until(backend, &mut cpu, &asked, count.saturating_sub(1), tell)?);
            }
            report.chain.extend(row);
            Ok(())
        };
        match compare() {
            Ok(()) => {}
            // A device that checks found something: that is a result, too.
            Err(DeviceError::Fault { what, .. }) => {
                report.stopped = Some(Stopped { program: crate::verify::kind(kind), what });
                return Ok(Some("the device stopped them".into()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(match last {
        Some(_) => Some("one launch was to be the last".into()),
        None => report.chain.is_empty().then(|| "the plan has no programs".into()),
    })
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
    let again = reproduce(report, args).unwrap_or_default();
    let wrong = report.chain.iter().find(|c| !c.passes());
    let what = wrong.map(|chain| format!("every launch is right by itself, but whole steps aren't: {}\n", steps(chain)));
    let left =
        report.until.iter().find(|u| u.first.is_some()).or(report.until.first()).filter(|u| what.is_some() || u.first.is_some());
    match what.is_some() || left.is_some() {
        false => Ok(()),
        true => Err(CliError::Check(format!(
            "{}{}reproduce with: {again}",
            what.unwrap_or_default(),
            left.map(|left| format!("{}\n", one_by_one(left))).unwrap_or_default()
        ))),
    }
}
