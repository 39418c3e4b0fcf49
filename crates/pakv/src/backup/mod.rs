//! Backups: a directory that is a store, made of one that is open and being written. Segments that
//! are sealed get a second name there where that is possible and are copied where it is not; of the
//! active one the records up to now are copied.
//!
//! Invariants:
//! - Nothing is written to the source.
//! - A backup lists sealed segments only, none of which anybody writes to: a store that is opened on
//!   it appends to a segment of its own.
//! - The backup's manifest is replaced last, when all that it lists is durable. Until then the
//!   manifest before it counts, and all that it lists is as it was; where there is none before it,
//!   a file says so.

mod restore;
mod target;
mod view;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use restore::{RestoreReport, restore};

use crate::core::Core;
use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::manifest;
use crate::recovery;
use crate::storage::{OsStorage, PathKind, Storage};
use target::Target;
use view::View;

/// How often in a row a backup starts over, without one more segment to show for it, when the writer
/// beside it has moved on.
const TRIES: usize = 20;

/// What a backup did: the answer of [`Db::backup`](crate::Db::backup). All sizes are bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupReport {
    /// The backup holds every write up to this sequence number and none after it.
    pub seqno: u64,
    /// Segments that the backup has now.
    pub segments: u64,
    /// Segments among them that an earlier backup had brought.
    pub segments_kept: u64,
    /// Segments that are shared with the store: the same file under two names.
    pub segments_linked: u64,
    /// Segments that were copied, the part of the active one included.
    pub segments_copied: u64,
    /// Bytes of all segments of the backup.
    pub bytes: u64,
    /// Bytes of those that were copied, hints not counted.
    pub bytes_copied: u64,
    /// Files of an earlier backup that this one no longer needs, removed.
    pub files_removed: u64,
    /// How long it took.
    pub duration: Duration,
}

/// How far a backup or a restore has come. Segments that need no copying count at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupProgress {
    /// Bytes of segments that are dealt with.
    pub bytes_done: u64,
    /// Bytes of segments in all.
    pub bytes_total: u64,
}

/// Backs up the store in the directory `store`, which another process may have open and be writing
/// to, into the directory `dir`. Takes no lock on the store, and of its keys only those of the active
/// segment into memory. Otherwise as [`Db::backup_with`](crate::Db::backup_with).
///
/// What another process has written and not yet synced is synced first, as far as it is in the
/// backup.
///
/// ```
/// use pakv::{Db, backup};
///
/// # let dir = tempfile::tempdir()?;
/// # let (path, copy) = (dir.path().join("store"), dir.path().join("copy"));
/// let db = Db::open(&path)?; // perhaps in another process
/// db.set("name", "pakv")?;
/// let report = backup::take(&path, &copy, |_| ())?;
/// assert_eq!(report.seqno, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`Db::backup`](crate::Db::backup), and [`Error::NoStore`], [`Error::NotADirectory`],
/// [`Error::ManifestMissing`] of the store; [`Error::Corrupt`] where its manifest or its active
/// segment is damaged, or a segment is missing.
pub fn take(
    store: impl AsRef<Path>,
    dir: impl AsRef<Path>,
    mut progress: impl FnMut(BackupProgress),
) -> Result<BackupReport> {
    let source: Arc<dyn Storage> = Arc::new(OsStorage::new(store.as_ref()));
    let target: Arc<dyn Storage> = Arc::new(OsStorage::new(dir.as_ref()));
    of_directory(&source, &target, How::Backup, &mut progress)
}

/// What is different about a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// Linked where possible; into a backup that may be there already.
    Backup,
    /// Copied, every record verified; into a directory that holds no store.
    Restore,
}

/// Backs up an open store.
pub(crate) fn of_open(
    core: &Core,
    target: &Arc<dyn Storage>,
    progress: &mut dyn FnMut(BackupProgress),
) -> Result<BackupReport> {
    if core.options.read_only {
        return of_directory(&core.storage, target, How::Backup, progress);
    }
    let started = Instant::now();
    core.check_writable()?;
    let view = View::of_open(core)?;
    let mut target = Target::open(target, view.manifest.store, How::Backup)?;
    target.take_all(&core.storage, &view, progress)?;
    // What the backup has, the store keeps: otherwise the two could go different ways after a power
    // cut, and the next backup would not be a continuation of this one.
    core.sync_active()?;
    target.publish(&view, started)
}

/// Backs up a store that is open elsewhere, or nowhere. Its files may go at any moment, in exchange
/// for others: then what the new manifest lists is still to be taken.
fn of_directory(
    source: &Arc<dyn Storage>,
    target: &Arc<dyn Storage>,
    how: How,
    progress: &mut dyn FnMut(BackupProgress),
) -> Result<BackupReport> {
    let started = Instant::now();
    let mut target = Target::open(target, load(&**source)?.store, how)?;
    let (mut tries, mut taken, mut told) = (0, 0, None);
    loop {
        let catalog = load(&**source)?;
        let result = View::of_directory(source, &catalog).and_then(|view| {
            target.take_all(source, &view, progress)?;
            view.sync_active(&**source)?;
            Ok(view)
        });
        let error = match result {
            Ok(view) => return target.publish(&view, started),
            Err(error) => error,
        };
        // Nothing else is the writer's doing, and no sync is tried after one that failed.
        let is_gone = matches!(&error, Error::Io { source, .. }
            if source.kind() == std::io::ErrorKind::NotFound);
        tries = if target.taken() > taken { 0 } else { tries + 1 };
        taken = target.taken();
        let moved_on = load(&**source)? != catalog;
        // As for a reader: a writer that opens the store beside us may look like damage, once.
        let first_told = told != Some(error.to_string());
        let may_pass = (moved_on && (is_gone || error.is_corruption()))
            || (error.is_corruption() && first_told);
        if !may_pass || tries == TRIES {
            return Err(error);
        }
        told = Some(error.to_string());
    }
}

/// The manifest of a store that must be there.
fn load(source: &dyn Storage) -> Result<Manifest> {
    let path = source.path();
    match source.kind().map_err(Error::io("open", path))? {
        PathKind::Absent => return Err(Error::NoStore { path: path.to_path_buf() }),
        PathKind::Other => return Err(Error::NotADirectory { path: path.to_path_buf() }),
        PathKind::Directory => {}
    }
    match manifest::load(source)? {
        Some(catalog) => Ok(catalog),
        None => {
            recovery::check_may_create(source, false)?;
            Err(Error::NoStore { path: path.to_path_buf() })
        }
    }
}
