//! Versions of keys that writes have replaced and that an open snapshot still sees. Empty while no
//! snapshot is open: a snapshot costs memory only for the keys that are overwritten or deleted
//! while it lives.
//!
//! A version holds its segment, so that compaction can replace the segment and the bytes stay
//! readable.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::format::SeqNo;
use crate::keydir::{KeyEntry, is_empty_range};
use crate::segment::Segment;

/// A version that was the newest from its own sequence number up to `until`, exclusive.
#[derive(Debug, Clone)]
pub(crate) struct OldVersion {
    pub(crate) entry: KeyEntry,
    pub(crate) segment: Arc<Segment>,
    until: SeqNo,
}

#[derive(Debug, Default)]
pub(crate) struct History {
    versions: BTreeMap<Arc<[u8]>, Vec<OldVersion>>,
    /// Whose versions were replaced by which record: a snapshot that goes looks only at what was
    /// replaced behind it.
    replaced: BTreeMap<SeqNo, Vec<Arc<[u8]>>>,
    /// How many snapshots are open at each sequence number.
    snapshots: BTreeMap<SeqNo, usize>,
}

impl History {
    pub(crate) fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }

    pub(crate) fn snapshots(&self) -> u64 {
        self.snapshots.values().map(|count| *count as u64).sum()
    }

    pub(crate) fn open_snapshot(&mut self, at: SeqNo) {
        *self.snapshots.entry(at).or_default() += 1;
    }

    /// Forgets one snapshot, and gives back every version that no other snapshot sees.
    #[must_use]
    pub(crate) fn close_snapshot(&mut self, at: SeqNo) -> Vec<OldVersion> {
        let mut forgotten = Vec::new();
        if let Some(count) = self.snapshots.get_mut(&at).filter(|count| **count > 1) {
            *count -= 1;
            return forgotten;
        }
        self.snapshots.remove(&at);
        // What was replaced before it, it did not see; what was replaced behind the next, that one
        // sees too, or has never been there for this one.
        let next = self.snapshots.range(at..).next().map_or(SeqNo::MAX, |(next, _)| *next);
        let behind: Vec<SeqNo> =
            self.replaced.range(at.saturating_add(1)..=next).map(|(until, _)| *until).collect();
        for until in behind {
            self.forget_replaced_by(until, &mut forgotten);
        }
        forgotten
    }

    /// Forgets what one record has replaced and nobody sees.
    fn forget_replaced_by(&mut self, until: SeqNo, forgotten: &mut Vec<OldVersion>) {
        let Some(keys) = self.replaced.get_mut(&until) else { return };
        keys.retain(|key| {
            let Some(versions) = self.versions.get_mut(key) else { return false };
            let unseen = |old: &mut OldVersion| {
                old.until == until && !is_seen(&self.snapshots, old.entry.seqno, until)
            };
            forgotten.extend(versions.extract_if(.., unseen));
            let is_kept = versions.iter().any(|old| old.until == until);
            if versions.is_empty() {
                self.versions.remove(key);
            }
            is_kept
        });
        if keys.is_empty() {
            self.replaced.remove(&until);
        }
    }

    /// A record `until` has replaced `entry`: keeps it if a snapshot sees it.
    pub(crate) fn supersede(
        &mut self,
        key: &[u8],
        entry: KeyEntry,
        until: SeqNo,
        segment: impl FnOnce() -> Option<Arc<Segment>>,
    ) {
        if !is_seen(&self.snapshots, entry.seqno, until) {
            return;
        }
        if let Some(segment) = segment() {
            let key: Arc<[u8]> = key.into();
            let old = OldVersion { entry, segment, until };
            self.replaced.entry(until).or_default().push(key.clone());
            self.versions.entry(key).or_default().push(old);
        }
    }

    /// The version of `key` that a snapshot at `at` sees, if it is not the one in the keydir.
    pub(crate) fn get(&self, key: &[u8], at: SeqNo) -> Option<&OldVersion> {
        self.versions.get(key)?.iter().find(|old| old.entry.seqno <= at && at < old.until)
    }

    /// The keys between two bounds that have versions, in order, from both ends.
    pub(crate) fn keys<'a>(
        &'a self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = &'a [u8]> + use<'a> {
        let range = (!is_empty_range(from, to)).then(|| self.versions.range::<[u8], _>((from, to)));
        range.into_iter().flatten().map(|(key, _)| &**key)
    }
}

fn is_seen(snapshots: &BTreeMap<SeqNo, usize>, from: SeqNo, until: SeqNo) -> bool {
    from < until && snapshots.range(from..until).next().is_some()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::format::{Location, SegmentId, StoreId};
    use crate::storage::{OsStorage, Storage};

    /// Against the rule itself: a version stays as long as a snapshot lies in the time that it was the
    /// newest in.
    #[test]
    fn a_version_goes_with_the_last_snapshot_that_sees_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let storage: Arc<dyn Storage> = Arc::new(OsStorage::new(dir.path()));
        let (segment, _) =
            Segment::create(&storage, StoreId([0; 16]), SegmentId(1)).expect("a segment");
        let segment = Arc::new(segment);
        let location = Location { segment: SegmentId(1), offset: 0, length: 1 };
        let mut random = 1_u64;
        let mut below = |limit: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % limit
        };
        let mut history = History::default();
        let (mut open, mut newest) = (Vec::new(), BTreeMap::new());
        let mut kept: Vec<(u64, SeqNo, SeqNo)> = Vec::new();
        for seqno in 1..5_000 {
            let key = below(7);
            if let Some(from) = newest.insert(key, seqno) {
                let entry = KeyEntry::new(location, from, None);
                let segment = || Some(segment.clone());
                history.supersede(&key.to_le_bytes(), entry, seqno, segment);
                kept.push((key, from, seqno));
            }
            if below(3) == 0 {
                history.open_snapshot(seqno);
                open.push(seqno);
            }
            if below(3) == 0 && !open.is_empty() {
                let at = open.swap_remove(below(open.len() as u64) as usize);
                drop(history.close_snapshot(at));
            }
            kept.retain(|(_, from, until)| open.iter().any(|at| from <= at && at < until));
            let versions = history.versions.values().map(Vec::len).sum::<usize>();
            assert_eq!(versions, kept.len(), "at {seqno}");
            assert_eq!(history.replaced.values().map(Vec::len).sum::<usize>(), kept.len());
            for (key, from, until) in &kept {
                let found = history.get(&key.to_le_bytes(), until - 1);
                assert_eq!(found.map(|old| old.entry.seqno), Some(*from), "at {seqno}");
            }
        }
        open.drain(..).for_each(|at| drop(history.close_snapshot(at)));
        assert!(history.is_empty() && history.replaced.is_empty());
    }
}
