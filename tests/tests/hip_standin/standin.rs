//! The stand-in library of one test, the unit that it executes, and a plan for it: one addition.

use hipc::target::Target;
use hipc::toolchain::{CompileOptions, Emit, Toolchain, UnitSource};
use hipc_codeobj::CodeObject;
use hipc_ir::fused::{Finish, FusedOp, ProgramKind, Row, RowExpr};
use hipc_ir::graph::{RopeDecl, RopeStyle, Weight, WeightDecl};
use hipc_ir::plan::{
    BufferDecl, BufferKind, Cost, Geometry, KernelSpec, Launch, ModelInfo, Plan, Program, SamplingState, Space, StepState,
};
use hipc_ir::{DType, EntityRef, KvType, Layout, PrimaryMap, Real};
use hipfire_run::device::WeightSource;
use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

pub const HEADER: &str = "/usr/include/hip/hip_runtime_api.h";
/// Values that are added.
pub const N: u32 = 192;

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
        ("hipc/platform.h", include_str!("../../../codegen-templates/include/hipc/platform.h")),
        ("hipc/host.h", include_str!("../../../codegen-templates/include/hipc/host.h")),
    ]
}

pub fn compile(target: &str, emit: Emit) -> Vec<u8> {
    let headers = headers();
    let unit = UnitSource { name: "standin", source: UNIT, headers: &headers };
    let target = Target::parse(target).expect("a known target");
    Toolchain::from_env().compile(&unit, target, emit, &CompileOptions::default()).unwrap_or_else(|e| panic!("{e}")).bytes
}

/// A stand-in of this test's own (a library's state belongs to its file), with the unit it executes.
pub struct StandIn {
    folder: TempDir,
    library: libloading::Library,
    pub code: Vec<u8>,
}

impl StandIn {
    /// With the unit of these tests. `None`, with a line that says so, where HIP's headers or a C compiler are missing.
    pub fn new(flags: &[&str]) -> Option<Self> {
        Self::with_unit(flags, compile("gfx1100", Emit::CodeObject), &compile("host", Emit::HostSharedObject))
    }

    pub fn with_unit(flags: &[&str], code: Vec<u8>, unit: &[u8]) -> Option<Self> {
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

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("libamdhip64.so")
    }

    pub fn configure(&self, fail: &str, arch: &str, memory: usize) {
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

    pub fn report(&self) -> String {
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
    pub fn launches(&self) -> c_int {
        self.count(b"standin_launches\0")
    }
    pub fn graph_launches(&self) -> c_int {
        self.count(b"standin_graph_launches\0")
    }
}

/// One launch, `out = x + w`, in two programs' worth of steps; a table that only has to be uploaded.
pub fn plan() -> Plan {
    let op = FusedOp::Row(Row { n: N, expr: RowExpr::Add, residual: false, finish: Finish::RAW });
    let geometry = Geometry::plain(32, 2, 64);
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

/// The one weight.
pub struct Halves(pub Vec<u8>);

impl WeightSource for Halves {
    fn weight(&self, weight: Weight) -> &[u8] {
        assert_eq!(weight.index(), 0);
        &self.0
    }
}

/// As a device has them.
pub fn bytes_of(values: impl Iterator<Item = f32>) -> Vec<u8> {
    values.flat_map(f32::to_le_bytes).collect()
}
