//! Every kernel compiles for every target without spills, and does what its signature says.
//!
//! `HIPC_ALL_TARGETS=1` compiles every case for every target (many minutes); by default the target that is shortest of registers
//! gets all cases and the others get some.

use hipc::emit::emit_unit;
use hipc::pipeline::{Options, plan, unit_source};
use hipc::target::Target;
use hipc::toolchain::{CompileOptions, Emit, Toolchain, ToolchainError, UnitSource};
use hipc_codeobj::CodeObject;
use hipc_ir::PrimaryMap;
use hipc_ir::plan::KernelSpec;
use hipc_templates::{HEADERS, check_geometry};
use hipc_tests::gguf_writer::{LLAMA_3_1_8B, Mix, QWEN3_8B, Shape, model, ty};
use hipc_tests::kernel_cases::small;
use rayon::prelude::*;

/// Every how many cases are compiled for a target: all where registers are shortest, some where the code differs, a few elsewhere.
fn stride(target: &Target) -> usize {
    match target.name {
        _ if std::env::var_os("HIPC_ALL_TARGETS").is_some() => 1,
        "gfx900" => 1,
        "gfx1010" | "gfx1100" | "sm_90" => 5,
        _ => 31,
    }
}

fn unit(target: &Target, specs: &[KernelSpec]) -> String {
    let kernels: PrimaryMap<_, _> = specs.iter().cloned().collect();
    emit_unit("cases", target, &kernels)
}

fn cases(target: &Target) -> Vec<KernelSpec> {
    let decode = small(target.simd.wave_size, 1);
    let prompt = small(target.simd.wave_size, 4).into_iter();
    let prompt = prompt.map(|spec| KernelSpec { name: format!("{}_prompt", spec.name), ..spec });
    decode.into_iter().chain(prompt).step_by(stride(target)).collect()
}

fn compile(toolchain: &Toolchain, target: &Target, emit: Emit, specs: &[KernelSpec]) -> Vec<u8> {
    let source = unit(target, specs);
    let unit = UnitSource { name: "cases", source: &source, headers: HEADERS };
    let compiled = toolchain.compile(&unit, target, emit, &CompileOptions::default());
    compiled.unwrap_or_else(|e| panic!("{}: {e}", target.name)).bytes
}

#[test]
fn cases_keep_the_rules_of_geometry() {
    for (wave, tokens) in [(32, 1), (32, 4), (64, 1), (64, 4)] {
        for spec in small(wave, tokens) {
            assert_eq!(check_geometry(&spec), Ok(()), "{}", spec.name);
        }
    }
}

#[test]
fn kernels_compile_without_spills() {
    let toolchain = Toolchain::from_env();
    let targets: Vec<&Target> = Target::all_amd().collect();
    let faults: Vec<String> = targets
        .par_iter()
        .flat_map_iter(|target| {
            let specs = cases(target);
            let object = CodeObject::parse(&compile(&toolchain, target, Emit::CodeObject, &specs)).expect("a code object");
            let faults: Vec<String> = specs.iter().filter_map(|spec| fault(target, spec, &object)).collect();
            faults
        })
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What is wrong with a compiled kernel.
fn fault(target: &Target, spec: &KernelSpec, object: &CodeObject) -> Option<String> {
    let Some(kernel) = object.kernel(&spec.name) else { return Some(format!("{}: no {}", target.name, spec.name)) };
    let spills = kernel.spills();
    let wave = kernel.wavefront_size == spec.geometry.wave;
    let args = kernel.explicit_args().count() == spec.op.params().len();
    let args = args && kernel.explicit_args().zip(0..).all(|(arg, i)| arg.offset == 8 * i && arg.size == 8);
    let lds = kernel.group_segment_fixed_size <= 64 << 10;
    (spills || !wave || !args || !lds).then(|| {
        let (scratch, vgprs) = (kernel.private_segment_fixed_size, kernel.vgpr_count);
        format!("{}: {}: {scratch} bytes of scratch, {vgprs} VGPRs, {args} {wave} {lds}", target.name, spec.name)
    })
}

/// Llama-3.2-1B: heads of 64, tied.
const LLAMA_1B: Shape = Shape { layers: 16, embd: 2048, ff: 8192, head_dim: 64, tied: true, vocab: 128_256, ..LLAMA_3_1_8B };
/// Qwen3-0.6B: twice as many values in the heads as in the stream, two query heads per KV head.
const QWEN3_0_6B: Shape = Shape { layers: 28, embd: 1024, ff: 3072, heads: 16, tied: true, ..QWEN3_8B };
/// Smaller than a workgroup, a vocabulary that no tile divides, heads of 32.
const TINY: Shape =
    Shape { layers: 2, embd: 256, ff: 768, heads: 8, kv_heads: 2, head_dim: 32, vocab: 323, rope_freqs: false, ..LLAMA_3_1_8B };

const SHAPES: [(&str, Shape, Mix); 9] = [
    ("8b-q4_k_m", LLAMA_3_1_8B, Mix::Q4KM),
    ("1b-q4_0", LLAMA_1B, Mix::All(ty::Q4_0)),
    ("qwen3-8b-q6_k", QWEN3_8B, Mix::All(ty::Q6_K)),
    ("qwen3-0.6b-q8_0", QWEN3_0_6B, Mix::All(ty::Q8_0)),
    ("8b-f16", LLAMA_3_1_8B, Mix::All(ty::F16)),
    ("tiny-q4_k_m", TINY, Mix::Q4KM),
    ("1b-bf16", LLAMA_1B, Mix::All(ty::BF16)),
    ("qwen3-0.6b-q4_k_m", QWEN3_0_6B, Mix::Q4KM),
    ("tiny-f32", TINY, Mix::All(ty::F32)),
];

/// Models of real shapes, with the kernels that selection chooses: each target one of them, in turn, or all of them if
/// `HIPC_ALL_TARGETS` is set.
#[test]
fn models_compile_without_spills() {
    let folder = tempfile::tempdir().expect("a folder");
    let all = std::env::var_os("HIPC_ALL_TARGETS").is_some();
    let models = SHAPES.map(|(name, shape, mix)| {
        let path = folder.path().join(name);
        model(shape, mix).write_sparse(&path).expect("space for a few kilobytes");
        hipc_models::load(&path).unwrap_or_else(|e| panic!("{name}: {e}"))
    });
    let toolchain = Toolchain::from_env();
    let targets: Vec<&Target> = Target::all_amd().collect();
    let jobs = (0..targets.len()).flat_map(|t| (0..SHAPES.len()).map(move |m| (t, m)));
    let jobs: Vec<(usize, usize)> = jobs.filter(|(t, m)| all || t % SHAPES.len() == *m).collect();
    let faults: Vec<String> = jobs
        .par_iter()
        .flat_map_iter(|&(t, m)| {
            let planned = plan(&models[m], targets[t], &Options::default()).unwrap_or_else(|e| panic!("{}: {e}", SHAPES[m].0));
            let compiled = toolchain.compile(&unit_source(&planned), targets[t], Emit::CodeObject, &CompileOptions::default());
            let bytes = compiled.unwrap_or_else(|e| panic!("{} for {}: {e}", SHAPES[m].0, targets[t].name)).bytes;
            let object = CodeObject::parse(&bytes).expect("a code object");
            let specs = planned.plan.kernels.values();
            let faults = specs.filter_map(|spec| fault(targets[t], spec, &object));
            faults.map(|f| format!("{}: {f}", SHAPES[m].0)).collect::<Vec<_>>()
        })
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn kernels_compile_for_the_test_bench() {
    let target = Target::parse("sm_90").expect("in the table");
    let ptx = compile(&Toolchain::from_env(), target, Emit::Ptx, &cases(target));
    let ptx = String::from_utf8(ptx).expect("text");
    let kernels: Vec<&str> = ptx.split(".entry ").skip(1).collect();
    assert!(kernels.iter().any(|k| k.starts_with("k000_one_f32")));
    // The driver lets launches of such a unit overlap, so each kernel waits before it ends, and asks for the next one only behind that.
    assert!(ptx.contains("hipc_follows"));
    for kernel in kernels {
        let name = kernel.lines().next().unwrap_or_default();
        let wait = kernel.find("griddepcontrol.wait").unwrap_or_else(|| panic!("{name} doesn't wait for the launch before it"));
        assert!(kernel.find("griddepcontrol.launch_dependents").is_none_or(|next| next > wait), "{name}");
    }
}

#[test]
fn a_plain_hipcc_accepts_a_unit() {
    let target = Target::parse("gfx1030").expect("in the table");
    let source = unit(target, &cases(target));
    let unit = UnitSource { name: "cases", source: &source, headers: HEADERS };
    let options = CompileOptions { backend: hipc::toolchain::Backend::Hipcc, ..CompileOptions::default() };
    match Toolchain::from_env().compile(&unit, target, Emit::CodeObject, &options) {
        Ok(compiled) => assert!(!compiled.bytes.is_empty()),
        Err(ToolchainError::NoCompiler { .. }) => println!("skipped: no hipcc"),
        Err(e) => panic!("{e}"),
    }
}
