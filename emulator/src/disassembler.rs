//! Decodes instructions with LLVM's own disassembler, opened at run time.

use crate::arch::{Arch, Generation};
use crate::{EmulatorError, reserved};
use libloading::Library;
use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

/// The version whose texts are read, which differ between versions: no test reads another one's.
const MAJOR: c_uint = 22;

/// Its names.
const NAMES: [&str; 3] = ["libLLVM.so.22.1", "libLLVM-22.so.1", "libLLVM-22.so"];

type Create = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    *const c_char,
    *mut c_void,
    c_int,
    *const c_void,
    *const c_void,
) -> *mut c_void;
type Decode = unsafe extern "C" fn(*mut c_void, *mut u8, u64, u64, *mut c_char, usize) -> usize;
type Dispose = unsafe extern "C" fn(*mut c_void);
type Initialise = unsafe extern "C" fn();
type Version = unsafe extern "C" fn(*mut c_uint, *mut c_uint, *mut c_uint);

/// The C functions that are needed, and the library that holds them.
struct Llvm {
    create: Create,
    decode: Decode,
    dispose: Dispose,
    version: String,
    /// Never closed: LLVM registers its targets in statics.
    _library: Library,
}

fn open(names: &[&'static str]) -> Result<Llvm, String> {
    let mut tried = Vec::new();
    for &name in names {
        // SAFETY: loading runs the library's static constructors; LLVM's register options and do nothing else.
        match unsafe { Library::new(name) } {
            Ok(library) => return resolve(library),
            Err(_) => tried.push(name),
        }
    }
    Err(format!("none of {} could be opened", tried.join(", ")))
}

fn resolve(library: Library) -> Result<Llvm, String> {
    fn symbol<T: Copy>(library: &Library, name: &str) -> Result<T, String> {
        // SAFETY: the types above are those of llvm-c/Disassembler.h, llvm-c/Target.h and llvm-c/Core.h, stable C interfaces.
        unsafe { library.get::<T>(name) }.map(|s| *s).map_err(|_| format!("the LLVM library lacks {name}"))
    }
    for name in ["LLVMInitializeAMDGPUTargetInfo", "LLVMInitializeAMDGPUTargetMC", "LLVMInitializeAMDGPUDisassembler"] {
        let initialise: Initialise = symbol(&library, name)?;
        // SAFETY: registers the target; takes and returns nothing. Called once, under the lock of `LLVM`.
        unsafe { initialise() };
    }
    let version: Version = symbol(&library, "LLVMGetVersion")?;
    let (mut major, mut minor, mut patch) = (0, 0, 0);
    // SAFETY: three valid pointers to integers.
    unsafe { version(&raw mut major, &raw mut minor, &raw mut patch) };
    if major != MAJOR {
        return Err(format!("it is of LLVM {major}, and only the texts of LLVM {MAJOR} are understood"));
    }
    Ok(Llvm {
        create: symbol(&library, "LLVMCreateDisasmCPUFeatures")?,
        decode: symbol(&library, "LLVMDisasmInstruction")?,
        dispose: symbol(&library, "LLVMDisasmDispose")?,
        version: format!("LLVM {major}.{minor}.{patch}"),
        _library: library,
    })
}

fn llvm() -> Result<&'static Llvm, EmulatorError> {
    static LLVM: OnceLock<Result<Llvm, String>> = OnceLock::new();
    LLVM.get_or_init(|| open(&NAMES)).as_ref().map_err(|e| EmulatorError::NoDisassembler(e.clone()))
}

/// Version of the library that decodes.
///
/// # Errors
/// [`EmulatorError::NoDisassembler`] if there is none.
pub fn version() -> Result<&'static str, EmulatorError> {
    llvm().map(|l| l.version.as_str())
}

thread_local! {
    /// Contexts are costly to make, and one of them can't serve two threads.
    static CONTEXTS: RefCell<HashMap<(&'static str, bool), Disassembler>> = RefCell::default();
}

/// Runs `f` with this thread's disassembler for a processor.
pub(crate) fn with<T>(arch: &'static Arch, wave32: bool, f: impl FnOnce(&mut Disassembler) -> T) -> Result<T, EmulatorError> {
    CONTEXTS.with_borrow_mut(|contexts| {
        let disassembler = match contexts.entry((arch.name, wave32)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Disassembler::new(arch, wave32)?),
        };
        Ok(f(disassembler))
    })
}

/// A disassembler for one processor.
pub(crate) struct Disassembler {
    llvm: &'static Llvm,
    context: *mut c_void,
    generation: Generation,
}

impl Disassembler {
    fn new(arch: &Arch, wave32: bool) -> Result<Self, EmulatorError> {
        let llvm = llvm()?;
        let unknown = || EmulatorError::NoTarget { library: llvm.version.clone(), target: arch.name.to_owned() };
        let cpu = CString::new(arch.name).map_err(|_| unknown())?;
        let features = if wave32 { c"+wavefrontsize32,-wavefrontsize64" } else { c"+wavefrontsize64,-wavefrontsize32" };
        let features = if arch.has_wave32() { features } else { c"" };
        // SAFETY: three terminated strings that outlive the call; no callbacks, so nothing else is kept.
        let context = unsafe {
            (llvm.create)(
                c"amdgcn-amd-amdhsa".as_ptr(),
                cpu.as_ptr(),
                features.as_ptr(),
                std::ptr::null_mut(),
                0,
                std::ptr::null(),
                std::ptr::null(),
            )
        };
        if context.is_null() { Err(unknown()) } else { Ok(Self { llvm, context, generation: arch.generation }) }
    }

    /// Size and text of the instruction at the beginning of `code`; `None` if there is none.
    pub(crate) fn decode(&mut self, code: &[u8], address: u64) -> Option<(usize, String)> {
        // The longest has five words. LLVM takes a mutable pointer and reads only; a copy keeps that promise ours. Behind the end of the
        // code there are zeros, and what needs them is none: LLVM crashes where a constant is cut off.
        let mut bytes = [0; 20];
        let n = code.len().min(bytes.len());
        bytes[..n].copy_from_slice(&code[..n]);
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if let Some((size, text)) = reserved::refusal(self.generation, [0, 4, 8, 12].map(word)) {
            return (size <= n).then(|| (size, text.to_owned()));
        }
        let mut text = [0 as c_char; 512];
        let (space, room) = (bytes.len() as u64, text.len());
        // SAFETY: the context is alive, the buffers are as long as said, and LLVM terminates the text within its size.
        let size = unsafe { (self.llvm.decode)(self.context, bytes.as_mut_ptr(), space, address, text.as_mut_ptr(), room) };
        if size == 0 || size > n {
            return None;
        }
        // SAFETY: terminated within the buffer, as above.
        let text = unsafe { CStr::from_ptr(text.as_ptr()) };
        Some((size, text.to_string_lossy().trim().to_owned()))
    }
}

impl Drop for Disassembler {
    fn drop(&mut self) {
        // SAFETY: made by `create`, disposed of once.
        unsafe { (self.llvm.dispose)(self.context) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_library_the_package_is_named() {
        let error = open(&["libLLVM-none.so", "libLLVM-neither.so"]).err().map(EmulatorError::NoDisassembler).unwrap();
        let text = error.to_string();
        assert!(text.contains("libLLVM-none.so, libLLVM-neither.so") && text.contains("libllvm22"), "{text}");
    }

    #[test]
    fn a_library_that_is_no_llvm() {
        let error = open(&["libc.so.6"]).err().unwrap();
        assert!(error.contains("lacks LLVMInitializeAMDGPUTargetInfo"), "{error}");
    }
}
