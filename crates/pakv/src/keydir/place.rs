//! Where a key's newest record stands, in sixteen bytes, and the numbers that stand for segments in
//! them.

use std::collections::BTreeMap;

use crate::format::{Location, SegmentId, SeqNo};

/// Sequence number (50 bits), length (30), offset (31), slot of the segment (16), whether it
/// expires (1): what `limits` and `format` allow each of them. All zero: no record, for sequence
/// numbers start at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    /// Sequence number, upper 14 bits of the length.
    high: u64,
    /// Lower 16 bits of the length, offset, slot, whether it expires.
    low: u64,
}

pub(super) const PLACE_BYTES: usize = size_of::<Place>();

const OFFSET_BITS: u32 = 31;
const SLOT_BITS: u32 = 16;
const LENGTH_LOW_BITS: u32 = 16;
const LENGTH_HIGH_BITS: u32 = 14;

fn bits(value: u64, from: u32, count: u32) -> u64 {
    (value >> from) & ((1 << count) - 1)
}

impl Place {
    /// The key is not there.
    pub(super) const GONE: Self = Self { high: 0, low: 0 };

    pub(super) fn new(slot: u16, location: Location, seqno: SeqNo, expires: bool) -> Self {
        // Only a file that was forged has more bits than fit; its records are not found then.
        let length = bits(u64::from(location.length), 0, LENGTH_LOW_BITS + LENGTH_HIGH_BITS);
        let offset = bits(u64::from(location.offset), 0, OFFSET_BITS);
        Self {
            high: seqno << LENGTH_HIGH_BITS | length >> LENGTH_LOW_BITS,
            low: length << (OFFSET_BITS + SLOT_BITS + 1)
                | offset << (SLOT_BITS + 1)
                | u64::from(slot) << 1
                | u64::from(expires),
        }
    }

    pub(super) fn is_gone(self) -> bool {
        self.high == 0
    }

    pub(super) fn seqno(self) -> SeqNo {
        self.high >> LENGTH_HIGH_BITS
    }

    pub(super) fn slot(self) -> u16 {
        bits(self.low, 1, SLOT_BITS) as u16
    }

    pub(super) fn offset(self) -> u32 {
        bits(self.low, SLOT_BITS + 1, OFFSET_BITS) as u32
    }

    pub(super) fn length(self) -> u32 {
        let high = bits(self.high, 0, LENGTH_HIGH_BITS) << LENGTH_LOW_BITS;
        (high | self.low >> (OFFSET_BITS + SLOT_BITS + 1)) as u32
    }

    pub(super) fn expires(self) -> bool {
        self.low & 1 == 1
    }
}

/// Small numbers for the segments that places point into.
#[derive(Debug, Default)]
pub(super) struct Slots {
    segments: Vec<SegmentId>,
    numbers: BTreeMap<SegmentId, u16>,
    free: Vec<u16>,
    /// The one asked for last: writes come in runs for one segment.
    last: Option<(SegmentId, u16)>,
}

impl Slots {
    /// The number of a segment, given now if it has none.
    pub(super) fn number(&mut self, segment: SegmentId) -> u16 {
        if let Some((last, number)) = self.last
            && last == segment
        {
            return number;
        }
        let number = match self.numbers.get(&segment) {
            Some(number) => *number,
            None => {
                let number = self.free.pop().unwrap_or_else(|| {
                    self.segments.push(segment);
                    // `limits::MAX_SEGMENTS` lies below.
                    (self.segments.len() - 1) as u16
                });
                if let Some(named) = self.segments.get_mut(usize::from(number)) {
                    *named = segment;
                }
                self.numbers.insert(segment, number);
                number
            }
        };
        self.last = Some((segment, number));
        number
    }

    pub(super) fn segment(&self, number: u16) -> SegmentId {
        self.segments.get(usize::from(number)).copied().unwrap_or(SegmentId(0))
    }

    /// No place points into the segment any more.
    pub(super) fn forget(&mut self, segment: SegmentId) {
        self.last = None;
        self.free.extend(self.numbers.remove(&segment));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::SEQNO_MAX;

    #[test]
    fn a_place_comes_back_as_it_went_at_its_limits() {
        for seqno in [1, 77, SEQNO_MAX] {
            for (offset, length) in [(0, 1), (1 << 20, 140), ((1 << 31) - 1, (1 << 30) - 1)] {
                for (slot, expires) in [(0, false), (9, true), (u16::MAX, false)] {
                    let location = Location { segment: SegmentId(1), offset, length };
                    let place = Place::new(slot, location, seqno, expires);
                    assert_eq!((place.seqno(), place.slot()), (seqno, slot));
                    assert_eq!((place.offset(), place.length()), (offset, length));
                    assert_eq!(place.expires(), expires);
                    assert!(!place.is_gone());
                }
            }
        }
        assert!(Place::GONE.is_gone());
    }

    #[test]
    fn numbers_of_forgotten_segments_are_given_again() {
        let mut slots = Slots::default();
        assert_eq!([slots.number(SegmentId(5)), slots.number(SegmentId(9))], [0, 1]);
        slots.forget(SegmentId(5));
        assert_eq!([slots.number(SegmentId(9)), slots.number(SegmentId(12))], [1, 0]);
        assert_eq!(slots.segment(0), SegmentId(12));
    }
}
