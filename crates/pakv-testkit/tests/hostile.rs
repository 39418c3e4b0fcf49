//! What a directory that a stranger has prepared costs: memory and time stay bounded, whatever its
//! files claim. Each store is opened by a process of its own, whose peak memory is asked for.
//!
//! And random damage: `PAKV_MUTATIONS` sets how often (3,000 times unless told), `PAKV_SEED` repeats
//! a failure; the program `mutations` does a million.
//! `PAKV_HOSTILE_FILES` sets how many files lie beside the store's own (50,000 unless told).

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pakv::{Db, Options};
use pakv_testkit::forge::{self, Hint, Manifest, Op, Record, Sealed};
use pakv_testkit::mutations::Mutations;
use pakv_testkit::{HANG, files};
use tempfile::TempDir;

const CHILD: &str = env!("CARGO_BIN_EXE_kill_child");

/// What an open may take beyond the bytes that are on the disk.
const BEYOND_KIB: u64 = 64 * 1024;

/// A closed store with a few sealed segments.
fn store() -> TempDir {
    let dir = files::scratch();
    let options = Options::new().segment_bytes(2_048).background_compaction(false);
    let db = options.open(dir.path()).expect("an empty directory becomes a store");
    for number in 0..100 {
        db.set(format!("key{number}"), vec![b'.'; 100]).expect("set succeeds");
    }
    db.close().expect("close succeeds");
    dir
}

/// What the child said, and its peak memory. It may take a minute; nothing here takes a second but
/// where the machine is busy.
fn read(dir: &Path) -> (String, u64) {
    let mut child = Command::new(CHILD)
        .args(["read", "mapped"])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let started = Instant::now();
    while child.try_wait().expect("a child can be asked").is_none() {
        if started.elapsed() > HANG {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{}: it hangs", dir.display());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().expect("the child has ended");
    let said = String::from_utf8(output.stdout).expect("the child prints text");
    let peak = said.lines().find_map(|line| line.strip_prefix("peak ")?.parse().ok());
    let peak = peak.unwrap_or_else(|| panic!("{}: the child says no peak: {said}", output.status));
    (said, peak)
}

/// Bytes that the directory takes on the disk, in KiB: a file of holes takes none. A manifest, which
/// is one frame, is read whole up to the limit of 256 MiB that it has, holes or not.
fn blocks_kib(dir: &Path) -> u64 {
    let blocks = |path: &std::path::PathBuf| {
        let metadata = path.metadata().expect("it is there");
        let is_read_whole = path.ends_with("MANIFEST") && metadata.len() <= 256 << 20;
        if is_read_whole { metadata.len() / 1024 } else { metadata.blocks() / 2 }
    };
    files::paths(dir).iter().map(blocks).sum()
}

#[track_caller]
fn is_bounded(dir: &Path, what: &str, wanted: &str) {
    let blocks = blocks_kib(dir);
    let (said, peak) = read(dir);
    println!(
        "{what}: {peak} KiB for {blocks} KiB on the disk: {}",
        said.lines().next().unwrap_or("")
    );
    assert!(said.contains(wanted), "{what}: {said}");
    assert!(peak <= blocks + BEYOND_KIB, "{what}: {peak} KiB for {blocks} KiB on the disk");
}

/// Files of holes: as long as anybody likes, without a byte.
#[test]
fn holes_take_no_memory() {
    let lens = [("a terabyte", 1_u64 << 40), ("3 GiB", 3 << 30), ("200 MiB", 200 << 20)];
    for (size, len) in lens {
        for (name, wanted) in [
            ("sealed", "100 values"),
            ("active", if len > 1 << 32 { "error: " } else { "100 values" }),
            ("hint", "100 values"),
            ("MANIFEST", "error: "),
            ("0000000099.log", "100 values"),
            ("LOCK", "100 values"),
        ] {
            let dir = store();
            let manifest = Manifest::of(dir.path());
            let sealed = manifest.sealed[0].segment;
            let path = match name {
                "sealed" => forge::log_path(dir.path(), sealed),
                "hint" => forge::hint_path(dir.path(), sealed),
                "active" => {
                    let active = manifest.active.expect("there is one");
                    forge::log_path(dir.path(), active.segment)
                }
                other => dir.path().join(other),
            };
            let file = File::options().append(true).create(true).open(path).expect("it opens");
            if let Err(error) = file.set_len(len) {
                eprintln!("\n**** SKIPPED, NOT TESTED: {name} of {size}: {error} ****\n");
                continue;
            }
            drop(file);
            is_bounded(dir.path(), &format!("{name} of {size}"), wanted);
        }
    }
}

/// Lengths and counts that nothing backs, under right checksums.
#[test]
fn claims_take_no_memory() {
    type Claim = (&'static str, &'static str, fn(&Path, Manifest));
    let claims: [Claim; 6] = [
        ("a million segments", "error: ", |dir, mut manifest| {
            let first = manifest.sealed[0];
            manifest.sealed.extend((1_000..1_001_000).map(|segment| Sealed { segment, ..first }));
            manifest.next_segment = 2_000_000;
            manifest.put(dir);
        }),
        ("a segment of 4 GiB", "error: ", |dir, mut manifest| {
            manifest.sealed[0].bytes = u32::MAX;
            manifest.put(dir);
        }),
        ("2^32 - 1 records", "error: ", |dir, mut manifest| {
            manifest.sealed[0].records = u32::MAX;
            manifest.put(dir);
        }),
        ("a hint of 2^32 - 1 records", "100 values", |dir, manifest| {
            let mut hint = Hint::of(dir, manifest.sealed[0].segment);
            hint.records = u32::MAX;
            hint.put(dir);
        }),
        ("records of 4 GiB in a hint", "100 values", |dir, manifest| {
            let mut hint = Hint::of(dir, manifest.sealed[0].segment);
            hint.entries.iter_mut().for_each(|entry| entry.length = u32::MAX);
            hint.put(dir);
        }),
        ("an endless batch", "100 values", |dir, manifest| {
            let op = Op::Tombstone { key: b"key1".to_vec() };
            let seqno = manifest.next_seqno;
            let record = Record { unsynced: u32::MAX, seqno, batch_rest: u32::MAX, op };
            forge::append_records(dir, manifest.active.expect("there is one").segment, &[record]);
        }),
    ];
    for (what, wanted, claim) in claims {
        let dir = store();
        claim(dir.path(), Manifest::of(dir.path()));
        is_bounded(dir.path(), what, wanted);
    }
    // A frame that claims all the bytes there could be, where the next record would begin.
    for claimed in [u32::MAX, u32::MAX - 7, 1 << 31, 1 << 20] {
        let dir = store();
        let active = Manifest::of(dir.path()).active.expect("there is one");
        let path = forge::log_path(dir.path(), active.segment);
        let mut bytes = files::read(&path);
        bytes.extend([0x55, 0x55, 0x55, 0x55]);
        bytes.extend(claimed.to_le_bytes());
        bytes.extend([0x55; 64]);
        files::write(&path, bytes);
        is_bounded(dir.path(), &format!("a frame of {claimed} bytes"), "100 values");
    }
}

/// More files than anybody looks through, of names as long as names can be.
#[test]
fn many_files_take_little_memory_and_stay() {
    let count = env_number("PAKV_HOSTILE_FILES").unwrap_or(50_000);
    for name_bytes in [8, 255] {
        let dir = store();
        let before = std::fs::read_dir(dir.path()).expect("it can be listed").count();
        for index in 0..count {
            let name = format!("{index:0name_bytes$}");
            File::create(dir.path().join(name)).expect("a file can be made");
        }
        let what = format!("{count} files with names of {name_bytes} bytes");
        is_bounded(dir.path(), &what, "100 values");
        let after = std::fs::read_dir(dir.path()).expect("it can be listed").count();
        assert_eq!(after as u64, before as u64 + count, "{what} are nobody's business");

        // No store, and none is made of it without a look at every name.
        let manifest = dir.path().join("MANIFEST");
        files::remove(&manifest);
        is_bounded(dir.path(), &what, "its MANIFEST is missing");
    }
}

/// As many orphans as segments: their removal took the one times the other.
#[test]
fn many_orphans_beside_many_segments() {
    let dir = store();
    let count = 20_000;
    for number in 0..count {
        File::create(forge::hint_path(dir.path(), 1_000 + number)).expect("a file can be made");
    }
    is_bounded(dir.path(), &format!("{count} orphans"), "100 values");
    assert_eq!(
        files::names(dir.path(), ".hint").len(),
        Manifest::of(dir.path()).sealed.len(),
        "the orphans are gone"
    );
}

#[test]
fn random_damage_gives_the_truth_or_a_typed_error() {
    let seed = env_number("PAKV_SEED").unwrap_or_else(|| fastrand::u64(..u64::MAX / 2));
    let mut mutations = Mutations::new();
    for index in 0..env_number("PAKV_MUTATIONS").unwrap_or(3_000) {
        mutations.mutate(seed + index).unwrap_or_else(|problem| panic!("{problem}"));
    }
    let tally = mutations.tally();
    println!("{tally:?}");
    assert!(tally.refused > 0 && tally.damaged > 0, "nothing was damaged: {tally:?}");
}

/// What the child measures is memory: a store that holds some takes some.
#[test]
fn the_measure_measures() {
    let dir = files::scratch();
    let db = Db::open(dir.path()).expect("an empty directory becomes a store");
    db.set("key", vec![b'.'; 200 << 20]).expect("set succeeds");
    db.close().expect("close succeeds");
    let (_, peak) = read(dir.path());
    assert!(peak > 200 * 1024, "a value of 200 MiB was read with {peak} KiB");
}

fn env_number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} should be a number, not {value:?}")))
}
