//! Which segments to compact, and whether to; how large segments and runs are; how hard the bound
//! on space presses: pure functions over the segments' figures.

use crate::format::{SegmentId, SeqNo, SeqNoRange};

/// What the choice is made by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SegmentFacts {
    pub(crate) segment: SegmentId,
    pub(crate) bytes: u64,
    /// Bytes in front of its first record.
    pub(crate) header_bytes: u64,
    pub(crate) hint_bytes: u64,
    pub(crate) records: u64,
    pub(crate) live_bytes: u64,
    pub(crate) tombstone_bytes: u64,
    pub(crate) seqnos: SeqNoRange,
}

impl SegmentFacts {
    /// Bytes of records that no get can reach, tombstones included.
    fn garbage_bytes(&self) -> u64 {
        (self.bytes - self.header_bytes).saturating_sub(self.live_bytes)
    }

    /// Whether a set in it is garbage: then a tombstone may shadow that. Where none is, every set is
    /// the newest of its key, and no tombstone is newer.
    pub(crate) fn has_garbage_sets(&self) -> bool {
        self.garbage_bytes() > self.tombstone_bytes
    }

    /// The bytes of its live keys and values, as near as the average record tells.
    fn user_bytes(&self) -> u64 {
        let frames = self.bytes - self.header_bytes;
        let live_records = (u128::from(self.live_bytes) * u128::from(self.records))
            .checked_div(u128::from(frames))
            .and_then(|records| u64::try_from(records).ok())
            .unwrap_or(0);
        self.live_bytes.saturating_sub(live_records * RECORD_OVERHEAD)
    }
}

/// When compaction starts and by what steps it goes, from the options.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    pub(crate) space_amplification: f64,
    pub(crate) segment_garbage_ratio: f64,
    pub(crate) min_garbage_bytes: u64,
    pub(crate) segment_bytes: u64,
    /// Segments are not made smaller than this, however small the store.
    pub(crate) segment_bytes_min: u64,
    /// Nobody writes: the time to get below the bound.
    pub(crate) resting: bool,
    /// Whether the active segment may be sealed at its present size.
    pub(crate) may_seal: bool,
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

/// What a record takes besides its key and value, about.
const RECORD_OVERHEAD: u64 = 19;
/// A store has about this many segments, so that one is a small part of it…
const SEGMENTS: u64 = 48;
/// …or, while it is filled and has next to no garbage, this many of at least…
const SEGMENTS_FILLING: u64 = 32;
/// …so many times the smallest size: each seal costs a few syncs.
const FILLING_BYTES_MIN: u64 = 2;
/// A run copies at most this part of the store, which is there twice until it publishes…
const RUNS: u64 = 64;
/// …and this many segments' worth, so that it gives space back often.
const SEGMENTS_PER_RUN: u64 = 4;
/// Sealed segments below this share of the usual size count as small…
const SMALL_SHARE: u64 = 16;
/// …and this many of them are put together.
const SMALL_COUNT: usize = 8;
/// The share of the overhead that is allowed which a store at rest is brought to.
const RESTING_SHARE: f64 = 0.6;
/// The share of the overhead that is allowed which garbage may have beside records and hints of
/// any size: where keys and values are tiny, their frames alone are more than the whole.
const GARBAGE_SHARE_OF_OVERHEAD: f64 = 0.55;
/// From the bound to this share of the allowed overhead beyond it pressure goes from 0 to 1.
const PRESSURE_SHARE: f64 = 0.125;
/// A store where less than this share is garbage has nothing worth gaining, whatever its
/// amplification.
const GARBAGE_SHARE_MIN: f64 = 0.1;

/// The whole store in figures.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Space {
    /// What it takes on the disk.
    total: u64,
    hints: u64,
    live: u64,
    garbage: u64,
    user: u64,
}

impl Space {
    pub(crate) fn add(&mut self, facts: &SegmentFacts) {
        self.total += facts.bytes + facts.hint_bytes;
        self.hints += facts.hint_bytes;
        self.live += facts.live_bytes;
        self.garbage += facts.garbage_bytes();
        self.user += facts.user_bytes();
    }

    /// How much of the disk it may take before it is compacted.
    fn bound(&self, policy: &Policy) -> f64 {
        let share = if policy.resting { RESTING_SHARE } else { 1.0 };
        let overhead = (policy.space_amplification - 1.0) * share;
        let by_user = as_f64(self.user) * (1.0 + overhead);
        let by_record =
            as_f64(self.live + self.hints) * (1.0 + overhead * GARBAGE_SHARE_OF_OVERHEAD);
        by_user.max(by_record)
    }

    /// Whether there is enough garbage to compact at all.
    fn is_worth_it(&self, policy: &Policy) -> bool {
        self.garbage >= policy.min_garbage_bytes
            && as_f64(self.garbage) >= as_f64(self.live + self.garbage) * GARBAGE_SHARE_MIN
    }

    pub(crate) fn is_over_bound(&self, policy: &Policy) -> bool {
        self.is_worth_it(policy) && as_f64(self.total) > self.bound(policy)
    }

    /// How hard the bound presses: 0 and less within it; from 1 on compaction does not keep up. The
    /// run under way has given back `reclaimed` bytes already, as soon as it publishes.
    pub(crate) fn pressure(&self, policy: &Policy, reclaimed: u64) -> f64 {
        if !self.is_worth_it(policy) {
            return 0.0;
        }
        let bound = self.bound(policy);
        let width = bound * (policy.space_amplification - 1.0) / policy.space_amplification
            * PRESSURE_SHARE;
        let over = as_f64(self.total.saturating_sub(reclaimed)) - bound;
        over / width.max(as_f64(policy.segment_bytes_min))
    }

    /// At what size the active segment is sealed.
    pub(crate) fn segment_bytes(&self, policy: &Policy) -> u64 {
        let filling = as_f64(self.garbage) <= as_f64(self.live) * GARBAGE_SHARE_MIN;
        let (count, bytes_min) = match filling {
            true => (SEGMENTS_FILLING, policy.segment_bytes_min * FILLING_BYTES_MIN),
            false => (SEGMENTS, policy.segment_bytes_min),
        };
        (self.total / count).max(bytes_min).min(policy.segment_bytes)
    }

    /// How many live bytes a run copies at most.
    fn run_bytes(&self, policy: &Policy) -> u64 {
        (self.total / RUNS)
            .max(policy.segment_bytes_min)
            .min(SEGMENTS_PER_RUN * policy.segment_bytes)
    }
}

/// Decides by cost and benefit, much as in "The Design and Implementation of a Log-Structured File
/// System" (Rosenblum and Ousterhout, 1992): (1-u)·age^¼/(1+u), where u is the share of a segment
/// that must be copied and age is counted in sequence numbers since its newest record. With age
/// itself, as there, uniform overwriting copies a fifth more, since old segments are taken while
/// much of them is live; without it skewed overwriting copies twice as much (see the tests).
pub(crate) fn plan(sealed: &[SegmentFacts], active: &SegmentFacts, policy: &Policy) -> Plan {
    let mut space = Space::default();
    sealed.iter().chain([active]).for_each(|facts| space.add(facts));
    let pins = Pins::of(sealed.iter().chain([active]));
    let over_bound = space.is_over_bound(policy);
    let is_over = |facts: &SegmentFacts, gain: u64| {
        gain >= policy.min_garbage_bytes
            && as_f64(gain) > as_f64(facts.bytes) * policy.segment_garbage_ratio
    };
    let segment_over = sealed.iter().any(|facts| is_over(facts, pins.reclaimable(facts)));
    if !over_bound && !segment_over {
        return plan_small(sealed, space.segment_bytes(policy));
    }

    let mut candidates: Vec<(f64, u64, &SegmentFacts)> = sealed
        .iter()
        .map(|facts| (facts, pins.reclaimable(facts)))
        .filter(|(facts, gain)| {
            let worth_it = as_f64(*gain) >= as_f64(facts.bytes) * GARBAGE_SHARE_MIN / 2.0;
            (over_bound && worth_it) || is_over(facts, *gain)
        })
        .map(|(facts, gain)| (score(facts, gain, active.seqnos.max), gain, facts))
        .collect();
    candidates.sort_by(|a, b| b.0.total_cmp(&a.0));

    let needed = as_f64(space.total) - space.bound(policy);
    let in_reach: u64 = candidates.iter().map(|(_, gain, _)| gain).sum();
    let in_active = pins.reclaimable(active);
    // With nothing in it to gain there is nothing to seal it for, whatever the options say.
    let worth_a_seal = (policy.min_garbage_bytes / 2).max(1);
    let wants_seal = as_f64(in_reach) < needed && in_active >= worth_a_seal;
    if over_bound && policy.may_seal && wants_seal {
        return Plan::SealActive;
    }
    let run_bytes = space.run_bytes(policy);
    let mut chosen: Vec<&SegmentFacts> = Vec::new();
    let (mut gained, mut copied) = (0, 0);
    for (_, gain, facts) in candidates {
        let copy = facts.bytes - gain;
        // A run has costs of its own, some syncs: it is not ended at the first byte too few.
        let enough = as_f64(gained) >= needed && copied >= run_bytes / 2;
        let too_much = copied + copy > run_bytes && !chosen.is_empty();
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

/// Which segments may hold a record that a tombstone elsewhere shadows.
struct Pins {
    /// The segment that begins first, and where the first of the others does.
    first: Option<SegmentId>,
    first_seqno: SeqNo,
    second_seqno: SeqNo,
}

impl Pins {
    fn of<'a>(everyone: impl Iterator<Item = &'a SegmentFacts>) -> Self {
        let mut pins = Self { first: None, first_seqno: SeqNo::MAX, second_seqno: SeqNo::MAX };
        for facts in everyone.filter(|facts| facts.has_garbage_sets()) {
            if facts.seqnos.min < pins.first_seqno {
                pins.second_seqno = pins.first_seqno;
                (pins.first, pins.first_seqno) = (Some(facts.segment), facts.seqnos.min);
            } else {
                pins.second_seqno = pins.second_seqno.min(facts.seqnos.min);
            }
        }
        pins
    }

    /// What rewriting `facts` alone gives back: its garbage, without tombstones that some other
    /// segment pins.
    fn reclaimable(&self, facts: &SegmentFacts) -> u64 {
        let is_first = self.first == Some(facts.segment);
        let begins_outside = if is_first { self.second_seqno } else { self.first_seqno };
        let pinned = facts.tombstone_bytes > 0 && begins_outside < facts.seqnos.max;
        facts.garbage_bytes().saturating_sub(if pinned { facts.tombstone_bytes } else { 0 })
    }
}

fn score(facts: &SegmentFacts, gain: u64, newest: SeqNo) -> f64 {
    let u = 1.0 - as_f64(gain) / as_f64(facts.bytes.max(1));
    let age = newest.saturating_sub(facts.seqnos.max) + 1;
    (1.0 - u) * as_f64(age).sqrt().sqrt() / (1.0 + u)
}

/// Only pinned tombstones are left to gain: rewrites them together with everything that pins them,
/// which costs the most and is done only where they make up a good part of what has garbage.
fn unpin<'a>(sealed: &'a [SegmentFacts], policy: &Policy) -> Vec<&'a SegmentFacts> {
    let chosen = || sealed.iter().filter(|facts| facts.garbage_bytes() > 0);
    let tombstones: u64 = sealed.iter().map(|facts| facts.tombstone_bytes).sum();
    let bytes: u64 = chosen().map(|facts| facts.bytes).sum();
    let worth_it = tombstones >= policy.min_garbage_bytes
        && as_f64(tombstones) >= as_f64(bytes) * GARBAGE_SHARE_MIN;
    if worth_it { chosen().collect() } else { Vec::new() }
}

/// Puts small segments together: each is a file, a mapping and a line of the manifest.
fn plan_small(sealed: &[SegmentFacts], segment_bytes: u64) -> Plan {
    let small: Vec<_> =
        sealed.iter().filter(|facts| facts.bytes < segment_bytes / SMALL_SHARE).collect();
    if small.len() >= SMALL_COUNT { ordered(small) } else { Plan::Nothing }
}

/// What `compact` rewrites when it is asked to: every sealed segment with garbage. What its tombstones
/// shadow is garbage too, and so among it.
pub(crate) fn plan_forced(sealed: &[SegmentFacts]) -> Plan {
    ordered(sealed.iter().filter(|facts| facts.garbage_bytes() > 0).collect())
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

    const KIB: u64 = 1 << 10;
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
            records: bytes / 1000,
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
            segment_bytes_min: MIB,
            resting: false,
            may_seal: true,
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

    /// A bound that cannot be kept and no least garbage: the active segment was sealed again and
    /// again, with nothing in it, and the sealed ones never compacted.
    #[test]
    fn an_active_segment_without_garbage_is_not_sealed_for_it() {
        let policy = Policy { min_garbage_bytes: 0, space_amplification: 1.05, ..policy() };
        let sealed = [segment(1, MIB, MIB / 2, 0, (1, 100))];
        let active = segment(2, MIB, MIB, 0, (101, 200));
        assert_eq!(plan(&sealed, &active, &policy), compact(&[1]));
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
        // Rewriting 2 alone could drop nothing; it is taken together with what it may shadow.
        let clean = segment(0, 10 * MIB, 10 * MIB, 0, (1, 50));
        let sealed = [
            clean,
            segment(1, 10 * MIB, 10 * MIB - 1000, 0, (51, 100)),
            segment(2, 10 * MIB, 0, 10 * MIB, (101, 200)),
        ];
        let active = segment(3, 0, 0, 0, (201, 201));
        assert_eq!(plan(&sealed, &active, &policy()), compact(&[1, 2]));
        let few = [sealed[1], segment(2, 10 * MIB, 10 * MIB - 1000, 1000, (101, 200))];
        assert_eq!(plan(&few, &active, &policy()), Plan::Nothing);
        // A segment in which all is live holds nothing that could be shadowed.
        assert_eq!(plan(&[clean, sealed[2]], &active, &policy()), compact(&[2]));
    }

    /// Where sealed segments are very many the active one is not sealed early: a run that waited for it
    /// was never made.
    #[test]
    fn where_no_seal_is_possible_what_is_sealed_is_compacted() {
        let sealed = [segment(1, 10 * MIB, 6 * MIB, 0, (1, 100))];
        let active = segment(2, 10 * MIB, MIB, 0, (101, 200));
        assert_eq!(plan(&sealed, &active, &policy()), Plan::SealActive);
        let no_seal = Policy { may_seal: false, ..policy() };
        assert_eq!(plan(&sealed, &active, &no_seal), compact(&[1]));
    }

    #[test]
    fn many_small_segments_are_put_together() {
        let sealed: Vec<_> =
            (1..=8).map(|id| segment(id, KIB, KIB, 0, (u64::from(id), u64::from(id)))).collect();
        let active = segment(9, 0, 0, 0, (9, 9));
        assert_eq!(plan(&sealed, &active, &policy()), compact(&[1, 2, 3, 4, 5, 6, 7, 8]));
        assert_eq!(plan(&sealed[..7], &active, &policy()), Plan::Nothing);
    }

    fn space(sealed: &[SegmentFacts]) -> Space {
        let mut space = Space::default();
        sealed.iter().for_each(|facts| space.add(facts));
        space
    }

    #[test]
    fn pressure_counts_from_the_bound_on_and_not_where_nothing_can_be_gained() {
        let policy = policy();
        let at = |garbage| space(&[segment(1, 100 * MIB + garbage, 100 * MIB, 0, (1, 100))]);
        assert!(at(0).pressure(&policy, 0) < 0.01);
        let bound = at(30 * MIB).bound(&policy);
        let (within, beyond) = (at(30 * MIB), at(50 * MIB));
        assert!(within.pressure(&policy, 0) < 0.0, "{within:?} {bound}");
        assert!(beyond.pressure(&policy, 0) > 1.0);
        assert!(beyond.pressure(&policy, 20 * MIB) < 0.0, "what a run has given back counts");
        // A store of tombstones and tiny values alone.
        let small = space(&[segment(1, KIB, 10, 0, (1, 100))]);
        assert!(small.pressure(&policy, 0) < 0.01);
    }

    #[test]
    fn segments_follow_the_size_of_the_store() {
        let policy = policy();
        let size =
            |bytes, live| space(&[segment(1, bytes, live, 0, (1, 9))]).segment_bytes(&policy);
        assert_eq!(size(0, 0), 2 * MIB, "nothing yet, so no garbage");
        assert_eq!(size(10 * MIB, 10 * MIB), 2 * MIB, "filling");
        assert_eq!(size(10 * MIB, 8 * MIB), MIB);
        let of_many = size(480 * MIB, 400 * MIB);
        assert!((10 * MIB..11 * MIB).contains(&of_many), "{of_many}");
        assert_eq!(size(1 << 40, 1 << 40), 64 * MIB, "no more than the options say");
        let tiny = Policy { segment_bytes: 512, ..policy };
        assert_eq!(space(&[segment(1, MIB, MIB, 0, (1, 9))]).segment_bytes(&tiny), 512);
    }

    #[test]
    fn a_store_at_rest_is_brought_further_down() {
        let sealed = [
            segment(1, 30 * MIB, 20 * MIB, 0, (1, 100)),
            segment(2, 100 * MIB, 80 * MIB, 0, (101, 900)),
        ];
        let active = segment(3, 0, 0, 0, (901, 901));
        assert_eq!(plan(&sealed, &active, &policy()), Plan::Nothing);
        let resting = Policy { resting: true, ..policy() };
        assert_eq!(plan(&sealed, &active, &resting), compact(&[1]));
    }

    #[test]
    fn a_forced_run_takes_all_garbage_and_what_its_tombstones_shadow() {
        let sealed = [
            segment(1, MIB, MIB - 10, 0, (1, 100)),
            segment(2, MIB, MIB - 10, 10, (101, 200)),
            segment(3, MIB, MIB, 0, (201, 300)),
        ];
        assert_eq!(plan_forced(&sealed), compact(&[1, 2]));
        assert_eq!(plan_forced(&sealed[2..]), Plan::Nothing);
    }
}
