//! Reading all of a store and comparing everything in it with everything else. Changes nothing,
//! takes no lock, and works beside a live writer, whose unfinished work is no damage.
//!
//! Beside a writer files come and go. A sealed segment does not change, so what is found in one that
//! is still listed is so; whatever else a writer could cause by moving on is looked at again, and
//! is damage when the second look says the same of a manifest that has stayed the same.

mod keydir;
mod report;
mod segment;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

pub use report::{CheckProgress, CheckReport, Finding, FindingKind, LostRecord};

use crate::clock::{Clock, SystemClock, is_expired};
use crate::core::Core;
use crate::db::Db;
use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, SealedSegment};
use crate::format::{MANIFEST_NAME, OwnFile, SegmentId, SeqNo, StoreId, own_file};
use crate::inspect::walk::LogFile;
use crate::keydir::{KeyDir, KeyEntry};
use crate::manifest;
use crate::recovery::Loaded;
use crate::storage::{OsStorage, PathKind, Storage};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{mpsc, thread};
use segment::{Checked, check_active, check_alone, check_sealed};
pub(crate) use segment::{finding, name_lost};

const THREADS_MAX: usize = 8;
/// How often the check looks again where the writer beside it has moved on.
const LOOKS_MAX: usize = 20;

/// Checks the store in the directory `path`: reads everything and changes nothing. Takes no lock,
/// and works while another process, or this one, writes to the store.
///
/// Checked are every record's checksum, sequence numbers and batches, hints against their
/// segments, the manifest against the directory, and that the newest record of each key is known.
/// Damage is not an error: it is in the report. Memory is that of the keydir, and of a segment for
/// each thread where segments are damaged.
///
/// ```
/// use pakv::Db;
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path();
/// let db = Db::open(path)?;
/// db.set("name", "pakv")?;
/// let report = pakv::check(path)?;
/// assert!(report.is_sound());
/// assert_eq!(report.keys, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::NoStore`], [`Error::NotADirectory`]; [`Error::UnknownFormat`] for a store of another
/// version; [`Error::Io`] where the directory cannot be read.
pub fn check(path: impl AsRef<Path>) -> Result<CheckReport> {
    check_with(path, |_| ())
}

/// As [`check`], telling `progress` now and then how far it has come.
///
/// # Errors
/// As [`check`].
pub fn check_with(
    path: impl AsRef<Path>,
    mut progress: impl FnMut(CheckProgress),
) -> Result<CheckReport> {
    let storage: Arc<dyn Storage> = Arc::new(OsStorage::new(path.as_ref()));
    let clock = SystemClock;
    let mut check = Check::new(&*storage, &clock, true, &mut progress);
    check.run(None)?;
    Ok(check.report)
}

impl Db {
    /// Checks the store while it is open: as [`check`](crate::check), and compares what this
    /// handle believes, its keydir and its accounts of live bytes, with what the log says. What is
    /// written meanwhile is left out of that. Writers wait while the keydir is compared, some 0.2
    /// seconds for a million keys.
    ///
    /// ```
    /// use pakv::Db;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// db.set("name", "pakv")?;
    /// assert!(db.check()?.is_sound());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] where the directory cannot be read; [`Error::Closed`].
    pub fn check(&self) -> Result<CheckReport> {
        self.check_with(|_| ())
    }

    /// As [`Db::check`], telling `progress` now and then how far it has come.
    ///
    /// # Errors
    /// As [`Db::check`].
    pub fn check_with(&self, mut progress: impl FnMut(CheckProgress)) -> Result<CheckReport> {
        let core = self.core();
        core.check_open()?;
        let options = &core.options;
        let storage = &*core.storage;
        let mut check = Check::new(storage, &*options.clock, options.background, &mut progress);
        check.run(Some(core))?;
        Ok(check.report)
    }
}

struct Check<'a> {
    storage: &'a dyn Storage,
    clock: &'a dyn Clock,
    /// Segments are read by several threads.
    parallel: bool,
    progress: &'a mut dyn FnMut(CheckProgress),
    done: CheckProgress,
    started: Instant,
    report: CheckReport,
    /// Sealed segments that were read.
    sealed: BTreeMap<SegmentId, Sealed>,
    loaded: Loaded,
    seqnos: SeqNos,
    /// The manifest was replaced meanwhile: segments may have been read that are no longer listed.
    moved: bool,
}

/// A sealed segment that was read.
struct Sealed {
    listed: SealedSegment,
    checked: Checked,
}

/// What one look at the store gave, but for its sealed segments.
#[derive(Default)]
struct Look {
    manifest: Option<Manifest>,
    /// The active segment, and those that could not be opened.
    others: Vec<Checked>,
    unsettled: Vec<Finding>,
}

impl<'a> Check<'a> {
    fn new(
        storage: &'a dyn Storage,
        clock: &'a dyn Clock,
        parallel: bool,
        progress: &'a mut dyn FnMut(CheckProgress),
    ) -> Self {
        let report = CheckReport {
            path: storage.path().to_path_buf(),
            findings: Vec::new(),
            segments: 0,
            records: 0,
            hints: 0,
            bytes_read: 0,
            keys: 0,
            segment_bytes: 0,
            live_bytes: 0,
            tail_bytes: 0,
            orphans: Vec::new(),
            duration: std::time::Duration::ZERO,
        };
        Self {
            storage,
            clock,
            parallel,
            progress,
            done: CheckProgress { bytes_done: 0, bytes_total: 0 },
            started: Instant::now(),
            report,
            sealed: BTreeMap::new(),
            loaded: Loaded::default(),
            seqnos: SeqNos::default(),
            moved: false,
        }
    }

    fn run(&mut self, core: Option<&Core>) -> Result<()> {
        check_is_store(self.storage)?;
        let mut told = None;
        let mut looks = 0;
        let look = loop {
            looks += 1;
            let look = self.look()?;
            if look.unsettled.is_empty() {
                break look;
            }
            let now = manifest::load(self.storage).unwrap_or(None);
            let stayed = now == look.manifest;
            self.moved |= !stayed;
            if (stayed && told.as_ref() == Some(&look.unsettled)) || looks == LOOKS_MAX {
                break look;
            }
            told = Some(look.unsettled);
        };
        self.conclude(look, core)?;
        self.report.duration = self.started.elapsed();
        Ok(())
    }

    /// Reads everything that was not read yet.
    fn look(&mut self) -> Result<Look> {
        let mut look = Look::default();
        match manifest::load(self.storage) {
            Ok(Some(manifest)) => look.manifest = Some(manifest),
            Ok(None) => {
                let place = (0_u32, 0_u32);
                let reason = "it is missing, and there are segments";
                let path = self.storage.path().join(MANIFEST_NAME);
                look.unsettled.push(finding(FindingKind::Manifest, &path, place, reason));
            }
            Err(Error::UnknownFormat { found, supported, path }) => {
                if !self.has_segment_of_this_version()? {
                    return Err(Error::UnknownFormat { found, supported, path });
                }
                let reason = format!("format version {found}; the segments have {supported}");
                look.unsettled.push(finding(FindingKind::Manifest, &path, (8_u32, 4_u32), reason));
            }
            Err(Error::Corrupt { path, offset, reason }) => {
                let file = self.storage.open(MANIFEST_NAME, false);
                let bytes = file.and_then(|file| file.len()).unwrap_or(0);
                let place = (offset, bytes.saturating_sub(offset));
                look.unsettled.push(finding(FindingKind::Manifest, &path, place, reason));
            }
            Err(error) => return Err(error),
        }
        match look.manifest.clone() {
            Some(manifest) => self.look_at_listed(&manifest, &mut look)?,
            None => self.look_at_all(&mut look)?,
        }
        Ok(look)
    }

    fn look_at_listed(&mut self, manifest: &Manifest, look: &mut Look) -> Result<()> {
        let mut there = HashSet::new();
        for file in self.own_files()? {
            if let OwnFile::Log(id) | OwnFile::Hint(id) = file {
                there.insert(id);
            }
        }
        let is_new = |listed: &&SealedSegment| {
            self.sealed.get(&listed.segment).is_none_or(|sealed| sealed.listed != **listed)
        };
        let mut wanted: Vec<SealedSegment> =
            manifest.sealed.iter().filter(is_new).copied().collect();
        wanted.sort_by_key(|listed| listed.segment);
        // A manifest can list any number of segments that are not there.
        let gone = wanted.extract_if(.., |listed| !there.contains(&listed.segment));
        for listed in gone {
            let path = self.storage.path().join(listed.segment.log_name());
            let (place, reason) = ((0_u32, listed.bytes), "the segment is not there");
            look.unsettled.push(finding(FindingKind::Missing, &path, place, reason));
        }
        let bytes: u64 = wanted.iter().map(|listed| u64::from(listed.bytes)).sum();
        let active_bytes = manifest.active.map_or(0, |active| u64::from(active.synced_bytes));
        self.done.bytes_total = self.done.bytes_done + bytes + active_bytes;
        for (listed, mut checked) in self.check_all(manifest.store, &wanted) {
            if checked.unsettled.is_empty() {
                self.sealed.insert(listed.segment, Sealed { listed, checked });
            } else {
                // It could not be opened, and is looked for again.
                look.unsettled.append(&mut checked.unsettled);
                look.others.push(checked);
            }
        }
        if let Some(active) = manifest.active {
            let progress = |_: u64| ();
            let mut checked = check_active(self.storage, manifest.store, active, &progress);
            look.unsettled.append(&mut checked.unsettled);
            look.others.push(checked);
        }
        Ok(())
    }

    /// Without a manifest each segment is looked at by itself, and so is a hint without one.
    fn look_at_all(&mut self, look: &mut Look) -> Result<()> {
        let mut ids = BTreeSet::new();
        for file in self.own_files()? {
            if let OwnFile::Log(id) | OwnFile::Hint(id) = file {
                ids.insert(id);
            }
        }
        for id in ids {
            let mut checked = check_alone(self.storage, id);
            look.unsettled.append(&mut checked.unsettled);
            look.others.push(checked);
        }
        Ok(())
    }

    /// Checks sealed segments, by several threads, and gives what they found in the order asked
    /// for.
    fn check_all(
        &mut self,
        store: StoreId,
        wanted: &[SealedSegment],
    ) -> Vec<(SealedSegment, Checked)> {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.min(wanted.len()).min(THREADS_MAX);
        let storage = self.storage;
        if threads < 2 || !self.parallel {
            let check = |listed: &SealedSegment| {
                let mut checked = check_sealed(storage, store, listed, &|_| ());
                self.take_settled(&mut checked);
                self.done.bytes_done += u64::from(listed.bytes);
                (self.progress)(self.done);
                (*listed, checked)
            };
            return wanted.iter().map(check).collect();
        }
        let mut found: Vec<(SealedSegment, Checked)> = Vec::new();
        let next = AtomicUsize::new(0);
        let (sender, receiver) = mpsc::sync_channel(threads);
        thread::scope(|scope| {
            for _ in 0..threads {
                let (sender, next) = (sender.clone(), &next);
                scope.spawn(move || {
                    while let Some(listed) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let progress = |bytes| drop(sender.send(Told::Bytes(bytes)));
                        let checked = check_sealed(storage, store, listed, &progress);
                        if sender.send(Told::Checked(*listed, Box::new(checked))).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(sender);
            for told in receiver {
                match told {
                    Told::Bytes(bytes) => {
                        self.done.bytes_done += bytes;
                        (self.progress)(self.done);
                    }
                    Told::Checked(listed, mut checked) => {
                        self.take_settled(&mut checked);
                        found.push((listed, *checked));
                    }
                }
            }
        });
        found.sort_by_key(|(listed, _)| listed.segment);
        found
    }

    /// Takes the keys of a segment in, unless it is to be looked at again.
    fn take_settled(&mut self, checked: &mut Checked) {
        if checked.unsettled.is_empty() {
            self.take_keys(checked);
        }
    }

    fn take_keys(&mut self, checked: &mut Checked) {
        let gathered = std::mem::take(&mut checked.gathered);
        if let Some(id) = checked.id {
            self.loaded.add_all(id, &gathered);
            self.seqnos.add(gathered.records().map(|entry| entry.seqno));
        }
    }

    /// Puts the findings and figures together, and compares them with what an open store believes.
    fn conclude(&mut self, look: Look, core: Option<&Core>) -> Result<()> {
        let Look { manifest, mut others, unsettled } = look;
        let sealed_max = manifest.iter().flat_map(|manifest| &manifest.sealed);
        let sealed_max = sealed_max.map(|listed| listed.max_seqno).max().unwrap_or(0);
        for checked in &mut others {
            let first = checked.gathered.seqnos.min;
            let active = manifest.as_ref().and_then(|manifest| manifest.active);
            let is_active = active.is_some_and(|active| checked.id == Some(active.segment));
            if is_active && first <= sealed_max {
                let id = checked.id.map_or_else(String::new, SegmentId::log_name);
                let reason = format!(
                    "its sequence numbers begin at {first}, and a sealed segment has {sealed_max}"
                );
                let path = self.storage.path().join(id);
                let found = finding(FindingKind::Order, &path, (0_u32, 0_u32), reason);
                self.report.findings.push(found);
            }
            self.take_keys(checked);
        }
        let listed: BTreeMap<SegmentId, &SealedSegment> = manifest
            .iter()
            .flat_map(|manifest| &manifest.sealed)
            .map(|listed| (listed.segment, listed))
            .collect();
        self.sealed.retain(|id, sealed| listed.get(id) == Some(&&sealed.listed));
        self.report.findings.extend(unsettled);
        for checked in self.sealed.values().map(|sealed| &sealed.checked).chain(&others) {
            self.report.segments += 1;
            self.report.records += checked.records;
            self.report.hints += u64::from(checked.has_hint);
            self.report.bytes_read += checked.bytes_read;
            self.report.segment_bytes += checked.bytes;
            self.report.tail_bytes += checked.tail_bytes;
            self.report.findings.extend_from_slice(&checked.findings);
        }
        if let (false, Some(seqno)) = (self.moved, self.seqnos.twice)
            && manifest.is_some()
        {
            let path = self.storage.path().join(MANIFEST_NAME);
            let reason = format!("two records of its segments have sequence number {seqno}");
            let found = finding(FindingKind::Order, &path, (0_u32, 0_u32), reason);
            self.report.findings.push(found);
        }
        // Sequence numbers of tombstones that compaction has dropped were given out as well.
        let given_out =
            manifest.as_ref().map_or(0, |manifest| manifest.next_seqno.saturating_sub(1));
        let seen = self.loaded.newest_seqno.max(given_out);
        let active = manifest.iter().filter_map(|manifest| Some(manifest.active?.segment));
        let listed: HashSet<SegmentId> = listed.into_keys().chain(active).collect();
        if self.moved && manifest.is_some() {
            // What deleted their keys may have been compacted away with them, unread.
            self.loaded.keep_keys(&listed);
        }
        let (keydir, _) = std::mem::take(&mut self.loaded).into_parts();
        name_newest(&mut self.report.findings, &keydir);
        self.count(&keydir);
        self.report.orphans = self.orphans(manifest.as_ref())?;
        if let (Some(core), Some(_), true) = (core, &manifest, self.report.is_sound()) {
            let log = keydir::Log {
                keydir: &keydir,
                seen,
                listed,
                tombstone_bytes: self.tombstone_bytes(&others),
                moved: self.moved,
            };
            self.report.findings.extend(log.compare(core));
        }
        // By the bytes of the path: to compare part by part takes long.
        self.report.findings.sort_by(|one, other| {
            let key = |found: &Finding| (found.offset, found.kind);
            let paths = one.path.as_os_str().cmp(other.path.as_os_str());
            paths.then_with(|| key(one).cmp(&key(other)))
        });
        Ok(())
    }

    fn tombstone_bytes(&self, others: &[Checked]) -> HashMap<SegmentId, u64> {
        let sealed = self.sealed.iter().map(|(id, sealed)| (*id, sealed.checked.tombstone_bytes));
        let others =
            others.iter().filter_map(|checked| Some((checked.id?, checked.tombstone_bytes)));
        sealed.chain(others).collect()
    }

    fn count(&mut self, keydir: &KeyDir) {
        let now_ms = self.clock.now_ms();
        keydir.for_each(|_, entry| {
            if !is_expired(entry.expires_at_ms(), now_ms) {
                self.report.keys += 1;
                self.report.live_bytes += u64::from(entry.location.length);
            }
        });
    }

    fn own_files(&self) -> Result<Vec<OwnFile>> {
        let names = self.storage.list().map_err(Error::io("list", self.storage.path()))?;
        Ok(names.iter().filter_map(|name| own_file(name.to_str()?)).collect())
    }

    fn has_segment_of_this_version(&self) -> Result<bool> {
        let is_known = |file: &OwnFile| match file {
            OwnFile::Log(id) => LogFile::open(self.storage, *id)
                .is_ok_and(|log| log.header.is_some() && log.unknown_version.is_none()),
            _ => false,
        };
        Ok(self.own_files()?.iter().any(is_known))
    }

    fn orphans(&self, manifest: Option<&Manifest>) -> Result<Vec<String>> {
        let Some(manifest) = manifest else { return Ok(Vec::new()) };
        let sealed: BTreeSet<SegmentId> =
            manifest.sealed.iter().map(|listed| listed.segment).collect();
        let active = manifest.active.map(|active| active.segment);
        let names = self.storage.list().map_err(Error::io("list", self.storage.path()))?;
        let names = names.iter().filter_map(|name| name.to_str());
        let mut orphans: Vec<String> = names
            .filter(|name| match own_file(name) {
                Some(OwnFile::Log(id)) => !sealed.contains(&id) && active != Some(id),
                Some(OwnFile::Hint(id)) => !sealed.contains(&id),
                Some(OwnFile::Temporary) => true,
                None => false,
            })
            .map(str::to_string)
            .collect();
        orphans.sort();
        Ok(orphans)
    }
}

/// Tells which of the lost records were the newest of their keys.
pub(crate) fn name_newest(findings: &mut [Finding], keydir: &KeyDir) {
    for found in findings {
        let id = found.segment();
        for lost in &mut found.records {
            // A copy of it elsewhere may be whole.
            let is_here = |newest: KeyEntry| {
                u64::from(newest.location.offset) == lost.record.offset
                    && id.is_none_or(|id| id == newest.location.segment)
            };
            lost.is_newest = match keydir.get(&lost.record.key) {
                Some(newest) => newest.seqno == lost.record.seqno && is_here(newest),
                None => !lost.record.is_set(),
            };
        }
    }
}

/// What a thread that checks segments says.
enum Told {
    Bytes(u64),
    Checked(SealedSegment, Box<Checked>),
}

/// Which sequence numbers were seen: a bit each.
#[derive(Default)]
pub(crate) struct SeqNos {
    seen: HashMap<SeqNo, u64>,
    /// One that was there twice.
    pub(crate) twice: Option<SeqNo>,
}

impl SeqNos {
    pub(crate) fn add(&mut self, seqnos: impl Iterator<Item = SeqNo>) {
        for seqno in seqnos {
            let bits = self.seen.entry(seqno / 64).or_default();
            let bit = 1 << (seqno % 64);
            if *bits & bit != 0 && self.twice.is_none() {
                self.twice = Some(seqno);
            }
            *bits |= bit;
        }
    }
}

/// A directory is a store's if it has a manifest or segments.
pub(crate) fn check_is_store(storage: &dyn Storage) -> Result<()> {
    let path = storage.path();
    match storage.kind().map_err(Error::io("open", path))? {
        PathKind::Directory => {}
        PathKind::Absent => return Err(Error::NoStore { path: path.to_path_buf() }),
        PathKind::Other => return Err(Error::NotADirectory { path: path.to_path_buf() }),
    }
    let names = storage.list().map_err(Error::io("list", path))?;
    let is_segment = |name: &std::ffi::OsString| {
        matches!(name.to_str().and_then(own_file), Some(OwnFile::Log(_) | OwnFile::Hint(_)))
    };
    let has_manifest = || match storage.open(MANIFEST_NAME, false) {
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        Ok(_) => true,
    };
    if names.iter().any(is_segment) || has_manifest() {
        return Ok(());
    }
    Err(Error::NoStore { path: path.to_path_buf() })
}
