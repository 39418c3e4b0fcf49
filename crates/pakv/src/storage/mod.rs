//! What the engine asks of a disk. One [`Storage`] is one directory: names have no slashes, so
//! nothing outside it can be touched. The engine reaches files through these traits alone, and a
//! test can put a simulated disk behind them that loses, tears and reorders what was not synced.
//!
//! Invariants that an implementation upholds: `sync` returning `Ok` means that the file's bytes and
//! length are durable; `sync_dir` returning `Ok` means that creates, renames and removals before it
//! are durable; a file that is removed while it is open stays readable through the handle.

mod os;
mod publish;

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::planted::{Bug, planted};

pub use os::OsStorage;
pub(crate) use os::{give_memory_back, may_become_store};
pub(crate) use publish::{remove_if_there, replace_file};

/// What is at the path of a store before it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    /// Nothing.
    Absent,
    /// A directory.
    Directory,
    /// Something else.
    Other,
}

/// The answer of [`Storage::lock`].
#[derive(Debug)]
pub enum Lock {
    /// Ours until the guard is dropped or the process ends, however it ends.
    Acquired(LockGuard),
    /// Another handle's; its process, where that could be told.
    Held(Option<u32>),
}

/// Keeps a lock for as long as it lives.
#[derive(Debug)]
pub struct LockGuard(#[expect(dead_code, reason = "held for its drop")] Box<dyn Guard>);

impl LockGuard {
    /// Wraps what must be dropped to release the lock.
    pub fn new(guard: impl Debug + Send + Sync + 'static) -> Self {
        Self(Box::new(guard))
    }
}

trait Guard: Debug + Send + Sync {}
impl<T: Debug + Send + Sync> Guard for T {}

/// One directory that holds, or will hold, a store.
pub trait Storage: Send + Sync + Debug {
    /// The directory, for messages.
    fn path(&self) -> &Path;
    /// What is at the path.
    fn kind(&self) -> io::Result<PathKind>;
    /// Creates the directory and its missing parents, durably.
    fn create_dir(&self) -> io::Result<()>;
    /// The names in the directory, in no order. Those that are not of the store's own naming may be
    /// left out.
    fn list(&self) -> io::Result<Vec<OsString>>;
    /// Creates a file that must not exist, for reading and writing.
    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>>;
    /// Opens a regular file, never through a symbolic link; for writing too if asked, and then one
    /// that has no other name whose content would change.
    fn open(&self, name: &str, writable: bool) -> io::Result<Arc<dyn StorageFile>>;
    /// Renames a file over another, atomically.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Gives a file that does not change any more a second name, `to` in the directory `target`,
    /// where there must be none of that name. Not every storage can, nor every pair of directories:
    /// whoever is refused copies.
    fn link(&self, name: &str, target: &Path, to: &str) -> io::Result<()> {
        let _ = (name, target, to);
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creates, renames and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// Tries once to take the exclusive lock in the file `name`, creating the file if need be.
    fn lock(&self, name: &str) -> io::Result<Lock>;
}

/// One open file.
pub trait StorageFile: Send + Sync + Debug {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether it has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reads at `offset` and says how many bytes were read: fewer than asked for at the end of the
    /// file, and whenever the operating system likes.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at `offset` and says how many bytes were written, which may be fewer than given.
    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize>;
    /// Cuts or extends the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes bytes and length durable. After a failure the bytes may be lost whatever a second call
    /// says.
    fn sync(&self) -> io::Result<()>;
    /// Begins to write out `len` bytes from `offset` on, so that a later sync finds less to do.
    /// Promises nothing and waits for nothing.
    fn write_out(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }
    /// Makes the `len` bytes from `offset` on part of the file, where it ends: zeros, which a write
    /// of this handle replaces without a call to the operating system. `false`: it was not done;
    /// the file may have grown nevertheless, and each write is a call.
    fn prepare(&self, offset: u64, len: u64) -> bool {
        let _ = (offset, len);
        false
    }
    /// Maps the first `len` bytes for reading; the file may be shorter yet. Nothing of it is shown
    /// before it is [settled](Mapped::settle).
    fn map(&self, len: u64) -> io::Result<Mapping>;
}

/// A mapped file, shared by its readers.
pub type Mapping = Arc<dyn Mapped>;

/// A file that is read without a call for each read, and that may still grow: it shows its bytes up
/// to where they are settled, a range at a time. There is no view of all of it, because what is not
/// settled may change or not be there.
pub trait Mapped: Send + Sync + Debug {
    /// How many bytes are mapped, whether they are there or not.
    fn reach(&self) -> u64;
    /// Shows the bytes before `end` from here on: they were written, and neither the bytes nor the
    /// file's length below `end` change any more. An end that is no news does nothing.
    fn settle(&self, end: u64);
    /// The `len` bytes from `offset` on; `None` unless all of them are mapped and settled, and
    /// wherever they are better read from the file.
    fn bytes(&self, offset: u64, len: usize) -> Option<Cow<'_, [u8]>>;
}

/// Writes all of `buffer`, however many calls that takes.
pub(crate) fn write_all_at(
    file: &dyn StorageFile,
    mut buffer: &[u8],
    mut offset: u64,
) -> io::Result<()> {
    while !buffer.is_empty() {
        match file.write_at(buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(_) if planted(Bug::IgnoreShortWrite) => break,
            Ok(written) => {
                buffer = buffer.get(written..).unwrap_or_default();
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills `buffer` from `offset` on as far as the file goes and says how many bytes that were.
pub(crate) fn read_up_to(
    file: &dyn StorageFile,
    buffer: &mut [u8],
    offset: u64,
) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Reads a whole file of at most `limit` bytes. Memory follows the file's real length, never a
/// length it claims.
pub(crate) fn read_all(file: &dyn StorageFile, limit: u64) -> io::Result<Vec<u8>> {
    let len = file.len()?;
    if len > limit {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has {len} bytes, more than the {limit} that such a file can have"),
        ));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    let read = read_up_to(file, &mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}
