//! `hipfire-run verify`: right devices pass, and whatever is wrong with one is found and named.

use hipc_ir::dtype::KvType;
use hipc_ir::fused::{Access, FusedOp, ProgramKind, Role};
use hipc_ir::plan::{Buffer, Plan};
use hipc_tests::parity::device::{Compiled, compile};
use hipc_tests::shared::demo_model;
use hipfire_run::device::cpu::CpuBackend;
use hipfire_run::device::host::Order;
use hipfire_run::device::{Around, Backend, DeviceError, Mark, MemoryUse, Placement, ReadTimes, Recording, WeightSource};
use hipfire_run::verify::chain::{Steps, chain};
use hipfire_run::verify::until::until;
use hipfire_run::verify::{ChainRow, Options, Row, launches, selected};
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Positions: 160, so that 129 and the last are different places.
const CTX: u32 = 160;

fn demo() -> &'static Compiled {
    static DEMO: OnceLock<Compiled> = OnceLock::new();
    DEMO.get_or_init(|| compile(&demo_model(), "gfx1100", CTX, KvType::F16))
}

fn verify(backend: &mut dyn Backend, options: &Options) -> Vec<Row> {
    launches(backend, &*demo().weights, options, &mut |_, _, _| ()).unwrap_or_else(|e| panic!("{e}"))
}

/// Whole steps against `cpu` and the unfused graph.
fn steps(backend: &mut dyn Backend, kind: ProgramKind) -> ChainRow {
    let graph = Arc::new(hipc_models::load(demo_model()).unwrap_or_else(|e| panic!("{e}")).graph);
    let weights: Arc<dyn WeightSource + Send> = demo().weights.clone();
    let asked = Steps { kind, seed: 1, limit: Duration::MAX, watched: false, graph: Some((graph, weights)) };
    let row = chain(backend, &mut demo().cpu(), &asked, &mut |_| ()).unwrap_or_else(|e| panic!("{e}"));
    row.expect("the plan has the program")
}

/// Number of the first launch with this label.
fn number(plan: &Plan, kind: ProgramKind, label: &str) -> usize {
    let mut number = 0;
    for program in &plan.programs {
        for launch in &program.launches {
            if program.kind == kind && launch.label == label {
                return number;
            }
            number += 1;
        }
    }
    panic!("there is no {label}")
}

fn only(label: &str, kind: ProgramKind) -> Options {
    Options { launch: Some(number(&demo().plan, kind, label)), ..Options::default() }
}

#[test]
fn cpu_passes_and_every_kernel_is_compared() {
    let mut cpu = demo().cpu();
    let rows = verify(&mut cpu, &Options::default());
    let wrong: Vec<_> = rows.iter().filter_map(|r| r.failure.as_ref().map(|f| (&r.label, f))).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let compared = |kernel: &str| rows.iter().any(|r| r.kernel == kernel && r.cases > 0);
    // Kernels that bring weights into their layout belong to loading.
    let mut of_steps = demo().plan.kernels.values().filter(|k| !matches!(k.op, FusedOp::Repack(_)));
    assert!(of_steps.all(|k| compared(&k.name)));
    assert!(rows.iter().all(|r| r.cases == r.planned));
    // The large ones by some rows, which doesn't change that all of their int8 blocks have sums.
    assert!(rows.iter().any(|r| r.rows.is_some()) && rows.iter().any(|r| r.rows.is_none()));
    for row in rows.iter().filter(|r| r.label == "attn" && r.program == "decode") {
        assert!(row.cases >= 11 && row.stands_for == demo().plan.model.layers as usize, "{row:?}");
    }
    // Its own steps, too, bit for bit.
    for kind in [ProgramKind::Decode, ProgramKind::Prompt] {
        let row = steps(&mut cpu, kind);
        assert!(row.passes() && row.nmse == 0.0 && row.same_choice && !row.graph, "{row:?}");
        // Fusion and int8 leave about what they leave in llama.cpp.
        assert!(row.unfused.as_ref().is_some_and(|u| u.nmse > 0.0 && u.nmse < 5e-3), "{row:?}");
    }
}

#[test]
fn some_rows_give_what_all_rows_give() {
    // 1e-10 as a bound of few values is as strict as of many; a wrong gather would compare other rows.
    for (label, kind) in [
        ("qkv", ProgramKind::Decode),
        ("gate_up", ProgramKind::Decode),
        ("down", ProgramKind::Prompt),
        ("head", ProgramKind::Prompt),
        ("qkv", ProgramKind::Prompt),
    ] {
        let rows = verify(&mut demo().cpu(), &Options { rows: Some(64), ..only(label, kind) });
        assert!(rows[0].failure.is_none() && rows[0].rows.is_some_and(|(some, all)| some < all / 2), "{rows:?}");
    }
}

#[test]
fn kernels_on_the_host_pass() {
    let mut host = demo().host(Order::Descending);
    for (label, kind) in [
        ("embed", ProgramKind::Decode),
        ("qkv", ProgramKind::Decode),
        ("attn", ProgramKind::Decode),
        ("down", ProgramKind::Decode),
        ("choose", ProgramKind::Decode),
        ("attn", ProgramKind::Prompt),
    ] {
        let rows = verify(&mut host, &Options { rows: Some(64), ..only(label, kind) });
        assert!(rows.len() == 1 && rows[0].failure.is_none(), "{rows:#?}");
    }
    let row = steps(&mut host, ProgramKind::Decode);
    println!("{row:?}");
    assert!(row.passes() && row.same_choice, "{row:?}");
}

#[test]
fn a_kernel_with_another_constant_is_found() {
    let altered = compile(&demo_model(), "gfx1100", CTX, KvType::F16).altered(&[("0.125f", "0.1251f")]);
    let mut host = altered.host(Order::Ascending);
    let rows = verify(&mut host, &only("attn", ProgramKind::Decode));
    let failure = rows[0].failure.as_ref().expect("a wrong scale isn't found");
    assert_eq!((rows[0].label.as_str(), rows[0].program), ("attn", "decode"));
    assert!(failure.what.starts_with("Quantized"), "{failure:?}");
    // At that position alone it is found again.
    let again = Options { position: Some(failure.case.position), ..only("attn", ProgramKind::Decode) };
    let again = verify(&mut host, &again);
    assert_eq!(again[0].failure.as_ref().map(|f| f.case), Some(failure.case));
    assert!(verify(&mut host, &only("choose", ProgramKind::Decode))[0].failure.is_none());
}

/// Results one value too far: the last lies behind its buffer, where no operand is.
#[test]
fn what_is_written_beside_a_buffer_is_named() {
    let options = only("down", ProgramKind::Decode);
    let raw = operand(&options, |role, _| role == Role::Raw);
    let bytes = demo().plan.buffers[raw].bytes;
    let mut right = demo().host_with(Order::Ascending, Placement::Guarded);
    assert_eq!((right.around(), demo().host(Order::Ascending).around()), (Around::Margins, Around::Unseen));
    assert!(verify(&mut right, &options)[0].failure.is_none());
    let altered = compile(&demo_model(), "gfx1100", CTX, KvType::F16).altered(&[("Raw{raw}", "Raw{raw + 1}")]);
    let mut wrong = altered.host_with(Order::Ascending, Placement::Guarded);
    let failure = verify(&mut wrong, &options)[0].failure.clone().expect("a write beside a buffer isn't found");
    let expected = format!("4 bytes were written behind the {bytes} of buffer {raw}, the first at its offset {bytes}");
    assert_eq!(failure.what, expected);
    // It is told once, and the margin is whole again.
    assert_eq!(wrong.beside(raw).unwrap(), None);
}

/// A device that spoils something behind every launch.
struct Spoiled<F> {
    inner: CpuBackend,
    runs: u32,
    spoil: F,
}

impl<F: FnMut(&mut CpuBackend, u32, usize)> Backend for Spoiled<F> {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn write(&mut self, buffer: Buffer, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.inner.write(buffer, offset, bytes)
    }
    fn read(&mut self, buffer: Buffer, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.inner.read(buffer, offset, bytes)
    }
    fn run(&mut self, program: usize, range: Range<usize>) -> Result<(), DeviceError> {
        for at in range {
            self.inner.run(program, at..at + 1)?;
            (self.spoil)(&mut self.inner, self.runs, at);
        }
        self.runs += 1;
        Ok(())
    }
    fn record_launches(&mut self, program: usize, launches: &[usize], repeat: u32) -> Result<Recording, DeviceError> {
        self.inner.record_launches(program, launches, repeat)
    }
    fn replay(&mut self, recording: &Recording) -> Result<(), DeviceError> {
        self.inner.replay(recording)
    }
    fn mark(&mut self) -> Result<Mark, DeviceError> {
        self.inner.mark()
    }
    fn elapsed(&mut self, from: &Mark, to: &Mark) -> Result<f64, DeviceError> {
        self.inner.elapsed(from, to)
    }
    fn receive(&mut self, index: usize, generation: i32) -> Result<i32, DeviceError> {
        self.inner.receive(index, generation)
    }
    fn memory_use(&self) -> Result<MemoryUse, DeviceError> {
        self.inner.memory_use()
    }
    fn read_memory(&mut self, bytes: u64, times: u32) -> Result<ReadTimes, DeviceError> {
        self.inner.read_memory(bytes, times)
    }
    fn plan(&self) -> &Plan {
        self.inner.plan()
    }
}

/// The buffer of an operand of a launch.
fn operand(options: &Options, wanted: impl Fn(Role, Access) -> bool) -> Buffer {
    let plan = &demo().plan;
    let place = selected(plan, options)[0];
    let launch = &plan.programs[place.program].launches[place.index];
    let params = plan.kernels[launch.kernel].op.params();
    let found = params.iter().zip(&launch.args).find(|(p, _)| wanted(p.role, p.access));
    *found.expect("the launch has such an operand").1
}

fn change(cpu: &mut CpuBackend, buffer: Buffer, at: u64, f: impl Fn(f32) -> f32) {
    let mut bytes = [0; 4];
    cpu.read(buffer, at, &mut bytes).unwrap();
    cpu.write(buffer, at, &f(f32::from_le_bytes(bytes)).to_le_bytes()).unwrap();
}

/// What is found wrong with one launch on a device that spoils a buffer of it.
fn found(options: &Options, role: Role, spoil: impl Fn(&mut CpuBackend, Buffer, u32)) -> String {
    let buffer = operand(options, |r, _| r == role);
    let mut device = Spoiled { inner: demo().cpu(), runs: 0, spoil: |cpu: &mut CpuBackend, runs, _| spoil(cpu, buffer, runs) };
    let rows = verify(&mut device, options);
    rows[0].failure.as_ref().map_or_else(|| "nothing".to_owned(), |f| f.what.clone())
}

#[test]
fn whatever_is_spoiled_is_named() {
    let down = only("down", ProgramKind::Decode);
    let prompt = only("down", ProgramKind::Prompt);
    // One value of 512 that is off by a thousandth, as the brief of every bound has it; in the first row, which is always compared.
    let what = found(&down, Role::Raw, |cpu, raw, _| change(cpu, raw, 0, |v| v * 1.001 + 1e-3));
    assert!(what.starts_with("Raw: noise"), "{what}");
    // A value that is none.
    let what = found(&down, Role::Raw, |cpu, raw, _| change(cpu, raw, 4 * 300, |_| f32::NAN));
    assert!(what.starts_with("Raw: value 300 is NaN"), "{what}");
    // The same where only some rows are compared, of which that isn't one.
    let some = Options { rows: Some(64), ..down.clone() };
    let what = found(&some, Role::Raw, |cpu, raw, _| change(cpu, raw, 4 * 300, |_| f32::NAN));
    assert!(what.contains("300"), "{what}");
    // Other bits the second time, too few of them to count as noise.
    let what = found(&down, Role::Raw, |cpu, raw, runs| change(cpu, raw, 40, |v| if runs == 1 { v.next_up() } else { v }));
    assert!(what.starts_with("Raw: a second run"), "{what}");
    // A token that the chunk doesn't have.
    let what = found(&prompt, Role::SsqOut, |cpu, ssq, _| {
        let bytes = cpu.plan().buffers[ssq].bytes;
        change(cpu, ssq, bytes - 4, |_| 1.0);
    });
    assert_eq!(what, "SsqOut was touched where it holds no results");
    // An input.
    let what = found(&down, Role::Residual, |cpu, residual, _| change(cpu, residual, 8, |_| 1.0));
    assert_eq!(what, "Residual was touched where it holds no results");
    // A counter that isn't zero again, and a position of the cache that isn't the launch's.
    let attn = only("attn", ProgramKind::Decode);
    let what = found(&attn, Role::Counters, |cpu, counters, _| change(cpu, counters, 0, |_| 1.0));
    assert!(what.contains("counter"), "{what}");
    let qkv = Options { position: Some(33), ..only("qkv", ProgramKind::Decode) };
    let what = found(&qkv, Role::Cache(2), |cpu, cache, _| cpu.write(cache, 0, &[1, 2]).unwrap());
    assert!(what.contains("position 0 was touched"), "{what}");
    // Nothing.
    assert_eq!(found(&down, Role::Raw, |_, _, _| ()), "nothing");
}

#[test]
fn steps_that_differ_are_found() {
    let plan = &demo().plan;
    let logits = plan.program(ProgramKind::Decode).expect("the plan decodes").logits;
    let spoiled = |spoil: fn(&mut CpuBackend, Buffer, u32)| {
        let mut device =
            Spoiled { inner: demo().cpu(), runs: 0, spoil: |cpu: &mut CpuBackend, runs, _| spoil(cpu, logits, runs) };
        steps(&mut device, ProgramKind::Decode)
    };
    let row = spoiled(|cpu, logits, _| (0..1000).for_each(|i| change(cpu, logits, 4 * i, |v| v + 1.0)));
    assert!(row.nmse > row.bound && !row.passes(), "{row:?}");
    // Six steps, then the last again.
    let row = spoiled(|cpu, logits, runs| change(cpu, logits, 0, |v| if runs == 6 { v.next_up() } else { v }));
    assert!(!row.twice && row.replayed && !row.passes(), "{row:?}");
}

/// A launch that is right by itself and wrong in the third of six steps is found by running them launch by launch.
#[test]
fn the_first_launch_that_is_wrong_in_whole_steps_is_found() {
    let options = only("down", ProgramKind::Decode);
    let (place, raw) = (selected(&demo().plan, &options)[0], operand(&options, |role, _| role == Role::Raw));
    let launches = demo().plan.programs[place.program].launches.len();
    // Cases have numbers of generations, steps here have none.
    let spoil = |cpu: &mut CpuBackend, at: usize| {
        let (mut state, bytes) = ([0; 16], cpu.plan().state);
        cpu.read(bytes, 0, &mut state).unwrap();
        if at == place.index && state[0] == 2 && state[12..] == [0; 4] {
            change(cpu, raw, 0, |v| v + 100.0);
        }
    };
    let mut device = Spoiled { inner: demo().cpu(), runs: 0, spoil: |cpu: &mut CpuBackend, _, at| spoil(cpu, at) };
    assert!(verify(&mut device, &options)[0].failure.is_none());
    assert!(steps(&mut device, ProgramKind::Decode).strays());
    let asked = Steps { kind: ProgramKind::Decode, seed: 1, limit: Duration::MAX, watched: false, graph: None };
    let mut up_to = |last| until(&mut device, &mut demo().cpu(), &asked, last, &mut |_| ()).unwrap().expect("it decodes");
    let first = up_to(launches - 1).first.expect("it isn't found");
    assert_eq!((first.launch, first.position, first.result.as_str()), (place.number, 2, "Raw"), "{first:?}");
    let first = up_to(place.index).first.map(|f| (f.launch, f.position));
    assert_eq!(first, Some((place.number, 2)));
    // A right device, the CPU itself, leaves the same.
    let right = until(&mut demo().cpu(), &mut demo().cpu(), &asked, 5, &mut |_| ()).unwrap().expect("it decodes");
    assert!(right.first.is_none() && right.share == 0.0 && right.results > 6 * 5 && right.until == 5, "{right:?}");
}

#[test]
fn a_layer_alone_is_selected() {
    let plan = &demo().plan;
    let chosen = selected(plan, &Options { layer: Some(1), ..Options::default() });
    let of = |place: &hipfire_run::verify::Place| plan.programs[place.program].launches[place.index].layer;
    let all: usize = plan.programs.iter().map(|p| p.launches.iter().filter(|l| l.layer == Some(1)).count()).sum();
    assert!(chosen.len() == all && all > 4 && chosen.iter().all(|place| of(place) == Some(1)), "{chosen:?}");
}

#[test]
fn time_that_runs_out_leaves_cases_and_says_so() {
    let options = Options { limit: Duration::ZERO, ..only("attn", ProgramKind::Decode) };
    let rows = verify(&mut demo().cpu(), &options);
    assert!(rows[0].cases == 1 && rows[0].planned > 1 && rows[0].failure.is_none(), "{rows:?}");
}
