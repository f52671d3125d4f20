//! The binary `hipc` as a person meets it: exit codes, messages, nothing half-written.

use hipc_tests::gguf_writer::write_llama_8b;
use hipc_tests::shared::demo_model;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn hipc(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hipc"));
    command.args(args).stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    hipc(args).output().expect("hipc starts")
}

fn demo() -> String {
    demo_model().to_str().expect("a path in UTF-8").to_owned()
}

#[track_caller]
fn fails(output: &Output, code: i32, says: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.starts_with("error: "), "{stderr}");
    for word in says {
        assert!(stderr.contains(word), "no `{word}` in: {stderr}");
    }
    assert!(!stderr.contains('\u{1b}'), "colours in a pipe: {stderr:?}");
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn compiles_inspects_and_extracts() {
    let folder = tempfile::tempdir().expect("a folder");
    let (plan, out) = (folder.path().join("plan.bin"), folder.path().join("out"));
    let (plan, out) = (plan.to_str().expect("UTF-8"), out.to_str().expect("UTF-8"));
    let done = run(&["compile", &demo(), "--arch", "gfx1100,gfx90a", "-o", plan, "--json"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let summary: Value = serde_json::from_slice(&done.stdout).expect("one JSON object");
    assert_eq!(summary["archs"][1]["name"], "gfx90a");

    let seen = run(&["inspect", plan, "--json", "--extract", out]);
    assert!(seen.status.success(), "{}", String::from_utf8_lossy(&seen.stderr));
    let report: Value = serde_json::from_slice(&seen.stdout).expect("one JSON object");
    assert_eq!(report["launches_per_layer"], 5);
    for arch in report["archs"].as_array().expect("a list") {
        for kernel in arch["kernels"].as_array().expect("a list") {
            for field in ["scratch", "vgpr_spills", "sgpr_spills"] {
                assert_eq!(kernel[field], 0, "{} of {kernel}", field);
            }
            assert!(kernel["occupancy"].as_u64() > Some(0), "{kernel}");
        }
    }
    let memory = report["memory"].as_array().expect("a list");
    assert!(memory.iter().any(|row| row["context"] == report["context"]), "{memory:?}");
    assert!(memory.windows(2).all(|w| w[0]["bytes"].as_u64() < w[1]["bytes"].as_u64()), "{memory:?}");
    let files = names(Path::new(out));
    for name in ["gfx1100.hsaco", "gfx1100.hip", "gfx1100.plan", "gfx90a.hsaco"] {
        assert!(files.iter().any(|f| f == name), "no {name} in {files:?}");
    }
    let text = std::fs::read_to_string(Path::new(out).join("gfx1100.plan")).expect("a plan");
    text.parse::<hipc_ir::plan::Plan>().expect("a plan that parses back");
}

#[test]
fn two_compiles_give_the_same_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let paths = ["a.bin", "b.bin"].map(|name| folder.path().join(name));
    for path in &paths {
        let done = hipc(&["compile", &demo(), "--arch", "gfx1030", "-q", "-o"])
            .arg(path)
            .env("HIPC_CACHE", "off")
            .output()
            .expect("hipc");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let [a, b] = paths.map(|p| std::fs::read(p).expect("a bundle"));
    assert!(a == b, "bundles of the same input differ");
}

#[test]
fn dump_prints_every_phase() {
    for phase in ["graph", "fused", "kernels", "plan", "hip", "llvm-ir", "asm"] {
        let done = run(&["dump", &demo(), "--arch", "gfx1100", "--phase", phase]);
        assert!(done.status.success(), "{phase}: {}", String::from_utf8_lossy(&done.stderr));
        assert!(done.stdout.len() > 1000, "{phase} prints {} bytes", done.stdout.len());
    }
}

/// By the command that stands in the source, as a person would copy it.
#[test]
fn a_plain_hipcc_takes_what_is_emitted() {
    let folder = tempfile::tempdir().expect("a folder");
    let (plan, out) = (folder.path().join("plan.bin"), folder.path().join("out"));
    let [plan, sources] = [&plan, &out].map(|path| path.to_str().expect("UTF-8"));
    let done = run(&["compile", &demo(), "--arch", "gfx1030", "-q", "-o", plan, "--emit", "hip", sources]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let unit = std::fs::read_to_string(out.join("gfx1030.hip")).expect("the unit");
    let command = unit.lines().find_map(|line| line.strip_prefix("// hipcc ")).expect("a command");
    if Command::new("hipcc").arg("--version").output().is_err() {
        return println!("skipped: no hipcc");
    }
    let done = Command::new("hipcc").args(command.split(' ')).current_dir(&out).output().expect("hipcc starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let code = std::fs::read(out.join("gfx1030.hsaco")).expect("what the command says it writes");
    // hipcc of ROCm 5 bundles the code object.
    for kernel in unit.lines().filter_map(|line| line.strip_prefix("// k")?.split(' ').next()) {
        let name = format!("k{kernel}.kd");
        assert!(code.windows(name.len()).any(|w| w == name.as_bytes()), "no {name}");
    }
}

#[test]
fn wrong_requests_exit_with_2() {
    fails(&run(&["compile", &demo(), "--arch", "gfx1099"]), 2, &["gfx1099", "gfx1100", "gfx1201"]);
    fails(&run(&["compile", "/nonexistent.gguf", "--arch", "gfx1100"]), 2, &["/nonexistent.gguf"]);
    fails(&run(&["inspect", &demo()]), 2, &["not a bundle", "hipc compile"]);
    fails(&run(&["inspect", "/nonexistent.bin"]), 2, &["/nonexistent.bin"]);
    fails(&run(&["compile", &demo(), "--arch", "gfx1100", "--emit", "spirv", "/tmp"]), 2, &["spirv", "llvm-ir"]);
    assert_eq!(run(&["compile"]).status.code(), Some(2));
}

#[test]
fn a_missing_clang_names_the_packages() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = hipc(&["compile", &demo(), "--arch", "gfx1100", "-o"]);
    command.arg(folder.path().join("plan.bin")).env("PATH", folder.path()).env("HIPC_CACHE", "off").env_remove("HIPC_CLANG");
    let done = command.output().expect("hipc starts");
    // A ROCm installation has a clang of its own outside of PATH.
    if !Path::new("/opt/rocm/llvm/bin/clang").exists() {
        fails(&done, 3, &["clang", "lld", "apt"]);
    }
    assert!(names(folder.path()).is_empty());
}

#[test]
fn an_unwritable_output_leaves_nothing() {
    let done = run(&["compile", &demo(), "--arch", "gfx1100", "-q", "-o", "/nonexistent/folder/plan.bin"]);
    fails(&done, 3, &["/nonexistent/folder/plan.bin"]);
    let folder = tempfile::tempdir().expect("a folder");
    let done = run(&["compile", &demo(), "--arch", "gfx1100", "-q", "-o", folder.path().to_str().expect("UTF-8")]);
    fails(&done, 2, &["not a regular file"]);
    assert!(names(folder.path()).is_empty());
}

/// A file system of 64 KiB, smaller than any bundle. Needs the right to mount one.
#[test]
fn a_full_disk_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(folder.path()).output();
    if !mounted.is_ok_and(|m| m.status.success()) {
        println!("skipped: no right to mount a small file system");
        return;
    }
    let done = hipc(&["compile", &demo(), "--arch", "gfx1100", "-q", "-o"]).arg(folder.path().join("plan.bin")).output();
    let left = names(folder.path());
    Command::new("umount").arg(folder.path()).status().expect("umount");
    fails(&done.expect("hipc starts"), 3, &["plan.bin", "space"]);
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn ctrl_c_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = hipc(&["compile", &demo(), "--arch", "all", "-q", "-o"])
        .arg(folder.path().join("plan.bin"))
        .env("HIPC_CACHE", "off")
        .stderr(Stdio::piped())
        .spawn()
        .expect("hipc starts");
    std::thread::sleep(Duration::from_millis(700));
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(sent.success());
    let start = Instant::now();
    let status = child.wait().expect("hipc ends");
    assert_eq!(status.code(), Some(130));
    assert!(start.elapsed() < Duration::from_secs(5), "it took {:?} to end", start.elapsed());
    assert!(names(folder.path()).is_empty());
}

/// Compile time and memory must not depend on the size of the weights: an 8B model's header, without its data.
#[test]
fn an_8b_header_compiles_for_all_archs_in_little_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = folder.path().join("llama-8b.gguf");
    write_llama_8b(&model).expect("a sparse file");
    let start = Instant::now();
    let mut child = hipc(&["compile"])
        .arg(&model)
        .args(["--arch", "all", "-q", "-o"])
        .arg(folder.path().join("plan.bin"))
        .env("HIPC_CACHE", "off")
        .spawn()
        .expect("hipc starts");
    let mut peak = 0;
    let status = loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        peak = peak.max(line.and_then(|l| l.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()).unwrap_or(0));
        match child.try_wait().expect("a child") {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    println!("all architectures in {:.1} s, {} MiB in hipc itself", start.elapsed().as_secs_f64(), peak >> 10);
    assert!(status.success());
    assert!(peak << 10 < 300_000_000, "{} MiB", peak >> 10);
}
