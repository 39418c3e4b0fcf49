//! Arguments to values: durations, instants, bytes. Pure.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::{Span, SpanRelativeTo, Timestamp};
use pakv::Durability;

const DURATION_EXAMPLES: &str = "write it like 500ms, 90s, 15m, 1h30m or 7d";

/// The bytes of an argument, exactly as they were given.
pub(crate) fn bytes(argument: &OsStr) -> &[u8] {
    argument.as_bytes()
}

/// How long something stays: at least a millisecond.
pub(crate) fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = duration(text)?;
    if ttl.as_millis() == 0 {
        return Err("a key lives for at least 1ms; `rm` removes it now".to_string());
    }
    Ok(ttl)
}

/// How long to wait: zero too.
pub(crate) fn wait(text: &str) -> Result<Duration, String> {
    if text == "0" { Ok(Duration::ZERO) } else { duration(text) }
}

/// An instant: RFC 3339 with an offset, or milliseconds since 1970.
pub(crate) fn instant(text: &str) -> Result<SystemTime, String> {
    if let Ok(ms) = text.parse::<i64>() {
        let ms = u64::try_from(ms).map_err(|_| "it lies before 1970".to_string())?;
        return Ok(UNIX_EPOCH + Duration::from_millis(ms));
    }
    let timestamp: Timestamp = text.parse().map_err(|_| {
        "write it like 2030-01-01T00:00:00Z, or as milliseconds since 1970".to_string()
    })?;
    let ms = u64::try_from(timestamp.as_millisecond()).map_err(|_| "it lies before 1970")?;
    Ok(UNIX_EPOCH + Duration::from_millis(ms))
}

/// A number to add.
pub(crate) fn integer(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("write a whole number from {} to {}", i64::MIN, i64::MAX))
}

/// How many.
pub(crate) fn count(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "write a whole number, 0 or more".to_string())
}

/// When a write is acknowledged.
pub(crate) fn durability(text: &str) -> Result<Durability, String> {
    match text {
        "sync" => Ok(Durability::Sync),
        "buffered" => Ok(Durability::Buffered),
        _ => match ttl(text) {
            Ok(every) => Ok(Durability::Interval(every)),
            Err(_) => Err("write sync, buffered or a duration such as 100ms".to_string()),
        },
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let span: Span = text.parse().map_err(|_| DURATION_EXAMPLES.to_string())?;
    let signed = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| format!("months and years have no fixed length; {DURATION_EXAMPLES}"))?;
    Duration::try_from(signed).map_err(|_| "it cannot be negative".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(ttl("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(ttl("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(ttl("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(ttl("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(ttl("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(ttl("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(wait("0"), Ok(Duration::ZERO));
        assert_eq!(wait("0s"), Ok(Duration::ZERO));
        for bad in
            ["", "-1", "-1s", "90", "0s", "1us", "1s ago", "s", "1 month", "99999999999999999999s"]
        {
            assert!(ttl(bad).is_err(), "{bad:?} was taken for a duration: {:?}", ttl(bad));
        }
    }

    #[test]
    fn instants() {
        let new_year = UNIX_EPOCH + Duration::from_secs(1_893_456_000);
        assert_eq!(instant("2030-01-01T00:00:00Z"), Ok(new_year));
        assert_eq!(instant("2030-01-01T01:00:00+01:00"), Ok(new_year));
        assert_eq!(instant("1893456000000"), Ok(new_year));
        assert_eq!(instant("2030-01-01T00:00:00.25Z"), Ok(new_year + Duration::from_millis(250)));
        for bad in [
            "",
            "-1",
            "tomorrow",
            "2030-01-01",
            "2030-01-01T00:00:00",
            "1960-01-01T00:00:00Z",
            "99999999999999999999",
        ] {
            assert!(instant(bad).is_err(), "{bad:?} was taken for an instant");
        }
    }
}
