//! The keydir: key to location, in memory, ordered by key. Pure: no I/O, no clock, no locks. What
//! surrounds it (who may read and write it when, which bytes are live, what snapshots still see) is
//! `index`'s.
//!
//! Most keys are in an *image*: sorted once, one after the other, with a hash table beside them and
//! an array of *places*, which alone changes. Keys that come later are in the *head*, which finds
//! them by hash and sorts them only when somebody asks for their order. When the head has grown to a
//! share of the image, the two are merged into a new image, in the background and in small holds of
//! the index's lock ([`merge`]).
//!
//! Invariants:
//! - No key is there in more than one layer. A key that is gone from an image stays gone from it:
//!   set again, it goes into the head. So layers can be asked in any order.
//! - Moving an entry is a compare-and-swap: on the sequence number of its record, or on its old
//!   location where the copies of a compaction are remembered. A record has one place in the log at
//!   a time, so "still that record" and "still at the old location" are the same question.

mod array;
mod head;
mod image;
mod merge;
mod place;
mod survey;
mod table;
#[cfg(test)]
mod tests;
mod walk;

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU64;
use std::ops::Bound;
use std::sync::Arc;

use crate::format::{Location, SegmentId, SeqNo};
use crate::planted::{Bug, planted};

use head::Head;
pub(crate) use head::{Keys, Order, Run, Unordered};
use image::Image;
pub(crate) use merge::{Merge, Next};
use place::{Legend, PLACE_BYTES, Place};
pub(crate) use survey::{Relocation, Survey};
use table::Hash;
use walk::{Sequence, Walk};

/// The newest version of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyEntry {
    pub(crate) location: Location,
    pub(crate) seqno: SeqNo,
    expires_at_ms: Option<NonZeroU64>,
}

impl KeyEntry {
    pub(crate) fn new(location: Location, seqno: SeqNo, expires_at_ms: Option<u64>) -> Self {
        // The epoch itself and the millisecond after it have both passed: nothing is lost by taking
        // them for one.
        let expires_at_ms = expires_at_ms.map(|at| NonZeroU64::new(at).unwrap_or(NonZeroU64::MIN));
        Self { location, seqno, expires_at_ms }
    }

    pub(crate) fn expires_at_ms(&self) -> Option<u64> {
        self.expires_at_ms.map(NonZeroU64::get)
    }
}

/// An ordered map of keys to entries.
#[derive(Debug)]
pub(crate) struct KeyDir {
    /// Drawn at random, so that nobody can choose keys that all have one home.
    seed: u64,
    image: Arc<Image>,
    places: Vec<Place>,
    /// How many of the image's keys are gone.
    gone: usize,
    frozen: Option<Frozen>,
    next: Option<Next>,
    head: Head,
    legend: Legend,
    len: u64,
    /// How often places have moved from one layer to another.
    epoch: u64,
    /// A head with fewer keys is not merged.
    pub(crate) merge_keys_min: usize,
}

/// A head that is being merged.
#[derive(Debug)]
struct Frozen {
    keys: Arc<Keys>,
    places: Vec<Place>,
    order: Order,
}

/// A head is merged once it has this many keys, or this share of the image's.
pub(crate) const MERGE_KEYS_MIN: usize = 64 * 1024;
const MERGE_SHARE: usize = 4;

/// For about so many keys whoever looks them up [fetches](KeyDir::fetch) at once.
pub(crate) const FETCH_AHEAD: usize = 32;

/// Where a key's place is.
#[derive(Debug, Clone, Copy)]
enum Spot {
    Image(u32),
    Frozen(u32),
    Head(u32),
}

fn hash_of(seed: u64, key: &[u8]) -> Hash {
    xxhash_rust::xxh3::xxh3_64_with_seed(key, seed)
}

impl Default for KeyDir {
    fn default() -> Self {
        Self {
            seed: RandomState::new().hash_one(0),
            image: Arc::default(),
            places: Vec::new(),
            gone: 0,
            frozen: None,
            next: None,
            head: Head::default(),
            legend: Legend::default(),
            len: 0,
            epoch: 0,
            merge_keys_min: MERGE_KEYS_MIN,
        }
    }
}

impl KeyDir {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Makes room for so many more new keys; where it is known about how many there will be in the
    /// end, for those.
    pub(crate) fn reserve(&mut self, keys: usize, expected: Option<usize>) {
        let seed = self.seed;
        self.head.keys.reserve(keys, expected, |key| hash_of(seed, key));
    }

    /// Has the processor fetch what it will need to find these keys, all at once; one after the
    /// other each would be waited for.
    pub(crate) fn fetch<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) {
        let first_slots = |key| {
            let hash = hash_of(self.seed, key);
            let frozen = self.frozen.as_ref().map_or(0, |frozen| frozen.keys.first_slot(hash));
            self.head.keys.first_slot(hash) ^ frozen ^ self.image.first_slot(hash)
        };
        std::hint::black_box(keys.fold(0, |all, key| all ^ first_slots(key)));
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<KeyEntry> {
        let spot = self.find(key, hash_of(self.seed, key))?;
        Some(self.legend.entry(self.place(spot)))
    }

    /// The entry of `key`, or by a rare chance that of a key whose hash begins alike: whoever reads
    /// the record sees whose it is. `None` is certain. Saves looking at the key itself.
    pub(crate) fn guess(&self, key: &[u8]) -> Option<KeyEntry> {
        let spot = self.find_by_place(hash_of(self.seed, key), |_| true)?;
        Some(self.legend.entry(self.place(spot)))
    }

    /// Puts an entry in and returns the one it replaces.
    pub(crate) fn insert(&mut self, key: &[u8], entry: KeyEntry) -> Option<KeyEntry> {
        let hash = hash_of(self.seed, key);
        let spot = self.find(key, hash);
        self.insert_at(spot, key, hash, entry)
    }

    /// Puts an entry in unless `must_stay` says so of the sequence number that is there; returns
    /// whether it did.
    pub(crate) fn insert_newer(
        &mut self,
        key: &[u8],
        entry: KeyEntry,
        must_stay: impl Fn(SeqNo) -> bool,
    ) -> bool {
        let hash = hash_of(self.seed, key);
        let spot = self.find(key, hash);
        if spot.is_some_and(|spot| must_stay(self.legend.seqno(self.place(spot)))) {
            return false;
        }
        self.insert_at(spot, key, hash, entry);
        true
    }

    fn insert_at(
        &mut self,
        spot: Option<Spot>,
        key: &[u8],
        hash: Hash,
        entry: KeyEntry,
    ) -> Option<KeyEntry> {
        let old = spot.map(|spot| self.legend.give_up(self.place(spot)));
        let place = self.legend.place(&entry);
        match spot {
            Some(spot) => self.set(spot, key, hash, place),
            None => {
                match self.head.keys.find(key, hash) {
                    Some(number) => self.set_at(Spot::Head(number), place),
                    None => {
                        let seed = self.seed;
                        self.head.push(key, hash, place, |key| hash_of(seed, key));
                    }
                }
                self.len += 1;
            }
        }
        old
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<KeyEntry> {
        let hash = hash_of(self.seed, key);
        let spot = self.find(key, hash)?;
        let old = self.legend.give_up(self.place(spot));
        self.set(spot, key, hash, Place::GONE);
        self.gone += usize::from(matches!(spot, Spot::Image(_)));
        self.len -= 1;
        Some(old)
    }

    /// Moves the entry of `key` to another location if it is still that of record `seqno`; returns
    /// the old one.
    pub(crate) fn compare_and_move(
        &mut self,
        key: &[u8],
        seqno: SeqNo,
        to: Location,
    ) -> Option<Location> {
        let hash = hash_of(self.seed, key);
        let spot = if planted(Bug::MoveWithoutCompare) {
            self.find(key, hash)?
        } else {
            self.find_record(hash, seqno)?
        };
        let entry = self.legend.give_up(self.place(spot));
        let place = self.legend.place(&KeyEntry { location: to, ..entry });
        self.set(spot, key, hash, place);
        Some(entry.location)
    }

    /// Tells of a segment with records whose smallest sequence number is `first`. To be said before
    /// one of them is inserted, or moved there, where the first that comes may not be the smallest.
    pub(crate) fn begin_segment(&mut self, segment: SegmentId, first: SeqNo) {
        self.legend.begin_segment(segment, first);
    }

    /// No entry points into the segment any more, and none will.
    pub(crate) fn forget_segment(&mut self, segment: SegmentId) {
        self.legend.forget(segment);
    }

    /// The keys whose entries point into one of the segments that `is_one` names. Looks at all.
    pub(crate) fn keys_in(&self, is_one: impl Fn(SegmentId) -> bool) -> Vec<Box<[u8]>> {
        let mut keys = Vec::new();
        self.for_each(|key, entry| {
            if is_one(entry.location.segment) {
                keys.push(key.into());
            }
        });
        keys
    }

    /// Whether [`KeyDir::range`] can be asked.
    pub(crate) fn is_ordered(&self) -> bool {
        let is_ordered = |frozen: &Frozen| frozen.order.is_complete(&frozen.keys);
        self.head.order.is_complete(&self.head.keys) && self.frozen.as_ref().is_none_or(is_ordered)
    }

    /// Frozen keys that are not in order. They can be many, and sorting them needs no keydir:
    /// [`KeyDir::set_frozen_order`] takes the result.
    pub(crate) fn unordered_frozen(&self) -> Option<Arc<Keys>> {
        let frozen = self.frozen.as_ref()?;
        (!frozen.order.is_complete(&frozen.keys)).then(|| frozen.keys.clone())
    }

    /// Takes the order of `keys`, if those are still what is frozen.
    pub(crate) fn set_frozen_order(&mut self, keys: &Arc<Keys>, order: Order) {
        if let Some(frozen) = self.frozen.as_mut().filter(|frozen| Arc::ptr_eq(&frozen.keys, keys))
        {
            frozen.order = order;
        }
    }

    /// Keys that came lately and are not in order, if they are many: [`KeyDir::copy_unordered`] until
    /// all are there, then [`Unordered::sorted`], then [`KeyDir::set_head_order`].
    pub(crate) fn unordered_head(&self) -> Option<Unordered> {
        Unordered::of(&self.head, self.epoch)
    }

    /// Copies some more of the keys; false once all are there, or there is no use in it any more.
    pub(crate) fn copy_unordered(&self, unordered: &mut Unordered) -> bool {
        unordered.epoch == self.epoch && unordered.copy(&self.head)
    }

    /// Takes the order of keys of the head, if it is still that head.
    pub(crate) fn set_head_order(&mut self, run: Run) {
        if run.epoch == self.epoch {
            self.head.order.take(&self.head.keys, run);
        }
    }

    /// Puts the keys in order that are not yet.
    pub(crate) fn put_in_order(&mut self) {
        self.head.order.complete(&self.head.keys);
        if let Some(frozen) = &mut self.frozen {
            frozen.order.complete(&frozen.keys);
        }
    }

    /// The entries between two bounds, in order of key, from both ends. Bounds that exclude each
    /// other give none. The keydir must be in order ([`KeyDir::put_in_order`]).
    pub(crate) fn range<'a>(
        &'a self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&'a [u8], KeyEntry)> + use<'a> {
        debug_assert!(self.is_ordered());
        let bounds = (from, to);
        let image = Sequence::of_image(&self.image, &self.places, bounds);
        let frozen = self.frozen.iter().flat_map(|frozen| {
            let of_run =
                |run| Sequence::of_run(&frozen.keys, run, frozen.places.as_slice(), bounds);
            frozen.order.runs.iter().map(move |run| of_run(run))
        });
        let head = self.head.order.runs.iter();
        let head =
            head.map(|run| Sequence::of_run(&self.head.keys, run, &self.head.places, bounds));
        let walk = Walk::new(std::iter::once(image).chain(frozen).chain(head));
        walk.map(|(key, place)| (key, self.legend.entry(place)))
    }

    /// Every entry, in no order.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&[u8], KeyEntry)) {
        let mut visit = |key: &[u8], place: Place| {
            if !place.is_gone() {
                visit(key, self.legend.entry(place));
            }
        };
        for (rank, place) in (0..).zip(&self.places) {
            visit(self.image.key(rank), *place);
        }
        if let Some(frozen) = &self.frozen {
            for (number, place) in (0..).zip(&frozen.places) {
                visit(frozen.keys.key(number), *place);
            }
        }
        for (number, place) in (0..).zip(&self.head.places) {
            visit(self.head.keys.key(number), *place);
        }
    }

    /// Memory that it takes, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let places = |places: &Vec<Place>| (places.capacity() * PLACE_BYTES) as u64;
        let of_frozen = |frozen: &Frozen| frozen.keys.memory_bytes() + places(&frozen.places);
        let of_next = |next: &Next| next.image.memory_bytes() + places(&next.places);
        self.image.memory_bytes()
            + places(&self.places)
            + self.head.memory_bytes()
            + self.frozen.as_ref().map_or(0, of_frozen)
            + self.next.as_ref().map_or(0, of_next)
            + self.legend.memory_bytes()
    }

    /// The place of a key that is there.
    fn find(&self, key: &[u8], hash: Hash) -> Option<Spot> {
        if let Some(number) = self.head.keys.find(key, hash) {
            let spot = Spot::Head(number);
            return (!self.place(spot).is_gone()).then_some(spot);
        }
        let in_frozen = |frozen: &Frozen| frozen.keys.find(key, hash).map(Spot::Frozen);
        let older =
            [self.frozen.as_ref().and_then(in_frozen), self.image.find(key, hash).map(Spot::Image)];
        older.into_iter().flatten().find(|spot| !self.place(*spot).is_gone())
    }

    /// Where record `seqno` has its place, if it is the newest of its key, which has this hash.
    fn find_record(&self, hash: Hash, seqno: SeqNo) -> Option<Spot> {
        self.find_by_place(hash, |place| self.legend.seqno(place) == seqno)
    }

    /// A place under `hash` that `is_it` says is the one; never one of a key that is gone.
    fn find_by_place(&self, hash: Hash, is_it: impl Fn(Place) -> bool) -> Option<Spot> {
        let is_there = |spot: Spot| {
            let place = self.place(spot);
            !place.is_gone() && is_it(place)
        };
        let in_frozen = |frozen: &Frozen| {
            frozen.keys.find_by_number(hash, |number| is_there(Spot::Frozen(number)))
        };
        let in_image = || self.image.find_by_rank(hash, |rank| is_there(Spot::Image(rank)));
        let spot = self.head.keys.find_by_number(hash, |number| is_there(Spot::Head(number)));
        spot.map(Spot::Head)
            .or_else(|| self.frozen.as_ref().and_then(in_frozen).map(Spot::Frozen))
            .or_else(|| in_image().map(Spot::Image))
    }

    fn place(&self, spot: Spot) -> Place {
        let place = match spot {
            Spot::Image(rank) => self.places.get(rank as usize),
            Spot::Frozen(number) => {
                self.frozen.as_ref().and_then(|frozen| frozen.places.get(number as usize))
            }
            Spot::Head(number) => self.head.places.get(number as usize),
        };
        place.copied().unwrap_or_default()
    }

    fn set_at(&mut self, spot: Spot, place: Place) {
        let old = match spot {
            Spot::Image(rank) => self.places.get_mut(rank as usize),
            Spot::Frozen(number) => {
                self.frozen.as_mut().and_then(|frozen| frozen.places.get_mut(number as usize))
            }
            Spot::Head(number) => self.head.places.get_mut(number as usize),
        };
        if let Some(old) = old {
            *old = place;
        }
    }

    /// Changes the place of a key that is there, in the image that is to be as well.
    fn set(&mut self, spot: Spot, key: &[u8], hash: Hash, place: Place) {
        self.set_at(spot, place);
        if !matches!(spot, Spot::Head(_))
            && let Some(next) = &mut self.next
            && let Some(rank) = next.image.find(key, hash)
        {
            next.set(rank, place);
        }
    }

    /// Whether so much has come or gone since the image was built that a new one is due.
    pub(crate) fn wants_merge(&self) -> bool {
        let enough = self.merge_keys();
        self.frozen.is_none() && (self.head.keys.len() >= enough || self.gone >= enough)
    }

    fn merge_keys(&self) -> usize {
        self.merge_keys_min.max(self.image.len() / MERGE_SHARE)
    }

    /// Begins a merge, if none is under way; see [`merge`].
    pub(crate) fn begin_merge(&mut self) -> Option<Merge> {
        if self.frozen.is_some() {
            return None;
        }
        let head = Head::with_room_for(self.merge_keys());
        let Head { keys, places, order } = std::mem::replace(&mut self.head, head);
        self.epoch += 1;
        let keys = Arc::new(keys);
        self.frozen = Some(Frozen { keys: keys.clone(), places, order });
        Some(Merge::new(self.seed, self.image.clone(), keys))
    }

    /// The keys of the new image are there: their places follow.
    pub(crate) fn set_next(&mut self, next: Next) {
        self.next = Some(next);
    }

    /// Brings up to `limit` places over to the new image. Once all are there, the new one takes the
    /// old one's place, and what is not needed any more is returned, to be dropped without a lock.
    pub(crate) fn move_places(&mut self, limit: usize) -> Option<impl Sized + use<>> {
        let frozen = self.frozen.as_ref().map_or(&[][..], |frozen| &frozen.places);
        if let Some(next) = &mut self.next
            && next.move_places(limit, &self.places, frozen)
        {
            return None;
        }
        let Next { image, places, gone, .. } = self.next.take()?;
        self.gone = gone;
        self.epoch += 1;
        let old = std::mem::replace(&mut self.image, image);
        Some((old, std::mem::replace(&mut self.places, places), self.frozen.take()))
    }

    /// A merge from beginning to end.
    pub(crate) fn merge(&mut self) {
        let Some(mut merge) = self.begin_merge() else { return };
        while merge.note_gone(self) {}
        if let Some(next) = merge.build(|| false) {
            self.set_next(next);
            self.move_places(usize::MAX);
        }
    }
}

/// Whether no key can lie between two bounds: the question that `BTreeMap::range` answers with a
/// panic.
pub(crate) fn is_empty_range(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (
            Bound::Included(from) | Bound::Excluded(from),
            Bound::Included(to) | Bound::Excluded(to),
        ) => from >= to,
    }
}
