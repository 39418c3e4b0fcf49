//! A store and its model in step.

mod check;

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use pakv::{Clock, Db, Durability, Expected, Expiry, ManualClock, Options, Snapshot, WriteBatch};
use tempfile::TempDir;

use self::check::{check_snapshot, row, rows};
use crate::files;
use crate::model::{Model, Row};
use crate::ops::{Change, Expects, Expires, Op, Range, Write};

/// How many snapshots an [`Op`] list keeps at a time.
const MAX_SNAPSHOTS: usize = 4;

/// How a store is opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reopen {
    /// After [`Db::close`].
    Close,
    /// After the last handle was dropped.
    Drop,
    /// From a copy of the files made while the store was open: what `kill -9` leaves behind.
    Kill,
    /// After a close, with every hint removed.
    LoseHints,
}

/// A store in a directory of its own with tiny segments and a clock that stands still, and the
/// model that it is compared with. When it is dropped it is closed, opened again and compared once
/// more.
///
/// Writes go through [`apply`](Self::apply), which keeps the model in step.
pub struct TestStore {
    dir: TempDir,
    options: Options,
    clock: Arc<ManualClock>,
    /// `None` only while it is opened again.
    db: Option<Db>,
    model: Model,
    snapshots: Vec<(Snapshot, Model)>,
    /// Whether a thread of the store's own changes files at any time.
    background: bool,
}

impl TestStore {
    /// Options that make a small test thorough and repeatable: tiny segments, nothing in the
    /// background, no syncs, and when compaction is asked what there is to do, a single segment
    /// with garbage is enough: mostly it finds some of the segments and not all.
    pub fn options() -> Options {
        Options::new()
            .segment_bytes(512)
            .background_compaction(false)
            .durability(Durability::Buffered)
            .compaction_space_amplification(100.0)
            .compaction_segment_garbage_ratio(0.3)
            .compaction_min_garbage(0)
            .keydir_merge_keys(3)
    }

    /// An empty store with these [options](Self::options).
    pub fn new() -> Self {
        Self::with(Self::options())
    }

    /// An empty store that does nothing in the background; the clock among `options` is replaced by
    /// one that stands at 1,000,000 ms.
    pub fn with(options: Options) -> Self {
        Self::build(options.background_compaction(false), false)
    }

    /// An empty store that compacts in the background, eagerly. What it answers is as certain as
    /// without; its files are not, so they are not compared and [`Reopen::Kill`], which would copy
    /// them while they change, is a drop.
    pub fn in_background(options: Options) -> Self {
        let eager = options
            .background_compaction(true)
            .compaction_space_amplification(1.05)
            .compaction_rate(None);
        Self::build(eager, true)
    }

    fn build(options: Options, background: bool) -> Self {
        let clock = Arc::new(ManualClock::new(1_000_000));
        let options = options.clock(clock.clone());
        let dir = files::scratch();
        let db = options.clone().open(dir.path()).expect("an empty directory becomes a store");
        assert!(
            db.recovery().created,
            "the report of the first open says that the store was created"
        );
        let model = Model::new(clock.clone());
        Self { dir, options, model, clock, db: Some(db), snapshots: Vec::new(), background }
    }

    /// The store. What is written through it directly the model does not know until it is
    /// [adopted](Self::adopt).
    pub fn db(&self) -> &Db {
        self.db.as_ref().expect("a store is open between operations")
    }

    /// Makes the model what the store holds: the last step of a test that wrote through
    /// [`db`](Self::db), whose own assertions have said what is right. The store opened again is
    /// then compared with that.
    pub fn adopt(&mut self) {
        let rows = rows(self.db().scan().expect("scan succeeds"));
        self.model = Model::new(self.clock.clone());
        for (key, value, expires_at_ms) in rows {
            self.model.set(&key, &value, expires_at_ms);
        }
    }

    /// What the store should hold.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The clock of both.
    pub fn clock(&self) -> &Arc<ManualClock> {
        &self.clock
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Sets a key without expiry.
    pub fn set(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let (key, value) = (key.as_ref().into(), value.as_ref().into());
        self.apply(&Op::Set { key, value, expires: Expires::Never });
    }

    /// Deletes a key.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) {
        self.apply(&Op::Delete(key.as_ref().into()));
    }

    /// Applies an operation to the store and to the model and compares what they answer.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Get(key) => self.check_key(key),
            Op::Set { key, value, expires } => {
                let expiry = self.expiry(*expires);
                let done = match expires {
                    Expires::Never => self.db().set(key, value),
                    _ => self.db().set_with_expiry(key, value, expiry),
                };
                done.expect("set succeeds");
                self.model.set(key, value, self.instant(*expires));
                self.check_key(key);
            }
            Op::Delete(key) => {
                let was_there = self.db().delete(key).expect("delete succeeds");
                assert_eq!(
                    was_there,
                    self.model.delete(key),
                    "delete tells whether {key:?} was there"
                );
                self.check_key(key);
            }
            Op::CompareAndSet { key, expects, value, expires } => {
                self.compare_and_set(key, expects, value, *expires);
            }
            Op::CompareAndDelete { key, expects } => self.compare_and_delete(key, expects),
            Op::Update { key, change } => self.update(key, change),
            Op::Batch(writes) => self.batch(writes),
            Op::Transaction { writes, commit } => self.transaction(writes, *commit),
            Op::Expire { key, expires } => {
                let was_there =
                    self.db().expire(key, self.expiry(*expires)).expect("expire succeeds");
                let value = self.model.get(key).map(<[u8]>::to_vec);
                assert_eq!(was_there, value.is_some(), "expire tells whether {key:?} was there");
                if let Some(value) = value {
                    self.model.set(key, &value, self.instant(*expires));
                }
                self.check_key(key);
            }
            Op::Persist(key) => {
                let was_there = self.db().persist(key).expect("persist succeeds");
                let value = self.model.get(key).map(<[u8]>::to_vec);
                assert_eq!(was_there, value.is_some(), "persist tells whether {key:?} was there");
                if let Some(value) = value {
                    self.model.set(key, &value, None);
                }
                self.check_key(key);
            }
            Op::Scan { range, from_front } => self.scan(range, from_front),
            Op::TakeSnapshot => {
                if self.snapshots.len() < MAX_SNAPSHOTS {
                    let snapshot = self.db().snapshot().expect("a snapshot can be taken");
                    self.snapshots.push((snapshot, self.model.clone()));
                }
            }
            Op::CheckSnapshot(index) => {
                if let Some((snapshot, model)) = self.snapshots.get(*index) {
                    check_snapshot(snapshot, model);
                }
            }
            Op::DropSnapshot(index) => {
                if *index < self.snapshots.len() {
                    self.snapshots.remove(*index);
                }
            }
            Op::Advance { ms } => self.clock.advance(Duration::from_millis(*ms)),
            Op::Sync => self.db().sync().expect("sync succeeds"),
            Op::Compact => {
                self.db().compact().expect("compact succeeds");
                self.check();
                self.check_accounts();
            }
            Op::Maintain => {
                self.db().maintain().expect("maintain succeeds");
                self.check();
                self.check_accounts();
            }
            Op::OpenReadOnly => {
                let reader = self.options.clone().read_only(true).open(self.path());
                let reader = reader.expect("a reader opens beside the writer");
                let rows = rows(reader.scan().expect("a reader scans"));
                assert_eq!(
                    rows,
                    self.model.rows(),
                    "a reader beside the writer sees what the writer handed over"
                );
            }
            Op::Reopen(how) => self.reopen(*how),
        }
        let len = self.db().len().expect("len succeeds");
        assert_eq!(len, self.model.len() as u64, "the number of keys after {op:?}");
    }

    /// Closes the store in one of several ways, opens it again and compares everything.
    pub fn reopen(&mut self, how: Reopen) {
        for (snapshot, model) in self.snapshots.drain(..) {
            check_snapshot(&snapshot, &model);
        }
        self.check_files();
        let db = self.db.take().expect("a store is open between operations");
        let seqno = db.stats().expect("stats succeed").seqno;
        match how {
            Reopen::Close => db.close().expect("close succeeds"),
            Reopen::Kill if !self.background => {
                let copy = files::copied(self.path());
                let original = std::mem::replace(&mut self.dir, copy);
                drop(db);
                drop(original);
            }
            Reopen::Drop | Reopen::Kill => drop(db),
            Reopen::LoseHints => {
                db.close().expect("close succeeds");
                files::remove_hints(self.path());
            }
        }
        self.db = Some(
            self.options
                .clone()
                .open(self.path())
                .unwrap_or_else(|error| panic!("after {how:?}: {error}")),
        );
        let recovery = self.db().recovery();
        assert_eq!(
            recovery.keys,
            self.model.len() as u64,
            "the keys in the report of the open after {how:?}"
        );
        assert_eq!(
            recovery.bytes_cut, 0,
            "every write was whole, so the open after {how:?} cuts nothing"
        );
        assert!(!recovery.created, "the store was there before {how:?}");
        let reopened = self.db().stats().expect("stats succeed").seqno;
        assert!(reopened >= seqno, "{how:?} took sequence numbers back from {seqno} to {reopened}");
        self.check();
        self.check_files();
        if !self.background {
            self.check_directory();
        }
    }

    fn compare_and_set(&mut self, key: &[u8], expects: &Expects, value: &[u8], expires: Expires) {
        let current = self.model.get(key).map(<[u8]>::to_vec);
        let (expected, holds) = condition(expects, current.as_deref());
        let done = match expires {
            Expires::Never => self.db().compare_and_set(key, expected, value),
            _ => self.db().compare_and_set_with_expiry(key, expected, value, self.expiry(expires)),
        };
        assert_eq!(
            done.expect("compare_and_set succeeds"),
            holds,
            "{expected:?} of {key:?}, which has {current:?}"
        );
        if holds {
            self.model.set(key, value, self.instant(expires));
        }
        self.check_key(key);
    }

    fn compare_and_delete(&mut self, key: &[u8], expects: &Expects) {
        let current = self.model.get(key).map(<[u8]>::to_vec);
        let (expected, holds) = condition(expects, current.as_deref());
        let done =
            self.db().compare_and_delete(key, expected).expect("compare_and_delete succeeds");
        assert_eq!(done, holds, "{expected:?} of {key:?}, which has {current:?}");
        if holds {
            self.model.delete(key);
        }
        self.check_key(key);
    }

    fn update(&mut self, key: &[u8], change: &Change) {
        let apply = |current: Option<&[u8]>| match change {
            Change::Append(bytes) => Some([current.unwrap_or_default(), bytes].concat()),
            Change::Same => current.map(<[u8]>::to_vec),
            Change::Remove => None,
        };
        let expected = apply(self.model.get(key));
        let answer = self.db().update(key, apply).expect("update succeeds");
        assert_eq!(answer, expected, "update of {key:?} answers with the new value");
        match expected {
            Some(value) => {
                let expires_at_ms = self.model.expires_at_ms(key).flatten();
                self.model.set(key, &value, expires_at_ms);
            }
            None => {
                self.model.delete(key);
            }
        }
        self.check_key(key);
    }

    fn batch(&mut self, writes: &[Write]) {
        let mut batch = WriteBatch::new();
        for write in writes {
            match write {
                Write::Set { key, value, expires } => {
                    batch.set_with_expiry(&**key, &**value, self.expiry(*expires));
                }
                Write::Delete { key } => {
                    batch.delete(&**key);
                }
            }
        }
        assert_eq!(batch.len(), writes.len(), "the writes that a batch holds");
        self.db().write(&batch).expect("a batch is written");
        let mut model = self.model.clone();
        self.write_to(&mut model, writes);
        self.model = model;
        for write in writes {
            self.check_key(write.key());
        }
    }

    fn transaction(&mut self, writes: &[Write], commit: bool) {
        let mut transaction = self.db().transaction().expect("a transaction opens");
        let mut model = self.model.clone();
        for write in writes {
            match write {
                Write::Set { key, value, expires: Expires::Never } => {
                    transaction.set(&**key, &**value);
                }
                Write::Set { key, value, expires } => {
                    transaction.set_with_expiry(&**key, &**value, self.expiry(*expires));
                }
                Write::Delete { key } => transaction.delete(&**key),
            }
            self.write_to(&mut model, std::slice::from_ref(write));
            let key = write.key();
            let value = transaction.get(key).expect("a transaction reads");
            assert_eq!(
                value.as_deref(),
                model.get(key),
                "a transaction sees its own write of {key:?}"
            );
            let there = transaction.contains(key).expect("a transaction reads");
            assert_eq!(
                there,
                model.get(key).is_some(),
                "a transaction knows whether {key:?} is there"
            );
            let outside = self.db().get(key).expect("a get beside a transaction succeeds");
            assert_eq!(
                outside.as_deref(),
                self.model.get(key),
                "nobody else sees an open transaction's {key:?}"
            );
        }
        let pairs: Vec<_> = transaction
            .scan_range::<&[u8]>(..)
            .map(|pair| pair.expect("a transaction scans"))
            .collect();
        let expected: Vec<_> =
            model.rows().into_iter().map(|(key, value, _)| (key, value)).collect();
        assert_eq!(pairs, expected, "a scan in a transaction sees its own writes");
        if let Some(prefix) = writes.first().and_then(|write| write.key().first_chunk::<1>()) {
            let pairs: Vec<_> = transaction
                .scan_prefix(prefix)
                .map(|pair| pair.expect("a transaction scans"))
                .collect();
            let rows = model.rows_with_prefix(prefix);
            let expected: Vec<_> = rows.into_iter().map(|(key, value, _)| (key, value)).collect();
            assert_eq!(pairs, expected, "the keys that begin with {prefix:?} in a transaction");
        }
        if commit {
            transaction.commit().expect("commit succeeds");
            self.model = model;
        } else {
            transaction.rollback();
        }
        for write in writes {
            self.check_key(write.key());
        }
    }

    fn write_to(&self, model: &mut Model, writes: &[Write]) {
        for write in writes {
            match write {
                Write::Set { key, value, expires } => model.set(key, value, self.instant(*expires)),
                Write::Delete { key } => {
                    model.delete(key);
                }
            }
        }
    }

    fn scan(&self, range: &Range, from_front: &[bool]) {
        let db = self.db();
        let (scan, again, mut left) = match range {
            Range::All => (db.scan(), db.scan(), self.model.rows()),
            Range::Prefix(prefix) => (
                db.scan_prefix(prefix),
                db.scan_prefix(prefix),
                self.model.rows_with_prefix(prefix),
            ),
            Range::Between(start, end) => {
                let bounds = || -> (Bound<&[u8]>, Bound<&[u8]>) {
                    (start.as_ref().map(AsRef::as_ref), end.as_ref().map(AsRef::as_ref))
                };
                let scan = || db.scan_range::<&[u8]>(bounds());
                (scan(), scan(), self.model.rows_in::<&[u8]>(bounds()))
            }
        };
        let backwards: Vec<Row> = again.expect("scan succeeds").rev().map(row).collect();
        let mut expected = left.clone();
        expected.reverse();
        assert_eq!(backwards, expected, "{range:?} backwards");

        let mut scan = scan.expect("scan succeeds");
        for front in from_front {
            let (entry, expected) = match front {
                true => (scan.next(), (!left.is_empty()).then(|| left.remove(0))),
                false => (scan.next_back(), left.pop()),
            };
            assert_eq!(entry.map(row), expected, "{range:?} from both ends: {from_front:?}");
        }
        assert_eq!(rows(scan), left, "the rest of {range:?} after {from_front:?}");
    }

    fn expiry(&self, expires: Expires) -> Expiry {
        match expires {
            Expires::Never => Expiry::Never,
            Expires::After(ms) => Expiry::After(Duration::from_millis(ms)),
            Expires::At(_) => {
                let at = self.instant(expires).expect("this is an instant");
                Expiry::At(UNIX_EPOCH + Duration::from_millis(at))
            }
        }
    }

    fn instant(&self, expires: Expires) -> Option<u64> {
        match expires {
            Expires::Never => None,
            Expires::After(ms) => Some(self.clock.now_ms() + ms),
            Expires::At(ms) => Some(self.clock.now_ms().saturating_add_signed(ms)),
        }
    }
}

impl Default for TestStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TestStore {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.reopen(Reopen::Close);
        }
    }
}

impl Write {
    fn key(&self) -> &[u8] {
        match self {
            Write::Set { key, .. } | Write::Delete { key } => key,
        }
    }
}

/// The condition as the store takes it, and whether it holds.
fn condition<'a>(expects: &'a Expects, current: Option<&'a [u8]>) -> (Expected<'a>, bool) {
    match (expects, current) {
        (Expects::Absent, _) | (Expects::Current, None) => (Expected::Absent, current.is_none()),
        (Expects::Present, _) => (Expected::Present, current.is_some()),
        (Expects::Current, Some(current)) => (Expected::Value(current), true),
        (Expects::Value(value), _) => (Expected::Value(value), current == Some(&**value)),
    }
}
