//! `hipfire-run verify`.

use crate::common::{altered, bundles, compile, compiled, hipfire, refused, text};
use hipc::bundle::WeightsMode;
use hipc_ir::dtype::Real;
use hipc_ir::fused::FusedOp;
use hipc_ir::plan::Plan;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const ONE: [&str; 7] = ["verify", "plan.bin", "--device", "cpu", "--launch", "1", "--no-chain"];

#[test]
fn a_report_says_what_was_shown_and_what_was_not() {
    let run = hipfire(ONE).args(["--report", "verified.md", "--seed", "7"]).output().unwrap();
    let (out, err) = text(&run);
    assert!(run.status.success() && err.is_empty(), "{out}{err}");
    assert!(!out.contains('\u{1b}'), "colours in a pipe: {out}");
    for part in ["decode", " pass", "not shown:", "1 of ", " launches compared"] {
        assert!(out.contains(part), "no {part:?} in\n{out}");
    }
    let report = std::fs::read_to_string(bundles().folder.path().join("verified.md")).unwrap();
    for part in [
        "**Passed.**",
        "## What was not",
        "BLAKE3",
        "Compiler: hipc",
        "Target: gfx1100",
        "Code object: none executed",
        "--seed 7",
        "--no-chain",
    ] {
        assert!(report.contains(part), "no {part:?} in\n{report}");
    }
}

#[test]
fn json_has_the_same() {
    let run = hipfire(ONE).arg("--json").output().unwrap();
    let (out, err) = text(&run);
    assert!(run.status.success() && err.is_empty(), "{out}{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((report["passes"].as_bool(), report["reproduce"].is_null()), (Some(true), true));
    let row = &report["rows"][0];
    assert_eq!((row["launch"].as_u64(), row["program"].as_str()), (Some(1), Some("decode")));
    assert!(row["cases"].as_u64() == row["planned"].as_u64() && row["failure"].is_null());
    assert_eq!(report["bundle_hash"].as_str().map(str::len), Some(64));
    assert!(report["not_shown"].as_array().is_some_and(|all| all.len() > 3));
}

#[test]
fn a_model_file_that_is_gone_is_replaced_by_random_weights() {
    let folder = tempfile::tempdir().unwrap();
    let (model, bundle) = (folder.path().join("model.gguf"), folder.path().join("plan.bin"));
    std::fs::copy(&bundles().model, &model).unwrap();
    compile(&model, &bundle, WeightsMode::Referenced);
    std::fs::remove_file(&model).unwrap();
    let bundle = bundle.display().to_string();
    let run = hipfire(["verify", &bundle, "--device", "cpu", "--launch", "2", "--no-chain"]).output().unwrap();
    let (out, err) = text(&run);
    assert!(run.status.success(), "{out}{err}");
    assert!(err.contains("verifying with random weights") && out.contains("The weights were random"), "{out}{err}");
}

/// Scores are multiplied by something else than they should be: attention is paid to what matters least.
fn rescaled(plan: &mut Plan) {
    for kernel in plan.kernels.values_mut() {
        if let FusedOp::Attend(op) = &mut kernel.op {
            op.scale = Real(op.scale.0 * -8.0);
        }
    }
}

/// The command failed with exit code 1; what its last line says fails in a shell as it did.
fn fails_again(run: &Output, parts: &[&str]) -> String {
    let (out, err) = text(run);
    assert_eq!(run.status.code(), Some(1), "{out}{err}");
    for part in parts {
        assert!(err.contains(part), "no {part:?} in\n{err}");
    }
    let again =
        err.lines().last().and_then(|line| line.trim().strip_prefix("reproduce with: ")).expect("a reproduction").to_owned();
    let programs = Path::new(env!("CARGO_BIN_EXE_hipfire-run")).parent().unwrap().display().to_string();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("sh");
    shell.args(["-c", &again]).env("PATH", path).current_dir(bundles().folder.path()).stdin(Stdio::null());
    let second = shell.output().unwrap();
    let (out, err) = text(&second);
    assert_eq!(second.status.code(), Some(1), "{again}\n{out}{err}");
    for part in parts {
        assert!(err.contains(part), "{again}: no {part:?} in\n{err}");
    }
    again
}

#[test]
fn a_wrong_plan_fails_with_a_line_that_fails_again() {
    altered("the model's plan.bin", rescaled);
    let args = ["verify", "the model's plan.bin", "--device", "cpu", "--layers", "1", "--rows", "16", "--seconds", "1"];
    let run = hipfire(args).args(["--report", "failed.md"]).output().unwrap();
    let again = fails_again(&run, &["every launch is right by itself, but whole steps aren't: decode: ", "the unfused graph"]);
    let expected = "hipfire-run verify \"the model's plan.bin\" --device cpu --seed 1 --rows 16 --layers 1 --seconds 1";
    assert_eq!(again, expected);
    let report = std::fs::read_to_string(bundles().folder.path().join("failed.md")).unwrap();
    for part in ["**Failed.**", "Reproduce with", &again, "**Wrong:** decode", "Nothing about the whole"] {
        assert!(report.contains(part), "no {part:?} in\n{report}");
    }
}

#[test]
fn steps_are_compared_launch_by_launch() {
    let run = hipfire(["verify", "plan.bin", "--device", "cpu", "--until", "4", "--json"]).output().unwrap();
    let (out, err) = text(&run);
    assert!(run.status.success() && err.is_empty(), "{out}{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    let until = &report["until"][0];
    assert_eq!((until["until"].as_u64(), until["first"].is_null(), until["share"].as_f64()), (Some(4), true, Some(0.0)));
    assert!(report["rows"].as_array().is_some_and(Vec::is_empty) && report["shown"].as_array().is_some_and(|s| s.len() == 1));
}

/// Machine code on the emulator: a right bundle passes and speaks, and of a wrong one the launch is named.
#[test]
fn an_emulated_device_works_from_the_command_line() {
    let attends = |plan: &Plan| {
        let mut all = plan.programs.iter().flat_map(|p| &p.launches);
        all.position(|l| matches!(plan.kernels[l.kernel].op, FusedOp::Attend(_))).unwrap().to_string()
    };
    let Some(plan) = compiled("emulated.bin", "gfx1100", |_| ()) else { return };
    let device = ["--device", "emu:gfx1100"];
    let launch = attends(&plan);
    let run = hipfire(["verify", "emulated.bin", "--launch", &launch, "--position", "33", "--report", "emulated.md"])
        .args(device)
        .output()
        .unwrap();
    let (out, err) = text(&run);
    assert!(run.status.success(), "{out}{err}");
    let report = std::fs::read_to_string(bundles().folder.path().join("emulated.md")).unwrap();
    for part in ["**Passed.**", "emu:gfx1100", "instructions decoded by", "Code object: BLAKE3 `", "The sanitizer watched"] {
        assert!(report.contains(part), "no {part:?} in\n{report}");
    }
    let run = hipfire(["emulated.bin", "--chat", "-p", crate::common::QUESTION, "-n", "1"]).args(device).output().unwrap();
    let (out, err) = text(&run);
    assert!(run.status.success(), "{out}{err}");
    assert!(!out.trim().is_empty() && crate::common::ANSWER.starts_with(out.trim()), "{out}{err}");
    let bench = ["bench", "emulated.bin", "-n", "1", "--prompt", "0", "--repeat", "1", "--span", "1", "--json"];
    let run = hipfire(bench).args(device).output().unwrap();
    let (out, err) = text(&run);
    let measured: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
    let emulated = &measured["decode"][0]["emulated"];
    // The head alone multiplies 512 values with each of its rows; a lane multiplies four at a time.
    let least = u64::from(plan.model.vocab) * 512 / 4;
    assert!(emulated["lane_instructions_per_token"].as_u64().is_some_and(|n| n > least), "{emulated}");
    assert!(emulated["lane_instructions_per_s"].as_f64().is_some_and(|n| n > 0.0), "{emulated}");
    drop(compiled("it's wrong.bin", "gfx1100", rescaled));
    let run = hipfire(["verify", "it's wrong.bin", "--launch", &launch]).args(device).output().unwrap();
    let again = fails_again(&run, &[&format!("launch {launch} (decode attn"), "Quantized"]);
    assert!(again.starts_with("hipfire-run verify \"it's wrong.bin\" --device emu:gfx1100"), "{again}");
    assert!(again.contains(&format!(" --launch {launch} --position ")), "{again}");
}

#[test]
fn what_is_not_there_is_refused() {
    refused(&["verify", "plan.bin", "--device", "cpu", "--until", "99999"], 2, &["there is no launch 99999"]);
    refused(&["verify", "plan.bin", "--device", "cpu", "--layer", "99"], 2, &["there is no layer 99", "from 0"]);
    refused(&["verify", "plan.bin", "--device", "cpu", "--launch", "99999"], 2, &["there is no launch 99999"]);
    refused(&["verify", "plan.bin", "--device", "cpu", "--position", "192"], 2, &["there is no position 192"]);
    refused(&["verify", "plan.bin", "--device", "cpu", "--sanitizer", "all"], 2, &["cpu has no sanitizer", "emu:ARCH"]);
    refused(&["verify", "nowhere.bin"], 2, &["there is no bundle nowhere.bin"]);
}
