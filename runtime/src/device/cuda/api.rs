//! What only CUDA's driver API has. Signatures and numbers are those of `cuda.h` (12).

use crate::device::DeviceError;
use crate::device::gpu::api::{Api, Call, Device, Family, Handle, Vendor};
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::path::Path;

/// `CU_DEVICE_ATTRIBUTE_WARP_SIZE`.
pub(super) const WARP_SIZE: c_int = 10;
/// `CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT`.
pub(super) const MULTIPROCESSORS: c_int = 16;
/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR`, `…_MINOR`.
pub(super) const CAPABILITY_MAJOR: c_int = 75;
pub(super) const CAPABILITY_MINOR: c_int = 76;

/// `CU_JIT_ERROR_LOG_BUFFER`, `CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES`.
pub(super) const ERROR_LOG: c_int = 5;
pub(super) const ERROR_LOG_BYTES: c_int = 6;

/// `CUDA_ERROR_JIT_COMPILER_NOT_FOUND`, `CUDA_ERROR_UNSUPPORTED_PTX_VERSION`.
pub(super) const NO_JIT_COMPILER: c_int = 221;
pub(super) const UNSUPPORTED_PTX: c_int = 222;

pub(super) const VENDOR: Vendor = Vendor {
    family: Family::Cuda,
    names: &["libcuda.so.1"],
    folder: "/usr/local/nvidia/lib64",
    variable: "HIPC_CUDA_LIBRARY",
    title: "NVIDIA's driver",
    install: "cuda:N, a test bench for kernels, needs libcuda.so.1 of NVIDIA's driver (525 or later)",
    update: "update NVIDIA's driver (525 or later)",
};

/// `CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION`.
const BEGINS_BEFORE_THE_END: c_int = 6;

/// `CUlaunchConfig`: grid, workgroup, dynamic LDS in bytes, stream, attributes.
#[repr(C)]
pub struct LaunchConfig {
    pub(super) grid: [c_uint; 3],
    pub(super) block: [c_uint; 3],
    pub(super) shared_bytes: c_uint,
    pub(super) stream: Handle,
    pub(super) attributes: *const LaunchAttribute,
    pub(super) attribute_count: c_uint,
}

/// `CUlaunchAttribute`: which, and 64 bytes of value, of which ours is an int at the beginning.
#[repr(C, align(8))]
pub struct LaunchAttribute {
    id: c_int,
    padding: c_int,
    value: [c_int; 16],
}

impl LaunchAttribute {
    /// A launch that may begin while the one before it runs.
    pub(super) const OVERLAPS: Self =
        Self { id: BEGINS_BEFORE_THE_END, padding: 0, value: [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] };
}

/// NVIDIA's library.
pub struct CudaApi {
    pub(super) shared: Api,
    pub(super) device_get: Call<unsafe extern "C" fn(*mut c_int, c_int) -> c_int>,
    pub(super) device_name: Call<unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int>,
    pub(super) context_retain: Call<unsafe extern "C" fn(*mut Handle, c_int) -> c_int>,
    pub(super) context_release: Call<unsafe extern "C" fn(c_int) -> c_int>,
    pub(super) context_set: Call<unsafe extern "C" fn(Handle) -> c_int>,
    pub(super) module_load: Call<unsafe extern "C" fn(*mut Handle, *const c_void, c_uint, *mut c_int, *mut *mut c_void) -> c_int>,
    pub(super) module_global: Call<unsafe extern "C" fn(*mut Device, *mut usize, Handle, *const c_char) -> c_int>,
    pub(super) launch_with: Call<unsafe extern "C" fn(*const LaunchConfig, Handle, *mut *mut c_void, *mut *mut c_void) -> c_int>,
}

impl CudaApi {
    /// Opens the library: `path`, or the usual name.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, DeviceError> {
        let shared = Api::open(&VENDOR, path)?;
        // SAFETY: the types are the header's.
        unsafe {
            Ok(Self {
                device_get: shared.own(&VENDOR, "cuDeviceGet")?,
                device_name: shared.own(&VENDOR, "cuDeviceGetName")?,
                context_retain: shared.own(&VENDOR, "cuDevicePrimaryCtxRetain")?,
                context_release: shared.own(&VENDOR, "cuDevicePrimaryCtxRelease_v2")?,
                context_set: shared.own(&VENDOR, "cuCtxSetCurrent")?,
                module_load: shared.own(&VENDOR, "cuModuleLoadDataEx")?,
                module_global: shared.own(&VENDOR, "cuModuleGetGlobal_v2")?,
                launch_with: shared.own(&VENDOR, "cuLaunchKernelEx")?,
                shared,
            })
        }
    }
}
