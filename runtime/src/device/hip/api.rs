//! What only HIP has. Signatures and numbers are those of `hip_runtime_api.h` (5.2 to 7); the tests compile a stand-in library
//! against that header.

use crate::device::DeviceError;
use crate::device::gpu::api::{Api, Call, Family, Handle, Vendor};
use std::ffi::{c_int, c_void};
use std::path::Path;

/// `hipDeviceAttributeMultiprocessorCount`.
pub(super) const MULTIPROCESSORS: c_int = 63;
/// `hipDeviceAttributeWarpSize`.
pub(super) const WARP_SIZE: c_int = 87;

/// The unversioned name exists only with development packages.
pub(super) const VENDOR: Vendor = Vendor {
    family: Family::Hip,
    names: &["libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5"],
    folder: "/opt/rocm/lib",
    variable: "HIPC_HIP_LIBRARY",
    title: "AMD's HIP runtime",
    install: "install it: libamdhip64-5 (Debian, Ubuntu), rocm-hip (Fedora), hip-runtime-amd (Arch, AMD's own packages)",
    update: "update the HIP runtime (5.2 or later)",
};

/// Room for `hipDeviceProp_t` of any version (792 bytes in HIP 5, 1472 since 6).
#[repr(C, align(16))]
pub(super) struct Properties([u8; 8192]);

/// Layout of `hipDeviceProp_t` by entry point: `hipGetDevicePropertiesR0600` (HIP ≥ 6) and the older `hipGetDeviceProperties`.
/// The name of the card is at 0 in both.
#[derive(Clone, Copy)]
pub(super) enum PropertiesAbi {
    R0600,
    R0000,
}

impl PropertiesAbi {
    /// `offsetof(hipDeviceProp_t, gcnArchName)`, a `char[256]`.
    fn arch_offset(self) -> usize {
        match self {
            PropertiesAbi::R0600 => 1160,
            PropertiesAbi::R0000 => 396,
        }
    }
}

impl Properties {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self([0; 8192]))
    }
    fn text(&self, offset: usize) -> String {
        let field = &self.0[offset..offset + 256];
        let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
        String::from_utf8_lossy(&field[..end]).trim().to_owned()
    }
    /// Marketing name of the card; may be empty.
    pub(super) fn name(&self) -> String {
        self.text(0)
    }
    /// `gfx90a:sramecc+:xnack-`.
    pub(super) fn arch(&self, abi: PropertiesAbi) -> String {
        self.text(abi.arch_offset())
    }
}

/// HIP's library.
pub struct HipApi {
    pub(super) shared: Api,
    pub(super) runtime_version: Call<unsafe extern "C" fn(*mut c_int) -> c_int>,
    pub(super) set_device: Call<unsafe extern "C" fn(c_int) -> c_int>,
    pub(super) module_load: Call<unsafe extern "C" fn(*mut Handle, *const c_void) -> c_int>,
    pub(super) properties: Call<unsafe extern "C" fn(*mut Properties, c_int) -> c_int>,
    pub(super) properties_abi: PropertiesAbi,
}

impl HipApi {
    /// Opens the library: `path`, or the newest of the usual names.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, DeviceError> {
        let shared = Api::open(&VENDOR, path)?;
        // SAFETY: the types are the header's.
        unsafe {
            let new = shared.own(&VENDOR, "hipGetDevicePropertiesR0600").map(|c| (c, PropertiesAbi::R0600));
            let old = || shared.own(&VENDOR, "hipGetDeviceProperties").map(|c| (c, PropertiesAbi::R0000));
            let (properties, properties_abi) = new.or_else(|_| old())?;
            Ok(Self {
                runtime_version: shared.own(&VENDOR, "hipRuntimeGetVersion")?,
                set_device: shared.own(&VENDOR, "hipSetDevice")?,
                module_load: shared.own(&VENDOR, "hipModuleLoadData")?,
                properties,
                properties_abi,
                shared,
            })
        }
    }
}

/// HIP's own calls with our types.
#[cfg(test)]
pub(crate) fn signatures() -> [(&'static str, Vec<&'static str>); 4] {
    use crate::device::gpu::signatures::types_of;
    [
        ("hipRuntimeGetVersion", types_of(|api: &HipApi| &api.runtime_version)),
        ("hipSetDevice", types_of(|api: &HipApi| &api.set_device)),
        ("hipModuleLoadData", types_of(|api: &HipApi| &api.module_load)),
        ("hipGetDeviceProperties", types_of(|api: &HipApi| &api.properties)),
    ]
}
