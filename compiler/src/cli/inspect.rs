//! `hipc inspect`.

use super::args::Inspect;
use super::compile::write_file;
use super::style::{self, DIM, GOOD, HEAD, say};
use super::{CliError, map};
use crate::inspect::{ArchReport, CardReport, KernelReport, arch_report};
use crate::target::{Platform, Target};
use crate::tuning::tuned_kernels;
use hipc_ir::bundle::{Bundle, FormatError, Manifest, Provenance};
use hipc_ir::plan::ModelInfo;
use hipc_ir::tuning::{Trial, TuningFile};
use hipc_ir::units::bytes;
use serde::Serialize;
use std::path::Path;

/// Everything `--json` prints. The figures beside `archs` are of the first architecture.
#[derive(Debug, Serialize)]
struct Report<'a> {
    model: &'a ModelInfo,
    context: u32,
    archs: &'a [ArchReport],
    launches_per_layer: usize,
    launches_per_token: usize,
    bytes_per_token: u64,
    memory: Vec<MemoryRow>,
    provenance: &'a Provenance,
    tuned: &'a [Tuned],
    trials: &'a [TrialRow],
}

/// A kernel whose geometry was measured.
#[derive(Clone, Debug, Serialize)]
struct Tuned {
    arch: String,
    kernel: String,
}

/// A launch that can be measured.
#[derive(Clone, Debug, Serialize)]
struct TrialRow {
    arch: String,
    label: String,
    geometries: usize,
}

/// Bytes by context length.
#[derive(Clone, Copy, Debug, Serialize)]
struct MemoryRow {
    context: u32,
    bytes: u64,
}

pub fn run(args: &Inspect) -> Result<(), CliError> {
    let bundle = Bundle::parse(map(&args.bundle)?)?;
    // Parsing checks every other section.
    bundle.check_weights()?;
    let manifest = bundle.manifest();
    let mut archs = Vec::new();
    let (mut tuned, mut trials) = (Vec::new(), Vec::new());
    let files = tuning_files(&bundle)?;
    for arch in bundle.archs() {
        let plan = bundle.plan(arch)?;
        let kernels = tuned_kernels(&plan, &files);
        tuned.extend(kernels.into_iter().map(|k| Tuned { arch: arch.to_owned(), kernel: k.to_owned() }));
        let row = |t: Trial| TrialRow { arch: arch.to_owned(), label: t.label, geometries: t.candidates.len() };
        trials.extend(bundle.trials(arch)?.into_iter().map(row));
        let mut report = arch_report(&plan, bundle.code(arch)?, Target::parse(arch)?);
        report.add_variants(&bundle.variants(arch)?);
        archs.push(report);
    }
    if let Some(folder) = &args.extract {
        extract(&bundle, folder)?;
    }
    if args.json {
        let first = archs.first();
        let report = Report {
            model: &manifest.model,
            context: manifest.ctx,
            archs: &archs,
            launches_per_layer: first.map_or(0, |a| a.launches_per_layer),
            launches_per_token: first.map_or(0, |a| a.launches_per_token),
            bytes_per_token: first.map_or(0, |a| a.bytes_per_token),
            memory: memory_rows(manifest),
            provenance: &manifest.provenance,
            tuned: &tuned,
            trials: &trials,
        };
        say!("{}", serde_json::to_string_pretty(&report).map_err(|e| CliError::Usage(e.to_string()))?);
        return Ok(());
    }
    print_model(manifest);
    for arch in &archs {
        print_arch(arch);
        print_tuning(&arch.name, &tuned, &trials);
    }
    print_memory(manifest);
    print_provenance(manifest);
    Ok(())
}

/// What the plans were tuned with.
fn tuning_files(bundle: &Bundle<impl AsRef<[u8]>>) -> Result<Vec<TuningFile>, CliError> {
    let files = bundle.tuning()?;
    let parsed = files.into_iter().map(|(hash, text)| {
        let wrong = |e| FormatError::Malformed { what: format!("tuning file {hash}"), reason: format!("{e}") };
        text.parse::<TuningFile>().map_err(|e| CliError::from(wrong(e)))
    });
    parsed.collect()
}

fn print_tuning(arch: &str, tuned: &[Tuned], trials: &[TrialRow]) {
    let tuned: Vec<&str> = tuned.iter().filter(|t| t.arch == arch).map(|t| t.kernel.as_str()).collect();
    if !tuned.is_empty() {
        say!("\nmeasured geometry (see the tuning files below): {}", tuned.join(", "));
    }
    let trials: Vec<String> =
        trials.iter().filter(|t| t.arch == arch).map(|t| format!("{} in {}", t.label, t.geometries)).collect();
    if !trials.is_empty() {
        say!("\nfor hipfire-run tune, launches in so many geometries: {}", trials.join(", "));
    }
}

fn memory_rows(manifest: &Manifest) -> Vec<MemoryRow> {
    let rows = manifest.archs.first().map_or(&[][..], |a| &a.memory);
    rows.iter().map(|&(context, bytes)| MemoryRow { context, bytes }).collect()
}

/// The units, the machine code and the plans, one file each per architecture.
fn extract(bundle: &Bundle<impl AsRef<[u8]>>, folder: &Path) -> Result<(), CliError> {
    for arch in bundle.archs() {
        let code = match Target::parse(arch)?.platform {
            Platform::Amd => "hsaco",
            Platform::Nvidia => "ptx",
            Platform::Host => "so",
        };
        write_file(&folder.join(format!("{arch}.{code}")), bundle.code(arch)?)?;
        write_file(&folder.join(format!("{arch}.plan")), bundle.plan(arch)?.to_string().as_bytes())?;
        if let Some(unit) = bundle.unit(arch)? {
            write_file(&folder.join(format!("{arch}.hip")), unit.as_bytes())?;
        }
    }
    for (path, contents) in hipc_templates::HEADERS {
        write_file(&folder.join(path), contents.as_bytes())?;
    }
    Ok(())
}

fn heading(text: &str) {
    say!("\n{}{text}{}", HEAD.render(), HEAD.render_reset());
}

fn note(text: &str) {
    say!("{}{text}{}", DIM.render(), DIM.render_reset());
}

fn print_model(manifest: &Manifest) {
    let m = &manifest.model;
    say!("{}{}{}", HEAD.render(), m.name, HEAD.render_reset());
    let place = if manifest.weights.embedded { "embedded".to_owned() } else { format!("in {}", manifest.weights.absolute) };
    say!(
        "{}, {} layers, vocabulary {}, context {} of {}, cache {:?}",
        m.arch,
        m.layers,
        m.vocab,
        manifest.ctx,
        m.ctx_train,
        manifest.kv
    );
    let all: u64 = manifest.weights.tensors.values().map(|t| t.bytes).sum();
    say!("weights {} {place}", bytes(all));
}

fn print_arch(arch: &ArchReport) {
    heading(&arch.name);
    say!(
        "{} launches per token, {} per layer; {} read and written per token; machine code {}",
        arch.launches_per_token,
        arch.launches_per_layer,
        bytes(arch.bytes_per_token),
        bytes(arch.code_bytes as u64)
    );
    let m = &arch.memory;
    say!(
        "memory: weights {} + KV cache {} + tables and logits {} + activations {}",
        bytes(m.weights),
        bytes(m.cache),
        bytes(m.persistent),
        bytes(m.arena)
    );
    let weights = arch.weights.iter().map(|w| {
        let repacked = if w.layout == "gguf" { "" } else { ", repacked at load" };
        format!("{} x {} {}{repacked}", w.weights, w.dtype, bytes(w.bytes))
    });
    say!("weights: {}", weights.collect::<Vec<_>>().join("; "));
    if !arch.kernels.is_empty() {
        say!();
        let searched = arch.kernels.iter().any(|k| k.variant.is_some());
        let rows = arch.kernels.iter().map(|k| {
            let mut row = vec![
                k.name.clone(),
                k.threads.to_string(),
                k.vgpr.to_string(),
                k.sgpr.to_string(),
                k.lds.to_string(),
                (k.vgpr_spills + k.sgpr_spills).to_string(),
                k.scratch.to_string(),
                format!("{}/{}", k.occupancy, k.max_waves),
                k.limited_by.clone(),
                k.launches[0].to_string(),
                k.launches[1].to_string(),
            ];
            row.extend(searched.then(|| variant(k)));
            row
        });
        let mut header = vec![
            "kernel",
            "threads",
            "VGPR",
            "SGPR",
            "LDS B",
            "spills",
            "scratch B",
            "waves/SIMD",
            "limited by",
            "decode",
            "prompt",
        ];
        header.extend(searched.then_some("variant"));
        say!("{}", style::table(&header, 1, rows));
    }
    print_predictions(arch);
}

/// The variant a kernel was compiled in, and what that has won.
fn variant(kernel: &KernelReport) -> String {
    let name = kernel.variant.clone().unwrap_or_default();
    match kernel.variants_tried.first() {
        Some(default) if default.waves < kernel.occupancy => format!("{name}: {} -> {} waves", default.waves, kernel.occupancy),
        _ => name,
    }
}

fn print_predictions(arch: &ArchReport) {
    let Some(first) = arch.cards.first() else { return };
    say!("\npredicted for one token with {} positions in the cache:\n", first.positions);
    let row = |c: &CardReport| {
        vec![
            c.card.clone(),
            c.cus.to_string(),
            format!("{:.0}", c.gb_per_s),
            format!("{:.0}", c.read_gb_per_s),
            bytes(arch.bytes_per_token),
            format!("{:.0}", c.predicted_us_per_token),
            format!("{:.0} %", 100.0 * c.predicted_share),
            format!("{:.0}", c.predicted_tokens_per_s),
        ]
    };
    let header = ["card", "CUs", "GB/s", "for reads", "bytes/token", "us/token", "of reads", "tokens/s"];
    say!("{}\n", style::table(&header, 1, arch.cards.iter().map(row)));
    let names: Vec<&str> = arch.cards.iter().map(|c| c.card.as_str()).collect();
    let header: Vec<&str> = ["us per launch", "launches", "bytes"].into_iter().chain(names).collect();
    let rows = first.kernels.iter().enumerate().map(|(i, k)| {
        let us = arch.cards.iter().map(|c| c.kernels.get(i).map_or_else(String::new, |k| format!("{:.1}", k.predicted_us)));
        [k.name.clone(), k.launches.to_string(), bytes(k.bytes)].into_iter().chain(us).collect()
    });
    say!("{}", style::table(&header, 1, rows));
    note(
        "predictions of the cost model from data sheets; nothing here was measured on these cards (hipfire-run profile measures)",
    );
}

fn print_memory(manifest: &Manifest) {
    heading("memory by context");
    let rows = memory_rows(manifest).into_iter().map(|row| {
        let mark = if row.context == manifest.ctx { "this bundle" } else { "" };
        vec![row.context.to_string(), bytes(row.bytes), mark.to_owned()]
    });
    say!("{}", style::table(&["context", "allocated", ""], 1, rows));
}

fn print_provenance(manifest: &Manifest) {
    heading("made from");
    let p = &manifest.provenance;
    say!("model      {}", p.model_path);
    say!("  header   {}", p.model_header);
    say!("templates  {}", p.templates);
    say!("hipc       {} {}", p.hipc, p.flags.join(" "));
    let mut compilers: Vec<&str> = p.compilers.iter().map(|(_, c)| c.as_str()).collect();
    compilers.dedup();
    say!("compiler   {}", compilers.join("\n           "));
    let weights = if manifest.weights.embedded { ", that of the embedded weights too" } else { "" };
    say!("{}every section's hash holds{weights}{}", GOOD.render(), GOOD.render_reset());
}
