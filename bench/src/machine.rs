//! Where and with what a run was made: without it, its figures say nothing.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// The versions that were built are those of the lock file that was there when this was built.
pub(crate) const LOCK: &str = include_str!("../Cargo.lock");

/// Where pakv is built from.
const LIBRARY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/pakv");

/// Label and what it says, in the order of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setting {
    pub(crate) label: String,
    pub(crate) text: String,
}

impl Setting {
    /// Whether figures that differ in it may stand in one table.
    pub(crate) fn may_differ(&self) -> bool {
        self.label == "load before the run"
    }
}

pub(crate) fn describe(dir: &Path) -> Vec<Setting> {
    let setting = |label: &str, text: String| Setting { label: label.to_string(), text };
    let cpus = std::thread::available_parallelism().map_or(0, |count| count.get());
    let memory = first("/proc/meminfo", "MemTotal").unwrap_or_default();
    vec![
        setting(
            "processor",
            format!("{cpus} × {}", first("/proc/cpuinfo", "model name").unwrap_or_default()),
        ),
        setting("memory", memory),
        setting("kernel", read("/proc/sys/kernel/osrelease")),
        setting("file system", file_system(dir).unwrap_or_default()),
        setting("compiler", output("rustc", &["--version"])),
        setting("pakv", library()),
        setting("bench", bench()),
        setting("peers", versions()),
        setting("load before the run", read("/proc/loadavg")),
    ]
}

/// The library's own tree, whatever else of the repository changes, and whether it is as committed.
fn library() -> String {
    let tree = output("git", &["-C", LIBRARY, "rev-parse", "--short", "HEAD:./"]);
    let changes = output("git", &["-C", LIBRARY, "diff", "HEAD", "--", "."]);
    if changes.is_empty() {
        return format!("crates/pakv is tree {tree}");
    }
    let mut hash = DefaultHasher::new();
    changes.hash(&mut hash);
    format!("crates/pakv is tree {tree} with changes {:08x}", hash.finish() as u32)
}

/// What is measured and how: figures of different works or adapters do not belong into one table.
fn bench() -> String {
    let tree = |of: &str| {
        let name = format!("HEAD:./src/{of}");
        output("git", &["-C", env!("CARGO_MANIFEST_DIR"), "rev-parse", "--short", &name])
    };
    format!("works are tree {}, adapters are tree {}", tree("work"), tree("engine"))
}

fn read(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_default().trim().to_string()
}

fn first(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or("unknown".into(), |output| {
        String::from_utf8_lossy(&output.stdout).trim().to_string()
    })
}

/// Type and mount options of the longest mount point that `dir` lies under.
fn file_system(dir: &Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let fields = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?, fields.next()?))
    });
    let under = fields.filter(|(at, ..)| dir.starts_with(at));
    let (_, kind, options) = under.max_by_key(|(at, ..)| at.len())?;
    Some(format!("{kind} ({options})"))
}

/// The version of a package in the lock file.
pub(crate) fn version(name: &str) -> Option<&'static str> {
    let at = LOCK.split_once(&format!("name = \"{name}\"\nversion = \""))?.1;
    at.split('"').next()
}

fn versions() -> String {
    let names = ["heed", "redb", "fjall", "sled", "rocksdb"].into_iter();
    let mut all: Vec<_> =
        names.filter_map(|name| Some(format!("{name} {}", version(name)?))).collect();
    // The version of RocksDB itself stands behind that of its bindings.
    let native = version("librocksdb-sys").and_then(|text| Some(text.split_once('+')?.1));
    all.extend(native.map(|native| format!("RocksDB {native}")));
    all.join(", ")
}
