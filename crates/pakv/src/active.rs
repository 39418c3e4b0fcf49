//! The segment that is appended to: what it needs to be appended to, how it is sealed, and how it
//! is made durable.
//!
//! Invariant: what the manifest lists as sealed was durable before.

use std::sync::Arc;

use crate::core::Core;
use crate::error::{Error, Result};
use crate::format::manifest::{ActiveSegment, SealedSegment};
use crate::format::{SegmentId, SeqNo, SeqNoRange};
use crate::index::SegmentState;
use crate::manifest;
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
}

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
        })
    }

    /// Appends the records of a group, and syncs them if a member asked; with no records, what was
    /// appended before. The segment will be sealed at `segment_bytes`.
    ///
    /// # Errors
    /// The store is poisoned then.
    pub(crate) fn append(&mut self, records: &[u8], sync: bool, segment_bytes: u64) -> Result<()> {
        let path = self.segment.path.as_path();
        let bytes = u32::try_from(records.len()).unwrap_or(u32::MAX);
        if bytes > 0 {
            write_all_at(&*self.file, records, u64::from(self.bytes))
                .map_err(Error::io("write to", path))?;
            self.bytes += bytes;
        }
        if !sync {
            return Ok(());
        }
        self.prepared
            .before_sync(&*self.file, bytes, self.bytes, segment_bytes)
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
        let (segment, first_record) = Segment::create(&self.storage, catalog.store, id)?;
        let options = &self.options;
        let segment = segment.growing(first_record, options.segment_bytes, options.read_method);
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
        let sealed = Arc::new(active.segment.sealed(active.bytes, self.options.read_method));
        let mut index = self.index.write();
        if let Some(state) = index.segments.get_mut(&active.segment.id) {
            state.sealed = true;
            state.segment = sealed;
        }
        index.segments.insert(id, SegmentState::empty(segment.clone(), first_record));
        drop(index);
        drop(catalog);
        let prepared = active.prepared.in_next_segment();
        let next_seqno = active.next_seqno;
        *active = Active { prepared, ..Active::new(segment, first_record, next_seqno)? };
        self.after_seal();
        Ok(())
    }

    /// Seals the active segment early, so that compaction can take it; says whether there was
    /// anything in it.
    pub(crate) fn seal_active(&self) -> Result<bool> {
        let mut guard = self.active.lock();
        self.check_writable()?;
        match guard.as_mut().filter(|active| active.records > 0) {
            Some(active) => {
                self.rotate(active).inspect_err(|error| self.poison(error))?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Makes what has been appended durable. Writers wait: two syncs of one file at once could share
    /// one failure, which the operating system tells only one of them.
    ///
    /// # Errors
    /// A failure poisons the store.
    pub(crate) fn sync_active(&self) -> Result<()> {
        let mut guard = self.active.lock();
        self.check_writable()?;
        match guard.as_mut() {
            Some(active) => active.sync().inspect_err(|error| self.poison(error)),
            None => Ok(()),
        }
    }
}
