//! Kernels in HIP C++ for the tests and benchmarks of this crate.

use std::process::Command;

/// The code object of `source` for an architecture, by the clang that `HIPC_CLANG` names, or clang-22.
///
/// # Panics
/// Without that clang, or if it doesn't take the source.
pub fn compile(arch: &str, flags: &[&str], source: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (input, output) = (folder.path().join("k.hip"), folder.path().join("k.hsaco"));
    std::fs::write(&input, source).expect("a writable folder");
    let done = Command::new(std::env::var_os("HIPC_CLANG").unwrap_or_else(|| "clang-22".into()))
        .args(["-x", "hip", &format!("--offload-arch={arch}"), "--cuda-device-only", "--no-gpu-bundle-output"])
        .args(["-nogpuinc", "-nogpulib", "-mcode-object-version=5"])
        .args(flags)
        .arg("-o")
        .args([&output, &input])
        .output()
        .expect("clang-22, see scripts/setup.sh");
    assert!(done.status.success(), "{arch}: {}", String::from_utf8_lossy(&done.stderr));
    std::fs::read(&output).expect("clang's output")
}
