//! Real file systems that lose power, fail a sync, are full, have no inodes left or become
//! read-only under a writing child.
//!
//! Takes root and loop mounts. Where the machine has none, nothing is tested, and a line says so.
//! `PAKV_CUTS` sets how many power cuts each file system takes (12 unless told), `PAKV_SEED` repeats
//! a workload; the `power_cut` binary is the long run.

use std::path::Path;
use std::process::Command;

use pakv::{Db, Error, Options};
use pakv_testkit::power::{
    Control, Cuts, Ended, Filesystem, Image, Level, Refusal, Tmpfs, Writer, private_mounts, skipped,
};
use pakv_testkit::{files, kill};

const CHILD: &str = env!("CARGO_BIN_EXE_power_cut");

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} should be a number, not {value:?}")))
}

/// Says loudly what was not tested, if it was not.
fn unless_skipped(what: &str, result: Result<(), Refusal>) {
    if let Err(refusal) = result {
        skipped(what, &refusal);
    }
}

#[test]
fn a_power_cut_loses_nothing_and_revives_nothing() {
    let count = number("PAKV_CUTS").unwrap_or(12);
    for (filesystem, level, count) in [
        (Filesystem::Ext4, Level::Sync, count),
        (Filesystem::Xfs, Level::Sync, count),
        // What was not synced may be gone, but only from the end of the order of writes.
        (Filesystem::Ext4, Level::Interval, count / 2),
        (Filesystem::Ext4, Level::Buffered, count / 2),
    ] {
        let what = format!("power cuts of {} under {level:?}", filesystem.name());
        unless_skipped(&what, cut(filesystem, level, count));
    }
}

fn cut(filesystem: Filesystem, level: Level, count: u64) -> Result<(), Refusal> {
    private_mounts()?;
    let seed = level.seed(number("PAKV_SEED").unwrap_or_else(|| fastrand::u64(..u64::MAX - 3)));
    println!("PAKV_SEED={seed}");
    let mut cuts = Cuts::new(filesystem, Path::new(CHILD), seed, level.promise())?;
    while cuts.tally().cuts < count {
        cuts.cut().unwrap_or_else(|problem| panic!("{}, {level:?}: {problem}", filesystem.name()));
    }
    println!("{} {level:?}: {:?}", filesystem.name(), cuts.tally());
    assert!(cuts.tally().acknowledged > 0, "no child came far enough: nothing was tested");
    Ok(())
}

/// Without any store: what is acknowledged before the cut is there, as this file system has it.
#[test]
fn bare_files_keep_what_was_synced_before_a_cut() {
    for filesystem in [Filesystem::Ext4, Filesystem::Xfs] {
        let run = || {
            private_mounts()?;
            let mut control = Control::new(filesystem, Path::new(CHILD), fastrand::u64(..))?;
            for _ in 0..6 {
                control.cut().unwrap_or_else(|problem| panic!("{}: {problem}", filesystem.name()));
            }
            println!("{}: {:?}", filesystem.name(), control.tally());
            assert!(control.tally().acknowledged > 0, "nothing was tested");
            Ok(())
        };
        unless_skipped(&format!("bare files on {}", filesystem.name()), run());
    }
}

/// The harness itself: where nothing is synced a cut does lose acknowledged writes, and the check
/// says so.
#[test]
fn a_store_that_does_not_sync_is_caught() {
    let run = || {
        private_mounts()?;
        // A store that syncs nothing, held to the promise of one that syncs everything.
        let seed = Level::Buffered.seed(3_000_000);
        let promise = Level::Sync.promise();
        let mut cuts = Cuts::new(Filesystem::Ext4, Path::new(CHILD), seed, promise)?;
        let problem = (0..150).find_map(|_| cuts.cut().err());
        let problem = problem.expect("a store that does not sync loses writes in 150 cuts");
        // Which check notices it first differs from run to run.
        println!("caught: {problem}");
        if let Some((_, kept)) = problem.split_once("as the cut left it: ") {
            let _ = std::fs::remove_dir_all(kept);
        }
        Ok(())
    };
    unless_skipped("power cuts under a store that does not sync", run());
}

/// What `kill::fill_until_it_fails` printed.
struct Filled {
    acknowledged: u64,
    failure: String,
}

fn fill(dir: &Path, segment_bytes: u64) -> Writer {
    Writer::start(Command::new(CHILD).arg("fill").arg(dir).arg(segment_bytes.to_string()))
}

/// The first failure must be typed and the write after it refused; reads went on, or the child would
/// have failed.
fn filled(context: &str, acknowledged_before: u64, ended: &Ended) -> Filled {
    let lines = &ended.lines;
    assert!(ended.succeeded(), "{context}: {}", ended.errors);
    let starts = |start: &str| lines.iter().find(|line| line.starts_with(start)).cloned();
    let failure = starts("failed ").unwrap_or_else(|| panic!("{context}: {lines:?}"));
    assert!(failure.starts_with("failed Io {"), "{context}: the failure is typed: {failure}");
    let poisoned = starts("poisoned ").unwrap_or_default();
    assert!(poisoned.contains("Poisoned {"), "{context}: the next is refused: {lines:?}");
    let acknowledged = lines.iter().filter(|line| line.starts_with("ok ")).count() as u64;
    Filled { acknowledged: acknowledged_before + acknowledged, failure }
}

/// Once the trouble is over: every acknowledged value is there, at most the one that failed beside
/// them, no file is left over, and the store takes writes. `certain` is less than `acknowledged`
/// where some may have been acknowledged by a file system that was just breaking down: see
/// `power::ledger`.
fn resumes(context: &str, dir: &Path, certain: u64, acknowledged: u64) {
    let db = Db::open(dir).unwrap_or_else(|error| panic!("{context}: {error}"));
    let len = db.len().expect("len succeeds");
    let possible = certain..=acknowledged + 1;
    assert!(possible.contains(&len), "{context}: {len} keys instead of {possible:?}");
    for number in 0..len {
        let value = db.get(number.to_string()).unwrap_or_else(|error| panic!("{context}: {error}"));
        assert_eq!(value, Some(kill::fill_value(number)), "{context}: the value of {number}");
    }
    db.set("another", "write").unwrap_or_else(|error| panic!("{context}: {error}"));
    db.close().unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(files::names(dir, ".tmp"), [""; 0], "{context}: no temporary file is left");
}

/// A full disk refuses writes, or no file can be created any more.
#[test]
fn a_full_disk_ends_in_an_error_and_loses_nothing() {
    unless_skipped("a full disk and one without inodes", full_disk());
}

fn full_disk() -> Result<(), Refusal> {
    private_mounts()?;
    for (limits, more, segment_bytes) in [
        ("size=1m", "size=2m", 4_096),
        ("size=1m", "size=2m", 1 << 20),
        ("size=4m,nr_inodes=12", "size=4m,nr_inodes=4000", 1_024),
        ("size=4m,nr_inodes=13", "size=4m,nr_inodes=4000", 1_024),
        ("size=4m,nr_inodes=14", "size=4m,nr_inodes=4000", 1_024),
    ] {
        let context = format!("{limits}, segments of {segment_bytes} bytes");
        let tmpfs = Tmpfs::new(limits)?;
        let dir = tmpfs.path().join("store");
        let filled = filled(&context, 0, &fill(&dir, segment_bytes).wait());
        assert!(filled.acknowledged > 1, "{context}: some writes fit");
        assert!(filled.failure.contains("StorageFull"), "{context}: {}", filled.failure);

        // Without more room an open either works or says why; reading always works.
        match Db::open(&dir) {
            Ok(db) => drop(db),
            Err(error) => assert!(error.is_disk_full(), "{context}: {error}"),
        }
        let reader = Options::new().read_only(true).open(&dir);
        let reader = reader.unwrap_or_else(|error| panic!("{context}: {error}"));
        assert!(reader.len().expect("len succeeds") >= filled.acknowledged, "{context}");
        drop(reader);
        tmpfs.remount(more)?;
        resumes(&context, &dir, filled.acknowledged, filled.acknowledged);
    }
    Ok(())
}

/// A file system whose disk has less room than it was told: it takes the write and fails the sync,
/// once; the next sync would succeed and the data be gone. The store must be poisoned by the first.
#[test]
fn a_sync_that_fails_for_real_poisons_and_loses_nothing() {
    unless_skipped("a sync that fails for real", failed_sync());
}

fn failed_sync() -> Result<(), Refusal> {
    private_mounts()?;
    let mut failed_syncs = 0;
    for segment_bytes in [2_048, 16_384, 1 << 20] {
        let context = format!("segments of {segment_bytes} bytes");
        let disk = Tmpfs::new("size=24m")?;
        // Its own tables and its journal are in place from the start; only data finds no room.
        let whole = ["-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"];
        let file = disk.path().join("image");
        let image = Image::at(Filesystem::Ext4, file, 32 << 20, &whole)?;
        let mounted = image.mount("")?;
        let dir = mounted.path().join("store");
        let ballast = disk.path().join("ballast");
        leave_room(&disk, &ballast, 400 << 10);
        let filled = filled(&context, 0, &fill(&dir, segment_bytes).wait());
        println!("{context}: {} acknowledged, then {}", filled.acknowledged, filled.failure);
        failed_syncs += u64::from(filled.failure.contains("action: \"sync\""));
        files::remove(&ballast);
        mounted.unmount();

        let mounted = image.mount("")?;
        resumes(&context, &mounted.path().join("store"), filled.acknowledged, filled.acknowledged);
        mounted.unmount();
    }
    assert!(failed_syncs > 0, "some failure was that of a sync: otherwise nothing was tested");
    Ok(())
}

/// Fills a tmpfs up to so many bytes.
fn leave_room(disk: &Tmpfs, ballast: &Path, bytes: u64) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(ballast).expect("the ballast is created");
    while file.write_all(&[1; 4_096]).is_ok() {}
    let len = file.metadata().expect("the ballast has a length").len();
    file.set_len(len.saturating_sub(bytes)).expect("the ballast is cut");
    assert!(disk.path().is_dir());
}

/// An error of the file system makes it read-only under the writer; and a store on a read-only file
/// system can be read and not opened for writing.
#[test]
fn a_file_system_that_becomes_read_only_ends_in_an_error_and_loses_nothing() {
    unless_skipped("a file system that becomes read-only", read_only());
}

fn read_only() -> Result<(), Refusal> {
    private_mounts()?;
    for segment_bytes in [2_048, 1 << 20] {
        let context = format!("segments of {segment_bytes} bytes");
        let image = Image::new(Filesystem::Ext4)?;
        let mounted = image.mount("errors=remount-ro")?;
        let dir = mounted.path().join("store");
        let mut writer = fill(&dir, segment_bytes);
        let certain = 200;
        for _ in 0..certain {
            writer.line().unwrap_or_else(|| panic!("{context}: the child has ended"));
        }
        mounted.fail()?;
        let filled = filled(&context, certain, &writer.wait());
        println!("{context}: {} acknowledged, then {}", filled.acknowledged, filled.failure);
        match Db::open(&dir) {
            Err(Error::Io { .. }) => {}
            other => panic!("{context}: an open for writing cannot succeed: {other:?}"),
        }
        let reader = Options::new().read_only(true).open(&dir);
        let reader = reader.unwrap_or_else(|error| panic!("{context}: {error}"));
        assert!(reader.len().expect("len succeeds") >= certain, "{context}");
        drop(reader);
        mounted.unmount();
        let mounted = image.mount("")?;
        resumes(&context, &mounted.path().join("store"), certain, filled.acknowledged);
        mounted.unmount();
    }
    Ok(())
}
