//! One bit of a kernel's machine code flipped.
//!
//! Bits that no emulator can judge aren't drawn: padding behind the end, `s_delay_alu`, `s_clause`, `s_nop`, `s_waitcnt_depctr`,
//! prefetches, and cache policies. A flip is a mutation only if it changes what the machine does; a survivor that doesn't is *idle*: a
//! tool says why (the disassembler; an illegal instruction in its place that is never reached; both instructions executed side by
//! side, see [`hipc_emulator::Module::same_effect`]), it is counted, and another bit is drawn. Every other survivor has left the same
//! bits on further inputs, with nothing for the sanitizer, or is what the checks miss.

use crate::emulated::{Outcome, Trial};
use hipc_codeobj::Image;
use hipc_emulator::{Instruction, Module};
use hipfire_run::verify::inputs::Random;
use std::fmt;
use std::sync::OnceLock;

/// Instructions whose bits are not drawn.
const EXCLUDED: [&str; 8] = [
    "s_delay_alu",
    "s_clause",
    "s_nop",
    "s_waitcnt_depctr",
    "s_set_inst_prefetch_distance",
    "s_inst_prefetch",
    "s_prefetch",
    "s_code_end",
];

/// Modifiers that say how caches are used.
const POLICIES: [&str; 10] = ["glc", "slc", "dlc", "sc0", "sc1", "nt", "scc", "nv", "th:", "scope:"];

/// Seeds and magnitudes of further inputs that survivors have to go through.
const FURTHER: [(u64, f32); 8] =
    [(0x51, 0.0), (0x52, 1e4), (0x53, 1e-4), (0x54, 1.0), (0x55, 1.0), (0x56, 30.0), (0x57, 0.03), (0x58, 1.0)];

/// Why a bit is no mutation: it doesn't change what the machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Idle {
    /// The disassembler prints the same instruction.
    SameText,
    /// The instruction is never reached by any of the inputs.
    Unexecuted,
    /// The instruction leaves the same registers and goes the same way, each time that it is executed.
    SameEffect,
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SameText => "a bit without a meaning (the same disassembly)",
            Self::Unexecuted => "an instruction that is never executed",
            Self::SameEffect => "an instruction that leaves the same registers each time, or a longer wait",
        })
    }
}

/// What became of a flipped bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Found: results that the reference doesn't have.
    Wrong,
    /// Found: the emulator stopped at an access, a jump, a register or an endless loop that must not be.
    Stopped,
    /// Found: no instruction of the target.
    Illegal,
    /// Found: an instruction that no kernel has so far, which the emulator refuses.
    Foreign,
    /// Found by the sanitizer alone.
    Sanitizer,
    /// Survived: every result has the same bits, on further inputs, too, and the sanitizer finds nothing.
    Equivalent,
    /// Survived: other bits, within every bound.
    WithinBounds,
}

impl Verdict {
    /// Whether the checks found it.
    pub fn found(self) -> bool {
        matches!(self, Self::Wrong | Self::Stopped | Self::Illegal | Self::Foreign | Self::Sanitizer)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wrong => "found: wrong results",
            Self::Stopped => "found: stopped by the emulator",
            Self::Illegal => "found: not an instruction",
            Self::Foreign => "found: an instruction that the emulator doesn't know",
            Self::Sanitizer => "found: by the sanitizer alone",
            Self::Equivalent => "survived: equivalent (the same bits in every result, nothing for the sanitizer)",
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
    /// Bits that were drawn before it and are no mutations.
    pub idle: Vec<Idle>,
}

/// A trial, and what it leaves behind where the kernel is right.
struct Known {
    trial: Trial,
    right: Vec<Vec<Vec<u8>>>,
}

/// A kernel's code in a code object's file.
pub struct Code<'a> {
    target: &'a str,
    kernel: &'a str,
    module: &'a [u8],
    /// Offset of virtual address 0 in the file, as far as the code goes.
    base: usize,
    instructions: Vec<Instruction>,
    first: Known,
    further: OnceLock<Vec<Known>>,
}

fn decode(module: &[u8], kernel: &str) -> Vec<Instruction> {
    let module = Module::load(module).unwrap_or_else(|e| panic!("{e}"));
    module.kernel(kernel).unwrap_or_else(|e| panic!("{e}")).instructions().to_vec()
}

fn without_policies(text: &str) -> String {
    text.split_whitespace().filter(|word| !POLICIES.iter().any(|p| word.starts_with(p))).collect::<Vec<_>>().join(" ")
}

impl Known {
    fn new(target: &str, module: &[u8], trial: Trial) -> Self {
        match trial.run(target, module, None) {
            Outcome::Right(right) => Self { trial, right },
            other => panic!("a kernel that is wrong as it is: {other:?}"),
        }
    }
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
        let first = Known::new(target, module, trial);
        if let Outcome::Fault(what) = first.trial.run_sanitized(target, module, Some(&first.right)) {
            panic!("a kernel that is wrong as it is: {what}");
        }
        let mut instructions = decode(module, kernel);
        // Behind the last end of the program is padding.
        let end = instructions.iter().rposition(|i| i.text.starts_with("s_endpgm")).map_or(0, |i| i + 1);
        instructions.truncate(end);
        Self { target, kernel, module, base, instructions, first, further: OnceLock::new() }
    }

    fn with(&self, change: impl FnOnce(&mut [u8], usize)) -> Vec<u8> {
        let mut module = self.module.to_vec();
        change(&mut module, self.base);
        module
    }

    /// Flips a bit, at random; what became of it.
    pub fn flip(&self, random: &mut Random) -> Flip {
        let mut idle = Vec::new();
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
            if text == instruction.text {
                idle.push(Idle::SameText);
                continue;
            }
            let (verdict, what) = self.judge(&module, &text);
            if let Some(why) = (verdict == Verdict::Equivalent).then(|| self.idle(instruction, &module)).flatten() {
                idle.push(why);
                continue;
            }
            let text = [instruction.text.clone(), text];
            return Flip { kernel: self.kernel.to_owned(), address: instruction.address, bit, text, verdict, what, idle };
        }
    }

    /// Why a survivor changes nothing, if so.
    fn idle(&self, instruction: &Instruction, module: &[u8]) -> Option<Idle> {
        let (from, to) = (instruction.address as usize, (instruction.address + u64::from(instruction.size)) as usize);
        // All ones is no instruction of any generation.
        let illegal = self.with(|m, base| m[base.wrapping_add(from)..base.wrapping_add(to)].fill(0xff));
        if self.all().all(|known| known.trial.run(self.target, &illegal, Some(&known.right)).is_right()) {
            return Some(Idle::Unexecuted);
        }
        let same = self.all().all(|known| known.trial.same_effect([self.module, module], instruction.address));
        same.then_some(Idle::SameEffect)
    }

    /// All that survivors have to go through.
    fn all(&self) -> impl Iterator<Item = &Known> {
        let known = |(seed, magnitude)| Known::new(self.target, self.module, self.first.trial.again(seed, magnitude));
        [&self.first].into_iter().chain(self.further.get_or_init(|| FURTHER.map(known).into()))
    }

    fn judge(&self, module: &[u8], text: &str) -> (Verdict, String) {
        let mut same = true;
        // What most inputs show is found without the sanitizer, which takes its time.
        match self.first.trial.run(self.target, module, Some(&self.first.right)) {
            Outcome::Right(bits) => same &= bits == self.first.right,
            Outcome::Wrong(what) => return (Verdict::Wrong, what),
            Outcome::Fault(what) => return (stopped(&what, text), what),
        }
        if let Outcome::Fault(what) = self.first.trial.run_sanitized(self.target, module, Some(&self.first.right)) {
            return (Verdict::Sanitizer, what);
        }
        for known in self.all().skip(1) {
            match known.trial.run(self.target, module, Some(&known.right)) {
                Outcome::Right(bits) => same &= bits == known.right,
                Outcome::Wrong(what) => return (Verdict::Wrong, what),
                Outcome::Fault(what) => return (stopped(&what, text), what),
            }
        }
        (if same { Verdict::Equivalent } else { Verdict::WithinBounds }, String::new())
    }
}

/// What the disassembler says of operands that the hardware doesn't take.
const INVALID: [&str; 3] = ["Invalid", "Warning:", "not supported"];

/// By what the emulator says of the fault, and by the instruction's text.
fn stopped(what: &str, text: &str) -> Verdict {
    if what.contains("illegal instruction") || INVALID.iter().any(|mark| text.contains(mark)) {
        Verdict::Illegal
    } else if what.contains("not emulated") && !what.contains("beyond the kernel's") {
        Verdict::Foreign
    } else {
        Verdict::Stopped
    }
}
