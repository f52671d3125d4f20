//! The back end as the toolchain runs it: front end, this program's child, linker, all in one private folder.

use super::{Answer, GenerateError, Generated, Job, answer, read_answer, version};
use crate::target::{Platform, Target};
use crate::toolchain::find::Driver;
use crate::toolchain::run::{Folder, Step, Tool};
use crate::toolchain::{Backend, Compiled, Emit, Toolchain, ToolchainError, UnitSource, error};
use std::fs;
use std::path::Path;
use std::process::Command;

/// What identifies this back end in keys of the cache, beside the flags of the front end.
pub(in crate::toolchain) fn key(emit: Emit) -> [String; 2] {
    [format!("llvm {}", emit.describe()), super::variants::describe()]
}

/// What made the code: the library, and the front end whose output it was given.
pub(in crate::toolchain) fn name(front_end: &str) -> String {
    format!("{}, front end {front_end}", library())
}

fn library() -> String {
    version().unwrap_or_else(|| "LLVM".to_owned())
}

/// `Err` if this back end can't do it at all.
pub(in crate::toolchain) fn supported(target: &Target, emit: Emit) -> Result<(), ToolchainError> {
    let unsupported = || ToolchainError::Unsupported { target: target.name, emit, backend: Backend::Llvm };
    if version().is_none() {
        return Err(ToolchainError::NoLlvm);
    }
    let known = target.platform == Platform::Amd && matches!(emit, Emit::CodeObject | Emit::LlvmIr | Emit::Asm);
    if known { Ok(()) } else { Err(unsupported()) }
}

impl Toolchain {
    /// Compiles LLVM IR (text or bitcode) of a whole unit. Nothing is cached.
    ///
    /// # Errors
    /// [`ToolchainError::Rejected`] if the IR is at fault, [`ToolchainError::Crashed`] if LLVM ended its process over it,
    /// [`ToolchainError::NoLlvm`] if there is none.
    pub fn compile_ir(&self, name: &str, ir: &[u8], target: &Target, emit: Emit) -> Result<Compiled, ToolchainError> {
        supported(target, emit)?;
        let unit = UnitSource { name, source: "", headers: &[] };
        let folder = Folder::new(&unit)?;
        let input = folder.path("unit.bc");
        fs::write(&input, ir).map_err(|e| ToolchainError::io("write", &input, e))?;
        let linker = self.first(Backend::Llvm)?;
        let made = self.finish(&folder, linker, &unit, target, emit)?;
        Ok(Compiled { bytes: made.bytes, variants: made.variants, compiler: library().into(), cached: false })
    }

    /// Source to machine code.
    pub(in crate::toolchain) fn run_llvm(
        &self,
        front_end: &Driver,
        unit: &UnitSource<'_>,
        target: &Target,
        emit: Emit,
        flags: &[String],
    ) -> Result<Generated, ToolchainError> {
        let folder = Folder::new(unit)?;
        folder.write_sources(unit)?;
        let step = Step { unit: unit.name, target: target.name, compiler: &front_end.version, tool: Tool::Compiler };
        let mut command = Command::new(&front_end.path);
        command.args(flags).args(["-I", "include", "-o", "unit.bc", &folder.file]);
        self.end(&folder, command, &step)?;
        self.finish(&folder, front_end, unit, target, emit)
    }

    /// From `unit.bc` in the folder to what was asked for.
    fn finish(
        &self,
        folder: &Folder,
        linker: &Driver,
        unit: &UnitSource<'_>,
        target: &Target,
        emit: Emit,
    ) -> Result<Generated, ToolchainError> {
        let library = library();
        let step = Step { unit: unit.name, target: target.name, compiler: &library, tool: Tool::Library };
        let made = self.generate(folder, &step, target, emit)?.map_err(|fault| {
            let (unit, compiler) = (unit.name.to_owned(), library.clone());
            match fault {
                GenerateError::Parse(_) | GenerateError::Verify(_) => {
                    ToolchainError::Rejected { unit, target: target.name, compiler, diagnostics: error::trim(&fault.to_string()) }
                }
                _ => ToolchainError::BadOutput { unit, target: target.name, compiler, why: fault.to_string() },
            }
        })?;
        if emit != Emit::CodeObject {
            return Ok(made);
        }
        let object = folder.path("unit.o");
        fs::write(&object, &made.bytes).map_err(|e| ToolchainError::io("write", &object, e))?;
        let mut link = Command::new(&linker.path);
        link.args(["--no-default-config", "--target=amdgcn-amd-amdhsa"]).arg(format!("-mcpu={}", target.name));
        link.args(["-o", "out", "unit.o"]);
        self.end(folder, link, &Step { compiler: &linker.version, tool: Tool::Compiler, ..step })?;
        Ok(Generated { bytes: folder.read("out")?, ..made })
    }

    /// In a child if the settings name a program for it; in this process otherwise.
    fn generate(&self, folder: &Folder, step: &Step<'_>, target: &Target, emit: Emit) -> Result<Answer, ToolchainError> {
        let Some(program) = &self.settings.generator else {
            return Ok(answer(&folder.read("unit.bc")?, target, emit));
        };
        let mut command = Command::new(program);
        command.args([Job::COMMAND, target.name, Job::form(emit), "unit.bc", "answer"]);
        self.end(folder, command, step)?;
        let path = folder.path("answer");
        read_answer(&path).map_err(|e| ToolchainError::io("read LLVM's answer in", &path, e))
    }
}

impl Job {
    /// The hidden command of `hipc` that calls [`super::serve`].
    pub const COMMAND: &'static str = "llvm-codegen";

    /// A form of output as an argument.
    fn form(emit: Emit) -> &'static str {
        match emit {
            Emit::LlvmIr => "llvm-ir",
            Emit::Asm => "asm",
            _ => "code-object",
        }
    }

    /// The job that arguments behind [`Job::COMMAND`] stand for.
    pub fn parse(target: &'static Target, form: &str, input: &Path, output: &Path) -> Option<Self> {
        let emit = [Emit::CodeObject, Emit::LlvmIr, Emit::Asm].into_iter().find(|&e| Self::form(e) == form)?;
        Some(Self { target, emit, input: input.to_owned(), output: output.to_owned() })
    }
}
