//! Files whose checksums are right and whose words are not: whoever can write the files can forge
//! them, so what they say is believed only as far as it can be: never a panic, never a wrong value.

use pakv::{Error, FileAccess};
use pakv_testkit::files;
use pakv_testkit::forge::{self, Active, Hint, HintEntry, HintKind, Manifest, Op, Record, Sealed};

use super::{Store, options};

/// No store gets this far.
const SEQNO_MAX: u64 = (1 << 50) - 1;
const SEGMENT_ID_MAX: u32 = u32::MAX - (1 << 20);

/// What is forged is read as it was meant, so that a test here does not pass for a wrong reason.
#[test]
fn what_is_put_back_unchanged_is_taken() {
    let store = Store::new();
    let copy = store.copy();
    store.manifest().put(copy.path());
    for id in store.sealed() {
        Hint::of(copy.path(), id).put(copy.path());
    }
    for (path, (bytes, _)) in files::state(copy.path()) {
        let name = path.file_name().expect("a file has a name");
        assert_eq!(bytes, files::read(&store.dir.path().join(name)), "{name:?} is what it was");
    }
    let db = options().open(copy.path()).expect("it opens");
    assert_eq!(db.recovery().hints_rebuilt, 0);
}

type Forgery = (&'static str, fn(&mut Hint));

const HINTS: [Forgery; 16] = [
    ("every location is the first record's", |hint| {
        let first = hint.entries[0].clone();
        for entry in &mut hint.entries {
            (entry.offset, entry.length) = (first.offset, first.length);
        }
    }),
    ("locations in the opposite order", |hint| {
        let places: Vec<_> = hint.entries.iter().rev().map(|e| (e.offset, e.length)).collect();
        for (entry, place) in hint.entries.iter_mut().zip(places) {
            (entry.offset, entry.length) = place;
        }
    }),
    ("the location of an older record of the same key", |hint| {
        let entries = hint.entries.clone();
        for entry in &mut hint.entries {
            let older = entries.iter().find(|other| other.key == entry.key);
            let older = older.expect("itself, at the least");
            (entry.offset, entry.length) = (older.offset, older.length);
        }
    }),
    ("locations in the middle of records", |hint| {
        for entry in &mut hint.entries {
            entry.offset += 3;
        }
        hint.entries.pop();
        hint.records -= 1;
    }),
    ("one byte past the end", |hint| {
        let last = hint.entries.last_mut().expect("there are entries");
        last.length += 1;
    }),
    ("far past the end", |hint| {
        for entry in &mut hint.entries {
            (entry.offset, entry.length) = (u32::MAX, u32::MAX);
        }
    }),
    ("records as long as the segment", |hint| {
        for entry in &mut hint.entries {
            (entry.offset, entry.length) = (0, hint.segment_bytes);
        }
    }),
    ("records without bytes", |hint| {
        for entry in &mut hint.entries {
            entry.length = 0;
        }
    }),
    ("records in the header", |hint| {
        for entry in &mut hint.entries {
            (entry.offset, entry.length) = (0, 40);
        }
    }),
    ("fewer entries", |hint| drop(hint.entries.pop())),
    ("an entry twice", |hint| {
        let last = hint.entries.last().expect("there are entries").clone();
        hint.entries.push(last);
        hint.records += 1;
    }),
    ("a count of 2^32 - 1", |hint| hint.records = u32::MAX),
    ("a segment of 4 GiB", |hint| hint.segment_bytes = u32::MAX),
    ("sequence numbers without end", |hint| {
        for entry in &mut hint.entries {
            entry.seqno = u64::MAX;
        }
    }),
    ("another segment's", |hint| {
        hint.entries.iter_mut().for_each(|entry| entry.offset += 1 << 20);
        hint.segment_bytes += 1 << 20;
    }),
    ("an empty key more", |hint| {
        let last = hint.entries.last().expect("there are entries").clone();
        hint.entries.push(HintEntry { key: Vec::new(), ..last });
        hint.records += 1;
    }),
];

/// A hint that gives a key the older of its two records: a get read that record, found the key that it
/// looked for and gave the old value. It now looks at the sequence number too.
#[test]
fn a_hint_that_points_at_an_older_record_of_the_key() {
    let history = crate::history::History::new(&options().segment_bytes(2048));
    let db = history.db;
    for value in ["the old value", "the new value"] {
        db.set("key", value).expect("set succeeds");
    }
    db.set("other", vec![b'.'; 2048]).expect("set succeeds");
    db.close().expect("close succeeds");
    let dir = history.dir.path();
    let segment = Manifest::of(dir).sealed[0].segment;
    let mut hint = Hint::of(dir, segment);
    let (old, new) = (hint.entries[0].clone(), hint.entries[1].clone());
    assert_eq!((&old.key, old.length), (&new.key, new.length), "two records of a key");
    (hint.entries[0].seqno, hint.entries[1].seqno) = (new.seqno, old.seqno);
    hint.put(dir);
    for method in [FileAccess::Mapped, FileAccess::Positional] {
        let db = options().file_access(method).open(dir).expect("a hint stops no open");
        assert_eq!(db.recovery().hints_rebuilt, 0, "the lie does not show at the open");
        match db.get("key") {
            Err(Error::Corrupt { path, offset, .. }) => {
                assert_eq!(path, forge::log_path(dir, segment));
                assert_eq!(offset, u64::from(old.offset));
            }
            other => panic!("neither the old value nor the new: {other:?}"),
        }
    }
}

/// Expiries are kept by place: where two keys shared one, a write to the one took the other's expiry,
/// and the sweep then took the other's next value.
#[test]
fn a_hint_that_puts_two_keys_that_expire_in_one_place() {
    let history = crate::history::History::new(&options().segment_bytes(2048));
    let db = history.db;
    let in_an_hour = pakv::Expiry::After(std::time::Duration::from_secs(3600));
    for key in ["first", "other"] {
        db.set_with_expiry(key, "value", in_an_hour).expect("set succeeds");
    }
    db.set("large", vec![b'.'; 2048]).expect("set succeeds");
    db.close().expect("close succeeds");
    let dir = history.dir.path();
    let segment = Manifest::of(dir).sealed[0].segment;
    let mut hint = Hint::of(dir, segment);
    hint.entries[1].offset = hint.entries[0].offset;
    hint.put(dir);
    let db = options().open(dir).expect("a hint stops no open");
    assert_eq!(db.recovery().hints_rebuilt, 1, "two records cannot stand in one place");
    assert_eq!(db.get("other").expect("get succeeds"), Some(b"value".to_vec()));
}

/// A hint that lies about where records are. It is built again where the lie shows; where it does
/// not, a get finds that the record is not the one.
#[test]
fn a_hint_that_points_elsewhere() {
    let store = Store::new();
    for (what, forge) in HINTS {
        for id in store.sealed() {
            let copy = store.copy();
            let mut hint = Hint::of(copy.path(), id);
            forge(&mut hint);
            hint.put(copy.path());
            let error = store.use_it(copy.path(), &format!("{what}, segment {id}"));
            assert!(error.is_none(), "{what}: a hint stops no open: {error:?}");
        }
    }
}

/// What a hint says of keys and kinds cannot be told from the truth without reading the segment,
/// which is what a hint is there to save. But nobody is hurt by it.
#[test]
fn a_hint_with_other_keys_and_kinds_does_no_harm() {
    let store = Store::new();
    let forgeries: [Forgery; 5] = [
        ("empty keys", |hint| hint.entries.iter_mut().for_each(|entry| entry.key.clear())),
        ("giant keys", |hint| {
            hint.entries.iter_mut().for_each(|entry| entry.key = vec![b'k'; 1 << 20]);
        }),
        ("all tombstones", |hint| {
            hint.entries.iter_mut().for_each(|entry| entry.kind = HintKind::Tombstone);
        }),
        ("all sets", |hint| {
            hint.entries.iter_mut().for_each(|entry| entry.kind = HintKind::Set);
        }),
        ("all about to expire", |hint| {
            let kind = HintKind::SetExpiring { at_ms: u64::MAX };
            hint.entries.iter_mut().for_each(|entry| entry.kind = kind);
        }),
    ];
    let written = written_values(&store);
    for (what, forge) in forgeries {
        for id in store.sealed() {
            let copy = store.copy();
            let mut hint = Hint::of(copy.path(), id);
            forge(&mut hint);
            hint.put(copy.path());
            let (dir, what, written) = (copy.path().to_path_buf(), what, written.clone());
            pakv_testkit::within(what, move || {
                let db = options().open(&dir).expect("a hint stops no open");
                for entry in db.scan().expect("scan succeeds") {
                    match entry.value() {
                        Ok(value) => assert!(
                            written.contains(&(entry.key().to_vec(), value)),
                            "{what}: {} never had this value",
                            entry.key().escape_ascii()
                        ),
                        Err(error) => assert!(error.is_corruption(), "{what}: {error:?}"),
                    }
                }
                super::write_and_compact(&db, &dir, what);
                super::close(db, &dir, what);
                if let Err(error) = options().open(&dir) {
                    super::check_error(&error, &dir, what);
                }
            });
        }
    }
}

/// Every key with every value that it ever had and that is still in some segment.
fn written_values(store: &Store) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut written = Vec::new();
    for id in store.sealed().into_iter().chain([store.active()]) {
        for record in forge::records(store.dir.path(), id) {
            if let Op::Set { key, value, .. } = record.op {
                written.push((key, value));
            }
        }
    }
    written
}

/// What a forged manifest may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Right,
    Corrupt,
}

#[test]
fn a_manifest_that_lies() {
    type Forgery = (&'static str, Wanted, fn(&mut Manifest));
    let forgeries: [Forgery; 18] = [
        ("segments out of order", Wanted::Right, |m| m.sealed.reverse()),
        ("a segment twice", Wanted::Corrupt, |m| m.sealed.push(m.sealed[0])),
        ("the active one sealed too", Wanted::Corrupt, |m| {
            m.sealed[0].segment = m.active.expect("there is one").segment;
        }),
        ("the active one is a sealed one", Wanted::Corrupt, |m| {
            let Sealed { segment, bytes, .. } = m.sealed[0];
            m.active = Some(Active { segment, synced_bytes: bytes });
        }),
        ("another store's", Wanted::Corrupt, |m| m.store = [0; 16]),
        ("a million segments", Wanted::Corrupt, |m| {
            let first = m.sealed[0];
            let number = |segment| Sealed { segment, ..first };
            m.sealed.extend((1_000_000..2_000_000).map(number));
            m.next_segment = 2_000_000;
        }),
        ("a segment that is not there", Wanted::Corrupt, |m| m.sealed[0].segment = 0),
        ("numbers used up", Wanted::Corrupt, |m| m.next_segment = u32::MAX),
        ("numbers too low", Wanted::Corrupt, |m| m.next_segment = 1),
        ("sequence numbers used up", Wanted::Corrupt, |m| m.next_seqno = u64::MAX),
        ("sequence numbers nearly used up", Wanted::Corrupt, |m| m.next_seqno = SEQNO_MAX),
        ("sequence numbers too low", Wanted::Corrupt, |m| m.next_seqno = 1),
        ("a longer segment", Wanted::Corrupt, |m| m.sealed[0].bytes = u32::MAX),
        ("a segment without bytes", Wanted::Corrupt, |m| m.sealed[0].bytes = 0),
        ("more records", Wanted::Corrupt, |m| m.sealed[0].records = u32::MAX),
        ("other sequence numbers", Wanted::Corrupt, |m| m.sealed[0].min_seqno = 0),
        ("a longer active segment", Wanted::Corrupt, |m| {
            m.active.as_mut().expect("there is one").synced_bytes = u32::MAX;
        }),
        ("an active segment that was never synced", Wanted::Right, |m| {
            m.active.as_mut().expect("there is one").synced_bytes = 0;
        }),
    ];
    let store = Store::new();
    for (what, wanted, forge) in forgeries {
        let copy = store.copy();
        let mut manifest = store.manifest();
        forge(&mut manifest);
        manifest.put(copy.path());
        let before = files::state(copy.path());
        match (wanted, store.use_it(copy.path(), what)) {
            (Wanted::Right, None) => store.works(copy.path(), what),
            (Wanted::Corrupt, Some(Error::Corrupt { .. })) => {
                // What a lie lists is no reason to remove what it does not list.
                let after = files::state(copy.path());
                for (path, (bytes, _)) in before.iter().filter(|(path, _)| !path.ends_with("LOCK"))
                {
                    let now = after.get(path).map(|(bytes, _)| bytes);
                    assert_eq!(now, Some(bytes), "{what}: {}", path.display());
                }
            }
            (_, other) => panic!("{what}: {other:?}"),
        }
    }
}

/// A manifest whose numbers are just below the end was taken, the first segment and the first write
/// then went past it, and the manifest that said so was refused by the next open: what had been
/// acknowledged in between was lost. Such a store can now be read and no more.
#[test]
fn a_store_whose_numbers_are_used_up_can_be_read() {
    type Forgery = fn(&mut Manifest);
    let forgeries: [Forgery; 2] =
        [|m| m.next_segment = SEGMENT_ID_MAX, |m| m.next_seqno = SEQNO_MAX];
    let store = Store::new();
    for forge in forgeries {
        let copy = store.copy();
        let mut manifest = store.manifest();
        forge(&mut manifest);
        manifest.put(copy.path());
        let reader = options().read_only(true).open(copy.path()).expect("it can be read");
        assert_eq!(crate::history::contents(&reader), store.contents);
        let error = options().open(copy.path()).map(drop).expect_err("it cannot be written");
        assert!(error.to_string().contains("MANIFEST"), "{error} names it");
    }
}

fn set(seqno: u64, key: &[u8]) -> Record {
    let op = Op::Set { expires_at_ms: None, key: key.to_vec(), value: b"forged".to_vec() };
    Record { unsynced: 0, seqno, batch_rest: 0, op }
}

/// Records behind the last one of the active segment.
#[test]
fn records_that_lie() {
    let store = Store::new();
    let seqno = store.manifest().next_seqno;
    let key = b"zz/forged";
    let records = [
        ("the last sequence number of all", set(u64::MAX, key)),
        ("past the last sequence number", set(SEQNO_MAX + 1, key)),
        ("the last sequence number", set(SEQNO_MAX, key)),
        ("sequence number 0", set(0, key)),
        ("an old sequence number", set(1, key)),
        ("an endless batch", Record { batch_rest: u32::MAX, ..set(seqno, key) }),
        ("nothing durable", Record { unsynced: u32::MAX, ..set(seqno, key) }),
        ("an empty key", set(seqno, b"")),
        ("a key that is too long", set(seqno, &[&key[..], &vec![b'z'; 1 << 20]].concat())),
        ("an expiry without end", {
            let op = Op::Set {
                expires_at_ms: Some(u64::MAX),
                key: key.to_vec(),
                value: b"forged".to_vec(),
            };
            Record { op, ..set(seqno, key) }
        }),
        ("a tombstone of nothing", {
            Record { op: Op::Tombstone { key: b"zz/nothing".to_vec() }, ..set(seqno, key) }
        }),
    ];
    for (what, record) in records {
        let copy = store.copy();
        forge::append_records(copy.path(), store.active(), &[record]);
        let error = store.use_it(copy.path(), what);
        assert!(
            error.as_ref().is_none_or(Error::is_corruption),
            "{what}: taken, cut or damage: {error:?}"
        );
    }
}
