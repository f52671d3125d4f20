//! `mutate code|source [TARGET] [COUNT] [SEED]`: changes kernels one by one and says whether the checks find it, in Markdown.

use hipc::target::Target;
use hipc::toolchain::Backend;
use hipc_ir::plan::KernelSpec;
use hipc_tests::emulated::{Trial, compile};
use hipc_tests::kernel_cases::small;
use hipc_tests::mutate::code::{Code, Flip};
use hipc_tests::mutate::source::{Bench, Found, changes};
use hipc_tests::mutate::tally;
use hipfire_run::verify::inputs::Random;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: usize| args.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let target = args.get(1).map_or("gfx1100", String::as_str);
    match args.first().map(String::as_str) {
        Some("code") => code(target, number(2, 500), number(3, 1) as u64),
        Some("source") => source(target, number(2, 36), number(3, 1) as u64),
        _ => {
            eprintln!("mutate code|source [TARGET] [COUNT] [SEED]");
            std::process::exit(2);
        }
    }
}

fn code(target: &str, count: usize, seed: u64) {
    let row = Target::parse(target).unwrap_or_else(|e| panic!("{e}"));
    let specs: Vec<KernelSpec> = small(row.simd.wave_size, 1);
    let module = compile(row, &specs, hipc_templates::HEADERS, Backend::Clang).unwrap_or_else(|e| panic!("{e}"));
    let each = count.div_ceil(specs.len());
    let mut flips: Vec<Flip> = Vec::new();
    for (i, spec) in specs.iter().enumerate() {
        let code = Code::new(target, &module, &spec.name, Trial::new(spec, 1, 77 + i as u64));
        let mut random = Random::fork(seed, i as u64);
        for _ in 0..each {
            let flip = code.flip(&mut random);
            let [before, after] = &flip.text;
            let what = flip.what.lines().next().unwrap_or_default();
            eprintln!("{} {:#x} bit {}: {}: `{before}` → `{after}` {what}", flip.kernel, flip.address, flip.bit, flip.verdict);
            flips.push(flip);
        }
    }
    let found = flips.iter().filter(|f| f.verdict.found()).count();
    println!(
        "{target}: {} bits flipped in {} kernels, seed {seed}: {found} found ({:.1} %)\n",
        flips.len(),
        specs.len(),
        100.0 * found as f64 / flips.len() as f64
    );
    println!("{}", tally("verdict", flips.iter().map(|f| f.verdict.to_string())));
}

fn source(target: &str, count: usize, seed: u64) {
    let bench = Bench::new(target);
    let (mut done, mut found, mut refused, mut same, mut missed) = (0, 0, 0, 0, Vec::new());
    let mut kinds = Vec::new();
    for change in changes(seed) {
        if done >= count {
            break;
        }
        let result = bench.run(&change);
        eprintln!("{change}: {result:?}");
        match result {
            Found::Refused => refused += 1,
            Found::SameCode => same += 1,
            Found::Yes(_) => {
                (done, found) = (done + 1, found + 1);
                kinds.push(format!("{}, found", change.kind));
            }
            Found::No => {
                done += 1;
                kinds.push(format!("{}, not found", change.kind));
                missed.push(change.to_string());
            }
        }
    }
    println!(
        "{target}: {done} changes of headers that change the machine code of {} kernels, seed {seed}: {found} found ({refused} more were \
         refused by the compiler, {same} more left the code as it was)\n",
        bench.kernels()
    );
    println!("{}", tally("change", kinds.into_iter()));
    for change in missed {
        println!("- not found: {change}");
    }
}
