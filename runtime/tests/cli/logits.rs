//! `hipfire-run logits`.

use crate::common::{bundles, hipfire, refused, text};
use std::fs;
use std::path::Path;
use std::process::Command;

const VOCAB: usize = 8192;

/// The rows of a NumPy file of f32.
fn rows(path: &Path) -> Vec<Vec<f32>> {
    let bytes = fs::read(path).unwrap();
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert_eq!(header % 64, 0);
    let values: Vec<f32> = bytes[header..].as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let rows: Vec<Vec<f32>> = values.chunks(VOCAB).map(<[f32]>::to_vec).collect();
    let shape = format!("'shape': ({}, {VOCAB})", rows.len());
    assert!(String::from_utf8_lossy(&bytes[..header]).contains(&shape));
    rows
}

fn nmse(a: &[Vec<f32>], b: &[Vec<f32>]) -> f64 {
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        a.iter().flatten().zip(b.iter().flatten()).map(|(&a, &b)| f(f64::from(a), f64::from(b))).sum()
    };
    sum(&|a, b| (a - b) * (a - b)) / sum(&|_, b| b * b)
}

#[test]
fn writes_a_row_for_every_token() {
    let folder = tempfile::tempdir().unwrap();
    let ids = folder.path().join("ids.txt");
    fs::write(&ids, "1 5 9\n 100 7\t8\n8191 12 13").unwrap();
    let run = |name: &str, args: &[&str]| {
        let out = folder.path().join(name);
        let mut command = hipfire(["logits", "plan.bin", "--tokens"]);
        let run = command.arg(&ids).arg("--out").arg(&out).args(args).output().unwrap();
        assert!(run.status.success() && run.stdout.is_empty(), "{}", text(&run).1);
        rows(&out)
    };
    let (whole, step, exact) = (run("a", &["--device", "cpu"]), run("b", &["--device", "cpu", "--step"]), run("c", &["--exact"]));
    assert_eq!((whole.len(), step.len(), exact.len()), (9, 9, 9));
    // Both programs compute the same; but rounding to int8 turns the least difference, in the order of a sum, into noise of its
    // own size. So they are as near to each other as to the exact logits; the first row shows that the arithmetic is one.
    let (noise, apart) = (nmse(&whole, &exact).max(nmse(&step, &exact)), nmse(&whole, &step));
    assert!(noise > 0.0 && noise < 1e-3 && apart < noise, "{noise:e} {apart:e}");
    assert!(nmse(&whole[..1], &step[..1]) < 1e-10, "{:e}", nmse(&whole[..1], &step[..1]));
    // Nothing but what was asked for is left.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
}

#[test]
fn bad_ids_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let ids = folder.path().join("ids.txt");
    let path = ids.to_str().unwrap();
    let out = folder.path().join("o.npy");
    let args = ["logits", "plan.bin", "--device", "cpu", "--tokens", path, "--out", out.to_str().unwrap()];
    let mut long = "7 ".repeat(crate::common::CTX as usize);
    long += "8";
    let cases: [(&str, &[&str]); 6] = [
        ("", &["has no token ids"]),
        (" \n\n", &["has no token ids"]),
        ("1 2\n3 x4 5", &[":2 (word 2): `x4` isn't a token id"]),
        ("1 -2", &[":1 (word 2): `-2` isn't a token id"]),
        ("1 2\n\n8192", &[":3 (word 1)", "token id 8192", "8192 tokens"]),
        (&long, &["has 193 tokens", "has 192", "--ctx"]),
    ];
    for (contents, parts) in cases {
        fs::write(&ids, contents).unwrap();
        refused(&args, 2, parts);
    }
    fs::write(&ids, [0xff, 0xfe]).unwrap();
    refused(&args, 2, &["ids.txt can't be read"]);
    assert!(!out.exists());
}

#[test]
fn unwritable_results_leave_nothing() {
    let ids = bundles().folder.path().join("one.txt");
    fs::write(&ids, "1").unwrap();
    let run = |out: &str, parts: &[&str]| {
        refused(&["logits", "plan.bin", "--device", "cpu", "--tokens", "one.txt", "--out", out], 3, parts)
    };
    run("/nonexistent/o.npy", &["/nonexistent/o.npy can't be written"]);
    run("/dev/null", &["/dev/null can't be written", "isn't a file"]);
    run("/proc/o.npy", &["/proc/o.npy can't be written"]);
}

/// A limit of the size of files, which the system tells by a signal: an error like that of a full disk.
#[test]
fn a_limit_of_file_sizes_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let ids = folder.path().join("ids");
    fs::write(&ids, "7 ".repeat(64)).unwrap();
    let limited = hipfire(["logits", "plan.bin", "--device", "cpu", "--tokens"]);
    let mut command = Command::new("sh");
    command.args(["-c", r#"ulimit -f 1024 && exec "$0" "$@""#]).arg(limited.get_program()).args(limited.get_args());
    let run =
        command.current_dir(bundles().folder.path()).arg(&ids).arg("--out").arg(folder.path().join("o.npy")).output().unwrap();
    let (_, err) = text(&run);
    assert_eq!(run.status.code(), Some(3), "{err}");
    assert!(err.contains("o.npy can't be written: File too large"), "{err}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
