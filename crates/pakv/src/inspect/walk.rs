//! Walking a file past damage: every frame whose checksum is right, and every range in between.
//!
//! Up to the first damage a file is read piece by piece. From there on the rest of it is in memory,
//! because a frame can begin at any byte then: memory is bounded by one segment, in damaged ones
//! only.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::frame::{self, BadFrame, FrameFinder};
use crate::format::record::{Record, SegmentHeader};
use crate::format::{BadPreamble, FileKind, PREAMBLE_BYTES, SegmentId, decode_exact};
use crate::format::{decode_preamble, preamble_salt};
use crate::limits::{MAX_BATCH_BYTES, MAX_SEGMENT_BYTES};
use crate::segment::{FrameReader, Next, is_zero};
use crate::storage::{Storage, StorageFile, read_up_to};

/// What stands next in a file.
#[derive(Debug)]
pub(crate) enum Piece<'a> {
    /// A frame whose checksum is right.
    Frame { offset: u32, length: u32, body: &'a [u8] },
    /// Bytes that are no frame, up to the next one.
    Damaged { offset: u32, length: u32, reason: String },
    /// Nothing but zeros up to the end.
    Zeros { offset: u32, length: u32 },
}

/// The same of a segment.
#[derive(Debug)]
pub(crate) enum Item<'a> {
    Record { offset: u32, length: u32, record: Record<'a> },
    Damaged { offset: u32, length: u32, reason: String },
    Zeros { offset: u32, length: u32 },
}

/// A file and the part of it that frames fill.
#[derive(Debug, Clone)]
pub(crate) struct Framed<'a> {
    pub(crate) file: &'a Arc<dyn StorageFile>,
    /// For messages.
    pub(crate) path: &'a Path,
    pub(crate) salt: u32,
    pub(crate) range: Range<u32>,
}

impl Framed<'_> {
    /// Gives everything in the range to `visit`, in order and without a gap. A frame after damage
    /// is taken for one only if its body is `plausible`.
    ///
    /// # Errors
    /// Those of `visit` alone: what cannot be read is damaged.
    pub(crate) fn walk(
        &self,
        plausible: impl Fn(&[u8]) -> bool,
        visit: &mut dyn FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        let Range { start, end } = self.range;
        let mut reader = FrameReader::over(self.file.clone(), self.path, self.salt, start, end);
        let (from, reason) = loop {
            match reader.next() {
                Ok(Next::Frame(frame)) => {
                    let (offset, length, body) = (frame.offset, frame.length, frame.body);
                    visit(Piece::Frame { offset, length, body })?;
                }
                Ok(Next::End) => return Ok(()),
                Ok(Next::Bad { offset, reason }) => break (offset, reason),
                Err(error) => break (reader.offset(), error.to_string()),
            }
        };
        drop(reader);
        if is_zero(&**self.file, from, end).unwrap_or(false) {
            return visit(Piece::Zeros { offset: from, length: end - from });
        }
        self.walk_damaged(from, reason, plausible, visit)
    }

    /// The same from `from` on, where there is no frame.
    fn walk_damaged(
        &self,
        from: u32,
        reason: String,
        plausible: impl Fn(&[u8]) -> bool,
        visit: &mut dyn FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        let (bytes, unreadable) = read_what_can_be(&**self.file, from..self.range.end);
        let finder = FrameFinder::new(&bytes, self.salt, from);
        let mut at = 0;
        let mut reason = Some(reason);
        while at < bytes.len() {
            let found = finder.next_from(at, &plausible);
            let damaged = at..found.map_or(bytes.len(), |(index, _)| index);
            if !damaged.is_empty() {
                let told = unreadable.iter().find(|(range, _)| overlap(range, &damaged));
                let reason = match (told, reason.take()) {
                    (Some((_, told)), _) => told.clone(),
                    (None, Some(reason)) => reason,
                    (None, None) => BadFrame::Empty.to_string(),
                };
                let is_last = found.is_none() && told.is_none();
                damaged_and_zeros(&bytes, &damaged, is_last, from, reason, visit)?;
            }
            let Some((index, body)) = found else { break };
            let length = frame::FRAME_HEADER_BYTES + body.len();
            let offset = from + index as u32;
            visit(Piece::Frame { offset, length: length as u32, body })?;
            at = index + length;
            reason = None;
        }
        Ok(())
    }
}

/// Zeros that end a damaged range at the end of the file are told apart from it.
fn damaged_and_zeros(
    bytes: &[u8],
    damaged: &Range<usize>,
    is_last: bool,
    from: u32,
    reason: String,
    visit: &mut dyn FnMut(Piece<'_>) -> Result<()>,
) -> Result<()> {
    let range = bytes.get(damaged.clone()).unwrap_or_default();
    let zeros = range.iter().rev().take_while(|byte| is_last && **byte == 0).count();
    let middle = damaged.end - zeros;
    let at = |index: usize| from + index as u32;
    if middle > damaged.start {
        let length = (middle - damaged.start) as u32;
        visit(Piece::Damaged { offset: at(damaged.start), length, reason })?;
    }
    if zeros > 0 {
        visit(Piece::Zeros { offset: at(middle), length: zeros as u32 })?;
    }
    Ok(())
}

fn overlap(one: &Range<usize>, other: &Range<usize>) -> bool {
    one.start < other.end && other.start < one.end
}

/// Reads a range of a file whatever the disk says: what cannot be read is zeros, and told. Zeros
/// take no memory: a file may be enormous and have holes.
fn read_what_can_be(
    file: &dyn StorageFile,
    range: Range<u32>,
) -> (Vec<u8>, Vec<(Range<usize>, String)>) {
    const PIECE_BYTES: usize = 1024 * 1024;
    const BLOCK_BYTES: usize = 4096;
    let mut bytes = vec![0; (range.end - range.start) as usize];
    let mut unreadable = Vec::new();
    let mut buffer = vec![0; PIECE_BYTES.min(bytes.len())];
    let read = |start: usize, piece: &mut [u8]| {
        read_up_to(file, piece, u64::from(range.start) + start as u64)
    };
    for (index, piece) in bytes.chunks_mut(PIECE_BYTES).enumerate() {
        let start = index * PIECE_BYTES;
        let buffer = buffer.get_mut(..piece.len()).unwrap_or_default();
        buffer.fill(0);
        if read(start, buffer).is_err() {
            for (index, block) in buffer.chunks_mut(BLOCK_BYTES).enumerate() {
                let start = start + index * BLOCK_BYTES;
                if let Err(error) = read(start, block) {
                    block.fill(0);
                    let reason = format!("it cannot be read: {error}");
                    unreadable.push((start..start + block.len(), reason));
                }
            }
        }
        if buffer.iter().any(|byte| *byte != 0) {
            piece.copy_from_slice(buffer);
        }
    }
    (bytes, unreadable)
}

/// A log file as it was found, its start damaged or not.
#[derive(Debug)]
pub(crate) struct LogFile {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn StorageFile>,
    /// At most what a segment can have.
    pub(crate) bytes: u32,
    pub(crate) salt: u32,
    /// `None` where it is damaged.
    pub(crate) header: Option<SegmentHeader>,
    pub(crate) first_record: u32,
    /// The format version that it gives, if not this build's.
    pub(crate) unknown_version: Option<u32>,
    /// What is wrong before the first record: offset, length, reason.
    pub(crate) damage: Vec<(u32, u32, String)>,
}

/// No segment is larger: one batch goes past the size at which it is sealed.
const SEGMENT_BYTES_MAX: u32 = (MAX_SEGMENT_BYTES + MAX_BATCH_BYTES) as u32;

/// The largest that preamble and header of a segment can be.
const START_BYTES_MAX: usize = 64;

impl LogFile {
    /// Opens a log file, whatever is in it.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be opened.
    pub(crate) fn open(storage: &dyn Storage, id: SegmentId) -> Result<Self> {
        let name = id.log_name();
        let path = storage.path().join(&name);
        let file = storage.open(&name, false).map_err(Error::io("open", path.as_path()))?;
        Self::over(file, path)
    }

    /// The same for a file that is open.
    ///
    /// # Errors
    /// [`Error::Io`] where its length cannot be told.
    pub(crate) fn over(file: Arc<dyn StorageFile>, path: PathBuf) -> Result<Self> {
        let len = file.len().map_err(Error::io("read", path.as_path()))?;
        let bytes = u32::try_from(len).unwrap_or(u32::MAX).min(SEGMENT_BYTES_MAX);
        let mut start = [0; START_BYTES_MAX];
        let read = read_up_to(&*file, &mut start, 0).unwrap_or(0);
        let start = start.get(..read).unwrap_or_default();
        let mut log = Self {
            path,
            file,
            bytes,
            salt: preamble_salt(start).unwrap_or_default(),
            header: None,
            first_record: (PREAMBLE_BYTES as u32).min(bytes),
            unknown_version: None,
            damage: Vec::new(),
        };
        if len > u64::from(bytes) {
            let reason = format!("{len} bytes are more than a segment can have");
            log.damage.push((bytes, 0, reason));
        }
        log.read_start(start);
        if log.header.is_none() && log.restore_salt() {
            log.read_start(start);
        }
        Ok(log)
    }

    /// Where no record is right by the salt in the preamble, that may be damaged, and the header
    /// frame, whose content is known, tells what it was. The records then prove it.
    ///
    /// Frames elsewhere cannot tell: a user may have stored another segment as a value, and what is
    /// in there agrees on a salt as well.
    fn restore_salt(&mut self) -> bool {
        let (bytes, _) = read_what_can_be(&*self.file, self.first_record..self.bytes);
        let is_right = |salt| {
            let finder = FrameFinder::new(&bytes, salt, self.first_record);
            finder.next_from(0, Record::is_record).is_some()
        };
        let Some((salt, body)) = FrameFinder::new(&bytes, 0, self.first_record).salt_at(0) else {
            return false;
        };
        let is_header = decode_exact::<SegmentHeader>(body).is_ok();
        if !is_header || is_right(self.salt) || !is_right(salt) {
            return false;
        }
        self.salt = salt;
        self.damage.clear();
        let at = PREAMBLE_BYTES as u32 - 4;
        self.damage.push((at, 4, "the salt is not that of the records".to_string()));
        true
    }

    fn read_start(&mut self, start: &[u8]) {
        let preamble = decode_preamble(FileKind::Log, start);
        if let Err(bad) = &preamble {
            if let BadPreamble::UnknownVersion(version) = bad {
                self.unknown_version = Some(*version);
            }
            let length = self.bytes.min(PREAMBLE_BYTES as u32);
            self.damage.push((0, length, bad.to_string()));
        }
        let framed = start.get(PREAMBLE_BYTES..).unwrap_or_default();
        let header = frame::body(framed, self.salt, PREAMBLE_BYTES as u32)
            .map_err(|bad| bad.to_string())
            .and_then(decode_exact::<SegmentHeader>);
        match header {
            Ok(header) => {
                let length = frame::claimed_len(framed).unwrap_or_default();
                self.first_record = PREAMBLE_BYTES as u32 + u32::try_from(length).unwrap_or(0);
                self.header = Some(header);
            }
            // Where it ends, and the records begin, is found by the walk.
            Err(reason) => {
                self.damage.push((self.first_record, 0, format!("its header: {reason}")));
            }
        }
    }

    /// The part of it that records fill, up to `end` or to its end.
    pub(crate) fn framed(&self, end: u32) -> Framed<'_> {
        let end = end.min(self.bytes);
        let range = self.first_record.min(end)..end;
        Framed { file: &self.file, path: &self.path, salt: self.salt, range }
    }

    /// Whether everything from `offset` on is records of this segment.
    pub(crate) fn goes_on_with_records(&self, offset: u32) -> bool {
        let mut is_whole = true;
        let mut look = |piece: Piece<'_>| {
            is_whole &= matches!(piece, Piece::Frame { body, .. } if Record::is_record(body));
            Ok(())
        };
        let behind = Framed { range: offset..self.bytes, ..self.framed(u32::MAX) };
        behind.walk(Record::is_record, &mut look).is_ok() && is_whole
    }

    /// Gives everything from the first record up to `end` to `visit`.
    ///
    /// # Errors
    /// Those of `visit`.
    pub(crate) fn walk(
        &self,
        end: u32,
        visit: &mut dyn FnMut(Item<'_>) -> Result<()>,
    ) -> Result<()> {
        self.framed(end).walk(Record::is_record, &mut |piece| match piece {
            Piece::Frame { offset, length, body } => match Record::decode(body) {
                Ok(record) => visit(Item::Record { offset, length, record }),
                Err(reason) => visit(Item::Damaged { offset, length, reason }),
            },
            Piece::Damaged { offset, length, reason } => {
                visit(Item::Damaged { offset, length, reason })
            }
            Piece::Zeros { offset, length } => visit(Item::Zeros { offset, length }),
        })
    }
}
