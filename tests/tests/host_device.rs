//! The device `host` itself: waves, barriers, lanes that go astray, sanitizers, on kernels written for the purpose.

use hipc::target::Target;
use hipc::toolchain::{CompileOptions, Emit, Toolchain, UnitSource};
use hipc_tests::sanitizers;
use hipfire_run::device::host::{HostLibrary, HostProcess, Order};
use hipfire_run::device::{DeviceError, DevicePtr, Driver, KernelLaunch};

const HEADERS: [(&str, &str); 3] = [
    ("hipc/platform.h", include_str!("../../codegen-templates/include/hipc/platform.h")),
    ("hipc/host.h", include_str!("../../codegen-templates/include/hipc/host.h")),
    ("hipc/host_main.cpp", include_str!("../../codegen-templates/include/hipc/host_main.cpp")),
];

const UNIT: &str = r#"
#include "hipc/platform.h"
using namespace hipc;

// Sum of a workgroup's 256 values: a butterfly within waves, then LDS.
template <u32 Wave> static void sum(const i32* x, i32* out) {
  HIPC_SHARED i32 part[256 / Wave];
  u32 t = thread_id();
  u32 v = x[group_x() * 256 + t];
  for (u32 m = Wave / 2; m; m /= 2) v += shuffle<Wave>(v, (t ^ m) % Wave);
  if (t % Wave == 0) part[t / Wave] = v;
  barrier();
  i32 all = 0;
  for (u32 w = 0; w < 256 / Wave; ++w) all += part[w];
  if (t == 0) out[group_x()] = all;
}
extern "C" __global__ void sum32(const i32* x, i32* out) { sum<32>(x, out); }
extern "C" __global__ void sum64(const i32* x, i32* out) { sum<64>(x, out); }

// Every lane writes its coordinates: nothing is missed, whatever the order of workgroups.
extern "C" __global__ void where(i32* x, i32* out) { out[(group_y() * 7 + group_x()) * 32 + thread_id()] = 1 + group_y() * 10000 + group_x() * 100 + thread_id(); }

// Waves that shuffle a different number of times before they meet.
extern "C" __global__ void uneven(const i32* x, i32* out) {
  HIPC_SHARED u32 seen[8];
  u32 t = thread_id(), v = t;
  for (u32 i = 0; i <= t / 32; ++i) v = shuffle<32>(v, (t + 1) % 32);
  if (t % 32 == 0) seen[t / 32] = v;
  barrier();
  out[t] = seen[t % 8];
}

extern "C" __global__ void ends_early(const i32* x, i32* out) {
  if (thread_id() % 32 == 5) return;
  out[thread_id()] = shuffle<32>(x[0], 0);
}
extern "C" __global__ void waits_alone(const i32* x, i32* out) {
  if (thread_id() == 40) barrier();
  else out[thread_id()] = shuffle<32>(x[0], 0);
}
extern "C" __global__ void wave_missing(const i32* x, i32* out) {
  if (thread_id() / 32 != 3) barrier();
}
extern "C" __global__ void lane_outside(const i32* x, i32* out) { out[0] = shuffle<32>(x[0], 32); }
extern "C" __global__ void uninitialised(const i32* x, i32* out) {
  HIPC_SHARED i32 never[1];
  if (x[1] != 1) never[0] = x[2];
  out[0] = never[0];
}
extern "C" __global__ void beyond_lds(const i32* x, i32* out) {
  HIPC_SHARED i32 few[4];
  i32* p = few;
  p[4 + thread_id() / 256] = 1;
  barrier();
  out[0] = p[0];
}
extern "C" __global__ void beyond_buffer(const i32* x, i32* out) { out[256 + thread_id()] = x[0]; }
extern "C" __global__ void misaligned(const i32* x, i32* out) { out[0] = *(const i32*)((const char*)x + 1); }
extern "C" __global__ void overflows(const i32* x, i32* out) { out[0] = 0x7fffffff + x[1]; }
"#;

const KERNELS: [&str; 13] = [
    "sum32",
    "sum64",
    "where",
    "uneven",
    "ends_early",
    "waits_alone",
    "wave_missing",
    "lane_outside",
    "uninitialised",
    "beyond_lds",
    "beyond_buffer",
    "misaligned",
    "overflows",
];

/// `None` where the machine lacks the sanitizers.
fn compile(emit: Emit) -> Option<Vec<u8>> {
    let source =
        if emit == Emit::HostAsanExecutable { format!("{UNIT}#include \"hipc/host_main.cpp\"\n") } else { UNIT.to_owned() };
    let unit = UnitSource { name: "fibers", source: &source, headers: &HEADERS };
    let target = Target::parse("host").expect("the table has the host");
    let compiled = Toolchain::from_env().compile(&unit, target, emit, &CompileOptions::default());
    match emit {
        Emit::HostAsanExecutable => sanitizers::program(compiled),
        _ => Some(compiled.unwrap_or_else(|e| panic!("{e}")).bytes),
    }
}

/// A loaded device with an input of 0, 1, 2, … and an output of `out` i32, each in its own allocation.
struct Bench<D> {
    device: D,
    kernels: Vec<u64>,
    x: DevicePtr,
    out: DevicePtr,
    len: usize,
}

impl<D: Driver> Bench<D> {
    /// `None` where the machine lacks the sanitizers.
    fn new(mut device: D, emit: Emit, len: usize) -> Option<Self> {
        let kernels = device.load(&compile(emit)?, &KERNELS).expect("all kernels are there");
        let values: Vec<u8> = (0..len as i32).flat_map(i32::to_le_bytes).collect();
        let x = device.alloc(4 * len as u64).expect("memory");
        let out = device.alloc(4 * len as u64).expect("memory");
        device.upload(x, &values).expect("inside");
        Some(Self { device, kernels, x, out, len })
    }
    fn run(&mut self, name: &str, grid: [u32; 3], threads: u32) -> Result<Vec<i32>, String> {
        let kernel = KERNELS.iter().position(|k| *k == name).expect("in the list");
        let kernargs: Vec<u8> = [self.x, self.out].iter().flat_map(|p| p.to_le_bytes()).collect();
        let kernel = self.kernels[kernel];
        let launched = self.device.launch(KernelLaunch { kernel, grid, threads, kernargs: &kernargs, operands: &[] });
        launched.and_then(|()| self.device.sync()).map_err(|e| {
            assert!(matches!(e, DeviceError::Fault { .. }), "{e}");
            e.to_string()
        })?;
        let mut bytes = vec![0; 4 * self.len];
        self.device.download(self.out, &mut bytes).expect("inside");
        Ok(bytes.as_chunks::<4>().0.iter().map(|c| i32::from_le_bytes(*c)).collect())
    }
}

fn right_kernels<D: Driver>(bench: Option<Bench<D>>) {
    let Some(mut bench) = bench else { return };
    let expected: Vec<i32> = (0..4).map(|g| (0..256).map(|i| g * 256 + i).sum()).collect();
    for name in ["sum32", "sum64"] {
        assert_eq!(bench.run(name, [4, 1, 1], 256).unwrap()[..4], expected, "{name}");
    }
    let uneven = bench.run("uneven", [1, 1, 1], 256).unwrap();
    assert!((0..256).all(|t| uneven[t] == (t as i32 % 8) * 33 + 1), "{uneven:?}");
    let place = bench.run("where", [7, 3, 1], 32).unwrap();
    for (i, &v) in place[..7 * 3 * 32].iter().enumerate() {
        let (t, g) = (i % 32, i / 32);
        assert_eq!(v as usize, 1 + g / 7 * 10000 + g % 7 * 100 + t);
    }
}

fn stray_lanes<D: Driver>(bench: Option<Bench<D>>) {
    let Some(mut bench) = bench else { return };
    for (name, expected) in [
        (
            "ends_early",
            "ends_early: thread 5 of workgroup (0, 0, 0) came to the end of the kernel while thread 0 is at a shuffle",
        ),
        ("waits_alone", "waits_alone: thread 40 of workgroup (0, 0, 0) came to a barrier while thread 32 is at a shuffle"),
        ("wave_missing", "came to the end of the kernel while thread 0 is at a barrier"),
        ("lane_outside", "shuffles from a lane outside of its wave"),
    ] {
        let message = bench.run(name, [1, 1, 1], 256).unwrap_err();
        assert!(message.contains(expected), "{name}: {message}");
        // The device survives it.
        assert_eq!(bench.run("sum32", [1, 1, 1], 256).unwrap()[0], 255 * 128);
    }
}

#[test]
fn a_library_runs_right_kernels_in_any_order() {
    for order in [Order::Ascending, Order::Descending, Order::Stride(5)] {
        right_kernels(Bench::new(HostLibrary::new(order), Emit::HostSharedObject, 1024));
    }
}

#[test]
fn a_library_names_stray_lanes() {
    stray_lanes(Bench::new(HostLibrary::default(), Emit::HostSharedObject, 1024));
}

#[test]
fn lds_begins_with_rubbish() {
    let mut bench = Bench::new(HostLibrary::default(), Emit::HostSharedObject, 1024).expect("needs no sanitizer");
    assert_eq!(bench.run("uninitialised", [1, 1, 1], 32).unwrap()[0], -1);
}

#[test]
fn a_library_refuses_what_it_does_not_have() {
    let mut device = HostLibrary::default();
    let module = compile(Emit::HostSharedObject).expect("needs no sanitizer");
    let error = device.load(&module, &["sum32", "nowhere"]).unwrap_err();
    assert!(error.to_string().contains("no kernel nowhere"), "{error}");
    assert!(device.load(b"not a shared object", &[]).is_err());
    let block = device.alloc(16).unwrap();
    assert!(device.upload(block, &[0; 17]).is_err());
    assert!(device.download(block + 8, &mut [0; 9]).is_err());
    assert!(matches!(device.alloc(u64::MAX), Err(DeviceError::OutOfMemory { .. })));
}

#[test]
fn a_process_runs_right_kernels_and_names_stray_lanes() {
    right_kernels(Bench::new(HostProcess::new(Order::Descending), Emit::HostAsanExecutable, 1024));
    stray_lanes(Bench::new(HostProcess::default(), Emit::HostAsanExecutable, 1024));
}

#[test]
fn a_process_ends_without_findings() {
    let Some(mut bench) = Bench::new(HostProcess::default(), Emit::HostAsanExecutable, 1024) else { return };
    bench.run("sum32", [4, 1, 1], 256).unwrap();
    bench.device.finish().unwrap();
}

#[test]
fn sanitizers_see_every_step_aside() {
    for (name, expected) in [
        ("beyond_lds", "global-buffer-overflow"),
        ("beyond_buffer", "heap-buffer-overflow"),
        ("misaligned", "misaligned address"),
        ("overflows", "signed integer overflow"),
    ] {
        let Some(mut bench) = Bench::new(HostProcess::default(), Emit::HostAsanExecutable, 256) else { return };
        let message = bench.run(name, [1, 1, 1], 256).unwrap_err();
        assert!(message.contains(expected), "{name}: {message}");
        assert!(matches!(bench.device.alloc(8), Err(DeviceError::Internal(_))), "the process is gone");
    }
}
