//! Every call of the library fails, early and late.

use crate::graphs::pipeline;
use crate::run;
use crate::standin::{HEADER, StandIn};
use hipfire_run::device::{DeviceError, Placement};
use std::collections::BTreeSet;

/// Every call with every code, and later than the first time with some: a typed error that names the call and no panic; whatever was
/// allocated before is released, except where releasing itself was told to fail.
#[test]
fn every_call_may_fail() {
    let calls = [
        "hipInit",
        "hipGetDeviceCount",
        "hipSetDevice",
        "hipDeviceGetAttribute",
        "hipGetDeviceProperties",
        "hipRuntimeGetVersion",
        "hipMemGetInfo",
        "hipMalloc",
        "hipHostMalloc",
        "hipMemsetAsync",
        "hipMemcpyHtoDAsync",
        "hipMemcpyDtoHAsync",
        "hipStreamCreateWithFlags",
        "hipStreamSynchronize",
        "hipModuleLoadData",
        "hipModuleGetFunction",
        "hipModuleLaunchKernel",
        "hipFree",
        "hipHostFree",
        "hipModuleUnload",
        "hipStreamDestroy",
    ];
    let Some(standin) = StandIn::new(&[]) else { return };
    let failed = fail_each(&standin, &calls, &|s| run(s, Placement::Planned));
    assert!(failed > 300, "{failed}");
    // What a pipeline of graphs calls on top of it.
    let calls = [
        "hipHostMalloc",
        "hipHostGetDevicePointer",
        "hipEventCreateWithFlags",
        "hipEventRecord",
        "hipEventSynchronize",
        "hipEventElapsedTime",
        "hipStreamQuery",
        "hipStreamBeginCapture",
        "hipStreamEndCapture",
        "hipGraphInstantiateWithFlags",
        "hipGraphLaunch",
        "hipModuleLaunchKernel",
        "hipStreamSynchronize",
        "hipGraphDestroy",
        "hipGraphExecDestroy",
        "hipEventDestroy",
        "hipHostFree",
    ];
    let failed = fail_each(&standin, &calls, &pipeline);
    assert!(failed > 300, "{failed}");
    // HIP 6 has another call for the same.
    let Some(newer) = StandIn::new(&["-DSTANDIN_R0600"]) else { return };
    let failed = fail_each(&newer, &["hipGetDevicePropertiesR0600"], &|s| run(s, Placement::Planned));
    assert!(failed > 50, "{failed}");
}

/// All errors of HIP's header, and two numbers that it doesn't have.
fn codes() -> Vec<i32> {
    let header = std::fs::read_to_string(HEADER).expect("the stand-in is compiled with it");
    let values = header.split("hipError").skip(1).filter_map(|behind| {
        let (_, value) = behind.split_once('=').filter(|(name, _)| name.trim().chars().all(char::is_alphanumeric))?;
        value.trim_start().split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    });
    let codes: BTreeSet<i32> = values.chain([-1, 4711]).collect();
    assert!(codes.len() > 60 && codes.contains(&719), "{codes:?}");
    codes.into_iter().collect()
}

/// Codes that some calls are asked for: not ready, not supported, not while capturing.
const ANSWERS: [i32; 3] = [600, 801, 900];

/// How many errors there were.
fn fail_each(standin: &StandIn, calls: &[&str], run: &dyn Fn(&StandIn) -> Result<(), DeviceError>) -> usize {
    let (codes, mut failed) = (codes(), 0);
    for call in calls {
        for &code in &codes {
            let times = if matches!(code, 1 | 2 | 209 | 719 | 999) { 3 } else { 1 };
            for nth in 1..=times {
                standin.configure(&format!("{call}:{code}:{nth}"), "gfx1100", 0);
                let result = run(standin);
                let what = format!("{call} returned {code} the {nth}. time");
                // What is only called while tidying up has nobody to tell.
                let tidying = ["Free", "Unload", "Destroy"].iter().any(|t| call.contains(t));
                // What is only shown may be unknown.
                let shown = *call == "hipRuntimeGetVersion";
                match result {
                    Ok(()) => assert!(tidying || shown || nth > 1 || ANSWERS.contains(&code), "{what}: nothing noticed"),
                    Err(error) => {
                        failed += 1;
                        let text = error.to_string();
                        let named = text.contains(call) && text.contains(&code.to_string());
                        let known = matches!(
                            error,
                            DeviceError::Missing { .. } | DeviceError::OutOfMemory { .. } | DeviceError::NoCode { .. }
                        );
                        // An answer isn't an error; what is tried instead may be.
                        assert!(named || known || ANSWERS.contains(&code), "{what}: {text}");
                        assert!(!tidying, "{what}: {text}");
                    }
                }
                if !tidying {
                    assert_eq!(standin.report(), "", "{what}");
                }
            }
        }
    }
    failed
}
