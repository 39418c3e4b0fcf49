//! An image: keys that no longer change, one after the other in order, with a hash table beside them.

use super::table::{self, Hash};

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
    slots: Vec<u64>,
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

    pub(super) fn find(&self, key: &[u8], hash: Hash) -> Option<u32> {
        table::find(&self.slots, hash, |rank| self.key(rank) == key)
    }

    /// A rank whose key's hash begins as this one, and of which `is_there` holds.
    pub(super) fn guess(&self, hash: Hash, is_there: impl Fn(u32) -> bool) -> Option<u32> {
        table::find(&self.slots, hash, is_there)
    }

    pub(super) fn key_bytes(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        (self.starts.capacity() + self.keys.capacity() + self.slots.capacity() * 8) as u64
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

    /// Builds the table, for which `hash` hashes each key again.
    pub(super) fn finish(mut self, hash: impl Fn(&[u8]) -> Hash) -> Image {
        self.push_start();
        self.starts.extend([0; START_PADDING]);
        let Self { len, starts, keys } = self;
        let mut image = Image { len, starts, keys, slots: Vec::new() };
        let mut slots = vec![0; table::len_for(len)];
        for rank in 0..len as u32 {
            table::insert(&mut slots, hash(image.key(rank)), rank);
        }
        image.slots = slots;
        image
    }
}
