//! The open store behind every handle: its parts, who guards them, and closing.
//!
//! | part | guarded by | held during I/O |
//! | --- | --- | --- |
//! | `queue` | mutex | no |
//! | `active` | mutex; the leader of a commit group, a sync, a seal | yes: it is the right to append |
//! | `catalog` | mutex; whoever replaces the manifest, or moves a reader on to a newer one | yes |
//! | `index` | reader-writer lock | no |
//! | `compacting` | mutex; one compaction at a time | yes, for all of it |
//! | `hinting` | mutex; whoever builds missing hints | yes, for all of it |
//!
//! Lock order, outermost first: `compacting`, `active`, `hinting`, `catalog`, `index`. `queue` is
//! taken with none of them held; under it only `index` is, to look a condition up.

use std::sync::{Arc, Weak};

use crate::active::Active;
use crate::commit::Queue;
use crate::compaction::Pressure;
use crate::error::{Error, Result};
use crate::format::manifest::{ActiveSegment, Manifest};
use crate::index::{Found, Index};
use crate::index_lock::IndexLock;
use crate::keydir::Order;
use crate::manifest;
use crate::options::Options;
use crate::page::{Page, View};
use crate::poison::Poison;
use crate::segment::Files;
use crate::stats::{CompactionStats, RecoveryReport, SegmentStats, Stats};
use crate::storage::{LockGuard, Storage};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Condvar, Mutex};
use crate::worker::Signal;

/// How many places follow to a new image of the keydir under one hold of the index's lock.
const MOVES_PER_HOLD: usize = 256;
/// What comes to the keydir while it is put in order is less each time; who sets faster than this
/// sorts waits in the end.
const ORDER_ROUNDS: usize = 8;

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) options: Options,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) recovery: RecoveryReport,
    pub(crate) queue: Mutex<Queue>,
    /// Told when a commit group or a transaction has finished.
    pub(crate) queue_moved: Condvar,
    /// `None` in a store that is open for reading only.
    pub(crate) active: Mutex<Option<Active>>,
    /// The manifest as it is on disk, but for `next_segment`, which runs ahead.
    pub(crate) catalog: Mutex<Manifest>,
    pub(crate) index: IndexLock,
    pub(crate) compacting: Mutex<()>,
    pub(crate) hinting: Mutex<()>,
    pub(crate) compaction_stats: Mutex<CompactionStats>,
    /// What compaction wants of those who write.
    pub(crate) pressure: Pressure,
    /// Segments that compaction has replaced, while someone still reads them.
    pub(crate) retired: Mutex<Vec<Weak<Files>>>,
    /// Wakes the background thread, and tells it to stop.
    pub(crate) worker: Signal,
    /// Wakes the thread that syncs for `Durability::Interval`.
    pub(crate) syncer: Signal,
    /// Wakes the thread that merges the keydir.
    pub(crate) merger: Signal,
    pub(crate) poison: Arc<Poison>,
    closed: AtomicBool,
    lock: Mutex<Option<LockGuard>>,
}

/// What recovery hands over.
pub(crate) struct Recovered {
    pub(crate) report: RecoveryReport,
    pub(crate) catalog: Manifest,
    pub(crate) index: Index,
    pub(crate) active: Option<Active>,
    pub(crate) lock: Option<LockGuard>,
}

impl Core {
    pub(crate) fn new(
        options: Options,
        storage: Arc<dyn Storage>,
        poison: Arc<Poison>,
        recovered: Recovered,
    ) -> Self {
        let next_seqno = recovered.catalog.next_seqno.max(recovered.index.visible + 1);
        Self {
            pressure: Pressure::new(options.segment_bytes),
            options,
            storage,
            recovery: recovered.report,
            queue: Mutex::new(Queue::new(next_seqno, recovered.active.as_ref())),
            queue_moved: Condvar::new(),
            active: Mutex::new(recovered.active),
            catalog: Mutex::new(recovered.catalog),
            index: IndexLock::new(recovered.index),
            compacting: Mutex::new(()),
            hinting: Mutex::new(()),
            compaction_stats: Mutex::new(CompactionStats::default()),
            retired: Mutex::new(Vec::new()),
            worker: Signal::new(),
            syncer: Signal::new(),
            merger: Signal::new(),
            poison,
            closed: AtomicBool::new(false),
            lock: Mutex::new(recovered.lock),
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.options.clock.now_ms()
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Whether writes are possible at all.
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.check_open()?;
        if self.options.read_only {
            return Err(Error::ReadOnly { path: self.storage.path().to_path_buf() });
        }
        self.poison.check()
    }

    /// Refuses writes from here on. The first reason stays.
    pub(crate) fn poison(&self, error: &Error) {
        self.poison.set(error.poison_reason());
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.poison.reason().is_some()
    }

    /// One page of a scan.
    pub(crate) fn page(&self, view: View<'_>) -> Page {
        let index = self.index.read();
        if index.keydir.is_ordered() {
            return index.page(view);
        }
        drop(index);
        self.put_in_order();
        let mut index = self.index.write();
        index.keydir.put_in_order();
        index.page(view)
    }

    /// Puts the keydir in order, but for the few keys that have come meanwhile, in short holds of the
    /// index's lock: they may be millions, and others read and write.
    fn put_in_order(&self) {
        for _ in 0..ORDER_ROUNDS {
            let index = self.index.read();
            let (frozen, head) = (index.keydir.unordered_frozen(), index.keydir.unordered_head());
            drop(index);
            if frozen.is_none() && head.is_none() {
                return;
            }
            if let Some(keys) = frozen {
                let order = Order::of(&keys);
                self.index.write().keydir.set_frozen_order(&keys, order);
            }
            if let Some(mut head) = head {
                while self.index.read().keydir.copy_unordered(&mut head) {}
                let run = head.sorted();
                self.index.write().keydir.set_head_order(run);
            }
        }
    }

    /// So many keys have come that a merge of the keydir is due. Without background threads it is
    /// made here and now.
    pub(crate) fn keydir_wants_merge(&self) {
        if self.options.background {
            self.merger.wake();
        } else {
            self.index.write().keydir.merge();
        }
    }

    /// Merges the keydir if it is time to, and says whether it did; see `keydir::merge`. Others wait for
    /// a step of it at most.
    pub(crate) fn merge_keydir(&self) -> bool {
        let mut index = self.index.write();
        let merge = if index.keydir.wants_merge() { index.keydir.begin_merge() } else { None };
        drop(index);
        let Some(mut merge) = merge else { return false };
        while merge.note_gone(&self.index.read().keydir) {}
        let Some(next) = merge.build(|| self.merger.is_stopping()) else { return false };
        self.index.write().keydir.set_next(next);
        let replaced = loop {
            let replaced = self.index.write().keydir.move_places(MOVES_PER_HOLD);
            if replaced.is_some() {
                break replaced;
            }
        };
        // Without the lock: it can be large.
        drop(replaced);
        true
    }

    /// The version of `key` that reads see, or that a snapshot at `at` sees, unless it has expired.
    pub(crate) fn lookup(&self, key: &[u8], at: Option<u64>) -> Result<Option<Found>> {
        Ok(self.lookup_any(key, at)?.filter(|(_, is_there)| *is_there).map(|(found, _)| found))
    }

    /// The same, expired or not, and whether it is still there.
    ///
    /// The clock is asked after the index: what has expired by then may have been overwritten
    /// before, and the key was there all along. So it is gone only if nothing came in its place.
    pub(crate) fn lookup_any(&self, key: &[u8], at: Option<u64>) -> Result<Option<(Found, bool)>> {
        self.check_open()?;
        let mut found = self.index.read().lookup(key, at);
        while let Some(seen) = found {
            if seen.entry.expires_at_ms().is_none_or(|at_ms| self.now_ms() < at_ms) {
                return Ok(Some((seen, true)));
            }
            found = self.index.read().lookup(key, at);
            if found.as_ref().is_some_and(|found| found.entry.seqno == seen.entry.seqno) {
                return Ok(Some((seen, false)));
            }
        }
        Ok(None)
    }

    pub(crate) fn get(&self, key: &[u8], at: Option<u64>) -> Result<Option<Vec<u8>>> {
        self.get_with(key, at, |value| value.to_vec())
    }

    /// What `read` makes of the value, if there is one. It is called once at most.
    pub(crate) fn get_with<T>(
        &self,
        key: &[u8],
        at: Option<u64>,
        mut read: impl FnMut(&[u8]) -> T,
    ) -> Result<Option<T>> {
        if at.is_none() {
            self.check_open()?;
            let Some(Found { entry, segment }) = self.index.read().guess(key) else {
                return Ok(None);
            };
            // Another key's record, and one that may expire, want a closer look.
            if entry.expires_at_ms().is_none()
                && let Some(value) = segment.read_value(&entry, key, &mut read)?
            {
                return Ok(Some(value));
            }
        }
        match self.lookup(key, at)? {
            Some(found) => found.segment.value_with(&found.entry, key, read).map(Some),
            None => Ok(None),
        }
    }

    pub(crate) fn read(&self, found: &Found, key: &[u8]) -> Result<Vec<u8>> {
        found.segment.value(&found.entry, key)
    }

    pub(crate) fn stats(&self) -> Result<Stats> {
        self.check_open()?;
        // What has expired is counted key by key: whoever asks each second pays for each once.
        self.sweep();
        let now_ms = self.now_ms();
        // Before the index is locked: the order of locks.
        let manifest_bytes = self.catalog.lock().encode().map_or(0, |bytes| bytes.len() as u64);
        let retired_segments = {
            let mut retired = self.retired.lock();
            retired.retain(|files| files.strong_count() > 0);
            retired.len() as u64
        };
        let index = self.index.read();
        let mut segments: Vec<SegmentStats> = index
            .segments
            .values()
            .map(|state| SegmentStats {
                segment: state.segment.id.0,
                bytes: u64::from(state.bytes),
                live_bytes: state.live_bytes,
                tombstone_bytes: state.tombstone_bytes,
                active: !state.sealed,
            })
            .collect();
        segments.sort_by_key(|segment| (segment.active, segment.segment));
        let hint_bytes: u64 = index.segments.values().filter_map(|state| state.hint_bytes).sum();
        Ok(Stats {
            path: self.storage.path().to_path_buf(),
            keys: index.len(now_ms),
            expiring_keys: index.expiring(now_ms),
            live_bytes: segments.iter().map(|segment| segment.live_bytes).sum(),
            metadata_bytes: hint_bytes + manifest_bytes,
            segments,
            retired_segments,
            keydir_bytes: index.keydir.memory_bytes(),
            snapshots: index.history.snapshots(),
            seqno: index.visible,
            compaction: self.compaction_stats.lock().clone(),
            recovery: self.recovery.clone(),
            poisoned: self.poison.reason().map(str::to_string),
        })
    }

    /// Stops writes, waits for those in flight, makes everything durable and releases the lock. The
    /// caller has stopped the threads. A second call finds nothing left to do.
    pub(crate) fn close(&self) -> Result<()> {
        self.drain_queue();
        let _no_compaction = self.compacting.lock();
        let was_closed = {
            let _no_hints = self.hinting.lock();
            self.closed.swap(true, Ordering::AcqRel)
        };
        if was_closed {
            return Ok(());
        }
        let result = self.seal_books();
        *self.active.lock() = None;
        self.poison.close();
        *self.lock.lock() = None;
        result
    }

    /// The last sync, and a manifest that says how far it reached, so that any damage from here on
    /// shows.
    fn seal_books(&self) -> Result<()> {
        let mut active = self.active.lock();
        let Some(active) = active.as_mut() else { return Ok(()) };
        self.poison.check()?;
        active.finish()?;
        let mut catalog = self.catalog.lock();
        let closed = ActiveSegment { segment: active.segment.id, synced_bytes: active.bytes };
        if catalog.active == Some(closed) {
            return Ok(());
        }
        catalog.active = Some(closed);
        catalog.next_seqno = catalog.next_seqno.max(active.next_seqno);
        manifest::replace(&*self.storage, &catalog)
    }
}
