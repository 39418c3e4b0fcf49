//! What a caller gets when it is wrong or too late, and how that reads.

use pakv::{Db, Error, Expected, Expiry, WriteBatch, inspect};
use pakv_testkit::{TestStore, files};

/// An error is a sentence that names what it is about, in words of the user's.
#[track_caller]
fn reads(error: &Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{text:?} should mention {part:?}");
    }
    assert!(!text.contains('{') && !text.contains("Some("), "{text:?} shows the inside of a type");
}

#[test]
fn after_a_close_every_handle_says_so() {
    let dir = files::scratch();
    let db = Db::open(dir.path()).expect("an empty directory becomes a store");
    db.set("key", "value").expect("set succeeds");
    let handle = db.clone();
    db.close().expect("close succeeds");
    let mut batch = WriteBatch::new();
    batch.set("key", "newer");
    let closed = [
        ("get", handle.get("key").err()),
        ("contains", handle.contains("key").err()),
        ("len", handle.len().err()),
        ("is_empty", handle.is_empty().err()),
        ("set", handle.set("key", "newer").err()),
        ("delete", handle.delete("key").err()),
        ("compare_and_set", handle.compare_and_set("key", Expected::Absent, "v").err()),
        ("update", handle.update("key", |_| None).err()),
        ("write", handle.write(&batch).err()),
        ("transaction", handle.transaction().err()),
        ("snapshot", handle.snapshot().err()),
        ("scan", handle.scan().err()),
        ("scan_prefix", handle.scan_prefix("k").err()),
        ("ttl", handle.ttl("key").err()),
        ("expire", handle.expire("key", Expiry::Never).err()),
        ("persist", handle.persist("key").err()),
        ("sync", handle.sync().err()),
        ("compact", handle.compact().err()),
        ("stats", handle.stats().err()),
    ];
    for (name, error) in closed {
        assert!(matches!(error, Some(Error::Closed)), "{name} after the close: {error:?}");
    }
    assert_eq!(handle.path(), dir.path(), "what needs no store can still be asked");
    match handle.close() {
        Ok(()) | Err(Error::Closed) => {}
        Err(error) => panic!("a second close is harmless: {error:?}"),
    }
    assert_eq!(
        Db::open(dir.path()).and_then(|db| db.get("key")).expect("it opens"),
        Some(b"value".to_vec())
    );
}

#[test]
fn errors_of_callers_name_what_is_wrong() {
    let store = TestStore::new();
    let db = store.db();
    reads(&db.set("", "v").expect_err("an empty key is refused"), &["key", "empty"]);
    let error = db.set(vec![0; pakv::MAX_KEY_BYTES + 1], "v").expect_err("the key is too long");
    reads(&error, &["key", "65537", "65536"]);
    let error = TestStore::options()
        .segment_bytes(1)
        .open(store.path())
        .expect_err("the option is refused");
    reads(&error, &["segment_bytes", "1", "512"]);
    let path = store.path().to_str().expect("the path is text");
    let error = TestStore::options().open(store.path()).expect_err("the store is in use");
    reads(&error, &[path, "in use", &std::process::id().to_string()]);
    let error = TestStore::options()
        .create(false)
        .open(store.path().join("none"))
        .expect_err("no store is there");
    reads(&error, &[path, "none", "no store"]);
    assert!(!error.is_corruption() && !error.is_disk_full(), "absence is neither: {error:?}");
}

#[test]
fn a_full_disk_can_be_told_from_another_failure() {
    let failed = |kind: std::io::ErrorKind| {
        let path = "store/0000000001.log".into();
        Error::Io { action: "write to", path, source: kind.into() }
    };
    for kind in [std::io::ErrorKind::StorageFull, std::io::ErrorKind::QuotaExceeded] {
        assert!(failed(kind).is_disk_full(), "{kind:?}");
        assert!(!failed(kind).is_corruption(), "{kind:?}");
        reads(&failed(kind), &["cannot write to", "store/0000000001.log"]);
    }
    assert!(!failed(std::io::ErrorKind::PermissionDenied).is_disk_full());
}

#[test]
fn damage_names_file_and_offset_and_counts_as_corruption() {
    let mut store = TestStore::new();
    for index in 0..20 {
        store.set(format!("key{index:02}"), vec![b'Z'; 60]);
    }
    let copy = files::copied(store.path());
    let name = &files::names(copy.path(), ".log")[0];
    let path = copy.path().join(name);
    let damaged_at = files::position(&path, &[b'Z'; 60]).expect("the values are in the segment");
    files::flip(&path, damaged_at, 1);
    let db = TestStore::options().open(copy.path()).expect("a damaged value does not stop an open");
    let error = db.get("key00").expect_err("its record is damaged");
    assert!(error.is_corruption(), "{error:?}");
    reads(&error, &[name, "damaged", "byte"]);
    match error {
        Error::Corrupt { path: named, offset, .. } => {
            assert_eq!(named, path, "the error names the segment");
            assert!(offset <= damaged_at as u64, "the record begins at or before the damage");
            assert!(offset + 100 > damaged_at as u64, "and is the record that is damaged");
        }
        other => panic!("damage is told as such: {other:?}"),
    }
    assert_eq!(db.get("key19").expect("the others can be read"), Some(vec![b'Z'; 60]));

    drop(db);
    files::remove(&copy.path().join("MANIFEST"));
    let error = TestStore::options().open(copy.path()).expect_err("there is no manifest");
    assert!(error.is_corruption(), "{error:?}");
    reads(&error, &["MANIFEST", "missing"]);
}

/// Looking into a file from outside names what is wrong with it, as an open would.
#[test]
fn inspecting_what_is_no_segment_is_an_error() {
    let dir = files::scratch();
    let db = Db::open(dir.path()).expect("it opens");
    db.set("key", "value").and_then(|()| db.close()).expect("it sets and closes");
    let segment = dir.path().join("0000000001.log");
    assert_eq!(inspect::segment(&segment).expect("a segment").len(), 1);

    for other in ["MANIFEST", "LOCK", "1.log", ".."] {
        let error = inspect::segment(dir.path().join(other)).expect_err("no segment's name");
        assert!(error.to_string().contains("ten digits"), "{other}: {error}");
    }
    let missing = inspect::segment(dir.path().join("0000000002.log")).expect_err("not there");
    assert!(matches!(missing, Error::Io { .. }), "{missing:?}");
    let at = files::position(&segment, b"value").expect("the value is in the segment");
    files::flip(&segment, at, 1);
    let error = inspect::segment(&segment).expect_err("it is damaged");
    assert!(error.is_corruption(), "{error:?}");
}
