//! Everything that a reader needs, behind one reader-writer lock: the keydir, the segments it
//! points into, the history that snapshots see, and the accounts of live bytes. Writers change it
//! in short strokes after their bytes are acknowledged; nobody does I/O while holding it.
//!
//! Invariants: every location in the keydir is in a segment of `segments`; a segment's `live_bytes`
//! is the sum of the lengths of the locations that point into it; `expiries` holds exactly the
//! keydir's entries that expire.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::clock::is_expired;
use crate::format::hint::HintEntry;
use crate::format::hint::HintKind;
use crate::format::{Location, SegmentId, SeqNo, SeqNoRange};
use crate::history::History;
use crate::keydir::{KeyDir, KeyEntry, Relocation};
use crate::segment::Segment;

#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) keydir: KeyDir,
    pub(crate) history: History,
    /// When each key that expires does.
    expiries: BTreeSet<(u64, Box<[u8]>)>,
    pub(crate) segments: BTreeMap<SegmentId, SegmentState>,
    /// The newest write that reads see.
    pub(crate) visible: SeqNo,
}

/// A live segment and its accounts.
#[derive(Debug, Clone)]
pub(crate) struct SegmentState {
    pub(crate) segment: Arc<Segment>,
    /// The offset of its first record.
    pub(crate) first_record: u32,
    pub(crate) bytes: u32,
    pub(crate) records: u32,
    pub(crate) seqnos: SeqNoRange,
    pub(crate) live_bytes: u64,
    pub(crate) tombstone_bytes: u64,
    pub(crate) sealed: bool,
    /// The length of its hint; `None` while it has none.
    pub(crate) hint_bytes: Option<u64>,
    /// Compaction found damage in it: it is left as it is, for `check` and `repair` to see.
    pub(crate) damaged: bool,
}

impl SegmentState {
    /// A segment with nothing in it but its header.
    pub(crate) fn empty(segment: Arc<Segment>, first_record: u32) -> Self {
        Self {
            segment,
            first_record,
            bytes: first_record,
            records: 0,
            seqnos: SeqNoRange::EMPTY,
            live_bytes: 0,
            tombstone_bytes: 0,
            sealed: false,
            hint_bytes: None,
            damaged: false,
        }
    }
}

/// What a lookup finds: the version that is asked for and the segment that holds it.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) entry: KeyEntry,
    pub(crate) segment: Arc<Segment>,
}

impl Index {
    pub(crate) fn new(
        keydir: KeyDir,
        segments: BTreeMap<SegmentId, SegmentState>,
        visible: SeqNo,
    ) -> Self {
        let mut index = Self {
            keydir,
            history: History::default(),
            expiries: BTreeSet::new(),
            segments,
            visible,
        };
        // Entries come in runs of one segment.
        let (mut segment, mut live_bytes) = (SegmentId(0), 0);
        let segments = &mut index.segments;
        let mut add = |segment: SegmentId, live_bytes: u64| {
            if let Some(state) = segments.get_mut(&segment) {
                state.live_bytes += live_bytes;
            }
        };
        index.keydir.for_each(|key, entry| {
            if entry.location.segment != segment {
                add(segment, std::mem::take(&mut live_bytes));
                segment = entry.location.segment;
            }
            live_bytes += u64::from(entry.location.length);
            if let Some(at) = entry.expires_at_ms() {
                index.expiries.insert((at, key.into()));
            }
        });
        add(segment, live_bytes);
        index
    }

    /// The newest version of `key`, or the one that a snapshot at `at` sees; expired or not.
    pub(crate) fn lookup(&self, key: &[u8], at: Option<SeqNo>) -> Option<Found> {
        match (self.keydir.get(key), at) {
            (Some(entry), Some(at)) if entry.seqno > at => self.lookup_history(key, at),
            (Some(entry), _) => self.found(entry),
            (None, Some(at)) => self.lookup_history(key, at),
            (None, None) => None,
        }
    }

    /// The newest version of `key`, or by a rare chance of another key (see [`KeyDir::guess`]).
    pub(crate) fn guess(&self, key: &[u8]) -> Option<Found> {
        self.keydir.guess(key).and_then(|entry| self.found(entry))
    }

    pub(crate) fn lookup_history(&self, key: &[u8], at: SeqNo) -> Option<Found> {
        let old = self.history.get(key, at)?;
        Some(Found { entry: old.entry, segment: old.segment.clone() })
    }

    fn found(&self, entry: KeyEntry) -> Option<Found> {
        let state = self.segments.get(&entry.location.segment)?;
        Some(Found { entry, segment: state.segment.clone() })
    }

    /// Takes in one record that is acknowledged and stands at `location`. Returns whether its key
    /// was there before, by the time `now_ms`.
    pub(crate) fn publish(
        &mut self,
        key: &[u8],
        seqno: SeqNo,
        kind: HintKind,
        location: Location,
        now_ms: u64,
    ) -> bool {
        let length = u64::from(location.length);
        let mut expires_at_ms = None;
        let old = match kind {
            HintKind::Tombstone => self.keydir.remove(key),
            HintKind::Set | HintKind::SetExpiring { .. } => {
                let entry = KeyEntry::new(location, seqno, kind.expires_at_ms());
                expires_at_ms = entry.expires_at_ms();
                if let Some(at) = expires_at_ms {
                    self.expiries.insert((at, key.into()));
                }
                self.keydir.insert(key, entry)
            }
        };
        if let Some(state) = self.segments.get_mut(&location.segment) {
            match kind {
                HintKind::Tombstone => state.tombstone_bytes += length,
                HintKind::Set | HintKind::SetExpiring { .. } => state.live_bytes += length,
            }
            state.bytes = state.bytes.max(location.offset + location.length);
            state.records += 1;
            state.seqnos.add(seqno);
        }
        let Some(old) = old else { return false };
        self.forget_live(old.location);
        let at = old.expires_at_ms();
        if at != expires_at_ms {
            self.forget_expiry(at, key);
        }
        let segments = &self.segments;
        self.history.supersede(key, old, seqno, || {
            segments.get(&old.location.segment).map(|state| state.segment.clone())
        });
        !is_expired(at, now_ms)
    }

    fn forget_live(&mut self, location: Location) {
        if let Some(state) = self.segments.get_mut(&location.segment) {
            state.live_bytes -= u64::from(location.length);
        }
    }

    fn forget_expiry(&mut self, at: Option<u64>, key: &[u8]) {
        if let Some(at) = at {
            self.expiries.remove(&(at, key.into()));
        }
    }

    /// Keys that are there at `now_ms`.
    pub(crate) fn len(&self, now_ms: u64) -> u64 {
        self.keydir.len() - self.expired(now_ms).count() as u64
    }

    /// Keys that will expire after `now_ms`.
    pub(crate) fn expiring(&self, now_ms: u64) -> u64 {
        (self.expiries.len() - self.expired(now_ms).count()) as u64
    }

    /// When the next key expires.
    pub(crate) fn next_expiry_ms(&self) -> Option<u64> {
        self.expiries.first().map(|(at, _)| *at)
    }

    fn expired(&self, now_ms: u64) -> impl Iterator<Item = &(u64, Box<[u8]>)> {
        self.expiries.range(..(now_ms.saturating_add(1), Box::default()))
    }

    /// Takes up to `limit` expired entries out of the keydir, so that their bytes count as garbage.
    /// Their records still shadow older ones in the log; compaction knows. Returns how many it
    /// took.
    pub(crate) fn sweep_expired(&mut self, now_ms: u64, limit: usize) -> usize {
        let mut swept = 0;
        while swept < limit && self.next_expiry_ms().is_some_and(|at| at <= now_ms) {
            let Some((_, key)) = self.expiries.pop_first() else { break };
            if let Some(entry) = self.keydir.remove(&key) {
                debug_assert!(is_expired(entry.expires_at_ms(), now_ms));
                self.forget_live(entry.location);
            }
            swept += 1;
        }
        swept
    }

    /// Takes in one record of a finished compaction output: the keydir follows if it still points
    /// at that record. Doing so twice is as doing so once.
    pub(crate) fn move_record(&mut self, entry: &HintEntry<'_>, to: SegmentId) {
        let location = Location { segment: to, offset: entry.offset, length: entry.length };
        if let Some(old) = self.keydir.compare_and_move(entry.key, entry.seqno, location) {
            self.forget_live(old);
            if let Some(state) = self.segments.get_mut(&to) {
                state.live_bytes += u64::from(entry.length);
            }
        }
    }

    /// Looks at up to `limit` more of the keydir's places, and has those follow whose records were
    /// copied; false once all have been looked at. Twice is as once.
    pub(crate) fn relocate(&mut self, relocation: &mut Relocation, limit: usize) -> bool {
        // Of the few segments that a pass is about, and put into the accounts at the end.
        let mut moved: Vec<(SegmentId, i64)> = Vec::new();
        let mut add = |segment, bytes| match moved.iter_mut().find(|(id, _)| *id == segment) {
            Some((_, sum)) => *sum += bytes,
            None => moved.push((segment, bytes)),
        };
        let goes_on = self.keydir.relocate(relocation, limit, |from, to| {
            add(from.segment, -i64::from(from.length));
            add(to.segment, i64::from(to.length));
        });
        for (segment, bytes) in moved {
            if let Some(state) = self.segments.get_mut(&segment) {
                match bytes {
                    0.. => state.live_bytes += bytes.unsigned_abs(),
                    _ => state.live_bytes -= bytes.unsigned_abs(),
                }
            }
        }
        goes_on
    }

    /// A compaction output, before the keydir follows.
    pub(crate) fn add_segment(&mut self, state: SegmentState) {
        self.keydir.begin_segment(state.segment.id, state.seqnos.min);
        self.segments.insert(state.segment.id, state);
    }

    /// Compaction has replaced the segment, and the keydir has followed.
    pub(crate) fn remove_segment(&mut self, id: SegmentId) -> Option<SegmentState> {
        self.keydir.forget_segment(id);
        self.segments.remove(&id)
    }
}
