//! `View`: what a backup is to hold, as of one sequence number.

use std::sync::Arc;

use crate::core::Core;
use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, SealedSegment};
use crate::format::{SegmentId, SeqNo};
use crate::index::SegmentState;
use crate::recovery;
use crate::segment::Segment;
use crate::storage::Storage;

/// The segments that a backup is to have and where it takes them from.
#[derive(Debug)]
pub(super) struct View {
    /// The backup's manifest: without an active segment. What the source's has in it so far is
    /// listed as a sealed one.
    pub(super) manifest: Manifest,
    pub(super) seqno: SeqNo,
    /// The segment that is copied in part, and so never linked.
    pub(super) tail: Option<SegmentId>,
    /// How many bytes of the tail the source's manifest knows to be durable.
    tail_synced: u32,
    /// Keep the files where they are.
    _pins: Vec<Arc<Segment>>,
}

impl View {
    /// The state that reads see now; its files stay for as long as this lives.
    pub(super) fn of_open(core: &Core) -> Result<Self> {
        // With the catalog's lock no segment is sealed and no compaction published; both are told
        // to the index under it.
        let catalog = core.catalog.lock();
        let index = core.index.read();
        let listed = catalog.sealed.iter().map(|sealed| sealed.segment);
        let pins = listed
            .chain(catalog.active.map(|active| active.segment))
            .filter_map(|id| Some(index.segments.get(&id)?.segment.clone()))
            .collect();
        let active = catalog.active.and_then(|active| index.segments.get(&active.segment));
        Ok(Self::new(&catalog, active, index.visible, pins))
    }

    /// The state of the store in a directory, with what a writer beside us has appended by now.
    pub(super) fn of_directory(source: &Arc<dyn Storage>, catalog: &Manifest) -> Result<Self> {
        let active = recovery::active_as_it_is(source, catalog)?;
        let newest = active.as_ref().map_or(0, |state| state.seqnos.max);
        let seqno = newest.max(catalog.next_seqno.saturating_sub(1));
        Ok(Self::new(catalog, active.as_ref(), seqno, Vec::new()))
    }

    fn new(
        catalog: &Manifest,
        active: Option<&SegmentState>,
        seqno: SeqNo,
        pins: Vec<Arc<Segment>>,
    ) -> Self {
        let mut manifest = Manifest { active: None, ..catalog.clone() };
        manifest.next_seqno = catalog.next_seqno.max(seqno + 1);
        let tail = active.filter(|state| state.records > 0).map(|state| SealedSegment {
            segment: state.segment.id,
            bytes: state.bytes,
            records: state.records,
            min_seqno: state.seqnos.min,
            max_seqno: state.seqnos.max,
        });
        manifest.sealed.extend(tail);
        Self {
            manifest,
            seqno,
            tail: tail.map(|tail| tail.segment),
            tail_synced: catalog.active.map_or(0, |active| active.synced_bytes),
            _pins: pins,
        }
    }

    /// Makes durable what the backup has of a writer beside us, as `of_open` in the module above
    /// does.
    pub(super) fn sync_active(&self, source: &dyn Storage) -> Result<()> {
        let Some(tail) = self.manifest.sealed.last().filter(|last| Some(last.segment) == self.tail)
        else {
            return Ok(());
        };
        if tail.bytes <= self.tail_synced {
            return Ok(());
        }
        let name = tail.segment.log_name();
        let path = source.path().join(&name);
        let file = source.open(&name, false).map_err(Error::io("open", path.as_path()))?;
        file.sync().map_err(Error::io("sync", path.as_path()))
    }
}
