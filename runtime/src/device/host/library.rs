//! A unit as a shared object in this process.

use super::{ModuleFile, Order, memory};
use crate::device::{DeviceError, DevicePtr, Driver, KernelLaunch};
use libloading::Library;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ffi::{CStr, c_char, c_int, c_void};

type Run = unsafe extern "C" fn(*mut c_void, u32, u32, u32, u32, *const c_void, usize, u32) -> c_int;
type Message = unsafe extern "C" fn() -> *const c_char;

/// Alignment of allocations.
const ALIGN: usize = 256;

struct Unit {
    run: Run,
    message: Message,
    // Behind what points into it.
    _library: Library,
}

/// Executes kernels of a shared object, in this process and on this thread. A launch is over when it returns.
#[derive(Default)]
pub struct HostLibrary {
    units: Vec<Unit>,
    /// By handle: whose it is, and its address.
    kernels: Vec<(usize, usize)>,
    order: Order,
    blocks: Vec<(DevicePtr, Layout)>,
}

impl std::fmt::Debug for HostLibrary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostLibrary").field("order", &self.order).field("blocks", &self.blocks).finish_non_exhaustive()
    }
}

impl HostLibrary {
    /// A device without a unit yet; workgroups will run in this order.
    pub fn new(order: Order) -> Self {
        Self { units: Vec::new(), kernels: Vec::new(), order, blocks: Vec::new() }
    }

    fn internal(&self, what: String) -> DeviceError {
        DeviceError::Internal(format!("{}: {what}", self.describe()))
    }

    /// Whether these bytes lie in one of our blocks.
    fn check(&self, at: DevicePtr, len: usize) -> Result<(), DeviceError> {
        let inside = |&(base, layout): &(DevicePtr, Layout)| {
            at.checked_sub(base).and_then(|offset| offset.checked_add(len as u64)).is_some_and(|end| end <= layout.size() as u64)
        };
        if self.blocks.iter().any(inside) {
            Ok(())
        } else {
            Err(self.internal(format!("{len} bytes at {at:#x} aren't allocated")))
        }
    }
}

impl Driver for HostLibrary {
    fn describe(&self) -> String {
        "host (x86-64, in process)".to_owned()
    }
    fn arch(&self) -> &str {
        "host"
    }
    fn memory(&self) -> Result<(u64, u64), DeviceError> {
        memory()
    }
    fn allocated(&self) -> u64 {
        self.blocks.iter().map(|(_, layout)| layout.size() as u64).sum()
    }
    fn alloc(&mut self, bytes: u64) -> Result<DevicePtr, DeviceError> {
        let layout = usize::try_from(bytes.max(1)).ok().and_then(|n| Layout::from_size_align(n, ALIGN).ok());
        // SAFETY: the layout isn't of size zero.
        let block = layout.map(|l| (unsafe { alloc_zeroed(l) }, l)).filter(|(p, _)| !p.is_null());
        let Some((pointer, layout)) = block else {
            let free = memory().map_or(0, |(free, _)| free);
            return Err(DeviceError::OutOfMemory { device: self.describe(), bytes, what: "a buffer".to_owned(), free });
        };
        let at = pointer.expose_provenance() as DevicePtr;
        self.blocks.push((at, layout));
        Ok(at)
    }
    fn upload(&mut self, to: DevicePtr, bytes: &[u8]) -> Result<(), DeviceError> {
        self.check(to, bytes.len())?;
        // SAFETY: the range is inside one of our blocks, which nobody has a reference to.
        unsafe { std::ptr::with_exposed_provenance_mut::<u8>(to as usize).copy_from(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }
    fn download(&mut self, from: DevicePtr, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.check(from, bytes.len())?;
        // SAFETY: the range is inside one of our blocks; blocks are initialised by zeroing.
        unsafe { std::ptr::with_exposed_provenance::<u8>(from as usize).copy_to(bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }
    fn load(&mut self, module: &[u8], kernels: &[&str]) -> Result<Vec<u64>, DeviceError> {
        let file = ModuleFile::write(module)?;
        let failed = |e: libloading::Error| DeviceError::Internal(format!("the unit can't be opened: {e}"));
        // SAFETY: the module is a unit that our compiler made; its constructors do nothing.
        let library = unsafe { Library::new(file.path()) }.map_err(failed)?;
        // SAFETY: the type is that of the function in host.h.
        let run = *unsafe { library.get::<Run>(b"hipc_host_run\0") }.map_err(failed)?;
        // SAFETY: the type is that of the function in host.h.
        let message = *unsafe { library.get::<Message>(b"hipc_host_error\0") }.map_err(failed)?;
        let mut found = Vec::new();
        for &name in kernels {
            // SAFETY: only the address is taken.
            let symbol = unsafe { library.get::<*mut c_void>(name) };
            let symbol = symbol.map_err(|_| self.internal(format!("the unit has no kernel {name}")))?;
            // SAFETY: the kernel stays loaded as long as `Unit`.
            found.push((self.units.len(), unsafe { symbol.try_as_raw_ptr() }.map_or(0, |p| p.expose_provenance())));
        }
        self.units.push(Unit { run, message, _library: library });
        let first = self.kernels.len() as u64;
        self.kernels.append(&mut found);
        Ok((first..self.kernels.len() as u64).collect())
    }
    fn launch(&mut self, launch: KernelLaunch<'_>) -> Result<(), DeviceError> {
        let KernelLaunch { kernel, grid, threads, kernargs, .. } = launch;
        let known = usize::try_from(kernel).ok().and_then(|k| self.kernels.get(k));
        let found = known.and_then(|&(unit, address)| Some((self.units.get(unit)?, address)));
        let Some((unit, address)) = found else {
            return Err(self.internal(format!("kernel {kernel} isn't loaded")));
        };
        let [x, y, z] = grid;
        // SAFETY: the kernel is of this unit, and takes as many pointers as its plan says, all into our blocks; what it does
        // with them is what this device is there to find out.
        let status = unsafe {
            let kernel = std::ptr::with_exposed_provenance_mut(address);
            (unit.run)(kernel, x, y, z, threads, kernargs.as_ptr().cast(), kernargs.len(), self.order.code())
        };
        if status == 0 {
            return Ok(());
        }
        // SAFETY: a C string in the unit's static memory, not written before the next launch.
        let what = unsafe { CStr::from_ptr((unit.message)()) }.to_string_lossy().into_owned();
        Err(DeviceError::Fault { device: self.describe(), what })
    }
    fn sync(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }
}

impl Drop for HostLibrary {
    fn drop(&mut self) {
        for &(at, layout) in &self.blocks {
            // SAFETY: allocated with this layout; no launch is running.
            unsafe { dealloc(std::ptr::with_exposed_provenance_mut(at as usize), layout) };
        }
    }
}
