//! Running programs: each to its end or to a limit, its output in a log.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// `None` where it was stopped at its limit, or by a signal.
    pub(crate) code: Option<i32>,
    pub(crate) hung: bool,
    pub(crate) took: Duration,
    /// What it printed, both streams in one.
    pub(crate) output: String,
}

/// The exit status by which a check says that the machine cannot run it.
pub(crate) const CANNOT_RUN: i32 = 3;

impl Ended {
    pub(crate) fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    /// The last line of the kind `figures: key=value key=value`.
    pub(crate) fn figures(&self) -> Vec<(String, String)> {
        let line = self.output.lines().rev().find_map(|line| line.strip_prefix("figures: "));
        let pairs = line.unwrap_or_default().split_whitespace();
        let pairs = pairs.filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }
}

/// The root of the checkout.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Where builds go.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Runs a program in the root of the checkout. At the limit it is killed, with everything that it
/// started.
pub(crate) fn run(command: &mut Command, log: &Path, limit: Duration) -> io::Result<Ended> {
    let file = File::create(log)?;
    let started = Instant::now();
    let mut child = command
        .current_dir(root())
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .process_group(0)
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("{command:?}: {error}")))?;
    let (status, hung) = loop {
        if let Some(status) = child.try_wait()? {
            break (status, false);
        }
        if started.elapsed() > limit {
            let group = format!("-{}", child.id());
            Command::new("kill").args(["-KILL", "--", &group]).status()?;
            break (child.wait()?, true);
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let output = String::from_utf8_lossy(&std::fs::read(log)?).into_owned();
    Ok(Ended { code: status.code(), hung, took: started.elapsed(), output })
}

/// Runs a step without which nothing else makes sense, its output on the terminal.
pub(crate) fn require(command: &mut Command) -> Result<(), Box<dyn std::error::Error>> {
    let status = command.current_dir(root()).status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

/// `cargo` with arguments.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args);
    command
}
