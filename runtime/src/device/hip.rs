//! Device `hip:N`: AMD GPUs through libamdhip64, opened at run time, so that machines without it run everything else.

pub(super) mod api;

use super::DeviceError;
use super::gpu::api::{Api, HOST_MAPPED, Handle, NO_BINARY_FOR_GPU, SUCCESS, Vendor};
use super::gpu::runtime::{GpuRuntime, VendorApi};
use super::gpu::{GpuDevice, GpuDriver, Platform};
use api::{HipApi, MULTIPROCESSORS, Properties, VENDOR, WARP_SIZE};
use std::ffi::{c_int, c_uint};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::rc::Rc;

/// The opened and initialised HIP runtime.
pub type HipRuntime = GpuRuntime<HipApi>;

impl HipRuntime {
    /// File name of the library.
    pub fn library(&self) -> &Path {
        &self.api.shared.path
    }

    /// Version of the runtime, as HIP numbers it (50221153 is 5.2.21153).
    ///
    /// # Errors
    /// [`DeviceError::Call`].
    pub fn version(&self) -> Result<u32, DeviceError> {
        let mut version = 0;
        let call = self.api.runtime_version;
        // SAFETY: a valid place for an int.
        let code = unsafe { (call.f)(&mut version) };
        self.api.shared.check("hip", call.name, code)?;
        Ok(version.max(0) as u32)
    }
}

/// The library that [`HipRuntime::from_env`] would use, whether there is a GPU or not: its file name and, if it tells, its version
/// (numbered as for [`HipRuntime::version`]).
///
/// # Errors
/// [`DeviceError::Missing`] without a library.
pub fn installed() -> Result<(PathBuf, Option<u32>), DeviceError> {
    let api = HipApi::open(VENDOR.library_from_env().as_deref())?;
    let mut version = 0;
    // SAFETY: a valid place for an int.
    let code = unsafe { (api.runtime_version.f)(&mut version) };
    Ok((api.shared.path.clone(), u32::try_from(version).ok().filter(|&v| v > 0 && code == SUCCESS)))
}

impl VendorApi for HipApi {
    const VENDOR: Vendor = VENDOR;

    fn open(library: Option<&Path>) -> Result<Self, DeviceError> {
        Self::open(library)
    }
    fn shared(&self) -> &Api {
        &self.shared
    }
    fn device(&self, index: c_int) -> Result<GpuDevice, DeviceError> {
        let who = format!("hip:{index}");
        let mut properties = Properties::new();
        // SAFETY: larger than the structure of any version.
        let code = unsafe { (self.properties.f)(&mut *properties, index) };
        self.shared.check(&who, self.properties.name, code)?;
        let full = properties.arch(self.properties_abi);
        // `gfx90a:sramecc+:xnack-`: our code objects run with any of these settings.
        let arch = full.split(':').next().unwrap_or_default();
        if !arch.starts_with("gfx") {
            return Err(DeviceError::Internal(format!("{who} names its architecture {full:?}")));
        }
        Ok(GpuDevice {
            platform: VENDOR.family.prefix(),
            index: index as u32,
            name: properties.name(),
            arch: arch.to_owned(),
            wave: self.shared.attribute_of(&who, WARP_SIZE, index)?,
            multiprocessors: self.shared.attribute_of(&who, MULTIPROCESSORS, index)?,
        })
    }
    /// By what the machine shows.
    fn no_gpu() -> DeviceError {
        let kfd = Path::new("/dev/kfd");
        let advice = match OpenOptions::new().read(true).write(true).open(kfd) {
            _ if !kfd.exists() => {
                "there is no /dev/kfd: either this machine has no AMD GPU, or the kernel module amdgpu isn't loaded (in a container: \
                 pass --device /dev/kfd --device /dev/dri); --device cpu works everywhere"
            }
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
                "/dev/kfd may not be opened: sudo usermod -aG render,video $USER, then log in again"
            }
            _ => "/dev/kfd is there, but the HIP runtime knows none of its GPUs: see rocminfo, and update the HIP runtime",
        };
        DeviceError::Missing { what: "no AMD GPU found".to_owned(), advice: advice.to_owned() }
    }
}

/// HIP's own way.
pub struct Hip(Rc<HipApi>);

impl Platform for Hip {
    /// `HIP_LAUNCH_PARAM_END`.
    const PARAM_END: usize = 3;
    /// With `hipHostMallocCoherent`: what is mapped is so by default, unless the environment says otherwise.
    const HOST_MAPPED: c_uint = HOST_MAPPED | 0x4000_0000;

    fn api(&self) -> &Api {
        &self.0.shared
    }
    fn select(&self, device: &GpuDevice) -> Result<(), DeviceError> {
        let call = self.0.set_device;
        // SAFETY: no preconditions.
        self.api().check(&device.to_string(), call.name, unsafe { (call.f)(device.index as c_int) })
    }
    fn load(&self, device: &GpuDevice, module: &[u8]) -> Result<Handle, DeviceError> {
        let call = self.0.module_load;
        let mut handle = null_mut();
        // SAFETY: an ELF, whose header tells HIP its length.
        let code = unsafe { (call.f)(&mut handle, module.as_ptr().cast()) };
        if code == NO_BINARY_FOR_GPU {
            let has = hipc_codeobj::CodeObject::parse(module).map_or_else(|e| e.to_string(), |c| c.target);
            return Err(DeviceError::NoCode { device: device.arch.clone(), has });
        }
        self.api().check(&device.to_string(), call.name, code)?;
        Ok(handle)
    }
}

/// One AMD GPU, one stream.
pub type HipDriver = GpuDriver<Hip>;

impl HipDriver {
    /// Prepares GPU number `index`.
    ///
    /// # Errors
    /// [`DeviceError::Missing`] if there is none of this number, [`DeviceError::Call`] for whatever the runtime reports.
    pub fn new(runtime: &HipRuntime, index: u32) -> Result<Self, DeviceError> {
        Self::on(Hip(Rc::clone(&runtime.api)), runtime.find(index)?)
    }
}
