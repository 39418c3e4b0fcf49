//! Where a key's newest record stands, in twelve bytes, and what they leave out.

use std::collections::{BTreeMap, HashMap};

use super::KeyEntry;
use crate::format::{Location, SegmentId, SeqNo};

/// Sequence number less that of the segment's first (32 bits); offset (31); whether it expires (1);
/// slot of the segment (16); length (16). What does not fit is kept aside ([`Places::long`]), and
/// the length is [`LONG`]. All zero: no record, for no record begins at 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    seqno: u32,
    offset: u32,
    slot: u16,
    length: u16,
}

pub(super) const PLACE_BYTES: usize = size_of::<Place>();
const _: () = assert!(PLACE_BYTES == 12);

const EXPIRES: u32 = 1 << 31;
const LONG: u16 = u16::MAX;

impl Place {
    /// The key is not there.
    pub(super) const GONE: Self = Self { seqno: 0, offset: 0, slot: 0, length: 0 };

    pub(super) fn is_gone(self) -> bool {
        self.offset == 0
    }

    pub(super) fn offset(self) -> u32 {
        self.offset & !EXPIRES
    }

    pub(super) fn slot(self) -> u16 {
        self.slot
    }

    fn is_long(self) -> bool {
        self.length == LONG
    }

    fn expires(self) -> bool {
        self.offset & EXPIRES != 0
    }
}

/// What is needed to make an entry of a place, and a place of an entry.
#[derive(Debug, Default)]
pub(super) struct Legend {
    slots: Vec<Slot>,
    numbers: BTreeMap<SegmentId, u16>,
    free: Vec<u16>,
    /// The one asked for last: writes come in runs for one segment.
    last: Option<(SegmentId, u16)>,
    /// Sequence number and length of records that are too long or whose segment spans too many
    /// sequence numbers, by slot and offset.
    long: HashMap<(u16, u32), (SeqNo, u32)>,
    /// When the records that expire do, by slot and offset.
    expiries: HashMap<(u16, u32), u64>,
}

/// A small number that stands for a segment.
#[derive(Debug, Clone, Copy)]
struct Slot {
    segment: SegmentId,
    /// What sequence numbers are counted from.
    first: SeqNo,
}

impl Legend {
    /// Has the places of a segment count from `first`, its smallest sequence number. Said before
    /// the first of them where that will not be the smallest.
    pub(super) fn begin_segment(&mut self, segment: SegmentId, first: SeqNo) {
        self.number(segment, first);
    }

    fn number(&mut self, segment: SegmentId, seqno: SeqNo) -> u16 {
        if let Some((last, number)) = self.last
            && last == segment
        {
            return number;
        }
        let number = match self.numbers.get(&segment) {
            Some(number) => *number,
            None => {
                let slot = Slot { segment, first: seqno };
                // There are never more: see `format::manifest::SEALED_MAX`.
                let next = self.slots.len() as u16;
                let number = self.free.pop().unwrap_or(next);
                match self.slots.get_mut(usize::from(number)) {
                    Some(free) => *free = slot,
                    None => self.slots.push(slot),
                }
                self.numbers.insert(segment, number);
                number
            }
        };
        self.last = Some((segment, number));
        number
    }

    /// No place points into the segment any more.
    pub(super) fn forget(&mut self, segment: SegmentId) {
        self.last = None;
        self.free.extend(self.numbers.remove(&segment));
    }

    /// The segments by their slots. One that was forgotten stands there until its slot is given
    /// again.
    pub(super) fn segments(&self) -> impl Iterator<Item = SegmentId> {
        self.slots.iter().map(|slot| slot.segment)
    }

    fn slot(&self, place: Place) -> Slot {
        let nowhere = Slot { segment: SegmentId(0), first: 0 };
        self.slots.get(usize::from(place.slot)).copied().unwrap_or(nowhere)
    }

    /// The place of an entry, and what does not fit into it kept aside until it is
    /// [given up](Legend::give_up).
    pub(super) fn place(&mut self, entry: &KeyEntry) -> Place {
        let KeyEntry { location: Location { segment, offset, length }, seqno, .. } = *entry;
        let slot = self.number(segment, seqno);
        // Only a file that was forged has others; its record is not found then.
        let offset = (offset & !EXPIRES).max(1);
        let expires = entry.expires_at_ms();
        if let Some(at) = expires {
            self.expiries.insert((slot, offset), at);
        }
        let first = self.slots.get(usize::from(slot)).map_or(0, |slot| slot.first);
        let after_first = seqno.checked_sub(first).and_then(|after| u32::try_from(after).ok());
        let short = u16::try_from(length).ok().filter(|length| *length != LONG);
        let (seqno, length) = match (after_first, short) {
            (Some(after_first), Some(length)) => (after_first, length),
            _ => {
                self.long.insert((slot, offset), (seqno, length));
                (0, LONG)
            }
        };
        let offset = offset | if expires.is_some() { EXPIRES } else { 0 };
        Place { seqno, offset, slot, length }
    }

    fn seqno_and_length(&self, place: Place) -> (SeqNo, u32) {
        if place.is_long() {
            return self.long.get(&(place.slot, place.offset())).copied().unwrap_or_default();
        }
        (self.slot(place).first + u64::from(place.seqno), u32::from(place.length))
    }

    pub(super) fn seqno(&self, place: Place) -> SeqNo {
        self.seqno_and_length(place).0
    }

    pub(super) fn entry(&self, place: Place) -> KeyEntry {
        let (seqno, length) = self.seqno_and_length(place);
        let location =
            Location { segment: self.slot(place).segment, offset: place.offset(), length };
        let expires_at_ms = if place.expires() {
            self.expiries.get(&(place.slot, place.offset())).copied()
        } else {
            None
        };
        KeyEntry::new(location, seqno, expires_at_ms)
    }

    /// The entry of a place that is no longer any key's.
    pub(super) fn give_up(&mut self, place: Place) -> KeyEntry {
        let entry = self.entry(place);
        if place.expires() {
            self.expiries.remove(&(place.slot, place.offset()));
        }
        if place.is_long() {
            self.long.remove(&(place.slot, place.offset()));
        }
        entry
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        let of_long = self.long.capacity() * (size_of::<((u16, u32), (SeqNo, u32))>() + 1);
        let of_expiries = self.expiries.capacity() * (size_of::<((u16, u32), u64)>() + 1);
        (of_long + of_expiries) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::SEQNO_MAX;

    #[test]
    fn a_place_comes_back_as_it_went_at_its_limits() {
        let mut legend = Legend::default();
        legend.begin_segment(SegmentId(8), 70);
        let mut places = Vec::new();
        let mut offset = 40;
        for seqno in [70, 71, 70 + u64::from(u32::MAX), 71 + u64::from(u32::MAX), SEQNO_MAX, 3] {
            for length in [1, 0xFFFE, 0xFFFF, 0x1_0000, 1 << 30] {
                for expires in [None, Some(5)] {
                    for segment in [8, 9, 10] {
                        let segment = SegmentId(segment);
                        let location = Location { segment, offset, length };
                        let entry = KeyEntry::new(location, seqno, expires);
                        places.push((legend.place(&entry), entry));
                        offset += 1000;
                    }
                }
            }
        }
        let last = Location { segment: SegmentId(9), offset: (1 << 31) - 1, length: 1 };
        let last = KeyEntry::new(last, 70, None);
        places.push((legend.place(&last), last));
        for (place, entry) in &places {
            assert!(!place.is_gone());
            assert_eq!(legend.entry(*place), *entry);
            assert_eq!(legend.seqno(*place), entry.seqno);
        }
        for (place, entry) in places {
            assert_eq!(legend.give_up(place), entry);
        }
        assert!(legend.long.is_empty() && legend.expiries.is_empty());
        assert!(Place::GONE.is_gone());
    }

    #[test]
    fn numbers_of_forgotten_segments_are_given_again() {
        let mut legend = Legend::default();
        assert_eq!([legend.number(SegmentId(5), 1), legend.number(SegmentId(9), 1)], [0, 1]);
        legend.forget(SegmentId(5));
        assert_eq!([legend.number(SegmentId(9), 1), legend.number(SegmentId(12), 1)], [1, 0]);
        assert_eq!(legend.slots.first().map(|slot| slot.segment), Some(SegmentId(12)));
    }
}
