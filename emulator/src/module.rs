//! A loaded code object: its memory, and its kernels as executable steps.

use crate::disassembler;
use crate::exec::{Context, Step, build};
use crate::instruction::Instruction;
use crate::memory::Allocation;
use crate::reserved::ILLEGAL;
use crate::{Arch, EmulatorError, Generation, arch};
use hipc_codeobj::Image;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

/// Address that the code object's address 0 is loaded at. Memory's allocations lie above.
pub(crate) const CODE_BASE: u64 = 0x1_0000_0000;

/// A code object, ready to run.
pub struct Module {
    arch: &'static Arch,
    image: Image,
    kernels: HashMap<String, OnceLock<Result<Arc<Kernel>, EmulatorError>>>,
    /// Code and constants.
    pub(crate) segments: Vec<Arc<Allocation>>,
}

/// A kernel's instructions, decoded once.
pub struct Kernel {
    /// What the code object says of it.
    pub facts: hipc_codeobj::Kernel,
    instructions: Vec<Instruction>,
    pub(crate) entry: u32,
    pub(crate) steps: Steps,
}

/// Steps for waves of 32 or of 64 lanes.
pub(crate) enum Steps {
    Wave32(Vec<Step<32>>),
    Wave64(Vec<Step<64>>),
}

impl Kernel {
    /// Its instructions by address.
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }
}

impl Module {
    /// Reads a code object. Kernels are decoded when they are first used.
    ///
    /// # Errors
    /// If it is damaged or for a GPU that isn't emulated.
    pub fn load(bytes: &[u8]) -> Result<Self, EmulatorError> {
        let image = Image::parse(bytes)?;
        let arch = arch::find(&image.object.target).ok_or_else(|| EmulatorError::UnknownTarget(image.object.target.clone()))?;
        let memory = |s: &hipc_codeobj::Segment| {
            let allocation = Allocation::new(CODE_BASE + s.address, s.size, s.writable);
            allocation.fill(&s.bytes);
            for relocation in image.relocations.iter().filter(|r| r.address >= s.address && r.address - s.address < s.size) {
                let address = CODE_BASE.wrapping_add(relocation.target);
                let at = (relocation.address - s.address) as usize;
                allocation.write(at, address as u32, 4);
                allocation.write(at + 4, (address >> 32) as u32, 4);
            }
            Arc::new(allocation)
        };
        let segments = image.segments.iter().filter(|s| s.size > 0).map(memory).collect();
        let kernels = image.object.kernels.iter().map(|k| (k.name.clone(), OnceLock::new())).collect();
        Ok(Self { arch, image, kernels, segments })
    }

    /// The GPU it is for.
    pub fn arch(&self) -> &'static Arch {
        self.arch
    }

    /// Names of its kernels, in the metadata's order.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.image.object.kernels.iter().map(|k| k.name.as_str())
    }

    /// A kernel, decoded.
    ///
    /// # Errors
    /// If there is none of this name, its code has no bounds, or there is no LLVM library to decode it.
    pub fn kernel(&self, name: &str) -> Result<Arc<Kernel>, EmulatorError> {
        let slot = self.kernels.get(name).ok_or_else(|| EmulatorError::NoKernel(name.to_owned()))?;
        slot.get_or_init(|| self.decode(name).map(Arc::new)).clone()
    }

    fn decode(&self, name: &str) -> Result<Kernel, EmulatorError> {
        let missing = || EmulatorError::NoCode(name.to_owned());
        let facts = self.image.object.kernel(name).ok_or_else(missing)?.clone();
        let (entry, code) = self.image.code(name).ok_or_else(missing)?;
        let wave32 = facts.descriptor.is_wave32() && self.arch.has_wave32();
        check_descriptor(self.arch, &facts)?;
        let mut instructions = disassemble(self.arch, wave32, entry, code)?;
        if instructions.iter().any(|i| CALLS.iter().any(|c| i.text.starts_with(c))) {
            // What it calls may be anywhere in the segments of code.
            let end = entry + code.len() as u64;
            for segment in self.image.segments.iter().filter(|s| s.executable) {
                let at = |address: u64| address.saturating_sub(segment.address).min(segment.bytes.len() as u64) as usize;
                let (before, after) = (&segment.bytes[..at(entry)], &segment.bytes[at(end)..]);
                instructions.extend(disassemble(self.arch, wave32, segment.address, before)?);
                instructions.extend(disassemble(self.arch, wave32, segment.address + at(end) as u64, after)?);
            }
        }
        let index: HashMap<u64, u32> = instructions.iter().zip(0..).map(|(i, n)| (i.address, n)).collect();
        let index = Arc::new(index);
        let (vectors, accumulators) = registers(self.arch, &facts, wave32);
        let context = Context { arch: self.arch, vectors, accumulators, index: &index };
        let steps = if wave32 {
            Steps::Wave32(instructions.iter().map(|i| build(i, &context)).collect())
        } else {
            Steps::Wave64(instructions.iter().map(|i| build(i, &context)).collect())
        };
        Ok(Kernel { facts, instructions, entry: 0, steps })
    }
}

fn disassemble(arch: &'static Arch, wave32: bool, entry: u64, code: &[u8]) -> Result<Vec<Instruction>, EmulatorError> {
    disassembler::with(arch, wave32, |disassembler| {
        let (mut instructions, mut at) = (Vec::new(), 0);
        while at < code.len() {
            let address = entry + at as u64;
            // What isn't an instruction is a fault when it is reached; data behind the code never is.
            let (size, text) = disassembler.decode(&code[at..], address).unwrap_or_else(|| (4, ILLEGAL.to_owned()));
            instructions.push(Instruction::parse(address, size as u32, text));
            at += size;
        }
        instructions
    })
}

/// Instructions that go to an address in a register.
const CALLS: [&str; 3] = ["s_swappc_b64", "s_setpc_b64", "s_call_b64"];

/// Only what compilers ask for is emulated: nearest even, denormals kept, a clamped NaN is 0, halves overflow to infinity. Source:
/// `compute_pgm_rsrc1` and `compute_pgm_rsrc2` in LLVM's guide. (gfx12 has no bits for IEEE's mode and clamped NaNs.)
fn check_descriptor(arch: &Arch, facts: &hipc_codeobj::Kernel) -> Result<(), EmulatorError> {
    let has_modes = arch.generation < Generation::Gfx12;
    let (rsrc1, rsrc2) = (facts.descriptor.rsrc1, facts.descriptor.rsrc2);
    let bit = |word: u32, bit: u32| word >> bit & 1 == 1;
    for (asked, what) in [
        (bit(rsrc1, 20), "to run at a privileged level (PRIV)"),
        (has_modes && !bit(rsrc1, 21), "for clamped NaNs to stay (ENABLE_DX10_CLAMP is 0)"),
        (bit(rsrc1, 22), "for debug mode (DEBUG_MODE)"),
        (has_modes && !bit(rsrc1, 23), "not to follow IEEE's rules for signalling NaNs (ENABLE_IEEE_MODE is 0)"),
        (bit(rsrc1, 26), "for halves that stop at the largest number instead of becoming infinite (FP16_OVFL)"),
        (bit(rsrc2, 10), "for the workgroup's information (ENABLE_SGPR_WORKGROUP_INFO)"),
        (rsrc2 >> 24 & 0x7f != 0, "for exceptions of floating-point numbers (ENABLE_EXCEPTION)"),
    ] {
        if asked {
            return Err(EmulatorError::Descriptor { kernel: facts.name.clone(), what });
        }
    }
    let mode = rsrc1 >> 12 & 0xff;
    if mode == crate::exec::FLOAT_MODE { Ok(()) } else { Err(EmulatorError::FloatMode { kernel: facts.name.clone(), mode }) }
}

/// Vector and accumulation registers that a wave has. Source: `GRANULATED_WORKITEM_VGPR_COUNT` and `ACCUM_OFFSET` in LLVM's guide.
pub(crate) fn registers(arch: &Arch, facts: &hipc_codeobj::Kernel, wave32: bool) -> (u16, u16) {
    let descriptor = &facts.descriptor;
    let granule = if arch.unified_registers || wave32 { 8 } else { 4 };
    let all = ((descriptor.rsrc1 & 0x3f) as u16 + 1) * granule;
    if arch.unified_registers {
        let offset = ((descriptor.rsrc3 & 0x3f) as u16 + 1) * 4;
        (offset.min(all).min(256), all.saturating_sub(offset).min(256))
    } else if arch.name == "gfx908" {
        (all.min(256), all.min(256))
    } else {
        (all.min(256), 0)
    }
}
