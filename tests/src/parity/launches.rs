//! Every launch of a step against the reference's exact form of it, on the launch's own inputs.

use hipc_ir::fused::{Access, ProgramKind, Shape};
use hipc_ir::plan::{Buffer, Plan, Program, Space, StepState};
use hipc_reference::launch::{Finding, check, strayed};
use hipfire_run::device::Backend;
use hipfire_run::verify::bytes::Bytes;
use hipfire_run::verify::inputs::UNTOUCHED;
use std::collections::BTreeMap;
use std::fmt;

/// What was compared, and all that is wrong.
#[derive(Debug, Default)]
pub struct Compared {
    /// Launches.
    pub launches: usize,
    /// Quants and arg-maxes left out because the reference lies at a tie.
    pub ties: usize,
    /// Values that can have ties.
    pub quants: usize,
    /// Largest noise by operand and bound.
    worst: BTreeMap<String, f64>,
    /// Largest relative distance of an int8 block's scale, and as a part of what it may be.
    scale: f64,
    strain: f64,
    /// Largest noise of the scales.
    scale_nmse: f64,
    /// One line per wrong result.
    pub wrong: Vec<String>,
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} launches, {} ties in {} quants, scales within {:.1e}, {:.2} of what they may be off by, together within {:.1e}; worst noise:",
            self.launches,
            self.ties,
            self.quants,
            self.scale,
            self.strain,
            self.scale_nmse.sqrt()
        )?;
        self.worst.iter().try_for_each(|(what, noise)| write!(f, " {what} {noise:.1e}"))
    }
}

impl Compared {
    /// Prints the figures; what is wrong, empty if nothing is.
    pub fn report(&self, what: &str) -> String {
        println!("{what}: {self}");
        let shown: Vec<&str> = self.wrong.iter().take(20).map(String::as_str).collect();
        match (self.launches, self.wrong.len()) {
            (0, _) => format!("{what}: nothing was compared"),
            (_, 0) => String::new(),
            (_, n) => format!("{what}: {n} results are wrong:\n{}\n", shown.join("\n")),
        }
    }

    /// [`Compared::report`], and the end of the test if anything is wrong.
    ///
    /// # Panics
    /// Then.
    pub fn finish(self, what: &str) {
        let wrong = self.report(what);
        assert!(wrong.is_empty(), "{wrong}");
    }

    fn take(&mut self, at: &str, finding: &Finding) {
        self.ties += finding.ties;
        self.scale = self.scale.max(finding.scale);
        self.strain = self.strain.max(finding.strain);
        self.scale_nmse = self.scale_nmse.max(finding.scale_nmse);
        let worst = self.worst.entry(format!("{:?} (≤ {:.0e})", finding.role, finding.bound)).or_default();
        *worst = worst.max(finding.nmse);
        if !finding.passes() {
            self.wrong.push(format!("{at}: {finding:?}"));
        }
    }
}

/// Runs a step of `ids` at the state's position launch by launch. Values of the step begin as NaN, so that nothing is right that reads
/// what no launch wrote.
///
/// # Panics
/// If the device fails.
pub fn step(backend: &mut impl Backend, kind: ProgramKind, state: StepState, ids: &[u32], compared: &mut Compared) {
    let plan = backend.plan().clone();
    let number = plan.programs.iter().position(|p| p.kind == kind).expect("both programs are in the plan");
    let program = &plan.programs[number];
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let write =
        |backend: &mut dyn Backend, buffer, at, bytes: &[u8]| backend.write(buffer, at, bytes).unwrap_or_else(|e| panic!("{e}"));
    write(backend, plan.tokens, 4 * state.pos as u64, &bytes);
    write(backend, plan.state, 0, &state.to_bytes());
    for (buffer, decl) in plan.buffers.iter().filter(|(_, d)| d.space == Space::Arena) {
        write(backend, buffer, 0, &vec![UNTOUCHED; decl.bytes as usize]);
    }
    for i in 0..program.launches.len() {
        launch(backend, &plan, number, i, state, compared);
    }
    finite(backend, &plan, program, state, compared);
}

fn launch(backend: &mut impl Backend, plan: &Plan, program: usize, i: usize, state: StepState, compared: &mut Compared) {
    let (kind, launch) = (plan.programs[program].kind, &plan.programs[program].launches[i]);
    let at = format!("{kind:?} at {}+{}, launch {i} {}", state.pos, state.n, launch.label);
    let kernel = &plan.kernels[launch.kernel];
    let before: Vec<Bytes> = launch.args.iter().map(|&b| all_of(backend, b)).collect();
    backend.run(program, i..i + 1).unwrap_or_else(|e| panic!("{at}: {e}"));
    let after: Vec<Bytes> = launch.args.iter().map(|&b| all_of(backend, b)).collect();
    let before: Vec<&[u8]> = before.iter().map(|b| &**b).collect();
    let after: Vec<&[u8]> = after.iter().map(|b| &**b).collect();
    let findings = check(kernel, state, &before, &after).unwrap_or_else(|e| panic!("{at}: {e}"));
    findings.iter().for_each(|f| compared.take(&at, f));
    for param in kernel.op.params().iter().filter(|p| p.access != Access::Read) {
        if let Shape::Q8(n) = param.shape {
            compared.quants += n as usize * state.n as usize;
        }
    }
    for role in strayed(kernel, plan.programs[program].tokens, state, &before, &after) {
        compared.wrong.push(format!("{at}: {role:?} was touched where it isn't a result"));
    }
    compared.launches += 1;
}

fn all_of(backend: &mut impl Backend, buffer: Buffer) -> Bytes {
    Bytes::read(backend, buffer).unwrap_or_else(|e| panic!("{e}"))
}

/// The logits of a sound model are numbers.
fn finite(backend: &mut impl Backend, plan: &Plan, program: &Program, state: StepState, compared: &mut Compared) {
    let vocab = plan.model.vocab as usize;
    let logits = all_of(backend, program.logits);
    let wanted = 4 * vocab * state.head_from as usize..4 * vocab * state.n as usize;
    let values = logits[wanted].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
    let bad = values.filter(|v| !v.is_finite()).count();
    if bad > 0 {
        compared.wrong.push(format!("{:?} at {}+{}: {bad} logits aren't finite", program.kind, state.pos, state.n));
    }
}
