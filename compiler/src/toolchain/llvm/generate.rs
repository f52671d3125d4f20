//! From IR to an object, by LLVM's library.
//!
//! Code generation changes the module it is given and aborts when it is given it again, so every object is made of a copy; and
//! contexts belong to a thread, so copies travel as bitcode.

use super::variants::{self, DEFAULT, Tuning, VARIANTS};
use super::{GenerateError, Generated};
use crate::target::Target;
use crate::toolchain::Emit;
use hipc_codeobj::{Resources, unlinked_resources};
use hipc_ir::bundle::{KernelVariants, Variant};
use inkwell::OptimizationLevel;
use inkwell::attributes::AttributeLoc;
use inkwell::context::Context;
use inkwell::memory_buffer::MemoryBuffer;
use inkwell::module::{Linkage, Module};
use inkwell::passes::PassBuilderOptions;
use inkwell::targets::{CodeModel, FileType, InitializationConfig, RelocMode, TargetMachine, TargetTriple};
use inkwell::values::FunctionValue;
use std::collections::BTreeMap;
use std::thread;

/// Every target of this back end.
const TRIPLE: &str = "amdgcn-amd-amdhsa";
/// LLVM's number of the calling convention `amdgpu_kernel`.
const KERNEL_CONVENTION: u32 = 91;

pub(super) fn version() -> String {
    let (major, minor, patch) = inkwell::support::get_llvm_version();
    format!("LLVM {major}.{minor}.{patch}")
}

/// Verifies and optimises a unit, chooses a variant for each kernel and generates code.
///
/// # Errors
/// [`GenerateError`]. On some wrong input LLVM ends the process instead.
pub(super) fn generate(ir: &[u8], target: &Target, emit: Emit) -> Result<Generated, GenerateError> {
    let machine = machine(target)?;
    let context = Context::create();
    let module = parse(&context, ir)?;
    verify(&module)?;
    set_target(&module, &machine, target);
    optimise(&module, &machine)?;
    verify(&module)?;
    let optimised = module.write_bitcode_to_memory().as_slice().to_vec();

    let all = |_: &str| Some(Attributes::of(&DEFAULT, 0));
    let object = compile(&optimised, &machine, &all)?;
    let variants = search(&optimised, target, &resources(object.as_slice())?)?;
    let chosen = |name: &str| variants.iter().find(|(k, _)| k.kernel == name).map(|(_, attributes)| *attributes);
    let changed = variants.iter().any(|(k, _)| k.chosen > 0);
    let bytes = match emit {
        Emit::CodeObject if !changed => object.as_slice().to_vec(),
        Emit::CodeObject => {
            let object = compile(&optimised, &machine, &chosen)?;
            same_as_tried(&variants, &resources(object.as_slice())?, target)?;
            object.as_slice().to_vec()
        }
        Emit::LlvmIr => with_attributes(&context, &optimised, &machine, &chosen)?.print_to_string().to_bytes().to_vec(),
        _ => emit_file(&with_attributes(&context, &optimised, &machine, &chosen)?, &machine, FileType::Assembly)?
            .as_slice()
            .to_vec(),
    };
    Ok(Generated { bytes, variants: variants.into_iter().map(|(k, _)| k).collect() })
}

fn machine(target: &Target) -> Result<TargetMachine, GenerateError> {
    inkwell::targets::Target::initialize_amd_gpu(&InitializationConfig::default());
    let triple = TargetTriple::create(TRIPLE);
    let found = inkwell::targets::Target::from_triple(&triple).map_err(|e| GenerateError::Generate(e.to_string()))?;
    // As clang: position-independent, no features beside those of the processor.
    let level = OptimizationLevel::Aggressive;
    let machine = found.create_target_machine(&triple, target.name, "", level, RelocMode::PIC, CodeModel::Default);
    machine.ok_or_else(|| GenerateError::Generate(format!("LLVM doesn't know {}", target.name)))
}

fn parse<'ctx>(context: &'ctx Context, ir: &[u8]) -> Result<Module<'ctx>, GenerateError> {
    let buffer = MemoryBuffer::create_from_memory_range_copy(ir, "unit");
    context.create_module_from_ir(buffer).map_err(|e| GenerateError::Parse(e.to_string()))
}

fn verify(module: &Module) -> Result<(), GenerateError> {
    module.verify().map_err(|e| GenerateError::Verify(e.to_string()))
}

/// The processor's own data layout and, on every function, its name: passes look there, not at the target machine.
fn set_target(module: &Module, machine: &TargetMachine, target: &Target) {
    module.set_triple(&machine.get_triple());
    module.set_data_layout(&machine.get_target_data().get_data_layout());
    let cpu = module.get_context().create_string_attribute("target-cpu", target.name);
    for function in module.get_functions().filter(|f| f.count_basic_blocks() > 0) {
        function.add_attribute(AttributeLoc::Function, cpu);
    }
}

/// clang's pipeline for -O3; the target adds its own passes.
fn optimise(module: &Module, machine: &TargetMachine) -> Result<(), GenerateError> {
    let options = PassBuilderOptions::create();
    options.set_loop_vectorization(true);
    options.set_loop_slp_vectorization(true);
    options.set_loop_interleaving(true);
    options.set_loop_unrolling(true);
    run(module, machine, "default<O3>", options)
}

fn run(module: &Module, machine: &TargetMachine, passes: &str, options: PassBuilderOptions) -> Result<(), GenerateError> {
    module.run_passes(passes, machine, options).map_err(|e| GenerateError::Generate(e.to_string()))
}

/// Attributes of one kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Attributes {
    schedule: Option<&'static str>,
    /// Waves per SIMD to make room for.
    waves: Option<u32>,
}

impl Attributes {
    /// A variant of a kernel of which so many waves fit by default.
    fn of(tuning: &Tuning, waves: u32) -> Self {
        Self { schedule: tuning.schedule, waves: (tuning.more_waves > 0).then_some(waves + tuning.more_waves) }
    }

    fn set(self, module: &Module, kernel: FunctionValue) {
        let add = |key: &str, value: &str| {
            kernel.add_attribute(AttributeLoc::Function, module.get_context().create_string_attribute(key, value));
        };
        if let Some(schedule) = self.schedule {
            add("amdgpu-sched-strategy", schedule);
        }
        if let Some(waves) = self.waves {
            add("amdgpu-waves-per-eu", &waves.to_string());
        }
    }
}

/// A copy of the optimised module with these attributes; kernels that have none are left out.
fn with_attributes<'ctx>(
    context: &'ctx Context,
    optimised: &[u8],
    machine: &TargetMachine,
    attributes: &dyn Fn(&str) -> Option<Attributes>,
) -> Result<Module<'ctx>, GenerateError> {
    let module = parse(context, optimised)?;
    let mut left_out = false;
    for kernel in module.get_functions().filter(|f| f.get_call_conventions() == KERNEL_CONVENTION) {
        match attributes(&kernel.get_name().to_string_lossy()) {
            Some(attributes) => attributes.set(&module, kernel),
            None => {
                kernel.set_linkage(Linkage::Internal);
                left_out = true;
            }
        }
    }
    if left_out {
        run(&module, machine, "globaldce", PassBuilderOptions::create())?;
    }
    Ok(module)
}

fn compile(
    optimised: &[u8],
    machine: &TargetMachine,
    attributes: &dyn Fn(&str) -> Option<Attributes>,
) -> Result<MemoryBuffer<'static>, GenerateError> {
    let context = Context::create();
    emit_file(&with_attributes(&context, optimised, machine, attributes)?, machine, FileType::Object)
}

fn emit_file(module: &Module, machine: &TargetMachine, form: FileType) -> Result<MemoryBuffer<'static>, GenerateError> {
    machine.write_to_memory_buffer(module, form).map_err(|e| GenerateError::Generate(e.to_string()))
}

fn resources(object: &[u8]) -> Result<Vec<Resources>, GenerateError> {
    unlinked_resources(object).map_err(|e| GenerateError::Generate(format!("the object can't be read: {e}")))
}

/// Tries the variants, each in a thread of its own, on the kernels that have something to gain, and chooses.
fn search(optimised: &[u8], target: &Target, default: &[Resources]) -> Result<Vec<(KernelVariants, Attributes)>, GenerateError> {
    let waves = |k: &Resources| variants::result(&DEFAULT, k, target).waves;
    let searched: BTreeMap<&str, u32> =
        default.iter().filter(|k| variants::bound_by_registers(k, target)).map(|k| (k.name.as_str(), waves(k))).collect();
    let others = if searched.is_empty() { &[][..] } else { &VARIANTS[1..] };
    let attempt = |tuning: &Tuning| -> Result<Vec<Resources>, GenerateError> {
        let attributes = |name: &str| searched.get(name).map(|&waves| Attributes::of(tuning, waves));
        resources(compile(optimised, &machine(target)?, &attributes)?.as_slice())
    };
    let attempt = &attempt;
    let tried: Vec<Result<Vec<Resources>, GenerateError>> = thread::scope(|scope| {
        let running: Vec<_> = others.iter().map(|tuning| scope.spawn(move || attempt(tuning))).collect();
        let panicked = |_| Err(GenerateError::Generate("a thread ended early".to_owned()));
        running.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
    });
    let tried: Vec<Vec<Resources>> = tried.into_iter().collect::<Result<_, _>>()?;
    let choice = |kernel: &Resources| {
        let mut found: Vec<Variant> = vec![variants::result(&DEFAULT, kernel, target)];
        for (tuning, results) in others.iter().zip(&tried) {
            found.extend(results.iter().find(|k| k.name == kernel.name).map(|k| variants::result(tuning, k, target)));
        }
        let chosen = variants::choose(&found);
        let attributes = Attributes::of(&VARIANTS[chosen], waves(kernel));
        (KernelVariants { kernel: kernel.name.clone(), chosen: chosen as u32, tried: found }, attributes)
    };
    Ok(default.iter().map(choice).collect())
}

/// A kernel's code doesn't depend on what else is in the module; were it otherwise, the search would have chosen something else.
fn same_as_tried(variants: &[(KernelVariants, Attributes)], object: &[Resources], target: &Target) -> Result<(), GenerateError> {
    for (kernel, _) in variants {
        let tuning = &VARIANTS[kernel.chosen as usize];
        let found = object.iter().find(|k| k.name == kernel.kernel).map(|k| variants::result(tuning, k, target));
        if found.as_ref() != kernel.chosen() {
            return Err(GenerateError::Differs(kernel.kernel.clone()));
        }
    }
    Ok(())
}
