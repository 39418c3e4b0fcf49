//! A store whose every state is known: what it held after each write, and where in which segment
//! that write ended. The ground on which the tests of recovery and damage stand.

use std::path::{Path, PathBuf};

use pakv::{Db, Expiry, Options, WriteBatch};
use pakv_testkit::{TestStore, files};
use tempfile::TempDir;

/// Keys and values, in order.
pub(crate) type Contents = Vec<(Vec<u8>, Vec<u8>)>;

/// A write, the bytes that it took and what the store held after it.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// The number of the segment that it went to.
    pub(crate) segment: u32,
    /// Where its bytes begin in the segment.
    pub(crate) start: usize,
    /// Where they end.
    pub(crate) end: usize,
    pub(crate) contents: Contents,
}

/// An open store and how it came to be.
pub(crate) struct History {
    pub(crate) dir: TempDir,
    pub(crate) db: Db,
    pub(crate) steps: Vec<Step>,
    /// The length of a segment's header: what an empty one has.
    pub(crate) header_bytes: usize,
}

impl History {
    /// An empty store.
    pub(crate) fn new(options: &Options) -> Self {
        let dir = files::scratch();
        let db = options.clone().open(dir.path()).expect("an empty directory becomes a store");
        let header_bytes = active(&db).1;
        Self { dir, db, steps: Vec::new(), header_bytes }
    }

    /// A store with a few segments.
    pub(crate) fn of_five_rounds(options: &Options) -> Self {
        let mut history = Self::new(options);
        history.write(0..5);
        history
    }

    /// Writes a little of everything in each round: sets, overwrites, deletes, batches, expiries.
    pub(crate) fn write(&mut self, rounds: std::ops::Range<usize>) {
        for round in rounds {
            self.set("same", &format!("value {round}"));
            self.set(&format!("key{round}"), &"v".repeat(20 + round));
            self.batch(&[
                ("batch/a", Some("1")),
                ("batch/b", Some("22")),
                (&format!("batch/{round}"), Some("333")),
            ]);
            self.set("deleted", "soon");
            self.delete("deleted");
            let expired = Expiry::At(std::time::UNIX_EPOCH);
            self.step(|db| db.set_with_expiry("same", "expired", expired));
            self.batch(&[("batch/a", None), ("same", Some("after the expired one"))]);
        }
    }

    pub(crate) fn set(&mut self, key: &str, value: &str) {
        self.step(|db| db.set(key, value));
    }

    pub(crate) fn delete(&mut self, key: &str) {
        self.step(|db| db.delete(key).map(|was_there| assert!(was_there, "{key} was there")));
    }

    pub(crate) fn batch(&mut self, writes: &[(&str, Option<&str>)]) {
        let mut batch = WriteBatch::new();
        for (key, value) in writes {
            match value {
                Some(value) => batch.set(*key, *value),
                None => batch.delete(*key),
            };
        }
        self.step(|db| db.write(&batch));
    }

    /// Makes one write.
    fn step(&mut self, write: impl FnOnce(&Db) -> pakv::Result<()>) {
        write(&self.db).expect("a write succeeds");
        let (segment, end) = active(&self.db);
        let start = match self.steps.last() {
            Some(last) if last.segment == segment => last.end,
            _ => self.header_bytes,
        };
        assert!(end > start, "a write made its segment longer");
        self.steps.push(Step { segment, start, end, contents: contents(&self.db) });
    }

    /// What the store holds now.
    pub(crate) fn contents(&self) -> &Contents {
        &self.steps.last().expect("something was written").contents
    }

    /// The number of the active segment, and the steps that went to it.
    pub(crate) fn active_steps(&self) -> (u32, Vec<Step>) {
        let segment = self.steps.last().expect("something was written").segment;
        (segment, self.steps.iter().filter(|step| step.segment == segment).cloned().collect())
    }

    /// What the store held before the first step of the active segment.
    pub(crate) fn contents_before_active(&self) -> Contents {
        let (segment, _) = self.active_steps();
        let before = self.steps.iter().rev().find(|step| step.segment != segment);
        before.map(|step| step.contents.clone()).unwrap_or_default()
    }
}

/// Number and length of the active segment.
fn active(db: &Db) -> (u32, usize) {
    let stats = db.stats().expect("stats succeed");
    let active =
        stats.segments.iter().find(|segment| segment.active).expect("one segment is active");
    (active.segment, usize::try_from(active.bytes).expect("it fits"))
}

/// Everything in a store, values read.
pub(crate) fn contents(db: &Db) -> Contents {
    let scan = db.scan().expect("scan succeeds");
    scan.map(|entry| entry.into_pair().expect("a value can be read")).collect()
}

/// The path of a segment.
pub(crate) fn log(dir: &Path, segment: u32) -> PathBuf {
    dir.join(format!("{segment:010}.log"))
}

/// Opens a store that holds `expected`, and checks that it goes on from there: opening it again
/// gives the same, it can be written to and compacted, hints make no difference and nothing is left
/// lying about. Returns what the first open reported.
#[track_caller]
pub(crate) fn assert_recovers(
    dir: &Path,
    expected: &Contents,
    context: &str,
) -> pakv::RecoveryReport {
    let open = || {
        let opened = TestStore::options().open(dir);
        opened.unwrap_or_else(|error| panic!("{context}: {error}"))
    };
    let db = open();
    let report = db.recovery().clone();
    assert_eq!(&contents(&db), expected, "{context}: the contents");
    assert_eq!(
        db.len().expect("len succeeds"),
        expected.len() as u64,
        "{context}: the number of keys"
    );

    // A crash right after the open, and an open after that.
    let copy = files::copied(dir);
    let again =
        TestStore::options().open(copy.path()).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(&contents(&again), expected, "{context}: opened twice");
    let second = again.recovery();
    let mended = (second.bytes_cut, second.orphans_removed, second.hints_rebuilt);
    assert_eq!(mended, (0, 0, 0), "{context}: the first open left nothing to mend");
    again.close().unwrap_or_else(|error| panic!("{context}: {error}"));

    db.set("after", "recovery").unwrap_or_else(|error| panic!("{context}: {error}"));
    db.compact().unwrap_or_else(|error| panic!("{context}: {error}"));
    db.close().unwrap_or_else(|error| panic!("{context}: {error}"));
    files::remove_hints(dir);
    let db = open();
    assert!(
        db.delete("after").expect("delete succeeds"),
        "{context}: what was written after recovery is there"
    );
    assert_eq!(&contents(&db), expected, "{context}: compacted and opened without hints");
    let temporary = files::names(dir, ".tmp");
    assert_eq!(temporary, [""; 0], "{context}: no temporary file is left");
    report
}
