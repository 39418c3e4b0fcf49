//! A reader beside a writer moves on: what it sees after a refresh is what the writer had by then,
//! whatever the writer did meanwhile, and it writes nothing.

use std::collections::BTreeMap;
use std::path::Path;

use pakv::storage::OsStorage;
use pakv::{Clock as _, Db, Error, FileAccess, Options, Snapshot, Watch, WriteBatch};
use pakv_testkit::counting::{Calls, CountingStorage};
use pakv_testkit::ops::Expires;
use pakv_testkit::{Op, TestStore, files};

use crate::history::{Contents, contents};
use crate::model::on_random_ops;

fn reader(path: &Path) -> Db {
    TestStore::options().read_only(true).open(path).expect("a reader opens")
}

fn refresh(reader: &Db) -> u64 {
    reader.refresh().expect("refresh succeeds")
}

fn in_snapshot(snapshot: &Snapshot) -> Contents {
    snapshot.scan().map(|entry| entry.into_pair().expect("a value can be read")).collect()
}

fn now_ms(store: &TestStore) -> u64 {
    store.clock().now_ms()
}

type Entries = BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)>;

/// A reader of a [`TestStore`], and what a watch of it has gathered.
struct Beside {
    db: Db,
    watch: Watch,
    gathered: Entries,
}

impl Beside {
    fn of(store: &TestStore, method: FileAccess) -> Self {
        let options = TestStore::options().clock(store.clock().clone()).file_access(method);
        let db = options.read_only(true).open(store.path()).expect("a reader opens");
        let (watch, gathered) = Self::begin(&db);
        Self { db, watch, gathered }
    }

    /// A watch from here on, and what there is before it.
    fn begin(db: &Db) -> (Watch, Entries) {
        let snapshot = db.snapshot().expect("a snapshot can be taken");
        let watch = db.watch(snapshot.seqno() + 1).expect("what is to come can be watched");
        let entries = snapshot.scan().map(|entry| {
            let expires_at_ms = entry.expires_at_ms();
            let (key, value) = entry.into_pair().expect("a value can be read");
            (key, (value, expires_at_ms))
        });
        (watch, entries.collect())
    }

    fn gather(&mut self) -> Result<(), Error> {
        let mut next = self.watch.next_seqno();
        let mut rest = 0;
        for change in self.watch.by_ref() {
            let change = change?;
            assert_eq!(change.seqno, next, "no change is left out, and none comes twice");
            assert!(rest == 0 || change.batch_rest + 1 == rest, "a batch counts down: {change:?}");
            (next, rest) = (next + 1, change.batch_rest);
            match change.value {
                Some(value) => self.gathered.insert(change.key, (value, change.expires_at_ms)),
                None => self.gathered.remove(&change.key),
            };
        }
        assert_eq!(rest, 0, "a batch is whole");
        Ok(())
    }

    fn check(&mut self, store: &TestStore) {
        refresh(&self.db);
        let rows = store.model().rows();
        let seen: Vec<_> = self
            .db
            .scan()
            .expect("scan succeeds")
            .map(|entry| {
                let expires_at_ms = entry.expires_at_ms();
                let (key, value) = entry.into_pair().expect("a value can be read");
                (key, value, expires_at_ms)
            })
            .collect();
        assert_eq!(seen, rows, "what the reader sees");
        assert_eq!(self.db.len().expect("len succeeds"), rows.len() as u64);
        for (key, value, _) in &rows {
            assert_eq!(self.db.get(key).expect("get succeeds").as_ref(), Some(value));
        }
        // Keys, accounts of segments, sequence number: as a reader has them that is opened now.
        let anew = TestStore::options().clock(store.clock().clone()).read_only(true);
        let anew = anew.open(store.path()).expect("a reader opens").stats().expect("stats succeed");
        let stats = self.db.stats().expect("stats succeed");
        assert_eq!(format!("{:?}", stats.segments), format!("{:?}", anew.segments));
        let figures = |stats: &pakv::Stats| (stats.keys, stats.expiring_keys, stats.seqno);
        assert_eq!(figures(&stats), figures(&anew));
        match self.gather() {
            Ok(()) => {}
            Err(Error::HistoryGone { .. }) => (self.watch, self.gathered) = Self::begin(&self.db),
            Err(error) => panic!("{error}"),
        }
        let now_ms = now_ms(store);
        let is_there = |at: &Option<u64>| at.is_none_or(|at| now_ms < at);
        let gathered: Vec<_> = (self.gathered.iter())
            .filter(|(_, (_, at))| is_there(at))
            .map(|(key, (value, at))| (key.clone(), value.clone(), *at))
            .collect();
        assert_eq!(gathered, rows, "what the changes add up to");
    }
}

/// Any operations, any number of them between two refreshes.
#[test]
fn a_reader_follows_whatever_the_writer_does() {
    for (every, method) in [(1, FileAccess::Mapped), (5, FileAccess::Positional)] {
        on_random_ops(400, |ops| {
            let mut store = TestStore::new();
            let begun_ms = now_ms(&store);
            let mut path = store.path().to_path_buf();
            let mut beside = Beside::of(&store, method);
            let mut kept: Option<(Snapshot, Contents)> = None;
            for (index, op) in ops.iter().enumerate() {
                store.apply(op);
                if path != store.path() {
                    // The store goes on in another directory, as what a kill left behind.
                    (path, kept) = (store.path().to_path_buf(), None);
                    beside = Beside::of(&store, method);
                }
                if index % every == 0 {
                    beside.check(&store);
                }
                if let Some((snapshot, before)) = &kept {
                    let now = in_snapshot(snapshot);
                    let left = before.iter().filter(|row| now.contains(row)).count();
                    assert_eq!(left, now.len(), "a snapshot loses what expires, and gains nothing");
                    assert!(
                        now_ms(&store) > begun_ms || now == *before,
                        "what a kept snapshot sees"
                    );
                }
                if index % 7 == 0 {
                    let snapshot = beside.db.snapshot().expect("a snapshot can be taken");
                    let before = in_snapshot(&snapshot);
                    kept = Some((snapshot, before));
                }
            }
            beside.check(&store);
        });
    }
}

/// What is read at a refresh is what was written since, not the store.
#[test]
fn a_refresh_costs_what_was_written_since() {
    let dir = files::scratch();
    let options = || {
        Options::new()
            .segment_bytes(256 * 1024)
            .background_compaction(false)
            .durability(pakv::Durability::Buffered)
    };
    let db = options().open(dir.path()).expect("an empty directory becomes a store");
    let fill = |keys: std::ops::Range<u32>| {
        for key in keys {
            db.set(format!("{key:06}"), [7; 1000]).expect("set succeeds");
        }
    };
    fill(0..4_000);
    let storage = CountingStorage::new(OsStorage::new(dir.path()));
    let reader = options().read_only(true).open_storage(storage.clone());
    let reader = reader.expect("a reader opens");
    let opened = storage.take();
    assert!(opened.read_bytes > 100_000, "{opened:?}");
    let manifest_bytes = files::read(&dir.path().join("MANIFEST")).len() as u64;
    let cost_of = |what: &dyn Fn()| -> Calls {
        storage.take();
        what();
        refresh(&reader);
        let calls = storage.take();
        assert_eq!(calls.changes, 0, "a reader changes nothing: {calls:?}");
        calls
    };

    let of_nothing = cost_of(&|| ());
    assert!(of_nothing.read_bytes <= manifest_bytes + 128, "{of_nothing:?}");
    assert!(of_nothing.opens <= 2 && of_nothing.reads <= 4, "{of_nothing:?}");

    // Behind the last record of a segment: that record, and some of the space prepared behind it.
    let of_one = cost_of(&|| fill(0..1));
    assert!(of_one.read_bytes <= of_nothing.read_bytes + 5_200, "{of_one:?}");
    let of_ten = cost_of(&|| fill(0..10));
    assert!(of_ten.read_bytes <= of_nothing.read_bytes + 30_000, "{of_ten:?}");

    // Over several segments: the rest of the active one, hints of what was sealed, the new active.
    let of_a_thousand = cost_of(&|| fill(0..1_000));
    assert!(of_a_thousand.read_bytes <= 600_000, "{of_a_thousand:?}");
    assert!(of_a_thousand.opens <= 16, "{of_a_thousand:?}");

    // A compaction: what it wrote, by its hints, and not what it left alone.
    let of_compaction =
        cost_of(&|| assert!(db.compact().expect("compact succeeds").segments_in > 0));
    assert!(of_compaction.read_bytes < opened.read_bytes, "{of_compaction:?} of {opened:?}");
    assert_eq!(contents(&reader), contents(&db));
}

#[test]
fn a_refreshed_reader_writes_nothing_at_all() {
    let mut store = TestStore::new();
    store.set("key", "value");
    let reader = reader(store.path());
    for round in 0..40 {
        store.set(format!("key{round:02}"), vec![b'v'; 60]);
        let mut watch = reader.watch(reader.refresh().expect("refresh succeeds")).expect("it can");
        let before = files::state(store.path());
        refresh(&reader);
        assert_eq!(watch.by_ref().count(), 1);
        assert_eq!(contents(&reader), contents(store.db()));
        assert!(files::state(store.path()) == before, "a reader changed a file, or its time");
    }
}

/// A writer that is killed while it writes a batch leaves a part of it, which the next one cuts off;
/// what it writes then stands in the same place, with the same sequence numbers.
#[test]
fn half_a_batch_is_never_seen_and_what_comes_in_its_place_is() {
    let mut store = TestStore::with(TestStore::options().segment_bytes(4_096));
    store.set("before", "value");
    let name = files::names(store.path(), ".log").pop().expect("there is a segment");
    let without = files::read(&store.path().join(&name));
    let copy = files::copied(store.path());
    let mut batch = WriteBatch::new();
    batch.set("a", "1").set("b", "22").delete("before").set("c", "333");
    store.db().write(&batch).expect("write succeeds");
    store.adopt();
    let with = files::read(&store.path().join(&name));

    let log = copy.path().join(&name);
    let reader = reader(copy.path());
    let before = contents(&reader);
    for len in without.len()..with.len() {
        files::write(&log, &with[..len]);
        refresh(&reader);
        assert_eq!(contents(&reader), before, "{len} bytes, {} of the batch", len - without.len());
    }
    let db = TestStore::options().open(copy.path()).expect("the next writer opens");
    refresh(&reader);
    assert_eq!(contents(&reader), before);
    let mut batch = WriteBatch::new();
    db.write(batch.set("x", "1").set("y", "22")).expect("write succeeds");
    refresh(&reader);
    assert_eq!(contents(&reader), contents(&db));
    assert_eq!(reader.get("a").expect("get succeeds"), None);
    db.close().expect("close succeeds");
    refresh(&reader);
    assert_eq!(reader.len().expect("len succeeds"), 3);
}

/// A writer that opens a store of which a backup by hard links was made puts a copy in the place of
/// the active segment: a reader that has the old file must not go on reading that.
#[test]
fn a_reader_follows_a_writer_that_leaves_a_linked_file_to_its_backup() {
    let mut store = TestStore::with(Options::new());
    store.set("key", "value");
    let reader = reader(store.path());
    let mut watch = reader.watch(1).expect("nothing was compacted");
    assert_eq!(watch.by_ref().count(), 1);
    store.reopen(pakv_testkit::Reopen::Close);
    let link = files::scratch();
    let name = files::names(store.path(), ".log").pop().expect("there is a segment");
    std::fs::hard_link(store.path().join(&name), link.path().join(&name)).expect("a link is made");
    store.reopen(pakv_testkit::Reopen::Close);
    store.set("key", "newer");
    refresh(&reader);
    assert_eq!(reader.get("key").expect("get succeeds").as_deref(), Some(&b"newer"[..]));
    let values: Vec<_> = watch.map(|change| change.expect("a change").value).collect();
    assert_eq!(values, [Some(b"newer".to_vec())]);
}

#[test]
fn a_reader_notices_that_another_store_is_in_the_place() {
    let mut store = TestStore::new();
    for index in 0..20 {
        store.set(format!("key{index:02}"), vec![b'v'; 60]);
    }
    let older = files::copied(store.path());
    for index in 0..20 {
        store.set(format!("key{index:02}"), vec![b'w'; 60]);
    }
    let place = files::copied(store.path());
    let reader = reader(place.path());
    let before = contents(&reader);
    let other = TestStore::new();
    for (what, from) in [("an older state", older.path()), ("another store", other.path())] {
        for path in files::paths(place.path()) {
            files::remove(&path);
        }
        files::copy_store(from, place.path());
        let refreshed = reader.refresh();
        assert!(matches!(refreshed, Err(Error::Replaced { .. })), "{what}: {refreshed:?}");
        assert_eq!(contents(&reader), before, "{what}: the reader goes on with what it saw");
    }
}

/// Damage behind what was read is told, and what was read stays readable.
#[test]
fn a_reader_tells_damage_and_goes_on_with_what_it_has() {
    let dir = files::scratch();
    let options = || Options::new().background_compaction(false);
    let db = options().open(dir.path()).expect("an empty directory becomes a store");
    db.set("first", "value").expect("set succeeds");
    let reader = options().read_only(true).open(dir.path()).expect("a reader opens");
    let log = dir.path().join("0000000001.log");
    let end = files::read(&log).len();
    // Synced, each of them vouches for the one before.
    db.set("second", "value").expect("set succeeds");
    db.set("third", "value").expect("set succeeds");
    files::flip(&log, end + 12, 1);
    let refreshed = reader.refresh();
    assert!(refreshed.as_ref().is_err_and(Error::is_corruption), "{refreshed:?}");
    assert_eq!(reader.get("first").expect("get succeeds").as_deref(), Some(&b"value"[..]));
    assert_eq!(reader.get("second").expect("get succeeds"), None);
    files::flip(&log, end + 12, 1);
    refresh(&reader);
    assert_eq!(reader.len().expect("len succeeds"), 3);
}

/// A reader keeps what has expired until it moves on; a compaction of its writer may have taken it out of
/// the log. `check` called that damage.
#[test]
fn a_reader_that_still_has_what_expired_is_sound() {
    let mut store = TestStore::new();
    store.apply(&Op::Set {
        key: b"key".into(),
        value: b"value".into(),
        expires: Expires::After(1_000),
    });
    store.set("other", "value");
    let options = TestStore::options().clock(store.clock().clone()).read_only(true);
    let reader = options.open(store.path()).expect("a reader opens");
    store.apply(&Op::Advance { ms: 1_000 });
    store.apply(&Op::Compact);
    let report = reader.check().expect("a check runs");
    assert_eq!(report.findings, []);
}
