//! What the emulator lacks is refused by the instruction's text and address: never overlooked, never guessed.

mod clang;

use hipc_emulator::{Dispatch, EmulatorError, FaultKind, Memory, Module, Options, Report};

/// Runs a kernel of one wave.
fn run(module: &Module, kernel: usize) -> Result<Report, EmulatorError> {
    let memory = Memory::new();
    let kernarg = memory.allocate(4096).to_le_bytes();
    let name = format!("k{kernel}");
    let dispatch = Dispatch { kernel: &name, grid: [1; 3], workgroup: [32, 1, 1], dynamic_lds: 0, kernarg: &kernarg };
    module.run(&dispatch, &memory, &Options::default())
}

/// Architecture, what is refused, what the message names, and the same without it, which runs.
const REFUSED: &[(&str, &str, &str, &str)] = &[
    (
        "gfx1100",
        "v_fma_mix_f32_e64_dpp v1, v2, v3, v4 row_shr:1 row_mask:0xf bank_mask:0xf",
        "DPP",
        "v_fma_mix_f32 v1, v2, v3, v4",
    ),
    (
        "gfx1201",
        "v_fma_mixlo_f16_e64_dpp v1, v2, v3, v4 dpp8:[7,6,5,4,3,2,1,0]",
        "DPP",
        "v_fma_mixlo_f16 v1, v2, v3, v4 op_sel_hi:[1,0,1] clamp",
    ),
    (
        "gfx1100",
        "v_mbcnt_lo_u32_b32_e64_dpp v1, v2, v3 row_shr:1 row_mask:0xf bank_mask:0xf",
        "DPP",
        "v_mbcnt_lo_u32_b32 v1, v2, v3",
    ),
    (
        "gfx90a",
        "v_fmac_f64_dpp v[2:3], v[4:5], v[6:7] row_newbcast:1 row_mask:0xf bank_mask:0xf",
        "DPP",
        "v_fmac_f64 v[2:3], v[4:5], v[6:7]",
    ),
    ("gfx90a", "v_rcp_f64_dpp v[2:3], v[4:5] row_newbcast:1 row_mask:0xf bank_mask:0xf", "DPP", "v_rcp_f64 v[2:3], v[4:5]"),
    ("gfx906", "v_cvt_f64_f32_dpp v[2:3], v4 row_shr:1 row_mask:0xf bank_mask:0xf", "DPP", "v_cvt_f64_f32 v[2:3], v4"),
    ("gfx942", "v_mov_b64_dpp v[2:3], v[4:5] row_newbcast:1 row_mask:0xf bank_mask:0xf", "DPP", "v_mov_b64 v[2:3], v[4:5]"),
    ("gfx906", "v_add_co_u32_e64 v1, vcc, v2, v3 clamp", "clamp", "v_add_co_u32_e64 v1, vcc, v2, v3"),
    ("gfx1100", "v_add_co_u32 v1, vcc_lo, v2, v3 clamp", "clamp", "v_add_co_u32 v1, vcc_lo, v2, v3"),
    ("gfx1030", "v_sub_co_ci_u32_e64 v1, vcc_lo, v2, v3, s2 clamp", "clamp", "v_sub_co_ci_u32_e64 v1, vcc_lo, v2, v3, s2"),
    ("gfx1100", "v_mad_u64_u32 v[2:3], vcc_lo, v4, v5, v[6:7] clamp", "clamp", "v_mad_u64_u32 v[2:3], vcc_lo, v4, v5, v[6:7]"),
    ("gfx942", "v_mad_i64_i32 v[2:3], vcc, v4, v5, v[6:7] clamp", "clamp", "v_mad_i64_i32 v[2:3], vcc, v4, v5, v[6:7]"),
    ("gfx1201", "v_s_rcp_f32 s3, s4 clamp", "clamp", "v_s_rcp_f32 s3, s4"),
    ("gfx1201", "v_s_exp_f32 s3, s4 mul:2", "mul", "v_s_exp_f32 s3, -|s4|"),
    ("gfx906", "v_div_fmas_f32 v1, v2, v3, v4 clamp", "clamp", "v_div_fmas_f32 v1, v2, v3, v4"),
    ("gfx90a", "v_div_fmas_f64 v[2:3], v[4:5], v[6:7], v[8:9] clamp", "clamp", "v_div_fmas_f64 v[2:3], v[4:5], v[6:7], v[8:9]"),
    ("gfx1100", "v_div_scale_f32 v1, vcc_lo, v2, v3, v4 clamp", "clamp", "v_div_scale_f32 v1, vcc_lo, v2, v3, v4"),
    (
        "gfx1030",
        "v_div_scale_f64 v[2:3], vcc_lo, v[4:5], v[6:7], v[8:9] clamp",
        "clamp",
        "v_div_scale_f64 v[2:3], vcc_lo, v[4:5], v[6:7], v[8:9]",
    ),
    ("gfx90a", "v_add_f64 v[2:3], v[4:5], v[6:7] clamp", "clamp", "v_add_f64 v[2:3], v[4:5], v[6:7]"),
    ("gfx906", "v_add_u32_e64 v1, v2, v3 clamp\n v_mad_i32_i24 v1, v2, v3, v4 clamp", "clamp", "v_add_u32_e64 v1, v2, v3 clamp"),
    // What LLVM's disassembler doesn't survive.
    ("gfx1100", "v_fmaak_f16 v1, v2, v3, 0xff", "v_fmaak_f16", "v_fmaak_f16 v1, v2, v3, 0xfe"),
    // The modes of floats may be set to what they are, and nothing else may be set.
    ("gfx1100", "s_setreg_imm32_b32 hwreg(HW_REG_MODE, 8, 1), 0", "MODE", "s_setreg_imm32_b32 hwreg(HW_REG_MODE, 4, 4), 0xf"),
    ("gfx1100", "s_setreg_imm32_b32 hwreg(HW_REG_MODE, 23, 1), 1", "MODE", "s_setreg_imm32_b32 hwreg(HW_REG_MODE, 0, 4), 0"),
    ("gfx942", "s_setreg_imm32_b32 hwreg(HW_REG_MODE, 12, 4), 0xf", "MODE", "s_setreg_imm32_b32 hwreg(HW_REG_MODE, 0, 4), 0"),
];

/// Rows of a table by their first column.
fn by_arch<T>(rows: &[T], arch: fn(&T) -> &'static str) -> Vec<(&'static str, Vec<&T>)> {
    let mut archs: Vec<&str> = rows.iter().map(arch).collect();
    archs.sort_unstable();
    archs.dedup();
    archs.into_iter().map(|a| (a, rows.iter().filter(|row| arch(row) == a).collect())).collect()
}

#[test]
fn what_is_not_emulated_says_so() {
    for (arch, rows) in by_arch(REFUSED, |row| row.0) {
        let bodies: Vec<String> = rows.iter().flat_map(|row| [format!("s_nop 0\n{}", row.1), row.3.to_owned()]).collect();
        let kernels: Vec<(&str, &str)> = bodies.iter().map(|body| (body.as_str(), "")).collect();
        let module = Module::load(&clang::assemble(arch, &kernels)).unwrap();
        for (at, (_, text, names, emulated)) in rows.into_iter().enumerate() {
            match run(&module, 2 * at) {
                Err(EmulatorError::Fault(fault)) => {
                    let last = text.lines().last().unwrap_or(text).trim();
                    let mnemonic = last.split(['_', ' ']).take(2).collect::<Vec<_>>().join("_");
                    let message = fault.to_string();
                    assert!(
                        matches!(&fault.kind, FaultKind::Unsupported(why) if why.contains(names)),
                        "{arch}: {text}: {message}"
                    );
                    assert!(fault.instruction.starts_with(&mnemonic) && fault.address != 0, "{arch}: {text}: {message}");
                    assert!(message.contains(&fault.instruction), "{message}");
                }
                other => panic!("{arch}: {text}: {other:?}"),
            }
            run(&module, 2 * at + 1).unwrap_or_else(|e| panic!("{arch}: {emulated}: {e}"));
        }
    }
}

/// Architecture, a line of the descriptor, what the error names; nothing where it runs.
const DESCRIPTORS: &[(&str, &str, &str)] = &[
    ("gfx906", "", ""),
    ("gfx906", ".amdhsa_ieee_mode 0", "ENABLE_IEEE_MODE"),
    ("gfx906", ".amdhsa_dx10_clamp 0", "ENABLE_DX10_CLAMP"),
    ("gfx906", ".amdhsa_fp16_overflow 1", "FP16_OVFL"),
    ("gfx90a", ".amdhsa_float_round_mode_32 1", "float mode 0xf1"),
    ("gfx90a", ".amdhsa_user_sgpr_queue_ptr 1", ""),
    ("gfx90a", ".amdhsa_user_sgpr_dispatch_id 1", ""),
    ("gfx1030", ".amdhsa_ieee_mode 0", "ENABLE_IEEE_MODE"),
    ("gfx1030", ".amdhsa_exception_fp_ieee_div_zero 1", "ENABLE_EXCEPTION"),
    ("gfx1100", ".amdhsa_dx10_clamp 0", "ENABLE_DX10_CLAMP"),
    ("gfx1100", ".amdhsa_system_sgpr_workgroup_info 1", "ENABLE_SGPR_WORKGROUP_INFO"),
    ("gfx1201", "", ""),
    ("gfx1201", ".amdhsa_fp16_overflow 1", "FP16_OVFL"),
];

#[test]
fn descriptors_that_ask_for_something_else() {
    for (arch, rows) in by_arch(DESCRIPTORS, |row| row.0) {
        let kernels: Vec<(&str, &str)> = rows.iter().map(|row| ("s_nop 0", row.1)).collect();
        let module = Module::load(&clang::assemble(arch, &kernels)).unwrap();
        for (at, (_, line, names)) in rows.into_iter().enumerate() {
            match run(&module, at) {
                Ok(_) => assert!(names.is_empty(), "{arch}: {line}: it ran"),
                Err(error @ (EmulatorError::Descriptor { .. } | EmulatorError::FloatMode { .. })) => {
                    let message = error.to_string();
                    assert!(!names.is_empty() && message.contains(names) && message.contains("`k"), "{arch}: {line}: {message}");
                }
                Err(other) => panic!("{arch}: {line}: {other}"),
            }
        }
    }
}
