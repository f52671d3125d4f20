//! `bench/compare.py`, by its own tests, on the CPU.

use crate::common::bundles;
use std::path::Path;
use std::process::Command;

#[test]
fn the_comparison_with_llama_cpp_works() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: there is no python3");
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench");
    let bundles = bundles();
    let mut command = Command::new("python3");
    command.args(["-B", "-m", "unittest", "test_compare"]).current_dir(folder);
    command.env("HIPFIRE_RUN", env!("CARGO_BIN_EXE_hipfire-run"));
    command.env("HIPFIRE_PLAN", &bundles.plain).env("HIPFIRE_MODEL", &bundles.model);
    let run = command.output().unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    // unittest says on standard error what it did.
    assert!(run.status.success() && said.contains("OK") && !said.contains("skipped"), "{said}");
}
