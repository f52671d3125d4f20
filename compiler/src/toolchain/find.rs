//! Which compilers the machine has.

use super::cache::CacheSetting;
use super::{Toolchain, process::Children};
use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

/// Older clangs lack targets or builtins that the kernels use.
const OLDEST_CLANG: u32 = 19;
const CLANGS: [&str; 7] = ["clang-22", "clang-23", "clang-21", "clang-20", "clang-19", "clang", "/opt/rocm/llvm/bin/clang"];
const HIPCCS: [&str; 2] = ["hipcc", "/opt/rocm/bin/hipcc"];

/// Variables that make a compiler read or write what we didn't ask for.
const SCRUBBED: [&str; 9] = [
    "CPATH",
    "C_INCLUDE_PATH",
    "CPLUS_INCLUDE_PATH",
    "OBJC_INCLUDE_PATH",
    "CCC_OVERRIDE_OPTIONS",
    "COMPILER_PATH",
    "GCC_EXEC_PREFIX",
    "DEPENDENCIES_OUTPUT",
    "SOURCE_DATE_EPOCH",
];

/// What the driver takes from its surroundings.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The one clang to use (`HIPC_CLANG`), a path or a name on `path`; without it the usual names are tried.
    pub clang: Option<OsString>,
    /// The one hipcc to use (`HIPC_HIPCC`).
    pub hipcc: Option<OsString>,
    /// Where programs are looked for (`PATH`).
    pub path: OsString,
    /// The compile cache.
    pub cache: CacheSetting,
    /// MiB that the cache may take (`HIPC_CACHE_MIB`), 1024 if unset.
    pub cache_mib: Option<OsString>,
    /// The program that generates code by LLVM's library, `hipc` itself, which LLVM may abort. Without it (in programs that only
    /// use this library) that is done in this process.
    pub generator: Option<PathBuf>,
}

impl Settings {
    /// The process's environment; empty variables count as unset.
    pub fn from_env() -> Self {
        let set = |name: &str| env::var_os(name).filter(|v| !v.is_empty());
        Self {
            clang: set("HIPC_CLANG"),
            hipcc: set("HIPC_HIPCC"),
            path: set("PATH").unwrap_or_default(),
            cache: CacheSetting::from_values(set("HIPC_CACHE"), set("HIPC_CACHE_DIR")),
            cache_mib: set("HIPC_CACHE_MIB"),
            generator: None,
        }
    }

    /// Gives a child our idea of the environment.
    pub(super) fn prepare(&self, command: &mut Command) {
        command.env("PATH", &self.path).env("LC_ALL", "C");
        for name in SCRUBBED {
            command.env_remove(name);
        }
    }

    /// The file a program name stands for.
    fn find(&self, program: &OsStr) -> Option<PathBuf> {
        if Path::new(program).components().count() > 1 {
            return Some(PathBuf::from(program)).filter(|p| is_program(p));
        }
        env::split_paths(&self.path).map(|dir| dir.join(program)).find(|p| is_program(p))
    }
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// A compiler that answered.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) path: PathBuf,
    /// The line in which it names itself.
    pub(super) version: Arc<str>,
}

/// A compiler that may be there; asked for its version at most once.
#[derive(Debug)]
pub(super) struct Candidate {
    program: OsString,
    /// The variable that names it, if one does.
    variable: Option<&'static str>,
    is_clang: bool,
    answer: OnceLock<Result<Driver, String>>,
}

impl Candidate {
    /// The compiler, or why it doesn't serve.
    pub(super) fn driver(&self, toolchain: &Toolchain) -> Result<&Driver, String> {
        if let Some(answer) = self.answer.get() {
            return answer.as_ref().map_err(Clone::clone);
        }
        let answer = self.ask(&toolchain.settings, &toolchain.children);
        if toolchain.children.interrupted() {
            return Err("interrupted".to_owned());
        }
        self.answer.get_or_init(|| answer).as_ref().map_err(Clone::clone)
    }

    fn ask(&self, settings: &Settings, children: &Children) -> Result<Driver, String> {
        let name = match self.variable {
            Some(variable) => format!("{variable}={}", self.program.display()),
            None => self.program.display().to_string(),
        };
        let path = settings.find(&self.program).ok_or_else(|| format!("{name}: not found"))?;
        let mut command = Command::new(&path);
        command.arg("--version");
        settings.prepare(&mut command);
        let printed = children.output(command).map_err(|e| format!("{name}: {e}"))?;
        let (version, major) = clang_version(&printed).ok_or_else(|| format!("{name}: not a clang"))?;
        if self.is_clang && major < OLDEST_CLANG {
            return Err(format!("{name}: version {major}, older than {OLDEST_CLANG}"));
        }
        let version = if self.is_clang { version.to_owned() } else { format!("hipcc, {version}") };
        Ok(Driver { path, version: version.into() })
    }
}

/// The line `… clang version 22.1.8 …` of `--version` and the major number.
fn clang_version(printed: &str) -> Option<(&str, u32)> {
    let line = printed.lines().map(str::trim).find(|l| l.contains("clang version "))?;
    let (_, number) = line.split_once("clang version ")?;
    let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((line, digits.parse().ok()?))
}

pub(super) fn clangs(settings: &Settings) -> Vec<Candidate> {
    candidates(settings.clang.as_ref().map(|c| ("HIPC_CLANG", c)), &CLANGS, true)
}

pub(super) fn hipccs(settings: &Settings) -> Vec<Candidate> {
    candidates(settings.hipcc.as_ref().map(|c| ("HIPC_HIPCC", c)), &HIPCCS, false)
}

fn candidates(chosen: Option<(&'static str, &OsString)>, names: &[&str], is_clang: bool) -> Vec<Candidate> {
    let candidate = |program: OsString, variable| Candidate { program, variable, is_clang, answer: OnceLock::new() };
    match chosen {
        Some((variable, program)) => vec![candidate(program.clone(), Some(variable))],
        None => names.iter().map(|n| candidate(n.into(), None)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions() {
        let debian = "Debian clang version 22.1.8 (1~deb12u1)\nTarget: x86_64-pc-linux-gnu\n";
        assert_eq!(clang_version(debian), Some(("Debian clang version 22.1.8 (1~deb12u1)", 22)));
        let rocm = "HIP version: 6.4.1\nAMD clang version 19.0.0git (https://github.com/x 25133)\n";
        assert_eq!(clang_version(rocm).map(|v| v.1), Some(19));
        assert_eq!(clang_version("gcc (Debian 12.2.0) 12.2.0"), None);
    }
}
