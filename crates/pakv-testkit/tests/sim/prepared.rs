//! Space prepared for synced writes, on a disk that is full and on one that loses what it may.

use std::sync::Arc;
use std::time::Duration;

use pakv::storage::Storage;
use pakv::{Db, Durability, Options};
use pakv_testkit::sim::{CallKind, CrashMode, Effect, Fault, FaultError, SimStorage};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const LOG: &str = "0000000001.log";

fn open(machine: &SimStorage) -> pakv::Result<Db> {
    let storage: Arc<dyn Storage> = Arc::new(machine.clone());
    let options = Options::new().background_compaction(false).segment_bytes(64 * 1024);
    options.open_storage(storage)
}

fn set(db: &Db, number: usize) -> pakv::Result<()> {
    db.set(format!("key {number:04}"), format!("{number:0100}"))
}

/// Whether the first `count` keys are there and no others.
fn check(db: &Db, count: usize) -> Outcome {
    for number in 0..count {
        let value = db.get(format!("key {number:04}"))?;
        assert_eq!(value, Some(format!("{number:0100}").into_bytes()), "key {number}");
    }
    assert_eq!(db.len()?, count as u64);
    Ok(())
}

#[test]
fn a_full_disk_is_full_of_records() -> Outcome {
    for space in [0, 100, 1_000, 4_000, 20_000] {
        let machine = SimStorage::new(1);
        let db = open(&machine)?;
        set(&db, 0)?;
        machine.set_space(machine.used_bytes() + space);
        let mut count = 1;
        while set(&db, count).is_ok() {
            count += 1;
        }
        // A record takes about 120 bytes.
        let least = space / 130;
        assert!(count > least, "{count} sets in {space} bytes");
        assert!(db.stats()?.poisoned.is_some(), "a record found no space");
        drop(db);
        machine.set_space(usize::MAX);
        let db = open(&machine)?;
        check(&db, usize::try_from(db.len()?)?)?;
        assert!(db.len()? >= count as u64);
        assert_eq!(machine.violations(), Vec::<String>::new());
    }
    Ok(())
}

#[test]
fn a_disk_that_fails_while_space_is_prepared_poisons() -> Outcome {
    let mut poisoned = 0;
    for after in 0..12 {
        let machine = SimStorage::new(after);
        let db = open(&machine)?;
        let effect = Effect::Error(FaultError::Io);
        let kind = Some(CallKind::Write);
        machine.set_fault(Some(Fault { kind, after, forever: false, effect }));
        let acknowledged = (0..20).take_while(|number| set(&db, *number).is_ok()).count();
        poisoned += u32::from(db.stats()?.poisoned.is_some());
        assert!(acknowledged < 20, "the {after}th write failed");
        drop(db);
        let db = open(&machine)?;
        assert!(db.len()? >= acknowledged as u64);
        check(&db, usize::try_from(db.len()?)?)?;
    }
    assert_eq!(poisoned, 12);
    Ok(())
}

/// Whatever of the zeros and the records reached the disk: what was acknowledged is there, and what
/// follows it is at most the write that was under way.
#[test]
fn a_crash_at_any_call_loses_nothing_that_was_acknowledged() -> Outcome {
    for mode in [CrashMode::Kill, CrashMode::Ext4, CrashMode::Posix] {
        for calls in 0..120 {
            let machine = SimStorage::new(calls);
            let db = open(&machine)?;
            machine.power_off_after(calls);
            let acknowledged = (0..30).take_while(|number| set(&db, *number).is_ok()).count();
            machine.power_off();
            drop(db);
            for seed in 0..8 {
                let after = machine.crash(seed, mode);
                let db = open(&after)?;
                let len = usize::try_from(db.len()?)?;
                let context = format!("{mode:?} at call {calls}, seed {seed}");
                assert!(len == acknowledged || len == acknowledged + 1, "{context}: {len}");
                check(&db, len)?;
                // It goes on from there, and so does a crash after it.
                (len..40).try_for_each(|number| set(&db, number))?;
                after.power_off();
                drop(db);
                check(&open(&after.crash(seed, mode))?, 40)?;
                assert_eq!(after.violations(), Vec::<String>::new(), "{context}");
            }
        }
    }
    Ok(())
}

#[test]
fn it_ends_with_the_durability_that_wants_it() -> Outcome {
    let machine = SimStorage::new(5);
    let db = open(&machine)?;
    (0..20).try_for_each(|number| set(&db, number))?;
    let bytes = db.stats()?.segments[0].bytes;
    assert!(machine.file_len(LOG).is_some_and(|len| len as u64 > bytes), "space is prepared");
    let now_and_then = db.with_durability(Durability::Interval(Duration::from_secs(3_600)))?;
    (20..400).try_for_each(|number| set(&now_and_then, number))?;
    let bytes = db.stats()?.segments[0].bytes;
    assert_eq!(machine.file_len(LOG), Some(usize::try_from(bytes)?), "the records have used it up");
    Ok(())
}
