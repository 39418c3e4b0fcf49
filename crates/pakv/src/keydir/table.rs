//! A hash table from keys to numbers that holds no keys: a slot has a number and the upper half of
//! its key's hash, whoever owns the keys compares them. The lower half says where the search begins.
//! Open addressing, linear probing; nothing is ever removed. An empty slot is 0.

/// The hash of a key.
pub(super) type Hash = u64;

/// How many slots a table for `keys` keys has: two thirds are taken when it is full.
pub(super) fn len_for(keys: usize) -> usize {
    keys + keys / 2 + 1
}

pub(super) fn is_full(slots: usize, keys: usize) -> bool {
    len_for(keys) > slots
}

fn home(hash: Hash, len: usize) -> usize {
    ((u64::from(hash as u32) * len as u64) >> 32) as usize
}

fn tag(hash: Hash) -> u64 {
    hash >> 32
}

fn after(index: usize, len: usize) -> usize {
    if index + 1 < len { index + 1 } else { 0 }
}

/// The slot that a search for the hash begins with.
pub(super) fn first(slots: &[u64], hash: Hash) -> u64 {
    slots.get(home(hash, slots.len())).copied().unwrap_or_default()
}

/// The number under `hash` that `is_it` says is the key's.
pub(super) fn find(slots: &[u64], hash: Hash, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
    let len = slots.len();
    let mut index = home(hash, len);
    for _ in 0..len {
        let slot = slots.get(index).copied().unwrap_or_default();
        if slot == 0 {
            return None;
        }
        let number = (slot as u32).wrapping_sub(1);
        if slot >> 32 == tag(hash) && is_it(number) {
            return Some(number);
        }
        index = after(index, len);
    }
    None
}

/// Puts a number in, which must not be there; the table must not be full.
pub(super) fn insert(slots: &mut [u64], hash: Hash, number: u32) {
    let len = slots.len();
    let mut index = home(hash, len);
    while let Some(slot) = slots.get_mut(index) {
        if *slot == 0 {
            *slot = tag(hash) << 32 | u64::from(number.wrapping_add(1));
            return;
        }
        index = after(index, len);
    }
}

const LEN_MIN: usize = 16;

/// A table twice as long for the numbers below `len`, each of which `hash` gives the hash of.
pub(super) fn grown(slots: usize, len: usize, hash: impl Fn(u32) -> Hash) -> Vec<u64> {
    let mut longer = vec![0; LEN_MIN.max(slots * 2)];
    for number in 0..len as u32 {
        insert(&mut longer, hash(number), number);
    }
    longer
}
