//! `Scan`: entries in order of key, from both ends, a page at a time, so that no lock is held
//! between two of them.

use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use crate::core::Core;
use crate::error::Result;
use crate::page::{Page, View};
use crate::snapshot::Snapshot;

pub(crate) type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// Pages start small, for scans that want a few entries, and grow for those that want all.
const PAGE_FIRST: usize = 16;
const PAGE_MAX: usize = 1024;

/// A lazy walk over entries in order of key; `rev()` and `next_back` walk from the other end.
///
/// It sees the store as of its beginning and blocks nobody. Keys come from memory; a value is read
/// from disk when it is asked for.
///
/// ```
/// use pakv::Db;
///
/// # let dir = tempfile::tempdir()?;
/// # let db = Db::open(dir.path())?;
/// for (key, value) in [("a/1", "x"), ("a/2", "y"), ("b/1", "z")] {
///     db.set(key, value)?;
/// }
/// let keys: Vec<_> = db.scan_prefix("a/")?.rev().map(|entry| entry.key().to_vec()).collect();
/// assert_eq!(keys, [b"a/2", b"a/1"]);
/// for entry in db.scan()? {
///     let (key, value) = entry.into_pair()?;
///     println!("{} bytes under {}", value.len(), key.escape_ascii());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Scan {
    snapshot: Snapshot,
    /// What neither end has taken a page of yet.
    left: Bounds,
    exhausted: bool,
    page: usize,
    /// Taken from the front, ascending.
    front: Entries,
    /// Taken from the back, descending.
    back: Entries,
}

/// The entries of a page that are left.
#[derive(Debug, Default)]
struct Entries {
    page: Arc<Page>,
    left: Range<usize>,
}

impl Entries {
    fn next(&mut self) -> Option<Entry> {
        let index = self.left.next()?;
        Some(Entry { page: self.page.clone(), index })
    }

    fn next_back(&mut self) -> Option<Entry> {
        let index = self.left.next_back()?;
        Some(Entry { page: self.page.clone(), index })
    }
}

impl Scan {
    pub(crate) fn new(snapshot: Snapshot, left: Bounds) -> Self {
        Self {
            snapshot,
            left,
            exhausted: false,
            page: PAGE_FIRST,
            front: Entries::default(),
            back: Entries::default(),
        }
    }

    fn take_page(&mut self, reverse: bool) {
        let core = &self.snapshot.handle().core;
        let mut page = core.page(View {
            bounds: (borrowed(&self.left.0), borrowed(&self.left.1)),
            at: self.snapshot.seqno(),
            now_ms: core.now_ms(),
            reverse,
            limit: self.page,
        });
        self.page = (self.page * 2).min(PAGE_MAX);
        match page.resume.take() {
            Some(key) if reverse => self.left.1 = Bound::Excluded(key),
            Some(key) => self.left.0 = Bound::Excluded(key),
            None => self.exhausted = true,
        }
        let entries = if reverse { &mut self.back } else { &mut self.front };
        if entries.page.values_wanted() {
            page.fetch_records();
        }
        *entries = Entries { left: 0..page.len(), page: Arc::new(page) };
    }
}

impl Iterator for Scan {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        loop {
            while self.front.left.is_empty() && !self.exhausted {
                self.take_page(false);
            }
            let entry = self.front.next().or_else(|| self.back.next_back())?;
            if entry.is_there(&self.snapshot.handle().core) {
                return Some(entry);
            }
        }
    }
}

impl DoubleEndedIterator for Scan {
    fn next_back(&mut self) -> Option<Entry> {
        loop {
            while self.back.left.is_empty() && !self.exhausted {
                self.take_page(true);
            }
            let entry = self.back.next().or_else(|| self.front.next_back())?;
            if entry.is_there(&self.snapshot.handle().core) {
                return Some(entry);
            }
        }
    }
}

impl std::iter::FusedIterator for Scan {}

/// A key and the way to its value: what a [`Scan`] gives. The value stays readable for as long as
/// the entry lives, whatever is written meanwhile; so do those of some hundred entries around it,
/// which keeps the space that they take on disk. To remember a value for long, read it.
#[derive(Debug, Clone)]
pub struct Entry {
    page: Arc<Page>,
    index: usize,
}

impl Entry {
    /// Whether it has not expired since its page was taken.
    pub(crate) fn is_there(&self, core: &Core) -> bool {
        self.expires_at_ms().is_none_or(|at| core.now_ms() < at)
    }

    /// The key. From memory.
    pub fn key(&self) -> &[u8] {
        self.page.key(self.index)
    }

    /// Reads the value.
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt) where its record is damaged;
    /// [`Error::Io`](crate::Error::Io).
    pub fn value(&self) -> Result<Vec<u8>> {
        self.value_with(|value| value.to_vec())
    }

    /// What `read` makes of the value, which it is shown where it stands, verified and without a
    /// copy.
    ///
    /// # Errors
    /// As [`Entry::value`].
    pub fn value_with<T>(&self, read: impl FnOnce(&[u8]) -> T) -> Result<T> {
        self.page.want_values();
        let (entry, segment) = self.page.found(self.index);
        segment.value_with(entry, self.key(), read)
    }

    /// The key, and the value, which is read.
    ///
    /// # Errors
    /// As [`Entry::value`].
    pub fn into_pair(self) -> Result<(Vec<u8>, Vec<u8>)> {
        let value = self.value()?;
        Ok((self.key().to_vec(), value))
    }

    /// When it expires, in milliseconds since the epoch; `None` if it does not.
    pub fn expires_at_ms(&self) -> Option<u64> {
        self.page.found(self.index).0.expires_at_ms()
    }

    /// How many bytes its record takes on the disk: key, value and some ten to twenty more. From
    /// memory.
    pub fn record_bytes(&self) -> u64 {
        self.page.found(self.index).0.location.length.into()
    }

    /// The sequence number of the write that set it.
    pub fn seqno(&self) -> u64 {
        self.page.found(self.index).0.seqno
    }
}

/// The keys that start with `prefix`: up to the next string of its length, if there is one.
pub(crate) fn prefix_bounds(prefix: &[u8]) -> Bounds {
    let mut next = prefix.to_vec();
    while let Some(last) = next.pop() {
        if let Some(after) = last.checked_add(1) {
            next.push(after);
            return (Bound::Included(prefix.to_vec()), Bound::Excluded(next));
        }
    }
    (Bound::Included(prefix.to_vec()), Bound::Unbounded)
}

pub(crate) fn owned_bounds<K: AsRef<[u8]>>(range: &impl RangeBounds<K>) -> Bounds {
    let owned = |bound: Bound<&K>| bound.map(|key| key.as_ref().to_vec());
    (owned(range.start_bound()), owned(range.end_bound()))
}

pub(crate) fn borrowed(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_its_last_byte_that_can_is_raised() {
        let bounds = |prefix: &[u8]| prefix_bounds(prefix).1;
        assert_eq!(bounds(b"ab"), Bound::Excluded(b"ac".to_vec()));
        assert_eq!(bounds(b"a\xff\xff"), Bound::Excluded(b"b".to_vec()));
        assert_eq!(bounds(b"\xff"), Bound::Unbounded);
        assert_eq!(bounds(b""), Bound::Unbounded);
    }
}
