//! What the operating system knows about this process and a directory.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// The number after `name:` in one of the files of /proc/self.
fn field(file: &str, name: &str) -> Result<u64> {
    find(&fs::read_to_string(file)?, name).with_context(|| format!("no {name} in {file}"))
}

fn find(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Memory of this process, in bytes: what is its own, and what is a file's and can be dropped.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) anonymous: u64,
    pub(crate) file: u64,
}

/// Counted page by page: exact, and slow where a large file is mapped.
pub(crate) fn memory() -> Result<Memory> {
    let text = fs::read_to_string("/proc/self/smaps_rollup")?;
    let bytes = |name| Some(find(&text, name)? * 1024);
    let counted = bytes("Anonymous").zip(bytes("Rss"));
    let (anonymous, resident) = counted.context("smaps_rollup is not as expected")?;
    Ok(Memory { anonymous, file: resident.saturating_sub(anonymous) })
}

/// Anonymous memory as the kernel's running count has it: within some hundred KiB, and cheap.
pub(crate) fn anonymous_about() -> Result<u64> {
    Ok(field("/proc/self/status", "RssAnon")? * 1024)
}

/// Bytes that all threads of this process have written so far.
///
/// `wchar` counts what was handed to write calls; `write_bytes` counts pages made dirty, those of a
/// mapping too, and a page that is dirty already not again. The larger is the nearer.
#[derive(Clone, Copy)]
pub(crate) struct Written {
    pub(crate) wchar: u64,
    pub(crate) write_bytes: u64,
}

pub(crate) fn written() -> Result<Written> {
    Ok(Written {
        wchar: field("/proc/self/io", "wchar")?,
        write_bytes: field("/proc/self/io", "write_bytes")?,
    })
}

impl Written {
    /// Bytes written since `earlier`.
    pub(crate) fn since(&self, earlier: &Written) -> u64 {
        (self.wchar - earlier.wchar).max(self.write_bytes - earlier.write_bytes)
    }
}

/// Bytes on the disk under a directory: blocks, since stores leave holes. Files that go away while
/// they are counted do not count.
pub(crate) fn disk_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .filter_map(|entry| {
            let meta = entry.metadata().ok()?;
            Some(if meta.is_dir() { disk_bytes(&entry.path()) } else { meta.blocks() * 512 })
        })
        .sum()
}

/// Bytes that this process has had read from the disk.
pub(crate) fn read_bytes() -> Result<u64> {
    field("/proc/self/io", "read_bytes")
}

/// Bytes that are left on the disk a directory is on.
pub(crate) fn disk_free(dir: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(dir).ok()?;
    Some(disk.f_bavail * disk.f_frsize)
}
