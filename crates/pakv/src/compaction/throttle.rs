//! How fast compaction may read and write: the foreground comes first while the store is within its
//! bound, space once it is not.

use std::time::{Duration, Instant};

use crate::core::Core;
use crate::error::{Error, Result};

/// How often the pace is looked at, in bytes.
const STEP_BYTES: u64 = 1024 * 1024;
/// The longest single rest.
const REST_MAX: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Throttle {
    rate: Option<u64>,
    since_step: u64,
    step_started: Instant,
}

impl Throttle {
    /// `rate`: bytes a second, or no limit.
    pub(crate) fn new(rate: Option<u64>) -> Self {
        Self { rate, since_step: 0, step_started: Instant::now() }
    }

    /// Counts bytes that were read or written, and rests where that was too fast.
    ///
    /// # Errors
    /// [`Error::Closed`] when the store is closing: the run ends here.
    pub(crate) fn moved(&mut self, core: &Core, bytes: u64) -> Result<()> {
        self.since_step += bytes;
        if self.since_step < STEP_BYTES {
            return Ok(());
        }
        if core.worker.is_stopping() {
            return Err(Error::Closed);
        }
        if let Some(rate) = self.rate.and_then(|rate| faster_under_pressure(core, rate)) {
            let micros = self.since_step.saturating_mul(1_000_000) / rate;
            let rest = Duration::from_micros(micros).saturating_sub(self.step_started.elapsed());
            if !rest.is_zero() && !core.worker.pause(rest.min(REST_MAX)) {
                return Err(Error::Closed);
            }
        }
        self.since_step = 0;
        self.step_started = Instant::now();
        Ok(())
    }
}

/// The rate grows eightfold on the way from the bound to a quarter more of overhead than it allows,
/// and has no limit past that (`None`): at the default bound of 1.4, from 1.5 times the live bytes
/// on.
fn faster_under_pressure(core: &Core, rate: u64) -> Option<u64> {
    let (total, live) = {
        let index = core.index.read();
        let states = index.segments.values();
        states.fold((0, 0), |(total, live), state| {
            let bytes = u64::from(state.bytes) + state.hint_bytes.unwrap_or(0);
            (total + bytes, live + state.live_bytes)
        })
    };
    let overhead_allowed = core.options.space_amplification - 1.0;
    let overhead = total.saturating_sub(live) as f64 / live.max(1) as f64;
    let pressure = (overhead / overhead_allowed - 1.0) / 0.25;
    if pressure >= 1.0 {
        return None;
    }
    let factor = 1.0 + 7.0 * pressure.max(0.0);
    Some((rate as f64 * factor) as u64)
}
