//! What a person at a terminal meets, and Ctrl-C. Terminals are made by `script` (util-linux).

use crate::common::{ANSWER, QUESTION, bundles, hipfire, text};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// A command in a terminal of its own.
struct Terminal {
    child: Child,
    output: Receiver<Vec<u8>>,
    seen: String,
    /// How much of `seen` has been waited for.
    passed: usize,
}

impl Terminal {
    /// `None`, with a line that says so, without `script`.
    fn start(args: &str, environment: &[(&str, &str)]) -> Option<Self> {
        // `script` runs `$SHELL -c`. Without `exec` some shells (dash) stay in between, and a Ctrl-C, which goes to all of the
        // terminal, becomes their exit code.
        Self::run(&format!("exec {} {args}", env!("CARGO_BIN_EXE_hipfire-run")), environment)
    }

    /// With a shell around it, which begins with the process's number and ends with the settings of the terminal.
    fn watched(args: &str) -> Option<Self> {
        let exec = format!("echo process $$ begins; exec {} {args}", env!("CARGO_BIN_EXE_hipfire-run"));
        Self::run(&format!("trap : INT; sh -c '{exec}'; code=$?; stty -a; exit $code"), &[])
    }

    fn run(command: &str, environment: &[(&str, &str)]) -> Option<Self> {
        // A container may have no pseudo-terminals.
        let tried = Command::new("script").args(["-qec", "true", "/dev/null"]).stdin(Stdio::null()).output();
        if !tried.is_ok_and(|t| t.status.success()) {
            println!("skipped: `script` isn't installed, or there are no terminals to be had");
            return None;
        }
        let mut child = Command::new("script")
            .args(["-qec", command, "/dev/null"])
            .current_dir(bundles().folder.path())
            .env_remove("NO_COLOR")
            .env("TERM", "xterm")
            .env("SHELL", "/bin/sh")
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, output) = channel();
        let mut stdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = stdout.read(&mut buffer) {
                if sender.send(buffer[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        Some(Self { child, output, seen: String::new(), passed: 0 })
    }

    fn receive(&mut self, wait: Duration) -> bool {
        let piece = self.output.recv_timeout(wait);
        piece.is_ok_and(|bytes| {
            self.seen += &String::from_utf8_lossy(&bytes);
            true
        })
    }

    /// Waits for a text behind the last one.
    fn expect(&mut self, text: &str) -> &mut Self {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(at) = self.seen[self.passed..].find(text) {
                self.passed += at + text.len();
                return self;
            }
            assert!(self.receive(end.saturating_duration_since(Instant::now())), "no {text:?} in\n{}", &self.seen[self.passed..]);
        }
    }

    fn type_in(&mut self, text: &str) -> &mut Self {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
        self
    }

    /// Ends the watched process as `kill` does.
    fn terminate(&mut self) -> &mut Self {
        let number = self.seen.split_once("process ").and_then(|(_, rest)| rest.split_once(" begins")).unwrap().0;
        kill_process(Pid::from_raw(number.parse().unwrap()).unwrap(), Signal::TERM).unwrap();
        self
    }

    /// The watched process has ended like this, and the terminal is as terminals are.
    fn ends_sane(self, expected: i32) {
        let (seen, code) = self.end();
        assert_eq!(code, Some(expected), "{seen}");
        let settings: Vec<&str> = seen.rsplit_once("speed ").unwrap().1.split([' ', ';', '\r', '\n']).collect();
        for setting in ["icanon", "echo", "isig", "icrnl", "opost", "iexten"] {
            assert!(settings.contains(&setting), "no {setting} in {settings:?}");
        }
        // What is pasted isn't marked.
        let (on, off) = (seen.matches("\x1b[?2004h").count(), seen.matches("\x1b[?2004l").count());
        assert!(on > 0 && on == off, "{on} {off}: {seen:?}");
    }

    /// Everything that was printed, and the exit code.
    fn end(mut self) -> (String, Option<i32>) {
        while self.receive(Duration::from_secs(60)) {}
        (self.seen, self.child.wait().unwrap().code())
    }
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let args = format!("plan.bin --chat -p '{QUESTION}' --device cpu");
    let Some(terminal) = Terminal::start(&args, &[]) else { return };
    let (seen, code) = terminal.end();
    assert_eq!(code, Some(0), "{seen}");
    assert!(seen.contains(ANSWER) && seen.contains("\x1b[2mprompt "), "{seen:?}");
    let Some(terminal) = Terminal::start(&args, &[("NO_COLOR", "1")]) else { return };
    assert!(!terminal.end().0.contains('\x1b'));
    let Some(terminal) = Terminal::start("doctor", &[]) else { return };
    assert!(terminal.end().0.contains("✓"));
}

#[test]
fn talks_until_the_person_leaves() {
    let Some(mut terminal) = Terminal::start("plan.bin --device cpu", &[]) else { return };
    terminal.expect("192 tokens of context").expect("> ").type_in(&format!("{QUESTION}\r"));
    terminal.expect(ANSWER).expect("prompt 20 tokens").expect("> ").type_in("Explain `Arc::clone`.\r");
    // Of the second turn, the cache lacks the end of the first answer and the question.
    terminal.expect("Makes a clone of the `Arc` pointer.").expect("prompt 19 tokens").expect("> ").type_in("/wat\r");
    terminal.expect("no command /wat").expect("> ").type_in(&format!("{}\r", "and ".repeat(200)));
    terminal.expect("the context 192; /reset").expect("> ").type_in("/reset\r");
    terminal.expect("new conversation").expect("> ").type_in("dropped\x03");
    terminal.expect("> ").type_in(&format!("{QUESTION}\r"));
    // Of the first conversation, the beginning of the template is still in the cache.
    terminal.expect(ANSWER).expect("prompt 1 token,").expect("> ").type_in("\x04");
    assert_eq!(terminal.end().1, Some(0));
}

#[test]
fn ctrl_c_ends_an_answer_not_the_conversation() {
    let Some(mut terminal) = Terminal::start("plan.bin --exact", &[]) else { return };
    terminal.expect("> ").type_in(&format!("{QUESTION}\r")).expect("Removes").type_in("\x03");
    terminal.expect("interrupted").expect("> ").type_in("/exit\r");
    assert_eq!(terminal.end().1, Some(0));
    // Once more, of an answer that nobody can continue.
    let Some(mut terminal) = Terminal::start(&format!("plan.bin --exact --chat -p '{QUESTION}'"), &[]) else { return };
    terminal.expect("Removes").type_in("\x03").expect("interrupted");
    assert_eq!(terminal.end().1, Some(130));
}

#[test]
fn the_terminal_is_left_as_it_was() {
    let question = format!("{QUESTION}\r");
    // At the prompt.
    let Some(mut terminal) = Terminal::watched("plan.bin --device cpu") else { return };
    terminal.expect("> ").type_in("half a line").expect("line").terminate();
    terminal.ends_sane(130);
    let Some(mut terminal) = Terminal::watched("plan.bin --device cpu") else { return };
    terminal.expect("> ").type_in("half a line\x03").expect("> ").type_in("/exit\r");
    terminal.ends_sane(0);
    // While it answers: the first one ends the answer, the next one finds the prompt.
    let Some(mut terminal) = Terminal::watched("plan.bin --exact") else { return };
    terminal.expect("> ").type_in(&question).expect("Removes").terminate();
    terminal.expect("interrupted").expect("> ").terminate();
    terminal.ends_sane(130);
    let Some(mut terminal) = Terminal::watched("plan.bin --exact") else { return };
    terminal.expect("> ").type_in(&question).expect("Removes").type_in("\x03");
    terminal.expect("interrupted").expect("> ").type_in("\x04");
    terminal.ends_sane(0);
}

fn interrupt(child: &Child) {
    kill_process(Pid::from_raw(child.id().try_into().unwrap()).unwrap(), Signal::INT).unwrap();
}

#[test]
fn an_interrupted_answer_is_closed_properly() {
    let command = || {
        let mut command = hipfire(["plan.bin", "--exact", "--chat", "-p", QUESTION]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let mut child = command().spawn().unwrap();
    let mut begin = [0; 7];
    child.stdout.as_mut().unwrap().read_exact(&mut begin).unwrap();
    interrupt(&child);
    let run = child.wait_with_output().unwrap();
    let (out, err) = text(&run);
    assert_eq!((run.status.code(), &begin), (Some(130), b"Removes"), "{err}");
    assert!(out.ends_with('\n') && err.ends_with("| interrupted\n") && !err.contains("error"), "{err}");
}

#[test]
fn interrupted_logits_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let ids = folder.path().join("ids");
    fs::write(&ids, "7 ".repeat(190)).unwrap();
    let mut command = hipfire(["logits", "plan.bin", "--exact", "--step", "--tokens"]);
    let child = command.arg(&ids).arg("--out").arg(folder.path().join("o.npy")).stderr(Stdio::piped()).spawn().unwrap();
    // The temporary file shows that work has begun.
    let end = Instant::now() + Duration::from_secs(60);
    while fs::read_dir(folder.path()).unwrap().count() < 2 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(300));
    interrupt(&child);
    let run = child.wait_with_output().unwrap();
    let (_, err) = text(&run);
    assert_eq!(run.status.code(), Some(130), "{err}");
    assert!(err.contains("o.npy was not written"), "{err}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
