//! What an open store believes against what the log says.

use std::collections::{HashMap, HashSet};

use super::report::{Finding, FindingKind};
use super::segment::finding;
use crate::clock::is_expired;
use crate::core::Core;
use crate::format::{SegmentId, SeqNo};
use crate::index::Index;
use crate::keydir::{KeyDir, KeyEntry};

/// So many disagreements are told of: after the first the rest say little.
const FINDINGS_MAX: usize = 100;

/// The log as the check has read it.
pub(super) struct Log<'a> {
    pub(super) keydir: &'a KeyDir,
    /// The newest record that was read: every older one of the live segments was, too.
    pub(super) seen: SeqNo,
    /// The segments that the manifest lists.
    pub(super) listed: HashSet<SegmentId>,
    pub(super) tombstone_bytes: HashMap<SegmentId, u64>,
    /// Segments may have been read that are no longer listed.
    pub(super) moved: bool,
}

impl Log<'_> {
    /// Compares the log with an open store. What was written since the log was read, or is in the
    /// log and not yet visible, is left out.
    pub(super) fn compare(&self, core: &Core) -> Vec<Finding> {
        let path = core.storage.path();
        let index = core.index.read();
        let now_ms = core.now_ms();
        let mut wrong: Vec<(SegmentId, u32, u32, String)> = Vec::new();
        let mut live: HashMap<SegmentId, u64> = HashMap::new();
        index.keydir.for_each(|key, entry| {
            *live.entry(entry.location.segment).or_default() += u64::from(entry.location.length);
            if wrong.len() < FINDINGS_MAX
                && let Some(reason) = self.disagreement(&index, key, &entry, now_ms)
            {
                let location = entry.location;
                wrong.push((location.segment, location.offset, location.length, reason));
            }
        });
        let is_quiet = index.visible == self.seen;
        if index.visible <= self.seen {
            self.keydir.for_each(|key, entry| {
                let is_there = || index.keydir.get(key).is_some();
                if wrong.len() < FINDINGS_MAX
                    && entry.seqno <= index.visible
                    && !is_expired(entry.expires_at_ms(), now_ms)
                    && !is_there()
                {
                    let reason = format!("the store does not know the key {}", key.escape_ascii());
                    let location = entry.location;
                    wrong.push((location.segment, location.offset, location.length, reason));
                }
            });
        }
        if is_quiet && !self.moved {
            self.compare_accounts(&index, &live, &mut wrong);
        }
        drop(index);
        let told = wrong.into_iter().map(|(segment, offset, length, reason)| {
            let path = path.join(segment.log_name());
            finding(FindingKind::Keydir, &path, (offset, length), reason)
        });
        told.collect()
    }

    /// What is wrong with an entry of the store, if anything is.
    fn disagreement(
        &self,
        index: &Index,
        key: &[u8],
        entry: &KeyEntry,
        now_ms: u64,
    ) -> Option<String> {
        if entry.seqno > self.seen {
            return None;
        }
        let name = key.escape_ascii();
        let Some(newest) = self.keydir.get(key) else {
            // Deleted since, as far as the store is concerned, if the log goes on further.
            let is_behind = index.visible < self.seen;
            // What has expired a writer's compaction may have taken out, and a reader not yet.
            let may_be_gone = is_behind || is_expired(entry.expires_at_ms(), now_ms);
            return (!may_be_gone)
                .then(|| format!("the store has the key {name}, the log has not"));
        };
        if newest.seqno > index.visible {
            return None;
        }
        if newest.seqno != entry.seqno || newest.expires_at_ms() != entry.expires_at_ms() {
            return Some(format!(
                "the newest record of {name} has sequence number {}, and the store believes {}",
                newest.seqno, entry.seqno
            ));
        }
        // A compaction moves keys, and while it does both places are right.
        let is_known =
            |segment| self.listed.contains(&segment) && index.segments.contains_key(&segment);
        let differs = newest.location != entry.location
            && !self.moved
            && is_known(newest.location.segment)
            && is_known(entry.location.segment);
        differs.then(|| format!("the store looks for {name} here, and it is elsewhere"))
    }

    /// Compares the accounts of each segment, if the store has the segments that were read.
    fn compare_accounts(
        &self,
        index: &Index,
        live: &HashMap<SegmentId, u64>,
        wrong: &mut Vec<(SegmentId, u32, u32, String)>,
    ) {
        if !index.segments.keys().all(|segment| self.tombstone_bytes.contains_key(segment)) {
            return;
        }
        for (id, state) in &index.segments {
            let live = live.get(id).copied().unwrap_or(0);
            let tombstones = self.tombstone_bytes.get(id).copied().unwrap_or(0);
            let mut compare = |what: &str, believed: u64, counted: u64| {
                if believed != counted {
                    let reason =
                        format!("the store believes in {believed} bytes of {what}, not {counted}");
                    wrong.push((*id, 0, 0, reason));
                }
            };
            compare("live records", state.live_bytes, live);
            compare("tombstones", state.tombstone_bytes, tombstones);
        }
    }
}
