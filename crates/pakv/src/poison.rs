//! Fail-stop: once a write or a sync has failed, the store acknowledges nothing more until it is
//! opened again.
//!
//! After a failed sync Linux marks the pages clean all the same: the next sync of that file says
//! `Ok` and the bytes are gone ("Can Applications Recover from fsync Failures?", USENIX ATC 2020).
//! So no sync is tried after one that failed, of whatever file it was. [`FailStop`] sees to that at
//! the storage, where no caller can forget it.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::planted::{Bug, planted};
use crate::storage::{Lock, Mapping, PathKind, Storage, StorageFile};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, OnceLock};

/// A sync that takes this long is told: writers wait for it.
const SLOW_SYNC: Duration = Duration::from_millis(500);

/// Why a store refuses writes, once it does.
#[derive(Debug, Default)]
pub(crate) struct Poison {
    reason: OnceLock<String>,
    /// Whether the store is closed and its directory may be somebody else's.
    closed: AtomicBool,
}

impl Poison {
    /// Refuses writes from here on: what is on the disk is no longer known. The first reason stays.
    pub(crate) fn set(&self, reason: String) {
        if planted(Bug::NoPoison) {
            return;
        }
        if self.reason.set(reason).is_ok() {
            tracing::error!(reason = self.reason(), "poisoned: writes are refused from here on");
        }
    }

    pub(crate) fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }

    /// The lock is about to go: from here on no file is removed any more.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// # Errors
    /// [`Error::Poisoned`].
    pub(crate) fn check(&self) -> Result<()> {
        self.reason().map_or(Ok(()), |reason| Err(Error::Poisoned { reason: reason.to_string() }))
    }
}

/// What a sync is answered after one that failed; [`Error::io`] makes [`Error::Poisoned`] of it.
#[derive(Debug, thiserror::Error)]
#[error("an earlier failure: {reason}")]
pub(crate) struct Refused {
    pub(crate) reason: String,
}

/// A storage whose first failed sync poisons, and which syncs nothing after it.
#[derive(Debug)]
pub(crate) struct FailStop {
    storage: Arc<dyn Storage>,
    poison: Arc<Poison>,
    /// Two syncs of the directory at once could share one failure, of which the operating system
    /// tells only one of them.
    syncing_dir: Mutex<()>,
}

impl FailStop {
    pub(crate) fn new(storage: Arc<dyn Storage>, poison: Arc<Poison>) -> Self {
        Self { storage, poison, syncing_dir: Mutex::new(()) }
    }

    fn file(&self, name: &str, file: Arc<dyn StorageFile>) -> Arc<dyn StorageFile> {
        let path = self.path().join(name);
        let (poison, syncing) = (self.poison.clone(), Mutex::new(()));
        Arc::new(FailStopFile { file, path, poison, syncing })
    }
}

/// Syncs by `sync` unless a sync has failed already.
fn sync_once(poison: &Poison, path: &Path, sync: impl Fn() -> io::Result<()>) -> io::Result<()> {
    if let Some(reason) = poison.reason() {
        return Err(io::Error::other(Refused { reason: reason.to_string() }));
    }
    let started = Instant::now();
    let result = sync();
    let took = started.elapsed();
    if took >= SLOW_SYNC {
        tracing::warn!(path = %path.display(), ?took, "a slow sync");
    }
    if result.is_err() && planted(Bug::RetryFailedSync) {
        return sync();
    }
    result.inspect_err(|error| poison.set(format!("cannot sync {}: {error}", path.display())))
}

impl Storage for FailStop {
    fn path(&self) -> &Path {
        self.storage.path()
    }

    fn kind(&self) -> io::Result<PathKind> {
        self.storage.kind()
    }

    fn create_dir(&self) -> io::Result<()> {
        self.storage.create_dir()
    }

    fn list(&self) -> io::Result<Vec<OsString>> {
        self.storage.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.storage.create(name).map(|file| self.file(name, file))
    }

    fn open(&self, name: &str, writable: bool) -> io::Result<Arc<dyn StorageFile>> {
        self.storage.open(name, writable).map(|file| self.file(name, file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.storage.rename(from, to)
    }

    fn link(&self, name: &str, target: &Path, to: &str) -> io::Result<()> {
        self.storage.link(name, target, to)
    }

    /// Whoever still reads a segment that compaction has replaced removes its files at the end, behind
    /// a close too: another store may have files of these names by then.
    fn remove(&self, name: &str) -> io::Result<()> {
        if self.poison.closed.load(Ordering::Acquire) {
            return Err(io::Error::other("the store is closed"));
        }
        self.storage.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        if planted(Bug::NoDirectorySync) {
            return Ok(());
        }
        let _one_at_a_time = self.syncing_dir.lock();
        sync_once(&self.poison, self.path(), || self.storage.sync_dir())
    }

    fn lock(&self, name: &str) -> io::Result<Lock> {
        self.storage.lock(name)
    }
}

#[derive(Debug)]
struct FailStopFile {
    file: Arc<dyn StorageFile>,
    path: PathBuf,
    poison: Arc<Poison>,
    /// As `syncing_dir`: a failure that two syncs share is told to one of them.
    syncing: Mutex<()>,
}

impl StorageFile for FailStopFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(buffer, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        let _one_at_a_time = self.syncing.lock();
        sync_once(&self.poison, &self.path, || self.file.sync())
    }

    fn write_out(&self, offset: u64, len: u64) {
        self.file.write_out(offset, len);
    }

    fn prepare(&self, offset: u64, len: u64) -> bool {
        self.file.prepare(offset, len)
    }

    fn map(&self, len: u64) -> io::Result<Mapping> {
        self.file.map(len)
    }
}
