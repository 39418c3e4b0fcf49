//! A store without bytes, to see what the plan makes of endless overwriting: how much of the disk,
//! and how many bytes written for each byte set. For tests only.

use std::collections::BTreeMap;

use super::plan::{Plan, Policy, SegmentFacts, Space, plan};
use crate::format::{SegmentId, SeqNo, SeqNoRange};

/// What became of it, both for each byte of keys and values.
#[derive(Debug)]
pub(crate) struct Figures {
    /// The most that the directory ever held, with what a run has written and not yet published.
    pub(crate) space_max: f64,
    /// At the end, and after a rest.
    pub(crate) space_end: f64,
    pub(crate) space_rested: f64,
    /// Of the second half.
    pub(crate) written: f64,
    pub(crate) segments: usize,
}

const HEADER_BYTES: u64 = 41;
/// What a record takes besides its key and value.
const OVERHEAD: u64 = 19;

#[derive(Debug, Default)]
struct Segment {
    /// Keys and sequence numbers of its records.
    records: Vec<(usize, SeqNo)>,
    live: u64,
}

struct Model {
    record_bytes: u64,
    policy: Policy,
    segments: BTreeMap<u32, Segment>,
    active: u32,
    next: u32,
    /// Of each key: its segment and sequence number.
    keys: Vec<(u32, SeqNo)>,
    seqno: SeqNo,
    /// The size at which the active segment is sealed.
    segment_bytes: u64,
    written: u64,
    bytes: u64,
    bytes_max: u64,
}

/// Sets `keys` records once, then overwrites them `volumes` times over. `hot` of the writes go to a
/// tenth of the keys.
pub(crate) fn run(keys: usize, record_bytes: u64, hot: f64, factor: f64, volumes: f64) -> Figures {
    let bytes = keys as u64 * record_bytes;
    let policy = Policy {
        space_amplification: factor,
        segment_garbage_ratio: 0.6,
        min_garbage_bytes: bytes / 1000,
        segment_bytes: bytes,
        segment_bytes_min: bytes / 200,
        resting: false,
        may_seal: true,
    };
    let look_every = (keys / 500).max(1);
    let mut model = Model {
        record_bytes,
        policy,
        segments: BTreeMap::from([(0, Segment::default())]),
        active: 0,
        next: 1,
        keys: Vec::new(),
        seqno: 0,
        segment_bytes: 0,
        written: 0,
        bytes: 0,
        bytes_max: 0,
    };
    for key in 0..keys {
        model.keys.push((0, 0));
        if key % look_every == 0 {
            model.compact();
        }
        model.set(key);
    }
    let mut random = 7_u64;
    let mut below = |count: usize| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((u128::from(random >> 11) * count as u128) >> 53) as usize
    };
    let sets = (keys as f64 * volumes) as usize;
    let mut written_then = 0;
    for turn in 0..sets {
        let is_hot = below(1000) < (hot * 1000.0) as usize;
        let key = if is_hot { below(keys / 10) } else { below(keys) };
        model.set(key);
        if turn % look_every == 0 {
            model.compact();
        }
        if turn == sets / 2 {
            written_then = model.written;
        }
    }
    let user = keys as f64 * (record_bytes - OVERHEAD) as f64;
    let written = (model.written - written_then) as f64
        / ((sets - sets / 2) as u64 * (record_bytes - OVERHEAD)) as f64;
    let space_end = model.bytes as f64 / user;
    model.policy.resting = true;
    model.compact();
    Figures {
        space_max: model.bytes_max as f64 / user,
        space_end,
        space_rested: model.bytes as f64 / user,
        written,
        segments: model.segments.len(),
    }
}

impl Model {
    fn set(&mut self, key: usize) {
        self.seqno += 1;
        let (old, seqno) = std::mem::replace(&mut self.keys[key], (self.active, self.seqno));
        if seqno > 0 {
            self.segments.get_mut(&old).expect("it holds a live record").live -= 1;
        }
        self.append(self.active, key, self.seqno);
        let bytes = self.segments[&self.active].records.len() as u64 * self.record_bytes;
        if bytes >= self.segment_bytes {
            self.seal();
        }
    }

    fn append(&mut self, to: u32, key: usize, seqno: SeqNo) {
        let segment = self.segments.entry(to).or_default();
        segment.records.push((key, seqno));
        segment.live += 1;
        self.written += self.record_bytes;
        self.bytes += self.record_bytes;
        self.bytes_max = self.bytes_max.max(self.bytes);
    }

    fn seal(&mut self) {
        self.active = self.next;
        self.next += 1;
        self.segments.insert(self.active, Segment::default());
    }

    fn facts(&self) -> Vec<SegmentFacts> {
        self.segments.iter().map(|(id, segment)| self.facts_of(*id, segment)).collect()
    }

    fn facts_of(&self, id: u32, segment: &Segment) -> SegmentFacts {
        let mut seqnos = SeqNoRange::EMPTY;
        // Sorted within what users wrote, nearly so within what was copied.
        segment.records.first().iter().for_each(|(_, seqno)| seqnos.add(*seqno));
        segment.records.last().iter().for_each(|(_, seqno)| seqnos.add(*seqno));
        SegmentFacts {
            segment: SegmentId(id),
            bytes: HEADER_BYTES + segment.records.len() as u64 * self.record_bytes,
            header_bytes: HEADER_BYTES,
            hint_bytes: 0,
            records: segment.records.len() as u64,
            live_bytes: segment.live * self.record_bytes,
            tombstone_bytes: 0,
            seqnos,
        }
    }

    fn compact(&mut self) {
        loop {
            let mut sealed = self.facts();
            self.segment_bytes = space(&sealed).segment_bytes(&self.policy);
            let at = sealed.iter().position(|facts| facts.segment.0 == self.active);
            let active = sealed.remove(at.expect("it is there"));
            match plan(&sealed, &active, &self.policy) {
                Plan::Nothing => return,
                Plan::SealActive => self.seal(),
                Plan::Compact(inputs) => self.rewrite(&inputs),
            }
        }
    }

    fn rewrite(&mut self, inputs: &[SegmentId]) {
        let limit = 2 * self.segment_bytes;
        let mut output = None;
        for SegmentId(id) in inputs {
            let records = self.segments[id].records.clone();
            for (key, seqno) in records {
                if self.keys[key] != (*id, seqno) {
                    continue;
                }
                let to = *output.get_or_insert_with(|| {
                    self.next += 1;
                    self.next - 1
                });
                self.append(to, key, seqno);
                self.keys[key] = (to, seqno);
                if self.segments[&to].records.len() as u64 * self.record_bytes >= limit {
                    output = None;
                }
            }
        }
        for SegmentId(id) in inputs {
            let input = self.segments.remove(id).expect("it was chosen");
            self.bytes -= input.records.len() as u64 * self.record_bytes;
        }
    }
}

fn space(facts: &[SegmentFacts]) -> Space {
    let mut space = Space::default();
    facts.iter().for_each(|facts| space.add(facts));
    space
}

fn check(figures: &Figures, space_max: f64, space_rested: f64, written: f64) {
    let Figures { space_max: max, space_rested: rested, written: bytes, .. } = *figures;
    assert!(max < space_max && rested < space_rested && bytes < written, "{figures:?}");
    assert!(figures.space_end > rested && figures.segments < 120, "{figures:?}");
}

/// 24 bytes of key and 100 of value. A log of records 15 % larger than that cannot be written less at
/// this size: the oldest segments, 0.6 of them live, must be copied at 1.27 times the live records.
#[test]
fn small_records_overwritten_uniformly() {
    check(&run(40_000, 143, 0.0, 1.45, 8.0), 1.5, 1.35, 3.2);
}

#[test]
fn small_records_overwritten_uniformly_with_more_room() {
    check(&run(40_000, 143, 0.0, 1.6, 8.0), 1.65, 1.45, 2.4);
}

#[test]
fn larger_records_overwritten_uniformly() {
    check(&run(40_000, 1_070, 0.0, 1.45, 8.0), 1.5, 1.35, 2.1);
}

/// Nine of ten writes go to a tenth of the keys: the rest is not copied again and again.
#[test]
fn records_overwritten_unevenly() {
    check(&run(40_000, 143, 0.9, 1.45, 8.0), 1.5, 1.35, 2.5);
    check(&run(40_000, 1_070, 0.9, 1.45, 8.0), 1.5, 1.35, 1.9);
}
