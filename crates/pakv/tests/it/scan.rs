//! Scans: order, ranges, prefixes, both ends, and what a scan does not do: block, change or read
//! what was not asked for.

use std::ops::Bound::{Excluded, Included, Unbounded};

use pakv::{Entry, Error, Scan};
use pakv_testkit::{Reopen, TestStore, files};

/// Keys at the edges of the order of bytes.
const KEYS: [&[u8]; 9] =
    [b"\0", b"a", b"a\0", b"ab", b"a\xff", b"b", b"\xfe\xff", b"\xff", b"\xff\xff"];

fn store() -> TestStore {
    let mut store = TestStore::new();
    for key in KEYS.iter().rev() {
        store.set(key, key);
    }
    store
}

fn keys(scan: Scan) -> Vec<Vec<u8>> {
    scan.map(|entry| entry.key().to_vec()).collect()
}

#[test]
fn everything_comes_in_the_order_of_bytes() {
    let store = store();
    assert_eq!(keys(store.db().scan().expect("scan succeeds")), KEYS);
    let backwards: Vec<_> = store.db().scan().expect("scan succeeds").rev().collect();
    let backwards: Vec<_> = backwards.iter().rev().map(Entry::key).collect();
    assert_eq!(backwards, KEYS, "backwards is the same from behind");
}

#[test]
fn a_prefix_covers_exactly_the_keys_that_begin_with_it() {
    let store = store();
    let prefixes: [&[u8]; 7] = [b"", b"a", b"a\xff", b"\xff", b"\xff\xff", b"\xfe", b"nothing"];
    for prefix in prefixes {
        let expected: Vec<_> = KEYS.iter().copied().filter(|key| key.starts_with(prefix)).collect();
        assert_eq!(
            keys(store.db().scan_prefix(prefix).expect("scan succeeds")),
            expected,
            "prefix {prefix:?}"
        );
    }
}

#[test]
fn a_range_keeps_its_bounds_and_one_the_wrong_way_round_is_empty() {
    let store = store();
    let db = store.db();
    assert_eq!(keys(db.scan_range::<&[u8]>(..).expect("scan succeeds")), KEYS);
    for (start_index, start) in KEYS.iter().enumerate() {
        for (end_index, end) in KEYS.iter().enumerate() {
            let expected = |from: usize, to: usize| KEYS.get(from..to).unwrap_or_default();
            let rows = [
                ((Included(start), Excluded(end)), expected(start_index, end_index)),
                ((Included(start), Included(end)), expected(start_index, end_index + 1)),
                ((Excluded(start), Excluded(end)), expected(start_index + 1, end_index)),
                ((Excluded(start), Included(end)), expected(start_index + 1, end_index + 1)),
                ((Unbounded, Included(end)), expected(0, end_index + 1)),
                ((Excluded(start), Unbounded), expected(start_index + 1, KEYS.len())),
            ];
            for (range, expected) in rows {
                let found = keys(db.scan_range::<&[u8]>(range).expect("scan succeeds"));
                assert_eq!(found, expected, "the keys of {range:?}");
            }
        }
    }
}

#[test]
fn both_ends_meet_in_the_middle_and_the_scan_stays_ended() {
    let store = store();
    let mut scan = store.db().scan().expect("scan succeeds");
    let mut found = Vec::new();
    for index in 0..KEYS.len() {
        let entry = if index % 2 == 0 { scan.next() } else { scan.next_back() };
        found.push(entry.expect("as many entries as keys").key().to_vec());
    }
    for _ in 0..2 {
        assert!(scan.next().is_none(), "every entry was given");
        assert!(scan.next_back().is_none(), "every entry was given");
    }
    found.sort();
    assert_eq!(found, KEYS, "each entry was given once");
}

/// A scan shows the moment at which it began, whatever happens until its end.
#[test]
fn a_scan_does_not_see_what_is_written_after_it_began() {
    let mut store = store();
    let mut forward = store.db().scan().expect("scan succeeds");
    let backward = store.db().scan().expect("scan succeeds");
    let first = forward.next().expect("there are entries");
    for key in KEYS {
        store.set(key, "newer");
    }
    store.delete("a");
    store.set("aa", "new key");
    for round in 0..10 {
        store.set("other", vec![b'.'; 100 + round]);
    }
    store.db().compact().expect("compact succeeds");
    let mut pairs = vec![first.into_pair().expect("an old value can still be read")];
    pairs.extend(forward.map(|entry| entry.into_pair().expect("an old value can still be read")));
    let expected: Vec<_> = KEYS.iter().map(|key| (key.to_vec(), key.to_vec())).collect();
    assert_eq!(pairs, expected, "the scan that had begun");
    let mut pairs: Vec<_> =
        backward.rev().map(|entry| entry.into_pair().expect("as above")).collect();
    pairs.reverse();
    assert_eq!(pairs, expected, "the scan that had not begun to move");
}

#[test]
fn an_entry_outlives_its_scan_and_tells_of_expiry_and_order() {
    let mut store = TestStore::new();
    store.set("first", "1");
    let expires = pakv_testkit::ops::Expires::After(7);
    store.apply(&pakv_testkit::Op::Set { key: b"second".into(), value: b"2".into(), expires });
    let entries: Vec<Entry> = store.db().scan().expect("scan succeeds").collect();
    store.set("first", "newer");
    assert_eq!(
        entries[0].value().expect("it can be read"),
        b"1",
        "the value of the moment of the scan"
    );
    assert_eq!(entries[0].clone().value().expect("a clone can be read"), b"1");
    assert_eq!(entries[0].expires_at_ms(), None);
    assert_eq!(entries[1].expires_at_ms(), Some(1_000_007));
    assert!(
        entries[0].seqno() < entries[1].seqno(),
        "the first write has the smaller sequence number"
    );
}

/// Keys are in memory: a scan that does not ask for values shows them all though one of the values
/// is damaged.
#[test]
fn keys_alone_are_not_read_from_the_disk() {
    let mut store = TestStore::new();
    for index in 0..20 {
        store.set(format!("key{index:02}"), vec![b'Z'; 100]);
    }
    store.reopen(Reopen::Close);
    let copy = files::copied(store.path());
    let sealed = copy.path().join(&files::names(copy.path(), ".log")[0]);
    let first_value =
        files::position(&sealed, &[b'Z'; 100]).expect("the values are in the segment");
    files::flip(&sealed, first_value, 1);
    let db = TestStore::options().open(copy.path()).expect("hints tell all that an open needs");
    assert_eq!(db.scan().expect("scan succeeds").count(), 20, "every key is shown");
    let first = db.scan().expect("scan succeeds").next().expect("there are entries");
    assert!(
        matches!(first.value(), Err(Error::Corrupt { .. })),
        "its value is damaged, and that is said"
    );
    let values = db.scan().expect("scan succeeds").map(|entry| entry.value());
    assert!(
        values.last().is_some_and(|value| value.is_ok()),
        "damage of one segment does not hide another"
    );
}
