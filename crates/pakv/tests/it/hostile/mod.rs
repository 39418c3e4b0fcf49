//! A directory that a stranger has prepared. Whatever is in it: right answers or a typed error that
//! names the file; never a panic, never a wait without end, and nothing outside the store is
//! touched. Damage by accident is `damage.rs`; here checksums are right and files are not files.
//!
//! How much memory it takes is asked in `pakv-testkit/tests/hostile.rs`, from a process of its own.

mod forged; // right checksums, wrong words
mod links; // links, pipes, devices, directories in place of files
mod names; // what else may lie about

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use pakv::{Db, Error, Options};
use pakv_testkit::forge::Manifest;
use pakv_testkit::{TestStore, files, within};
use tempfile::TempDir;

use crate::history::{Contents, History, contents};

/// A closed store with segments of users and of compaction, and what it holds.
struct Store {
    dir: TempDir,
    contents: Contents,
}

impl Store {
    fn new() -> Self {
        let mut history = History::new(&TestStore::options().segment_bytes(600));
        history.write(0..4);
        history.db.compact().expect("compact succeeds");
        history.write(4..8);
        history.set("same", "the last one");
        let contents = history.contents().clone();
        history.db.close().expect("close succeeds");
        Self { dir: history.dir, contents }
    }

    fn manifest(&self) -> Manifest {
        Manifest::of(self.dir.path())
    }

    /// The numbers of the sealed segments.
    fn sealed(&self) -> Vec<u32> {
        self.manifest().sealed.iter().map(|sealed| sealed.segment).collect()
    }

    fn active(&self) -> u32 {
        self.manifest().active.expect("a store has an active segment").segment
    }

    fn copy(&self) -> TempDir {
        files::copied(self.dir.path())
    }

    /// Uses the store in `dir` in every way: opened for reading, then for writing, written to,
    /// compacted, closed and opened again. Returns the error of the first open for writing.
    ///
    /// Each step is right or a typed error; what is read is the truth or damage that is told.
    fn use_it(&self, dir: &Path, context: &str) -> Option<Error> {
        let (dir, contents, context) =
            (dir.to_path_buf(), self.contents.clone(), context.to_string());
        within(&context.clone(), move || {
            salvage(&dir, &context);
            match options().read_only(true).open(&dir) {
                Ok(db) => check(&db, &contents, &format!("{context}, a reader")),
                Err(error) => check_error(&error, &dir, &format!("{context}, a reader")),
            }
            let db = match options().open(&dir) {
                Ok(db) => db,
                Err(error) => {
                    check_error(&error, &dir, &context);
                    return Some(error);
                }
            };
            check(&db, &contents, &context);
            write_and_compact(&db, &dir, &context);
            check(&db, &contents, &format!("{context}, after writes"));
            close(db, &dir, &context);
            match options().open(&dir) {
                Ok(db) => {
                    let context = format!("{context}, opened again");
                    check(&db, &contents, &context);
                    close(db, &dir, &context);
                }
                Err(error) => check_error(&error, &dir, &format!("{context}, opened again")),
            }
            None
        })
    }

    /// Like [`Store::use_it`], where no error is in place.
    fn works(&self, dir: &Path, context: &str) {
        let error = self.use_it(dir, context);
        assert!(error.is_none(), "{context}: {error:?}");
        let db = options().open(dir).unwrap_or_else(|error| panic!("{context}: {error}"));
        let found: Contents = contents(&db)
            .into_iter()
            .filter(|(key, _)| !key.starts_with(MINE.as_bytes()))
            .collect();
        assert_eq!(found, self.contents, "{context}");
    }
}

fn options() -> Options {
    TestStore::options().segment_bytes(600)
}

/// Checks the store and repairs it into another: whatever the files say, that ends, changes nothing
/// of them, and makes a sound store if it makes one.
fn salvage(dir: &Path, context: &str) {
    // Enormous files are not read here.
    let is_small = |path: &PathBuf| path.metadata().is_ok_and(|file| file.len() < 1 << 20);
    let state = || files::paths(dir).iter().all(is_small).then(|| files::state(dir));
    let before = state();
    if let Err(error) = pakv::check(dir) {
        check_error(&error, dir, &format!("{context}, a check"));
    }
    let target = files::scratch();
    if pakv::repair(dir, target.path()).is_ok() {
        let report = pakv::check(target.path()).expect("the new store can be checked");
        assert_eq!(report.findings, [], "{context}, repaired");
    }
    assert_eq!(state(), before, "{context}: neither changes a file");
}

/// Keys that the tests write beside those of the store begin with this.
const MINE: &str = "zz/";

/// Enough to rotate, and a compaction of everything. Any of it may be refused.
fn write_and_compact(db: &Db, dir: &Path, context: &str) {
    let mut refused = false;
    for index in 0..12 {
        if let Err(error) = db.set(format!("{MINE}{index}"), vec![b'.'; 100]) {
            check_error(&error, dir, context);
            refused = true;
        }
    }
    if let Err(error) = db.compact() {
        check_error(&error, dir, context);
    } else if !refused {
        let value = db.get(format!("{MINE}0")).expect("what was just written can be read");
        assert_eq!(value, Some(vec![b'.'; 100]), "{context}: a write is there");
    }
}

fn close(db: Db, dir: &Path, context: &str) {
    if let Err(error) = db.close() {
        check_error(&error, dir, context);
    }
}

/// Every key is there with its value, or says that it is damaged.
fn check(db: &Db, expected: &Contents, context: &str) {
    let keys: Vec<Vec<u8>> = db
        .scan()
        .expect("scan succeeds")
        .map(|entry| entry.key().to_vec())
        .filter(|key| !key.starts_with(MINE.as_bytes()) && !key.is_empty())
        .collect();
    let expected_keys: Vec<&Vec<u8>> = expected.iter().map(|(key, _)| key).collect();
    assert!(keys.iter().eq(expected_keys), "{context}: the store has {} other keys", keys.len());
    for (key, value) in expected {
        match db.get(key) {
            Ok(found) => assert_eq!(found.as_ref(), Some(value), "{context}: {key:?}"),
            Err(error) => assert!(error.is_corruption(), "{context}: {key:?}: {error:?}"),
        }
    }
    for never in ["deleted", "batch/a", "never"] {
        assert_eq!(db.get(never).expect("get succeeds"), None, "{context}: {never} is not there");
    }
    db.stats().expect("figures");
}

/// An error that says which file, or that an earlier one is to blame.
fn check_error(error: &Error, dir: &Path, context: &str) {
    let path = match error {
        Error::Io { path, .. }
        | Error::Corrupt { path, .. }
        | Error::UnknownFormat { path, .. }
        | Error::ManifestMissing { path }
        | Error::NoStore { path }
        | Error::NotADirectory { path } => path,
        Error::Poisoned { .. } => return,
        other => panic!("{context}: {other:?}"),
    };
    assert!(path.starts_with(dir), "{context}: {error} names no file of the store");
}

/// Files outside the store that nobody may touch.
struct Outside {
    dir: TempDir,
    before: BTreeMap<PathBuf, (Vec<u8>, SystemTime)>,
}

impl Outside {
    /// With one file of these bytes.
    fn new(bytes: &[u8]) -> Self {
        let dir = files::scratch();
        files::write(&dir.path().join("file"), bytes);
        let before = files::state(dir.path());
        Self { dir, before }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("file")
    }

    fn nothing(&self) -> PathBuf {
        self.dir.path().join("nothing")
    }

    #[track_caller]
    fn check(&self, context: &str) {
        let after = files::state(self.dir.path());
        assert!(after == self.before, "{context}: a file outside the store was touched");
    }
}
