//! The LLVM back end: the same kernels as clang makes, in the best variant, the same each time; and errors instead of aborts.

#[cfg(feature = "llvm")]
mod common;

use hipc::toolchain::{Backend, CompileOptions, Emit, ToolchainError};

fn through(backend: Backend) -> CompileOptions {
    CompileOptions { backend, ..CompileOptions::default() }
}

#[cfg(not(feature = "llvm"))]
#[test]
fn without_the_library_it_is_refused_by_name() {
    use hipc_tests::shared::demo_model;
    let toolchain = hipc::toolchain::Toolchain::from_env();
    assert!(matches!(toolchain.compiler(Backend::Llvm), Err(ToolchainError::NoLlvm)));
    let target = hipc::target::Target::parse("gfx1100").unwrap();
    let unit = hipc::toolchain::UnitSource { name: "unit", source: "", headers: &[] };
    let refused = toolchain.compile(&unit, target, Emit::CodeObject, &through(Backend::Llvm));
    assert!(matches!(refused, Err(ToolchainError::NoLlvm)));

    let folder = tempfile::tempdir().unwrap();
    let mut hipc = std::process::Command::new(env!("CARGO_BIN_EXE_hipc"));
    hipc.arg("compile").arg(demo_model()).args(["--arch", "gfx1100", "--backend", "llvm", "-o"]);
    let done = hipc.arg(folder.path().join("plan.bin")).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(3), "{said}");
    for word in ["without the LLVM back end", "llvm-22-dev", "--backend llvm", "clang"] {
        assert!(said.contains(word), "no `{word}` in: {said}");
    }
}

#[cfg(feature = "llvm")]
mod with_llvm {
    use super::*;
    use hipc::emit::emit_unit;
    use hipc::inspect::arch_report;
    use hipc::pipeline::{self, Built, Options};
    use hipc::target::Target;
    use hipc::toolchain::{Settings, Toolchain, UnitSource};
    use hipc_codeobj::{AbiVersion, CodeObject};
    use hipc_ir::PrimaryMap;
    use hipc_templates::HEADERS;
    use hipc_tests::kernel_cases::small;
    use hipc_tests::shared::demo_model;
    use rayon::prelude::*;
    use serde_json::Value;
    use std::path::Path;
    use std::process::{Command, Output};

    /// A toolchain whose LLVM runs in a child, as in `hipc`; `None` without clang.
    fn toolchain(cache: Option<&Path>) -> Option<Toolchain> {
        common::toolchain_with(cache, Settings { generator: Some(env!("CARGO_BIN_EXE_hipc").into()), ..Settings::from_env() })
    }

    /// A few kernels of every kind there is.
    fn small_unit(target: &Target) -> String {
        let kernels: PrimaryMap<_, _> = small(target.simd.wave_size, 1).into_iter().step_by(29).collect();
        emit_unit("cases", target, &kernels)
    }

    fn unit(source: &str) -> UnitSource<'_> {
        UnitSource { name: "cases", source, headers: HEADERS }
    }

    /// What launches rely on must not depend on the back end.
    #[track_caller]
    fn same_interface(ours: &CodeObject, clangs: &CodeObject) {
        assert_eq!((ours.abi, ours.xnack, ours.sramecc), (AbiVersion::V5, clangs.xnack, clangs.sramecc));
        let names = |o: &CodeObject| o.kernels.iter().map(|k| k.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(ours), names(clangs));
        for (a, b) in ours.kernels.iter().zip(&clangs.kernels) {
            let name = format!("{} of {}", a.name, ours.target);
            assert_eq!(a.args, b.args, "{name}");
            assert_eq!(a.kernarg_segment_size, b.kernarg_segment_size, "{name}");
            assert_eq!(a.group_segment_fixed_size, b.group_segment_fixed_size, "{name}");
            assert_eq!(a.max_flat_workgroup_size, b.max_flat_workgroup_size, "{name}");
            assert_eq!(a.wavefront_size, b.wavefront_size, "{name}");
            let spills = a.private_segment_fixed_size + a.vgpr_spill_count + a.sgpr_spill_count;
            assert_eq!(spills, 0, "{name} spills");
        }
    }

    #[test]
    fn every_target_has_the_same_kernels_from_both() {
        let Some(toolchain) = toolchain(None) else { return };
        let targets: Vec<&Target> = Target::all_amd().collect();
        targets.par_iter().for_each(|target| {
            let source = small_unit(target);
            let object = |backend| {
                let made = toolchain.compile(&unit(&source), target, Emit::CodeObject, &through(backend));
                let made = made.unwrap_or_else(|e| panic!("{target}: {e}"));
                (CodeObject::parse(&made.bytes).unwrap(), made)
            };
            let ((ours, made), (clangs, _)) = (object(Backend::Llvm), object(Backend::Clang));
            same_interface(&ours, &clangs);
            assert!(made.compiler.starts_with("LLVM 22.1") && made.compiler.contains("clang version"), "{}", made.compiler);
            // What the records say is what the code object has.
            assert_eq!(made.variants.len(), ours.kernels.len());
            for v in &made.variants {
                assert_eq!(v.chosen().unwrap().vgpr, ours.kernel(&v.kernel).unwrap().vgpr_count, "{target}: {}", v.kernel);
                assert!(v.tried[0].name == "default" && matches!(v.tried.len(), 1 | 4), "{v:?}");
            }
        });
    }

    #[test]
    fn the_demo_model_gains_waves_and_loses_none() {
        let Some(toolchain) = toolchain(None) else { return };
        let model = hipc_models::load(demo_model()).unwrap();
        let targets = ["gfx942", "gfx1030", "gfx1100"].map(|name| Target::parse(name).unwrap());
        let build = |backend| -> Vec<Built> {
            pipeline::build(&model, &targets, &Options::default(), &toolchain, &through(backend), &|_| ()).unwrap()
        };
        let mut gained = 0;
        for (ours, clangs) in build(Backend::Llvm).iter().zip(&build(Backend::Clang)) {
            same_interface(ours.object.as_ref().unwrap(), clangs.object.as_ref().unwrap());
            let report = |b: &Built| arch_report(&b.planned.plan, &b.code, b.target).kernels;
            for (a, b) in report(ours).iter().zip(&report(clangs)) {
                assert!(
                    a.occupancy >= b.occupancy,
                    "{} of {}: {} waves, clang {}",
                    a.name,
                    ours.target,
                    a.occupancy,
                    b.occupancy
                );
                gained += u32::from(a.occupancy > b.occupancy);
            }
        }
        assert!(gained >= 5, "more waves in {gained} kernels only");
    }

    #[test]
    fn the_same_bytes_each_time_in_this_process_and_from_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let (Some(child), Some(here)) = (toolchain(None), common::toolchain(None)) else { return };
        let target = Target::parse("gfx906").unwrap();
        let source = small_unit(target);
        let compile =
            |toolchain: &Toolchain, emit| toolchain.compile(&unit(&source), target, emit, &through(Backend::Llvm)).unwrap();
        let first = compile(&child, Emit::CodeObject);
        assert_eq!(first, compile(&child, Emit::CodeObject));
        assert_eq!(first, compile(&here, Emit::CodeObject));
        let cached = toolchain(Some(folder.path())).unwrap();
        for hit in [false, true] {
            let made = compile(&cached, Emit::CodeObject);
            assert_eq!((made.cached, &made.bytes, &made.variants), (hit, &first.bytes, &first.variants));
        }
        assert!(compile(&cached, Emit::Asm).bytes != first.bytes, "the form of the output is part of the key");
    }

    #[test]
    fn the_ir_it_shows_is_the_ir_it_compiles() {
        let Some(toolchain) = toolchain(None) else { return };
        let target = Target::parse("gfx942").unwrap();
        let source = small_unit(target);
        let compile = |emit| toolchain.compile(&unit(&source), target, emit, &through(Backend::Llvm)).unwrap();
        let (ir, object) = (compile(Emit::LlvmIr), compile(Emit::CodeObject));
        let text = String::from_utf8(ir.bytes.clone()).unwrap();
        assert!(text.contains("\"target-cpu\"=\"gfx942\"") && text.contains("define protected amdgpu_kernel void @"), "{text}");
        let asked = object.variants.iter().any(|v| v.chosen().unwrap().name.ends_with("more wave"));
        assert_eq!(text.contains("\"amdgpu-waves-per-eu\""), asked);
        // It passes LLVM's verifier, and gives the same kernels.
        let again = toolchain.compile_ir("again", &ir.bytes, target, Emit::CodeObject).unwrap();
        same_interface(&CodeObject::parse(&again.bytes).unwrap(), &CodeObject::parse(&object.bytes).unwrap());
        let assembly = String::from_utf8(compile(Emit::Asm).bytes).unwrap();
        assert!(assembly.contains(".amdhsa_code_object_version 5") && assembly.contains(".amdhsa_kernel "), "{assembly}");
    }

    #[test]
    fn what_it_cannot_make_is_refused() {
        let Some(toolchain) = toolchain(None) else { return };
        for (target, emit) in [("sm_90", Emit::Ptx), ("host", Emit::HostSharedObject), ("sm_90", Emit::LlvmIr)] {
            let target = Target::parse(target).unwrap();
            let error = toolchain.compile(&unit("int x;"), target, emit, &through(Backend::Llvm)).unwrap_err();
            assert!(matches!(error, ToolchainError::Unsupported { .. }) && error.to_string().contains("llvm"), "{error}");
        }
        let source = "extern \"C\" __attribute__((global)) void k(int *o) {\n  *o = no_such_thing;\n}\n";
        let target = Target::parse("gfx1100").unwrap();
        let error = toolchain.compile(&unit(source), target, Emit::CodeObject, &through(Backend::Llvm)).unwrap_err();
        assert!(error.to_string().contains("cases.hip:2:8: error: use of undeclared identifier"), "{error}");
    }

    const HEAD: &str = "target triple = \"amdgcn-amd-amdhsa\"\n";

    #[test]
    fn broken_ir_is_an_error_and_no_abort() {
        let Some(toolchain) = toolchain(None) else { return };
        let target = Target::parse("gfx900").unwrap();
        let error = |ir: &str| {
            let error = toolchain.compile_ir("broken", format!("{HEAD}{ir}").as_bytes(), target, Emit::CodeObject);
            error.expect_err("broken IR was compiled")
        };
        let rejected = |ir: &str, says: &str| {
            let error = error(ir);
            assert!(matches!(error, ToolchainError::Rejected { .. }) && error.to_string().contains(says), "{error}");
        };
        rejected("define amdgpu_kernel void @k( {\n", "no LLVM IR");
        rejected("\u{1}\u{2}\u{3}", "no LLVM IR");
        // Parses, and breaks a rule.
        let after = "define amdgpu_kernel void @k(ptr addrspace(1) %p) {\n  store i32 %x, ptr addrspace(1) %p\n  %x = add i32 1, 2\n  ret void\n}\n";
        rejected(after, "does not dominate");
        rejected("define amdgpu_kernel i32 @k() {\n  ret i32 1\n}\n", "the IR is wrong");
        // Keeps every rule, but there is no such instruction on this processor: LLVM ends its process.
        let wmma = "declare <8 x float> @llvm.amdgcn.wmma.f32.16x16x16.f16.v8f32.v16f16(<16 x half>, <16 x half>, <8 x float>)\n\
            define amdgpu_kernel void @k(ptr addrspace(1) %p, <16 x half> %a) {\n  \
            %c = load <8 x float>, ptr addrspace(1) %p\n  \
            %d = call <8 x float> @llvm.amdgcn.wmma.f32.16x16x16.f16.v8f32.v16f16(<16 x half> %a, <16 x half> %a, <8 x float> %c)\n  \
            store <8 x float> %d, ptr addrspace(1) %p\n  ret void\n}\n";
        let error = error(wmma);
        assert!(matches!(error, ToolchainError::Crashed { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("annot select") && text.contains("--backend clang"), "{text}");
    }

    fn hipc(args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_hipc")).args(args).output().unwrap()
    }

    #[test]
    fn the_bundle_says_which_variant_each_kernel_has() {
        if toolchain(None).is_none() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (plan, model) = (folder.path().join("plan.bin"), demo_model());
        let (plan, model) = (plan.to_str().unwrap(), model.to_str().unwrap());
        let done = hipc(&["compile", model, "--arch", "gfx1030", "--backend", "llvm", "-q", "-o", plan]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let report: Value = serde_json::from_slice(&hipc(&["inspect", plan, "--json"]).stdout).unwrap();
        let compiler = report["provenance"]["compilers"][0][1].as_str().unwrap();
        assert!(compiler.starts_with("LLVM 22.1"), "{compiler}");
        let flags = report["provenance"]["flags"].as_array().unwrap();
        assert!(flags.contains(&"--backend llvm".into()), "{flags:?}");
        for kernel in report["archs"][0]["kernels"].as_array().unwrap() {
            let tried = kernel["variants_tried"].as_array().unwrap();
            let taken = tried.iter().find(|t| t["name"] == kernel["variant"]).unwrap();
            assert_eq!((&taken["vgpr"], &taken["waves"]), (&kernel["vgpr"], &kernel["occupancy"]), "{kernel}");
            let most = tried.iter().filter(|t| t["spills"] == false).map(|t| t["waves"].as_u64()).max().unwrap();
            assert_eq!(most, kernel["occupancy"].as_u64(), "{kernel}");
        }
        let table = hipc(&["inspect", plan]);
        let table = String::from_utf8_lossy(&table.stdout).into_owned();
        let mut others = 0;
        for kernel in report["archs"][0]["kernels"].as_array().unwrap() {
            let [name, variant] = ["name", "variant"].map(|key| kernel[key].as_str().unwrap());
            assert!(table.lines().any(|line| line.starts_with(name) && line.contains(variant)), "{name}: {variant}\n{table}");
            others += u32::from(variant != "default");
        }
        assert!(others > 0, "nothing but the default was taken\n{table}");
        let ir = hipc(&["dump", model, "--arch", "gfx1030", "--phase", "llvm-ir", "--backend", "llvm"]);
        assert!(String::from_utf8_lossy(&ir.stdout).contains("\"amdgpu-waves-per-eu\""));
    }
}
