//! A disk that takes its time. On a fast one a call is over before another thread gets to run, and
//! a history without overlaps proves little.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pakv::storage::{Lock, Mapping, PathKind, Storage, StorageFile};

/// Another storage, with pauses.
#[derive(Debug)]
pub(super) struct Slow {
    inner: Arc<dyn Storage>,
    pauses: Arc<Pauses>,
}

/// When to pause: by a seeded sequence that all threads draw from.
#[derive(Debug)]
struct Pauses(AtomicU64);

impl Pauses {
    fn next(&self) -> u64 {
        // The mix of splitmix64: well spread from a counter.
        let state = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33
    }

    /// A sync: others run meanwhile.
    fn long(&self) {
        std::thread::sleep(Duration::from_micros(self.next() % 200));
    }

    /// Anything else: one in four lets another thread run.
    fn short(&self) {
        if self.next().is_multiple_of(4) {
            std::thread::yield_now();
        }
    }
}

impl Slow {
    pub(super) fn new(inner: Arc<dyn Storage>, seed: u64) -> Self {
        Self { inner, pauses: Arc::new(Pauses(AtomicU64::new(seed))) }
    }

    fn file(&self, inner: Arc<dyn StorageFile>) -> Arc<dyn StorageFile> {
        Arc::new(SlowFile { inner, pauses: self.pauses.clone() })
    }
}

impl Storage for Slow {
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
        self.pauses.short();
        self.inner.create(name).map(|file| self.file(file))
    }
    fn open(&self, name: &str, writable: bool) -> io::Result<Arc<dyn StorageFile>> {
        self.pauses.short();
        self.inner.open(name, writable).map(|file| self.file(file))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.pauses.short();
        self.inner.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.pauses.short();
        self.inner.remove(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.pauses.short();
        self.inner.sync_dir()
    }
    fn lock(&self, name: &str) -> io::Result<Lock> {
        self.inner.lock(name)
    }
}

#[derive(Debug)]
struct SlowFile {
    inner: Arc<dyn StorageFile>,
    pauses: Arc<Pauses>,
}

impl StorageFile for SlowFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.pauses.short();
        self.inner.read_at(buffer, offset)
    }
    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.pauses.short();
        let written = self.inner.write_at(buffer, offset);
        self.pauses.short();
        written
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
    fn sync(&self) -> io::Result<()> {
        self.pauses.long();
        self.inner.sync()
    }
    fn prepare(&self, offset: u64, len: u64) -> bool {
        self.pauses.short();
        self.inner.prepare(offset, len)
    }
    fn map(&self, len: u64) -> io::Result<Mapping> {
        self.inner.map(len)
    }
}
