//! The types of our calls against those of HIP's own header, as clang reads it: what a wrong one would do, only a card would show.

use super::api::{Api, Call};
use crate::device::hip::api as hip;
use std::any::type_name;
use std::collections::HashMap;
use std::ffi::{c_char, c_int};
use std::path::Path;
use std::process::Command;

/// Debian's libamdhip64-dev.
const HEADER: &str = "/usr/include/hip/hip_runtime_api.h";

/// A call's types can be named.
pub(crate) trait Parameters {
    fn names() -> Vec<&'static str>;
}

macro_rules! parameters {
    ($($p:ident)*) => {
        impl<$($p),*> Parameters for unsafe extern "C" fn($($p),*) -> c_int {
            fn names() -> Vec<&'static str> {
                vec![$(type_name::<$p>()),*]
            }
        }
    };
}

parameters!(A);
parameters!(A B);
parameters!(A B C);
parameters!(A B C D);
parameters!(A B C D E F G H I J K);

/// Names of the types of a call, which needn't be there.
pub(crate) fn types_of<T, F: Parameters>(_: fn(&T) -> &Call<F>) -> Vec<&'static str> {
    F::names()
}

/// What a C header declares.
struct Header {
    functions: HashMap<String, String>,
    types: HashMap<String, String>,
}

impl Header {
    /// Lines of clang's syntax tree: `FunctionDecl … hipFree 'hipError_t (void *)'`, `TypedefDecl … hipStream_t 'struct ihipStream_t *'`.
    fn read() -> Self {
        let clang = std::env::var_os("HIPC_CLANG").unwrap_or_else(|| "clang-22".into());
        let flags =
            ["-xc", "-D__HIP_PLATFORM_AMD__", "-fsyntax-only", "-w", "-Xclang", "-ast-dump", "-fno-color-diagnostics", HEADER];
        let tree = Command::new(clang).args(flags).output().expect("clang, see scripts/setup.sh");
        assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
        let (mut functions, mut types) = (HashMap::new(), HashMap::new());
        for line in String::from_utf8_lossy(&tree.stdout).lines() {
            let into = match line {
                _ if line.contains("FunctionDecl ") => &mut functions,
                _ if line.contains("TypedefDecl ") => &mut types,
                _ => continue,
            };
            let Some((before, declared)) = line.split_once(" '") else { continue };
            let name = before.rsplit(' ').next().unwrap_or_default();
            into.insert(name.to_owned(), declared.split('\'').next().unwrap_or_default().to_owned());
        }
        Self { functions, types }
    }

    /// Rust's types that are passed as this one of C is.
    fn fitting(&self, c: &str) -> Vec<&'static str> {
        if let Some(target) = c.strip_suffix('*') {
            return match target.trim() {
                "int" => vec!["*mut i32"],
                "float" => vec!["*mut f32"],
                "size_t" => vec!["*mut usize"],
                "const char" => vec![type_name::<*const c_char>()],
                "hipDeviceProp_t" | "hipDeviceProp_tR0600" => vec!["*mut hipfire_run::device::hip::api::Properties"],
                "void" => vec!["*mut core::ffi::c_void"],
                "const void" => vec!["*const core::ffi::c_void", "*mut core::ffi::c_void"],
                inner if self.fitting(inner).contains(&"*mut core::ffi::c_void") => vec!["*mut *mut core::ffi::c_void"],
                _ => Vec::new(),
            };
        }
        match c {
            "int" => vec!["i32"],
            "unsigned int" => vec!["u32"],
            "size_t" => vec!["usize"],
            "unsigned long long" => vec!["u64"],
            _ => match self.types.get(c).map(String::as_str) {
                Some(known) if known.starts_with("enum ") => vec!["i32", "u32"],
                Some(known) if known.ends_with('*') => vec!["*mut core::ffi::c_void"],
                Some(known) => self.fitting(known),
                None => Vec::new(),
            },
        }
    }

    /// What is wrong with our types of a function.
    fn wrong(&self, name: &str, ours: &[&str]) -> Option<String> {
        // Since HIP 6 the name of some is a macro's.
        let newer = format!("{name}R0600");
        let Some(declared) = self.functions.get(name).or_else(|| self.functions.get(&newer)) else {
            return Some(format!("no {name} in the header"));
        };
        let parameters = declared.strip_prefix("hipError_t (").and_then(|d| d.strip_suffix(')')).unwrap_or_default();
        let theirs: Vec<&str> = parameters.split(", ").filter(|p| !p.is_empty()).collect();
        let fits = theirs.len() == ours.len() && theirs.iter().zip(ours).all(|(c, rust)| self.fitting(c).contains(rust));
        (!fits).then(|| format!("{name} is {declared}; called with {ours:?}"))
    }
}

#[test]
fn every_call_has_the_headers_types() {
    if !Path::new(HEADER).exists() {
        println!("skipped: {HEADER} isn't here (Debian: libamdhip64-dev)");
        return;
    }
    let header = Header::read();
    let calls: Vec<_> = Api::signatures().into_iter().chain(hip::signatures()).collect();
    assert!(calls.len() > 30);
    let wrong: Vec<String> = calls.iter().filter_map(|(name, ours)| header.wrong(name, ours)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // It would say so.
    for ours in [&["u32"][..], &["*mut core::ffi::c_void", "usize"], &["*mut *mut core::ffi::c_void", "i32"], &[]] {
        assert!(header.wrong("hipMalloc", ours).is_some(), "{ours:?}");
    }
}
