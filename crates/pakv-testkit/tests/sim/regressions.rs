//! Bugs of the engine that the checker found, each by itself.

use std::sync::Arc;

use pakv::storage::Storage;
use pakv::{Db, Durability, Error, Expected, Expiry, Options};
use pakv_testkit::sim::{
    Call, CallKind, CrashMode, Effect, Fault, FaultError, Outcome as Struck, SimStorage,
};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn options() -> Options {
    Options::new().background_compaction(false).segment_bytes(512)
}

fn storage(machine: &SimStorage) -> Arc<dyn Storage> {
    Arc::new(machine.clone())
}

/// A process was killed after it had renamed a manifest into place and before it had synced the
/// directory. The next one found the new manifest, went by it, acknowledged writes into the segment
/// that it lists, and removed what it does not list. Nobody had made the rename durable: a power
/// cut brought the old manifest back, and the acknowledged writes were in an orphan, or the old
/// manifest listed segments that were gone. An open syncs the directory before it believes the
/// manifest.
#[test]
fn a_manifest_that_a_killed_process_left_is_made_durable_before_it_is_believed() -> Outcome {
    for calls in 0..40 {
        let machine = SimStorage::new(calls);
        machine.power_off_after(calls);
        if let Ok(db) = options().open_storage(storage(&machine)) {
            let _ = db.set("early", "1");
        }
        machine.power_off();

        let killed = machine.crash(calls, CrashMode::Kill);
        let db = options().open_storage(storage(&killed))?;
        db.set("acknowledged", "yes")?;
        killed.power_off();
        drop(db);

        for seed in 0..40 {
            let mode = if seed % 2 == 0 { CrashMode::Ext4 } else { CrashMode::Posix };
            let db = options().open_storage(storage(&killed.crash(seed, mode)))?;
            let found = db.get("acknowledged")?;
            assert_eq!(found.as_deref(), Some(&b"yes"[..]), "killed at call {calls}, seed {seed}");
        }
    }
    Ok(())
}

/// A sync of the directory that failed for a hint or for an output of a compaction made the engine
/// give up that one file, and the next sync of the same directory was believed: the operating
/// system may have dropped with the failure what the next one claims to hold, the name of a
/// manifest included. Any sync that fails poisons now, and none is tried after it.
#[test]
fn after_a_failed_sync_of_anything_nothing_is_synced_or_acknowledged() -> Outcome {
    for kind in [CallKind::Sync, CallKind::SyncDir] {
        let mut failures = 0;
        loop {
            let machine = SimStorage::new(failures);
            let effect = Effect::Error(FaultError::Io);
            let fault = Fault { kind: Some(kind), after: failures, forever: false, effect };
            machine.set_fault(Some(fault));
            let context = format!("{kind:?} {failures}");
            if let Ok(db) = options().open_storage(storage(&machine)) {
                overwrite_and_compact(&db, &machine, &context)?;
            }
            if machine.fired().is_empty() {
                break;
            }
            let calls = machine.log();
            let later = calls.iter().skip_while(|call| !matches!(call.outcome, Struck::Fault(_)));
            let is_sync = |call: &&Call| matches!(call.kind, CallKind::Sync | CallKind::SyncDir);
            let synced: Vec<_> = later.skip(1).filter(is_sync).collect();
            assert!(synced.is_empty(), "{context}: {synced:?}");
            failures += 1;
        }
        assert!(failures > 20, "{failures} calls of {kind:?} were failed");
    }
    Ok(())
}

/// Once the fault has struck, every write is refused.
fn overwrite_and_compact(db: &Db, machine: &SimStorage, context: &str) -> Outcome {
    for number in 0..40 {
        let failed_before = !machine.fired().is_empty();
        let written = db.set("key", format!("{number:0>100}"));
        let compacted = if number % 10 == 9 { db.compact().map(|_| ()) } else { Ok(()) };
        if failed_before {
            let refused = written.expect_err("a write after a failed sync");
            assert!(matches!(refused, Error::Poisoned { .. }), "{context}: {refused}");
        } else if machine.fired().is_empty() {
            written.and(compacted)?;
        }
    }
    Ok(())
}

/// A handle with `Durability::Buffered` had deleted a key, one with `Durability::Sync` deleted it
/// again, was told that it was not there, and synced nothing, for it had written nothing. A power cut
/// brought the key back, whose absence had been acknowledged under `Sync`. So with an update that
/// changes nothing, a conditional delete and an expiry that is there already.
#[test]
fn what_is_so_already_is_as_durable_as_if_this_handle_had_written_it() -> Outcome {
    type Ask = fn(&Db) -> pakv::Result<bool>;
    let asks: [Ask; 4] = [
        |db| db.delete("gone").map(|was_there| !was_there),
        |db| db.compare_and_delete("gone", Expected::Absent),
        |db| db.update("changed", |old| old.map(<[u8]>::to_vec)).map(|value| value.is_some()),
        |db| db.expire("changed", Expiry::Never),
    ];
    for ask in asks {
        let machine = SimStorage::new(0);
        let db = options().durability(Durability::Buffered).open_storage(storage(&machine))?;
        db.set("gone", "1")?;
        db.set("changed", "old")?;
        db.sync()?;
        db.delete("gone")?;
        db.set("changed", "new")?;
        assert!(ask(&db.with_durability(Durability::Sync)?)?);
        machine.power_off();
        drop(db);
        for seed in 0..20 {
            let db = options().open_storage(storage(&machine.crash(seed, CrashMode::Posix)))?;
            assert_eq!(db.get("gone")?, None, "it came back");
            assert_eq!(db.get("changed")?.as_deref(), Some(&b"new"[..]));
        }
    }
    Ok(())
}
