//! An image: keys that no longer change, in order, with a hash table beside them. Its three sections
//! are bytes as they would stand in a file: where each key starts, the keys one after the other, the
//! slots of the table.

use super::table::{self, SLOT_BYTES, SlotBytes, Tag};

/// Five bytes for the start of each key: 1 TiB of keys.
const START_BYTES: usize = 5;
const START_MASK: u64 = (1 << (8 * START_BYTES)) - 1;
/// A start is read as eight bytes, the last one too.
const START_PADDING: usize = 8 - START_BYTES;

#[derive(Debug)]
pub(super) struct Image {
    len: usize,
    starts: Vec<u8>,
    keys: Vec<u8>,
    slots: Vec<u8>,
}

impl Default for Image {
    fn default() -> Self {
        Builder::new(0, 0).finish(|_| 0)
    }
}

impl Image {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn start(&self, rank: usize) -> usize {
        let rest = self.starts.get(rank * START_BYTES..).unwrap_or_default();
        let bytes = rest.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        (bytes & START_MASK) as usize
    }

    /// The key of that rank in the order of keys.
    pub(super) fn key(&self, rank: u32) -> &[u8] {
        let rank = rank as usize;
        self.keys.get(self.start(rank)..self.start(rank + 1)).unwrap_or_default()
    }

    pub(super) fn find(&self, key: &[u8], tag: Tag) -> Option<u32> {
        table::find(&SlotBytes(&self.slots), tag, |rank| self.key(rank) == key)
    }

    pub(super) fn key_bytes(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        (self.starts.capacity() + self.keys.capacity() + self.slots.capacity()) as u64
    }
}

/// Takes keys in ascending order.
pub(super) struct Builder {
    len: usize,
    starts: Vec<u8>,
    keys: Vec<u8>,
}

impl Builder {
    pub(super) fn new(keys: usize, key_bytes: usize) -> Self {
        Self {
            len: 0,
            starts: Vec::with_capacity((keys + 1) * START_BYTES + START_PADDING),
            keys: Vec::with_capacity(key_bytes),
        }
    }

    fn push_start(&mut self) {
        let start = (self.keys.len() as u64).to_le_bytes();
        self.starts.extend(start.iter().take(START_BYTES));
    }

    pub(super) fn push(&mut self, key: &[u8]) {
        self.push_start();
        self.keys.extend_from_slice(key);
        self.len += 1;
    }

    /// Builds the table, for which `tag` hashes each key again.
    pub(super) fn finish(mut self, tag: impl Fn(&[u8]) -> Tag) -> Image {
        self.push_start();
        self.starts.extend([0; START_PADDING]);
        let mut slots = vec![0; table::len_for(self.len)];
        let mut image =
            Image { len: self.len, starts: self.starts, keys: self.keys, slots: Vec::new() };
        for rank in 0..image.len as u32 {
            table::insert(&mut slots, tag(image.key(rank)), rank);
        }
        image.slots = Vec::with_capacity(slots.len() * SLOT_BYTES);
        image.slots.extend(slots.into_iter().flat_map(u64::to_le_bytes));
        image
    }
}
