//! `hipfire-run verify`.

use crate::common::{bundles, compile, hipfire, refused, text};
use hipc::bundle::WeightsMode;
use serde_json::Value;

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
    for part in ["**Passed.**", "## What was not", "BLAKE3", "Compiler: hipc", "Target: gfx1100", "--seed 7", "--no-chain"] {
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

#[test]
fn what_is_not_there_is_refused() {
    refused(&["verify", "plan.bin", "--device", "cpu", "--launch", "99999"], 2, &["there is no launch 99999"]);
    refused(&["verify", "plan.bin", "--device", "cpu", "--position", "192"], 2, &["there is no position 192"]);
    refused(&["verify", "plan.bin", "--device", "cpu", "--sanitizer", "all"], 2, &["cpu has no sanitizer", "emu:ARCH"]);
    refused(&["verify", "nowhere.bin"], 2, &["there is no bundle nowhere.bin"]);
}
