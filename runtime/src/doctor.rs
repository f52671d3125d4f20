//! What this machine can do, tier by tier, and how to mend what it cannot.

use crate::device::hip::{HipDriver, HipRuntime, installed};
use crate::device::host::memory;
use crate::device::{DeviceError, Driver};
use hipc_ir::units::bytes;
use serde::Serialize;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Older clangs lack what the kernels use.
const OLDEST_CLANG: u32 = 19;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was found.
    pub found: String,
    /// How to mend it, or what to do with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Check {
    fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, ok: true, found: found.into(), advice: None }
    }
    fn bad(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, ok: false, found: found.into(), advice: Some(advice.into()) }
    }
}

/// An AMD GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// Name for `--device`.
    pub device: String,
    /// Marketing name; may be empty.
    pub name: String,
    /// `gfx1100`.
    pub arch: String,
    /// Free and total bytes of its memory, if it can be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
}

/// Bytes of a memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Not in use.
    pub free: u64,
    /// In all.
    pub total: u64,
}

/// A group of checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tier {
    /// Whether the tier serves its purpose.
    pub usable: bool,
    /// What was looked at.
    pub checks: Vec<Check>,
}

/// Everything that [`examine`] finds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The device `cpu`.
    pub cpu: Tier,
    /// The devices `hip:N`.
    pub amd: Tier,
    /// GPUs of the devices `hip:N`.
    pub gpus: Vec<Gpu>,
    /// Compiling models with `hipc`; running them doesn't need it.
    pub compiler: Tier,
}

/// Looks at this machine.
pub fn examine() -> Report {
    let (amd, gpus) = amd();
    Report { cpu: cpu(), amd, gpus, compiler: compiler() }
}

fn cpu() -> Tier {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let plural = if cores == 1 { "core" } else { "cores" };
    let mut checks = vec![Check::good("processor", format!("{model}, {cores} {plural}")), vectors()];
    checks.push(match memory() {
        Ok((free, total)) => Check::good("memory", format!("{} free of {}", bytes(free), bytes(total))),
        Err(error) => missing("memory", &error),
    });
    Tier { usable: true, checks }
}

#[cfg(target_arch = "x86_64")]
fn vectors() -> Check {
    let features = [
        ("AVX2", is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")),
        ("AVX-512", is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")),
        ("AVX-512 VNNI", is_x86_feature_detected!("avx512vnni")),
    ];
    let there: Vec<&str> = features.iter().filter(|f| f.1).map(|f| f.0).collect();
    if there.is_empty() {
        return Check::bad("vectors", "no AVX2", "everything runs, but some four times slower than with AVX2");
    }
    Check::good("vectors", there.join(", "))
}

#[cfg(not(target_arch = "x86_64"))]
fn vectors() -> Check {
    Check::good("vectors", "those of the architecture's baseline")
}

fn amd() -> (Tier, Vec<Gpu>) {
    let mut checks = vec![kfd(), render_nodes()];
    let mut gpus = Vec::new();
    match installed() {
        Err(error) => checks.push(missing("HIP runtime", &error)),
        Ok((path, version)) => {
            let version = version.map_or_else(|| "version unknown".to_owned(), hip_version);
            checks.push(Check::good("HIP runtime", format!("{} ({version})", path.display())));
            match HipRuntime::from_env() {
                Err(error) => {
                    let mut check = missing("GPU", &error);
                    // What to do stands with the first check that failed.
                    check.advice = check.advice.filter(|_| checks.iter().all(|c| c.ok));
                    checks.push(check);
                }
                Ok(runtime) => {
                    for device in runtime.devices() {
                        let memory = HipDriver::new(&runtime, device.index).and_then(|d| d.memory());
                        checks.push(match &memory {
                            Ok((free, total)) => Check {
                                advice: Some(format!("compile for it: hipc compile MODEL.gguf --arch {}", device.arch)),
                                ..Check::good("GPU", format!("{device}, {} free of {}", bytes(*free), bytes(*total)))
                            },
                            Err(error) => missing("GPU", error),
                        });
                        let memory = memory.ok().map(|(free, total)| Memory { free, total });
                        let (name, arch) = (device.name.clone(), device.arch.clone());
                        gpus.push(Gpu { device: format!("hip:{}", device.index), name, arch, memory });
                    }
                }
            }
        }
    }
    (Tier { usable: gpus.iter().any(|g| g.memory.is_some()), checks }, gpus)
}

/// HIP's number of its version: 50221153 is 5.2.21153.
pub(crate) fn hip_version(number: u32) -> String {
    format!("{}.{}.{}", number / 10_000_000, number / 100_000 % 100, number % 100_000)
}

fn missing(name: &'static str, error: &DeviceError) -> Check {
    match error {
        DeviceError::Missing { what, advice } => Check::bad(name, what, advice),
        other => Check { name, ok: false, found: other.to_string(), advice: None },
    }
}

fn kfd() -> Check {
    const NAME: &str = "/dev/kfd";
    match OpenOptions::new().read(true).write(true).open(NAME) {
        Ok(_) => Check::good(NAME, "can be opened"),
        Err(e) if e.kind() == ErrorKind::NotFound => Check::bad(
            NAME,
            "isn't there",
            "no AMD GPU, or the kernel module amdgpu isn't loaded (sudo modprobe amdgpu); in a container: --device /dev/kfd --device /dev/dri",
        ),
        Err(e) => Check::bad(NAME, e.to_string(), "sudo usermod -aG render,video $USER, then log in again"),
    }
}

fn render_nodes() -> Check {
    const NAME: &str = "render node";
    let entries = fs::read_dir("/dev/dri").into_iter().flatten().flatten().map(|e| e.path());
    let is_node = |p: &PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("renderD"));
    let mut nodes: Vec<PathBuf> = entries.filter(is_node).collect();
    nodes.sort();
    let opens = |p: &&PathBuf| OpenOptions::new().read(true).write(true).open(p).is_ok();
    match (nodes.iter().find(opens), nodes.first()) {
        (Some(node), _) => Check::good(NAME, format!("{} can be opened", node.display())),
        (None, Some(node)) => Check::bad(
            NAME,
            format!("{} may not be opened", node.display()),
            "sudo usermod -aG render,video $USER, then log in again",
        ),
        (None, None) => Check::bad(NAME, "there is none in /dev/dri", "as for /dev/kfd"),
    }
}

/// Names that hipc looks for, in its order.
const CLANGS: [&str; 7] = ["clang-22", "clang-23", "clang-21", "clang-20", "clang-19", "clang", "/opt/rocm/llvm/bin/clang"];

/// Looks where hipc looks for a clang.
fn compiler() -> Tier {
    let chosen = std::env::var_os("HIPC_CLANG").filter(|c| !c.is_empty());
    let names: Vec<std::ffi::OsString> = match chosen {
        Some(name) => vec![name],
        None => CLANGS.iter().map(Into::into).collect(),
    };
    let mut older = None;
    for name in names {
        let Some(path) = program(Path::new(&name)) else { continue };
        match clang_version(&path) {
            Some(version) if version >= OLDEST_CLANG => {
                let found = format!("{}, version {version}", path.display());
                return Tier { usable: true, checks: vec![Check::good("clang", found)] };
            }
            Some(version) => older = Some((path, version)),
            None => {}
        }
    }
    let found = match older {
        Some((path, version)) => format!("{} has version {version}, {OLDEST_CLANG} or later is needed", path.display()),
        None => format!("no clang {OLDEST_CLANG} or later on PATH"),
    };
    let advice = "only hipc needs it: install clang-22 and lld-22 (apt.llvm.org has them for Debian and Ubuntu), or name one in HIPC_CLANG";
    Tier { usable: false, checks: vec![Check::bad("clang", found, advice)] }
}

fn program(name: &Path) -> Option<PathBuf> {
    if name.components().count() > 1 {
        return name.is_file().then(|| name.to_owned());
    }
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|p| p.is_file())
}

fn clang_version(path: &Path) -> Option<u32> {
    let output = Command::new(path).arg("--version").env("LC_ALL", "C").output().ok()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let (_, number) = printed.split_once("clang version ")?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_hips() {
        assert_eq!(hip_version(50_221_153), "5.2.21153");
        assert_eq!(hip_version(60_443_482), "6.4.43482");
    }

    #[test]
    fn every_machine_has_a_processor() {
        let report = examine();
        assert!(report.cpu.usable && report.cpu.checks.len() >= 2);
        assert!(report.amd.checks.iter().all(|c| c.ok || c.advice.is_some() || !c.found.is_empty()));
    }
}
