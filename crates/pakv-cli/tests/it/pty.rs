//! The shell as a person meets it: the real binary on a pseudo-terminal, keys in, screen out.
//!
//! A test only ever sends keys after it saw the prompt, so that nothing is typed into a terminal
//! that is not in raw mode yet; and it waits for text with a limit far beyond what a slow machine
//! needs, so that only a wrong shell fails.

use std::io::{Read, Write};
use std::process::Child;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use pty_process::blocking::{Command, Pty};

use crate::kit::Sandbox;

const LIMIT: Duration = Duration::from_secs(30);
const PROMPT: &str = "pakv> ";
const UP: &str = "\x1b[A";
const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";

impl Sandbox {
    /// Opens the shell and waits for its first prompt.
    fn shell_on_a_terminal(&self) -> Terminal {
        let mut terminal = self.on_a_terminal(&["shell"]);
        terminal.expect(PROMPT);
        terminal
    }

    fn on_a_terminal(&self, args: &[&str]) -> Terminal {
        let mut command = self.pakv(args);
        command.env("TERM", "xterm").env("XDG_STATE_HOME", self.path("state"));
        Terminal::spawn(command)
    }
}

struct Terminal {
    pty: Arc<Pty>,
    child: Child,
    output: Receiver<Vec<u8>>,
    raw: Vec<u8>,
    /// All output as text, without escape sequences and carriage returns.
    screen: String,
    /// How much of `screen` was expected already.
    seen: usize,
}

impl Terminal {
    fn spawn(command: std::process::Command) -> Self {
        let (pty, pts) = pty_process::blocking::open().unwrap();
        pty.resize(pty_process::Size::new(24, 100)).unwrap();
        let child = Command::from(command).spawn(pts).unwrap();
        let pty = Arc::new(pty);
        let (sender, output) = channel();
        let reader = Arc::clone(&pty);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Reading fails once the shell has left its terminal.
            while let Ok(count @ 1..) = (&*reader).read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { pty, child, output, raw: Vec::new(), screen: String::new(), seen: 0 }
    }

    fn send(&mut self, keys: &str) {
        (&*self.pty).write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until `text` appears past all that was expected before.
    fn expect(&mut self, text: &str) {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(at) = self.screen[self.seen..].find(text) {
                self.seen += at + text.len();
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => {
                    self.raw.extend(bytes);
                    self.screen = printed(&self.raw);
                }
                Err(error) => panic!("{text:?}: {error}; after:\n{}", self.screen),
            }
        }
    }

    /// Types a line and waits for the prompt after it; returns what was printed in between.
    fn line(&mut self, line: &str) -> String {
        self.send(line);
        self.expect(line);
        self.send("\r");
        self.expect("\n");
        let start = self.seen;
        self.expect(PROMPT);
        self.screen[start..self.seen - PROMPT.len()].trim_end_matches('\n').to_owned()
    }

    /// Waits for the end of the process and returns its exit code.
    fn exit_code(mut self) -> i32 {
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.raw.extend(bytes),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(error) => panic!("no end: {error}; after:\n{}", printed(&self.raw)),
            }
        }
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A test that failed must not leave a shell behind; one that has ended does not mind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What terminal output prints: no escape sequences, no carriage returns, no bells.
fn printed(raw: &[u8]) -> String {
    let mut text = Vec::new();
    let mut bytes = raw.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            0x1b => {
                // Only control sequences occur: ESC [, parameters, and a final byte from @ to ~.
                bytes.next();
                bytes.by_ref().find(|byte| (0x40..=0x7e).contains(byte));
            }
            b'\r' | 0x07 => {}
            byte => text.push(byte),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn values_are_set_and_read_and_errors_do_not_end_the_session() {
    let sandbox = Sandbox::new();
    let mut shell = sandbox.shell_on_a_terminal();
    assert_eq!(shell.line("set greeting 'hello there'"), "");
    assert_eq!(shell.line("get greeting"), "hello there");
    assert!(shell.line("get nothing").contains("Key not found"));
    assert!(shell.line("frobnicate").contains("frobnicate"));
    assert!(shell.line("get 'open").contains("not closed"));
    assert!(shell.line("set photo -").contains("standard input"));
    assert_eq!(shell.line("get greeting"), "hello there");
    shell.send(".quit\r");
    assert_eq!(shell.exit_code(), 0);
}

#[test]
fn ctrl_c_abandons_the_line_and_ctrl_d_leaves() {
    let sandbox = Sandbox::new();
    let mut shell = sandbox.shell_on_a_terminal();
    shell.send("set a 1");
    shell.expect("set a 1");
    shell.send(CTRL_C);
    shell.expect(&format!("\n{PROMPT}"));
    assert!(shell.line("set b 2").is_empty());
    assert!(shell.line("get a").contains("Key not found"));
    shell.send(CTRL_D);
    assert_eq!(shell.exit_code(), 0);
}

#[test]
fn tab_completes_verbs_options_keys_and_dot_commands() {
    let sandbox = Sandbox::new();
    let mut shell = sandbox.shell_on_a_terminal();
    shell.line("set user:amelie 1");
    shell.line("set 'user:bo b' 2");
    shell.send("exis\t");
    shell.expect("exists ");
    shell.send("user:a\t");
    shell.expect("exists user:amelie ");
    shell.send(CTRL_C);
    shell.expect(&format!("\n{PROMPT}"));
    // One of the keys needs quotes, so what they have in common is quoted too.
    shell.send("get us\t");
    shell.expect("get 'user:");
    shell.send("b\t");
    shell.expect("get 'user:bo b' ");
    shell.send("\r");
    shell.expect(&format!("\n2\n{PROMPT}"));
    shell.send("scan --rev\t");
    shell.expect("scan --reverse ");
    shell.send(CTRL_C);
    shell.expect(&format!("\n{PROMPT}"));
    shell.send(".ti\ton\r");
    shell.expect(".timer on");
    shell.expect(&format!("\n{PROMPT}"));
    shell.send(CTRL_D);
    assert_eq!(shell.exit_code(), 0);
}

#[test]
fn the_history_outlives_the_session_and_is_private() {
    use std::os::unix::fs::PermissionsExt;

    let sandbox = Sandbox::new();
    let mut first = sandbox.shell_on_a_terminal();
    first.line("set kept 1");
    first.line(" set secret 2");
    first.send(CTRL_D);
    assert_eq!(first.exit_code(), 0);
    let mode = sandbox.path("state/pakv/history").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let mut second = sandbox.shell_on_a_terminal();
    second.send(UP);
    second.expect("set kept 1");
    second.send("2\r");
    second.expect(&format!("\n{PROMPT}"));
    assert_eq!(second.line("get kept"), "12");
    second.send(CTRL_D);
    assert_eq!(second.exit_code(), 0);
    let history = std::fs::read_to_string(sandbox.path("state/pakv/history")).unwrap();
    assert!(history.contains("set kept 12") && !history.contains("secret"), "{history}");
}

#[test]
fn the_timer_tells_how_long_a_line_took() {
    let sandbox = Sandbox::new();
    let mut shell = sandbox.shell_on_a_terminal();
    assert_eq!(shell.line("set a 1"), "");
    shell.line(".timer on");
    assert!(shell.line("set a 2").ends_with(" ms"));
    shell.line(".timer off");
    assert_eq!(shell.line("set a 3"), "");
    shell.send(CTRL_D);
    assert_eq!(shell.exit_code(), 0);
}

#[test]
fn pakv_alone_on_a_terminal_is_the_shell() {
    let sandbox = Sandbox::new();
    let mut shell = sandbox.on_a_terminal(&[]);
    shell.expect(PROMPT);
    assert!(shell.line("get a").contains("no store"));
    assert!(!sandbox.path("pakv-data").exists());
    assert_eq!(shell.line("set a 1"), "");
    assert_eq!(shell.line("get a"), "1");
    shell.send(CTRL_D);
    assert_eq!(shell.exit_code(), 0);
}

#[test]
fn a_value_without_a_line_end_is_not_overwritten_by_the_prompt() {
    let sandbox = Sandbox::new();
    let mut shell = sandbox.shell_on_a_terminal();
    shell.line("set a 1");
    shell.line(".mode raw");
    shell.send("get a\r");
    shell.expect(&format!("\n1\n{PROMPT}"));
    shell.send(CTRL_D);
    assert_eq!(shell.exit_code(), 0);
}

#[test]
fn a_question_is_asked_between_two_prompts() {
    let sandbox = Sandbox::new();
    let mut shell = sandbox.shell_on_a_terminal();
    shell.line("set user:1 Ann");
    shell.send("rm --prefix user:\r");
    shell.expect("[y/N] ");
    shell.send("n\r");
    shell.expect(PROMPT);
    assert_eq!(shell.line("get user:1"), "Ann");
    shell.send("rm --prefix user:\r");
    shell.expect("[y/N] ");
    shell.send("y\r");
    shell.expect(PROMPT);
    assert!(shell.line("get user:1").contains("Key not found"));
    shell.send(CTRL_D);
    assert_eq!(shell.exit_code(), 0);
}

#[test]
fn a_store_that_another_shell_holds_can_be_read() {
    let sandbox = Sandbox::new();
    let mut holder = sandbox.shell_on_a_terminal();
    holder.line("set a 1");
    let mut reader = sandbox.on_a_terminal(&["shell", "--wait", "0"]);
    reader.expect("in use");
    reader.expect(PROMPT);
    holder.line("set a 2");
    assert_eq!(reader.line("get a"), "2");
    assert!(reader.line("set a 3").contains("in use"));
    holder.send(CTRL_D);
    assert_eq!(holder.exit_code(), 0);
    assert_eq!(reader.line("set a 4"), "");
    assert_eq!(reader.line("get a"), "4");
    reader.send(CTRL_D);
    assert_eq!(reader.exit_code(), 0);
}

#[test]
fn a_shell_beside_a_holder_sees_what_the_holder_writes() {
    let sandbox = Sandbox::new();
    let mut holder = sandbox.shell_on_a_terminal();
    holder.line("set a 1");
    let mut reader = sandbox.on_a_terminal(&["shell", "--wait", "0"]);
    reader.expect("in use");
    reader.expect(PROMPT);
    for number in 2..5 {
        assert_eq!(holder.line(&format!("set a {number}")), "");
        assert_eq!(reader.line("get a"), number.to_string());
        let watched = reader.line(&format!("watch --from {number} --no-follow"));
        assert!(watched.ends_with(&format!("\"value\":\"{number}\"}}")), "{watched}");
    }
    // A compaction takes the files away that the reader has read.
    holder.line("compact");
    assert_eq!(reader.line("scan"), "a\t4");
}

#[test]
fn the_shell_outlives_a_new_window_size_and_a_dumb_terminal() {
    let sandbox = Sandbox::new();
    let mut shell = sandbox.shell_on_a_terminal();
    shell.pty.resize(pty_process::Size::new(10, 40)).unwrap();
    assert_eq!(shell.line("set a 1"), "");
    shell.send(CTRL_D);
    assert_eq!(shell.exit_code(), 0);

    let mut command = sandbox.pakv(["shell"]);
    command.env("TERM", "dumb");
    let mut dumb = Terminal::spawn(command);
    dumb.expect(PROMPT);
    assert_eq!(dumb.line("get a"), "1");
    assert!(!dumb.raw.contains(&0x1b));
    dumb.send(CTRL_D);
    assert_eq!(dumb.exit_code(), 0);
}
