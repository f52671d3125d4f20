//! Device `hip`: against a stand-in libamdhip64 that is compiled with HIP's own header and fails on command, and against
//! Debian's real library on a machine without a GPU.

mod demo;
mod faults;
mod graphs;
mod standin;

use hipc::toolchain::Emit;
use hipc_ir::plan::StepState;
use hipfire_run::device::hip::{HipDriver, HipRuntime};
use hipfire_run::device::{Backend, DeviceError, Driver, DriverBackend, Placement};
use standin::{Halves, N, StandIn, bytes_of, compile, plan};
use std::fs;
use std::path::Path;

/// Opens the stand-in, loads the plan, runs two steps with the same memory on our side for both inputs, compares.
fn run(standin: &StandIn, placement: Placement) -> Result<(), DeviceError> {
    let runtime = HipRuntime::open(Some(&standin.path()))?;
    assert_eq!(runtime.devices()[0].to_string(), "hip:0 Stand-in (gfx1100)");
    assert_eq!(runtime.devices()[0].wave, 32);
    let driver = HipDriver::new(&runtime, 0)?;
    let weights = Halves(bytes_of((0..N).map(|i| i as f32 / 2.0)));
    let mut seen = Vec::new();
    let mut progress = |p: hipfire_run::device::Progress| seen.push((p.done, p.total));
    let mut backend = DriverBackend::new(driver, plan(), &standin.code, &weights, placement, &mut progress)?;
    let total = u64::from(4 * N) + 1024 * 4 * 8;
    assert_eq!(seen, [(0, total), (u64::from(4 * N), total), (total, total)]);
    let plan = backend.plan();
    let program = &plan.programs[0];
    let (x, out, state) = (program.launches[0].args[1], program.logits, plan.state);
    let mut input = Vec::new();
    for step in 0..2 {
        input.clear();
        input.extend(bytes_of((0..N).map(|i| (i * step) as f32)));
        backend.write(x, 0, &input)?;
        backend.write(state, 0, &StepState { pos: step as i32, n: 1, ..StepState::default() }.to_bytes())?;
        backend.run(0, 0..1)?;
        // The copies may not have happened yet; their sources may change all the same.
        input.fill(0xff);
        let mut result = vec![0; 4 * N as usize];
        backend.read(out, 0, &mut result)?;
        assert_eq!(result, bytes_of((0..N).map(|i| (i * step) as f32 + i as f32 / 2.0)), "step {step}");
    }
    assert!(matches!(backend.read(out, u64::from(4 * N - 4), &mut [0; 8]), Err(DeviceError::Internal(_))));
    assert!(matches!(backend.run(0, 0..2), Err(DeviceError::Internal(_))));
    Ok(())
}

/// Copies happen late in the stand-in, so a part of the pinned ring that is filled again too early shows.
#[test]
fn copies_of_any_size_go_round_the_ring() {
    let Some(standin) = StandIn::new(&[]) else { return };
    let runtime = HipRuntime::open(Some(&standin.path())).unwrap();
    let mut driver = HipDriver::new(&runtime, 0).unwrap();
    let bytes: Vec<u8> = (0..75_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let to = driver.alloc(bytes.len() as u64).unwrap();
    let (mut at, mut lengths) =
        (0, [1, 100, (5 << 20) + 3, 8 << 20, 64, (17 << 20) + 5, 16, (8 << 20) - 100, 300_000].iter().cycle());
    while at < bytes.len() {
        let n = lengths.next().map_or(0, |&n| n.min(bytes.len() - at));
        driver.upload(to + at as u64, &bytes[at..at + n]).unwrap();
        at += n;
    }
    let mut back = vec![0; bytes.len()];
    let (first, second) = back.split_at_mut(33_333_333);
    driver.download(to, first).unwrap();
    driver.download(to + first.len() as u64, second).unwrap();
    assert!(back == bytes);
    drop(driver);
    assert_eq!(standin.report(), "");
}

#[test]
fn a_plan_runs_on_both_generations_of_the_runtime() {
    for flags in [&[][..], &["-DSTANDIN_R0600"]] {
        let Some(standin) = StandIn::new(flags) else { return };
        for placement in [Placement::Planned, Placement::Separate] {
            standin.configure("", "gfx1100", 0);
            run(&standin, placement).unwrap();
            assert_eq!(standin.launches(), 2);
            assert_eq!(standin.report(), "");
        }
    }
}

#[test]
fn architectures_lose_their_features_and_must_match_the_bundle() {
    let Some(standin) = StandIn::new(&[]) else { return };
    standin.configure("", "gfx90a:sramecc+:xnack-", 0);
    let runtime = HipRuntime::open(Some(&standin.path())).unwrap();
    assert_eq!((runtime.devices()[0].arch.as_str(), runtime.devices()[0].wave), ("gfx90a", 64));
    let driver = HipDriver::new(&runtime, 0).unwrap();
    let weights = Halves(Vec::new());
    let error = DriverBackend::new(driver, plan(), &standin.code, &weights, Placement::Planned, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("no code for gfx90a (it has gfx1100)"), "{error}");
    // The same said by the driver.
    let mut driver = HipDriver::new(&runtime, 0).unwrap();
    let error = hipfire_run::device::Driver::load(&mut driver, &standin.code, &["add"]).unwrap_err();
    assert!(error.to_string().contains("no code for gfx90a (it has gfx1100)"), "{error}");
    let error = HipDriver::new(&runtime, 3).unwrap_err().to_string();
    assert!(error.contains("no hip:3") && error.contains("hip:0 Stand-in (gfx90a)"), "{error}");
    drop(driver);
    assert_eq!(standin.report(), "");
}

#[test]
fn too_little_memory_names_the_context_that_fits() {
    let Some(standin) = StandIn::new(&[]) else { return };
    // 1024 positions take 44 bytes each (a table, the token list and the draws); the rest needs 3584 bytes.
    standin.configure("", "gfx1100", 3584 + 44 * 600);
    let error = run(&standin, Placement::Planned).unwrap_err();
    let DeviceError::ContextTooLarge { ctx: 1024, fits, bytes, free, .. } = error else { panic!("{error}") };
    assert!((512..=600).contains(&fits) && bytes > free && free == 3584 + 44 * 600, "{error}");
    standin.configure("", "gfx1100", 1000);
    let error = run(&standin, Placement::Planned).unwrap_err();
    assert!(matches!(error, DeviceError::OutOfMemory { free: 1000, .. }), "{error}");
    standin.configure("hipMalloc:2:2", "gfx1100", 0);
    let error = run(&standin, Placement::Planned).unwrap_err();
    assert!(matches!(error, DeviceError::OutOfMemory { .. }), "{error}");
    assert_eq!(standin.report(), "");
}

#[test]
fn a_machine_without_a_gpu_is_told_so() {
    let advice = |error: DeviceError| {
        let text = error.to_string();
        assert!(text.contains("no AMD GPU found") && text.contains("/dev/kfd"), "{text}");
    };
    if let Some(standin) = StandIn::new(&[]) {
        standin.configure("", "none", 0);
        advice(HipRuntime::open(Some(&standin.path())).unwrap_err());
    }
    let real = "/usr/lib/x86_64-linux-gnu/libamdhip64.so.5";
    if Path::new("/dev/kfd").exists() || !Path::new(real).exists() {
        println!("skipped: this machine has a GPU or lacks {real} (package libamdhip64-5)");
        return;
    }
    advice(HipRuntime::open(Some(Path::new(real))).unwrap_err());
}

#[test]
fn a_missing_or_foreign_library_is_told_with_advice() {
    let error = HipRuntime::open(Some(Path::new("/nowhere/libamdhip64.so"))).unwrap_err().to_string();
    assert!(error.contains("/nowhere/libamdhip64.so") && error.contains("HIPC_HIP_LIBRARY"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let foreign = folder.path().join("libforeign.so");
    fs::write(&foreign, compile("host", Emit::HostSharedObject)).unwrap();
    let error = HipRuntime::open(Some(&foreign)).unwrap_err().to_string();
    assert!(error.contains("can't be used: it lacks hip"), "{error}");
    let broken = folder.path().join("libbroken.so");
    fs::write(&broken, b"no library").unwrap();
    let error = HipRuntime::open(Some(&broken)).unwrap_err().to_string();
    assert!(error.contains("can't be used") && error.contains("file too short"), "{error}");
}
