//! The reference model: what a store should answer. It owns no file and knows nothing of segments;
//! it must stay so simple that it is obviously right.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use pakv::{Clock, ManualClock};

/// A value and when it expires, in milliseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Slot {
    value: Vec<u8>,
    expires_at_ms: Option<u64>,
}

/// An entry as the model and a scan of the store both describe it: key, value, expiry in
/// milliseconds.
pub(crate) type Row = (Vec<u8>, Vec<u8>, Option<u64>);

/// The contents that a store should have. Its clones share the clock, so that a clone taken with a
/// snapshot shows what the snapshot should show at any later time.
#[derive(Debug, Clone)]
pub struct Model {
    slots: BTreeMap<Vec<u8>, Slot>,
    clock: Arc<ManualClock>,
}

impl Model {
    /// An empty store whose time is `clock`'s.
    pub fn new(clock: Arc<ManualClock>) -> Self {
        Self { slots: BTreeMap::new(), clock }
    }

    /// The value of `key`, if it is there now.
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.slot(key).map(|slot| slot.value.as_slice())
    }

    /// When `key` expires. The outer `None`: it is not there; the inner: it never expires.
    pub fn expires_at_ms(&self, key: &[u8]) -> Option<Option<u64>> {
        self.slot(key).map(|slot| slot.expires_at_ms)
    }

    /// Sets `key`. An expiry that has passed leaves nothing there, as it does in a store.
    pub fn set(&mut self, key: &[u8], value: &[u8], expires_at_ms: Option<u64>) {
        self.slots.insert(key.to_vec(), Slot { value: value.to_vec(), expires_at_ms });
    }

    /// Deletes `key` and tells whether it was there.
    pub fn delete(&mut self, key: &[u8]) -> bool {
        let there = self.get(key).is_some();
        self.slots.remove(key);
        there
    }

    /// How many keys are there now.
    pub fn len(&self) -> usize {
        self.rows().len()
    }

    /// Whether no key is there now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every entry that is there now, in key order.
    pub fn rows(&self) -> Vec<Row> {
        self.rows_in::<Vec<u8>>(..)
    }

    /// The entries of a range, in key order. A range whose start lies past its end holds none.
    pub(crate) fn rows_in<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Vec<Row> {
        let start = range.start_bound().map(AsRef::as_ref);
        let end = range.end_bound().map(AsRef::as_ref);
        self.slots
            .iter()
            .filter(|(key, slot)| self.is_there(slot) && after(start, key) && before(end, key))
            .map(|(key, slot)| (key.clone(), slot.value.clone(), slot.expires_at_ms))
            .collect()
    }

    /// The entries whose key begins with `prefix`, in key order.
    pub(crate) fn rows_with_prefix(&self, prefix: &[u8]) -> Vec<Row> {
        self.rows().into_iter().filter(|(key, ..)| key.starts_with(prefix)).collect()
    }

    fn slot(&self, key: &[u8]) -> Option<&Slot> {
        self.slots.get(key).filter(|slot| self.is_there(slot))
    }

    fn is_there(&self, slot: &Slot) -> bool {
        slot.expires_at_ms.is_none_or(|at| self.clock.now_ms() < at)
    }
}

fn after(start: Bound<&[u8]>, key: &[u8]) -> bool {
    match start {
        Bound::Included(start) => key >= start,
        Bound::Excluded(start) => key > start,
        Bound::Unbounded => true,
    }
}

fn before(end: Bound<&[u8]>, key: &[u8]) -> bool {
    match end {
        Bound::Included(end) => key <= end,
        Bound::Excluded(end) => key < end,
        Bound::Unbounded => true,
    }
}
