//! A store that is open for reading only moves on to what its writer has written since.
//!
//! Invariants: what was written is taken into the index in one stroke, so that nobody sees a part;
//! an error leaves the index as it was; nothing is written, and no file is ever removed.
//!
//! The state before was complete up to the newest sequence number that it showed. So a record up to
//! there is a copy that compaction has made, and all that it can do is to move the entry that it is
//! the record of; a record beyond is a write. Of two of those the higher one counts, in whatever
//! order they are met. An entry that still points into a segment which has gone is a key that was
//! deleted, by a tombstone which was compacted away too, or that has expired.

use std::collections::{HashMap, HashSet};

use crate::core::Core;
use crate::error::Result;
use crate::format::hint::{HintEntry, HintKind};
use crate::format::manifest::Manifest;
use crate::format::{Location, SegmentId, SeqNo};
use crate::index::{Index, SegmentState};
use crate::recovery::{Gathered, News, Read, start_over, whats_new};

/// How many copies are followed under one hold of the index's lock.
const MOVES_PER_HOLD: usize = 64;

impl Core {
    /// Moves on to what has been written since; returns the sequence number of the newest write
    /// that is seen then. In a store that is open for writing there is nothing to do.
    ///
    /// # Errors
    /// Those of an open, and [`Error::Replaced`](crate::Error::Replaced). The state is as it was
    /// then.
    pub(crate) fn refresh(&self) -> Result<SeqNo> {
        self.check_open()?;
        if !self.options.read_only {
            return Ok(self.index.read().visible);
        }
        // Held to the end: one refresh at a time.
        let mut old = self.catalog.lock();
        let mut read = Read::default();
        let (catalog, news) = start_over(&self.storage, |catalog| {
            let known = self.known(&old, catalog);
            whats_new(&self.options, &self.storage, (&old, catalog), &known, &mut read)
        })?;
        if news.segments.is_empty() && *old == catalog {
            let index = self.index.read();
            let (visible, next_expiry_ms) = (index.visible, index.next_expiry_ms());
            drop(index);
            if next_expiry_ms.is_some_and(|at| at <= self.now_ms()) {
                self.sweep();
            }
            return Ok(visible);
        }
        self.follow_copies(&news);
        let mut index = self.index.write();
        let dropped = index.take_in(news, &catalog);
        let visible = index.visible;
        let wants_merge = index.keydir.wants_merge();
        drop(index);
        // Without the lock: the last one to let go of a mapping has to undo it.
        drop(dropped);
        *old = catalog;
        drop(old);
        self.sweep();
        if wants_merge {
            self.keydir_wants_merge();
        }
        Ok(visible)
    }

    /// The segments that may have become longer: those that were active, and in a backup those of
    /// which the manifest says so.
    fn known(&self, old: &Manifest, catalog: &Manifest) -> Vec<SegmentState> {
        let index = self.index.read();
        let were_active = [old.active, catalog.active].into_iter().flatten();
        let unchanged: HashSet<_> = old.sealed.iter().collect();
        let changed = catalog.sealed.iter().filter(|sealed| !unchanged.contains(sealed));
        let ids = were_active.map(|active| active.segment);
        let ids: HashSet<SegmentId> = ids.chain(changed.map(|sealed| sealed.segment)).collect();
        ids.iter().filter_map(|id| index.segments.get(id).cloned()).collect()
    }

    /// Has the keydir follow what compaction has copied, a few entries at a time: which copy of a
    /// record an entry points at, nobody can tell.
    fn follow_copies(&self, news: &News) {
        let mut index = self.index.write();
        let before = index.visible;
        for (state, _) in &news.segments {
            if !index.segments.contains_key(&state.segment.id) {
                index.add_new(state.clone());
            }
        }
        drop(index);
        for (state, gathered) in &news.segments {
            let is_copy =
                |entry: &HintEntry<'_>| entry.seqno <= before && entry.kind != HintKind::Tombstone;
            let mut copies = gathered.records().filter(is_copy).peekable();
            while copies.peek().is_some() {
                let mut index = self.index.write();
                for entry in copies.by_ref().take(MOVES_PER_HOLD) {
                    index.move_record(&entry, state.segment.id);
                }
            }
        }
    }
}

impl Index {
    fn add_new(&mut self, state: SegmentState) {
        if state.records > 0 {
            self.add_segment(state);
        } else {
            // Where its sequence numbers begin its first record will say.
            self.segments.insert(state.segment.id, state);
        }
    }

    /// Takes in what is new, of which the copies have been followed, and lets go of what has gone.
    /// Returns what is not needed any more.
    fn take_in(&mut self, mut news: News, catalog: &Manifest) -> Vec<SegmentState> {
        let before = self.visible;
        // So that writes come in their order but for those that compaction has copied since.
        news.segments.sort_by_key(|(_, gathered)| gathered.seqnos.min);
        let mut dropped: Vec<SegmentState> = Vec::new();
        let mut tombstones: HashMap<&[u8], SeqNo> = HashMap::new();
        for (state, gathered) in &news.segments {
            self.take_in_writes(state.segment.id, gathered, before, &mut tombstones);
        }
        self.visible = self.visible.max(catalog.next_seqno.saturating_sub(1));
        for (state, _) in &news.segments {
            if let Some(known) = self.segments.get_mut(&state.segment.id) {
                // The figures too: not all records were counted, and some were twice.
                let live_bytes = known.live_bytes;
                let state = SegmentState { live_bytes, ..state.clone() };
                dropped.push(std::mem::replace(known, state));
            }
        }
        self.forget_deleted(&news.gone, before);
        dropped.extend(news.gone.iter().filter_map(|id| self.remove_segment(*id)));
        dropped
    }

    /// Takes in the writes of one segment, on top of the state up to `before`.
    fn take_in_writes<'a>(
        &mut self,
        segment: SegmentId,
        gathered: &'a Gathered,
        before: SeqNo,
        tombstones: &mut HashMap<&'a [u8], SeqNo>,
    ) {
        for entry in gathered.records().filter(|entry| entry.seqno > before) {
            let HintEntry { offset, length, seqno, kind, key } = entry;
            if seqno < self.visible {
                let newest = self.keydir.get(key).map(|newest| newest.seqno);
                let newest = newest.max(tombstones.get(key).copied());
                if newest.is_some_and(|newest| newest >= seqno) {
                    continue;
                }
            }
            if kind == HintKind::Tombstone {
                tombstones.insert(key, seqno);
            }
            self.publish(key, seqno, kind, Location { segment, offset, length }, 0);
            self.visible = self.visible.max(seqno);
        }
    }

    /// Removes the keys whose entries still point into segments that have gone.
    fn forget_deleted(&mut self, gone: &[SegmentId], before: SeqNo) {
        let is_pointed_at =
            |id: &&SegmentId| self.segments.get(id).is_some_and(|state| state.live_bytes > 0);
        let pointed_at: HashSet<SegmentId> = gone.iter().filter(is_pointed_at).copied().collect();
        if pointed_at.is_empty() {
            return;
        }
        for key in self.keydir.keys_in(|segment| pointed_at.contains(&segment)) {
            // As their tombstones would have done it, which stood anywhere beyond what was seen.
            let nowhere = Location { segment: SegmentId(0), offset: 0, length: 0 };
            self.publish(&key, before + 1, HintKind::Tombstone, nowhere, 0);
        }
    }
}
