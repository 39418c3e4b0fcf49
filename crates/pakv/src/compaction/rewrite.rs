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
use crate::planted::{Bug, planted};
use crate::segment::{FrameReader, HintWriter, Next, Segment, encode_error, hint_entry};
use crate::stats::{CompactionProgress, CompactionReport};
use crate::storage::{StorageFile, write_all_at};

/// Records are gathered up to this size and written together.
const WRITE_BYTES: usize = 256 * 1024;

/// A finished output: durable, not yet listed.
pub(crate) struct Output {
    pub(crate) state: SegmentState,
    pub(crate) sealed: SealedSegment,
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
    hint: HintWriter,
    /// Bytes that are in the file or in `buffer`.
    bytes: u32,
    buffer: Vec<u8>,
    records: u32,
    tombstone_bytes: u64,
    seqnos: SeqNoRange,
}

impl<'a> Rewriter<'a> {
    pub(crate) fn new(core: &'a Core, inputs: &[SegmentId]) -> Self {
        let index = core.index.read();
        let outside = index.segments.iter().filter(|(id, _)| !inputs.contains(id));
        let outside_min = outside.map(|(_, state)| state.seqnos.min).min().unwrap_or(SeqNo::MAX);
        let bytes =
            |id: &SegmentId| index.segments.get(id).map_or(0, |state| u64::from(state.bytes));
        let bytes_total = inputs.iter().map(bytes).sum();
        Self {
            core,
            outside_min,
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
        loop {
            let frame = match reader.next()? {
                Next::Frame(frame) => frame,
                Next::Bad { offset, reason } => return Err(segment.corrupt(offset, reason)),
                Next::End => return Ok(()),
            };
            let length = u64::from(frame.length);
            let record = Record::decode(frame.body)
                .map_err(|reason| segment.corrupt(frame.offset, reason))?;
            let written = match self.judge(&record) {
                Verdict::Copy => self.write(&record)?,
                Verdict::Tombstone => {
                    let key = record.op.key();
                    self.write(&Record { op: Op::Tombstone { key }, ..record })?
                }
                Verdict::Drop => 0,
            };
            self.bytes_done += length;
            progress(CompactionProgress {
                bytes_done: self.bytes_done,
                bytes_total: self.bytes_total,
            });
            throttle.moved(self.core, length + written)?;
        }
    }

    fn judge(&mut self, record: &Record<'_>) -> Verdict {
        let key = record.op.key();
        let newest = |core: &Core| core.index.read().keydir.get(key);
        let mut found = newest(self.core);
        if found.is_some_and(|entry| is_expired(entry.expires_at_ms(), self.core.now_ms())) {
            self.core.sweep();
            found = newest(self.core);
        }
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
        let is_full = |writing: &Writing| {
            u64::from(writing.bytes) + bytes_max > self.core.options.segment_bytes
                && writing.records > 0
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
        let (segment, first_record) = Segment::create(&self.core.storage, store, id)?;
        let hint = match HintWriter::create(&*self.core.storage, store, id) {
            Ok(hint) => hint,
            Err(error) => {
                segment.retire();
                return Err(error);
            }
        };
        Ok(Writing {
            file: segment.file()?,
            segment,
            first_record,
            hint,
            bytes: first_record,
            buffer: Vec::new(),
            records: 0,
            tombstone_bytes: 0,
            seqnos: SeqNoRange::EMPTY,
        })
    }

    fn finish_output(&mut self) -> Result<()> {
        let Some(writing) = self.writing.take() else { return Ok(()) };
        let read_method = self.core.options.read_method;
        self.outputs.push(writing.finish(read_method)?);
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
        let length =
            frame::append(&mut self.buffer, salt, offset, |buffer| encode_into(&record, buffer))
                .map_err(encode_error)?;
        self.hint.push(&hint_entry(&record, offset, length))?;
        self.bytes += length;
        self.records += 1;
        if matches!(record.op, Op::Tombstone { .. }) {
            self.tombstone_bytes += u64::from(length);
        }
        self.seqnos.add(record.seqno);
        if self.buffer.len() >= WRITE_BYTES {
            self.flush()?;
        }
        Ok(u64::from(length))
    }

    fn flush(&mut self) -> Result<()> {
        let offset = u64::from(self.bytes) - self.buffer.len() as u64;
        write_all_at(&*self.file, &self.buffer, offset)
            .map_err(Error::io("write to", self.segment.path.as_path()))?;
        self.buffer.clear();
        self.buffer.shrink_to(4 * WRITE_BYTES);
        Ok(())
    }

    fn finish(mut self, read_method: crate::options::ReadMethod) -> Result<Output> {
        let result = self.flush().and_then(|()| {
            if planted(Bug::NoSyncOfOutputs) {
                return Ok(());
            }
            self.file.sync().map_err(Error::io("sync", self.segment.path.as_path()))
        });
        let hint_bytes = match result.and_then(|()| self.hint.finish(self.bytes)) {
            Ok(hint_bytes) => hint_bytes,
            Err(error) => {
                self.segment.retire();
                return Err(error);
            }
        };
        let segment = self.segment.sealed(self.bytes, read_method);
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
            hint_bytes: Some(hint_bytes),
            ..SegmentState::empty(Arc::new(segment), self.first_record)
        };
        Ok(Output { state, sealed })
    }
}
