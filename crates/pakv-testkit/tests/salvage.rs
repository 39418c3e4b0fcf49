//! Random stores, random damage: `check` names it, and `repair` brings over everything outside of
//! it, byte for byte, and nothing that was deleted or overwritten.
//!
//! `PAKV_DAMAGES` sets how many times (150 unless told), `PAKV_SEED` repeats a failed run.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, UNIX_EPOCH};

use fastrand::Rng;
use pakv::inspect::{self, RecordInfo};
use pakv::{Db, Durability, Expiry, FindingKind, Options, Result, WriteBatch};
use pakv_testkit::files;
use pakv_testkit::power::Writer;

const EXPIRES_AT_MS: u64 = 4_102_444_800_000;

#[test]
fn everything_outside_the_damage_comes_over_and_nothing_else() {
    let runs = env_number("PAKV_DAMAGES").unwrap_or(150);
    let first = env_number("PAKV_SEED");
    for run in 0..if first.is_some() { 1 } else { runs } {
        let seed = first.unwrap_or_else(|| fastrand::u64(..));
        let outcome = std::panic::catch_unwind(|| damage_and_repair(seed));
        outcome.unwrap_or_else(|_| panic!("PAKV_SEED={seed} repeats this, run {run}"));
    }
}

fn env_number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A closed store, and every record in it.
struct Ground {
    dir: tempfile::TempDir,
    records: Vec<(PathBuf, RecordInfo)>,
    values: BTreeMap<(Vec<u8>, u64), Vec<u8>>,
}

fn damage_and_repair(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let ground = store(&mut rng).expect("a store is made");
    let report = pakv::check(ground.dir.path()).expect("a check runs");
    assert!(report.is_sound(), "before the damage: {:?}", report.findings);

    let damage: Vec<Damage> =
        (0..rng.usize(1..4)).filter_map(|_| Damage::make(&mut rng, ground.dir.path())).collect();
    let before = files::state(ground.dir.path());
    let report = pakv::check(ground.dir.path()).expect("a check of a damaged store runs");
    let has_manifest = !damage.iter().any(|damage| damage.path.ends_with("MANIFEST"));
    for damage in &damage {
        let is_named = report.findings.iter().any(|found| {
            let (start, end) = (found.offset, found.offset + found.length.max(1));
            // What a cut has left of a record is named, and ends where the cut was.
            let is_there = damage.range.start <= end && start < damage.range.end;
            // A manifest is one frame, and the start of a segment is judged as a whole.
            let is_one = damage.path.ends_with("MANIFEST") || damage.range.start.max(start) < 41;
            found.path == damage.path && (is_there || is_one || damage.is_gone())
        });
        // Between two records nothing but the manifest tells where a segment ends.
        let is_cut = damage.is_cut || damage.is_gone();
        let is_silent = damage.is_silent || (is_cut && !has_manifest);
        // A hint that is gone since is built again, and that it was damaged before is all the same.
        let is_silent = is_silent || (damage.is_hint() && !damage.path.exists());
        assert!(is_named || is_silent, "{damage:?} is not named: {:?}", report.findings);
    }

    let target = files::scratch();
    let repaired = pakv::repair(ground.dir.path(), target.path()).expect("a repair runs");
    assert_eq!(files::state(ground.dir.path()), before, "the source stays as it was");
    assert!(pakv::check(target.path()).expect("a check runs").is_sound());
    let db = Db::open(target.path()).expect("the new store opens");
    assert_eq!(db.len().expect("len"), repaired.keys);
    ground.compare(&db, &damage, &repaired);
    db.close().expect("close");
}

impl Ground {
    fn compare(&self, db: &Db, damage: &[Damage], repaired: &pakv::RepairReport) {
        let lost: Vec<&[u8]> = repaired.lost_keys().collect();
        let is_damaged = |(path, record): &(PathBuf, RecordInfo)| {
            let range = record.offset..record.offset + u64::from(record.length);
            damage.iter().any(|damage| damage.path == *path && overlap(&damage.range, &range))
        };
        let mut keys: BTreeMap<&[u8], Vec<&(PathBuf, RecordInfo)>> = BTreeMap::new();
        for placed in &self.records {
            keys.entry(&placed.1.key).or_default().push(placed);
        }
        for (key, mut records) in keys {
            records.sort_by_key(|(_, record)| std::cmp::Reverse(record.seqno));
            let found = db.get(key).expect("a get of the new store succeeds");
            let value =
                |record: &RecordInfo| self.values.get(&(key.to_vec(), record.seqno)).cloned();
            let newest = records[0];
            let name = key.escape_ascii();
            // With neither salt nor header nothing in a segment proves anything.
            let has_start = [12..16, 16..41].iter().any(|part| {
                !damage.iter().any(|it| it.path == newest.0 && overlap(&it.range, part))
            });
            // Nor, without a manifest, does anything prove that a last batch was committed whose
            // end is damaged.
            let is_last_batch = repaired.left_out.iter().any(|found| {
                let range = found.offset..found.offset + found.length;
                let holds = found.path == newest.0 && range.contains(&newest.1.offset);
                found.kind == FindingKind::Batch && holds && is_without_manifest(repaired)
            });
            if !is_damaged(newest) && has_start && !is_last_batch {
                let expected = value(&newest.1).filter(|_| newest.1.is_set());
                assert_eq!(
                    found, expected,
                    "{name}, whose newest record is intact: {newest:?}, {damage:?}, {:?}",
                    repaired.left_out
                );
                assert!(!lost.contains(&key), "{name} is not lost");
                if newest.1.is_set() {
                    let expires = db.ttl(key).expect("ttl") != Some(pakv::Ttl::Forever);
                    assert_eq!(expires, newest.1.expires_at_ms.is_some(), "the expiry of {name}");
                }
                continue;
            }
            // Where a hint knew of it, nothing older is shown. Where none did, an older one may be,
            // and the report says that this cannot be known.
            if lost.contains(&key) {
                assert_eq!(found, None, "{name} is lost, and nothing older takes its place");
                continue;
            }
            let hint = newest.0.with_extension("hint");
            let hint_is_whole = hint.exists() && damage.iter().all(|damage| damage.path != hint);
            if hint_is_whole {
                assert!(
                    !newest.1.is_set(),
                    "{name} is lost, and named: {newest:?}, {damage:?}, {:?}",
                    repaired.left_out
                );
                assert_eq!(found, None, "{name} stays deleted");
            } else if found.is_some() {
                let older: Vec<_> = records
                    .iter()
                    .filter(|placed| !is_damaged(placed))
                    .map(|placed| value(&placed.1))
                    .collect();
                assert!(older.contains(&found), "{name} has one of its values");
                assert!(!repaired.doubts.is_empty(), "{name} may be too old, and that is said");
            }
        }
    }
}

fn is_without_manifest(repaired: &pakv::RepairReport) -> bool {
    repaired.left_out.iter().any(|found| found.kind == FindingKind::Manifest)
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

/// A store of a few segments, written, overwritten, deleted from and compacted, then closed.
fn store(rng: &mut Rng) -> Result<Ground> {
    let dir = files::scratch();
    let options = Options::new()
        .segment_bytes([512, 900, 2048, 8192][rng.usize(0..4)])
        .hintless_segments_from(if rng.u8(0..4) == 0 { 0 } else { u64::MAX })
        .durability(if rng.bool() { Durability::Buffered } else { Durability::Sync })
        .compaction_min_garbage(1)
        .background_compaction(false);
    let db = options.open(dir.path())?;
    let mut values = BTreeMap::new();
    for step in 0..rng.usize(20..200) {
        let key = |rng: &mut Rng| format!("key {}", rng.u8(0..40)).into_bytes();
        let value = |rng: &mut Rng| vec![b'a' + (step % 26) as u8; rng.usize(0..120)];
        let before = db.stats()?.seqno;
        let mut batch = WriteBatch::new();
        let mut written = Vec::new();
        for _ in 0..if rng.u8(0..5) == 0 { rng.usize(2..6) } else { 1 } {
            let key = key(rng);
            if rng.u8(0..5) == 0 {
                batch.delete(key.clone());
                written.push((key, None));
                continue;
            }
            let expiry = match rng.u8(0..4) {
                0 => Expiry::At(UNIX_EPOCH + Duration::from_millis(EXPIRES_AT_MS)),
                _ => Expiry::Never,
            };
            let value = value(rng);
            batch.set_with_expiry(key.clone(), value.clone(), expiry);
            written.push((key, Some(value)));
        }
        db.write(&batch)?;
        for ((key, value), seqno) in written.into_iter().zip(before + 1..) {
            if let Some(value) = value {
                values.insert((key, seqno), value);
            }
        }
        match rng.u8(0..40) {
            0 => {
                db.compact()?;
            }
            1..3 => db.maintain()?,
            _ => {}
        }
    }
    db.maintain()?;
    db.close()?;
    let mut records = Vec::new();
    for name in files::names(dir.path(), ".log") {
        let path = dir.path().join(name);
        records.extend(inspect::segment(&path)?.into_iter().map(|record| (path.clone(), record)));
    }
    Ok(Ground { dir, records, values })
}

/// One way in which a file was ruined.
#[derive(Debug)]
struct Damage {
    path: PathBuf,
    /// The bytes that are other ones now, or gone.
    range: Range<u64>,
    /// A check need not name it.
    is_silent: bool,
    is_cut: bool,
}

impl Damage {
    fn is_hint(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "hint")
    }

    /// Whether the file has been cut before the damage, or removed, since.
    fn is_gone(&self) -> bool {
        !std::fs::metadata(&self.path).is_ok_and(|file| file.len() > self.range.start)
    }

    fn make(rng: &mut Rng, dir: &Path) -> Option<Self> {
        let names = files::names(dir, "");
        let name = names.get(rng.usize(0..names.len())).filter(|name| *name != "LOCK")?;
        let path = dir.join(name);
        let mut bytes = files::read(&path);
        let len = bytes.len();
        if len == 0 {
            return None;
        }
        let start = rng.usize(0..len);
        let end = match rng.u8(0..3) {
            0 => start + 1,
            1 => rng.usize(start + 1..=len),
            _ => (start + rng.usize(1..64)).min(len),
        };
        // A hint that is gone is built again.
        match rng.u8(0..8) {
            0 => {
                files::remove(&path);
                let is_silent = name.ends_with(".hint");
                return Some(Self { path, range: 0..len as u64, is_silent, is_cut: true });
            }
            1 => {
                files::cut(&path, start);
                let range = start as u64..len as u64;
                return Some(Self { path, range, is_silent: false, is_cut: true });
            }
            2 => bytes[start..end].fill(0),
            3 => {
                bytes[start] ^= 1 << rng.u8(0..8);
                files::write(&path, &bytes);
                let range = start as u64..start as u64 + 1;
                return Some(Self { path, range, is_silent: false, is_cut: false });
            }
            _ => bytes[start..end].iter_mut().for_each(|byte| *byte = rng.u8(..)),
        }
        // Zeros at the end look like space that was prepared.
        let is_cut = end == len && bytes[start..].iter().all(|byte| *byte == 0);
        // Noise may be what was there before.
        let before = files::read(&path);
        let mut changed = (start..end).filter(|at| before[*at] != bytes[*at]);
        let first = changed.next()?;
        let range = first as u64..changed.next_back().unwrap_or(first) as u64 + 1;
        files::write(&path, &bytes);
        Some(Self { path, range, is_silent: false, is_cut })
    }
}

/// Beside a writer that seals and compacts all the time, a check finds nothing: neither what is
/// just being written nor what is just being replaced is damage.
#[test]
fn a_check_beside_a_live_writer_finds_nothing() {
    let dir = files::scratch();
    let child = env!("CARGO_BIN_EXE_kill_child");
    let seed = fastrand::u64(..).to_string();
    let args = ["write", &dir.path().to_string_lossy(), &seed, "0", "0"].map(str::to_string);
    let mut writer = Writer::start(Command::new(child).args(args));
    while writer.line().is_some_and(|line| line != "open") {}
    let started = Instant::now();
    let mut checks = 0;
    while started.elapsed() < Duration::from_secs(3) || checks < 20 {
        let report = pakv::check(dir.path()).expect("a check runs beside the writer");
        assert!(report.is_sound(), "PAKV_SEED={seed}, check {checks}: {:?}", report.findings);
        checks += 1;
        writer.lines_so_far();
    }
    writer.kill();
    let report = pakv::check(dir.path()).expect("a check runs after the kill");
    assert!(report.is_sound(), "after the kill: {:?}", report.findings);
}

/// What the salt was, the header and the records tell, and what the header was, the records.
#[test]
fn a_segment_whose_start_is_damaged_gives_its_records() {
    for range in [0..16, 8..12, 12..16, 16..41, 20..30] {
        let dir = files::scratch();
        let db = Db::open(dir.path()).expect("open");
        for number in 0..20 {
            db.set(format!("key {number}"), format!("value {number}")).expect("set");
        }
        db.close().expect("close");
        let path = dir.path().join("0000000001.log");
        let mut bytes = files::read(&path);
        bytes[range.clone()].fill(0xee);
        files::write(&path, &bytes);
        let report = pakv::check(dir.path()).expect("check");
        assert!(!report.is_sound(), "{range:?}");
        assert_eq!((report.records, report.keys), (20, 20), "{range:?}: {:?}", report.findings);
        let target = files::scratch();
        let repaired = pakv::repair(dir.path(), target.path()).expect("repair");
        assert_eq!(repaired.keys, 20, "{range:?}");
    }
}
