//! `restore`: a store out of a backup, verified.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::target::take_back;
use super::{BackupProgress, How, of_directory};
use crate::check::Finding;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::storage::{OsStorage, Storage};

/// What a restore did: the answer of [`restore`]. All sizes are bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestoreReport {
    /// The store is as of this sequence number.
    pub seqno: u64,
    /// Segments that were copied.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Keys that are there, each of which was read.
    pub keys: u64,
    /// Bytes of their keys and values.
    pub entry_bytes: u64,
    /// How long it took.
    pub duration: Duration,
}

/// Makes a store in the directory `dir` out of the backup in the directory `backup`, which is not
/// changed. Every record's checksum is verified as it is copied, and then the new store is
/// [checked](crate::check()) and every value read. Nothing is shared between the two.
///
/// When this returns the store is durable. Interrupted, or failed, `dir` says that it is not
/// finished when it is opened, and can be restored into again.
///
/// ```
/// use pakv::{Db, backup};
///
/// # let dir = tempfile::tempdir()?;
/// # let (path, copy) = (dir.path().join("store"), dir.path().join("copy"));
/// # let back = dir.path().join("back");
/// let db = Db::open(&path)?;
/// db.set("name", "pakv")?;
/// db.backup(&copy)?;
/// let report = backup::restore(&copy, &back, |_| ())?;
/// assert_eq!(report.keys, 1);
/// assert!(Db::open(&back)?.contains("name")?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Corrupt`] with file and place where the backup is damaged; [`Error::BackupUnfinished`]
/// where it never became whole; [`Error::NoStore`], [`Error::ManifestMissing`] where it is none.
/// [`Error::TargetRefused`] where `dir` holds a store; [`Error::Io`] for the rest.
pub fn restore(
    backup: impl AsRef<Path>,
    dir: impl AsRef<Path>,
    mut progress: impl FnMut(BackupProgress),
) -> Result<RestoreReport> {
    let started = Instant::now();
    let source: Arc<dyn Storage> = Arc::new(OsStorage::new(backup.as_ref()));
    let target: Arc<dyn Storage> = Arc::new(OsStorage::new(dir.as_ref()));
    let copied = of_directory(&source, &target, How::Restore, &mut progress)?;
    let (keys, entry_bytes) = verify_store(target.clone()).inspect_err(|_| {
        // What it is worth has been said; that nobody takes it for whole is left to do.
        let _ = take_back(&*target);
    })?;
    Ok(RestoreReport {
        seqno: copied.seqno,
        segments: copied.segments,
        bytes: copied.bytes,
        keys,
        entry_bytes,
        duration: started.elapsed(),
    })
}

/// Checks the new store, and reads everything that a get can reach. Returns how many keys there are,
/// and the bytes of keys and values.
fn verify_store(storage: Arc<dyn Storage>) -> Result<(u64, u64)> {
    let db = Options::new().read_only(true).open_storage(storage)?;
    if let Some(Finding { path, offset, reason, .. }) = db.check()?.findings.into_iter().next() {
        return Err(Error::corrupt(&path, offset, reason));
    }
    let (mut keys, mut bytes) = (0, 0);
    for entry in db.scan()? {
        let (key, value) = entry.into_pair()?;
        keys += 1;
        bytes += key.len() as u64 + value.len() as u64;
    }
    db.close()?;
    Ok((keys, bytes))
}
