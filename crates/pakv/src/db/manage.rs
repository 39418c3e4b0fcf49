//! Running a store: sync, compaction, figures, closing.

use std::path::Path;

use super::Db;
use crate::compaction;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::options::{Durability, validate_durability};
use crate::stats::{CompactionProgress, CompactionReport, RecoveryReport, Stats};

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
        self.core().check_writable()?;
        self.core().housekeep(None, true)
    }

    /// The store in figures. Costs no more than looking at each segment's.
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
