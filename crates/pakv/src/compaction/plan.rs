//! Which segments to compact, and whether to: a pure function over their figures.

use crate::format::{SegmentId, SeqNo, SeqNoRange};

/// What the choice is made by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SegmentFacts {
    pub(crate) segment: SegmentId,
    pub(crate) bytes: u64,
    /// Bytes in front of its first record.
    pub(crate) header_bytes: u64,
    pub(crate) hint_bytes: u64,
    pub(crate) live_bytes: u64,
    pub(crate) tombstone_bytes: u64,
    pub(crate) seqnos: SeqNoRange,
}

impl SegmentFacts {
    /// Bytes of records that no get can reach, tombstones included.
    fn garbage_bytes(&self) -> u64 {
        (self.bytes - self.header_bytes).saturating_sub(self.live_bytes)
    }

    /// Whether `other` can hold a record that a tombstone in `self` shadows.
    fn is_pinned_by(&self, other: &SegmentFacts) -> bool {
        self.segment != other.segment
            && self.tombstone_bytes > 0
            && other.seqnos.min < self.seqnos.max
    }
}

/// When compaction starts, from the options.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    pub(crate) space_amplification: f64,
    pub(crate) segment_garbage_ratio: f64,
    pub(crate) min_garbage_bytes: u64,
    pub(crate) segment_bytes: u64,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plan {
    Nothing,
    /// The garbage is in the active segment: seal it, then plan again.
    SealActive,
    /// Rewrite these, oldest first.
    Compact(Vec<SegmentId>),
}

/// A run copies at most this many segments' worth of live bytes, so that it publishes, and gives
/// space back, often.
const SEGMENTS_PER_RUN: u64 = 4;
/// Sealed segments below this share of the segment size count as small…
const SMALL_SHARE: u64 = 8;
/// …and this many of them are put together.
const SMALL_COUNT: usize = 8;
/// Compaction goes on until the store is this share below the bound that started it, so that it
/// does not start again at once.
const HYSTERESIS: f64 = 0.95;
/// A store where less than this share is garbage has nothing worth gaining, whatever its
/// amplification: tiny values have hints nearly as large as their records.
const GARBAGE_SHARE_MIN: f64 = 0.1;

/// Decides by cost and benefit, (1-u)·age/(1+u), as in "The Design and Implementation of a
/// Log-Structured File System" (Rosenblum and Ousterhout, 1992): u is the share of a segment that
/// must be copied, age is counted in sequence numbers since its newest record.
pub(crate) fn plan(sealed: &[SegmentFacts], active: &SegmentFacts, policy: &Policy) -> Plan {
    let everyone = || sealed.iter().chain([active]);
    let live: u64 = everyone().map(|facts| facts.live_bytes).sum();
    let garbage: u64 = everyone().map(SegmentFacts::garbage_bytes).sum();
    let records: u64 = live + garbage;
    let total: u64 = everyone().map(|facts| facts.bytes + facts.hint_bytes).sum();

    let bound = as_f64(live) * policy.space_amplification;
    let worth_it = garbage >= policy.min_garbage_bytes
        && as_f64(garbage) >= as_f64(records) * GARBAGE_SHARE_MIN;
    let over_bound = worth_it && as_f64(total) > bound;
    let segment_over = sealed.iter().any(|facts| {
        let gain = reclaimable(facts, sealed, active);
        gain >= policy.min_garbage_bytes
            && as_f64(gain) > as_f64(facts.bytes) * policy.segment_garbage_ratio
    });
    if !over_bound && !segment_over {
        return plan_small(sealed, policy);
    }

    let mut candidates: Vec<(f64, u64, &SegmentFacts)> = sealed
        .iter()
        .map(|facts| (facts, reclaimable(facts, sealed, active)))
        .filter(|(facts, gain)| as_f64(*gain) >= as_f64(facts.bytes) * GARBAGE_SHARE_MIN / 2.0)
        .map(|(facts, gain)| (score(facts, gain, active.seqnos.max), gain, facts))
        .collect();
    candidates.sort_by(|a, b| b.0.total_cmp(&a.0));

    let needed = as_f64(total) - bound * HYSTERESIS;
    let in_reach: u64 = candidates.iter().map(|(_, gain, _)| gain).sum();
    let in_active = reclaimable(active, sealed, active);
    if over_bound && as_f64(in_reach) < needed && in_active >= policy.min_garbage_bytes / 2 {
        return Plan::SealActive;
    }
    let mut chosen: Vec<&SegmentFacts> = Vec::new();
    let (mut gained, mut copied) = (0, 0);
    for (_, gain, facts) in candidates {
        let copy = facts.bytes - gain;
        let enough = as_f64(gained) >= needed && !chosen.is_empty();
        let too_much =
            copied + copy > SEGMENTS_PER_RUN * policy.segment_bytes && !chosen.is_empty();
        if enough || too_much {
            break;
        }
        gained += gain;
        copied += copy;
        chosen.push(facts);
    }
    if chosen.is_empty() && over_bound {
        chosen = unpin(sealed, policy);
    }
    ordered(chosen)
}

/// What rewriting `facts` alone gives back: its garbage, without tombstones that some other segment
/// pins.
fn reclaimable(facts: &SegmentFacts, sealed: &[SegmentFacts], active: &SegmentFacts) -> u64 {
    let pinned = sealed.iter().chain([active]).any(|other| facts.is_pinned_by(other));
    facts.garbage_bytes().saturating_sub(if pinned { facts.tombstone_bytes } else { 0 })
}

fn score(facts: &SegmentFacts, gain: u64, newest: SeqNo) -> f64 {
    let u = 1.0 - as_f64(gain) / as_f64(facts.bytes.max(1));
    let age = newest.saturating_sub(facts.seqnos.max) + 1;
    (1.0 - u) * as_f64(age) / (1.0 + u)
}

/// Only pinned tombstones are left to gain: rewrites them together with everything that may be
/// older, which costs the most and is done only where they make up a good part of the store.
fn unpin<'a>(sealed: &'a [SegmentFacts], policy: &Policy) -> Vec<&'a SegmentFacts> {
    let tombstones: u64 = sealed.iter().map(|facts| facts.tombstone_bytes).sum();
    let bytes: u64 = sealed.iter().map(|facts| facts.bytes).sum();
    let worth_it = tombstones >= policy.min_garbage_bytes
        && as_f64(tombstones) >= as_f64(bytes) * GARBAGE_SHARE_MIN;
    if worth_it { sealed.iter().collect() } else { Vec::new() }
}

/// Puts small segments together: each is a file, a mapping and a line of the manifest.
fn plan_small(sealed: &[SegmentFacts], policy: &Policy) -> Plan {
    let small: Vec<_> =
        sealed.iter().filter(|facts| facts.bytes < policy.segment_bytes / SMALL_SHARE).collect();
    if small.len() >= SMALL_COUNT { ordered(small) } else { Plan::Nothing }
}

/// What `compact` rewrites when it is asked to: every sealed segment with garbage, and with
/// tombstones among it everything that may be older than they are.
pub(crate) fn plan_forced(sealed: &[SegmentFacts]) -> Plan {
    let mut chosen: Vec<&SegmentFacts> =
        sealed.iter().filter(|facts| facts.garbage_bytes() > 0).collect();
    let newest_tombstone = chosen
        .iter()
        .filter(|facts| facts.tombstone_bytes > 0)
        .map(|facts| facts.seqnos.max)
        .max()
        .unwrap_or(0);
    chosen = sealed
        .iter()
        .filter(|facts| facts.garbage_bytes() > 0 || facts.seqnos.min < newest_tombstone)
        .collect();
    ordered(chosen)
}

fn ordered(mut chosen: Vec<&SegmentFacts>) -> Plan {
    if chosen.is_empty() {
        return Plan::Nothing;
    }
    chosen.sort_by_key(|facts| (facts.seqnos.min, facts.segment));
    Plan::Compact(chosen.into_iter().map(|facts| facts.segment).collect())
}

#[expect(clippy::cast_precision_loss, reason = "a choice, not an account: 52 bits are plenty")]
fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const HEADER: u64 = 50;

    fn segment(
        id: u32,
        bytes: u64,
        live: u64,
        tombstones: u64,
        seqnos: (SeqNo, SeqNo),
    ) -> SegmentFacts {
        SegmentFacts {
            segment: SegmentId(id),
            bytes: bytes + HEADER,
            header_bytes: HEADER,
            hint_bytes: 0,
            live_bytes: live,
            tombstone_bytes: tombstones,
            seqnos: SeqNoRange { min: seqnos.0, max: seqnos.1 },
        }
    }

    fn policy() -> Policy {
        Policy {
            space_amplification: 1.4,
            segment_garbage_ratio: 0.6,
            min_garbage_bytes: MIB / 2,
            segment_bytes: 64 * MIB,
        }
    }

    fn compact(ids: &[u32]) -> Plan {
        Plan::Compact(ids.iter().map(|id| SegmentId(*id)).collect())
    }

    #[test]
    fn a_store_without_garbage_is_left_alone() {
        let sealed = [segment(1, 64 * MIB, 64 * MIB, 0, (1, 100))];
        let active = segment(2, MIB, MIB, 0, (101, 110));
        assert_eq!(plan(&sealed, &active, &policy()), Plan::Nothing);
    }

    #[test]
    fn a_small_store_shrinks_by_sealing_its_active_segment() {
        let active = segment(1, 2 * MIB, MIB, 0, (1, 100));
        assert_eq!(plan(&[], &active, &policy()), Plan::SealActive);
        let sealed = [active];
        let active = segment(2, 0, 0, 0, (SeqNo::MAX, 0));
        assert_eq!(plan(&sealed, &active, &policy()), compact(&[1]));
    }

    #[test]
    fn an_old_segment_goes_before_a_young_one_with_as_much_garbage() {
        let sealed = [
            segment(1, 64 * MIB, 32 * MIB, 0, (900, 1000)),
            segment(2, 64 * MIB, 32 * MIB, 0, (1, 100)),
            segment(3, 64 * MIB, 64 * MIB, 0, (200, 300)),
        ];
        let active = segment(4, 0, 0, 0, (1001, 1100));
        let tight = Policy { space_amplification: 1.45, ..policy() };
        assert_eq!(plan(&sealed, &active, &tight), compact(&[2]));
    }

    #[test]
    fn a_segment_past_its_own_bound_is_compacted_in_a_store_within_its() {
        let sealed = [
            segment(1, 64 * MIB, 10 * MIB, 0, (1, 100)),
            segment(2, 600 * MIB, 600 * MIB, 0, (101, 900)),
        ];
        let active = segment(3, 0, 0, 0, (901, 901));
        assert_eq!(plan(&sealed, &active, &policy()), compact(&[1]));
    }

    #[test]
    fn tombstones_that_an_older_segment_pins_are_no_gain_by_themselves() {
        // Rewriting 2 alone could drop nothing; it is taken together with all that is older.
        let sealed = [
            segment(1, 10 * MIB, 10 * MIB, 0, (1, 100)),
            segment(2, 10 * MIB, 0, 10 * MIB, (101, 200)),
        ];
        let active = segment(3, 0, 0, 0, (201, 201));
        assert_eq!(plan(&sealed, &active, &policy()), compact(&[1, 2]));
        let few = [sealed[0], segment(2, 10 * MIB, 10 * MIB - 1000, 1000, (101, 200))];
        assert_eq!(plan(&few, &active, &policy()), Plan::Nothing);
    }

    #[test]
    fn many_small_segments_are_put_together() {
        let sealed: Vec<_> =
            (1..=8).map(|id| segment(id, MIB, MIB, 0, (u64::from(id), u64::from(id)))).collect();
        let active = segment(9, 0, 0, 0, (9, 9));
        assert_eq!(plan(&sealed, &active, &policy()), compact(&[1, 2, 3, 4, 5, 6, 7, 8]));
        assert_eq!(plan(&sealed[..7], &active, &policy()), Plan::Nothing);
    }

    #[test]
    fn a_forced_run_takes_all_garbage_and_what_its_tombstones_shadow() {
        let sealed = [
            segment(1, MIB, MIB, 0, (1, 100)),
            segment(2, MIB, MIB - 10, 10, (101, 200)),
            segment(3, MIB, MIB, 0, (201, 300)),
        ];
        assert_eq!(plan_forced(&sealed), compact(&[1, 2]));
        assert_eq!(plan_forced(&sealed[..1]), Plan::Nothing);
    }
}
