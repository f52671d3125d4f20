//! Device `host`: the bundle's own HIP unit, compiled by clang for x86-64 with lanes as fibers (`hipc/host.h`), under the
//! plan's geometry and kernel arguments. For tests of kernels and plans; far slower than `cpu`.
//!
//! [`HostLibrary`] opens a unit built as a shared object in this process. [`HostProcess`] starts a unit built as an executable
//! with AddressSanitizer and UBSan, and talks to it over pipes (`hipc/host_main.cpp` has the protocol).

mod library;
mod process;

pub use library::HostLibrary;
pub use process::HostProcess;

use super::DeviceError;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// In which order workgroups run; a right plan doesn't care.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// By number.
    #[default]
    Ascending,
    /// Backwards.
    Descending,
    /// With a stride (made coprime to the number of workgroups).
    Stride(u32),
}

impl Order {
    /// The number that `hipc_host_run` takes.
    fn code(self) -> u32 {
        match self {
            Order::Ascending => 0,
            Order::Descending => 1,
            Order::Stride(n) => n.max(2),
        }
    }
}

/// (available, total) bytes of the machine, as Linux estimates them (`/proc/meminfo`).
pub(crate) fn memory() -> Result<(u64, u64), DeviceError> {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    match (field("MemAvailable:"), field("MemTotal:")) {
        (Some(free), Some(total)) => Ok((free, total)),
        _ => Err(DeviceError::Missing {
            what: "the amount of free memory (/proc/meminfo) can't be read".to_owned(),
            advice: "the devices `cpu` and `host` need Linux with /proc mounted".to_owned(),
        }),
    }
}

/// A module as a file of its own, removed when it is dropped.
#[derive(Debug)]
struct ModuleFile(PathBuf);

impl ModuleFile {
    fn write(module: &[u8]) -> Result<Self, DeviceError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("hipc-host-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let written = OpenOptions::new().write(true).create_new(true).mode(0o700).open(&path);
        written.and_then(|mut file| file.write_all(module)).map_err(|e| cannot_write(&path, &e))?;
        Ok(Self(path))
    }
    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ModuleFile {
    fn drop(&mut self) {
        // Nothing is lost if it stays in the temporary folder.
        let _ = fs::remove_file(&self.0);
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> DeviceError {
    DeviceError::Missing {
        what: format!("the unit can't be written to {}: {error}", path.display()),
        advice: "set TMPDIR to a folder that is writable and allows executables".to_owned(),
    }
}
