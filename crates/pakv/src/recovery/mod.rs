//! Opening a store: lock, manifest, hints in parallel, replay of the active segment, orphans,
//! report.
//!
//! Invariants: an open changes nothing before it knows that the format is its own; what it removes
//! is of the store's own naming and not in the manifest; what it cuts lies past every byte known
//! durable; opening twice finds what opening once found.

mod beside;
mod load;
mod replay;

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::active::Active;
use crate::core::Recovered;
use crate::error::{Error, Result};
use crate::format::manifest::{ActiveSegment, Manifest};
use crate::format::{
    BACKUP_UNFINISHED_NAME, LOCK_NAME, MANIFEST_NAME, OwnFile, PREAMBLE_BYTES, SEGMENT_ID_MAX,
    SEQNO_MAX, SegmentId, SeqNo, StoreId, own_file,
};
use crate::index::{Index, SegmentState};
use crate::manifest;
use crate::options::Options;
use crate::segment::Segment;
use crate::stats::{OpenProgress, RecoveryReport};
use crate::storage::{Lock, LockGuard, PathKind, Storage, give_memory_back};
pub(crate) use beside::{News, Read, active_as_it_is, start_over, whats_new};
pub(crate) use load::{Gathered, Loaded, open_sealed};

/// So many keys are worth to ask the C library for the memory that it keeps of their load.
const MANY_KEYS: u64 = 256 * 1024;
/// How often the lock is tried while it is waited for.
const LOCK_POLL: Duration = Duration::from_millis(5);
/// A directory named like a segment is passed by if its number is this close. A higher one must not
/// use up the numbers between; whoever comes to it fails to create that segment, and the next open
/// passes it by.
const NUMBERS_AHEAD: u32 = 1 << 20;

/// Opens or creates the store.
pub(crate) fn open(
    options: &Options,
    storage: &Arc<dyn Storage>,
    progress: &mut dyn FnMut(OpenProgress),
) -> Result<Recovered> {
    let started = Instant::now();
    let span = tracing::info_span!("open", store = %storage.path().display());
    let _in_it = span.enter();
    let creating = options.create && !options.read_only;
    let path = storage.path();
    match storage.kind().map_err(Error::io("open", path))? {
        PathKind::Other => return Err(Error::NotADirectory { path: path.to_path_buf() }),
        PathKind::Absent if creating => {
            storage.create_dir().map_err(Error::io("create", path))?;
        }
        PathKind::Absent => return Err(Error::NoStore { path: path.to_path_buf() }),
        PathKind::Directory => {}
    }
    // Looked at before the lock's file is made: what is no store stays as it is.
    if manifest::load(&**storage)?.is_none() {
        check_may_create(&**storage, creating)?;
    }
    let mut recovered = if options.read_only {
        beside::read_only(options, storage, progress)?
    } else {
        writable(options, storage, progress)?
    };
    let report = &mut recovered.report;
    if report.keys >= MANY_KEYS {
        give_memory_back();
    }
    report.duration = started.elapsed();
    tracing::info!(
        read_only = options.read_only,
        created = report.created,
        keys = report.keys,
        segments = report.segments,
        orphans_removed = report.orphans_removed,
        took = ?report.duration,
        "opened"
    );
    Ok(recovered)
}

fn writable(
    options: &Options,
    storage: &Arc<dyn Storage>,
    progress: &mut dyn FnMut(OpenProgress),
) -> Result<Recovered> {
    let lock = lock(options, &**storage)?;
    let mut report = RecoveryReport::default();
    let mut catalog = match manifest::load(&**storage)? {
        Some(catalog) => {
            // Whoever put it in place may have been killed before the directory was synced: nothing
            // may be removed or acknowledged on the word of a manifest that a power cut takes back.
            storage.sync_dir().map_err(Error::io("sync", storage.path()))?;
            catalog
        }
        None => {
            // Asked again, under the lock.
            check_may_create(&**storage, options.create)?;
            report.created = true;
            create(&**storage)?
        }
    };
    check_numbers(&**storage, &catalog, catalog.next_seqno)?;
    let mut loaded = Loaded::default();
    load::load_sealed(options, storage, &catalog, (&mut loaded, &mut report), progress)?;
    let replayed = match catalog.active {
        Some(active) => Some(replay::replay_active(
            options,
            storage,
            &catalog,
            active,
            &mut loaded,
            &mut report,
        )?),
        None => None,
    };
    check_numbers(&**storage, &catalog, loaded.newest_seqno)?;
    // Only now: a manifest that is not this directory's must not remove what it does not list.
    remove_orphans(&**storage, &mut catalog, &mut report)?;
    let active = match replayed {
        Some(active) => active,
        None => begin_first_segment(options, storage, &mut catalog, &mut loaded)?,
    };
    Ok(finish(options, catalog, loaded, Some(active), Some(lock), report))
}

fn finish(
    options: &Options,
    catalog: Manifest,
    loaded: Loaded,
    mut active: Option<Active>,
    lock: Option<LockGuard>,
    mut report: RecoveryReport,
) -> Recovered {
    let visible = loaded.newest_seqno.max(catalog.next_seqno.saturating_sub(1));
    let (mut keydir, segments) = loaded.into_parts();
    keydir.merge_keys_min = options.keydir_merge_keys.max(1);
    let mut index = Index::new(keydir, segments, visible);
    index.sweep_expired(options.clock.now_ms(), usize::MAX);
    report.keys = index.len(options.clock.now_ms());
    report.segments = index.segments.len() as u64;
    if let Some(active) = &mut active {
        active.next_seqno = visible + 1;
    }
    Recovered { report, catalog, index, active, lock }
}

pub(crate) fn lock(options: &Options, storage: &dyn Storage) -> Result<LockGuard> {
    let started = Instant::now();
    let path = storage.path().join(LOCK_NAME);
    loop {
        let waited = started.elapsed();
        match storage.lock(LOCK_NAME).map_err(Error::io("lock", path.as_path()))? {
            Lock::Acquired(guard) => return Ok(guard),
            Lock::Held(pid) if waited >= options.lock_wait => {
                return Err(Error::InUse { path: storage.path().to_path_buf(), pid, waited });
            }
            Lock::Held(_) => std::thread::sleep(LOCK_POLL.min(options.lock_wait - waited)),
        }
    }
}

/// A directory without a manifest becomes a store only if it holds nothing that a store would.
pub(crate) fn check_may_create(storage: &dyn Storage, create: bool) -> Result<()> {
    let path = storage.path().to_path_buf();
    if storage.open(BACKUP_UNFINISHED_NAME, false).is_ok() {
        return Err(Error::BackupUnfinished { path });
    }
    let names = storage.list().map_err(Error::io("list", path.as_path()))?;
    let is_segment = |name: &std::ffi::OsString| {
        matches!(name.to_str().and_then(own_file), Some(OwnFile::Log(_) | OwnFile::Hint(_)))
    };
    if names.iter().any(is_segment) {
        return Err(Error::ManifestMissing { path });
    }
    if create { Ok(()) } else { Err(Error::NoStore { path }) }
}

/// Numbers only rise, and a manifest with one past the last is refused. Whoever opens a store that
/// is still this far from the end cannot come there before the next open.
fn check_numbers(storage: &dyn Storage, catalog: &Manifest, seqno: SeqNo) -> Result<()> {
    if catalog.next_segment.0 > SEGMENT_ID_MAX.0 / 2 || seqno > SEQNO_MAX / 2 {
        let path = storage.path().join(MANIFEST_NAME);
        let reason = "the store's numbers are used up: it can be read and not written";
        return Err(Error::corrupt(&path, PREAMBLE_BYTES as u64, reason));
    }
    Ok(())
}

/// Writes the first manifest. It lists no segment yet: one that exists before it is listed is an
/// orphan, and a directory with segments and no manifest is never a store that was being created.
fn create(storage: &dyn Storage) -> Result<Manifest> {
    let manifest = Manifest {
        store: new_store_id(),
        next_segment: SegmentId(1),
        next_seqno: 1,
        sealed: Vec::new(),
        active: None,
    };
    manifest::replace(storage, &manifest)?;
    Ok(manifest)
}

/// Sixteen random bytes: std seeds its hashers from the operating system.
fn new_store_id() -> StoreId {
    let random = || RandomState::new().hash_one(std::process::id()).to_le_bytes();
    let mut id = [0; 16];
    let (first, second) = id.split_at_mut(8);
    first.copy_from_slice(&random());
    second.copy_from_slice(&random());
    StoreId(id)
}

fn begin_first_segment(
    options: &Options,
    storage: &Arc<dyn Storage>,
    catalog: &mut Manifest,
    loaded: &mut Loaded,
) -> Result<Active> {
    let id = catalog.next_segment;
    let (segment, first_record) = Segment::create_durable(storage, catalog.store, id)?;
    catalog.next_segment = SegmentId(id.0 + 1);
    catalog.active = Some(ActiveSegment { segment: id, synced_bytes: first_record });
    manifest::replace(&**storage, catalog)?;
    let segment = segment.growing(first_record, options.segment_bytes, options.file_access);
    let segment = Arc::new(segment);
    loaded.segments.insert(id, SegmentState::empty(segment.clone(), first_record));
    Active::new(segment, first_record, catalog.next_seqno)
}

/// Removes files of the store's own naming that the manifest does not list.
fn remove_orphans(
    storage: &dyn Storage,
    catalog: &mut Manifest,
    report: &mut RecoveryReport,
) -> Result<()> {
    let names = storage.list().map_err(Error::io("list", storage.path()))?;
    let sealed: HashSet<SegmentId> = catalog.sealed.iter().map(|sealed| sealed.segment).collect();
    let is_sealed = |id: SegmentId| sealed.contains(&id);
    let is_active = |id: SegmentId| catalog.active.is_some_and(|active| active.segment == id);
    let mut taken = None;
    for name in names.iter().filter_map(|name| name.to_str()) {
        let orphan = match own_file(name) {
            Some(OwnFile::Log(id)) => !is_sealed(id) && !is_active(id),
            Some(OwnFile::Hint(id)) => !is_sealed(id),
            Some(OwnFile::Temporary) => true,
            None => false,
        };
        if !orphan {
            continue;
        }
        match storage.remove(name) {
            Ok(()) => report.orphans_removed += 1,
            // A handle that was closed had kept it for its snapshots, and has let go of it by now.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            // A directory of that name is nobody's file; its number is not used again.
            Err(error) if error.kind() == std::io::ErrorKind::IsADirectory => {
                if let Some(OwnFile::Log(id) | OwnFile::Hint(id)) = own_file(name)
                    && id.0 <= catalog.next_segment.0.saturating_add(NUMBERS_AHEAD)
                {
                    taken = taken.max(Some(id));
                }
            }
            Err(error) => {
                let path = storage.path().join(name);
                return Err(Error::io("remove", path.as_path())(error));
            }
        }
    }
    if let Some(SegmentId(taken)) = taken {
        let next = SegmentId(taken.saturating_add(1));
        catalog.next_segment = catalog.next_segment.max(next);
    }
    if report.orphans_removed > 0 {
        storage.sync_dir().map_err(Error::io("sync", storage.path()))?;
    }
    Ok(())
}
