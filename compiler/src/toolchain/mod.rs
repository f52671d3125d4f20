//! The toolchain driver: source in, code object (or IR, assembly, PTX, host library) out, through an installed clang.
//!
//! Nothing is linked against LLVM. A unit and the headers it includes are written to a private folder, an ordinary clang ≥ 19
//! compiles them there by relative names, and the result is read back and kept in a cache addressed by content (source,
//! headers, flags, target, compiler version). No absolute path and no time enters the output: the same input gives the same
//! bytes on every machine with the same compiler.
//!
//! Compilers run as children: at most one per core, each in its own process group, killed with their own children when the
//! driver unwinds or [`Interrupter::interrupt`] is called. What they print comes back in the error, never on the terminal.

mod cache;
mod error;
mod find;
mod flags;
mod process;

use crate::target::{Platform, Target};
use cache::{Cache, Key};
use find::{Candidate, Driver};
use hipc_codeobj::{CodeObject, unbundle};
use process::Children;
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io};

pub use cache::CacheSetting;
pub use error::ToolchainError;
pub use find::Settings;
pub use process::Interrupter;

/// One translation unit and the headers it may include.
#[derive(Clone, Copy, Debug)]
pub struct UnitSource<'a> {
    /// Stem of the file name that diagnostics show; letters, digits, `_`, `-` and `.`.
    pub name: &'a str,
    /// HIP source.
    pub source: &'a str,
    /// Headers: path relative to the include folder, contents.
    pub headers: &'a [(&'a str, &'a str)],
}

/// What to make of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Emit {
    /// AMD: linked ELF, code object v5.
    CodeObject,
    /// Any target: LLVM IR as text.
    LlvmIr,
    /// Any target: assembly as text.
    Asm,
    /// NVIDIA: PTX as text.
    Ptx,
    /// Host: shared library, optimised.
    HostSharedObject,
    /// Host: executable (the unit has `main`) under AddressSanitizer and UBSan, which end it at the first finding.
    HostAsanExecutable,
}

/// Which compiler driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Backend {
    /// clang ≥ 19 without any ROCm.
    #[default]
    Clang,
    /// `hipcc` with its own headers and device libraries; AMD code objects only.
    Hipcc,
}

/// Choices for one compilation.
#[derive(Clone, Debug, Default)]
pub struct CompileOptions {
    /// Compiler driver.
    pub backend: Backend,
    /// Flags put behind ours. They are part of the cache key, so they must not name files whose contents may change.
    pub extra_flags: Vec<String>,
}

/// A compiled unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// The output file.
    pub bytes: Vec<u8>,
    /// The compiler's name and version, for the bundle's provenance.
    pub compiler: Arc<str>,
    /// Whether it came from the cache.
    pub cached: bool,
}

/// Compiler, target and output of a trivial unit.
type Probe = (PathBuf, &'static str, Emit);
/// Whether that compiler made it; `Err` holds what it said.
type ProbeAnswer = Result<(), String>;

/// Finds compilers, runs them, caches their output. Made once per process and shared between threads.
#[derive(Debug)]
pub struct Toolchain {
    settings: Settings,
    clangs: Vec<Candidate>,
    hipccs: Vec<Candidate>,
    cache: Option<Cache>,
    children: Arc<Children>,
    /// Answers to probes. They are asked only after a unit was rejected.
    probes: Mutex<HashMap<Probe, ProbeAnswer>>,
    warnings: Mutex<Vec<String>>,
}

impl Toolchain {
    /// A driver with the process's environment: `HIPC_CLANG`, `HIPC_HIPCC`, `HIPC_CACHE`, `HIPC_CACHE_DIR`, `PATH`.
    pub fn from_env() -> Self {
        Self::new(Settings::from_env())
    }

    /// A driver with these settings. Looks for nothing yet.
    pub fn new(settings: Settings) -> Self {
        let mut warnings = Vec::new();
        let cache = Cache::open(&settings.cache).unwrap_or_else(|why| {
            warnings.push(why);
            None
        });
        Self {
            clangs: find::clangs(&settings),
            hipccs: find::hipccs(&settings),
            cache,
            children: Arc::new(Children::new()),
            probes: Mutex::default(),
            warnings: Mutex::new(warnings),
            settings,
        }
    }

    /// A handle that ends running and future compilations, for a signal handler's thread.
    pub fn interrupter(&self) -> Interrupter {
        Interrupter::new(Arc::clone(&self.children))
    }

    /// What went wrong without stopping the work (a cache that can't be written), each once; the list is emptied.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Name and version of the first usable compiler.
    ///
    /// # Errors
    /// [`ToolchainError::NoCompiler`].
    pub fn compiler(&self, backend: Backend) -> Result<Arc<str>, ToolchainError> {
        let mut tried = Vec::new();
        let found = self.candidates(backend).iter().find_map(|c| c.driver(self).map_err(|why| tried.push(why)).ok());
        found.map(|d| Arc::clone(&d.version)).ok_or_else(|| ToolchainError::no_compiler(backend, None, tried))
    }

    /// Compiles a unit, or takes the result from the cache.
    ///
    /// # Errors
    /// [`ToolchainError::Rejected`] with the diagnostics if the source is at fault, [`ToolchainError::NoCompiler`] if no
    /// installed compiler knows the target, [`ToolchainError::Unsupported`] if the target has no such output.
    pub fn compile(
        &self,
        unit: &UnitSource<'_>,
        target: &Target,
        emit: Emit,
        options: &CompileOptions,
    ) -> Result<Compiled, ToolchainError> {
        check_names(unit)?;
        let flags = flags::flags(target, emit, options)?;
        let mut tried = Vec::new();
        for candidate in self.candidates(options.backend) {
            let driver = match candidate.driver(self) {
                Ok(driver) => driver,
                Err(_) if self.children.interrupted() => return Err(ToolchainError::Interrupted),
                Err(why) => {
                    tried.push(why);
                    continue;
                }
            };
            match self.compile_with(driver, unit, target, emit, &flags) {
                Err(error @ ToolchainError::Rejected { .. }) => match self.probe(driver, target, emit, options.backend)? {
                    Ok(()) => return Err(error),
                    Err(why) => tried.push(format!("{}: {why}", driver.path.display())),
                },
                result => return result,
            }
        }
        Err(ToolchainError::no_compiler(options.backend, Some((target.name, emit)), tried))
    }

    fn candidates(&self, backend: Backend) -> &[Candidate] {
        match backend {
            Backend::Clang => &self.clangs,
            Backend::Hipcc => &self.hipccs,
        }
    }

    /// Whether the compiler can do this at all, asked of a unit that is certainly right.
    fn probe(&self, driver: &Driver, target: &Target, emit: Emit, backend: Backend) -> Result<ProbeAnswer, ToolchainError> {
        let key = (driver.path.clone(), target.name, emit);
        if let Some(known) = self.probes.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(known.clone());
        }
        let unit = UnitSource { name: "probe", source: flags::probe_source(target, emit), headers: &[] };
        let flags = flags::flags(target, emit, &CompileOptions { backend, ..CompileOptions::default() })?;
        let answer = match self.compile_with(driver, &unit, target, emit, &flags) {
            Ok(_) => Ok(()),
            Err(ToolchainError::Rejected { diagnostics, .. }) => {
                Err(diagnostics.lines().next().unwrap_or("compiles no probe").to_owned())
            }
            Err(other) => return Err(other),
        };
        self.probes.lock().unwrap_or_else(PoisonError::into_inner).insert(key, answer.clone());
        Ok(answer)
    }

    fn compile_with(
        &self,
        driver: &Driver,
        unit: &UnitSource<'_>,
        target: &Target,
        emit: Emit,
        flags: &[String],
    ) -> Result<Compiled, ToolchainError> {
        let compiler = Arc::clone(&driver.version);
        let key = Key::new(unit, target.name, flags, &compiler);
        if let Some(bytes) = self.cache.as_ref().and_then(|cache| cache.get(&key)) {
            return Ok(Compiled { bytes, compiler, cached: true });
        }
        let bytes = self.run(driver, unit, target, flags)?;
        let bytes = match emit {
            Emit::CodeObject => check_code_object(bytes, target).map_err(|why| ToolchainError::BadOutput {
                unit: unit.name.to_owned(),
                target: target.name,
                compiler: compiler.to_string(),
                why,
            })?,
            _ => bytes,
        };
        if let Some(cache) = &self.cache
            && let Err(why) = cache.put(&key, &bytes)
            && cache.first_failure()
        {
            self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(why);
        }
        Ok(Compiled { bytes, compiler, cached: false })
    }

    /// Runs the compiler in a private folder: `NAME.hip`, `include/…`, `tmp/` for its own files, `out`.
    fn run(&self, driver: &Driver, unit: &UnitSource<'_>, target: &Target, flags: &[String]) -> Result<Vec<u8>, ToolchainError> {
        let dir = tempfile::Builder::new().prefix("hipc-").tempdir();
        let dir = dir.map_err(|e| ToolchainError::io("create a folder in", &std::env::temp_dir(), e))?;
        let root = dir.path();
        let file = format!("{}.hip", unit.name);
        write(&root.join(&file), unit.source)?;
        for (path, contents) in unit.headers {
            write(&root.join("include").join(path), contents)?;
        }
        let tmp = root.join("tmp");
        fs::create_dir(&tmp).map_err(|e| ToolchainError::io("create", &tmp, e))?;

        let mut command = Command::new(&driver.path);
        command.args(flags).args(["-I", "include", "-o", "out", &file]).current_dir(root).env("TMPDIR", &tmp);
        // libm follows the source that needs it.
        command.args(flags::libraries(target, flags));
        self.settings.prepare(&mut command);
        let ended = self.children.run(command).map_err(|e| e.into_toolchain(&driver.path))?;
        if !ended.status.success() {
            let (unit, target, compiler) = (unit.name.to_owned(), target.name, driver.version.to_string());
            return Err(match ended.status.code() {
                _ if self.children.interrupted() => ToolchainError::Interrupted,
                Some(1) => ToolchainError::Rejected { unit, target, compiler, diagnostics: error::trim(&ended.stderr) },
                _ => ToolchainError::Crashed {
                    unit,
                    target,
                    compiler,
                    status: ended.status.to_string(),
                    diagnostics: error::trim(&ended.stderr),
                },
            });
        }
        let out = root.join("out");
        fs::read(&out).map_err(|e| ToolchainError::io("read the compiler's output", &out, e))
    }
}

/// Unit and header names become paths below the private folder and nowhere else.
fn check_names(unit: &UnitSource<'_>) -> Result<(), ToolchainError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if unit.name.is_empty() || unit.name.starts_with(['-', '.']) || !unit.name.chars().all(plain) {
        return Err(ToolchainError::BadName(unit.name.to_owned()));
    }
    let inside = |path: &str| !path.is_empty() && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
    match unit.headers.iter().find(|(path, _)| !inside(path)) {
        Some((path, _)) => Err(ToolchainError::BadName((*path).to_owned())),
        None => Ok(()),
    }
}

fn write(path: &Path, contents: &str) -> Result<(), ToolchainError> {
    let create = || -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, contents)
    };
    create().map_err(|e| ToolchainError::io("write", path, e))
}

/// Takes a code object out of hipcc's bundle and makes sure it is one for the target.
fn check_code_object(bytes: Vec<u8>, target: &Target) -> Result<Vec<u8>, String> {
    let object = unbundle(&bytes, target.name).map_err(|e| e.to_string())?;
    let parsed = CodeObject::parse(object).map_err(|e| e.to_string())?;
    if parsed.target != target.name {
        return Err(format!("a code object for {}", parsed.target));
    }
    Ok(if object.len() == bytes.len() { bytes } else { object.to_vec() })
}

impl Emit {
    /// What is emitted, in words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::CodeObject => "code object",
            Self::LlvmIr => "LLVM IR",
            Self::Asm => "assembly",
            Self::Ptx => "PTX",
            Self::HostSharedObject => "shared library",
            Self::HostAsanExecutable => "sanitized executable",
        }
    }

    /// Whether the platform has this output.
    pub fn exists_on(self, platform: Platform) -> bool {
        match self {
            Self::LlvmIr | Self::Asm => true,
            Self::CodeObject => platform == Platform::Amd,
            Self::Ptx => platform == Platform::Nvidia,
            Self::HostSharedObject | Self::HostAsanExecutable => platform == Platform::Host,
        }
    }
}
