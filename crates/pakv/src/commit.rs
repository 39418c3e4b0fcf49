//! The write path: any number of threads, one order, one append and at most one sync for all that
//! wait together.
//!
//! A writer takes the queue's lock, gets its sequence numbers and encodes its records into the
//! pending group. If no leader is at work it leads: it takes the group, and without the queue's
//! lock appends it with one write, syncs it if any member asked, publishes it to the index and
//! wakes the rest. Meanwhile the next group gathers.
//!
//! Invariants: the order of sequence numbers is the order of bytes in the log; nothing is published
//! before it is as durable as its writers asked; after a failed write, sync or seal nothing is
//! acknowledged any more.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::active::Active;
use crate::clock::is_expired;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::format::frame::{self, FRAME_HEADER_BYTES};
use crate::format::record::{Op, Record};
use crate::format::{Location, SeqNo};
use crate::keydir::FETCH_AHEAD;
use crate::limits::MAX_BATCH_BYTES;
use crate::options::Durability;
use crate::planted::{Bug, planted};
use crate::segment::{encode_error, op_entry};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::thread::{self, ThreadId};
use crate::sync::{Instant, MutexGuard, OnceLock, loses_this_wake, plain};

/// A group takes no more members past this size: the first of them would wait too long.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A buffer that grew past this for a large value is not kept.
const BUFFER_KEPT_BYTES: usize = 8 * 1024 * 1024;

/// A leader waits for others at most for this share of what the last sync took, and never longer
/// than this.
const GATHER_SHARE: u32 = 3;
const GATHER_MAX: Duration = Duration::from_micros(200);
/// Before it sleeps a follower lets other threads have their turns for as long as the last sync
/// took and half as long again, if that is not longer than this: to sleep and be woken takes two
/// processors 11 µs each time (Linux 6.18), a turn less than one.
const TURNS_MAX: Duration = Duration::from_micros(300);
/// The same where no sync is waited for, but a write.
const TURNS_BUFFERED: Duration = Duration::from_micros(20);
/// Neither is for more turns than these.
const TURNS_COUNT_MAX: u32 = if cfg!(shuttle) { 2 } else { 10_000 };

/// Writers that wait, and what the next of them must know.
#[derive(Debug)]
pub(crate) struct Queue {
    pending: Box<Group>,
    /// The group before, emptied, for its buffers.
    spare: Option<Box<Group>>,
    /// Hashes of the keys that a leader is writing now.
    in_flight: Vec<u32>,
    leading: bool,
    next_seqno: SeqNo,
    /// How many bytes before the pending group's first are not known durable; never too few.
    unsynced: u32,
    transaction: Option<ThreadId>,
    closing: bool,
    /// How many writers wanted a sync when the last was over: its group, and who waited behind it.
    sync_members: u32,
    /// How long it took.
    sync_took: Duration,
}

impl Queue {
    pub(crate) fn new(next_seqno: SeqNo, active: Option<&Active>) -> Self {
        Self {
            pending: Box::default(),
            spare: None,
            in_flight: Vec::new(),
            leading: false,
            next_seqno,
            unsynced: active.map_or(0, |active| active.bytes - active.synced),
            transaction: None,
            closing: false,
            sync_members: 0,
            sync_took: Duration::ZERO,
        }
    }

    fn is_idle(&self) -> bool {
        !self.leading && self.pending.is_empty()
    }

    fn is_in_flight(&self, key: &[u8]) -> bool {
        let hash = key_hash(key);
        self.in_flight.contains(&hash) || self.pending.hashes.contains(&hash)
    }
}

/// Writes that are appended together.
#[derive(Debug, Default)]
struct Group {
    /// Their records, framed, checksums not yet sealed.
    buffer: Vec<u8>,
    /// One for each record, in order.
    hashes: Vec<u32>,
    /// The number of the first record.
    first_seqno: SeqNo,
    /// Whether one of the records expires.
    expires: bool,
    /// The indices of the records whose key was there before, once they are published and somebody
    /// who does not lead wants to know.
    existed: Vec<usize>,
    /// The soonest that a member wants to be synced without waiting.
    sync_within: Option<Duration>,
    /// How many members wait for a sync.
    sync_members: u32,
    /// Where the members that do not lead wait for the result.
    shared: Option<Arc<Shared>>,
}

impl Group {
    fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.durability() == Durability::Buffered
    }

    fn wants_sync(&self) -> bool {
        self.sync_members > 0
    }

    /// The strictest that a member asked for.
    fn durability(&self) -> Durability {
        match self.sync_within {
            _ if self.wants_sync() => Durability::Sync,
            Some(within) => Durability::Interval(within),
            None => Durability::Buffered,
        }
    }

    fn reset(&mut self) {
        self.buffer.clear();
        self.hashes.clear();
        if self.buffer.capacity() > BUFFER_KEPT_BYTES {
            self.buffer.shrink_to(BUFFER_KEPT_BYTES);
            self.hashes.shrink_to(BUFFER_KEPT_BYTES / 8);
        }
        self.existed.clear();
        (self.expires, self.sync_members, self.sync_within, self.shared) = (false, 0, None, None);
    }
}

/// Where the members of a group that do not lead it wait. With a lock of their own, and the standard
/// library's: it wakes all of them by one call, and none of them waits for the queue.
#[derive(Debug, Default)]
struct Shared {
    result: OnceLock<GroupResult>,
    /// Whether one of them is to lead.
    leads: AtomicBool,
    sleepers: plain::Mutex<()>,
    told: plain::Condvar,
}

impl Shared {
    /// The result, or nothing for the one that is to lead. Gives others their turns for `turns`
    /// before it sleeps.
    fn wait(&self, turns: Duration) -> Option<&GroupResult> {
        let started = Instant::now();
        for _ in 0..TURNS_COUNT_MAX {
            if let Some(news) = self.news() {
                return news;
            }
            if started.elapsed() >= turns {
                break;
            }
            thread::yield_now();
        }
        let mut asleep = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(news) = self.news() {
                return news;
            }
            asleep = self.told.wait(asleep).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What [`wait`](Self::wait) waits for.
    fn news(&self) -> Option<Option<&GroupResult>> {
        if let Some(result) = self.result.get() {
            return Some(Some(result));
        }
        self.leads.swap(false, Ordering::AcqRel).then_some(None)
    }

    fn wake_leader(&self) {
        self.leads.store(true, Ordering::Release);
        self.wake(plain::Condvar::notify_one);
    }

    /// Called when the result is there.
    fn wake_all(&self) {
        self.wake(plain::Condvar::notify_all);
    }

    fn wake(&self, notify: impl FnOnce(&plain::Condvar)) {
        // Nobody is between looking and sleeping any more.
        drop(self.sleepers.lock());
        if !loses_this_wake() {
            notify(&self.told);
        }
    }
}

/// What became of a group: the indices of the records whose key was there before, or why it failed.
type GroupResult = std::result::Result<Vec<usize>, String>;

/// The operations of one writer and where their records are among those of its group.
#[derive(Debug, Clone, Copy)]
struct Own<'a> {
    ops: &'a [Op<'a>],
    first: usize,
}

impl<'a> Own<'a> {
    /// The operation that became the record with this index, if it is one of these.
    fn op(&self, index: usize) -> Option<&'a Op<'a>> {
        self.ops.get(index.checked_sub(self.first)?)
    }

    /// The next few operations, where those from this index on are the first that were not among a
    /// few before.
    fn ops_from(&self, index: usize) -> &'a [Op<'a>] {
        let at = index.checked_sub(self.first).filter(|at| at.is_multiple_of(FETCH_AHEAD));
        let rest = at.and_then(|at| self.ops.get(at..)).unwrap_or_default();
        // A single one gains nothing.
        if rest.len() > 1 { rest.get(..FETCH_AHEAD).unwrap_or(rest) } else { &[] }
    }

    /// The index of the last record; an empty one has none.
    fn last(&self) -> Option<usize> {
        (self.first + self.ops.len()).checked_sub(1).filter(|_| !self.ops.is_empty())
    }
}

/// What a writer asks for besides its operations.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) durability: Durability,
    /// Write only if this still holds.
    pub(crate) condition: Option<Condition<'a>>,
    /// The writer is the transaction that all others wait for.
    pub(crate) in_transaction: bool,
}

/// What a conditional write was decided by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Condition<'a> {
    pub(crate) key: &'a [u8],
    /// The key's newest record; `None`: the keydir has no entry.
    pub(crate) seqno: Option<SeqNo>,
    /// Whether it had not expired.
    pub(crate) is_there: bool,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Written; whether the key of the last operation was there before.
    Written { existed: bool },
    /// The condition did not hold; nothing was written.
    ConditionFailed,
}

impl Core {
    /// Writes `ops` as one batch; returns once it is as durable as asked and visible.
    ///
    /// # Errors
    /// What makes a write impossible ([`Error::Closed`], [`Error::ReadOnly`], [`Error::Poisoned`],
    /// [`Error::TransactionOpen`], [`Error::BatchTooLarge`]); [`Error::Io`] where the append or the
    /// sync failed: the store is poisoned and whether the write survives is only known after the
    /// next open.
    pub(crate) fn commit(&self, ops: &[Op<'_>], request: Request<'_>) -> Result<Outcome> {
        let bytes_max: u64 = ops.iter().map(Op::bytes_max).sum();
        if bytes_max > MAX_BATCH_BYTES {
            return Err(Error::BatchTooLarge { len: bytes_max, limit: MAX_BATCH_BYTES });
        }
        self.pressure.wait(bytes_max);
        let mut queue = self.enter(&request)?;
        if let Some(Condition { key, seqno, is_there }) = request.condition {
            // Expiry is asked again: the wait may have been long, and what was found to have
            // expired meanwhile must not come back.
            let newest = self.index.read().keydir.get(key);
            let expires_at_ms = newest.and_then(|entry| entry.expires_at_ms());
            if newest.map(|entry| entry.seqno) != seqno
                || (is_there && is_expired(expires_at_ms, self.now_ms()))
            {
                return Ok(Outcome::ConditionFailed);
            }
        }
        if ops.is_empty() && queue.is_idle() && queue.unsynced == 0 {
            return Ok(Outcome::Written { existed: false });
        }
        let own = Own { ops, first: queue.pending.hashes.len() };
        enqueue(&mut queue, ops)?;
        match request.durability {
            Durability::Sync => queue.pending.sync_members += 1,
            Durability::Interval(every) => {
                let within = queue.pending.sync_within.unwrap_or(every);
                queue.pending.sync_within = Some(within.min(every));
            }
            Durability::Buffered => {}
        }
        let existed = if queue.leading { self.follow(queue, own)? } else { self.lead(queue, own)? };
        Ok(Outcome::Written { existed })
    }

    /// Makes every acknowledged write durable.
    pub(crate) fn sync(&self) -> Result<()> {
        let request =
            Request { durability: Durability::Sync, condition: None, in_transaction: true };
        self.commit(&[], request).map(|_| ())
    }

    /// Begins a transaction: waits for another's end, then for the writes that are under way.
    pub(crate) fn begin_transaction(&self) -> Result<()> {
        let request =
            Request { durability: Durability::Sync, condition: None, in_transaction: false };
        let mut queue = self.enter(&request)?;
        queue.transaction = Some(thread::current().id());
        while !queue.is_idle() {
            self.queue_moved.wait(&mut queue);
        }
        Ok(())
    }

    pub(crate) fn end_transaction(&self) {
        self.queue.lock().transaction = None;
        self.queue_moved.notify_all();
    }

    /// Lets no new writer in and waits until the last one is out.
    pub(crate) fn drain_queue(&self) {
        let mut queue = self.queue.lock();
        queue.closing = true;
        while !queue.is_idle() {
            self.queue_moved.wait(&mut queue);
        }
        drop(queue);
        self.queue_moved.notify_all();
    }

    /// The queue's lock for a writer that may write now: no other's transaction is open, the
    /// pending group has room, and the key that its condition asks about is in no one's unpublished
    /// write. All of that may change while it waits for any of it, so every wait starts over.
    fn enter(&self, request: &Request<'_>) -> Result<MutexGuard<'_, Queue>> {
        let mut queue = self.queue.lock();
        loop {
            self.check_writable()?;
            if queue.closing {
                return Err(Error::Closed);
            }
            let others_transaction = queue.transaction.filter(|_| !request.in_transaction);
            if others_transaction.is_some_and(|owner| owner == thread::current().id()) {
                return Err(Error::TransactionOpen);
            }
            let is_full = queue.pending.buffer.len() > GROUP_BYTES_MAX;
            let is_contended =
                request.condition.is_some_and(|condition| queue.is_in_flight(condition.key));
            if others_transaction.is_none() && !is_full && !is_contended {
                return Ok(queue);
            }
            self.queue_moved.wait(&mut queue);
        }
    }

    /// Waits for the pending group's result, and leads it if the leader before has gone.
    /// Says what [`lead`](Self::lead) does.
    fn follow<'a>(&'a self, mut queue: MutexGuard<'a, Queue>, own: Own<'_>) -> Result<bool> {
        let shared = queue.pending.shared.get_or_insert_default().clone();
        let turns = match queue.pending.wants_sync() {
            true if queue.sync_took <= TURNS_MAX => queue.sync_took + queue.sync_took / 2,
            true => Duration::ZERO,
            false => TURNS_BUFFERED,
        };
        loop {
            drop(queue);
            if let Some(result) = shared.wait(turns) {
                return match result {
                    Ok(existed) => {
                        Ok(own.last().is_some_and(|last| existed.binary_search(&last).is_ok()))
                    }
                    Err(reason) => Err(Error::Poisoned { reason: reason.clone() }),
                };
            }
            queue = self.queue.lock();
            // A result comes with the end of its leader: without either the group is still pending.
            if !queue.leading && shared.result.get().is_none() {
                return self.lead(queue, own);
            }
        }
    }

    /// Takes the pending group, which `own` is in, and carries it out. Says whether the key of the
    /// last of `own` was there before.
    fn lead<'a>(&'a self, mut queue: MutexGuard<'a, Queue>, own: Own<'_>) -> Result<bool> {
        queue.leading = true;
        queue = self.gather(queue);
        let next = queue.spare.take().unwrap_or_default();
        let mut group = std::mem::replace(&mut queue.pending, next);
        queue.in_flight = std::mem::take(&mut group.hashes);
        let bytes = u32::try_from(group.buffer.len()).unwrap_or(u32::MAX);
        queue.unsynced = queue.unsynced.saturating_add(bytes);
        drop(queue);

        let started = group.wants_sync().then(Instant::now);
        let result = self.write_group(&mut group, own);

        let mut queue = self.queue.lock();
        if let Some(started) = started {
            queue.sync_members = group.sync_members + queue.pending.sync_members;
            queue.sync_took = started.elapsed();
        }
        if let Ok((_, unsynced)) = result {
            queue.unsynced = unsynced;
        }
        queue.leading = false;
        group.hashes = std::mem::take(&mut queue.in_flight);
        let result = result.map(|(existed, _)| existed);
        let shared = group.shared.take();
        if let Some(shared) = &shared {
            let existed = std::mem::take(&mut group.existed);
            let told = result.as_ref().map(|_| existed).map_err(Error::poison_reason);
            let _ = shared.result.set(told);
        }
        group.reset();
        queue.spare = Some(group);
        let next = queue.pending.shared.clone();
        drop(queue);
        if !planted(Bug::LoseWakeUp) {
            if let Some(next) = next {
                next.wake_leader();
            }
            self.queue_moved.notify_all();
            if let Some(shared) = shared {
                shared.wake_all();
            }
        }
        result
    }

    /// Waits a moment for as many writers as there were at the last sync, most of whom have just
    /// been woken by it: in one group they share one sync, where they would else fall into two
    /// whose syncs follow each other.
    fn gather<'a>(&'a self, mut queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        let (expected, wait) =
            (queue.sync_members, (queue.sync_took / GATHER_SHARE).min(GATHER_MAX));
        let is_short = |queue: &Queue| (1..expected).contains(&queue.pending.sync_members);
        if !is_short(&queue) {
            return queue;
        }
        let started = Instant::now();
        for _ in 0..TURNS_COUNT_MAX {
            drop(queue);
            thread::yield_now();
            queue = self.queue.lock();
            if !is_short(&queue) || started.elapsed() >= wait {
                break;
            }
        }
        queue
    }

    /// Appends, syncs and publishes a group. Returns whether the key of the last of `own` was there
    /// before, and how many bytes of the active segment are not known durable.
    fn write_group(&self, group: &mut Group, own: Own<'_>) -> Result<(bool, u32)> {
        let mut guard = self.active.lock();
        // Asked again: a group may have failed while this one gathered.
        self.check_writable()?;
        let Some(active) = guard.as_mut() else { return Err(Error::Closed) };
        let start = self
            .append_group(active, group)
            // A sync that failed meanwhile may be one that this group's segment was sealed by.
            .and_then(|start| self.poison.check().map(|()| start))
            .inspect_err(|error| self.poison(error))?;
        let existed = self.publish_group(active, group, own, start);
        let unsynced = active.bytes - active.synced;
        let wants_write_out = active.wants_write_out();
        drop(guard);
        self.worker.wrote(group.buffer.len() as u64);
        if wants_write_out {
            self.syncer.wake();
        }
        if let Some(within) = group.sync_within.filter(|_| unsynced > 0) {
            // An interval past what the clock can count never comes.
            if let Some(due) = Instant::now().checked_add(within) {
                self.syncer.due(due);
            }
        }
        Ok((existed, unsynced))
    }

    /// Returns where the group starts in the active segment.
    fn append_group(&self, active: &mut Active, group: &mut Group) -> Result<u32> {
        let bytes = u32::try_from(group.buffer.len()).unwrap_or(u32::MAX);
        let end = u64::from(active.bytes) + u64::from(bytes);
        let is_full = bytes > 0 && end > self.pressure.segment_bytes() && active.records > 0;
        if is_full && self.may_seal(end) {
            self.rotate(active)?;
        }
        let start = active.bytes;
        seal_frames(&mut group.buffer, active.segment.salt, start);
        active.append(&group.buffer, group.durability(), self.options.segment_bytes)?;
        Ok(start)
    }

    /// Lets readers see a group, all of it at once. Says whether the key of the last of `own` was
    /// there before.
    fn publish_group(
        &self,
        active: &mut Active,
        group: &mut Group,
        own: Own<'_>,
        start: u32,
    ) -> bool {
        if group.buffer.is_empty() {
            return false;
        }
        active.segment.settle(active.bytes);
        let mut own_existed = false;
        let mut index = self.index.write();
        // What nobody's expiry depends on needs no clock.
        let expires = group.expires || index.next_expiry_ms().is_some();
        let now_ms = if expires { self.now_ms() } else { 0 };
        for (record, (offset, bytes)) in frames(&group.buffer).enumerate() {
            index.keydir.fetch(own.ops_from(record).iter().map(Op::key));
            // The leader knows what it wrote itself. What others did was encoded by `enqueue`, so
            // it decodes.
            let body = bytes.get(FRAME_HEADER_BYTES..).unwrap_or_default();
            let op = own.op(record).copied();
            let Some(op) = op.or_else(|| Some(Record::decode(body).ok()?.op)) else { continue };
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let seqno = group.first_seqno + record as u64;
            let location = Location { segment: active.segment.id, offset: start + offset, length };
            let (kind, key) = op_entry(&op);
            if index.publish(key, seqno, kind, location, now_ms) {
                own_existed |= Some(record) == own.last();
                if group.shared.is_some() {
                    group.existed.push(record);
                }
            }
            active.records += 1;
            active.seqnos.add(seqno);
            active.next_seqno = seqno + 1;
            index.visible = seqno;
        }
        let wants_merge = index.keydir.wants_merge();
        drop(index);
        if wants_merge {
            self.keydir_wants_merge();
        }
        own_existed
    }
}

/// Gives `ops` their sequence numbers and encodes them into the pending group, all or none.
fn enqueue(queue: &mut Queue, ops: &[Op<'_>]) -> Result<()> {
    let start = queue.pending.buffer.len();
    let records_before = queue.pending.hashes.len();
    let first_seqno = queue.next_seqno;
    if records_before == 0 {
        queue.pending.first_seqno = first_seqno;
    }
    for (index, op) in ops.iter().enumerate() {
        let before = u32::try_from(queue.pending.buffer.len()).unwrap_or(u32::MAX);
        let record = Record {
            unsynced: queue.unsynced.saturating_add(before),
            seqno: queue.next_seqno,
            batch_rest: u32::try_from(ops.len() - index - 1).unwrap_or(u32::MAX),
            op: *op,
        };
        if let Err(error) = record.append_unsealed(&mut queue.pending.buffer) {
            queue.pending.buffer.truncate(start);
            queue.pending.hashes.truncate(records_before);
            queue.next_seqno = first_seqno;
            return Err(encode_error(error));
        }
        queue.pending.hashes.push(key_hash(op.key()));
        queue.pending.expires |= matches!(op, Op::Set { expires_at_ms: Some(_), .. });
        queue.next_seqno += 1;
    }
    Ok(())
}

/// Tells keys apart well enough to know which writers must wait for each other; equal hashes only
/// cost a wait.
fn key_hash(key: &[u8]) -> u32 {
    // Both ends: keys that differ tend to do so at one of them.
    let first = key.first_chunk::<8>().copied().unwrap_or_else(|| padded(key));
    let last = key.last_chunk::<8>().copied().unwrap_or_default();
    let mixed = u64::from_le_bytes(first) ^ u64::from_le_bytes(last).rotate_left(29);
    // An odd factor without a pattern: 2 to the power of 64 by the golden ratio.
    let product = (mixed ^ key.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (product >> 32) as u32
}

/// The bytes of a short key.
fn padded(key: &[u8]) -> [u8; 8] {
    let mut bytes = [0; 8];
    for (byte, of_key) in bytes.iter_mut().zip(key) {
        *byte = *of_key;
    }
    bytes
}

/// The frames of a buffer that [`enqueue`] filled: offset in the buffer, bytes.
fn frames(buffer: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let mut offset = 0;
    std::iter::from_fn(move || {
        let rest = buffer.get(offset..)?;
        let length = usize::try_from(frame::claimed_len(rest)?).ok()?;
        let bytes = rest.get(..length)?;
        let at = u32::try_from(offset).ok()?;
        offset += length;
        Some((at, bytes))
    })
}

/// Seals every frame of a buffer that will stand at `start`.
fn seal_frames(buffer: &mut [u8], salt: u32, start: u32) {
    let mut offset = 0;
    while let Some(rest) = buffer.get_mut(offset..) {
        let Some(length) = frame::claimed_len(rest).and_then(|length| usize::try_from(length).ok())
        else {
            break;
        };
        let Some(bytes) = rest.get_mut(..length) else { break };
        frame::seal(bytes, salt, start.wrapping_add(offset as u32));
        offset += length;
    }
}
