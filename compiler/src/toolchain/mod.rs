//! The toolchain driver: source in, code object (or IR, assembly, PTX, host library) out, through an installed clang.
//!
//! A unit and the headers it includes are written to a private folder, an ordinary clang ≥ 19 compiles them there by relative
//! names, and the result is read back and kept in a cache addressed by content (source, headers, flags, target, compiler
//! version). [`Backend::Llvm`] takes over behind clang's front end ([`llvm`]); nothing else is linked against LLVM. No absolute path and no time enters the output: the same input gives the same
//! bytes on every machine with the same compiler.
//!
//! Compilers run as children: at most one per core, each in its own process group, killed with their own children when the
//! driver unwinds or [`Interrupter::interrupt`] is called. What they print comes back in the error, never on the terminal.

mod cache;
mod error;
mod find;
mod flags;
pub mod llvm;
mod process;
mod run;

use crate::target::{Platform, Target};
use cache::{Cache, Key};
use find::{Candidate, Driver};
use hipc_codeobj::{CodeObject, unbundle};
use hipc_ir::bundle::KernelVariants;
use llvm::Generated;
use process::Children;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

pub use cache::CacheSetting;
pub use error::ToolchainError;
pub use find::Settings;
pub use process::Interrupter;
pub use run::Tool;

/// One translation unit and the headers it may include.
#[derive(Clone, Copy, Debug)]
pub struct UnitSource<'a> {
    /// Stem of the file name that diagnostics show; letters, digits, `_`, `-` and `.`.
    pub name: &'a str,
    /// HIP source.
    pub source: &'a str,
    /// Headers: path relative to the include folder, contents.
    pub headers: &'a [(&'static str, &'static str)],
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
    /// clang as the front end and LLVM's library behind it; AMD targets only.
    Llvm,
}

impl Backend {
    /// As `--backend` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clang => "clang",
            Self::Hipcc => "hipcc",
            Self::Llvm => "llvm",
        }
    }
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
    /// How each kernel was compiled, where variants were searched ([`Backend::Llvm`]).
    pub variants: Vec<KernelVariants>,
    /// The compiler's name and version, for the bundle's provenance.
    pub compiler: Arc<str>,
    /// Whether it came from the cache.
    pub cached: bool,
}

/// Compiler, back end, target and output of a trivial unit.
type Probe = (PathBuf, Backend, &'static str, Emit);
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
    /// A driver with the process's environment: `HIPC_CLANG`, `HIPC_HIPCC`, `HIPC_CACHE`, `HIPC_CACHE_DIR`, `HIPC_CACHE_MIB`, `PATH`.
    pub fn from_env() -> Self {
        Self::new(Settings::from_env())
    }

    /// A driver with these settings. Looks for nothing yet.
    pub fn new(settings: Settings) -> Self {
        let mut warnings = Vec::new();
        let cache = Cache::open(&settings.cache, settings.cache_mib.as_deref()).unwrap_or_else(|why| {
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
        if backend == Backend::Llvm && llvm::version().is_none() {
            return Err(ToolchainError::NoLlvm);
        }
        self.first(backend).map(|driver| name(backend, driver))
    }

    fn first(&self, backend: Backend) -> Result<&Driver, ToolchainError> {
        let mut tried = Vec::new();
        let found = self.candidates(backend).iter().find_map(|c| c.driver(self).map_err(|why| tried.push(why)).ok());
        found.ok_or_else(|| ToolchainError::no_compiler(backend, None, tried))
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
        run::check_names(unit)?;
        if options.backend == Backend::Llvm {
            llvm::supported(target, emit)?;
        }
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
            match self.compile_with(driver, unit, target, emit, &flags, options.backend) {
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
            Backend::Clang | Backend::Llvm => &self.clangs,
            Backend::Hipcc => &self.hipccs,
        }
    }

    /// Whether the compiler can do this at all, asked of a unit that is certainly right.
    fn probe(&self, driver: &Driver, target: &Target, emit: Emit, backend: Backend) -> Result<ProbeAnswer, ToolchainError> {
        let key = (driver.path.clone(), backend, target.name, emit);
        if let Some(known) = self.probes.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(known.clone());
        }
        let unit = UnitSource { name: "probe", source: flags::probe_source(target, emit), headers: &[] };
        let flags = flags::flags(target, emit, &CompileOptions { backend, ..CompileOptions::default() })?;
        let answer = match self.compile_with(driver, &unit, target, emit, &flags, backend) {
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
        backend: Backend,
    ) -> Result<Compiled, ToolchainError> {
        let compiler = name(backend, driver);
        let key = match backend {
            Backend::Llvm => Key::new(unit, target.name, &[flags, &llvm::key(emit)].concat(), &compiler),
            _ => Key::new(unit, target.name, flags, &compiler),
        };
        let cached = self.cache.as_ref().and_then(|cache| cache.get(&key));
        if let Some(Generated { bytes, variants }) = cached.and_then(|bytes| from_cache(backend, bytes)) {
            return Ok(Compiled { bytes, variants, compiler, cached: true });
        }
        let mut made = match backend {
            Backend::Llvm => self.run_llvm(driver, unit, target, emit, flags)?,
            _ => Generated { bytes: self.run(driver, unit, target, flags)?, variants: Vec::new() },
        };
        if emit == Emit::CodeObject {
            made.bytes = check_code_object(made.bytes, target).map_err(|why| ToolchainError::BadOutput {
                unit: unit.name.to_owned(),
                target: target.name,
                compiler: compiler.to_string(),
                why,
            })?;
        }
        self.put(&key, backend, &made);
        Ok(Compiled { bytes: made.bytes, variants: made.variants, compiler, cached: false })
    }

    fn put(&self, key: &Key, backend: Backend, made: &Generated) {
        let Some(cache) = &self.cache else { return };
        // Postcard can't fail on these types; an empty entry would be no answer and be made anew.
        let stored = match backend {
            Backend::Llvm => cache.put(key, &postcard::to_stdvec(made).unwrap_or_default()),
            _ => cache.put(key, &made.bytes),
        };
        if let Err(why) = stored
            && cache.first_failure()
        {
            self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(why);
        }
    }
}

/// What the provenance calls a compiler.
fn name(backend: Backend, driver: &Driver) -> Arc<str> {
    match backend {
        Backend::Llvm => llvm::name(&driver.version).into(),
        Backend::Clang | Backend::Hipcc => Arc::clone(&driver.version),
    }
}

/// An entry of the cache.
fn from_cache(backend: Backend, bytes: Vec<u8>) -> Option<Generated> {
    match backend {
        Backend::Llvm => postcard::from_bytes(&bytes).ok(),
        Backend::Clang | Backend::Hipcc => Some(Generated { bytes, variants: Vec::new() }),
    }
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
