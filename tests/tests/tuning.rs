//! Tuning files at work: what they name changes, nothing else does, and what makes no sense is refused.

use hipc::pipeline::{Options, plan};
use hipc::select::alternatives;
use hipc::target::Target;
use hipc::tuning::{Tuning, TuningError, tuned_kernels};
use hipc_ir::bundle::Digest;
use hipc_ir::fused::ProgramKind;
use hipc_ir::plan::{Geometry, Plan};
use hipc_ir::tuning::{Entry, Made, Times, TuningFile};
use hipc_models::Model;
use std::path::{Path, PathBuf};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/rustdoc-26m-chat-Q4_K_M.gguf");

fn made() -> Made {
    Made {
        date: "2026-11-21".into(),
        device: "a card".into(),
        driver: "none".into(),
        hipc: "0.1.0".into(),
        templates: Digest::of(b""),
        model: "demo".into(),
        gb_per_s: None,
    }
}

/// Decode launches of these labels, each with the geometry that selection likes second.
fn file(plan: &Plan, target: &Target, labels: &[&str]) -> TuningFile {
    let decode = plan.program(ProgramKind::Decode).unwrap();
    let mut entries: Vec<Entry> = Vec::new();
    for launch in &decode.launches {
        let op = &plan.kernels[launch.kernel].op;
        if labels.contains(&launch.label.as_str()) && !entries.iter().any(|e| e.op == *op) {
            let geometry = alternatives(op, &launch.label, 1, target).unwrap()[1];
            let times = Times { ns: 1000, before_ns: 2000, predicted_ns: 3000 };
            entries.push(Entry { target: target.name.into(), label: launch.label.clone(), times, geometry, op: op.clone() });
        }
    }
    TuningFile { made: made(), entries }
}

fn read(text: &str) -> (tempfile::TempDir, PathBuf, Result<Tuning, TuningError>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("card.tune");
    std::fs::write(&path, text).unwrap();
    let tuning = Tuning::read(&[&path]);
    (folder, path, tuning)
}

fn demo() -> (Model, Options) {
    (hipc_models::load(Path::new(DEMO)).unwrap(), Options { ctx: Some(256), ..Options::default() })
}

#[test]
fn changes_the_kernels_that_it_names_and_no_others() {
    let (model, options) = demo();
    for name in ["gfx1100", "gfx90a", "sm_90"] {
        let target = Target::parse(name).unwrap();
        let before = plan(&model, target, &options).unwrap().plan;
        let file = file(&before, target, &["o", "attn"]);
        assert_eq!(file.entries.len(), 2);
        let (.., tuning) = read(&file.to_string());
        let options = Options { tuning: tuning.unwrap(), ..options.clone() };
        // The checker has passed it, or there would be none.
        let after = plan(&model, target, &options).unwrap().plan;
        assert_eq!(before.kernels.len(), after.kernels.len(), "{name}");
        let mut changed = Vec::new();
        for ((k, old), (_, new)) in before.kernels.iter().zip(after.kernels.iter()) {
            assert_eq!((&old.name, &old.op), (&new.name, &new.op));
            // How many partial sums there are to read follows from who writes them.
            let spread = |g: Geometry| Geometry { parts_in: 0, ..g };
            if spread(old.geometry) != spread(new.geometry) {
                let entry = file.entries.iter().find(|e| e.op == new.op).unwrap();
                assert_eq!(spread(new.geometry), entry.geometry, "{name} {k}");
                changed.push(new.name.as_str());
            }
        }
        assert_eq!(changed, tuned_kernels(&after, std::slice::from_ref(&file)), "{name}");
        assert_eq!(changed.len(), 2, "{name}: {changed:?}");
        assert!(options.tuning.unused(&[&after]).is_empty());
        // Elsewhere it says nothing.
        let other = Target::parse("gfx1030").unwrap();
        let untouched = plan(&model, other, &options).unwrap().plan;
        assert_eq!(untouched, plan(&model, other, &Options { tuning: Tuning::NONE, ..options.clone() }).unwrap().plan);
        assert_eq!(options.tuning.unused(&[&untouched])[0].1.len(), 2);
    }
}

#[test]
fn later_files_win() {
    let (model, options) = demo();
    let target = Target::parse("gfx1100").unwrap();
    let before = plan(&model, target, &options).unwrap().plan;
    let first = file(&before, target, &["o"]);
    let mut second = first.clone();
    second.entries[0].geometry = alternatives(&first.entries[0].op, "o", 1, target).unwrap()[2];
    let folder = tempfile::tempdir().unwrap();
    let paths = [("a", &first), ("b", &second)].map(|(name, file)| {
        let path = folder.path().join(name);
        std::fs::write(&path, file.to_string()).unwrap();
        path
    });
    let tuning = Tuning::read(&paths).unwrap();
    let op = &first.entries[0].op;
    assert_eq!(tuning.geometry(op, 1, target), Some(second.entries[0].geometry));
    assert_eq!(tuning.geometry(op, 64, target), None, "the prompt program is another matter");
}

#[test]
fn what_no_skeleton_takes_is_refused() {
    let (model, options) = demo();
    let target = Target::parse("gfx1100").unwrap();
    let good = file(&plan(&model, target, &options).unwrap().plan, target, &["o"]);
    let text = good.to_string();
    let line = text.lines().position(|l| l.starts_with("entry")).unwrap() + 1;
    let geometry = good.entries[0].geometry;
    let with = |change: &dyn Fn(&mut Entry)| {
        let mut file = good.clone();
        change(&mut file.entries[0]);
        read(&file.to_string()).2.unwrap_err().to_string()
    };
    for (message, why) in [
        (with(&|e| e.target = "gfx9999".into()), "gfx9999"),
        (with(&|e| e.geometry.wave = 64), "waves of gfx1100 have 32 lanes, not 64"),
        (with(&|e| e.geometry.tile = 48), "rows"),
        (with(&|e| e.geometry.k_waves = 1 + geometry.waves), "divides waves"),
        (with(&|e| e.geometry.tokens = 4), "one token"),
        (with(&|e| e.geometry.parts_in = 4), "parts_in"),
    ] {
        assert!(message.contains(why) && message.contains(&format!("card.tune, line {line}: ")), "{message}");
    }
    let missing = Tuning::read(&["/nowhere/card.tune"]).unwrap_err().to_string();
    assert!(missing.contains("/nowhere/card.tune can't be read"), "{missing}");
}

#[test]
fn the_files_of_the_repository_are_taken() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tuning");
    let entries = |p: &Path| std::fs::read_dir(p).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
    let cards = entries(&folder).into_iter().filter(|p| p.is_dir());
    let files: Vec<PathBuf> = cards.flat_map(|card| entries(&card)).collect();
    assert!(!files.is_empty());
    let tuning = Tuning::read(&files).unwrap();
    assert!(tuning.sources().iter().all(|s| !s.file.entries.is_empty()));
}

/// Where a GEMV's results go in a cache takes no other time in a longer one; reading it does.
#[test]
fn a_gemv_keeps_its_entry_with_another_context() {
    let (model, options) = demo();
    let target = Target::parse("gfx1100").unwrap();
    let file = file(&plan(&model, target, &options).unwrap().plan, target, &["qkv", "attn"]);
    let (.., tuning) = read(&file.to_string());
    let longer = Options { ctx: Some(512), tuning: tuning.unwrap(), ..options };
    let plan = plan(&model, target, &longer).unwrap().plan;
    let unused = longer.tuning.unused(&[&plan]);
    let labels: Vec<&str> = unused.iter().flat_map(|(_, entries)| entries).map(|e| e.label.as_str()).collect();
    assert_eq!(labels, ["attn"]);
    let tuned = tuned_kernels(&plan, std::slice::from_ref(&file));
    assert!(!tuned.is_empty() && tuned.iter().all(|kernel| kernel.ends_with("qkv")), "{tuned:?}");
}
