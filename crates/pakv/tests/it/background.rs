//! The background threads: their pace, their end, and what becomes of the store when one of them
//! fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pakv::storage::Storage;
use pakv::{Clock, Db, Durability, Error, Options, Result};
use pakv_testkit::files;
use pakv_testkit::sim::{CallKind, Effect, Fault, FaultError, SimStorage};

/// Asks again and again until it is so; a test that waits in vain is ended by its runner.
fn until(mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    while !is_so()? {
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

const KEYS: u64 = 3_000;

/// Sets every key, with values of 1,000 bytes that say which round it was.
fn write_all(db: &Db, round: u64) -> Result<()> {
    (0..KEYS).try_for_each(|key| db.set(format!("{key:05}"), format!("{round:0>1000}")))
}

fn check_all(db: &Db, round: u64) -> Result<()> {
    for key in 0..KEYS {
        assert_eq!(db.get(format!("{key:05}"))?, Some(format!("{round:0>1000}").into_bytes()));
    }
    assert_eq!(db.len()?, KEYS);
    Ok(())
}

/// As slow as it gets: without an end by the close, the compaction would take many seconds.
#[test]
fn a_close_ends_a_slow_compaction_and_nothing_is_lost() -> Result<()> {
    let dir = files::scratch();
    // The bound on space is far away, so that nothing presses; the garbage of a segment is enough.
    let options = Options::new()
        .segment_bytes(1024 * 1024)
        .compaction_space_amplification(100.0)
        .compaction_segment_garbage_ratio(0.1)
        .compaction_min_garbage(1)
        .compaction_rate(Some(64 * 1024));
    let db = options.clone().open(dir.path())?;
    write_all(&db, 0)?;
    (0..KEYS)
        .step_by(2)
        .try_for_each(|key| db.set(format!("{key:05}"), format!("{:0>1000}", 1)))?;
    until(|| Ok(db.stats()?.compaction.running))?;
    db.close()?;

    let db = options.compaction_rate(None).open(dir.path())?;
    db.compact()?;
    for key in 0..KEYS {
        let round = (key + 1) % 2;
        assert_eq!(db.get(format!("{key:05}"))?, Some(format!("{round:0>1000}").into_bytes()));
    }
    db.close()
}

/// A pace that would never do is given up where the directory grows past its bound.
#[test]
fn a_pace_that_is_too_slow_yields_to_the_bound_on_space() -> Result<()> {
    let dir = files::scratch();
    let db = Options::new()
        .segment_bytes(1024 * 1024)
        .compaction_min_garbage(64 * 1024)
        .keydir_merge_keys(3)
        .compaction_rate(Some(64 * 1024))
        .open(dir.path())?;
    for round in 0..6 {
        write_all(&db, round)?;
    }
    until(|| Ok(db.stats()?.space_amplification() < 1.5))?;
    let stats = db.stats()?;
    assert!(stats.compaction.runs > 0 && stats.garbage_ratio() < 0.5, "{stats:?}");
    check_all(&db, 5)?;
    db.close()
}

/// A clock that panics where the background thread asks it.
#[derive(Debug, Default)]
struct TornClock(AtomicBool);

impl Clock for TornClock {
    fn now_ms(&self) -> u64 {
        let asks = std::thread::current().name().map(str::to_string);
        assert!(
            asks.as_deref() != Some("pakv-compaction") || !self.0.load(Ordering::Relaxed),
            "the clock is torn, as this test wants it"
        );
        1_000
    }
}

#[test]
fn a_background_thread_that_panics_poisons_the_store() -> Result<()> {
    let dir = files::scratch();
    let clock = Arc::new(TornClock::default());
    let db = Options::new().clock(clock.clone()).segment_bytes(4_096).open(dir.path())?;
    db.set("before", "1")?;
    clock.0.store(true, Ordering::Relaxed);
    // Each seal wakes the thread.
    until(|| match db.set("key", [0; 1_000]) {
        Ok(()) => Ok(false),
        Err(Error::Poisoned { reason }) => {
            assert!(reason.contains("background thread"), "{reason}");
            Ok(true)
        }
        Err(other) => Err(other),
    })?;
    assert_eq!(db.get("before")?.as_deref(), Some(&b"1"[..]), "reads go on");
    assert!(db.stats()?.poisoned.is_some());
    assert!(matches!(db.close(), Err(Error::Poisoned { .. })), "the close says so");
    Ok(())
}

/// What `Interval` has promised cannot be kept, and every writer learns of it.
#[test]
fn an_interval_whose_sync_fails_poisons_the_store() -> Result<()> {
    let machine = SimStorage::new(7);
    let storage: Arc<dyn Storage> = Arc::new(machine.clone());
    let every = Duration::from_millis(1);
    let db = Options::new().durability(Durability::Interval(every)).open_storage(storage)?;
    db.set("before", "1")?;
    db.sync()?;
    let effect = Effect::Error(FaultError::Io);
    let fault = Fault { kind: Some(CallKind::Sync), after: 0, forever: false, effect };
    machine.set_fault(Some(fault));
    until(|| match db.set("key", "value") {
        Ok(()) => Ok(false),
        Err(Error::Poisoned { reason }) => {
            assert!(reason.contains("sync"), "{reason}");
            Ok(true)
        }
        Err(other) => Err(other),
    })?;
    let syncs = || machine.log().iter().filter(|call| call.kind == CallKind::Sync).count();
    let before = syncs();
    assert!(matches!(db.sync(), Err(Error::Poisoned { .. })));
    assert!(matches!(db.close(), Err(Error::Poisoned { .. })));
    assert_eq!(syncs(), before, "it is not tried again");
    Ok(())
}
