//! Building and running tests of this workspace in another way than the running program was: with a
//! sanitizer, or on another scheduler. Each way has a target directory of its own, so that nobody
//! builds twice for it.

use std::io;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// What a run of cargo printed, and how it ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A cargo command in the workspace: builds for this machine, with `flags` for the compiler, into
/// the directory `name` beside the usual one.
///
/// # Errors
/// Where `rustc` cannot be asked what machine this is.
pub fn command(name: &str, verb: &str, flags: &str) -> io::Result<Command> {
    let workspace = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(workspace.join("target"), Into::into);
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.current_dir(workspace).arg(verb).arg("--target-dir").arg(target.join(name));
    // With a target named, the flags do not reach build scripts and macros.
    command.arg("--target").arg(host()?).env("RUSTFLAGS", flags);
    Ok(command)
}

/// Runs it to the end.
///
/// # Errors
/// Where it cannot be started.
pub fn run(command: &mut Command) -> io::Result<Ran> {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Ran { code: status.code(), stdout: text(stdout), stderr: text(stderr) })
}

impl Ran {
    /// How many tests passed, over all test programs.
    pub fn passed(&self) -> u64 {
        let results = self.stdout.lines().filter_map(|line| line.strip_prefix("test result: "));
        let passed = results.filter_map(|line| line.split_once(" passed")?.0.rsplit(' ').next());
        passed.filter_map(|count| count.parse::<u64>().ok()).sum()
    }
}

fn host() -> io::Result<String> {
    let Output { stdout, .. } = Command::new("rustc").arg("-vV").output()?;
    let text = String::from_utf8_lossy(&stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_string).ok_or_else(|| io::Error::other("rustc does not tell its host"))
}
