//! Ctrl-C: work that can end cleanly is asked to, everything else ends at once.

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Exit code of a process that was interrupted: 128 + SIGINT, as shells count.
pub const EXIT_CODE: u8 = 130;

/// Nobody looks at the flag: Ctrl-C ends the process. The default.
const IDLE: u8 = 0;
/// Somebody looks at it.
const LISTENING: u8 = 1;
/// Somebody was asked to end, and may take its time; a second Ctrl-C does not wait for it.
const ASKED: u8 = 2;

/// Watches for Ctrl-C (and SIGTERM, SIGHUP) from its making on.
#[derive(Clone, Debug, Default)]
pub struct Interrupts {
    /// One of the above. Only one value decides what a Ctrl-C means: of two, the other side may change the second in between.
    state: Arc<AtomicU8>,
    asked: Arc<AtomicBool>,
    /// While a line is read: the terminal as it was before.
    terminal: Arc<Mutex<Option<Termios>>>,
}

impl Interrupts {
    /// Begins to watch; once per process.
    pub fn watch() -> Self {
        let interrupts = Self::default();
        let seen = interrupts.clone();
        // Without a handler Ctrl-C just ends the process, which leaves nothing half-written either.
        let _ = ctrlc::set_handler(move || {
            if !seen.ask() {
                seen.put_back();
                if io::stderr().is_terminal() {
                    // The next prompt of the shell shouldn't stand behind `^C`.
                    super::tell("");
                }
                std::process::exit(i32::from(EXIT_CODE));
            }
        });
        interrupts
    }

    /// Ctrl-C came: whether somebody will end in its own time.
    fn ask(&self) -> bool {
        let listened = self.state.compare_exchange(LISTENING, ASKED, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if listened {
            self.asked.store(true, Ordering::SeqCst);
        }
        listened
    }

    /// Whoever looks at the returned flag from time to time calls this first; a second Ctrl-C ends the process even so.
    pub fn listen(&self) -> &AtomicBool {
        self.asked.store(false, Ordering::SeqCst);
        self.state.store(LISTENING, Ordering::SeqCst);
        &self.asked
    }

    /// Nobody looks any more.
    pub fn leave(&self) {
        self.state.store(IDLE, Ordering::SeqCst);
    }

    /// Reads a line by an editor that takes the terminal out of its usual mode. If the process is ended meanwhile, the terminal is
    /// put back: the editor, in another thread, doesn't get to it.
    pub fn while_reading<T>(&self, read: impl FnOnce() -> T) -> T {
        self.set_terminal(tcgetattr(io::stdin()).ok());
        let line = read();
        self.set_terminal(None);
        line
    }

    fn set_terminal(&self, found: Option<Termios>) {
        *self.terminal.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }

    fn put_back(&self) {
        if let Some(found) = self.terminal.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Pasted text is no longer to be marked, which the editor has asked the terminal for.
            let _ = io::stdout().write_all(b"\x1b[?2004l").and_then(|()| io::stdout().flush());
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_has_left_does_not_turn_its_own_interrupt_into_an_exit() {
        // The listener leaves as soon as it sees the flag, while the handler is still running.
        for _ in 0..2_000 {
            let interrupts = Interrupts::default();
            interrupts.listen();
            let handler = interrupts.clone();
            let asked = std::thread::spawn(move || handler.ask());
            while !interrupts.asked.load(Ordering::SeqCst) {
                std::hint::spin_loop();
            }
            interrupts.leave();
            assert!(asked.join().unwrap());
        }
    }

    #[test]
    fn only_the_first_one_is_waited_for() {
        let interrupts = Interrupts::default();
        assert!(!interrupts.ask());
        assert!(!interrupts.listen().load(Ordering::SeqCst));
        assert!(interrupts.ask() && !interrupts.ask());
        interrupts.leave();
        assert!(!interrupts.ask());
    }
}
