//! Space that is prepared behind the records of a store, for writes that are synced and for those
//! that nobody syncs: bounded, counted nowhere, and gone when the store is closed.

use std::path::Path;
use std::time::Duration;

use pakv::{Db, Durability, FileAccess, Options, inspect};
use pakv_testkit::files;

const LOG: &str = "0000000001.log";

fn options() -> Options {
    Options::new().background_compaction(false)
}

fn synced_store(dir: &Path, sets: u32) -> Db {
    let db = options().open(dir).expect("it opens");
    for number in 0..sets {
        db.set(format!("key {number:04}"), format!("value {number}")).expect("set succeeds");
    }
    db
}

/// The bytes of the records in the active segment, by the statistics.
fn record_bytes(db: &Db) -> usize {
    let stats = db.stats().expect("stats succeed");
    let active = stats.segments.last().expect("one is active");
    assert!(active.active);
    usize::try_from(active.bytes).expect("it is small")
}

fn len(path: &Path) -> usize {
    let len = std::fs::metadata(path).expect("it is there").len();
    usize::try_from(len).expect("it is small")
}

#[test]
fn it_follows_synced_writes_is_zero_and_goes_with_the_close() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = synced_store(dir.path(), 2);
    let log = dir.path().join(LOG);
    assert_eq!(files::read(&log).len(), record_bytes(&db), "for a few writes there is none");
    for number in 0..2_000 {
        db.set(format!("key {number:04}"), "another value").expect("set succeeds");
        let (bytes, all) = (record_bytes(&db), files::read(&log));
        assert!(all.len() <= 2 * bytes + 20 * 1024, "{} bytes for {bytes}", all.len());
        assert!(all[bytes..].iter().all(|byte| *byte == 0), "nothing but zeros");
        assert!(number < 10 || all.len() > bytes, "there is some");
    }
    assert_eq!(inspect::segment(&log).expect("a live segment").len(), 2_002);
    db.clone().close().expect("close succeeds");
    let closed = files::read(&log);
    assert_eq!(closed.len(), files::read(&log).len());
    assert_ne!(closed.last(), Some(&0), "it ends with a record");
    let db = options().open(dir.path()).expect("it opens");
    assert_eq!(record_bytes(&db), closed.len());
    assert_eq!(db.recovery().bytes_cut, 0);
}

/// What is mapped ahead follows buffered writes as the other follows synced ones.
#[test]
fn it_follows_buffered_writes_where_files_are_mapped() {
    for (method, durability) in [
        (FileAccess::Mapped, Durability::Buffered),
        (FileAccess::Mapped, Durability::Interval(Duration::from_secs(3_600))),
        (FileAccess::Positional, Durability::Buffered),
    ] {
        let is_mapped = (method, durability) == (FileAccess::Mapped, Durability::Buffered);
        let dir = files::scratch();
        let options = || options().file_access(method).durability(durability);
        let db = options().open(dir.path()).expect("it opens");
        let log = dir.path().join(LOG);
        for number in 0..3_000_u32 {
            // Some are larger than what is mapped at once.
            let value_bytes = if number % 1_000 == 999 { 400_000 } else { number as usize % 300 };
            db.set(format!("key {number:04}"), vec![b'v'; value_bytes]).expect("set succeeds");
            let (bytes, file_bytes) = (record_bytes(&db), len(&log));
            assert!(file_bytes <= 2 * bytes + 20 * 1024, "{file_bytes} bytes for {bytes}");
            assert!(file_bytes <= bytes + 260 * 1024, "{file_bytes} bytes for {bytes}");
            let has_some = is_mapped && (41..999).contains(&(number % 1_000));
            assert!(!has_some || file_bytes > bytes, "{number}: there is some");
            assert!(is_mapped || file_bytes == bytes, "{method:?} {durability:?}: there is none");
        }
        let copy = files::copied(dir.path());
        let bytes = record_bytes(&db);
        assert!(files::read(&log)[bytes..].iter().all(|byte| *byte == 0), "nothing but zeros");
        db.close().expect("close succeeds");
        assert_eq!(len(&log), bytes, "the close cuts it");
        let killed = options().open(copy.path()).expect("what a kill leaves opens");
        assert_eq!((killed.recovery().bytes_cut, record_bytes(&killed)), (0, bytes));
        assert_eq!(killed.scan().expect("a scan begins").count(), 3_000);
    }
}

#[test]
fn writes_that_are_synced_now_and_then_have_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = options().durability(Durability::Buffered).open(dir.path()).expect("it opens");
    for number in 0..100_u32 {
        db.set(number.to_string(), "value").expect("set succeeds");
        if number % 3 == 0 {
            db.sync().expect("sync succeeds");
        }
    }
    db.sync().expect("sync succeeds");
    db.sync().expect("sync succeeds");
    assert_eq!(files::read(&dir.path().join(LOG)).len(), record_bytes(&db));
}

/// What `kill -9`, and a copy of the files, leave.
#[test]
fn a_copy_of_a_live_store_opens_with_everything_and_has_lost_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = synced_store(dir.path(), 50);
    let copy = files::copied(dir.path());
    assert!(files::read(&copy.path().join(LOG)).len() > record_bytes(&db), "zeros behind");
    let reader = options().read_only(true).open(copy.path()).expect("a reader opens it");
    assert_eq!(reader.len().expect("len succeeds"), 50);
    let opened = options().open(copy.path()).expect("it opens");
    assert_eq!(opened.recovery().bytes_cut, 0, "zeros are nothing that is lost");
    assert_eq!(opened.len().expect("len succeeds"), 50);
    assert_eq!(files::read(&copy.path().join(LOG)).len(), record_bytes(&opened), "they are cut");
}

/// Zeros behind a torn record are not what was torn.
#[test]
fn what_is_reported_as_cut_are_not_the_zeros() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = synced_store(dir.path(), 50);
    let end = record_bytes(&db);
    let copy = files::copied(dir.path());
    let log = copy.path().join(LOG);
    let mut bytes = files::read(&log);
    bytes[end..end + 7].copy_from_slice(b"torn...");
    files::write(&log, &bytes);
    let opened = options().open(copy.path()).expect("it opens");
    assert_eq!(opened.recovery().bytes_cut, 7);
    assert_eq!(opened.len().expect("len succeeds"), 50);
}

/// A sealed segment ends with its last record.
#[test]
fn a_seal_cuts_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = options().segment_bytes(64 * 1024).open(dir.path()).expect("it opens");
    for number in 0..3_000_u32 {
        db.set(number.to_string(), [b'v'; 80]).expect("set succeeds");
    }
    let stats = db.stats().expect("stats succeed");
    assert!(stats.segments.len() > 4);
    for segment in stats.segments.iter().filter(|segment| !segment.active) {
        let log = dir.path().join(format!("{:010}.log", segment.segment));
        assert_eq!(files::read(&log).len() as u64, segment.bytes, "{segment:?}");
    }
}

/// A reader looks at space that the writer beside it is filling: what it saw as zeros has become
/// records when it looks behind them, and those vouch for what it did not see.
#[test]
fn readers_open_beside_a_writer_that_fills_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = synced_store(dir.path(), 100);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut number = 100;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                db.set(format!("key {number:04}"), "value").expect("set succeeds");
                number += 1;
            }
        });
        let mut seen = 100;
        for _ in 0..200 {
            let reader = options().read_only(true).open(dir.path()).expect("it opens");
            let len = reader.len().expect("len succeeds");
            assert!(len >= seen, "{len} keys, and {seen} before");
            seen = len;
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        writer.join().expect("the writer goes on");
    });
}
