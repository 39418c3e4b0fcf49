//! What `check` finds, and what is no damage; what `repair` brings over, and what it leaves out.

use std::path::{Path, PathBuf};

use pakv::inspect::{self, RecordInfo, What};
use pakv::{
    CheckReport, Db, Durability, Error, Expiry, FindingKind, Options, RepairReport, Ttl, WriteBatch,
};
use pakv_testkit::files;
use tempfile::TempDir;

const FAR_MS: u64 = 4_102_444_800_000;

/// Segments of a few records each, all with hints.
fn options() -> Options {
    Options::new()
        .segment_bytes(512)
        .background_compaction(false)
        .durability(Durability::Buffered)
        .compaction_min_garbage(0)
}

/// A closed store of what `write` writes; the hints are built.
fn store(write: impl FnOnce(&Db)) -> TempDir {
    let dir = files::scratch();
    let db = options().open(dir.path()).expect("open");
    write(&db);
    db.close().expect("close");
    let db = options().open(dir.path()).expect("open");
    db.close().expect("close");
    dir
}

fn check(dir: &Path) -> CheckReport {
    pakv::check(dir).expect("a check runs")
}

fn kinds(report: &CheckReport) -> Vec<FindingKind> {
    report.findings.iter().map(|found| found.kind).collect()
}

fn repair(dir: &Path) -> (RepairReport, TempDir, Db) {
    let target = files::scratch();
    let report = pakv::repair(dir, target.path()).expect("a repair runs");
    let db = Db::open(target.path()).expect("the new store opens");
    (report, target, db)
}

/// The segment and the record that `wanted` is true of.
fn record(dir: &Path, wanted: impl Fn(&RecordInfo) -> bool) -> (PathBuf, RecordInfo) {
    let logs = files::names(dir, ".log");
    let mut records = logs.iter().flat_map(|name| {
        let path = dir.join(name);
        let records = inspect::segment(&path).expect("a whole segment");
        records.into_iter().map(move |record| (path.clone(), record))
    });
    records.find(|(_, record)| wanted(record)).expect("there is such a record")
}

/// Ruins the last byte of a record.
fn ruin((path, record): &(PathBuf, RecordInfo)) {
    files::flip(path, record.offset as usize + record.length as usize - 1, 0x40);
}

fn fill(db: &Db) {
    for number in 0..40 {
        db.set(format!("key {number:02}"), format!("value {number}")).expect("set");
    }
}

#[test]
fn damage_names_the_keys_that_a_hint_knows() {
    let dir = store(|db| {
        db.set("twice", "the older").expect("set");
        fill(db);
        db.set("twice", "the newer").expect("set");
        fill(db);
    });
    let newer = record(dir.path(), |record| record.key == b"twice" && record.seqno > 2);
    let older = record(dir.path(), |record| record.key == b"twice" && record.seqno < 3);
    ruin(&newer);
    let report = check(dir.path());
    let [found] = &report.findings[..] else { panic!("one finding: {:?}", report.findings) };
    assert_eq!((found.kind, &found.path), (FindingKind::Record, &newer.0));
    assert_eq!((found.offset, found.length), (newer.1.offset, u64::from(newer.1.length)));
    assert_eq!(found.keys().collect::<Vec<_>>(), [b"twice"]);
    let (report, _target, db) = repair(dir.path());
    assert_eq!(report.lost_keys().collect::<Vec<_>>(), [b"twice"]);
    assert_eq!(db.get("twice").expect("get"), None, "the older value is not what it held");
    assert_eq!(db.len().expect("len"), 40);

    ruin(&older);
    let report = check(dir.path());
    let [first, _] = &report.findings[..] else { panic!("two findings: {:?}", report.findings) };
    assert_eq!(first.records.len(), 1, "the older record is known");
    assert_eq!(first.keys().count(), 0, "and nobody's loss");
}

#[test]
fn a_damaged_tombstone_still_hides_what_it_deleted_where_a_hint_tells_of_it() {
    let dir = store(|db| {
        db.set("gone", "once").expect("set");
        fill(db);
        db.delete("gone").expect("delete");
        fill(db);
    });
    ruin(&record(dir.path(), |record| record.key == b"gone" && !record.is_set()));
    let (report, _target, db) = repair(dir.path());
    assert_eq!(db.get("gone").expect("get"), None);
    assert_eq!(report.lost_keys().count(), 0, "no value is lost");
    assert_eq!(report.doubts, [] as [String; 0], "and nothing is unknown");

    files::remove_hints(dir.path());
    let (report, _target, db) = repair(dir.path());
    assert_eq!(db.get("gone").expect("get"), Some(b"once".to_vec()), "nothing tells of it");
    assert_eq!(report.doubts.len(), 1, "and that is said: {:?}", report.doubts);
}

#[test]
fn expiries_come_over_and_expired_keys_do_not() {
    let at = |ms| Expiry::At(std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms));
    let dir = store(|db| {
        db.set_with_expiry("later", "there", at(FAR_MS)).expect("set");
        db.set("past", "an older value").expect("set");
    });
    let db = Options::new().clock(std::sync::Arc::new(pakv::ManualClock::new(1)));
    let db = db.open(dir.path()).expect("open");
    db.set_with_expiry("past", "gone by now", at(1000)).expect("set");
    db.close().expect("close");
    let (report, _target, db) = repair(dir.path());
    assert_eq!((report.keys, report.expired), (1, 1));
    assert!(matches!(db.ttl("later").expect("ttl"), Some(Ttl::Left(_))));
    assert_eq!(db.get("past").expect("get"), None);
}

#[test]
fn a_torn_tail_and_an_unfinished_batch_are_no_damage() {
    let dir = files::scratch();
    let db = options().open(dir.path()).expect("open");
    db.set("first", "1").expect("set");
    let mut batch = WriteBatch::new();
    batch.set("batch/a", "1").set("batch/b", "2");
    db.write(&batch).expect("write");
    let killed = files::copied(dir.path());
    drop(db);
    let log = killed.path().join("0000000001.log");
    let end = files::read(&log).len();
    files::cut(&log, end - 1);
    let report = check(killed.path());
    assert_eq!((kinds(&report).len(), report.keys), (0, 1), "{:?}", report.findings);
    assert!(report.tail_bytes > 0);
    let (report, _target, db) = repair(killed.path());
    assert_eq!(db.get("batch/a").expect("get"), None, "a batch without its end never was");
    assert_eq!(report.keys, 1);
    assert!(report.left_out.iter().any(|found| found.kind == FindingKind::Batch), "{report:?}");
}

#[test]
fn a_committed_batch_comes_over_as_far_as_it_is_intact() {
    let dir = store(|db| {
        db.set("batch/c", "to be deleted").expect("set");
        let mut batch = WriteBatch::new();
        batch.set("batch/a", "1").set("batch/b", "2").delete("batch/c");
        db.write(&batch).expect("write");
        db.set("last", "3").expect("set");
    });
    ruin(&record(dir.path(), |record| record.key == b"batch/b"));
    let (_, _target, db) = repair(dir.path());
    assert_eq!(db.get("batch/a").expect("get"), Some(b"1".to_vec()));
    assert_eq!(db.get("batch/b").expect("get"), None);
    assert_eq!(db.get("batch/c").expect("get"), None, "its delete holds");
    assert_eq!(db.get("last").expect("get"), Some(b"3".to_vec()));
}

#[test]
fn a_hint_of_another_segment_is_a_finding_and_is_not_believed() {
    let dir = store(fill);
    let hints = files::names(dir.path(), ".hint");
    let [one, other, ..] = &hints[..] else { panic!("there are hints: {hints:?}") };
    files::write(&dir.path().join(one), files::read(&dir.path().join(other)));
    let found = kinds(&check(dir.path()));
    assert!(!found.is_empty() && found.iter().all(|kind| *kind == FindingKind::Hint), "{found:?}");
    let (report, _target, db) = repair(dir.path());
    assert_eq!((report.keys, report.left_out.len()), (40, 0));
    assert!(!report.hints.is_empty());
    assert_eq!(db.len().expect("len"), 40);
}

#[test]
fn files_that_are_not_listed_are_no_damage_and_are_not_brought_over() {
    let dir = store(fill);
    let log = files::names(dir.path(), ".log").remove(0);
    files::write(&dir.path().join("0000000099.log"), files::read(&dir.path().join(&log)));
    files::write(&dir.path().join("MANIFEST.tmp"), "half");
    let report = check(dir.path());
    assert_eq!(kinds(&report), []);
    assert_eq!(report.orphans, ["0000000099.log", "MANIFEST.tmp"]);
    let (report, _target, _db) = repair(dir.path());
    assert_eq!((report.keys, report.orphans.len()), (40, 2));
}

#[test]
fn without_a_manifest_another_stores_segments_are_left_out() {
    let (dir, stranger) = (store(fill), store(|db| db.set("strange", "value").expect("set")));
    files::remove(&dir.path().join("MANIFEST"));
    let strange = dir.path().join("0000000099.log");
    files::write(&strange, files::read(&stranger.path().join("0000000001.log")));
    let (report, _target, db) = repair(dir.path());
    assert_eq!(report.keys, 40);
    assert_eq!(db.get("strange").expect("get"), None);
    let foreign = report.left_out.iter().find(|found| found.path == strange);
    assert_eq!(foreign.map(|found| found.kind), Some(FindingKind::Header), "{report:?}");
}

#[test]
fn a_segment_that_is_missing_is_named_with_the_keys_that_its_hint_knows() {
    let dir = store(fill);
    let hint = files::names(dir.path(), ".hint").remove(0);
    files::remove(&dir.path().join(hint.replace(".hint", ".log")));
    let report = check(dir.path());
    assert_eq!(kinds(&report), [FindingKind::Missing]);
    let lost = report.findings[0].keys().count();
    assert!(lost > 5, "{:?}", report.findings);
    let (report, _target, _db) = repair(dir.path());
    assert_eq!((report.lost_keys().count(), report.keys), (lost, 40 - lost as u64));
}

#[test]
fn an_open_store_is_checked_with_what_it_believes() {
    let dir = files::scratch();
    let db = options().open(dir.path()).expect("open");
    fill(&db);
    let snapshot = db.snapshot().expect("snapshot");
    fill(&db);
    db.compact().expect("compact");
    db.delete("key 07").expect("delete");
    let report = db.check().expect("check");
    assert_eq!((kinds(&report).len(), report.keys), (0, 39), "{:?}", report.findings);
    let reader = options().read_only(true).open(dir.path()).expect("open");
    fill(&db);
    db.compact().expect("compact");
    let report = reader.check().expect("a reader that is behind checks as well");
    assert_eq!((kinds(&report).len(), report.keys), (0, 40), "{:?}", report.findings);
    drop(snapshot);
    db.close().expect("close");
}

#[test]
fn a_dump_leaves_no_gap_whatever_the_file_holds() {
    let dir = store(fill);
    for name in files::names(dir.path(), "").iter().filter(|name| *name != "LOCK") {
        let path = dir.path().join(name);
        let whole = files::read(&path);
        for (start, noise) in [(0, 16), (16, 9), (30, 40), (whole.len() - 1, 1), (17, 1000)] {
            let mut bytes = whole.clone();
            let end = (start + noise).min(bytes.len());
            bytes[start..end].iter_mut().for_each(|byte| *byte ^= 0x55);
            files::write(&path, &bytes);
            let (mut at, mut is_damaged) = (0, false);
            inspect::dump(&path, |part| {
                is_damaged |= matches!(part.what, What::Damaged { .. });
                let inside = matches!(
                    part.what,
                    What::HintEntry(_) | What::Sealed { .. } | What::Active { .. }
                );
                if !inside {
                    assert_eq!(part.offset, at, "{name} from {start} on: {part:?}");
                    at = part.offset + part.length;
                }
                Ok::<(), Error>(())
            })
            .expect("a dump runs");
            assert_eq!((at, is_damaged), (bytes.len() as u64, true), "{name} from {start} on");
        }
        files::write(&path, &whole);
    }
}

#[test]
fn a_dump_stops_where_it_is_told_to() {
    let dir = store(fill);
    let mut parts = 0;
    let stopped = inspect::dump(dir.path().join("0000000001.log"), |_| {
        parts += 1;
        if parts == 3 { Err(Error::KeyEmpty) } else { Ok(()) }
    });
    assert!(matches!(stopped, Err(Error::KeyEmpty)) && parts == 3);
}

#[test]
fn a_repair_beside_a_writer_says_so_and_leaves_it_its_lock() {
    let dir = store(fill);
    let writer = Db::open(dir.path()).expect("the store opens");
    let (beside, _new, copy) = repair(dir.path());
    assert_eq!(copy.scan().unwrap().count(), writer.scan().unwrap().count());
    let [doubt] = &beside.doubts[..] else { panic!("one doubt: {:?}", beside.doubts) };
    assert!(doubt.starts_with("the store was open for writing"), "{doubt}");
    writer.close().expect("close");
    let (alone, ..) = repair(dir.path());
    assert_eq!(alone.doubts, [] as [String; 0]);
}

#[test]
fn a_repair_makes_no_store_where_something_is_nor_inside_the_damaged_one() {
    let (dir, other) = (store(fill), files::scratch());
    files::write(&other.path().join("notes"), "mine");
    let inside = dir.path().join("deep/inside");
    let before = files::state(dir.path());
    for target in [other.path(), dir.path(), &inside] {
        let error = pakv::repair(dir.path(), target).expect_err("it is refused");
        assert!(matches!(error, Error::Io { .. }), "{error}");
    }
    assert!(!inside.exists());
    assert_eq!(files::state(dir.path()), before);
    let error = pakv::repair(other.path(), files::scratch().path()).expect_err("no store");
    assert!(matches!(error, Error::NoStore { .. }), "{error}");
    assert!(matches!(pakv::check(other.path()), Err(Error::NoStore { .. })));
}

/// A crash between two unlinks of a compaction left a hint without its segment, whose records were all
/// copied; without a manifest the copies were left out for its sake, and named as lost.
#[test]
fn a_copy_is_as_good_as_what_a_hint_knows_of() {
    let dir = store(|db| {
        fill(db);
        fill(db);
    });
    let hints = files::names(dir.path(), ".hint");
    let old: Vec<_> =
        hints.iter().map(|name| (name.clone(), files::read(&dir.path().join(name)))).collect();
    let db = options().open(dir.path()).expect("open");
    let last = db.get("key 39").expect("get");
    db.compact().expect("compact");
    db.close().expect("close");
    let gone = old.iter().filter(|(name, _)| !dir.path().join(name).exists());
    assert!(gone.clone().count() > 0, "compaction removed hints");
    gone.for_each(|(name, bytes)| files::write(&dir.path().join(name), bytes));
    std::fs::remove_file(dir.path().join("MANIFEST")).expect("it goes");
    let (report, _target, db) = repair(dir.path());
    assert_eq!((report.keys, report.lost_keys().count()), (40, 0), "{:?}", report.left_out);
    assert_eq!(db.get("key 39").expect("get"), last);
}

/// The hint of a segment in whose place another store's stands was not asked: what it tells of
/// tombstones was forgotten, and what they had deleted came over.
#[test]
fn the_hint_of_a_segment_that_is_another_ones_counts() {
    let write = |db: &Db| {
        db.set("gone", "value").expect("set");
        fill(db);
        db.delete("gone").expect("delete");
        fill(db);
    };
    let (dir, other) = (store(write), store(write));
    let (log, _) = record(dir.path(), |record| record.key == b"gone" && !record.is_set());
    let name = log.file_name().expect("a name");
    files::write(&log, files::read(&other.path().join(name)));
    let (report, _target, db) = repair(dir.path());
    assert_eq!(db.get("gone").expect("get"), None, "it was deleted");
    assert!(report.lost_keys().count() > 0, "what stood there is named");
}
