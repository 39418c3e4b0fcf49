//! The keydir: key to location, in memory, ordered by key. Pure: no I/O, no clock, no locks. What
//! surrounds it (who may read and write it when, which bytes are live, what snapshots still see) is
//! `index`'s.
//!
//! A key's entry holds the sequence number of its record, and moving an entry is a compare-and-swap
//! on that number: a record has one place in the log at a time, so "still that record" and "still
//! at the old location" are the same question, and compaction needs to remember neither.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::ops::Bound;

use crate::format::{Location, SeqNo};
use crate::planted::{Bug, planted};

/// The newest version of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyEntry {
    pub(crate) location: Location,
    pub(crate) seqno: SeqNo,
    expires_at_ms: Option<NonZeroU64>,
}

impl KeyEntry {
    pub(crate) fn new(location: Location, seqno: SeqNo, expires_at_ms: Option<u64>) -> Self {
        // The epoch itself and the millisecond after it have both passed: nothing is lost by taking
        // them for one.
        let expires_at_ms = expires_at_ms.map(|at| NonZeroU64::new(at).unwrap_or(NonZeroU64::MIN));
        Self { location, seqno, expires_at_ms }
    }

    pub(crate) fn expires_at_ms(&self) -> Option<u64> {
        self.expires_at_ms.map(NonZeroU64::get)
    }
}

/// An ordered map of keys to entries.
#[derive(Debug, Default)]
pub(crate) struct KeyDir {
    entries: BTreeMap<Box<[u8]>, KeyEntry>,
    key_bytes: u64,
}

/// What an allocator adds to each key, and the share of a B-tree's nodes that is unused: for the
/// estimate only.
const KEY_ALLOCATION_BYTES: u64 = 8;
const TREE_SLOT_BYTES: u64 = (size_of::<Box<[u8]>>() + size_of::<KeyEntry>()) as u64 * 3 / 2;

impl KeyDir {
    /// From entries in strictly ascending order of key.
    pub(crate) fn from_ordered(entries: BTreeMap<Box<[u8]>, KeyEntry>) -> Self {
        let key_bytes = entries.keys().map(|key| key.len() as u64).sum();
        Self { entries, key_bytes }
    }

    pub(crate) fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&KeyEntry> {
        self.entries.get(key)
    }

    /// Puts an entry in and returns the one it replaces.
    pub(crate) fn insert(&mut self, key: &[u8], entry: KeyEntry) -> Option<KeyEntry> {
        if let Some(old) = self.entries.get_mut(key) {
            return Some(std::mem::replace(old, entry));
        }
        self.key_bytes += key.len() as u64;
        self.entries.insert(key.into(), entry)
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<KeyEntry> {
        let old = self.entries.remove(key)?;
        self.key_bytes -= key.len() as u64;
        Some(old)
    }

    /// Moves the entry of `key` to another location if it is still that of record `seqno`; returns
    /// the old one.
    pub(crate) fn compare_and_move(
        &mut self,
        key: &[u8],
        seqno: SeqNo,
        to: Location,
    ) -> Option<Location> {
        let is_same =
            |entry: &&mut KeyEntry| entry.seqno == seqno || planted(Bug::MoveWithoutCompare);
        let entry = self.entries.get_mut(key).filter(is_same)?;
        Some(std::mem::replace(&mut entry.location, to))
    }

    /// The entries between two bounds, in order of key, from both ends. Bounds that exclude each
    /// other give none.
    pub(crate) fn range<'a>(
        &'a self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&'a [u8], &'a KeyEntry)> + use<'a> {
        let range = (!is_empty_range(from, to)).then(|| self.entries.range::<[u8], _>((from, to)));
        range.into_iter().flatten().map(|(key, entry)| (&**key, entry))
    }

    /// An estimate of the memory it takes, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.key_bytes + self.len() * (KEY_ALLOCATION_BYTES + TREE_SLOT_BYTES)
    }
}

/// Whether no key can lie between two bounds: the question that `BTreeMap::range` answers with a
/// panic.
pub(crate) fn is_empty_range(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (
            Bound::Included(from) | Bound::Excluded(from),
            Bound::Included(to) | Bound::Excluded(to),
        ) => from >= to,
    }
}
