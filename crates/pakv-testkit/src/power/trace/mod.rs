//! The order of the system calls of a writing child, as `strace` saw it, and the rules it must
//! keep. They hold for the process as a whole, whatever code made the calls: a write that went past
//! the engine's storage layer would show here and nowhere else.

mod parse;
mod rules;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::mount::Refusal;
use super::writer::{Ended, Writer};
use crate::files;

pub use parse::{Call, Trace};
pub use rules::{Looked, check};

/// The calls that the rules speak of.
const CALLS: &str = "trace=openat,open,creat,write,writev,pwrite64,pwritev,pwritev2,ftruncate,\
    fallocate,sync_file_range,msync,sync,syncfs,fsync,fdatasync,rename,renameat,renameat2,link,\
    linkat,unlink,unlinkat";

/// A child and the `strace` that looks at it.
#[derive(Debug)]
pub struct Traced {
    /// The child, not the tracer.
    pub writer: Writer,
    output: PathBuf,
    _scratch: tempfile::TempDir,
}

impl Traced {
    /// Starts a program under `strace`, with more options of that, such as faults to inject.
    ///
    /// # Errors
    /// Where there is no `strace`, or it may not trace.
    pub fn start(program: &Path, options: &[&str], args: &[String]) -> Result<Self, Refusal> {
        can_trace()?;
        let scratch = files::scratch();
        let output = scratch.path().join("trace");
        let mut command = Command::new("strace");
        // The tracer is the grandchild, so that what is killed is the child itself.
        command
            .args(["-D", "-f", "-q", "-y", "-a", "1", "-s", "1048576", "-e", CALLS])
            .args(options);
        command.arg("-o").arg(&output).arg("--").arg(program).args(args);
        Ok(Self { writer: Writer::start(&mut command), output, _scratch: scratch })
    }

    /// Kills the child, unless it ended before, and reads the trace.
    pub fn kill(self) -> (Ended, String) {
        let id = self.writer.id();
        let ended = self.writer.kill();
        // The tracer hears of the end on its own and may still be writing.
        let started = Instant::now();
        loop {
            let text = String::from_utf8_lossy(&files::read(&self.output)).into_owned();
            let last = text.lines().rev().find(|line| line.contains(" +++ "));
            if last.is_some_and(|line| line.starts_with(&format!("{id} "))) {
                return (ended, text);
            }
            assert!(started.elapsed() < Duration::from_secs(20), "the trace does not end: {text}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn can_trace() -> Result<(), Refusal> {
    let tried = Command::new("strace")
        .args(["-D", "-q", "-o", "/dev/null", "true"])
        .stdin(Stdio::null())
        .output();
    match tried {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(Refusal::new(String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Refusal::new("strace is not installed"))
        }
        Err(error) => Err(Refusal::new(format!("strace: {error}"))),
    }
}
