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
    versions: BTreeMap<Box<[u8]>, Vec<OldVersion>>,
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
        match self.snapshots.get_mut(&at) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                self.snapshots.remove(&at);
                let snapshots = &self.snapshots;
                self.versions.retain(|_, versions| {
                    let unseen =
                        |old: &mut OldVersion| !is_seen(snapshots, old.entry.seqno, old.until);
                    forgotten.extend(versions.extract_if(.., unseen));
                    !versions.is_empty()
                });
            }
        }
        forgotten
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
            let old = OldVersion { entry, segment, until };
            self.versions.entry(key.into()).or_default().push(old);
        }
    }

    /// The version of `key` that a snapshot at `at` sees, if it is not the one in the keydir.
    pub(crate) fn get(&self, key: &[u8], at: SeqNo) -> Option<&OldVersion> {
        seen_at(self.versions.get(key)?, at)
    }

    /// The versions that a snapshot at `at` sees between two bounds, in order of key, from both
    /// ends. A key of which it sees none comes as `None`.
    pub(crate) fn range<'a>(
        &'a self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        at: SeqNo,
    ) -> impl DoubleEndedIterator<Item = (&'a [u8], Option<&'a OldVersion>)> + use<'a> {
        let range = (!is_empty_range(from, to)).then(|| self.versions.range::<[u8], _>((from, to)));
        range.into_iter().flatten().map(move |(key, versions)| (&**key, seen_at(versions, at)))
    }
}

fn seen_at(versions: &[OldVersion], at: SeqNo) -> Option<&OldVersion> {
    versions.iter().find(|old| old.entry.seqno <= at && at < old.until)
}

fn is_seen(snapshots: &BTreeMap<SeqNo, usize>, from: SeqNo, until: SeqNo) -> bool {
    from < until && snapshots.range(from..until).next().is_some()
}
