//! `hipfire-run logits`.

use super::args::Logits;
use super::interrupt::Interrupts;
use super::open::{Opened, progress_bar};
use super::{CliError, murmur};
use crate::engine::Want;
use crate::npy::NpyWriter;
use hipc_ir::units::rate;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;

pub fn run(args: &Logits) -> Result<(), CliError> {
    let interrupts = Interrupts::watch();
    let ids = read_ids(&args.tokens)?;
    let opened = Opened::open(&args.bundle)?;
    let vocab = opened.bundle.manifest().model.vocab as usize;
    if let Some(id) = ids.iter().find(|id| id.value as usize >= vocab) {
        let what = format!("{}: token id {} isn't in the vocabulary of {vocab} tokens", id.place(&args.tokens), id.value);
        return Err(CliError::Usage(what));
    }
    let ids: Vec<u32> = ids.iter().map(|id| id.value).collect();
    if ids.len() > opened.ctx() {
        return Err(opened.too_long("the file has", ids.len()));
    }
    let failed = |error| CliError::Write { path: args.out.clone(), error };
    let mut npy = NpyWriter::create(&args.out, ids.len(), vocab).map_err(failed)?;
    let mut engine = opened.engine(&args.device, args.step)?;
    let interrupted = interrupts.listen();
    let bar = progress_bar(ids.len() as u64, "tokens", "{pos}/{len}");
    let start = Instant::now();
    for part in ids.chunks(engine.chunk()) {
        if interrupted.load(Ordering::Relaxed) {
            bar.finish_and_clear();
            murmur(format_args!("interrupted: {} was not written", args.out.display()));
            return Err(CliError::Interrupted);
        }
        let mut written = Ok(());
        engine.feed(part, Want::All, &mut |row| {
            if written.is_ok() {
                written = npy.row(row);
            }
        })?;
        written.map_err(failed)?;
        bar.inc(part.len() as u64);
    }
    npy.finish().map_err(failed)?;
    bar.finish_and_clear();
    let speed = rate(ids.len() as f64 / start.elapsed().as_secs_f64().max(1e-9));
    let line =
        format!("{} logits of {} tokens, {speed} tokens/s | {} | {}", vocab, ids.len(), engine.describe(), args.out.display());
    murmur(line);
    Ok(())
}

/// A token id and where it stands.
struct Id {
    value: u32,
    line: usize,
    word: usize,
}

impl Id {
    fn place(&self, path: &Path) -> String {
        format!("{}:{} (word {})", path.display(), self.line, self.word)
    }
}

fn read_ids(path: &Path) -> Result<Vec<Id>, CliError> {
    let text = std::fs::read_to_string(path).map_err(|error| CliError::Read { path: path.to_owned(), error })?;
    let mut ids = Vec::new();
    for (line, words) in (1..).zip(text.lines()) {
        for (word, text) in (1..).zip(words.split_whitespace()) {
            let id = Id { value: text.parse().unwrap_or(0), line, word };
            if text.parse::<u32>().is_err() {
                let what = format!("{}: `{}` isn't a token id", id.place(path), text.escape_default());
                return Err(CliError::Usage(format!("{what}\ngive non-negative integers separated by white space")));
            }
            ids.push(id);
        }
    }
    if ids.is_empty() {
        let what = format!("{} has no token ids\ngive non-negative integers separated by white space", path.display());
        return Err(CliError::Usage(what));
    }
    Ok(ids)
}
