//! What was found.

use super::until::Until;
use super::{Case, Place, kind};
use crate::device::{Around, Backend, MARGIN};
use hipc_ir::fused::{FusedOp, Segment};
use hipc_ir::plan::{KernelSpec, Plan};
use hipc_reference::launch::Finding;
use serde::Serialize;

/// One launch compared.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Number over all programs (`--launch`).
    pub launch: usize,
    /// `decode` or `prompt`.
    pub program: &'static str,
    /// Layer.
    pub layer: Option<u32>,
    /// Short name.
    pub label: String,
    /// Kernel.
    pub kernel: String,
    /// What it computes.
    pub shape: String,
    /// Launches of the plan with the same kernel, in the same program.
    pub stands_for: usize,
    /// Cases compared.
    pub cases: usize,
    /// Cases that there are; more than were compared if time ran out or one was wrong.
    pub planned: usize,
    /// Cases that ran under the device's watch.
    pub watched: usize,
    /// Rows compared, and rows in all; none where all were.
    pub rows: Option<(u32, u32)>,
    /// Largest noise.
    pub nmse: f64,
    /// Largest noise as a part of what is allowed.
    pub share: f64,
    /// Largest relative distance of an int8 block's scale.
    pub scale: f64,
    /// The same as a part of what it may be off by.
    pub strain: f64,
    /// Quants, f16 and arg-maxes left out because the reference lies at a tie.
    pub ties: usize,
    /// int8 values compared.
    pub quants: u64,
    /// What is wrong.
    pub failure: Option<Failure>,
}

/// What is wrong, and where.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// The case.
    pub case: Case,
    /// In words.
    pub what: String,
}

/// Logits of the fused plan against those of the graph before fusion, in f64.
#[derive(Clone, Debug, Serialize)]
pub struct Unfused {
    /// Noise of the last logits.
    pub nmse: f64,
    /// Most noise allowed.
    pub bound: f64,
    /// Whether both have the same largest logit.
    pub same_choice: bool,
}

/// Whole steps compared.
#[derive(Clone, Debug, Serialize)]
pub struct ChainRow {
    /// `decode` or `prompt`.
    pub program: &'static str,
    /// Tokens fed.
    pub steps: u32,
    /// Noise of the last logits against those of `cpu`.
    pub nmse: f64,
    /// Noise of `cpu`'s own when what launches leave moves by as many roundings as it takes to meet a tie of int8, or by the most that is tried.
    pub sensitivity: f64,
    /// Most noise allowed.
    pub bound: f64,
    /// Whether both have the same largest logit.
    pub same_choice: bool,
    /// Against the unfused graph.
    pub unfused: Option<Unfused>,
    /// Whether the same step gave identical bits.
    pub twice: bool,
    /// Whether the recording was a graph of the device.
    pub graph: bool,
    /// Whether the recorded step gave identical bits.
    pub replayed: bool,
}

impl ChainRow {
    /// Whether the device's logits are farther from `cpu`'s than they may be.
    pub fn strays(&self) -> bool {
        self.nmse.is_nan() || self.nmse > self.bound
    }

    /// Whether nothing is wrong.
    pub fn passes(&self) -> bool {
        let unfused = self.unfused.as_ref().is_none_or(|u| u.nmse <= u.bound);
        !self.strays() && unfused && self.twice && self.replayed
    }
}

/// Whole steps that the device stopped.
#[derive(Clone, Debug, Serialize)]
pub struct Stopped {
    /// `decode` or `prompt`.
    pub program: &'static str,
    /// What the device found.
    pub what: String,
}

/// All that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Device.
    pub device: String,
    /// Architecture whose plan was executed.
    pub target: String,
    /// Launches of the plan.
    pub launches: usize,
    /// Kernels of the plan.
    pub kernels: usize,
    /// Kernels of which a launch was compared.
    pub kernels_compared: usize,
    /// Launches compared.
    pub rows: Vec<Row>,
    /// Whole steps, by program.
    pub chain: Vec<ChainRow>,
    /// Whole steps, launch by launch: where they are wrong, or where it was asked for.
    pub until: Vec<Until>,
    /// Whole steps that the device stopped.
    pub stopped: Option<Stopped>,
    /// Why no step was compared, if none was.
    pub no_chain: Option<String>,
    /// Whether the device could watch, and was asked to.
    pub watch: bool,
    /// What lay around buffers as launches were compared.
    pub around: Around,
    /// The seed.
    pub seed: u64,
}

impl Report {
    /// With nothing in it yet.
    pub fn new(backend: &dyn Backend, seed: u64) -> Self {
        let plan = backend.plan();
        Self {
            device: backend.describe(),
            target: plan.target.clone(),
            launches: plan.programs.iter().map(|p| p.launches.len()).sum(),
            // Those of steps; what loading does is compared by every launch that reads a weight.
            kernels: plan.kernels.values().filter(|k| !matches!(k.op, FusedOp::Repack(_))).count(),
            kernels_compared: 0,
            rows: Vec::new(),
            chain: Vec::new(),
            until: Vec::new(),
            stopped: None,
            no_chain: None,
            watch: false,
            around: backend.around(),
            seed,
        }
    }

    /// With these launches.
    pub fn with_rows(mut self, rows: Vec<Row>) -> Self {
        let mut kernels: Vec<&str> = rows.iter().map(|r| r.kernel.as_str()).collect();
        kernels.sort_unstable();
        kernels.dedup();
        self.kernels_compared = kernels.len();
        self.rows = rows;
        self
    }

    /// The first launch that is wrong.
    pub fn failure(&self) -> Option<(&Row, &Failure)> {
        self.rows.iter().find_map(|row| row.failure.as_ref().map(|f| (row, f)))
    }

    /// Whether nothing is wrong.
    pub fn passes(&self) -> bool {
        let left = self.until.iter().any(|u| u.first.is_some());
        self.failure().is_none() && self.stopped.is_none() && !left && self.chain.iter().all(ChainRow::passes)
    }

    /// What was shown, a sentence each; nothing as long as something is wrong.
    pub fn shown(&self) -> Vec<String> {
        if !self.passes() {
            return vec!["Nothing about the whole: something is wrong. Launches and steps that pass do so by themselves.".into()];
        }
        let mut all = Vec::new();
        if !self.rows.is_empty() {
            all.extend(SHOWN.map(str::to_owned));
            all.extend(match self.around {
                Around::Slices => None,
                Around::Fault => Some("No launch accessed memory outside of all buffers: the device stops there.".to_owned()),
                Around::Margins => Some(format!(
                    "Nothing was written in {MARGIN} bytes before and behind a buffer: those of a launch's operands were looked at \
                     behind each case, those of all buffers behind each launch."
                )),
                Around::Unseen => None,
            });
        }
        for until in &self.until {
            all.push(format!(
                "Whole steps ({}) launch by launch up to number {} leave what they leave on cpu, each on its own results, within the \
                 bound of whole steps.",
                until.program, until.until
            ));
        }
        let watched = self.watched();
        if watched > 0 {
            let cases: usize = self.rows.iter().map(|r| r.cases).sum();
            let steps = if self.chain.is_empty() { "" } else { " and the first run of whole steps" };
            all.push(format!(
                "The sanitizer watched {watched} of {cases} cases, the first ones of each launch{steps}: {WATCHED}"
            ));
        }
        all
    }

    /// Cases that ran under the device's watch.
    pub fn watched(&self) -> usize {
        self.rows.iter().map(|r| r.watched).sum()
    }

    /// What was not shown, a sentence each; `emulated`: by a device that interprets the machine code.
    pub fn not_shown(&self, synthetic: bool, emulated: bool) -> Vec<String> {
        let mut all = Vec::new();
        if emulated {
            all.extend(EMULATED.map(str::to_owned));
            let more = if self.watch { &WATCHED_NOT[..] } else { &UNWATCHED[..] };
            all.extend(more.iter().map(|&what| what.to_owned()));
        }
        all.extend(match self.around {
            Around::Slices => None,
            Around::Fault => Some(
                "Every buffer had memory of its own, in whole steps, too: that buffers which share memory aren't in use at once is \
                 shown by the compiler's checker alone."
                    .to_owned(),
            ),
            Around::Margins => Some(format!(
                "A write farther than {MARGIN} bytes beside a buffer, in one that isn't an operand of the launch, is seen only where it \
                 changes a later comparison."
            )),
            Around::Unseen => Some("What is written beside buffers wasn't looked for: no memory was left for margins.".to_owned()),
        });
        if self.kernels_compared < self.kernels {
            all.push(format!("{} of {} kernels were not compared.", self.kernels - self.kernels_compared, self.kernels));
        }
        let launches = self.rows.len();
        if launches < self.launches {
            let rest = self.launches - launches;
            all.push(format!("{rest} launches were not compared by themselves; --all compares those of equal kernels, too."));
        }
        if self.watch {
            let cases: usize = self.rows.iter().map(|r| r.cases - r.watched).sum();
            all.push(format!("{cases} cases ran without the sanitizer, and so did steps when they were repeated; --sanitizer all watches every case."));
        }
        let cut = self.rows.iter().filter(|r| r.cases < r.planned).count();
        if cut > 0 {
            all.push(format!(
                "{cut} launches were not tried in all of their cases (the column has how many): time ran out, or one was wrong."
            ));
        }
        let some = self.rows.iter().filter(|r| r.rows.is_some()).count();
        if some > 0 {
            all.push(format!(
                "Of {some} launches the reference computed only some rows (the column has how many); of the others' results it was \
                 checked that they are numbers, that int8 sums are those of their quants, and that a second run gives the same bits. \
                 --rows 0 compares all."
            ));
        }
        if let Some(why) = &self.no_chain {
            all.push(format!("No whole step was compared: {why}."));
        }
        if self.chain.iter().any(|c| !c.graph) {
            all.push("The device has no graphs: a recorded step was launched one by one.".into());
        }
        if synthetic {
            all.push("The weights were random, not the model's.".into());
        }
        all.push("Drawn choices were tried with one setting of the sampler; whole steps chose greedily.".into());
        all.push(
            "Attention's scores were not made large: where they are, no f32 holds their exponentials to these bounds.".into(),
        );
        all.push("Nothing is said about speed, about quality of text, or about other devices of the same kind.".into());
        all
    }
}

/// What every comparison shows.
const SHOWN: [&str; 3] = [
    "Integer products lie within NMSE 1e-10 of the reference, other f32 within 1e-7, copies are exact.",
    "int8 scales lie within 1e-6, or within what f32 can hold of their block's largest value; quants differ only at ties, by one.",
    "In the operands of a launch nothing was written beside its results, counters are zero again, weights on the device are those \
     given, and the same inputs give the same bits.",
];

/// What the sanitizer shows.
const WATCHED: &str = "every access lay within the launch's operands; atomics, scalar loads and LDS accesses of two places were aligned \
    (others may have any address in the mode that HSA sets); read-only operands weren't written; nothing that \
    left the registers, no address, no branch and no mask of lanes depended on registers, LDS, scratch or memory that was never \
    written; every register was waited for before it was used; no two waves raced in LDS and no two workgroups in memory; all waves \
    met at the same barriers.";

/// What even the sanitizer doesn't see.
const WATCHED_NOT: [&str; 2] = [
    "Wait states between dependent instructions and clauses don't exist here; the sanitizer knows outstanding counters only, and of what \
     depends on undefined bits what three other values for them show.",
    "Memory is coherent here at once: the sanitizer asks for an atomic and an invalidation between workgroups that share data, not for \
     the right scope or a write-back, and looks at the bytes that these cases touch.",
];

/// What is not seen without the sanitizer.
const UNWATCHED: [&str; 3] = [
    "Hazards that hardware leaves to the compiler (wait states between dependent instructions, outstanding counters, clauses) don't \
     exist here: every instruction's result is there for the next one. The sanitizer, which knows counters, was off.",
    "Memory is coherent here at once and in order: a missing cache write-back or invalidation isn't seen.",
    "The sanitizer was off: values that nobody wrote, accesses of buffers of other launches, races, and barriers at which waves don't \
     meet weren't looked for.",
];

/// What no emulator can show.
const EMULATED: [&str; 2] = [
    "The machine code was interpreted, not run: v_rcp, v_rsq, v_sqrt, v_exp, v_log, v_sin and v_cos are rounded correctly here, and \
     hardware's results may be off by a unit in the last place.",
    "Waves of a workgroup run one after the other between barriers, workgroups on a few threads: other interleavings weren't tried.",
];

impl Row {
    /// With nothing compared yet.
    pub fn new(plan: &Plan, place: Place, planned: usize) -> Self {
        let program = &plan.programs[place.program];
        let launch = &program.launches[place.index];
        let spec = &plan.kernels[launch.kernel];
        Self {
            launch: place.number,
            program: kind(program.kind),
            layer: launch.layer,
            label: launch.label.clone(),
            kernel: spec.name.clone(),
            shape: shape(spec),
            stands_for: program.launches.iter().filter(|l| l.kernel == launch.kernel).count(),
            cases: 0,
            planned,
            watched: 0,
            rows: None,
            nmse: 0.0,
            share: 0.0,
            scale: 0.0,
            strain: 0.0,
            ties: 0,
            quants: 0,
            failure: None,
        }
    }

    /// Adds a result operand.
    pub fn take(&mut self, f: &Finding) {
        self.nmse = self.nmse.max(f.nmse);
        if f.nmse > 0.0 {
            self.share = self.share.max(f.nmse / f.bound);
        }
        self.scale = self.scale.max(f.scale);
        self.strain = self.strain.max(f.strain);
        self.ties += f.ties;
    }
}

/// `q4_k [1024+256+256 x 512]`, `8 heads of 64, 4 in the cache, 4 splits`, …
fn shape(spec: &KernelSpec) -> String {
    match &spec.op {
        FusedOp::Embed(e) => format!("{} [{} x {}]", e.dtype, e.vocab, e.n),
        FusedOp::Gemv(g) => {
            let join = |f: &dyn Fn(&Segment) -> String| {
                let mut all: Vec<String> = g.segments.iter().map(f).collect();
                all.dedup_by(|a, b| a == b && a.parse::<u32>().is_err());
                all.join("+")
            };
            format!("{} [{} x {}]", join(&|s| s.dtype.to_string()), join(&|s| s.rows.to_string()), g.k)
        }
        FusedOp::Attend(a) => {
            let splits = spec.geometry.splits;
            format!(
                "{} heads of {}, {} cached, {splits} split{}",
                a.heads,
                a.cache.head_dim,
                a.cache.heads,
                if splits == 1 { "" } else { "s" }
            )
        }
        FusedOp::Repack(r) => format!("{} [{} x {}]", r.dtype, r.rows, r.cols),
        FusedOp::Heads(h) => {
            let parts: Vec<String> = h.parts.iter().map(|p| format!("{} heads of {}", p.heads, p.head_dim)).collect();
            parts.join(", ")
        }
        FusedOp::Row(r) => format!("{} values", r.n),
        FusedOp::Choose(c) => format!("{} logits", c.n),
    }
}
