//! The one error type. A variant is a fact with its fields; its `Display` is a sentence that a
//! person can act on.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::poison::Refused;

/// What the library's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, with what is needed to act on it.
///
/// "Not found" is not an error: reads answer `None` and conditions answer `false`.
///
/// ```
/// use pakv::{Error, Options};
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path();
/// match Options::new().create(false).open(path) {
///     Err(Error::NoStore { path }) => println!("nothing at {}", path.display()),
///     Err(error) if error.is_corruption() => println!("damaged: {error}"),
///     other => drop(other?),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation on a file of the store.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb phrase: "open", "write to", "sync".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// The bytes on disk are not those that were written: a wrong checksum, an impossible length, a
    /// segment that the manifest lists and the directory lacks. Never reported for a torn tail,
    /// which recovery cuts.
    #[error("{} is damaged at byte {offset}: {reason}", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where in the file the first damaged structure begins, in bytes.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },

    /// There is no store at this path and the options say not to create one.
    #[error("there is no store at {}", path.display())]
    NoStore {
        /// Where it was looked for.
        path: PathBuf,
    },

    /// The path exists and is not a directory.
    #[error("{} is not a directory, so it cannot be a store", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },

    /// The directory holds segments and no manifest: it was a store once. Nothing is created over
    /// it.
    #[error("{} holds segments of a store but its MANIFEST is missing", path.display())]
    ManifestMissing {
        /// The directory.
        path: PathBuf,
    },

    /// A backup or a restore into the directory was interrupted before it was whole. Nothing that was
    /// there before is lost; make it again.
    #[error("a backup or restore into {} was interrupted before it was whole", path.display())]
    BackupUnfinished {
        /// The directory.
        path: PathBuf,
    },

    /// The directory cannot take this backup or restore. Nothing in it was changed.
    #[error("nothing was written to {}: {reason}", path.display())]
    TargetRefused {
        /// The directory.
        path: PathBuf,
        /// Why, and what to do instead.
        reason: &'static str,
    },

    /// A file of the store has a format version that this build does not know. Nothing was touched.
    #[error("{} has format version {found}; this build reads version {supported}", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// The version it carries.
        found: u32,
        /// The version that this build reads and writes.
        supported: u32,
    },

    /// Another handle, in this process or another, has the store open for writing.
    #[error("the store {} is in use{}", path.display(), held_by(*pid))]
    InUse {
        /// The store.
        path: PathBuf,
        /// The process that holds it, where it could be told.
        pid: Option<u32>,
        /// How long the lock was waited for.
        waited: Duration,
    },

    /// The store was opened with [`Options::read_only`](crate::Options::read_only).
    #[error("the store {} was opened for reading only", path.display())]
    ReadOnly {
        /// The store.
        path: PathBuf,
    },

    /// A refresh of a store that is open for reading only found another store in the directory, or
    /// an older state of this one. The state is as it was before.
    #[error("{} no longer holds the store that was opened, or holds an older state of it", path.display())]
    Replaced {
        /// The directory.
        path: PathBuf,
    },

    /// The changes that were asked for, or came next, are not there any more as they were written:
    /// compaction has rewritten the segments that held them.
    #[error(
        "the changes from {from} on are not all there any more: compaction has rewritten those before \
         {oldest}"
    )]
    HistoryGone {
        /// The sequence number of the first change that was asked for.
        from: u64,
        /// The sequence number from which on all changes can be had; no write has it yet where none
        /// can.
        oldest: u64,
    },

    /// Changes were asked for from a sequence number on that the store has not come to: it may be
    /// another store, or an older state of it, than the one whose changes were followed.
    #[error("there is no change {from} yet: the newest is {newest}")]
    NotWrittenYet {
        /// The sequence number of the first change that was asked for.
        from: u64,
        /// The sequence number of the newest write.
        newest: u64,
    },

    /// An earlier write or sync failed. Reads go on; writes are refused until the store is opened
    /// again, because after a failed sync the operating system may have dropped what it could not
    /// write.
    #[error("the store refuses writes since an earlier failure: {reason}")]
    Poisoned {
        /// The first failure.
        reason: String,
    },

    /// [`Db::close`](crate::Db::close) was called on this or another handle of the store.
    #[error("the store is closed")]
    Closed,

    /// Keys have at least one byte.
    #[error("the key is empty; a key has at least one byte")]
    KeyEmpty,

    /// The key is longer than [`MAX_KEY_BYTES`](crate::MAX_KEY_BYTES).
    #[error("the key has {len} bytes; the limit is {limit}")]
    KeyTooLong {
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },

    /// The value is longer than [`MAX_VALUE_BYTES`](crate::MAX_VALUE_BYTES).
    #[error("the value has {len} bytes; the limit is {limit}")]
    ValueTooLong {
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },

    /// The batch or transaction holds more than [`MAX_BATCH_BYTES`](crate::MAX_BATCH_BYTES).
    #[error("the batch has {len} bytes; the limit is {limit}")]
    BatchTooLarge {
        /// Its size on disk in bytes.
        len: u64,
        /// The limit in bytes.
        limit: u64,
    },

    /// An option lies outside its limits.
    #[error("the option {option} cannot be {value}: {limit}")]
    InvalidOption {
        /// The name of the setter.
        option: &'static str,
        /// What was asked for.
        value: String,
        /// What is possible, as a sentence part.
        limit: String,
    },

    /// This thread has a transaction open and wrote past it, which could only wait for itself.
    #[error("this thread has an open transaction: write through it, or finish it first")]
    TransactionOpen,

    /// A value could not be turned into bytes by [`Db::set_as`](crate::Db::set_as).
    #[error("the value cannot be encoded: {reason}")]
    Encode {
        /// What the encoder said.
        reason: String,
    },

    /// The bytes of a value are not of the type that [`Db::get_as`](crate::Db::get_as) was asked
    /// for. The key is there and its checksum is right.
    #[error("the value of the key is not of the type asked for: {reason}")]
    Decode {
        /// What the decoder said.
        reason: String,
    },
}

fn held_by(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(": process {pid} has it open"))
}

impl Error {
    /// Whether the bytes on disk are damaged.
    pub fn is_corruption(&self) -> bool {
        matches!(self, Error::Corrupt { .. } | Error::ManifestMissing { .. })
    }

    /// Whether the disk, or the quota on it, is full. What was acknowledged is safe; open the store
    /// again once there is space.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Error::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    /// What to tell those who are refused because of this error.
    pub(crate) fn poison_reason(&self) -> String {
        match self {
            Error::Poisoned { reason } => reason.clone(),
            other => other.to_string(),
        }
    }

    /// For `map_err`: wraps what the operating system said with what was tried, and on which file.
    pub(crate) fn io<'a>(
        action: &'static str,
        path: impl Into<&'a Path>,
    ) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| match source.downcast::<Refused>() {
            Ok(Refused { reason }) => Error::Poisoned { reason },
            Err(source) => Error::Io { action, path: path.to_path_buf(), source },
        }
    }

    pub(crate) fn corrupt(path: &Path, offset: u64, reason: impl Into<String>) -> Error {
        Error::Corrupt { path: path.to_path_buf(), offset, reason: reason.into() }
    }
}
