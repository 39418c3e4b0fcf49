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
use crate::format::SeqNo;
use crate::format::record::{Op, Record};
use crate::handle::Handle;
use crate::index::{Index, SegmentState};
use crate::segment::{FrameReader, Next};
use crate::storage::StorageFile;

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
/// instead of leaving any out. What was there when the watch was begun, or had caught up last, it
/// gives whatever compaction does meanwhile; until then it keeps the space of those segments. So it
/// is overtaken only where a segment is filled, sealed and compacted between two times that it is
/// asked. To follow from the beginning whatever compaction did, begin with a snapshot:
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
    /// The sequence number of the change that is read next.
    next: SeqNo,
    /// Changes that were read and not yet given.
    ready: VecDeque<Change>,
    place: Option<Place>,
    /// The segments behind that. Whoever has them can read them, whatever compaction does.
    ahead: VecDeque<SegmentState>,
    failed: bool,
    /// The last to go: files are let go of before the store is.
    handle: Arc<Handle>,
}

/// Where in the log the next change stands.
#[derive(Debug)]
struct Place {
    state: SegmentState,
    /// Stays open when the name is gone.
    file: Arc<dyn StorageFile>,
    offset: u32,
}

impl Watch {
    pub(crate) fn begin(handle: &Arc<Handle>, from: SeqNo) -> Result<Self> {
        let from = from.max(1);
        let newest = handle.core.refresh()?;
        if from > newest.saturating_add(1) {
            return Err(Error::NotWrittenYet { from, newest });
        }
        let mut ahead = VecDeque::new();
        if from <= newest {
            ahead = as_written(&handle.core.index.read(), from)?;
        }
        let (ready, handle) = (VecDeque::new(), handle.clone());
        Ok(Self { next: from, ready, place: None, ahead, failed: false, handle })
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
            if let Some(mut place) = self.place.take() {
                let (end, is_whole) = place.end(&core)?;
                if place.offset < end {
                    match self.read(&mut place, end, is_whole) {
                        Ok(false) => {}
                        Ok(true) => self.place = Some(place),
                        // What was read before it is given first, and the error when it is met again.
                        Err(_) if !self.ready.is_empty() => self.place = Some(place),
                        Err(error) => return Err(error),
                    }
                }
                continue;
            }
            if self.ahead.is_empty() {
                self.ahead = as_written(&core.index.read(), self.next)?;
            }
            self.place = self.ahead.pop_front().map(Place::at_start).transpose()?;
        }
        Ok(())
    }

    /// Reads a piece of the log, up to `end` at most; false where nothing more can be read.
    /// `is_whole`: there are records up to `end`.
    fn read(&mut self, place: &mut Place, end: u32, is_whole: bool) -> Result<bool> {
        let begun = place.offset;
        let segment = place.state.segment.clone();
        let mut reader =
            FrameReader::over(place.file.clone(), &segment.path, segment.salt, begun, end);
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
                return Err(Error::HistoryGone { from: self.next, oldest: record.seqno });
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
    fn at_start(state: SegmentState) -> Result<Self> {
        let file = state.segment.file_or_mapping()?;
        Ok(Self { file, offset: state.first_record, state })
    }

    /// Where the segment ends by now, and whether there are records up to there.
    fn end(&mut self, core: &Core) -> Result<(u32, bool)> {
        let segment = &self.state.segment;
        let newer = core.index.read().segments.get(&segment.id).cloned();
        if let Some(state) = newer {
            let is_other = !Arc::ptr_eq(&state.segment, segment);
            self.state = state;
            if is_other {
                // Another writer may have put a copy in the file's place, and goes on in that.
                self.file = self.state.segment.file_or_mapping()?;
            }
        } else if !self.state.sealed {
            // It was sealed and compacted since; its file is still open.
            let len = self.file.len().map_err(Error::io("read", segment.path.as_path()))?;
            return Ok((u32::try_from(len).unwrap_or(u32::MAX), false));
        }
        Ok((self.state.bytes, true))
    }
}

/// The segments that hold the changes from `seqno` on, which is not newer than what the index shows;
/// oldest first.
///
/// # Errors
/// [`Error::HistoryGone`] where not all of them are as users wrote them.
fn as_written(index: &Index, seqno: SeqNo) -> Result<VecDeque<SegmentState>> {
    let mut newest_first: Vec<&SegmentState> =
        index.segments.values().filter(|state| state.records > 0).collect();
    newest_first.sort_unstable_by_key(|state| (Reverse(state.seqnos.max), state.segment.id));
    let active = index.segments.values().find(|state| !state.sealed);
    // Behind the last one that is as users wrote it.
    let mut oldest = index.visible + 1;
    let mut number = active.map_or(0, |active| u64::from(active.segment.id.0) + 1);
    let mut found = VecDeque::new();
    for state in newest_first {
        let id = u64::from(state.segment.id.0);
        if state.seqnos.max + 1 == oldest && id < number {
            (oldest, number) = (state.seqnos.min, id);
            found.push_front(state.clone());
            if oldest <= seqno {
                return Ok(found);
            }
        }
    }
    Err(Error::HistoryGone { from: seqno, oldest })
}
