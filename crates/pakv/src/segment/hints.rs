//! Writing, loading and rebuilding the hint of a sealed segment.

use std::io::ErrorKind;

use super::{FrameReader, Next, Segment, encode_error};
use crate::error::{Error, Result};
use crate::format::hint::{HintEncoder, HintEntry, HintKind, decode_hint};
use crate::format::record::{Op, Record};
use crate::format::{SegmentId, StoreId};
use crate::options::Options;
use crate::storage::{Storage, read_all, replace_file, write_all_at};

/// What a hint can have beyond the length of its segment: an entry is never longer than its record,
/// and blocks and ends take little.
const HINT_BYTES_BEYOND: u64 = 4096;

/// Records of this size on average, or larger, have hints that are small beside them.
const LARGE_RECORD_BYTES: u64 = 512;

/// Whether a sealed segment may do without a hint: where records are small, hints are a fifth of the
/// log, and a segment is read nearly as fast.
pub(crate) fn may_lack_hint(options: &Options, bytes: u64, records: u64) -> bool {
    bytes >= options.hintless_segment_bytes && bytes < records.saturating_mul(LARGE_RECORD_BYTES)
}

/// A hint as it is built, in memory, while its segment is written: given up where it grows larger
/// than it may.
pub(crate) struct HintImage {
    encoder: HintEncoder,
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl HintImage {
    pub(crate) fn new(store: StoreId, id: SegmentId, bytes_max: usize) -> Result<Self> {
        let encoder = HintEncoder::new(store, id).map_err(encode_error)?;
        Ok(Self { encoder, bytes: Vec::new(), bytes_max })
    }

    pub(crate) fn push(&mut self, entry: &HintEntry<'_>) -> Result<()> {
        if self.is_whole() {
            self.encoder.push(entry).map_err(encode_error)?;
            self.bytes.append(&mut self.encoder.take().1);
        }
        if !self.is_whole() {
            self.bytes = Vec::new();
        }
        Ok(())
    }

    /// The bytes of the file; `None` where they were too many to keep.
    pub(crate) fn finish(mut self, segment_bytes: u32) -> Result<Option<Vec<u8>>> {
        if !self.is_whole() {
            return Ok(None);
        }
        self.encoder.finish(segment_bytes).map_err(encode_error)?;
        self.bytes.append(&mut self.encoder.take().1);
        Ok(Some(self.bytes))
    }

    fn is_whole(&self) -> bool {
        // An image that was given up stays so: the encoder counts on.
        self.encoder.written() <= self.bytes_max as u64
    }
}

/// Writes and syncs the hint of a segment that is not listed anywhere yet, so that it needs no
/// temporary name.
pub(crate) fn write_hint(storage: &dyn Storage, id: SegmentId, bytes: &[u8]) -> Result<u64> {
    let name = id.hint_name();
    let path = storage.path().join(&name);
    let file = storage.create(&name).map_err(Error::io("create", path.as_path()))?;
    write_all_at(&*file, bytes, 0).map_err(Error::io("write to", path.as_path()))?;
    file.sync().map_err(Error::io("sync", path.as_path()))?;
    Ok(bytes.len() as u64)
}

/// Gives the records of a sealed segment to `visit`, without their values.
///
/// # Errors
/// [`Error::Corrupt`] where the segment is damaged.
pub(crate) fn visit_records(
    segment: &Segment,
    first_record: u32,
    bytes: u32,
    mut visit: impl FnMut(&HintEntry<'_>) -> Result<()>,
) -> Result<()> {
    let mut reader = FrameReader::new(segment, first_record, bytes)?;
    loop {
        match reader.next()? {
            Next::Frame(frame) => {
                let record = Record::decode(frame.body)
                    .map_err(|reason| segment.corrupt(frame.offset, reason))?;
                visit(&hint_entry(&record, frame.offset, frame.length))?;
            }
            Next::Bad { offset, reason } => return Err(segment.corrupt(offset, reason)),
            Next::End => return Ok(()),
        }
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
/// Why the hint cannot be used. What `visit` was given then does not count.
pub(crate) fn load_hint(
    storage: &dyn Storage,
    store: StoreId,
    id: SegmentId,
    segment_bytes: u32,
    visit: impl FnMut(&HintEntry<'_>),
) -> std::result::Result<u64, NoHint> {
    let file = storage.open(&id.hint_name(), false).map_err(|error| match error.kind() {
        ErrorKind::NotFound => NoHint::Missing,
        _ => NoHint::Unusable,
    })?;
    let bytes_max = 2 * u64::from(segment_bytes) + HINT_BYTES_BEYOND;
    let bytes = read_all(&*file, bytes_max).map_err(|_| NoHint::Unusable)?;
    decode_hint(&bytes, store, id, segment_bytes, visit).map_err(|_| NoHint::Unusable)?;
    Ok(bytes.len() as u64)
}

/// Why a hint cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoHint {
    Missing,
    /// Damaged, of another format or of another segment, or it cannot be read.
    Unusable,
}

/// The hint entry of a record that stands at `offset`.
pub(crate) fn hint_entry<'a>(record: &Record<'a>, offset: u32, length: u32) -> HintEntry<'a> {
    let (kind, key) = op_entry(&record.op);
    HintEntry { offset, length, seqno: record.seqno, kind, key }
}

/// What an operation is to the keydir, and of which key.
pub(crate) fn op_entry<'a>(op: &Op<'a>) -> (HintKind, &'a [u8]) {
    match *op {
        Op::Set { expires_at_ms, key, .. } => (HintKind::set(expires_at_ms), key),
        Op::Tombstone { key } => (HintKind::Tombstone, key),
    }
}
