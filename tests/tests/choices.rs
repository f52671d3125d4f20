//! The choice of the next token on the device `host` against the runtime's sampler with the same numbers: the same ids, for waves of 32
//! and 64 lanes, whatever the logits, the parameters and the text are.

use hipc::emit::emit_unit;
use hipc::target::Target;
use hipc::toolchain::{CompileOptions, Emit, Toolchain, UnitSource};
use hipc_codeobj::SimdFacts;
use hipc_ir::PrimaryMap;
use hipc_ir::fused::{Choose, FusedOp, Role};
use hipc_ir::plan::{Geometry, KernelSpec, SamplingState, StepState};
use hipc_templates::{HEADERS, check_geometry};
use hipc_tests::kernel_cases::CTX;
use hipc_tests::launch_bench::{Case, Loaded, Random};
use hipc_tests::logits::{ROWS, row, set, set_logits, text};
use hipfire_run::device::Driver;
use hipfire_run::device::host::HostLibrary;
use hipfire_run::text::{Sampler, SamplerParams};

/// Vocabulary, values in a tile (none without partials), waves of 32 lanes.
const SHAPES: [(u32, Option<u32>, u32); 6] =
    [(323, Some(8), 2), (323, None, 4), (4099, Some(16), 8), (700, Some(96), 2), (130, Some(40), 32), (5000, Some(4), 32)];

fn specs(wave: u32) -> Vec<KernelSpec> {
    let spec = |(i, (n, tile, waves)): (usize, (u32, Option<u32>, u32))| {
        let parts_in = tile.map_or(0, |tile| n.div_ceil(tile));
        let op = FusedOp::Choose(Choose { n, partials: tile.is_some(), advance: i % 2 == 0 });
        let geometry = Geometry { parts_in, ..Geometry::plain(wave, waves * 32 / wave, tile.unwrap_or(1)) };
        KernelSpec { name: format!("k{i:03}_choose"), op, geometry }
    };
    SHAPES.into_iter().enumerate().map(spec).collect()
}

fn compile(wave: u32, specs: &[KernelSpec]) -> Vec<u8> {
    let host = Target::parse("host").expect("the table has the host");
    let target = Target { simd: SimdFacts { wave_size: wave, ..host.simd }, ..*host };
    let source = emit_unit("choices", &target, &specs.iter().cloned().collect::<PrimaryMap<_, _>>());
    let unit = UnitSource { name: "choices", source: &source, headers: HEADERS };
    let compiled = Toolchain::from_env().compile(&unit, &target, Emit::HostSharedObject, &CompileOptions::default());
    compiled.unwrap_or_else(|e| panic!("{e}")).bytes
}

fn params(most: u32, random: &mut Random) -> SamplerParams {
    let mut one = |of: &[f32]| of[random.below(of.len() as u32) as usize];
    SamplerParams {
        temperature: one(&[0.0, 1e-3, 0.3, 0.8, 2.0]),
        top_k: one(&[1.0, 2.0, 40.0_f32.min(most as f32), most as f32]) as usize,
        top_p: one(&[0.0, 0.1, 0.95, 1.0]),
        min_p: one(&[0.0, 0.05, 0.5]),
        repeat_penalty: one(&[1.0, 1.0, 1.3, 0.7, 8.0]),
        repeat_last_n: one(&[0.0, 3.0, 64.0, 200.0]) as usize,
        seed: one(&[1.0, 2.0, 3.0, 4.0, 5.0]) as u64,
    }
}

fn agree(wave: u32, rounds: u64) {
    let specs = specs(wave);
    for spec in &specs {
        check_geometry(spec).unwrap_or_else(|e| panic!("{}: {e}", spec.name));
    }
    let module = compile(wave, &specs);
    let mut driver = HostLibrary::default();
    let names: Vec<&str> = specs.iter().map(|s| s.name.as_str()).collect();
    let kernels = driver.load(&module, &names).unwrap_or_else(|e| panic!("{e}"));
    let (mut drawn, mut greedy) = (0, 0);
    for (spec, kernel) in specs.iter().zip(kernels) {
        let FusedOp::Choose(op) = spec.op else { unreachable!() };
        let (n, most) = (op.n as usize, spec.most_candidates());
        let mut case = Case::random(spec, 1, CTX, 1);
        let mut loaded = Loaded::new(&mut driver, kernel, &case).unwrap_or_else(|e| panic!("{e}"));
        for round in 0..rounds {
            let mut random = Random(1000 * u64::from(op.n) + round);
            let kind = ROWS[if round % 2 == 0 { 0 } else { random.below(ROWS.len() as u32) as usize }];
            let (row, params) = (row(kind, n, &mut random), params(most, &mut random));
            let end = 1 + random.below(CTX) as usize;
            let text = text(end, &row, &mut random);
            let what = format!("{kind} row {round} of {n} in waves of {wave}, {end} tokens, {params:?}");
            let mut sampler = Sampler::new(params).unwrap_or_else(|e| panic!("{what}: {e}"));
            set_logits(&mut case, &row);
            set(&mut case, Role::Tokens, 0, bytemuck::cast_slice(&text));
            set(&mut case, Role::Sampling, 0, &params.state().to_bytes());
            set(&mut case, Role::Draws, 8 * end, &sampler.draws(1)[0].to_le_bytes());
            let state = StepState { pos: end as i32 - 1, n: 1, ..StepState::default() };
            let (after, findings) = case.run(&mut loaded, state).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert!(findings.iter().all(|f| f.passes() && f.ties == 0), "{what}: {findings:?}");
            assert_eq!(case.strayed(state, &after), [], "{what}");
            let ids = spec.op.params().iter().position(|p| p.role == Role::Ids).expect("an operand");
            let id = u32::from_le_bytes(*after[ids].first_chunk().expect("an id"));
            assert!(params.state().is_for_device(most), "{what}");
            sampler.accept(&text);
            match sampler.sample(&row) {
                Ok(expected) => assert_eq!(id, expected, "{what}"),
                Err(_) => assert!(id < op.n, "{what}: {id}"),
            }
            *if params.temperature > 0.0 { &mut drawn } else { &mut greedy } += 1;
        }
    }
    println!("{drawn} draws and {greedy} greedy choices are the sampler's");
}

#[test]
fn waves_of_32_choose_as_the_sampler_does() {
    agree(32, 300);
}

#[test]
fn waves_of_64_choose_as_the_sampler_does() {
    agree(64, 300);
}

/// What isn't the device's to draw is the arg-max, so that nothing depends on what was asked for.
#[test]
fn more_candidates_than_fit_are_left_to_the_host() {
    let state = |top_k| SamplingState { temperature: 0.8, top_k, top_p: 1.0, ..SamplingState::default() };
    assert_eq!([0, 1, 128, 129].map(|k| state(k).is_for_device(128)), [false, true, true, false]);
    let limits: Vec<u32> = specs(32).iter().map(KernelSpec::most_candidates).collect();
    assert_eq!(limits, [128, 128, 128, 42, 102, 128]);
}
