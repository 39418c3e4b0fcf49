//! Compare-and-set, update, batches and transactions: what holds, what does not, and who waits for
//! whom.

use std::sync::mpsc::channel;
use std::time::Duration;

use pakv::{Db, Error, Expected, Expiry, Ttl, WriteBatch};
use pakv_testkit::{TestStore, files};

const HOUR: Duration = Duration::from_secs(3_600);

fn get(db: &Db, key: &str) -> Option<String> {
    db.get(key)
        .expect("get succeeds")
        .map(|value| String::from_utf8(value).expect("the tests store text"))
}

#[test]
fn compare_and_set_writes_only_where_the_condition_holds() {
    let mut store = TestStore::new();
    let db = store.db();
    // Each row: what is there, what is expected, and whether that holds.
    let rows = [
        (None, Expected::Absent, true),
        (None, Expected::Present, false),
        (None, Expected::Value(b""), false),
        (None, Expected::Value(b"old"), false),
        (Some("old"), Expected::Absent, false),
        (Some("old"), Expected::Present, true),
        (Some("old"), Expected::Value(b"old"), true),
        (Some("old"), Expected::Value(b"ol"), false),
        (Some("old"), Expected::Value(b""), false),
        (Some(""), Expected::Value(b""), true),
    ];
    let put = |value: Option<&str>| match value {
        Some(value) => db.set("key", value).expect("set succeeds"),
        None => drop(db.delete("key").expect("delete succeeds")),
    };
    for (there, expected, holds) in rows {
        put(there);
        let seqno = db.stats().expect("stats succeed").seqno;
        let done = db.compare_and_set("key", expected, "new").expect("compare_and_set succeeds");
        assert_eq!(done, holds, "{expected:?} where {there:?} is there");
        let after = if holds { Some("new") } else { there };
        assert_eq!(
            get(db, "key").as_deref(),
            after,
            "after {expected:?} where {there:?} was there"
        );
        if !holds {
            assert_eq!(
                db.stats().expect("stats succeed").seqno,
                seqno,
                "a condition that fails writes nothing"
            );
        }

        put(there);
        let done = db.compare_and_delete("key", expected).expect("compare_and_delete succeeds");
        assert_eq!(done, holds, "compare_and_delete of {expected:?} where {there:?} is there");
        let after = if holds { None } else { there };
        assert_eq!(get(db, "key").as_deref(), after, "after a compare_and_delete of {expected:?}");
    }
    store.adopt();
}

#[test]
fn an_expired_value_is_absent_for_conditions() {
    let mut store = TestStore::new();
    let db = store.db();
    let expire = |key: &str| {
        db.set_with_expiry(key, "old", Expiry::After(Duration::from_millis(5)))
            .expect("set succeeds");
    };
    for key in ["absent", "present", "value", "deleted", "updated"] {
        expire(key);
    }
    store.clock().advance(Duration::from_millis(5));
    assert!(
        !db.compare_and_set("present", Expected::Present, "new").expect("compare_and_set succeeds")
    );
    assert!(
        !db.compare_and_set("value", Expected::Value(b"old"), "new")
            .expect("compare_and_set succeeds")
    );
    assert!(
        !db.compare_and_delete("deleted", Expected::Present).expect("compare_and_delete succeeds")
    );
    assert!(
        db.compare_and_set("absent", Expected::Absent, "new").expect("compare_and_set succeeds")
    );
    assert_eq!(
        db.ttl("absent").expect("ttl succeeds"),
        Some(Ttl::Forever),
        "the new value has its own expiry"
    );
    let seen = db.update("updated", |value| {
        assert_eq!(value, None, "update is given what a get would see");
        Some(b"new".to_vec())
    });
    assert_eq!(seen.expect("update succeeds"), Some(b"new".to_vec()));
    assert_eq!(
        db.ttl("updated").expect("ttl succeeds"),
        Some(Ttl::Forever),
        "an expiry that passed is not kept"
    );
    store.adopt();
}

#[test]
fn update_keeps_the_expiry_and_writes_no_unchanged_value() {
    let store = TestStore::new();
    let db = store.db();
    db.set_with_expiry("key", "1", Expiry::After(HOUR)).expect("set succeeds");
    let seqno = db.stats().expect("stats succeed").seqno;
    db.update("key", |value| value.map(<[u8]>::to_vec)).expect("update succeeds");
    db.update("missing", |value| value.map(<[u8]>::to_vec)).expect("update succeeds");
    assert_eq!(
        db.stats().expect("stats succeed").seqno,
        seqno,
        "a value that stays the same is not written again"
    );

    let answer = db
        .update("key", |value| value.map(|value| [value, b"2"].concat()))
        .expect("update succeeds");
    assert_eq!(answer, Some(b"12".to_vec()), "update answers with the new value");
    assert_eq!(
        db.ttl("key").expect("ttl succeeds"),
        Some(Ttl::Left(HOUR)),
        "update keeps the expiry"
    );
    assert_eq!(db.update("key", |_| None).expect("update succeeds"), None);
    assert!(
        !db.contains("key").expect("contains succeeds"),
        "update deletes where the function returns None"
    );
}

#[test]
fn a_batch_is_applied_in_order_and_later_writes_win() {
    let mut store = TestStore::new();
    let db = store.db();
    db.set("there", "before").expect("set succeeds");
    let mut batch = WriteBatch::new();
    assert!(batch.is_empty(), "a new batch is empty");
    batch
        .set("a", "1")
        .set("a", "2")
        .delete("b")
        .set("b", "3")
        .set("c", "4")
        .delete("c")
        .delete("there");
    assert_eq!(batch.len(), 7);
    db.write(&batch).expect("write succeeds");
    let found: Vec<_> = ["a", "b", "c", "there"].map(|key| get(db, key)).into();
    assert_eq!(found, [Some("2".to_string()), Some("3".to_string()), None, None]);

    batch.clear();
    let seqno = db.stats().expect("stats succeed").seqno;
    db.write(&batch).expect("an empty batch is written");
    assert_eq!(db.stats().expect("stats succeed").seqno, seqno, "an empty batch does nothing");
    store.adopt();
}

#[test]
fn a_batch_with_one_bad_write_changes_nothing() {
    let store = TestStore::new();
    let mut batch = WriteBatch::new();
    batch.set("good", "1").set("", "2").set("good too", "3");
    let error = store.db().write(&batch).expect_err("an empty key is refused");
    assert!(matches!(error, Error::KeyEmpty), "the error says what is wrong: {error:?}");
    assert!(store.db().is_empty().expect("is_empty succeeds"), "nothing of the batch was written");
}

#[test]
fn a_transaction_is_seen_by_others_when_it_commits_and_never_otherwise() {
    let mut store = TestStore::new();
    let db = store.db();
    db.set("a", "1").expect("set succeeds");
    db.set("c", "1").expect("set succeeds");
    let mut transaction = db.transaction().expect("a transaction opens");
    transaction.set("a", "2");
    transaction.set("b", "3");
    assert_eq!(
        transaction.get("a").expect("get succeeds"),
        Some(b"2".to_vec()),
        "own writes are seen"
    );
    transaction.delete("a");
    assert!(!transaction.contains("a").expect("contains succeeds"), "own deletes are seen");
    assert!(transaction.contains("b").expect("contains succeeds"), "own writes are seen");
    assert!(transaction.contains("c").expect("contains succeeds"), "and what was there before");
    assert!(!transaction.contains("d").expect("contains succeeds"), "which this was not");
    assert_eq!(get(db, "a").as_deref(), Some("1"), "others see nothing yet");
    assert_eq!(get(db, "b"), None, "others see nothing yet");
    drop(transaction);
    assert_eq!(get(db, "a").as_deref(), Some("1"), "a dropped transaction did nothing");

    let mut transaction = db.transaction().expect("another transaction opens");
    transaction.set("a", "2");
    transaction.rollback();
    assert_eq!(
        get(db, "a").as_deref(),
        Some("1"),
        "a transaction that was rolled back did nothing"
    );

    let mut transaction = db.transaction().expect("another transaction opens");
    transaction.set("b", "3");
    transaction.delete("a");
    let pairs: Vec<_> =
        transaction.scan_range::<&str>(..).map(|pair| pair.expect("a transaction scans")).collect();
    let expected = [("b", "3"), ("c", "1")].map(|(key, value)| (key.into(), value.into()));
    assert_eq!(pairs, expected, "a scan sees own writes and own deletes");
    transaction.commit().expect("commit succeeds");
    assert_eq!((get(db, "a"), get(db, "b")), (None, Some("3".to_string())));
    store.adopt();
}

#[test]
fn a_commit_that_fails_changes_nothing() {
    let mut store = TestStore::new();
    let mut transaction = store.db().transaction().expect("a transaction opens");
    transaction.set("good", "1");
    transaction.set("", "2");
    assert!(matches!(transaction.commit(), Err(Error::KeyEmpty)), "an empty key is refused");
    assert!(
        store.db().is_empty().expect("is_empty succeeds"),
        "nothing of the transaction was written"
    );
    store.db().set("key", "value").expect("the failed transaction holds nobody up");
    store.adopt();
}

#[test]
fn other_writers_wait_for_a_transaction_and_readers_do_not() {
    let dir = files::scratch();
    let db = Db::open(dir.path()).expect("an empty directory becomes a store");
    db.set("key", "before").expect("set succeeds");
    let mut transaction = db.transaction().expect("a transaction opens");
    let (started, starting) = channel();
    let writer = std::thread::spawn({
        let db = db.clone();
        move || {
            started.send(()).expect("the test waits");
            db.set("key", "from the writer").expect("set succeeds");
        }
    });
    starting.recv().expect("the writer starts");
    // Long enough for a writer that does not wait to be seen; one that waits is never mistaken.
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(
        transaction.get("key").expect("get succeeds"),
        Some(b"before".to_vec()),
        "the writer waits"
    );
    assert_eq!(get(&db, "key").as_deref(), Some("before"), "readers go on");
    transaction.set("key", "from the transaction");
    transaction.commit().expect("commit succeeds");
    writer.join().expect("the writer ends");
    assert_eq!(
        get(&db, "key").as_deref(),
        Some("from the writer"),
        "the writer came after the transaction"
    );
}

#[test]
fn a_write_past_the_own_transaction_is_an_error_and_no_deadlock() {
    let mut store = TestStore::new();
    let db = store.db();
    db.set("key", "value").expect("set succeeds");
    let transaction = db.transaction().expect("a transaction opens");
    let mut batch = WriteBatch::new();
    batch.set("key", "value");
    let errors = [
        db.set("key", "value").err(),
        db.delete("key").err(),
        db.write(&batch).err(),
        db.compare_and_set("key", Expected::Present, "value").err(),
        db.compare_and_delete("key", Expected::Present).err(),
        db.update("key", |_| Some(Vec::new())).err(),
        db.expire("key", Expiry::After(HOUR)).err(),
        db.transaction().err(),
    ];
    for (index, error) in errors.into_iter().enumerate() {
        assert!(matches!(error, Some(Error::TransactionOpen)), "call {index}: {error:?}");
    }
    transaction.commit().expect("an empty transaction commits");
    db.set("key", "value").expect("after the transaction the thread writes again");
    store.adopt();
}
