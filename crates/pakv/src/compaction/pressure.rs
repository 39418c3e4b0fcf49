//! What a store's size means for those who write to it: how large the active segment may get, and,
//! where compaction does not keep up, how long a write waits.
//!
//! A wait is in proportion to the bytes written and grows with what the store takes beyond its
//! bound, so that writers slow down to what compaction can do, and are never stopped. A write asks
//! one atomic, which is zero nearly always.

use std::time::{Duration, Instant};

use super::plan::Policy;
use crate::core::Core;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::thread;

/// The pressure (0 at the bound on space, see [`Space::pressure`]) from which on compaction goes as
/// fast as it can and writers wait.
pub(crate) const BRAKED_FROM: f64 = 0.5;
/// There a byte waits for 2 nanoseconds, 500 MB/s, which hardly anybody notices; with each half of a
/// unit of pressure more 128 times as long…
const DOUBLINGS_PER_UNIT: f64 = 14.0;
/// …up to 1 µs, 1 MB/s.
const DELAY_MAX_NS: f64 = 1024.0;
/// Waits are saved up until they are this long: few writes wait, and those for a moment.
const WAIT_MIN: Duration = Duration::from_millis(2);
/// The longest that one write waits, however large it is.
const WAIT_MAX: Duration = Duration::from_millis(20);
/// Segments are made no smaller than this for the sake of a small store, unless the options say so.
const SEGMENT_BYTES_MIN: u64 = 1024 * 1024;

#[derive(Debug)]
pub(crate) struct Pressure {
    /// How long 1024 written bytes wait, in nanoseconds.
    delay_ns_per_kib: AtomicU64,
    /// When the next write may go on, in nanoseconds since `epoch`.
    due_ns: AtomicU64,
    epoch: Instant,
    segment_bytes: AtomicU64,
}

impl Pressure {
    pub(crate) fn new(segment_bytes: u64) -> Self {
        Self {
            delay_ns_per_kib: AtomicU64::new(0),
            due_ns: AtomicU64::new(0),
            epoch: Instant::now(),
            segment_bytes: AtomicU64::new(segment_bytes),
        }
    }

    /// The size at which the active segment is sealed.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segment_bytes.load(Ordering::Relaxed)
    }

    /// Slows down a writer of so many bytes as far as compaction needs it. Called with no lock held.
    pub(crate) fn wait(&self, bytes: u64) {
        let delay = self.delay_ns_per_kib.load(Ordering::Relaxed);
        if delay > 0 && bytes > 0 {
            self.wait_for(bytes.saturating_mul(delay) / 1024);
        }
    }

    /// All writers share one schedule: twice as many wait twice as long.
    #[cold]
    fn wait_for(&self, cost_ns: u64) {
        let now = u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let wait_max = WAIT_MAX.as_nanos() as u64;
        let due_after = |due: u64| due.max(now).saturating_add(cost_ns).min(now + 10 * wait_max);
        let due = self
            .due_ns
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |due| Some(due_after(due)))
            .map_or(now, due_after);
        let wait = Duration::from_nanos((due - now).min(wait_max));
        if wait >= WAIT_MIN {
            thread::sleep(wait);
        }
    }

    /// Nobody waits any more: compaction cannot help, or needs not.
    pub(crate) fn release(&self) {
        self.delay_ns_per_kib.store(0, Ordering::Relaxed);
    }

    fn set(&self, pressure: f64) {
        let delay_ns = match pressure - BRAKED_FROM {
            over if over < 0.0 => 0.0,
            over => (2.0 * (over * DOUBLINGS_PER_UNIT).exp2()).min(DELAY_MAX_NS),
        };
        self.delay_ns_per_kib.store((delay_ns * 1024.0) as u64, Ordering::Relaxed);
    }
}

/// When compaction starts and by what steps it goes.
pub(crate) fn policy(core: &Core, resting: bool) -> Policy {
    let options = &core.options;
    Policy {
        space_amplification: options.space_amplification,
        segment_garbage_ratio: options.segment_garbage_ratio,
        min_garbage_bytes: options.min_garbage_bytes,
        segment_bytes: options.segment_bytes,
        segment_bytes_min: SEGMENT_BYTES_MIN,
        resting,
        may_seal: true,
    }
}

/// Looks at what the store takes, less what the run under way has given back, and sets what follows
/// from it for writers. Returns the pressure.
pub(crate) fn look(core: &Core, reclaimed: u64) -> f64 {
    let policy = policy(core, false);
    let space = super::space(core);
    let pressure = space.pressure(&policy, reclaimed);
    let segment_bytes = space.segment_bytes(&policy);
    core.pressure.segment_bytes.store(segment_bytes, Ordering::Relaxed);
    core.worker.look_by_segments_of(segment_bytes);
    core.pressure.set(pressure);
    pressure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_wait_from_half_the_pressure_on_and_never_for_ever() {
        let pressure = Pressure::new(1);
        let delay = |value: f64| {
            pressure.set(value);
            pressure.delay_ns_per_kib.load(Ordering::Relaxed)
        };
        assert_eq!((delay(-3.0), delay(0.0), delay(0.49)), (0, 0, 0));
        assert_eq!(delay(0.5), 2 * 1024);
        assert_eq!(delay(1.0), 256 * 1024);
        assert_eq!((delay(2.0), delay(f64::MAX)), (1024 * 1024, 1024 * 1024));
        pressure.release();
        assert_eq!(pressure.delay_ns_per_kib.load(Ordering::Relaxed), 0);
    }

    /// However many bytes: the schedule does not run ahead of what anybody waits for.
    #[test]
    fn a_giant_write_waits_no_longer_than_any_other() {
        let pressure = Pressure::new(1);
        pressure.set(f64::MAX);
        for _ in 0..3 {
            pressure.wait(u64::MAX);
        }
        let ahead = pressure.due_ns.load(Ordering::Relaxed)
            - u64::try_from(pressure.epoch.elapsed().as_nanos()).expect("a short while");
        assert!(ahead <= 10 * WAIT_MAX.as_nanos() as u64);
    }

    /// A brake that nobody takes off would hold all writes to a megabyte a second.
    #[test]
    fn a_compaction_that_was_asked_for_leaves_nobody_waiting() {
        let dir = tempfile::tempdir().expect("a directory");
        let options = crate::Options::new()
            .durability(crate::Durability::Buffered)
            .background_compaction(false);
        let db = options.open(dir.path()).expect("it opens");
        for _ in 0..3_000 {
            db.set("key", vec![b'.'; 1_000]).expect("set succeeds");
        }
        db.compact().expect("compact succeeds");
        let delay = || db.core().pressure.delay_ns_per_kib.load(Ordering::Relaxed);
        assert_eq!(delay(), 0);
        for _ in 0..3_000 {
            db.set("key", vec![b'.'; 1_000]).expect("set succeeds");
        }
        db.maintain().expect("maintain succeeds");
        assert_eq!(delay(), 0);
    }
}
