//! Runs a kernel on the emulator under the sanitizer's eyes, and shows what it wrote and what was found.
//!
//!     cargo run -p hipc-emulator --example saxpy [CODE_OBJECT]
//!
//! The code object is what clang makes of [`SOURCE`], for any of the emulated GPUs. Without one, the example calls clang-22 (or what
//! `HIPC_CLANG` names) for gfx1100.

use hipc_emulator::{Dispatch, EmulatorError, Extent, Memory, Module, Options};
use std::error::Error;
use std::process::Command;

/// `y += a · x`; the last workgroup has more threads than elements.
const SOURCE: &str = r#"
extern "C" __attribute__((global)) void saxpy(float* y, const float* x, float a, int n) {
    int i = __builtin_amdgcn_workgroup_id_x() * 64 + __builtin_amdgcn_workitem_id_x();
    if (i < n) y[i] += a * x[i];
}
"#;

/// Elements.
const N: usize = 100;

fn compile() -> Result<Vec<u8>, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let (input, output) = (folder.path().join("saxpy.hip"), folder.path().join("saxpy.hsaco"));
    std::fs::write(&input, SOURCE)?;
    let clang = std::env::var_os("HIPC_CLANG").unwrap_or_else(|| "clang-22".into());
    let flags =
        ["-x", "hip", "--offload-arch=gfx1100", "--cuda-device-only", "--no-gpu-bundle-output", "-nogpuinc", "-nogpulib", "-O2"];
    let done = Command::new(clang).args(flags).arg("-o").args([&output, &input]).status()?;
    if !done.success() {
        return Err("clang doesn't take the kernel".into());
    }
    Ok(std::fs::read(output)?)
}

fn bytes(values: impl Iterator<Item = f32>) -> Vec<u8> {
    values.flat_map(f32::to_le_bytes).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let object = match std::env::args().nth(1) {
        Some(path) => std::fs::read(path)?,
        None => compile()?,
    };
    let module = Module::load(&object)?;
    let kernel = module.kernel("saxpy")?;
    println!("saxpy for {}: {} instructions, {} VGPRs", module.arch().name, kernel.instructions().len(), kernel.facts.vgpr_count);

    let memory = Memory::new();
    let size = 4 * N as u64;
    let (y, x) = (memory.allocate(size), memory.allocate(size));
    memory.write(y, &bytes((0..N).map(|i| i as f32)))?;
    memory.write(x, &bytes((0..N).map(|_| 1.0)))?;

    // The arguments as the kernel's metadata lays them out: two pointers, a float, an int.
    let mut kernarg = Vec::new();
    kernarg.extend(y.to_le_bytes());
    kernarg.extend(x.to_le_bytes());
    kernarg.extend(0.5f32.to_le_bytes());
    kernarg.extend((N as u32).to_le_bytes());
    let grid = [N.div_ceil(64) as u32, 1, 1];
    let dispatch = Dispatch { kernel: "saxpy", grid, workgroup: [64, 1, 1], dynamic_lds: 0, kernarg: &kernarg };
    let extents = [Extent { address: y, bytes: size, writable: true }, Extent { address: x, bytes: size, writable: false }];
    let options = Options { sanitize: true, extents: Some(&extents), ..Options::default() };
    match module.run(&dispatch, &memory, &options) {
        Ok(report) => {
            println!("{} waves, {} instructions, {} of lanes", report.waves, report.instructions, report.lane_instructions);
            report.findings.iter().for_each(|finding| println!("{finding}"));
        }
        // Which instruction of which lane can't go on, and why.
        Err(EmulatorError::Fault(fault)) => return Err(fault.into()),
        Err(error) => return Err(error.into()),
    }
    let mut result = vec![0; 4 * N];
    memory.read(y, &mut result)?;
    let values: Vec<f32> = result.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    println!("y = {:?} … {:?}", &values[..4], &values[N - 4..]);
    Ok(())
}
