//! A storage that counts what is asked of it: what something costs in calls and bytes, which does
//! not depend on the machine.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pakv::storage::{Lock, Mapping, PathKind, Storage, StorageFile};

/// What was asked of a [`CountingStorage`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// Files opened.
    pub opens: u64,
    /// Reads; what is read through a mapping is none.
    pub reads: u64,
    /// Bytes that those reads gave.
    pub read_bytes: u64,
    /// Calls that change something, or could: creating, writing, cutting, syncing, renaming,
    /// removing, locking.
    pub changes: u64,
}

/// A storage before another one, which counts.
#[derive(Debug)]
pub struct CountingStorage {
    inner: Arc<dyn Storage>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    opens: AtomicU64,
    reads: AtomicU64,
    read_bytes: AtomicU64,
    changes: AtomicU64,
}

impl CountingStorage {
    /// Counts what is asked of `inner`, from now on.
    pub fn new(inner: impl Storage + 'static) -> Arc<Self> {
        Arc::new(Self { inner: Arc::new(inner), counts: Arc::default() })
    }

    /// What was asked since it was made, or since this was called last.
    pub fn take(&self) -> Calls {
        let take = |count: &AtomicU64| count.swap(0, Ordering::SeqCst);
        Calls {
            opens: take(&self.counts.opens),
            reads: take(&self.counts.reads),
            read_bytes: take(&self.counts.read_bytes),
            changes: take(&self.counts.changes),
        }
    }

    fn change(&self) -> &dyn Storage {
        self.counts.changes.fetch_add(1, Ordering::SeqCst);
        &*self.inner
    }
}

impl Storage for CountingStorage {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn kind(&self) -> io::Result<PathKind> {
        self.inner.kind()
    }

    fn create_dir(&self) -> io::Result<()> {
        self.change().create_dir()
    }

    fn list(&self) -> io::Result<Vec<OsString>> {
        self.inner.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.change().create(name)
    }

    fn open(&self, name: &str, writable: bool) -> io::Result<Arc<dyn StorageFile>> {
        self.counts.opens.fetch_add(1, Ordering::SeqCst);
        let storage = if writable { self.change() } else { &*self.inner };
        let inner = storage.open(name, writable)?;
        Ok(Arc::new(CountingFile { inner, counts: self.counts.clone() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change().rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change().remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.change().sync_dir()
    }

    fn lock(&self, name: &str) -> io::Result<Lock> {
        self.change().lock(name)
    }
}

#[derive(Debug)]
struct CountingFile {
    inner: Arc<dyn StorageFile>,
    counts: Arc<Counts>,
}

impl CountingFile {
    fn change(&self) -> &dyn StorageFile {
        self.counts.changes.fetch_add(1, Ordering::SeqCst);
        &*self.inner
    }
}

impl StorageFile for CountingFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.inner.read_at(buffer, offset)?;
        self.counts.reads.fetch_add(1, Ordering::SeqCst);
        self.counts.read_bytes.fetch_add(read as u64, Ordering::SeqCst);
        Ok(read)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.change().write_at(buffer, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change().set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.change().sync()
    }

    fn map(&self, len: u64) -> io::Result<Mapping> {
        self.inner.map(len)
    }
}
