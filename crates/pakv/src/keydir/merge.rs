//! Making a new image of the old one and the keys that came since, while both are read and written.
//!
//! 1. `begin` freezes the head: what comes from here on goes into a new one.
//! 2. `note_gone`, a piece at a time, sees which keys are gone. They stay so: a key that is set
//!    again goes into the head.
//! 3. `build` sorts and copies the keys that are left, without the keydir.
//! 4. `KeyDir::move_places`, a piece at a time, brings the places over. A place that changes
//!    behind it changes in both.
//! 5. The new image takes the place of the old one and of what was frozen.

use std::cmp::Ordering;
use std::sync::Arc;

use super::array::KeyArray;
use super::head::Keys;
use super::image::Image;
use super::place::Place;
use super::{KeyDir, hash_of};

/// A merge that is under way, apart from what of it the keydir holds.
#[derive(Debug)]
pub(crate) struct Merge {
    seed: u64,
    image: Arc<Image>,
    keys: Arc<Keys>,
    gone_of_image: Gone,
    gone_of_keys: Gone,
}

/// One bit for each place that has been looked at.
#[derive(Debug, Default)]
struct Gone {
    words: Vec<u64>,
}

/// Places that are looked at under one hold of the index's lock.
const WORDS_PER_LOOK: usize = 1024;

impl Gone {
    /// Looks at some more of the places; false once all are known.
    fn look(&mut self, places: &[Place]) -> bool {
        let rest = places.get(self.words.len() * 64..).unwrap_or_default();
        self.words.extend(rest.chunks(64).take(WORDS_PER_LOOK).map(|chunk| {
            let bits = chunk.iter().enumerate().filter(|(_, place)| place.is_gone());
            bits.fold(0, |word, (bit, _)| word | 1 << bit)
        }));
        self.words.len() * 64 < places.len()
    }

    fn contains(&self, number: u32) -> bool {
        let word = self.words.get(number as usize / 64).copied().unwrap_or_default();
        word >> (number % 64) & 1 == 1
    }
}

/// The image that is to be, and as many of its places as are there already.
#[derive(Debug)]
pub(crate) struct Next {
    pub(super) image: Arc<Image>,
    /// Where each place comes from: the old image, or what was frozen.
    sources: Vec<u32>,
    pub(super) places: Vec<Place>,
    pub(super) gone: usize,
}

/// The mark of a number of a frozen key.
const FROZEN: u32 = 1 << 31;

impl Merge {
    pub(super) fn new(seed: u64, image: Arc<Image>, keys: Arc<Keys>) -> Self {
        Self { seed, image, keys, gone_of_image: Gone::default(), gone_of_keys: Gone::default() }
    }

    /// Sees which keys are gone; returns false once all have been looked at.
    pub(crate) fn note_gone(&mut self, keydir: &KeyDir) -> bool {
        let frozen = keydir.frozen.as_ref().map_or(&[][..], |frozen| &frozen.places);
        self.gone_of_image.look(&keydir.places) || self.gone_of_keys.look(frozen)
    }

    /// Builds the new image's keys; `None` where `stop` said so in the middle.
    pub(crate) fn build(self, stop: impl Fn() -> bool) -> Option<Next> {
        let (image, keys) = (&*self.image, &*self.keys);
        let len = image.len() + keys.len();
        let mut merged = KeyArray::with_room_for(image.key_bytes() + keys.bytes());
        let mut sources = Vec::with_capacity(len);
        let mut recent = keys
            .sorted(0..keys.len() as u32)
            .into_iter()
            .filter(|number| !self.gone_of_keys.contains(*number))
            .peekable();
        let mut ranks =
            (0..image.len() as u32).filter(|rank| !self.gone_of_image.contains(*rank)).peekable();
        loop {
            let order = match (ranks.peek(), recent.peek()) {
                (Some(rank), Some(number)) => image.key(*rank).cmp(keys.key(*number)),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => break,
            };
            if order != Ordering::Greater
                && let Some(rank) = ranks.next()
            {
                merged.push(image.key(rank));
                sources.push(rank);
            } else if let Some(number) = recent.next() {
                merged.push(keys.key(number));
                sources.push(number | FROZEN);
            }
            if sources.len().is_multiple_of(1 << 16) && stop() {
                return None;
            }
        }
        let image = Arc::new(Image::of(merged, |key| hash_of(self.seed, key)));
        let places = Vec::with_capacity(sources.len());
        Some(Next { image, sources, places, gone: 0 })
    }
}

impl Next {
    /// Brings up to `limit` more places over; false once all are there.
    pub(super) fn move_places(
        &mut self,
        limit: usize,
        image_places: &[Place],
        frozen_places: &[Place],
    ) -> bool {
        let rest = self.sources.get(self.places.len()..).unwrap_or_default();
        for source in rest.iter().take(limit) {
            let place = match source & FROZEN {
                0 => image_places.get(*source as usize),
                _ => frozen_places.get((source & !FROZEN) as usize),
            };
            let place = place.copied().unwrap_or_default();
            self.gone += usize::from(place.is_gone());
            self.places.push(place);
        }
        self.places.len() < self.sources.len()
    }

    /// A place has changed: here too, if it was brought over already.
    pub(super) fn set(&mut self, rank: u32, place: Place) {
        if let Some(old) = self.places.get_mut(rank as usize) {
            self.gone += usize::from(place.is_gone());
            *old = place;
        }
    }
}
