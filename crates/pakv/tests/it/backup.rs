//! Backups beside writers and compaction: what they hold, what they share, what they refuse, and
//! restoring them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pakv::storage::{Lock, OsStorage, PathKind, Storage, StorageFile};
use pakv::{Db, Durability, Error, Options, Result, WriteBatch, backup};
use pakv_testkit::{TestStore, files};

use crate::history::{Contents, contents};

const KEYS: u64 = 40;

/// Writes step `number`, a batch of its own.
fn write(db: &Db, number: u64) -> Result<()> {
    let mut batch = WriteBatch::new();
    batch.set("step", number.to_string());
    batch.set(format!("key{:02}", number % KEYS), format!("{number:0>60}"));
    if number.is_multiple_of(7) {
        batch.delete(format!("key{:02}", number * 3 % KEYS));
    }
    db.write(&batch)
}

/// What a store holds after its first steps, by the same rule.
fn replay(steps: u64) -> Contents {
    let mut keys = BTreeMap::new();
    for number in 1..=steps {
        keys.insert(format!("key{:02}", number % KEYS), format!("{number:0>60}"));
        if number.is_multiple_of(7) {
            keys.remove(&format!("key{:02}", number * 3 % KEYS));
        }
    }
    keys.insert("step".to_string(), steps.to_string());
    keys.into_iter().map(|(key, value)| (key.into_bytes(), value.into_bytes())).collect()
}

fn open_to_read(dir: &Path) -> Db {
    let db = Options::new().read_only(true).open(dir);
    db.unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
}

/// That the directory is the store after some number of steps; which.
#[track_caller]
fn assert_is_a_prefix(dir: &Path) -> u64 {
    let db = open_to_read(dir);
    let found = contents(&db);
    let step = db.get("step").expect("get succeeds").expect("a step was written");
    let steps = String::from_utf8(step).expect("text").parse().expect("a number");
    assert_eq!(found, replay(steps), "after {steps} steps");
    steps
}

/// Segments and hints by name: inode and content.
fn picture(dir: &Path) -> BTreeMap<PathBuf, (u64, Vec<u8>)> {
    let is_data = |path: &PathBuf| path.extension().is_some_and(|kind| kind != "tmp");
    files::paths(dir)
        .into_iter()
        .filter(is_data)
        .map(|path| {
            let inode = fs::metadata(&path).expect("it is there").ino();
            let bytes = fs::read(&path).expect("it can be read");
            (path.file_name().expect("it has a name").into(), (inode, bytes))
        })
        .collect()
}

/// A store of some segments with garbage in them, and where its backup will go.
struct Fixture {
    store: TestStore,
    dir: tempfile::TempDir,
    steps: u64,
}

impl Fixture {
    fn new() -> Self {
        let mut fixture = Self { store: TestStore::new(), dir: files::scratch(), steps: 0 };
        fixture.write(100);
        fixture
    }

    fn write(&mut self, steps: u64) {
        for _ in 0..steps {
            self.steps += 1;
            write(self.store.db(), self.steps).expect("a write succeeds");
        }
        self.store.adopt();
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("backup")
    }

    fn backup(&self) -> Result<backup::BackupReport> {
        self.store.db().backup(self.path())
    }
}

#[test]
fn every_backup_beside_writer_and_compaction_is_a_prefix() -> Result<()> {
    let dir = files::scratch();
    let store = dir.path().join("store");
    let options = Options::new()
        .segment_bytes(2_048)
        .durability(Durability::Buffered)
        .compaction_min_garbage(4_096)
        .compaction_space_amplification(1.2)
        .compaction_rate(None)
        .keydir_merge_keys(3);
    let db = options.open(&store)?;
    write(&db, 1)?;
    let acknowledged = AtomicU64::new(1);
    let (enough, round_now) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut number = 1;
            while !enough.load(Ordering::SeqCst) {
                // No faster than hints are built, or there are segments without end.
                if number > 200 * (1 + round_now.load(Ordering::SeqCst)) {
                    std::thread::yield_now();
                    continue;
                }
                number += 1;
                write(&db, number)?;
                acknowledged.store(number, Ordering::SeqCst);
            }
            Ok::<_, Error>(number)
        });
        let reader = open_to_read(&store);
        let compacted = || db.stats().map_or(0, |stats| stats.compaction.runs) > 2;
        let rounds = (0..).take_while(|round| *round < 24 || !compacted()).try_for_each(|round| {
            round_now.store(round, Ordering::SeqCst);
            let before = acknowledged.load(Ordering::SeqCst);
            let target = dir.path().join(if round % 4 < 3 { "same" } else { "other" });
            let report = match round % 3 {
                0 => db.backup(&target)?,
                1 => backup::take(&store, &target, |_| ())?,
                _ => reader.backup(&target)?,
            };
            let steps = assert_is_a_prefix(&target);
            assert!(steps >= before, "round {round}: {before} were acknowledged, {steps} found");
            assert_eq!(open_to_read(&target).stats()?.seqno, report.seqno, "round {round}");
            Ok::<_, Error>(())
        });
        enough.store(true, Ordering::SeqCst);
        let written = writer.join().expect("the writer does not panic")?;
        rounds?;
        let target = dir.path().join("same");
        db.backup(&target)?;
        assert_eq!(assert_is_a_prefix(&target), written);
        Ok(())
    })
}

#[test]
fn sealed_segments_are_shared_and_an_incremental_backup_brings_what_is_new() -> Result<()> {
    let mut fixture = Fixture::new();
    let first = fixture.backup()?;
    assert!(first.segments_linked > 2 && first.segments_copied == 1, "{first:?}");
    assert_eq!((first.segments_kept, first.files_removed), (0, 0));
    let (source, copy) = (picture(fixture.store.db().path()), picture(&fixture.path()));
    let shared = copy.iter().filter(|(name, file)| source.get(*name) == Some(*file)).count();
    assert_eq!(shared as u64, first.segments_linked * 2, "each with its hint");

    let again = fixture.backup()?;
    assert_eq!((again.segments_kept, again.segments), (first.segments, first.segments));
    assert_eq!((again.bytes_copied, again.seqno), (0, first.seqno), "nothing was written since");

    fixture.write(60);
    let second = fixture.backup()?;
    // The part of the active one too, if it was sealed just there.
    assert!(second.segments_kept >= first.segments_linked, "{second:?}");
    assert_eq!(assert_is_a_prefix(&fixture.path()), 160);

    fixture.store.db().compact()?;
    let third = fixture.backup()?;
    assert!(third.files_removed > 0 && third.bytes < second.bytes, "{third:?}");
    assert_eq!(assert_is_a_prefix(&fixture.path()), 160);
    let logs = files::names(&fixture.path(), ".log");
    assert_eq!(logs.len() as u64, third.segments, "what it no longer lists has gone");
    Ok(())
}

/// A backup that shares files is worth nothing if either side writes to them.
#[test]
fn neither_the_store_nor_an_opened_backup_changes_what_they_share() -> Result<()> {
    let mut fixture = Fixture::new();
    fixture.backup()?;
    let before = picture(&fixture.path());
    fixture.write(200);
    fixture.store.db().compact()?;
    fixture.write(30);
    assert_eq!(picture(&fixture.path()), before, "whatever the store does");

    fixture.backup()?;
    let source = picture(fixture.store.db().path());
    let options = TestStore::options();
    for round in 0..3 {
        let db = options.clone().open(fixture.path())?;
        assert_eq!(db.recovery().hints_rebuilt, 0, "round {round}");
        (0..100).try_for_each(|number| db.set(format!("key{:02}", number % KEYS), "mine"))?;
        db.compact()?;
        db.close()?;
    }
    assert_eq!(picture(fixture.store.db().path()), source, "whatever the backup does");
    Ok(())
}

/// A storage whose files get no second name, as on two file systems.
#[derive(Debug)]
struct Elsewhere(OsStorage);

impl Storage for Elsewhere {
    fn path(&self) -> &Path {
        self.0.path()
    }
    fn kind(&self) -> std::io::Result<PathKind> {
        self.0.kind()
    }
    fn create_dir(&self) -> std::io::Result<()> {
        self.0.create_dir()
    }
    fn list(&self) -> std::io::Result<Vec<std::ffi::OsString>> {
        self.0.list()
    }
    fn create(&self, name: &str) -> std::io::Result<Arc<dyn StorageFile>> {
        self.0.create(name)
    }
    fn open(&self, name: &str, writable: bool) -> std::io::Result<Arc<dyn StorageFile>> {
        self.0.open(name, writable)
    }
    fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        self.0.rename(from, to)
    }
    fn link(&self, _: &str, _: &Path, _: &str) -> std::io::Result<()> {
        Err(std::io::ErrorKind::CrossesDevices.into())
    }
    fn remove(&self, name: &str) -> std::io::Result<()> {
        self.0.remove(name)
    }
    fn sync_dir(&self) -> std::io::Result<()> {
        self.0.sync_dir()
    }
    fn lock(&self, name: &str) -> std::io::Result<Lock> {
        self.0.lock(name)
    }
}

#[test]
fn where_links_are_refused_segments_are_copied() -> Result<()> {
    let dir = files::scratch();
    let (store, target) = (dir.path().join("store"), dir.path().join("backup"));
    let storage = Arc::new(Elsewhere(OsStorage::new(&store)));
    let db = TestStore::options().open_storage(storage)?;
    (1..=100).try_for_each(|number| write(&db, number))?;
    let report = db.backup(&target)?;
    assert_eq!((report.segments_linked, report.segments_copied), (0, report.segments));
    assert_eq!(report.bytes_copied, report.bytes);
    let (source, copy) = (picture(&store), picture(&target));
    for (name, (inode, bytes)) in copy.iter().filter(|(name, _)| source.contains_key(*name)) {
        if name.extension().is_some()
            && name != Path::new(&files::names(&target, ".log").pop().unwrap_or_default())
        {
            let (source_inode, source_bytes) = &source[name];
            assert_ne!(inode, source_inode, "{} is shared", name.display());
            assert!(source_bytes.starts_with(bytes), "{} is not the same", name.display());
        }
    }
    assert_eq!(assert_is_a_prefix(&target), 100);
    (101..=160).try_for_each(|number| write(&db, number))?;
    let second = db.backup(&target)?;
    assert!(second.segments_kept > 0 && second.bytes_copied < second.bytes, "{second:?}");
    assert_eq!(assert_is_a_prefix(&target), 160);
    db.close()
}

#[track_caller]
fn assert_refused(
    result: Result<backup::BackupReport>,
    dir: &Path,
    before: &BTreeMap<PathBuf, (u64, Vec<u8>)>,
    why: &str,
) {
    let error = result.expect_err("it is refused");
    assert!(error.to_string().contains(why), "wanted {why:?}, got: {error}");
    assert_eq!(&picture(dir), before, "nothing there was changed");
}

#[test]
fn a_directory_that_is_no_backup_of_this_store_is_left_alone() -> Result<()> {
    let fixture = Fixture::new();
    let other = Fixture::new();
    other.backup()?;
    let refuse = |dir: &Path, why: &str| {
        let before = picture(dir);
        assert_refused(fixture.store.db().backup(dir), dir, &before, why);
        assert_refused(
            backup::take(fixture.store.db().path(), dir, |_| ()),
            dir,
            &picture(dir),
            why,
        );
    };
    refuse(&other.path(), "another store");
    refuse(fixture.store.db().path(), "opened for writing");
    let lost = files::copied(&other.path());
    fs::remove_file(lost.path().join("MANIFEST")).expect("it goes");
    refuse(lost.path(), "MANIFEST is missing");
    let file = fixture.dir.path().join("file");
    fs::write(&file, "mine").expect("it is written");
    assert!(matches!(fixture.store.db().backup(&file), Err(Error::NotADirectory { .. })));

    // Somebody opened the backup and wrote to it: that is not thrown away.
    fixture.backup()?;
    let opened = TestStore::options().open(fixture.path())?;
    let in_use = fixture.backup().expect_err("it is open");
    assert!(matches!(in_use, Error::TargetRefused { .. } | Error::InUse { .. }), "{in_use}");
    opened.set("mine", "1")?;
    opened.close()?;
    refuse(&fixture.path(), "opened for writing");
    Ok(())
}

/// The store was brought back from an older backup and has gone on: the newer backup is not
/// overwritten by what has another past.
#[test]
fn a_backup_of_another_past_is_left_alone() -> Result<()> {
    let mut fixture = Fixture::new();
    let old = fixture.dir.path().join("old");
    fixture.store.db().backup(&old)?;
    fixture.write(10);
    fixture.backup()?;
    let back = fixture.dir.path().join("back");
    backup::restore(&old, &back, |_| ())?;
    let db = TestStore::options().open(&back)?;
    let before = picture(&fixture.path());
    assert_refused(db.backup(fixture.path()), &fixture.path(), &before, "different ways");
    // With more writes than the other one ever had.
    (1..=100).try_for_each(|number| write(&db, number))?;
    assert_refused(db.backup(fixture.path()), &fixture.path(), &before, "different ways");
    db.close()
}

/// The same where both have no segment number in common that could tell them apart.
#[test]
fn a_backup_of_another_past_is_known_by_the_numbers_of_its_segments_too() -> Result<()> {
    let (dir, old, new) = (files::scratch(), files::scratch(), files::scratch());
    let options = Options::new().background_compaction(false);
    let db = options.clone().open(dir.path())?;
    write(&db, 1)?;
    db.backup(old.path())?;
    for number in 2..6 {
        write(&db, number)?;
        write(&db, number)?;
        db.compact()?;
    }
    db.backup(new.path())?;
    db.close()?;
    let (back, before) = (files::scratch(), picture(new.path()));
    backup::restore(old.path(), back.path(), |_| ())?;
    let db = options.open(back.path())?;
    (2..50).try_for_each(|number| write(&db, number))?;
    assert_refused(db.backup(new.path()), new.path(), &before, "different ways");
    db.close()
}

/// A hint holds nothing that its segment does not, so a damaged one costs nobody a backup.
#[test]
fn a_restore_makes_hints_of_its_own() -> Result<()> {
    let fixture = Fixture::new();
    fixture.backup()?;
    let hints = files::names(&fixture.path(), ".hint");
    assert!(hints.len() > 2, "{hints:?}");
    for name in hints {
        let path = fixture.path().join(name);
        let mut bytes = files::read(&path);
        *bytes.last_mut().expect("it is not empty") ^= 1;
        // Not through the second name that the store has for it.
        fs::remove_file(&path).expect("it goes");
        files::write(&path, bytes);
    }
    let back = files::scratch();
    backup::restore(fixture.path(), back.path(), |_| ())?;
    assert_sound(back.path());
    assert_eq!(assert_is_a_prefix(back.path()), 100);
    Ok(())
}

#[test]
fn an_unfinished_first_backup_says_so_and_is_made_again() -> Result<()> {
    let fixture = Fixture::new();
    fixture.backup()?;
    let path = fixture.path();
    fs::remove_file(path.join("MANIFEST")).expect("it goes");
    fs::write(path.join("BACKUP-UNFINISHED"), "").expect("it is written");
    fs::write(path.join("0000000077.log"), "left over").expect("it is written");
    for read_only in [true, false] {
        let opened = Options::new().read_only(read_only).open(&path);
        assert!(matches!(opened, Err(Error::BackupUnfinished { .. })), "{opened:?}");
    }
    let back = fixture.dir.path().join("back");
    let restored = backup::restore(&path, &back, |_| ());
    assert!(matches!(restored, Err(Error::BackupUnfinished { .. })), "{restored:?}");
    fixture.backup()?;
    assert_eq!(assert_is_a_prefix(&path), 100);
    assert!(!path.join("BACKUP-UNFINISHED").exists() && !path.join("0000000077.log").exists());
    Ok(())
}

#[test]
fn a_restore_gives_the_store_back_and_shares_nothing() -> Result<()> {
    let fixture = Fixture::new();
    fixture.backup()?;
    let (path, back) = (fixture.path(), fixture.dir.path().join("back"));
    let mut told = Vec::new();
    let report = backup::restore(&path, &back, |progress| told.push(progress))?;
    let expected = replay(100);
    let bytes: usize = expected.iter().map(|(key, value)| key.len() + value.len()).sum();
    assert_eq!((report.keys, report.entry_bytes), (expected.len() as u64, bytes as u64));
    assert!(told.windows(2).all(|pair| pair[0].bytes_done <= pair[1].bytes_done));
    assert_eq!(
        told.last().map(|last| (last.bytes_done, last.bytes_total)),
        Some((report.bytes, report.bytes))
    );
    let inodes =
        |dir: &Path| picture(dir).into_values().map(|(inode, _)| inode).collect::<Vec<_>>();
    let shared = inodes(&path).into_iter().filter(|inode| inodes(&back).contains(inode)).count();
    assert_eq!(shared, 0);
    let db = TestStore::options().open(&back)?;
    assert_eq!(contents(&db), expected);
    db.set("on", "it goes")?;
    db.close()?;

    let before = picture(&back);
    let refused = backup::restore(&path, &back, |_| ()).expect_err("there is a store");
    assert!(matches!(refused, Error::TargetRefused { .. }), "{refused}");
    assert_eq!(picture(&back), before);
    Ok(())
}

#[track_caller]
fn assert_sound(dir: &Path) {
    let report = pakv::check(dir).expect("a check runs");
    assert_eq!(report.findings, [], "{}", dir.display());
}

/// The hint that the first backup had made for a part of the active segment stayed beside what the
/// second brought, which may do without one: `check` said that the backup was damaged.
#[test]
fn a_segment_that_has_grown_does_not_keep_its_hint_of_before() -> Result<()> {
    let (dir, target) = (files::scratch(), files::scratch());
    let db = Options::new().durability(Durability::Buffered).open(dir.path())?;
    db.set("key", "value")?;
    db.backup(target.path())?;
    assert_sound(target.path());
    for number in 0..6_000 {
        write(&db, number)?;
    }
    let report = db.backup(target.path())?;
    assert!(report.bytes > 256 * 1024, "no hint is needed: {report:?}");
    assert_sound(target.path());
    assert_eq!(contents(&open_to_read(target.path())), contents(&db));
    db.close()
}

/// What an interrupted backup has brought, of a segment that the one before had already, comes with
/// the hint of all of it: a restore gave that hint to the part that the manifest lists.
#[test]
fn a_restore_from_behind_an_interrupted_backup_is_sound() -> Result<()> {
    let (dir, first, second) = (files::scratch(), files::scratch(), files::scratch());
    let db = Options::new().background_compaction(false).open(dir.path())?;
    write(&db, 1)?;
    db.backup(first.path())?;
    write(&db, 2)?;
    db.backup(second.path())?;
    for name in files::names(second.path(), "").iter().filter(|name| name.starts_with('0')) {
        files::write(&first.path().join(name), files::read(&second.path().join(name)));
    }
    assert_sound(first.path());
    let (restored, copied) = (files::scratch(), files::scratch());
    backup::restore(first.path(), restored.path(), |_| ())?;
    assert_sound(restored.path());
    assert_eq!(assert_is_a_prefix(restored.path()), 1);
    backup::take(first.path(), copied.path(), |_| ())?;
    assert_sound(copied.path());
    assert_eq!(assert_is_a_prefix(copied.path()), 1);
    db.close()
}

/// One bit of any byte of any segment, of garbage too, and of the manifest.
#[test]
fn a_damaged_backup_is_not_restored() -> Result<()> {
    let fixture = Fixture::new();
    fixture.backup()?;
    let files: Vec<_> = files::paths(&fixture.path());
    let damaged = files.iter().filter(|path| {
        path.extension().is_some_and(|kind| kind == "log") || path.ends_with("MANIFEST")
    });
    for path in damaged {
        let whole = fs::read(path).expect("it can be read");
        for at in (0..whole.len()).step_by(7) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            // Not through the second name that the store has for it.
            fs::remove_file(path).expect("it goes");
            fs::write(path, bytes).expect("it is written");
            let back = files::scratch();
            let error = backup::restore(fixture.path(), back.path(), |_| ());
            let error = error.expect_err(&format!("{} damaged at {at}", path.display()));
            let names_it = |error: &Error| match error {
                Error::Corrupt { path: named, .. } | Error::UnknownFormat { path: named, .. } => {
                    named == path
                }
                _ => false,
            };
            assert!(names_it(&error), "{} at {at}: {error}", path.display());
            assert!(
                Options::new().create(false).open(back.path()).is_err(),
                "what there is of it opens"
            );
        }
        fs::remove_file(path).expect("it goes");
        fs::write(path, whole).expect("it is written");
    }
    Ok(())
}

/// In a backup a segment that was sealed as long as the store's active one was then becomes longer by the
/// next backup, under its number.
#[test]
fn a_reader_of_a_backup_moves_on_with_it() -> Result<()> {
    let mut fixture = Fixture::new();
    fixture.backup()?;
    let reader = open_to_read(&fixture.path());
    assert_eq!(contents(&reader), replay(100));
    for more in [1, 2, 60] {
        fixture.write(more);
        let report = fixture.backup()?;
        assert_eq!(reader.refresh()?, report.seqno, "after {} steps", fixture.steps);
        assert_eq!(contents(&reader), replay(fixture.steps), "after {} steps", fixture.steps);
    }
    fixture.store.db().compact()?;
    fixture.backup()?;
    reader.refresh()?;
    assert_eq!(contents(&reader), replay(fixture.steps), "after a compaction");
    Ok(())
}
