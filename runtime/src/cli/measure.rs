//! What `bench` and `profile` share: loading with times, and figures for people.

use super::args::Measure;
use super::open::{Opened, Screen};
use super::{CliError, murmur};
use crate::bench::{Bandwidth, Spread};
use crate::bundle::BundleError;
use crate::device::{Progress, WeightSource};
use crate::load::{Checks, Listener, Loaded, Request, load_backend};
use crate::synthetic::Synthetic;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use hipc_ir::bundle::Provenance;
use hipc_ir::plan::ModelInfo;
use hipc_ir::units::{bytes, rate};
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;

/// What a bundle is, for whoever reads the figures.
#[derive(Debug, Serialize)]
pub struct About {
    pub bundle: String,
    pub model: ModelInfo,
    pub context: u32,
    /// `file`, `bundle` or `synthetic`.
    pub weights: &'static str,
    pub hipfire_run: &'static str,
    pub provenance: Provenance,
    pub load: Load,
}

/// How long loading took.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Load {
    /// From the start until everything can run: device, code, memory, weights.
    pub seconds: f64,
    /// Weights and tables brought to the device; none where they are read in place.
    pub bytes: u64,
    /// Seconds of those alone.
    pub upload_seconds: f64,
    /// GB/s of those alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gb_per_s: Option<f64>,
}

/// Measures the way of the weights.
struct Clock {
    screen: Screen,
    first: Option<Instant>,
    last: Option<(Instant, u64)>,
}

impl Listener for Clock {
    fn note(&mut self, text: &str) {
        self.screen.note(text);
    }
    fn detail(&mut self, what: &str, text: &str) {
        self.screen.detail(what, text);
    }
    fn progress(&mut self, progress: Progress) {
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.last = Some((now, progress.done));
        self.screen.progress(progress);
    }
}

/// Opens and loads.
pub fn load(args: &Measure) -> Result<(Opened, About, Loaded), CliError> {
    let start = Instant::now();
    let opened = Opened::open(&args.bundle)?;
    let bundle = &opened.bundle;
    let (weights, from): (Arc<dyn WeightSource + Send>, _) = match args.synthetic {
        true => (Arc::new(Synthetic::new(bundle.graph()?.weights, args.seed)), "synthetic"),
        false => {
            let weights = bundle.weights(args.model.as_deref()).map_err(|error| match error {
                BundleError::ModelMissing { .. } => {
                    CliError::Usage(format!("{error}\nor measure with random weights: --synthetic"))
                }
                other => other.into(),
            })?;
            bundle.check(&weights)?;
            let embedded = bundle.manifest().weights.embedded && args.model.is_none();
            (Arc::new(weights), if embedded { "bundle" } else { "file" })
        }
    };
    let mut clock = Clock { screen: Screen::new(args.verbose), first: None, last: None };
    let request = Request {
        device: args.device,
        exact: false,
        single_steps: false,
        trace: false,
        plain_launches: args.no_graph,
        checks: Checks::None,
    };
    let loaded = load_backend(bundle, weights, request, &mut clock);
    clock.screen.clear();
    let loaded = loaded?;
    let seconds = start.elapsed().as_secs_f64();
    let upload = clock.first.zip(clock.last).map(|(first, (last, bytes))| (last.duration_since(first).as_secs_f64(), bytes));
    let (upload_seconds, bytes) = upload.unwrap_or_default();
    let gb_per_s = (bytes > 0).then(|| bytes as f64 / upload_seconds.max(1e-9) / 1e9);
    let manifest = bundle.manifest();
    let about = About {
        bundle: bundle.path().display().to_string(),
        model: manifest.model.clone(),
        context: manifest.ctx,
        weights: from,
        hipfire_run: env!("CARGO_PKG_VERSION"),
        provenance: manifest.provenance.clone(),
        load: Load { seconds, bytes, upload_seconds, gb_per_s },
    };
    Ok((opened, about, loaded))
}

/// Refuses a step that the context has no room for.
pub fn check_depth(opened: &Opened, depth: u32, tokens: u32) -> Result<(), CliError> {
    let needed = u64::from(depth) + u64::from(tokens);
    match needed <= opened.ctx() as u64 {
        true => Ok(()),
        false => Err(opened.too_long("depth and new tokens make", usize::try_from(needed).unwrap_or(usize::MAX))),
    }
}

/// Tells what is measured next, where a person waits.
pub fn teller(verbose: bool) -> impl FnMut(&str) {
    move |what| {
        if verbose {
            murmur(format_args!("measuring  {what}"));
        }
    }
}

/// A report with what it is about, as one JSON object.
pub fn print_json(about: &About, report: &impl Serialize) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct All<'a, R> {
        #[serde(flatten)]
        about: &'a About,
        #[serde(flatten)]
        report: &'a R,
    }
    let text = serde_json::to_string_pretty(&All { about, report }).map_err(|e| CliError::Internal(e.to_string()))?;
    super::print(&format!("{text}\n"))
}

/// The lines that both reports begin with.
pub fn heading(about: &About, device: &str, arch: &str, bandwidth: &Bandwidth) -> String {
    let weights = match about.weights {
        "synthetic" => "random weights",
        "bundle" => "weights from the bundle",
        _ => "weights from the model file",
    };
    format!(
        "{} ({}, {} layers), context {}, {weights}\n{device}, code for {arch}\nreads of {}: {} GB/s\n",
        about.model.name,
        about.model.arch,
        about.model.layers,
        about.context,
        bytes(bandwidth.bytes),
        spread(&bandwidth.gb_per_s),
    )
}

/// `4520 (4490 to 4550)`.
pub fn spread(s: &Spread) -> String {
    format!("{} ({} to {})", rate(s.median), rate(s.min), rate(s.max))
}

/// `63 %`.
pub fn percent(part: f64) -> String {
    format!("{:.0} %", 100.0 * part)
}

/// Columns without lines; from number `numbers_from` on they are right-aligned.
pub fn table(header: &[&str], numbers_from: usize, rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().copied());
    table.add_rows(rows);
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if i >= numbers_from {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
