//! Snapshots: consistent while writes and compaction go on, and what they hold.

use std::time::Duration;

use pakv::{Db, Error, Expiry, Options};
use pakv_testkit::{Reopen, TestStore, files};

#[test]
fn a_snapshot_shows_the_moment_at_which_it_was_taken() {
    let mut store = TestStore::new();
    for index in 0..20 {
        store.set(format!("key{index:02}"), format!("old{index}"));
    }
    let snapshot = store.db().snapshot().expect("a snapshot can be taken");
    let before = store.model().rows();
    let seqno = store.db().stats().expect("stats succeed").seqno;
    for index in 0..20 {
        store.set(format!("key{index:02}"), vec![b'n'; 100]);
    }
    store.delete("key03");
    store.set("new", "key");
    for compaction in 0..3 {
        assert_eq!(
            snapshot.get("key03").expect("get succeeds"),
            Some(b"old3".to_vec()),
            "compaction {compaction}"
        );
        assert!(snapshot.contains("key03").expect("contains succeeds"), "compaction {compaction}");
        assert_eq!(snapshot.get("new").expect("get succeeds"), None, "compaction {compaction}");
        assert!(!snapshot.contains("new").expect("contains succeeds"), "compaction {compaction}");
        let pairs: Vec<_> =
            snapshot.scan().map(|entry| entry.into_pair().expect("a value can be read")).collect();
        let expected: Vec<_> =
            before.iter().map(|(key, value, _)| (key.clone(), value.clone())).collect();
        assert_eq!(pairs, expected, "compaction {compaction}");
        store.db().compact().expect("compact succeeds");
    }
    assert_eq!(snapshot.scan_prefix("key1").count(), 10);
    assert_eq!(snapshot.scan_range("key05".."key08").rev().count(), 3);
    assert_eq!(snapshot.clone().seqno(), seqno, "a snapshot knows the newest write that it shows");
}

#[test]
fn segments_that_a_snapshot_holds_go_when_it_does() {
    let mut store = TestStore::new();
    for index in 0..40 {
        store.set(format!("key{index:02}"), vec![b'o'; 50]);
    }
    let snapshot = store.db().snapshot().expect("a snapshot can be taken");
    let clone = snapshot.clone();
    let scan = snapshot.scan();
    for index in 0..40 {
        store.delete(format!("key{index:02}"));
    }
    store.db().compact().expect("compact succeeds");
    let held = files::names(store.path(), ".log").len();
    let stats = store.db().stats().expect("stats succeed");
    assert!(stats.retired_segments > 0, "the snapshot's segments are retired, not gone: {stats:?}");
    assert!(held > stats.segments.len(), "retired segments are still on disk");

    drop(snapshot);
    drop(clone);
    assert_eq!(scan.count(), 40, "a scan goes on when its snapshot is dropped");
    // What held them is gone: at the latest the next compaction clears them away.
    store.db().compact().expect("compact succeeds");
    let stats = store.db().stats().expect("stats succeed");
    assert_eq!(
        (stats.retired_segments, stats.snapshots),
        (0, 0),
        "nobody holds anything: {stats:?}"
    );
    assert_eq!(
        files::names(store.path(), ".log").len(),
        stats.segments.len(),
        "retired segments were removed"
    );
}

/// The same for a segment that was the active one when it was first read from: sealing must not
/// lose its readers.
#[test]
fn an_active_segment_that_a_snapshot_holds_stays_when_it_is_sealed_and_replaced() {
    let mut store = TestStore::new();
    store.set("key", "old");
    store.set("kept", "value");
    let snapshot = store.db().snapshot().expect("a snapshot can be taken");
    let entry =
        store.db().scan_range("key"..).expect("scan succeeds").next().expect("there are entries");
    store.set("key", "new");
    store.db().compact().expect("compact succeeds");
    let stats = store.db().stats().expect("stats succeed");
    assert_eq!(stats.retired_segments, 1, "the segment is replaced and still read: {stats:?}");
    assert!(
        files::names(store.path(), ".log").contains(&"0000000001.log".to_string()),
        "it is still on disk"
    );
    assert_eq!(snapshot.get("key").expect("get succeeds"), Some(b"old".to_vec()));
    assert_eq!(entry.value().expect("an entry can be read"), b"old");
    drop(snapshot);
    drop(entry);
    let stats = store.db().stats().expect("stats succeed");
    assert_eq!(stats.retired_segments, 0, "nobody reads it any more: {stats:?}");
    assert!(
        !files::names(store.path(), ".log").contains(&"0000000001.log".to_string()),
        "it is gone"
    );
}

#[test]
fn expiry_goes_by_the_clock_in_a_snapshot_too() {
    let mut store = TestStore::new();
    store.set("key", "older");
    let before = store.db().snapshot().expect("a snapshot can be taken");
    store
        .db()
        .set_with_expiry("key", "v", Expiry::After(Duration::from_millis(5)))
        .expect("set succeeds");
    let snapshot = store.db().snapshot().expect("a snapshot can be taken");
    store.clock().advance(Duration::from_millis(4));
    assert_eq!(
        snapshot.get("key").expect("get succeeds"),
        Some(b"v".to_vec()),
        "a millisecond is left"
    );
    store.clock().advance(Duration::from_millis(1));
    assert_eq!(snapshot.get("key").expect("get succeeds"), None, "it has expired");
    assert_eq!(snapshot.scan().count(), 0, "it has expired");
    assert_eq!(
        before.get("key").expect("get succeeds"),
        Some(b"older".to_vec()),
        "what was there before it"
    );
    drop(before);
    store.adopt();
}

#[test]
fn an_older_snapshot_shows_older_values_than_a_newer_one() {
    let mut store = TestStore::new();
    let mut snapshots = Vec::new();
    for version in 0..10 {
        store.set("key", version.to_string());
        store.set(format!("filler{version}"), vec![b'.'; 200]);
        snapshots.push(store.db().snapshot().expect("a snapshot can be taken"));
        if version % 3 == 0 {
            store.db().compact().expect("compact succeeds");
        }
    }
    // Dropped from the middle outwards: no order of release may matter.
    for version in [5, 4, 6, 3, 7, 2, 8, 1, 9, 0] {
        let snapshot = &snapshots[version];
        let value = snapshot.get("key").expect("get succeeds");
        assert_eq!(value, Some(version.to_string().into_bytes()), "the value of version {version}");
        assert_eq!(
            snapshot.scan_prefix("filler").count(),
            version + 1,
            "the fillers of version {version}"
        );
        snapshots[version] = store.db().snapshot().expect("a snapshot can be taken");
        store.db().compact().expect("compact succeeds");
    }
}

#[test]
fn a_snapshot_keeps_the_store_open_until_it_is_dropped_or_the_store_is_closed() {
    let dir = files::scratch();
    let open = || Options::new().lock_wait(Duration::ZERO).open(dir.path());
    let db = open().expect("an empty directory becomes a store");
    db.set("key", "value").expect("set succeeds");
    let snapshot = db.snapshot().expect("a snapshot can be taken");
    drop(db);
    assert!(matches!(open(), Err(Error::InUse { .. })), "the snapshot holds the store");
    assert_eq!(snapshot.get("key").expect("get succeeds"), Some(b"value".to_vec()), "and shows it");
    drop(snapshot);
    let db = open().expect("nobody holds the store any more");

    let snapshot = db.snapshot().expect("a snapshot can be taken");
    let scan = db.scan().expect("scan succeeds");
    db.close().expect("close succeeds though snapshots are there");
    let reopened: Db = open().expect("a closed store can be opened");
    reopened.set("key", "newer").expect("set succeeds");
    match snapshot.get("key") {
        Err(Error::Closed) => {}
        value => assert_eq!(
            value.expect("old or closed"),
            Some(b"value".to_vec()),
            "never a newer value"
        ),
    }
    drop(scan);
}

#[test]
fn a_snapshot_does_not_survive_as_anything_on_disk() {
    let mut store = TestStore::new();
    store.set("key", "old");
    let snapshot = store.db().snapshot().expect("a snapshot can be taken");
    store.set("key", "new");
    store.db().compact().expect("compact succeeds");
    drop(snapshot);
    // Compares files and contents.
    store.reopen(Reopen::Kill);
}

/// Whoever still reads a segment that compaction has replaced removes its files, but not behind a close:
/// the directory may be another store's by then.
#[test]
fn what_a_snapshot_held_is_not_removed_behind_a_close() {
    let dir = files::scratch();
    let options = Options::new().segment_bytes(1024).background_compaction(false);
    let db = options.clone().open(dir.path()).expect("it opens");
    for index in 0..40 {
        db.set(format!("key{index:02}"), vec![b'o'; 50]).expect("set succeeds");
    }
    let mut scan = db.scan().expect("a scan begins");
    let entry = scan.next().expect("there are keys");
    drop(scan);
    for index in 0..40 {
        db.delete(format!("key{index:02}")).expect("delete succeeds");
    }
    db.compact().expect("compact succeeds");
    db.close().expect("close succeeds");
    let held = files::names(dir.path(), ".log");
    assert!(held.len() > 1, "the entry holds segments");
    assert_eq!(entry.value().expect("it can be read"), vec![b'o'; 50]);
    drop(entry);
    assert_eq!(files::names(dir.path(), ".log"), held, "the files of who comes next");
    drop(options.open(dir.path()).expect("it opens"));
    assert!(files::names(dir.path(), ".log").len() < held.len(), "the next open removes orphans");
}
