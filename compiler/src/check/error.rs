//! What the checker finds wrong, one line each.

use hipc_ir::fused::{ProgramKind, Role, Shape};
use hipc_ir::graph::Cache;
use hipc_ir::plan::{Buffer, BufferKind, Kernel, Launch, Plan, Program, Space};
use std::fmt;

/// A launch, as messages name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The program's place in the plan; 0 at load.
    pub program: usize,
    /// Decode or prompt; `None` for what is launched at load.
    pub kind: Option<ProgramKind>,
    /// The launch's place in the program.
    pub launch: usize,
    /// Its label.
    pub label: String,
}

impl Site {
    /// All launches of a program with their sites.
    pub(super) fn all(program: usize, p: &Program) -> impl Iterator<Item = (Site, &hipc_ir::plan::Launch)> {
        let site = move |launch, label: &str| Site { program, kind: Some(p.kind), launch, label: label.to_owned() };
        p.launches.iter().enumerate().map(move |(i, l)| (site(i, &l.label), l))
    }
}

impl Site {
    /// The launches that bring weights into their layout.
    pub(super) fn load(plan: &Plan) -> impl Iterator<Item = (Site, &Launch)> {
        let site = |launch, label: &str| Site { program: 0, kind: None, launch, label: label.to_owned() };
        plan.load.iter().enumerate().map(move |(i, l)| (site(i, &l.label), l))
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Some(ProgramKind::Decode) => "decode",
            Some(ProgramKind::Prompt) => "prompt",
            None => "load",
        };
        write!(f, "{kind} launch {} `{}`", self.launch, self.label)
    }
}

/// A fault of a plan, or of a code object that was made for it. Ours, all of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// A reference to something that the plan doesn't have.
    #[error("{user} refers to {entity}, which does not exist")]
    Dangling {
        /// Who refers.
        user: String,
        /// To what.
        entity: String,
    },
    /// The plan is for a target that the table doesn't have.
    #[error("the plan's target `{0}` is not in the target table")]
    Target(String),
    /// A declaration of the model breaks a rule.
    #[error("{entity}: {rule}")]
    Declaration {
        /// Weight, rotation table, cache or program.
        entity: String,
        /// The rule.
        rule: &'static str,
    },
    /// A kernel's name, meaning or geometry breaks a rule.
    #[error("{kernel} `{name}`: {rule}")]
    Kernel {
        /// The kernel.
        kernel: Kernel,
        /// Its name.
        name: String,
        /// The rule.
        rule: &'static str,
    },
    /// The kernel's skeleton can't be instantiated with this geometry.
    #[error("{kernel} `{name}`: {reason}")]
    Skeleton {
        /// The kernel.
        kernel: Kernel,
        /// Its name.
        name: String,
        /// What the skeleton asks for.
        reason: String,
    },
    /// A buffer breaks a rule.
    #[error("{buffer} ({kind:?}): {rule}")]
    Buffer {
        /// The buffer.
        buffer: Buffer,
        /// What it holds.
        kind: BufferKind,
        /// The rule.
        rule: &'static str,
    },
    /// A buffer is smaller than what it holds, or the runtime would fill it with another number of bytes.
    #[error("{buffer} ({kind:?}) has {has} bytes where {needs} are needed")]
    Bytes {
        /// The buffer.
        buffer: Buffer,
        /// What it holds.
        kind: BufferKind,
        /// Bytes declared.
        has: u64,
        /// Bytes of the contents.
        needs: u64,
    },
    /// Two buffers that live all the time share memory.
    #[error("{a} and {b} overlap in {space:?}, where everything lives all the time")]
    Overlap {
        /// One.
        a: Buffer,
        /// The other.
        b: Buffer,
        /// The allocation.
        space: Space,
    },
    /// A launch passes a wrong number of arguments.
    #[error("{at} passes {found} arguments to a kernel of {expected} operands")]
    Arguments {
        /// The launch.
        at: Site,
        /// Arguments.
        found: usize,
        /// Operands.
        expected: usize,
    },
    /// An argument isn't what the operand must be.
    #[error("{at}: operand {index} ({role:?}) must be {shape:?}, but {buffer} is {kind:?}")]
    Operand {
        /// The launch.
        at: Site,
        /// Which operand.
        index: usize,
        /// What it is for.
        role: Role,
        /// What it must be.
        shape: Shape,
        /// The argument.
        buffer: Buffer,
        /// What that holds.
        kind: BufferKind,
    },
    /// An argument is smaller than what the launch reads or writes.
    #[error("{at}: operand {index} ({role:?}) touches {needs} bytes, but {buffer} has {has}")]
    Small {
        /// The launch.
        at: Site,
        /// Which operand.
        index: usize,
        /// What it is for.
        role: Role,
        /// The argument.
        buffer: Buffer,
        /// Its bytes.
        has: u64,
        /// Bytes touched.
        needs: u64,
    },
    /// The grid doesn't cover the outputs exactly.
    #[error("{at}: grid {found:?} where the outputs take {expected:?}")]
    Grid {
        /// The launch.
        at: Site,
        /// The plan's.
        found: [u32; 3],
        /// What covers the outputs.
        expected: [u64; 3],
    },
    /// A rule about a launch as a whole.
    #[error("{at}: {rule}")]
    Launch {
        /// The launch.
        at: Site,
        /// The rule.
        rule: &'static str,
    },
    /// Two operands of one launch share memory and one of them is written.
    #[error("{at}: {written} is written while {other} is in use at the same place")]
    Hazard {
        /// The launch.
        at: Site,
        /// The operand that is written.
        written: Buffer,
        /// The other.
        other: Buffer,
    },
    /// Something is read that no launch of this step wrote before.
    #[error("{at}: reads {buffer}, which nothing wrote before in this step")]
    Unwritten {
        /// The launch.
        at: Site,
        /// The buffer.
        buffer: Buffer,
    },
    /// Something is read that was overwritten.
    #[error("{at}: reads {buffer}, which launch {by} overwrote with {with}")]
    Overwritten {
        /// The launch.
        at: Site,
        /// The buffer.
        buffer: Buffer,
        /// The launch that wrote last.
        by: usize,
        /// What it wrote.
        with: Buffer,
    },
    /// The reader of partial results and their writer disagree.
    #[error("{at}: reads {buffer} as {what} {reader}, but launch {by} wrote {writer}")]
    Partials {
        /// The launch.
        at: Site,
        /// The buffer.
        buffer: Buffer,
        /// `parts`, `parts of a vector of` or `values in a part`.
        what: &'static str,
        /// What the reader takes it for.
        reader: u32,
        /// Which launch wrote.
        by: usize,
        /// What that wrote.
        writer: u32,
    },
    /// Attention reads a cache to which this step's keys or values weren't appended.
    #[error("{at}: reads {cache} before this step's tokens are appended to it")]
    NotAppended {
        /// The launch.
        at: Site,
        /// The cache.
        cache: Cache,
    },
    /// A cache is appended to twice in a step.
    #[error("{at}: appends to {cache} a second time")]
    AppendedTwice {
        /// The launch.
        at: Site,
        /// The cache.
        cache: Cache,
    },
    /// Programs that share caches must leave them alike.
    #[error("{cache} is appended to by one program and not by the other")]
    CachesDiffer {
        /// The cache.
        cache: Cache,
    },
    /// A result of a program isn't there at its end.
    #[error("program {program}: {what} {buffer} {fault}")]
    Output {
        /// The program's place in the plan.
        program: usize,
        /// `logits` or `ids`.
        what: &'static str,
        /// The buffer.
        buffer: Buffer,
        /// What is wrong.
        fault: &'static str,
    },
    /// The code object doesn't have what the plan launches.
    #[error("code object{}: {rule} (plan {plan}, object {object})", of_kernel(kernel.as_deref()))]
    Object {
        /// The kernel; `None` where the object as a whole is meant.
        kernel: Option<String>,
        /// The rule.
        rule: &'static str,
        /// The plan's side.
        plan: String,
        /// The object's side.
        object: String,
    },
    /// The plan doesn't do what the fused graph says.
    #[error("{place}: {rule}")]
    Meaning {
        /// Where.
        place: String,
        /// The rule.
        rule: &'static str,
    },
}

fn of_kernel(name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| format!(", kernel `{name}`"))
}

/// Whether all is well.
pub(super) fn verdict(faults: Vec<CheckError>) -> Result<(), Vec<CheckError>> {
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// Names of a plan's parts in messages.
pub(super) fn kernel_fault(plan: &Plan, kernel: Kernel, rule: &'static str) -> CheckError {
    CheckError::Kernel { kernel, name: plan.kernels[kernel].name.clone(), rule }
}
