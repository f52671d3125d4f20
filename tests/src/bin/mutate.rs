//! `mutate code|source [TARGET] [COUNT] [SEED]`: changes kernels one by one and says whether the checks find it, in Markdown.

use hipc::bundle::templates_hash;
use hipc::target::Target;
use hipc::toolchain::{Backend, Toolchain};
use hipc_ir::bundle::Digest;
use hipc_ir::plan::KernelSpec;
use hipc_tests::emulated::{Trial, compile};
use hipc_tests::kernel_cases::small;
use hipc_tests::mutate::code::{Code, Flip, Verdict};
use hipc_tests::mutate::source::{Bench, Found, changes};
use hipc_tests::mutate::tally;
use hipfire_run::verify::inputs::Random;
use rayon::prelude::*;
use std::time::Instant;

/// Tokens of the kernels whose bits are flipped.
const TOKENS: [u32; 2] = [1, 6];
/// Changes of headers that are tried at a time.
const AT_ONCE: usize = 4;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: usize| args.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let target = args.get(1).map_or("gfx1100", String::as_str);
    let start = Instant::now();
    let enough = match args.first().map(String::as_str) {
        Some("code") => code(target, number(2, 500), number(3, 1) as u64),
        Some("source") => source(target, number(2, 36), number(3, 1) as u64),
        _ => {
            eprintln!("mutate code|source [TARGET] [COUNT] [SEED]");
            std::process::exit(2);
        }
    };
    let compiler = Toolchain::from_env().compiler(Backend::Clang).map_or_else(|e| e.to_string(), |c| c.to_string());
    let decoder = hipc_emulator::disassembler_version().unwrap_or("none");
    println!(
        "\n{compiler}; instructions decoded by {decoder}; templates `{}`; {} s.",
        templates_hash(),
        start.elapsed().as_secs()
    );
    if !enough {
        eprintln!("too much is missed");
        std::process::exit(1);
    }
}

/// Whether nine of ten flipped bits are found, and no more than three of a hundred are missed for a reason that nobody knows.
fn code(target: &str, count: usize, seed: u64) -> bool {
    let row = Target::parse(target).unwrap_or_else(|e| panic!("{e}"));
    // Kernels of a step of one token, and of a prompt chunk.
    let sets = TOKENS.map(|tokens| {
        let specs: Vec<KernelSpec> = small(row.simd.wave_size, tokens);
        let module = compile(row, &specs, hipc_templates::HEADERS, Backend::Clang).unwrap_or_else(|e| panic!("{e}"));
        (tokens, specs, module)
    });
    let kernels: Vec<(u32, &KernelSpec, &[u8])> =
        sets.iter().flat_map(|(tokens, specs, module)| specs.iter().map(|spec| (*tokens, spec, &module[..]))).collect();
    let each = count.div_ceil(kernels.len());
    let of_kernel = |(i, &(tokens, spec, module)): (usize, &(u32, &KernelSpec, &[u8]))| {
        let code = Code::new(target, module, &spec.name, Trial::new(spec, tokens, 77 + i as u64));
        let mut random = Random::fork(seed, i as u64);
        let flips: Vec<Flip> = (0..each).map(|_| code.flip(&mut random)).collect();
        for flip in &flips {
            let [before, after] = &flip.text;
            let what = flip.what.lines().next().unwrap_or_default();
            eprintln!("{} {:#x} bit {}: {}: `{before}` → `{after}` {what}", flip.kernel, flip.address, flip.bit, flip.verdict);
        }
        flips
    };
    let flips: Vec<Flip> = kernels.par_iter().enumerate().flat_map_iter(of_kernel).collect();
    let found = flips.iter().filter(|f| f.verdict.found()).count();
    println!(
        "{target}: {} bits flipped in {} kernels, seed {seed}: {found} found ({:.1} %). Code objects: BLAKE3 {}\n",
        flips.len(),
        kernels.len(),
        100.0 * found as f64 / flips.len() as f64,
        sets.each_ref().map(|(_, _, module)| format!("`{}`", Digest::of(module))).join(", ")
    );
    println!("{}", tally("verdict", flips.iter().map(|f| f.verdict.to_string())));
    println!("{}", tally("drawn besides, no mutation", flips.iter().flat_map(|f| &f.idle).map(ToString::to_string)));
    let survivors = flips.iter().filter(|f| !f.verdict.found()).map(|f| {
        let operation = f.text[0].split_whitespace().next().unwrap_or_default();
        format!("`{operation}`, {}", f.verdict.to_string().split(':').nth(1).unwrap_or_default().trim())
    });
    println!("{}", tally("survivor", survivors));
    let missed = flips.iter().filter(|f| matches!(f.verdict, Verdict::WithinBounds)).count();
    flips.len() >= count && 10 * found >= 9 * flips.len() && 100 * missed <= 3 * flips.len()
}

/// Whether all but two of fifteen changes are found: some are the same program on the machine, which takes a person to see.
fn source(target: &str, count: usize, seed: u64) -> bool {
    let bench = Bench::new(target);
    let (mut done, mut found, mut refused, mut same, mut missed) = (0, 0, 0, 0, Vec::new());
    let mut kinds = Vec::new();
    let all = changes(seed);
    let results = all.chunks(AT_ONCE).flat_map(|some| {
        let results: Vec<Found> = some.par_iter().map(|change| bench.run(change)).collect();
        some.iter().zip(results)
    });
    for (change, result) in results {
        eprintln!("{change}: {result:?}");
        match result {
            Found::Refused => refused += 1,
            Found::SameCode => same += 1,
            Found::Yes(_) => {
                (done, found) = (done + 1, found + 1);
                kinds.push(format!("{} ({}), found", change.kind, change.header));
            }
            Found::No => {
                done += 1;
                kinds.push(format!("{} ({}), not found", change.kind, change.header));
                missed.push(change.to_string());
            }
        }
        if done >= count {
            break;
        }
    }
    println!(
        "{target}: {done} changes of headers that change the machine code of {} kernels, seed {seed}: {found} found ({refused} more were \
         refused by the compiler, {same} more left the code as it was). Code objects: BLAKE3 `{}`\n",
        bench.kernels(),
        bench.digest()
    );
    println!("{}", tally("change", kinds.into_iter()));
    for change in missed {
        println!("- not found: {change}");
    }
    done >= count && 15 * found >= 13 * done
}
