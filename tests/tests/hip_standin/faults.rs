//! Every call of the library fails, early and late.

use crate::graphs::pipeline;
use crate::run;
use crate::standin::StandIn;
use hipfire_run::device::{DeviceError, Placement};

/// Every call, its first three times, with codes that mean something and some that don't: a typed error that names the call and
/// no panic; whatever was allocated before is released, except where releasing itself was told to fail.
#[test]
fn every_call_may_fail() {
    let calls = [
        "hipInit",
        "hipGetDeviceCount",
        "hipSetDevice",
        "hipDeviceGetAttribute",
        "hipGetDeviceProperties",
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
}

/// How many errors there were.
fn fail_each(standin: &StandIn, calls: &[&str], run: &dyn Fn(&StandIn) -> Result<(), DeviceError>) -> usize {
    let mut failed = 0;
    for call in calls {
        for code in [1, 2, 3, 35, 98, 100, 101, 209, 302, 500, 700, 719, 901, 999, -1] {
            for nth in 1..=3 {
                standin.configure(&format!("{call}:{code}:{nth}"), "gfx1100", 0);
                let result = run(standin);
                let what = format!("{call} returned {code} the {nth}. time");
                // What is only called while tidying up has nobody to tell.
                let tidying = ["Free", "Unload", "Destroy"].iter().any(|t| call.contains(t));
                match result {
                    Ok(()) => assert!(tidying || nth > 1, "{what}: nothing noticed"),
                    Err(error) => {
                        failed += 1;
                        let text = error.to_string();
                        let named = text.contains(call) && text.contains(&code.to_string());
                        let known = matches!(
                            error,
                            DeviceError::Missing { .. } | DeviceError::OutOfMemory { .. } | DeviceError::NoCode { .. }
                        );
                        assert!(named || known, "{what}: {text}");
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
