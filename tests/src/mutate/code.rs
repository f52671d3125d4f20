//! One bit of a kernel's machine code flipped.
//!
//! Bits that no emulator can judge aren't drawn: padding behind the end, `s_delay_alu`, `s_clause`, `s_nop`, prefetches, and cache
//! policies. Every survivor is put into a class by a tool: the disassembler (the same text), an illegal instruction in its place (never
//! reached), or further inputs (the same bits in every result).

use crate::emulated::{Outcome, Trial};
use hipc_codeobj::Image;
use hipc_emulator::{Instruction, Module};
use hipfire_run::verify::inputs::Random;
use std::fmt;

/// Instructions whose bits are not drawn.
const EXCLUDED: [&str; 7] =
    ["s_delay_alu", "s_clause", "s_nop", "s_set_inst_prefetch_distance", "s_inst_prefetch", "s_prefetch", "s_code_end"];

/// Modifiers that say how caches are used.
const POLICIES: [&str; 10] = ["glc", "slc", "dlc", "sc0", "sc1", "nt", "scc", "nv", "th:", "scope:"];

/// Seeds of further inputs that survivors have to go through.
const FURTHER: [u64; 2] = [0x51, 0x52];

/// What became of a flipped bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Found: results that the reference doesn't have.
    Wrong,
    /// Found: the emulator stopped at an access, a jump, a register or an endless loop that must not be.
    Stopped,
    /// Found: no instruction of the target, or none that its compiler makes of these kernels.
    Illegal,
    /// Survived: the disassembler prints the same instruction.
    SameText,
    /// Survived: the instruction is never reached by any of the inputs.
    Unexecuted,
    /// Survived: every result has the same bits, on further inputs, too.
    Equivalent,
    /// Survived: other bits, within every bound.
    WithinBounds,
}

impl Verdict {
    /// Whether the checks found it.
    pub fn found(self) -> bool {
        matches!(self, Self::Wrong | Self::Stopped | Self::Illegal)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wrong => "found: wrong results",
            Self::Stopped => "found: stopped by the emulator",
            Self::Illegal => "found: not an instruction",
            Self::SameText => "survived: a bit without a meaning (the same disassembly)",
            Self::Unexecuted => "survived: never executed",
            Self::Equivalent => "survived: equivalent (the same bits in every result)",
            Self::WithinBounds => "survived: other bits, within the bounds",
        })
    }
}

/// A flipped bit.
#[derive(Clone, Debug)]
pub struct Flip {
    /// Kernel.
    pub kernel: String,
    /// Address and bit of the instruction.
    pub address: u64,
    /// From its lowest on.
    pub bit: u32,
    /// Before and after.
    pub text: [String; 2],
    /// What became of it.
    pub verdict: Verdict,
    /// What was found.
    pub what: String,
}

/// A kernel's code in a code object's file.
pub struct Code<'a> {
    target: &'a str,
    kernel: &'a str,
    module: &'a [u8],
    /// Offset of virtual address 0 in the file, as far as the code goes.
    base: usize,
    instructions: Vec<Instruction>,
    trial: Trial,
    right: Vec<Vec<Vec<u8>>>,
}

fn decode(module: &[u8], kernel: &str) -> Vec<Instruction> {
    let module = Module::load(module).unwrap_or_else(|e| panic!("{e}"));
    module.kernel(kernel).unwrap_or_else(|e| panic!("{e}")).instructions().to_vec()
}

fn without_policies(text: &str) -> String {
    text.split_whitespace().filter(|word| !POLICIES.iter().any(|p| word.starts_with(p))).collect::<Vec<_>>().join(" ")
}

impl<'a> Code<'a> {
    /// A kernel and how it is tried.
    ///
    /// # Panics
    /// If the kernel isn't right as it is.
    pub fn new(target: &'a str, module: &'a [u8], kernel: &'a str, trial: Trial) -> Self {
        let image = Image::parse(module).unwrap_or_else(|e| panic!("{e}"));
        let segment = image.segments.iter().find(|s| s.executable && !s.bytes.is_empty()).expect("there is code");
        let at = module.windows(segment.bytes.len()).position(|w| w == segment.bytes).expect("the segment is in the file");
        let base = at.wrapping_sub(segment.address as usize);
        let right = match trial.run(target, module, None) {
            Outcome::Right(bits) => bits,
            other => panic!("{kernel}: {other:?}"),
        };
        let mut instructions = decode(module, kernel);
        // Behind the last end of the program is padding.
        let end = instructions.iter().rposition(|i| i.text.starts_with("s_endpgm")).map_or(0, |i| i + 1);
        instructions.truncate(end);
        Self { target, kernel, module, base, instructions, trial, right }
    }

    fn with(&self, change: impl FnOnce(&mut [u8], usize)) -> Vec<u8> {
        let mut module = self.module.to_vec();
        change(&mut module, self.base);
        module
    }

    /// Flips a bit, at random; what became of it.
    pub fn flip(&self, random: &mut Random) -> Flip {
        loop {
            let instruction = &self.instructions[random.below(self.instructions.len() as u32) as usize];
            let bit = random.below(8 * instruction.size);
            if EXCLUDED.iter().any(|e| instruction.text.starts_with(e)) {
                continue;
            }
            let module =
                self.with(|m, base| m[base.wrapping_add(instruction.address as usize) + bit as usize / 8] ^= 1 << (bit % 8));
            let text = decode(&module, self.kernel)
                .into_iter()
                .find(|i| i.address == instruction.address)
                .map_or_else(String::new, |i| i.text);
            let policy_only = text != instruction.text && without_policies(&text) == without_policies(&instruction.text);
            if policy_only {
                continue;
            }
            let (verdict, what) = self.judge(instruction, &text, &module);
            let text = [instruction.text.clone(), text];
            return Flip { kernel: self.kernel.to_owned(), address: instruction.address, bit, text, verdict, what };
        }
    }

    fn judge(&self, instruction: &Instruction, text: &str, module: &[u8]) -> (Verdict, String) {
        match self.trial.run(self.target, module, Some(&self.right)) {
            Outcome::Wrong(what) => (Verdict::Wrong, what),
            Outcome::Fault(what) if what.contains("illegal instruction") || what.contains("not emulated") => {
                (Verdict::Illegal, what)
            }
            Outcome::Fault(what) => (Verdict::Stopped, what),
            Outcome::Right(_) if text == instruction.text => (Verdict::SameText, String::new()),
            Outcome::Right(_) if self.unexecuted(instruction) => (Verdict::Unexecuted, String::new()),
            Outcome::Right(bits) => match self.trial.run_sanitized(self.target, module, Some(&self.right)) {
                Outcome::Fault(what) => (Verdict::Stopped, what),
                _ if bits != self.right => (Verdict::WithinBounds, String::new()),
                _ => self.further(module),
            },
        }
    }

    /// Whether nothing notices that there is no instruction at all.
    fn unexecuted(&self, instruction: &Instruction) -> bool {
        let (from, to) = (instruction.address as usize, (instruction.address + u64::from(instruction.size)) as usize);
        // All ones is no instruction of any generation.
        let module = self.with(|m, base| m[base.wrapping_add(from)..base.wrapping_add(to)].fill(0xff));
        matches!(self.trial.run(self.target, &module, Some(&self.right)), Outcome::Right(_))
    }

    fn further(&self, module: &[u8]) -> (Verdict, String) {
        for trial in FURTHER.map(|seed| self.trial.again(seed)) {
            let Outcome::Right(right) = trial.run(self.target, self.module, None) else { panic!("{} isn't right", self.kernel) };
            match trial.run(self.target, module, Some(&right)) {
                Outcome::Right(bits) if bits == right => {}
                Outcome::Right(_) => return (Verdict::WithinBounds, String::new()),
                Outcome::Wrong(what) => return (Verdict::Wrong, what),
                Outcome::Fault(what) => return (Verdict::Stopped, what),
            }
        }
        (Verdict::Equivalent, String::new())
    }
}
