//! A vendor's library, opened and initialised, and the GPUs that it lists.

use super::GpuDevice;
use super::api::{Api, Vendor};
use crate::device::DeviceError;
use std::ffi::c_int;
use std::fmt;
use std::path::Path;
use std::rc::Rc;

/// The calls of one vendor's library.
pub trait VendorApi: Sized {
    /// What is known of it beforehand.
    const VENDOR: Vendor;

    /// Opens the library: this one, or the newest of the usual names.
    fn open(library: Option<&Path>) -> Result<Self, DeviceError>;
    /// The calls that all vendors have.
    fn shared(&self) -> &Api;
    /// Describes GPU number `index`.
    fn device(&self, index: c_int) -> Result<GpuDevice, DeviceError>;
    /// What to say when there's no GPU.
    fn no_gpu() -> DeviceError;
}

/// An opened and initialised library.
pub struct GpuRuntime<A> {
    pub(in crate::device) api: Rc<A>,
    devices: Vec<GpuDevice>,
}

impl<A: VendorApi> fmt::Debug for GpuRuntime<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GpuRuntime").field("path", &self.api.shared().path).field("devices", &self.devices).finish()
    }
}

impl<A: VendorApi> GpuRuntime<A> {
    /// Opens the library that the environment names (`HIPC_HIP_LIBRARY`, `HIPC_CUDA_LIBRARY`), else the newest installed, and
    /// lists the GPUs.
    ///
    /// # Errors
    /// As [`GpuRuntime::open`].
    pub fn from_env() -> Result<Self, DeviceError> {
        Self::open(A::VENDOR.library_from_env().as_deref())
    }

    /// Opens this library, or the newest installed, and lists the GPUs.
    ///
    /// # Errors
    /// [`DeviceError::Missing`] without a library or without a GPU, with what to do; [`DeviceError::Call`] for whatever else the
    /// library reports.
    pub fn open(library: Option<&Path>) -> Result<Self, DeviceError> {
        let api = Rc::new(A::open(library)?);
        let count = api.shared().count()?.ok_or_else(A::no_gpu)?;
        let devices = (0..count).map(|i| api.device(i)).collect::<Result<_, _>>()?;
        Ok(Self { api, devices })
    }

    /// The GPUs.
    pub fn devices(&self) -> &[GpuDevice] {
        &self.devices
    }

    /// GPU number `index`.
    ///
    /// # Errors
    /// [`DeviceError::Missing`] if there is none of this number.
    pub fn find(&self, index: u32) -> Result<GpuDevice, DeviceError> {
        self.devices.get(index as usize).cloned().ok_or_else(|| {
            let list: Vec<String> = self.devices.iter().map(GpuDevice::to_string).collect();
            DeviceError::Missing {
                what: format!("there is no {}:{index}", A::VENDOR.family.prefix()),
                advice: format!("use one of: {}", list.join(", ")),
            }
        })
    }
}
