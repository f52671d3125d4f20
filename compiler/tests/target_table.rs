//! The target table against clang: every row's wave, dot products, LDS and occupancy as the compiler has them.

mod common;

use hipc::target::{Dot4, TARGETS, Target};
use hipc::toolchain::{CompileOptions, Emit, Toolchain, ToolchainError, UnitSource};
use hipc_codeobj::{AbiVersion, CodeObject, SimdFacts, Usage, occupancy};
use rayon::prelude::*;

const SDOT4: &str = "__builtin_amdgcn_sdot4(a[i], b[i], o[i], false)";
const SUDOT4: &str = "__builtin_amdgcn_sudot4(true, a[i], true, b[i], o[i], false)";
const FDOT2: &str = "__builtin_amdgcn_fdot2(((const half2 *)a)[i], ((const half2 *)b)[i], (float)o[i], false)";

fn kernel(expression: &str) -> String {
    format!(
        "typedef _Float16 half2 __attribute__((ext_vector_type(2)));\n\
         extern \"C\" __attribute__((global)) void k(int *o, const int *a, const int *b) {{\n\
           unsigned i = __builtin_amdgcn_workitem_id_x();\n\
           o[i] = {expression};\n\
         }}\n"
    )
}

fn compile(toolchain: &Toolchain, target: &Target, source: &str, emit: Emit) -> Result<Vec<u8>, ToolchainError> {
    let unit = UnitSource { name: "probe", source, headers: &[] };
    toolchain.compile(&unit, target, emit, &CompileOptions::default()).map(|c| c.bytes)
}

fn accepts(toolchain: &Toolchain, target: &Target, source: &str) -> bool {
    match compile(toolchain, target, source, Emit::CodeObject) {
        Ok(_) => true,
        Err(ToolchainError::Rejected { .. }) => false,
        Err(other) => panic!("{target}: {other}"),
    }
}

fn amd() -> impl ParallelIterator<Item = &'static Target> {
    TARGETS.par_iter().filter(|t| Target::all_amd().any(|a| a.name == t.name))
}

#[test]
fn dot_products_are_accepted_exactly_where_the_rows_say() {
    let Some(toolchain) = common::toolchain(None) else { return };
    let wrong: Vec<String> = amd()
        .flat_map_iter(|target| {
            let probes = [
                ("sdot4", SDOT4, target.dot4 == Dot4::SDot4),
                ("sudot4", SUDOT4, target.dot4 == Dot4::SUDot4),
                ("fdot2", FDOT2, target.fdot2),
            ];
            let toolchain = &toolchain;
            probes.into_iter().filter_map(move |(name, expression, expected)| {
                let found = accepts(toolchain, target, &kernel(expression));
                (found != expected).then(|| format!("{target}: {name} accepted: {found}, in the table: {expected}"))
            })
        })
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn every_row_compiles_to_code_object_v5_of_its_wave() {
    let Some(toolchain) = common::toolchain(None) else { return };
    amd().for_each(|target| {
        let bytes = compile(&toolchain, target, &kernel("a[i] * b[i]"), Emit::CodeObject).unwrap();
        let object = CodeObject::parse(&bytes).unwrap();
        assert_eq!((object.target.as_str(), object.abi), (target.name, AbiVersion::V5));
        let k = object.kernel("k").unwrap();
        assert_eq!(k.wavefront_size, target.simd.wave_size, "{target}");
        assert_eq!((k.private_segment_fixed_size, k.vgpr_spill_count, k.sgpr_spill_count), (0, 0, 0), "{target}");
        assert_eq!(k.explicit_kernarg_size(), 24);
    });
}

#[test]
fn workgroups_have_exactly_the_lds_of_the_row() {
    let Some(toolchain) = common::toolchain(None) else { return };
    amd().for_each(|target| {
        let source = |bytes: u32| {
            let array = format!("__attribute__((shared)) static int lds[{}];", bytes / 4);
            let body = "lds[i] = *a; __builtin_amdgcn_s_barrier(); o[i] = lds[63 - i]";
            kernel("0").replace("o[i] = 0", &format!("{array} {body}"))
        };
        assert!(accepts(&toolchain, target, &source(target.lds_per_workgroup)), "{target}");
        assert!(!accepts(&toolchain, target, &source(target.lds_per_workgroup + 4)), "{target}");
    });
}

/// clang writes `; Occupancy: N` behind every kernel of its assembly; ours must be the same for as many registers, as much
/// LDS and as large a workgroup.
#[test]
fn occupancy_is_clangs() {
    let Some(toolchain) = common::toolchain(None) else { return };
    let mut source = String::new();
    for vgprs in [24, 33, 48, 64, 65, 80, 96, 97, 108, 128, 144, 168, 192, 193, 220, 256] {
        source += &format!(
            "extern \"C\" __attribute__((global, amdgpu_flat_work_group_size(64, 64))) void v{vgprs}(int *o) \
             {{ asm volatile(\"\" ::: \"v{}\"); *o = 1; }}\n",
            vgprs - 1
        );
    }
    for size in [64, 256, 1024] {
        for lds in [1024, 8192, 16384, 20000, 32768, 65536] {
            source += &format!(
                "extern \"C\" __attribute__((global, amdgpu_flat_work_group_size({size}, {size}))) void l{size}_{lds}(int *o) {{\n\
                 __attribute__((shared)) static int lds[{}]; unsigned i = __builtin_amdgcn_workitem_id_x();\n\
                 lds[i] = *o; __builtin_amdgcn_s_barrier(); o[i] = lds[63 - i]; }}\n",
                lds / 4
            );
        }
    }
    let source = source.as_str();
    let compared: usize = amd()
        .map(|target| {
            let object = compile(&toolchain, target, source, Emit::CodeObject).unwrap();
            let object = CodeObject::parse(&object).unwrap();
            let assembly = String::from_utf8(compile(&toolchain, target, source, Emit::Asm).unwrap()).unwrap();
            let printed = printed_occupancy(&assembly);
            for (name, clangs) in &printed {
                let k = object.kernel(name).unwrap();
                let usage = k.usage(k.max_flat_workgroup_size, 0);
                // clang doesn't count what rounding LDS up to its granule costs (gfx950: 1,280 bytes); we do.
                let facts = SimdFacts { lds_granule: 1, ..target.simd };
                let ours = occupancy(&facts, &usage);
                assert_eq!(ours.waves_per_simd, *clangs, "{target} {name} {usage:?} {ours:?}");
            }
            printed.len()
        })
        .sum();
    assert_eq!(compared, 26 * 34);
    let lots = Usage { vgprs: 24, sgprs: 106, lds_bytes: 0, workgroup_size: 256 };
    let gfx9 = Target::parse("gfx900").unwrap();
    assert_eq!(occupancy(&gfx9.simd, &lots).waves_per_simd, 7, "clang prints 7 for 106 SGPRs");
}

fn printed_occupancy(assembly: &str) -> Vec<(&str, u32)> {
    let mut kernel = "";
    let mut found = Vec::new();
    for line in assembly.lines() {
        if let Some((label, comment)) = line.split_once(':')
            && comment.contains("; @")
        {
            kernel = label;
        }
        if let Some(number) = line.strip_prefix("; Occupancy: ") {
            found.push((kernel, number.trim().parse().unwrap()));
        }
    }
    found
}
