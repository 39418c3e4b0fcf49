//! Files that are read through memory while they grow: what is shown, and what is refused.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use pakv::storage::{Mapping, OsStorage, Storage, StorageFile};
use pakv::{Db, Durability, FileAccess, Options};

const REACH: u64 = 1 << 20;

fn mapped(dir: &tempfile::TempDir) -> (Arc<dyn StorageFile>, Mapping) {
    let file = OsStorage::new(dir.path()).create("file").expect("it can be created");
    let map = file.map(REACH).expect("a file can be mapped past its end");
    (file, map)
}

#[test]
fn a_mapping_shows_what_is_settled_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, map) = mapped(&dir);
    assert_eq!((map.reach(), map.bytes(0, 1)), (REACH, None), "an empty file");
    assert_eq!(file.write_at(b"first", 0).expect("it can be written"), 5);
    assert_eq!(map.bytes(0, 5), None, "written and not settled");
    map.settle(5);
    assert_eq!(map.bytes(1, 4).as_deref(), Some(&b"irst"[..]));
    assert_eq!(map.bytes(1, 5), None, "one byte too many");
    assert_eq!(map.bytes(u64::MAX, 2), None, "no sum overflows");
    // Past what was mapped there are positional reads.
    assert_eq!(file.write_at(b"far", REACH - 1).expect("it can be written"), 3);
    map.settle(REACH + 2);
    assert_eq!(map.bytes(REACH - 1, 1).as_deref(), Some(&b"f"[..]));
    assert_eq!(map.bytes(REACH - 1, 2), None);
    // Larger than what is asked for at once.
    assert_eq!(map.bytes(5, 100_000).as_deref(), Some(&[0; 100_000][..]));
}

#[test]
fn what_is_not_there_cannot_be_settled() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, map) = mapped(&dir);
    map.settle(REACH);
    assert_eq!(map.bytes(0, 1), None, "touching it would end the process");
    assert_eq!(file.write_at(b"0123456789", 0).expect("it can be written"), 10);
    file.set_len(4).expect("nothing of it is settled");
    map.settle(10);
    assert_eq!(map.bytes(0, 4).as_deref(), Some(&b"0123"[..]));
    assert_eq!(map.bytes(0, 5), None, "it was cut");
}

#[test]
fn what_is_settled_is_neither_written_nor_cut() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, map) = mapped(&dir);
    assert_eq!(file.write_at(b"settled", 0).expect("it can be written"), 7);
    map.settle(7);
    assert!(file.write_at(b"x", 6).is_err());
    assert!(file.set_len(6).is_err());
    assert_eq!(map.bytes(0, 7).as_deref(), Some(&b"settled"[..]));
    assert_eq!(file.write_at(b"x", 7).expect("behind it is free"), 1);
    file.set_len(7).expect("behind it is free");
}

/// The active segment is mapped as far as segments usually go; a batch can be longer.
#[test]
fn a_batch_beyond_the_mapping_is_read_all_the_same() {
    for method in [FileAccess::Mapped, FileAccess::Positional] {
        let dir = tempfile::tempdir().expect("a directory");
        let options = Options::new()
            .segment_bytes(64 * 1024)
            .durability(Durability::Buffered)
            .background_compaction(false)
            .file_access(method);
        let db = options.clone().open(dir.path()).expect("it opens");
        let values = [10, 60_000, 200_000, 5];
        let check = |db: &Db| {
            for (index, len) in values.into_iter().enumerate() {
                let value = db.get(index.to_string()).expect("get succeeds");
                assert_eq!(value, Some(vec![index as u8; len]), "{method:?}, value {index}");
            }
        };
        for (index, len) in values.into_iter().enumerate() {
            db.set(index.to_string(), vec![index as u8; len]).expect("set succeeds");
        }
        check(&db);
        db.close().expect("close succeeds");
        check(&options.open(dir.path()).expect("it opens again"));
    }
}

/// A reader that holds the segment since it was active reads on after the seal.
#[test]
fn a_snapshot_reads_on_when_the_active_segment_is_sealed() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = Options::new().segment_bytes(4096).background_compaction(false);
    let db = options.durability(Durability::Buffered).open(dir.path()).expect("it opens");
    db.set("key", "first").expect("set succeeds");
    let snapshot = db.snapshot().expect("a snapshot");
    for number in 0..200_u32 {
        db.set("key", number.to_string().repeat(20)).expect("set succeeds");
    }
    db.compact().expect("compaction succeeds");
    assert_eq!(snapshot.get("key").expect("it reads"), Some(b"first".to_vec()));
    assert_eq!(db.get("key").expect("it reads"), Some("199".repeat(20).into_bytes()));
}

/// Damage that comes while the segment is mapped is found by the checksum.
#[test]
fn a_flipped_bit_of_the_active_segment_is_noticed() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = Db::open(dir.path()).expect("it opens");
    db.set("key", "value").expect("set succeeds");
    let path = dir.path().join("0000000001.log");
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("it is there");
    let offset = std::fs::read(&path)
        .expect("it can be read")
        .windows(5)
        .position(|window| window == b"value")
        .expect("the value is in the log");
    file.write_all_at(b"w", offset as u64).expect("it can be written");
    let error = db.get("key").expect_err("the checksum is wrong");
    assert!(error.is_corruption(), "{error}");
}
