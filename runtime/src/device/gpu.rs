//! What `hip:N` and `cuda:N` share, which is nearly everything: one stream of work, pinned memory that copies go through, loaded
//! kernels; graphs, events and memory that both sides see are in `stream`, the way of copies in `staging`. Libraries are opened by
//! `runtime`. How a GPU is described, taken and given a module is each vendor's own.

pub(super) mod api;
pub(super) mod runtime;
#[cfg(test)]
pub(super) mod signatures;
mod staging;
mod stream;

use super::slots::Slots;
use super::{DeviceError, DevicePtr, Driver, Graph, KernelLaunch, Mark};
use api::{Api, Device, Handle, PARAM_POINTER, PARAM_SIZE};
use staging::Staging;
use std::ffi::{CString, c_int, c_uint, c_void};
use std::ptr::{null_mut, with_exposed_provenance_mut, without_provenance_mut};

/// A GPU of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuDevice {
    /// `hip` or `cuda`.
    pub platform: &'static str,
    /// `N` of `hip:N`.
    pub index: u32,
    /// Marketing name; some drivers leave it empty.
    pub name: String,
    /// `gfx1100`, `sm_90`.
    pub arch: String,
    /// Lanes per wave.
    pub wave: u32,
    /// Compute units (workgroup processors on RDNA).
    pub multiprocessors: u32,
}

impl std::fmt::Display for GpuDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { platform, index, name, arch, .. } = self;
        if name.is_empty() { write!(f, "{platform}:{index} {arch}") } else { write!(f, "{platform}:{index} {name} ({arch})") }
    }
}

/// What a vendor's library does its own way.
pub trait Platform {
    /// Ends the list of a launch's extra parameters.
    const PARAM_END: usize;
    /// Pinned memory that kernels see, and whose writes this side sees while they run.
    const HOST_MAPPED: c_uint;

    /// The shared calls.
    fn api(&self) -> &Api;
    /// Makes the GPU the calling thread's.
    fn select(&self, device: &GpuDevice) -> Result<(), DeviceError>;
    /// Loads a module onto it.
    fn load(&self, device: &GpuDevice, module: &[u8]) -> Result<Handle, DeviceError>;

    /// Whether a module's kernels may begin before the launch before them has ended.
    fn overlaps(&self, _module: Handle) -> bool {
        false
    }
    /// Launches such a kernel so; the call and its code. `None` where there is no such thing.
    fn launch_overlapping(&self, _launch: &RawLaunch) -> Option<(&'static str, c_int)> {
        None
    }
}

/// A launch as the libraries take it.
pub struct RawLaunch {
    pub(super) function: Handle,
    pub(super) grid: [u32; 3],
    /// Threads of a workgroup.
    pub(super) threads: u32,
    pub(super) stream: Handle,
    /// The kernel's arguments: tagged pairs.
    pub(super) extra: *mut *mut c_void,
}

/// A loaded kernel.
#[derive(Clone, Copy)]
struct Function {
    handle: Handle,
    overlaps: bool,
}

/// One GPU, one stream.
pub struct GpuDriver<P: Platform> {
    platform: P,
    who: String,
    device: GpuDevice,
    stream: Handle,
    staging: Staging,
    modules: Vec<Handle>,
    functions: Vec<Function>,
    blocks: Vec<Device>,
    allocated: u64,
    mapped: Vec<stream::Mapped>,
    events: Slots<Handle>,
    graphs: Slots<Handle>,
}

impl<P: Platform> std::fmt::Debug for GpuDriver<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GpuDriver").field("device", &self.device).finish_non_exhaustive()
    }
}

impl<P: Platform> GpuDriver<P> {
    /// Prepares a GPU.
    pub(super) fn on(platform: P, device: GpuDevice) -> Result<Self, DeviceError> {
        platform.select(&device)?;
        let mut driver = Self {
            platform,
            who: device.to_string(),
            device,
            stream: null_mut(),
            staging: Staging::none(),
            modules: Vec::new(),
            functions: Vec::new(),
            blocks: Vec::new(),
            allocated: 0,
            mapped: Vec::new(),
            events: Slots::default(),
            graphs: Slots::default(),
        };
        let create = driver.api().stream_create;
        // SAFETY: a valid place for a handle.
        let code = unsafe { (create.f)(&mut driver.stream, api::NON_BLOCKING) };
        driver.check(create.name, code)?;
        driver.allocate_staging()?;
        Ok(driver)
    }

    fn api(&self) -> &Api {
        self.platform.api()
    }

    /// Enqueues a launch; one of a graph may begin before the one before it has ended, if its kernel was made for that.
    fn submit(&self, launch: KernelLaunch<'_>, overlap: bool) -> Result<(), DeviceError> {
        let KernelLaunch { kernel, grid, threads, kernargs, .. } = launch;
        let Some(&function) = usize::try_from(kernel).ok().and_then(|k| self.functions.get(k)) else {
            return Err(DeviceError::Internal(format!("kernel {kernel} isn't loaded")));
        };
        let mut size = kernargs.len();
        let tag = without_provenance_mut::<c_void>;
        let mut extra =
            [tag(PARAM_POINTER), kernargs.as_ptr().cast_mut().cast(), tag(PARAM_SIZE), (&raw mut size).cast(), tag(P::PARAM_END)];
        let extra = extra.as_mut_ptr();
        if overlap && function.overlaps {
            let raw = RawLaunch { function: function.handle, grid, threads, stream: self.stream, extra };
            if let Some((name, code)) = self.platform.launch_overlapping(&raw) {
                return self.check(name, code);
            }
        }
        let [x, y, z] = grid;
        let call = self.api().launch;
        // SAFETY: a resolved function; the kernel arguments are copied before the call returns.
        let code = unsafe { (call.f)(function.handle, x, y, z, threads, 1, 1, 0, self.stream, null_mut(), extra) };
        self.check(call.name, code)
    }

    fn check(&self, call: &str, code: c_int) -> Result<(), DeviceError> {
        self.api().check(&self.who, call, code)
    }
}

impl<P: Platform> Driver for GpuDriver<P> {
    fn describe(&self) -> String {
        self.who.clone()
    }
    fn arch(&self) -> &str {
        &self.device.arch
    }
    fn memory(&self) -> Result<(u64, u64), DeviceError> {
        let call = self.api().mem_info;
        let (mut free, mut total) = (0, 0);
        // SAFETY: valid places for two numbers.
        let code = unsafe { (call.f)(&mut free, &mut total) };
        self.check(call.name, code)?;
        Ok((free as u64, total as u64))
    }
    fn allocated(&self) -> u64 {
        self.allocated
    }
    fn alloc(&mut self, bytes: u64) -> Result<DevicePtr, DeviceError> {
        let call = self.api().malloc;
        let fill = self.api().memset_async;
        let mut pointer = null_mut();
        let size = usize::try_from(bytes).unwrap_or(usize::MAX);
        // SAFETY: a valid place for a pointer.
        let code = unsafe { (call.f)(&mut pointer, size) };
        if code == api::OUT_OF_MEMORY {
            let (free, _) = self.memory()?;
            return Err(DeviceError::OutOfMemory { device: self.who.clone(), bytes, what: "a buffer".to_owned(), free });
        }
        self.check(call.name, code)?;
        self.blocks.push(pointer);
        self.allocated += bytes;
        // SAFETY: just allocated with this size.
        let code = unsafe { (fill.f)(pointer, 0, size, self.stream) };
        self.check(fill.name, code)?;
        Ok(pointer.expose_provenance() as DevicePtr)
    }
    fn alloc_pinned(&mut self, bytes: u64) -> Result<DevicePtr, DeviceError> {
        self.map(bytes)
    }
    fn receive(&mut self, from: DevicePtr, number: i32) -> Result<i32, DeviceError> {
        self.poll(from, number)
    }
    fn upload(&mut self, to: DevicePtr, bytes: &[u8]) -> Result<(), DeviceError> {
        let call = self.api().copy_to_device;
        let (mut to, mut rest) = (to as usize, bytes);
        while !rest.is_empty() {
            let (place, n) = self.stage_from(rest)?;
            // SAFETY: the staging memory lives as long as the stream, and isn't written again before the device has passed the copy.
            let code = unsafe { (call.f)(with_exposed_provenance_mut(to), place.cast(), n, self.stream) };
            self.check(call.name, code)?;
            (to, rest) = (to + n, &rest[n..]);
        }
        Ok(())
    }
    fn download(&mut self, from: DevicePtr, bytes: &mut [u8]) -> Result<(), DeviceError> {
        let call = self.api().copy_to_host;
        let (mut from, mut rest) = (from as usize, bytes);
        while !rest.is_empty() {
            let (place, n) = self.stage(rest.len())?;
            let (piece, behind) = rest.split_at_mut(n);
            // SAFETY: the staging memory lives as long as the stream; this part has no other use.
            let code = unsafe { (call.f)(place.cast(), with_exposed_provenance_mut(from), n, self.stream) };
            self.check(call.name, code)?;
            self.sync()?;
            // SAFETY: the copy is over; a slice can't overlap our own memory.
            unsafe { piece.as_mut_ptr().copy_from_nonoverlapping(place, n) };
            (from, rest) = (from + n, behind);
        }
        Ok(())
    }
    fn load(&mut self, module: &[u8], kernels: &[&str]) -> Result<Vec<u64>, DeviceError> {
        let handle = self.platform.load(&self.device, module)?;
        self.modules.push(handle);
        let overlaps = self.platform.overlaps(handle);
        let call = self.api().module_function;
        let first = self.functions.len() as u64;
        for name in kernels {
            let symbol = CString::new(*name).map_err(|_| DeviceError::Internal(format!("kernel name {name:?}")))?;
            let mut function = null_mut();
            // SAFETY: a loaded module and a C string.
            let code = unsafe { (call.f)(&mut function, handle, symbol.as_ptr()) };
            self.check(&format!("{}({name})", call.name), code)?;
            self.functions.push(Function { handle: function, overlaps });
        }
        Ok((first..self.functions.len() as u64).collect())
    }
    fn launch(&mut self, launch: KernelLaunch<'_>) -> Result<(), DeviceError> {
        self.submit(launch, false)
    }
    fn capture(&mut self, launches: &[KernelLaunch<'_>]) -> Result<Option<Graph>, DeviceError> {
        self.graph_of(launches)
    }
    fn replay(&mut self, graph: &Graph) -> Result<(), DeviceError> {
        self.enqueue(graph)
    }
    fn works_ahead(&self) -> bool {
        true
    }
    fn mark(&mut self) -> Result<Mark, DeviceError> {
        self.event()
    }
    fn wait(&mut self, mark: &Mark) -> Result<(), DeviceError> {
        self.reach(mark)
    }
    fn elapsed(&mut self, from: &Mark, to: &Mark) -> Result<f64, DeviceError> {
        self.between(from, to)
    }
    fn sync(&mut self) -> Result<(), DeviceError> {
        let call = self.api().stream_synchronize;
        // SAFETY: our stream.
        let code = unsafe { (call.f)(self.stream) };
        self.check(call.name, code)?;
        self.staging.clear();
        Ok(())
    }
}

impl<P: Platform> Drop for GpuDriver<P> {
    fn drop(&mut self) {
        // Nobody is left to be told what fails here.
        let api = self.platform.api();
        // SAFETY: each is ours, freed once, after waiting for the work that uses it.
        unsafe {
            (api.stream_synchronize.f)(self.stream);
            stream::release(api, self.graphs.all(), self.events.all(), &self.mapped);
            for &block in &self.blocks {
                (api.free.f)(block);
            }
            for &module in &self.modules {
                (api.module_unload.f)(module);
            }
            self.staging.release(api);
            if !self.stream.is_null() {
                (api.stream_destroy.f)(self.stream);
            }
        }
    }
}
