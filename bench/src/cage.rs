//! A control group that limits the memory of a child, page cache included: of either version.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// Less than this a program cannot live in.
const LEAST: u64 = 16 << 20;

const ROOT: &str = "/sys/fs/cgroup";

fn is_version_2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// A quarter of the data.
pub(crate) fn limit(keys: u64, value_bytes: usize) -> u64 {
    keys * (crate::data::KEY_BYTES + value_bytes) as u64 / 4
}

/// The group; it is removed when this is dropped, after its process has ended.
pub(crate) struct Cage(PathBuf);

impl Cage {
    pub(crate) fn new(bytes: u64) -> Result<Self> {
        ensure!(bytes >= LEAST, "a quarter of the data is less than {} MiB", LEAST >> 20);
        let root = Path::new(ROOT);
        let (parent, file) = if is_version_2() {
            (root.to_path_buf(), "memory.max")
        } else {
            (root.join("memory"), "memory.limit_in_bytes")
        };
        let cage = Self(parent.join(format!("pakv-bench-{}", std::process::id())));
        fs::create_dir(&cage.0).context("no control group can be made (root is needed)")?;
        fs::write(cage.0.join(file), bytes.to_string()).context("memory cannot be limited")?;
        Ok(cage)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("{} is left behind: {error}", self.0.display());
        }
    }
}

/// This process joins the group.
pub(crate) fn join(cage: &Path) -> Result<()> {
    let joined = fs::write(cage.join("cgroup.procs"), std::process::id().to_string());
    joined.with_context(|| format!("cannot join {}", cage.display()))
}

/// Bytes of memory, page cache included, that the group takes now.
pub(crate) fn used(cage: &Path) -> Result<u64> {
    let file = if is_version_2() { "memory.current" } else { "memory.usage_in_bytes" };
    let text = fs::read_to_string(cage.join(file)).context("no count of the group's memory")?;
    text.trim().parse().with_context(|| format!("{file} is not a number"))
}
