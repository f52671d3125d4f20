//! Compilers as children: a bounded number at once, each with its own process group so that it can be killed whole.
//!
//! clang's driver starts further processes (the front end, lld); killing the driver alone would leave them running.

use super::ToolchainError;
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::{self, Read};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Messages beyond this are read and thrown away.
const MAX_MESSAGES: u64 = 256 << 10;

/// Ends a [`super::Toolchain`]'s compilers from another thread; what they were compiling fails with
/// [`ToolchainError::Interrupted`] and its temporary files are removed as the callers unwind.
#[derive(Clone, Debug)]
pub struct Interrupter(Arc<Children>);

impl Interrupter {
    pub(super) fn new(children: Arc<Children>) -> Self {
        Self(children)
    }

    /// Kills the running compilers and lets no further one start. For good.
    pub fn interrupt(&self) {
        let mut state = self.0.lock();
        state.interrupted = true;
        for &group in &state.running {
            kill(group);
        }
        drop(state);
        self.0.freed.notify_all();
    }
}

/// The children of one driver.
#[derive(Debug)]
pub(super) struct Children {
    state: Mutex<State>,
    freed: Condvar,
    most: usize,
}

#[derive(Debug, Default)]
struct State {
    running: Vec<Pid>,
    interrupted: bool,
}

/// How a child ended.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) stderr: String,
}

/// Why a child didn't run.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error("interrupted")]
    Interrupted,
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl RunError {
    pub(super) fn into_toolchain(self, program: &Path) -> ToolchainError {
        match self {
            Self::Interrupted => ToolchainError::Interrupted,
            Self::Io(e) => ToolchainError::io("run", program, e),
        }
    }
}

impl Children {
    /// As many at once as there are cores.
    pub(super) fn new() -> Self {
        let most = thread::available_parallelism().map_or(1, usize::from);
        Self { state: Mutex::default(), freed: Condvar::new(), most }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn interrupted(&self) -> bool {
        self.lock().interrupted
    }

    /// Runs a command, keeping what it writes to stderr.
    pub(super) fn run(&self, mut command: Command) -> Result<Ended, RunError> {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut running = self.start(command)?;
        let stderr = read(running.child.stderr.take());
        Ok(Ended { status: running.wait()?, stderr: stderr? })
    }

    /// Runs a command that must succeed, and returns what it writes to stdout.
    pub(super) fn output(&self, mut command: Command) -> Result<String, RunError> {
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut running = self.start(command)?;
        let stdout = read(running.child.stdout.take());
        let status = running.wait()?;
        if !status.success() {
            return Err(io::Error::other(status.to_string()).into());
        }
        Ok(stdout?)
    }

    /// Waits for a free core and starts the command.
    fn start(&self, mut command: Command) -> Result<Running<'_>, RunError> {
        command.stdin(Stdio::null()).process_group(0);
        let mut state = self.lock();
        while state.running.len() >= self.most && !state.interrupted {
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.interrupted {
            return Err(RunError::Interrupted);
        }
        // Under the lock, so that an interruption either sees the child or comes before it.
        let child = command.spawn()?;
        let group = Pid::from_child(&child);
        state.running.push(group);
        Ok(Running { child, group, children: self, ended: false })
    }
}

/// A running child; killed with its group and reaped if it is dropped early.
struct Running<'a> {
    child: Child,
    group: Pid,
    children: &'a Children,
    ended: bool,
}

impl Running<'_> {
    /// Its pipe is closed, so it is about to end. The number is freed under the lock: nobody is killed in its place.
    fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            let mut state = self.children.lock();
            if let Some(status) = self.child.try_wait()? {
                state.running.retain(|&group| group != self.group);
                self.ended = true;
                drop(state);
                self.children.freed.notify_one();
                return Ok(status);
            }
            drop(state);
            thread::sleep(Duration::from_micros(200));
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.ended {
            kill(self.group);
            // Nothing is left to do about a child that can't be reaped.
            let _ = self.wait();
        }
    }
}

fn kill(group: Pid) {
    // It may have ended already.
    let _ = kill_process_group(group, Signal::KILL);
}

fn read(pipe: Option<impl Read>) -> io::Result<String> {
    let Some(mut pipe) = pipe else { return Ok(String::new()) };
    let mut bytes = Vec::new();
    pipe.by_ref().take(MAX_MESSAGES).read_to_end(&mut bytes)?;
    io::copy(&mut pipe, &mut io::sink())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
