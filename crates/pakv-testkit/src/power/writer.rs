//! A child process that writes to a store and says through a pipe what was acknowledged.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// A child and its lines, which are read as they come; it does not outlive this value.
#[derive(Debug)]
pub struct Writer {
    child: Child,
    lines: Receiver<String>,
    errors: Option<JoinHandle<String>>,
}

impl Writer {
    /// Starts it. Its standard output is the pipe.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let stdout = child.stdout.take().expect("its output is piped");
        let mut stderr = child.stderr.take().expect("its errors are piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let errors = std::thread::spawn(move || {
            let mut said = Vec::new();
            let _ = stderr.read_to_end(&mut said);
            String::from_utf8_lossy(&said).into_owned()
        });
        Self { child, lines, errors: Some(errors) }
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line; `None` once the child has ended.
    pub fn line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(Duration::from_secs(60)) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the child says nothing for a minute"),
        }
    }

    /// The lines that have come and were not read yet.
    pub fn lines_so_far(&mut self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_some()
    }

    /// Ends it with SIGKILL, unless it ended before.
    pub fn kill(mut self) -> Ended {
        self.child.kill().expect("the child can be killed");
        self.wait()
    }

    /// Waits for its end and returns the lines that were not read yet.
    pub fn wait(mut self) -> Ended {
        let status = self.child.wait().expect("the child has ended");
        let errors = self.errors.take().expect("taken here only").join();
        Ended { status, lines: self.lines.iter().collect(), errors: errors.unwrap_or_default() }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is left of a [`Writer`].
#[derive(Debug)]
pub struct Ended {
    status: ExitStatus,
    /// Its last lines.
    pub lines: Vec<String>,
    /// What it printed to standard error.
    pub errors: String,
}

impl Ended {
    /// Whether it ended as a writer may whose file system is gone: killed by us, with a typed error
    /// of the store, or with SIGBUS, which is what reading a mapped file becomes when the disk
    /// fails under it and is documented at `FileAccess::Mapped`.
    ///
    /// `copied`: appends were copies in memory. When such a page cannot be written the kernel drops
    /// it, and who reads what stood there finds damage.
    pub fn is_legal(&self, copied: bool) -> Result<(), String> {
        let typed = ["Error: Io {", "Error: Poisoned {", "Error: Corrupt {"];
        let typed = if copied { &typed[..] } else { &typed[..2] };
        let legal = match (self.status.signal(), self.status.code()) {
            (Some(signal), _) => signal == libc::SIGKILL || signal == libc::SIGBUS,
            (None, Some(1)) => typed.iter().any(|start| self.errors.starts_with(start)),
            _ => false,
        };
        if legal { Ok(()) } else { Err(format!("the child: {}, {}", self.status, self.errors)) }
    }

    /// The signal that ended it.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// Whether it returned from its main function without an error.
    pub fn succeeded(&self) -> bool {
        self.status.success()
    }
}
