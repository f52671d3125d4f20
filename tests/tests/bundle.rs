//! Bundles on disk: what hipc writes hipfire-run reads, what was changed since is refused, and a failed write leaves nothing.

use hipc::bundle::{BundleError, BundleRequest, WeightsMode, write};
use hipc::pipeline::{Built, Options, plan};
use hipc::target::Target;
use hipc::tuning::Tuning;
use hipc_ir::dtype::KvType;
use hipc_ir::graph::Graph;
use hipc_models::Model;
use hipfire_run::bundle::{Bundle, BundleError as ReadError};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/rustdoc-26m-chat-Q4_K_M.gguf");
static OPTIONS: Options = Options { ctx: Some(64), kv: KvType::F16, tuning: Tuning::NONE, alternatives: false };
static RUNNING: AtomicBool = AtomicBool::new(false);
static INTERRUPTED: AtomicBool = AtomicBool::new(true);

/// Real plans with made-up machine code: no compiler is needed to test a file format.
fn built(model: &Model) -> Vec<Built> {
    let one = |name: &str| {
        let target = Target::parse(name).unwrap();
        Built::uncompiled(target, plan(model, target, &OPTIONS).unwrap(), vec![7; 1000])
    };
    ["gfx1100", "gfx1030"].map(one).into()
}

fn request<'a>(model: &'a Model, built: &'a [Built], weights: WeightsMode) -> BundleRequest<'a> {
    BundleRequest { model, built, options: &OPTIONS, weights, interrupted: &RUNNING }
}

/// A copy of the demo's model in a folder of its own.
fn model_in(folder: &Path) -> (PathBuf, Model) {
    let path = folder.join("model.gguf");
    std::fs::copy(DEMO, &path).unwrap();
    let model = hipc_models::load(&path).unwrap();
    (path, model)
}

fn listing(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn same_weights(bundle: &Bundle, model: &Model, path: Option<&Path>) {
    let weights = bundle.weights(path).unwrap();
    bundle.check(&weights).unwrap();
    for (w, decl) in &model.graph.weights {
        let index = model.gguf.find(&decl.name).unwrap();
        assert!(weights.bytes(w) == model.gguf.tensor_data(index), "{}", decl.name);
    }
}

#[test]
fn what_is_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (_, model) = model_in(folder.path());
    let built = built(&model);
    let path = folder.path().join("plan.bin");
    let bytes = write(&path, &request(&model, &built, WeightsMode::Referenced)).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes);
    let first = std::fs::read(&path).unwrap();
    write(&path, &request(&model, &built, WeightsMode::Referenced)).unwrap();
    assert!(first == std::fs::read(&path).unwrap(), "the same input gives the same bytes");

    let bundle = Bundle::open(&path).unwrap();
    assert_eq!(bundle.archs().collect::<Vec<_>>(), ["gfx1100", "gfx1030"]);
    for b in &built {
        assert_eq!(bundle.plan(b.target.name).unwrap(), b.planned.plan);
        assert_eq!(bundle.code(b.target.name).unwrap(), b.code);
    }
    assert_eq!(bundle.tokenizer().unwrap(), model.tokenizer);
    let graph: Graph = bundle.graph().unwrap();
    assert_eq!(graph, model.graph);
    assert_eq!(graph.to_string().parse::<Graph>().unwrap(), graph);
    assert_eq!(bundle.manifest().weights.relative.as_deref(), Some("model.gguf"));
    same_weights(&bundle, &model, None);
    assert_eq!(listing(folder.path()), ["model.gguf", "plan.bin"]);
}

#[test]
fn embedded_weights_need_no_model_file() {
    let folder = tempfile::tempdir().unwrap();
    let (model_path, model) = model_in(folder.path());
    let built = built(&model);
    let path = folder.path().join("plan.bin");
    write(&path, &request(&model, &built, WeightsMode::Embedded)).unwrap();
    std::fs::remove_file(model_path).unwrap();
    same_weights(&Bundle::open(&path).unwrap(), &model, None);

    // One bit of a weight: the bundle opens, its weights don't.
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 1000;
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let damaged = Bundle::open(&path).unwrap();
    let fault = damaged.check(&damaged.weights(None).unwrap()).unwrap_err();
    assert!(fault.to_string().contains("its weights changed"), "{fault}");
    assert_eq!(fault.exit_code(), 2);
}

#[test]
fn a_model_file_is_found_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let (model_path, model) = model_in(folder.path());
    let built = built(&model);
    let path = folder.path().join("plan.bin");
    write(&path, &request(&model, &built, WeightsMode::Referenced)).unwrap();

    // Both moved together: the relative path still leads there.
    let elsewhere = tempfile::tempdir().unwrap();
    let moved = elsewhere.path().join("plan.bin");
    std::fs::copy(&path, &moved).unwrap();
    std::fs::copy(&model_path, elsewhere.path().join("model.gguf")).unwrap();
    same_weights(&Bundle::open(&moved).unwrap(), &model, None);
    // The bundle alone: the absolute path does.
    std::fs::remove_file(elsewhere.path().join("model.gguf")).unwrap();
    let alone = Bundle::open(&moved).unwrap();
    same_weights(&alone, &model, None);
    // A name of one's own.
    let renamed = elsewhere.path().join("other.gguf");
    std::fs::rename(&model_path, &renamed).unwrap();
    let missing = alone.weights(None).unwrap_err();
    assert!(matches!(missing, ReadError::ModelMissing { .. }) && missing.to_string().contains("--model"), "{missing}");
    same_weights(&alone, &model, Some(&renamed));

    // Changed since: a byte of the header, or another length. The data themselves aren't hashed.
    let mut bytes = std::fs::read(&renamed).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&renamed, &bytes).unwrap();
    let changed = alone.weights(Some(&renamed)).unwrap_err();
    assert!(matches!(changed, ReadError::ModelChanged { .. }), "{changed}");
    assert!(
        changed.to_string().contains("hipc compile") && changed.to_string().contains("--arch gfx1100,gfx1030 --ctx 64"),
        "{changed}"
    );
    bytes[100] ^= 1;
    bytes.push(0);
    std::fs::write(&renamed, &bytes).unwrap();
    assert!(matches!(alone.weights(Some(&renamed)), Err(ReadError::ModelChanged { .. })));
    std::fs::write(&renamed, b"").unwrap();
    assert!(matches!(alone.weights(Some(&renamed)), Err(ReadError::ModelChanged { .. })));
}

/// Every 97th byte of a real bundle, and every byte of header and table; the format's own test flips every bit of a small one.
#[test]
fn a_flipped_byte_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (_, model) = model_in(folder.path());
    let built = built(&model);
    let path = folder.path().join("plan.bin");
    write(&path, &request(&model, &built, WeightsMode::Referenced)).unwrap();
    let good = std::fs::read(&path).unwrap();
    let table = 64 + 96 * 9;
    let step = (good.len() / 400).max(1) | 1;
    for at in (0..table).step_by(7).chain((table..good.len()).step_by(step)) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert!(hipc_ir::bundle::Bundle::parse(bad).is_err(), "byte {at}");
    }
    std::fs::write(&path, &good[..good.len() / 2]).unwrap();
    let fault = Bundle::open(&path).unwrap_err();
    assert!(fault.to_string().contains("not copied completely"), "{fault}");
    std::fs::write(&path, b"").unwrap();
    assert_eq!(Bundle::open(&path).map(drop).unwrap_err().exit_code(), 2);
}

#[test]
fn a_failed_write_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let (_, model) = model_in(folder.path());
    let built = built(&model);
    let path = folder.path().join("plan.bin");
    std::fs::write(&path, "older").unwrap();
    let interrupted = BundleRequest { interrupted: &INTERRUPTED, ..request(&model, &built, WeightsMode::Embedded) };
    assert!(matches!(write(&path, &interrupted), Err(BundleError::Interrupted)));
    assert_eq!(std::fs::read(&path).unwrap(), b"older");
    assert_eq!(listing(folder.path()), ["model.gguf", "plan.bin"]);

    let r = request(&model, &built, WeightsMode::Referenced);
    let missing = write(&folder.path().join("no/plan.bin"), &r).unwrap_err();
    assert!(matches!(missing, BundleError::Write { .. }) && missing.exit_code() == 3, "{missing}");
    for not_a_file in [folder.path(), Path::new("/dev/full")] {
        assert!(matches!(write(not_a_file, &r), Err(BundleError::NotAFile { .. })));
    }
    assert_eq!(listing(folder.path()), ["model.gguf", "plan.bin"]);
}
