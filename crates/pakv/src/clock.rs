//! Time, as expiry sees it. The engine asks one [`Clock`] for the time and nothing else, so that a
//! test decides to the millisecond when a key expires.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where a store takes the time from: milliseconds since the Unix epoch.
///
/// Only expiry looks at it. The order of writes is their sequence number's and no clock can change
/// it. A clock that is set back only makes keys live longer: one that had expired may be there again
/// after the next open, and so may one that was deleted once it had expired, since there was nothing
/// to delete then.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The time now, in milliseconds since 1970-01-01T00:00:00Z.
    fn now_ms(&self) -> u64;
}

/// The clock of the operating system. The default.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        unix_ms(SystemTime::now())
    }
}

/// A clock that stands still until it is told to move: for tests of code that uses expiry.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use pakv::{Expiry, ManualClock, Options};
///
/// # let dir = tempfile::tempdir()?;
/// let clock = Arc::new(ManualClock::new(1_000));
/// let db = Options::new().clock(clock.clone()).open(dir.path())?;
/// db.set_with_expiry("session", "ann", Expiry::After(Duration::from_millis(50)))?;
/// clock.advance(Duration::from_millis(49));
/// assert!(db.contains("session")?);
/// clock.advance(Duration::from_millis(1));
/// assert!(!db.contains("session")?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that shows `now_ms` milliseconds since the epoch.
    pub fn new(now_ms: u64) -> Self {
        Self(AtomicU64::new(now_ms))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(duration_ms(by), Ordering::SeqCst);
    }

    /// Sets the clock, backwards too.
    pub fn set_ms(&self, now_ms: u64) {
        self.0.store(now_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// When a value stops being there.
///
/// Expiry is exact to the millisecond: at the instant it names and ever after, the key is not
/// there, for reads, scans, snapshots and conditions alike; a value that it replaced does not come
/// back. Fractions of a millisecond are dropped. A conditional write is decided at one instant: what
/// expires while that write is on its way to the disk is written all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expiry {
    /// The value stays until it is overwritten or deleted. The default.
    #[default]
    Never,
    /// The value stays this long from the moment of the call.
    After(Duration),
    /// The value stays until this instant. One that has passed already makes a value that was never
    /// there.
    At(SystemTime),
}

impl Expiry {
    /// The instant in milliseconds since the epoch, or `None` for "never".
    pub(crate) fn at_ms(self, clock: &dyn Clock) -> Option<u64> {
        match self {
            Expiry::Never => None,
            Expiry::After(ttl) => Some(clock.now_ms().saturating_add(duration_ms(ttl))),
            Expiry::At(instant) => Some(unix_ms(instant)),
        }
    }
}

/// How much longer a key will be there: what [`Db::ttl`](crate::Db::ttl) answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// It has no expiry.
    Forever,
    /// It expires after this long; whole milliseconds, at least one.
    Left(Duration),
}

/// Whether something that expires at `expires_at_ms` is gone at `now_ms`.
pub(crate) fn is_expired(expires_at_ms: Option<u64>, now_ms: u64) -> bool {
    expires_at_ms.is_some_and(|at| now_ms >= at)
}

/// An instant before the epoch counts as the epoch: it has passed either way.
fn unix_ms(instant: SystemTime) -> u64 {
    instant.duration_since(UNIX_EPOCH).map_or(0, duration_ms)
}

fn duration_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
