//! Figures about a store: plain data, with what can be derived derived and never stored twice.

use std::path::PathBuf;
use std::time::Duration;

/// The state of a store in figures: what [`Db::stats`](crate::Db::stats) answers. All sizes are
/// bytes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Stats {
    /// The directory.
    pub path: PathBuf,
    /// Keys that are there now.
    pub keys: u64,
    /// Keys among them that will expire.
    pub expiring_keys: u64,
    /// Bytes of records that a get can reach.
    pub live_bytes: u64,
    /// Bytes of hint files and the manifest: neither live nor garbage, but on the disk.
    pub metadata_bytes: u64,
    /// Every live segment, the active one last.
    pub segments: Vec<SegmentStats>,
    /// Segments that compaction has replaced and a reader or snapshot still holds.
    pub retired_segments: u64,
    /// Memory that the keydir takes, estimated from what it allocated.
    pub keydir_bytes: u64,
    /// Snapshots and scans that are open.
    pub snapshots: u64,
    /// The sequence number of the newest write that reads can see.
    pub seqno: u64,
    /// What compaction is doing and has done since the open.
    pub compaction: CompactionStats,
    /// What the open found.
    pub recovery: RecoveryReport,
    /// Why writes are refused, if they are.
    pub poisoned: Option<String>,
}

impl Stats {
    /// Bytes of all live segments.
    pub fn segment_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Bytes in segments that no get can reach.
    pub fn garbage_bytes(&self) -> u64 {
        self.segment_bytes().saturating_sub(self.live_bytes)
    }

    /// The share of the segments' bytes that is garbage, 0 to 1.
    pub fn garbage_ratio(&self) -> f64 {
        ratio(self.garbage_bytes(), self.segment_bytes())
    }

    /// What the store takes on disk: segments, hints, manifest.
    pub fn disk_bytes(&self) -> u64 {
        self.segment_bytes() + self.metadata_bytes
    }

    /// Bytes on disk for each live byte; 1 for an empty store.
    pub fn space_amplification(&self) -> f64 {
        if self.live_bytes == 0 { 1.0 } else { ratio(self.disk_bytes(), self.live_bytes) }
    }
}

/// One segment in figures.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentStats {
    /// Its number.
    pub segment: u32,
    /// Its size in bytes, file header included.
    pub bytes: u64,
    /// Bytes of its records that a get can reach.
    pub live_bytes: u64,
    /// Bytes of its tombstones, a part of its garbage.
    pub tombstone_bytes: u64,
    /// Whether it is the one that writes are appended to.
    pub active: bool,
}

impl SegmentStats {
    /// Bytes that no get can reach.
    pub fn garbage_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.live_bytes)
    }

    /// The share of its bytes that is garbage, 0 to 1.
    pub fn garbage_ratio(&self) -> f64 {
        ratio(self.garbage_bytes(), self.bytes)
    }
}

/// Compaction in figures, since the store was opened.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CompactionStats {
    /// Whether one is running now.
    pub running: bool,
    /// How many have finished.
    pub runs: u64,
    /// Bytes they wrote, hints included.
    pub bytes_written: u64,
    /// Bytes by which they made the store smaller.
    pub bytes_reclaimed: u64,
    /// Why the last one that failed did, until one succeeds. Nothing is lost by it; it is tried
    /// again.
    pub last_error: Option<String>,
}

/// What a compaction did: the answer of [`Db::compact`](crate::Db::compact).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionReport {
    /// Segments that were rewritten.
    pub segments_in: u64,
    /// Segments that took their place.
    pub segments_out: u64,
    /// Their bytes before, hints included.
    pub bytes_before: u64,
    /// Their bytes after, hints included.
    pub bytes_after: u64,
    /// Records that were copied.
    pub records_copied: u64,
    /// Tombstones that could be dropped because nothing older is left for them to shadow.
    pub tombstones_dropped: u64,
    /// How long it took.
    pub duration: Duration,
}

impl CompactionReport {
    /// Bytes that were given back to the file system (or will be, once the last snapshot lets go).
    pub fn bytes_reclaimed(&self) -> u64 {
        self.bytes_before.saturating_sub(self.bytes_after)
    }
}

/// How far a compaction has come: what the callback of
/// [`Db::compact_with`](crate::Db::compact_with) is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionProgress {
    /// Bytes of input read so far.
    pub bytes_done: u64,
    /// Bytes of input in all.
    pub bytes_total: u64,
}

/// How far an open has come: what the callback of
/// [`Options::open_with`](crate::Options::open_with) is given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenProgress {
    /// Bytes of the sealed segments whose keys are known so far, by their hints or by themselves.
    pub bytes_done: u64,
    /// Bytes of all sealed segments. The active one comes after them.
    pub bytes_total: u64,
}

/// What opening the store found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Whether the store was created by this open.
    pub created: bool,
    /// Keys that are there.
    pub keys: u64,
    /// Live segments.
    pub segments: u64,
    /// Records of the active segment that were replayed.
    pub records_replayed: u64,
    /// Bytes of a torn tail that were cut from the active segment. They held no acknowledged `Sync`
    /// write.
    pub bytes_cut: u64,
    /// Files of the store's own naming that the manifest does not list, removed: what an
    /// interrupted compaction left behind.
    pub orphans_removed: u64,
    /// Segments whose hint was missing or damaged and was built again from the segment.
    pub hints_rebuilt: u64,
    /// How long it took.
    pub duration: Duration,
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people: 52 bits are plenty")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
