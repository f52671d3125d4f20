//! Which device executes: what a person may name, and what is taken if they leave it to us.

use super::cuda::CudaRuntime;
use super::hip::HipRuntime;
use super::{DeviceError, GpuDevice};
use hipc_emulator::{Arch, find_arch};
use std::fmt;
use std::str::FromStr;

/// Name of the architecture that the device `host` runs.
pub const HOST: &str = "host";

/// A device as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceName {
    /// The first AMD GPU that the bundle has code for, else the CPU.
    Auto,
    /// The plan's meaning on the CPU.
    Cpu,
    /// An AMD GPU by number.
    Hip(u32),
    /// An NVIDIA GPU by number, running the same kernels; for tests.
    Cuda(u32),
    /// The bundle's kernels compiled for this machine's CPU; for tests.
    Host,
    /// The code object of an architecture, emulated.
    Emu(&'static Arch),
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Hip(n) => write!(f, "hip:{n}"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
            Self::Host => f.write_str(HOST),
            Self::Emu(arch) => write!(f, "emu:{}", arch.name),
        }
    }
}

/// A name that stands for no device (the request's fault).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no device `{0}`; known are auto, cpu, hip:N (the N-th AMD GPU, from 0), emu:ARCH (a GPU emulated on the CPU: emu:gfx1100), and for tests host and cuda:N"
)]
pub struct UnknownDevice(pub String);

impl FromStr for DeviceName {
    type Err = UnknownDevice;

    fn from_str(name: &str) -> Result<Self, UnknownDevice> {
        match name {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "hip" => Ok(Self::Hip(0)),
            "cuda" => Ok(Self::Cuda(0)),
            HOST => Ok(Self::Host),
            _ => {
                let number = |n: &str| n.bytes().all(|b| b.is_ascii_digit()).then(|| n.parse().ok()).flatten();
                let device = match name.split_once(':') {
                    Some(("hip", n)) => number(n).map(Self::Hip),
                    Some(("cuda", n)) => number(n).map(Self::Cuda),
                    Some(("emu", arch)) => find_arch(arch).map(Self::Emu),
                    _ => None,
                };
                device.ok_or_else(|| UnknownDevice(name.to_owned()))
            }
        }
    }
}

/// A device that is there, and the architecture of the bundle that it runs.
#[derive(Debug)]
pub enum Selected {
    /// The CPU, by the plan of this architecture.
    Cpu(String),
    /// An AMD GPU.
    Hip(HipRuntime, GpuDevice),
    /// An NVIDIA GPU.
    Cuda(CudaRuntime, GpuDevice),
    /// The kernels on the CPU.
    Host,
    /// The machine code on the CPU.
    Emu(&'static Arch),
}

/// Finds the device for a bundle with code for `archs`, and what a person should be told about the choice.
///
/// # Errors
/// [`DeviceError::Missing`] if the device asked for isn't there, [`DeviceError::NoCode`] if the bundle has no code for it. `auto`
/// never fails for want of a GPU.
pub fn select(name: DeviceName, archs: &[&str]) -> Result<(Selected, Option<String>), DeviceError> {
    let has = || archs.join(", ");
    let first = archs.iter().find(|a| **a != HOST).or(archs.first());
    let cpu = || match first {
        Some(arch) => Ok(Selected::Cpu((*arch).to_owned())),
        None => Err(DeviceError::Internal("the bundle has no architectures".to_owned())),
    };
    let with_code = |device: GpuDevice| {
        let known = archs.contains(&device.arch.as_str());
        if known { Ok(device) } else { Err(DeviceError::NoCode { device: device.arch, has: has() }) }
    };
    match name {
        DeviceName::Cpu => Ok((cpu()?, None)),
        DeviceName::Host if archs.contains(&HOST) => Ok((Selected::Host, None)),
        DeviceName::Host => Err(DeviceError::NoCode { device: HOST.to_owned(), has: has() }),
        DeviceName::Emu(arch) if archs.contains(&arch.name) => Ok((Selected::Emu(arch), None)),
        DeviceName::Emu(arch) => Err(DeviceError::NoCode { device: arch.name.to_owned(), has: has() }),
        DeviceName::Hip(index) => {
            let runtime = HipRuntime::from_env()?;
            let device = with_code(runtime.find(index)?)?;
            Ok((Selected::Hip(runtime, device), None))
        }
        DeviceName::Cuda(index) => {
            let runtime = CudaRuntime::from_env()?;
            let device = with_code(runtime.find(index)?)?;
            Ok((Selected::Cuda(runtime, device), None))
        }
        DeviceName::Auto => match HipRuntime::from_env() {
            Err(error) => Ok((cpu()?, Some(format!("{}: running on the CPU", reason(&error))))),
            Ok(runtime) => match runtime.devices().iter().find(|d| archs.contains(&d.arch.as_str())).cloned() {
                Some(device) => Ok((Selected::Hip(runtime, device), None)),
                None => {
                    let list: Vec<String> = runtime.devices().iter().map(GpuDevice::to_string).collect();
                    let note = format!("the bundle has code for {}, not for {}: running on the CPU", has(), list.join(", "));
                    Ok((cpu()?, Some(note)))
                }
            },
        },
    }
}

/// The first line of an error: a machine without a GPU needs no advice about drivers.
fn reason(error: &DeviceError) -> String {
    match error {
        DeviceError::Missing { what, .. } => what.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for device in
            [DeviceName::Auto, DeviceName::Cpu, DeviceName::Hip(0), DeviceName::Hip(12), DeviceName::Cuda(3), DeviceName::Host]
        {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        let emulated = "emu:gfx1100".parse::<DeviceName>().unwrap();
        assert_eq!(emulated.to_string(), "emu:gfx1100");
        for wrong in [
            "",
            "gpu",
            "emu",
            "emu:",
            "emu:gfx803",
            "hip:",
            "hip:-1",
            "hip:+1",
            "hip:4294967296",
            "CPU",
            "cuda:",
            "cuda:x",
            "host:0",
        ] {
            assert_eq!(wrong.parse::<DeviceName>(), Err(UnknownDevice(wrong.to_owned())));
        }
    }

    #[test]
    fn the_cpu_takes_the_first_gpu_plan() {
        let (selected, note) = select(DeviceName::Cpu, &["host", "gfx1100"]).unwrap();
        assert!(matches!(selected, Selected::Cpu(arch) if arch == "gfx1100") && note.is_none());
        assert!(matches!(select(DeviceName::Cpu, &[]), Err(DeviceError::Internal(_))));
        assert!(matches!(select(DeviceName::Host, &["gfx1100"]), Err(DeviceError::NoCode { .. })));
    }
}
