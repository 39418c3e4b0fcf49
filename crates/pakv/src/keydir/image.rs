//! An image: keys that no longer change, one after the other in order, with a hash table beside them.

use super::array::KeyArray;
use super::table::{Hash, Table};

#[derive(Debug, Default)]
pub(super) struct Image {
    keys: KeyArray,
    table: Table,
}

impl Image {
    /// Of keys in ascending order, each of which `hash` hashes again.
    pub(super) fn of(keys: KeyArray, hash: impl Fn(&[u8]) -> Hash) -> Self {
        let mut table = Table::with_room_for(keys.len());
        for rank in 0..keys.len() as u32 {
            table.insert(hash(keys.key(rank)), rank);
        }
        Self { keys, table }
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The key of that rank in the order of keys.
    pub(super) fn key(&self, rank: u32) -> &[u8] {
        self.keys.key(rank)
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
        self.keys.bytes()
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        (self.keys.memory_bytes() + self.table.memory_bytes()) as u64
    }
}
