//! The plan checker on valid plans, and on plans that were damaged in every way we could think of.
//!
//! The judge is a machine that executes plans on symbols (`machine`). A damaged plan that `check` accepts must run there
//! without anything undefined; if `check_meaning` accepts it as well, it must leave equal logits, ids, caches and tokens.

mod choices;
#[path = "../common/mod.rs"]
mod common;
mod machine;
#[path = "../fusion/models.rs"]
#[allow(dead_code, reason = "shared with the tests of fusion, which use all of it")]
mod models;
mod mutators;
mod object;

use choices::Rng;
use hipc::check::{CheckError, check, check_meaning};
use hipc::fuse::{FuseOptions, fuse};
use hipc::layout::lay_out;
use hipc::schedule::{Request, schedule};
use hipc::target::Target;
use hipc::tuning::Tuning;
use hipc_ir::dtype::{DType, KvType};
use hipc_ir::fused::{FusedGraph, ProgramKind};
use hipc_ir::graph::{Graph, RopeStyle};
use hipc_ir::plan::{ModelInfo, Plan};
use models::{Dense, llama_8b};
use mutators::MUTATORS;
use std::collections::BTreeMap;

const CTX: u32 = 512;

/// A model, its fused programs and their plan.
struct Case {
    name: &'static str,
    graph: Graph,
    decode: FusedGraph,
    prompt: FusedGraph,
    plan: Plan,
}

impl Case {
    /// `without`: the rules that fusion goes without.
    fn new(name: &'static str, model: &Dense, kv: KvType, target: &str, without: &[&str]) -> Self {
        let target = Target::parse(target).unwrap();
        let graph = model.build();
        let options = FuseOptions { without: without.iter().map(|&s| s.to_owned()).collect(), ..FuseOptions::new(CTX, kv) };
        let fused = |kind| {
            let mut fused = fuse(&graph, kind, &options, target).unwrap().graph;
            lay_out(&mut fused, target);
            fused
        };
        let (decode, prompt) = (fused(ProgramKind::Decode), fused(ProgramKind::Prompt));
        let info =
            ModelInfo { name: name.into(), arch: "test".into(), layers: model.layers, vocab: model.vocab, ctx_train: 2048 };
        let programs = [(&decode, 1), (&prompt, 24)];
        let plan =
            schedule(&Request { graph: &graph, model: &info, ctx: CTX, kv, programs: &programs, target, tuning: &Tuning::NONE })
                .unwrap();
        Self { name, graph, decode, prompt, plan }
    }

    /// The same launches planned for another target.
    fn plan_for(&self, target: &Target) -> Plan {
        let programs = [(&self.decode, 1), (&self.prompt, 24)];
        let (model, kv) = (&self.plan.model, self.plan.kv);
        schedule(&Request { graph: &self.graph, model, ctx: CTX, kv, programs: &programs, target, tuning: &Tuning::NONE })
            .unwrap()
    }

    fn meaning(&self, plan: &Plan) -> Result<(), Vec<CheckError>> {
        check_meaning(plan, &self.graph, &[(&self.decode, 1), (&self.prompt, 24)])
    }
}

fn llama() -> Dense {
    Dense { layers: 2, embd: 256, ff: 768, heads: 8, kv_heads: 2, head_dim: 32, vocab: 323, ..llama_8b() }
}

/// q/k norm, and more values in the heads than in the residual stream.
fn qwen3() -> Dense {
    Dense { heads: 8, kv_heads: 4, head_dim: 64, style: RopeStyle::Neox, qk_norm: true, ..llama() }
}

/// Without these rules a norm, a rotation, an activation or an append is a launch of its own.
const UNFUSED: [&str; 13] = [
    "attend-append",
    "attend-rope",
    "attend-norm",
    "residual",
    "gemv-group",
    "gemv-act",
    "gemv-gated",
    "gemv-rope",
    "gemv-append",
    "heads-group",
    "row-gated",
    "head-partials",
    "gemv-deferred",
];

fn lines(faults: &[CheckError]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn valid_plans_pass() {
    let others = ["sm_90", "host"].map(|name| Target::parse(name).unwrap());
    let mut plans = 0;
    for (i, model) in [llama(), qwen3(), Dense { qkv_bias: true, style: RopeStyle::Neox, ..llama() }].into_iter().enumerate() {
        for dtype in [None, Some(DType::F16), Some(DType::Q8_0), Some(DType::Q4_0)] {
            let model = dtype.map_or(model.clone(), |d| model.clone().all(d));
            let kv = if i == 1 { KvType::F32 } else { KvType::F16 };
            let case = Case::new("valid", &model, kv, "gfx1100", &[]);
            for target in Target::all_amd().chain(others) {
                let plan = case.plan_for(target);
                assert_eq!(check(&plan, None).map_err(|e| lines(&e)), Ok(()), "{target} {i} {dtype:?}");
                assert_eq!(case.meaning(&plan).map_err(|e| lines(&e)), Ok(()), "{target} {i} {dtype:?}");
                plans += 1;
            }
        }
    }
    let large = Case::new("large", &llama_8b(), KvType::F16, "gfx1100", &[]);
    let start = std::time::Instant::now();
    assert_eq!(check(&large.plan, None).and_then(|()| large.meaning(&large.plan)).map_err(|e| lines(&e)), Ok(()));
    println!("{plans} valid plans pass, and Llama 8B's in {:?}", start.elapsed());
}

/// What became of damaged plans of one kind.
#[derive(Clone, Copy, Default)]
struct Count {
    /// Rejected by `check`.
    rejected: u32,
    /// Rejected by `check_meaning` only: well defined, but another computation.
    meaning: u32,
    /// Accepted, and proven equal by the machine.
    same: u32,
}

fn judge(case: &Case, expected: &machine::Outcome, damaged: &Plan, what: &str, count: &mut Count) {
    if let Err(faults) = check(damaged, None) {
        assert!(!faults.is_empty() && faults.iter().all(|f| !f.to_string().is_empty() && !f.to_string().contains('\n')));
        count.rejected += 1;
        return;
    }
    let outcome = machine::run(damaged).unwrap_or_else(|| panic!("{}: {what} is undefined, but passes", case.name));
    if case.meaning(damaged).is_err() {
        count.meaning += 1;
    } else if outcome == *expected {
        count.same += 1;
    } else {
        panic!("{}: {what} means something else, but passes", case.name);
    }
}

#[test]
fn damaged_plans_are_rejected_or_mean_the_same() {
    let cases = [
        Case::new("llama", &llama(), KvType::F16, "gfx1100", &[]),
        Case::new("qwen3", &qwen3(), KvType::F32, "gfx1030", &[]),
        Case::new("llama with biases, F16", &Dense { qkv_bias: true, ..llama().all(DType::F16) }, KvType::F16, "gfx942", &[]),
        Case::new("qwen3 unfused", &qwen3(), KvType::F16, "gfx1201", &UNFUSED),
    ];
    let mut counts: BTreeMap<&str, Count> = BTreeMap::new();
    for case in &cases {
        assert_eq!(check(&case.plan, None).map_err(|e| lines(&e)), Ok(()), "{}", case.name);
        let expected = machine::run(&case.plan).expect(case.name);
        for &(name, mutator) in MUTATORS {
            let seeds = if name == "any value" { 600 } else { 24 };
            for seed in 0..seeds {
                let mut damaged = case.plan.clone();
                mutator(&mut damaged, &Rng::new(seed));
                if damaged != case.plan {
                    judge(case, &expected, &damaged, &format!("`{name}` with seed {seed}"), counts.entry(name).or_default());
                }
            }
        }
    }
    println!("{:34}{:>9}{:>9}{:>9}", "damage", "rejected", "meaning", "same");
    let mut sum = Count::default();
    for (name, c) in &counts {
        println!("{name:34}{:9}{:9}{:9}", c.rejected, c.meaning, c.same);
        sum = Count { rejected: sum.rejected + c.rejected, meaning: sum.meaning + c.meaning, same: sum.same + c.same };
    }
    println!("{:34}{:9}{:9}{:9}", format!("{} kinds", counts.len()), sum.rejected, sum.meaning, sum.same);
    assert_eq!(counts.len(), MUTATORS.len(), "every kind damages something");
}
