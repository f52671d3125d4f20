//! Damaged code objects and dispatches that don't fit: an error that says why, never a panic, never without end.

mod clang;

use hipc_emulator::{Dispatch, EmulatorError, FaultKind, Memory, Module, Options};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};
use std::io::Write as _;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const SOURCE: &str = r#"
#define KERNEL extern "C" __attribute__((global))
static __attribute__((device, noinline)) int twice(int x) { return x < 3 ? x : x * 2 + (x >> 1); }
KERNEL void sums(int* out, const int* in, int n) {
    __attribute__((shared)) static int part[64];
    int lane = __builtin_amdgcn_workitem_id_x(), sum = 0;
    for (int i = lane; i < n; i += 64) sum += twice(in[i]);
    part[lane] = sum;
    __builtin_amdgcn_s_barrier();
    if (lane == 0) for (int i = 1; i < 64; i++) part[0] += part[i];
    __builtin_amdgcn_s_barrier();
    out[lane] = part[0] + in[lane % n] / (lane + 1);
}
KERNEL void forever(int* out) { for (;;) ++*(volatile int*)out; }
"#;

/// One of each kind: waves of 32 and of 64 lanes, scratch by buffers and by its own instructions.
const ARCHS: [&str; 5] = ["gfx1100", "gfx90a", "gfx942", "gfx1030", "gfx1201"];

fn object(at: usize) -> &'static [u8] {
    static ALL: [OnceLock<Vec<u8>>; ARCHS.len()] = [const { OnceLock::new() }; ARCHS.len()];
    ALL[at].get_or_init(|| clang::compile(ARCHS[at], &["-O2"], SOURCE))
}

fn options() -> Options<'static> {
    Options { budget: 5_000, parallel: false, ..Options::default() }
}

/// Loads and runs all kernels; whatever comes of it.
fn run(bytes: &[u8], sanitize: bool) {
    let Ok(module) = Module::load(bytes) else { return };
    let names: Vec<String> = module.kernels().take(4).map(str::to_owned).collect();
    for name in names {
        let memory = Memory::new();
        let (a, b) = (memory.allocate(1024), memory.allocate(1024));
        let mut kernarg: Vec<u8> = [a, b].iter().flat_map(|v| v.to_le_bytes()).collect();
        kernarg.extend(100u32.to_le_bytes());
        for length in [20, 8, 24] {
            kernarg.resize(length, 0);
            let dispatch = Dispatch { kernel: &name, grid: [1; 3], workgroup: [64, 1, 1], dynamic_lds: 0, kernarg: &kernarg };
            if !matches!(module.run(&dispatch, &memory, &Options { sanitize, ..options() }), Err(EmulatorError::Dispatch { .. }))
            {
                break;
            }
        }
    }
}

/// Seconds of each of the four tests: a minute in all. `HIPC_FUZZ_SECONDS` says another number.
const SECONDS: u64 = 15;

/// A seed: `HIPC_FUZZ_SEED`'s, or another each time. It is said at once, past what captures a test's output, for a crash would take that along.
fn fuzz_seed(test: &str) -> u64 {
    let given = std::env::var("HIPC_FUZZ_SEED").ok().and_then(|s| s.parse().ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_nanos() as u64 % 1_000_000_000_000);
    let seed = given.unwrap_or_else(now);
    let _ = writeln!(std::io::stderr(), "{test}: HIPC_FUZZ_SEED={seed}");
    seed
}

/// Damages code objects and runs them, under the sanitizer's eyes every other time: others each time, unless `HIPC_FUZZ_SEED` says which. `damage` is given the code object of
/// an architecture and what the strategy chose.
fn fuzz<S: Strategy + Clone>(choices: S, damage: impl Fn(&[u8], S::Value) -> Vec<u8>) {
    let seconds = std::env::var("HIPC_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(SECONDS);
    let config = ProptestConfig { cases: 20, max_shrink_iters: 40, failure_persistence: None, ..ProptestConfig::default() };
    let all = (0..ARCHS.len(), any::<bool>(), choices);
    let (end, mut cases) = (Instant::now() + Duration::from_secs(seconds), 0);
    let mut seed = fuzz_seed(std::thread::current().name().unwrap_or("bad_input"));
    while Instant::now() < end {
        seed += 1;
        let seeded = ProptestConfig { rng_seed: RngSeed::Fixed(seed), ..config.clone() };
        let done = TestRunner::new(seeded).run(&all, |(at, sanitize, choice)| {
            run(&damage(object(at), choice), sanitize);
            Ok(())
        });
        done.unwrap_or_else(|e| panic!("{e}"));
        cases += config.cases;
    }
    println!("{cases} cases");
}

/// Places and what to put there.
fn flips(most: usize) -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> + Clone {
    prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..most)
}

/// Changes bytes in a part of a file.
fn flipped(bytes: &[u8], first: usize, count: usize, flips: Vec<(prop::sample::Index, u8)>) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (index, value) in flips {
        bytes[first + index.index(count)] = value;
    }
    bytes
}

/// Anywhere in the file.
#[test]
fn flipped_bytes() {
    fuzz(flips(12), |bytes, flips| flipped(bytes, 0, bytes.len(), flips));
}

/// In the instructions alone: most such files load.
#[test]
fn flipped_instructions() {
    fuzz(flips(6), |bytes, flips| {
        let (first, count) = code(bytes);
        flipped(bytes, first, count, flips)
    });
}

/// In the notes and descriptors.
#[test]
fn flipped_descriptions() {
    fuzz(flips(4), |bytes, flips| flipped(bytes, 0, code(bytes).0, flips));
}

#[test]
fn cut_off() {
    fuzz(any::<prop::sample::Index>(), |bytes, length| bytes[..length.index(bytes.len())].to_vec());
}

/// Where the instructions are in the file: the kernel's, from its beginning on.
fn code(bytes: &[u8]) -> (usize, usize) {
    // The first executable segment of the ELF's program headers.
    let word = |at: usize, n: usize| bytes[at..at + n].iter().rev().fold(0usize, |v, b| v << 8 | usize::from(*b));
    let (table, size, count) = (word(32, 8), word(54, 2), word(56, 2));
    let header = (0..count).map(|i| table + i * size).find(|&h| word(h, 4) == 1 && word(h + 4, 4) & 1 == 1);
    let header = header.expect("a segment of code");
    (word(header + 8, 8), word(header + 32, 8))
}

#[test]
fn what_never_ends_uses_up_its_budget() {
    for at in 0..ARCHS.len() {
        let module = Module::load(object(at)).unwrap();
        let memory = Memory::new();
        let out = memory.allocate(64);
        let kernarg = out.to_le_bytes();
        let dispatch = Dispatch { kernel: "forever", grid: [1; 3], workgroup: [1; 3], dynamic_lds: 0, kernarg: &kernarg };
        let begin = Instant::now();
        let Err(EmulatorError::Fault(fault)) = module.run(&dispatch, &memory, &options()) else { panic!("it ended") };
        assert_eq!(fault.kind, FaultKind::Budget(5_000));
        assert!(begin.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn dispatches_that_do_not_fit() {
    let module = Module::load(object(0)).unwrap();
    let memory = Memory::new();
    let enough = [0; 20];
    let fits = Dispatch { kernel: "sums", grid: [1; 3], workgroup: [64, 1, 1], dynamic_lds: 0, kernarg: &enough };
    let wrong = [
        (Dispatch { kernarg: &enough[..19], ..fits }, "bytes of arguments"),
        (Dispatch { kernarg: &[0; 4096], ..fits }, "bytes of arguments"),
        (Dispatch { kernarg: &[], ..fits }, "bytes of arguments"),
        (Dispatch { grid: [0, 1, 1], ..fits }, "a grid of"),
        (Dispatch { grid: [1, 0, 1], ..fits }, "a grid of"),
        (Dispatch { grid: [u32::MAX, 1, 1], ..fits }, "a grid of"),
        (Dispatch { workgroup: [0, 1, 1], ..fits }, "workgroups of"),
        (Dispatch { workgroup: [2048, 1, 1], ..fits }, "workgroups of"),
        (Dispatch { workgroup: [u32::MAX, u32::MAX, 2], ..fits }, "workgroups of"),
        (Dispatch { dynamic_lds: u32::MAX, ..fits }, "bytes of LDS"),
    ];
    for (dispatch, why) in wrong {
        match module.run(&dispatch, &memory, &options()) {
            Err(EmulatorError::Dispatch { kernel, what }) => assert!(kernel == "sums" && what.contains(why), "{what}"),
            other => panic!("{dispatch:?}: {other:?}"),
        }
    }
    let Err(error) = module.run(&Dispatch { kernel: "sum", ..fits }, &memory, &options()) else { panic!("no such kernel") };
    assert_eq!(error.to_string(), "no kernel `sum` in the code object");
    // Arguments of the right size that point nowhere.
    let Err(EmulatorError::Fault(fault)) = module.run(&fits, &memory, &options()) else { panic!("null pointers") };
    assert!(matches!(fault.kind, FaultKind::OutOfBounds { .. }) && fault.address != 0, "{fault}");
}

/// Nearly as many workgroups as a grid can have: the first fault ends it at once, and without one a budget does.
#[test]
fn huge_grids_end() {
    let module = Module::load(object(0)).unwrap();
    let (memory, grid) = (Memory::new(), [(1 << 26) - 1, 1 << 18, 1 << 18]);
    let buffers = [memory.allocate(1024), memory.allocate(1024)];
    for (buffers, faulty) in [([0, 0], true), (buffers, false)] {
        let mut kernarg: Vec<u8> = buffers.iter().flat_map(|b| b.to_le_bytes()).collect();
        kernarg.extend(100u32.to_le_bytes());
        let dispatch = Dispatch { kernel: "sums", grid, workgroup: [64, 1, 1], dynamic_lds: 0, kernarg: &kernarg };
        for (parallel, sanitize) in [(false, false), (true, false), (false, true)] {
            let begin = Instant::now();
            let options = Options { parallel, sanitize, dispatch_budget: 100_000, ..options() };
            let Err(EmulatorError::Fault(fault)) = module.run(&dispatch, &memory, &options) else { panic!("it ended") };
            let expected = match fault.kind {
                FaultKind::OutOfBounds { .. } => faulty,
                FaultKind::DispatchBudget(100_000) => !faulty && (parallel || fault.workgroup[0] > 10),
                _ => false,
            };
            assert!(expected, "{fault}");
            assert!(begin.elapsed() < Duration::from_secs(20));
        }
    }
}

#[test]
fn arguments_that_no_compiler_takes() {
    let source = r#"struct Large { char bytes[70000]; };
extern "C" __attribute__((global)) void k(Large large, char* p) { *p = large.bytes[p - (char*)0]; }"#;
    let bytes = clang::compile("gfx1100", &["-O2"], source);
    let Err(error) = Module::load(&bytes) else { panic!("70,008 bytes of arguments") };
    assert!(error.to_string().contains("bytes of arguments; 65536 at most"), "{error}");
}

#[test]
fn other_targets_and_no_code_objects() {
    let elf = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    assert!(matches!(Module::load(&elf), Err(EmulatorError::CodeObject(_))));
    assert!(matches!(Module::load(b""), Err(EmulatorError::CodeObject(_))));
    assert!(matches!(Module::load(&[0x7f; 4096]), Err(EmulatorError::CodeObject(_))));
    let other = clang::compile("gfx803", &["-O2"], "extern \"C\" __attribute__((global)) void k(int* p) { *p = 1; }");
    let Err(error) = Module::load(&other) else { panic!("gfx803 is no target") };
    assert!(error.to_string().contains("unknown processor"), "{error}");
}

/// Denormals that are flushed would be another result.
#[test]
fn other_float_modes_are_refused() {
    let source = r#"extern "C" __attribute__((global)) void k(float* p) { p[0] = p[1] * p[2]; }"#;
    let bytes = clang::compile("gfx1100", &["-O2"], source);
    let module = Module::load(&bytes).unwrap();
    let (memory, kernarg) = (Memory::new(), [0; 8]);
    let dispatch = Dispatch { kernel: "k", grid: [1; 3], workgroup: [1; 3], dynamic_lds: 0, kernarg: &kernarg };
    assert!(matches!(module.run(&dispatch, &memory, &options()), Err(EmulatorError::Fault(_))));
    // The descriptor's word of register and float modes.
    let descriptor = module.kernel("k").unwrap().facts.descriptor;
    let needle = descriptor.rsrc1.to_le_bytes();
    let at = bytes.windows(4).position(|w| w == needle).expect("the descriptor");
    let mut flushing = bytes.clone();
    flushing[at..at + 4].copy_from_slice(&(descriptor.rsrc1 & !(0x30 << 12)).to_le_bytes());
    let Err(error) = Module::load(&flushing).unwrap().run(&dispatch, &memory, &options()) else { panic!("it ran") };
    assert!(error.to_string().contains("float mode 0xc0"), "{error}");
}
