//! The real disk: the only file that names `std::fs`, and the only one that maps memory.
//!
//! Invariant of mapped files: what is settled is on the file and is not written or cut any more
//! through the handle that mapped it. Both are asked here, at every call that could break it.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use memmap2::{Advice, MmapOptions, MmapRaw};
use parking_lot::Mutex;

use super::{Lock, LockGuard, Mapped, Mapping, PathKind, Storage, StorageFile, remove_if_there};
use crate::format::{TEMPORARY_SUFFIX, own_file};

/// A store's directory on the file system.
///
/// Directories are created with mode 0700 and files with 0600, subject to the umask.
#[derive(Debug)]
pub struct OsStorage {
    path: PathBuf,
}

impl OsStorage {
    /// The directory `path`, which need not exist yet. Nothing is touched.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Opens what is there under the name, if it is a regular file. O_NONBLOCK: a FIFO is refused
    /// instead of waited for.
    fn open_regular(&self, name: &str, options: &mut OpenOptions) -> io::Result<File> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = options.read(true).custom_flags(flags).open(self.file(name))?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        Ok(file)
    }

    /// Whether somebody holds the lock in the file `name`. Nothing is written or created; for a
    /// moment the lock is shared, and who tries for it in that moment has to try again.
    pub(crate) fn is_locked(&self, name: &str) -> io::Result<bool> {
        let file = match self.open_regular(name, &mut OpenOptions::new()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Puts a copy in the place of a file that is to be written and has another name besides, in
    /// somebody's backup perhaps: what that name shows must not change.
    fn own_copy(&self, name: &str, mut shared: File) -> io::Result<File> {
        let len = shared.metadata()?.len();
        if u32::try_from(len).is_err() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let temporary = format!("{name}{TEMPORARY_SUFFIX}");
        remove_if_there(self, &temporary)?;
        let mut copy = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.file(&temporary))?;
        io::copy(&mut shared, &mut copy)?;
        copy.sync_all()?;
        self.rename(&temporary, name)?;
        self.sync_dir()?;
        Ok(copy)
    }
}

/// Whether a new store may be made at `path` of what is at `source`: nothing is there, or an empty
/// directory, and it is not inside the source.
pub(crate) fn may_become_store(path: &Path, source: &Path) -> io::Result<()> {
    match std::fs::read_dir(path) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let absolute = std::path::absolute(path)?;
    let existing = absolute.ancestors().find_map(|path| std::fs::canonicalize(path).ok());
    if existing
        .is_some_and(|path| std::fs::canonicalize(source).is_ok_and(|it| path.starts_with(it)))
    {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is inside the damaged store"));
    }
    Ok(())
}

impl Storage for OsStorage {
    fn path(&self) -> &Path {
        &self.path
    }

    fn kind(&self) -> io::Result<PathKind> {
        match std::fs::metadata(&self.path) {
            Ok(metadata) if metadata.is_dir() => Ok(PathKind::Directory),
            Ok(_) => Ok(PathKind::Other),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound => Ok(PathKind::Absent),
                io::ErrorKind::NotADirectory => Ok(PathKind::Other),
                _ => Err(error),
            },
        }
    }

    fn create_dir(&self) -> io::Result<()> {
        let missing: Vec<&Path> =
            self.path.ancestors().take_while(|path| !is_root(path) && !path.exists()).collect();
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        // Each new directory is an entry of the one above it, and that entry must survive too.
        for path in missing {
            File::open(parent_of(path))?.sync_all()?;
        }
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<OsString>> {
        // There may be a million files of other names, and they need not all be in memory.
        let is_own = |name: &OsString| name.to_str().is_some_and(|name| own_file(name).is_some());
        std::fs::read_dir(&self.path)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .filter(|name| name.as_ref().map_or(true, is_own))
            .collect()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.file(name))?;
        Ok(Arc::new(OsFile::new(file)))
    }

    fn open(&self, name: &str, writable: bool) -> io::Result<Arc<dyn StorageFile>> {
        let mut file = self.open_regular(name, OpenOptions::new().write(writable))?;
        if writable && file.metadata()?.nlink() > 1 {
            file = self.own_copy(name, file)?;
        }
        Ok(Arc::new(OsFile::new(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.file(from), self.file(to))
    }

    fn link(&self, name: &str, target: &Path, to: &str) -> io::Result<()> {
        std::fs::hard_link(self.file(name), target.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.file(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn lock(&self, name: &str) -> io::Result<Lock> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let mut file = self.open_regular(name, &mut options)?;
        match file.try_lock() {
            // Under its other name it may be anything.
            Ok(()) if file.metadata()?.nlink() > 1 => Ok(Lock::Acquired(LockGuard::new(file))),
            Ok(()) => {
                // The pid is for error messages alone, and a full disk has no room for it; the lock
                // itself is the operating system's.
                let _ = file
                    .set_len(0)
                    .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
                Ok(Lock::Acquired(LockGuard::new(file)))
            }
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                file.rewind()?;
                file.take(32).read_to_string(&mut pid)?;
                Ok(Lock::Held(pid.trim().parse().ok()))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

fn is_root(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[derive(Debug)]
struct OsFile {
    file: File,
    extent: Arc<Extent>,
    /// Where appends are copies in memory.
    window: Mutex<Option<Window>>,
}

/// What a file and its mappings must agree on.
#[derive(Debug, Default)]
struct Extent {
    /// How long the file is at least.
    len: AtomicU64,
    /// The bytes before this are settled.
    settled: AtomicU64,
    /// A sync has failed. What the page cache holds may not be on the disk, and who opens the file
    /// next may cut it: nothing is read through the mapping from here on.
    sync_failed: AtomicBool,
}

impl OsFile {
    fn new(file: File) -> Self {
        Self { file, extent: Arc::default(), window: Mutex::default() }
    }

    /// What a mapping shows is neither written nor cut.
    fn check_unsettled(&self, from: u64) -> io::Result<()> {
        if from < self.extent.settled.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "these bytes are settled"));
        }
        Ok(())
    }
}

impl StorageFile for OsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.check_unsettled(offset)?;
        let window = self.window.lock();
        let written = match window.as_ref().filter(|window| window.copy(buffer, offset)) {
            Some(_) => buffer.len(),
            None => self.file.write_at(buffer, offset)?,
        };
        drop(window);
        let end = offset + written as u64;
        // One thread at a time writes to a segment. If two did, the length would be found too
        // small, which shows less than there is.
        if self.extent.len.load(Ordering::Relaxed) < end {
            self.extent.len.store(end, Ordering::Release);
        }
        Ok(written)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_unsettled(len)?;
        // First: nothing past it may be written or settled while it goes.
        *self.window.lock() = None;
        let _ = self.extent.len.fetch_min(len, Ordering::AcqRel);
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file
            .sync_data()
            .inspect_err(|_| self.extent.sync_failed.store(true, Ordering::Release))
    }

    #[cfg(target_os = "linux")]
    #[expect(unsafe_code, reason = "std has no name for this call; see the comment")]
    fn write_out(&self, offset: u64, len: u64) {
        use std::os::fd::AsRawFd;
        let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else { return };
        // SAFETY: the descriptor is open as long as `self`, and no memory is passed. An error says
        // nothing of the bytes: without its waiting flags the call takes no failed write's report
        // away from the sync that comes.
        let _ = unsafe {
            let flags = libc::SYNC_FILE_RANGE_WRITE;
            libc::sync_file_range(self.file.as_raw_fd(), offset, len, flags)
        };
    }

    #[cfg(target_os = "linux")]
    fn prepare(&self, offset: u64, len: u64) -> bool {
        let mut window = self.window.lock();
        *window = None;
        *window = Window::open(&self.file, offset, len).ok();
        window.is_some()
    }

    fn map(&self, len: u64) -> io::Result<Mapping> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let map = MmapOptions::new().len(len).map_raw_read_only(&self.file)?;
        // Gets come in no order: what the disk would read ahead is nothing that is asked for next.
        // Advice that is not taken costs speed alone.
        let _ = map.advise(Advice::Random);
        self.extent.len.fetch_max(self.len()?, Ordering::AcqRel);
        Ok(Arc::new(OsMapping { map, extent: self.extent.clone() }))
    }
}

/// A range at the end of a file that is mapped for writing: what is copied there is in the operating
/// system's hands as if a write call had brought it, at a twentieth of its price.
#[derive(Debug)]
struct Window {
    map: MmapRaw,
    /// Where the mapping begins in the file.
    start: u64,
}

#[cfg(target_os = "linux")]
impl Window {
    /// Gives the file the `len` bytes from `offset` on, with blocks on the disk, and maps them.
    ///
    /// # Errors
    /// Where the system, the file system or the disk does not do all of it. Space that was given
    /// to the file stays.
    fn open(file: &File, offset: u64, len: u64) -> io::Result<Self> {
        let end = offset.checked_add(len).ok_or(io::ErrorKind::FileTooLarge)?;
        reserve(file, offset, len, end)?;
        let bytes = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let map = MmapOptions::new().offset(offset).len(bytes).map_raw(file)?;
        // All pages at once is a tenth of the price of one by one, and an error here is an error,
        // not a signal. Linux before 5.14 does not know the call.
        map.advise(Advice::PopulateWrite)?;
        Ok(Self { map, start: offset })
    }
}

impl Window {
    /// Copies `buffer` to `offset`, if all of it lies in the window.
    #[expect(unsafe_code, reason = "writing to mapped memory is unsafe by nature; see the comment")]
    fn copy(&self, buffer: &[u8], offset: u64) -> bool {
        let at = offset.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        let Some(at) =
            at.filter(|at| at.checked_add(buffer.len()).is_some_and(|end| end <= self.map.len()))
        else {
            return false;
        };
        // SAFETY: the range lies within the mapping and within the file, which has blocks there
        // (`reserve`) and is cut by this handle alone, which closes the window first. No slice
        // covers it: `OsMapping` shows what is settled, and the caller has asked that this is not
        // (`check_unsettled`). One thread at a time: the window's lock. What remains is what
        // remains of reading a mapping, and stated in the same place.
        unsafe {
            std::ptr::copy_nonoverlapping(
                buffer.as_ptr(),
                self.map.as_mut_ptr().add(at),
                buffer.len(),
            );
        }
        true
    }
}

/// Gives the operating system back what the C library keeps of freed memory: after the load of a
/// store that was a fifth as much as the store's own (10 M keys, glibc 2.36). Takes some milliseconds.
pub(crate) fn give_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "std has no name for this call")]
    // SAFETY: it takes no pointer, and any thread may call it at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Makes a range part of the file and has the file system keep blocks for it, so that no page of it
/// is without a home when it is written.
///
/// # Errors
/// Where there is no space, or a file system writes elsewhere what is written again (btrfs, say), so
/// that a page that has a block may still not find one.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "std has no names for these calls; see the comments")]
fn reserve(file: &File, offset: u64, len: u64, end: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: all zeros is a value of these structures, which the calls fill; the descriptor is
    // open as long as `file`.
    let (status, limit) = unsafe {
        let (mut status, mut limit): (libc::statfs, libc::rlimit) = std::mem::zeroed();
        if libc::fstatfs(file.as_raw_fd(), &mut status) != 0
            || libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) != 0
        {
            return Err(io::Error::last_os_error());
        }
        (status, limit)
    };
    let keeps_blocks = [libc::EXT4_SUPER_MAGIC, libc::XFS_SUPER_MAGIC, libc::TMPFS_MAGIC];
    // The types of these are not the same in every C library.
    let keeps_blocks = keeps_blocks
        .into_iter()
        .any(|magic| u64::try_from(magic).ok() == u64::try_from(status.f_type).ok());
    // Past the limit there is a signal, and a record may still fit before it.
    if !keeps_blocks || u128::from(end) > u128::from(limit.rlim_cur) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let signed = |bytes| i64::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge);
    let (offset, len) = (signed(offset)?, signed(len)?);
    // SAFETY: as above; no memory is passed.
    match unsafe { libc::fallocate(file.as_raw_fd(), 0, offset, len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[derive(Debug)]
struct OsMapping {
    map: MmapRaw,
    extent: Arc<Extent>,
}

/// A record that is larger than this is asked for as a whole before it is touched: page by page the
/// disk would be read once for each.
const ASKED_AT_ONCE_BYTES: usize = 16 * 1024;

impl Mapped for OsMapping {
    fn reach(&self) -> u64 {
        self.map.len() as u64
    }

    fn settle(&self, end: u64) {
        let end = end.min(self.extent.len.load(Ordering::Acquire));
        self.extent.settled.fetch_max(end, Ordering::AcqRel);
    }

    #[expect(unsafe_code, reason = "reading mapped memory is unsafe by nature; see the comment")]
    fn bytes(&self, offset: u64, len: usize) -> Option<Cow<'_, [u8]>> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(len)?;
        if end > self.map.len() || end as u64 > self.extent.settled.load(Ordering::Acquire) {
            return None;
        }
        if self.extent.sync_failed.load(Ordering::Acquire) {
            return None;
        }
        if len > ASKED_AT_ONCE_BYTES {
            let _ = self.map.advise_range(Advice::WillNeed, start, len);
        }
        // SAFETY: the range lies within the mapping, which lives as long as the slice, and within
        // the file: what is settled was written before. Nothing changes these bytes or cuts them
        // off: not this handle (`check_unsettled`), not a second writer (the lock). The rest of the
        // mapping may be past the end of the file, or written at this moment; no slice covers it.
        // What remains is another program cutting the file under us, or the disk failing under a
        // read, which end the process with SIGBUS: stated at `FileAccess::Mapped`, avoidable with
        // `FileAccess::Positional`.
        let bytes = unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(start), len) };
        Some(Cow::Borrowed(bytes))
    }
}
