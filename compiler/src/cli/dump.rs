//! `hipc dump`: any stage as text.

use super::args::{Dump, Phase, ProgramArg};
use super::{CliError, compile_options, open, toolchain};
use crate::pipeline;
use crate::target::Target;
use crate::toolchain::Emit;
use hipc_ir::form::KernelList;
use std::io::Write;

pub fn run(args: &Dump) -> Result<(), CliError> {
    let target = Target::parse(&args.arch)?;
    let (model, options) = open(&args.model)?;
    if args.phase == Phase::Graph {
        return print(&model.graph.to_string());
    }
    let planned = pipeline::plan(&model, target, &options)?;
    let compiled = |emit| {
        let (unit, options) = (pipeline::unit_source(&planned), compile_options(args.backend));
        let bytes = toolchain().compile(&unit, target, emit, &options)?.bytes;
        Ok::<_, CliError>(String::from_utf8_lossy(&bytes).into_owned())
    };
    match args.phase {
        Phase::Graph => Ok(()),
        Phase::Fused if args.program == ProgramArg::Decode => print(&planned.decode.graph.to_string()),
        Phase::Fused => print(&planned.prompt.graph.to_string()),
        Phase::Kernels => print(&KernelList(planned.plan.kernels.clone()).to_string()),
        Phase::Plan => print(&planned.plan.to_string()),
        Phase::Hip => print(&planned.unit),
        Phase::LlvmIr => print(&compiled(Emit::LlvmIr)?),
        Phase::Asm => print(&compiled(Emit::Asm)?),
    }
}

/// A reader that closes the pipe early (`| head`) is no error.
fn print(text: &str) -> Result<(), CliError> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CliError::Write { path: "standard output".into(), error })
        }
        _ => Ok(()),
    }
}
