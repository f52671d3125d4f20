//! Every kernel of the case table on the device `host`, compared with the reference launch by launch: for waves of 32 and 64
//! lanes, for one token and for several, at the edges of context splits, in two orders of workgroups, under sanitizers.

use hipc::emit::emit_unit;
use hipc::target::Target;
use hipc::toolchain::{CompileOptions, Compiled, Emit, Toolchain, ToolchainError, UnitSource};
use hipc_codeobj::SimdFacts;
use hipc_ir::PrimaryMap;
use hipc_ir::plan::KernelSpec;
use hipc_templates::{HEADERS, check_geometry};
use hipc_tests::kernel_cases::{positions, small, states};
use hipc_tests::launch_bench::{Case, Loaded};
use hipc_tests::sanitizers;
use hipfire_run::device::Driver;
use hipfire_run::device::host::{HostLibrary, HostProcess, Order};

/// Tokens of a prompt step in these tests.
const CHUNK: u32 = 6;

fn compile(wave: u32, specs: &[KernelSpec], emit: Emit) -> Result<Compiled, ToolchainError> {
    let host = Target::parse("host").expect("the table has the host");
    let target = Target { simd: SimdFacts { wave_size: wave, ..host.simd }, ..*host };
    let mut source = emit_unit("cases", &target, &specs.iter().cloned().collect::<PrimaryMap<_, _>>());
    if emit == Emit::HostAsanExecutable {
        source.push_str("\n#include \"hipc/host_main.cpp\"\n");
    }
    let unit = UnitSource { name: "cases", source: &source, headers: HEADERS };
    Toolchain::from_env().compile(&unit, &target, emit, &CompileOptions::default())
}

/// Runs all; returns the launches compared and the results' bits, panics with everything that is wrong.
fn compare(driver: &mut dyn Driver, module: &[u8], specs: &[KernelSpec], tokens: u32) -> (usize, Vec<Vec<u8>>) {
    let names: Vec<&str> = specs.iter().map(|s| s.name.as_str()).collect();
    let kernels = driver.load(module, &names).unwrap_or_else(|e| panic!("{e}"));
    let (mut launches, mut wrong, mut bits) = (0, Vec::new(), Vec::new());
    for (i, (spec, &kernel)) in specs.iter().zip(&kernels).enumerate() {
        let case = Case::random(spec, tokens, positions(&spec.op), 77 + i as u64);
        let mut loaded = Loaded::new(driver, kernel, &case).unwrap_or_else(|e| panic!("{e}"));
        for state in states(&spec.op, tokens) {
            let what = format!("{} at {}+{}", spec.name, state.pos, state.n);
            let (after, findings) = match case.run(&mut loaded, state) {
                Ok(done) => done,
                Err(error) => panic!("{what}: {error}\nbefore that: {wrong:#?}"),
            };
            launches += 1;
            for finding in findings.iter().filter(|f| !f.passes()) {
                wrong.push(format!("{what}: {finding:?}"));
            }
            for role in case.strayed(state, &after) {
                wrong.push(format!("{what}: {role:?} was touched where it must not be"));
            }
            bits.extend(after);
        }
    }
    assert!(wrong.is_empty(), "{} of {launches} launches' results:\n{}", wrong.len(), wrong.join("\n"));
    (launches, bits)
}

fn all(wave: u32, tokens: u32) {
    let specs = small(wave, tokens);
    for spec in &specs {
        check_geometry(spec).unwrap_or_else(|e| panic!("{}: {e}", spec.name));
    }
    let module = compile(wave, &specs, Emit::HostSharedObject).unwrap_or_else(|e| panic!("{e}")).bytes;
    let (launches, first) = compare(&mut HostLibrary::default(), &module, &specs, tokens);
    let (_, second) = compare(&mut HostLibrary::new(Order::Descending), &module, &specs, tokens);
    assert!(first == second, "the order of workgroups changes results");
    println!("{launches} launches of {} kernels compared", specs.len());
}

fn sanitized(wave: u32, tokens: u32) {
    let specs = small(wave, tokens);
    let Some(module) = sanitizers::program(compile(wave, &specs, Emit::HostAsanExecutable)) else { return };
    let mut device = HostProcess::new(Order::Stride(7));
    compare(&mut device, &module, &specs, tokens);
    device.finish().unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn one_token_in_waves_of_32() {
    all(32, 1);
}

#[test]
fn one_token_in_waves_of_64() {
    all(64, 1);
}

#[test]
fn a_chunk_in_waves_of_32() {
    all(32, CHUNK);
}

#[test]
fn a_chunk_in_waves_of_64() {
    all(64, CHUNK);
}

#[test]
fn sanitizers_find_nothing_in_one_token() {
    sanitized(32, 1);
}

#[test]
fn sanitizers_find_nothing_in_a_chunk() {
    sanitized(64, CHUNK);
}
