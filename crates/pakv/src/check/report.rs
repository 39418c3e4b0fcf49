//! What a check says: findings, one for each thing that is wrong, and the figures.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::format::{OwnFile, SegmentId, own_file};
use crate::inspect::RecordInfo;

/// What [`check`](crate::check) found. All sizes are bytes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CheckReport {
    /// The directory.
    pub path: PathBuf,
    /// What is wrong, in the order of the files; empty for a sound store.
    pub findings: Vec<Finding>,
    /// Segments that were read.
    pub segments: u64,
    /// Intact records in them.
    pub records: u64,
    /// Hints that were compared with their segments.
    pub hints: u64,
    /// Bytes of segments, hints and manifest that were read.
    pub bytes_read: u64,
    /// Keys that are there.
    pub keys: u64,
    /// Bytes of the segments.
    pub segment_bytes: u64,
    /// Bytes of records that a get can reach.
    pub live_bytes: u64,
    /// Bytes behind the last whole batch of the active segment, prepared zeros left out: being
    /// written at this moment, or a torn tail that the next open cuts. In a backup, records that the
    /// next one had brought when it was interrupted. None of it is damage.
    pub tail_bytes: u64,
    /// Files of the store's own naming that the manifest does not list: a writer's next segments or
    /// last ones, or what a crash left and the next open removes. No damage.
    pub orphans: Vec<String>,
    /// How long it took.
    pub duration: Duration,
}

impl CheckReport {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    /// Bytes in segments that no get can reach.
    pub fn garbage_bytes(&self) -> u64 {
        self.segment_bytes.saturating_sub(self.live_bytes)
    }
}

/// One thing that is wrong. Its [`Display`](fmt::Display) is a line for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What kind of thing.
    pub kind: FindingKind,
    /// In which file.
    pub path: PathBuf,
    /// Where it begins, in bytes from the start of the file.
    pub offset: u64,
    /// How many bytes are concerned; 0 where it is about no bytes in particular.
    pub length: u64,
    /// What is wrong, as a sentence.
    pub reason: String,
    /// The records that stood there, as far as a hint tells. Where none does, it is not known
    /// whose they were.
    pub records: Vec<LostRecord>,
}

/// A record that a hint knows of and whose own bytes are damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostRecord {
    /// What the hint says: all but the value's length, `batch_rest` and `unsynced`.
    pub record: RecordInfo,
    /// Whether it is the newest of its key: a set that is takes the value with it, and a tombstone
    /// still hides what is older. What is not the newest is nobody's loss.
    pub is_newest: bool,
}

/// Which check failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// The manifest is damaged or missing.
    Manifest,
    /// A segment that the manifest lists is not there or cannot be read.
    Missing,
    /// The start of a segment is damaged, or says that it is another's.
    Header,
    /// A segment is shorter or longer than it should be.
    Length,
    /// Bytes that should be a record are none: most damage is this.
    Record,
    /// A sequence number that cannot be where it is, or is there twice.
    Order,
    /// A batch is not whole.
    Batch,
    /// The manifest gives other counts than the segment has.
    Counts,
    /// A hint is damaged or says something else than its segment. Nothing is lost: the next open
    /// builds it again.
    Hint,
    /// The open store believes something else than the log says.
    Keydir,
}

impl FindingKind {
    /// One word for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            FindingKind::Manifest => "manifest",
            FindingKind::Missing => "missing",
            FindingKind::Header => "header",
            FindingKind::Length => "length",
            FindingKind::Record => "record",
            FindingKind::Order => "order",
            FindingKind::Batch => "batch",
            FindingKind::Counts => "counts",
            FindingKind::Hint => "hint",
            FindingKind::Keydir => "keydir",
        }
    }
}

impl Finding {
    /// The segment that it is about, if it is about one's log.
    pub(crate) fn segment(&self) -> Option<SegmentId> {
        match own_file(self.path.file_name()?.to_str()?)? {
            OwnFile::Log(id) => Some(id),
            _ => None,
        }
    }

    /// The keys that are affected: those whose newest record is lost.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let newest = self.records.iter().filter(|lost| lost.is_newest);
        newest.map(|lost| lost.record.key.as_slice())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, path, offset, length, reason, .. } = self;
        let (kind, path) = (kind.as_str(), path.display());
        write!(f, "{path}: byte {offset}")?;
        if *length > 0 {
            write!(f, ", {length} bytes")?;
        }
        write!(f, ": {kind}: {reason}")
    }
}

/// How far a check has come: what the callback of [`check_with`](crate::check_with) is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckProgress {
    /// Bytes of segments read so far.
    pub bytes_done: u64,
    /// Bytes of segments in all, as far as is known.
    pub bytes_total: u64,
}
