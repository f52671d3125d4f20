//! Generation, refusals, doctor.

use crate::common::{ANSWER, CTX, QUESTION, bundles, hipfire, refused, text};
use serde_json::Value;
use std::fs::{self, File};
use std::path::Path;

#[test]
fn answers_a_question() {
    let run = hipfire(["plan.bin", "--chat", "-p", QUESTION, "--device", "cpu"]).output().unwrap();
    let (out, err) = text(&run);
    assert_eq!(out, format!("{ANSWER}\n"), "{err}");
    assert_eq!(run.status.code(), Some(0));
    // A pipe gets the closing line, no colours and no bar.
    assert!(err.lines().count() == 1 && err.contains("tokens/s | cpu") && !err.contains('\x1b'), "{err}");
}

#[test]
fn reads_the_question_from_a_pipe_and_writes_json() {
    let question = bundles().folder.path().join("question.txt");
    fs::write(&question, format!("{QUESTION}\n")).unwrap();
    for prompt in [&["-p", "-"][..], &[]] {
        let mut command = hipfire(["plan.bin", "--chat", "--json", "--device", "cpu"]);
        let run = command.args(prompt).stdin(File::open(&question).unwrap()).output().unwrap();
        let (out, err) = text(&run);
        let json: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
        assert_eq!((&json["text"], &json["ended"], err.as_str()), (&ANSWER.into(), &"end_of_turn".into(), ""));
        assert_eq!(json["ids"].as_array().unwrap().len() as u64, json["generation"]["tokens"].as_u64().unwrap());
        for part in ["prompt", "generation"] {
            assert!(json[part]["tokens"].as_u64() > Some(5) && json[part]["tokens_per_second"].as_f64() > Some(0.1), "{out}");
        }
        assert!(json["device"].as_str().unwrap().starts_with("cpu") && json["context"] == CTX, "{out}");
    }
}

#[test]
fn stops_where_it_is_told() {
    let run = |args: &[&str]| {
        let mut command = hipfire(["plan.bin", "--chat", "-p", QUESTION, "--device", "cpu", "--json"]);
        let (out, err) = text(&command.args(args).output().unwrap());
        serde_json::from_str::<Value>(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"))
    };
    let json = run(&["--stop", "vector"]);
    assert_eq!((&json["text"], &json["ended"]), (&ANSWER.split("vector").next().into(), &"stop_string".into()));
    let json = run(&["-n", "3"]);
    assert_eq!((json["ids"].as_array().unwrap().len(), &json["ended"]), (3, &"length".into()));
    assert!(ANSWER.starts_with(json["text"].as_str().unwrap()));
}

#[test]
fn samples_by_seed() {
    let run = |seed: &str| {
        let args = ["plan.bin", "-p", "The vector", "-n", "24", "--temp", "1.5", "--seed", seed, "--device", "cpu"];
        text(&hipfire(args).output().unwrap()).0
    };
    assert_eq!(run("1"), run("1"));
    assert_ne!(run("1"), run("2"));
}

#[test]
fn exact_answers_the_same() {
    let run = hipfire(["plan.bin", "--chat", "-p", QUESTION, "--exact", "-n", "4"]).output().unwrap();
    let (out, err) = text(&run);
    assert!(ANSWER.starts_with(out.trim_end()) && out.len() > 8 && err.contains("exact"), "{out}{err}");
    refused(&["plan.bin", "-p", "x", "--exact", "--device", "hip:0"], 2, &["--exact runs on the CPU"]);
}

#[test]
fn says_more_when_asked() {
    let run = hipfire(["plan.bin", "-p", "The", "-n", "1", "--device", "cpu", "-vv"]).output().unwrap();
    let (_, err) = text(&run);
    for part in ["bundle     plan.bin: ", "device     cpu", "gfx1100", "memory     ", "weights", "allocated  ", "decode    0  "] {
        assert!(err.contains(part), "{part}: {err}");
    }
}

#[test]
fn wrong_requests_are_refused_with_advice() {
    refused(&[], 2, &["<BUNDLE>", "--help"]);
    refused(&["missing.bin", "-p", "x"], 2, &["no bundle missing.bin", "hipc compile"]);
    refused(&["doctr"], 2, &["no bundle doctr"]);
    refused(&[".", "-p", "x"], 2, &["not a regular file"]);
    refused(&["model.gguf", "-p", "x"], 2, &["not a bundle", "hipc compile"]);
    refused(&["plan.bin", "-p", "x", "--device", "gpu"], 2, &["no device `gpu`", "auto, cpu, hip:N"]);
    refused(&["plan.bin", "-p", "x", "--device", "host"], 2, &["no code for host", "gfx1100, gfx942"]);
    refused(&["plan.bin", "-p", "x", "--device", "emu:gfx1030"], 2, &["no code for gfx1030", "gfx1100, gfx942"]);
    refused(&["plan.bin", "-p", ""], 2, &["the prompt is empty", "-p"]);
    refused(&["plan.bin"], 2, &["the prompt is empty", "standard input"]);
    refused(&["plan.bin", "-p", "x", "--system", "y"], 2, &["--chat"]);
    refused(&["plan.bin", "-p", "x", "-n", "0"], 2, &["--tokens"]);
    refused(&["plan.bin", "-p", "x", "--temp", "-1"], 2, &["--temp = -1", "0 (greedy) or more"]);
    refused(&["plan.bin", "-p", "x", "--top-p", "1.5"], 2, &["--top-p = 1.5", "0 to 1"]);
    refused(&["logits", "plan.bin", "--tokens", "none.txt", "--out", "o.npy"], 2, &["none.txt"]);
}

#[test]
fn a_prompt_longer_than_the_context_is_refused_before_any_work() {
    let long = "word ".repeat(400);
    let advice = format!("hipc compile {} --arch gfx1100,gfx942 --ctx", bundles().model.display());
    refused(
        &["plan.bin", "-p", &long, "--device", "cpu"],
        2,
        &[&format!("the context of plan.bin has {CTX}"), &advice, "-o plan.bin"],
    );
    let longer = "word ".repeat(4000);
    refused(&["plan.bin", "--chat", "-p", &longer], 2, &["trained for 1024"]);
}

#[test]
fn a_full_context_ends_the_text() {
    let prompt = "word ".repeat(CTX as usize - 8);
    let run =
        hipfire(["plan.bin", "-p", &prompt, "--device", "cpu", "--temp", "2", "--top-k", "0", "--top-p", "1", "--min-p", "0"])
            .output()
            .unwrap();
    let (_, err) = text(&run);
    assert_eq!(run.status.code(), Some(0), "{err}");
    assert!(err.contains(&format!("the context of {CTX} tokens is full")), "{err}");
}

#[test]
fn machines_without_a_gpu_are_told() {
    if Path::new("/dev/kfd").exists() {
        println!("skipped: this machine has an AMD GPU");
        return;
    }
    refused(&["plan.bin", "-p", "x", "--device", "hip:0"], 3, &["--device cpu"]);
    refused(&["doctor", "--print-arch"], 3, &["--device cpu"]);
    let run = hipfire(["plan.bin", "-p", "The", "-n", "1"]).output().unwrap();
    let (_, err) = text(&run);
    assert!(run.status.success() && err.contains("note: ") && err.contains(": running on the CPU"), "{err}");
}

#[test]
fn damaged_bundles_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, embedded) = (fs::read(&bundles().plain).unwrap(), fs::read(&bundles().embedded).unwrap());
    let bad = folder.path().join("bad.bin");
    let check = |bytes: &[u8], parts: &[&str]| {
        fs::write(&bad, bytes).unwrap();
        refused(&[bad.to_str().unwrap(), "-p", "x", "--device", "cpu"], 2, parts);
    };
    let flip = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 0x10;
        bytes
    };
    for i in 0..24 {
        check(&flip(&plain, i * (plain.len() - 1) / 23), &["bad.bin"]);
        check(&plain[..i * plain.len() / 24], &["bad.bin"]);
    }
    // Embedded weights are checked before the first token.
    check(&flip(&embedded, embedded.len() - 1), &["weights", "damaged"]);
    let mut future = plain.clone();
    future[8] = 99;
    check(&future, &["version 99", "newer hipfire-run"]);
    check(&[plain, vec![0]].concat(), &["bad.bin"]);
}

#[test]
fn models_that_moved_or_changed_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (bundle, model) = (folder.path().join("b.bin"), folder.path().join("other.gguf"));
    // From here the bundle's relative path leads nowhere; the absolute one still does.
    fs::copy(&bundles().plain, &bundle).unwrap();
    let mut bytes = fs::read(&bundles().model).unwrap();
    bytes[200] ^= 1;
    fs::write(&model, &bytes).unwrap();
    let (bundle, model) = (bundle.to_str().unwrap(), model.to_str().unwrap());
    refused(&[bundle, "--model", model, "-p", "x"], 2, &["not the file that the bundle was compiled from", "hipc compile"]);
    refused(&[bundle, "--model", "nowhere.gguf", "-p", "x"], 2, &["nowhere.gguf"]);
    let original = bundles().model.to_str().unwrap();
    let run = hipfire([bundle, "--model", original, "-p", "The", "-n", "1", "--device", "cpu"]).output().unwrap();
    assert!(run.status.success(), "{}", text(&run).1);
}

#[test]
fn output_that_goes_nowhere_is_told_apart() {
    let command = || hipfire(["plan.bin", "--chat", "-p", QUESTION, "--device", "cpu"]);
    let run = command().stdout(File::create("/dev/full").unwrap()).output().unwrap();
    let (_, err) = text(&run);
    assert_eq!(run.status.code(), Some(3), "{err}");
    assert!(err.contains("error: standard output can't be written"), "{err}");
    // What nobody can be told is lost, and nothing else.
    let run = command().stderr(File::create("/dev/full").unwrap()).arg("-vv").output().unwrap();
    assert_eq!((run.status.code(), text(&run).0), (Some(0), format!("{ANSWER}\n")));
    // A reader that has enough is no error.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let run = command().stdout(writer).output().unwrap();
    assert_eq!((run.status.code(), text(&run).1.as_str()), (Some(0), ""));
}

#[test]
fn doctor_examines_every_machine() {
    let run = hipfire(["doctor"]).output().unwrap();
    let (out, _) = text(&run);
    assert!(run.status.success() && out.is_ascii(), "{out}");
    for part in ["CPU", "AMD GPU", "Compiler", "  + processor", "/dev/kfd"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let (out, _) = text(&hipfire(["doctor", "--json"]).output().unwrap());
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["cpu"]["usable"], true);
    assert!(json["amd"]["usable"].is_boolean() && json["gpus"].is_array(), "{out}");
}

#[test]
fn help_lists_the_exit_codes() {
    let (out, _) = text(&hipfire(["--help"]).output().unwrap());
    assert!(out.contains("Exit codes: 0 done, 1 a check failed") && out.contains("130 interrupted"), "{out}");
}
