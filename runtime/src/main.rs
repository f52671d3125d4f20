//! The `hipfire-run` command line.

use clap::Parser;
use hipfire_run::cli;
use std::process::ExitCode;

fn main() -> ExitCode {
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
