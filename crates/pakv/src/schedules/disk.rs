//! A disk in memory for exploring schedules: before and after each call others may run. It notices
//! what no user of a storage may do, and can be told to fail or to lie.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::storage::{Lock, LockGuard, Mapped, Mapping, PathKind, Storage, StorageFile};

/// Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk(Arc<State>);

#[derive(Debug, Default)]
struct State {
    // Never held where others may run: no lock of shuttle's, or the schedules would be about it.
    files: Mutex<BTreeMap<String, Arc<Inode>>>,
    locked: AtomicBool,
    /// Syncs until one fails. 0: none does.
    failing_sync: AtomicU64,
    /// One has failed: the next would succeed and prove nothing.
    sync_failed: AtomicBool,
    appends_late: AtomicBool,
    violations: Mutex<Vec<String>>,
}

#[derive(Debug, Default)]
struct Inode {
    name: String,
    bytes: Mutex<Vec<u8>>,
    removed: AtomicBool,
}

/// Lets others run.
fn step() {
    shuttle::thread::sleep(Duration::ZERO);
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk {
    /// The sync after `syncs` more fails.
    pub(super) fn fail_sync_after(&self, syncs: u64) {
        self.0.failing_sync.store(syncs + 1, Ordering::SeqCst);
    }

    /// The machine has started anew: what failed is forgotten.
    pub(super) fn forget(&self) {
        self.0.sync_failed.store(false, Ordering::SeqCst);
    }

    /// A lie: a write to a segment returns before its bytes are there.
    pub(super) fn append_late(&self) {
        self.0.appends_late.store(true, Ordering::SeqCst);
    }

    pub(super) fn names(&self) -> Vec<String> {
        hold(&self.0.files).keys().cloned().collect()
    }

    /// What was done that no user of a storage may do.
    pub(super) fn violations(&self) -> Vec<String> {
        hold(&self.0.violations).clone()
    }

    fn file(&self, inode: Arc<Inode>) -> Arc<dyn StorageFile> {
        Arc::new(File { disk: self.clone(), inode })
    }

    /// A read through a handle whose file was removed works on some systems and not on others.
    fn check_there(&self, inode: &Inode) {
        if inode.removed.load(Ordering::SeqCst) {
            hold(&self.0.violations).push(format!("{} is read after it was removed", inode.name));
        }
    }
}

impl Storage for Disk {
    fn path(&self) -> &Path {
        Path::new("/explored")
    }

    fn kind(&self) -> io::Result<PathKind> {
        Ok(PathKind::Directory)
    }

    fn create_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<OsString>> {
        step();
        Ok(self.names().into_iter().map(OsString::from).collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        step();
        let mut files = hold(&self.0.files);
        if files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = Arc::new(Inode { name: name.to_string(), ..Inode::default() });
        files.insert(name.to_string(), inode.clone());
        Ok(self.file(inode))
    }

    fn open(&self, name: &str, _writable: bool) -> io::Result<Arc<dyn StorageFile>> {
        step();
        let inode = hold(&self.0.files).get(name).cloned();
        Ok(self.file(inode.ok_or(io::ErrorKind::NotFound)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        step();
        let mut files = hold(&self.0.files);
        let inode = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_string(), inode);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        step();
        let inode = hold(&self.0.files).remove(name).ok_or(io::ErrorKind::NotFound)?;
        inode.removed.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        step();
        Ok(())
    }

    fn lock(&self, name: &str) -> io::Result<Lock> {
        step();
        if self.0.locked.swap(true, Ordering::SeqCst) {
            return Ok(Lock::Held(None));
        }
        hold(&self.0.files).entry(name.to_string()).or_default();
        Ok(Lock::Acquired(LockGuard::new(Held(self.0.clone()))))
    }
}

#[derive(Debug)]
struct Held(Arc<State>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.locked.store(false, Ordering::SeqCst);
    }
}

#[derive(Debug)]
struct File {
    disk: Disk,
    inode: Arc<Inode>,
}

impl StorageFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(hold(&self.inode.bytes).len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        step();
        self.disk.check_there(&self.inode);
        let bytes = hold(&self.inode.bytes);
        let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        step();
        let (inode, at) = (self.inode.clone(), usize::try_from(offset).expect("it is in memory"));
        let owned = buffer.to_vec();
        let write = move || {
            let mut bytes = hold(&inode.bytes);
            let end = bytes.len().max(at + owned.len());
            bytes.resize(end, 0);
            bytes[at..at + owned.len()].copy_from_slice(&owned);
        };
        let is_segment = self.inode.name.ends_with(".log");
        if is_segment && self.disk.0.appends_late.load(Ordering::SeqCst) {
            shuttle::thread::spawn(write);
        } else {
            write();
            step();
        }
        Ok(buffer.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        step();
        hold(&self.inode.bytes).resize(usize::try_from(len).expect("it is in memory"), 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        step();
        let State { failing_sync, sync_failed, violations, .. } = &*self.disk.0;
        if sync_failed.load(Ordering::SeqCst) {
            let what = format!("{} is synced after a sync has failed", self.inode.name);
            hold(violations).push(what);
        }
        let left = failing_sync.load(Ordering::SeqCst);
        failing_sync.store(left.saturating_sub(1), Ordering::SeqCst);
        if left == 1 {
            sync_failed.store(true, Ordering::SeqCst);
            return Err(io::Error::other("this sync was told to fail"));
        }
        step();
        Ok(())
    }

    fn map(&self, len: u64) -> io::Result<Mapping> {
        let (disk, inode) = (self.disk.clone(), self.inode.clone());
        Ok(Arc::new(Map { disk, inode, reach: len, settled: AtomicU64::new(0) }))
    }
}

/// Shows the bytes as they are now: what is settled must not change, and whoever read it too soon
/// would see so.
#[derive(Debug)]
struct Map {
    disk: Disk,
    inode: Arc<Inode>,
    reach: u64,
    settled: AtomicU64,
}

impl Mapped for Map {
    fn reach(&self) -> u64 {
        self.reach
    }

    fn settle(&self, end: u64) {
        self.settled.fetch_max(end, Ordering::SeqCst);
    }

    fn bytes(&self, offset: u64, len: usize) -> Option<Cow<'_, [u8]>> {
        step();
        self.disk.check_there(&self.inode);
        let end = offset + len as u64;
        if end > self.reach.min(self.settled.load(Ordering::SeqCst)) {
            return None;
        }
        let (start, end) = (usize::try_from(offset).ok()?, usize::try_from(end).ok()?);
        let bytes = hold(&self.inode.bytes).get(start..end).map(<[u8]>::to_vec);
        if bytes.is_none() {
            let what = format!("{} is touched past its end through a mapping", self.inode.name);
            hold(&self.disk.0.violations).push(what);
        }
        bytes.map(Cow::Owned)
    }
}
