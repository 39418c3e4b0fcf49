//! What of a damaged store may be read, and what its intact records and its hints say.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::check::{Finding, FindingKind, LostRecord, finding, name_lost};
use crate::error::{Error, Result};
use crate::format::hint::HintEntry;
use crate::format::manifest::{Manifest, SealedSegment};
use crate::format::record::SegmentHeader;
use crate::format::{MANIFEST_NAME, OwnFile, SegmentId, StoreId, own_file};
use crate::inspect::hint_info;
use crate::inspect::scan::{Hole, ReadHint, Scanned, compare};
use crate::inspect::walk::LogFile;
use crate::manifest;
use crate::recovery::Gathered;
use crate::storage::Storage;

/// The segments of a damaged store, and what is left out before any of them is read.
pub(super) struct Source {
    pub(super) store: Option<StoreId>,
    pub(super) segments: Vec<Segment>,
    pub(super) has_manifest: bool,
    pub(super) left_out: Vec<Finding>,
    pub(super) orphans: Vec<String>,
    /// Segments that are left out as a whole, with no hint that tells what stood there.
    pub(super) unknown: u64,
}

/// A log file in the directory. It is not kept open: there may be more than a process may have.
struct Found {
    id: SegmentId,
    path: PathBuf,
    bytes: u32,
    header: Option<SegmentHeader>,
    is_known_version: bool,
}

/// One segment that is to be read.
pub(super) struct Segment {
    pub(super) id: SegmentId,
    /// The length of its file.
    pub(super) bytes: u32,
    /// Where its records end at the latest.
    pub(super) end: u32,
    /// How far the manifest says that it was durable.
    synced: u32,
    sealed: Option<SealedSegment>,
}

/// What a segment gave.
pub(super) struct Salvaged {
    /// Records that may be brought over, if they are the newest of their keys.
    pub(super) intact: Gathered,
    /// Records that were lost, as the hint tells them.
    pub(super) lost: Gathered,
    pub(super) left_out: Vec<Finding>,
    pub(super) hint_faults: Vec<Finding>,
    pub(super) hint_bytes: u64,
    /// Bytes were left out, and no hint tells what stood there.
    pub(super) is_unknown: bool,
}

impl Source {
    /// Finds the segments: those that the manifest lists or, without one, those of the store that
    /// most of the files belong to.
    ///
    /// # Errors
    /// [`Error::Io`] where the directory cannot be read; [`Error::UnknownFormat`] where everything
    /// in it is of another version.
    pub(super) fn find(storage: &dyn Storage) -> Result<Self> {
        let names = storage.list().map_err(Error::io("list", storage.path()))?;
        let mut names: Vec<&str> = names.iter().filter_map(|name| name.to_str()).collect();
        names.sort_unstable();
        let mut left_out = Vec::new();
        let mut logs: Vec<Found> = Vec::new();
        for name in &names {
            let Some(OwnFile::Log(id)) = own_file(name) else { continue };
            match LogFile::open(storage, id) {
                Ok(log) => logs.push(Found::new(id, log)),
                Err(error) => {
                    let path = storage.path().join(name);
                    left_out.push(whole_file(&path, 0, FindingKind::Missing, error.to_string()));
                }
            }
        }
        let of_hint = |name: &&str| match own_file(name) {
            Some(OwnFile::Hint(id)) => ReadHint::store_of(storage, id),
            _ => None,
        };
        let majority = majority(&logs).or_else(|| names.iter().find_map(of_hint));
        let manifest = match load_manifest(storage, &logs) {
            Ok(manifest) => manifest.filter(|manifest| {
                let is_ours = majority.is_none_or(|store| store == manifest.store)
                    || logs.iter().any(|log| log.store() == Some(manifest.store));
                if !is_ours {
                    let reason = "it is another store's than the segments beside it";
                    left_out.push(manifest_finding(storage, 0, reason.to_string()));
                }
                is_ours
            }),
            Err(Error::Corrupt { offset, reason, .. }) => {
                left_out.push(manifest_finding(storage, offset, reason));
                None
            }
            Err(error) => return Err(error),
        };
        let store = manifest.as_ref().map(|manifest| manifest.store).or(majority);
        let mut source = Self {
            store,
            segments: Vec::new(),
            has_manifest: manifest.is_some(),
            left_out,
            orphans: Vec::new(),
            unknown: 0,
        };
        match &manifest {
            Some(manifest) => source.take_listed(storage, manifest, logs, &names),
            None => source.take_all(storage, logs, &names),
        }
        Ok(source)
    }

    fn take_listed(
        &mut self,
        storage: &dyn Storage,
        manifest: &Manifest,
        logs: Vec<Found>,
        names: &[&str],
    ) {
        let mut listed: HashMap<SegmentId, (Option<SealedSegment>, u32)> = HashMap::new();
        for sealed in &manifest.sealed {
            listed.insert(sealed.segment, (Some(*sealed), sealed.bytes));
        }
        if let Some(active) = manifest.active {
            listed.insert(active.segment, (None, active.synced_bytes));
        }
        let is_listed = |name: &&&str| match own_file(name) {
            Some(OwnFile::Log(id) | OwnFile::Hint(id)) => listed.contains_key(&id),
            Some(OwnFile::Temporary) => false,
            None => true,
        };
        let orphans = names.iter().filter(|name| !is_listed(name));
        self.orphans = orphans.map(|name| (*name).to_string()).collect();
        for log in logs {
            let Some((sealed, synced)) = listed.remove(&log.id) else { continue };
            self.take(storage, &log, sealed, synced);
        }
        let mut missing: Vec<_> = listed.into_iter().collect();
        missing.sort_unstable_by_key(|(id, _)| *id);
        for (id, (sealed, synced)) in missing {
            let name = id.log_name();
            let path = storage.path().join(&name);
            // One that is there and cannot be opened was told of.
            let told = self.left_out.iter().position(|found| found.path == path);
            let found = told.map(|told| self.left_out.remove(told)).unwrap_or_else(|| {
                let reason = "the manifest lists this segment and it is not there";
                whole_file(&path, synced.into(), FindingKind::Missing, reason)
            });
            let segment_bytes = sealed.map(|sealed| sealed.bytes);
            if names.binary_search(&id.hint_name().as_str()).is_ok() {
                self.miss(storage, id, segment_bytes, found);
            } else {
                self.unknown += 1;
                self.left_out.push(found);
            }
        }
    }

    fn take_all(&mut self, storage: &dyn Storage, logs: Vec<Found>, names: &[&str]) {
        let there: HashSet<SegmentId> = logs.iter().map(|log| log.id).collect();
        for name in names {
            if let Some(OwnFile::Hint(id)) = own_file(name)
                && !there.contains(&id)
            {
                let path = storage.path().join(id.log_name());
                let reason = "its hint is there, and the segment is not";
                let found = whole_file(&path, 0, FindingKind::Missing, reason);
                self.miss(storage, id, None, found);
            }
        }
        for log in logs {
            self.take(storage, &log, None, 0);
        }
    }

    /// A segment is not there; its hint may be.
    fn miss(
        &mut self,
        storage: &dyn Storage,
        id: SegmentId,
        segment_bytes: Option<u32>,
        mut found: Finding,
    ) {
        let hint = self.store.and_then(|store| ReadHint::read(storage, store, id, segment_bytes));
        self.unknown += u64::from(!hint.as_ref().is_some_and(ReadHint::is_whole));
        if let Some(hint) = hint {
            found.records = hint.entries.records().map(|entry| lost(&entry)).collect();
        }
        self.left_out.push(found);
    }

    /// Takes a segment unless its header says that it is another.
    fn take(
        &mut self,
        storage: &dyn Storage,
        log: &Found,
        sealed: Option<SealedSegment>,
        synced: u32,
    ) {
        let is_other = log.header.as_ref().is_some_and(|header| {
            header.segment != log.id || self.store.is_some_and(|store| store != header.store)
        });
        if is_other {
            let reason = "it belongs to another store or place";
            let found = whole_file(&log.path, log.bytes.into(), FindingKind::Header, reason);
            if self.has_manifest {
                // The hint may be of the one that ought to be there.
                let segment_bytes = sealed.map(|sealed| sealed.bytes);
                self.miss(storage, log.id, segment_bytes, found);
            } else {
                self.left_out.push(found);
            }
        } else {
            let end = sealed.map_or(u32::MAX, |sealed| sealed.bytes);
            self.segments.push(Segment { id: log.id, bytes: log.bytes, end, synced, sealed });
        }
    }
}

impl Found {
    fn new(id: SegmentId, log: LogFile) -> Self {
        let is_known_version = log.header.is_some() && log.unknown_version.is_none();
        Self { id, path: log.path, bytes: log.bytes, header: log.header, is_known_version }
    }

    fn store(&self) -> Option<StoreId> {
        self.header.as_ref().map(|header| header.store)
    }
}

impl Segment {
    /// Reads the segment and its hint, whatever state they are in.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be opened any more. What cannot be read is left out.
    pub(super) fn salvage(
        &self,
        storage: &dyn Storage,
        store: Option<StoreId>,
        progress: &dyn Fn(u64),
    ) -> Result<Salvaged> {
        let log = &LogFile::open(storage, self.id)?;
        let scanned = Scanned::read(log, self.end, progress)?;
        let segment_bytes = self.sealed.map(|sealed| sealed.bytes);
        let hint = store.and_then(|store| ReadHint::read(storage, store, self.id, segment_bytes));
        let mut salvaged = Salvaged {
            intact: Gathered::default(),
            lost: Gathered::default(),
            left_out: Vec::new(),
            hint_faults: Vec::new(),
            hint_bytes: hint.as_ref().map_or(0, |hint| hint.bytes),
            is_unknown: false,
        };
        for (offset, length, reason) in &log.damage {
            let place = (*offset, *length);
            salvaged.leave_out(finding(FindingKind::Header, &log.path, place, reason.as_str()));
        }
        // A segment that has a hint was sealed: all of it was durable.
        let durable = if self.sealed.is_some() || hint.is_some() {
            u32::MAX
        } else {
            self.synced.max(scanned.vouched).max(log.first_record)
        };
        for hole in &scanned.holes {
            // Space that was prepared for records to come is no loss.
            if !(hole.zeros && hole.offset >= durable) {
                salvaged.leave_out(hole_finding(&log.path, hole));
            }
        }
        let of_hint = hint.as_ref().and_then(|hint| hint.segment_bytes).unwrap_or(0);
        let expected = if self.sealed.is_some() { self.end } else { self.synced.max(of_hint) };
        if log.bytes < expected {
            let reason = format!("it has {} bytes and should have {expected}", log.bytes);
            let place = (log.bytes, expected - log.bytes);
            salvaged.leave_out(finding(FindingKind::Length, &log.path, place, reason));
        }
        if log.bytes > self.end {
            let place = (self.end, log.bytes - self.end);
            let reason = "bytes follow the end";
            salvaged.leave_out(finding(FindingKind::Length, &log.path, place, reason));
        }
        salvaged.keep(&scanned, durable, &log.path);
        salvaged.is_unknown = !salvaged.left_out.is_empty();
        if let Some(hint) = hint {
            salvaged.consult(&hint, &scanned, log);
        }
        Ok(salvaged)
    }
}

impl Salvaged {
    fn leave_out(&mut self, found: Finding) {
        self.left_out.push(found);
    }

    /// Keeps every record but those of a last batch that has no end, where nothing says that it was
    /// durable: it may never have been committed.
    ///
    /// Of any other batch each intact record is kept, whatever happened to the rest. Something was
    /// written behind it, so it was committed, and to leave a part of it out would bring back what
    /// that part has overwritten or deleted.
    fn keep(&mut self, scanned: &Scanned, durable: u32, path: &Path) {
        let open = scanned.open_batch.filter(|(offset, _)| *offset >= durable);
        let kept = open.map_or(scanned.records.len(), |(_, before)| before);
        scanned.records.records().take(kept).for_each(|entry| self.intact.add(&entry));
        if let Some((offset, _)) = open {
            let place = (offset, scanned.records_end - offset);
            let reason = "the last batch has no end, and nothing says that it was ever committed";
            let mut found = finding(FindingKind::Batch, path, place, reason);
            found.records =
                scanned.records.records().skip(kept).map(|entry| lost(&entry)).collect();
            self.leave_out(found);
        }
    }

    /// Names what was lost, if the hint is to be trusted.
    fn consult(&mut self, hint: &ReadHint, scanned: &Scanned, log: &LogFile) {
        for (offset, length, reason) in &hint.faults {
            let place = (*offset, *length);
            let fault = finding(FindingKind::Hint, &hint.path, place, reason.as_str());
            self.hint_faults.push(fault);
        }
        let positions = match compare(&hint.entries, scanned, log.first_record) {
            Ok(positions) => positions,
            Err(offset) => {
                let reason =
                    format!("it disagrees with its segment about the record at byte {offset}");
                let place = (0_u32, hint.bytes);
                self.hint_faults.push(finding(FindingKind::Hint, &hint.path, place, reason));
                return;
            }
        };
        self.is_unknown &= !hint.is_whole();
        let Self { left_out, lost, .. } = self;
        name_lost(left_out, &hint.entries, &positions, |entry| lost.add(entry));
    }
}

fn lost(entry: &HintEntry<'_>) -> LostRecord {
    LostRecord { record: hint_info(entry), is_newest: false }
}

fn hole_finding(path: &Path, hole: &Hole) -> Finding {
    let place = (hole.offset, hole.length);
    finding(FindingKind::Record, path, place, hole.reason.as_str())
}

fn whole_file(path: &Path, bytes: u64, kind: FindingKind, reason: impl Into<String>) -> Finding {
    finding(kind, path, (0_u32, bytes), reason)
}

fn manifest_finding(storage: &dyn Storage, offset: u64, reason: String) -> Finding {
    let path = storage.path().join(MANIFEST_NAME);
    finding(FindingKind::Manifest, &path, (offset, 0_u32), reason)
}

/// The manifest; damaged where there is none, and where it gives a version that the segments
/// beside it do not.
fn load_manifest(storage: &dyn Storage, logs: &[Found]) -> Result<Option<Manifest>> {
    let path = storage.path().join(MANIFEST_NAME);
    match manifest::load(storage) {
        Ok(Some(manifest)) => Ok(Some(manifest)),
        Ok(None) => Err(Error::corrupt(&path, 0, "it is missing")),
        Err(Error::UnknownFormat { found, .. }) if logs.iter().any(|log| log.is_known_version) => {
            let reason = format!("it gives format version {found}, and the segments do not");
            Err(Error::corrupt(&path, 8, reason))
        }
        Err(Error::Io { source, .. }) => {
            Err(Error::corrupt(&path, 0, format!("it cannot be read: {source}")))
        }
        Err(error) => Err(error),
    }
}

/// The store that most bytes of the segments belong to.
fn majority(logs: &[Found]) -> Option<StoreId> {
    let mut bytes: HashMap<[u8; 16], u64> = HashMap::new();
    for log in logs {
        if let Some(store) = log.store() {
            *bytes.entry(store.0).or_default() += u64::from(log.bytes);
        }
    }
    let most = bytes.into_iter().max_by_key(|(store, bytes)| (*bytes, *store));
    most.map(|(store, _)| StoreId(store))
}
