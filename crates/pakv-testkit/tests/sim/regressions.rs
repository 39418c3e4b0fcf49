//! Bugs of the engine that the checker found, each by itself.

use std::sync::Arc;

use pakv::Options;
use pakv::storage::Storage;
use pakv_testkit::sim::{CrashMode, SimStorage};

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
