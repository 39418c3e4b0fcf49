//! Looking into the files of a store from outside, without opening it: for tests, tools and the
//! curious.

mod dump;
#[cfg(test)]
mod example;
pub(crate) mod scan;
pub(crate) mod walk;

use std::path::Path;
use std::sync::Arc;

pub(crate) use dump::hint_info;
pub use dump::{Part, What, dump, segment_path};

use crate::error::{Error, Result};
use crate::format::hint::{HintEntry, HintKind};
use crate::format::record::{Op, Record};
use crate::format::{OwnFile, own_file};
use crate::segment::{FrameReader, Next, Segment};
use crate::storage::{OsStorage, Storage};

/// What a record does to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordKind {
    /// Gives the key a value.
    Set,
    /// Marks the key deleted.
    Tombstone,
}

/// One record of a segment, without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordInfo {
    /// Where its frame begins, in bytes from the start of the file.
    pub offset: u64,
    /// The length of its frame in bytes.
    pub length: u32,
    /// Its place in the order of all writes.
    pub seqno: u64,
    /// What it does.
    pub kind: RecordKind,
    /// How many records of the same batch follow it.
    pub batch_rest: u32,
    /// How many bytes before it were not known durable when it was written.
    pub unsynced: u32,
    /// When it expires, in milliseconds since the epoch.
    pub expires_at_ms: Option<u64>,
    /// Its key.
    pub key: Vec<u8>,
    /// The length of its value in bytes; 0 for a tombstone.
    pub value_len: u64,
}

impl RecordInfo {
    /// Whether it gives its key a value.
    pub fn is_set(&self) -> bool {
        self.kind == RecordKind::Set
    }

    /// The hint's entry of the record. What a hint or a segment has told fits its numbers.
    pub(crate) fn hint_entry(&self) -> HintEntry<'_> {
        HintEntry {
            offset: u32::try_from(self.offset).unwrap_or(u32::MAX),
            length: self.length,
            seqno: self.seqno,
            kind: match self.kind {
                RecordKind::Set => HintKind::set(self.expires_at_ms),
                RecordKind::Tombstone => HintKind::Tombstone,
            },
            key: &self.key,
        }
    }
}

/// The records of a segment file, in the order of the file, up to its end or to the space that is
/// prepared for more.
///
/// ```
/// use pakv::{Db, inspect};
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path();
/// let db = Db::open(path)?;
/// db.set("name", "pakv")?;
/// db.close()?;
/// for record in inspect::segment(path.join("0000000001.log"))? {
///     println!("{:>8} {:?} {}", record.offset, record.kind, record.key.escape_ascii());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Corrupt`] at the first bytes that are no record; [`Error::UnknownFormat`];
/// [`Error::Io`], also where the file's name is not a segment's.
pub fn segment(path: impl AsRef<Path>) -> Result<Vec<RecordInfo>> {
    let path = path.as_ref();
    let name = path.file_name().and_then(|name| name.to_str()).and_then(own_file);
    let Some(OwnFile::Log(id)) = name else {
        let source = std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            "a segment's name is its number in ten digits and .log",
        );
        return Err(Error::io("inspect", path)(source));
    };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let storage: Arc<dyn Storage> = Arc::new(OsStorage::new(directory.unwrap_or(Path::new("."))));
    let (segment, _, first_record) = Segment::open_any(&storage, id, false)?;
    let len = segment.file()?.len().map_err(Error::io("read", path))?;
    let end =
        u32::try_from(len).map_err(|_| segment.corrupt(0, "it is longer than a segment can be"))?;
    let mut reader = FrameReader::new(&segment, first_record, end)?;
    let mut records = Vec::new();
    loop {
        match reader.next()? {
            Next::Frame(frame) => {
                let record = Record::decode(frame.body)
                    .map_err(|reason| segment.corrupt(frame.offset, reason))?;
                records.push(info(&record, frame.offset, frame.length));
            }
            Next::Bad { offset, .. } if segment.is_zero(offset, end)? => return Ok(records),
            Next::Bad { offset, reason } => return Err(segment.corrupt(offset, reason)),
            Next::End => return Ok(records),
        }
    }
}

pub(crate) fn info(record: &Record<'_>, offset: u32, length: u32) -> RecordInfo {
    let (kind, expires_at_ms, value_len) = match record.op {
        Op::Set { expires_at_ms, value, .. } => (RecordKind::Set, expires_at_ms, value.len()),
        Op::Tombstone { .. } => (RecordKind::Tombstone, None, 0),
    };
    RecordInfo {
        offset: u64::from(offset),
        length,
        seqno: record.seqno,
        kind,
        batch_rest: record.batch_rest,
        unsynced: record.unsynced,
        expires_at_ms,
        key: record.op.key().to_vec(),
        value_len: value_len as u64,
    }
}
