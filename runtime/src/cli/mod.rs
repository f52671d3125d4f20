//! The commands of `hipfire-run`.

pub mod args;
mod bench;
mod chat;
mod doctor;
mod error;
mod interrupt;
mod logits;
mod measure;
mod open;
mod profile;
mod run;
mod style;
mod tune;
mod verify;
mod verify_report;

pub use error::CliError;

use args::{Cli, Command};
use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};

/// Runs a parsed command line.
///
/// # Errors
/// [`CliError`], whose [`CliError::exit_code`] the process ends with.
pub fn run(cli: &Cli) -> Result<(), CliError> {
    match &cli.command {
        Some(Command::Logits(args)) => logits::run(args),
        Some(Command::Bench(args)) => bench::run(args),
        Some(Command::Profile(args)) => profile::run(args),
        Some(Command::Tune(args)) => tune::run(args),
        Some(Command::Verify(args)) => verify::run(args),
        Some(Command::Doctor(args)) => doctor::run(args),
        None => run::run(&cli.run),
    }
}

/// Prints an error on standard error: the word, what is wrong, and below it what to do.
pub fn report(error: &CliError) {
    let text = error.to_string();
    let mut lines = text.lines();
    tell(format_args!("{} {}", style::paint(style::ERROR, "error:"), lines.next().unwrap_or_default()));
    for line in lines {
        tell(format_args!("  {}", line.trim_start()));
    }
}

/// A line for people who didn't ask for it: on standard error.
fn note(text: &str) {
    tell(format_args!("{} {text}", style::paint(style::NOTE, "note:")));
}

/// A line on standard error. Where nobody can read it, it is lost, and nothing else.
fn tell(text: impl Display) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Secondary text on standard error.
fn murmur(text: impl Display) {
    tell(style::paint(style::DIM, text));
}

fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

fn print(text: &str) -> Result<(), CliError> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(CliError::Output)
}

/// Whether the reader of a pipe has gone (`| head`), which is no failure of ours.
fn is_closed_pipe(error: &io::Error) -> bool {
    error.kind() == ErrorKind::BrokenPipe
}
