//! What all commands do with a bundle: open it, load it onto a device, say what doesn't fit.

use super::args::DeviceArgs;
use super::{CliError, murmur, note};
use crate::bundle::{Bundle, BundleError};
use crate::device::Progress;
use crate::engine::Engine;
use crate::load::{Checks, Listener, Request, load};
use hipc_ir::text::TokenizerData;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

/// An opened bundle.
pub struct Opened {
    pub bundle: Bundle,
}

impl Opened {
    pub fn open(path: &Path) -> Result<Self, CliError> {
        match Bundle::open(path) {
            Ok(bundle) => Ok(Self { bundle }),
            Err(BundleError::Read { error, .. }) if error.kind() == ErrorKind::NotFound => {
                let path = path.display();
                let advice = format!("make it with: hipc compile MODEL.gguf --arch ARCH -o {path}");
                Err(CliError::Usage(format!("there is no bundle {path}\n{advice}")))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Positions of the cache.
    pub fn ctx(&self) -> usize {
        self.bundle.manifest().ctx as usize
    }

    pub fn tokenizer(&self) -> Result<TokenizerData, CliError> {
        let missing = || CliError::Usage("the model has no tokenizer, so it takes no text\nuse: hipfire-run logits".into());
        self.bundle.tokenizer()?.ok_or_else(missing)
    }

    /// More tokens than positions, and how to compile for as many.
    pub fn too_long(&self, what: &'static str, tokens: usize) -> CliError {
        let manifest = self.bundle.manifest();
        let trained = manifest.model.ctx_train as usize;
        let advice = if tokens > trained {
            format!("the model itself was trained for {trained}: shorten the text")
        } else {
            // Room for an answer.
            let ctx = (tokens + 256).next_multiple_of(256).min(trained.max(tokens));
            let archs: Vec<&str> = self.bundle.archs().collect();
            let (model, output) = (&manifest.provenance.model_path, self.bundle.path().display());
            format!("compile for more: hipc compile {model} --arch {} --ctx {ctx} -o {output}", archs.join(","))
        };
        CliError::TooLong { what, tokens, bundle: self.bundle.path().display().to_string(), ctx: self.ctx(), advice }
    }

    /// Loads the bundle as the arguments say.
    pub fn engine(&self, args: &DeviceArgs, single_steps: bool) -> Result<Box<dyn Engine>, CliError> {
        let mut screen = Screen::new(args.verbose > 0);
        let manifest = self.bundle.manifest();
        let archs: Vec<&str> = self.bundle.archs().collect();
        let model = &manifest.model;
        let about = format!(
            "{}: {} ({}, {} layers), context {}, {:?} cache, for {}",
            self.bundle.path().display(),
            model.name,
            model.arch,
            model.layers,
            manifest.ctx,
            manifest.kv,
            archs.join(", ")
        );
        screen.detail("bundle", &about);
        let weights = Arc::new(self.bundle.weights(args.model.as_deref())?);
        let (trace, plain_launches) = (args.verbose > 1, args.no_graph);
        let request =
            Request { device: args.device, exact: args.exact, single_steps, trace, plain_launches, checks: Checks::None };
        let engine = load(&self.bundle, weights, request, &mut screen);
        screen.clear();
        Ok(engine?)
    }
}

/// Tells on standard error; the bar shows only on a terminal.
pub struct Screen {
    verbose: bool,
    bar: Option<ProgressBar>,
}

impl Screen {
    pub fn new(verbose: bool) -> Self {
        Self { verbose, bar: None }
    }

    /// Makes room for lines.
    pub fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Listener for Screen {
    fn note(&mut self, text: &str) {
        self.clear();
        note(text);
    }
    fn detail(&mut self, what: &str, text: &str) {
        if self.verbose {
            self.clear();
            murmur(format_args!("{what:<10} {text}"));
        }
    }
    fn progress(&mut self, progress: Progress) {
        let bar = self.bar.get_or_insert_with(|| progress_bar(progress.total, "weights", "{bytes}/{total_bytes}"));
        bar.set_position(progress.done);
    }
}

/// A bar on standard error, invisible where that is no terminal.
pub fn progress_bar(len: u64, what: &str, counter: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(&format!("{what} {{bar:30}} {counter}"));
    ProgressBar::new(len).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
