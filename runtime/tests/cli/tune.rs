//! `hipfire-run tune` on the device `host`, from a bundle with trials to a file that the compiler takes.

use super::common::{bundles, hipfire, refused, text};
use hipc::bundle::{BundleRequest, WeightsMode, write};
use hipc::emit::emit_unit;
use hipc::pipeline::{Built, Options, code_form, plan};
use hipc::target::Target;
use hipc::toolchain::{CompileOptions, Toolchain, UnitSource};
use hipc::trials::{Tried, compile_one, trials};
use hipc::tuning::{Tuning, tuned_kernels};
use hipc_ir::PrimaryMap;
use hipc_ir::fused::{Combine, FusedOp, Tail};
use hipc_ir::graph::Act;
use hipc_ir::plan::KernelSpec;
use hipc_ir::tuning::{Trial, TuningFile};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

const CTX: u32 = 96;

fn options() -> Options {
    Options { ctx: Some(CTX), ..Options::default() }
}

fn host() -> &'static Target {
    Target::parse("host").unwrap()
}

/// Few candidates each of the output projection and of attention: the host is slow.
fn few() -> Vec<Trial> {
    let model = hipc_models::load(&bundles().model).unwrap();
    let planned = plan(&model, host(), &options()).unwrap();
    let mut all = trials(&planned.plan, host()).unwrap();
    all.retain(|t| ["o", "attn"].contains(&t.label.as_str()));
    assert_eq!(all.iter().map(|t| t.label.as_str()).collect::<Vec<_>>(), ["attn", "o"]);
    assert!(all.iter().all(|t| t.launches == 7 && t.candidates.len() > 3), "{all:?}");
    all.iter_mut().for_each(|t| t.candidates.truncate(3));
    all
}

/// A bundle for the host that has these trials, and a plan that can't run.
fn bundle(name: &str, trials: Vec<Tried>) -> PathBuf {
    let path = bundles().folder.path().join(name);
    let model = hipc_models::load(&bundles().model).unwrap();
    let planned = plan(&model, host(), &options()).unwrap();
    let built = Built { trials, ..Built::uncompiled(host(), planned, b"none".to_vec()) };
    let (options, interrupted) = (options(), AtomicBool::new(false));
    let (weights, built) = (WeightsMode::Referenced, [built]);
    write(&path, &BundleRequest { model: &model, built: &built, options: &options, weights, interrupted: &interrupted }).unwrap();
    path
}

#[test]
fn measures_and_the_compiler_takes_the_file() {
    let (toolchain, compile) = (Toolchain::from_env(), CompileOptions::default());
    let tried: Vec<Tried> = few().into_iter().map(|t| compile_one("test", t, host(), &toolchain, &compile).unwrap()).collect();
    bundle("tune.bin", tried.clone());
    let run = hipfire(["tune", "tune.bin", "--device", "host", "-o", "host.tune", "--json"]).output().unwrap();
    let (out, err) = text(&run);
    assert!(run.status.success(), "{err}");
    assert!(err.contains("--tune host.tune"), "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    let launches = report["launches"].as_array().unwrap();
    assert_eq!(launches.iter().map(|l| l["label"].as_str().unwrap()).collect::<Vec<_>>(), ["attn", "o"]);
    for (launch, tried) in launches.iter().zip(&tried) {
        let candidates = launch["candidates"].as_array().unwrap();
        assert_eq!(candidates.len(), tried.trial.candidates.len());
        assert!(candidates.iter().all(|c| c["ns"].as_f64().unwrap() > 0.0), "{launch}");
    }
    assert_eq!(launches[0]["positions"], serde_json::json!([64, 95]));

    let path = bundles().folder.path().join("host.tune");
    let file: TuningFile = std::fs::read_to_string(&path).unwrap().parse().unwrap();
    assert_eq!(file.made.device, "host (x86-64, in process)");
    assert_eq!(file.entries.iter().map(|e| &e.op).collect::<Vec<_>>(), tried.iter().map(|t| &t.trial.op).collect::<Vec<_>>());
    let model = hipc_models::load(&bundles().model).unwrap();
    let tuned = Options { tuning: Tuning::read(&[&path]).unwrap(), ..options() };
    let planned = plan(&model, host(), &tuned).unwrap().plan;
    assert_eq!(tuned.tuning.unused(&[&planned]).len(), 0);
    assert_eq!(tuned_kernels(&planned, &[file]).len(), 2);

    // Only what is asked for, as a table.
    let run = hipfire(["tune", "tune.bin", "--device", "host", "--launches", "o"]).output().unwrap();
    let (out, err) = text(&run);
    assert!(run.status.success() && out.contains("\no ") && !out.contains("attn"), "{out}{err}");
    refused(&["tune", "tune.bin", "--device", "host", "--launches", "o,head"], 2, &["`head`", "attn, o"]);
}

#[test]
fn a_geometry_that_computes_something_else_is_found() {
    let trial = few().pop().unwrap();
    let wrong = |op: &FusedOp| {
        let FusedOp::Gemv(mut gemv) = op.clone() else { panic!("a GEMV") };
        let Tail::Vector { combine, .. } = &mut gemv.tail else { panic!("a vector") };
        *combine = Combine::Act(Act::Silu);
        FusedOp::Gemv(gemv)
    };
    let mut kernels: PrimaryMap<_, KernelSpec> = trial.kernels().collect();
    let last = kernels.last().unwrap().0;
    kernels[last].op = wrong(&trial.op);
    let source = emit_unit("test", host(), &kernels);
    let unit = UnitSource { name: "trial", source: &source, headers: hipc_templates::HEADERS };
    let code = Toolchain::from_env().compile(&unit, host(), code_form(host()), &CompileOptions::default()).unwrap().bytes;
    bundle("wrong.bin", vec![Tried { trial, code }]);
    let run = hipfire(["tune", "wrong.bin", "--device", "host", "-o", "wrong.tune"]).output().unwrap();
    let (_, err) = text(&run);
    assert_eq!(run.status.code(), Some(1), "{err}");
    assert!(err.contains("`o` computes something else") && err.contains("Raw has noise"), "{err}");
    assert!(!bundles().folder.path().join("wrong.tune").exists());
}

#[test]
fn says_what_is_missing() {
    bundle("plain-host.bin", Vec::new());
    refused(&["tune", "plain-host.bin", "--device", "host"], 2, &["nothing to measure for host", "--alternatives"]);
    refused(&["tune", "plan.bin", "--device", "cpu"], 2, &["the CPU has no geometries", "--device hip:0"]);
}
