//! The threads of a store: one that builds hints, drops what has expired and compacts; one that
//! syncs for `Durability::Interval` and has what was appended written out; one that merges the
//! keydir. They sleep until there is something to do.

use std::sync::Arc;
use std::time::Duration;

use crate::compaction;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::stats::CompactionProgress;
use crate::storage::give_memory_back;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Instant, Mutex};

/// How a thread is woken, and told to stop.
#[derive(Debug)]
pub(crate) struct Signal {
    state: Mutex<State>,
    changed: Condvar,
    stopping: AtomicBool,
    /// Bytes written since the open.
    written: AtomicU64,
    /// How many they were when the thread was last woken for them.
    looked_at: AtomicU64,
    /// After how many it is woken again.
    look_every: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    woken: bool,
    due: Option<Instant>,
}

/// Why a thread was woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Woken {
    /// It is to end.
    Stop,
    /// What it was [due](Signal::due) for has come.
    Due,
    /// Anything else.
    Look,
}

/// The background thread looks at the segments' figures after this many bytes were written, or a
/// sixteenth of a segment: with the store grows the number of segments that there are to look at.
const LOOK_EVERY_BYTES_MIN: u64 = 256 * 1024;
/// Keys that expire close together are taken out together.
const SWEEP_PAUSE_MIN: Duration = Duration::from_millis(50);
/// A clock may jump: expiry is looked at this often even if nothing is due.
const SWEEP_PAUSE_MAX: Duration = Duration::from_secs(10);
/// A store is at rest when so little was written…
const REST_BYTES: u64 = 1024 * 1024;
/// …in such a time.
const REST_AFTER: Duration = Duration::from_secs(1);
/// After a failure compaction rests this long.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);
/// What a merge of the keydir has freed serves the next one, if that comes as soon as this.
const MEMORY_KEPT_FOR: Duration = Duration::from_millis(500);
/// How many expired keys are taken out under one hold of the index's lock.
const SWEEP_CHUNK: usize = 1024;

impl Signal {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
            written: AtomicU64::new(0),
            looked_at: AtomicU64::new(0),
            look_every: AtomicU64::new(LOOK_EVERY_BYTES_MIN),
        }
    }

    /// Writes have made the log longer.
    pub(crate) fn wrote(&self, bytes: u64) {
        let written = self.written.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let since = written.saturating_sub(self.looked_at.load(Ordering::Relaxed));
        if since >= self.look_every.load(Ordering::Relaxed) {
            self.looked_at.store(written, Ordering::Relaxed);
            self.wake();
        }
    }

    /// Segments have this size now.
    pub(crate) fn look_by_segments_of(&self, bytes: u64) {
        self.look_every.store(LOOK_EVERY_BYTES_MIN.max(bytes / 16), Ordering::Relaxed);
    }

    pub(crate) fn wake(&self) {
        self.state.lock().woken = true;
        self.changed.notify_all();
    }

    /// Wakes the thread at `at`, or sooner if it was due sooner.
    pub(crate) fn due(&self, at: Instant) {
        let mut state = self.state.lock();
        if state.due.is_none_or(|due| at < due) {
            state.due = Some(at);
            drop(state);
            self.changed.notify_all();
        }
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Sleeps until woken, due, or at latest for `timeout`.
    fn wait(&self, timeout: Option<Duration>) -> Woken {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut state = self.state.lock();
        let is_due = loop {
            let now = Instant::now();
            let is_due = state.due.is_some_and(|due| due <= now);
            let until = [deadline, state.due].into_iter().flatten().min();
            if self.is_stopping() || state.woken || until.is_some_and(|until| until <= now) {
                break is_due;
            }
            match until {
                Some(until) => {
                    self.changed.wait_until(&mut state, until);
                }
                None => self.changed.wait(&mut state),
            }
        };
        state.woken = false;
        if self.is_stopping() {
            return Woken::Stop;
        }
        if is_due {
            state.due = None;
            return Woken::Due;
        }
        Woken::Look
    }

    /// Sleeps for `pause` unless told to stop; returns false then.
    pub(crate) fn pause(&self, pause: Duration) -> bool {
        let deadline = Instant::now() + pause;
        let mut state = self.state.lock();
        while !self.is_stopping() && Instant::now() < deadline {
            self.changed.wait_until(&mut state, deadline);
        }
        !self.is_stopping()
    }
}

/// Starts the background thread.
///
/// # Errors
/// [`Error::Io`] where the operating system has no thread to give.
pub(crate) fn start_worker(core: &Arc<Core>) -> Result<JoinHandle<()>> {
    let core = core.clone();
    start("pakv-compaction", core, |core| {
        // An open may have found hints to rebuild or garbage left.
        let mut again = Some(Duration::ZERO);
        let mut lull = Lull::begin(core);
        while core.worker.wait(again) != Woken::Stop {
            lull.look(core);
            again = match core.housekeep(core.options.compaction_rate, lull.is_rest, &mut |_| ()) {
                Ok(()) => {
                    let may_rest = !lull.is_rest && compaction::is_over_at_rest(core);
                    let rest = may_rest.then_some(REST_AFTER);
                    rest.into_iter().chain(core.until_next_expiry()).min()
                }
                Err(error) => {
                    core.compaction_stats.lock().last_error = Some(error.to_string());
                    Some(PAUSE_AFTER_ERROR)
                }
            };
        }
    })
}

/// Tells when nobody writes, or hardly anybody.
struct Lull {
    /// The end of the time that is looked at.
    until: Instant,
    /// How many bytes had been written at its beginning.
    written: u64,
    is_rest: bool,
}

impl Lull {
    fn begin(core: &Core) -> Self {
        let written = core.worker.written.load(Ordering::Relaxed);
        Self { until: Instant::now() + REST_AFTER, written, is_rest: false }
    }

    fn look(&mut self, core: &Core) {
        let written = core.worker.written.load(Ordering::Relaxed);
        if written - self.written >= REST_BYTES {
            *self = Self::begin(core);
        } else if Instant::now() >= self.until {
            *self = Self { is_rest: true, ..Self::begin(core) };
        }
    }
}

/// Starts the thread that syncs when `Durability::Interval` has it due, and has written out what
/// others append.
///
/// # Errors
/// [`Error::Io`] where the operating system has no thread to give.
pub(crate) fn start_syncer(core: &Arc<Core>) -> Result<JoinHandle<()>> {
    start("pakv-sync", core.clone(), |core| {
        loop {
            match core.syncer.wait(None) {
                Woken::Stop => break,
                Woken::Look => core.write_out_active(),
                // A failure has poisoned the store, which is how writers learn of it.
                Woken::Due if core.sync_active().is_err() => break,
                Woken::Due => {}
            }
        }
    })
}

/// Starts the thread that merges the keydir.
///
/// # Errors
/// [`Error::Io`] where the operating system has no thread to give.
pub(crate) fn start_merger(core: &Arc<Core>) -> Result<JoinHandle<()>> {
    start("pakv-keydir", core.clone(), |core| {
        let mut next_look = None;
        while core.merger.wait(next_look) != Woken::Stop {
            let has_merged = core.merge_keydir();
            if !has_merged && next_look.is_some() {
                give_memory_back();
            }
            next_look = has_merged.then_some(MEMORY_KEPT_FOR);
        }
    })
}

fn start(name: &str, core: Arc<Core>, body: fn(&Core)) -> Result<JoinHandle<()>> {
    let path = core.storage.path().to_path_buf();
    thread::Builder::new()
        .name(name.to_string())
        .spawn(move || {
            let poison = PoisonOnPanic(&core);
            body(&core);
            std::mem::forget(poison);
        })
        .map_err(Error::io("start a thread for", path.as_path()))
}

/// A bug in a background thread must not go unnoticed: the store refuses writes after it.
struct PoisonOnPanic<'a>(&'a Core);

impl Drop for PoisonOnPanic<'_> {
    fn drop(&mut self) {
        let reason = "a background thread panicked".to_string();
        self.0.poison(&Error::Poisoned { reason });
    }
}

impl Core {
    /// Everything that the background thread is for, until nothing is left to do; compaction at
    /// `rate` bytes a second, or without a limit; `resting` as in [`compaction::run_planned`].
    pub(crate) fn housekeep(
        &self,
        rate: Option<u64>,
        resting: bool,
        progress: &mut dyn FnMut(CompactionProgress),
    ) -> Result<()> {
        self.sweep();
        // A hint that a full disk has no room for is no reason not to make room.
        let hints = compaction::build_hints(self);
        let compacted = self.compact_as_planned(rate, resting, progress);
        // Nothing more is to be done, or can be: no reason to wait for it.
        self.pressure.release();
        compacted.and(hints)
    }

    fn compact_as_planned(
        &self,
        rate: Option<u64>,
        resting: bool,
        progress: &mut dyn FnMut(CompactionProgress),
    ) -> Result<()> {
        while !self.worker.is_stopping()
            && !self.is_poisoned()
            && compaction::run_planned(self, rate, resting, progress)?
        {
            self.sweep();
        }
        Ok(())
    }

    /// Takes expired keys out of the keydir, a few at a time.
    pub(crate) fn sweep(&self) {
        let now_ms = self.now_ms();
        while self.index.write().sweep_expired(now_ms, SWEEP_CHUNK) == SWEEP_CHUNK {}
    }

    /// A segment was sealed: it wants a hint. Without a background thread that is done here and
    /// now.
    pub(crate) fn after_seal(&self) {
        if self.options.background {
            self.worker.wake();
        } else if let Err(error) = compaction::build_hints(self) {
            // A hint can always be built later; the next open does.
            self.compaction_stats.lock().last_error = Some(error.to_string());
        }
    }

    fn until_next_expiry(&self) -> Option<Duration> {
        let next_ms = self.index.read().next_expiry_ms()?;
        let left = Duration::from_millis(next_ms.saturating_sub(self.now_ms()));
        Some(left.clamp(SWEEP_PAUSE_MIN, SWEEP_PAUSE_MAX))
    }
}
