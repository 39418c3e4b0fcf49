//! Following a store: a reader moves on to what was written since, changes come in their order.

use super::Db;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::watch::Watch;

impl Db {
    /// Moves a store that was opened with [`Options::read_only`](crate::Options::read_only) on to
    /// what its writer, in this process or another, has written since; returns the sequence number
    /// of the newest write that this handle and its clones see then. On a handle that writes there
    /// is nothing to do, for it sees every write at once.
    ///
    /// What is seen is a prefix of the order of writes, never half a batch, and never less than
    /// before. A write of another process is seen as soon as that process has handed it to the
    /// operating system, which may be before it is as durable as it was asked to be: see
    /// [`Durability`](crate::Durability). Snapshots and scans keep what they saw, and compaction
    /// takes nothing away from under them.
    ///
    /// It costs what was written since, by users and by compaction: those records are read, without
    /// their values where there is a hint, and put into the keydir. Where compaction has dropped keys
    /// that were deleted, the keydir is looked through once. Where nothing was written it reads the
    /// manifest and a few bytes of the active segment. Other threads read meanwhile, and wait only
    /// while the keydir is changed.
    ///
    /// ```
    /// use pakv::{Db, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path();
    /// let writer = Db::open(path)?;
    /// let reader = Options::new().read_only(true).open(path)?;
    /// writer.set("name", "pakv")?;
    /// assert_eq!(reader.get("name")?, None);
    /// reader.refresh()?;
    /// assert_eq!(reader.get("name")?.as_deref(), Some(&b"pakv"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Replaced`] where the directory holds another store by now, or an older state of this
    /// one. [`Error::Corrupt`] where bytes known to be durable are damaged, [`Error::Io`],
    /// [`Error::NoStore`], [`Error::UnknownFormat`], as at an open. [`Error::Closed`]. After an
    /// error the handle goes on with what it saw before.
    pub fn refresh(&self) -> Result<u64> {
        self.handle.ensure_merger()?;
        self.core().refresh()
    }

    /// The changes from sequence number `from` on, in their order. See [`Watch`].
    ///
    /// ```
    /// use pakv::Db;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// db.set("name", "pakv")?;
    /// db.delete("name")?;
    /// let changes: Vec<_> = db.watch(1)?.collect::<pakv::Result<_>>()?;
    /// assert_eq!(changes[0].value.as_deref(), Some(&b"pakv"[..]));
    /// assert_eq!((changes[1].seqno, &changes[1].value), (2, &None));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::HistoryGone`] where compaction has rewritten some of them, [`Error::NotWrittenYet`]
    /// where `from` is more than one past the newest write; as [`Db::refresh`].
    pub fn watch(&self, from: u64) -> Result<Watch> {
        self.handle.ensure_merger()?;
        Watch::begin(&self.handle, from)
    }
}
