//! Device `hip`: against a stand-in libamdhip64 that is compiled with HIP's own header and fails on command, and against
//! Debian's real library on a machine without a GPU.

use hipc::emit::emit_unit;
use hipc::pipeline::{self, Options};
use hipc::target::Target;
use hipc::toolchain::{CompileOptions, Emit, Toolchain, UnitSource};
use hipc_codeobj::CodeObject;
use hipc_ir::fused::{Finish, FusedOp, ProgramKind, Row, RowExpr};
use hipc_ir::graph::{RopeDecl, RopeStyle, Weight, WeightDecl};
use hipc_ir::plan::{
    BufferDecl, BufferKind, Cost, Geometry, KernelSpec, Launch, ModelInfo, Plan, Program, SamplingState, Space, StepState,
};
use hipc_ir::{DType, EntityRef, KvType, Layout, PrimaryMap, Real};
use hipc_tests::file_weights::FileWeights;
use hipc_tests::shared::demo_model;
use hipfire_run::conversation::{Conversation, Limits};
use hipfire_run::device::hip::{HipDriver, HipRuntime};
use hipfire_run::device::{Backend, DeviceError, Driver, DriverBackend, KernelLaunch, Placement, WeightSource};
use hipfire_run::engine::{EngineError, PlanEngine};
use hipfire_run::generate::{Chooser, GenerateError};
use hipfire_run::text::{ChatTemplate, SamplerParams, Tokenizer};
use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use tempfile::TempDir;

const HEADER: &str = "/usr/include/hip/hip_runtime_api.h";
const N: u32 = 192;

/// `out = x + y`, for one token.
const UNIT: &str = r#"
#include "hipc/platform.h"
struct State { int pos, n, head_from, generation; };
#ifdef __HIP__
extern "C" __global__ __launch_bounds__(64)
#else
extern "C" __global__
#endif
void add(const State* state, const float* x, const float* y, float* out) {
  unsigned i = hipc::group_x() * 64 + hipc::thread_id();
  if (state->n == 1) out[i] = x[i] + y[i];
}
"#;

fn headers() -> [(&'static str, &'static str); 2] {
    [
        ("hipc/platform.h", include_str!("../../codegen-templates/include/hipc/platform.h")),
        ("hipc/host.h", include_str!("../../codegen-templates/include/hipc/host.h")),
    ]
}

fn compile(target: &str, emit: Emit) -> Vec<u8> {
    let headers = headers();
    let unit = UnitSource { name: "standin", source: UNIT, headers: &headers };
    let target = Target::parse(target).expect("a known target");
    Toolchain::from_env().compile(&unit, target, emit, &CompileOptions::default()).unwrap_or_else(|e| panic!("{e}")).bytes
}

/// A stand-in of this test's own (a library's state belongs to its file), with the unit it executes.
struct StandIn {
    folder: TempDir,
    library: libloading::Library,
    code: Vec<u8>,
}

impl StandIn {
    /// With the unit of these tests. `None`, with a line that says so, where HIP's headers or a C compiler are missing.
    fn new(flags: &[&str]) -> Option<Self> {
        Self::with_unit(flags, compile("gfx1100", Emit::CodeObject), &compile("host", Emit::HostSharedObject))
    }

    fn with_unit(flags: &[&str], code: Vec<u8>, unit: &[u8]) -> Option<Self> {
        if !Path::new(HEADER).exists() {
            println!("skipped: {HEADER} is not there (package libamdhip64-dev)");
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("standin/amdhip64.c");
        let output = folder.path().join("libamdhip64.so");
        let compiled = ["clang-22", "clang", "cc"].iter().find_map(|compiler| {
            let mut command = Command::new(compiler);
            command.args(["-std=gnu11", "-shared", "-fPIC", "-fvisibility=hidden", "-O1", "-Wall", "-Werror"]);
            command.arg("-D__HIP_PLATFORM_AMD__").args(flags).arg(&source).arg("-o").arg(&output).arg("-ldl").output().ok()
        });
        let compiled = compiled.or_else(|| {
            println!("skipped: no C compiler");
            None
        })?;
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let mut meta = String::new();
        for kernel in &CodeObject::parse(&code).expect("our code object").kernels {
            let (size, threads) = (kernel.explicit_kernarg_size(), kernel.max_flat_workgroup_size);
            writeln!(meta, "{} {size} {threads}", kernel.name).expect("a string");
        }
        fs::write(folder.path().join("meta"), meta).expect("a file");
        fs::write(folder.path().join("unit.so"), unit).expect("a file");
        // SAFETY: our own library, without constructors.
        let library = unsafe { libloading::Library::new(&output) }.expect("just compiled");
        let standin = Self { folder, library, code };
        standin.configure("", "gfx1100", 0);
        Some(standin)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("libamdhip64.so")
    }

    fn configure(&self, fail: &str, arch: &str, memory: usize) {
        let text = |s: &str| CString::new(s).expect("no zeros");
        let file = |name: &str| text(self.folder.path().join(name).to_str().expect("UTF-8"));
        let (fail, arch, meta, unit) = (text(fail), text(arch), file("meta"), file("unit.so"));
        type Configure = unsafe extern "C" fn(*const c_char, *const c_char, *const c_char, *const c_char, usize);
        // SAFETY: the type is the source's; the strings are copied.
        unsafe {
            let configure = self.library.get::<Configure>(b"standin_configure\0").expect("exported");
            configure(fail.as_ptr(), meta.as_ptr(), unit.as_ptr(), arch.as_ptr(), memory);
        }
    }

    fn report(&self) -> String {
        // SAFETY: the type is the source's; the string lives until the next call.
        unsafe {
            let report = self.library.get::<unsafe extern "C" fn() -> *const c_char>(b"standin_report\0").expect("exported");
            CStr::from_ptr(report()).to_string_lossy().into_owned()
        }
    }

    fn count(&self, symbol: &[u8]) -> c_int {
        // SAFETY: the type is the source's.
        unsafe { self.library.get::<unsafe extern "C" fn() -> c_int>(symbol).expect("exported")() }
    }
    fn launches(&self) -> c_int {
        self.count(b"standin_launches\0")
    }
    fn graph_launches(&self) -> c_int {
        self.count(b"standin_graph_launches\0")
    }
}

/// One launch, `out = x + w`, in two programs' worth of steps; a table that only has to be uploaded.
fn plan() -> Plan {
    let op = FusedOp::Row(Row { n: N, expr: RowExpr::Add, residual: false, finish: Finish::RAW });
    let geometry =
        Geometry { wave: 32, waves: 2, rows_per_wave: 1, k_waves: 1, row_steps: 1, tile: 64, tokens: 1, splits: 1, parts_in: 0 };
    let (mut weights, mut ropes, mut kernels) = (PrimaryMap::new(), PrimaryMap::new(), PrimaryMap::new());
    let weight = weights.push(WeightDecl { name: "w".into(), dtype: DType::F32, rows: 1, cols: N });
    let rope = ropes.push(RopeDecl { style: RopeStyle::Norm, dims: 8, base: Real(1e4), freq_scale: Real(1.0), factors: None });
    let kernel = kernels.push(KernelSpec { name: "add".into(), op, geometry });
    let mut buffers = PrimaryMap::new();
    let mut offsets = [0; Space::ALL.len()];
    let mut buffer = |kind, space: Space, bytes: u64| {
        let offset = &mut offsets[Space::ALL.iter().position(|&s| s == space).expect("listed")];
        let decl = BufferDecl { kind, space, offset: *offset, bytes };
        *offset += bytes.next_multiple_of(Plan::ALIGN);
        buffers.push(decl)
    };
    let state = buffer(BufferKind::State, Space::Persistent, StepState::BYTES);
    let tokens = buffer(BufferKind::Tokens, Space::Persistent, 4 * 1025);
    let outbox = buffer(BufferKind::Outbox, Space::Pinned, 4 * 1025);
    let sampling = buffer(BufferKind::Sampling, Space::Persistent, SamplingState::BYTES);
    let draws = buffer(BufferKind::Draws, Space::Persistent, 8 * 1025);
    let w = buffer(BufferKind::Weight(weight, Layout::Gguf), Space::Weights, u64::from(4 * N));
    let x = buffer(BufferKind::F32(N), Space::Arena, u64::from(4 * N));
    let out = buffer(BufferKind::Logits, Space::Persistent, u64::from(4 * N));
    let ids = buffer(BufferKind::Ids, Space::Persistent, 4);
    buffer(BufferKind::Rope(rope), Space::Persistent, 1024 * 4 * 8);
    let launch =
        Launch { kernel, args: vec![state, x, w, out], grid: [3, 1, 1], layer: None, label: "add".into(), cost: Cost::default() };
    Plan {
        target: "gfx1100".into(),
        model: ModelInfo { name: "adder".into(), arch: "none".into(), layers: 0, vocab: N, ctx_train: 1024 },
        ctx: 1024,
        kv: KvType::F16,
        weights,
        ropes,
        caches: PrimaryMap::new(),
        buffers,
        kernels,
        load: Vec::new(),
        programs: vec![Program { kind: ProgramKind::Decode, tokens: 1, launches: vec![launch], logits: out, ids }],
        state,
        tokens,
        outbox,
        sampling,
        draws,
    }
}

struct Halves(Vec<u8>);

impl WeightSource for Halves {
    fn weight(&self, weight: Weight) -> &[u8] {
        assert_eq!(weight.index(), 0);
        &self.0
    }
}

fn bytes_of(values: impl Iterator<Item = f32>) -> Vec<u8> {
    values.flat_map(f32::to_le_bytes).collect()
}

/// Opens the stand-in, loads the plan, runs two steps with the same memory on our side for both inputs, compares.
fn run(standin: &StandIn, placement: Placement) -> Result<(), DeviceError> {
    let runtime = HipRuntime::open(Some(&standin.path()))?;
    assert_eq!(runtime.devices()[0].to_string(), "hip:0 Stand-in (gfx1100)");
    assert_eq!(runtime.devices()[0].wave, 32);
    let driver = HipDriver::new(&runtime, 0)?;
    let weights = Halves(bytes_of((0..N).map(|i| i as f32 / 2.0)));
    let mut seen = Vec::new();
    let mut progress = |p: hipfire_run::device::Progress| seen.push((p.done, p.total));
    let mut backend = DriverBackend::new(driver, plan(), &standin.code, &weights, placement, &mut progress)?;
    let total = u64::from(4 * N) + 1024 * 4 * 8;
    assert_eq!(seen, [(0, total), (u64::from(4 * N), total), (total, total)]);
    let plan = backend.plan();
    let program = &plan.programs[0];
    let (x, out, state) = (program.launches[0].args[1], program.logits, plan.state);
    let mut input = Vec::new();
    for step in 0..2 {
        input.clear();
        input.extend(bytes_of((0..N).map(|i| (i * step) as f32)));
        backend.write(x, 0, &input)?;
        backend.write(state, 0, &StepState { pos: step as i32, n: 1, ..StepState::default() }.to_bytes())?;
        backend.run(0, 0..1)?;
        // The copies may not have happened yet; their sources may change all the same.
        input.fill(0xff);
        let mut result = vec![0; 4 * N as usize];
        backend.read(out, 0, &mut result)?;
        assert_eq!(result, bytes_of((0..N).map(|i| (i * step) as f32 + i as f32 / 2.0)), "step {step}");
    }
    assert!(matches!(backend.read(out, u64::from(4 * N - 4), &mut [0; 8]), Err(DeviceError::Internal(_))));
    assert!(matches!(backend.run(0, 0..2), Err(DeviceError::Internal(_))));
    Ok(())
}

/// Adds one thing to itself again and again, in graphs, into memory that both sides see, and waits for one step while others are
/// enqueued.
fn pipeline(standin: &StandIn) -> Result<(), DeviceError> {
    let runtime = HipRuntime::open(Some(&standin.path()))?;
    let mut driver = HipDriver::new(&runtime, 0)?;
    let kernel = driver.load(&standin.code, &["add"])?[0];
    let bytes = u64::from(4 * N);
    let (state, x, sum, seen) =
        (driver.alloc(StepState::BYTES)?, driver.alloc(bytes)?, driver.alloc(bytes)?, driver.alloc_pinned(bytes)?);
    assert_eq!(driver.allocated(), StepState::BYTES + 2 * bytes);
    driver.upload(state, &StepState { n: 1, ..StepState::default() }.to_bytes())?;
    driver.upload(x, &bytes_of((0..N).map(|i| i as f32)))?;
    let pack = |args: [u64; 4]| args.iter().flat_map(|a| a.to_le_bytes()).collect::<Vec<u8>>();
    let (once, show) = (pack([state, x, sum, sum]), pack([state, x, sum, seen]));
    let launch = |kernargs| KernelLaunch { kernel, grid: [3, 1, 1], threads: 64, kernargs, operands: &[] };
    let captured = driver.capture(&[launch(&once), launch(&show)])?;
    // A graph that nobody holds any more makes room.
    drop(driver.capture(&[launch(&once)])?);
    drop(driver.capture(&[launch(&once)])?);
    let value = |i: u32, times: usize| ((i as usize * times) as f32).to_bits().cast_signed();
    let mut marks = vec![driver.mark()?];
    for step in 1..=3 {
        match &captured {
            Some(graph) => driver.replay(graph)?,
            None => [launch(&once), launch(&show)].into_iter().try_for_each(|l| driver.launch(l))?,
        }
        marks.push(driver.mark()?);
        driver.wait(&marks[step - 1])?;
        // The last word of what is seen, as one step left it while the next is under way.
        if step > 1 {
            assert_eq!(driver.receive(seen + bytes - 8, value(N - 1, step))?, value(N - 2, step));
        }
    }
    assert_eq!(driver.receive(seen + bytes - 8, value(N - 1, 4))?, value(N - 2, 4));
    assert!(driver.elapsed(&marks[0], &marks[3])? >= driver.elapsed(&marks[1], &marks[2])?);
    let mut now = vec![0xee; bytes as usize];
    driver.download(seen, &mut now)?;
    // Thrice in the sum's place and once more in what is seen.
    assert_eq!(now, bytes_of((0..N).map(|i| (i * 4) as f32)));
    // Nothing that is enqueued will write this.
    match driver.receive(seen, 77) {
        Err(DeviceError::Internal(_)) => {}
        other => return Err(other.expect_err("nothing was enqueued that writes it")),
    }
    // Events are used again: as many in all as were held at a time.
    for _ in 0..200 {
        marks.rotate_left(1);
        marks.pop();
        marks.push(driver.mark()?);
    }
    driver.wait(&marks[3])?;
    for outside in [seen + bytes, seen + 4, sum] {
        assert!(matches!(driver.receive(outside, 0), Err(DeviceError::Internal(_))));
    }
    // What is another device's is refused.
    let mut other = HipDriver::new(&runtime, 0)?;
    let foreign = other.mark()?;
    assert!(matches!(driver.wait(&foreign), Err(DeviceError::Internal(_))));
    if let Some(graph) = &captured {
        assert!(matches!(other.replay(graph), Err(DeviceError::Internal(_))));
    }
    // Held longer than the device.
    drop((driver, other));
    drop((marks, captured));
    Ok(())
}

#[test]
fn graphs_do_what_plain_launches_do() {
    let Some(standin) = StandIn::new(&[]) else { return };
    pipeline(&standin).unwrap();
    assert_eq!((standin.launches(), standin.graph_launches(), standin.report().as_str()), (6, 3, ""));
    // A library that has no graphs, and says so early or late.
    for unsupported in ["hipStreamBeginCapture:801", "hipStreamBeginCapture:900", "hipGraphInstantiateWithFlags:801"] {
        standin.configure(&format!("{unsupported}:0"), "gfx1100", 0);
        pipeline(&standin).unwrap();
        assert_eq!((standin.launches(), standin.graph_launches(), standin.report().as_str()), (6, 0, ""), "{unsupported}");
    }
}

#[test]
fn a_failed_capture_leaves_a_stream_that_works() {
    let Some(standin) = StandIn::new(&[]) else { return };
    for fault in ["hipModuleLaunchKernel:719:2", "hipGraphInstantiateWithFlags:2:1", "hipGraphDestroy:1:1"] {
        standin.configure(fault, "gfx1100", 0);
        let runtime = HipRuntime::open(Some(&standin.path())).unwrap();
        let driver = HipDriver::new(&runtime, 0).unwrap();
        let weights = Halves(bytes_of((0..N).map(|i| i as f32)));
        let mut backend = DriverBackend::new(driver, plan(), &standin.code, &weights, Placement::Planned, &mut |_| {}).unwrap();
        let recorded = backend.record(0, 0..1, 3);
        assert_eq!(recorded.is_err(), !fault.starts_with("hipGraphDestroy"), "{fault}");
        let recording = backend.record(0, 0..1, 3).unwrap();
        assert!(recording.is_graph() && recording.launches() == 3);
        assert!(matches!(backend.record(0, 0..2, 1), Err(DeviceError::Internal(_))));
        let (state, out) = (backend.plan().state, backend.plan().programs[0].logits);
        backend.write(state, 0, &StepState { n: 1, ..StepState::default() }.to_bytes()).unwrap();
        let from = backend.mark().unwrap();
        backend.replay(&recording).unwrap();
        let to = backend.mark().unwrap();
        let mut result = vec![0; 4 * N as usize];
        backend.read(out, 0, &mut result).unwrap();
        assert_eq!(result, weights.0, "{fault}");
        assert!(backend.elapsed(&from, &to).unwrap() > 0.0);
        assert_eq!((standin.launches(), standin.graph_launches()), (3, 1), "{fault}");
        backend.use_graphs(false);
        assert!(!backend.record(0, 0..1, 3).unwrap().is_graph());
        let used = backend.memory_use().unwrap();
        // The library counted alike, and took nothing for itself.
        let (free, total) = backend.driver_mut().memory().unwrap();
        assert_eq!((used.own, used.driver, used.before, used.total), (total - free, 0, 0, 1 << 30));
        assert!(used.own >= 1024 * 4 * 8);
        drop((recorded, recording, backend));
        let left = if fault.starts_with("hipGraphDestroy") { "leaked graph\n" } else { "" };
        assert_eq!(standin.report(), left, "{fault}");
    }
}

/// Copies happen late in the stand-in, so a part of the pinned ring that is filled again too early shows.
#[test]
fn copies_of_any_size_go_round_the_ring() {
    let Some(standin) = StandIn::new(&[]) else { return };
    let runtime = HipRuntime::open(Some(&standin.path())).unwrap();
    let mut driver = HipDriver::new(&runtime, 0).unwrap();
    let bytes: Vec<u8> = (0..75_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let to = driver.alloc(bytes.len() as u64).unwrap();
    let (mut at, mut lengths) =
        (0, [1, 100, (5 << 20) + 3, 8 << 20, 64, (17 << 20) + 5, 16, (8 << 20) - 100, 300_000].iter().cycle());
    while at < bytes.len() {
        let n = lengths.next().map_or(0, |&n| n.min(bytes.len() - at));
        driver.upload(to + at as u64, &bytes[at..at + n]).unwrap();
        at += n;
    }
    let mut back = vec![0; bytes.len()];
    let (first, second) = back.split_at_mut(33_333_333);
    driver.download(to, first).unwrap();
    driver.download(to + first.len() as u64, second).unwrap();
    assert!(back == bytes);
    drop(driver);
    assert_eq!(standin.report(), "");
}

#[test]
fn a_plan_runs_on_both_generations_of_the_runtime() {
    for flags in [&[][..], &["-DSTANDIN_R0600"]] {
        let Some(standin) = StandIn::new(flags) else { return };
        for placement in [Placement::Planned, Placement::Separate] {
            standin.configure("", "gfx1100", 0);
            run(&standin, placement).unwrap();
            assert_eq!(standin.launches(), 2);
            assert_eq!(standin.report(), "");
        }
    }
}

#[test]
fn architectures_lose_their_features_and_must_match_the_bundle() {
    let Some(standin) = StandIn::new(&[]) else { return };
    standin.configure("", "gfx90a:sramecc+:xnack-", 0);
    let runtime = HipRuntime::open(Some(&standin.path())).unwrap();
    assert_eq!((runtime.devices()[0].arch.as_str(), runtime.devices()[0].wave), ("gfx90a", 64));
    let driver = HipDriver::new(&runtime, 0).unwrap();
    let weights = Halves(Vec::new());
    let error = DriverBackend::new(driver, plan(), &standin.code, &weights, Placement::Planned, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("no code for gfx90a (it has gfx1100)"), "{error}");
    // The same said by the driver.
    let mut driver = HipDriver::new(&runtime, 0).unwrap();
    let error = hipfire_run::device::Driver::load(&mut driver, &standin.code, &["add"]).unwrap_err();
    assert!(error.to_string().contains("no code for gfx90a (it has gfx1100)"), "{error}");
    let error = HipDriver::new(&runtime, 3).unwrap_err().to_string();
    assert!(error.contains("no hip:3") && error.contains("hip:0 Stand-in (gfx90a)"), "{error}");
    drop(driver);
    assert_eq!(standin.report(), "");
}

#[test]
fn too_little_memory_names_the_context_that_fits() {
    let Some(standin) = StandIn::new(&[]) else { return };
    // 1024 positions take 44 bytes each (a table, the token list and the draws); the rest needs 3584 bytes.
    standin.configure("", "gfx1100", 3584 + 44 * 600);
    let error = run(&standin, Placement::Planned).unwrap_err();
    let DeviceError::ContextTooLarge { ctx: 1024, fits, bytes, free, .. } = error else { panic!("{error}") };
    assert!((512..=600).contains(&fits) && bytes > free && free == 3584 + 44 * 600, "{error}");
    standin.configure("", "gfx1100", 1000);
    let error = run(&standin, Placement::Planned).unwrap_err();
    assert!(matches!(error, DeviceError::OutOfMemory { free: 1000, .. }), "{error}");
    standin.configure("hipMalloc:2:2", "gfx1100", 0);
    let error = run(&standin, Placement::Planned).unwrap_err();
    assert!(matches!(error, DeviceError::OutOfMemory { .. }), "{error}");
    assert_eq!(standin.report(), "");
}

/// Every call, its first three times, with codes that mean something and some that don't: a typed error that names the call and
/// no panic; whatever was allocated before is released, except where releasing itself was told to fail.
#[test]
fn every_call_may_fail() {
    let calls = [
        "hipInit",
        "hipGetDeviceCount",
        "hipSetDevice",
        "hipDeviceGetAttribute",
        "hipGetDeviceProperties",
        "hipMemGetInfo",
        "hipMalloc",
        "hipHostMalloc",
        "hipMemsetAsync",
        "hipMemcpyHtoDAsync",
        "hipMemcpyDtoHAsync",
        "hipStreamCreateWithFlags",
        "hipStreamSynchronize",
        "hipModuleLoadData",
        "hipModuleGetFunction",
        "hipModuleLaunchKernel",
        "hipFree",
        "hipHostFree",
        "hipModuleUnload",
        "hipStreamDestroy",
    ];
    let Some(standin) = StandIn::new(&[]) else { return };
    let failed = fail_each(&standin, &calls, &|s| run(s, Placement::Planned));
    assert!(failed > 300, "{failed}");
    // What a pipeline of graphs calls on top of it.
    let calls = [
        "hipHostMalloc",
        "hipHostGetDevicePointer",
        "hipEventCreateWithFlags",
        "hipEventRecord",
        "hipEventSynchronize",
        "hipEventElapsedTime",
        "hipStreamQuery",
        "hipStreamBeginCapture",
        "hipStreamEndCapture",
        "hipGraphInstantiateWithFlags",
        "hipGraphLaunch",
        "hipModuleLaunchKernel",
        "hipStreamSynchronize",
        "hipGraphDestroy",
        "hipGraphExecDestroy",
        "hipEventDestroy",
        "hipHostFree",
    ];
    let failed = fail_each(&standin, &calls, &pipeline);
    assert!(failed > 300, "{failed}");
}

/// How many errors there were.
fn fail_each(standin: &StandIn, calls: &[&str], run: &dyn Fn(&StandIn) -> Result<(), DeviceError>) -> usize {
    let mut failed = 0;
    for call in calls {
        for code in [1, 2, 3, 35, 98, 100, 101, 209, 302, 500, 700, 719, 901, 999, -1] {
            for nth in 1..=3 {
                standin.configure(&format!("{call}:{code}:{nth}"), "gfx1100", 0);
                let result = run(standin);
                let what = format!("{call} returned {code} the {nth}. time");
                // What is only called while tidying up has nobody to tell.
                let tidying = ["Free", "Unload", "Destroy"].iter().any(|t| call.contains(t));
                match result {
                    Ok(()) => assert!(tidying || nth > 1, "{what}: nothing noticed"),
                    Err(error) => {
                        failed += 1;
                        let text = error.to_string();
                        let named = text.contains(call) && text.contains(&code.to_string());
                        let known = matches!(
                            error,
                            DeviceError::Missing { .. } | DeviceError::OutOfMemory { .. } | DeviceError::NoCode { .. }
                        );
                        assert!(named || known, "{what}: {text}");
                        assert!(!tidying, "{what}: {text}");
                    }
                }
                if !tidying {
                    assert_eq!(standin.report(), "", "{what}");
                }
            }
        }
    }
    failed
}

/// The demo's model, compiled for gfx1100, answers the demo's question through the whole HIP path: the code object's metadata
/// bounds every launch, and the same kernels in the same plan, for this machine, execute it.
#[test]
fn the_demo_question_is_answered() {
    let model = hipc_models::load(demo_model()).unwrap_or_else(|e| panic!("{e}"));
    let toolchain = Toolchain::from_env();
    let gpu = Target::parse("gfx1100").expect("a known target");
    let built = pipeline::build(&model, &[gpu], &Options::default(), &toolchain, &CompileOptions::default(), &|_| ());
    let [built] = <[_; 1]>::try_from(built.unwrap_or_else(|e| panic!("{e}"))).unwrap_or_else(|_| panic!("one target"));
    let plan = built.planned.plan;
    let host = Target::parse("host").expect("a known target");
    let source = emit_unit(&model.name, host, &plan.kernels);
    let unit = UnitSource { name: "unit", source: &source, headers: hipc_templates::HEADERS };
    let unit =
        toolchain.compile(&unit, host, Emit::HostSharedObject, &CompileOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    let Some(standin) = StandIn::with_unit(&[], built.code, &unit.bytes) else { return };

    let data = model.tokenizer.expect("a chat model has a tokenizer");
    let template = ChatTemplate::of(&data).unwrap().expect("a chat model has a template");
    let tokenizer = Tokenizer::new(&data).unwrap();
    let weights = FileWeights::new(model.gguf, &model.graph);
    let interrupted = AtomicBool::new(false);
    let ask = |fail: &str, questions: &[&str]| {
        standin.configure(fail, "gfx1100", 0);
        let runtime = HipRuntime::open(Some(&standin.path())).unwrap();
        let driver = HipDriver::new(&runtime, 0).unwrap();
        let backend = DriverBackend::new(driver, plan.clone(), &standin.code, &weights, Placement::Planned, &mut |_| {}).unwrap();
        let mut engine = PlanEngine::new(backend, false);
        let mut chooser = Chooser::new(SamplerParams::greedy()).unwrap();
        let mut conversation = Conversation::new(template.clone(), None);
        let mut said = Vec::new();
        for question in questions {
            let mut answer = String::new();
            let mut emit = |piece: &str| {
                answer.push_str(piece);
                Ok(())
            };
            let limits = Limits { max_tokens: 64, stop: &[], interrupted: &interrupted };
            let summary = conversation.ask(question, &mut engine, &tokenizer, &mut chooser, limits, &mut emit)?;
            said.push((answer, summary.ids.len()));
        }
        Ok::<_, GenerateError>(said)
    };
    let right = "Removes the last element from a vector and returns it, or `None` if it is empty.";
    let question = "What does Vec::pop do?";
    let said = ask("", &[question]).unwrap();
    assert_eq!(said[0].0, right);
    assert_eq!(standin.report(), "");
    // One graph for the prompt, which chooses the first token, then groups of 1, 1, 2, 4, 8, 8, … steps up to the end of the turn: while
    // that is waited for, at least two steps too many are on their way.
    let (mut steps, mut graphs) = (0, 1);
    while steps < said[0].1 + 2 {
        steps += match steps {
            0 | 1 => 1,
            2 | 3 => 2,
            4..8 => 4,
            _ => 8,
        };
        graphs += 1;
    }
    assert_eq!(standin.graph_launches() as usize, graphs);
    println!("{} tokens, {} graphs, {} launches", said[0].1 + 1, standin.graph_launches(), standin.launches());

    // A device that is lost, or a call that fails, on the way: the call's error and nothing left behind.
    for fault in [
        "hipGraphLaunch:719:1",
        "hipGraphLaunch:719:3",
        "hipStreamQuery:700:3",
        "hipStreamQuery:1:200",
        "hipGraphInstantiateWithFlags:2:1",
    ] {
        let error = ask(fault, &[question]).unwrap_err();
        let call = fault.split(':').next().unwrap();
        let device = matches!(&error, GenerateError::Engine(EngineError::Device(DeviceError::Call { call: c, .. })) if c == call);
        assert!(device, "{fault}: {error}");
        assert_eq!(standin.report(), "", "{fault}");
    }

    // Without graphs, launch by launch.
    assert_eq!(ask("hipStreamBeginCapture:801:0", &[question]).unwrap()[0].0, right);
    assert_eq!((standin.graph_launches(), standin.report().as_str()), (0, ""));
}

#[test]
fn a_machine_without_a_gpu_is_told_so() {
    let advice = |error: DeviceError| {
        let text = error.to_string();
        assert!(text.contains("no AMD GPU found") && text.contains("/dev/kfd"), "{text}");
    };
    if let Some(standin) = StandIn::new(&[]) {
        standin.configure("", "none", 0);
        advice(HipRuntime::open(Some(&standin.path())).unwrap_err());
    }
    let real = "/usr/lib/x86_64-linux-gnu/libamdhip64.so.5";
    if Path::new("/dev/kfd").exists() || !Path::new(real).exists() {
        println!("skipped: this machine has a GPU or lacks {real} (package libamdhip64-5)");
        return;
    }
    advice(HipRuntime::open(Some(Path::new(real))).unwrap_err());
}

#[test]
fn a_missing_or_foreign_library_is_told_with_advice() {
    let error = HipRuntime::open(Some(Path::new("/nowhere/libamdhip64.so"))).unwrap_err().to_string();
    assert!(error.contains("/nowhere/libamdhip64.so") && error.contains("HIPC_HIP_LIBRARY"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let foreign = folder.path().join("libforeign.so");
    fs::write(&foreign, compile("host", Emit::HostSharedObject)).unwrap();
    let error = HipRuntime::open(Some(&foreign)).unwrap_err().to_string();
    assert!(error.contains("can't be used: it lacks hip"), "{error}");
    let broken = folder.path().join("libbroken.so");
    fs::write(&broken, b"no library").unwrap();
    let error = HipRuntime::open(Some(&broken)).unwrap_err().to_string();
    assert!(error.contains("can't be used") && error.contains("file too short"), "{error}");
}
