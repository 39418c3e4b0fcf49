//! One numbered, append-only file and how its records are read. Who appends to it, and which
//! segments there are, is decided elsewhere (`commit`, `manifest`).

mod hints;
mod prepared;
mod reader;
mod removed;

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::{Arc, Weak};

pub(crate) use hints::{
    HintImage, NoHint, hint_entry, load_hint, may_lack_hint, op_entry, rebuild_hint, visit_records,
    write_hint,
};
pub(crate) use prepared::Prepared;
pub(crate) use reader::{FrameReader, Next, is_zero};
use removed::Removed;

use crate::error::{Error, Result};
use crate::format::record::{Op, Record, SegmentHeader, encode_segment_start};
use crate::format::{
    BadPreamble, FORMAT_VERSION, FileKind, Location, PREAMBLE_BYTES, SegmentId, StoreId,
    decode_exact, decode_preamble, frame,
};
use crate::keydir::KeyEntry;
use crate::options::FileAccess;
use crate::storage::{
    Mapped, Mapping, Storage, StorageFile, read_up_to, remove_if_there, write_all_at,
};
use crate::sync::atomic::{AtomicBool, Ordering};

/// An open segment. Shared by everyone who may read from it; the files of a retired one are removed
/// when the last of them lets go.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) id: SegmentId,
    pub(crate) salt: u32,
    pub(crate) path: PathBuf,
    source: Source,
    files: Arc<Files>,
}

/// The files of a segment: shared by the object that stood for it while it was active and the one
/// since it was sealed, so that whoever still reads through either keeps them.
#[derive(Debug)]
pub(crate) struct Files {
    storage: Arc<dyn Storage>,
    id: SegmentId,
    retired: AtomicBool,
}

/// Where records are read from.
enum Source {
    /// One positional read a record: where the options say so, and where mapping is impossible.
    File(Arc<dyn StorageFile>),
    /// The mapping of a sealed segment. Its file is not kept open: a store may have more segments
    /// than a process may have files.
    Mapped(Mapping),
    /// The active segment, mapped as far as segments usually go; by positional reads beyond.
    Growing { map: Mapping, file: Arc<dyn StorageFile> },
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Source::File(_) => "File",
            Source::Mapped(_) => "Mapped",
            Source::Growing { .. } => "Growing",
        })
    }
}

/// The largest that preamble and header of a segment can be.
const START_BYTES_MAX: usize = 64;

impl Segment {
    /// Creates the file of a new segment with its header, durably; also returns the offset of its
    /// first record.
    pub(crate) fn create_durable(
        storage: &Arc<dyn Storage>,
        store: StoreId,
        id: SegmentId,
    ) -> Result<(Self, u32)> {
        let (segment, first_record) = Self::create(storage, store, id)?;
        segment.file()?.sync().map_err(Error::io("sync", segment.path.as_path()))?;
        storage.sync_dir().map_err(Error::io("sync", storage.path()))?;
        Ok((segment, first_record))
    }

    /// The same, but neither the file nor its name is durable yet.
    pub(crate) fn create(
        storage: &Arc<dyn Storage>,
        store: StoreId,
        id: SegmentId,
    ) -> Result<(Self, u32)> {
        let name = id.log_name();
        let path = storage.path().join(&name);
        let salt = fresh_salt(store, id);
        let start = encode_segment_start(store, id, salt).map_err(encode_error)?;
        let file = storage.create(&name).map_err(Error::io("create", path.as_path()))?;
        write_all_at(&*file, &start, 0)
            .inspect_err(|_| {
                // Nobody else would: there is no segment that could be retired.
                let _ = storage.remove(&name);
            })
            .map_err(Error::io("write to", path.as_path()))?;
        let first_record = u32::try_from(start.len()).unwrap_or(u32::MAX);
        Ok((Self::new(storage, id, salt, file), first_record))
    }

    /// Opens the file of a listed segment and checks that it is that segment of that store; also
    /// returns the offset of its first record.
    pub(crate) fn open(
        storage: &Arc<dyn Storage>,
        store: StoreId,
        id: SegmentId,
        writable: bool,
    ) -> Result<(Self, u32)> {
        let (segment, header, first_record) = Self::open_any(storage, id, writable)?;
        if (SegmentHeader { store, segment: id }) != header {
            return Err(segment.corrupt(0, "it belongs to another store or place"));
        }
        Ok((segment, first_record))
    }

    /// Opens a segment's file whatever store it is of.
    pub(crate) fn open_any(
        storage: &Arc<dyn Storage>,
        id: SegmentId,
        writable: bool,
    ) -> Result<(Self, SegmentHeader, u32)> {
        let name = id.log_name();
        let path = storage.path().join(&name);
        let file = storage.open(&name, writable).map_err(Error::io("open", path.as_path()))?;
        let mut start = [0; START_BYTES_MAX];
        let read = read_up_to(&*file, &mut start, 0).map_err(Error::io("read", path.as_path()))?;
        let start = start.get(..read).unwrap_or_default();
        let salt = match decode_preamble(FileKind::Log, start) {
            Ok(salt) => salt,
            Err(BadPreamble::UnknownVersion(found)) => {
                return Err(Error::UnknownFormat { path, found, supported: FORMAT_VERSION });
            }
            Err(bad) => return Err(Error::corrupt(&path, 0, bad.to_string())),
        };
        let at = PREAMBLE_BYTES as u64;
        let framed = start.get(PREAMBLE_BYTES..).unwrap_or_default();
        let body = frame::body(framed, salt, PREAMBLE_BYTES as u32)
            .map_err(|bad| Error::corrupt(&path, at, bad.to_string()))?;
        let header: SegmentHeader =
            decode_exact(body).map_err(|reason| Error::corrupt(&path, at, reason))?;
        let first_record = at + frame::claimed_len(framed).unwrap_or_default();
        let first_record = u32::try_from(first_record).unwrap_or(u32::MAX);
        Ok((Self::new(storage, id, salt, file), header, first_record))
    }

    fn new(
        storage: &Arc<dyn Storage>,
        id: SegmentId,
        salt: u32,
        file: Arc<dyn StorageFile>,
    ) -> Self {
        Self {
            id,
            salt,
            path: storage.path().join(id.log_name()),
            source: Source::File(file),
            files: Arc::new(Files {
                storage: storage.clone(),
                id,
                retired: AtomicBool::new(false),
            }),
        }
    }

    /// The same segment as the active one: what is there, `bytes`, and what will be appended is
    /// read through a mapping, once it is [settled](Self::settle). `segment_bytes` is the size at
    /// which it will be sealed.
    ///
    /// Where the operating system cannot map it, positional reads go on: slower, and as right.
    #[must_use]
    pub(crate) fn growing(mut self, bytes: u32, segment_bytes: u64, access: FileAccess) -> Self {
        if let (Source::File(file), FileAccess::Mapped) = (&self.source, access)
            && let Ok(map) = file.map(segment_bytes.max(u64::from(bytes)))
        {
            map.settle(u64::from(bytes));
            self.source = Source::Growing { map, file: file.clone() };
        }
        self
    }

    /// Whether it is [growing](Self::growing) and mapped.
    pub(crate) fn is_growing(&self) -> bool {
        matches!(self.source, Source::Growing { .. })
    }

    /// What stands before `end` does not change any more. To be said before the index points at it.
    pub(crate) fn settle(&self, end: u32) {
        if let Source::Growing { map, .. } = &self.source {
            map.settle(u64::from(end));
        }
    }

    /// The same segment once it is sealed: `bytes` long, and from here on it may be read through a
    /// mapping. Readers of this one go on as they are.
    ///
    /// Where the operating system cannot map it, positional reads go on: slower, and as right.
    pub(crate) fn sealed(&self, bytes: u32, access: FileAccess) -> Self {
        let bytes = u64::from(bytes);
        let map_anew = |file: &Arc<dyn StorageFile>| {
            let map = file.map(bytes).inspect(|map| map.settle(bytes));
            map.map_or_else(|_| Source::File(file.clone()), Source::Mapped)
        };
        let source = match &self.source {
            Source::Mapped(map) => Source::Mapped(map.clone()),
            // What is mapped already is not looked up again, page by page. A segment that was
            // sealed early gives the rest of its addresses back.
            Source::Growing { map, .. } if (bytes..=2 * bytes).contains(&map.reach()) => {
                Source::Mapped(map.clone())
            }
            Source::Growing { file, .. } => map_anew(file),
            Source::File(file) if access == FileAccess::Mapped => map_anew(file),
            Source::File(file) => Source::File(file.clone()),
        };
        Self {
            id: self.id,
            salt: self.salt,
            path: self.path.clone(),
            source,
            files: self.files.clone(),
        }
    }

    /// The file, opened again if need be.
    pub(crate) fn file(&self) -> Result<Arc<dyn StorageFile>> {
        match &self.source {
            Source::File(file) | Source::Growing { file, .. } => Ok(file.clone()),
            Source::Mapped(_) => self
                .files
                .storage
                .open(&self.id.log_name(), false)
                .map_err(Error::io("open", self.path.as_path())),
        }
    }

    /// The file, opened again if need be, or the mapping in its place where the name is gone: a
    /// writer beside us may have removed it.
    pub(crate) fn file_or_mapping(&self) -> Result<Arc<dyn StorageFile>> {
        match (self.file(), &self.source) {
            (Err(Error::Io { source, .. }), Source::Mapped(map))
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(Arc::new(Removed(map.clone())))
            }
            (file, _) => file,
        }
    }

    /// Compaction has replaced the segment: its files go when the last reader lets go.
    pub(crate) fn retire(&self) {
        self.files.retired.store(true, Ordering::Release);
    }

    /// Tells how long the files of a retired segment are still read.
    pub(crate) fn files(&self) -> Weak<Files> {
        Arc::downgrade(&self.files)
    }

    /// Reads one record, verifies its checksum and that it is the one of `key` with this sequence
    /// number, and gives its value.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with file and offset; [`Error::Io`] where a positional read fails.
    pub(crate) fn value(&self, entry: &KeyEntry, key: &[u8]) -> Result<Vec<u8>> {
        self.value_with(entry, key, |value| value.to_vec())
    }

    /// The same, shown to `read` where it stands, without a copy; returns what it makes of it.
    pub(crate) fn value_with<T>(
        &self,
        entry: &KeyEntry,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<T> {
        self.read_value(entry, key, read)?.ok_or_else(|| self.unexpected(entry))
    }

    fn unexpected(&self, entry: &KeyEntry) -> Error {
        let reason = "the record is another one than was expected here";
        self.corrupt(entry.location.offset, reason)
    }

    /// What `read` makes of the value, which it is shown where it stands, verified; `None` where the
    /// record is the one that `entry` says, but another key's.
    pub(crate) fn read_value<T>(
        &self,
        entry: &KeyEntry,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>> {
        let location = entry.location;
        let (offset, length) = (u64::from(location.offset), location.length as usize);
        if let Some(bytes) = self.map().and_then(|map| map.bytes(offset, length)) {
            return Ok(self.value_in(&bytes, entry, key)?.map(read));
        }
        let mut bytes = vec![0; length];
        let found = read_up_to(&*self.file()?, &mut bytes, offset)
            .map_err(Error::io("read", self.path.as_path()))?;
        let bytes = bytes.get(..found).unwrap_or_default();
        Ok(self.value_in(bytes, entry, key)?.map(read))
    }

    fn map(&self) -> Option<&dyn Mapped> {
        match &self.source {
            Source::Mapped(map) | Source::Growing { map, .. } => Some(&**map),
            Source::File(_) => None,
        }
    }

    /// A byte of each line of the processor's cache that a record is in, put together, where looking
    /// costs no system call. Of a long one the first few.
    pub(crate) fn touch(&self, location: Location) -> Option<u8> {
        const LINE_BYTES: usize = 64;
        const TOUCHED_BYTES_MAX: usize = 512;
        let length = (location.length as usize).min(TOUCHED_BYTES_MAX);
        let bytes = self.map()?.bytes(u64::from(location.offset), length)?;
        let ends = bytes.iter().step_by(LINE_BYTES).chain(bytes.last());
        Some(ends.fold(0, |all, byte| all ^ byte))
    }

    fn value_in<'b>(
        &self,
        bytes: &'b [u8],
        entry: &KeyEntry,
        key: &[u8],
    ) -> Result<Option<&'b [u8]>> {
        let offset = entry.location.offset;
        let corrupt = |reason: String| self.corrupt(offset, reason);
        let body = frame::body(bytes, self.salt, offset).map_err(|bad| corrupt(bad.to_string()))?;
        match Record::decode(body).map_err(corrupt)? {
            Record { seqno, op: Op::Set { key: found, value, .. }, .. } if seqno == entry.seqno => {
                Ok((found == key).then_some(value))
            }
            _ => Err(self.unexpected(entry)),
        }
    }

    pub(crate) fn corrupt(&self, offset: u32, reason: impl Into<String>) -> Error {
        Error::corrupt(&self.path, u64::from(offset), reason)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if *self.retired.get_mut() {
            // What cannot be removed now is an orphan, and goes at the next open.
            // The hint first: alone it would tell of a segment that is missing.
            let _ = remove_if_there(&*self.storage, &self.id.hint_name());
            let _ = remove_if_there(&*self.storage, &self.id.log_name());
        }
    }
}

/// A salt that no file had before. A number is given again where a crash kept the file that had it
/// from being listed, and that file's blocks may stand behind the end of the new one.
fn fresh_salt(store: StoreId, id: SegmentId) -> u32 {
    let [a, b, c, d, ..] = RandomState::new().hash_one(id.0).to_le_bytes();
    crate::format::salt(store, FileKind::Log, id) ^ u32::from_le_bytes([a, b, c, d])
}

/// Postcard refused to encode one of our own types: a bug, told as an error and not by a panic.
pub(crate) fn encode_error(error: postcard::Error) -> Error {
    Error::Encode { reason: error.to_string() }
}
