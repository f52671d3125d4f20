//! The flags of each target and output. Parameters of kernels are template arguments, never flags.

use super::{Backend, CompileOptions, Emit, ToolchainError};
use crate::target::{Platform, Target};

/// Flags for every clang: no configuration files, no warnings (nobody would see them), diagnostics without colour.
const COMMON: [&str; 6] =
    ["--no-default-config", "-std=c++17", "-ffp-contract=fast", "-w", "-fno-color-diagnostics", "-ferror-limit=20"];

/// HIP without ROCm: no headers, no device libraries, a bare linked ELF; v5 loads on every ROCm from 5.2 on. The CUID, a
/// symbol named after a hash of the path, would make the output depend on where it was compiled.
const AMD: [&str; 8] = [
    "-xhip",
    "--cuda-device-only",
    "--no-gpu-bundle-output",
    "-nogpuinc",
    "-nogpulib",
    "-mcode-object-version=5",
    "-fuse-cuid=none",
    "-O3",
];

const NVIDIA: [&str; 7] =
    ["-xcuda", "--cuda-device-only", "-nocudainc", "-nocudalib", "--cuda-feature=+ptx80", "-fuse-cuid=none", "-O3"];

/// All flags but the files.
pub(super) fn flags(target: &Target, emit: Emit, options: &CompileOptions) -> Result<Vec<String>, ToolchainError> {
    let unsupported = || ToolchainError::Unsupported { target: target.name, emit, backend: options.backend };
    let hipcc = options.backend == Backend::Hipcc;
    if !emit.exists_on(target.platform) || (hipcc && emit != Emit::CodeObject) {
        return Err(unsupported());
    }
    let mut flags: Vec<String> = Vec::new();
    let mut add = |some: &[&str]| flags.extend(some.iter().map(|&f| f.to_owned()));
    if hipcc {
        add(&["--genco", &format!("--offload-arch={}", target.name)]);
        add(&["-mcode-object-version=5", "-O3", "-std=c++17", "-ffp-contract=fast"]);
    } else {
        add(&COMMON);
        match target.platform {
            Platform::Amd => {
                add(&AMD);
                add(&[&format!("--offload-arch={}", target.name)]);
            }
            Platform::Nvidia => {
                add(&NVIDIA);
                add(&[&format!("--cuda-gpu-arch={}", target.name)]);
            }
            Platform::Host => add(&["-xc++"]),
        }
        match emit {
            // The front end alone: every pass is left to the back end.
            _ if options.backend == Backend::Llvm => add(&["-c", "-emit-llvm", "-Xclang", "-disable-llvm-passes"]),
            Emit::CodeObject => {}
            Emit::LlvmIr => add(&["-S", "-emit-llvm"]),
            Emit::Asm | Emit::Ptx => add(&["-S"]),
            Emit::HostSharedObject => add(&["-shared", "-fuse-ld=lld"]),
            Emit::HostAsanExecutable => add(&[
                // Links the C++ runtime and the sanitizers' part for it.
                "--driver-mode=g++",
                "-O1",
                // Lines are enough for a report; full debug information takes four times as long.
                "-gline-tables-only",
                "-ffile-compilation-dir=.",
                "-fno-omit-frame-pointer",
                "-fsanitize=address,undefined",
                "-fno-sanitize-recover=all",
                // Kernels are found by dlsym.
                "-rdynamic",
                "-fuse-ld=lld",
            ]),
        }
        if target.platform == Platform::Host && emit != Emit::HostAsanExecutable {
            add(&["-O1", "-fPIC"]);
        }
        if target.platform == Platform::Host && has_fma_and_f16() {
            add(&["-march=x86-64-v3"]);
        }
    }
    flags.extend(options.extra_flags.iter().cloned());
    Ok(flags)
}

/// Whether this machine has x86-64-v3: as on GPUs, products are fused into sums and f16 is converted by an instruction.
fn has_fma_and_f16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("movbe");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Libraries, which stand behind the sources: libm for what is linked for the host.
pub(super) fn libraries(target: &Target, flags: &[String]) -> &'static [&'static str] {
    let linked = target.platform == Platform::Host && !flags.iter().any(|f| f == "-S");
    if linked { &["-lm"] } else { &[] }
}

/// A unit that every compiler fit for the target accepts.
pub(super) fn probe_source(target: &Target, emit: Emit) -> &'static str {
    match (target.platform, emit) {
        (Platform::Host, Emit::HostAsanExecutable) => "int main() { return 0; }\n",
        (Platform::Host, _) => "extern \"C\" void probe(int *out) { *out = 1; }\n",
        _ => "extern \"C\" __attribute__((global)) void probe(int *out) { *out = 1; }\n",
    }
}
