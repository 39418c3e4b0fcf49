//! Entries in order of key, from both ends: the sorted sequences of a keydir's layers, merged.

use std::cmp::Ordering;
use std::ops::Bound;

use super::head::Keys;
use super::image::Image;
use super::place::Place;

/// One sorted sequence, and what of it is left.
pub(super) struct Sequence<'a> {
    keys: Source<'a>,
    places: &'a [Place],
    front: usize,
    back: usize,
}

enum Source<'a> {
    Image(&'a Image),
    Run(&'a Keys, &'a [u32]),
}

impl<'a> Source<'a> {
    /// The key at a position, and where its place is.
    fn at(&self, position: usize) -> (&'a [u8], usize) {
        match self {
            Source::Image(image) => (image.key(position as u32), position),
            Source::Run(keys, run) => {
                let number = run.get(position).copied().unwrap_or(u32::MAX);
                (keys.key(number), number as usize)
            }
        }
    }

    /// The first position of `len` whose key is not before the bound; for the end of a range,
    /// `is_end`, the first one that is behind it.
    fn position(&self, len: usize, bound: Bound<&[u8]>, is_end: bool) -> usize {
        let (key, after_equal) = match bound {
            Bound::Unbounded if is_end => return len,
            Bound::Unbounded => return 0,
            Bound::Included(key) => (key, is_end),
            Bound::Excluded(key) => (key, !is_end),
        };
        let (mut low, mut high) = (0, len);
        while low < high {
            let middle = low.midpoint(high);
            let is_before = match self.at(middle).0.cmp(key) {
                Ordering::Less => true,
                Ordering::Equal => after_equal,
                Ordering::Greater => false,
            };
            if is_before {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

impl<'a> Sequence<'a> {
    pub(super) fn of_image(
        image: &'a Image,
        places: &'a [Place],
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
    ) -> Self {
        Self::new(Source::Image(image), image.len(), places, from, to)
    }

    pub(super) fn of_run(
        keys: &'a Keys,
        run: &'a [u32],
        places: &'a [Place],
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
    ) -> Self {
        Self::new(Source::Run(keys, run), run.len(), places, from, to)
    }

    fn new(
        keys: Source<'a>,
        len: usize,
        places: &'a [Place],
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Self {
        let front = keys.position(len, from, false);
        let back = keys.position(len, to, true);
        Self { keys, places, front, back }
    }

    fn entry(&self, position: usize) -> Option<(&'a [u8], Place)> {
        let (key, place) = self.keys.at(position);
        let place = self.places.get(place).copied().filter(|place| !place.is_gone());
        place.map(|place| (key, place))
    }

    /// The next entry that is there, without taking it.
    fn peek(&mut self) -> Option<(&'a [u8], Place)> {
        while self.front < self.back {
            let entry = self.entry(self.front);
            if entry.is_some() {
                return entry;
            }
            self.front += 1;
        }
        None
    }

    fn peek_back(&mut self) -> Option<(&'a [u8], Place)> {
        while self.front < self.back {
            let entry = self.entry(self.back - 1);
            if entry.is_some() {
                return entry;
            }
            self.back -= 1;
        }
        None
    }
}

/// All sequences as one. No key is there in two of them.
pub(super) struct Walk<'a> {
    sequences: Vec<Sequence<'a>>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(sequences: impl Iterator<Item = Sequence<'a>>) -> Self {
        Self { sequences: sequences.filter(|sequence| sequence.front < sequence.back).collect() }
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = (&'a [u8], Place);

    fn next(&mut self) -> Option<Self::Item> {
        if let [only] = self.sequences.as_mut_slice() {
            let first = only.peek()?;
            only.front += 1;
            return Some(first);
        }
        let heads = self.sequences.iter_mut().enumerate();
        let heads = heads.filter_map(|(index, sequence)| Some((index, sequence.peek()?)));
        let (index, first) = heads.min_by_key(|(_, (key, _))| *key)?;
        self.sequences.get_mut(index)?.front += 1;
        Some(first)
    }
}

impl DoubleEndedIterator for Walk<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if let [only] = self.sequences.as_mut_slice() {
            let last = only.peek_back()?;
            only.back -= 1;
            return Some(last);
        }
        let tails = self.sequences.iter_mut().enumerate();
        let tails = tails.filter_map(|(index, sequence)| Some((index, sequence.peek_back()?)));
        let (index, last) = tails.max_by_key(|(_, (key, _))| *key)?;
        self.sequences.get_mut(index)?.back -= 1;
        Some(last)
    }
}
