//! What the programs that measure print of times, and how they say when something was written.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970: a stamp that another process can take the age of.
pub fn now_ns() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}

/// How long ago a stamp was written, in seconds; `None` where it is none.
pub fn age(stamp: &[u8]) -> Option<f64> {
    let stamp: u128 = std::str::from_utf8(stamp).ok()?.parse().ok()?;
    Some(now_ns().saturating_sub(stamp) as f64 / 1e9)
}

/// Times in seconds, in words.
pub fn spread(seconds: &mut [f64]) -> String {
    seconds.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (seconds.len() as f64 * share) as usize;
        seconds.get(index.min(seconds.len().saturating_sub(1))).map_or(0.0, |value| value * 1e3)
    };
    format!("p50 {:.2} ms, p99 {:.2} ms, most {:.2} ms", at(0.5), at(0.99), at(1.0))
}
