//! An image: keys that no longer change, one after the other in order, with a hash table beside them.

use super::table::{Hash, Table};

/// Five bytes for the start of each key: 1 TiB of keys.
const START_BYTES: usize = 5;
const START_MASK: u64 = (1 << (8 * START_BYTES)) - 1;
/// A start is read as eight bytes, the last one too.
const START_PADDING: usize = 8 - START_BYTES;

#[derive(Debug, Default)]
pub(super) struct Image {
    len: usize,
    keys: Vec<u8>,
    starts: Starts,
    table: Table,
}

/// Where the keys start.
#[derive(Debug)]
enum Starts {
    /// All are of one length.
    Every(usize),
    At(Vec<u8>),
}

impl Default for Starts {
    fn default() -> Self {
        Starts::Every(0)
    }
}

impl Starts {
    fn start(&self, rank: usize) -> usize {
        match self {
            Starts::Every(length) => rank * length,
            Starts::At(bytes) => {
                let rest = bytes.get(rank * START_BYTES..).unwrap_or_default();
                let bytes = rest.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
                (bytes & START_MASK) as usize
            }
        }
    }
}

impl Image {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The key of that rank in the order of keys.
    pub(super) fn key(&self, rank: u32) -> &[u8] {
        let rank = rank as usize;
        self.keys.get(self.starts.start(rank)..self.starts.start(rank + 1)).unwrap_or_default()
    }

    pub(super) fn find(&self, key: &[u8], hash: Hash) -> Option<u32> {
        self.table.find(hash, |rank| self.key(rank) == key)
    }

    /// A rank whose key has this tag, and of which `is_it` holds.
    pub(super) fn find_by_rank(&self, hash: Hash, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        self.table.find(hash, is_it)
    }

    /// The slot that a search begins with.
    pub(super) fn first_slot(&self, hash: Hash) -> u64 {
        self.table.first(hash)
    }

    pub(super) fn key_bytes(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        let starts = match &self.starts {
            Starts::Every(_) => 0,
            Starts::At(bytes) => bytes.capacity(),
        };
        (self.keys.capacity() + starts + self.table.memory_bytes()) as u64
    }
}

/// Takes keys in ascending order.
pub(super) struct Builder {
    len: usize,
    keys: Vec<u8>,
    /// Length of the first key.
    length: usize,
    /// Empty as long as all keys are as long as the first.
    starts: Vec<u8>,
}

impl Builder {
    pub(super) fn new(key_bytes: usize) -> Self {
        Self { len: 0, keys: Vec::with_capacity(key_bytes), length: 0, starts: Vec::new() }
    }

    fn push_start(&mut self, start: usize) {
        self.starts.extend((start as u64).to_le_bytes().iter().take(START_BYTES));
    }

    pub(super) fn push(&mut self, key: &[u8]) {
        if self.len == 0 {
            self.length = key.len();
        } else if self.starts.is_empty() && key.len() != self.length {
            for rank in 0..self.len {
                self.push_start(rank * self.length);
            }
        }
        if !self.starts.is_empty() {
            self.push_start(self.keys.len());
        }
        self.keys.extend_from_slice(key);
        self.len += 1;
    }

    /// Builds the table, for which `hash` hashes each key again.
    pub(super) fn finish(mut self, hash: impl Fn(&[u8]) -> Hash) -> Image {
        if !self.starts.is_empty() {
            self.push_start(self.keys.len());
            self.starts.extend([0; START_PADDING]);
        }
        let Self { len, keys, length, starts } = self;
        let starts = if starts.is_empty() { Starts::Every(length) } else { Starts::At(starts) };
        let mut image = Image { len, keys, starts, table: Table::default() };
        let mut table = Table::with_room_for(len);
        for rank in 0..len as u32 {
            table.insert(hash(image.key(rank)), rank);
        }
        image.table = table;
        image
    }
}
