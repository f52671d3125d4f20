//! The toolchain driver: every target and output, the cache under damage and rivals, and what it says when it can't.

mod common;

use hipc::target::{TARGETS, Target};
use hipc::toolchain::{Backend, CacheSetting, CompileOptions, Emit, Settings, Toolchain, ToolchainError, UnitSource};
use hipc_codeobj::CodeObject;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const HEADERS: &[(&str, &str)] =
    &[("arch/add.h", "template <class T> __attribute__((device)) T add(T a, T b) { return a + b; }\n")];
const KERNEL: &str = "#include \"arch/add.h\"\n\
     extern \"C\" __attribute__((global)) void k(int *o, const int *a) { *o = add(*a, 7); }\n";

fn unit(source: &str) -> UnitSource<'_> {
    UnitSource { name: "unit", source, headers: HEADERS }
}

fn clang(toolchain: &Toolchain, source: &str, target: &str, emit: Emit) -> Result<hipc::toolchain::Compiled, ToolchainError> {
    toolchain.compile(&unit(source), Target::parse(target).unwrap(), emit, &CompileOptions::default())
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn compiles_for_all_targets_alike_each_time() {
    let Some(toolchain) = common::toolchain(None) else { return };
    let all = |toolchain: &Toolchain| -> Vec<Vec<u8>> {
        Target::all_amd().map(|t| clang(toolchain, KERNEL, t.name, Emit::CodeObject).unwrap().bytes).collect()
    };
    let first = all(&toolchain);
    for (target, bytes) in Target::all_amd().zip(&first) {
        let object = CodeObject::parse(bytes).unwrap();
        assert_eq!(object.target, target.name);
        assert_eq!(object.kernel("k").unwrap().explicit_kernarg_size(), 16);
        // Each run has another folder; none of it may be in the file.
        assert!(!String::from_utf8_lossy(bytes).contains("hipc-"), "{target}");
    }
    assert!(first == all(&toolchain), "another folder, other bytes");
}

#[test]
fn emits_text() {
    let Some(toolchain) = common::toolchain(None) else { return };
    let text = |target, emit| String::from_utf8(clang(&toolchain, KERNEL, target, emit).unwrap().bytes).unwrap();
    assert!(text("gfx1100", Emit::LlvmIr).contains("define protected amdgpu_kernel void @k("));
    assert!(text("gfx1100", Emit::Asm).contains(".amdhsa_kernel k"));
    let host = KERNEL.replace("__attribute__((global))", "").replace("__attribute__((device))", "");
    let host = host.replace("#include \"arch/add.h\"", "static int add(int a, int b) { return a + b; }");
    let ir = String::from_utf8(clang(&toolchain, &host, "host", Emit::LlvmIr).unwrap().bytes).unwrap();
    assert!(ir.contains("define dso_local void @k(") || ir.contains("define void @k("), "{ir}");
    let ptx = text("sm_90", Emit::Ptx);
    assert!(ptx.contains(".target sm_90") && ptx.contains(".entry k("), "{ptx}");
}

#[test]
fn host_library_and_sanitized_program() {
    let Some(toolchain) = common::toolchain(None) else { return };
    let library = clang(
        &toolchain,
        "#include <math.h>\nextern \"C\" double k(double x) { return exp2(x); }",
        "host",
        Emit::HostSharedObject,
    );
    assert_eq!(&library.unwrap().bytes[..4], b"\x7fELF");

    let source = "int table[4];\nint main(int n, char **) { int *p = new int(n); n = *p + 3; delete p; return table[n]; }\n";
    let program = match clang(&toolchain, source, "host", Emit::HostAsanExecutable) {
        Err(ToolchainError::NoCompiler { tried, .. }) => return eprintln!("skipped: no sanitizer runtime: {tried:?}"),
        other => other.unwrap(),
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program");
    fs::write(&path, program.bytes).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let ended = Command::new(&path).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success());
    assert!(said.contains("unit.hip:2") && said.contains("out of bounds"), "{said}");
}

#[test]
fn impossible_requests_are_refused() {
    let Some(toolchain) = common::toolchain(None) else { return };
    for (target, emit) in
        [("gfx1100", Emit::Ptx), ("sm_90", Emit::CodeObject), ("host", Emit::CodeObject), ("gfx900", Emit::HostSharedObject)]
    {
        let error = clang(&toolchain, KERNEL, target, emit).unwrap_err();
        assert!(matches!(error, ToolchainError::Unsupported { .. }), "{error}");
    }
    let target = &TARGETS[0];
    let options = CompileOptions::default();
    for name in ["", "../x", "-o", "a b", ".x"] {
        let unit = UnitSource { name, ..unit(KERNEL) };
        let error = toolchain.compile(&unit, target, Emit::CodeObject, &options).unwrap_err();
        assert!(matches!(error, ToolchainError::BadName(_)), "{error}");
    }
    for headers in [&[("../up.h", "")], &[("/abs.h", "")], &[("", "")]] {
        let unit = UnitSource { headers, ..unit(KERNEL) };
        let error = toolchain.compile(&unit, target, Emit::CodeObject, &options).unwrap_err();
        assert!(matches!(error, ToolchainError::BadName(_)), "{error}");
    }
}

#[test]
fn a_source_error_names_its_line() {
    let Some(toolchain) = common::toolchain(None) else { return };
    let source = "extern \"C\" __attribute__((global)) void k(int *o) {\n  *o = 1;\n  *o = no_such_thing;\n}\n";
    let error = clang(&toolchain, source, "gfx1100", Emit::CodeObject).unwrap_err();
    let ToolchainError::Rejected { unit, target, diagnostics, .. } = &error else { panic!("{error}") };
    assert_eq!((unit.as_str(), *target), ("unit", "gfx1100"));
    assert!(diagnostics.starts_with("unit.hip:3:8: error: use of undeclared identifier 'no_such_thing'"), "{diagnostics}");
}

#[test]
fn missing_clang_is_explained() {
    let with = |settings: Settings| {
        let toolchain = Toolchain::new(Settings { cache: CacheSetting::Off, ..settings });
        clang(&toolchain, KERNEL, "gfx1100", Emit::CodeObject).unwrap_err().to_string()
    };
    let text = with(Settings { clang: Some("/nonexistent/clang".into()), ..Settings::from_env() });
    assert!(text.contains("HIPC_CLANG=/nonexistent/clang: not found"), "{text}");
    assert!(text.contains("gfx1100") && text.contains("clang-22 lld-22"), "{text}");

    let text = with(Settings { cache: CacheSetting::Off, ..Settings::default() });
    if Path::new("/opt/rocm/llvm/bin/clang").exists() {
        return eprintln!("skipped: ROCm's clang is found without PATH");
    }
    assert!(text.contains("clang-19: not found") && text.contains("apt-get install clang-22 lld-22"), "{text}");

    // A program that is no compiler, and one that is too old.
    let text = with(Settings { clang: Some("true".into()), ..Settings::from_env() });
    assert!(text.contains("HIPC_CLANG=true: not a clang"), "{text}");
    let dir = tempfile::tempdir().unwrap();
    let old = script(dir.path(), "clang", "echo 'clang version 15.0.6'");
    let text = with(Settings { clang: Some(old.into()), ..Settings::from_env() });
    assert!(text.contains("version 15, older than 19"), "{text}");
}

fn script(dir: &Path, name: &str, body: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_clang_that_does_not_know_the_target_is_passed_over() {
    let Some(_) = common::toolchain(None) else { return };
    let dir = tempfile::tempdir().unwrap();
    script(
        dir.path(),
        "clang-22",
        "case $1 in --version) echo 'clang version 22.0.0' ;; *) echo \"error: unknown target 'gfx1100'\" >&2; exit 1 ;; esac",
    );
    let mut path = OsString::from(dir.path());
    path.push(":");
    path.push(Settings::from_env().path);
    let settings = Settings { path, cache: CacheSetting::Off, ..Settings::default() };
    let toolchain = Toolchain::new(settings.clone());
    match clang(&toolchain, KERNEL, "gfx1100", Emit::CodeObject) {
        Ok(compiled) => assert_ne!(&*compiled.compiler, "clang version 22.0.0"),
        Err(ToolchainError::NoCompiler { tried, .. }) => assert!(tried[0].contains("unknown target"), "{tried:?}"),
        Err(other) => panic!("{other}"),
    }
    let only = Toolchain::new(Settings { clang: Some(dir.path().join("clang-22").into()), ..settings });
    let error = clang(&only, KERNEL, "gfx1100", Emit::CodeObject).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ToolchainError::NoCompiler { .. }) && text.contains("unknown target 'gfx1100'"), "{text}");
}

#[test]
fn output_that_is_no_code_object_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let liar = script(dir.path(), "clang", "case $1 in --version) echo 'clang version 22.0.0' ;; *) echo hello >out ;; esac");
    let crash = script(
        dir.path(),
        "crash",
        "case $1 in --version) echo 'clang version 22.0.0' ;; *) echo Stack dump >&2; kill -SEGV $$ ;; esac",
    );
    let with =
        |clang: PathBuf| Toolchain::new(Settings { clang: Some(clang.into()), cache: CacheSetting::Off, ..Settings::from_env() });
    let error = clang(&with(liar), KERNEL, "gfx1100", Emit::CodeObject).unwrap_err();
    assert!(matches!(error, ToolchainError::BadOutput { .. }), "{error}");
    let error = clang(&with(crash), KERNEL, "gfx1100", Emit::CodeObject).unwrap_err();
    assert!(matches!(error, ToolchainError::Crashed { .. }) && error.to_string().contains("Stack dump"), "{error}");
}

#[test]
fn cache_hits_and_survives_damage() {
    let dir = tempfile::tempdir().unwrap();
    let Some(toolchain) = common::toolchain(Some(dir.path())) else { return };
    let compile = |source: &str| clang(&toolchain, source, "gfx1100", Emit::CodeObject).unwrap();
    let first = compile(KERNEL);
    assert!(!first.cached);
    let entries = files(dir.path());
    assert_eq!(entries.len(), 1, "{entries:?}");
    let second = compile(KERNEL);
    assert!(second.cached && second.bytes == first.bytes && second.compiler == first.compiler);
    assert!(!compile(&KERNEL.replace('7', "8")).cached);

    let whole = fs::read(&entries[0]).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for damaged in [&b""[..], &whole[..whole.len() / 2], &flipped] {
        fs::write(&entries[0], damaged).unwrap();
        let again = compile(KERNEL);
        assert!(!again.cached && again.bytes == first.bytes);
        assert_eq!(fs::read(&entries[0]).unwrap(), whole);
    }
    assert_eq!(toolchain.take_warnings(), Vec::<String>::new());
}

#[test]
fn an_unwritable_cache_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let Some(toolchain) = common::toolchain(Some(&file.join("cache"))) else { return };
    for _ in 0..2 {
        assert!(!clang(&toolchain, KERNEL, "gfx1100", Emit::CodeObject).unwrap().cached);
    }
    let warnings = toolchain.take_warnings();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("cannot write to") && warnings[0].contains("HIPC_CACHE_DIR"), "{warnings:?}");
}

const CHILD: &str = "HIPC_TEST_CACHE_OF_TWO";

/// Not a test of its own: what each process of [`two_processes_and_many_threads_share_a_cache`] does.
#[test]
fn child_of_the_next_test() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let Some(toolchain) = common::toolchain(Some(Path::new(&dir))) else { return };
    share(&Arc::new(toolchain));
}

fn share(toolchain: &Arc<Toolchain>) {
    let threads: Vec<_> = (0..4)
        .map(|n| {
            let toolchain = Arc::clone(toolchain);
            thread::spawn(move || {
                for target in ["gfx1100", "gfx906", "gfx1201"] {
                    let source = KERNEL.replace('7', &(n % 2).to_string());
                    let bytes = clang(&toolchain, &source, target, Emit::CodeObject).unwrap().bytes;
                    assert_eq!(CodeObject::parse(&bytes).unwrap().target, target);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
}

#[test]
fn two_processes_and_many_threads_share_a_cache() {
    let dir = tempfile::tempdir().unwrap();
    let Some(toolchain) = common::toolchain(Some(dir.path())) else { return };
    let start = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_of_the_next_test"])
            .env(CHILD, dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut children = [start(), start()];
    let toolchain = Arc::new(toolchain);
    share(&toolchain);
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    // Two sources for three targets, and no temporary file left.
    assert_eq!(files(dir.path()).len(), 6);
    for n in ["0", "1"] {
        for target in ["gfx1100", "gfx906", "gfx1201"] {
            assert!(clang(&toolchain, &KERNEL.replace('7', n), target, Emit::CodeObject).unwrap().cached);
        }
    }
    assert_eq!(toolchain.take_warnings(), Vec::<String>::new());
}

#[test]
fn interruption_ends_the_compiler_and_its_children() {
    let Some(toolchain) = common::toolchain(None) else { return };
    let toolchain = Arc::new(toolchain);
    let interrupter = toolchain.interrupter();
    // Minutes of constant evaluation, under a name that the process table shows.
    let source = "constexpr long f() { long n = 0; for (long i = 0; i < 4000000000; ++i) n += i & 3; return n; }\nconstexpr long N = f();\n";
    let slow = thread::spawn({
        let toolchain = Arc::clone(&toolchain);
        move || {
            let unit = UnitSource { name: "interrupted_unit_4711", source, headers: &[] };
            let options =
                CompileOptions { extra_flags: vec!["-fconstexpr-steps=4294967295".to_owned()], ..CompileOptions::default() };
            toolchain.compile(&unit, Target::parse("gfx1100").unwrap(), Emit::CodeObject, &options)
        }
    });
    let waited = |what: &str, until: &dyn Fn() -> bool| {
        let start = Instant::now();
        while !until() {
            assert!(start.elapsed() < Duration::from_secs(30), "{what}");
            thread::sleep(Duration::from_millis(10));
        }
    };
    waited("compiler starts", &|| running("interrupted_unit_4711") > 0);
    interrupter.interrupt();
    assert!(matches!(slow.join().unwrap(), Err(ToolchainError::Interrupted)));
    waited("compiler and its children are gone", &|| running("interrupted_unit_4711") == 0);
    let error = clang(&toolchain, KERNEL, "gfx1100", Emit::CodeObject).unwrap_err();
    assert!(matches!(error, ToolchainError::Interrupted), "{error}");
}

/// Processes with this in their command line.
fn running(name: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|e| fs::read(e.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(name)).count()
}

#[test]
fn hipcc_compiles_the_same_unit() {
    let Some(toolchain) = common::toolchain(None) else { return };
    if let Err(why) = toolchain.compiler(Backend::Hipcc) {
        return eprintln!("skipped: {why}");
    }
    let options = CompileOptions { backend: Backend::Hipcc, ..CompileOptions::default() };
    let compile =
        |source: &str, target: &str| toolchain.compile(&unit(source), Target::parse(target).unwrap(), Emit::CodeObject, &options);
    for target in ["gfx906", "gfx1030"] {
        let object = CodeObject::parse(&compile(KERNEL, target).unwrap().bytes).unwrap();
        assert_eq!((object.target.as_str(), object.kernels.len()), (target, 1));
    }
    let plain = "#include <hip/hip_runtime.h>\nextern \"C\" __global__ void k(int *o) { o[threadIdx.x] = blockIdx.x; }\n";
    assert!(compile(plain, "gfx1030").is_ok());
    let error = compile("int x = no_such_thing;", "gfx1030").unwrap_err();
    assert!(matches!(&error, ToolchainError::Rejected { diagnostics, .. } if diagnostics.contains("unit.hip:1:9")), "{error}");
    // Debian's hipcc 5.2 has no device libraries for gfx11: the machine's lack, not the source's.
    match compile(KERNEL, "gfx1201") {
        Ok(compiled) => assert_eq!(CodeObject::parse(&compiled.bytes).unwrap().target, "gfx1201"),
        Err(error) => assert!(matches!(error, ToolchainError::NoCompiler { .. }), "{error}"),
    }
}
