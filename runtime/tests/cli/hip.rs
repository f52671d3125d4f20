//! The device `hip`, through the stand-in for the driver's library.

use crate::common::{ANSWER, CTX, QUESTION, bundles, hipfire, text};
use hipc::bundle::{BundleRequest, WeightsMode, write};
use hipc::emit::emit_unit;
use hipc::pipeline::{self, Options};
use hipc::target::Target;
use hipc::toolchain::{CompileOptions, Emit, Toolchain, UnitSource};
use hipc_tests::standin::StandIn;
use std::path::PathBuf;
use std::process::Output;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

/// The model with machine code for gfx1100, and the driver that executes the same kernels compiled for this machine.
struct Bench {
    bundle: PathBuf,
    standin: StandIn,
}

/// Made once for all tests of a process; `None` where a stand-in can't be made.
fn bench() -> Option<&'static Bench> {
    static BENCH: OnceLock<Option<Bench>> = OnceLock::new();
    BENCH.get_or_init(make).as_ref()
}

fn make() -> Option<Bench> {
    let model = hipc_models::load(&bundles().model).unwrap();
    let (toolchain, options) = (Toolchain::from_env(), Options { ctx: Some(CTX), ..Options::default() });
    let gpu = Target::parse("gfx1100").unwrap();
    let built = pipeline::build(&model, &[gpu], &options, &toolchain, &CompileOptions::default(), &|_| ()).unwrap();
    let host = Target::parse("host").unwrap();
    let source = emit_unit(&model.name, host, &built[0].planned.plan.kernels);
    let unit = UnitSource { name: "unit", source: &source, headers: hipc_templates::HEADERS };
    let unit = toolchain.compile(&unit, host, Emit::HostSharedObject, &CompileOptions::default()).unwrap();
    let standin = StandIn::with_unit(&[], built[0].code.clone(), &unit.bytes)?;
    let (bundle, interrupted) = (bundles().folder.path().join("hip.bin"), AtomicBool::new(false));
    let weights = WeightsMode::Referenced;
    write(&bundle, &BundleRequest { model: &model, built: &built, options: &options, weights, interrupted: &interrupted })
        .unwrap();
    Some(Bench { bundle, standin })
}

impl Bench {
    /// The binary where these GPUs are and this call fails.
    fn run(&self, args: &[&str], fail: &str, archs: &str) -> Output {
        hipfire(args.iter().copied()).envs(self.standin.environment(fail, archs)).output().unwrap()
    }

    fn ask(&self, device: &str, fail: &str, archs: &str) -> Output {
        let bundle = self.bundle.to_str().unwrap();
        self.run(&[bundle, "--chat", "-p", QUESTION, "--device", device], fail, archs)
    }
}

#[test]
fn answers_come_from_the_gpu() {
    let Some(bench) = bench() else { return };
    for (device, archs, found) in [
        ("auto", "gfx1100", "hip:0 Stand-in (gfx1100)"),
        ("hip:0", "gfx1100", "hip:0 Stand-in (gfx1100)"),
        // The first GPU that the bundle has code for.
        ("auto", "gfx90c,gfx1100", "hip:1 Stand-in (gfx1100)"),
        ("auto", "gfx90c", "cpu"),
    ] {
        let run = bench.ask(device, "", archs);
        let (out, err) = text(&run);
        assert_eq!((run.status.code(), out), (Some(0), format!("{ANSWER}\n")), "{device} of {archs}: {err}");
        assert!(err.contains(found), "{device} of {archs}: no {found} in {err}");
    }
}

#[test]
fn what_the_driver_refuses_is_the_machines_fault() {
    let Some(bench) = bench() else { return };
    for (fail, archs, parts) in [
        ("hipGraphLaunch:719:1", "gfx1100", &["hipGraphLaunch", "719"][..]),
        ("hipMalloc:2:1", "gfx1100", &["with context 192 needs", "--device"]),
        ("", "none", &["no AMD GPU", "--device cpu"]),
    ] {
        let run = bench.ask("hip:0", fail, archs);
        let (out, err) = text(&run);
        assert_eq!((run.status.code(), out.as_str()), (Some(3), ""), "{fail}: {err}");
        assert!(err.contains("error: ") && parts.iter().all(|p| err.contains(p)), "{fail}: {err}");
    }
    // No code for it: the request's.
    let run = bench.ask("hip:0", "", "gfx1030");
    let (_, err) = text(&run);
    assert!(run.status.code() == Some(2) && err.contains("gfx1030") && err.contains("gfx1100"), "{err}");
}

#[test]
fn doctor_lists_every_gpu() {
    let Some(bench) = bench() else { return };
    let (out, _) = text(&bench.run(&["doctor"], "", "gfx90c,gfx1100:xnack-"));
    for part in ["ready (--device hip:0, or auto)", "hip:0 Stand-in (gfx90c)", "hip:1 Stand-in (gfx1100)", "--arch gfx1100"] {
        assert!(out.contains(part), "no {part} in\n{out}");
    }
    let run = bench.run(&["doctor", "--print-arch"], "", "gfx90c,gfx1100:xnack-,gfx803");
    assert_eq!((run.status.code(), text(&run).0.as_str()), (Some(0), "gfx90c\ngfx1100\ngfx803\n"));
    let run = bench.run(&["doctor", "--print-arch"], "", "none");
    assert_eq!((run.status.code(), text(&run).0.as_str()), (Some(3), ""));
}
