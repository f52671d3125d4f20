//! Bundles of the repository's own model, made without any compiler: the `cpu` needs plans, not machine code.

use hipc::bundle::{BundleRequest, WeightsMode, write};
use hipc::pipeline::{Built, Options, build, plan};
use hipc::target::Target;
use hipc::toolchain::{Backend, CompileOptions, Toolchain};
use hipc_ir::plan::Plan;
use hipc_models::Model;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use tempfile::TempDir;

/// A question of the reference data, and the answer that llama.cpp gives for the same file.
pub const QUESTION: &str = "What does `Vec::pop` do?";
/// See [`QUESTION`].
pub const ANSWER: &str = "Removes the last element from a vector and returns it, or `None` if it is empty.";

/// Positions of the bundles.
pub const CTX: u32 = 192;

/// Bundles for two GPUs.
pub struct Bundles {
    /// Refers to `model`.
    pub plain: PathBuf,
    /// Has the weights in it.
    pub embedded: PathBuf,
    /// A copy of the model, so that it can be moved.
    pub model: PathBuf,
    /// Everything is in it.
    pub folder: TempDir,
}

/// Made once for all tests of a process.
pub fn bundles() -> &'static Bundles {
    static BUNDLES: OnceLock<Bundles> = OnceLock::new();
    BUNDLES.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model.gguf");
        let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/rustdoc-26m-chat-Q4_K_M.gguf");
        std::fs::copy(original, &model).unwrap();
        let (plain, embedded) = (folder.path().join("plan.bin"), folder.path().join("embedded.bin"));
        compile(&model, &plain, WeightsMode::Referenced);
        compile(&model, &embedded, WeightsMode::Embedded);
        Bundles { plain, embedded, model, folder }
    })
}

/// Writes a bundle for two GPUs, without machine code.
pub fn compile(model: &Path, to: &Path, weights: WeightsMode) {
    let model = hipc_models::load(model).unwrap();
    let options = Options { ctx: Some(CTX), ..Options::default() };
    let built: Vec<Built> = ["gfx1100", "gfx942"]
        .iter()
        .map(|name| {
            let target = Target::parse(name).unwrap();
            Built::uncompiled(target, plan(&model, target, &options).unwrap(), b"none".to_vec())
        })
        .collect();
    save(&model, to, &built, &options, weights);
}

/// A bundle of the model with machine code for one GPU, in the folder of the bundles; `alter` changes the plan behind the compiler's back.
/// `None`, and a line that says why, where the machine lacks a compiler for it, or LLVM to decode it.
pub fn compiled(name: &str, arch: &str, alter: impl Fn(&mut Plan)) -> Option<Plan> {
    let toolchain = Toolchain::from_env();
    if let Err(error) = toolchain.compiler(Backend::Clang) {
        eprintln!("skipped: {error}");
        return None;
    }
    if let Err(error) = hipc_emulator::disassembler_version() {
        eprintln!("skipped: {error}");
        return None;
    }
    let model = hipc_models::load(&bundles().model).unwrap();
    let options = Options { ctx: Some(CTX), ..Options::default() };
    let (target, with) = (Target::parse(arch).unwrap(), CompileOptions::default());
    let mut built = build(&model, &[target], &options, &toolchain, &with, &|_| ()).unwrap();
    alter(&mut built[0].planned.plan);
    save(&model, &bundles().folder.path().join(name), &built, &options, WeightsMode::Referenced);
    built.pop().map(|built| built.planned.plan)
}

/// A bundle without machine code whose plan isn't the model's.
pub fn altered(name: &str, alter: impl Fn(&mut Plan)) {
    let model = hipc_models::load(&bundles().model).unwrap();
    let options = Options { ctx: Some(CTX), ..Options::default() };
    let target = Target::parse("gfx1100").unwrap();
    let mut planned = plan(&model, target, &options).unwrap();
    alter(&mut planned.plan);
    let built = [Built::uncompiled(target, planned, b"none".to_vec())];
    save(&model, &bundles().folder.path().join(name), &built, &options, WeightsMode::Referenced);
}

fn save(model: &Model, to: &Path, built: &[Built], options: &Options, weights: WeightsMode) {
    let interrupted = AtomicBool::new(false);
    write(to, &BundleRequest { model, built, options, weights, interrupted: &interrupted }).unwrap();
}

/// The binary, in the folder of the bundles, with nothing on standard input.
pub fn hipfire<'a>(args: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hipfire-run"));
    command.args(args).current_dir(bundles().folder.path()).stdin(Stdio::null()).env_remove("HIPC_HIP_LIBRARY");
    command
}

/// Standard output and standard error.
pub fn text(output: &Output) -> (String, String) {
    let utf8 = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (utf8(&output.stdout), utf8(&output.stderr))
}

/// The command ends with this code, an error that has these parts, and nothing on standard output.
pub fn refused(args: &[&str], code: i32, parts: &[&str]) {
    let run = hipfire(args.iter().copied()).output().unwrap();
    let (out, err) = text(&run);
    assert_eq!(run.status.code(), Some(code), "{args:?}\n{out}{err}");
    assert!(out.is_empty() && err.contains("error: "), "{args:?}\n{out}{err}");
    for part in parts {
        assert!(err.contains(part), "{args:?}: no {part:?} in\n{err}");
    }
}
