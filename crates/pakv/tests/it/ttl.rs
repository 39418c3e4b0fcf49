//! Expiry: exact to the millisecond, nothing older revived by it, its bytes given back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pakv::{Clock, Db, Expected, Expiry, ManualClock, Ttl, WriteBatch};
use pakv_testkit::{Op, Reopen, TestStore, files, ops::Expires};

const TEN_MS: Duration = Duration::from_millis(10);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The key is there one millisecond before its time and not at it, whoever asks.
fn expires_at(db: &Db, clock: &ManualClock, key: &str, at_ms: u64) {
    clock.set_ms(at_ms - 1);
    assert!(db.get(key).expect("get succeeds").is_some(), "{key} is there a millisecond before");
    assert!(db.contains(key).expect("contains succeeds"), "{key} is there a millisecond before");
    assert_eq!(
        db.ttl(key).expect("ttl succeeds"),
        Some(Ttl::Left(ms(1))),
        "the time left to {key}"
    );
    assert_eq!(db.scan_prefix(key).expect("scan succeeds").count(), 1, "a scan shows {key}");
    clock.set_ms(at_ms);
    assert_eq!(db.get(key).expect("get succeeds"), None, "{key} is gone at its time");
    assert!(!db.contains(key).expect("contains succeeds"), "{key} is gone at its time");
    assert_eq!(db.ttl(key).expect("ttl succeeds"), None, "{key} has no time left");
    assert_eq!(
        db.scan_prefix(key).expect("scan succeeds").count(),
        0,
        "a scan does not show {key}"
    );
    assert!(!db.delete(key).expect("delete succeeds"), "{key} was not there");
}

#[test]
fn every_way_to_set_an_expiry_is_exact_to_the_millisecond() {
    let store = TestStore::new();
    let (db, clock) = (store.db(), store.clock());
    let now = clock.now_ms();
    let in_ten = UNIX_EPOCH + ms(now + 10);

    db.set_with_expiry("set", "v", Expiry::After(TEN_MS)).expect("set succeeds");
    db.set_with_expiry("at", "v", Expiry::At(in_ten)).expect("set succeeds");
    db.compare_and_set_with_expiry("cas", Expected::Absent, "v", Expiry::After(TEN_MS))
        .expect("it succeeds");
    let mut batch = WriteBatch::new();
    batch.set_with_expiry("batch", "v", Expiry::After(TEN_MS));
    db.write(&batch).expect("write succeeds");
    let mut transaction = db.transaction().expect("a transaction opens");
    transaction.set_with_expiry("transaction", "v", Expiry::After(TEN_MS));
    transaction.commit().expect("commit succeeds");
    for key in ["expire", "instant", "twice"] {
        db.set(key, "v").expect("set succeeds");
    }
    assert!(
        db.expire("expire", Expiry::After(TEN_MS)).expect("expire succeeds"),
        "the key was there"
    );
    assert!(db.expire_at("instant", in_ten).expect("expire_at succeeds"), "the key was there");
    assert!(
        db.expire("twice", Expiry::After(ms(5))).expect("expire succeeds"),
        "the key was there"
    );
    assert!(
        db.expire("twice", Expiry::After(TEN_MS)).expect("expire succeeds"),
        "the key was there"
    );

    let keys = ["set", "at", "cas", "batch", "transaction", "expire", "instant", "twice"];
    for key in keys {
        clock.set_ms(now);
        assert_eq!(
            db.ttl(key).expect("ttl succeeds"),
            Some(Ttl::Left(TEN_MS)),
            "the time left to {key}"
        );
        expires_at(db, clock, key, now + 10);
    }
    clock.set_ms(now + 9);
    assert_eq!(
        db.len().expect("len succeeds"),
        keys.len() as u64,
        "all are counted a millisecond before"
    );
    clock.set_ms(now + 10);
    assert_eq!(db.len().expect("len succeeds"), 0, "none is counted at their time");
}

#[test]
fn a_write_without_expiry_takes_the_old_one_away() {
    let mut store = TestStore::new();
    let db = store.db();
    for key in ["set", "cas", "batch", "persist", "never"] {
        db.set_with_expiry(key, "old", Expiry::After(TEN_MS)).expect("set succeeds");
    }
    db.set("set", "new").expect("set succeeds");
    db.compare_and_set("cas", Expected::Present, "new").expect("compare_and_set succeeds");
    let mut batch = WriteBatch::new();
    batch.set("batch", "new");
    db.write(&batch).expect("write succeeds");
    assert!(db.persist("persist").expect("persist succeeds"), "the key was there");
    assert!(db.expire("never", Expiry::Never).expect("expire succeeds"), "the key was there");
    store.clock().advance(ms(1_000));
    for key in ["set", "cas", "batch", "persist", "never"] {
        assert_eq!(db.ttl(key).expect("ttl succeeds"), Some(Ttl::Forever), "{key} stays");
    }
    store.adopt();
}

#[test]
fn expire_and_persist_tell_whether_the_key_was_there() {
    let mut store = TestStore::new();
    let db = store.db();
    db.set("plain", "v").expect("set succeeds");
    db.set_with_expiry("gone", "v", Expiry::After(ms(1))).expect("set succeeds");
    store.clock().advance(ms(1));
    assert!(db.persist("plain").expect("persist succeeds"), "it was there, though without expiry");
    for key in ["missing", "gone"] {
        assert!(!db.persist(key).expect("persist succeeds"), "{key} is not there");
        assert!(
            !db.expire(key, Expiry::After(TEN_MS)).expect("expire succeeds"),
            "{key} is not there"
        );
        assert!(!db.expire_at(key, UNIX_EPOCH).expect("expire_at succeeds"), "{key} is not there");
        assert!(!db.contains(key).expect("contains succeeds"), "none of it brought {key} back");
    }
    store.adopt();
}

#[test]
fn an_expiry_that_has_passed_makes_a_value_that_was_never_there() {
    let mut store = TestStore::new();
    let past = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
    store.set("key", "older");
    let db = store.db();
    db.set_with_expiry("key", "new", Expiry::At(past)).expect("a time before the epoch has passed");
    assert_eq!(
        db.get("key").expect("get succeeds"),
        None,
        "neither the new value nor the older one is there"
    );
    assert_eq!(db.len().expect("len succeeds"), 0);
    db.set("key", "older").expect("set succeeds");
    db.compact().expect("compact succeeds");
    assert_eq!(
        db.get("key").expect("get succeeds"),
        Some(b"older".to_vec()),
        "a later value has nothing of it"
    );
    assert_eq!(db.len().expect("len succeeds"), 1, "a later value has nothing of it");
    assert!(
        db.expire("key", Expiry::After(Duration::ZERO)).expect("expire succeeds"),
        "the key was there"
    );
    assert_eq!(db.get("key").expect("get succeeds"), None, "it expired at once");
    store.adopt();
}

#[test]
fn the_longest_times_do_not_overflow() {
    let mut store = TestStore::new();
    let db = store.db();
    db.set_with_expiry("key", "v", Expiry::After(Duration::MAX)).expect("set succeeds");
    store.clock().set_ms(u64::MAX - 1);
    assert!(db.contains("key").expect("contains succeeds"), "the end of time has not come");
    db.expire("key", Expiry::After(Duration::MAX)).expect("expire succeeds");
    store.clock().set_ms(1_000_000);
    store.adopt();
}

/// The older value lies in a sealed segment, the expired one in another: no mix of compaction, open
/// and lost hints may show the older one (nutsdb #465 did). Setting the clock back may at most show
/// the newer one again.
#[test]
fn an_expired_value_never_revives_an_older_one() {
    let acts: [&[Op]; 6] = [
        &[],
        &[Op::Compact],
        &[Op::Reopen(Reopen::Close)],
        &[Op::Reopen(Reopen::Kill), Op::Compact],
        &[Op::Reopen(Reopen::LoseHints), Op::Compact, Op::Reopen(Reopen::LoseHints)],
        &[Op::Compact, Op::Reopen(Reopen::Kill)],
    ];
    for act in acts {
        let mut store = TestStore::new();
        store.set("key", "older");
        fill(&mut store, "between");
        let expires = Expires::After(50);
        store.apply(&Op::Set { key: b"key".into(), value: b"newer".into(), expires });
        fill(&mut store, "behind");
        store.apply(&Op::Advance { ms: 50 });
        for op in act {
            store.apply(op);
        }
        assert_eq!(store.db().get("key").expect("get succeeds"), None, "after {act:?}");
        store.clock().set_ms(1_000_010);
        let value = store.db().get("key").expect("get succeeds");
        assert_ne!(value.as_deref(), Some(&b"older"[..]), "the clock went back after {act:?}");
        store.clock().set_ms(1_000_050);
    }
}

/// Enough to seal the segment that is active.
fn fill(store: &mut TestStore, prefix: &str) {
    for index in 0..8 {
        store.set(format!("{prefix}{index}"), vec![b'.'; 100]);
    }
}

#[test]
fn the_bytes_of_expired_values_are_given_back() {
    let mut store = TestStore::with(TestStore::options().segment_bytes(4_096));
    for index in 0..200 {
        let key = format!("session{index:03}").as_bytes().into();
        store.apply(&Op::Set {
            key,
            value: vec![b's'; 100].into(),
            expires: Expires::After(1_000),
        });
    }
    store.set("kept", "value");
    let full = store.db().stats().expect("stats succeed");
    assert!(full.live_bytes > 200 * 100, "everything is live: {full:?}");
    store.apply(&Op::Advance { ms: 1_000 });
    store.apply(&Op::Compact);
    let after = store.db().stats().expect("stats succeed");
    assert_eq!(after.keys, 1);
    assert!(after.live_bytes < 100, "only one small record can be reached: {after:?}");
    assert!(after.disk_bytes() < 1_000, "what expired was given back: {after:?}");
}

#[test]
fn the_system_clock_counts_too() {
    let dir = files::scratch();
    let db = Db::open(dir.path()).expect("an empty directory becomes a store");
    db.set_with_expiry("gone", "v", Expiry::After(ms(1))).expect("set succeeds");
    db.set_with_expiry("there", "v", Expiry::After(Duration::from_secs(3_600)))
        .expect("set succeeds");
    while db.contains("gone").expect("contains succeeds") {
        std::thread::sleep(ms(1));
    }
    assert!(db.contains("there").expect("contains succeeds"), "an hour has not passed");
}

/// A scan takes entries a page at a time, and who asks for them may take his time.
#[test]
fn a_scan_gives_nothing_that_has_expired_since_it_began() {
    let mut store = TestStore::new();
    let (db, clock) = (store.db(), store.clock());
    for index in 0..10 {
        let after = Expiry::After(ms(if index % 2 == 0 { 5 } else { 50 }));
        db.set_with_expiry(format!("key{index}"), "v", after).expect("set succeeds");
    }
    let key = |entry: pakv::Entry| String::from_utf8(entry.key().to_vec()).expect("text");
    let mut scan = db.scan().expect("a scan begins");
    let mut transaction = db.transaction().expect("a transaction opens");
    transaction.set("key10", "v");
    let mut in_transaction = transaction.scan_range::<&[u8]>(..);
    assert_eq!(scan.next().map(key), Some("key0".to_string()));
    assert!(in_transaction.next().is_some());
    clock.set_ms(clock.now_ms() + 5);
    assert_eq!(scan.next_back().map(key), Some("key9".to_string()));
    assert_eq!(scan.map(key).collect::<Vec<_>>(), ["key1", "key3", "key5", "key7"]);
    let text = |pair: pakv::Result<(Vec<u8>, Vec<u8>)>| {
        String::from_utf8(pair.expect("a value can be read").0).expect("text")
    };
    let rest: Vec<_> = in_transaction.map(text).collect();
    assert_eq!(rest, ["key1", "key10", "key3", "key5", "key7", "key9"]);
    transaction.rollback();
    store.adopt();
}
