//! Keys that came since the image was built: appended as they come, found by hash at once, put in
//! order only when somebody asks for it. They can be millions, which nobody may wait for: all but a
//! few are copied, a few at a time, and sorted apart ([`Unordered`]).

use std::cmp::Ordering;
use std::ops::Range;

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

    /// The numbers in the order of their keys.
    pub(super) fn sorted(&self, numbers: Range<u32>) -> Vec<u32> {
        sorted(&self.keys, numbers)
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

    /// Makes room in the table for so many more keys, and for as many as are `expected` in all.
    pub(super) fn reserve(
        &mut self,
        more: usize,
        expected: Option<usize>,
        hash_of: impl Fn(&[u8]) -> Hash,
    ) {
        let keys = self.len() + more;
        if self.table.is_full(keys) {
            let hash = |number| hash_of(self.key(number));
            self.table = self.table.grown(keys, expected, self.len() as u32, hash);
        }
    }

    /// Adds a key that is not there, as the next number.
    fn push(&mut self, key: &[u8], hash: Hash, hash_of: impl Fn(&[u8]) -> Hash) {
        let number = self.len() as u32;
        self.reserve(1, None, hash_of);
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

/// So many keys are sorted, and twice as many copied, while others wait: some 100 µs.
const SORTED_PER_HOLD: usize = if cfg!(test) { 2 } else { 2048 };
/// So many are merged: some 500 µs, and seldom.
const MERGED_PER_HOLD: usize = 8 * SORTED_PER_HOLD;
/// With more runs than this all keys are sorted anew: a scan looks into each.
const RUNS_MAX: usize = if cfg!(test) { 3 } else { 24 };

/// Numbers of keys in the order of the keys, in runs: what has come since the last time is sorted and
/// becomes the last run. Runs before it that are not twice as long are merged with it, as far as others
/// can wait for that.
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
        self.push(keys, keys.sorted(self.ordered as u32..keys.len() as u32));
    }

    /// Takes what was sorted apart, unless somebody else was quicker.
    pub(super) fn take(&mut self, keys: &Keys, run: Run) {
        let Run { first, numbers, .. } = run;
        if first == 0 && numbers.len() >= self.ordered {
            self.ordered = numbers.len();
            self.runs = vec![numbers];
        } else if first as usize == self.ordered {
            self.push(keys, numbers);
        }
    }

    /// Adds the next keys.
    fn push(&mut self, keys: &Keys, mut run: Vec<u32>) {
        self.ordered += run.len();
        let is_short = |before: &[u32], run: &[u32]| {
            before.len() < 2 * run.len() && before.len() + run.len() <= MERGED_PER_HOLD
        };
        while let Some(before) = self.runs.pop_if(|before| is_short(before, &run)) {
            run = merged(keys, &before, &run);
        }
        self.runs.push(run);
    }

    fn memory_bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.capacity() as u64 * 4).sum()
    }
}

/// Keys of a head that are to be put in order: copies, to be sorted with no lock held.
#[derive(Debug)]
pub(crate) struct Unordered {
    /// That of the keydir: the numbers are of this head and no other.
    pub(super) epoch: u64,
    /// The number of the first.
    first: u32,
    /// The number behind the last.
    end: u32,
    keys: KeyArray,
}

/// Their numbers in the order of their keys.
#[derive(Debug)]
pub(crate) struct Run {
    pub(super) epoch: u64,
    first: u32,
    numbers: Vec<u32>,
}

impl Unordered {
    /// What of `head` is to be sorted apart; `None` where that is little, which others can wait for.
    pub(super) fn of(head: &Head, epoch: u64) -> Option<Self> {
        let (ordered, end) = (head.order.ordered, head.keys.len());
        let has_few_runs = head.order.runs.len() < RUNS_MAX;
        if end - ordered <= SORTED_PER_HOLD && has_few_runs {
            return None;
        }
        let first = if has_few_runs { ordered } else { 0 };
        let keys = KeyArray::default();
        Some(Self { epoch, first: first as u32, end: end as u32, keys })
    }

    /// Copies some more of the keys; false once all are there.
    pub(super) fn copy(&mut self, head: &Head) -> bool {
        let from = self.first + self.keys.len() as u32;
        let to = from.saturating_add(2 * SORTED_PER_HOLD as u32).min(self.end);
        (from..to).for_each(|number| self.keys.push(head.keys.key(number)));
        to < self.end
    }

    pub(crate) fn sorted(self) -> Run {
        let Self { epoch, first, keys, .. } = self;
        let mut numbers = sorted(&keys, 0..keys.len() as u32);
        numbers.iter_mut().for_each(|number| *number += first);
        Run { epoch, first, numbers }
    }
}

/// Sorts keys by their first eight bytes where those differ, which stand beside the numbers, so that
/// few comparisons have to go to the keys.
fn sorted(keys: &KeyArray, numbers: Range<u32>) -> Vec<u32> {
    let skip = common_prefix(keys, numbers.clone());
    let mut entries: Vec<(u64, u32)> =
        numbers.map(|number| (first_eight(keys.key(number), skip), number)).collect();
    entries.sort_unstable_by(|(a_first, a), (b_first, b)| {
        a_first.cmp(b_first).then_with(|| keys.key(*a).cmp(keys.key(*b)))
    });
    entries.into_iter().map(|(_, number)| number).collect()
}

/// How many bytes all of these keys begin with.
fn common_prefix(keys: &KeyArray, numbers: Range<u32>) -> usize {
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
