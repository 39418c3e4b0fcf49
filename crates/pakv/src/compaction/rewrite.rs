//! The copy: what of the inputs' records is still needed, and the segments it is written to.

use std::sync::Arc;

use super::throttle::Throttle;
use crate::clock::is_expired;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::format::manifest::SealedSegment;
use crate::format::record::{Op, Record};
use crate::format::{Location, SegmentId, SeqNo, SeqNoRange, encode_into, frame};
use crate::index::SegmentState;
use crate::keydir::{KeyEntry, Relocation, Survey};
use crate::limits::output_bytes_min;
use crate::planted::{Bug, planted};
use crate::segment::{
    FrameReader, HintImage, Next, Segment, encode_error, hint_entry, may_lack_hint, rebuild_hint,
    write_hint,
};
use crate::stats::{CompactionProgress, CompactionReport};
use crate::storage::{StorageFile, write_all_at};

/// Records are gathered up to this size and written together.
const WRITE_BYTES: usize = 256 * 1024;
/// Inputs are surveyed together up to this size, which takes 2 MiB.
const SURVEYED_BYTES: u64 = 128 * 1024 * 1024;
/// The largest hint that is built in memory while its segment is written.
const HINT_BYTES_MAX: usize = 12 * 1024 * 1024;
/// So many copies are remembered for the keydir to follow; outputs with others are read again.
const REMEMBERED_MAX: usize = 12 * 1024 * 1024 / Relocation::COPY_BYTES;

/// What a run has made, durable but for the names in the directory, and not yet listed.
pub(crate) struct Copied {
    pub(crate) outputs: Vec<Output>,
    pub(crate) relocation: Relocation,
    pub(crate) report: CompactionReport,
}

/// A finished output.
pub(crate) struct Output {
    pub(crate) state: SegmentState,
    pub(crate) sealed: SealedSegment,
    /// Whether all of its records are in the [relocation](Copied::relocation).
    pub(crate) is_remembered: bool,
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
    /// The smallest sequence number in any segment outside the inputs in which a set is garbage, or
    /// may be. A tombstone after it may shadow that. Segments that are begun meanwhile, and sets that
    /// become garbage meanwhile, have only newer records to shadow them.
    outside_min: SeqNo,
    /// Bytes of log that have no hint, the inputs left out.
    hintless_bytes: u64,
    /// Where segments are very many, outputs are larger than they would be.
    output_bytes_min: u64,
    relocation: Relocation,
    remembered: usize,
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
    is_remembered: bool,
}

impl<'a> Rewriter<'a> {
    pub(crate) fn new(core: &'a Core, inputs: &[SegmentId]) -> Self {
        let index = core.index.read();
        let outside =
            || index.segments.iter().filter(|(id, _)| !inputs.contains(id)).map(|(_, state)| state);
        let pins =
            outside().filter(|state| state.damaged || super::facts_of(state).has_garbage_sets());
        let outside_min = pins.map(|state| state.seqnos.min).min().unwrap_or(SeqNo::MAX);
        let hintless = outside().filter(|state| state.sealed && state.hint_bytes.is_none());
        let hintless_bytes = hintless.map(|state| u64::from(state.bytes)).sum();
        let bytes =
            |id: &SegmentId| index.segments.get(id).map_or(0, |state| u64::from(state.bytes));
        let bytes_total = inputs.iter().map(bytes).sum();
        Self {
            core,
            output_bytes_min: output_bytes_min(index.segments.len(), bytes_total),
            outside_min,
            hintless_bytes,
            relocation: Relocation::of(Vec::new()),
            remembered: 0,
            bytes_total,
            bytes_done: 0,
            writing: None,
            outputs: Vec::new(),
            report: CompactionReport::default(),
        }
    }

    /// Copies what is needed of the inputs.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where one is damaged, and which: nothing of it may be left behind.
    pub(crate) fn copy(
        &mut self,
        mut inputs: &[SegmentState],
        throttle: &mut Throttle,
        progress: &mut dyn FnMut(CompactionProgress),
    ) -> std::result::Result<(), (SegmentId, Error)> {
        self.relocation = Relocation::of(inputs.iter().map(|input| input.segment.id).collect());
        let mut first = 0;
        while !inputs.is_empty() {
            let mut bytes = 0;
            let few = inputs.iter().take_while(|input| {
                bytes += u64::from(input.bytes);
                bytes <= SURVEYED_BYTES
            });
            let (now, rest) = inputs.split_at(few.count().max(1));
            let survey = self.survey(first, now);
            for (number, input) in (first..).zip(now) {
                self.copy_segment(number, input, &survey, throttle, progress)
                    .map_err(|error| (input.segment.id, error))?;
            }
            first += now.len();
            inputs = rest;
        }
        Ok(())
    }

    /// Finds out which records of some of the inputs are still the newest of their keys.
    fn survey(&self, first: usize, inputs: &[SegmentState]) -> Survey {
        let segments = inputs.iter().map(|input| (input.segment.id, input.bytes));
        let mut survey = Survey::of(first, segments);
        while self.core.index.read().keydir.survey(&mut survey, super::PLACES_PER_HOLD) {
            self.core.index.let_others_in();
        }
        survey
    }

    fn copy_segment(
        &mut self,
        number: usize,
        input: &SegmentState,
        survey: &Survey,
        throttle: &mut Throttle,
        progress: &mut dyn FnMut(CompactionProgress),
    ) -> Result<()> {
        let segment = &input.segment;
        let mut sum = 0_u64;
        let mut reader = FrameReader::new(segment, input.first_record, input.bytes)?;
        loop {
            let frame = match reader.next()? {
                Next::Frame(frame) => frame,
                Next::Bad { offset, reason } => return Err(segment.corrupt(offset, reason)),
                Next::End => break,
            };
            let record = Record::decode(frame.body)
                .map_err(|reason| segment.corrupt(frame.offset, reason))?;
            let was_newest = survey.has(number, frame.offset);
            if was_newest {
                sum = sum.wrapping_add(survey.fingerprint(frame.offset, record.seqno));
            }
            let written = match self.judge(&record, was_newest) {
                Verdict::Copy => {
                    let to = self.write(&record)?;
                    if matches!(record.op, Op::Set { .. }) {
                        self.remember(number, frame.offset, to);
                    }
                    u64::from(to.length)
                }
                Verdict::Tombstone => {
                    let key = record.op.key();
                    let tombstone = Record { op: Op::Tombstone { key }, ..record };
                    u64::from(self.write(&tombstone)?.length)
                }
                Verdict::Drop => 0,
            };
            let length = u64::from(frame.length);
            self.bytes_done += length;
            progress(CompactionProgress {
                bytes_done: self.bytes_done,
                bytes_total: self.bytes_total,
            });
            throttle.moved(self.core, length, written)?;
        }
        // A hint can be wrong and bear a right checksum: nothing is left behind on its word.
        if sum != survey.sum(number) {
            return Err(segment.corrupt(0, "the keydir points at other records than it has"));
        }
        Ok(())
    }

    /// What is to be done with a record.
    fn judge(&mut self, record: &Record<'_>, was_newest: bool) -> Verdict {
        let expires_at_ms = match record.op {
            Op::Set { expires_at_ms, .. } => expires_at_ms,
            Op::Tombstone { .. } => None,
        };
        // The clock is asked where it matters only.
        let is_alive =
            |at_ms: Option<u64>| at_ms.is_none() || !is_expired(at_ms, self.core.now_ms());
        if was_newest && is_alive(expires_at_ms) {
            return Verdict::Copy;
        }
        if matches!(record.op, Op::Set { expires_at_ms: None, .. }) {
            // Whether a newer one has taken its place or none makes no difference to it.
            return Verdict::Drop;
        }
        let newest = self.newest(record.op.key());
        match (record.op, newest) {
            (Op::Set { .. }, Some(entry)) if entry.seqno == record.seqno => Verdict::Copy,
            // A newer record of the key exists, and with it everything older may go.
            (_, Some(_)) => Verdict::Drop,
            // Deleted, or expired: its shadow is needed if it was the newest, and that is not known
            // any more.
            (Op::Set { .. }, None)
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

    /// The newest record of a key, unless that has expired.
    fn newest(&self, key: &[u8]) -> Option<KeyEntry> {
        let find = || self.core.index.read().keydir.get(key);
        let expires_at_ms = find()?.expires_at_ms();
        if expires_at_ms.is_some() && is_expired(expires_at_ms, self.core.now_ms()) {
            self.core.sweep();
        }
        find()
    }

    /// Whether a segment outside the inputs may hold an older record.
    fn shadows(&self, seqno: SeqNo) -> bool {
        self.outside_min < seqno
    }

    fn remember(&mut self, segment: usize, offset: u32, to: Location) {
        if self.remembered < REMEMBERED_MAX {
            self.relocation.push(segment, offset, to);
            self.remembered += 1;
        } else if let Some(writing) = &mut self.writing {
            writing.is_remembered = false;
        }
    }

    /// Appends a record to the output; returns where it stands.
    fn write(&mut self, record: &Record<'_>) -> Result<Location> {
        let bytes_max = record.op.bytes_max();
        // Twice what the active segment may have: a run's output is one segment mostly, not one and
        // a small rest.
        let segment_bytes = self.core.pressure.segment_bytes().saturating_mul(2);
        let segment_bytes =
            segment_bytes.min(self.core.options.segment_bytes).max(self.output_bytes_min);
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
        let image = HintImage::new(store, id, HINT_BYTES_MAX)?;
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
            is_remembered: true,
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
        self.outputs.push(writing.finish(self.core, with_hint)?);
        Ok(())
    }

    /// Completes the last output and hands over all that was made.
    pub(crate) fn finish(mut self) -> Result<Copied> {
        if let Err(error) = self.finish_output() {
            self.abandon();
            return Err(error);
        }
        let Self { outputs, relocation, report, .. } = self;
        Ok(Copied { outputs, relocation: relocation.sealed(), report })
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
    fn append(&mut self, record: &Record<'_>) -> Result<Location> {
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
        Ok(Location { segment: self.segment.id, offset, length })
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
        let hint_bytes = result.and_then(|()| {
            if !with_hint {
                return Ok(None);
            }
            let storage = &*core.storage;
            let hint_bytes = match self.image.finish(self.bytes)? {
                Some(image) => write_hint(storage, self.segment.id, &image)?,
                None => {
                    let (store, segment) = (core.catalog.lock().store, &self.segment);
                    let (start, end) = (self.first_record, self.bytes);
                    rebuild_hint(Some(storage), store, segment, start, end, |_| ())?
                }
            };
            Ok(Some(hint_bytes))
        });
        let hint_bytes = hint_bytes.inspect_err(|_| self.segment.retire())?;
        let segment = self.segment.sealed(self.bytes, core.options.file_access);
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
        Ok(Output { state, sealed, is_remembered: self.is_remembered })
    }
}
