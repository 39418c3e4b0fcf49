//! How a store is opened. Each setter states unit, default and limit; [`Options::open`] checks them
//! all before it touches the disk.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::keydir::MERGE_KEYS_MIN;
use crate::limits::{MAX_SEGMENT_BYTES, MIN_SEGMENT_BYTES};

/// When a write is acknowledged, and so what it survives.
///
/// Reads see a write once it is acknowledged, never before. A clean [`close`](crate::Db::close)
/// makes everything durable whatever the level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// When the operating system says that it is on the disk (`fdatasync` returned). Survives power
    /// loss. Writers that wait at the same time share one sync. The default.
    #[default]
    Sync,
    /// When it is handed to the operating system; a thread syncs this often. Survives `kill -9` at
    /// once, power loss up to this long ago. At least 1 ms.
    Interval(Duration),
    /// When it is handed to the operating system, which writes it out in its own time. Survives
    /// `kill -9`, not power loss.
    Buffered,
}

/// How records are read, and appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FileAccess {
    /// Through mappings of the files: the fastest. Gets read without a system call. Small writes
    /// with [`Durability::Buffered`] are copies into space that was given to the file before, on
    /// Linux 5.14 and later and on ext4, XFS and tmpfs; elsewhere, and with every other durability,
    /// they are calls. A file system that has failed refuses no copy: it shows at the next sync, or
    /// some 256 KiB later. If another program truncates a segment while it is mapped, or the disk fails
    /// under it, or an XFS is full and another program has copied the active segment by sharing its
    /// blocks (`cp --reflink`), the operating system ends the process (SIGBUS). The default.
    #[default]
    Mapped,
    /// With a positional read for each record and a write for each group: slower by those system
    /// calls, and a failing disk is an error.
    Positional,
}

/// How to open a store. Built by chaining setters, each of which states unit, default and limit.
///
/// ```
/// use pakv::{Durability, Options};
///
/// # let dir = tempfile::tempdir()?;
/// let db = Options::new()
///     .durability(Durability::Buffered)
///     .segment_bytes(16 << 20)
///     .open(dir.path())?;
/// db.set("answer", "42")?;
/// db.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Options {
    pub(crate) durability: Durability,
    pub(crate) segment_bytes: u64,
    pub(crate) background: bool,
    pub(crate) space_amplification: f64,
    pub(crate) segment_garbage_ratio: f64,
    pub(crate) min_garbage_bytes: u64,
    pub(crate) compaction_rate: Option<u64>,
    pub(crate) hintless_bytes: u64,
    pub(crate) hintless_segment_bytes: u64,
    pub(crate) file_access: FileAccess,
    pub(crate) keydir_merge_keys: usize,
    pub(crate) lock_wait: Duration,
    pub(crate) create: bool,
    pub(crate) read_only: bool,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::Sync,
            segment_bytes: 64 * 1024 * 1024,
            background: true,
            space_amplification: 1.40,
            segment_garbage_ratio: 0.6,
            min_garbage_bytes: 512 * 1024,
            compaction_rate: Some(64 * 1024 * 1024),
            hintless_bytes: 4 * 1024 * 1024 * 1024,
            hintless_segment_bytes: 256 * 1024,
            file_access: FileAccess::Mapped,
            keydir_merge_keys: MERGE_KEYS_MIN,
            lock_wait: Duration::from_millis(100),
            create: true,
            read_only: false,
            clock: Arc::new(SystemClock),
        }
    }
}

impl Options {
    /// The defaults, which suit most programs.
    pub fn new() -> Self {
        Self::default()
    }

    /// When writes are acknowledged. Default: [`Durability::Sync`]. A handle can have another:
    /// [`Db::with_durability`](crate::Db::with_durability).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use pakv::{Durability, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// // At most the last second is lost with the power, and nothing with the process.
    /// let every_second = Durability::Interval(Duration::from_secs(1));
    /// let db = Options::new().durability(every_second).open(dir.path())?;
    /// db.set("name", "pakv")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// The size in bytes at which a segment is sealed and a new one begun; a batch that is larger
    /// still goes into one segment. Default: 64 MiB. Limits: 512 bytes to 2 GiB. With background
    /// compaction a small store's segments are smaller, down to 1 MiB.
    ///
    /// Space is reclaimed segment by segment: smaller ones give it back sooner, larger ones keep
    /// fewer files.
    ///
    /// ```
    /// use pakv::{Error, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let opened = Options::new().segment_bytes(100).open(dir.path());
    /// assert!(matches!(opened, Err(Error::InvalidOption { .. })));
    /// Options::new().segment_bytes(256 << 20).open(dir.path())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// Whether a thread of the store's own compacts, builds hints and drops what has expired.
    /// Default: true.
    ///
    /// Without it that work is done by [`Db::compact`](crate::Db::compact) and when a segment is
    /// sealed, on the calling thread: nothing happens that was not called for. An example is at
    /// [`Db::maintain`](crate::Db::maintain).
    pub fn background_compaction(mut self, enabled: bool) -> Self {
        self.background = enabled;
        self
    }

    /// Compaction starts when the store takes more than this many times the bytes of its live keys
    /// and values on disk (hints included) and there is garbage to gain. It runs beside the writers,
    /// who are slowed down where it does not keep up, so that the store stays within an eighth of
    /// that overhead above it; when nobody writes it goes on to three fifths of that overhead.
    /// Default: 1.40, which keeps to 1.5 at all times and to 1.35 at rest. Limits: 1.05 to 100.
    ///
    /// Lower is smaller and writes more. Where keys and values are tiny, what surrounds them on the
    /// disk is more than the bound allows by itself; compaction then leaves a quarter of garbage. An
    /// example is at [`compaction_rate`](Self::compaction_rate).
    pub fn compaction_space_amplification(mut self, factor: f64) -> Self {
        self.space_amplification = factor;
        self
    }

    /// A single sealed segment is compacted when this share of it is garbage, whatever the rest is
    /// like. Default: 0.6. Limits: 0.05 to 1.
    ///
    /// ```
    /// use pakv::Options;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// // Only the space of the whole store counts, and only from 64 MiB of garbage on.
    /// let db = Options::new()
    ///     .compaction_segment_garbage_ratio(1.0)
    ///     .compaction_min_garbage(64 << 20)
    ///     .open(dir.path())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn compaction_segment_garbage_ratio(mut self, ratio: f64) -> Self {
        self.segment_garbage_ratio = ratio;
        self
    }

    /// Compaction does not start for less garbage than this, in bytes. Default: 512 KiB. No limits. An
    /// example is at [`compaction_segment_garbage_ratio`](Self::compaction_segment_garbage_ratio).
    pub fn compaction_min_garbage(mut self, bytes: u64) -> Self {
        self.min_garbage_bytes = bytes;
        self
    }

    /// How many bytes a second background compaction reads and writes together while the store is
    /// within its bound; beyond it the limit rises until the bound is kept. `None`: no limit.
    /// Default: 64 MiB/s. At least 64 KiB/s. [`Db::compact`](crate::Db::compact) is not limited.
    ///
    /// ```
    /// use pakv::Options;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// // For a slow disk that others use too: more space, less writing, and slowly.
    /// let db = Options::new()
    ///     .compaction_space_amplification(2.0)
    ///     .compaction_rate(Some(8 << 20))
    ///     .open(dir.path())?;
    /// db.set("name", "pakv")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn compaction_rate(mut self, bytes_per_second: Option<u64>) -> Self {
        self.compaction_rate = bytes_per_second;
        self
    }

    /// How many bytes of the log may do without hints, which an open then reads whole. Hints of small
    /// records (below 512 bytes) are a fifth of the log, and what is overwritten soon needs none; past
    /// this the oldest segments are given theirs. Default: 4 GiB, so that a store of small records
    /// keeps to its bound on space, which has no room for their hints, up to that size; an open takes
    /// about as long for each key either way, but reads three or four times as many bytes.
    /// No limits: 0 gives every sealed segment its hint, `u64::MAX` none of small records.
    ///
    /// ```
    /// use pakv::Options;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// // The least to read at an open from a slow disk, for a fifth more space.
    /// let db = Options::new().hintless_bytes(0).open(dir.path())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn hintless_bytes(mut self, bytes: u64) -> Self {
        self.hintless_bytes = bytes;
        self
    }

    /// A segment smaller than this has its hint whatever its records are. For tests, whose segments
    /// are tiny.
    #[doc(hidden)]
    pub fn hintless_segments_from(mut self, bytes: u64) -> Self {
        self.hintless_segment_bytes = bytes;
        self
    }

    /// How records are read and appended. Default: [`FileAccess::Mapped`].
    ///
    /// ```
    /// use pakv::{FileAccess, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// // On a disk that may fail: an error then, and no signal.
    /// let db = Options::new().file_access(FileAccess::Positional).open(dir.path())?;
    /// db.set("name", "pakv")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn file_access(mut self, access: FileAccess) -> Self {
        self.file_access = access;
        self
    }

    /// How many new keys the keydir takes at least before it merges them. For tests, whose stores are
    /// too small for it to happen otherwise.
    #[doc(hidden)]
    pub fn keydir_merge_keys(mut self, keys: usize) -> Self {
        self.keydir_merge_keys = keys;
        self
    }

    /// How long to wait for the store's lock, since another handle may be closing. Default: 100 ms.
    /// No limits; zero tries once.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use pakv::{Db, Error, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let first = Db::open(dir.path())?;
    /// let second = Options::new().lock_wait(Duration::ZERO).open(dir.path());
    /// assert!(matches!(second, Err(Error::InUse { .. })));
    /// first.close()?;
    /// Options::new().lock_wait(Duration::from_secs(10)).open(dir.path())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait;
        self
    }

    /// Whether a store is created where there is none; its directory too, parents included.
    /// Default: true.
    ///
    /// ```
    /// use pakv::{Error, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let opened = Options::new().create(false).open(dir.path().join("nothing"));
    /// assert!(matches!(opened, Err(Error::NoStore { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Opens without the lock and without writing a byte, beside a live writer too: the handle sees
    /// the state as of the open, and after each [`Db::refresh`](crate::Db::refresh) that of then.
    /// Default: false. Implies `create(false)`.
    ///
    /// ```
    /// use pakv::{Db, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let writer = Db::open(dir.path())?;
    /// let reader = Options::new().read_only(true).open(dir.path())?;
    /// writer.set("name", "pakv")?;
    /// assert!(!reader.contains("name")?);
    /// reader.refresh()?;
    /// assert!(reader.contains("name")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Where expiry takes the time from. Default: [`SystemClock`].
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::time::Duration;
    ///
    /// use pakv::{Expiry, ManualClock, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let clock = Arc::new(ManualClock::new(0));
    /// let db = Options::new().clock(clock.clone()).open(dir.path())?;
    /// db.set_with_expiry("session", "open", Expiry::After(Duration::from_secs(60)))?;
    /// assert!(db.contains("session")?);
    /// clock.advance(Duration::from_secs(60));
    /// assert!(!db.contains("session")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let check = |ok: bool, option: &'static str, value: String, limit: &str| {
            if ok {
                Ok(())
            } else {
                Err(Error::InvalidOption { option, value, limit: limit.to_string() })
            }
        };
        check(
            (MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(&self.segment_bytes),
            "segment_bytes",
            self.segment_bytes.to_string(),
            "it lies between 512 bytes and 2 GiB",
        )?;
        check(
            (1.05..=100.0).contains(&self.space_amplification),
            "compaction_space_amplification",
            self.space_amplification.to_string(),
            "it lies between 1.05 and 100",
        )?;
        check(
            (0.05..=1.0).contains(&self.segment_garbage_ratio),
            "compaction_segment_garbage_ratio",
            self.segment_garbage_ratio.to_string(),
            "it lies between 0.05 and 1",
        )?;
        check(
            self.compaction_rate.is_none_or(|rate| rate >= 64 * 1024),
            "compaction_rate",
            format!("{:?}", self.compaction_rate),
            "it is at least 65536 bytes a second",
        )?;
        validate_durability(self.durability)
    }
}

/// Also asked by [`Db::with_durability`].
pub(crate) fn validate_durability(durability: Durability) -> Result<()> {
    match durability {
        Durability::Interval(every) if every < Duration::from_millis(1) => {
            Err(Error::InvalidOption {
                option: "durability",
                value: format!("an interval of {every:?}"),
                limit: "it is at least 1 ms".to_string(),
            })
        }
        _ => Ok(()),
    }
}
