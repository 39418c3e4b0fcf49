//! A watch gives each change once and in order, as it was written, or says that some are gone.

use std::collections::BTreeMap;
use std::time::Duration;

use pakv::{Change, Db, Durability, Error, Expiry, FileAccess, Options, Watch, WriteBatch};
use pakv_testkit::{TestStore, files};

use crate::concurrent::on_four_threads;

fn get(watch: &mut Watch) -> Vec<Change> {
    watch.map(|change| change.expect("a change can be read")).collect()
}

fn store_of(options: &Options) -> (tempfile::TempDir, Db) {
    let dir = files::scratch();
    let db = options.clone().open(dir.path()).expect("an empty directory becomes a store");
    (dir, db)
}

#[test]
fn changes_are_what_was_written() {
    let (dir, db) = store_of(&TestStore::options());
    let at = std::time::UNIX_EPOCH + Duration::from_millis(4_102_444_800_000);
    db.set("a", "1").expect("set succeeds");
    db.set_with_expiry("b", [0xff, 0], Expiry::At(at)).expect("set succeeds");
    let mut batch = WriteBatch::new();
    db.write(batch.set("c", "").delete("a").delete("nobody")).expect("write succeeds");
    db.delete("nobody").expect("delete succeeds");
    let reader = TestStore::options().read_only(true).open(dir.path()).expect("a reader opens");
    for mut watch in [db.watch(0).expect("it can be watched"), reader.watch(1).expect("it can")] {
        let changes = get(&mut watch);
        let shown: Vec<_> = changes
            .iter()
            .map(|change| {
                let key = String::from_utf8_lossy(&change.key).into_owned();
                (change.seqno, key, change.value.as_deref(), change.batch_rest)
            })
            .collect();
        let expected: [(u64, &str, Option<&[u8]>, u32); 5] = [
            (1, "a", Some(b"1"), 0),
            (2, "b", Some(&[0xff, 0]), 0),
            (3, "c", Some(b""), 2),
            (4, "a", None, 1),
            (5, "nobody", None, 0),
        ];
        let expected =
            expected.map(|(seqno, key, value, rest)| (seqno, key.to_string(), value, rest));
        assert_eq!(shown, expected);
        let expiries: Vec<_> = changes.iter().filter_map(|change| change.expires_at_ms).collect();
        assert_eq!(expiries, [4_102_444_800_000]);
        assert_eq!(watch.next_seqno(), 6);
        assert!(!watch.wait(Duration::ZERO).expect("wait succeeds"), "nothing is new");
    }
}

/// Writers, a watch in the same process and one of a reader, all at once: each sees the same.
#[test]
fn each_change_comes_once_and_in_order() {
    const WRITES: u32 = 400;
    let options = Options::new().segment_bytes(2_048).durability(Durability::Buffered);
    let (dir, db) = store_of(&options.clone().background_compaction(false));
    let reader = options.read_only(true).open(dir.path()).expect("a reader opens");
    let mut watches =
        [&db, &reader].map(|db| (db.watch(1).expect("it can be watched"), Vec::new()));
    on_four_threads(
        |thread| {
            for number in 0..WRITES {
                let mut batch = WriteBatch::new();
                for index in 0..=number % 3 {
                    batch.set(format!("{thread} {index}"), number.to_string());
                }
                if number % 5 == 0 {
                    batch.delete(format!("{thread} 0"));
                }
                db.write(&batch).expect("write succeeds");
            }
        },
        || {
            for (watch, changes) in &mut watches {
                changes.extend(get(watch));
            }
        },
    );
    for (watch, changes) in &mut watches {
        changes.extend(get(watch));
    }
    let [(_, changes), (_, of_reader)] = watches;
    assert_eq!(of_reader.len(), changes.len());
    assert!(of_reader == changes, "both see the same");
    let seqno = db.stats().expect("stats succeed").seqno;
    assert!(changes.iter().map(|change| change.seqno).eq(1..=seqno), "each once, in order");
    for pair in changes.windows(2) {
        let rest = pair[0].batch_rest;
        assert!(rest == 0 || pair[1].batch_rest + 1 == rest, "a batch is whole: {pair:?}");
        let thread = |change: &Change| change.key[0];
        assert!(rest == 0 || thread(&pair[0]) == thread(&pair[1]), "nothing inside: {pair:?}");
    }
    // Each thread's writes in its own order, and all of them together the store.
    let mut entries = BTreeMap::new();
    let mut last = BTreeMap::new();
    for change in &changes {
        match &change.value {
            Some(value) => {
                let number: u32 = String::from_utf8_lossy(value).parse().expect("a number");
                let before = last.insert(change.key[0], number);
                assert!(before.is_none_or(|before| before <= number), "{change:?}");
                entries.insert(change.key.clone(), value.clone());
            }
            None => drop(entries.remove(&change.key)),
        }
    }
    assert_eq!(entries.into_iter().collect::<Vec<_>>(), crate::history::contents(&db));
    // From any place on, and in the middle of a batch.
    for from in [1, 2, 3, seqno / 2, seqno / 2 + 1, seqno, seqno + 1] {
        let rest = get(&mut db.watch(from).expect("it can be watched"));
        assert!(rest == changes[from as usize - 1..], "from {from}");
    }
}

#[test]
fn what_compaction_has_rewritten_is_said_to_be_gone() {
    let (dir, db) = store_of(&TestStore::options());
    let reader = TestStore::options().read_only(true).open(dir.path()).expect("a reader opens");
    let fill = || {
        for index in 0..20 {
            db.set(format!("key{index:02}"), vec![b'v'; 60]).expect("set succeeds");
        }
    };
    fill();
    let mut slow = [db.watch(1).expect("it is there"), reader.watch(1).expect("it is there")];
    for watch in &mut slow {
        assert_eq!(get(watch).len(), 20);
    }
    // All of the first round is garbage, and nothing else.
    fill();
    db.compact().expect("compact succeeds");
    for (what, db) in [("in process", &db), ("a reader", &reader)] {
        match db.watch(7).map(drop) {
            Err(Error::HistoryGone { from: 7, oldest: 21 }) => {}
            other => panic!("{what}: {other:?}"),
        }
        assert!(matches!(db.watch(20).map(drop), Err(Error::HistoryGone { oldest: 21, .. })));
        let changes = get(&mut db.watch(21).expect("the second round is as it was written"));
        assert!(changes.iter().map(|change| change.seqno).eq(21..=40), "{what}");
        assert_eq!(get(&mut db.watch(41).expect("what comes next can be watched")), []);
        match db.watch(42).map(drop) {
            Err(Error::NotWrittenYet { from: 42, newest: 40 }) => {}
            other => panic!("{what}: {other:?}"),
        }
    }
    // Garbage in one segment: that is rewritten, and what stays of it is not as it was written.
    db.set("key12", "newer").expect("set succeeds");
    db.compact().expect("compact succeeds");
    let mut oldest = 0;
    for (what, db) in [("in process", &db), ("a reader", &reader)] {
        oldest = match db.watch(21).map(drop) {
            Err(Error::HistoryGone { from: 21, oldest }) => oldest,
            other => panic!("{what}: {other:?}"),
        };
        assert!(33 < oldest && oldest < 41, "{what}: {oldest}");
        assert!(matches!(db.watch(oldest - 1).map(drop), Err(Error::HistoryGone { .. })));
        let changes = get(&mut db.watch(oldest).expect("it is there"));
        assert!(changes.iter().map(|change| change.seqno).eq(oldest..=41), "{what}");
    }
    for mut watch in slow {
        // The rest of the segment that it was in is still given, and then it is told, once.
        let mut next = watch.next_seqno();
        let gone = loop {
            match watch.next().expect("there is something to tell") {
                Ok(change) => {
                    assert_eq!(change.seqno, next);
                    next += 1;
                }
                Err(error) => break error,
            }
        };
        assert!(
            matches!(gone, Error::HistoryGone { from, oldest: to } if (from, to) == (next, oldest)),
            "{gone} after {next}"
        );
        assert!(watch.next().is_none() && !watch.wait(Duration::MAX).expect("it has ended"));
    }
}

/// What is there when a watch is begun it gives, in its own time, though compaction has replaced all of
/// it, and removed it under a reader.
#[test]
fn what_was_there_when_a_watch_began_is_given() {
    for method in [FileAccess::Mapped, FileAccess::Positional] {
        let options = TestStore::options().file_access(method);
        let (dir, db) = store_of(&options);
        let reader = options.read_only(true).open(dir.path()).expect("a reader opens");
        let fill = || {
            for index in 0..40 {
                db.set(format!("key{:02}", index % 20), vec![b'v'; 60]).expect("set succeeds");
            }
        };
        fill();
        let before = files::names(dir.path(), ".log");
        let mut watches = [db.watch(1).expect("it can"), reader.watch(1).expect("it can")];
        assert_eq!(watches[0].next().expect("there is one").expect("it can be read").seqno, 1);
        for _ in 0..3 {
            fill();
            db.compact().expect("compact succeeds");
            reader.refresh().expect("refresh succeeds");
        }
        assert!(matches!(db.watch(1).map(drop), Err(Error::HistoryGone { .. })));
        let [in_process, _] = &mut watches;
        let begun_with = |watch: &mut Watch| -> Vec<u64> {
            let until = |seqno: &u64| *seqno < 40;
            watch.map(|change| change.expect("it is there").seqno).take_while(until).collect()
        };
        assert!(begun_with(in_process).into_iter().eq(2..40));
        // Nobody in the process of the writer needs them any more.
        drop(in_process.next());
        let [_, mut of_reader] = watches;
        let left = files::names(dir.path(), ".log");
        assert!(before.iter().all(|name| !left.contains(name)), "{before:?} are not in {left:?}");
        assert!(begun_with(&mut of_reader).into_iter().eq(1..40));
    }
}

/// A segment that a watch is in the middle of is read to its end, though compaction has replaced it.
#[test]
fn a_watch_goes_on_in_a_segment_that_was_replaced() {
    for in_process in [true, false] {
        let options = TestStore::options().segment_bytes(1 << 20);
        let (dir, db) = store_of(&options);
        let reader = options.read_only(true).open(dir.path()).expect("a reader opens");
        let mut watch = if in_process { &db } else { &reader }.watch(1).expect("it is there");
        db.set("key", "1").expect("set succeeds");
        assert_eq!(get(&mut watch).len(), 1);
        db.set("key", "2").expect("set succeeds");
        db.set("key", "3").expect("set succeeds");
        db.compact().expect("compact succeeds");
        let removed = !dir.path().join("0000000001.log").exists();
        assert!(removed || in_process, "compaction has removed it under the reader");
        db.set("key", "4").expect("set succeeds");
        let values: Vec<_> =
            get(&mut watch).into_iter().filter_map(|change| change.value).collect();
        assert_eq!(values, [b"2", b"3", b"4"]);
    }
}

#[test]
fn a_watch_waits_for_what_comes_and_ends_with_the_store() {
    let (dir, db) = store_of(&TestStore::options());
    let reader = TestStore::options().read_only(true).open(dir.path()).expect("a reader opens");
    for mut watch in [db.watch(1).expect("it can"), reader.watch(1).expect("it can")] {
        let from = watch.next_seqno();
        let writer = db.clone();
        let thread = std::thread::spawn(move || writer.set("key", "value"));
        while !watch.wait(pakv_testkit::HANG).expect("wait succeeds") {}
        assert_eq!(watch.next_seqno(), from);
        thread.join().expect("the thread ends").expect("set succeeds");
        drop(get(&mut watch));
    }
    let mut watch = db.watch(1).expect("it can be watched");
    db.close().expect("close succeeds");
    assert!(matches!(watch.wait(Duration::MAX), Err(Error::Closed)));
    assert!(watch.next().is_none());
}

/// What stands before the damage is given, and then it is told, once.
#[test]
fn a_watch_comes_to_damage() {
    let (dir, db) = store_of(&TestStore::options().segment_bytes(1 << 20));
    for number in 0..10 {
        db.set("key", number.to_string()).expect("set succeeds");
    }
    let log = dir.path().join("0000000001.log");
    let len = files::read(&log).len();
    files::flip(&log, len - 1, 1);
    let mut watch = db.watch(1).expect("it can be watched");
    let given: Vec<_> = watch.by_ref().collect();
    let seqnos: Vec<_> = given.iter().flatten().map(|change| change.seqno).collect();
    assert_eq!(seqnos, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let last = given.last().and_then(|last| last.as_ref().err());
    assert!(given.len() == 10 && last.is_some_and(Error::is_corruption), "{last:?}");
    assert_eq!(watch.next_seqno(), 10);
    assert!(watch.next().is_none());
}
