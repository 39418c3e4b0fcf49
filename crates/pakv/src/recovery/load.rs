//! The sealed segments' part of an open: hints, read by several threads, put together by sequence
//! number. A hint that is lost or wrong is built again from its segment.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::hint::{HintEntry, HintKind};
use crate::format::manifest::{Manifest, SealedSegment};
use crate::format::{Location, SegmentId, SeqNo, SeqNoRange};
use crate::index::SegmentState;
use crate::keydir::{FETCH_AHEAD, KeyDir, KeyEntry};
use crate::options::Options;
use crate::planted::{Bug, planted};
use crate::segment::{NoHint, Segment, load_hint, may_lack_hint, rebuild_hint, visit_records};
use crate::stats::{OpenProgress, RecoveryReport};
use crate::storage::Storage;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{mpsc, thread};

const THREADS_MAX: usize = 8;

/// What has been loaded so far. The highest sequence number of a key wins, in whatever order
/// records come.
#[derive(Default)]
pub(crate) struct Loaded {
    keydir: KeyDir,
    /// Until the end: they shadow what is loaded after them.
    tombstones: HashMap<Box<[u8]>, SeqNo>,
    pub(crate) segments: BTreeMap<SegmentId, SegmentState>,
    pub(crate) newest_seqno: SeqNo,
}

impl Loaded {
    /// Adds the records of a segment.
    pub(crate) fn add_all(&mut self, segment: SegmentId, gathered: &Gathered) {
        self.add_each(segment, gathered, false);
    }

    /// Adds records that are lost: they shadow what is older, and a copy of one that is there stays.
    pub(crate) fn add_lost(&mut self, segment: SegmentId, gathered: &Gathered) {
        self.add_each(segment, gathered, true);
    }

    fn add_each(&mut self, segment: SegmentId, gathered: &Gathered, are_lost: bool) {
        if gathered.len() > 0 {
            self.keydir.begin_segment(segment, gathered.seqnos.min);
        }
        self.keydir.reserve(gathered.len(), None);
        let mut ahead = gathered.records();
        for (index, record) in gathered.records().enumerate() {
            if index % FETCH_AHEAD == 0 {
                self.keydir.fetch(ahead.by_ref().take(FETCH_AHEAD).map(|record| record.key));
            }
            self.add(segment, &record, are_lost);
        }
    }

    fn add(&mut self, segment: SegmentId, record: &HintEntry<'_>, is_lost: bool) {
        let HintEntry { offset, length, seqno, kind, key } = *record;
        self.newest_seqno = self.newest_seqno.max(seqno);
        // A record that is met again is the copy that compaction made: that one stays.
        let must_stay = |other: SeqNo| {
            (other > seqno || is_lost && other == seqno) && !planted(Bug::ReplayByFileOrder)
        };
        let tombstone =
            if self.tombstones.is_empty() { None } else { self.tombstones.get(key).copied() };
        if tombstone.is_some_and(must_stay) {
            return;
        }
        let location = Location { segment, offset, length };
        if kind != HintKind::Tombstone {
            let entry = KeyEntry::new(location, seqno, kind.expires_at_ms());
            if self.keydir.insert_newer(key, entry, must_stay) && tombstone.is_some() {
                self.tombstones.remove(key);
            }
        } else if self.keydir.get(key).is_none_or(|entry| !must_stay(entry.seqno)) {
            self.keydir.remove(key);
            self.tombstones.insert(key.into(), seqno);
        }
    }

    /// Forgets the segments that are not in `listed`, and the keys that point there: what deleted
    /// them has been compacted away with them.
    pub(crate) fn keep(&mut self, listed: &HashSet<SegmentId>) {
        let gone: Vec<SegmentId> =
            self.segments.keys().copied().filter(|id| !listed.contains(id)).collect();
        if gone.is_empty() {
            return;
        }
        self.keep_keys(listed);
        for id in gone {
            self.segments.remove(&id);
            self.keydir.forget_segment(id);
        }
    }

    /// Forgets the keys that point into segments that are not in `listed`.
    pub(crate) fn keep_keys(&mut self, listed: &HashSet<SegmentId>) {
        for key in self.keydir.keys_in(|segment| !listed.contains(&segment)) {
            self.keydir.remove(&key);
        }
    }

    pub(crate) fn into_parts(self) -> (KeyDir, BTreeMap<SegmentId, SegmentState>) {
        (self.keydir, self.segments)
    }
}

/// One sealed segment, loaded.
pub(crate) struct LoadedSegment {
    pub(crate) state: SegmentState,
    pub(crate) gathered: Gathered,
    rebuilt: bool,
}

/// Loads every sealed segment that the manifest lists and that is not loaded yet.
///
/// # Errors
/// [`Error::Corrupt`] where a listed segment is missing, too short, not itself, or, its hint being
/// lost, damaged. What was loaded until then stays.
pub(crate) fn load_sealed(
    options: &Options,
    storage: &Arc<dyn Storage>,
    catalog: &Manifest,
    (loaded, report): (&mut Loaded, &mut RecoveryReport),
    progress: &mut dyn FnMut(OpenProgress),
) -> Result<()> {
    // A backup's can become longer, and a record must not be added twice.
    let is_other = |sealed: &SealedSegment| {
        let known = loaded.segments.get(&sealed.segment);
        known.is_some_and(|known| (known.bytes, known.records) != (sealed.bytes, sealed.records))
    };
    if catalog.sealed.iter().any(is_other) {
        *loaded = Loaded::default();
    }
    let is_new = |sealed: &&SealedSegment| !loaded.segments.contains_key(&sealed.segment);
    let wanted: Vec<&SealedSegment> = catalog.sealed.iter().filter(is_new).collect();
    let bytes_total = wanted.iter().map(|sealed| u64::from(sealed.bytes)).sum();
    let mut done = OpenProgress { bytes_done: 0, bytes_total };
    // Which is not all of it where the writer was killed.
    let active_bytes = catalog.active.map_or(0, |active| u64::from(active.synced_bytes));
    let with_active = bytes_total + active_bytes.max(bytes_total / 32);
    let mut add = |segment: LoadedSegment| {
        done.bytes_done += u64::from(segment.state.bytes);
        // By what the segments so far have given: a table that grows by doubling is moved more often,
        // and ends up to twice too long.
        let keys = loaded.keydir.len() + segment.gathered.len() as u64;
        let expected =
            u128::from(keys) * u128::from(with_active) / u128::from(done.bytes_done.max(1));
        // Few too many, so that few too few are no reason to move all of them once more.
        let expected = usize::try_from(expected + expected / 64).ok();
        loaded.keydir.reserve(segment.gathered.len(), expected);
        report.hints_rebuilt += u64::from(segment.rebuilt);
        loaded.add_all(segment.state.segment.id, &segment.gathered);
        loaded.segments.insert(segment.state.segment.id, segment.state);
        progress(done);
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(wanted.len()).min(THREADS_MAX);
    // Without background threads everything happens in an order that a test can repeat.
    if threads < 2 || !options.background {
        for sealed in wanted {
            add(load_segment(options, storage, catalog, sealed)?);
        }
        return Ok(());
    }
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::sync_channel(threads);
    let mut result = Ok(());
    thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, next, wanted) = (sender.clone(), &next, &wanted);
            scope.spawn(move || {
                while let Some(sealed) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let segment = load_segment(options, storage, catalog, sealed);
                    if sender.send(segment).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for segment in receiver {
            match segment {
                Ok(segment) => add(segment),
                Err(error) => {
                    // The receiver goes with the loop, and the threads with it.
                    result = Err(error);
                    break;
                }
            }
        }
    });
    result
}

pub(crate) fn load_segment(
    options: &Options,
    storage: &Arc<dyn Storage>,
    catalog: &Manifest,
    sealed: &SealedSegment,
) -> Result<LoadedSegment> {
    let id = sealed.segment;
    let (segment, first_record) = open_sealed(storage, catalog, sealed)?;
    let mut gathered = Gathered::default();
    let hint = load_hint(&**storage, catalog.store, id, sealed.bytes, |entry| {
        gathered.add(entry);
    });
    let (hint_bytes, rebuilt) = match hint {
        Ok(hint_bytes) if gathered.agrees_with(sealed) => (Some(hint_bytes), false),
        Err(NoHint::Missing)
            if may_lack_hint(options, sealed.bytes.into(), sealed.records.into()) =>
        {
            visit_records(&segment, first_record, sealed.bytes, |entry| {
                gathered.add(entry);
                Ok(())
            })?;
            gathered.check_agrees_with(sealed, &segment, first_record)?;
            (None, false)
        }
        _ => {
            let mut rebuild = |target: Option<&dyn Storage>| {
                gathered = Gathered::default();
                let (store, bytes) = (catalog.store, sealed.bytes);
                rebuild_hint(target, store, &segment, first_record, bytes, |entry| {
                    gathered.add(entry);
                })
            };
            let hint_bytes = if options.read_only {
                rebuild(None).map(|_| None)?
            } else {
                match rebuild(Some(&**storage)) {
                    Ok(hint_bytes) => Some(hint_bytes),
                    // A full disk keeps nobody from opening: the hint is built when there is space.
                    Err(Error::Io { .. }) => rebuild(None).map(|_| None)?,
                    Err(error) => return Err(error),
                }
            };
            gathered.check_agrees_with(sealed, &segment, first_record)?;
            let written = hint_bytes.is_some();
            tracing::warn!(segment = id.0, written, "a hint was lost or wrong and is rebuilt");
            (hint_bytes, true)
        }
    };
    let segment = segment.sealed(sealed.bytes, options.file_access);
    let state = SegmentState {
        bytes: sealed.bytes,
        records: sealed.records,
        seqnos: gathered.seqnos,
        tombstone_bytes: gathered.tombstone_bytes,
        sealed: true,
        hint_bytes,
        ..SegmentState::empty(Arc::new(segment), first_record)
    };
    Ok(LoadedSegment { state, gathered, rebuilt })
}

/// Opens a sealed segment that the manifest lists; that it is missing or too short is damage.
pub(crate) fn open_sealed(
    storage: &Arc<dyn Storage>,
    catalog: &Manifest,
    sealed: &SealedSegment,
) -> Result<(Segment, u32)> {
    let (segment, first_record) = open_listed(storage, catalog, sealed.segment, false)?;
    let len = segment.file()?.len().map_err(Error::io("read", segment.path.as_path()))?;
    if len < u64::from(sealed.bytes) || sealed.bytes < first_record {
        let reason = format!("the segment has {len} bytes and should have {}", sealed.bytes);
        return Err(Error::corrupt(&segment.path, len, reason));
    }
    Ok((segment, first_record))
}

/// Opens a segment that the manifest lists; that it is missing is damage.
pub(super) fn open_listed(
    storage: &Arc<dyn Storage>,
    catalog: &Manifest,
    id: SegmentId,
    writable: bool,
) -> Result<(Segment, u32)> {
    Segment::open(storage, catalog.store, id, writable).map_err(|error| match error {
        Error::Io { path, source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Error::corrupt(&path, 0, "the manifest lists this segment and it is not there")
        }
        other => other,
    })
}

/// The records of one segment as they go by.
pub(crate) struct Gathered {
    keys: Vec<u8>,
    records: Vec<Unkeyed>,
    pub(crate) seqnos: SeqNoRange,
    pub(crate) tombstone_bytes: u64,
    /// Where the last record ends, and whether each begins where the one before ends or behind.
    end: u32,
    in_order: bool,
}

/// A record whose key stands in [`Gathered::keys`], behind that of the record before it.
struct Unkeyed {
    key_bytes: u32,
    offset: u32,
    length: u32,
    seqno: SeqNo,
    kind: HintKind,
}

impl Default for Gathered {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            records: Vec::new(),
            seqnos: SeqNoRange::EMPTY,
            tombstone_bytes: 0,
            end: 0,
            in_order: true,
        }
    }
}

impl Gathered {
    pub(crate) fn add(&mut self, entry: &HintEntry<'_>) {
        let HintEntry { offset, length, seqno, kind, key } = *entry;
        self.keys.extend_from_slice(key);
        self.records.push(Unkeyed { key_bytes: key.len() as u32, offset, length, seqno, kind });
        self.seqnos.add(entry.seqno);
        self.in_order &= self.end <= offset;
        self.end = offset.saturating_add(length.max(1));
        if entry.kind == HintKind::Tombstone {
            self.tombstone_bytes += u64::from(entry.length);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = HintEntry<'_>> {
        let mut keys = self.keys.as_slice();
        self.records.iter().map(move |record| {
            let Unkeyed { key_bytes, offset, length, seqno, kind } = *record;
            let (key, rest) = keys.split_at_checked(key_bytes as usize).unwrap_or_default();
            keys = rest;
            HintEntry { offset, length, seqno, kind, key }
        })
    }

    fn check_agrees_with(
        &self,
        sealed: &SealedSegment,
        segment: &Segment,
        first_record: u32,
    ) -> Result<()> {
        if self.agrees_with(sealed) {
            return Ok(());
        }
        let reason = "its records are not those that the manifest describes";
        Err(segment.corrupt(first_record, reason))
    }

    /// Of a hint alone that could be forged: two records in one place would share what is kept by
    /// place.
    fn agrees_with(&self, sealed: &SealedSegment) -> bool {
        self.in_order
            && self.len() as u64 == u64::from(sealed.records)
            && (self.seqnos.min, self.seqnos.max) == (sealed.min_seqno, sealed.max_seqno)
    }
}
