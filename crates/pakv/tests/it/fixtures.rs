//! Stores of every released format, kept as they were written. They open for ever; none is ever
//! made again, because the program that wrote it is the one that users have data from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pakv::{Db, ManualClock, Options};

/// Forty keys set, every third deleted, compacted; then some set again, one that expires, a delete,
/// and a batch in the active segment.
#[test]
fn format_1() {
    for read_only in [true, false] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = copy_of("format-v1", dir.path());
        let clock = Arc::new(ManualClock::new(1_999_999));
        let db = Options::new()
            .clock(clock.clone())
            .read_only(read_only)
            .open(&store)
            .expect("a store of format 1 opens");
        assert_eq!((db.recovery().bytes_cut, db.recovery().hints_rebuilt), (0, 0));
        assert_eq!(found(&db), expected(true));
        clock.set_ms(2_000_000);
        assert_eq!(found(&db), expected(false));
        db.close().expect("it closes");
    }
}

fn expected(with_expiring: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut entries = vec![(vec![0, 255, 10], vec![0; 3]), (b"empty".to_vec(), Vec::new())];
    if with_expiring {
        entries.push((b"expiring".to_vec(), b"gone at 2000000".to_vec()));
    }
    for number in (0..37).filter(|number| number % 3 != 0) {
        let which = if number % 3 == 1 { "second" } else { "first" };
        let key = format!("key-{number:02}").into_bytes();
        entries.push((key, format!("{which} value of {number}").into_bytes()));
    }
    entries
}

fn found(db: &Db) -> Vec<(Vec<u8>, Vec<u8>)> {
    let entries = db.scan().expect("it scans");
    entries.map(|entry| entry.into_pair().expect("every value is right")).collect()
}

fn copy_of(fixture: &str, dir: &Path) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures").join(fixture);
    let to = dir.join(fixture);
    std::fs::create_dir(&to).expect("a directory");
    for file in std::fs::read_dir(from).expect("the fixture is there") {
        let file = file.expect("its files can be listed");
        std::fs::copy(file.path(), to.join(file.file_name())).expect("a copy");
    }
    to
}
