//! What a stream of work has besides launches and copies: graphs of launches, events, and pinned memory that both sides see.
//!
//! A graph is captured, not built node by node: the calls are those of plain launches, and a launch that fails fails alike.

use super::api::{self, Api, CAPTURE_UNSUPPORTED, Handle, NOT_READY, NOT_SUPPORTED, SUCCESS};
use super::{GpuDriver, Platform};
use crate::device::{DeviceError, DevicePtr, Driver, Graph, KernelLaunch, Mark, never_sent, received};
use std::ffi::c_int;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Looks at a word between two looks at the clock: a few microseconds.
const LOOKS: u32 = 64;
/// Time between two questions to the driver while a word is waited for. The driver's locks aren't touched more often than that.
const ASK_AFTER: Duration = Duration::from_millis(1);
/// A word that comes within this time is there as soon as it is seen; for a later one this thread sleeps, since nobody notices the
/// delay: steps enqueued ahead keep the device at work.
const SLEEP_AFTER: Duration = Duration::from_millis(4);
const SLEEP: Duration = Duration::from_micros(50);

/// Pinned memory and where the device sees it.
pub(super) struct Mapped {
    pub(super) host: *mut u8,
    device: DevicePtr,
    bytes: usize,
}

impl<P: Platform> GpuDriver<P> {
    /// Allocates pinned memory, zeroed; where the device sees it.
    pub(super) fn map(&mut self, bytes: u64) -> Result<DevicePtr, DeviceError> {
        let (malloc, locate) = (self.api().host_malloc, self.api().host_device_pointer);
        let Ok(size) = usize::try_from(bytes) else {
            return Err(DeviceError::Internal(format!("{bytes} bytes of pinned memory")));
        };
        let mut host = null_mut();
        // SAFETY: a valid place for a pointer.
        let code = unsafe { (malloc.f)(&mut host, size, P::HOST_MAPPED) };
        self.check(malloc.name, code)?;
        // SAFETY: just allocated with this size; the device doesn't know it yet.
        unsafe { host.cast::<u8>().write_bytes(0, size) };
        self.mapped.push(Mapped { host: host.cast(), device: 0, bytes: 0 });
        let mut device = null_mut();
        // SAFETY: a valid place for a pointer, and mapped memory.
        let code = unsafe { (locate.f)(&mut device, host, 0) };
        self.check(locate.name, code)?;
        let device = device.expose_provenance() as DevicePtr;
        if let Some(mapped) = self.mapped.last_mut() {
            (mapped.device, mapped.bytes) = (device, size);
        }
        Ok(device)
    }

    /// Looks at a word of pinned memory until its upper half is `number`; the lower half.
    ///
    /// The stream is asked now and then whether there is an error, or nothing left that could write the word.
    pub(super) fn poll(&self, from: DevicePtr, number: i32) -> Result<i32, DeviceError> {
        let inside = |m: &Mapped| {
            let at = usize::try_from(from.checked_sub(m.device)?).ok()?;
            (at.is_multiple_of(8) && at.checked_add(8)? <= m.bytes).then_some((m.host, at))
        };
        let Some((host, at)) = self.mapped.iter().find_map(inside) else {
            return Err(DeviceError::Internal(format!("no word of pinned memory lies at {from:#x}")));
        };
        // SAFETY: inside of our memory, which lives as long as we do, and aligned: pinned memory begins with a page. On this side it is
        // only read, and only as an atomic, because the device writes it.
        let word = unsafe { AtomicU64::from_ptr(host.add(at).cast()) };
        let look = || received(word.load(Ordering::Acquire), number);
        let began = Instant::now();
        let mut asked = began;
        loop {
            for _ in 0..LOOKS {
                if let Some(id) = look() {
                    return Ok(id);
                }
                std::hint::spin_loop();
            }
            let now = Instant::now();
            if now - asked >= ASK_AFTER {
                asked = now;
                let call = self.api().stream_query;
                // SAFETY: our stream.
                match unsafe { (call.f)(self.stream) } {
                    NOT_READY => {}
                    // What was enqueued is done: the word is there now or never.
                    SUCCESS => return look().ok_or_else(|| never_sent(number)),
                    code => self.check(call.name, code)?,
                }
            }
            if now - began >= SLEEP_AFTER {
                std::thread::sleep(SLEEP);
            }
        }
    }

    /// Records an event behind everything enqueued so far; events that nobody holds any more are used again.
    pub(super) fn event(&mut self) -> Result<Mark, DeviceError> {
        let (create, record) = (self.api().event_create, self.api().event_record);
        let slot = match self.events.reuse() {
            Some(slot) => slot,
            None => {
                let mut event = null_mut();
                // SAFETY: a valid place for a handle.
                let code = unsafe { (create.f)(&mut event, api::EVENT_TIMED) };
                self.check(create.name, code)?;
                self.events.add(event)
            }
        };
        let event = self.events.get(&slot).unwrap_or(null_mut());
        // SAFETY: our event and our stream.
        let code = unsafe { (record.f)(event, self.stream) };
        self.check(record.name, code)?;
        Ok(Mark::of(slot))
    }

    fn event_of(&self, mark: &Mark) -> Result<Handle, DeviceError> {
        let event = mark.event.as_ref().and_then(|slot| self.events.get(slot));
        event.ok_or_else(|| DeviceError::Internal(format!("a mark that isn't of {}", self.who)))
    }

    /// Waits for an event. An error of the device ends the wait, too, and is the call's result.
    pub(super) fn reach(&self, mark: &Mark) -> Result<(), DeviceError> {
        let call = self.api().event_synchronize;
        let event = self.event_of(mark)?;
        // SAFETY: our event, which has been recorded.
        let code = unsafe { (call.f)(event) };
        self.check(call.name, code)
    }

    /// Seconds between two events.
    pub(super) fn between(&self, from: &Mark, to: &Mark) -> Result<f64, DeviceError> {
        let (from, last) = (self.event_of(from)?, self.event_of(to)?);
        self.reach(to)?;
        let call = self.api().event_elapsed;
        let mut milliseconds = 0.0;
        // SAFETY: a valid place for a float; both events have been recorded, with timing, and reached.
        let code = unsafe { (call.f)(&mut milliseconds, from, last) };
        self.check(call.name, code)?;
        Ok(f64::from(milliseconds) / 1e3)
    }

    /// Captures launches into a graph; `None` if the library says that it has no such thing.
    pub(super) fn graph_of(&mut self, launches: &[KernelLaunch<'_>]) -> Result<Option<Graph>, DeviceError> {
        self.clear_graphs()?;
        let (begin, end, instantiate) = (self.api().capture_begin, self.api().capture_end, self.api().graph_instantiate);
        // SAFETY: our stream.
        let code = unsafe { (begin.f)(self.stream, api::CAPTURE_THREAD_LOCAL) };
        if unsupported(code) {
            return Ok(None);
        }
        self.check(begin.name, code)?;
        // The first follows whatever was enqueued before the graph: copies, weights that are brought into their layout.
        let launched = launches.iter().enumerate().try_for_each(|(i, launch)| self.submit(*launch, i > 0));
        // Ended in any case: a stream that captures can do nothing else.
        let mut graph = null_mut();
        // SAFETY: a valid place for a handle; it stays null where there is no graph.
        let ended = unsafe { (end.f)(self.stream, &mut graph) };
        let mut exec = null_mut();
        let made = match (launched, ended) {
            (Err(error), _) => Err(error),
            (Ok(()), SUCCESS) => {
                // SAFETY: a valid place for a handle, and a graph.
                let code = unsafe { (instantiate.f)(&mut exec, graph, 0) };
                if unsupported(code) { Ok(false) } else { self.check(instantiate.name, code).map(|()| true) }
            }
            (Ok(()), code) if unsupported(code) => Ok(false),
            (Ok(()), code) => self.check(end.name, code).map(|()| false),
        };
        if !graph.is_null() {
            // SAFETY: ours, destroyed once; what was made of it stands by itself. A failure would change nothing for us.
            unsafe { (self.api().graph_destroy.f)(graph) };
        }
        Ok(if made? { Some(Graph(self.graphs.add(exec))) } else { None })
    }

    /// Enqueues a graph.
    pub(super) fn enqueue(&self, graph: &Graph) -> Result<(), DeviceError> {
        let call = self.api().graph_launch;
        let Some(exec) = self.graphs.get(&graph.0) else {
            return Err(DeviceError::Internal(format!("a graph that isn't of {}", self.who)));
        };
        // SAFETY: an executable graph and our stream.
        let code = unsafe { (call.f)(exec, self.stream) };
        self.check(call.name, code)
    }

    /// Destroys graphs that nobody holds any more.
    fn clear_graphs(&mut self) -> Result<(), DeviceError> {
        let dropped = self.graphs.take_returned(null_mut());
        if dropped.is_empty() {
            return Ok(());
        }
        // Their last launch may be under way.
        let synced = self.sync();
        for exec in dropped {
            // SAFETY: ours, and taken out of the table, so destroyed once.
            unsafe { (self.api().graph_exec_destroy.f)(exec) };
        }
        synced
    }
}

fn unsupported(code: c_int) -> bool {
    matches!(code, NOT_SUPPORTED | CAPTURE_UNSUPPORTED)
}

/// Releases all of it; called once, when the stream was waited for.
///
/// # Safety
/// Nothing of it is used any more.
pub(super) unsafe fn release(api: &Api, graphs: &[Handle], events: &[Handle], mapped: &[Mapped]) {
    // SAFETY: the caller's. What is null has been destroyed before.
    unsafe {
        for &graph in graphs.iter().filter(|g| !g.is_null()) {
            (api.graph_exec_destroy.f)(graph);
        }
        for &event in events {
            (api.event_destroy.f)(event);
        }
        for mapped in mapped {
            (api.host_free.f)(mapped.host.cast());
        }
    }
}
