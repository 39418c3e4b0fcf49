//! Bringing everything that is provably good over from a damaged store to a new one.
//!
//! Invariants: nothing of the source is written or created, nor is its lock kept. A record is brought over only
//! if its checksum is right, and only if no record of the same key is known that is newer: neither
//! an intact one nor one that a hint knows of. So what was deleted stays deleted, and a key whose
//! newest value is lost is left out rather than given an older one.
//!
//! Two passes over the segments: one that finds the newest record of each key, with keys alone in
//! memory, and one that copies.

mod report;
mod source;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

pub use report::{RepairProgress, RepairReport};

use crate::check::{FindingKind, SeqNos, check_is_store, name_newest};
use crate::clock::{Clock, Expiry, SystemClock, is_expired};
use crate::db::Db;
use crate::error::{Error, Result};
use crate::format::manifest::SEALED_MAX;
use crate::format::record::{Op, Record};
use crate::format::{LOCK_NAME, Location};
use crate::inspect::walk::{Item, LogFile};
use crate::keydir::KeyDir;
use crate::options::{Durability, Options};
use crate::recovery::{Gathered, Loaded};
use crate::storage::{OsStorage, Storage, may_become_store};
use source::Source;

/// Reads the store in the directory `source`, in whatever state it is, and makes a new one of
/// everything in it that is provably good in the directory `target`, which must not exist or be
/// empty. Nothing of the source is written, and its lock is not kept: where another handle has it
/// open for writing, which may remove what is to be read, the report says so among its doubts.
///
/// Of each key the newest record by sequence number is brought over, with its expiry, unless it is
/// a tombstone. A key whose newest record is damaged is left out, if a hint tells of it, and not
/// given an older value. The report lists every range of bytes that was left out, and the keys that
/// are known to have stood there. Where no hint tells, what such a range held cannot be known: a
/// delete in it is forgotten, and the value before it is brought over. The report says so.
///
/// Batches: one that damage has cut is brought over as far as it is intact, because to leave its
/// rest out as well would bring back what that has overwritten or deleted. The last batch of the
/// log, if it has no end, was never committed as far as anybody can tell, and is left out.
///
/// Without a manifest all segments of the store are read. Segments that a compaction had replaced,
/// if a crash left some of them behind, cannot be told from the others then, and could bring back
/// what was deleted before that compaction; the report says so where it may be the case.
///
/// The new store is complete when this returns; what an error leaves behind is not.
///
/// ```
/// use pakv::Db;
///
/// # let dir = tempfile::tempdir()?;
/// # let (damaged, new) = (dir.path().join("damaged"), dir.path().join("new"));
/// let db = Db::open(&damaged)?;
/// db.set("name", "pakv")?;
/// db.close()?;
/// std::fs::remove_file(damaged.join("MANIFEST"))?;
/// let report = pakv::repair(&damaged, &new)?;
/// assert_eq!(report.keys, 1);
/// assert_eq!(Db::open(&new)?.get("name")?.as_deref(), Some(&b"pakv"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::NoStore`], [`Error::NotADirectory`]; [`Error::UnknownFormat`] for a store of another
/// version; [`Error::Corrupt`] where there are more segments than a store can have; [`Error::Io`]
/// where the target is not empty, lies inside the source, or cannot be written.
pub fn repair(source: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<RepairReport> {
    repair_with(source, target, |_| ())
}

/// As [`repair`], telling `progress` now and then how far it has come.
///
/// # Errors
/// As [`repair`].
pub fn repair_with(
    source: impl AsRef<Path>,
    target: impl AsRef<Path>,
    mut progress: impl FnMut(RepairProgress),
) -> Result<RepairReport> {
    let started = Instant::now();
    let (source, target) = (source.as_ref(), target.as_ref());
    let files = OsStorage::new(source);
    // Not to know is as good as not: it is a hint to a person.
    let is_in_use = files.is_locked(LOCK_NAME).unwrap_or(false);
    let storage: Arc<dyn Storage> = Arc::new(files);
    check_is_store(&*storage)?;
    may_become_store(target, source).map_err(Error::io("repair into", target))?;
    let found = Source::find(&*storage)?;
    let segments = found.segments.len() + found.left_out.len();
    // The keydir can tell no more of them apart.
    if segments > 2 * SEALED_MAX {
        let reason = format!("it holds {segments} segments, more than any store has");
        return Err(Error::corrupt(source, 0, reason));
    }
    let mut repair = Repair::new(source, target, found, &mut progress);
    if is_in_use {
        repair.report.doubts.push(IN_USE.to_string());
    }
    let keydir = repair.find_newest(&*storage)?;
    repair.copy(&*storage, &keydir)?;
    repair.report.duration = started.elapsed();
    Ok(repair.report)
}

const IN_USE: &str = "the store was open for writing meanwhile: what was written, deleted or \
    compacted since the repair began may be missing or may not be. End that process and repair \
    again; a store that is sound is copied by a backup";

struct Repair<'a> {
    found: Source,
    report: RepairReport,
    progress: &'a mut dyn FnMut(RepairProgress),
    done: RepairProgress,
}

impl<'a> Repair<'a> {
    fn new(
        source: &Path,
        target: &Path,
        mut found: Source,
        progress: &'a mut dyn FnMut(RepairProgress),
    ) -> Self {
        let bytes = found.segments.iter().map(|segment| u64::from(segment.bytes));
        let done = RepairProgress { bytes_done: 0, bytes_total: 2 * bytes.sum::<u64>() };
        let report = RepairReport {
            source: source.to_path_buf(),
            target: target.to_path_buf(),
            keys: 0,
            expired: 0,
            segments: found.segments.len() as u64,
            records: 0,
            bytes_read: 0,
            bytes_written: 0,
            left_out: std::mem::take(&mut found.left_out),
            hints: Vec::new(),
            orphans: std::mem::take(&mut found.orphans),
            doubts: Vec::new(),
            duration: Duration::ZERO,
        };
        Self { found, report, progress, done }
    }

    /// The first pass: which record of each key is the newest.
    fn find_newest(&mut self, storage: &dyn Storage) -> Result<KeyDir> {
        let mut loaded = Loaded::default();
        let mut lost: Vec<(usize, Gathered)> = Vec::new();
        let mut seqnos = SeqNos::default();
        let mut unknown = self.found.unknown;
        for (index, segment) in self.found.segments.iter().enumerate() {
            let salvaged = segment.salvage(storage, self.found.store, &|_| ())?;
            self.report.records += salvaged.intact.len() as u64;
            self.report.bytes_read += u64::from(segment.bytes) + salvaged.hint_bytes;
            self.report.left_out.extend(salvaged.left_out);
            self.report.hints.extend(salvaged.hint_faults);
            unknown += u64::from(salvaged.is_unknown);
            seqnos.add(salvaged.intact.records().map(|entry| entry.seqno));
            loaded.add_all(segment.id, &salvaged.intact);
            if salvaged.lost.len() > 0 {
                lost.push((index, salvaged.lost));
            }
            self.done.bytes_done += u64::from(segment.bytes);
            (self.progress)(self.done);
        }
        // Behind all that is intact: a copy of the same record in another segment is as good.
        for (index, gathered) in &lost {
            if let Some(segment) = self.found.segments.get(*index) {
                loaded.add_lost(segment.id, gathered);
            }
        }
        self.add_missing(&mut loaded);
        let (keydir, _) = loaded.into_parts();
        name_newest(&mut self.report.left_out, &keydir);
        self.doubt(unknown, seqnos.twice.is_some());
        Ok(keydir)
    }

    /// What hints know of segments that are not there, or are other ones, shadows what is older.
    fn add_missing(&self, loaded: &mut Loaded) {
        for found in &self.report.left_out {
            if matches!(found.kind, FindingKind::Missing | FindingKind::Header)
                && let Some(id) = found.segment()
            {
                let mut gathered = Gathered::default();
                found.records.iter().for_each(|lost| gathered.add(&lost.record.hint_entry()));
                loaded.add_lost(id, &gathered);
            }
        }
    }

    fn doubt(&mut self, unknown: u64, has_copies: bool) {
        if unknown > 0 {
            self.report.doubts.push(format!(
                "no hint covers the damage in {unknown} of the segments, so that what stood there is \
                 not known: a key that was overwritten or deleted there may have come over with \
                 its value from before"
            ));
        }
        if !self.found.has_manifest {
            self.report.doubts.push(
                "there was no manifest: a segment that is missing as a whole is not noticed"
                    .to_string(),
            );
        }
        if has_copies {
            self.report.doubts.push(
                "two segments hold the same records, so a compaction was interrupted: a key that \
                 was deleted before it may be back"
                    .to_string(),
            );
        }
    }

    /// The second pass: copies the newest records.
    fn copy(&mut self, storage: &dyn Storage, keydir: &KeyDir) -> Result<()> {
        let options = Options::new().durability(Durability::Buffered);
        let target = options.open(&self.report.target)?;
        let now_ms = SystemClock.now_ms();
        for segment in &self.found.segments {
            let report = &mut self.report;
            LogFile::open(storage, segment.id)?.walk(segment.end, &mut |item| match item {
                Item::Record { offset, length, record } => {
                    let location = Location { segment: segment.id, offset, length };
                    copy_record(&target, keydir, location, &record, now_ms, report)
                }
                Item::Damaged { .. } | Item::Zeros { .. } => Ok(()),
            })?;
            self.done.bytes_done += u64::from(segment.bytes);
            (self.progress)(self.done);
        }
        target.sync()?;
        target.close()
    }
}

/// Copies a record if it is the newest of its key.
fn copy_record(
    target: &Db,
    keydir: &KeyDir,
    location: Location,
    record: &Record<'_>,
    now_ms: u64,
    report: &mut RepairReport,
) -> Result<()> {
    let Op::Set { expires_at_ms, key, value } = record.op else { return Ok(()) };
    let is_newest =
        |entry: crate::keydir::KeyEntry| (entry.location, entry.seqno) == (location, record.seqno);
    if !keydir.get(key).is_some_and(is_newest) {
        return Ok(());
    }
    if is_expired(expires_at_ms, now_ms) {
        report.expired += 1;
        return Ok(());
    }
    let expiry = match expires_at_ms {
        Some(at) => Expiry::At(UNIX_EPOCH + Duration::from_millis(at)),
        None => Expiry::Never,
    };
    target.set_with_expiry(key, value, expiry)?;
    report.keys += 1;
    report.bytes_written += (key.len() + value.len()) as u64;
    Ok(())
}
