//! Writing, loading and rebuilding the hint of a sealed segment.

use std::sync::Arc;

use super::{FrameReader, Next, Segment, encode_error};
use crate::error::{Error, Result};
use crate::format::hint::{HintEncoder, HintEntry, HintKind, decode_hint};
use crate::format::record::{Op, Record};
use crate::format::{SegmentId, StoreId};
use crate::storage::{Storage, StorageFile, read_all, replace_file, write_all_at};

/// What a hint can have beyond the length of its segment: an entry is never longer than its record,
/// and blocks and ends take little.
const HINT_BYTES_BEYOND: u64 = 4096;

/// Writes the hint of a segment that is being written by compaction, record by record. The file is
/// not listed anywhere yet, so it needs no temporary name.
pub(crate) struct HintWriter {
    encoder: HintEncoder,
    file: Arc<dyn StorageFile>,
    path: std::path::PathBuf,
    written: u64,
}

impl HintWriter {
    pub(crate) fn create(storage: &dyn Storage, store: StoreId, id: SegmentId) -> Result<Self> {
        let name = id.hint_name();
        let path = storage.path().join(&name);
        let file = storage.create(&name).map_err(Error::io("create", path.as_path()))?;
        let encoder = HintEncoder::new(store, id).map_err(encode_error)?;
        Ok(Self { encoder, file, path, written: 0 })
    }

    pub(crate) fn push(&mut self, entry: &HintEntry<'_>) -> Result<()> {
        self.encoder.push(entry).map_err(encode_error)?;
        self.write()
    }

    /// Completes and syncs the file; returns its length.
    pub(crate) fn finish(mut self, segment_bytes: u32) -> Result<u64> {
        self.encoder.finish(segment_bytes).map_err(encode_error)?;
        self.write()?;
        self.file.sync().map_err(Error::io("sync", self.path.as_path()))?;
        Ok(self.written)
    }

    fn write(&mut self) -> Result<()> {
        let (at, piece) = self.encoder.take();
        if piece.is_empty() {
            return Ok(());
        }
        write_all_at(&*self.file, &piece, at)
            .map_err(Error::io("write to", self.path.as_path()))?;
        self.written = at + piece.len() as u64;
        Ok(())
    }
}

/// Builds the hint of a sealed segment from the segment and puts it in place atomically; returns
/// its length. Each entry is also given to `visit`. With `storage` `None` nothing is written: a
/// reader beside a writer only looks.
///
/// # Errors
/// [`Error::Corrupt`] where the segment is damaged.
pub(crate) fn rebuild_hint(
    storage: Option<&dyn Storage>,
    store: StoreId,
    segment: &Segment,
    first_record: u32,
    bytes: u32,
    mut visit: impl FnMut(&HintEntry<'_>),
) -> Result<u64> {
    let mut reader = FrameReader::new(segment, first_record, bytes)?;
    let mut encoder = HintEncoder::new(store, segment.id).map_err(encode_error)?;
    let mut finished = false;
    let mut next_piece = || -> Result<Option<Vec<u8>>> {
        while !finished {
            match reader.next()? {
                Next::Frame(frame) => {
                    let record = Record::decode(frame.body)
                        .map_err(|reason| segment.corrupt(frame.offset, reason))?;
                    let entry = hint_entry(&record, frame.offset, frame.length);
                    visit(&entry);
                    encoder.push(&entry).map_err(encode_error)?;
                }
                Next::Bad { offset, reason } => return Err(segment.corrupt(offset, reason)),
                Next::End => {
                    encoder.finish(bytes).map_err(encode_error)?;
                    finished = true;
                }
            }
            let (_, piece) = encoder.take();
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    };
    match storage {
        Some(storage) => replace_file(storage, &segment.id.hint_name(), next_piece),
        None => {
            while next_piece()?.is_some() {}
            Ok(0)
        }
    }
}

/// Loads the hint of a sealed segment, entry by entry; returns the file's length.
///
/// # Errors
/// Why the hint cannot be used: it is missing, damaged, of another format or of another segment.
/// What `visit` was given then does not count.
pub(crate) fn load_hint(
    storage: &dyn Storage,
    store: StoreId,
    id: SegmentId,
    segment_bytes: u32,
    visit: impl FnMut(&HintEntry<'_>),
) -> std::result::Result<u64, String> {
    let file = storage.open(&id.hint_name(), false).map_err(|error| error.to_string())?;
    let bytes_max = 2 * u64::from(segment_bytes) + HINT_BYTES_BEYOND;
    let bytes = read_all(&*file, bytes_max).map_err(|error| error.to_string())?;
    decode_hint(&bytes, store, id, segment_bytes, visit)?;
    Ok(bytes.len() as u64)
}

/// The hint entry of a record that stands at `offset`.
pub(crate) fn hint_entry<'a>(record: &Record<'a>, offset: u32, length: u32) -> HintEntry<'a> {
    let (kind, key) = match record.op {
        Op::Set { expires_at_ms, key, .. } => (HintKind::set(expires_at_ms), key),
        Op::Tombstone { key } => (HintKind::Tombstone, key),
    };
    HintEntry { offset, length, seqno: record.seqno, kind, key }
}
