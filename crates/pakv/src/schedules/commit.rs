//! The commit queue: no wake-up is lost, every member of a group gets its result, what is
//! acknowledged is there, a failure is everybody's, transactions exclude, a close drains.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use shuttle::thread;

use super::disk::Disk;
use super::{close_and_check, explore, open, options};
use crate::format::record::Record;
use crate::segment::{FrameReader, Next};
use crate::{Db, Durability, Error, Expected, Options, WriteBatch};

/// Large segments: these are about the queue, and a seal is a long walk.
fn unsealed() -> Options {
    options().segment_bytes(1 << 20)
}

fn number(value: Option<Vec<u8>>) -> u32 {
    value.map_or(0, |value| std::str::from_utf8(&value).expect("text").parse().expect("a number"))
}

fn add_one(old: Option<&[u8]>) -> Option<Vec<u8>> {
    Some((number(old.map(<[u8]>::to_vec)) + 1).to_string().into_bytes())
}

/// Runs the works at the same time, each on a handle and with its number, to the end of all.
fn at_once(db: &Db, works: &[fn(usize, Db)]) {
    let threads: Vec<_> = works
        .iter()
        .copied()
        .enumerate()
        .map(|(index, work)| {
            let db = db.clone();
            thread::spawn(move || work(index, db))
        })
        .collect();
    for thread in threads {
        thread.join().expect("no panic");
    }
}

/// The order of sequence numbers in the active segment is the order of its bytes.
fn check_order(db: &Db) {
    let active = db.core().active.lock();
    let active = active.as_ref().expect("it is open");
    let start = db.core().index.read().segments[&active.segment.id].first_record;
    let mut reader = FrameReader::new(&active.segment, start, active.bytes).expect("it opens");
    let mut last = 0;
    while let Next::Frame(frame) = reader.next().expect("it can be read") {
        let seqno = Record::decode(frame.body).expect("it decodes").seqno;
        assert_eq!(seqno, last + 1, "one follows the other");
        last = seqno;
    }
    assert_eq!(last, active.next_seqno - 1, "all of them are there");
    assert_eq!(active.records as u64, last, "each is counted");
}

pub(super) fn writers() {
    let disk = Disk::default();
    let db = open(&disk, unsealed());
    let work: fn(usize, Db) = |index, db| {
        let db = match index {
            0 => db.with_durability(Durability::Buffered).expect("it is allowed"),
            _ => db,
        };
        for round in 0..2_u32 {
            let value = format!("{index} {round}");
            db.set(format!("own{index}"), &value).expect("set succeeds");
            let found = db.get(format!("own{index}")).expect("get succeeds");
            assert_eq!(found, Some(value.into_bytes()), "what is acknowledged is seen");
            let was_there = db.delete(format!("own{index}")).expect("delete succeeds");
            assert!(was_there, "it has the result of its own delete");
            db.set("shared", index.to_string()).expect("set succeeds");
        }
    };
    at_once(&db, &[work; 3]);
    assert_eq!(db.len().expect("len succeeds"), 1);
    check_order(&db);
    close_and_check(db, &disk);
}

#[test]
fn every_writer_is_woken_and_gets_its_own_result() {
    explore(writers);
}

#[test]
fn conditional_writes_lose_no_update() {
    explore(|| {
        let disk = Disk::default();
        let db = open(&disk, unsealed());
        let work: fn(usize, Db) = |index, db| {
            db.update("counter", add_one).expect("update succeeds");
            let won = db.compare_and_set("first", Expected::Absent, index.to_string());
            if won.expect("it succeeds") {
                db.update("winners", add_one).expect("update succeeds");
            }
        };
        at_once(&db, &[work; 3]);
        assert_eq!(number(db.get("counter").expect("get succeeds")), 3);
        assert_eq!(number(db.get("winners").expect("get succeeds")), 1);
        check_order(&db);
        close_and_check(db, &disk);
    });
}

/// Every write that is refused is refused by all means, every one that is acknowledged survives.
#[test]
fn after_a_failed_sync_nobody_is_acknowledged() {
    for syncs in 0..3 {
        explore(move || {
            let disk = Disk::default();
            let db = open(&disk, unsealed());
            disk.fail_sync_after(syncs);
            let acknowledged = Arc::new(Mutex::new(Vec::new()));
            let threads: Vec<_> = (0..3)
                .map(|index| {
                    let (db, acknowledged) = (db.clone(), acknowledged.clone());
                    thread::spawn(move || {
                        let mut failed = false;
                        for round in 0..2 {
                            let key = format!("{index}/{round}");
                            match db.set(&key, "value") {
                                Ok(()) => {
                                    assert!(!failed, "{key} is acknowledged by a poisoned store");
                                    acknowledged.lock().expect("no panic").push(key);
                                }
                                Err(Error::Io { .. } | Error::Poisoned { .. }) => {
                                    failed = true;
                                    let found = db.get(&key).expect("reads go on");
                                    assert_eq!(found, None, "{key} failed and is seen");
                                }
                                Err(error) => panic!("{error:?}"),
                            }
                        }
                        failed
                    })
                })
                .collect();
            let failures = threads.into_iter().map(|thread| thread.join().expect("no panic"));
            assert!(failures.filter(|failed| *failed).count() > 0, "somebody was told");
            assert!(db.stats().expect("stats succeed").poisoned.is_some());
            assert!(matches!(db.set("after", ""), Err(Error::Poisoned { .. })));
            assert!(db.close().is_err(), "a close says so too");
            assert_eq!(disk.violations(), Vec::<String>::new());
            disk.forget();
            let db = open(&disk, unsealed());
            for key in acknowledged.lock().expect("no panic").iter() {
                assert!(db.contains(key).expect("contains succeeds"), "{key} was lost");
            }
            close_and_check(db, &disk);
        });
    }
}

#[test]
fn transactions_exclude_all_other_writers() {
    explore(|| {
        let disk = Disk::default();
        let db = open(&disk, unsealed());
        let transfer = |_, db: Db| {
            let mut transaction = db.transaction().expect("it begins");
            let old = transaction.get("counter").expect("get succeeds");
            assert!(matches!(db.set("mine", ""), Err(Error::TransactionOpen)));
            transaction.set("counter", add_one(old.as_deref()).expect("a number"));
            let other = transaction.get("other").expect("get succeeds");
            transaction.set("other", add_one(other.as_deref()).expect("a number"));
            transaction.commit().expect("commit succeeds");
        };
        let update = |_, db: Db| {
            db.update("counter", add_one).expect("update succeeds");
            let snapshot = db.snapshot().expect("a snapshot");
            let counter = number(snapshot.get("counter").expect("get succeeds"));
            let other = number(snapshot.get("other").expect("get succeeds"));
            assert!(counter > other && counter <= other + 1, "a half of a transaction was seen");
        };
        at_once(&db, &[transfer, update, transfer]);
        assert_eq!(number(db.get("counter").expect("get succeeds")), 3);
        assert_eq!(number(db.get("other").expect("get succeeds")), 2);
        check_order(&db);
        close_and_check(db, &disk);
    });
}

#[test]
fn a_close_drains_the_queue_and_refuses_the_rest() {
    explore(|| {
        let disk = Disk::default();
        // It compacts in the background: the close has that to end, too.
        let options = || options().background_compaction(true);
        let db = open(&disk, options());
        let writers: Vec<_> = (0..3)
            .map(|index| {
                let db = db.clone();
                thread::spawn(move || {
                    let mut answers = Vec::new();
                    for round in 0..2 {
                        let key = format!("{index}/{round}");
                        let mut batch = WriteBatch::new();
                        batch.set(&*key, [b'v'; 90]).set(format!("{key}/twin"), "value");
                        match db.write(&batch) {
                            Ok(()) => answers.push((key, true)),
                            Err(Error::Closed) => answers.push((key, false)),
                            Err(error) => panic!("a write beside a close: {error:?}"),
                        }
                    }
                    answers
                })
            })
            .collect();
        db.close().expect("close succeeds");
        // The lock is free at once, and whoever has it now has the files to itself.
        let next = open(&disk, options());
        next.set("next", "value").expect("set succeeds");
        for (key, is_there) in
            writers.into_iter().flat_map(|writer| writer.join().expect("no panic"))
        {
            for key in [key.clone(), format!("{key}/twin")] {
                assert_eq!(next.contains(&key).expect("contains succeeds"), is_there, "{key}");
            }
        }
        close_and_check(next, &disk);
    });
}

/// The threads of the store's own: the one that compacts and the one that syncs, and their end.
#[test]
fn background_threads_work_and_end() {
    explore(|| {
        let disk = Disk::default();
        let interval = Durability::Interval(Duration::from_millis(1));
        let options = || options().background_compaction(true).durability(interval);
        let db = open(&disk, options());
        let work: fn(usize, Db) = |index, db| {
            for round in 0..4_u8 {
                db.set(format!("key{}", round % 2), [index as u8 + round; 120])
                    .expect("set succeeds");
            }
        };
        at_once(&db, &[work; 2]);
        let found = db.get("key1").expect("get succeeds");
        close_and_check(db, &disk);
        let db = open(&disk, options());
        assert_eq!(db.get("key1").expect("get succeeds"), found);
        assert_eq!(db.len().expect("len succeeds"), 2);
        close_and_check(db, &disk);
    });
}
