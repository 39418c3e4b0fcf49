//! Running a store: sync, compaction, figures, closing.

use std::path::Path;
use std::sync::Arc;

use super::Db;
use crate::backup::{self, BackupProgress, BackupReport};
use crate::compaction;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::options::{Durability, validate_durability};
use crate::stats::{CompactionProgress, CompactionReport, RecoveryReport, Stats};
use crate::storage::{OsStorage, Storage};

impl Db {
    /// Makes everything acknowledged so far durable, whatever its durability was.
    ///
    /// ```
    /// use pakv::{Db, Durability};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// let db = db.with_durability(Durability::Buffered)?;
    /// for number in 0..1000_u32 {
    ///     db.set(number.to_be_bytes(), "quickly")?;
    /// }
    /// db.sync()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] where the sync failed: the store refuses writes from then on.
    /// [`Error::Poisoned`], [`Error::ReadOnly`], [`Error::Closed`].
    pub fn sync(&self) -> Result<()> {
        self.core().sync()
    }

    /// Compacts now, on this thread: all garbage goes, that of the active segment too. Reads and
    /// writes go on.
    ///
    /// ```
    /// use pakv::Db;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// db.set("name", "the first value")?;
    /// db.set("name", "the second")?;
    /// let report = db.compact()?;
    /// assert!(report.bytes_reclaimed() > 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Corrupt`] where a segment is damaged: it stays as it is. [`Error::Io`];
    /// [`Error::Closed`] where the store was closed meanwhile. Nothing is lost by any of them.
    pub fn compact(&self) -> Result<CompactionReport> {
        self.compact_with(|_| ())
    }

    /// As [`Db::compact`], telling `progress` after every record how far it has come. `progress` must
    /// neither compact nor close the store: it would wait for itself.
    ///
    /// ```
    /// use pakv::Db;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// db.compact_with(|progress| {
    ///     println!("{} of {} bytes", progress.bytes_done, progress.bytes_total);
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Db::compact`].
    pub fn compact_with(
        &self,
        mut progress: impl FnMut(CompactionProgress),
    ) -> Result<CompactionReport> {
        compaction::run_forced(self.core(), &mut progress)
    }

    /// Does what the background thread does, on this thread, until nothing is left to do: builds
    /// hints, drops what has expired, and compacts as far as the options' bounds ask for. For
    /// programs that switched the thread off with `Options::background_compaction`, or that end
    /// too soon for it to finish anything.
    ///
    /// ```
    /// use pakv::Options;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let db = Options::new().background_compaction(false).open(dir.path())?;
    /// db.set("name", "pakv")?;
    /// db.maintain()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Db::compact`]; [`Error::ReadOnly`], [`Error::Poisoned`].
    pub fn maintain(&self) -> Result<()> {
        self.maintain_with(|_| ())
    }

    /// As [`Db::maintain`], telling `progress` how far each of its compactions has come; as with
    /// [`Db::compact_with`], it must neither compact nor close the store.
    ///
    /// # Errors
    /// As [`Db::maintain`].
    pub fn maintain_with(&self, mut progress: impl FnMut(CompactionProgress)) -> Result<()> {
        self.core().check_writable()?;
        self.core().housekeep(None, true, &mut progress)
    }

    /// Backs the store up into the directory `dir`, while it is open and being written to. The backup
    /// is itself a store: it can be opened, or brought back with
    /// [`backup::restore`](crate::backup::restore).
    ///
    /// It holds every write that was acknowledged before the call, and all writes up to one sequence
    /// number and none after it; batches are whole. When this returns it is on the disk: it survives
    /// power loss, whatever the durability of the writes was.
    ///
    /// Sealed segments are not copied but linked (one file, two names), which takes no space and no
    /// time to speak of. Where the directory is on another file system, or links are refused, they
    /// are copied. Of the active segment, at most one segment's size, the records are always copied.
    /// A linked file is never written to again, by the store or by whoever opens the backup; but
    /// damage by the disk meets both, so keep a copy elsewhere too.
    ///
    /// Into a directory that holds an earlier backup of the same store, only segments that it lacks
    /// are brought, and those that the store no longer has are removed. Interrupted at any point, it
    /// opens as the earlier backup or as the new one; a first one that was interrupted is refused
    /// with [`Error::BackupUnfinished`] until it is made again.
    ///
    /// Sealed segments are not read here, so damage that they have goes along: a restore finds it.
    ///
    /// ```
    /// use pakv::{Db, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let (path, copy) = (dir.path().join("store"), dir.path().join("copy"));
    /// let db = Db::open(&path)?;
    /// db.set("name", "pakv")?;
    /// let report = db.backup(&copy)?;
    /// assert_eq!(report.seqno, 1);
    /// db.set("name", "changed since")?;
    /// let copy = Options::new().read_only(true).open(&copy)?;
    /// assert_eq!(copy.get("name")?.as_deref(), Some(&b"pakv"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::TargetRefused`] where the directory holds another store, or a backup that was opened
    /// for writing or is of another past; [`Error::InUse`] where somebody has it open;
    /// [`Error::ManifestMissing`] where it holds what is left of a store. [`Error::Corrupt`] where a
    /// record of the active segment is damaged. [`Error::Io`]; [`Error::Poisoned`] (open the store
    /// again, or use [`backup::take`](crate::backup::take)); [`Error::Closed`].
    pub fn backup(&self, dir: impl AsRef<Path>) -> Result<BackupReport> {
        self.backup_with(dir, |_| ())
    }

    /// As [`Db::backup`], telling `progress` how far it has come.
    ///
    /// # Errors
    /// As [`Db::backup`].
    pub fn backup_with(
        &self,
        dir: impl AsRef<Path>,
        progress: impl FnMut(BackupProgress),
    ) -> Result<BackupReport> {
        self.backup_storage(Arc::new(OsStorage::new(dir.as_ref())), progress)
    }

    /// The same, into a directory behind another [`Storage`]: a simulated disk in tests.
    ///
    /// # Errors
    /// As [`Db::backup`].
    pub fn backup_storage(
        &self,
        target: Arc<dyn Storage>,
        mut progress: impl FnMut(BackupProgress),
    ) -> Result<BackupReport> {
        backup::of_open(self.core(), &target, &mut progress)
    }

    /// The store in figures. Costs no more than looking at each segment's, and at each key that has
    /// expired since it was last asked: cheap enough to be asked each second, however many keys
    /// there are.
    ///
    /// ```
    /// use pakv::Db;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// db.set("name", "pakv")?;
    /// let stats = db.stats()?;
    /// println!("{} keys, {:.2} times their bytes on disk", stats.keys, stats.space_amplification());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn stats(&self) -> Result<Stats> {
        self.core().stats()
    }

    /// What the open found and did.
    pub fn recovery(&self) -> &RecoveryReport {
        &self.core().recovery
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.core().storage.path()
    }

    /// A handle of the same store whose writes are acknowledged by another [`Durability`].
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use pakv::{Db, Durability};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// let quick = db.with_durability(Durability::Interval(Duration::from_millis(100)))?;
    /// quick.set("counter", "1")?; // acknowledged at once, on the disk within 100 ms
    /// db.set("order", "paid")?; // on the disk when this returns
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for an interval below 1 ms.
    pub fn with_durability(&self, durability: Durability) -> Result<Db> {
        validate_durability(durability)?;
        self.handle.ensure_syncer(durability)?;
        Ok(Db { handle: self.handle.clone(), durability })
    }

    /// Closes the store for every handle: waits for writes in flight, ends a running compaction,
    /// makes everything durable and releases the lock. Other handles answer [`Error::Closed`] from
    /// then on.
    ///
    /// ```
    /// use pakv::Db;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// db.set("name", "pakv")?;
    /// db.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] where the last sync failed; [`Error::Poisoned`] where an earlier write did:
    /// not everything that was written may be durable. The store is closed all the same.
    pub fn close(self) -> Result<()> {
        self.handle.close()
    }
}
