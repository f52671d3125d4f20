//! Steps as graphs of the device, and waiting for one step while others are enqueued.

use crate::standin::{Halves, N, StandIn, bytes_of, plan};
use hipc_ir::plan::StepState;
use hipfire_run::device::hip::{HipDriver, HipRuntime};
use hipfire_run::device::{Backend, DeviceError, Driver, DriverBackend, KernelLaunch, Placement};

/// Adds one thing to itself again and again, in graphs, into memory that both sides see, and waits for one step while others are
/// enqueued.
pub fn pipeline(standin: &StandIn) -> Result<(), DeviceError> {
    let runtime = HipRuntime::open(Some(&standin.path()))?;
    let mut driver = HipDriver::new(&runtime, 0)?;
    let kernel = driver.load(&standin.code, &["add"])?[0];
    let bytes = u64::from(4 * N);
    let (state, x, sum, seen) =
        (driver.alloc(StepState::BYTES)?, driver.alloc(bytes)?, driver.alloc(bytes)?, driver.alloc_pinned(bytes)?);
    assert_eq!(driver.allocated(), StepState::BYTES + 2 * bytes);
    driver.upload(state, &StepState { n: 1, ..StepState::default() }.to_bytes())?;
    driver.upload(x, &bytes_of((0..N).map(|i| i as f32)))?;
    let pack = |args: [u64; 4]| args.iter().flat_map(|a| a.to_le_bytes()).collect::<Vec<u8>>();
    let (once, show) = (pack([state, x, sum, sum]), pack([state, x, sum, seen]));
    let launch = |kernargs| KernelLaunch { kernel, grid: [3, 1, 1], threads: 64, kernargs, operands: &[] };
    let captured = driver.capture(&[launch(&once), launch(&show)])?;
    // A graph that nobody holds any more makes room.
    drop(driver.capture(&[launch(&once)])?);
    drop(driver.capture(&[launch(&once)])?);
    let value = |i: u32, times: usize| ((i as usize * times) as f32).to_bits().cast_signed();
    let mut marks = vec![driver.mark()?];
    for step in 1..=3 {
        match &captured {
            Some(graph) => driver.replay(graph)?,
            None => [launch(&once), launch(&show)].into_iter().try_for_each(|l| driver.launch(l))?,
        }
        marks.push(driver.mark()?);
        driver.wait(&marks[step - 1])?;
        // The last word of what is seen, as one step left it while the next is under way.
        if step > 1 {
            assert_eq!(driver.receive(seen + bytes - 8, value(N - 1, step))?, value(N - 2, step));
        }
    }
    assert_eq!(driver.receive(seen + bytes - 8, value(N - 1, 4))?, value(N - 2, 4));
    assert!(driver.elapsed(&marks[0], &marks[3])? >= driver.elapsed(&marks[1], &marks[2])?);
    let mut now = vec![0xee; bytes as usize];
    driver.download(seen, &mut now)?;
    // Thrice in the sum's place and once more in what is seen.
    assert_eq!(now, bytes_of((0..N).map(|i| (i * 4) as f32)));
    // Nothing that is enqueued will write this.
    match driver.receive(seen, 77) {
        Err(DeviceError::Internal(_)) => {}
        other => return Err(other.expect_err("nothing was enqueued that writes it")),
    }
    // Events are used again: as many in all as were held at a time.
    for _ in 0..200 {
        marks.rotate_left(1);
        marks.pop();
        marks.push(driver.mark()?);
    }
    driver.wait(&marks[3])?;
    for outside in [seen + bytes, seen + 4, sum] {
        assert!(matches!(driver.receive(outside, 0), Err(DeviceError::Internal(_))));
    }
    // What is another device's is refused.
    let mut other = HipDriver::new(&runtime, 0)?;
    let foreign = other.mark()?;
    assert!(matches!(driver.wait(&foreign), Err(DeviceError::Internal(_))));
    if let Some(graph) = &captured {
        assert!(matches!(other.replay(graph), Err(DeviceError::Internal(_))));
    }
    // Held longer than the device.
    drop((driver, other));
    drop((marks, captured));
    Ok(())
}

#[test]
fn graphs_do_what_plain_launches_do() {
    let Some(standin) = StandIn::new(&[]) else { return };
    pipeline(&standin).unwrap();
    assert_eq!((standin.launches(), standin.graph_launches(), standin.report().as_str()), (6, 3, ""));
    // A library that has no graphs, and says so early or late.
    for unsupported in ["hipStreamBeginCapture:801", "hipStreamBeginCapture:900", "hipGraphInstantiateWithFlags:801"] {
        standin.configure(&format!("{unsupported}:0"), "gfx1100", 0);
        pipeline(&standin).unwrap();
        assert_eq!((standin.launches(), standin.graph_launches(), standin.report().as_str()), (6, 0, ""), "{unsupported}");
    }
}

#[test]
fn a_failed_capture_leaves_a_stream_that_works() {
    let Some(standin) = StandIn::new(&[]) else { return };
    for fault in ["hipModuleLaunchKernel:719:2", "hipGraphInstantiateWithFlags:2:1", "hipGraphDestroy:1:1"] {
        standin.configure(fault, "gfx1100", 0);
        let runtime = HipRuntime::open(Some(&standin.path())).unwrap();
        let driver = HipDriver::new(&runtime, 0).unwrap();
        let weights = Halves(bytes_of((0..N).map(|i| i as f32)));
        let mut backend = DriverBackend::new(driver, plan(), &standin.code, &weights, Placement::Planned, &mut |_| {}).unwrap();
        let recorded = backend.record(0, 0..1, 3);
        assert_eq!(recorded.is_err(), !fault.starts_with("hipGraphDestroy"), "{fault}");
        let recording = backend.record(0, 0..1, 3).unwrap();
        assert!(recording.is_graph() && recording.launches() == 3);
        assert!(matches!(backend.record(0, 0..2, 1), Err(DeviceError::Internal(_))));
        let (state, out) = (backend.plan().state, backend.plan().programs[0].logits);
        backend.write(state, 0, &StepState { n: 1, ..StepState::default() }.to_bytes()).unwrap();
        let from = backend.mark().unwrap();
        backend.replay(&recording).unwrap();
        let to = backend.mark().unwrap();
        let mut result = vec![0; 4 * N as usize];
        backend.read(out, 0, &mut result).unwrap();
        assert_eq!(result, weights.0, "{fault}");
        assert!(backend.elapsed(&from, &to).unwrap() > 0.0);
        assert_eq!((standin.launches(), standin.graph_launches()), (3, 1), "{fault}");
        backend.use_graphs(false);
        assert!(!backend.record(0, 0..1, 3).unwrap().is_graph());
        let used = backend.memory_use().unwrap();
        // The library counted alike, and took nothing for itself.
        let (free, total) = backend.driver_mut().memory().unwrap();
        assert_eq!((used.own, used.driver, used.before, used.total), (total - free, 0, 0, 1 << 30));
        assert!(used.own >= 1024 * 4 * 8);
        drop((recorded, recording, backend));
        let left = if fault.starts_with("hipGraphDestroy") { "leaked graph\n" } else { "" };
        assert_eq!(standin.report(), left, "{fault}");
    }
}
