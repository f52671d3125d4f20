//! `hipc explain`: what was fused, what wasn't, and what either saves or costs.

use super::args::Explain;
use super::style::{DIM, HEAD, say};
use super::{CliError, open};
use crate::fuse::{FuseOptions, fuse};
use crate::pipeline::{CompileError, PROMPT_CHUNK};
use crate::target::Target;
use hipc_ir::fused::ProgramKind;

pub fn run(args: &Explain) -> Result<(), CliError> {
    let target = Target::parse(&args.arch)?;
    let (model, options) = open(&args.model)?;
    let ctx = options.ctx_for(&model);
    let request = FuseOptions { explain: true, chunk: PROMPT_CHUNK.min(ctx), ..FuseOptions::new(ctx, options.kv) };
    let request = FuseOptions { tuning: options.tuning, ..request };
    let report = |kind| fuse(&model.graph, kind, &request, target).map(|fused| fused.report).map_err(CompileError::Fuse);
    let reports = [report(ProgramKind::Decode)?, report(ProgramKind::Prompt)?];
    if args.json {
        say!("{}", serde_json::to_string_pretty(&reports).map_err(|e| CliError::Usage(e.to_string()))?);
        return Ok(());
    }
    say!("{}{} for {}{}", HEAD.render(), model.name, target.name, HEAD.render_reset());
    say!("{}times are the cost model's predictions for a {}{}\n", DIM.render(), target.reference_card().name, DIM.render_reset());
    for report in reports {
        say!("{report}");
    }
    Ok(())
}
