//! Threads: readers, writers, transactions, snapshots and compaction at the same time. Each test
//! has an invariant that any lost, torn or misordered write would break. Nothing here asserts how
//! long something takes.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pakv::{Db, Durability, Error, Expected, Options, Result, Snapshot, WriteBatch};
use pakv_testkit::{TestStore, files};
use tempfile::TempDir;

/// Tiny segments and an eager compaction in the background.
fn options() -> Options {
    Options::new()
        .segment_bytes(2_048)
        .durability(Durability::Buffered)
        .compaction_min_garbage(0)
        .keydir_merge_keys(3)
        .compaction_space_amplification(1.05)
        .compaction_rate(None)
}

fn open() -> (TempDir, Db) {
    let dir = files::scratch();
    let db = options().open(dir.path()).expect("an empty directory becomes a store");
    (dir, db)
}

fn number(value: Option<Vec<u8>>) -> u64 {
    let value = value.expect("the key is there");
    std::str::from_utf8(&value)
        .ok()
        .and_then(|text| text.parse().ok())
        .expect("the value is a number")
}

/// Runs `work` on four threads, and `meanwhile` on the calling one again and again until they end.
pub(crate) fn on_four_threads(work: impl Fn(usize) + Sync, mut meanwhile: impl FnMut()) {
    on_four_threads_that_wait(|thread, _| work(thread), &mut meanwhile);
}

/// As above, for work that waits for others: its second argument says that one of them failed, and
/// that waiting on would be in vain.
fn on_four_threads_that_wait(
    work: impl Fn(usize, &AtomicBool) + Sync,
    mut meanwhile: impl FnMut(),
) {
    let (working, failed) = (AtomicUsize::new(4), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (work, working, failed) = (&work, &working, &failed);
            scope.spawn(move || {
                let _done = OnDrop(|| {
                    working.fetch_sub(1, Ordering::SeqCst);
                    failed.fetch_or(std::thread::panicking(), Ordering::SeqCst);
                });
                work(thread, failed);
            });
        }
        let _done = OnDrop(|| {
            failed.fetch_or(std::thread::panicking(), Ordering::SeqCst);
        });
        while working.load(Ordering::SeqCst) > 0 {
            meanwhile();
        }
        meanwhile();
    });
}

/// Also when the thread panics, so that a failure ends the test instead of hanging it.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

const ACCOUNTS: u64 = 10;
const BALANCE: u64 = 100;

fn account(number: u64) -> String {
    format!("account/{number}")
}

fn fill_accounts(db: &Db) {
    let mut batch = WriteBatch::new();
    for number in 0..ACCOUNTS {
        batch.set(account(number), BALANCE.to_string());
    }
    db.write(&batch).expect("write succeeds");
}

fn sum(snapshot: &Snapshot) -> u64 {
    snapshot
        .scan_prefix("account/")
        .map(|entry| number(Some(entry.value().expect("a value can be read"))))
        .sum()
}

#[test]
fn transfers_in_transactions_keep_the_sum() {
    let (dir, db) = open();
    fill_accounts(&db);
    let transfer = |from: u64, to: u64, amount: u64| -> Result<()> {
        let mut transaction = db.transaction()?;
        let (there, here) =
            (number(transaction.get(account(to))?), number(transaction.get(account(from))?));
        if from == to || here < amount {
            transaction.rollback();
            return Ok(());
        }
        transaction.set(account(from), (here - amount).to_string());
        transaction.set(account(to), (there + amount).to_string());
        transaction.commit()
    };
    let work = |thread: usize| {
        for round in thread as u64..250 {
            let (from, to) = (round * 7 % ACCOUNTS, round * round % ACCOUNTS);
            transfer(from, to, round % 50).expect("a transfer succeeds");
        }
    };
    on_four_threads(work, || {
        let snapshot = db.snapshot().expect("a snapshot can be taken");
        assert_eq!(sum(&snapshot), ACCOUNTS * BALANCE, "the sum in a snapshot");
        db.compact().expect("compact succeeds");
        assert_eq!(sum(&snapshot), ACCOUNTS * BALANCE, "the sum in a snapshot after a compaction");
    });
    db.close().expect("close succeeds");
    let db = options().open(dir.path()).expect("the store opens again");
    assert_eq!(
        sum(&db.snapshot().expect("a snapshot can be taken")),
        ACCOUNTS * BALANCE,
        "the sum on disk"
    );
}

#[test]
fn a_batch_is_seen_whole_or_not_at_all() {
    let (_dir, db) = open();
    let write = |version: &str| {
        let mut batch = WriteBatch::new();
        for number in 0..ACCOUNTS {
            batch.set(account(number), version);
        }
        db.write(&batch).expect("write succeeds");
    };
    write("0");
    let work = |thread: usize| {
        for round in 0..150 {
            write(&(round * 4 + thread).to_string());
        }
    };
    on_four_threads(work, || {
        let seen = |scan: pakv::Scan| -> Vec<Vec<u8>> {
            scan.map(|entry| entry.value().expect("a value can be read")).collect()
        };
        let snapshot = db.snapshot().expect("a snapshot can be taken");
        for values in
            [seen(db.scan().expect("scan succeeds")), seen(snapshot.scan()), seen(snapshot.scan())]
        {
            assert_eq!(values.len() as u64, ACCOUNTS, "every key is there");
            assert!(
                values.iter().all(|value| *value == values[0]),
                "parts of two batches were seen: {values:?}"
            );
        }
    });
}

#[test]
fn no_update_is_lost() {
    let (dir, db) = open();
    let add = |value: Option<&[u8]>| {
        let old = value.map_or(0, |value| number(Some(value.to_vec())));
        Some((old + 1).to_string().into_bytes())
    };
    let work = |thread: usize| {
        let db = if thread == 0 {
            db.with_durability(Durability::Sync).expect("it is allowed")
        } else {
            db.clone()
        };
        for round in 0..250 {
            db.update("counter", add).expect("update succeeds");
            db.update(format!("counter{}", round % 3), add).expect("update succeeds");
        }
    };
    on_four_threads(work, || {
        db.compact().expect("compact succeeds");
    });
    db.close().expect("close succeeds");
    let db = options().open(dir.path()).expect("the store opens again");
    assert_eq!(number(db.get("counter").expect("get succeeds")), 1_000, "every increment counts");
    let others: u64 =
        (0..3).map(|index| number(db.get(format!("counter{index}")).expect("get succeeds"))).sum();
    assert_eq!(others, 1_000, "every increment counts");
}

#[test]
fn compare_and_set_lets_one_thread_through() {
    let (_dir, db) = open();
    db.set("lock", "free").expect("set succeeds");
    let (inside, entered) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let winners: Vec<AtomicUsize> = (0..100).map(|_| AtomicUsize::new(0)).collect();
    let barrier = Barrier::new(4);
    let work = |thread: usize, failed: &AtomicBool| {
        let name = thread.to_string();
        barrier.wait();
        for (index, winners) in winners.iter().enumerate() {
            let key = format!("once{index}");
            if db.compare_and_set(key, Expected::Absent, &name).expect("compare_and_set succeeds") {
                winners.fetch_add(1, Ordering::SeqCst);
            }
        }
        let mut left = 50;
        while left > 0 && !failed.load(Ordering::SeqCst) {
            if db
                .compare_and_set("lock", Expected::Value(b"free"), &name)
                .expect("compare_and_set succeeds")
            {
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two threads have the lock");
                entered.fetch_add(1, Ordering::SeqCst);
                inside.fetch_sub(1, Ordering::SeqCst);
                let freed = db.compare_and_set("lock", Expected::Value(name.as_bytes()), "free");
                assert!(
                    freed.expect("compare_and_set succeeds"),
                    "nobody else wrote while the lock was held"
                );
                left -= 1;
            }
        }
    };
    on_four_threads_that_wait(work, || {
        db.compact().expect("compact succeeds");
    });
    assert_eq!(entered.load(Ordering::SeqCst), 4 * 50, "every thread got in as often as it wanted");
    for (index, winners) in winners.iter().enumerate() {
        assert_eq!(winners.load(Ordering::SeqCst), 1, "one thread created once{index}");
    }
}

/// Each key has one writer that counts up. A reader that sees a smaller number than before, another
/// key's value, or nothing, saw a write undone: by compaction publishing an old place, for
/// instance.
#[test]
fn readers_see_values_whole_and_never_go_back_in_time() {
    let (_dir, db) = open();
    const KEYS: usize = 8;
    let key = |index: usize| format!("key{index}");
    let value = |index: usize, version: u64| {
        format!("{index}:{version}:{}", "x".repeat(version as usize % 97))
    };
    for index in 0..KEYS {
        db.set(key(index), value(index, 0)).expect("set succeeds");
    }
    let writing = AtomicUsize::new(2);
    let work = |thread: usize| {
        if thread < 2 {
            // Also when it panics: the readers go on until both writers have ended.
            let _done = OnDrop(|| {
                writing.fetch_sub(1, Ordering::SeqCst);
            });
            for version in 1..1_000 {
                for index in (thread..KEYS).step_by(2) {
                    db.set(key(index), value(index, version)).expect("set succeeds");
                }
            }
            return;
        }
        let mut seen = [0; KEYS];
        while writing.load(Ordering::SeqCst) > 0 {
            for (index, seen) in seen.iter_mut().enumerate() {
                let found = db.get(key(index)).expect("get succeeds").expect("the key is there");
                let found = String::from_utf8(found).expect("the value is text");
                let version: u64 =
                    found.split(':').nth(1).and_then(|text| text.parse().ok()).expect("a version");
                assert_eq!(found, value(index, version), "the value is whole and of its key");
                assert!(version >= *seen, "key{index} went from {seen} back to {version}");
                *seen = version;
            }
        }
    };
    on_four_threads(work, || {
        db.compact().expect("compact succeeds");
    });
}

/// Deleted keys stay deleted for every reader while compaction moves older records about.
#[test]
fn a_deleted_key_never_comes_back() {
    let (dir, db) = open();
    let work = |thread: usize| {
        for round in 0..60 {
            let keys: Vec<_> = (0..5).map(|index| format!("{thread}/{round}/{index}")).collect();
            for key in &keys {
                db.set(key, vec![b'v'; 50]).expect("set succeeds");
            }
            for key in &keys {
                assert!(db.delete(key).expect("delete succeeds"), "{key} was there");
            }
            assert_eq!(
                db.scan_prefix(format!("{thread}/")).expect("scan succeeds").count(),
                0,
                "all are deleted"
            );
        }
    };
    on_four_threads(work, || {
        db.compact().expect("compact succeeds");
    });
    db.close().expect("close succeeds");
    for hints in [true, false] {
        if !hints {
            files::remove_hints(dir.path());
        }
        let db = options().open(dir.path()).expect("the store opens again");
        assert_eq!(db.len().expect("len succeeds"), 0, "with hints: {hints}");
    }
}

#[test]
fn a_close_under_writers_ends_them_with_an_error_and_loses_nothing() {
    let (dir, db) = open();
    let acknowledged: Vec<AtomicUsize> = (0..4).map(|_| AtomicUsize::new(0)).collect();
    let closed = AtomicBool::new(false);
    let closing = std::sync::Mutex::new(Some(db.clone()));
    let work = |thread: usize, failed: &AtomicBool| {
        for round in 0.. {
            if failed.load(Ordering::SeqCst) {
                return;
            }
            match db.set(format!("{thread}/{round}"), "value") {
                Ok(()) => acknowledged[thread].fetch_add(1, Ordering::SeqCst),
                Err(Error::Closed) => return,
                Err(error) => panic!("a write beside a close: {error:?}"),
            };
        }
    };
    on_four_threads_that_wait(work, || {
        let all_write = acknowledged.iter().all(|count| count.load(Ordering::SeqCst) > 100);
        if all_write && let Some(db) = closing.lock().expect("nobody panicked").take() {
            db.close().expect("close succeeds");
            closed.store(true, Ordering::SeqCst);
        }
    });
    assert!(closed.load(Ordering::SeqCst), "the store was closed while they wrote");
    drop(db);
    let db = options().open(dir.path()).expect("the store opens again");
    for (thread, count) in acknowledged.iter().enumerate() {
        for round in 0..count.load(Ordering::SeqCst) {
            assert!(
                db.contains(format!("{thread}/{round}")).expect("contains succeeds"),
                "{thread}/{round} was lost"
            );
        }
    }
}

/// A close ends a compaction that runs, or waits for it. One that went on behind the close's back
/// would replace the manifest of whoever opens the store next.
#[test]
fn a_compaction_does_not_outlive_the_close() {
    let dir = files::scratch();
    let options = || options().background_compaction(false);
    let db = options().open(dir.path()).expect("an empty directory becomes a store");
    for version in 0..40 {
        db.set(format!("key{}", version % 10), vec![b'o'; 100]).expect("set succeeds");
    }
    let (copying, is_copying) = std::sync::mpsc::channel();
    let compacter = std::thread::spawn({
        let db = db.clone();
        move || {
            let mut records = 0;
            db.compact_with(|_| {
                records += 1;
                if records == 3 {
                    copying.send(()).expect("the test waits");
                    // Long enough for a close that does not wait, and for what follows it.
                    std::thread::sleep(std::time::Duration::from_millis(100));
                }
            })
        }
    });
    is_copying.recv().expect("the compaction begins");
    db.close().expect("close succeeds");

    let db = options().open(dir.path()).expect("a closed store can be opened");
    for version in 0..40 {
        db.set(format!("key{}", version % 10), format!("new{version}").repeat(20))
            .expect("set succeeds");
    }
    match compacter.join().expect("the compaction does not panic") {
        Ok(_) | Err(Error::Closed) => {}
        Err(error) => panic!("a compaction that a close ends: {error:?}"),
    }
    db.set("after", "both").expect("set succeeds");
    db.close().expect("close succeeds");
    let db = options().open(dir.path()).expect("the store opens again");
    for version in 30..40 {
        let value = db.get(format!("key{}", version % 10)).expect("get succeeds");
        assert_eq!(
            value,
            Some(format!("new{version}").repeat(20).into_bytes()),
            "the newest value"
        );
    }
    assert_eq!(db.len().expect("len succeeds"), 11);
}

/// The same where the work is about to begin: threads write, compact and maintain without a pause
/// while the store is closed and opened again at once.
#[test]
fn nothing_begins_behind_the_back_of_a_close() {
    let options = || TestStore::options().compaction_segment_garbage_ratio(0.05);
    let value = |version: usize| format!("new{version}").repeat(10).into_bytes();
    for round in 0..400 {
        let dir = files::scratch();
        let db = options().open(dir.path()).expect("an empty directory becomes a store");
        for version in 0..60 {
            db.set(format!("key{}", version % 7), vec![b'o'; 20]).expect("set succeeds");
        }
        let works: [fn(&Db) -> Result<()>; 3] = [
            |db| db.set("busy", vec![b'.'; 30]).and_then(|()| db.maintain()),
            |db| db.compact().map(drop),
            |db| db.maintain(),
        ];
        std::thread::scope(|scope| {
            for work in works {
                let db = db.clone();
                scope.spawn(move || {
                    loop {
                        match work(&db) {
                            Ok(()) => {}
                            Err(Error::Closed) => return,
                            Err(error) => panic!("round {round}: {error:?}"),
                        }
                    }
                });
            }
            std::thread::sleep(std::time::Duration::from_micros(round % 700));
            db.clone().close().expect("close succeeds");
            let next = options().open(dir.path()).expect("a closed store can be opened");
            for version in 0..40 {
                next.set(format!("key{}", version % 7), value(version)).expect("set succeeds");
            }
            // So that the other threads' work, if it goes on, has somebody's files to go on with.
            std::thread::sleep(std::time::Duration::from_micros(200));
            next.close().expect("close succeeds");
        });
        let db =
            options().open(dir.path()).unwrap_or_else(|error| panic!("round {round}: {error}"));
        for version in 33..40 {
            let found = db.get(format!("key{}", version % 7)).expect("get succeeds");
            assert_eq!(found, Some(value(version)), "round {round}: the newest value");
        }
    }
}

/// A caller's panic goes through the store without breaking it.
#[test]
fn a_panic_in_a_callers_function_leaves_the_store_usable() {
    let dir = files::scratch();
    // A compaction in the background could leave the one here with nothing to do.
    let options = options().background_compaction(false);
    let db = options.clone().open(dir.path()).expect("an empty directory becomes a store");
    for version in 0..100 {
        db.set(format!("key{}", version % 10), version.to_string()).expect("set succeeds");
    }
    let panics = |work: &dyn Fn(&Db)| {
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&db)));
        assert!(unwound.is_err(), "the panic came through");
    };
    panics(&|db| {
        let _ = db.update("key1", |_| panic!("in update"));
    });
    panics(&|db| {
        db.set("key1", "garbage").expect("set succeeds");
        let _ = db.compact_with(|_| panic!("in a compaction"));
    });
    panics(&|db| {
        let _transaction = db.transaction().expect("a transaction opens");
        panic!("in a transaction");
    });
    db.set("key1", "newer").expect("writes go on");
    db.compact().expect("compact succeeds");
    let stats = db.stats().expect("stats succeed");
    assert!(stats.poisoned.is_none(), "nothing of the store's failed: {stats:?}");
    db.close().expect("close succeeds");
    let db = options.open(dir.path()).expect("the store opens again");
    assert_eq!(db.get("key1").expect("get succeeds"), Some(b"newer".to_vec()));
    assert_eq!(db.len().expect("len succeeds"), 10);
}

/// Readers of other handles, as another process would have them, open again and again beside a busy
/// writer.
#[test]
fn readers_open_a_consistent_state_beside_a_busy_writer() {
    let (dir, db) = open();
    fill_accounts(&db);
    let write = |version: u64| {
        let mut batch = WriteBatch::new();
        for number in 0..ACCOUNTS {
            batch.set(account(number), version.to_string());
        }
        db.write(&batch).expect("write succeeds");
    };
    let work = |thread: usize| {
        for version in 0..100 {
            write(version * 4 + thread as u64);
        }
    };
    on_four_threads(work, || {
        let reader =
            options().read_only(true).open(dir.path()).expect("a reader opens beside the writer");
        let values: Vec<_> = reader
            .scan()
            .expect("scan succeeds")
            .map(|entry| entry.value().expect("a value can be read"))
            .collect();
        assert_eq!(values.len() as u64, ACCOUNTS, "every key is there");
        assert!(
            values.iter().all(|value| *value == values[0]),
            "parts of two batches were seen: {values:?}"
        );
    });
}
