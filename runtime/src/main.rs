//! The `hipfire-run` command line.

use clap::Parser;
use hipfire_run::cli;
use signal_hook::consts::SIGXFSZ;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

fn main() -> ExitCode {
    // A file that reaches the limit of its size (`ulimit -f`) is then a failed write, like one on a full disk; without a handler the
    // signal would end the process and leave temporary files behind.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)));
    match cli::run(&cli::args::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is_silent() {
                cli::report(&error);
            }
            ExitCode::from(error.exit_code())
        }
    }
}
