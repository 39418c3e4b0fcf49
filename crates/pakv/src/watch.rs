//! `Watch`: the changes of a store in the order in which they were written, read from the log.
//!
//! What is in the log as users wrote it is told from what compaction wrote by the numbers of
//! segments. Of two segments that users wrote, the one with the later records has the higher number.
//! An output of compaction has only records that are older than those of the segment that was active
//! when the run began, and a higher number than that. So from the active segment back, as long as
//! the one with the sequence numbers right before has a lower number, nothing was rewritten.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::Core;
use crate::error::{Error, Result};
use crate::format::record::{Op, Record};
use crate::format::{SegmentId, SeqNo};
use crate::handle::Handle;
use crate::index::{Index, SegmentState};
use crate::segment::{FrameReader, Next, Segment};

/// How often [`Watch::wait`] looks whether something was written.
const POLL: Duration = Duration::from_millis(50);
/// So many bytes of changes are read ahead, or one change.
const AHEAD_BYTES: u32 = 256 * 1024;

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// Its place in the order of all writes; the next change has the next number.
    pub seqno: u64,
    /// The key.
    pub key: Vec<u8>,
    /// The value that it was set to; `None`: it was deleted.
    pub value: Option<Vec<u8>>,
    /// When it expires, in milliseconds since the epoch. That it expires then is no change of its
    /// own.
    pub expires_at_ms: Option<u64>,
    /// How many changes of the same batch follow directly; 0 for the last of a batch, and for a
    /// write by itself.
    pub batch_rest: u32,
}

/// The changes of a store from a sequence number on: each exactly once, in order, as they were
/// written. From [`Db::watch`](crate::Db::watch).
///
/// As an iterator it ends where nothing more was written yet, and goes on when it is asked again;
/// [`Watch::wait`] waits for more. Whoever notes [`Watch::next_seqno`] can go on from there later,
/// in another process too.
///
/// Changes are read from the log, which compaction rewrites: it drops what was overwritten. So they
/// can be had from the newest back to where compaction has been, and [`Error::HistoryGone`] says so
/// instead of leaving any out. A watch that keeps up with the writers is seldom overtaken. To follow
/// from the beginning whatever compaction did, begin with a snapshot:
///
/// ```
/// use pakv::Db;
///
/// # let dir = tempfile::tempdir()?;
/// # let db = Db::open(dir.path())?;
/// # db.set("name", "pakv")?;
/// let snapshot = db.snapshot()?;
/// let mut watch = db.watch(snapshot.seqno() + 1)?;
/// for entry in snapshot.scan() { /* the state so far */ }
/// db.set("name", "newer")?;
/// for change in watch.by_ref() {
///     let change = change?; // everything since
///     println!("{} {}", change.seqno, change.key.escape_ascii());
/// }
/// assert_eq!(watch.next_seqno(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A handle that writes shows what was acknowledged. One that was opened for reading only is
/// [refreshed](crate::Db::refresh) when the watch is asked for more, and shows what the writer has
/// handed to the operating system: after a power failure some of that may not have been written, and
/// its numbers are given to other changes. A watch keeps the store open as a snapshot does.
#[derive(Debug)]
pub struct Watch {
    handle: Arc<Handle>,
    /// The sequence number of the change that is read next.
    next: SeqNo,
    /// Changes that were read and not yet given.
    ready: VecDeque<Change>,
    place: Option<Place>,
    failed: bool,
}

/// Where in the log the next change stands.
#[derive(Debug)]
struct Place {
    /// The segment as the index had it.
    shown: Arc<Segment>,
    /// The same, with a file of its own that stays when compaction has removed the name.
    segment: Segment,
    offset: u32,
}

impl Watch {
    pub(crate) fn begin(handle: &Arc<Handle>, from: SeqNo) -> Result<Self> {
        let from = from.max(1);
        let newest = handle.core.refresh()?;
        if from > newest.saturating_add(1) {
            return Err(Error::NotWrittenYet { from, newest });
        }
        if from <= newest {
            find(&handle.core.index.read(), from)?;
        }
        let handle = handle.clone();
        Ok(Self { handle, next: from, ready: VecDeque::new(), place: None, failed: false })
    }

    /// The sequence number of the change that comes next: where to begin to go on later.
    pub fn next_seqno(&self) -> u64 {
        self.ready.front().map_or(self.next, |change| change.seqno)
    }

    /// Waits until there is a change, or for `timeout`; says whether there is one. Looks every 50
    /// ms, which costs a few small reads. After an error there is none.
    ///
    /// # Errors
    /// As the iterator.
    pub fn wait(&mut self, timeout: Duration) -> Result<bool> {
        let started = Instant::now();
        loop {
            self.fill()?;
            let left = timeout.saturating_sub(started.elapsed());
            if !self.ready.is_empty() || self.failed || left.is_zero() {
                return Ok(!self.ready.is_empty());
            }
            std::thread::sleep(left.min(POLL));
        }
    }

    /// Has a change ready, unless there is none yet.
    fn fill(&mut self) -> Result<()> {
        if self.failed || !self.ready.is_empty() {
            return Ok(());
        }
        self.read_ahead().inspect_err(|_| self.failed = true)
    }

    fn read_ahead(&mut self) -> Result<()> {
        let core = self.handle.core.clone();
        core.check_open()?;
        if core.index.read().visible < self.next && core.refresh()? < self.next {
            return Ok(());
        }
        while self.ready.is_empty() {
            let index = core.index.read();
            match self.place.take() {
                None => {
                    let state = find(&index, self.next)?;
                    drop(index);
                    self.place = Place::at_start(&core, &state)?;
                }
                Some(mut place) => {
                    let state = index.segments.get(&place.segment.id).cloned();
                    drop(index);
                    let end = state.and_then(|state| place.follow(&core, &state));
                    // Compaction has replaced it, so it had been sealed; its file is still open.
                    let (end, is_whole) = match end {
                        Some(end) => (end, true),
                        None => (place.file_end()?, false),
                    };
                    if place.offset < end && self.read(&mut place, end, is_whole)? {
                        self.place = Some(place);
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads a piece of the log, up to `end` at most; false where nothing more can be read.
    /// `is_whole`: there are records up to `end`.
    fn read(&mut self, place: &mut Place, end: u32, is_whole: bool) -> Result<bool> {
        let begun = place.offset;
        let segment = &place.segment;
        let mut reader = FrameReader::new(segment, begun, end)?;
        while self.ready.is_empty() || place.offset - begun < AHEAD_BYTES {
            let frame = match reader.next()? {
                Next::Frame(frame) => frame,
                Next::Bad { offset, reason } if is_whole => {
                    return Err(segment.corrupt(offset, reason));
                }
                Next::Bad { .. } => return Ok(false),
                Next::End => break,
            };
            let end = frame.offset + frame.length;
            let record = Record::decode(frame.body)
                .map_err(|reason| segment.corrupt(frame.offset, reason))?;
            if record.seqno > self.next {
                if self.ready.is_empty() {
                    return Err(Error::HistoryGone { from: self.next, oldest: record.seqno });
                }
                break;
            }
            if record.seqno == self.next {
                self.next += 1;
                self.ready.push_back(Change::of(&record));
            }
            place.offset = end;
        }
        Ok(true)
    }
}

impl Iterator for Watch {
    type Item = Result<Change>;

    /// The next change; `None` where there is none yet, and for good after an error.
    ///
    /// # Errors
    /// [`Error::HistoryGone`] where compaction has overtaken the watch; as
    /// [`Db::refresh`](crate::Db::refresh).
    fn next(&mut self) -> Option<Result<Change>> {
        match self.fill() {
            Ok(()) => self.ready.pop_front().map(Ok),
            Err(error) => Some(Err(error)),
        }
    }
}

impl Change {
    fn of(record: &Record<'_>) -> Self {
        let (value, expires_at_ms) = match record.op {
            Op::Set { expires_at_ms, value, .. } => (Some(value.to_vec()), expires_at_ms),
            Op::Tombstone { .. } => (None, None),
        };
        let key = record.op.key().to_vec();
        Self { seqno: record.seqno, key, value, expires_at_ms, batch_rest: record.batch_rest }
    }
}

impl Place {
    /// The first record of a segment. `None` where compaction has removed it under a reader, which
    /// is told so by the index then.
    fn at_start(core: &Core, state: &SegmentState) -> Result<Option<Self>> {
        let id = state.segment.id;
        match open(core, id) {
            Ok(segment) => {
                let offset = state.first_record;
                Ok(Some(Self { shown: state.segment.clone(), segment, offset }))
            }
            Err(error) => {
                core.refresh()?;
                let is_listed = core.index.read().segments.contains_key(&id);
                if is_listed { Err(error) } else { Ok(None) }
            }
        }
    }

    /// Where the records of the segment end by now; `None` where its file is gone all the same.
    fn follow(&mut self, core: &Core, state: &SegmentState) -> Option<u32> {
        if !Arc::ptr_eq(&self.shown, &state.segment) {
            // Another writer may have put a copy in the file's place, and goes on in that.
            self.segment = open(core, state.segment.id).ok()?;
            self.shown = state.segment.clone();
        }
        Some(state.bytes)
    }

    /// The length of the file.
    fn file_end(&self) -> Result<u32> {
        let len = self.segment.file()?.len();
        let len = len.map_err(Error::io("read", self.segment.path.as_path()))?;
        Ok(u32::try_from(len).unwrap_or(u32::MAX))
    }
}

fn open(core: &Core, id: SegmentId) -> Result<Segment> {
    let store = core.catalog.lock().store;
    Segment::open(&core.storage, store, id, false).map(|(segment, _)| segment)
}

/// The segment that holds the change `seqno`, which is not newer than what the index shows.
///
/// # Errors
/// [`Error::HistoryGone`] where it is not among those that users wrote.
fn find(index: &Index, seqno: SeqNo) -> Result<SegmentState> {
    let mut newest_first: Vec<&SegmentState> =
        index.segments.values().filter(|state| state.records > 0).collect();
    newest_first.sort_unstable_by_key(|state| (Reverse(state.seqnos.max), state.segment.id));
    let active = index.segments.values().find(|state| !state.sealed);
    // Behind the last one that is as users wrote it.
    let mut oldest = index.visible + 1;
    let mut number = active.map_or(0, |active| u64::from(active.segment.id.0) + 1);
    for state in newest_first {
        let id = u64::from(state.segment.id.0);
        if state.seqnos.max + 1 == oldest && id < number {
            (oldest, number) = (state.seqnos.min, id);
            if oldest <= seqno {
                return Ok(state.clone());
            }
        }
    }
    Err(Error::HistoryGone { from: seqno, oldest })
}
