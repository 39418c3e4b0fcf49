//! A hash table from keys to numbers that holds no keys: a slot has a number and a part of its key's
//! hash, the tag; whoever owns the keys compares them. Open addressing, linear probing; nothing is
//! ever removed.

/// The hash of a key. The lower half says where a search begins, the topmost bits are the tag.
pub(super) type Hash = u64;

/// Four bytes of number, counted from 1, so that an empty slot is zero; three of tag.
const SLOT_BYTES: usize = 7;
const SLOT_MASK: u64 = (1 << (8 * SLOT_BYTES)) - 1;
const NUMBER_BITS: u32 = 32;
/// A slot is read as eight bytes, the last one too.
const PADDING: usize = 8 - SLOT_BYTES;
const LEN_MIN: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Table {
    bytes: Vec<u8>,
    len: usize,
}

impl Table {
    /// Nine slots in eleven are taken once `keys` keys are in it.
    pub(super) fn with_room_for(keys: usize) -> Self {
        let len = len_for(keys);
        Self { bytes: vec![0; len * SLOT_BYTES + PADDING], len }
    }

    /// Whether `keys` keys would be too many.
    pub(super) fn is_full(&self, keys: usize) -> bool {
        len_for(keys) > self.len
    }

    /// A longer table, with room for `keys` keys, and in it the numbers below `numbers`, each of which
    /// `hash` gives the hash of. Where it is not known how many keys will come (`expected`), it is
    /// twice as long; and never much longer than for the keys that have.
    pub(super) fn grown(
        &self,
        keys: usize,
        expected: Option<usize>,
        numbers: u32,
        hash: impl Fn(u32) -> Hash,
    ) -> Self {
        let room = match expected {
            Some(expected) => expected.clamp(keys + keys / 16, 4 * keys),
            None => 2 * self.len,
        };
        let mut longer = Self::with_room_for(room.max(keys).max(LEN_MIN));
        for number in 0..numbers {
            longer.insert(hash(number), number);
        }
        longer
    }

    fn home(&self, hash: Hash) -> usize {
        ((u64::from(hash as u32) * self.len as u64) >> 32) as usize
    }

    fn after(&self, index: usize) -> usize {
        if index + 1 < self.len { index + 1 } else { 0 }
    }

    fn slot(&self, index: usize) -> u64 {
        let rest = self.bytes.get(index * SLOT_BYTES..).unwrap_or_default();
        rest.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes) & SLOT_MASK)
    }

    /// The slot that a search for the hash begins with.
    pub(super) fn first(&self, hash: Hash) -> u64 {
        self.slot(self.home(hash))
    }

    /// The number under `hash` that `is_it` says is the key's.
    pub(super) fn find(&self, hash: Hash, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let tag = tag(hash);
        let mut index = self.home(hash);
        for _ in 0..self.len {
            let slot = self.slot(index);
            if slot == 0 {
                return None;
            }
            let number = (slot as u32).wrapping_sub(1);
            if slot >> NUMBER_BITS == tag && is_it(number) {
                return Some(number);
            }
            index = self.after(index);
        }
        None
    }

    /// Puts a number in, which must not be there; the table must not be full.
    pub(super) fn insert(&mut self, hash: Hash, number: u32) {
        let mut index = self.home(hash);
        while self.slot(index) != 0 {
            index = self.after(index);
        }
        let slot = tag(hash) << NUMBER_BITS | u64::from(number.wrapping_add(1));
        let bytes = self.bytes.get_mut(index * SLOT_BYTES..).unwrap_or_default();
        for (to, from) in bytes.iter_mut().zip(slot.to_le_bytes()).take(SLOT_BYTES) {
            *to = from;
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

fn len_for(keys: usize) -> usize {
    keys + keys * 2 / 9 + 1
}

fn tag(hash: Hash) -> u64 {
    hash >> (64 - (8 * SLOT_BYTES as u32 - NUMBER_BITS))
}
