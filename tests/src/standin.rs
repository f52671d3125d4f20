//! A stand-in for the driver's library, `tests/standin/amdhip64.c`, compiled for one test with HIP's own header.

use hipc::target::Target;
use hipc::toolchain::{CompileOptions, Emit, Toolchain, UnitSource};
use hipc_codeobj::CodeObject;
use std::ffi::{CStr, CString, OsString, c_char, c_int};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// What it is compiled with.
pub const HEADER: &str = "/usr/include/hip/hip_runtime_api.h";

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

/// Machine code of the unit `add`.
///
/// # Panics
/// If it can't be compiled.
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
    /// The code object that it is told of.
    pub code: Vec<u8>,
}

impl StandIn {
    /// With a unit of one kernel, `add`. `None`, with a line that says so, where HIP's headers or a C compiler are missing.
    ///
    /// # Panics
    /// If it can't be made for another reason.
    pub fn new(flags: &[&str]) -> Option<Self> {
        Self::with_unit(flags, compile("gfx1100", Emit::CodeObject), &compile("host", Emit::HostSharedObject))
    }

    /// With a code object for a GPU and the same unit for this machine.
    ///
    /// # Panics
    /// If it can't be made for another reason than [`StandIn::new`]'s.
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

    /// The library.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("libamdhip64.so")
    }

    /// Forgets everything that was; see the source for what can be told to fail. No memory is 1 GiB.
    ///
    /// # Panics
    /// If an argument has a zero byte.
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

    /// What was done wrong and what is still alive; empty if all is well.
    ///
    /// # Panics
    /// If the library isn't what was compiled.
    pub fn report(&self) -> String {
        // SAFETY: the type is the source's; the string lives until the next call.
        unsafe {
            let report = self.library.get::<unsafe extern "C" fn() -> *const c_char>(b"standin_report\0").expect("exported");
            CStr::from_ptr(report()).to_string_lossy().into_owned()
        }
    }

    /// For another process that is to use the stand-in: where it is, and its settings.
    pub fn environment(&self, fail: &str, archs: &str) -> [(&'static str, OsString); 5] {
        [
            ("HIPC_HIP_LIBRARY", self.path().into()),
            ("STANDIN_FAIL", fail.into()),
            ("STANDIN_META", self.folder.path().join("meta").into()),
            ("STANDIN_UNIT", self.folder.path().join("unit.so").into()),
            ("STANDIN_ARCH", archs.into()),
        ]
    }

    fn count(&self, symbol: &[u8]) -> c_int {
        // SAFETY: the type is the source's.
        unsafe { self.library.get::<unsafe extern "C" fn() -> c_int>(symbol).expect("exported")() }
    }
    /// Launches executed.
    pub fn launches(&self) -> c_int {
        self.count(b"standin_launches\0")
    }
    /// Graphs launched.
    pub fn graph_launches(&self) -> c_int {
        self.count(b"standin_graph_launches\0")
    }
}
