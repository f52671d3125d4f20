//! `hipfire-run tune`.

use super::args::Tune;
use super::measure::table;
use super::open::{Opened, progress_bar};
use super::{CliError, murmur};
use crate::device::cuda::CudaDriver;
use crate::device::emu::Emulator;
use crate::device::hip::{HipDriver, HipRuntime};
use crate::device::host::{HostLibrary, Order};
use crate::device::select::{DeviceName, HOST, Selected, select};
use crate::device::{DeviceError, Driver, read_memory};
use crate::tune::{Measured, Options, TuneError, brief, measure};
use hipc_ir::tuning::{Made, Trial, TuningFile};
use hipc_ir::units::{bytes, rate};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Everything that `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    device: &'a str,
    driver: &'a str,
    arch: &'a str,
    model: &'a str,
    context: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    gb_per_s: Option<u32>,
    launches: &'a [Measured],
}

pub fn run(args: &Tune) -> Result<(), CliError> {
    let opened = Opened::open(&args.bundle)?;
    let bundle = &opened.bundle;
    let device = Device::find(args.device, &bundle.archs().collect::<Vec<_>>())?;
    let arch = device.arch.clone();
    let all = bundle.trials(&arch)?;
    let asked = chosen(&all, &args.launches, &opened, &arch)?;
    let manifest = bundle.manifest();
    let options = device.options(args);
    let mut first = device.driver()?;
    let (described, driver) = (first.describe(), device.version());
    let gb_per_s = match device.selected {
        Selected::Host | Selected::Emu(_) => None,
        _ => Some(bandwidth(&mut *first, bundle.code(&arch)?, 4 * options.span)?),
    };
    drop(first);
    let geometries = asked.iter().map(|(_, t)| t.candidates.len() as u64).sum();
    let bar = progress_bar(geometries, "geometries", "{pos}/{len} {msg}");
    let mut measured = Vec::with_capacity(asked.len());
    for &(index, trial) in &asked {
        bar.set_message(trial.label.clone());
        let mut driver = device.driver()?;
        let code = bundle.trial_code(&arch, index)?;
        let done = measure(&mut *driver, trial, code, manifest.ctx, &options, &mut || bar.inc(1));
        measured.push(done.map_err(|error| match error {
            TuneError::Device(error) => error.into(),
            wrong @ TuneError::Disagrees { .. } => CliError::Check(wrong.to_string()),
        })?);
    }
    bar.finish_and_clear();
    let made = Made {
        date: today(),
        device: described,
        driver,
        hipc: manifest.provenance.hipc.clone(),
        templates: manifest.provenance.templates,
        model: manifest.model.name.clone(),
        gb_per_s,
    };
    if args.json {
        let report = Report {
            device: &made.device,
            driver: &made.driver,
            arch: &arch,
            model: &made.model,
            context: manifest.ctx,
            gb_per_s,
            launches: &measured,
        };
        let text = serde_json::to_string_pretty(&report).map_err(|e| CliError::Internal(e.to_string()))?;
        super::print(&format!("{text}\n"))?;
    } else {
        super::print(&screen(&made, &asked, &measured)?)?;
    }
    let Some(path) = &args.output else { return Ok(()) };
    let entries = asked.iter().zip(&measured).map(|((_, trial), m)| m.entry(&arch, &trial.op)).collect();
    write(path, &TuningFile { made, entries })?;
    murmur(format_args!("wrote {path}; use it with: hipc compile MODEL.gguf --arch {arch} --tune {path}", path = path.display()));
    Ok(())
}

/// The trials of these labels, with their numbers; all of them without labels.
fn chosen<'a>(all: &'a [Trial], labels: &[String], opened: &Opened, arch: &str) -> Result<Vec<(usize, &'a Trial)>, CliError> {
    if all.is_empty() {
        let (bundle, model) = (opened.bundle.path().display(), &opened.bundle.manifest().provenance.model_path);
        return Err(CliError::Usage(format!(
            "{bundle} has nothing to measure for {arch}\nmake a bundle that has: hipc compile {model} --arch {arch} --alternatives -o \
             tune.bin"
        )));
    }
    if let Some(unknown) = labels.iter().find(|l| !all.iter().any(|t| t.label == **l)) {
        let mut known: Vec<&str> = all.iter().map(|t| t.label.as_str()).collect();
        known.sort_unstable();
        known.dedup();
        return Err(CliError::Usage(format!("there is no launch `{unknown}` to measure; there are {}", known.join(", "))));
    }
    let asked = |t: &Trial| labels.is_empty() || labels.contains(&t.label);
    Ok(all.iter().enumerate().filter(|(_, t)| asked(t)).collect())
}

/// A device that kernels can be measured on.
struct Device {
    selected: Selected,
    arch: String,
}

impl Device {
    fn find(name: DeviceName, archs: &[&str]) -> Result<Self, CliError> {
        let (selected, note) = select(name, archs)?;
        let arch = match &selected {
            Selected::Cpu(_) => {
                let why = note.map_or_else(String::new, |n| format!(" ({n})"));
                return Err(CliError::Usage(format!(
                    "the CPU has no geometries to choose from{why}\nname a GPU: --device hip:0"
                )));
            }
            Selected::Hip(_, device) | Selected::Cuda(_, device) => device.arch.clone(),
            Selected::Host => HOST.to_owned(),
            Selected::Emu(arch) => arch.name.to_owned(),
        };
        Ok(Self { selected, arch })
    }

    /// A driver without any memory in use.
    fn driver(&self) -> Result<Box<dyn Driver>, DeviceError> {
        Ok(match &self.selected {
            Selected::Hip(runtime, device) => Box::new(HipDriver::new(runtime, device.index)?),
            Selected::Cuda(runtime, device) => Box::new(CudaDriver::new(runtime, device.index)?),
            Selected::Emu(arch) => Box::new(Emulator::new(arch)),
            Selected::Cpu(_) | Selected::Host => Box::new(HostLibrary::new(Order::default())),
        })
    }

    fn version(&self) -> String {
        let module = |name: &str| std::fs::read_to_string(format!("/sys/module/{name}/version")).map(|v| v.trim().to_owned());
        let unknown = || "unknown".to_owned();
        match &self.selected {
            Selected::Hip(runtime, _) => hip_version(runtime).unwrap_or_else(unknown),
            Selected::Cuda(..) => module("nvidia").unwrap_or_else(|_| unknown()),
            Selected::Cpu(_) | Selected::Host | Selected::Emu(_) => "none".to_owned(),
        }
    }

    /// The host is far too slow for what suits a GPU, and its times say nothing.
    fn options(&self, args: &Tune) -> Options {
        let host = matches!(self.selected, Selected::Host | Selected::Emu(_));
        let span = args.span.unwrap_or(if host { 1 } else { 512 }) << 20;
        Options { span, launches: if host { 1 } else { 64 }, repeat: args.repeat.unwrap_or(if host { 1 } else { 7 }) }
    }
}

fn hip_version(runtime: &HipRuntime) -> Option<String> {
    runtime.version().ok().filter(|&v| v > 0).map(|v| format!("HIP {}", crate::doctor::hip_version(v)))
}

/// Bytes per nanosecond of plain reads.
fn bandwidth(driver: &mut dyn Driver, module: &[u8], span: u64) -> Result<u32, DeviceError> {
    let times = read_memory(driver, module, span, 5)?;
    let mut rates: Vec<f64> = times.seconds.iter().map(|s| times.bytes as f64 / s.max(1e-9) / 1e9).collect();
    rates.sort_by(f64::total_cmp);
    Ok(rates.get(rates.len() / 2).copied().unwrap_or(0.0).round() as u32)
}

fn screen(made: &Made, asked: &[(usize, &Trial)], measured: &[Measured]) -> Result<String, CliError> {
    let mut out = format!("{} on {} (driver {})", made.model, made.device, made.driver);
    let failed = |_| CliError::Internal("a report could not be written".into());
    if let Some(gb) = made.gb_per_s {
        write!(out, ", reads at {gb} GB/s").map_err(failed)?;
    }
    out.push_str("\n\n");
    let us = |ns: f64| format!("{:.2}", ns / 1e3);
    let rows = asked.iter().zip(measured).map(|((_, trial), m)| {
        let (before, now) = (m.before(), m.now());
        let better = if m.best == 0 { String::new() } else { brief(&trial.op, &now.geometry) };
        vec![
            m.label.clone(),
            brief(&trial.op, &before.geometry),
            better,
            m.launches.to_string(),
            bytes(m.bytes),
            us(before.predicted_ns as f64),
            us(before.ns),
            us(now.ns),
            format!("{:.1} %", 100.0 * (1.0 - now.ns / before.ns)),
            rate(m.bytes as f64 / now.by_position.last().copied().unwrap_or(now.ns)),
        ]
    });
    let header = ["launch", "plan", "better", "per token", "reads", "predicted µs", "plan µs", "best µs", "gain", "GB/s"];
    out.push_str(&table(&header, 3, rows));
    let saved: f64 = measured.iter().map(Measured::saved_ns).sum();
    let before: f64 = measured.iter().map(|m| f64::from(m.launches) * m.before().ns).sum();
    writeln!(
        out,
        "\nthese launches take {} µs of a token with the plan's geometries, {} with the best",
        us(before),
        us(before - saved)
    )
    .map_err(failed)?;
    Ok(out)
}

/// Writes the file whole or not at all.
fn write(path: &Path, file: &TuningFile) -> Result<(), CliError> {
    let fail = |error| CliError::Write { path: path.to_owned(), error };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = tempfile::NamedTempFile::new_in(folder).map_err(fail)?;
    std::io::Write::write_all(&mut temporary, file.to_string().as_bytes()).map_err(fail)?;
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    temporary.as_file().set_permissions(permissions).map_err(fail)?;
    temporary.persist(path).map_err(|e| fail(e.error))?;
    Ok(())
}

/// The day in UTC.
fn today() -> String {
    let days = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() / 86_400);
    let (year, month, day) = civil(days);
    format!("{year}-{month:02}-{day:02}")
}

/// Year, month and day, so many days after 1 January 1970: years begin in March, so that a leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (19_722, (2023, 12, 31)),
            (20_778, (2026, 11, 21)),
        ] {
            assert_eq!(civil(days), date, "{days}");
        }
    }
}
