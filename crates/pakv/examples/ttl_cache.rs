//! A cache on disk: values that expire, exactly, and whose space comes back by itself.
//!
//! Run it: `cargo run -p pakv --example ttl_cache`

use std::sync::Arc;
use std::time::Duration;

use pakv::{Db, Durability, Expiry, ManualClock, Options, Result, Ttl};

/// The value under `key`, or what `compute` makes, kept for `ttl`.
fn cached(db: &Db, key: &str, ttl: Duration, compute: impl FnOnce() -> String) -> Result<Vec<u8>> {
    if let Some(value) = db.get(key)? {
        return Ok(value);
    }
    let value = compute();
    db.set_with_expiry(key, &value, Expiry::After(ttl))?;
    Ok(value.into_bytes())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    // A clock that is told the time, so that the example need not wait. Leave it out for the real one.
    let clock = Arc::new(ManualClock::new(1_000_000));
    // A cache may lose its last moments to a power cut; `Buffered` still survives a crash of the program.
    let options = Options::new().durability(Durability::Buffered).clock(clock.clone());
    let db = options.open(dir.path())?;

    let minute = Duration::from_secs(60);
    let mut computed = 0;
    for _ in 0..3 {
        cached(&db, "page/home", minute, || {
            computed += 1;
            "<h1>hello</h1>".to_string()
        })?;
    }
    assert_eq!(computed, 1);

    clock.advance(Duration::from_millis(59_999));
    assert_eq!(db.ttl("page/home")?, Some(Ttl::Left(Duration::from_millis(1))));
    clock.advance(Duration::from_millis(1));
    assert_eq!(db.get("page/home")?, None);
    println!("gone after exactly one minute");

    // An expiry can be given and taken away later.
    db.set("page/about", "us")?;
    db.expire("page/about", Expiry::After(minute))?;
    db.persist("page/about")?;
    assert_eq!(db.ttl("page/about")?, Some(Ttl::Forever));
    db.close()?;
    Ok(())
}
