//! Passes over all places, in the order in which they stand in memory: which records of a few
//! segments are their keys' newest, and where those go. For segments of a fiftieth of the store a
//! pass takes a fraction of what looking up their records one by one does, by hash and by key, and
//! keeps the lock a fraction as long.

use std::ops::Range;

use super::place::Place;
use super::{KeyDir, KeyEntry, Spot, hash_of};
use crate::format::{Location, SegmentId, SeqNo};

/// How far a pass has come.
#[derive(Debug)]
struct Pass {
    segments: Vec<SegmentId>,
    /// Which of `segments` it is, by slot.
    by_slot: Vec<Option<usize>>,
    /// How many places have been looked at…
    seen: usize,
    /// …and since when they stand where they do.
    epoch: Option<u64>,
}

impl Pass {
    fn over(segments: Vec<SegmentId>) -> Self {
        Self { segments, by_slot: Vec::new(), seen: 0, epoch: None }
    }

    /// Whether these places are the first, or the first again.
    fn is_at_start(&self, piece: &Range<usize>) -> bool {
        self.seen == piece.len()
    }

    /// Which of the segments the place is in.
    fn segment(&self, place: Place) -> Option<usize> {
        let number = self.by_slot.get(usize::from(place.slot())).copied().flatten();
        number.filter(|_| !place.is_gone())
    }
}

/// Which records of a few segments are still the newest of their keys.
#[derive(Debug)]
pub(crate) struct Survey {
    pass: Pass,
    /// What the first of the segments is called.
    first: usize,
    newest: Vec<Newest>,
    seed: u64,
}

/// Those of one segment.
#[derive(Debug)]
struct Newest {
    bits: Bits,
    /// The sum of their fingerprints.
    fingerprint: u64,
}

impl Newest {
    fn clear(&mut self) {
        self.bits.0.fill(0);
        self.fingerprint = 0;
    }
}

/// One bit for each eight bytes of a segment: no record is shorter, so none shares its bit.
#[derive(Debug)]
struct Bits(Vec<u64>);

const BYTES_PER_BIT: u32 = 8;

impl Bits {
    fn of_bytes(bytes: u32) -> Self {
        Self(vec![0; (bytes / BYTES_PER_BIT / 64) as usize + 1])
    }

    fn set(&mut self, offset: u32) {
        let bit = offset / BYTES_PER_BIT;
        if let Some(word) = self.0.get_mut((bit / 64) as usize) {
            *word |= 1 << (bit % 64);
        }
    }

    fn has(&self, offset: u32) -> bool {
        let bit = offset / BYTES_PER_BIT;
        self.0.get((bit / 64) as usize).is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }
}

impl Survey {
    /// Of segments and their lengths in bytes. They are called by numbers, from `first` on.
    pub(crate) fn of(first: usize, segments: impl Iterator<Item = (SegmentId, u32)>) -> Self {
        let newest = |bytes| Newest { bits: Bits::of_bytes(bytes), fingerprint: 0 };
        let (segments, newest) = segments.map(|(id, bytes)| (id, newest(bytes))).unzip();
        Self { pass: Pass::over(segments), first, newest, seed: 0 }
    }

    fn newest(&self, segment: usize) -> Option<&Newest> {
        self.newest.get(segment.checked_sub(self.first)?)
    }

    /// Whether a key pointed at the record when the survey was made. Where none did, none will.
    pub(crate) fn has(&self, segment: usize, offset: u32) -> bool {
        self.newest(segment).is_some_and(|newest| newest.bits.has(offset))
    }

    /// The sum of the [fingerprints](Self::fingerprint) of the records of that segment that keys
    /// pointed at. Another sum over those that are [there](Self::has) means that the keydir is wrong
    /// about where its records stand.
    pub(crate) fn sum(&self, segment: usize) -> u64 {
        self.newest(segment).map_or(0, |newest| newest.fingerprint)
    }

    /// Stands for a record. Nobody can make two of them alike on purpose.
    pub(crate) fn fingerprint(&self, offset: u32, seqno: SeqNo) -> u64 {
        let mut bytes = [0; 12];
        for (to, from) in
            bytes.iter_mut().zip(seqno.to_le_bytes().into_iter().chain(offset.to_le_bytes()))
        {
            *to = from;
        }
        hash_of(self.seed, &bytes)
    }
}

/// Where the records of a few segments have been copied to.
#[derive(Debug)]
pub(crate) struct Relocation {
    pass: Pass,
    /// Of each segment.
    copies: Vec<Copies>,
}

/// Where the records of one segment have been copied to. Records are of much the same length mostly,
/// so that a table of as many even stretches as there are copies leaves few to look among.
#[derive(Debug, Default)]
struct Copies {
    /// In order of offset: the old one and the new location.
    copies: Vec<(u32, Location)>,
    /// Which is the first copy of each stretch of so many bytes, two to the power of `shift`.
    starts: Vec<u32>,
    shift: u32,
}

impl Copies {
    /// Makes the table, once all copies are there.
    fn sealed(mut self) -> Self {
        let (count, Some((last, _))) = (self.copies.len(), self.copies.last()) else { return self };
        let mean = last / u32::try_from(count).unwrap_or(u32::MAX);
        self.shift = mean.max(1).next_power_of_two().ilog2();
        self.starts.reserve_exact((last >> self.shift) as usize + 2);
        for (number, (offset, _)) in self.copies.iter().enumerate() {
            let stretches = (offset >> self.shift) as usize + 1;
            self.starts.resize(stretches.max(self.starts.len()), number as u32);
        }
        self.starts.push(count as u32);
        self
    }

    fn find(&self, offset: u32) -> Option<Location> {
        let stretch = (offset >> self.shift) as usize;
        let (start, end) = (*self.starts.get(stretch)?, *self.starts.get(stretch + 1)?);
        let among = self.copies.get(start as usize..end as usize)?;
        let at = among.binary_search_by_key(&offset, |(offset, _)| *offset).ok()?;
        among.get(at).map(|(_, to)| *to)
    }
}

impl Relocation {
    /// What a copy takes at most, in bytes.
    pub(crate) const COPY_BYTES: usize = size_of::<(u32, Location)>() + size_of::<u32>();

    pub(crate) fn of(segments: Vec<SegmentId>) -> Self {
        let copies = segments.iter().map(|_| Copies::default()).collect();
        Self { pass: Pass::over(segments), copies }
    }

    /// Records of a segment, counted from 0, come in the order of their offsets.
    pub(crate) fn push(&mut self, segment: usize, offset: u32, to: Location) {
        if let Some(copies) = self.copies.get_mut(segment) {
            copies.copies.push((offset, to));
        }
    }

    /// Ready for a pass: nothing is pushed any more.
    #[must_use]
    pub(crate) fn sealed(self) -> Self {
        Self { copies: self.copies.into_iter().map(Copies::sealed).collect(), ..self }
    }

    fn to(&self, place: Place) -> Option<Location> {
        self.copies.get(self.pass.segment(place)?)?.find(place.offset())
    }
}

/// Where places stand.
#[derive(Debug, Clone, Copy)]
enum Layer {
    Image,
    Frozen,
    Head,
}

impl Layer {
    fn spot(self, number: usize) -> Spot {
        let number = number as u32;
        match self {
            Layer::Image => Spot::Image(number),
            Layer::Frozen => Spot::Frozen(number),
            Layer::Head => Spot::Head(number),
        }
    }
}

impl KeyDir {
    /// Looks at up to `limit` more places; false once all have been seen.
    pub(crate) fn survey(&self, survey: &mut Survey, limit: usize) -> bool {
        let Some((layer, piece)) = self.piece(&mut survey.pass, limit) else { return false };
        if survey.pass.is_at_start(&piece) {
            survey.newest.iter_mut().for_each(Newest::clear);
            survey.seed = self.seed;
        }
        for place in self.places(layer).get(piece).unwrap_or_default() {
            let Some(number) = survey.pass.segment(*place) else { continue };
            let fingerprint = survey.fingerprint(place.offset(), self.legend.seqno(*place));
            if let Some(newest) = survey.newest.get_mut(number) {
                newest.bits.set(place.offset());
                newest.fingerprint = newest.fingerprint.wrapping_add(fingerprint);
            }
        }
        true
    }

    /// Looks at up to `limit` more places, and has those that point at a record that was copied
    /// point at the copy; `moved` is told. False once all have been seen.
    pub(crate) fn relocate(
        &mut self,
        relocation: &mut Relocation,
        limit: usize,
        mut moved: impl FnMut(Location, Location),
    ) -> bool {
        let Some((layer, piece)) = self.piece(&mut relocation.pass, limit) else { return false };
        for number in piece {
            let Some(place) = self.places(layer).get(number).copied() else { break };
            let Some(to) = relocation.to(place) else { continue };
            let entry = self.legend.give_up(place);
            let place = self.legend.place(&KeyEntry { location: to, ..entry });
            self.set_everywhere(layer.spot(number), place);
            moved(entry.location, to);
        }
        true
    }

    /// The next places of a pass; `None` at its end.
    ///
    /// A place that changes between two pieces comes to point at a record that is newer than the
    /// pass. Places that move because a merge begins or ends are looked at again, all of them.
    fn piece(&self, pass: &mut Pass, limit: usize) -> Option<(Layer, Range<usize>)> {
        if pass.epoch != Some(self.epoch) {
            (pass.epoch, pass.seen) = (Some(self.epoch), 0);
            let number = |id| pass.segments.iter().position(|segment| *segment == id);
            pass.by_slot = self.legend.segments().map(number).collect();
        }
        let mut before = 0;
        for layer in [Layer::Image, Layer::Frozen, Layer::Head] {
            let (start, len) = (pass.seen - before, self.places(layer).len());
            if start < len {
                let end = len.min(start.saturating_add(limit));
                pass.seen = before + end;
                return Some((layer, start..end));
            }
            before += len;
        }
        None
    }

    fn places(&self, layer: Layer) -> &[Place] {
        match layer {
            Layer::Image => &self.places,
            Layer::Frozen => self.frozen.as_ref().map_or(&[], |frozen| &frozen.places),
            Layer::Head => &self.head.places,
        }
    }

    /// Changes a place, in the image that is to be as well.
    fn set_everywhere(&mut self, spot: Spot, place: Place) {
        if self.next.is_none() {
            return self.set_at(spot, place);
        }
        let key = match spot {
            Spot::Image(rank) => self.image.key(rank),
            Spot::Frozen(number) => {
                self.frozen.as_ref().map_or(&[][..], |frozen| frozen.keys.key(number))
            }
            Spot::Head(number) => self.head.keys.key(number),
        };
        let key = key.to_vec();
        self.set(spot, &key, hash_of(self.seed, &key), place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_found_by_their_offsets_alone() {
        let even: Vec<u32> = (0..1000).map(|number| 41 + number * 143).collect();
        let one_giant = [41, 60, 79, 1 << 31];
        let crowded: Vec<u32> = (100..200).map(|number| number * 8).chain([1 << 20]).collect();
        for offsets in [&even[..], &one_giant, &crowded, &[41], &[]] {
            let mut copies = Copies::default();
            let to = |offset| Location { segment: SegmentId(9), offset: offset / 2, length: 8 };
            copies.copies.extend(offsets.iter().map(|offset| (*offset, to(*offset))));
            let copies = copies.sealed();
            assert!(copies.starts.len() <= offsets.len() + 2, "{}", copies.starts.len());
            for offset in (0..2_000).chain(offsets.iter().flat_map(|at| [at - 1, *at, at + 1])) {
                let expected = offsets.contains(&offset).then(|| to(offset));
                assert_eq!(copies.find(offset), expected, "{offset} of {offsets:?}");
            }
        }
    }
}
