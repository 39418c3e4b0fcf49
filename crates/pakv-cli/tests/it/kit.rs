//! A directory to run pakv in, and what a run of it gave. Nothing of the machine's environment gets
//! in.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// An empty directory, removed at the end, when the stores in it are checked.
pub(crate) struct Sandbox {
    directory: tempfile::TempDir,
    is_damaged: std::cell::Cell<bool>,
}

/// Nothing that a test did may have damaged a store.
impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking() || self.is_damaged.get() {
            return;
        }
        for manifest in find("MANIFEST", self.directory.path()) {
            let store = manifest.parent().unwrap();
            let report = pakv::check(store).unwrap();
            assert!(report.is_sound(), "{}: {:?}", store.display(), report.findings);
        }
    }
}

fn find(name: &str, directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let found = |entry: std::fs::DirEntry| match entry.file_type().unwrap() {
        kind if kind.is_dir() => find(name, &entry.path()),
        kind if kind.is_file() && entry.file_name() == name => vec![entry.path()],
        _ => Vec::new(),
    };
    entries.flat_map(found).collect()
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory, is_damaged: false.into() }
    }

    /// The test itself damages a store.
    pub(crate) fn will_be_damaged(&self) {
        self.is_damaged.set(true);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A command of any program, run in the sandbox, with `pakv` first in the search path.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let binary = Path::new(env!("CARGO_BIN_EXE_pakv"));
        let mut path = vec![binary.parent().unwrap().to_path_buf()];
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        let mut command = Command::new(program);
        command
            .current_dir(self.directory.path())
            .env_clear()
            .envs(measured())
            .env("PATH", std::env::join_paths(path).unwrap())
            .env("HOME", self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn pakv<A: AsRef<std::ffi::OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_pakv"));
        command.args(args);
        command
    }

    /// The same for one that signals are sent to: what is started in the background of a script, as
    /// tests may be, ignores Ctrl-C, and so does everything that it starts.
    pub(crate) fn interruptible<A: AsRef<std::ffi::OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut command = self.command("env");
        command.args(["--default-signal=INT,TERM", env!("CARGO_BIN_EXE_pakv")]).args(args);
        command
    }

    /// Runs pakv to its end.
    pub(crate) fn run<A: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Run {
        Run::of(self.pakv(args).output().unwrap())
    }

    /// Runs pakv to its end with bytes on standard input.
    pub(crate) fn run_with_stdin(&self, args: &[&str], stdin: &[u8]) -> Run {
        let mut child = self.pakv(args).stdin(Stdio::piped()).spawn().unwrap();
        // A run that fails early leaves the rest unread.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        Run::of(child.wait_with_output().unwrap())
    }

    /// Runs a line of `sh`.
    pub(crate) fn sh(&self, line: &str) -> Run {
        Run::of(self.command("sh").args(["-c", line]).output().unwrap())
    }

    /// The names of what is in the sandbox.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// What a run gave.
#[derive(Debug)]
pub(crate) struct Run {
    /// The exit code; `None` after a signal.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Done, without a word on standard error, and with exactly this on standard output.
    #[track_caller]
    pub(crate) fn prints(&self, stdout: impl AsRef<[u8]>) {
        let stdout = stdout.as_ref();
        assert!(
            self.code == Some(0) && self.stderr.is_empty() && self.stdout == stdout,
            "wanted {:?}, got {self:?}",
            String::from_utf8_lossy(stdout)
        );
    }

    /// Failed with this exit code; standard error is one line, and a hint line at most, and the
    /// text is in it.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, text: &str) {
        let lines: Vec<&str> = self.stderr.lines().collect();
        let shape = match &lines[..] {
            [_] => true,
            [_, hint] => hint.starts_with("hint: "),
            _ => false,
        };
        assert!(
            self.code == Some(code)
                && self.stdout.is_empty()
                && shape
                && self.stderr.contains(text),
            "wanted exit code {code} and {text:?}, got {self:?}"
        );
    }
}

/// What a program needs of the environment for its coverage to be measured, where that is done.
pub(crate) fn measured() -> Option<(&'static str, std::ffi::OsString)> {
    let name = "LLVM_PROFILE_FILE";
    std::env::var_os(name).map(|value| (name, value))
}
