//! Lane-instructions per second of a kernel of dot products, a kernel of fused multiply-adds, and one that walks LDS.
//!
//!     cargo bench -p hipc-emulator

#[path = "../tests/clang/mod.rs"]
mod clang;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hipc_emulator::{Dispatch, Memory, Module, Options};

const SOURCE: &str = r#"
#define KERNEL extern "C" __attribute__((global)) void
KERNEL bytes(const int* in, int* out) {
    int t = __builtin_amdgcn_workitem_id_x(), sum = 0;
    for (int i = 0; i < 256; i++) {
        int a = in[(i * 64 + t) & 4095], b = in[(i * 64 + t + 1024) & 4095];
        for (int k = 0; k < 4; k++) sum += (signed char)(a >> 8 * k) * (signed char)(b >> 8 * k);
    }
    out[__builtin_amdgcn_workgroup_id_x() * 64 + t] = sum;
}
KERNEL floats(const float* in, float* out) {
    int t = __builtin_amdgcn_workitem_id_x(); float a = in[t], b = in[t + 64], sum = 0, more = 0;
    for (int i = 0; i < 1024; i++) { sum = sum * a + b; more = more * b + a; }
    out[__builtin_amdgcn_workgroup_id_x() * 64 + t] = sum + more;
}
KERNEL shared(const int* in, int* out) {
    __attribute__((shared)) static int s[256];
    int t = __builtin_amdgcn_workitem_id_x(), at = t;
    for (int i = 0; i < 4; i++) s[i * 64 + t] = in[i * 64 + t] & 255;
    __builtin_amdgcn_s_barrier();
    for (int i = 0; i < 512; i++) at = s[at];
    out[__builtin_amdgcn_workgroup_id_x() * 64 + t] = at;
}
"#;

fn kernels(criterion: &mut Criterion) {
    for arch in ["gfx1100", "gfx942"] {
        let module = Module::load(&clang::compile(arch, &["-O3", "-ffp-contract=fast"], SOURCE)).expect("clang's code object");
        let memory = Memory::new();
        let (from, to) = (memory.allocate(1 << 14), memory.allocate(1 << 14));
        let kernarg: Vec<u8> = [from, to].iter().flat_map(|a| a.to_le_bytes()).collect();
        let options = Options { parallel: false, ..Options::default() };
        let mut group = criterion.benchmark_group(arch);
        for kernel in ["bytes", "floats", "shared"] {
            let dispatch = Dispatch { kernel, grid: [16, 1, 1], workgroup: [64, 1, 1], dynamic_lds: 0, kernarg: &kernarg };
            let run = || module.run(&dispatch, &memory, &options).expect("a kernel without faults");
            // Elements are lane-instructions: criterion prints how many a second.
            group.throughput(Throughput::Elements(run().lane_instructions));
            group.bench_function(kernel, |bencher| bencher.iter(run));
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(std::time::Duration::from_secs(2));
    targets = kernels
}
criterion_main!(benches);
