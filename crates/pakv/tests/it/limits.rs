//! Every limit below it, at it and above it.

use std::time::Duration;

use pakv::{
    Db, Durability, Error, MAX_BATCH_BYTES, MAX_KEY_BYTES, MAX_SEGMENT_BYTES, MAX_VALUE_BYTES,
};
use pakv::{Expected, Expiry, MIN_SEGMENT_BYTES, Options, Result, WriteBatch};
use pakv_testkit::{TestStore, files};

#[test]
fn a_key_has_1_byte_to_64_kib() {
    let mut store = TestStore::new();
    for len in [1, 2, MAX_KEY_BYTES - 1, MAX_KEY_BYTES] {
        store.set(vec![b'k'; len], "value");
    }
    store.delete(vec![b'k'; MAX_KEY_BYTES]);
    store.db().compact().expect("compact succeeds");
    assert_eq!(store.db().len().expect("len succeeds"), 3);
}

#[test]
fn a_key_that_no_store_can_hold_is_refused_by_every_write() {
    let store = TestStore::new();
    let db = store.db();
    let long = vec![b'k'; MAX_KEY_BYTES + 1];
    type WriteOf = fn(&Db, &[u8]) -> Result<()>;
    let writes: [(&str, WriteOf); 8] = [
        ("set", |db, key| db.set(key, "v")),
        ("set_with_expiry", |db, key| db.set_with_expiry(key, "v", Expiry::Never)),
        ("compare_and_set", |db, key| db.compare_and_set(key, Expected::Absent, "v").map(drop)),
        ("update", |db, key| db.update(key, |_| Some(Vec::new())).map(drop)),
        ("set_as", |db, key| db.set_as(key, &1)),
        ("write", |db, key| {
            let mut batch = WriteBatch::new();
            batch.set(key, "v");
            db.write(&batch)
        }),
        ("write of a delete", |db, key| {
            let mut batch = WriteBatch::new();
            batch.delete(key);
            db.write(&batch)
        }),
        ("commit", |db, key| {
            let mut transaction = db.transaction()?;
            transaction.set(key, "v");
            transaction.commit()
        }),
    ];
    for (name, write) in writes {
        let error = write(db, b"").expect_err("an empty key is refused");
        assert!(matches!(error, Error::KeyEmpty), "{name} of an empty key: {error:?}");
        match write(db, &long) {
            Err(Error::KeyTooLong { len, limit }) => {
                assert_eq!(
                    (len, limit),
                    (MAX_KEY_BYTES + 1, MAX_KEY_BYTES),
                    "{name} tells length and limit"
                );
            }
            other => panic!("{name} of a key that is too long: {other:?}"),
        }
    }
    assert!(db.is_empty().expect("is_empty succeeds"), "nothing was written");
}

/// A read of a key that cannot exist is refused or finds nothing; it never finds something or
/// panics.
#[test]
fn a_key_that_no_store_can_hold_is_never_there() {
    let store = TestStore::new();
    let db = store.db();
    store_one(db);
    for key in [Vec::new(), vec![b'k'; MAX_KEY_BYTES + 1]] {
        let refused = |error: &Error| matches!(error, Error::KeyEmpty | Error::KeyTooLong { .. });
        let nothing = [
            db.get(&key).map(|value| value.is_none()),
            db.contains(&key).map(|there| !there),
            db.ttl(&key).map(|ttl| ttl.is_none()),
            db.delete(&key).map(|was_there| !was_there),
            db.expire(&key, Expiry::Never).map(|was_there| !was_there),
            db.persist(&key).map(|was_there| !was_there),
            db.compare_and_delete(&key, Expected::Present).map(|done| !done),
        ];
        for (index, answer) in nothing.into_iter().enumerate() {
            match answer {
                Ok(nothing) => assert!(nothing, "call {index} found a key of {} bytes", key.len()),
                Err(error) => {
                    assert!(refused(&error), "call {index} with {} bytes: {error:?}", key.len())
                }
            }
        }
    }
    db.delete("key").expect("delete succeeds");
}

fn store_one(db: &Db) {
    db.set("key", "value").expect("set succeeds");
}

#[test]
fn a_value_has_0_bytes_to_512_mib() {
    let mut store = TestStore::new();
    // Far larger than a segment: a record still goes into one.
    for (key, len) in [("empty", 0), ("one", 1), ("segment", 512), ("large", 3 << 20)] {
        store.set(key, vec![b'v'; len]);
    }
    store.db().compact().expect("compact succeeds");

    // Zeros that nobody touches take no memory, so the size of what is refused costs nothing.
    let too_long = vec![0; MAX_VALUE_BYTES + 1];
    let db = store.db();
    let errors = [
        db.set("key", &too_long).err(),
        db.compare_and_set("key", Expected::Absent, &too_long).err(),
    ];
    for error in errors {
        match error {
            Some(Error::ValueTooLong { len, limit }) => {
                assert_eq!(
                    (len, limit),
                    (MAX_VALUE_BYTES + 1, MAX_VALUE_BYTES),
                    "length and limit are told"
                );
            }
            other => panic!("a value that is too long: {other:?}"),
        }
    }
    let mut batch = WriteBatch::new();
    batch.set("good", "v").set("key", too_long);
    let error = db.write(&batch).expect_err("a batch with it is refused");
    assert!(matches!(error, Error::ValueTooLong { .. }), "{error:?}");
    assert!(!db.contains("good").expect("contains succeeds"), "nothing of the batch was written");
}

#[test]
fn a_batch_may_be_larger_than_a_segment_but_not_than_1_gib() {
    let mut store = TestStore::new();
    let mut batch = WriteBatch::new();
    for index in 0..500 {
        batch.set(format!("key{index}"), vec![b'v'; 100]);
    }
    store.db().write(&batch).expect("a batch of a hundred segments' size is written");
    assert_eq!(store.db().len().expect("len succeeds"), 500);
    store.adopt();

    let mut batch = WriteBatch::new();
    let third = usize::try_from(MAX_BATCH_BYTES / 3).expect("it fits");
    for key in ["a", "b", "c"] {
        batch.set(key, vec![0; third]);
    }
    match store.db().write(&batch) {
        Err(Error::BatchTooLarge { len, limit }) => {
            assert!(len > limit, "{len} is above the limit {limit}");
            assert_eq!(limit, MAX_BATCH_BYTES);
        }
        other => panic!("a batch that is too large: {other:?}"),
    }
    let mut transaction = store.db().transaction().expect("a transaction opens");
    for key in ["a", "b", "c"] {
        transaction.set(key, vec![0; third]);
    }
    let error = transaction.commit().expect_err("a transaction has the same limit");
    assert!(matches!(error, Error::BatchTooLarge { .. }), "{error:?}");
    assert_eq!(store.db().len().expect("len succeeds"), 500, "nothing was written");
}

#[test]
fn every_option_has_limits_that_are_checked_before_anything_is_touched() {
    let ms = Duration::from_millis(1);
    let interval = |every| Options::new().durability(Durability::Interval(every));
    let good = [
        Options::new().segment_bytes(MIN_SEGMENT_BYTES),
        Options::new().segment_bytes(MAX_SEGMENT_BYTES),
        Options::new().compaction_space_amplification(1.05),
        Options::new().compaction_space_amplification(100.0),
        Options::new().compaction_segment_garbage_ratio(0.05),
        Options::new().compaction_segment_garbage_ratio(1.0),
        Options::new().compaction_rate(Some(64 * 1024)),
        Options::new().compaction_rate(None),
        Options::new().compaction_min_garbage(0),
        Options::new().compaction_min_garbage(u64::MAX),
        Options::new().lock_wait(Duration::ZERO),
        interval(ms),
        interval(Duration::MAX),
    ];
    for options in good {
        let dir = files::scratch();
        let db =
            options.clone().open(dir.path()).unwrap_or_else(|error| panic!("{options:?}: {error}"));
        store_one(&db);
        db.close().unwrap_or_else(|error| panic!("{options:?}: {error}"));
    }

    let bad = [
        ("segment_bytes", Options::new().segment_bytes(MIN_SEGMENT_BYTES - 1)),
        ("segment_bytes", Options::new().segment_bytes(MAX_SEGMENT_BYTES + 1)),
        ("compaction_space_amplification", Options::new().compaction_space_amplification(1.04)),
        ("compaction_space_amplification", Options::new().compaction_space_amplification(100.1)),
        ("compaction_space_amplification", Options::new().compaction_space_amplification(f64::NAN)),
        ("compaction_segment_garbage_ratio", Options::new().compaction_segment_garbage_ratio(0.04)),
        ("compaction_segment_garbage_ratio", Options::new().compaction_segment_garbage_ratio(1.01)),
        (
            "compaction_segment_garbage_ratio",
            Options::new().compaction_segment_garbage_ratio(f64::NAN),
        ),
        ("compaction_rate", Options::new().compaction_rate(Some(64 * 1024 - 1))),
        ("durability", interval(ms / 2)),
        ("durability", interval(Duration::ZERO)),
    ];
    let dir = files::scratch();
    let path = dir.path().join("store");
    for (name, options) in bad {
        match options.clone().open(&path) {
            Err(Error::InvalidOption { option, .. }) => {
                assert_eq!(option, name, "the error names the option")
            }
            other => panic!("{options:?} should be refused: {other:?}"),
        }
        assert!(!path.exists(), "an option that is refused creates nothing: {options:?}");
    }
}

#[test]
fn a_handle_of_another_durability_is_checked_too() {
    let store = TestStore::new();
    let error = store
        .db()
        .with_durability(Durability::Interval(Duration::ZERO))
        .expect_err("zero is refused");
    assert!(matches!(error, Error::InvalidOption { option: "durability", .. }), "{error:?}");
    let levels =
        [Durability::Sync, Durability::Buffered, Durability::Interval(Duration::from_millis(1))];
    for durability in levels {
        let db = store.db().with_durability(durability).expect("it is allowed");
        db.set("key", format!("{durability:?}")).expect("set succeeds");
        let value = store.db().get("key").expect("get succeeds");
        assert_eq!(
            value,
            Some(format!("{durability:?}").into_bytes()),
            "it is a handle of the same store"
        );
    }
    store.db().sync().expect("sync succeeds");
    store.db().delete("key").expect("delete succeeds");
}
