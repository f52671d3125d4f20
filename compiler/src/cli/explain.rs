//! `hipc explain`: what was fused, what wasn't, and what either saves or costs.

use super::args::Explain;
use super::style::{self, DIM, HEAD, say};
use super::{CliError, open};
use crate::fuse::{FuseOptions, fuse};
use crate::pipeline::{self, CompileError, PROMPT_CHUNK};
use crate::target::Target;
use hipc_ir::fused::ProgramKind;

pub fn run(args: &Explain) -> Result<(), CliError> {
    let target = Target::parse(&args.arch)?;
    let (model, options) = open(&args.model)?;
    let ctx = options.ctx_for(&model);
    let request = FuseOptions { explain: true, chunk: PROMPT_CHUNK.min(ctx), ..FuseOptions::new(ctx, options.kv) };
    let request = FuseOptions { tuning: options.tuning.clone(), ..request };
    let report = |kind| fuse(&model.graph, kind, &request, target).map(|fused| fused.report).map_err(CompileError::Fuse);
    let reports = [report(ProgramKind::Decode)?, report(ProgramKind::Prompt)?];
    if args.json {
        say!("{}", serde_json::to_string_pretty(&reports).map_err(|e| CliError::Usage(e.to_string()))?);
        return Ok(());
    }
    let plan = pipeline::plan(&model, target, &options)?.plan;
    let selected = |kind| plan.program(kind).map_or(0, |p| p.launches.iter().map(|l| l.cost.ns).sum::<u64>());
    let micros = |kind| style::micros(selected(kind) as f64);
    say!("{}{} for {}{}", HEAD.render(), model.name, target.name, HEAD.render_reset());
    say!(
        "{}times are the cost model's predictions for a {}, of matrix products in the best geometry that there could be:\n\
         fusions are compared before geometries are selected. In those that are, as hipc inspect shows, the decode program takes\n\
         {} µs, the prompt program {} µs{}\n",
        DIM.render(),
        target.reference_card().name,
        micros(ProgramKind::Decode),
        micros(ProgramKind::Prompt),
        DIM.render_reset()
    );
    for report in reports {
        say!("{report}");
    }
    Ok(())
}
