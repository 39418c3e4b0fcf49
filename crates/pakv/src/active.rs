//! The segment that is appended to: what it needs to be appended to, how it is sealed, and how it
//! is made durable beside its writers.
//!
//! Invariants: what the manifest lists as sealed was durable before; no two syncs of one file run
//! at once (`poison` sees to it); a sync that no writer waits for holds no writer up.

use std::ops::Range;
use std::sync::Arc;

use crate::core::Core;
use crate::error::{Error, Result};
use crate::format::manifest::{ActiveSegment, SealedSegment};
use crate::format::{SegmentId, SeqNo, SeqNoRange};
use crate::index::SegmentState;
use crate::limits;
use crate::manifest;
use crate::options::Durability;
use crate::planted::{Bug, planted};
use crate::segment::{Prepared, Segment};
use crate::storage::{StorageFile, write_all_at};

/// The segment that is appended to. Whoever holds it appends.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<dyn StorageFile>,
    pub(crate) bytes: u32,
    /// How many of its bytes are known durable.
    pub(crate) synced: u32,
    pub(crate) records: u32,
    pub(crate) seqnos: SeqNoRange,
    /// What follows the last record that was appended to this or an earlier segment.
    pub(crate) next_seqno: SeqNo,
    prepared: Prepared,
    written_out: WrittenOut,
}

/// How much of the active segment the operating system was asked to write out, in bytes.
#[derive(Debug, Default)]
struct WrittenOut {
    /// By the syncing thread.
    end: u32,
    /// Up to where that thread was last woken.
    asked: u32,
}

/// So much is appended before the operating system is asked to write it out: enough to be written
/// at the disk's full speed, little enough for a seal to wait for.
const WRITE_OUT_BYTES: u32 = 4 * 1024 * 1024;

impl Active {
    /// A segment with records up to `bytes`, all of it durable; `records` and `seqnos` are still to
    /// be said.
    ///
    /// # Errors
    /// [`Error::Io`] where its file cannot be opened.
    pub(crate) fn new(segment: Arc<Segment>, bytes: u32, next_seqno: SeqNo) -> Result<Self> {
        Ok(Self {
            file: segment.file()?,
            segment,
            bytes,
            synced: bytes,
            records: 0,
            seqnos: SeqNoRange::EMPTY,
            next_seqno,
            prepared: Prepared::default(),
            written_out: WrittenOut::default(),
        })
    }

    /// Appends the records of a group, and syncs them if a member asked; with no records, what was
    /// appended before. `durability` is the strictest that a member asked for; the segment will be
    /// sealed at `segment_bytes`.
    ///
    /// # Errors
    /// The store is poisoned then.
    pub(crate) fn append(
        &mut self,
        records: &[u8],
        durability: Durability,
        segment_bytes: u64,
    ) -> Result<()> {
        let path = self.segment.path.as_path();
        let bytes = u32::try_from(records.len()).unwrap_or(u32::MAX);
        let alone = self.synced == self.bytes;
        if durability == Durability::Buffered && self.segment.is_growing() {
            self.prepared.before_buffered(&*self.file, bytes, self.bytes, segment_bytes);
        }
        if bytes > 0 {
            write_all_at(&*self.file, records, u64::from(self.bytes))
                .map_err(Error::io("write to", path))?;
            self.bytes += bytes;
        }
        if durability != Durability::Sync {
            return Ok(());
        }
        self.prepared
            .before_sync(&*self.file, (bytes, alone), self.bytes, segment_bytes)
            .map_err(Error::io("write to", path))?;
        self.sync()
    }

    /// Syncs what is not yet known durable.
    ///
    /// # Errors
    /// The store is poisoned then: a second sync could succeed and prove nothing.
    pub(crate) fn sync(&mut self) -> Result<()> {
        if self.synced < self.bytes {
            if planted(Bug::AcknowledgeBeforeSync) {
                return Ok(());
            }
            self.file.sync().map_err(Error::io("sync", self.segment.path.as_path()))?;
            self.synced = self.bytes;
        }
        Ok(())
    }

    /// Whether it is time to have something written out; true once for each piece.
    pub(crate) fn wants_write_out(&mut self) -> bool {
        let since = self.bytes.saturating_sub(self.written_out.asked.max(self.synced));
        let wants = since >= WRITE_OUT_BYTES;
        if wants {
            self.written_out.asked = self.bytes;
        }
        wants
    }

    /// What is to be written out now.
    fn take_write_out(&mut self) -> Range<u32> {
        let start = self.written_out.end.max(self.synced).min(self.bytes);
        self.written_out.end = self.bytes;
        start..self.bytes
    }

    /// Makes the file what it stays, durably: its records and nothing behind them.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub(crate) fn finish(&mut self) -> Result<()> {
        let path = self.segment.path.as_path();
        if self.prepared.cut(&*self.file, self.bytes).map_err(Error::io("cut", path))? {
            self.file.sync().map_err(Error::io("sync", path))?;
            self.synced = self.bytes;
        }
        self.sync()
    }
}

impl Core {
    /// Seals the active segment and begins another.
    ///
    /// # Errors
    /// After one the caller poisons the store.
    pub(crate) fn rotate(&self, active: &mut Active) -> Result<()> {
        active.finish()?;
        let mut catalog = self.catalog.lock();
        let id = catalog.next_segment;
        let (segment, first_record) = Segment::create_durable(&self.storage, catalog.store, id)?;
        let options = &self.options;
        let segment = segment.growing(first_record, options.segment_bytes, options.file_access);
        let segment = Arc::new(segment);
        let mut next = catalog.clone();
        next.next_segment = SegmentId(id.0 + 1);
        next.next_seqno = next.next_seqno.max(active.next_seqno);
        next.sealed.push(SealedSegment {
            segment: active.segment.id,
            bytes: active.bytes,
            records: active.records,
            min_seqno: active.seqnos.min,
            max_seqno: active.seqnos.max,
        });
        next.active = Some(ActiveSegment { segment: id, synced_bytes: first_record });
        manifest::replace(&*self.storage, &next)?;
        *catalog = next;
        let sealed = Arc::new(active.segment.sealed(active.bytes, self.options.file_access));
        let mut index = self.index.write();
        if let Some(state) = index.segments.get_mut(&active.segment.id) {
            state.sealed = true;
            state.segment = sealed;
        }
        index.segments.insert(id, SegmentState::empty(segment.clone(), first_record));
        drop(index);
        drop(catalog);
        let (sealed, bytes) = (active.segment.id.0, active.bytes);
        tracing::debug!(segment = sealed, bytes, records = active.records, "sealed a segment");
        let prepared = active.prepared.in_next_segment();
        let next_seqno = active.next_seqno;
        *active = Active { prepared, ..Active::new(segment, first_record, next_seqno)? };
        self.after_seal();
        Ok(())
    }

    /// Whether the sealed segments are few enough for another, of so many bytes.
    pub(crate) fn may_seal(&self, bytes: u64) -> bool {
        limits::may_seal(self.catalog.lock().sealed.len(), bytes)
    }

    /// Seals the active segment early, so that compaction can take it; says whether that was done:
    /// not where there is nothing in it, nor where the sealed ones are very many.
    pub(crate) fn seal_active(&self) -> Result<bool> {
        let mut guard = self.active.lock();
        self.check_writable()?;
        let is_due =
            |active: &&mut Active| active.records > 0 && self.may_seal(u64::from(active.bytes));
        match guard.as_mut().filter(is_due) {
            Some(active) => {
                self.rotate(active).inspect_err(|error| self.poison(error))?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Makes what has been appended durable. Writers go on meanwhile, unless they wait for a sync of
    /// their own: no two of one file run at once.
    ///
    /// # Errors
    /// A failure poisons the store.
    pub(crate) fn sync_active(&self) -> Result<()> {
        self.check_writable()?;
        let (segment, file, bytes) = match self.active.lock().as_ref() {
            Some(active) if active.synced < active.bytes => {
                (active.segment.clone(), active.file.clone(), active.bytes)
            }
            _ => return Ok(()),
        };
        file.sync()
            .map_err(Error::io("sync", segment.path.as_path()))
            .inspect_err(|error| self.poison(error))?;
        // It may have been sealed meanwhile, and all of it is durable then.
        if let Some(active) = self.active.lock().as_mut()
            && Arc::ptr_eq(&active.segment, &segment)
        {
            active.synced = active.synced.max(bytes);
        }
        Ok(())
    }

    /// Has the operating system begin to write out what was appended, so that a seal does not wait
    /// for all of a segment.
    pub(crate) fn write_out_active(&self) {
        let (file, range) = match self.active.lock().as_mut() {
            Some(active) => (active.file.clone(), active.take_write_out()),
            None => return,
        };
        file.write_out(u64::from(range.start), u64::from(range.end - range.start));
    }
}
