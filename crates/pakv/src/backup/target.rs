//! `Target`: the directory that a backup or a restore is made in.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::view::View;
use super::{BackupProgress, BackupReport, How};
use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, SealedSegment};
use crate::format::{
    BACKUP_UNFINISHED_NAME, MANIFEST_NAME, OwnFile, SegmentId, SeqNo, SeqNoRange, StoreId,
    TEMPORARY_SUFFIX, own_file,
};
use crate::manifest;
use crate::options::Options;
use crate::recovery;
use crate::segment::{Segment, may_lack_hint, rebuild_hint, visit_records};
use crate::storage::{
    LockGuard, PathKind, Storage, StorageFile, read_up_to, remove_if_there, write_all_at,
};

const COPY_BYTES: usize = 1024 * 1024;

/// For whoever looks into the directory.
const UNFINISHED_TEXT: &[u8] =
    b"A backup or restore into this directory was begun and has not finished. Make it again.\n";

/// A locked directory and what is in it.
#[derive(Debug)]
pub(super) struct Target {
    storage: Arc<dyn Storage>,
    how: How,
    /// What the last backup listed.
    old: BTreeMap<SegmentId, SealedSegment>,
    old_next_seqno: SeqNo,
    /// What is in place, durable but for the names.
    have: BTreeMap<SegmentId, SealedSegment>,
    report: BackupReport,
    taken: u64,
    _lock: LockGuard,
}

impl Target {
    /// Creates the directory if need be, and takes its lock. `store` is what is to go there.
    ///
    /// # Errors
    /// [`Error::TargetRefused`] where this store cannot be backed up there;
    /// [`Error::ManifestMissing`], [`Error::NotADirectory`], [`Error::InUse`], [`Error::Corrupt`] of
    /// what is there. Nothing was changed.
    pub(super) fn open(storage: &Arc<dyn Storage>, store: StoreId, how: How) -> Result<Self> {
        let path = storage.path();
        match storage.kind().map_err(Error::io("open", path))? {
            PathKind::Other => return Err(Error::NotADirectory { path: path.to_path_buf() }),
            PathKind::Absent => storage.create_dir().map_err(Error::io("create", path))?,
            PathKind::Directory => {}
        }
        // Before the lock's file is made: what cannot take a backup stays as it is.
        look_at(&**storage, store, how)?;
        let lock = recovery::lock(&Options::default(), &**storage)?;
        let old = look_at(&**storage, store, how)?;
        if old.is_none() {
            mark_unfinished(&**storage)?;
        }
        let listed = old.iter().flat_map(|old| &old.sealed);
        Ok(Self {
            storage: storage.clone(),
            how,
            old_next_seqno: old.as_ref().map_or(0, |old| old.next_seqno),
            old: listed.map(|sealed| (sealed.segment, *sealed)).collect(),
            have: BTreeMap::new(),
            report: BackupReport::default(),
            taken: 0,
            _lock: lock,
        })
    }

    /// How many segments were brought.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Takes every segment of the view that is not here yet.
    pub(super) fn take_all(
        &mut self,
        source: &Arc<dyn Storage>,
        view: &View,
        progress: &mut dyn FnMut(BackupProgress),
    ) -> Result<()> {
        // What a store has listed it has given a number, and its next number stays above that.
        let next_segment = view.manifest.next_segment;
        let has_later = self.old.keys().next_back().is_some_and(|last| *last >= next_segment);
        if has_later || self.old_next_seqno > view.manifest.next_seqno {
            return Err(refused(&*self.storage, DIVERGED));
        }
        let sealed = &view.manifest.sealed;
        // Before any of them is put in place: what is refused stays as it is.
        let mut kept = HashSet::new();
        for sealed in sealed.iter().filter(|sealed| self.old.contains_key(&sealed.segment)) {
            let (segment, _) = recovery::open_sealed(source, &view.manifest, sealed)?;
            if self.is_kept(&view.manifest, sealed, &segment)? {
                kept.insert(sealed.segment);
            }
        }
        let bytes_total = sealed.iter().map(|sealed| u64::from(sealed.bytes)).sum();
        let mut bytes_done = 0;
        for sealed in sealed {
            let mut told = |bytes: u64| {
                progress(BackupProgress { bytes_done: bytes_done + bytes, bytes_total });
            };
            if self.have.get(&sealed.segment) != Some(sealed) {
                if kept.contains(&sealed.segment) {
                    self.keep(&**source, sealed.segment)?;
                } else {
                    let is_tail = view.tail == Some(sealed.segment);
                    self.take(source, &view.manifest, sealed, is_tail, &mut told)?;
                }
                self.have.insert(sealed.segment, *sealed);
            }
            bytes_done += u64::from(sealed.bytes);
            progress(BackupProgress { bytes_done, bytes_total });
        }
        Ok(())
    }

    /// Leaves a segment as an earlier backup has brought it, but for a hint that it lacks.
    fn keep(&mut self, source: &dyn Storage, id: SegmentId) -> Result<()> {
        let hint = id.hint_name();
        if is_absent(&*self.storage, &hint)? {
            self.place(source, &hint, Until::End, &mut |_| ())?;
        }
        self.report.segments_kept += 1;
        Ok(())
    }

    fn take(
        &mut self,
        source: &Arc<dyn Storage>,
        manifest: &Manifest,
        sealed: &SealedSegment,
        is_tail: bool,
        told: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let id = sealed.segment;
        let (segment, first_record) = recovery::open_sealed(source, manifest, sealed)?;
        if is_tail || self.how == How::Restore {
            verify(&segment, first_record, sealed)?;
        }
        let until = if is_tail { Until::Cut(sealed.bytes) } else { Until::Byte(sealed.bytes) };
        let placed = self.place(&**source, &id.log_name(), until, told)?;
        match placed {
            Placed::Linked => self.report.segments_linked += 1,
            Placed::Copied => {
                self.report.segments_copied += 1;
                self.report.bytes_copied += u64::from(sealed.bytes);
            }
            Placed::Absent => return Err(segment.corrupt(0, "the segment has gone")),
        }
        // A source that is itself a backup may have more of it than it lists, and a hint of all
        // that it has: see `check::segment`.
        let has_more = || {
            let len = segment.file()?.len().map_err(Error::io("read", segment.path.as_path()));
            Ok::<_, Error>(len? > u64::from(sealed.bytes))
        };
        let hint = id.hint_name();
        // A restore does not carry the faults of a hint on either.
        let is_own = is_tail || self.how == How::Restore;
        let has_hint = if is_own || (placed == Placed::Copied && has_more()?) {
            self.build_hint(manifest, sealed)?
        } else {
            self.place(&**source, &hint, Until::End, &mut |_| ())? != Placed::Absent
        };
        // One that an earlier backup brought is of fewer records.
        if !has_hint {
            let removed = remove_if_there(&*self.storage, &hint);
            removed.map_err(Error::io("remove", self.path(&hint).as_path()))?;
        }
        self.taken += 1;
        Ok(())
    }

    /// Whether an earlier backup has brought the segment, as it is wanted.
    ///
    /// # Errors
    /// [`Error::TargetRefused`] where it has brought another one under that number.
    fn is_kept(
        &self,
        manifest: &Manifest,
        sealed: &SealedSegment,
        segment: &Segment,
    ) -> Result<bool> {
        let Some(old) = self.old.get(&sealed.segment) else { return Ok(false) };
        // One that is damaged is brought again.
        let Ok((found, _)) = Segment::open(&self.storage, manifest.store, old.segment, false)
        else {
            return Ok(false);
        };
        // A segment that was the active one may have become longer; it does not change otherwise.
        if found.salt != segment.salt || sealed.bytes < old.bytes {
            return Err(refused(&*self.storage, DIVERGED));
        }
        let len = found.file()?.len().map_err(Error::io("read", found.path.as_path()))?;
        Ok(sealed == old && len >= u64::from(old.bytes))
    }

    /// Puts a file in place under its own name, durably but for the name.
    fn place(
        &self,
        source: &dyn Storage,
        name: &str,
        until: Until,
        told: &mut dyn FnMut(u64),
    ) -> Result<Placed> {
        let target = &*self.storage;
        let temporary = format!("{name}{TEMPORARY_SUFFIX}");
        let path = self.path(&temporary);
        remove_if_there(target, &temporary).map_err(Error::io("remove", path.as_path()))?;
        let may_link = self.how == How::Backup && !matches!(until, Until::Cut(_));
        let placed = if may_link && source.link(name, target.path(), &temporary).is_ok() {
            Placed::Linked
        } else {
            let from = source.path().join(name);
            let file = match source.open(name, false) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Placed::Absent),
                Err(error) => return Err(Error::io("open", from.as_path())(error)),
            };
            let copy = target.create(&temporary).map_err(Error::io("create", path.as_path()))?;
            let ends = until.end();
            copy_bytes((&*file, from), (&*copy, &path), ends, told)?;
            copy.sync().map_err(Error::io("sync", path.as_path()))?;
            Placed::Copied
        };
        target.rename(&temporary, name).map_err(Error::io("rename", path.as_path()))?;
        Ok(placed)
    }

    /// Gives the part of a segment that was copied a hint of its own; `false` where it may do without.
    fn build_hint(&self, manifest: &Manifest, sealed: &SealedSegment) -> Result<bool> {
        let options = Options::default();
        if may_lack_hint(&options, sealed.bytes.into(), sealed.records.into()) {
            return Ok(false);
        }
        let (store, id) = (manifest.store, sealed.segment);
        let (segment, first_record) = Segment::open(&self.storage, store, id, false)?;
        let storage = Some(&*self.storage);
        rebuild_hint(storage, store, &segment, first_record, sealed.bytes, |_| ()).map(|_| true)
    }

    /// The commit point; then what it no longer lists goes.
    pub(super) fn publish(mut self, view: &View, started: Instant) -> Result<BackupReport> {
        let target = &*self.storage;
        // Names first: the manifest must not be there without what it lists.
        target.sync_dir().map_err(Error::io("sync", target.path()))?;
        manifest::replace(target, &view.manifest)?;
        let sealed = &view.manifest.sealed;
        let listed: HashSet<SegmentId> = sealed.iter().map(|sealed| sealed.segment).collect();
        let names = target.list().map_err(Error::io("list", target.path()))?;
        for name in names.iter().filter_map(|name| name.to_str()) {
            let is_listed = match own_file(name) {
                Some(OwnFile::Log(id) | OwnFile::Hint(id)) => listed.contains(&id),
                Some(OwnFile::Temporary) => false,
                None => true,
            };
            if !is_listed {
                target.remove(name).map_err(Error::io("remove", self.path(name).as_path()))?;
                self.report.files_removed += 1;
            }
        }
        let mark = self.path(BACKUP_UNFINISHED_NAME);
        remove_if_there(target, BACKUP_UNFINISHED_NAME)
            .map_err(Error::io("remove", mark.as_path()))?;
        target.sync_dir().map_err(Error::io("sync", target.path()))?;
        self.report.seqno = view.seqno;
        self.report.segments = sealed.len() as u64;
        self.report.bytes = sealed.iter().map(|sealed| u64::from(sealed.bytes)).sum();
        self.report.duration = started.elapsed();
        let BackupReport { seqno, segments, bytes_copied, duration, .. } = self.report;
        let dir = target.path().display();
        tracing::info!(%dir, seqno, segments, bytes_copied, took = ?duration, "backed up");
        Ok(self.report)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.storage.path().join(name)
    }
}

/// How a file came to be in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placed {
    Linked,
    Copied,
    /// There is no such file.
    Absent,
}

/// How much of a file is wanted.
#[derive(Debug, Clone, Copy)]
enum Until {
    /// All of it.
    End,
    /// So many bytes, behind which there is nothing of use.
    Byte(u32),
    /// So many bytes, behind which somebody writes: the file itself cannot be shared.
    Cut(u32),
}

impl Until {
    fn end(self) -> u64 {
        match self {
            Until::End => u64::MAX,
            Until::Byte(end) | Until::Cut(end) => end.into(),
        }
    }
}

const DIVERGED: &str = "the backup there and the store have gone different ways; \
    name another directory";

fn refused(storage: &dyn Storage, reason: &'static str) -> Error {
    Error::TargetRefused { path: storage.path().to_path_buf(), reason }
}

/// The manifest of the backup that is there already, if it is one that can go on.
fn look_at(storage: &dyn Storage, store: StoreId, how: How) -> Result<Option<Manifest>> {
    let Some(old) = manifest::load(storage)? else {
        // Left over from a backup that was interrupted, or never a store. One that has lost its
        // manifest is nothing to write into.
        match recovery::check_may_create(storage, true) {
            Ok(()) | Err(Error::BackupUnfinished { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
    };
    if how == How::Restore {
        return Err(refused(storage, "there is a store in it; name an empty directory"));
    }
    if old.store != store {
        return Err(refused(storage, "it holds another store; name another directory"));
    }
    if old.active.is_some() {
        let reason = "it is a store that was opened for writing; name another directory";
        return Err(refused(storage, reason));
    }
    Ok(Some(old))
}

/// Takes back what [`Target::publish`] has done, where it shows that it is not good.
pub(super) fn take_back(storage: &dyn Storage) -> Result<()> {
    mark_unfinished(storage)?;
    let path = storage.path().join(MANIFEST_NAME);
    storage.remove(MANIFEST_NAME).map_err(Error::io("remove", path.as_path()))?;
    storage.sync_dir().map_err(Error::io("sync", storage.path()))
}

/// Lets everybody see that what comes is not whole yet, before any of it comes.
fn mark_unfinished(storage: &dyn Storage) -> Result<()> {
    let path = storage.path().join(BACKUP_UNFINISHED_NAME);
    match storage.create(BACKUP_UNFINISHED_NAME) {
        Ok(file) => {
            write_all_at(&*file, UNFINISHED_TEXT, 0)
                .map_err(Error::io("write to", path.as_path()))?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Error::io("create", path.as_path())(error)),
    }
    storage.sync_dir().map_err(Error::io("sync", storage.path()))
}

fn is_absent(storage: &dyn Storage, name: &str) -> Result<bool> {
    match storage.open(name, false) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Error::io("open", storage.path().join(name).as_path())(error)),
    }
}

/// Reads every record of a segment.
///
/// # Errors
/// [`Error::Corrupt`] where one is damaged, or they are not those that the manifest describes.
fn verify(segment: &Segment, first_record: u32, sealed: &SealedSegment) -> Result<()> {
    let mut seqnos = SeqNoRange::EMPTY;
    let mut records = 0_u32;
    visit_records(segment, first_record, sealed.bytes, |entry| {
        seqnos.add(entry.seqno);
        records += 1;
        Ok(())
    })?;
    if (records, seqnos.min, seqnos.max) != (sealed.records, sealed.min_seqno, sealed.max_seqno) {
        let reason = "its records are not those that the manifest describes";
        return Err(segment.corrupt(first_record, reason));
    }
    Ok(())
}

/// Copies the bytes before `end`, or those that there are.
fn copy_bytes(
    (from, from_path): (&dyn StorageFile, PathBuf),
    (to, to_path): (&dyn StorageFile, &PathBuf),
    end: u64,
    told: &mut dyn FnMut(u64),
) -> Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut offset = 0;
    while offset < end {
        let wanted = usize::try_from(end - offset).unwrap_or(usize::MAX).min(COPY_BYTES);
        let piece = buffer.get_mut(..wanted).unwrap_or_default();
        let read = read_up_to(from, piece, offset).map_err(Error::io("read", &*from_path))?;
        let piece = piece.get(..read).unwrap_or_default();
        write_all_at(to, piece, offset).map_err(Error::io("write to", to_path.as_path()))?;
        offset += read as u64;
        told(offset);
        if read < wanted {
            break;
        }
    }
    if offset < end && end != u64::MAX {
        return Err(Error::corrupt(&from_path, offset, format!("it should have {end} bytes")));
    }
    Ok(())
}
