//! One compilation: a private folder with the unit (`NAME.hip`, `include/…`, `tmp/` for the compiler's own files), and a command
//! that runs there to its end.

use super::error;
use super::find::Driver;
use super::{Toolchain, ToolchainError, UnitSource, flags};
use crate::target::Target;
use std::path::{Component, Path, PathBuf};
use std::process::Command;
use std::{fs, io};

/// A private folder; removed when it is dropped.
pub(super) struct Folder {
    dir: tempfile::TempDir,
    /// The unit's file.
    pub(super) file: String,
}

/// What a command does and for whom, for its errors.
#[derive(Clone, Copy)]
pub(super) struct Step<'a> {
    pub(super) unit: &'a str,
    pub(super) target: &'static str,
    pub(super) compiler: &'a str,
    pub(super) tool: Tool,
}

/// What kind of program a command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// clang or hipcc: exit code 1 says that the source is at fault.
    Compiler,
    /// LLVM's library in a child: it has only one way to say that the source is at fault, and any other end is a crash.
    Library,
}

impl Tool {
    /// What to do if it crashes.
    pub(super) fn advice(self) -> &'static str {
        match self {
            Self::Compiler => "try another clang through HIPC_CLANG",
            Self::Library => "--backend clang compiles without it",
        }
    }
}

impl Folder {
    pub(super) fn new(unit: &UnitSource<'_>) -> Result<Self, ToolchainError> {
        let dir = tempfile::Builder::new().prefix("hipc-").tempdir();
        let dir = dir.map_err(|e| ToolchainError::io("create a folder in", &std::env::temp_dir(), e))?;
        let folder = Self { dir, file: format!("{}.hip", unit.name) };
        let tmp = folder.path("tmp");
        fs::create_dir(&tmp).map_err(|e| ToolchainError::io("create", &tmp, e))?;
        Ok(folder)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn write_sources(&self, unit: &UnitSource<'_>) -> Result<(), ToolchainError> {
        write(&self.path(&self.file), unit.source)?;
        let include = self.path("include");
        unit.headers.iter().try_for_each(|(path, contents)| write(&include.join(path), contents))
    }

    /// A file that a compiler has written.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, ToolchainError> {
        let path = self.path(name);
        fs::read(&path).map_err(|e| ToolchainError::io("read the compiler's output", &path, e))
    }
}

impl Toolchain {
    /// Runs a compiler that does it all.
    pub(super) fn run(
        &self,
        driver: &Driver,
        unit: &UnitSource<'_>,
        target: &Target,
        flags: &[String],
    ) -> Result<Vec<u8>, ToolchainError> {
        let folder = Folder::new(unit)?;
        folder.write_sources(unit)?;
        let mut command = Command::new(&driver.path);
        command.args(flags).args(["-I", "include", "-o", "out", &folder.file]);
        // libm follows the source that needs it.
        command.args(flags::libraries(target, flags));
        let step = Step { unit: unit.name, target: target.name, compiler: &driver.version, tool: Tool::Compiler };
        self.end(&folder, command, &step)?;
        folder.read("out")
    }

    /// Runs a command in a folder to its end, which must be a good one.
    pub(super) fn end(&self, folder: &Folder, mut command: Command, step: &Step<'_>) -> Result<(), ToolchainError> {
        command.current_dir(folder.dir.path()).env("TMPDIR", folder.path("tmp"));
        self.settings.prepare(&mut command);
        let program = PathBuf::from(command.get_program());
        let ended = self.children.run(command).map_err(|e| e.into_toolchain(&program))?;
        if ended.status.success() {
            return Ok(());
        }
        let (unit, target, compiler) = (step.unit.to_owned(), step.target, step.compiler.to_owned());
        let (status, diagnostics) = (ended.status, error::trim(&ended.stderr));
        Err(match status.code() {
            _ if self.children.interrupted() => ToolchainError::Interrupted,
            Some(1) if step.tool == Tool::Compiler => ToolchainError::Rejected { unit, target, compiler, diagnostics },
            _ => ToolchainError::Crashed { unit, target, compiler, status: status.to_string(), tool: step.tool, diagnostics },
        })
    }
}

/// Unit and header names become paths below the private folder and nowhere else.
pub(super) fn check_names(unit: &UnitSource<'_>) -> Result<(), ToolchainError> {
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
