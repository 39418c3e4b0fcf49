//! The active segment's part of an open: replay up to the end or to the first bytes that are no
//! frame, tell a torn tail from damage, and cut the tail to whole batches.
//!
//! What was not synced reaches the disk in any order, so bytes that cannot be read prove nothing by
//! themselves, and neither does a good record behind them. A good record that vouches for them
//! does: it says up to where the segment was durable when it was written. So does the manifest.

use std::sync::Arc;

use super::load::{Gathered, Loaded, open_listed};
use crate::active::Active;
use crate::error::{Error, Result};
use crate::format::frame::{FRAME_HEADER_BYTES, FrameFinder};
use crate::format::manifest::{ActiveSegment, Manifest};
use crate::format::record::Record;
use crate::format::{SEQNO_MAX, SeqNo};
use crate::index::SegmentState;
use crate::options::Options;
use crate::planted::{Bug, planted};
use crate::segment::{FrameReader, Next, Segment, hint_entry};
use crate::stats::RecoveryReport;
use crate::storage::{Storage, read_up_to, write_all_at};

const BUFFER_BYTES: usize = 256 * 1024;

/// The active segment as it was found.
struct Replayed {
    segment: Segment,
    first_record: u32,
    file_bytes: u32,
    /// The end of the last whole batch.
    good_bytes: u32,
    /// How far the segment was known durable by the manifest and the records themselves.
    known_synced: u32,
    gathered: Gathered,
}

/// Replays the active segment and makes it ready to be appended to.
///
/// # Errors
/// [`Error::Corrupt`] where bytes known durable are damaged.
pub(crate) fn replay_active(
    options: &Options,
    storage: &Arc<dyn Storage>,
    catalog: &Manifest,
    active: ActiveSegment,
    loaded: &mut Loaded,
    report: &mut RecoveryReport,
) -> Result<Active> {
    let mut replayed = replay(storage, catalog, active, Reader::Owner, report)?;
    let Replayed { file_bytes, good_bytes, known_synced, .. } = replayed;
    if report.bytes_cut > 0 {
        let (segment, bytes) = (active.segment.0, report.bytes_cut);
        tracing::warn!(segment, bytes, kept = good_bytes, "a torn tail is cut");
    }
    make_durable(&replayed.segment, known_synced, good_bytes, file_bytes)?;
    // Only now: the tail is cut and nothing is written again.
    replayed.segment =
        replayed.segment.growing(good_bytes, options.segment_bytes, options.file_access);
    let state = take_in(replayed, loaded);
    let SegmentState { segment, records, seqnos, .. } = state;
    let mut active = Active::new(segment, good_bytes, loaded.newest_seqno + 1)?;
    (active.records, active.seqnos) = (records, seqnos);
    Ok(active)
}

/// Reads the active segment without changing it. A writer beside us may be appending: its
/// unfinished batch is not there yet.
pub(crate) fn look_at_active(
    storage: &Arc<dyn Storage>,
    catalog: &Manifest,
    active: ActiveSegment,
    loaded: &mut Loaded,
    report: &mut RecoveryReport,
) -> Result<()> {
    let replayed = replay(storage, catalog, active, Reader::Beside, report)?;
    report.bytes_cut = 0;
    take_in(replayed, loaded);
    Ok(())
}

/// Reads on where the state `known` of the active segment ends, or from its beginning; `None` where
/// nothing is new.
pub(crate) fn follow_active(
    storage: &Arc<dyn Storage>,
    catalog: &Manifest,
    active: ActiveSegment,
    known: Option<&SegmentState>,
) -> Result<Option<(SegmentState, Gathered)>> {
    let reader = match known {
        Some(SegmentState { segment, bytes, seqnos, .. }) => {
            Reader::Following { from: *bytes, newest: seqnos.max, salt: segment.salt }
        }
        None => Reader::Beside,
    };
    let mut report = RecoveryReport::default();
    let replayed = replay(storage, catalog, active, reader, &mut report)?;
    let Replayed { segment, first_record, good_bytes, gathered, .. } = replayed;
    if known.is_some() && gathered.len() == 0 {
        return Ok(None);
    }
    // Opened anew: a writer that opened the store may have put a copy in the place of a file that
    // has another name besides, and appends to that.
    let segment = Arc::new(segment);
    let state = match known {
        Some(state) => state.with_more(segment, good_bytes, &gathered),
        None => SegmentState::empty(segment.clone(), first_record)
            .with_more(segment, good_bytes, &gathered),
    };
    Ok(Some((state, gathered)))
}

fn take_in(replayed: Replayed, loaded: &mut Loaded) -> SegmentState {
    let Replayed { segment, first_record, good_bytes, gathered, .. } = replayed;
    let state = SegmentState {
        bytes: good_bytes,
        records: u32::try_from(gathered.len()).unwrap_or(u32::MAX),
        seqnos: gathered.seqnos,
        tombstone_bytes: gathered.tombstone_bytes,
        ..SegmentState::empty(Arc::new(segment), first_record)
    };
    loaded.add_all(state.segment.id, &gathered);
    loaded.segments.insert(state.segment.id, state.clone());
    state
}

/// Who reads the active segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// The one writer.
    Owner,
    /// Somebody beside a writer who may be appending.
    Beside,
    /// The same, who has read it up to `from` before, where the record `newest` ends, and knows it by
    /// its salt.
    Following { from: u32, newest: SeqNo, salt: u32 },
}

fn replay(
    storage: &Arc<dyn Storage>,
    catalog: &Manifest,
    active: ActiveSegment,
    reader: Reader,
    report: &mut RecoveryReport,
) -> Result<Replayed> {
    let id = active.segment;
    let (segment, first_record) = open_listed(storage, catalog, id, reader == Reader::Owner)?;
    let len = segment.file()?.len().map_err(Error::io("read", segment.path.as_path()))?;
    let Ok(file_bytes) = u32::try_from(len) else {
        return Err(Error::corrupt(&segment.path, 0, format!("{len} bytes are too many")));
    };
    if file_bytes < active.synced_bytes {
        let reason = format!("{} bytes were known durable", active.synced_bytes);
        return Err(segment.corrupt(file_bytes, reason));
    }
    let (start, newest) = match reader {
        Reader::Following { salt, .. } if salt != segment.salt => {
            return Err(Error::Replaced { path: storage.path().to_path_buf() });
        }
        Reader::Following { from, newest, .. } => (from, newest),
        Reader::Owner | Reader::Beside => (first_record, 0),
    };
    if file_bytes < start {
        return Err(segment.corrupt(file_bytes, format!("{start} bytes have been read before")));
    }
    // Zeros are prepared space. Who opens a store looks at all of them, since what stands behind may
    // vouch for them; who follows a writer would look at the same ones each time.
    let is_end = |offset: u32| match reader {
        Reader::Following { .. } => segment
            .is_zero(offset, file_bytes.min(offset.saturating_add(FRAME_HEADER_BYTES as u32))),
        Reader::Owner | Reader::Beside => segment.is_zero(offset, file_bytes),
    };
    let mut replay = Batches::from(start, newest, active.synced_bytes.max(first_record));
    let mut garbage = 0;
    let mut from = start;
    let end = loop {
        if matches!(reader, Reader::Following { .. }) && is_end(from)? {
            break from;
        }
        let Some((offset, reason)) = replay.read(&segment, from, file_bytes)? else {
            break file_bytes;
        };
        // Space that was prepared for records to come is no damage, and nothing that is lost. Asked
        // first, for it can be large and need not be in memory.
        if !is_end(offset)? {
            let tail = read_tail(&segment, offset, file_bytes)?;
            let zeros = tail.iter().rev().take_while(|byte| **byte == 0).count();
            garbage = (tail.len() - zeros) as u64;
            replay.known_synced = replay.known_synced.max(vouched(&segment, &tail, offset));
        }
        if replay.known_synced <= offset {
            break offset;
        }
        // A writer beside us may have appended since we looked, and synced that, and appended what
        // vouches for it. What a record vouches for was there when it was written, so a second look
        // finds it, or damage.
        if reader == Reader::Owner || !is_frame(&segment, offset, file_bytes)? {
            return Err(segment.corrupt(offset, format!("{reason}, in bytes known durable")));
        }
        from = offset;
    };
    report.bytes_cut = u64::from(end - replay.good_bytes) + garbage;
    report.records_replayed = replay.whole_records as u64;
    if reader != Reader::Owner && replay.is_pieced {
        // The beginning may be of a batch that a killed writer did not finish, and the end of the
        // one that the next writer put in its place, with the same sequence numbers. Once that end
        // is there, so is what belongs to it.
        let mut again = Batches::from(start, newest, 0);
        again.read(&segment, start, replay.good_bytes)?;
        if !again.is_as(&replay) {
            return Err(segment.corrupt(start, "a batch changed while it was read"));
        }
    }
    let Batches { mut gathered, whole_records, good_bytes, known_synced, .. } = replay;
    gathered.cut_to(whole_records, &segment, start, good_bytes)?;
    Ok(Replayed { segment, first_record, file_bytes, good_bytes, known_synced, gathered })
}

/// Records as they come, and how many of them are in whole batches.
struct Batches {
    gathered: Gathered,
    whole_records: usize,
    good_bytes: u32,
    known_synced: u32,
    /// How many records of the batch must still follow the last one; `None` between batches.
    expected_rest: Option<u32>,
    newest: SeqNo,
    /// Which read the first record of the batch is from, between its first and its last.
    begun_in: Option<u32>,
    /// Whether there was a batch that was not read in one piece.
    is_pieced: bool,
}

impl Batches {
    /// Nothing yet, of what stands from `start` on, behind the record `newest`.
    fn from(start: u32, newest: SeqNo, known_synced: u32) -> Self {
        Self {
            gathered: Gathered::default(),
            whole_records: 0,
            good_bytes: start,
            known_synced,
            expected_rest: None,
            newest,
            begun_in: None,
            is_pieced: false,
        }
    }

    /// Adds the records from `from` on. Returns where they end, and why, unless that is the end of
    /// the file.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a record that cannot be there; [`Error::Io`].
    fn read(&mut self, segment: &Segment, from: u32, end: u32) -> Result<Option<(u32, String)>> {
        let mut reader = FrameReader::new(segment, from, end)?;
        self.is_pieced |= self.expected_rest.is_some();
        loop {
            match reader.next()? {
                Next::Frame(frame) => {
                    let (offset, length) = (frame.offset, frame.length);
                    Record::decode(frame.body)
                        .and_then(|record| self.add(&record, offset, length))
                        .map_err(|reason| segment.corrupt(offset, reason))?;
                }
                Next::Bad { offset, reason } => return Ok(Some((offset, reason))),
                Next::End => return Ok(None),
            }
            let begun_in = self.begun_in.unwrap_or(reader.reads());
            self.is_pieced |= begun_in != reader.reads();
            self.begun_in = self.expected_rest.map(|_| begun_in);
        }
    }

    /// Whether the whole batches of both are the same.
    fn is_as(&self, other: &Self) -> bool {
        let whole = |batches: &Self| batches.whole_records;
        whole(self) == whole(other)
            && self.gathered.records().eq(other.gathered.records().take(whole(other)))
    }

    /// # Errors
    /// What a right checksum does not prove: records out of order, a batch that does not count
    /// down.
    fn add(
        &mut self,
        record: &Record<'_>,
        offset: u32,
        length: u32,
    ) -> std::result::Result<(), String> {
        if record.seqno <= self.newest || record.seqno > SEQNO_MAX {
            return Err("its sequence number is not one that could be here".to_string());
        }
        if self.expected_rest.is_some_and(|rest| record.batch_rest.checked_add(1) != Some(rest)) {
            return Err("it does not continue the batch before it".to_string());
        }
        self.newest = record.seqno;
        self.known_synced = self.known_synced.max(offset.saturating_sub(record.unsynced));
        self.gathered.add(&hint_entry(record, offset, length));
        self.expected_rest = (record.batch_rest > 0).then_some(record.batch_rest);
        if record.batch_rest == 0 || planted(Bug::KeepTornBatch) {
            self.good_bytes = offset + length;
            self.whole_records = self.gathered.len();
        }
        Ok(())
    }
}

impl Gathered {
    /// Forgets the records of a batch that is not whole.
    fn cut_to(
        &mut self,
        whole_records: usize,
        segment: &Segment,
        start: u32,
        good_bytes: u32,
    ) -> Result<()> {
        if self.len() == whole_records {
            return Ok(());
        }
        // The accounts of what is left are taken anew; a batch is cut once in a store's bad days.
        *self = Gathered::default();
        let mut reader = FrameReader::new(segment, start, good_bytes)?;
        while let Next::Frame(frame) = reader.next()? {
            let record = Record::decode(frame.body)
                .map_err(|reason| segment.corrupt(frame.offset, reason))?;
            self.add(&hint_entry(&record, frame.offset, frame.length));
        }
        Ok(())
    }
}

/// Whether there is a frame at `offset` now.
fn is_frame(segment: &Segment, offset: u32, end: u32) -> Result<bool> {
    Ok(matches!(FrameReader::new(segment, offset, end)?.next()?, Next::Frame(_)))
}

fn read_tail(segment: &Segment, from: u32, file_bytes: u32) -> Result<Vec<u8>> {
    let mut tail = vec![0; (file_bytes - from) as usize];
    let read = read_up_to(&*segment.file()?, &mut tail, u64::from(from))
        .map_err(Error::io("read", segment.path.as_path()))?;
    tail.truncate(read);
    Ok(tail)
}

/// How far the good records in a tail say that the segment was durable.
fn vouched(segment: &Segment, tail: &[u8], tail_offset: u32) -> u32 {
    let finder = FrameFinder::new(tail, segment.salt, tail_offset);
    let mut vouched = 0;
    let mut from = 0;
    while let Some((at, body)) = finder.next_from(from, Record::is_record) {
        if let Ok(record) = Record::decode(body) {
            let offset = tail_offset + at as u32;
            vouched = vouched.max(offset.saturating_sub(record.unsynced));
        }
        from = at + body.len();
    }
    vouched
}

/// Cuts the tail and makes what is left durable, so that whatever is appended stands on firm
/// ground.
///
/// What was not known durable is written again and not merely synced: after a failed sync the page
/// cache can hold bytes that the operating system believes to be on the disk and that are not.
fn make_durable(
    segment: &Segment,
    known_synced: u32,
    good_bytes: u32,
    file_bytes: u32,
) -> Result<()> {
    let path = segment.path.as_path();
    let file = segment.file()?;
    if file_bytes > good_bytes {
        file.set_len(u64::from(good_bytes)).map_err(Error::io("cut", path))?;
    }
    if planted(Bug::TrustPageCache) {
        return Ok(());
    }
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut offset = u64::from(known_synced);
    while offset < u64::from(good_bytes) {
        let left = usize::try_from(u64::from(good_bytes) - offset).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let piece = buffer.get_mut(..wanted).unwrap_or_default();
        let read = read_up_to(&*file, piece, offset).map_err(Error::io("read", path))?;
        let piece = piece.get(..read).filter(|piece| !piece.is_empty());
        let Some(piece) = piece else { break };
        write_all_at(&*file, piece, offset).map_err(Error::io("write to", path))?;
        offset += read as u64;
    }
    if file_bytes > good_bytes || known_synced < good_bytes {
        file.sync().map_err(Error::io("sync", path))?;
    }
    Ok(())
}
