//! What free blocks held before.

use std::sync::Arc;

use pakv::storage::Storage;
use pakv::{Db, Durability, Options};
use pakv_testkit::sim::{CrashMode, SimStorage};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn open(machine: &SimStorage) -> pakv::Result<Db> {
    let options = Options::new().background_compaction(false).segment_bytes(4_096);
    options.open_storage(Arc::new(machine.clone()) as Arc<dyn Storage>)
}

/// A crash in a compaction leaves an output that is not listed, with a copy of a record. The next
/// open removes it and its number is given to a new segment. Where a file system hands out blocks
/// that it does not wipe, the copy stands behind the end of that one after another crash, at its
/// old offset and under the number that its checksum was made with.
#[test]
fn a_removed_segment_does_not_come_back_in_a_new_one_of_its_number() -> Outcome {
    for calls in 24..30 {
        let machine = SimStorage::new(calls);
        let db = open(&machine)?;
        db.set("dead", "x".repeat(100))?;
        db.set("other", "1")?;
        db.set("other", "2")?;
        machine.power_off_after(calls);
        let _ = db.compact();
        machine.power_off();
        drop(db);

        let machine = machine.crash(calls, CrashMode::Kill);
        let db = open(&machine)?;
        db.delete("dead")?;
        db.compact()?;
        let db = db.with_durability(Durability::Buffered)?;
        db.set("new", "y".repeat(200))?;
        machine.power_off();
        drop(db);
        for seed in 0..1_500 {
            let found = machine.crash(seed, CrashMode::Ext4);
            let db = open(&found).map_err(|error| format!("call {calls}, seed {seed}: {error}"))?;
            assert_eq!(db.get("dead")?, None, "revived: call {calls}, seed {seed}");
        }
    }
    Ok(())
}
