//! Kernels as people write them, compiled for each architecture and run: the host computes the same another way.

#[path = "../clang/mod.rs"]
mod clang;
mod matrices;
mod table;

use hipc_emulator::{Dispatch, Memory, Module, Options};
use matrices::{MATRICES, matrices};
use table::KERNELS;

const ARCHS: [&str; 8] = ["gfx906", "gfx90a", "gfx942", "gfx1010", "gfx1012", "gfx1030", "gfx1100", "gfx1201"];
/// Threads of a workgroup, workgroups.
const THREADS: usize = 64;
const GROUPS: usize = 3;
const ALL: usize = THREADS * GROUPS;
/// Words of the input and of the output.
const WORDS: usize = 1024;

/// Beside what every kernel is compiled with.
const FLAGS: [&str; 2] = ["-O3", "-Wno-everything"];

const PRELUDE: &str = r#"
typedef unsigned u32; typedef unsigned long long u64; typedef long long i64;
typedef _Float16 half2 __attribute__((ext_vector_type(2)));
typedef _Float16 half4 __attribute__((ext_vector_type(4)));
typedef float float4 __attribute__((ext_vector_type(4)));
#define SHARED __attribute__((shared)) static
static __attribute__((device)) inline float f(u32 v) { return __builtin_bit_cast(float, v); }
static __attribute__((device)) inline u32 b(float v) { return __builtin_bit_cast(u32, v); }
static __attribute__((device)) inline void sync() { __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup"); __builtin_amdgcn_s_barrier(); __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup"); }
static __attribute__((device, noinline)) int collatz(u32 n, int* most) {
    int steps = 0;
    while (n > 1 && steps < 40) { n = n & 1 ? 3 * n + 1 : n / 2; if ((int)n > *most) *most = n; steps++; }
    return steps;
}
static __attribute__((device, noinline)) u32 nested(u32 n) { int most = 7; int s = collatz(n % 1000, &most); return s * 1000003u + most; }
"#;

fn mix(i: usize) -> u32 {
    let mut x = (i as u32).wrapping_mul(0x9e37_79b9) ^ 0x7f4a_7c15;
    x ^= x >> 15;
    x = x.wrapping_mul(0x85eb_ca6b);
    x ^= x >> 13;
    x = x.wrapping_mul(0xc2b2_ae35);
    x ^ x >> 16
}

fn f(v: u32) -> f32 {
    f32::from_bits(v)
}

fn source() -> String {
    let head = "#define KERNEL(name) static __attribute__((device)) void name##_body(const u32* in, u32* out, int t, int g, int i); \\\n\
        extern \"C\" __attribute__((global)) __attribute__((amdgpu_flat_work_group_size(1, 64))) void name(const u32* in, u32* out) { \\\n\
        int t = __builtin_amdgcn_workitem_id_x(), g = __builtin_amdgcn_workgroup_id_x(); name##_body(in, out, t, g, g * 64 + t); } \\\n\
        static __attribute__((device)) void name##_body(const u32* in, u32* out, int t, int g, int i)\n";
    let mut text = format!("{PRELUDE}{head}{MATRICES}");
    for kernel in KERNELS {
        text += &format!("KERNEL({}) {{ {} }}\n", kernel.name, kernel.body);
    }
    text
}

fn run(module: &Module, name: &str, input: &[u32], groups: u32) -> Result<Vec<u32>, String> {
    let memory = Memory::new();
    let (from, to) = (memory.allocate(4 * WORDS as u64), memory.allocate(4 * WORDS as u64));
    let bytes: Vec<u8> = input.iter().flat_map(|w| w.to_le_bytes()).collect();
    memory.write(from, &bytes).map_err(|e| e.to_string())?;
    let kernarg: Vec<u8> = [from, to].iter().flat_map(|a| a.to_le_bytes()).collect();
    let dispatch =
        Dispatch { kernel: name, grid: [groups, 1, 1], workgroup: [THREADS as u32, 1, 1], dynamic_lds: 0, kernarg: &kernarg };
    module.run(&dispatch, &memory, &Options { parallel: false, ..Options::default() }).map_err(|e| e.to_string())?;
    let mut bytes = vec![0; 4 * WORDS];
    memory.read(to, &mut bytes).map_err(|e| e.to_string())?;
    Ok(bytes.chunks(4).map(|c| u32::from_le_bytes(c.try_into().unwrap())).collect())
}

fn modules() -> Vec<(&'static str, Module)> {
    let source = source();
    ARCHS.iter().map(|arch| (*arch, Module::load(&clang::compile(arch, &FLAGS, &source)).expect("clang's code object"))).collect()
}

#[test]
fn kernels_compute_what_the_host_does() {
    let mut wrong = Vec::new();
    for (arch, module) in modules() {
        for kernel in KERNELS {
            let input: Vec<u32> = (0..WORDS).map(kernel.input).collect();
            let expected = (kernel.expect)(&input);
            match run(&module, kernel.name, &input, GROUPS as u32) {
                Err(why) => wrong.push(format!("{arch}: {why}")),
                Ok(got) => {
                    let same = |a: u32, b: u32| {
                        a == b || kernel.tolerance > 0.0 && (f(a) - f(b)).abs() <= kernel.tolerance * f(b).abs().max(1e-3)
                    };
                    let mut pairs = got.iter().zip(&expected).enumerate();
                    if let Some((at, (a, b))) = pairs.find(|(_, (a, b))| !same(**a, **b)) {
                        let (x, y) = (f(*a), f(*b));
                        wrong.push(format!("{arch}: {} of {at}: {a:#x} ({x}), not {b:#x} ({y})", kernel.name));
                    }
                }
            }
        }
        wrong.extend(matrices(arch, &module));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
