//! One writer at a time, and readers beside it that need no lock and write nothing. Other processes
//! are tried in `pakv-testkit/tests/processes.rs`.

use std::path::Path;
use std::time::Duration;

use pakv::{Db, Error, Expected, Expiry, Options, WriteBatch};
use pakv_testkit::{TestStore, files};

fn reader() -> Options {
    TestStore::options().read_only(true)
}

fn get(db: &Db, key: &str) -> Option<String> {
    db.get(key)
        .expect("get succeeds")
        .map(|value| String::from_utf8(value).expect("the tests store text"))
}

#[test]
fn a_second_writer_is_refused_and_told_who_holds_the_store() {
    let dir = files::scratch();
    let db = Db::open(dir.path()).expect("an empty directory becomes a store");
    db.set("key", "value").expect("set succeeds");
    match Options::new().lock_wait(Duration::from_millis(30)).open(dir.path()) {
        Err(Error::InUse { path, pid, waited }) => {
            assert_eq!(path, dir.path());
            assert_eq!(pid, Some(std::process::id()), "this process has it");
            assert!(
                waited >= Duration::from_millis(30),
                "it waited as long as it was told: {waited:?}"
            );
        }
        other => panic!("a second open should say that the store is in use: {other:?}"),
    }
    assert_eq!(get(&db, "key").as_deref(), Some("value"), "the first handle goes on");
    db.set("key", "newer").expect("the first handle goes on");
}

#[test]
fn an_open_waits_for_a_handle_that_is_about_to_close() {
    let dir = files::scratch();
    let db = Db::open(dir.path()).expect("an empty directory becomes a store");
    let closer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        db.set("key", "value").and_then(|()| db.close()).expect("close succeeds");
    });
    let db = Options::new()
        .lock_wait(Duration::from_secs(60))
        .open(dir.path())
        .expect("the wait is long enough");
    assert_eq!(get(&db, "key").as_deref(), Some("value"), "the other handle had closed");
    closer.join().expect("the other thread ends");
}

#[test]
fn a_closed_or_dropped_store_is_free_at_once() {
    let dir = files::scratch();
    let open = || Options::new().lock_wait(Duration::ZERO).open(dir.path());
    let db = open().expect("an empty directory becomes a store");
    let clone = db.clone();
    db.close().expect("close succeeds though there is another handle");
    let db = open().expect("a closed store is free");
    drop(clone);
    assert!(
        matches!(open(), Err(Error::InUse { .. })),
        "an old handle's end does not free the new one's store"
    );
    let clone = db.clone();
    drop(db);
    assert!(matches!(open(), Err(Error::InUse { .. })), "a handle is left");
    drop(clone);
    open().expect("the last handle was dropped");
}

#[test]
fn a_reader_beside_a_writer_sees_the_moment_of_its_open() {
    let mut store = TestStore::new();
    for index in 0..20 {
        store.set(format!("key{index:02}"), vec![b'v'; 60]);
    }
    let reader = self::reader().open(store.path()).expect("a reader opens beside the writer");
    for index in 0..20 {
        store.set(format!("key{index:02}"), "newer");
    }
    store.delete("key00");
    store.db().compact().expect("compact succeeds");
    for entry in reader.scan().expect("scan succeeds") {
        assert_eq!(entry.value().expect("what compaction removed stays readable"), vec![b'v'; 60]);
    }
    assert_eq!(reader.len().expect("len succeeds"), 20, "the moment of the open");
    let later = self::reader().open(store.path()).expect("another reader opens");
    assert_eq!(
        get(&later, "key01").as_deref(),
        Some("newer"),
        "a later reader sees a later moment"
    );
    assert_eq!(get(&later, "key00"), None, "a later reader sees a later moment");
}

#[test]
fn every_write_of_a_reader_is_refused() {
    let mut store = TestStore::new();
    store.set("key", "value");
    let db = reader().open(store.path()).expect("a reader opens");
    let mut batch = WriteBatch::new();
    batch.set("key", "newer");
    let refused = [
        ("set", db.set("key", "newer").err()),
        ("set_with_expiry", db.set_with_expiry("key", "newer", Expiry::Never).err()),
        ("set_as", db.set_as("key", &1).err()),
        ("delete", db.delete("key").err()),
        ("compare_and_set", db.compare_and_set("key", Expected::Present, "newer").err()),
        ("compare_and_delete", db.compare_and_delete("key", Expected::Present).err()),
        ("update", db.update("key", |_| None).err()),
        ("write", db.write(&batch).err()),
        ("transaction", db.transaction().err()),
        ("expire", db.expire("key", Expiry::After(Duration::ZERO)).err()),
        ("persist", db.persist("key").err()),
        ("compact", db.compact().err()),
    ];
    for (name, error) in refused {
        assert!(matches!(error, Some(Error::ReadOnly { .. })), "{name} of a reader: {error:?}");
    }
    assert_eq!(get(&db, "key").as_deref(), Some("value"), "nothing was changed");
    db.close().expect("a reader closes");
}

/// A reader must leave even what a writer would mend: a torn tail, orphans, a temporary file, lost
/// hints.
#[test]
fn a_reader_writes_nothing_at_all() {
    let mut store = TestStore::new();
    for index in 0..20 {
        store.set(format!("key{index:02}"), vec![b'v'; 60]);
    }
    let copy = files::copied(store.path());
    let at = |name: &str| copy.path().join(name);
    let logs = files::names(copy.path(), ".log");
    files::remove(&at(&files::names(copy.path(), ".hint")[0]));
    files::write(&at(&files::names(copy.path(), ".hint")[0]), "damaged");
    let active = at(logs.last().expect("there is a segment"));
    files::write(&active, [files::read(&active), b"torn".repeat(5)].concat());
    files::write(&at("0000009999.log"), files::read(&active));
    files::write(&at("MANIFEST.tmp"), "half");

    let before = files::state(copy.path());
    let db = reader().open(copy.path()).expect("a reader opens what a writer could mend");
    assert_eq!(db.len().expect("len succeeds"), 20);
    for entry in db.scan().expect("scan succeeds") {
        assert_eq!(entry.value().expect("a value can be read"), vec![b'v'; 60]);
    }
    db.stats().expect("stats succeed");
    db.close().expect("close succeeds");
    assert!(files::state(copy.path()) == before, "a reader changed a file, or the time of one");

    // It does not need the lock file either.
    files::remove(&at("LOCK"));
    reader().open(copy.path()).expect("a reader needs no lock");
    assert!(!at("LOCK").exists(), "a reader creates no lock");
}

#[test]
fn what_must_exist_is_not_created() {
    let dir = files::scratch();
    let missing = dir.path().join("missing");
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).expect("a directory can be made");
    for options in [Options::new().create(false), Options::new().read_only(true)] {
        for path in [&missing, &empty] {
            match options.clone().open(path) {
                Err(Error::NoStore { path: named }) => {
                    assert_eq!(&named, path, "the error names the place")
                }
                other => panic!("{} holds no store: {other:?}", path.display()),
            }
        }
        assert!(!missing.exists(), "nothing was created");
        assert_eq!(files::names(&empty, ""), [""; 0], "nothing was created");
    }
}

/// Threads that open, write and close in turn: each must find what the one before it wrote.
#[test]
fn a_store_passes_from_hand_to_hand_whole() {
    let dir = files::scratch();
    let options = TestStore::options().lock_wait(Duration::from_secs(60));
    let add_one = |value: Option<&[u8]>| {
        let text = value.map_or("0", |value| std::str::from_utf8(value).expect("a number"));
        Some((text.parse::<u32>().expect("a number") + 1).to_string().into_bytes())
    };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (dir, options) = (dir.path(), options.clone());
            scope.spawn(move || {
                for turn in 0..20 {
                    let db = options.clone().open(dir).expect("the turn comes in time");
                    db.update("counter", add_one).expect("update succeeds");
                    if (thread + turn) % 2 == 0 {
                        db.close().expect("close succeeds");
                    }
                }
            });
        }
    });
    let db = options.open(dir.path()).expect("the store opens");
    assert_eq!(get(&db, "counter").as_deref(), Some("80"), "every turn counts");
}

#[test]
fn a_file_is_no_store() {
    let dir = files::scratch();
    let file = dir.path().join("file");
    files::write(&file, "bytes");
    let below = file.join("below");
    let refused =
        |options: Options, path: &Path| options.open(path).expect_err("a file is no directory");
    for options in [Options::new(), Options::new().create(false), Options::new().read_only(true)] {
        let error = refused(options.clone(), &file);
        assert!(matches!(error, Error::NotADirectory { .. }), "{error:?}");
        let error = refused(options, &below);
        let typed =
            matches!(error, Error::NotADirectory { .. } | Error::NoStore { .. } | Error::Io { .. });
        assert!(typed, "{error:?}");
    }
    assert_eq!(files::read(&file), b"bytes", "the file is as it was");
}
