//! The `hipc` command line.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match hipc::cli::run(&hipc::cli::args::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            hipc::cli::report(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
