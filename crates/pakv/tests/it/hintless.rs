//! Sealed segments that do without a hint: how many there may be, and what an open makes of them.

use std::path::Path;

use pakv::{Db, Error, Options, Result};
use pakv_testkit::files;

/// Tiny segments that all may lack their hint.
fn options() -> Options {
    Options::new()
        .segment_bytes(4096)
        .background_compaction(false)
        .compaction_min_garbage(0)
        .hintless_segments_from(0)
}

fn key(number: u64) -> String {
    format!("key-{number:05}")
}

/// Sets every key twice and deletes some: garbage and tombstones in many segments.
fn fill(db: &Db, value: &str) -> Result<()> {
    for round in 0..2 {
        for number in 0..400 {
            db.set(key(number), format!("{value}{number}, {round}"))?;
        }
    }
    (0..400).step_by(7).try_for_each(|number| db.delete(key(number)).map(|_| ()))
}

fn check(db: &Db, value: &str) -> Result<()> {
    for number in 0..400 {
        let expected = (number % 7 != 0).then(|| format!("{value}{number}, 1").into_bytes());
        assert_eq!(db.get(key(number))?, expected, "key {number}");
    }
    Ok(())
}

fn sealed(db: &Db) -> Result<usize> {
    Ok(db.stats()?.segments.iter().filter(|segment| !segment.active).count())
}

fn hints(dir: &Path) -> usize {
    files::names(dir, ".hint").len()
}

#[test]
fn small_records_need_no_hint_and_nothing_is_rebuilt_for_them() -> Result<()> {
    let dir = files::scratch();
    let db = options().open(dir.path())?;
    fill(&db, "")?;
    assert!(sealed(&db)? > 5);
    db.compact()?;
    fill(&db, "")?;
    db.maintain()?;
    check(&db, "")?;
    db.close()?;
    assert_eq!(hints(dir.path()), 0);
    for options in [options(), options().read_only(true), options().background_compaction(true)] {
        let db = options.open(dir.path())?;
        assert_eq!((db.recovery().hints_rebuilt, hints(dir.path())), (0, 0));
        check(&db, "")?;
        db.close()?;
    }
    Ok(())
}

#[test]
fn what_is_too_much_to_read_at_an_open_gets_its_hints_the_oldest_first() -> Result<()> {
    let dir = files::scratch();
    let some = options().hintless_bytes(2 * 4096);
    let db = some.clone().open(dir.path())?;
    fill(&db, "")?;
    let with = hints(dir.path());
    assert_eq!(sealed(&db)? - with, 2, "of so many bytes");
    let oldest: Vec<String> = (1..=with).map(|number| format!("{number:010}.hint")).collect();
    assert_eq!(files::names(dir.path(), ".hint"), oldest);
    db.compact()?;
    fill(&db, "")?;
    db.compact()?;
    assert!(sealed(&db)? - hints(dir.path()) <= 2);
    check(&db, "")?;
    db.close()?;

    let db = some.hintless_bytes(0).open(dir.path())?;
    db.maintain()?;
    assert_eq!(hints(dir.path()), sealed(&db)?, "none may lack its hint any more");
    check(&db, "")?;
    db.close()
}

#[test]
fn large_records_have_hints() -> Result<()> {
    let dir = files::scratch();
    let db = options().segment_bytes(64 * 1024).open(dir.path())?;
    let value = "v".repeat(600);
    fill(&db, &value)?;
    assert_eq!(hints(dir.path()), sealed(&db)?);
    db.compact()?;
    assert_eq!(hints(dir.path()), sealed(&db)?);
    check(&db, &value)?;
    db.close()
}

/// Damage in a segment without a hint is found at the open: there is nothing to go by but its
/// records. A hint that is there and damaged is built again.
#[test]
fn damage_of_a_segment_without_a_hint_is_an_error_at_the_open() -> Result<()> {
    let dir = files::scratch();
    let db = options().hintless_bytes(2 * 4096).open(dir.path())?;
    fill(&db, "")?;
    db.close()?;
    let last = files::names(dir.path(), ".log").len() as u32 - 1;

    let copy = files::copied(dir.path());
    files::flip(&copy.path().join(format!("{last:010}.log")), 2000, 1);
    match options().open(copy.path()) {
        Err(Error::Corrupt { .. }) => {}
        other => panic!("a record was damaged: {other:?}"),
    }

    files::flip(&dir.path().join("0000000001.hint"), 100, 1);
    let db = options().open(dir.path())?;
    assert_eq!(db.recovery().hints_rebuilt, 1);
    check(&db, "")?;
    db.close()
}

/// They are not gathered with others before they are written.
#[test]
fn large_values_between_small_ones_are_copied_whole() -> Result<()> {
    let dir = files::scratch();
    let db = options().segment_bytes(64 << 20).open(dir.path())?;
    let sizes = [0, 1, 262_000, 262_144, 262_145, 3_000_000, 10, 9_000_000, 2];
    let value = |size: usize| -> Vec<u8> { (0..size).map(|at| (at / 3 + size) as u8).collect() };
    for _ in 0..2 {
        for (number, size) in (0..).zip(sizes) {
            db.set(key(number), value(size))?;
        }
    }
    let report = db.compact()?;
    assert_eq!(report.records_copied, sizes.len() as u64);
    let check = |db: &Db| {
        for (number, size) in (0..).zip(sizes) {
            assert!(db.get(key(number))? == Some(value(size)), "the value of {size} bytes");
        }
        Ok(())
    };
    check(&db)?;
    db.close()?;
    let db = options().open(dir.path())?;
    check(&db)?;
    db.close()
}

/// Where a run's outputs have more keys than memory for them, they are read again.
#[test]
fn a_run_of_very_many_keys_moves_them_all() -> Result<()> {
    let dir = files::scratch();
    let db = Options::new()
        .segment_bytes(256 << 20)
        .background_compaction(false)
        .durability(pakv::Durability::Buffered)
        .open(dir.path())?;
    const KEYS: u64 = 20_000;
    let long = |number: u64| format!("{number:0>900}");
    for round in 0..2_u64 {
        for number in 0..KEYS {
            db.set(long(number), round.to_le_bytes())?;
        }
    }
    let report = db.compact()?;
    assert_eq!(report.records_copied, KEYS);
    let value = 1_u64.to_le_bytes();
    for number in 0..KEYS {
        assert_eq!(db.get(long(number))?.as_deref(), Some(&value[..]));
    }
    db.close()?;
    let db = Db::open(dir.path())?;
    assert_eq!(db.len()?, KEYS);
    db.close()
}
