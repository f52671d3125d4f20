//! Kernels in HIP C++ and in assembly for the tests and benchmarks of this crate.

// Not every test needs both.
#![allow(dead_code)]

use std::process::Command;

fn clang() -> Command {
    Command::new(std::env::var_os("HIPC_CLANG").unwrap_or_else(|| "clang-22".into()))
}

fn output(mut command: Command, arch: &str, name: &str, source: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (input, output) = (folder.path().join(name), folder.path().join("k.hsaco"));
    std::fs::write(&input, source).expect("a writable folder");
    let done = command.arg("-o").args([&output, &input]).output().expect("clang-22, see scripts/setup.sh");
    assert!(done.status.success(), "{arch}: {}\n{source}", String::from_utf8_lossy(&done.stderr));
    std::fs::read(&output).expect("clang's output")
}

/// The code object of `source` for an architecture, by the clang that `HIPC_CLANG` names, or clang-22. Of version 5, unless a flag
/// says otherwise.
///
/// # Panics
/// Without that clang, or if it doesn't take the source.
pub fn compile(arch: &str, flags: &[&str], source: &str) -> Vec<u8> {
    let mut command = clang();
    command
        .args(["-x", "hip", &format!("--offload-arch={arch}"), "--cuda-device-only", "--no-gpu-bundle-output"])
        .args(["-nogpuinc", "-nogpulib", "-mcode-object-version=5"])
        .args(flags);
    output(command, arch, "k.hip", source)
}

/// Scratch of an assembled kernel, bytes per lane.
pub const SCRATCH: u32 = 64;
/// Its LDS, bytes.
pub const LDS: u32 = 256;

/// The code object of kernels `k0`, `k1` … of these instructions and more lines of their descriptors each. They take one pointer
/// (`s[0:1]` points to it) and workgroups of up to 64. Waves have 32 lanes where there is a choice.
///
/// # Panics
/// Without a clang, or if it doesn't take the instructions.
pub fn assemble(arch: &str, kernels: &[(&str, &str)]) -> Vec<u8> {
    let lanes = if arch.starts_with("gfx9") { 64 } else { 32 };
    let wave = if lanes == 32 { ".amdhsa_wavefront_size32 1" } else { "" };
    let accumulators = if ["gfx90a", "gfx942", "gfx950"].contains(&arch) { ".amdhsa_accum_offset 32" } else { "" };
    let mut source = format!(".amdgcn_target \"amdgcn-amd-amdhsa--{arch}\"\n");
    for (n, (body, directives)) in kernels.iter().enumerate() {
        source += &format!(
            ".text\n.globl k{n}\n.p2align 8\n.type k{n},@function\nk{n}:\n{body}\n  s_endpgm\n.Lend{n}:\n.size k{n}, .Lend{n}-k{n}
.rodata\n.p2align 6\n.amdhsa_kernel k{n}\n  .amdhsa_group_segment_fixed_size {LDS}\n  .amdhsa_private_segment_fixed_size {SCRATCH}
  .amdhsa_user_sgpr_kernarg_segment_ptr 1\n  .amdhsa_next_free_vgpr 32\n  .amdhsa_next_free_sgpr 32
  .amdhsa_float_denorm_mode_32 3\n  {wave}\n  {accumulators}\n{directives}\n.end_amdhsa_kernel\n"
        );
    }
    source +=
        &format!(".amdgpu_metadata\n---\namdhsa.version: [1, 2]\namdhsa.target: amdgcn-amd-amdhsa--{arch}\namdhsa.kernels:\n");
    for n in 0..kernels.len() {
        source += &format!(
            "  - .name: k{n}\n    .symbol: k{n}.kd\n    .kernarg_segment_size: 8\n    .kernarg_segment_align: 8
    .group_segment_fixed_size: {LDS}\n    .private_segment_fixed_size: {SCRATCH}\n    .wavefront_size: {lanes}
    .sgpr_count: 32\n    .vgpr_count: 32\n    .max_flat_workgroup_size: 64
    .args:\n      - {{.size: 8, .offset: 0, .value_kind: global_buffer, .address_space: global}}\n"
        );
    }
    source += "...\n.end_amdgpu_metadata\n";
    let mut command = clang();
    command.args(["-x", "assembler", "-target", "amdgcn-amd-amdhsa", "-mcode-object-version=5", &format!("-mcpu={arch}")]);
    output(command, arch, "k.s", &source)
}
