//! A hash table from keys to numbers that holds neither: a slot has 32 bits of the key's hash and a
//! number; whoever owns the keys compares them. Open addressing, linear probing; nothing is ever
//! removed.
//!
//! A slot's home is the hash scaled to the table's length, so that growing is one pass from the
//! first slot to the last, and the table of an image can stand in a file as it is.

/// The part of a key's hash that tables know.
pub(super) type Tag = u32;

/// Where slots are read from: memory, or the bytes of a file.
pub(super) trait Slots {
    fn len(&self) -> usize;
    /// A slot; 0 is an empty one.
    fn slot(&self, index: usize) -> u64;
}

impl Slots for [u64] {
    fn len(&self) -> usize {
        self.len()
    }

    fn slot(&self, index: usize) -> u64 {
        self.get(index).copied().unwrap_or_default()
    }
}

pub(super) const SLOT_BYTES: usize = 8;

/// Slots as little-endian bytes.
pub(super) struct SlotBytes<'a>(pub(super) &'a [u8]);

impl Slots for SlotBytes<'_> {
    fn len(&self) -> usize {
        self.0.len() / SLOT_BYTES
    }

    fn slot(&self, index: usize) -> u64 {
        let rest = self.0.get(index * SLOT_BYTES..).unwrap_or_default();
        rest.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

/// How many slots a table for `keys` keys has: two thirds are taken when it is full.
pub(super) fn len_for(keys: usize) -> usize {
    keys + keys / 2 + 1
}

pub(super) fn is_full(slots: usize, keys: usize) -> bool {
    len_for(keys) > slots
}

fn home(tag: Tag, len: usize) -> usize {
    ((u64::from(tag) * len as u64) >> 32) as usize
}

fn after(index: usize, len: usize) -> usize {
    if index + 1 < len { index + 1 } else { 0 }
}

/// The slot that a search for the tag begins with.
pub(super) fn first(slots: &(impl Slots + ?Sized), tag: Tag) -> u64 {
    slots.slot(home(tag, slots.len()))
}

/// The number under `tag` that `is_it` says is the key's.
pub(super) fn find(
    slots: &(impl Slots + ?Sized),
    tag: Tag,
    mut is_it: impl FnMut(u32) -> bool,
) -> Option<u32> {
    let len = slots.len();
    let mut index = home(tag, len);
    // Bounded: a table that was read from a file may have no empty slot.
    for _ in 0..len {
        let slot = slots.slot(index);
        if slot == 0 {
            return None;
        }
        let number = (slot as u32).wrapping_sub(1);
        if (slot >> 32) as u32 == tag && is_it(number) {
            return Some(number);
        }
        index = after(index, len);
    }
    None
}

/// Puts a number in, which must not be there; the table must not be full.
pub(super) fn insert(slots: &mut [u64], tag: Tag, number: u32) {
    let len = slots.len();
    let mut index = home(tag, len);
    while let Some(slot) = slots.get_mut(index) {
        if *slot == 0 {
            *slot = encode(tag, number);
            return;
        }
        index = after(index, len);
    }
}

const LEN_MIN: usize = 16;

/// A longer table with what is in this one.
pub(super) fn grown(slots: &[u64]) -> Vec<u64> {
    let mut longer = vec![0; LEN_MIN.max(slots.len() * 2)];
    for slot in slots.iter().filter(|slot| **slot != 0) {
        insert(&mut longer, (slot >> 32) as u32, (*slot as u32).wrapping_sub(1));
    }
    longer
}

fn encode(tag: Tag, number: u32) -> u64 {
    u64::from(tag) << 32 | u64::from(number.wrapping_add(1))
}
