//! A unit as an executable with sanitizers, in a process of its own.

use super::{ModuleFile, Order, memory};
use crate::device::{DeviceError, DevicePtr, Driver, KernelLaunch};
use std::io::{self, BufWriter, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

#[derive(Clone, Copy)]
enum Kind {
    Alloc = 1,
    Upload = 2,
    Download = 3,
    Find = 4,
    Launch = 5,
    End = 6,
}

struct Request<'a> {
    kind: Kind,
    a: u64,
    b: u64,
    grid: [u32; 3],
    threads: u32,
    extra: &'a [u8],
}

impl<'a> Request<'a> {
    fn new(kind: Kind, a: u64, b: u64) -> Self {
        Self { kind, a, b, grid: [0; 3], threads: 0, extra: &[] }
    }
    fn head(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(40);
        let u32s = |head: &mut Vec<u8>, all: &[u32]| head.extend(all.iter().flat_map(|v| v.to_le_bytes()));
        u32s(&mut head, &[self.kind as u32, self.extra.len() as u32]);
        head.extend(self.a.to_le_bytes());
        head.extend(self.b.to_le_bytes());
        u32s(&mut head, &self.grid);
        u32s(&mut head, &[self.threads]);
        head
    }
}

struct Running {
    child: Child,
    input: BufWriter<ChildStdin>,
    output: ChildStdout,
    /// Collects what the process prints on stderr.
    report: Option<JoinHandle<String>>,
    _file: ModuleFile,
}

/// Executes kernels in a child process whose sanitizers watch every access. Memory can be allocated once a module is loaded.
#[derive(Default)]
pub struct HostProcess {
    running: Option<Running>,
    order: Order,
    allocated: u64,
}

impl std::fmt::Debug for HostProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let id = self.running.as_ref().map(|r| r.child.id());
        f.debug_struct("HostProcess").field("order", &self.order).field("child", &id).finish_non_exhaustive()
    }
}

impl HostProcess {
    /// A device without a process yet; workgroups will run in this order.
    pub fn new(order: Order) -> Self {
        Self { running: None, order, allocated: 0 }
    }

    /// Ends the process; an error if it leaked memory or found anything at its end.
    ///
    /// # Errors
    /// [`DeviceError::Fault`] with the sanitizer's report.
    pub fn finish(mut self) -> Result<(), DeviceError> {
        if self.running.is_none() {
            return Ok(());
        }
        self.ask(&Request::new(Kind::End, 0, 0), &[], &mut [])?;
        match self.running.take().map(wait) {
            Some((true, _)) | None => Ok(()),
            Some((false, report)) => Err(self.fault(report)),
        }
    }

    fn fault(&self, what: String) -> DeviceError {
        DeviceError::Fault { device: self.describe(), what }
    }

    /// One request and its answer; `send` follows the request, `receive` the answer.
    fn ask(&mut self, request: &Request<'_>, send: &[u8], receive: &mut [u8]) -> Result<u64, DeviceError> {
        let Some(running) = &mut self.running else {
            return Err(DeviceError::Internal("host process: no module is loaded".to_owned()));
        };
        match exchange(running, request, send, receive) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err((2, message))) => Err(DeviceError::OutOfMemory {
                device: self.describe(),
                bytes: request.a,
                what: message,
                free: memory().map_or(0, |(free, _)| free),
            }),
            Ok(Err((_, message))) => Err(self.fault(message)),
            Err(error) => {
                let (_, report) = self.running.take().map(wait).unwrap_or_default();
                Err(self.fault(if report.is_empty() { format!("the process ended: {error}") } else { report }))
            }
        }
    }
}

type Answer = Result<u64, (u32, String)>;

fn exchange(running: &mut Running, request: &Request<'_>, send: &[u8], receive: &mut [u8]) -> io::Result<Answer> {
    running.input.write_all(&request.head())?;
    running.input.write_all(request.extra)?;
    running.input.write_all(send)?;
    running.input.flush()?;
    let mut head = [0; 16];
    running.output.read_exact(&mut head)?;
    let [status, length] = [0, 4].map(|i| u32::from_le_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]));
    let value = head[8..].iter().rev().fold(0, |v, &b| v << 8 | u64::from(b));
    let mut message = vec![0; length as usize];
    running.output.read_exact(&mut message)?;
    if status != 0 {
        return Ok(Err((status, String::from_utf8_lossy(&message).into_owned())));
    }
    running.output.read_exact(receive)?;
    Ok(Ok(value))
}

/// Waits for the end; whether it was good, and what was printed.
fn wait(running: Running) -> (bool, String) {
    let Running { mut child, input, output, report, .. } = running;
    drop((input, output));
    let good = child.wait().is_ok_and(|status| status.success());
    (good, report.and_then(|r| r.join().ok()).unwrap_or_default())
}

/// Starts the file. A file just written may count as busy while another thread's child has a copy of our descriptor.
fn start(file: &ModuleFile) -> io::Result<Child> {
    let mut tries = 0;
    loop {
        let started = Command::new(file.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        match started {
            Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy && tries < 100 => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

impl Driver for HostProcess {
    fn describe(&self) -> String {
        "host (x86-64, sanitized process)".to_owned()
    }
    fn arch(&self) -> &str {
        "host"
    }
    fn memory(&self) -> Result<(u64, u64), DeviceError> {
        memory()
    }
    fn allocated(&self) -> u64 {
        self.allocated
    }
    fn alloc(&mut self, bytes: u64) -> Result<DevicePtr, DeviceError> {
        let at = self.ask(&Request::new(Kind::Alloc, bytes, 0), &[], &mut [])?;
        self.allocated += bytes;
        Ok(at)
    }
    fn upload(&mut self, to: DevicePtr, bytes: &[u8]) -> Result<(), DeviceError> {
        self.ask(&Request::new(Kind::Upload, to, bytes.len() as u64), bytes, &mut []).map(drop)
    }
    fn download(&mut self, from: DevicePtr, bytes: &mut [u8]) -> Result<(), DeviceError> {
        let request = Request::new(Kind::Download, from, bytes.len() as u64);
        self.ask(&request, &[], bytes).map(drop)
    }
    fn load(&mut self, module: &[u8], kernels: &[&str]) -> Result<Vec<u64>, DeviceError> {
        let file = ModuleFile::write(module)?;
        let failed = |e: io::Error| DeviceError::Internal(format!("the unit can't be started: {e}"));
        let mut child = start(&file).map_err(failed)?;
        let (Some(input), Some(output), Some(mut errors)) = (child.stdin.take(), child.stdout.take(), child.stderr.take()) else {
            return Err(DeviceError::Internal("the unit was started without pipes".to_owned()));
        };
        let report = std::thread::spawn(move || {
            let mut text = Vec::new();
            // What came before an error is worth as much.
            let _ = errors.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        self.running = Some(Running { child, input: BufWriter::new(input), output, report: Some(report), _file: file });
        let find = |name: &&str| {
            let request = Request { extra: name.as_bytes(), ..Request::new(Kind::Find, 0, 0) };
            self.ask(&request, &[], &mut []).map_err(|e| DeviceError::Internal(format!("kernel {name}: {e}")))
        };
        kernels.iter().map(find).collect()
    }
    fn launch(&mut self, launch: KernelLaunch<'_>) -> Result<(), DeviceError> {
        let KernelLaunch { kernel, grid, threads, kernargs, .. } = launch;
        let order = u64::from(self.order.code());
        let request = Request { grid, threads, extra: kernargs, ..Request::new(Kind::Launch, kernel, order) };
        self.ask(&request, &[], &mut []).map(drop)
    }
    fn sync(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }
}

impl Drop for HostProcess {
    fn drop(&mut self) {
        // The end of its input ends the process.
        if let Some(running) = self.running.take() {
            wait(running);
        }
    }
}
