//! A page of a scan: some entries in order of key, taken out of the index under one hold of its lock.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use crate::clock::is_expired;
use crate::format::{SegmentId, SeqNo};
use crate::index::{Found, Index};
use crate::keydir::KeyEntry;
use crate::segment::Segment;
use crate::sync::atomic::{AtomicBool, Ordering as Memory};

/// What of the index a page shows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) bounds: (Bound<&'a [u8]>, Bound<&'a [u8]>),
    /// As a snapshot at this sequence number sees it.
    pub(crate) at: SeqNo,
    /// Without what has expired by then.
    pub(crate) now_ms: u64,
    /// From the back, descending.
    pub(crate) reverse: bool,
    /// How many keys are looked at.
    pub(crate) limit: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Page {
    /// The keys, one after the other.
    keys: Vec<u8>,
    items: Vec<Item>,
    /// Those that the items are in, each once or more.
    segments: Vec<Arc<Segment>>,
    /// The last key looked at, seen or not: where the next page goes on. `None` at the end of the
    /// range.
    pub(crate) resume: Option<Vec<u8>>,
    /// Whether a value was read: those of the next page will be too.
    values_wanted: AtomicBool,
}

#[derive(Debug)]
struct Item {
    /// Where its key ends in `keys`.
    key_end: u32,
    /// Its segment's place in `segments`.
    segment: u32,
    entry: KeyEntry,
}

impl Page {
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn key(&self, index: usize) -> &[u8] {
        let before = index.checked_sub(1).and_then(|before| self.items.get(before));
        let start = before.map_or(0, |item| item.key_end) as usize;
        let end = self.items.get(index).map_or(0, |item| item.key_end) as usize;
        self.keys.get(start..end).unwrap_or_default()
    }

    /// The entry of an index, which must be below [`Page::len`], and its segment.
    #[expect(clippy::indexing_slicing, reason = "whoever filled the page put both there")]
    pub(crate) fn found(&self, index: usize) -> (&KeyEntry, &Segment) {
        let item = &self.items[index];
        (&item.entry, &self.segments[item.segment as usize])
    }

    pub(crate) fn values_wanted(&self) -> bool {
        self.values_wanted.load(Memory::Relaxed)
    }

    pub(crate) fn want_values(&self) {
        if !self.values_wanted() {
            self.values_wanted.store(true, Memory::Relaxed);
        }
    }

    /// Has the processor fetch the records, all at once: in order of key they lie anywhere, and one
    /// after the other each would be waited for.
    pub(crate) fn fetch_records(&self) {
        let fetched = self.items.iter().filter_map(|item| {
            self.segments.get(item.segment as usize)?.touch(item.entry.location)
        });
        std::hint::black_box(fetched.fold(0, |all, byte| all ^ byte));
        self.want_values();
    }
}

/// A page that is being filled.
struct Filling<'a> {
    index: &'a Index,
    view: View<'a>,
    page: Page,
    looked_at: usize,
    /// Where in the page's segments each was put last, by the lower bits of its number.
    recent: [u32; RECENT],
}

const RECENT: usize = 64;

impl Filling<'_> {
    /// Looks at one more key; false once that was enough.
    fn visit(&mut self, key: &[u8], current: Option<KeyEntry>) -> bool {
        let newest = current.filter(|entry| entry.seqno <= self.view.at);
        if let Some(entry) = newest {
            if let Some(segment) = self.segment(entry.location.segment) {
                self.push(key, entry, segment);
            }
        } else if let Some(Found { entry, segment }) = self.index.lookup_history(key, self.view.at)
        {
            self.page.segments.push(segment);
            self.push(key, entry, (self.page.segments.len() - 1) as u32);
        }
        self.looked_at += 1;
        if self.looked_at == self.view.limit {
            self.page.resume = Some(key.to_vec());
        }
        self.looked_at < self.view.limit
    }

    fn push(&mut self, key: &[u8], entry: KeyEntry, segment: u32) {
        if !is_expired(entry.expires_at_ms(), self.view.now_ms) {
            self.page.keys.extend_from_slice(key);
            // A page of the longest keys has 64 MiB of them.
            let key_end = self.page.keys.len() as u32;
            self.page.items.push(Item { key_end, segment, entry });
        }
    }

    fn segment(&mut self, id: SegmentId) -> Option<u32> {
        let recent = self.recent.get_mut(id.0 as usize % RECENT)?;
        let known = self.page.segments.get(*recent as usize);
        if known.is_none_or(|segment| segment.id != id) {
            *recent = self.page.segments.len() as u32;
            self.page.segments.push(self.index.segments.get(&id)?.segment.clone());
        }
        Some(*recent)
    }
}

impl Index {
    /// A page of what `view` asks for. The keydir must be in order.
    pub(crate) fn page(&self, view: View<'_>) -> Page {
        let (from, to) = view.bounds;
        let current = self.keydir.range(from, to);
        let history = self.history.keys(from, to);
        let mut filling = Filling {
            index: self,
            view,
            page: Page::default(),
            looked_at: 0,
            recent: [u32::MAX; RECENT],
        };
        let mut visit = |key: &[u8], entry: Option<KeyEntry>| filling.visit(key, entry);
        match (self.history.is_empty(), view.reverse) {
            (true, false) => all(current, visit),
            (true, true) => all(current.rev(), visit),
            (false, false) => merge(current, history, |ordering| ordering, &mut visit),
            (false, true) => {
                merge(current.rev(), history.rev(), Ordering::reverse, &mut visit);
            }
        }
        filling.page
    }
}

/// Gives every entry to `visit` until it says to stop.
fn all<'a>(
    entries: impl Iterator<Item = (&'a [u8], KeyEntry)>,
    mut visit: impl FnMut(&[u8], Option<KeyEntry>) -> bool,
) {
    for (key, entry) in entries {
        if !visit(key, Some(entry)) {
            break;
        }
    }
}

/// Gives every key of two ordered sequences to `visit`, once and in order, until it says to stop.
fn merge<'a>(
    current: impl Iterator<Item = (&'a [u8], KeyEntry)>,
    history: impl Iterator<Item = &'a [u8]>,
    direction: impl Fn(Ordering) -> Ordering,
    visit: &mut impl FnMut(&[u8], Option<KeyEntry>) -> bool,
) {
    let mut current = current.peekable();
    let mut history = history.peekable();
    loop {
        let (key, entry) = match (current.peek().copied(), history.peek().copied()) {
            (None, None) => return,
            (Some((key, entry)), None) => (key, Some(entry)),
            (None, Some(key)) => (key, None),
            (Some((key, entry)), Some(old)) => match direction(key.cmp(old)) {
                Ordering::Less | Ordering::Equal => (key, Some(entry)),
                Ordering::Greater => (old, None),
            },
        };
        current.next_if(|(next, _)| *next == key);
        history.next_if(|next| *next == key);
        if !visit(key, entry) {
            return;
        }
    }
}
