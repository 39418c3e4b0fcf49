//! What is in one segment, for `check` and `repair`: its intact records, the holes between them,
//! which batches those cut, and what its hint knows.

use std::ops::Range;
use std::path::PathBuf;

use super::walk::{Framed, Item, LogFile, Piece};
use crate::error::Result;
use crate::format::frame::{self, FRAME_HEADER_BYTES};
use crate::format::hint::{HintEntry, HintPart, decode_part};
use crate::format::{
    BadPreamble, FileKind, PREAMBLE_BYTES, SEQNO_MAX, SegmentId, SeqNo, StoreId, decode_preamble,
    preamble_salt, salt,
};
use crate::recovery::Gathered;
use crate::segment::hint_entry;
use crate::storage::{Storage, read_up_to};

/// Bytes that are no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) offset: u32,
    pub(crate) length: u32,
    pub(crate) reason: String,
    /// Nothing but zeros, up to the end.
    pub(crate) zeros: bool,
    /// How many intact records stand before it.
    pub(crate) records_before: usize,
}

impl Hole {
    pub(crate) fn end(&self) -> u32 {
        self.offset.saturating_add(self.length)
    }
}

/// Something that a right checksum does not prove, and that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) offset: u32,
    pub(crate) length: u32,
    pub(crate) reason: &'static str,
}

/// The records of a segment, in the order of the file.
#[derive(Default)]
pub(crate) struct Scanned {
    pub(crate) records: Gathered,
    pub(crate) holes: Vec<Hole>,
    /// How far the records say that the segment was durable.
    pub(crate) vouched: u32,
    /// Records of batches that are not whole, as positions among `records`.
    pub(crate) partial: Vec<Range<usize>>,
    /// The first record whose sequence number is not larger than that of the one before it.
    pub(crate) not_rising: Option<Fault>,
    /// A batch that does not count down, with no hole in between.
    pub(crate) broken_batch: Option<Fault>,
    /// The last batch, if it has no end and no intact record follows: where it begins, and how
    /// many records stand before it.
    pub(crate) open_batch: Option<(u32, usize)>,
    /// Users wrote it: compaction would not have left these numbers.
    pub(crate) is_users: bool,
    /// Where the last intact record ends.
    pub(crate) records_end: u32,
}

impl Scanned {
    /// Reads a segment up to `end`. `progress` is told of bytes that were read, a few at a time.
    pub(crate) fn read(log: &LogFile, end: u32, progress: &dyn Fn(u64)) -> Result<Self> {
        let mut scanning = Scanning {
            scanned: Self { records_end: log.first_record, ..Self::default() },
            newest: 0,
            batch: None,
        };
        let mut told = Progress { at: log.first_record, tell: progress };
        log.walk(end, &mut |item| {
            match item {
                Item::Record { offset, length, record } => {
                    told.reached(offset + length);
                    if record.seqno > SEQNO_MAX {
                        let reason = "its sequence number is larger than any store's".to_string();
                        scanning.hole(Hole::new(offset, length, reason, false));
                    } else {
                        scanning.record(offset, length, &record);
                    }
                }
                Item::Damaged { offset, length, reason } => {
                    scanning.hole(Hole::new(offset, length, reason, false));
                }
                Item::Zeros { offset, length } => {
                    let reason = "nothing but zeros up to the end".to_string();
                    scanning.hole(Hole::new(offset, length, reason, true));
                }
            }
            Ok(())
        })?;
        told.finish(end.min(log.bytes));
        Ok(scanning.finish())
    }

    /// How many records there are before the first hole at or past `durable`, and that hole; of a
    /// batch without an end nothing counts.
    pub(crate) fn up_to_tail(&self, durable: u32) -> (usize, Option<&Hole>) {
        let tail = self.holes.iter().find(|hole| hole.offset >= durable);
        let records = tail.map_or(self.records.len(), |hole| hole.records_before);
        let open = self.open_batch.map_or(usize::MAX, |(_, before)| before);
        // A batch that the tail has cut has no end either.
        let cut = self.partial.iter().find(|range| range.end == records && tail.is_some());
        let cut = cut.map_or(usize::MAX, |range| range.start);
        (records.min(open).min(cut), tail)
    }
}

impl Hole {
    fn new(offset: u32, length: u32, reason: String, zeros: bool) -> Self {
        Self { offset, length, reason, zeros, records_before: 0 }
    }
}

/// A batch that has begun and not ended.
struct Batch {
    offset: u32,
    first_record: usize,
    rest: u32,
    /// Its beginning may be in the hole before it.
    is_cut: bool,
}

struct Scanning {
    scanned: Scanned,
    newest: SeqNo,
    batch: Option<Batch>,
}

impl Scanning {
    fn record(&mut self, offset: u32, length: u32, record: &crate::format::record::Record<'_>) {
        let scanned = &mut self.scanned;
        let position = scanned.records.len();
        let fault = |reason| Some(Fault { offset, length, reason });
        if record.seqno <= self.newest && scanned.not_rising.is_none() {
            scanned.not_rising = fault("its sequence number is not larger than that before it");
        }
        self.newest = record.seqno;
        scanned.open_batch = None;
        let continues = |batch: &Batch| record.batch_rest.checked_add(1) == Some(batch.rest);
        let is_behind_hole =
            scanned.holes.last().is_some_and(|hole| hole.records_before == position);
        if let Some(batch) = self.batch.take_if(|batch| !continues(batch)) {
            scanned.partial.push(batch.first_record..position);
            if scanned.broken_batch.is_none() {
                scanned.broken_batch = fault("it does not continue the batch before it");
            }
        }
        match (&mut self.batch, record.batch_rest) {
            (Some(batch), 0) if batch.is_cut => {
                scanned.partial.push(batch.first_record..position + 1);
                self.batch = None;
            }
            (Some(_), 0) => self.batch = None,
            (Some(batch), rest) => batch.rest = rest,
            (None, 0) => {}
            (None, rest) => {
                let is_cut = is_behind_hole;
                self.batch = Some(Batch { offset, first_record: position, rest, is_cut });
            }
        }
        scanned.is_users |= record.batch_rest > 0 || record.unsynced > 0;
        scanned.vouched = scanned.vouched.max(offset.saturating_sub(record.unsynced));
        scanned.records.add(&hint_entry(record, offset, length));
        scanned.records_end = offset + length;
    }

    fn hole(&mut self, mut hole: Hole) {
        let scanned = &mut self.scanned;
        let position = scanned.records.len();
        if let Some(batch) = self.batch.take() {
            scanned.partial.push(batch.first_record..position);
            scanned.open_batch = Some((batch.offset, batch.first_record));
        }
        hole.records_before = position;
        match scanned.holes.last_mut() {
            // Zeros behind damage are told by themselves: they may be no damage.
            Some(last) if last.end() == hole.offset && !hole.zeros => last.length += hole.length,
            _ => scanned.holes.push(hole),
        }
    }

    fn finish(mut self) -> Scanned {
        if let Some(batch) = self.batch {
            self.scanned.partial.push(batch.first_record..self.scanned.records.len());
            self.scanned.open_batch = Some((batch.offset, batch.first_record));
        }
        self.scanned
    }
}

/// Tells of bytes a piece at a time.
struct Progress<'a> {
    at: u32,
    tell: &'a dyn Fn(u64),
}

impl Progress<'_> {
    fn reached(&mut self, offset: u32) {
        const PIECE_BYTES: u32 = 1024 * 1024;
        if offset.saturating_sub(self.at) >= PIECE_BYTES {
            self.finish(offset);
        }
    }

    fn finish(&mut self, offset: u32) {
        (self.tell)(u64::from(offset.saturating_sub(self.at)));
        self.at = self.at.max(offset);
    }
}

/// What could be read of a hint. Every entry in it stood in a frame whose checksum was right.
#[derive(Default)]
pub(crate) struct ReadHint {
    pub(crate) path: PathBuf,
    pub(crate) entries: Gathered,
    pub(crate) bytes: u64,
    /// How long its segment was when it was sealed, if its end tells.
    pub(crate) segment_bytes: Option<u32>,
    /// What is wrong with it: offset, length, reason.
    pub(crate) faults: Vec<(u64, u64, String)>,
    /// It gives a format version that this build does not know: nothing of it was read.
    pub(crate) unknown_version: bool,
}

impl ReadHint {
    /// Reads the hint of a segment past damage; `None` where there is none. `segment_bytes` is how
    /// long the segment is, where that is known.
    pub(crate) fn read(
        storage: &dyn Storage,
        store: StoreId,
        id: SegmentId,
        segment_bytes: Option<u32>,
    ) -> Option<Self> {
        let name = id.hint_name();
        let mut hint = Self { path: storage.path().join(&name), ..Self::default() };
        let file = match storage.open(&name, false) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => {
                hint.faults.push((0, 0, format!("it cannot be opened: {error}")));
                return Some(hint);
            }
        };
        hint.bytes = file.len().unwrap_or(0);
        let end = u32::try_from(hint.bytes).unwrap_or(u32::MAX);
        let mut start = [0; PREAMBLE_BYTES];
        let read = read_up_to(&*file, &mut start, 0).unwrap_or(0);
        let start = start.get(..read).unwrap_or_default();
        let expected_salt = salt(store, FileKind::Hint, id);
        let preamble = decode_preamble(FileKind::Hint, start);
        if let Err(bad) = &preamble {
            hint.unknown_version = matches!(bad, BadPreamble::UnknownVersion(_));
            hint.faults.push((0, read as u64, bad.to_string()));
        } else if preamble_salt(start) != Some(expected_salt) {
            hint.faults.push((0, read as u64, "it belongs to another segment".to_string()));
        }
        let range = (PREAMBLE_BYTES as u32).min(end)..end;
        let framed = Framed { file: &file, path: &hint.path.clone(), salt: expected_salt, range };
        hint.read_frames(&framed, HintPart::Header { store, segment: id }, segment_bytes);
        Some(hint)
    }

    /// Which store a hint is of, by itself.
    pub(crate) fn store_of(storage: &dyn Storage, id: SegmentId) -> Option<StoreId> {
        const START_BYTES_MAX: usize = 64;
        let file = storage.open(&id.hint_name(), false).ok()?;
        let mut start = [0; START_BYTES_MAX];
        let read = read_up_to(&*file, &mut start, 0).ok()?;
        let start = start.get(..read)?;
        let of_file = preamble_salt(start)?;
        let framed = start.get(PREAMBLE_BYTES..)?;
        let body = frame::body(framed, of_file, PREAMBLE_BYTES as u32).ok()?;
        match decode_part(body, |_| Ok(())) {
            Ok(HintPart::Header { store, segment }) => {
                (segment == id && salt(store, FileKind::Hint, id) == of_file).then_some(store)
            }
            _ => None,
        }
    }

    fn read_frames(&mut self, framed: &Framed<'_>, header: HintPart, segment_bytes: Option<u32>) {
        let is_part = |body: &[u8]| decode_part(body, |_| Ok(())).is_ok();
        let Self { entries, faults, segment_bytes: told_bytes, .. } = self;
        let mut is_complete = false;
        let mut offset_at_end = 0;
        let mut take_in = |piece: Piece<'_>| -> Result<()> {
            let (offset, length, reason) = match piece {
                Piece::Damaged { offset, length, reason } => (offset, length, reason),
                Piece::Zeros { offset, length } => (offset, length, "zeros".to_string()),
                Piece::Frame { offset, length, body } => {
                    offset_at_end = offset;
                    let reason = match read_part(body, segment_bytes, entries) {
                        Err(reason) => reason,
                        Ok(part @ HintPart::Header { .. }) if part != header => {
                            "it belongs to another segment".to_string()
                        }
                        Ok(HintPart::End { records, segment_bytes: of_bytes }) => {
                            *told_bytes = Some(of_bytes);
                            is_complete = entries.len() as u64 == u64::from(records)
                                && segment_bytes.is_none_or(|bytes| bytes == of_bytes);
                            return Ok(());
                        }
                        Ok(HintPart::Header { .. } | HintPart::Entries(_)) => return Ok(()),
                    };
                    (offset, length, reason)
                }
            };
            faults.push((offset.into(), length.into(), reason));
            Ok(())
        };
        // What cannot be read is damaged, and `take_in` does not fail.
        let _ = framed.walk(is_part, &mut take_in);
        if !is_complete && faults.is_empty() {
            let at = u64::from(offset_at_end);
            faults.push((at, self.bytes.saturating_sub(at), "it is not complete".to_string()));
        }
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.faults.is_empty()
    }
}

/// Takes in what a frame of a hint holds: all of it or nothing.
fn read_part(
    body: &[u8],
    segment_bytes: Option<u32>,
    entries: &mut Gathered,
) -> std::result::Result<HintPart, String> {
    let mut held: Vec<HintEntry<'_>> = Vec::new();
    let part = decode_part(body, |entry| {
        let end = u64::from(entry.offset) + u64::from(entry.length);
        if segment_bytes.is_some_and(|bytes| end > u64::from(bytes))
            || entry.length <= FRAME_HEADER_BYTES as u32
            || entry.seqno > SEQNO_MAX
        {
            return Err("an entry is of no record that could be there".to_string());
        }
        held.push(*entry);
        Ok(())
    })?;
    held.iter().for_each(|entry| entries.add(entry));
    Ok(part)
}

/// Where what a hint says and what stands in the segment part ways, if they do: the record's
/// offset. Otherwise the hint's entries in the segment's holes, as positions among its entries.
pub(crate) fn compare(
    hint: &Gathered,
    scanned: &Scanned,
    first_record: u32,
) -> std::result::Result<Vec<usize>, u32> {
    let mut lost = Vec::new();
    let mut entries = hint.records().enumerate().peekable();
    let mut before_end = first_record;
    let in_hole = |entry: &HintEntry<'_>| {
        let end = entry.offset.saturating_add(entry.length);
        let first = scanned.holes.partition_point(|hole| hole.end() <= entry.offset);
        let hole = scanned.holes.get(first);
        // What the file lacks at its end is as lost as what is overwritten.
        hole.is_some_and(|hole| hole.offset < end) || entry.offset >= scanned.records_end
    };
    for record in scanned.records.records() {
        while let Some((position, entry)) =
            entries.next_if(|(_, entry)| entry.offset < record.offset)
        {
            if entry.offset < before_end || !in_hole(&entry) {
                return Err(entry.offset);
            }
            lost.push(position);
        }
        match entries.next_if(|(_, entry)| entry.offset == record.offset) {
            Some((_, entry)) if entry != record => return Err(record.offset),
            Some(_) => {}
            // A hint that is damaged itself may lack it; who asks knows whether it is whole.
            None => {}
        }
        before_end = record.offset + record.length;
    }
    for (position, entry) in entries {
        if !in_hole(&entry) {
            return Err(entry.offset);
        }
        lost.push(position);
    }
    Ok(lost)
}
