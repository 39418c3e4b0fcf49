//! Storages that break a promise, each the way a bug of the engine or a bad disk would. A checker
//! that does not catch them is not to be believed.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pakv::storage::{Lock, Mapping, PathKind, Storage, StorageFile};

use super::storage::SimStorage;

/// Which promise is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// `sync_dir` does nothing: creates, renames and removals are durable when it pleases.
    NoDirSync,
    /// `sync` does nothing.
    NoSync,
    /// `sync` answers first and syncs at the file's next call: acknowledged before it is durable.
    SyncLate,
    /// A short write is said to have written everything.
    ShortWriteIgnored,
    /// `sync_dir` waits for the next call, and a removal that comes next is durable before it: a
    /// file is gone from the disk ahead of the manifest that stops listing it.
    UnlinkEarly,
    /// An error of `sync` is not told.
    SyncErrorSwallowed,
    /// A `sync` that failed is tried again, and the second answer believed.
    SyncRetried,
    /// A rename removes the old target first: not atomic.
    RenameInTwoSteps,
}

impl Lie {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::NoDirSync,
        Self::NoSync,
        Self::SyncLate,
        Self::ShortWriteIgnored,
        Self::UnlinkEarly,
        Self::SyncErrorSwallowed,
        Self::SyncRetried,
        Self::RenameInTwoSteps,
    ];

    /// Puts the lie between a store and its storage.
    pub(crate) fn over(self, inner: SimStorage) -> Arc<dyn Storage> {
        Arc::new(Liar { inner, lie: self, owes_sync_dir: Arc::default() })
    }
}

#[derive(Debug)]
struct Liar {
    inner: SimStorage,
    lie: Lie,
    owes_sync_dir: Arc<AtomicBool>,
}

impl Liar {
    fn file(&self, inner: Arc<dyn StorageFile>) -> Arc<dyn StorageFile> {
        let directory = Liar {
            inner: self.inner.clone(),
            lie: self.lie,
            owes_sync_dir: self.owes_sync_dir.clone(),
        };
        Arc::new(LyingFile { inner, directory, owes_sync: AtomicBool::new(false) })
    }

    fn catch_up(&self) -> io::Result<()> {
        if self.owes_sync_dir.swap(false, Ordering::Relaxed) {
            self.inner.sync_dir()
        } else {
            Ok(())
        }
    }
}

impl Storage for Liar {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn kind(&self) -> io::Result<PathKind> {
        self.inner.kind()
    }

    fn create_dir(&self) -> io::Result<()> {
        self.inner.create_dir()
    }

    fn list(&self) -> io::Result<Vec<OsString>> {
        self.inner.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.catch_up()?;
        self.inner.create(name).map(|file| self.file(file))
    }

    fn open(&self, name: &str, writable: bool) -> io::Result<Arc<dyn StorageFile>> {
        self.inner.open(name, writable).map(|file| self.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.catch_up()?;
        if self.lie == Lie::RenameInTwoSteps && self.inner.names().iter().any(|name| name == to) {
            self.inner.remove(to)?;
        }
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if self.owes_sync_dir.load(Ordering::Relaxed) {
            self.inner.remove_durably(name);
        }
        self.inner.remove(name)?;
        self.catch_up()
    }

    fn sync_dir(&self) -> io::Result<()> {
        match self.lie {
            Lie::NoDirSync => Ok(()),
            Lie::UnlinkEarly => {
                self.owes_sync_dir.store(true, Ordering::Relaxed);
                Ok(())
            }
            _ => self.inner.sync_dir(),
        }
    }

    fn lock(&self, name: &str) -> io::Result<Lock> {
        self.inner.lock(name)
    }
}

#[derive(Debug)]
struct LyingFile {
    inner: Arc<dyn StorageFile>,
    directory: Liar,
    owes_sync: AtomicBool,
}

impl LyingFile {
    fn catch_up(&self) -> io::Result<()> {
        if self.owes_sync.swap(false, Ordering::Relaxed) { self.inner.sync() } else { Ok(()) }
    }
}

impl StorageFile for LyingFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, offset)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.catch_up()?;
        self.directory.catch_up()?;
        let written = self.inner.write_at(buffer, offset)?;
        Ok(if self.directory.lie == Lie::ShortWriteIgnored { buffer.len() } else { written })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        match self.directory.lie {
            Lie::NoSync => Ok(()),
            Lie::SyncLate => {
                self.catch_up()?;
                self.owes_sync.store(true, Ordering::Relaxed);
                Ok(())
            }
            Lie::SyncErrorSwallowed => {
                let _ = self.inner.sync();
                Ok(())
            }
            Lie::SyncRetried => self.inner.sync().or_else(|_| self.inner.sync()),
            _ => self.inner.sync(),
        }
    }

    fn map(&self, len: u64) -> io::Result<Mapping> {
        self.inner.map(len)
    }
}
