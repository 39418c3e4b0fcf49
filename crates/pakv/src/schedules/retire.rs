//! The retirement of segments: while compaction publishes, moves and retires, readers find every
//! key, and the files of a segment go when its last reader does, never before.

use shuttle::thread;

use super::disk::Disk;
use super::{close_and_check, explore, open, options};
use crate::Db;

const KEYS: u8 = 6;

fn key(index: u8) -> String {
    format!("key{index}")
}

/// A store of a few segments with garbage in each: every key has been written twice.
fn with_garbage(disk: &Disk) -> Db {
    let db = open(disk, options());
    for version in [b'a', b'b'] {
        for index in 0..KEYS {
            db.set(key(index), [version; 60]).expect("set succeeds");
        }
    }
    db.set("gone", [b'a'; 60]).expect("set succeeds");
    db.delete("gone").expect("delete succeeds");
    db
}

/// What every reader finds: a value whole, of this version or a later one.
fn check_value(value: Option<Vec<u8>>, from: u8) -> u8 {
    let value = value.expect("the key is there");
    assert_eq!(value.len(), 60);
    assert!(value[0] >= from && value.iter().all(|byte| *byte == value[0]), "{value:?}");
    value[0]
}

pub(super) fn readers() {
    let disk = Disk::default();
    let db = with_garbage(&disk);
    let reader = {
        let db = db.clone();
        thread::spawn(move || {
            let mut seen = [b'b'; KEYS as usize];
            for _ in 0..2 {
                for (index, seen) in seen.iter_mut().enumerate() {
                    let value = db.get(key(index as u8)).expect("get succeeds");
                    *seen = check_value(value, *seen);
                }
                assert!(!db.contains("gone").expect("contains succeeds"), "it came back");
            }
        })
    };
    let writer = {
        let db = db.clone();
        thread::spawn(move || {
            for index in [0, 3] {
                db.set(key(index), [b'c'; 60]).expect("set succeeds");
            }
        })
    };
    db.compact().expect("compact succeeds");
    writer.join().expect("no panic");
    reader.join().expect("no panic");
    for index in 0..KEYS {
        let found = db.get(key(index)).expect("get succeeds");
        check_value(found, if index % 3 == 0 { b'c' } else { b'b' });
    }
    close_and_check(db, &disk);
}

#[test]
fn readers_find_every_key_while_compaction_moves_it() {
    explore(readers);
}

#[test]
fn a_snapshot_answers_the_same_while_compaction_moves_it() {
    explore(|| {
        let disk = Disk::default();
        let db = with_garbage(&disk);
        let holder = {
            let db = db.clone();
            thread::spawn(move || {
                let snapshot = db.snapshot().expect("a snapshot");
                type Entries<'a> = &'a mut dyn Iterator<Item = crate::Entry>;
                let read = |scan: Entries<'_>| -> Vec<_> {
                    scan.map(|entry| entry.into_pair().expect("it can be read")).collect()
                };
                let first = read(&mut snapshot.scan());
                let clone = snapshot.clone();
                let got: Vec<_> = (0..KEYS)
                    .filter_map(|index| {
                        let value = snapshot.get(key(index)).expect("get succeeds");
                        value.map(|value| (key(index).into_bytes(), value))
                    })
                    .collect();
                drop(snapshot);
                assert_eq!(first, got, "a scan and the gets of one snapshot");
                let mut backwards = read(&mut clone.scan().rev());
                backwards.reverse();
                assert_eq!(first, backwards, "the same twice");
                assert!(first.iter().all(|(_, value)| value[0] >= b'b'), "{first:?}");
            })
        };
        let writer = {
            let db = db.clone();
            thread::spawn(move || {
                db.set(key(1), [b'c'; 60]).expect("set succeeds");
                db.delete(key(2)).expect("delete succeeds");
            })
        };
        db.compact().expect("compact succeeds");
        writer.join().expect("no panic");
        holder.join().expect("no panic");
        db.compact().expect("compact succeeds");
        assert_eq!(db.len().expect("len succeeds"), u64::from(KEYS) - 1);
        assert_eq!(db.stats().expect("stats succeed").retired_segments, 0, "nobody reads");
        close_and_check(db, &disk);
    });
}

/// Whoever holds an entry can read it after the segment was retired; the file is there until then,
/// and gone when the last of several readers lets go, whichever that is.
#[test]
fn a_retired_segment_stays_for_its_last_reader() {
    explore(|| {
        let disk = Disk::default();
        let db = with_garbage(&disk);
        let entry = db.scan().expect("scan succeeds").next().expect("an entry");
        let file = {
            let index = db.core().index.read();
            let found = index.lookup(entry.key(), None).expect("it is there");
            found.entry.location.segment.log_name()
        };
        let holders: Vec<_> = (0..2)
            .map(|_| {
                let (entry, disk, file) = (entry.clone(), disk.clone(), file.clone());
                thread::spawn(move || {
                    check_value(Some(entry.value().expect("it can be read")), b'b');
                    assert!(disk.names().contains(&file), "{file} is still read");
                    drop(entry);
                })
            })
            .collect();
        drop(entry);
        db.compact().expect("compact succeeds");
        for holder in holders {
            holder.join().expect("no panic");
        }
        assert!(!disk.names().contains(&file), "nobody reads {file} any more");
        assert_eq!(db.stats().expect("stats succeed").retired_segments, 0);
        close_and_check(db, &disk);
    });
}

/// Two compactions, writers that seal, and readers: one compaction at a time, no segment is missed
/// by any of them.
#[test]
fn compactions_and_seals_at_once() {
    explore(|| {
        let disk = Disk::default();
        let db = with_garbage(&disk);
        let threads: Vec<_> = [
            (|db| db.compact().map(drop)) as fn(&Db) -> crate::Result<()>,
            |db| db.maintain(),
            |db| (0..4).try_for_each(|index| db.set(key(index), [b'c'; 60])),
        ]
        .into_iter()
        .map(|work| {
            let db = db.clone();
            thread::spawn(move || work(&db).expect("it succeeds"))
        })
        .collect();
        for index in 0..KEYS {
            check_value(db.get(key(index)).expect("get succeeds"), b'b');
        }
        for thread in threads {
            thread.join().expect("no panic");
        }
        close_and_check(db, &disk);
        let db = open(&disk, options());
        for index in 0..KEYS {
            let from = if index < 4 { b'c' } else { b'b' };
            check_value(db.get(key(index)).expect("get succeeds"), from);
        }
        assert!(!db.contains("gone").expect("contains succeeds"));
        close_and_check(db, &disk);
    });
}
