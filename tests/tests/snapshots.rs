//! What the compiler emits for the trained models, as snapshots under `snapshots/`: units and their resources on three
//! architectures, the fused graph and the plan once, instructions on seven. Read a change before you accept it:
//!
//!     INSTA_UPDATE=always cargo test -p hipc-tests --test snapshots     (then `git diff snapshots`)

use hipc::inspect::arch_report;
use hipc::pipeline::{self, Options, Planned};
use hipc::target::Target;
use hipc::toolchain::{Backend, CompileOptions, Toolchain};
use hipc_models::Model;
use hipc_tests::shared::{demo_model, shared};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

const ARCHS: [&str; 3] = ["gfx1100", "gfx1030", "gfx942"];

fn planned(model: &Model, arch: &str) -> (Planned, &'static Target) {
    let target = Target::parse(arch).expect("a known target");
    (pipeline::plan(model, target, &Options::default()).expect("the model plans"), target)
}

fn snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../../snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

fn units(path: &Path, label: &str) {
    let model = hipc_models::load(path).expect("the model loads");
    for arch in ARCHS {
        let (planned, _) = planned(&model, arch);
        snapshot(&format!("{label}-{arch}-unit"), &planned.unit);
        let again =
            pipeline::plan(&model, Target::parse(arch).expect("a known target"), &Options::default()).expect("the model plans");
        assert_eq!(planned.unit, again.unit, "two runs emit different units for {arch}");
    }
}

/// Registers depend on the compiler, so these snapshots hold for one version of it.
fn resources(path: &Path, label: &str) {
    let toolchain = Toolchain::from_env();
    let compiler = toolchain.compiler(Backend::Clang).expect("a clang, see scripts/setup.sh");
    if !compiler.contains("22.1.8") {
        println!("skipped: resource snapshots are of clang 22.1.8, this is {compiler}");
        return;
    }
    let model = hipc_models::load(path).expect("the model loads");
    for arch in ARCHS {
        let (planned, target) = planned(&model, arch);
        let code = toolchain
            .compile(&pipeline::unit_source(&planned), target, pipeline::code_form(target), &CompileOptions::default())
            .expect("the unit compiles");
        let report = arch_report(&planned.plan, &code.bytes, target);
        let mut table = format!(
            "{:32} {:>5} {:>5} {:>6} {:>8} {:>7} {:>9}\n",
            "kernel", "VGPR", "SGPR", "LDS B", "scratch", "spills", "waves"
        );
        for k in &report.kernels {
            let spills = k.vgpr_spills + k.sgpr_spills;
            let waves = format!("{}/{}", k.occupancy, k.max_waves);
            writeln!(table, "{:32} {:>5} {:>5} {:>6} {:>8} {:>7} {:>9}", k.name, k.vgpr, k.sgpr, k.lds, k.scratch, spills, waves)
                .expect("writing to a string");
        }
        assert_eq!(report.kernels.len(), planned.plan.kernels.len(), "a kernel is missing from the code object");
        snapshot(&format!("{label}-{arch}-resources"), &table);
    }
}

/// One architecture of each kind of instructions.
const MNEMONICS: [&str; 7] = ["gfx906", "gfx90a", "gfx942", "gfx1010", "gfx1030", "gfx1100", "gfx1201"];

/// Instructions of the trained model's kernels: the emulator's tests must have a case for each (`emulator/tests/instructions`).
#[test]
fn chat_model_mnemonics() {
    let toolchain = Toolchain::from_env();
    let compiler = toolchain.compiler(Backend::Clang).expect("a clang, see scripts/setup.sh");
    if !compiler.contains("22.1.8") {
        println!("skipped: snapshots of instructions are of clang 22.1.8, this is {compiler}");
        return;
    }
    let model = hipc_models::load(demo_model()).expect("the model loads");
    for arch in MNEMONICS {
        let (planned, target) = planned(&model, arch);
        let code = toolchain
            .compile(&pipeline::unit_source(&planned), target, pipeline::code_form(target), &CompileOptions::default())
            .expect("the unit compiles");
        let module = hipc_emulator::Module::load(&code.bytes).expect("the code object loads");
        let mut found = BTreeSet::new();
        for name in module.kernels() {
            for instruction in module.kernel(name).expect("the kernel decodes").instructions() {
                found.extend(instruction.text.split(" :: ").filter_map(|part| Some(part.split_whitespace().next()?.to_owned())));
            }
        }
        snapshot(&format!("mnemonics-{arch}"), &Vec::from_iter(found).join("\n"));
    }
}

#[test]
fn chat_model_units() {
    units(&demo_model(), "rustdoc-26m-chat");
}

#[test]
fn chat_model_resources() {
    resources(&demo_model(), "rustdoc-26m-chat");
}

#[test]
fn base_model_units() {
    if let Some(path) = shared("models/rustdoc-7m-Q4_K_M.gguf") {
        units(&path, "rustdoc-7m");
    }
}

#[test]
fn base_model_resources() {
    if let Some(path) = shared("models/rustdoc-7m-Q4_K_M.gguf") {
        resources(&path, "rustdoc-7m");
    }
}

#[test]
fn chat_model_fused_graph_and_plan() {
    let model = hipc_models::load(demo_model()).expect("the model loads");
    let (planned, _) = planned(&model, "gfx1100");
    snapshot("rustdoc-26m-chat-gfx1100-fused-decode", &planned.decode.graph.to_string());
    snapshot("rustdoc-26m-chat-gfx1100-fused-prompt", &planned.prompt.graph.to_string());
    snapshot("rustdoc-26m-chat-gfx1100-plan", &planned.plan.to_string());
}
