//! Damage of every kind to every kind of file: the right value or a typed error that says where;
//! never a wrong value, never "not found", never a panic.
//!
//! `PAKV_FLIP_ALL_BITS=1` flips each bit of each byte by itself, where the quick run flips one bit
//! a byte.

use std::path::Path;

use pakv::{Db, Error, FileAccess, Options, inspect};
use pakv_testkit::{TestStore, files};
use tempfile::TempDir;

use crate::history::{Contents, History, contents};

/// Where the format version begins in every file.
const VERSION_AT: usize = 8;

/// A store with segments that were written and segments that compaction made, an active one with
/// records, and a copy of it made while it was open beside the closed one.
struct Stores {
    closed: TempDir,
    killed: TempDir,
    /// Every state that the store was in while the active segment was written, the newest last.
    states: Vec<Contents>,
    /// Where the live records are: file, first byte, byte behind the last, key.
    live: Vec<(String, usize, usize, Vec<u8>)>,
}

impl Stores {
    fn new() -> Self {
        // The active segment ends with its last record: nothing is mapped ahead.
        let options = TestStore::options().segment_bytes(600).file_access(FileAccess::Positional);
        let mut history = History::new(&options);
        history.write(0..4);
        history.db.compact().expect("compact succeeds");
        history.write(4..8);
        for round in 0..3 {
            history.set("same", &format!("the last ones {round}"));
        }
        let (segment, steps) = history.active_steps();
        let sealed = files::names(history.dir.path(), ".hint").len();
        assert!(
            sealed >= 3 && steps.len() >= 3,
            "{sealed} sealed segments, {} writes to {segment}",
            steps.len()
        );
        let mut states = vec![history.contents_before_active()];
        states.extend(steps.into_iter().map(|step| step.contents));

        let killed = files::copied(history.dir.path());
        let live = live_records(&history.db, killed.path());
        history.db.close().expect("close succeeds");
        Self { closed: history.dir, killed, states, live }
    }

    fn contents(&self) -> &Contents {
        self.states.last().expect("there are states")
    }

    fn active(&self) -> String {
        files::names(self.closed.path(), ".log").last().expect("there are segments").clone()
    }

    fn sealed(&self) -> Vec<String> {
        let mut names = files::names(self.closed.path(), ".log");
        names.pop();
        names
    }

    /// The key whose live record covers a byte of a file.
    fn live_at(&self, name: &str, offset: usize) -> Option<&[u8]> {
        let at = |(file, start, end, _): &&(String, usize, usize, Vec<u8>)| {
            file == name && (*start..*end).contains(&offset)
        };
        self.live.iter().find(at).map(|(.., key)| key.as_slice())
    }
}

fn live_records(db: &Db, dir: &Path) -> Vec<(String, usize, usize, Vec<u8>)> {
    let newest: Vec<(Vec<u8>, u64)> = db
        .scan()
        .expect("scan succeeds")
        .map(|entry| (entry.key().to_vec(), entry.seqno()))
        .collect();
    let mut live = Vec::new();
    for name in files::names(dir, ".log") {
        for record in inspect::segment(dir.join(&name)).expect("a whole segment can be inspected") {
            if newest.contains(&(record.key.clone(), record.seqno)) {
                let start = usize::try_from(record.offset).expect("it fits");
                live.push((name.clone(), start, start + record.length as usize, record.key));
            }
        }
    }
    assert_eq!(live.len(), newest.len(), "each key's newest record is in one segment");
    live
}

/// One way to ruin a file.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Flip { offset: usize, mask: u8 },
    Cut { len: usize },
}

impl Damage {
    fn apply(self, path: &Path) {
        match self {
            Damage::Flip { offset, mask } => files::flip(path, offset, mask),
            Damage::Cut { len } => files::cut(path, len),
        }
    }
}

/// Every flip and every cut of a file.
fn damages(path: &Path) -> Vec<Damage> {
    let len = files::read(path).len();
    let all_bits = std::env::var_os("PAKV_FLIP_ALL_BITS").is_some();
    let mut damages: Vec<Damage> = (0..len).map(|len| Damage::Cut { len }).collect();
    for offset in 0..len {
        // Another bit in each byte, so that high and low ones have their turn.
        let bits = if all_bits { 0..8 } else { offset * 5 % 8..offset * 5 % 8 + 1 };
        damages.extend(bits.map(|bit| Damage::Flip { offset, mask: 1 << bit }));
    }
    damages
}

/// Gives `check` a copy of the store for each damage to one of its files, opened or refused.
fn with_each_damage(dir: &Path, name: &str, check: impl Fn(Damage, Result<Db, Error>)) {
    let damages = damages(&dir.join(name));
    assert!(damages.len() > 1, "{name} has bytes to damage");
    for (index, damage) in damages.into_iter().enumerate() {
        let copy = files::copied(dir);
        damage.apply(&copy.path().join(name));
        let method = if index % 2 == 0 { FileAccess::Mapped } else { FileAccess::Positional };
        check(damage, TestStore::options().file_access(method).open(copy.path()));
    }
}

fn is_refusal(error: &Error) -> bool {
    error.is_corruption() || matches!(error, Error::UnknownFormat { .. })
}

/// Reads every key in every way. Returns the keys whose reads said that they are damaged; all else
/// must be right.
fn damaged_keys(db: &Db, expected: &Contents, context: &str) -> Vec<Vec<u8>> {
    let keys: Vec<Vec<u8>> =
        db.scan().expect("scan succeeds").map(|entry| entry.key().to_vec()).collect();
    let expected_keys: Vec<&Vec<u8>> = expected.iter().map(|(key, _)| key).collect();
    assert!(keys.iter().eq(expected_keys), "{context}: the keys are {keys:?}");
    let mut damaged = Vec::new();
    for ((key, value), entry) in expected.iter().zip(db.scan().expect("scan succeeds")) {
        match (db.get(key), entry.value()) {
            (Ok(found), Ok(scanned)) => {
                assert_eq!(found.as_ref(), Some(value), "{context}: get of {key:?}");
                assert_eq!(&scanned, value, "{context}: the value of {key:?} in a scan");
            }
            (Err(error), Err(in_scan)) if error.is_corruption() && in_scan.is_corruption() => {
                damaged.push(key.clone());
            }
            other => panic!("{context}: {key:?} gives {other:?}"),
        }
    }
    for never in ["deleted", "batch/a", "never"] {
        assert_eq!(db.get(never).expect("get succeeds"), None, "{context}: {never} is not there");
    }
    damaged
}

/// Any damage to any file is named by `check`, and `repair` brings everything else over.
#[test]
fn any_damage_is_found_and_the_rest_is_saved() {
    let stores = Stores::new();
    let names = files::names(stores.closed.path(), "");
    for name in names.iter().filter(|name| *name != "LOCK") {
        for (index, damage) in damages(&stores.closed.path().join(name)).into_iter().enumerate() {
            let context = format!("{name} {damage:?}");
            let copy = files::copied(stores.closed.path());
            damage.apply(&copy.path().join(name));
            let report =
                pakv::check(copy.path()).unwrap_or_else(|error| panic!("{context}: {error}"));
            let is_named = report.findings.iter().any(|found| found.path.ends_with(name));
            assert!(is_named, "{context}: {:?}", report.findings);
            if index % 7 != 0 {
                continue;
            }
            let target = files::scratch();
            let repaired = pakv::repair(copy.path(), target.path()).expect("a repair runs");
            let db = Db::open(target.path()).expect("the new store opens");
            for (key, value) in stores.contents() {
                let found = db.get(key).expect("get succeeds");
                let is_damaged = match damage {
                    Damage::Flip { offset, .. } => stores.live_at(name, offset) == Some(key),
                    Damage::Cut { len } => {
                        let ends_behind =
                            |(file, _, end, of_key): &(String, usize, usize, Vec<u8>)| {
                                file == name && *end > len && of_key == key
                            };
                        stores.live.iter().any(ends_behind)
                    }
                };
                if !is_damaged {
                    assert_eq!(found.as_ref(), Some(value), "{context}: {}", key.escape_ascii());
                } else if name != &stores.active() {
                    assert_eq!(found, None, "{context}: {} is lost", key.escape_ascii());
                    assert!(repaired.lost_keys().any(|lost| lost == key), "{context}: and named");
                }
            }
        }
    }
}

#[test]
fn a_damaged_manifest_is_refused() {
    let stores = Stores::new();
    for dir in [&stores.closed, &stores.killed] {
        with_each_damage(dir.path(), "MANIFEST", |damage, opened| {
            let error = opened.map(drop).expect_err("a damaged manifest is not followed");
            assert!(is_refusal(&error), "{damage:?}: {error:?}");
        });
    }
}

#[test]
fn a_damaged_lock_file_does_no_harm() {
    let stores = Stores::new();
    with_each_damage(stores.closed.path(), "LOCK", |damage, opened| {
        let db = opened.unwrap_or_else(|error| panic!("{damage:?}: {error}"));
        assert_eq!(&contents(&db), stores.contents(), "{damage:?}");
    });
}

#[test]
fn a_damaged_hint_is_built_again() {
    let stores = Stores::new();
    for name in files::names(stores.closed.path(), ".hint") {
        with_each_damage(stores.closed.path(), &name, |damage, opened| {
            let db = opened.unwrap_or_else(|error| panic!("{name} {damage:?}: {error}"));
            assert_eq!(&contents(&db), stores.contents(), "{name} {damage:?}");
            assert_eq!(
                db.recovery().hints_rebuilt,
                1,
                "{name} {damage:?}: the report tells of the hint"
            );
        });
    }
}

#[test]
fn a_damaged_sealed_segment_gives_right_values_or_says_which_are_damaged() {
    let stores = Stores::new();
    for name in stores.sealed() {
        with_each_damage(stores.closed.path(), &name, |damage, opened| {
            let context = format!("{name} {damage:?}");
            let expected = match damage {
                Damage::Cut { .. } => None,
                Damage::Flip { offset, .. } => stores.live_at(&name, offset),
            };
            match opened {
                Err(error) => {
                    assert!(is_refusal(&error), "{context}: {error:?}");
                    assert_eq!(
                        expected, None,
                        "{context}: one damaged value does not stop an open: {error:?}"
                    );
                }
                Ok(db) => {
                    let damaged = damaged_keys(&db, stores.contents(), &context);
                    let expected: Vec<_> = expected.into_iter().collect();
                    assert_eq!(damaged, expected, "{context}: the keys whose record is damaged");
                }
            }
        });
    }
}

/// With its hint gone the segment must be read whole at the open, so damage anywhere in it shows
/// there.
#[test]
fn a_damaged_segment_without_hint_is_refused() {
    let stores = Stores::new();
    for name in stores.sealed() {
        let without_hint = files::copied(stores.closed.path());
        files::remove(&without_hint.path().join(name.replace(".log", ".hint")));
        with_each_damage(without_hint.path(), &name, |damage, opened| {
            let error = opened.map(drop).expect_err("damage is found when the hint is built");
            assert!(is_refusal(&error), "{name} {damage:?}: {error:?}");
        });
    }
}

#[test]
fn a_damaged_active_segment_after_a_clean_close_is_refused() {
    let stores = Stores::new();
    with_each_damage(stores.closed.path(), &stores.active(), |damage, opened| {
        let error = opened.map(drop).expect_err("every byte was known durable");
        assert!(is_refusal(&error), "{damage:?}: {error:?}");
    });
}

#[test]
fn a_damaged_active_segment_after_a_kill_is_cut_and_reported_or_refused() {
    let stores = Stores::new();
    with_each_damage(stores.killed.path(), &stores.active(), |damage, opened| match opened {
        Err(error) => assert!(is_refusal(&error), "{damage:?}: {error:?}"),
        Ok(db) => {
            let found = contents(&db);
            assert!(
                stores.states.contains(&found),
                "{damage:?}: no state that the store was in: {found:?}"
            );
            if let Damage::Flip { .. } = damage {
                assert!(db.recovery().bytes_cut > 0, "{damage:?}: the report tells of the cut");
                assert_ne!(&found, stores.contents(), "{damage:?}: the damaged write is gone");
            }
        }
    });
}

#[test]
fn a_lost_segment_is_corruption_that_names_it() {
    let stores = Stores::new();
    for name in files::names(stores.closed.path(), ".log") {
        let copy = files::copied(stores.closed.path());
        files::remove(&copy.path().join(&name));
        let before = files::state(copy.path());
        match TestStore::options().open(copy.path()) {
            Err(Error::Corrupt { path, .. }) => {
                assert_eq!(path, copy.path().join(&name), "the error names it")
            }
            other => panic!("{name} is missing: {other:?}"),
        }
        let mut after = files::state(copy.path());
        after.retain(|path, _| !path.ends_with("LOCK"));
        assert!(
            after.iter().all(|(path, state)| before.get(path) == Some(state)),
            "nothing was touched"
        );
    }
}

#[test]
fn a_lost_manifest_is_an_error_and_no_fresh_store() {
    let stores = Stores::new();
    let copy = files::copied(stores.closed.path());
    files::remove(&copy.path().join("MANIFEST"));
    let before = files::state(copy.path());
    for options in [
        TestStore::options(),
        TestStore::options().read_only(true),
        TestStore::options().create(false),
    ] {
        match options.open(copy.path()) {
            Err(Error::ManifestMissing { path }) => {
                assert_eq!(path, copy.path(), "the error names the store")
            }
            other => panic!("the manifest is missing: {other:?}"),
        }
    }
    assert!(files::state(copy.path()) == before, "nothing was touched");
}

#[test]
fn lost_hints_are_built_again() {
    let stores = Stores::new();
    let copy = files::copied(stores.closed.path());
    let hints = files::names(copy.path(), ".hint");
    files::remove_hints(copy.path());
    let db = TestStore::options().open(copy.path()).expect("hints can be built again");
    assert_eq!(db.recovery().hints_rebuilt, hints.len() as u64, "the report tells how many");
    assert_eq!(&contents(&db), stores.contents());
    assert_eq!(files::names(copy.path(), ".hint"), hints, "they are back");
    for name in hints {
        let (old, new) = (stores.closed.path().join(&name), copy.path().join(&name));
        assert_eq!(files::read(&new), files::read(&old), "{name} is what it was");
    }
}

/// Files that are whole but not where they belong: of another number, or of another store.
#[test]
fn a_file_in_anothers_place_is_noticed() {
    let stores = Stores::new();
    let others = Stores::new();
    let sealed = stores.sealed();
    let (first, second) = (&sealed[0], &sealed[1]);
    let hint = |log: &String| log.replace(".log", ".hint");
    let active = stores.active();
    let here = |name: &str| files::read(&stores.closed.path().join(name));
    let there = |name: &str| files::read(&others.closed.path().join(name));
    let newer = |mut bytes: Vec<u8>| {
        bytes[VERSION_AT] += 1;
        bytes
    };

    let harmless = [
        ("another segment's hint", hint(first), here(&hint(second))),
        ("another store's hint", hint(first), there(&hint(first))),
        ("an empty hint", hint(first), Vec::new()),
        ("a hint of a newer format", hint(first), newer(here(&hint(first)))),
    ];
    for (what, name, bytes) in harmless {
        let copy = files::copied(stores.closed.path());
        files::write(&copy.path().join(name), bytes);
        let db = TestStore::options()
            .open(copy.path())
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(&contents(&db), stores.contents(), "{what}");
        assert_eq!(db.recovery().hints_rebuilt, 1, "{what}: the report tells of it");
    }

    let refused = [
        ("another sealed segment", first, here(second)),
        ("another store's sealed segment", first, there(first)),
        ("an empty sealed segment", first, Vec::new()),
        ("a sealed segment", &active, here(first)),
        ("another store's active segment", &active, there(&active)),
        ("an empty active segment", &active, Vec::new()),
        ("another store's manifest", &"MANIFEST".to_string(), there("MANIFEST")),
        ("an empty manifest", &"MANIFEST".to_string(), Vec::new()),
        ("a segment", &"MANIFEST".to_string(), here(first)),
    ];
    for (what, name, bytes) in refused {
        let copy = files::copied(stores.closed.path());
        files::write(&copy.path().join(name), bytes);
        let error = TestStore::options().open(copy.path()).map(drop).expect_err(what);
        assert!(error.is_corruption(), "{what} in the place of {name}: {error:?}");
    }
}

#[test]
fn a_newer_format_is_refused_and_nothing_is_touched() {
    let stores = Stores::new();
    for name in [stores.sealed()[0].clone(), stores.active(), "MANIFEST".to_string()] {
        for reading_only in [false, true] {
            let copy = files::copied(stores.killed.path());
            let path = copy.path().join(&name);
            files::flip(&path, VERSION_AT, 2);
            let before = files::state(copy.path());
            match TestStore::options().read_only(reading_only).open(copy.path()) {
                Err(error @ Error::UnknownFormat { .. }) => {
                    let text = error.to_string();
                    assert!(text.contains(&name), "{text:?} names the file");
                    assert!(
                        text.contains('3') && text.contains('1'),
                        "{text:?} names both versions"
                    );
                }
                other => panic!("{name} has format version 3: {other:?}"),
            }
            let mut after = files::state(copy.path());
            after.retain(|path, _| !path.ends_with("LOCK"));
            assert!(
                after.iter().all(|(path, state)| before.get(path) == Some(state)),
                "{name}: a file was touched"
            );
            assert_eq!(after.len(), before.len() - 1, "{name}: no file was removed");
        }
    }
}

/// A link where a file of the store should be leads nowhere: what it points at is neither read as
/// the store's nor written.
#[test]
fn a_symbolic_link_is_not_followed() {
    let stores = Stores::new();
    let hint = stores.sealed()[0].replace(".log", ".hint");
    let names = [
        stores.sealed()[0].clone(),
        stores.active(),
        hint,
        "MANIFEST".into(),
        "LOCK".into(),
        "MANIFEST.tmp".into(),
    ];
    for name in names {
        let copy = files::copied(stores.killed.path());
        let outside = files::scratch();
        let target = outside.path().join("target");
        let link = copy.path().join(&name);
        let bytes = if link.exists() { files::read(&link) } else { b"not pakv's".to_vec() };
        files::write(&target, &bytes);
        if link.exists() {
            files::remove(&link);
        }
        std::os::unix::fs::symlink(&target, &link).expect("a link can be made");
        match TestStore::options().open(copy.path()) {
            Ok(db) => {
                assert_eq!(&contents(&db), stores.contents(), "a link as {name}");
                db.set("same", "newer").expect("set succeeds");
                db.close().expect("close succeeds");
            }
            Err(Error::Io { path, .. }) => assert_eq!(path, link, "the error names the link"),
            Err(error) => assert!(is_refusal(&error), "a link as {name}: {error:?}"),
        }
        assert_eq!(files::read(&target), bytes, "what the link {name} points at was written");
    }
}

#[test]
fn files_of_other_names_are_left_alone() {
    let stores = Stores::new();
    let copy = files::copied(stores.closed.path());
    let foreign = [
        "notes.txt",
        "1.log",
        "0000000001.LOG",
        "0000000001.log.bak",
        "00000000001.log",
        "-000000001.log",
        "9999999999.log",
        "MANIFEST.old",
        "manifest",
        "LOCK.tmp",
        "notes.tmp",
        ".hidden",
        "0000000001.hint~",
    ];
    for name in foreign {
        files::write(&copy.path().join(name), "not pakv's");
    }
    let directory = copy.path().join("0000000099.log");
    std::fs::create_dir(&directory).expect("a directory can be made");
    let db = TestStore::options().open(copy.path()).expect("foreign files are nobody's business");
    assert_eq!(db.recovery().orphans_removed, 0, "none of them is an orphan");
    for index in 0..20 {
        db.set(format!("key{index}"), vec![b'.'; 100]).expect("set succeeds");
    }
    db.compact().expect("compact succeeds");
    db.close().expect("close succeeds");
    for name in foreign {
        assert_eq!(files::read(&copy.path().join(name)), b"not pakv's", "{name} is as it was");
    }
    assert!(directory.is_dir(), "a directory is no segment");
}

/// The active segment is damaged before it is sealed, so that its hint cannot be built: the segment
/// is set aside, everything else goes on, and the damage is told to whoever meets it.
#[test]
fn a_segment_that_is_found_damaged_when_it_is_sealed_is_set_aside() {
    let dir = files::scratch();
    let options = Options::new().background_compaction(false).segment_bytes(2_048);
    let db = options.clone().open(dir.path()).expect("it opens");
    db.set("hurt", "a value that is long enough").expect("set succeeds");
    let first = dir.path().join("0000000001.log");
    let at = files::position(&first, b"long enough").expect("the value is in the segment");
    files::flip(&first, at, 1);
    for number in 0..40 {
        db.set(format!("key {number}"), [b'.'; 100]).expect("set succeeds");
    }

    let stats = db.stats().expect("figures");
    assert!(stats.segments.len() > 2, "it has sealed several: {stats:?}");
    let told = stats.compaction.last_error.expect("the hint of the first cannot be built");
    assert!(told.contains("0000000001.log is damaged"), "{told}");
    let error = db.get("hurt").expect_err("the value is not what was written");
    assert!(error.is_corruption(), "{error:?}");
    for number in 0..40 {
        let found = db.get(format!("key {number}")).expect("get succeeds");
        assert_eq!(found.as_deref(), Some(&[b'.'; 100][..]));
    }
    db.maintain().expect("what is set aside is left alone");
    db.close().expect("close succeeds");
    let error = options.open(dir.path()).expect_err("what is listed is damaged");
    assert!(error.is_corruption(), "{error:?}");
}
