//! Keys that came since the image was built: appended as they come, found by hash at once, put in
//! order only when somebody asks for it.

use std::cmp::Ordering;

use super::array::KeyArray;
use super::place::Place;
use super::table::{Hash, Table};

/// Keys by number, in the order in which they came. Only ever grows.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    keys: KeyArray,
    table: Table,
}

impl Keys {
    /// With slots for `keys` keys, so that the table need not grow before.
    pub(super) fn with_room_for(keys: usize) -> Self {
        Self { keys: KeyArray::default(), table: Table::with_room_for(keys) }
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn key(&self, number: u32) -> &[u8] {
        self.keys.key(number)
    }

    /// The slot that a search begins with.
    pub(super) fn first_slot(&self, hash: Hash) -> u64 {
        self.table.first(hash)
    }

    pub(super) fn find(&self, key: &[u8], hash: Hash) -> Option<u32> {
        self.table.find(hash, |number| self.key(number) == key)
    }

    /// A number whose key has this tag, and of which `is_it` holds.
    pub(super) fn find_by_number(&self, hash: Hash, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        self.table.find(hash, is_it)
    }

    /// Makes room in the table for so many more keys.
    pub(super) fn reserve(&mut self, more: usize, hash_of: impl Fn(&[u8]) -> Hash) {
        let keys = self.len() + more;
        if self.table.is_full(keys) {
            let number = self.len() as u32;
            self.table = self.table.grown(keys, number, |number| hash_of(self.key(number)));
        }
    }

    /// Adds a key that is not there, as the next number.
    fn push(&mut self, key: &[u8], hash: Hash, hash_of: impl Fn(&[u8]) -> Hash) {
        let number = self.len() as u32;
        self.reserve(1, hash_of);
        self.table.insert(hash, number);
        self.keys.push(key);
    }

    pub(super) fn bytes(&self) -> usize {
        self.keys.bytes()
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        (self.keys.memory_bytes() + self.table.memory_bytes()) as u64
    }
}

/// Numbers of keys in the order of the keys, in runs of which each is at least twice as long as the
/// next: what has come since the last time is sorted and becomes the last run, and runs that are
/// too short for their place are merged.
#[derive(Debug, Default)]
pub(crate) struct Order {
    pub(super) runs: Vec<Vec<u32>>,
    /// How many keys the runs have.
    ordered: usize,
}

impl Order {
    pub(crate) fn of(keys: &Keys) -> Self {
        let mut order = Self::default();
        order.complete(keys);
        order
    }

    /// Whether the runs have all of `keys`.
    pub(super) fn is_complete(&self, keys: &Keys) -> bool {
        self.ordered == keys.len()
    }

    pub(super) fn complete(&mut self, keys: &Keys) {
        if self.is_complete(keys) {
            return;
        }
        let mut run = sorted(keys, self.ordered as u32..keys.len() as u32);
        self.ordered = keys.len();
        while let Some(before) = self.runs.pop_if(|before| before.len() < 2 * run.len()) {
            run = merged(keys, &before, &run);
        }
        self.runs.push(run);
    }

    fn memory_bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.capacity() as u64 * 4).sum()
    }
}

/// Sorts keys by their first eight bytes where those differ, which stand beside the numbers, so that
/// few comparisons have to go to the keys.
pub(super) fn sorted(keys: &Keys, numbers: std::ops::Range<u32>) -> Vec<u32> {
    let skip = common_prefix(keys, numbers.clone());
    let mut entries: Vec<(u64, u32)> =
        numbers.map(|number| (first_eight(keys.key(number), skip), number)).collect();
    entries.sort_unstable_by(|(a_first, a), (b_first, b)| {
        a_first.cmp(b_first).then_with(|| keys.key(*a).cmp(keys.key(*b)))
    });
    entries.into_iter().map(|(_, number)| number).collect()
}

/// How many bytes all of these keys begin with.
fn common_prefix(keys: &Keys, numbers: std::ops::Range<u32>) -> usize {
    let first = keys.key(numbers.start);
    numbers.fold(first.len(), |len, number| {
        let key = keys.key(number);
        let same = first.iter().zip(key).take(len).take_while(|(a, b)| a == b);
        same.count()
    })
}

fn first_eight(key: &[u8], skip: usize) -> u64 {
    let rest = key.get(skip..).unwrap_or_default();
    let mut bytes = [0; 8];
    for (to, from) in bytes.iter_mut().zip(rest) {
        *to = *from;
    }
    // As numbers they compare as the keys do.
    u64::from_le_bytes(bytes).swap_bytes()
}

fn merged(keys: &Keys, a: &[u32], b: &[u32]) -> Vec<u32> {
    let mut out = Vec::with_capacity(a.len() + b.len());
    let (mut a, mut b) = (a.iter().copied().peekable(), b.iter().copied().peekable());
    while let (Some(left), Some(right)) = (a.peek(), b.peek()) {
        let first = match keys.key(*left).cmp(keys.key(*right)) {
            Ordering::Greater => &mut b,
            Ordering::Less | Ordering::Equal => &mut a,
        };
        out.extend(first.next());
    }
    out.extend(a);
    out.extend(b);
    out
}

/// The keys that come now, and their places.
#[derive(Debug, Default)]
pub(super) struct Head {
    pub(super) keys: Keys,
    pub(super) places: Vec<Place>,
    pub(super) order: Order,
}

impl Head {
    pub(super) fn with_room_for(keys: usize) -> Self {
        Self { keys: Keys::with_room_for(keys), ..Self::default() }
    }

    pub(super) fn push(
        &mut self,
        key: &[u8],
        hash: Hash,
        place: Place,
        hash_of: impl Fn(&[u8]) -> Hash,
    ) {
        self.keys.push(key, hash, hash_of);
        self.places.push(place);
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        let places = (self.places.capacity() * super::place::PLACE_BYTES) as u64;
        self.keys.memory_bytes() + places + self.order.memory_bytes()
    }
}
