//! `hipfire-run bench` and `profile`.

use crate::common::{bundles, compile, hipfire, refused, text};
use hipc::bundle::WeightsMode;
use serde_json::Value;
use std::path::Path;

const QUICK: [&str; 6] = ["--device", "cpu", "--repeat", "3", "--span", "8"];

fn json(args: &[&str]) -> Value {
    let run = hipfire(args.iter().copied()).args(QUICK).arg("--json").output().unwrap();
    let (out, err) = text(&run);
    assert!(run.status.success() && err.is_empty(), "{args:?}\n{err}");
    serde_json::from_str(&out).unwrap()
}

fn number(of: &Value, path: &str) -> f64 {
    of.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no number {path} in {of:#}"))
}

/// Median, least and most of a figure that was measured so often.
fn spread(of: &Value, path: &str, count: f64) -> f64 {
    let [median, min, max, n] = ["median", "min", "max", "count"].map(|f| number(of, &format!("{path}/{f}")));
    assert!(0.0 < min && min <= median && median <= max && n == count, "{path} of {of:#}");
    median
}

fn near(a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-6 * b.abs(), "{a} {b}");
}

#[test]
fn bench_reports_what_it_measured() {
    let report = json(&["bench", "plan.bin", "-n", "4", "--depth", "0,100", "--prompt", "70"]);
    for field in ["bundle", "device", "arch", "weights", "model", "provenance", "hipfire_run"] {
        assert!(!report[field].is_null(), "{field}");
    }
    assert_eq!((report["weights"].as_str(), report["arch"].as_str()), (Some("file"), Some("gfx1100")));
    assert!(number(&report, "/load/seconds") > 0.0);
    // By the plan: five launches for each of the layers, the embedding, the head and the choice.
    let layers = number(&report, "/model/layers");
    assert_eq!(number(&report, "/launches_per_layer"), 5.0);
    let launches = number(&report, "/launches_per_token");
    assert!(launches >= 5.0 * layers + 2.0 && launches <= 5.0 * layers + 4.0, "{launches}");
    assert!(number(&report, "/memory/difference_percent").abs() < 2.0);
    near(
        number(&report, "/memory/allocated") / number(&report, "/memory/planned"),
        1.0 + number(&report, "/memory/difference_percent") / 100.0,
    );
    let bandwidth = spread(&report, "/bandwidth/gb_per_s", 3.0);
    assert_eq!(number(&report, "/bandwidth/bytes"), f64::from(8 << 20));
    near(spread(&report, "/prompt/tokens_per_s", 3.0) * number(&report, "/prompt/seconds/median"), 70.0);
    let decode = report["decode"].as_array().unwrap();
    assert_eq!(decode.iter().map(|d| number(d, "/depth")).collect::<Vec<_>>(), [0.0, 100.0]);
    for d in decode {
        let seconds = spread(d, "/seconds", 3.0);
        let rate = spread(d, "/tokens_per_s", 3.0);
        near(rate * seconds, 4.0);
        near(number(d, "/gb_per_s"), number(d, "/bytes_per_token") * 4.0 / seconds / 1e9);
        near(number(d, "/share_of_bandwidth"), number(d, "/gb_per_s") / bandwidth);
    }
    // A hundred positions more: K and V of every layer, 4 heads of 64 values in f16.
    let more = number(&decode[1], "/bytes_per_token") - number(&decode[0], "/bytes_per_token");
    assert_eq!(more, 100.0 * layers * 2.0 * 4.0 * 64.0 * 2.0);
}

#[test]
fn bench_for_people() {
    let run = hipfire(["bench", "embedded.bin", "-n", "2", "--prompt", "0", "--sampling", "default", "--no-graph"])
        .args(QUICK)
        .output();
    let (out, err) = text(&run.unwrap());
    assert!(err.is_empty(), "{err}");
    for part in ["weights from the bundle", "reads of 8.00 MiB", "planned", "per layer", "tokens/s", "of reads"] {
        assert!(out.contains(part), "no {part:?} in\n{out}");
    }
    assert!(!out.contains("prompt of"), "{out}");
}

#[test]
fn a_profile_adds_up() {
    let report = json(&["profile", "plan.bin", "--depth", "20"]);
    let kernels = report["kernels"].as_array().unwrap();
    let (step, bandwidth) = (spread(&report, "/step_us", 3.0), spread(&report, "/bandwidth/gb_per_s", 3.0));
    let sum = |f: &dyn Fn(&Value) -> f64| kernels.iter().map(f).sum::<f64>();
    assert_eq!(sum(&|k| number(k, "/launches")), number(&report, "/launches"));
    near(sum(&|k| number(k, "/launches") * number(k, "/us/median")), number(&report, "/sum_us"));
    near(number(&report, "/sum_us") / step, number(&report, "/sum_over_step"));
    near(sum(&|k| number(k, "/share_of_step")), number(&report, "/sum_over_step"));
    near(sum(&|k| number(k, "/launches") * number(k, "/predicted_us")), number(&report, "/predicted_us"));
    for k in kernels {
        let us = spread(k, "/us", 3.0);
        near(number(k, "/gb_per_s"), number(k, "/bytes") / us / 1e3);
        near(number(k, "/share_of_bandwidth"), number(k, "/gb_per_s") / bandwidth);
        near(number(k, "/error_percent") / 100.0 + 1.0, number(k, "/predicted_us") / us);
        assert!(k["shape"].as_str().is_some_and(|s| !s.is_empty()) && k["geometry"].as_str().is_some_and(|g| g.contains(" x ")));
    }
    let bench = json(&["bench", "plan.bin", "-n", "2", "--depth", "20", "--prompt", "0"]);
    let bytes = sum(&|k| number(k, "/launches") * number(k, "/bytes"));
    let at_middle = number(&bench, "/decode/0/bytes_per_token");
    assert!((bytes / at_middle - 1.0).abs() < 0.001, "{bytes} {at_middle}");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    refused(&["bench", "plan.bin", "--device", "cpu", "--depth", "0,100"], 2, &["228 tokens", "192", "--ctx"]);
    refused(&["bench", "plan.bin", "--device", "cpu", "-n", "8", "--prompt", "193"], 2, &["193 tokens", "192"]);
    refused(&["profile", "plan.bin", "--device", "cpu", "--depth", "192"], 2, &["193 tokens"]);
    refused(&["profile", "nowhere.bin"], 2, &["there is no bundle nowhere.bin"]);
    refused(&["bench", "plan.bin", "--device", "host"], 2, &["no code for host"]);
    refused(&["bench", "plan.bin", "--synthetic", "--model", "model.gguf"], 2, &["cannot be used with"]);
}

#[test]
fn without_the_model_file_weights_are_made_if_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (model, plan) = (folder.path().join("gone.gguf"), folder.path().join("plan.bin"));
    std::fs::copy(&bundles().model, &model).unwrap();
    compile(&model, &plan, WeightsMode::Referenced);
    std::fs::remove_file(&model).unwrap();
    let path = Path::new(&plan).to_str().unwrap();
    refused(&["bench", path, "--device", "cpu"], 2, &["gone.gguf", "--synthetic"]);
    let report = json(&["bench", path, "--synthetic", "-n", "2", "--prompt", "8", "--sampling", "default"]);
    assert_eq!(report["weights"].as_str(), Some("synthetic"));
    spread(&report, "/decode/0/tokens_per_s", 3.0);
    let report = json(&["profile", path, "--synthetic", "--seed", "5"]);
    assert!(number(&report, "/step_us/median") > 0.0);
}
