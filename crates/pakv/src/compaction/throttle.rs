//! How fast compaction may read and write: the foreground comes first while the store is within its
//! bound, space once it is not. In small steps with small rests between them: who gets and sets
//! meanwhile finds a processor and a disk that are never taken for long.

use std::time::{Duration, Instant};

use super::pressure;
use crate::core::Core;
use crate::error::{Error, Result};

/// How often the pace is looked at, in bytes.
const STEP_BYTES: u64 = 64 * 1024;
/// Shorter rests are saved up: a sleep has a cost of its own.
const REST_MIN: Duration = Duration::from_micros(300);
/// The longest single rest.
const REST_MAX: Duration = Duration::from_millis(20);
/// What was missed further back is not made up for.
const MADE_UP_MAX: Duration = Duration::from_millis(20);
/// How often pressure is looked at: it costs a look at every segment.
const LOOK_EVERY: Duration = Duration::from_millis(4);

#[derive(Debug)]
pub(crate) struct Throttle {
    /// Bytes a second while nothing presses, or no limit.
    rate: Option<u64>,
    /// The same under the pressure that was last seen.
    rate_now: Option<u64>,
    since_step: u64,
    /// What this run has given back, as soon as it is published.
    reclaimed: u64,
    /// When the bytes moved so far would have been at the rate.
    due: Instant,
    looked: Option<Instant>,
}

impl Throttle {
    /// `rate`: bytes a second, or no limit.
    pub(crate) fn new(rate: Option<u64>) -> Self {
        Self {
            rate,
            rate_now: rate,
            since_step: 0,
            reclaimed: 0,
            due: Instant::now(),
            looked: None,
        }
    }

    /// Counts bytes that were read and those of them that were written again, and rests where that
    /// was too fast.
    ///
    /// # Errors
    /// [`Error::Closed`] when the store is closing: the run ends here.
    pub(crate) fn moved(&mut self, core: &Core, read: u64, written: u64) -> Result<()> {
        self.since_step += read + written;
        self.reclaimed += read.saturating_sub(written);
        if self.since_step < STEP_BYTES {
            return Ok(());
        }
        if core.worker.is_stopping() {
            return Err(Error::Closed);
        }
        let now = Instant::now();
        if self.looked.is_none_or(|looked| now - looked >= LOOK_EVERY) {
            self.looked = Some(now);
            let pressure = pressure::look(core, self.reclaimed);
            self.rate_now = self.rate.and_then(|rate| faster_under(pressure, rate));
        }
        let step = std::mem::take(&mut self.since_step);
        match self.rate_now {
            Some(rate) => self.rest(core, now, step, rate),
            None => {
                self.due = now;
                Ok(())
            }
        }
    }

    fn rest(&mut self, core: &Core, now: Instant, step: u64, rate: u64) -> Result<()> {
        let begun = now.checked_sub(MADE_UP_MAX).map_or(self.due, |past| self.due.max(past));
        self.due = begun + Duration::from_micros(step.saturating_mul(1_000_000) / rate);
        let rest = self.due.saturating_duration_since(now);
        if rest < REST_MIN {
            return Ok(());
        }
        // A step is a single record at the least, and that can be large.
        self.due = self.due.min(now + REST_MAX);
        match core.worker.pause(rest.min(REST_MAX)) {
            true => Ok(()),
            false => Err(Error::Closed),
        }
    }
}

/// The rate grows eightfold on the way to half the pressure at which writers would be slowed most,
/// and has no limit past that (`None`).
fn faster_under(pressure: f64, rate: u64) -> Option<u64> {
    if pressure >= super::pressure::BRAKED_FROM {
        return None;
    }
    let factor = 1.0 + 7.0 * (pressure / super::pressure::BRAKED_FROM).max(0.0);
    Some((rate as f64 * factor) as u64)
}
