//! Device `cuda:N`, a test bench: the same plans and kernels as PTX on NVIDIA GPUs, through the driver's libcuda, opened at run
//! time. It shows on a real GPU what `hip:N` does; nobody is meant to need it otherwise, and `auto` never takes it.

mod api;

use super::DeviceError;
use super::gpu::api::{Api, HOST_MAPPED, Handle, SUCCESS, Vendor};
use super::gpu::runtime::{GpuRuntime, VendorApi};
use super::gpu::{GpuDevice, GpuDriver, Platform, RawLaunch};
use api::{
    CAPABILITY_MAJOR, CAPABILITY_MINOR, CudaApi, ERROR_LOG, ERROR_LOG_BYTES, LaunchAttribute, LaunchConfig, MULTIPROCESSORS,
    NO_JIT_COMPILER, UNSUPPORTED_PTX, VENDOR, WARP_SIZE,
};
use std::ffi::{CStr, c_char, c_int, c_uint};
use std::path::Path;
use std::ptr::{null_mut, without_provenance_mut};
use std::rc::Rc;

/// Room for what the driver's compiler says about code that it refuses.
const LOG_BYTES: usize = 8192;

/// The opened and initialised driver.
pub type CudaRuntime = GpuRuntime<CudaApi>;

/// The driver's handle of a GPU, which needn't be its number.
fn handle(api: &CudaApi, who: &str, index: c_int) -> Result<c_int, DeviceError> {
    let mut device = 0;
    // SAFETY: a valid place for an int.
    let code = unsafe { (api.device_get.f)(&mut device, index) };
    api.shared.check(who, api.device_get.name, code).map(|()| device)
}

impl VendorApi for CudaApi {
    const VENDOR: Vendor = VENDOR;

    fn open(library: Option<&Path>) -> Result<Self, DeviceError> {
        Self::open(library)
    }
    fn shared(&self) -> &Api {
        &self.shared
    }
    fn device(&self, index: c_int) -> Result<GpuDevice, DeviceError> {
        let who = format!("cuda:{index}");
        let handle = handle(self, &who, index)?;
        let mut name: [c_char; 256] = [0; 256];
        // SAFETY: room for one less than there is, so that a zero ends the name.
        let code = unsafe { (self.device_name.f)(name.as_mut_ptr(), 255, handle) };
        self.shared.check(&who, self.device_name.name, code)?;
        // SAFETY: ends with a zero.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
        let attribute = |which| self.shared.attribute_of(&who, which, handle);
        Ok(GpuDevice {
            platform: VENDOR.family.prefix(),
            index: index as u32,
            name,
            arch: format!("sm_{}{}", attribute(CAPABILITY_MAJOR)?, attribute(CAPABILITY_MINOR)?),
            wave: attribute(WARP_SIZE)?,
            multiprocessors: attribute(MULTIPROCESSORS)?,
        })
    }
    fn no_gpu() -> DeviceError {
        DeviceError::Missing {
            what: "no NVIDIA GPU found".to_owned(),
            advice: "cuda:N is a test bench for kernels; --device cpu works everywhere".to_owned(),
        }
    }
}

/// In modules whose kernels wait by themselves for what earlier launches wrote (`follow` of `hipc/platform.h`).
const FOLLOWS: &CStr = c"hipc_follows";

/// CUDA's own way: a retained context.
pub struct Cuda {
    api: Rc<CudaApi>,
    device: c_int,
    context: Handle,
}

impl Cuda {
    fn retain(api: Rc<CudaApi>, device: &GpuDevice) -> Result<Self, DeviceError> {
        let who = device.to_string();
        let device = handle(&api, &who, device.index as c_int)?;
        let mut context = null_mut();
        // SAFETY: a valid place for a handle.
        let code = unsafe { (api.context_retain.f)(&mut context, device) };
        api.shared.check(&who, api.context_retain.name, code)?;
        Ok(Self { api, device, context })
    }
}

impl Platform for Cuda {
    /// `CU_LAUNCH_PARAM_END`.
    const PARAM_END: usize = 0;
    const HOST_MAPPED: c_uint = HOST_MAPPED;

    fn api(&self) -> &Api {
        &self.api.shared
    }
    fn select(&self, device: &GpuDevice) -> Result<(), DeviceError> {
        let call = self.api.context_set;
        // SAFETY: a context that lives as long as we do.
        self.api().check(&device.to_string(), call.name, unsafe { (call.f)(self.context) })
    }
    fn load(&self, device: &GpuDevice, module: &[u8]) -> Result<Handle, DeviceError> {
        let (who, call) = (device.to_string(), self.api.module_load);
        // PTX is text that ends with a zero; a cubin, which knows its length, is none the worse for it.
        let image = [module, &[0]].concat();
        let mut log = vec![0_u8; LOG_BYTES];
        let mut options = [ERROR_LOG, ERROR_LOG_BYTES];
        let mut values = [log.as_mut_ptr().cast(), without_provenance_mut(LOG_BYTES - 1)];
        let mut handle = null_mut();
        // SAFETY: an image that ends where it says, and a buffer of the stated size that outlives the call.
        let code = unsafe { (call.f)(&mut handle, image.as_ptr().cast(), 2, options.as_mut_ptr(), values.as_mut_ptr()) };
        if matches!(code, NO_JIT_COMPILER | UNSUPPORTED_PTX) {
            let what = format!("the driver of {who} can't compile the bundle's PTX ({code})");
            return Err(DeviceError::Missing { what, advice: VENDOR.update.to_owned() });
        }
        let said = log.split(|&b| b == 0).next().unwrap_or_default();
        self.api().check(&who, call.name, code).map_err(|error| match String::from_utf8_lossy(said).trim() {
            "" => error,
            said => DeviceError::Internal(format!("{error}:\n{said}\n")),
        })?;
        Ok(handle)
    }
    fn overlaps(&self, module: Handle) -> bool {
        let (mut at, mut bytes) = (null_mut(), 0);
        // SAFETY: valid places for both, a loaded module, a C string.
        unsafe { (self.api.module_global.f)(&mut at, &mut bytes, module, FOLLOWS.as_ptr()) == SUCCESS }
    }
    fn launch_overlapping(&self, launch: &RawLaunch) -> Option<(&'static str, c_int)> {
        let config = LaunchConfig {
            grid: launch.grid,
            block: [launch.threads, 1, 1],
            shared_bytes: 0,
            stream: launch.stream,
            attributes: &LaunchAttribute::OVERLAPS,
            attribute_count: 1,
        };
        let call = self.api.launch_with;
        // SAFETY: a resolved function and its arguments, which are copied before the call returns.
        Some((call.name, unsafe { (call.f)(&config, launch.function, null_mut(), launch.extra) }))
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // SAFETY: retained once; whatever lived in it is gone. Nobody is left to be told what fails here.
        unsafe { (self.api.context_release.f)(self.device) };
    }
}

/// One NVIDIA GPU, one stream.
pub type CudaDriver = GpuDriver<Cuda>;

impl CudaDriver {
    /// Prepares GPU number `index`.
    ///
    /// # Errors
    /// [`DeviceError::Missing`] if there is none of this number, [`DeviceError::Call`] for whatever the driver reports.
    pub fn new(runtime: &CudaRuntime, index: u32) -> Result<Self, DeviceError> {
        let device = runtime.find(index)?;
        Self::on(Cuda::retain(Rc::clone(&runtime.api), &device)?, device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn refused(library: &Path) -> (String, String) {
        match CudaRuntime::open(Some(library)) {
            Err(DeviceError::Missing { what, advice }) => (what, advice),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_missing_or_foreign_library_is_told_with_advice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libcuda.so.1");
        let (what, advice) = refused(&path);
        assert!(what.contains("HIPC_CUDA_LIBRARY") && what.contains("libcuda.so.1"), "{what}");
        assert!(advice.contains("unset the variable"), "{advice}");
        fs::write(&path, "no library").unwrap();
        let (what, advice) = refused(&path);
        assert!(what.contains("can't be used"), "{what}");
        assert!(advice.contains("update NVIDIA's driver"), "{advice}");
        // Any shared object that isn't the driver: the C library's, by the name that the linker knows.
        let (what, _) = refused(Path::new("libc.so.6"));
        assert!(what.contains("it lacks cuGetErrorName"), "{what}");
    }
}
