//! Device `emu:ARCH`: the code object's own machine instructions, interpreted on the CPU by [`hipc_emulator`]. It runs what a card
//! of that architecture would run, with the same plan, weights and kernel arguments, and tells of every access outside memory.

use super::host::memory;
use super::{DeviceError, DevicePtr, Driver, Executed, KernelLaunch, Operand};
use hipc_emulator::{Arch, Dispatch, EmulatorError, Extent, Memory, Module, Options, Unmapped};

/// Instructions of a wave, unless told otherwise: a launch of the largest kernel stays far below.
const BUDGET: u64 = 1 << 32;

/// Executes code objects of one architecture. A launch is over when it returns.
pub struct Emulator {
    budget: u64,
    watched: bool,
    arch: &'static Arch,
    memory: Memory,
    modules: Vec<Module>,
    /// By handle: whose it is, and its name.
    kernels: Vec<(usize, String)>,
    allocated: u64,
    done: Executed,
}

impl std::fmt::Debug for Emulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Emulator").field("arch", &self.arch).field("allocated", &self.allocated).finish_non_exhaustive()
    }
}

impl Emulator {
    /// A GPU without memory in use.
    pub fn new(arch: &'static Arch) -> Self {
        let (memory, done) = (Memory::new(), Executed::default());
        Self { arch, budget: BUDGET, watched: false, memory, modules: Vec::new(), kernels: Vec::new(), allocated: 0, done }
    }

    /// With at most so many instructions per wave; more are a fault.
    pub fn with_budget(self, budget: u64) -> Self {
        Self { budget, ..self }
    }

    /// With the sanitizer from the beginning: what hardware may punish is a fault, too. It takes many times as long.
    pub fn sanitizing(self) -> Self {
        Self { watched: true, ..self }
    }

    /// With every buffer across a multiple of 4 GiB: addresses whose upper half is wrong are a fault. To be called before anything is
    /// allocated.
    pub fn straddling(self) -> Self {
        Self { memory: self.memory.straddling(), ..self }
    }

    fn fault(&self, error: EmulatorError) -> DeviceError {
        match error {
            EmulatorError::NoDisassembler(why) => DeviceError::Missing {
                what: format!("no LLVM library to decode instructions with ({why})"),
                advice: "on Debian: apt-get install libllvm22".to_owned(),
            },
            error @ EmulatorError::NoTarget { .. } => {
                DeviceError::Missing { what: error.to_string(), advice: "on Debian: apt-get install libllvm22".to_owned() }
            }
            error => DeviceError::Fault { device: self.describe(), what: error.to_string() },
        }
    }

    fn unmapped(&self, error: Unmapped) -> DeviceError {
        DeviceError::Internal(format!("{}: {error}", self.describe()))
    }
}

impl Driver for Emulator {
    fn describe(&self) -> String {
        format!("emu:{} (emulated)", self.arch())
    }
    fn arch(&self) -> &str {
        self.arch.name
    }
    fn memory(&self) -> Result<(u64, u64), DeviceError> {
        memory()
    }
    fn allocated(&self) -> u64 {
        self.allocated
    }
    fn alloc(&mut self, bytes: u64) -> Result<DevicePtr, DeviceError> {
        let (free, _) = memory()?;
        if bytes > free {
            return Err(DeviceError::OutOfMemory { device: self.describe(), bytes, what: "a buffer".to_owned(), free });
        }
        self.allocated += bytes;
        // The contract of drivers, which kernels rely on for their counters.
        Ok(self.memory.allocate(bytes))
    }
    fn forget(&mut self, from: DevicePtr, bytes: u64) -> Result<(), DeviceError> {
        if self.watched { self.memory.undefine(from, bytes).map_err(|e| self.unmapped(e)) } else { Ok(()) }
    }
    fn upload(&mut self, to: DevicePtr, bytes: &[u8]) -> Result<(), DeviceError> {
        self.memory.write(to, bytes).map_err(|e| self.unmapped(e))
    }
    fn watch(&mut self, on: bool) {
        self.watched = on;
    }
    fn download(&mut self, from: DevicePtr, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.memory.read(from, bytes).map_err(|e| self.unmapped(e))
    }
    fn load(&mut self, module: &[u8], kernels: &[&str]) -> Result<Vec<u64>, DeviceError> {
        let module = Module::load(module).map_err(|e| self.fault(e))?;
        if module.arch().name != self.arch() {
            return Err(DeviceError::NoCode { device: self.arch().to_owned(), has: module.arch().name.to_owned() });
        }
        let first = self.kernels.len() as u64;
        for &name in kernels {
            module.kernel(name).map_err(|e| self.fault(e))?;
            self.kernels.push((self.modules.len(), name.to_owned()));
        }
        self.modules.push(module);
        Ok((first..self.kernels.len() as u64).collect())
    }
    fn launch(&mut self, launch: KernelLaunch<'_>) -> Result<(), DeviceError> {
        let known = usize::try_from(launch.kernel).ok().and_then(|k| self.kernels.get(k));
        let Some((module, name)) = known else {
            return Err(DeviceError::Internal(format!("{}: kernel {} isn't loaded", self.describe(), launch.kernel)));
        };
        let dispatch = Dispatch {
            kernel: name,
            grid: launch.grid,
            workgroup: [launch.threads, 1, 1],
            dynamic_lds: 0,
            kernarg: launch.kernargs,
        };
        let extent = |o: &Operand| Extent { address: o.address, bytes: o.bytes, writable: o.writable };
        let extents: Vec<Extent> = launch.operands.iter().map(extent).collect();
        let extents = Some(&extents[..]).filter(|e| !e.is_empty());
        let options = Options { budget: self.budget, sanitize: self.watched, extents, ..Options::default() };
        let report = self.modules[*module].run(&dispatch, &self.memory, &options).map_err(|e| self.fault(e))?;
        self.done.instructions += report.instructions;
        self.done.lane_instructions += report.lane_instructions;
        if let Some(finding) = report.findings.first() {
            let more = match report.findings.len() {
                1 => String::new(),
                n => format!("\n  and {} more of this launch", n - 1),
            };
            return Err(DeviceError::Fault { device: self.describe(), what: format!("the sanitizer: {finding}{more}") });
        }
        Ok(())
    }
    fn executed(&self) -> Option<Executed> {
        Some(self.done)
    }
    fn sync(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }
}
