//! What a snapshot sees is a prefix of the order of writes: whole batches, nothing left out before
//! its end, what a serial replay of those batches gives, and the same whenever it is asked, while
//! writers, compaction and expiry go on.
//!
//! Each of four writers has keys of its own and a list of batches that is a function of its number.
//! Every batch also sets the writer's progress, one key that all share, and what it knew of the
//! others' progress. So a snapshot says which batches it has seen, and the rest of it must follow.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use pakv::{Db, Durability, Expiry, FileAccess, ManualClock, Options, Snapshot, WriteBatch};
use pakv_testkit::files;

use crate::concurrent::on_four_threads;

const WRITERS: usize = 4;
const KEYS: u64 = 24;
const BATCHES: u64 = 150;
const START_MS: u64 = 1_000_000;

/// Well spread from a counter: the mix of splitmix64.
fn mix(number: u64) -> u64 {
    let state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 8
}

/// A value and when it expires; `None` deletes.
type Write = Option<(String, Option<u64>)>;

/// What batch `number` of a writer does to the writer's own keys.
fn writes(writer: usize, number: u64) -> Vec<(String, Write)> {
    let count = 1 + mix(number * 8 + writer as u64) % 4;
    (0..count)
        .map(|index| {
            let random = mix((number * 8 + writer as u64) * 8 + index + 1_000_000);
            let value = format!("{number} {}", ".".repeat((random % 60) as usize));
            let write = match random / 64 % 8 {
                0 | 1 => None,
                2 | 3 => Some((value, Some(START_MS + random / 512 % 400))),
                _ => Some((value, None)),
            };
            (format!("own/{writer}/{:02}", random / 4096 % KEYS), write)
        })
        .collect()
}

/// The writer's own keys after its first `count` batches, expired ones included.
fn replay(writer: usize, count: u64) -> BTreeMap<String, (String, Option<u64>)> {
    let mut keys = BTreeMap::new();
    for (key, write) in (1..=count).flat_map(|number| writes(writer, number)) {
        match write {
            Some(value) => keys.insert(key, value),
            None => keys.remove(&key),
        };
    }
    keys
}

fn progress(writer: usize) -> String {
    format!("progress/{writer}")
}

fn text(value: Option<Vec<u8>>) -> String {
    String::from_utf8(value.expect("the key is there")).expect("the value is text")
}

fn write(db: &Db, writer: usize, number: u64) {
    let known: Vec<String> =
        (0..WRITERS).map(|other| text(db.get(progress(other)).expect("get succeeds"))).collect();
    let mut batch = WriteBatch::new();
    for (key, write) in writes(writer, number) {
        match write {
            None => batch.delete(key),
            Some((value, None)) => batch.set(key, value),
            Some((value, Some(at_ms))) => {
                let at = Expiry::At(UNIX_EPOCH + Duration::from_millis(at_ms));
                batch.set_with_expiry(key, value, at)
            }
        };
    }
    batch.set(format!("known/{writer}"), known.join(" "));
    batch.set("shared", format!("{writer} {number}"));
    batch.set(progress(writer), number.to_string());
    db.write(&batch).expect("write succeeds");
}

type Picture = Vec<(String, String)>;

/// All that a snapshot sees, by a lazy scan.
fn scanned(scan: impl Iterator<Item = pakv::Entry>) -> Picture {
    scan.map(|entry| {
        let (key, value) = entry.into_pair().expect("a value can be read");
        (text(Some(key)), text(Some(value)))
    })
    .collect()
}

/// That the snapshot is what a serial replay of the batches that it has seen gives at `now_ms`;
/// how far each writer was.
fn check(snapshot: &Snapshot, now_ms: u64) -> [u64; WRITERS] {
    let picture = scanned(snapshot.scan());
    let get = |key: &str| text(snapshot.get(key).expect("get succeeds"));
    let counts = std::array::from_fn(|writer| get(&progress(writer)).parse().expect("a number"));
    let mut newest = (0, 0);
    for (writer, count) in counts.iter().enumerate() {
        let is_there = |at: &Option<u64>| at.is_none_or(|at| now_ms < at);
        let expected: Picture = replay(writer, *count)
            .into_iter()
            .filter_map(|(key, (value, at))| is_there(&at).then_some((key, value)))
            .collect();
        let prefix = format!("own/{writer}/");
        let found: Picture =
            picture.iter().filter(|(key, _)| key.starts_with(&prefix)).cloned().collect();
        assert_eq!(found, expected, "writer {writer} after {count} batches, at {now_ms}");
        let known: Vec<u64> =
            get(&format!("known/{writer}")).split(' ').map(|n| n.parse().expect("n")).collect();
        assert!(
            known.iter().zip(&counts).all(|(known, count)| known <= count),
            "writer {writer} had seen {known:?}, which is not in {counts:?}"
        );
        let key = progress(writer);
        let bounds = (Bound::Included(key.clone()), Bound::Included(key));
        let seqno = snapshot.scan_range(bounds).next().expect("it is there").seqno();
        assert!(seqno <= snapshot.seqno());
        newest = newest.max((seqno, writer));
    }
    let (_, writer) = newest;
    assert_eq!(get("shared"), format!("{writer} {}", counts[writer]), "the last batch of all");
    counts
}

/// Checks it again by every way to look, and the moment it is dropped nothing else.
fn check_again(snapshot: &Snapshot, before: &Picture) {
    assert_eq!(&scanned(snapshot.scan()), before, "a scan");
    let mut backwards = scanned(snapshot.clone().scan().rev());
    backwards.reverse();
    assert_eq!(&backwards, before, "a scan from the other end");
    for (key, value) in before {
        assert_eq!(&text(snapshot.get(key).expect("get succeeds")), value, "a get of {key}");
    }
}

#[test]
fn a_snapshot_is_what_a_serial_replay_of_a_prefix_gives() {
    for method in [FileAccess::Mapped, FileAccess::Positional] {
        let dir = files::scratch();
        let clock = Arc::new(ManualClock::new(START_MS));
        let options = || {
            Options::new()
                .segment_bytes(2_048)
                .durability(Durability::Buffered)
                .file_access(method)
                .compaction_min_garbage(0)
                .compaction_space_amplification(1.05)
                .compaction_rate(None)
                .clock(clock.clone())
        };
        let db = options().open(dir.path()).expect("an empty directory becomes a store");
        let mut batch = WriteBatch::new();
        for writer in 0..WRITERS {
            batch.set(progress(writer), "0").set(format!("known/{writer}"), "0 0 0 0");
        }
        db.write(batch.set("shared", "3 0")).expect("write succeeds");
        let written = AtomicUsize::new(0);
        let mut now_ms = START_MS;
        let mut last = [0; WRITERS];
        let mut kept: Option<Snapshot> = None;
        on_four_threads(
            |writer| {
                for number in 1..=BATCHES {
                    write(&db, writer, number);
                    written.fetch_add(1, Ordering::SeqCst);
                }
            },
            || {
                let snapshot = db.snapshot().expect("a snapshot can be taken");
                let slow = db.scan().expect("scan succeeds");
                let counts = check(&snapshot, now_ms);
                assert!(
                    counts.iter().zip(&last).all(|(now, before)| now >= before),
                    "{last:?} were seen and then {counts:?}"
                );
                last = counts;
                let picture = scanned(snapshot.scan());
                db.compact().expect("compact succeeds");
                check_again(&snapshot, &picture);
                // Begun before the compaction, and read only now.
                let late: Vec<u64> = (scanned(slow).iter())
                    .filter(|(key, _)| key.starts_with("progress/"))
                    .map(|(_, value)| value.parse().expect("a number"))
                    .collect();
                assert!(late.iter().zip(&counts).all(|(late, count)| late >= count));
                // The clock goes as the writers do; what expires leaves the old snapshots too.
                now_ms = START_MS + 400 * written.load(Ordering::SeqCst) as u64 / (4 * BATCHES);
                clock.set_ms(now_ms);
                if let Some(old) = kept.take() {
                    check(&old, now_ms);
                }
                kept = Some(snapshot);
            },
        );
        drop(kept);
        assert_eq!(last, [BATCHES; WRITERS], "the last snapshot saw everything");
        db.close().expect("close succeeds");
        let db = options().open(dir.path()).expect("the store opens again");
        check(&db.snapshot().expect("a snapshot can be taken"), now_ms);
    }
}

/// The same for a reader that has no part in the writer's memory, as one in another process: it sees
/// a prefix, each time one that is as long as before or longer, while compaction takes files away
/// from under it; and so does one that is opened anew.
#[test]
fn a_reader_beside_writers_sees_prefixes() {
    for method in [FileAccess::Mapped, FileAccess::Positional] {
        let dir = files::scratch();
        let options = || {
            Options::new()
                .segment_bytes(2_048)
                .durability(Durability::Buffered)
                .file_access(method)
                .compaction_min_garbage(0)
                .compaction_space_amplification(1.05)
                .compaction_rate(None)
                .keydir_merge_keys(3)
                .clock(Arc::new(ManualClock::new(START_MS)))
        };
        let db = options().open(dir.path()).expect("an empty directory becomes a store");
        let mut batch = WriteBatch::new();
        for writer in 0..WRITERS {
            batch.set(progress(writer), "0").set(format!("known/{writer}"), "0 0 0 0");
        }
        db.write(batch.set("shared", "3 0")).expect("write succeeds");
        let reader = || options().read_only(true).open(dir.path()).expect("a reader opens");
        let following = reader();
        let mut last = [0; WRITERS];
        let mut kept: Option<(Snapshot, Picture)> = None;
        let mut look = || {
            following.refresh().expect("refresh succeeds");
            let snapshot = following.snapshot().expect("a snapshot can be taken");
            let counts = check(&snapshot, START_MS);
            let rose = |counts: &[u64; WRITERS]| counts.iter().zip(&last).all(|(a, b)| a >= b);
            assert!(rose(&counts), "{last:?} were seen and then {counts:?}");
            let anew = reader();
            let seen = check(&anew.snapshot().expect("a snapshot can be taken"), START_MS);
            assert!(rose(&seen), "{last:?} were seen and then, opened anew, {seen:?}");
            last = counts;
            if let Some((kept, before)) = &kept {
                check_again(kept, before);
            }
            let picture = scanned(snapshot.scan());
            kept = Some((snapshot, picture));
        };
        on_four_threads(
            |writer| (1..=BATCHES).for_each(|number| write(&db, writer, number)),
            &mut look,
        );
        look();
        assert_eq!(last, [BATCHES; WRITERS], "the last look saw everything");
    }
}
