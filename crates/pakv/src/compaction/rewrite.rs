//! The copy: what of the inputs' records is still needed, and the segments it is written to.

use std::sync::Arc;

use super::throttle::Throttle;
use crate::clock::is_expired;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::format::manifest::SealedSegment;
use crate::format::record::{Op, Record};
use crate::format::{SegmentId, SeqNo, SeqNoRange, encode_into, frame};
use crate::index::SegmentState;
use crate::keydir::KeyEntry;
use crate::planted::{Bug, planted};
use crate::segment::{
    Frame, FrameReader, HintImage, Next, Segment, encode_error, hint_entry, may_lack_hint,
    rebuild_hint, write_hint,
};
use crate::stats::{CompactionProgress, CompactionReport};
use crate::storage::{StorageFile, write_all_at};

/// Records are gathered up to this size and written together.
const WRITE_BYTES: usize = 256 * 1024;
/// So many records are looked up under one hold of the index's lock: writers wait for it…
const JUDGED_PER_HOLD: usize = 16;
/// …and are copied for it, if they are not larger than this together.
const BATCH_BYTES_MAX: usize = 64 * 1024;
/// What a run keeps in memory to tell the keydir of its outputs; of more it reads them again.
const IMAGES_BYTES_MAX: usize = 12 * 1024 * 1024;

/// A finished output: durable, not yet listed.
pub(crate) struct Output {
    pub(crate) state: SegmentState,
    pub(crate) sealed: SealedSegment,
    /// Its hint, whether or not it was written to a file.
    pub(crate) image: Option<Vec<u8>>,
}

/// What is to be done with one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Copy,
    /// An expired set that may still shadow an older record.
    Tombstone,
    Drop,
}

pub(crate) struct Rewriter<'a> {
    core: &'a Core,
    /// The smallest sequence number in any live segment outside the inputs. A tombstone after it
    /// may shadow a record there. Segments that are begun meanwhile hold only newer records.
    outside_min: SeqNo,
    /// Bytes of log that have no hint, the inputs left out.
    hintless_bytes: u64,
    /// How many bytes of images may still be kept.
    images_left: usize,
    bytes_total: u64,
    bytes_done: u64,
    writing: Option<Writing>,
    outputs: Vec<Output>,
    report: CompactionReport,
}

/// The output that is being written.
struct Writing {
    segment: Segment,
    file: Arc<dyn StorageFile>,
    first_record: u32,
    image: HintImage,
    /// Bytes that are in the file or in `buffer`…
    bytes: u32,
    /// …and those in the file.
    written: u64,
    buffer: Vec<u8>,
    records: u32,
    tombstone_bytes: u64,
    seqnos: SeqNoRange,
}

impl<'a> Rewriter<'a> {
    pub(crate) fn new(core: &'a Core, inputs: &[SegmentId]) -> Self {
        let index = core.index.read();
        let outside =
            || index.segments.iter().filter(|(id, _)| !inputs.contains(id)).map(|(_, state)| state);
        let outside_min = outside().map(|state| state.seqnos.min).min().unwrap_or(SeqNo::MAX);
        let hintless = outside().filter(|state| state.sealed && state.hint_bytes.is_none());
        let hintless_bytes = hintless.map(|state| u64::from(state.bytes)).sum();
        let bytes =
            |id: &SegmentId| index.segments.get(id).map_or(0, |state| u64::from(state.bytes));
        let bytes_total = inputs.iter().map(bytes).sum();
        Self {
            core,
            outside_min,
            hintless_bytes,
            images_left: IMAGES_BYTES_MAX,
            bytes_total,
            bytes_done: 0,
            writing: None,
            outputs: Vec::new(),
            report: CompactionReport::default(),
        }
    }

    /// Copies what is needed of one input.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the input is damaged: nothing of it may be left behind.
    pub(crate) fn copy_segment(
        &mut self,
        input: &SegmentState,
        throttle: &mut Throttle,
        progress: &mut dyn FnMut(CompactionProgress),
    ) -> Result<()> {
        let segment = &input.segment;
        let mut reader = FrameReader::new(segment, input.first_record, input.bytes)?;
        let mut batch = Batch::default();
        loop {
            match reader.next()? {
                Next::Frame(frame) if frame.body.len() > BATCH_BYTES_MAX => {
                    self.copy_batch(segment, &mut batch, throttle, progress)?;
                    self.copy_records(segment, &[frame], throttle, progress)?;
                }
                Next::Frame(frame) => {
                    batch.push(&frame);
                    if batch.is_full() {
                        self.copy_batch(segment, &mut batch, throttle, progress)?;
                    }
                }
                Next::Bad { offset, reason } => return Err(segment.corrupt(offset, reason)),
                Next::End => return self.copy_batch(segment, &mut batch, throttle, progress),
            }
        }
    }

    fn copy_batch(
        &mut self,
        segment: &Segment,
        batch: &mut Batch,
        throttle: &mut Throttle,
        progress: &mut dyn FnMut(CompactionProgress),
    ) -> Result<()> {
        self.copy_records(segment, &batch.frames(), throttle, progress)?;
        batch.clear();
        Ok(())
    }

    /// Copies what is needed of a few records.
    fn copy_records(
        &mut self,
        segment: &Segment,
        frames: &[Frame<'_>],
        throttle: &mut Throttle,
        progress: &mut dyn FnMut(CompactionProgress),
    ) -> Result<()> {
        let mut records = Vec::with_capacity(frames.len());
        for frame in frames {
            let record = Record::decode(frame.body);
            records.push(record.map_err(|reason| segment.corrupt(frame.offset, reason))?);
        }
        let verdicts = self.judge(&records);
        for ((frame, record), verdict) in frames.iter().zip(&records).zip(verdicts) {
            let length = u64::from(frame.length);
            let written = match verdict {
                Verdict::Copy => self.write(record)?,
                Verdict::Tombstone => {
                    let key = record.op.key();
                    self.write(&Record { op: Op::Tombstone { key }, ..*record })?
                }
                Verdict::Drop => 0,
            };
            self.bytes_done += length;
            progress(CompactionProgress {
                bytes_done: self.bytes_done,
                bytes_total: self.bytes_total,
            });
            throttle.moved(self.core, length, written)?;
        }
        Ok(())
    }

    /// What is to be done with each of a few records.
    fn judge(&mut self, records: &[Record<'_>]) -> Vec<Verdict> {
        let entries = |records: &[Record<'_>]| -> Vec<Option<KeyEntry>> {
            let index = self.core.index.read();
            index.keydir.fetch(records.iter().map(|record| record.op.key()));
            let find = |Record { op, seqno, .. }: &Record<'_>| match op {
                // Whether a newer one has taken its place or none makes no difference to it.
                Op::Set { expires_at_ms: None, key, .. } => index.keydir.get_record(key, *seqno),
                Op::Set { key, .. } | Op::Tombstone { key } => index.keydir.get(key),
            };
            records.iter().map(find).collect()
        };
        let mut found = entries(records);
        let expiries = found.iter().flatten().filter_map(KeyEntry::expires_at_ms);
        // The clock is asked where it matters only.
        if let Some(first_ms) = expiries.min()
            && is_expired(Some(first_ms), self.core.now_ms())
        {
            self.core.sweep();
            found = entries(records);
        }
        let verdicts = records.iter().zip(found);
        verdicts.map(|(record, found)| self.judge_one(record, found)).collect()
    }

    fn judge_one(&mut self, record: &Record<'_>, found: Option<KeyEntry>) -> Verdict {
        match (record.op, found) {
            (Op::Set { .. }, Some(entry)) if entry.seqno == record.seqno => Verdict::Copy,
            // A newer record of the key exists, and with it everything older may go.
            (_, Some(_)) => Verdict::Drop,
            // Deleted, or expired: its shadow is needed if it was the newest, and that is not known
            // any more.
            (Op::Set { expires_at_ms: Some(_), .. }, None)
                if self.shadows(record.seqno) && !planted(Bug::DropExpiredEarly) =>
            {
                Verdict::Tombstone
            }
            (Op::Set { .. }, None) => Verdict::Drop,
            (Op::Tombstone { .. }, None)
                if self.shadows(record.seqno) && !planted(Bug::DropTombstoneEarly) =>
            {
                Verdict::Copy
            }
            (Op::Tombstone { .. }, None) => {
                self.report.tombstones_dropped += 1;
                Verdict::Drop
            }
        }
    }

    /// Whether a segment outside the inputs may hold an older record.
    fn shadows(&self, seqno: SeqNo) -> bool {
        self.outside_min < seqno
    }

    /// Appends a record to the output; returns its length.
    fn write(&mut self, record: &Record<'_>) -> Result<u64> {
        let bytes_max = record.op.bytes_max();
        // Twice what the active segment may have: a run's output is one segment mostly, not one and
        // a small rest.
        let segment_bytes = self.core.pressure.segment_bytes().saturating_mul(2);
        let segment_bytes = segment_bytes.min(self.core.options.segment_bytes);
        let is_full = |writing: &Writing| {
            u64::from(writing.bytes) + bytes_max > segment_bytes && writing.records > 0
        };
        if self.writing.as_ref().is_some_and(is_full) {
            self.finish_output()?;
        }
        let writing = match &mut self.writing {
            Some(writing) => writing,
            None => {
                let begun = self.begin_output()?;
                self.writing.insert(begun)
            }
        };
        self.report.records_copied += 1;
        writing.append(record)
    }

    fn begin_output(&self) -> Result<Writing> {
        let (store, id) = {
            let mut catalog = self.core.catalog.lock();
            let id = catalog.next_segment;
            catalog.next_segment = SegmentId(id.0 + 1);
            (catalog.store, id)
        };
        let image = HintImage::new(store, id, self.images_left)?;
        let (segment, first_record) = Segment::create(&self.core.storage, store, id)?;
        Ok(Writing {
            file: segment.file()?,
            segment,
            first_record,
            image,
            bytes: first_record,
            written: u64::from(first_record),
            buffer: Vec::new(),
            records: 0,
            tombstone_bytes: 0,
            seqnos: SeqNoRange::EMPTY,
        })
    }

    fn finish_output(&mut self) -> Result<()> {
        let Some(writing) = self.writing.take() else { return Ok(()) };
        let (bytes, records) = (u64::from(writing.bytes), u64::from(writing.records));
        let options = &self.core.options;
        let hintless_bytes = self.hintless_bytes + bytes;
        let with_hint =
            hintless_bytes > options.hintless_bytes || !may_lack_hint(options, bytes, records);
        if !with_hint {
            self.hintless_bytes = hintless_bytes;
        }
        let output = writing.finish(self.core, with_hint)?;
        let image_bytes = output.image.as_ref().map_or(0, Vec::len);
        self.images_left = self.images_left.saturating_sub(image_bytes);
        self.outputs.push(output);
        Ok(())
    }

    /// Completes the last output and hands over all of them, durable but for their names in the
    /// directory.
    pub(crate) fn finish(mut self) -> Result<(Vec<Output>, CompactionReport)> {
        if let Err(error) = self.finish_output() {
            self.abandon();
            return Err(error);
        }
        Ok((self.outputs, self.report))
    }

    /// The run has failed: its outputs are removed.
    pub(crate) fn abandon(self) {
        for output in &self.outputs {
            output.state.segment.retire();
        }
        if let Some(writing) = &self.writing {
            writing.segment.retire();
        }
    }
}

impl Writing {
    fn append(&mut self, record: &Record<'_>) -> Result<u64> {
        // In a sealed segment a record stands by itself: all of it is durable, and its batch was
        // whole.
        let record = Record { unsynced: 0, batch_rest: 0, ..*record };
        let (salt, offset) = (self.segment.salt, self.bytes);
        let buffer = &mut self.buffer;
        let (length, rest) = if record.op.bytes_max() > WRITE_BYTES as u64 {
            record.append_without_value(buffer, salt, offset).map_err(encode_error)?
        } else {
            let body = |buffer: &mut Vec<u8>| encode_into(&record, buffer);
            (frame::append(buffer, salt, offset, body).map_err(encode_error)?, &[][..])
        };
        if !rest.is_empty() {
            self.write_out()?;
            self.write_at(rest, self.written)?;
            self.written += rest.len() as u64;
        }
        self.image.push(&hint_entry(&record, offset, length))?;
        self.bytes += length;
        self.records += 1;
        if matches!(record.op, Op::Tombstone { .. }) {
            self.tombstone_bytes += u64::from(length);
        }
        self.seqnos.add(record.seqno);
        if self.buffer.len() >= WRITE_BYTES {
            self.write_out()?;
        }
        Ok(u64::from(length))
    }

    /// Writes what was gathered.
    fn write_out(&mut self) -> Result<()> {
        self.write_at(&self.buffer, self.written)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        write_all_at(&*self.file, bytes, offset)
            .map_err(Error::io("write to", self.segment.path.as_path()))
    }

    fn finish(mut self, core: &Core, with_hint: bool) -> Result<Output> {
        let result = self.write_out().and_then(|()| {
            if planted(Bug::NoSyncOfOutputs) {
                return Ok(());
            }
            self.file.sync().map_err(Error::io("sync", self.segment.path.as_path()))
        });
        let result = result.and_then(|()| self.image.finish(self.bytes)).and_then(|image| {
            let storage = &*core.storage;
            let hint_bytes = match (&image, with_hint) {
                (_, false) => None,
                (Some(image), true) => Some(write_hint(storage, self.segment.id, image)?),
                (None, true) => {
                    let (store, segment) = (core.catalog.lock().store, &self.segment);
                    let (start, end) = (self.first_record, self.bytes);
                    Some(rebuild_hint(Some(storage), store, segment, start, end, |_| ())?)
                }
            };
            Ok((image, hint_bytes))
        });
        let (image, hint_bytes) = match result {
            Ok(done) => done,
            Err(error) => {
                self.segment.retire();
                return Err(error);
            }
        };
        let segment = self.segment.sealed(self.bytes, core.options.read_method);
        let sealed = SealedSegment {
            segment: self.segment.id,
            bytes: self.bytes,
            records: self.records,
            min_seqno: self.seqnos.min,
            max_seqno: self.seqnos.max,
        };
        let state = SegmentState {
            bytes: self.bytes,
            records: self.records,
            seqnos: self.seqnos,
            tombstone_bytes: self.tombstone_bytes,
            sealed: true,
            hint_bytes,
            ..SegmentState::empty(Arc::new(segment), self.first_record)
        };
        Ok(Output { state, sealed, image })
    }
}

/// Copies of records that were read, to be judged together.
#[derive(Default)]
struct Batch {
    bodies: Vec<u8>,
    /// Of each: offset and length of its frame, and where its body ends in `bodies`.
    frames: Vec<(u32, u32, usize)>,
}

impl Batch {
    fn push(&mut self, frame: &Frame<'_>) {
        self.bodies.extend_from_slice(frame.body);
        self.frames.push((frame.offset, frame.length, self.bodies.len()));
    }

    fn is_full(&self) -> bool {
        self.frames.len() == JUDGED_PER_HOLD || self.bodies.len() > BATCH_BYTES_MAX
    }

    fn frames(&self) -> Vec<Frame<'_>> {
        let mut start = 0;
        let frames = self.frames.iter().map(|(offset, length, end)| {
            let body = self.bodies.get(start..*end).unwrap_or_default();
            start = *end;
            Frame { offset: *offset, length: *length, body }
        });
        frames.collect()
    }

    fn clear(&mut self) {
        self.bodies.clear();
        self.frames.clear();
    }
}
