//! One file of a store, part by part, damage included.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::walk::{Framed, Item, LogFile, Piece};
use super::{RecordInfo, RecordKind, info};
use crate::error::{Error, Result};
use crate::format::hint::{HintKind, HintPart, decode_part};
use crate::format::manifest::Manifest;
use crate::format::{
    FORMAT_VERSION, FileKind, MANIFEST_NAME, PREAMBLE_BYTES, StoreId, TEMPORARY_SUFFIX,
    decode_exact, decode_preamble, frame, preamble_salt, preamble_version,
};
use crate::format::{OwnFile, own_file};
use crate::storage::{OsStorage, Storage, StorageFile, read_up_to};

/// One part of a file of a store, where it stands, and what it is. Its [`Display`](fmt::Display) is
/// a line as `pakv dump` prints it, under [`Part::HEADING`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Part {
    /// Where it begins, in bytes from the start of the file. A [`What::HintEntry`] has the offset
    /// of its record in the segment, and the parts of a manifest that of their frame.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
    /// What it is.
    pub what: What,
}

/// What a part of a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// The first bytes: which kind of file it is, its format version, and what its checksums are
    /// mixed with.
    Preamble {
        /// `pakv-log`, `pakv-hnt` or `pakv-man`.
        magic: &'static str,
        /// The format version.
        version: u32,
        /// Where checksums begin.
        salt: u32,
    },
    /// Which segment of which store the file is, or is the hint of.
    Header {
        /// The identity of the store.
        store: [u8; 16],
        /// The segment's number.
        segment: u32,
    },
    /// A record of a segment.
    Record(RecordInfo),
    /// A block of a hint: its entries follow.
    HintBlock {
        /// How many.
        entries: u32,
    },
    /// What a hint says of a record; all but the value's length, `batch_rest` and `unsynced`.
    HintEntry(RecordInfo),
    /// The end of a hint.
    HintEnd {
        /// How many entries it has.
        records: u32,
        /// How long its segment is.
        segment_bytes: u32,
    },
    /// A manifest; what it lists follows.
    Manifest {
        /// The identity of the store.
        store: [u8; 16],
        /// Larger than every segment's number.
        next_segment: u32,
        /// Larger than every sequence number given out when it was written.
        next_seqno: u64,
    },
    /// A sealed segment that a manifest lists.
    Sealed {
        /// Its number.
        segment: u32,
        /// Its length.
        bytes: u32,
        /// How many records it has.
        records: u32,
        /// The smallest sequence number in it.
        min_seqno: u64,
        /// The largest.
        max_seqno: u64,
    },
    /// The active segment that a manifest lists.
    Active {
        /// Its number.
        segment: u32,
        /// How many of its bytes were known durable.
        synced_bytes: u32,
    },
    /// Zeros up to the end: space prepared for records to come.
    Zeros,
    /// Bytes that are none of the above, or whose checksum is wrong.
    Damaged {
        /// What is wrong.
        reason: String,
    },
}

/// Gives every part of a file of a store to `visit`, in order: of a segment, a hint or a manifest,
/// told apart by the first bytes or, where those are damaged, by the name. Goes on past damage,
/// which is a part as well, so the parts leave no gap. Nothing is changed or locked, and the store
/// may be in use. Memory is bounded by a piece of the file, and by the file once it is damaged.
///
/// ```
/// use pakv::{Db, inspect};
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path();
/// let db = Db::open(path)?;
/// db.set("name", "pakv")?;
/// db.close()?;
/// println!("{}", inspect::Part::HEADING);
/// inspect::dump(path.join("0000000001.log"), |part| {
///     println!("{part}");
///     Ok::<(), pakv::Error>(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Those of `visit`, at once. [`Error::Io`] where the file cannot be opened, or is none of a store's.
pub fn dump<E: From<Error>>(
    path: impl AsRef<Path>,
    mut visit: impl FnMut(Part) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let mut stopped = None;
    let mut visit = |part: Part| {
        visit(part).map_err(|error| {
            stopped = Some(error);
            Error::Closed
        })
    };
    let done = dump_file(path.as_ref(), &mut visit);
    match (stopped, done) {
        (Some(error), _) => Err(error),
        (None, done) => Ok(done?),
    }
}

type Visit<'a> = &'a mut dyn FnMut(Part) -> Result<()>;

fn dump_file(path: &Path, visit: Visit<'_>) -> Result<()> {
    let invalid = |reason: &str| {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, reason);
        Error::io("dump", path)(source)
    };
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| invalid("it has no name that a store's file can have"))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let storage = OsStorage::new(directory.unwrap_or(Path::new(".")));
    let file = storage.open(name, false).map_err(Error::io("open", path))?;
    let mut start = [0; PREAMBLE_BYTES];
    let read = read_up_to(&*file, &mut start, 0).map_err(Error::io("read", path))?;
    let start = start.get(..read).unwrap_or_default();
    let kind =
        kind_of(start, name).ok_or_else(|| invalid("it is not a segment, hint or manifest"))?;
    match kind {
        FileKind::Log => dump_log(LogFile::over(file, path.to_path_buf())?, start, visit),
        FileKind::Hint => dump_hint(&file, path, start, visit),
        FileKind::Manifest => dump_manifest(&*file, path, start, visit),
    }
}

/// What a file is by its first bytes, or else by its name.
fn kind_of(start: &[u8], name: &str) -> Option<FileKind> {
    let kinds = [FileKind::Log, FileKind::Hint, FileKind::Manifest];
    let by_magic = kinds.into_iter().find(|kind| start.starts_with(&kind.magic()));
    by_magic.or_else(|| {
        let name = name.strip_suffix(TEMPORARY_SUFFIX).unwrap_or(name);
        match own_file(name) {
            Some(OwnFile::Log(_)) => Some(FileKind::Log),
            Some(OwnFile::Hint(_)) => Some(FileKind::Hint),
            _ => (name == MANIFEST_NAME).then_some(FileKind::Manifest),
        }
    })
}

fn part(offset: u64, length: u64, what: What) -> Part {
    Part { offset, length, what }
}

fn preamble(kind: FileKind, start: &[u8], visit: Visit<'_>) -> Result<()> {
    let what = match decode_preamble(kind, start) {
        Ok(salt) => {
            let magic = match kind {
                FileKind::Log => "pakv-log",
                FileKind::Hint => "pakv-hnt",
                FileKind::Manifest => "pakv-man",
            };
            let version = preamble_version(start).unwrap_or(FORMAT_VERSION);
            What::Preamble { magic, version, salt }
        }
        Err(bad) => What::Damaged { reason: bad.to_string() },
    };
    visit(part(0, start.len() as u64, what))
}

fn dump_log(log: LogFile, start: &[u8], visit: Visit<'_>) -> Result<()> {
    preamble(FileKind::Log, start, visit)?;
    if let Some(header) = &log.header {
        let what = What::Header { store: header.store.0, segment: header.segment.0 };
        let length = u64::from(log.first_record) - PREAMBLE_BYTES as u64;
        visit(part(PREAMBLE_BYTES as u64, length, what))?;
    }
    log.walk(u32::MAX, &mut |item| {
        let (offset, length, what) = match item {
            Item::Record { offset, length, record } => {
                (offset, length, What::Record(info(&record, offset, length)))
            }
            Item::Damaged { offset, length, reason } => (offset, length, What::Damaged { reason }),
            Item::Zeros { offset, length } => (offset, length, What::Zeros),
        };
        visit(part(offset.into(), length.into(), what))
    })
}

fn dump_hint(
    file: &Arc<dyn StorageFile>,
    path: &Path,
    start: &[u8],
    visit: Visit<'_>,
) -> Result<()> {
    preamble(FileKind::Hint, start, visit)?;
    let len = file.len().map_err(Error::io("read", path))?;
    let end = u32::try_from(len).unwrap_or(u32::MAX);
    let salt = preamble_salt(start).unwrap_or_default();
    let range = (PREAMBLE_BYTES as u32).min(end)..end;
    let is_part = |body: &[u8]| decode_part(body, |_| Ok(())).is_ok();
    Framed { file, path, salt, range }.walk(is_part, &mut |piece| match piece {
        Piece::Frame { offset, length, body } => {
            let mut entries = Vec::new();
            let decoded = decode_part(body, |entry| {
                entries.push(hint_info(entry));
                Ok(())
            });
            let what = match decoded {
                Ok(HintPart::Header { store, segment }) => {
                    What::Header { store: store.0, segment: segment.0 }
                }
                Ok(HintPart::Entries(entries)) => What::HintBlock { entries },
                Ok(HintPart::End { records, segment_bytes }) => {
                    What::HintEnd { records, segment_bytes }
                }
                Err(reason) => What::Damaged { reason },
            };
            visit(part(offset.into(), length.into(), what))?;
            entries.into_iter().try_for_each(|entry| {
                visit(part(entry.offset, entry.length.into(), What::HintEntry(entry)))
            })
        }
        Piece::Damaged { offset, length, reason } => {
            visit(part(offset.into(), length.into(), What::Damaged { reason }))
        }
        Piece::Zeros { offset, length } => visit(part(offset.into(), length.into(), What::Zeros)),
    })
}

pub(crate) fn hint_info(entry: &crate::format::hint::HintEntry<'_>) -> RecordInfo {
    RecordInfo {
        offset: u64::from(entry.offset),
        length: entry.length,
        seqno: entry.seqno,
        kind: match entry.kind {
            HintKind::Set | HintKind::SetExpiring { .. } => RecordKind::Set,
            HintKind::Tombstone => RecordKind::Tombstone,
        },
        batch_rest: 0,
        unsynced: 0,
        expires_at_ms: entry.kind.expires_at_ms(),
        key: entry.key.to_vec(),
        value_len: 0,
    }
}

fn dump_manifest(
    file: &dyn StorageFile,
    path: &Path,
    start: &[u8],
    visit: Visit<'_>,
) -> Result<()> {
    preamble(FileKind::Manifest, start, visit)?;
    let bytes = crate::manifest::read(file).map_err(Error::io("read", path))?;
    let at = PREAMBLE_BYTES as u64;
    let framed = bytes.get(PREAMBLE_BYTES..).unwrap_or_default();
    if framed.is_empty() {
        return Ok(());
    }
    let salt = preamble_salt(start).unwrap_or_default();
    let decoded = frame::body(framed, salt, PREAMBLE_BYTES as u32)
        .map_err(|bad| bad.to_string())
        .and_then(|body| Ok((body.len(), decode_exact::<Manifest>(body)?)));
    let (body_bytes, manifest) = match decoded {
        Ok(decoded) => decoded,
        Err(reason) => return visit(part(at, framed.len() as u64, What::Damaged { reason })),
    };
    let length = (frame::FRAME_HEADER_BYTES + body_bytes) as u64;
    let Manifest { store, next_segment, next_seqno, sealed, active } = manifest;
    let what = What::Manifest { store: store.0, next_segment: next_segment.0, next_seqno };
    visit(part(at, length, what))?;
    for sealed in sealed {
        let what = What::Sealed {
            segment: sealed.segment.0,
            bytes: sealed.bytes,
            records: sealed.records,
            min_seqno: sealed.min_seqno,
            max_seqno: sealed.max_seqno,
        };
        visit(part(at, length, what))?;
    }
    if let Some(active) = active {
        let (segment, synced_bytes) = (active.segment.0, active.synced_bytes);
        visit(part(at, length, What::Active { segment, synced_bytes }))?;
    }
    let end = at + length;
    let rest = bytes.len() as u64 - end;
    if rest > 0 {
        let reason = "bytes follow the end".to_string();
        visit(part(end, rest, What::Damaged { reason }))?;
    }
    Ok(())
}

impl Part {
    /// The names of the columns.
    pub const HEADING: &'static str =
        "    offset     length  checksum    sequence  kind       expires        key";

    /// What its checksum is: `ok`, `bad`, or, where it has none of its own, `-`.
    pub fn checksum(&self) -> &'static str {
        match &self.what {
            What::Header { .. }
            | What::Record(_)
            | What::HintBlock { .. }
            | What::HintEnd { .. }
            | What::Manifest { .. } => "ok",
            What::Damaged { .. } => "bad",
            What::Preamble { .. }
            | What::HintEntry(_)
            | What::Sealed { .. }
            | What::Active { .. }
            | What::Zeros => "-",
        }
    }

    /// What it is, in a word.
    pub fn kind(&self) -> &'static str {
        match &self.what {
            What::Preamble { .. } => "preamble",
            What::Header { .. } => "header",
            What::Record(record) | What::HintEntry(record) => match record.kind {
                RecordKind::Set => "set",
                RecordKind::Tombstone => "tombstone",
            },
            What::HintBlock { .. } => "block",
            What::HintEnd { .. } => "end",
            What::Manifest { .. } => "manifest",
            What::Sealed { .. } => "sealed",
            What::Active { .. } => "active",
            What::Zeros => "zeros",
            What::Damaged { .. } => "damaged",
        }
    }

    /// The record that it is, or that it is the hint's entry of.
    pub fn record(&self) -> Option<&RecordInfo> {
        match &self.what {
            What::Record(record) | What::HintEntry(record) => Some(record),
            _ => None,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sequence, expires) = match self.record() {
            Some(RecordInfo { seqno, kind, expires_at_ms, .. }) => {
                let expires = match (kind, expires_at_ms) {
                    (_, Some(at)) => at.to_string(),
                    (RecordKind::Set, None) => "never".to_string(),
                    (RecordKind::Tombstone, None) => "-".to_string(),
                };
                (seqno.to_string(), expires)
            }
            None => ("-".to_string(), "-".to_string()),
        };
        let Part { offset, length, .. } = self;
        let (checksum, kind) = (self.checksum(), self.kind());
        write!(
            f,
            "{offset:>10} {length:>10}  {checksum:<8}  {sequence:>10}  {kind:<9}  {expires:<13}  "
        )?;
        self.what.fmt(f)
    }
}

/// What the columns do not say.
impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Preamble { magic, version, salt } => {
                write!(f, "{magic}, format version {version}, salt {salt:08x}")
            }
            What::Header { store, segment } => {
                write!(f, "segment {segment} of store {}", StoreId(*store))
            }
            What::Record(record) => record.fmt(f),
            What::HintEntry(record) => write!(f, "{}", record.key.escape_ascii()),
            What::HintBlock { entries } => write!(f, "{}", counted(*entries, "entry", "entries")),
            What::HintEnd { records, segment_bytes } => {
                let entries = counted(*records, "entry", "entries");
                write!(f, "{entries} in all, of a segment of {segment_bytes} bytes")
            }
            What::Manifest { store, next_segment, next_seqno } => write!(
                f,
                "store {}, next segment {next_segment}, next sequence number {next_seqno}",
                StoreId(*store)
            ),
            What::Sealed { segment, bytes, records, min_seqno, max_seqno } => write!(
                f,
                "segment {segment}: {bytes} bytes, {}, sequence numbers {min_seqno} to {max_seqno}",
                counted(*records, "record", "records")
            ),
            What::Active { segment, synced_bytes } => {
                write!(f, "segment {segment}: {synced_bytes} bytes known durable")
            }
            What::Zeros => f.write_str("space prepared for records to come"),
            What::Damaged { reason } => f.write_str(reason),
        }
    }
}

impl fmt::Display for RecordInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.key.escape_ascii())?;
        if self.kind == RecordKind::Set {
            write!(f, " = {}", counted(self.value_len, "byte", "bytes"))?;
        }
        if self.batch_rest > 0 {
            write!(f, ", {} more in its batch", self.batch_rest)?;
        }
        if self.unsynced > 0 {
            write!(f, ", {} bytes before it not synced yet", self.unsynced)?;
        }
        Ok(())
    }
}

fn counted(number: impl Into<u64>, one: &str, many: &str) -> String {
    let number = number.into();
    format!("{number} {}", if number == 1 { one } else { many })
}

/// The path of a segment's file in the store at `directory`: what `dump SEGMENT` means.
///
/// ```
/// let path = pakv::inspect::segment_path("store", 7);
/// assert!(path.ends_with("store/0000000007.log"));
/// ```
pub fn segment_path(directory: impl AsRef<Path>, segment: u32) -> PathBuf {
    directory.as_ref().join(crate::format::SegmentId(segment).log_name())
}
