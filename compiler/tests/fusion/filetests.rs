//! File tests: `tests/filetests/fusion/*.test`, a graph and, below `----` lines, its launches for each program.
//!
//! A file begins with comments; `; run: decode prompt` names the programs. `HIPC_BLESS=1 cargo test -p hipc --test fusion` writes what comes
//! out as the new expectation.

use hipc::egraph::rules;
use hipc::fuse::{FuseOptions, fuse};
use hipc::target::Target;
use hipc_ir::KvType;
use hipc_ir::fused::{FusedGraph, ProgramKind};
use hipc_ir::graph::Graph;
use hipc_ir::verify::VerifyError;
use std::fmt::Write;
use std::path::PathBuf;

/// A test file.
struct FileTest {
    path: PathBuf,
    /// Comments and graph.
    input: String,
    expected: String,
    kinds: Vec<ProgramKind>,
    graph: Graph,
}

fn all() -> Vec<FileTest> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/filetests/fusion");
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{folder}: {e}"));
    let mut paths: Vec<PathBuf> =
        entries.map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "test")).collect();
    paths.sort();
    paths.into_iter().map(read).collect()
}

fn read(path: PathBuf) -> FileTest {
    let text = std::fs::read_to_string(&path).unwrap();
    let (input, expected) = text.split_once("----\n").map_or((text.as_str(), ""), |(i, e)| (i, e));
    let run =
        input.lines().find_map(|l| l.strip_prefix("; run:")).unwrap_or_else(|| panic!("{}: no `; run:` line", path.display()));
    let kind = |word| match word {
        "decode" => ProgramKind::Decode,
        "prompt" => ProgramKind::Prompt,
        other => panic!("{}: `{other}` is no program", path.display()),
    };
    let graph: Graph = input.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    hipc_ir::verify::graph(&graph).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    FileTest {
        kinds: run.split_whitespace().map(kind).collect(),
        input: input.to_owned(),
        expected: expected.to_owned(),
        graph,
        path,
    }
}

/// What fusion makes of a file, as it stands below the line.
fn launches(test: &FileTest, without: Option<&str>) -> String {
    let target = Target::parse("gfx1100").unwrap();
    let mut out = String::new();
    for (i, kind) in test.kinds.iter().enumerate() {
        let mut options = FuseOptions::new(2048, KvType::F16);
        options.without.extend(without.map(str::to_owned));
        if i > 0 {
            out.push_str("----\n");
        }
        match fuse(&test.graph, *kind, &options, target) {
            Ok(fused) => {
                verify(&fused.graph, test);
                let outputs: Vec<String> = fused.outputs.iter().map(ToString::to_string).collect();
                writeln!(out, "{}; outputs {}", fused.graph, outputs.join(" ")).unwrap();
            }
            Err(e) => writeln!(out, "; {e}").unwrap(),
        }
    }
    out
}

/// The verifier's rules, but for the last: these graphs need not end in logits and ids.
fn verify(fused: &FusedGraph, test: &FileTest) {
    match hipc_ir::verify::fused(fused, &test.graph) {
        Err(VerifyError::Rule { at, .. }) if at == "logits" || at == "ids" => {}
        other => other.unwrap_or_else(|e| panic!("{}: {e}", test.path.display())),
    }
}

#[test]
fn graphs_fuse_as_written() {
    let bless = std::env::var_os("HIPC_BLESS").is_some_and(|v| v == "1");
    let mut wrong = Vec::new();
    for test in all() {
        let found = launches(&test, None);
        if bless {
            std::fs::write(&test.path, format!("{}----\n{found}", test.input)).unwrap();
        } else if found != test.expected {
            wrong.push(format!("{}:\n{}", test.path.display(), difference(&test.expected, &found)));
        }
    }
    assert!(wrong.is_empty(), "{}\nto accept: HIPC_BLESS=1 cargo test -p hipc --test fusion", wrong.join("\n"));
}

/// The lines that differ.
fn difference(expected: &str, found: &str) -> String {
    let only = |a: &str, b: &str, sign| {
        let lines = a.lines().filter(|l| !b.lines().any(|m| m == *l)).map(|l| format!("{sign}{l}\n"));
        lines.collect::<String>()
    };
    only(expected, found, '-') + &only(found, expected, '+')
}

/// Every rule earns its place.
#[test]
fn no_rule_is_without_effect() {
    let tests = all();
    let expected: Vec<String> = tests.iter().map(|t| launches(t, None)).collect();
    let idle: Vec<&str> = rules::all()
        .map(|rule| rule.name)
        .filter(|name| tests.iter().zip(&expected).all(|(test, expected)| launches(test, Some(name)) == *expected))
        .collect();
    assert!(idle.is_empty(), "removing these rules changes no file test: {idle:?}");
}
