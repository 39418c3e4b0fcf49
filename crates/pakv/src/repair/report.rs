//! What a repair says.

use std::path::PathBuf;
use std::time::Duration;

use crate::check::Finding;

/// What [`repair`](crate::repair) brought over, and what it left out. All sizes are bytes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RepairReport {
    /// The store that was read.
    pub source: PathBuf,
    /// The new store.
    pub target: PathBuf,
    /// Keys that were brought over, each with its newest value.
    pub keys: u64,
    /// Keys whose newest record had expired: not brought over.
    pub expired: u64,
    /// Segments that were read.
    pub segments: u64,
    /// Intact records in them.
    pub records: u64,
    /// Bytes of segments and hints that were read, each once.
    pub bytes_read: u64,
    /// Bytes of keys and values that were brought over.
    pub bytes_written: u64,
    /// Every range of bytes that was left out, with the records that hints know stood there. Files
    /// that are left out as a whole are ranges too.
    pub left_out: Vec<Finding>,
    /// Hints that were damaged or wrong. What they would have told is missing above; nothing else.
    pub hints: Vec<Finding>,
    /// Files of the store's own naming that the manifest does not list, which were not read.
    pub orphans: Vec<String>,
    /// What cannot be known, as sentences: for a person to judge.
    pub doubts: Vec<String>,
    /// How long it took.
    pub duration: Duration,
}

impl RepairReport {
    /// The keys whose newest value is known to be lost. Where an older one stood elsewhere it was
    /// not brought over either: it is not what the key held.
    pub fn lost_keys(&self) -> impl Iterator<Item = &[u8]> {
        let lost = self.left_out.iter().flat_map(|range| &range.records);
        let lost = lost.filter(|lost| lost.is_newest && lost.record.is_set());
        lost.map(|lost| lost.record.key.as_slice())
    }
}

/// How far a repair has come: what the callback of [`repair_with`](crate::repair_with) is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepairProgress {
    /// Bytes of segments read so far. Each is read twice: to find what is newest, and to copy it.
    pub bytes_done: u64,
    /// Bytes to be read in all.
    pub bytes_total: u64,
}
