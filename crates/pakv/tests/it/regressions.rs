//! Bugs that were, each with its story.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use pakv::{Clock, Db, Durability, Expiry, Options};
use pakv_testkit::{TestStore, files, within};

/// Two threads built the hint of one segment: `compact` had just sealed it, which woke the
/// background thread, and both wrote and renamed the same temporary file. Half of the compactions
/// right after an open failed with "No such file or directory" or "File exists". Hints are now
/// built by one thread at a time.
#[test]
fn a_forced_compaction_does_not_race_the_background_thread_for_a_hint() {
    for _ in 0..40 {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let db = Db::open(dir.path()).expect("it opens");
        for value in ["1", "2"] {
            db.set("a", value).expect("it sets");
        }
        let report = db.compact().expect("nobody is in its way");
        assert_eq!(report.segments_in, 1);
        assert_eq!(db.stats().expect("figures").compaction.last_error, None);
        db.close().expect("it closes");
    }
}

/// A clock that counts how often it is asked, and does something when it is.
#[derive(Debug, Default)]
struct WatchedClock {
    now_ms: AtomicU64,
    asked: AtomicU64,
    /// Written under this key, and the clock moved to this time, when it is asked next.
    meanwhile: Mutex<Option<(Db, &'static str, u64)>>,
}

impl Clock for WatchedClock {
    fn now_ms(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let meanwhile = self.meanwhile.lock().expect("nobody panicked").take();
        if let Some((db, key, now_ms)) = meanwhile {
            db.set(key, "new").expect("set succeeds");
            self.now_ms.store(now_ms, Ordering::SeqCst);
        }
        self.now_ms.load(Ordering::SeqCst)
    }
}

/// A store by that clock with a session that expires at 1,500 ms; it is 1,000 ms.
fn with_session() -> (tempfile::TempDir, Arc<WatchedClock>, Db) {
    let clock = Arc::new(WatchedClock { now_ms: 1_000.into(), ..WatchedClock::default() });
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = Options::new().background_compaction(false).clock(clock.clone());
    let db = options.open(dir.path()).expect("it opens");
    let expiry = Expiry::At(UNIX_EPOCH + Duration::from_millis(1_500));
    db.set_with_expiry("session", "old", expiry).expect("it sets");
    (dir, clock, db)
}

/// A conditional write looked at the key, waited for a transaction to end, and wrote if no newer
/// record of the key had come. That the key had expired while it waited it did not see: what
/// readers had been told was gone came back, with another expiry. Found by the histories of
/// `pakv_testkit::linear`.
#[test]
fn what_expires_while_a_conditional_write_waits_does_not_come_back() {
    let (_dir, clock, db) = with_session();
    std::thread::scope(|scope| {
        let transaction = db.transaction().expect("it begins");
        let asked = clock.asked.load(Ordering::SeqCst);
        let writer = scope.spawn(|| db.persist("session"));
        while clock.asked.load(Ordering::SeqCst) == asked {
            std::thread::yield_now();
        }
        // It has seen the session, and cannot have written.
        clock.now_ms.store(2_000, Ordering::SeqCst);
        assert_eq!(db.get("session").expect("get succeeds"), None, "it has expired");
        transaction.rollback();
        assert!(!writer.join().expect("no panic").expect("persist succeeds"), "nothing was there");
    });
    assert_eq!(db.get("session").expect("get succeeds"), None, "it came back");
}

/// A read looked the key up and then asked for the time: a value that was overwritten between the
/// two, and expired, made the key seem absent while it was there without a pause. Found by the
/// histories of `pakv_testkit::linear`.
#[test]
fn a_key_that_is_overwritten_before_it_expires_is_never_absent() {
    for look in 0..3 {
        let (_dir, clock, db) = with_session();
        *clock.meanwhile.lock().expect("nobody panicked") = Some((db.clone(), "session", 2_000));
        let was_there = match look {
            0 => db.get("session").expect("get succeeds").is_some(),
            1 => db.contains("session").expect("contains succeeds"),
            _ => db.update("session", |old| old.map(<[u8]>::to_vec)).expect("it does").is_some(),
        };
        assert!(was_there, "look {look}");
    }
}

/// A damaged segment is set aside by compaction, and still holds on to the tombstones of others,
/// for it may hold what they shadow. The plan did not count it, found tombstones to be gained and
/// had their segment rewritten; the rewriter did count it and copied every one of them; and so on
/// without end, in `maintain` and in the background, a rewrite each time. Found by random damage.
#[test]
fn tombstones_that_a_damaged_segment_pins_are_not_rewritten_for_ever() {
    let dir = files::scratch();
    let db = TestStore::options().segment_bytes(600).open(dir.path()).expect("it opens");
    for key in ["a", "b", "c", "d", "e", "f"] {
        db.set(key, vec![b'.'; 90]).expect("it sets");
    }
    for round in 0..20 {
        let key = format!("x{round}");
        db.set(&key, "soon").and_then(|()| db.delete(&key)).expect("it sets and deletes");
    }
    // So that there is something in the oldest to compact it for, and for tombstones to shadow.
    db.set("a", "again").expect("it sets");
    let oldest = dir.path().join("0000000001.log");
    let at = files::position(&oldest, b"....").expect("its first value");
    files::flip(&oldest, at, 1);
    let error = db.compact().expect_err("the first segment is damaged");
    assert!(error.is_corruption(), "{error:?}");

    let segments = |db: &Db| db.stats().expect("figures").segments;
    let db = within("maintain", move || {
        db.maintain().expect("the damaged one is set aside");
        db
    });
    let tombstones: u64 = segments(&db).iter().map(|segment| segment.tombstone_bytes).sum();
    assert!(tombstones > 0, "what the damaged segment may hold is still shadowed");
    let before = segments(&db);
    db.maintain().expect("there is nothing to do");
    assert_eq!(segments(&db), before, "nothing was rewritten");
}

/// A torn tail of small numbers, such as a value that is an array of them, was searched for intact
/// records for minutes: at every byte of it the next four look like the length of a frame, and the
/// checksum of each such frame was computed, at 15 s for each MiB. A fuzzer of records was slow, and
/// that was why. A body is now looked at before its checksum, and what is left costs a tenth.
///
/// No time is asserted: before, this test took more than a minute.
#[test]
fn a_torn_tail_of_small_numbers_is_searched_in_no_time() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = Options::new().background_compaction(false).durability(Durability::Buffered);
    let db = options.clone().open(dir.path()).expect("it opens");
    db.set("before", "1").expect("it sets");
    db.sync().expect("it syncs");
    db.set("numbers", 1_u32.to_le_bytes().repeat(2 << 20)).expect("it sets");
    let killed = files::copied(dir.path());
    let segment = killed.path().join("0000000001.log");
    let torn = files::position(&segment, b"numbers").expect("the record is there");
    files::flip(&segment, torn, 1);
    let db = options.open(killed.path()).expect("a torn tail is cut");
    assert!(db.recovery().bytes_cut > 8 << 20, "{:?}", db.recovery());
    assert_eq!(db.get("before").expect("it reads").as_deref(), Some(&b"1"[..]));
    assert_eq!(db.get("numbers").expect("it reads"), None);
}

/// A queue beside data that nobody touches: each tombstone was kept for the sake of the old segments,
/// though nothing in those was garbage, until all of the store was rewritten in one run, which took as much
/// disk again as the store.
#[test]
fn tombstones_do_not_wait_for_segments_in_which_all_is_live() {
    let dir = files::scratch();
    let options = Options::new().segment_bytes(16 * 1024).background_compaction(false);
    let options = options.compaction_min_garbage(16 * 1024).durability(Durability::Buffered);
    let db = options.open(dir.path()).expect("it opens");
    for index in 0..1_000 {
        db.set(format!("static/{index:04}"), vec![b'.'; 200]).expect("set succeeds");
    }
    let full = db.stats().expect("stats succeed");
    let sealed = full.segments.iter().filter(|segment| !segment.active);
    let untouched: Vec<u32> = sealed.map(|segment| segment.segment).collect();
    for index in 0..20_000 {
        db.set(format!("queue/{index:05}"), "job").expect("set succeeds");
        db.delete(format!("queue/{index:05}")).expect("delete succeeds");
        if index % 100 == 0 {
            db.maintain().expect("maintain succeeds");
            let stats = db.stats().expect("stats succeed");
            assert!(stats.disk_bytes() < full.disk_bytes() * 3 / 2, "at {index}: {stats:?}");
        }
    }
    let after = db.stats().expect("stats succeed");
    let numbers: Vec<u32> = after.segments.iter().map(|segment| segment.segment).collect();
    assert!(untouched.iter().all(|id| numbers.contains(id)), "{untouched:?} and {numbers:?}");
    db.compact().expect("compact succeeds");
    let tombstones = |stats: &pakv::Stats| -> u64 {
        stats.segments.iter().map(|segment| segment.tombstone_bytes).sum()
    };
    assert_eq!(tombstones(&db.stats().expect("stats succeed")), 0);
    drop(db);
    let report = pakv::check(dir.path()).expect("a check runs");
    assert_eq!((report.findings, report.keys), (Vec::new(), 1_000));
}
