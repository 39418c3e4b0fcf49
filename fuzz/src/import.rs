//! Import: whatever a file holds, it is taken in or refused; and what was taken in, exported and
//! taken in again is the same, in the file's own format and in the one that carries everything.
//!
//! The first byte chooses the format and whether bad lines are skipped; the rest is the file.

use std::sync::Arc;
use std::time::Duration;

use pakv::{Clock, Db, Durability, ManualClock, Options};
use pakv_cli::fuzzing::{Format, export, import};
use pakv_testkit::sim::SimStorage;

/// One input.
pub fn run(data: &[u8]) {
    let Some((mode, file)) = data.split_first() else { return };
    let format = [Format::Jsonl, Format::Tsv, Format::Csv][usize::from(mode % 3)];
    let skip_bad = mode % 2 == 0;
    let db = store();
    let imported = import(&db, format, file, skip_bad);
    let keys = db.len().expect("it is open");
    match imported {
        Ok((count, skipped)) => {
            assert!(keys <= count, "{keys} keys of {count} entries");
            assert!(skip_bad || skipped == 0, "{skipped} lines were skipped unasked");
        }
        // What stands before the bad line is there.
        Err(reason) => assert!(reason.contains("bad_line"), "{reason}"),
    }
    check_round_trip(&db, format);
    check_round_trip(&db, Format::Jsonl);
    check_others(&db);
}

/// A store of its own, at a time before every expiry but those at 0: what a file says that has
/// expired is not there, and is not exported.
fn store() -> Db {
    let options = Options::new()
        .background_compaction(false)
        .durability(Durability::Buffered)
        .lock_wait(Duration::ZERO)
        .clock(Arc::new(ManualClock::new(0)) as Arc<dyn Clock>);
    options.open_storage(Arc::new(SimStorage::new(0))).expect("an empty disk becomes a store")
}

fn check_round_trip(db: &Db, format: Format) {
    let file = export(db, format).expect("what came from a file goes into one");
    let again = store();
    let imported = import(&again, format, &file, false);
    assert_eq!(imported, Ok((db.len().expect("it is open"), 0)), "{format:?}");
    assert_eq!(export(&again, format).as_ref(), Ok(&file), "{format:?}");
    if format != Format::Tsv {
        assert_eq!(everything(&again), everything(db), "{format:?}");
    }
}

/// An entry as a scan shows it.
type Row = (Vec<u8>, Vec<u8>, Option<u64>);

fn everything(db: &Db) -> Vec<Row> {
    let rows = db.scan().expect("it is open").map(|entry| {
        let expires_at_ms = entry.expires_at_ms();
        let (key, value) = entry.into_pair().expect("nothing is damaged");
        (key, value, expires_at_ms)
    });
    rows.collect()
}

/// csv carries everything too. tsv carries an entry exactly, its expiry aside, or says that it does
/// not.
fn check_others(db: &Db) {
    let file = export(db, Format::Csv).expect("csv carries any bytes");
    let again = store();
    assert_eq!(import(&again, Format::Csv, &file, false).map(|(count, _)| count), Ok(count(db)));
    assert_eq!(everything(&again), everything(db));
    match export(db, Format::Tsv) {
        Ok(file) => {
            let again = store();
            assert_eq!(import(&again, Format::Tsv, &file, false), Ok((count(db), 0)));
            let rows = everything(db).into_iter().map(|(key, value, _)| (key, value, None));
            assert!(
                everything(&again).into_iter().eq(rows),
                "a table is not what was in the store"
            );
        }
        Err(reason) => assert!(reason.contains("not_carried"), "{reason}"),
    }
}

fn count(db: &Db) -> u64 {
    db.len().expect("it is open")
}
