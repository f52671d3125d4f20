//! Ctrl-C: work that can end cleanly is asked to, everything else ends at once.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Exit code of a process that was interrupted: 128 + SIGINT, as shells count.
pub const EXIT_CODE: u8 = 130;

/// Nobody looks at the flag: Ctrl-C ends the process.
const IDLE: u8 = 0;
/// Somebody looks at it.
const LISTENING: u8 = 1;
/// Somebody was asked to end, and may take its time; a second Ctrl-C does not wait for it.
const ASKED: u8 = 2;

/// Watches for Ctrl-C (and SIGTERM, SIGHUP) from its making on.
#[derive(Clone, Debug)]
pub struct Interrupts {
    /// One of the above. Only one value decides what a Ctrl-C means: of two, the other side may change the second in between.
    state: Arc<AtomicU8>,
    asked: Arc<AtomicBool>,
}

impl Interrupts {
    /// Begins to watch; once per process.
    pub fn watch() -> Self {
        let interrupts = Self { state: Arc::new(AtomicU8::new(IDLE)), asked: Arc::default() };
        let seen = interrupts.clone();
        // Without a handler Ctrl-C just ends the process, which leaves nothing half-written either.
        let _ = ctrlc::set_handler(move || {
            if !seen.ask() {
                if std::io::stderr().is_terminal() {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_has_left_does_not_turn_its_own_interrupt_into_an_exit() {
        // The listener leaves as soon as it sees the flag, while the handler is still running.
        for _ in 0..2_000 {
            let interrupts = Interrupts { state: Arc::new(AtomicU8::new(IDLE)), asked: Arc::default() };
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
        let interrupts = Interrupts { state: Arc::new(AtomicU8::new(IDLE)), asked: Arc::default() };
        assert!(!interrupts.ask());
        assert!(!interrupts.listen().load(Ordering::SeqCst));
        assert!(interrupts.ask() && !interrupts.ask());
        interrupts.leave();
        assert!(!interrupts.ask());
    }
}
