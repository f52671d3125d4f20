//! The calls of a GPU's library, resolved once. HIP's runtime follows CUDA's driver API call for call: what a stream of work
//! needs has the same signature and the same error codes in both, under two names. Signatures and numbers are those of
//! `hip_runtime_api.h` (5.2 to 7) and `cuda.h` (12 and 13).

use crate::device::DeviceError;
use libloading::Library;
use std::error::Error;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::ptr::null;

pub type Handle = *mut c_void;
/// `hipDeviceptr_t`; `CUdeviceptr` is an unsigned number of the same size, which is passed alike.
pub type Device = *mut c_void;

/// Success and the errors that mean something to us, alike in both.
pub const SUCCESS: c_int = 0;
pub const OUT_OF_MEMORY: c_int = 2;
pub const INSUFFICIENT_DRIVER: c_int = 35;
pub const NO_DEVICE: c_int = 100;
pub const INVALID_DEVICE: c_int = 101;
pub const NO_BINARY_FOR_GPU: c_int = 209;
pub const NOT_READY: c_int = 600;
pub const NOT_SUPPORTED: c_int = 801;
pub const CAPTURE_UNSUPPORTED: c_int = 900;

/// `hipStreamNonBlocking`, `CU_STREAM_NON_BLOCKING`.
pub const NON_BLOCKING: c_uint = 1;
/// `hipStreamCaptureModeThreadLocal`, `CU_STREAM_CAPTURE_MODE_THREAD_LOCAL`: what other threads call is none of our business.
pub const CAPTURE_THREAD_LOCAL: c_uint = 1;
/// `hipHostMallocPortable | hipHostMallocMapped`, `CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP`.
pub const HOST_MAPPED: c_uint = 3;
/// `hipEventDefault`, `CU_EVENT_DEFAULT`: with timing.
pub const EVENT_TIMED: c_uint = 0;
/// `…_LAUNCH_PARAM_BUFFER_POINTER`, `…_BUFFER_SIZE`.
pub const PARAM_POINTER: usize = 1;
pub const PARAM_SIZE: usize = 2;

/// What is known of a library before it is opened.
pub struct Vendor {
    /// Prefix of devices and whose names the calls have.
    pub family: Family,
    /// Sonames, newest first.
    pub names: &'static [&'static str],
    /// Where its packages put it, which the dynamic linker needn't know.
    pub folder: &'static str,
    /// Environment variable that names another file.
    pub variable: &'static str,
    /// `AMD's HIP runtime`.
    pub title: &'static str,
    /// What to do where there is none.
    pub install: &'static str,
    /// What to do where it can't be used.
    pub update: &'static str,
}

impl Vendor {
    /// The file that the environment names.
    pub fn library_from_env(&self) -> Option<PathBuf> {
        std::env::var_os(self.variable).filter(|p| !p.is_empty()).map(PathBuf::from)
    }
}

/// Whose names the calls have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Hip,
    Cuda,
}

impl Family {
    /// `hip` of `hip:0`.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Hip => "hip",
            Self::Cuda => "cuda",
        }
    }
}

/// A function and its name.
#[derive(Clone, Copy)]
pub struct Call<F> {
    pub name: &'static str,
    pub f: F,
}

/// How the library names its errors.
enum ErrorName {
    Hip(unsafe extern "C" fn(c_int) -> *const c_char),
    Cuda(unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int),
}

macro_rules! calls {
    ($($field:ident = $hip:literal, $cuda:literal : fn($($arg:ty),*);)*) => {
        /// An opened library; all calls return an error code.
        pub struct Api {
            $(pub $field: Call<unsafe extern "C" fn($($arg),*) -> c_int>,)*
            error_name: ErrorName,
            /// Whose it is.
            pub family: Family,
            /// File that was opened.
            pub path: PathBuf,
            // Never closed: the runtime has threads of its own, which don't survive it.
            library: ManuallyDrop<Library>,
        }

        impl Api {
            /// HIP's names with our types.
            #[cfg(test)]
            pub fn signatures() -> Vec<(&'static str, Vec<&'static str>)> {
                use super::signatures::types_of;
                vec![$(($hip, types_of(|api: &Self| &api.$field))),*]
            }

            fn resolve(family: Family, path: &Path, library: Library) -> Result<Self, String> {
                let library = ManuallyDrop::new(library);
                let error_name = match family {
                    // SAFETY: the types are the headers'.
                    Family::Hip => ErrorName::Hip(unsafe { function(&library, "hipGetErrorName") }?.f),
                    // SAFETY: as above.
                    Family::Cuda => ErrorName::Cuda(unsafe { function(&library, "cuGetErrorName") }?.f),
                };
                Ok(Self {
                    $($field: {
                        let name = match family {
                            Family::Hip => $hip,
                            Family::Cuda => $cuda,
                        };
                        // SAFETY: the type is the headers'.
                        unsafe { function(&library, name) }?
                    },)*
                    error_name,
                    family,
                    path: path.to_owned(),
                    library,
                })
            }
        }
    };
}

calls! {
    init = "hipInit", "cuInit": fn(c_uint);
    device_count = "hipGetDeviceCount", "cuDeviceGetCount": fn(*mut c_int);
    attribute = "hipDeviceGetAttribute", "cuDeviceGetAttribute": fn(*mut c_int, c_int, c_int);
    mem_info = "hipMemGetInfo", "cuMemGetInfo_v2": fn(*mut usize, *mut usize);
    malloc = "hipMalloc", "cuMemAlloc_v2": fn(*mut Device, usize);
    free = "hipFree", "cuMemFree_v2": fn(Device);
    host_malloc = "hipHostMalloc", "cuMemHostAlloc": fn(*mut *mut c_void, usize, c_uint);
    host_free = "hipHostFree", "cuMemFreeHost": fn(*mut c_void);
    // CUDA takes the value as a byte: the low one of the same register.
    memset_async = "hipMemsetAsync", "cuMemsetD8Async": fn(Device, c_int, usize, Handle);
    copy_to_device = "hipMemcpyHtoDAsync", "cuMemcpyHtoDAsync_v2": fn(Device, *mut c_void, usize, Handle);
    copy_to_host = "hipMemcpyDtoHAsync", "cuMemcpyDtoHAsync_v2": fn(*mut c_void, Device, usize, Handle);
    stream_create = "hipStreamCreateWithFlags", "cuStreamCreate": fn(*mut Handle, c_uint);
    stream_synchronize = "hipStreamSynchronize", "cuStreamSynchronize": fn(Handle);
    stream_query = "hipStreamQuery", "cuStreamQuery": fn(Handle);
    stream_destroy = "hipStreamDestroy", "cuStreamDestroy_v2": fn(Handle);
    module_unload = "hipModuleUnload", "cuModuleUnload": fn(Handle);
    module_function = "hipModuleGetFunction", "cuModuleGetFunction": fn(*mut Handle, Handle, *const c_char);
    launch = "hipModuleLaunchKernel", "cuLaunchKernel":
        fn(Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, *mut *mut c_void, *mut *mut c_void);
    host_device_pointer = "hipHostGetDevicePointer", "cuMemHostGetDevicePointer_v2": fn(*mut Device, *mut c_void, c_uint);
    event_create = "hipEventCreateWithFlags", "cuEventCreate": fn(*mut Handle, c_uint);
    event_record = "hipEventRecord", "cuEventRecord": fn(Handle, Handle);
    event_synchronize = "hipEventSynchronize", "cuEventSynchronize": fn(Handle);
    // CUDA 13's header prefers a second version; the driver keeps the first.
    event_elapsed = "hipEventElapsedTime", "cuEventElapsedTime": fn(*mut f32, Handle, Handle);
    event_destroy = "hipEventDestroy", "cuEventDestroy_v2": fn(Handle);
    capture_begin = "hipStreamBeginCapture", "cuStreamBeginCapture_v2": fn(Handle, c_uint);
    capture_end = "hipStreamEndCapture", "cuStreamEndCapture": fn(Handle, *mut Handle);
    graph_instantiate = "hipGraphInstantiateWithFlags", "cuGraphInstantiateWithFlags": fn(*mut Handle, Handle, c_ulonglong);
    graph_destroy = "hipGraphDestroy", "cuGraphDestroy": fn(Handle);
    graph_launch = "hipGraphLaunch", "cuGraphLaunch": fn(Handle, Handle);
    graph_exec_destroy = "hipGraphExecDestroy", "cuGraphExecDestroy": fn(Handle);
}

impl Api {
    /// Opens the library: `path`, or the newest of the vendor's names.
    pub fn open(vendor: &Vendor, path: Option<&Path>) -> Result<Self, DeviceError> {
        let usual = || {
            let inside = vendor.names.iter().map(|n| Path::new(vendor.folder).join(n));
            vendor.names.iter().map(PathBuf::from).chain(inside).collect()
        };
        let candidates: Vec<PathBuf> = path.map_or_else(usual, |p| vec![p.to_owned()]);
        let mut broken = None;
        for candidate in &candidates {
            // SAFETY: a GPU's library; its constructors have no preconditions.
            match unsafe { Library::new(candidate.as_path()) } {
                Ok(library) => {
                    return Self::resolve(vendor.family, candidate, library).map_err(|why| unfit(vendor, candidate, &why));
                }
                Err(why) if candidate.is_absolute() && candidate.exists() => {
                    let detail = why.source().map(ToString::to_string);
                    broken = Some((candidate, detail.unwrap_or_else(|| why.to_string())));
                }
                Err(_) => {}
            }
        }
        match (broken, path) {
            (Some((candidate, why)), _) => Err(unfit(vendor, candidate, &why)),
            (None, Some(path)) => Err(DeviceError::Missing {
                what: format!("{} names {}, which isn't there", vendor.variable, path.display()),
                advice: "correct the path, or unset the variable to search the usual places".to_owned(),
            }),
            (None, None) => Err(DeviceError::Missing {
                what: format!(
                    "{} isn't installed (tried {} here and in {})",
                    vendor.title,
                    vendor.names.join(", "),
                    vendor.folder
                ),
                advice: format!("{}; or name the library in {}; or use --device cpu", vendor.install, vendor.variable),
            }),
        }
    }

    /// A function that only this vendor has.
    ///
    /// # Safety
    /// `F` must be a pointer to a function of the type that the vendor's header gives it.
    pub unsafe fn own<F: Copy>(&self, vendor: &Vendor, name: &'static str) -> Result<Call<F>, DeviceError> {
        // SAFETY: the caller's.
        unsafe { function(&self.library, name) }.map_err(|why| unfit(vendor, &self.path, &why))
    }

    /// Initialises the library and counts the GPUs; `None` if there is none.
    pub fn count(&self) -> Result<Option<c_int>, DeviceError> {
        let prefix = self.family.prefix();
        // SAFETY: zero is the only value allowed.
        let code = unsafe { (self.init.f)(0) };
        // Without a GPU hipInit reports an invalid device, hipGetDeviceCount and cuInit that there is none.
        if !matches!(code, NO_DEVICE | INVALID_DEVICE) {
            self.check(prefix, self.init.name, code)?;
        }
        let mut count = 0;
        // SAFETY: a valid place for an int.
        let counted = unsafe { (self.device_count.f)(&mut count) };
        if count >= 1 && counted == SUCCESS && code == SUCCESS {
            return Ok(Some(count));
        }
        let known = matches!(counted, SUCCESS | NO_DEVICE | INVALID_DEVICE | INSUFFICIENT_DRIVER);
        if !known && code == SUCCESS {
            self.check(prefix, self.device_count.name, counted)?;
        }
        Ok(None)
    }

    /// A number that describes a device.
    pub fn attribute_of(&self, device: &str, which: c_int, index: c_int) -> Result<u32, DeviceError> {
        let mut value = 0;
        // SAFETY: a valid place for an int.
        let code = unsafe { (self.attribute.f)(&mut value, which, index) };
        self.check(device, self.attribute.name, code).map(|()| value.max(0) as u32)
    }

    /// Name of an error: `hipErrorOutOfMemory`.
    fn name_of(&self, code: c_int) -> String {
        let name = match self.error_name {
            // SAFETY: any number may be asked for; the result is null or a static string.
            ErrorName::Hip(f) => unsafe { f(code) },
            ErrorName::Cuda(f) => {
                let mut name = null();
                // SAFETY: a valid place for a pointer; it stays null for numbers that mean nothing.
                unsafe { f(code, &mut name) };
                name
            }
        };
        if name.is_null() {
            return "unknown error".to_owned();
        }
        // SAFETY: not null, so a static C string.
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
    }

    /// An error for anything but success.
    pub fn check(&self, device: &str, call: &str, code: c_int) -> Result<(), DeviceError> {
        if code == SUCCESS {
            return Ok(());
        }
        Err(DeviceError::Call { device: device.to_owned(), call: call.to_owned(), code, name: self.name_of(code) })
    }
}

/// # Safety
/// As for [`Api::own`].
unsafe fn function<F: Copy>(library: &Library, name: &'static str) -> Result<Call<F>, String> {
    let symbol = CString::new(name).map_err(|e| e.to_string())?;
    // SAFETY: the caller's.
    let f = unsafe { library.get::<F>(symbol.to_bytes_with_nul()) }.map_err(|_| format!("it lacks {name}"))?;
    Ok(Call { name, f: *f })
}

fn unfit(vendor: &Vendor, path: &Path, why: &str) -> DeviceError {
    DeviceError::Missing {
        what: format!("{} can't be used: {why}", path.display()),
        advice: format!("{}, or name another library in {}", vendor.update, vendor.variable),
    }
}
