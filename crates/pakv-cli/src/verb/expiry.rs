//! `ttl`, `expire` and `persist`: when a key stops being there.

use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::SignedDuration;
use pakv::{Expiry, Ttl};

use super::key_of;
use crate::args::{ExpireArgs, OutputForm, PersistArgs, TtlArgs};
use crate::context::{Context, Creates};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{JsonLine, whole_ms};

pub(super) fn ttl(cx: &mut Context, args: &TtlArgs) -> Result<Exit, Failure> {
    let key = key_of(&args.key)?;
    let store = cx.reader()?;
    let ttl = store.ttl(key)?;
    // The store keeps the instant; asked for it directly, it does not move with the time this
    // takes.
    let expires_at_ms = store.scan_range(key..=key)?.next().and_then(|entry| entry.expires_at_ms());
    store.close()?;
    let left = match ttl.ok_or_else(Failure::key_not_found)? {
        Ttl::Forever => None,
        Ttl::Left(left) => Some(left),
    };
    match (cx.form, left) {
        (OutputForm::Json, _) => {
            let line = JsonLine::new()
                .bytes("key", key)
                .field("ttl_ms", left.map(whole_ms))
                .field("expires_at_ms", left.and(expires_at_ms));
            writeln!(cx.out, "{}", line.into_string())?;
        }
        (_, None) => writeln!(cx.out, "never")?,
        (OutputForm::Raw, Some(left)) => writeln!(cx.out, "{}", whole_ms(left))?,
        (OutputForm::Text, Some(left)) => writeln!(cx.out, "{}", human(left))?,
    }
    Ok(Exit::Done)
}

pub(super) fn expire(cx: &mut Context, args: &ExpireArgs) -> Result<Exit, Failure> {
    let key = key_of(&args.key)?;
    let expiry = match (args.ttl, args.at) {
        (Some(ttl), _) => Expiry::After(ttl),
        (None, Some(at)) => Expiry::At(in_the_future(at)?),
        (None, None) => return Err(Failure::usage("a duration or --at is missing")),
    };
    change_expiry(cx, key, expiry)
}

pub(super) fn persist(cx: &mut Context, args: &PersistArgs) -> Result<Exit, Failure> {
    change_expiry(cx, key_of(&args.key)?, Expiry::Never)
}

fn change_expiry(cx: &mut Context, key: &[u8], expiry: Expiry) -> Result<Exit, Failure> {
    let store = cx.writer(Creates::No)?;
    let there = store.expire(key, expiry)?;
    store.close()?;
    if there { Ok(Exit::Done) } else { Err(Failure::key_not_found()) }
}

/// An instant that has passed would remove the key at once. Whoever writes seconds where
/// milliseconds are meant names one in 1970, so it is refused.
fn in_the_future(at: SystemTime) -> Result<SystemTime, Failure> {
    if at > SystemTime::now() {
        return Ok(at);
    }
    let since_1970 = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX);
    let named = jiff::Timestamp::from_second(seconds).unwrap_or_default();
    Err(Failure::usage(format!("{named} has passed"))
        .with_hint("numbers are milliseconds since 1970; `rm` removes a key now"))
}

/// Readable, exact to the millisecond, and what `expire` takes back.
fn human(left: Duration) -> String {
    let signed = SignedDuration::try_from(left).unwrap_or(SignedDuration::MAX);
    format!("{signed:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ttl_prints_expire_takes() {
        for ms in [1, 421, 60_000, 5_399_950, 90_061_001, 86_400_000_000] {
            let left = Duration::from_millis(ms);
            assert_eq!(crate::parse::ttl(&human(left)), Ok(left), "{}", human(left));
        }
        assert_eq!(human(Duration::from_millis(5_399_950)), "1h 29m 59s 950ms");
    }

    #[test]
    fn seconds_taken_for_milliseconds_are_refused() {
        let in_1970 = crate::parse::instant("1893456000").unwrap();
        let failure = in_the_future(in_1970).unwrap_err();
        assert_eq!(failure.exit(), Exit::Usage);
        assert!(failure.render(OutputForm::Text, false).contains("1970-01-22"), "{failure:?}");
    }
}
