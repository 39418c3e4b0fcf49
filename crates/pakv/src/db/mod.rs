//! `Db`: the handle. Every method checks its arguments, calls one room of the house, and says what
//! it guarantees.

mod conditions;
mod expiry;
mod follow;
mod manage;
mod typed;

use std::ops::RangeBounds;
use std::path::Path;
use std::sync::Arc;

pub use conditions::Expected;

use crate::batch::{BatchOp, WriteBatch};
use crate::clock::Expiry;
use crate::commit::{Condition, Outcome, Request};
use crate::core::Core;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::format::SeqNo;
use crate::format::record::Op;
use crate::handle::Handle;
use crate::limits::{check_key, check_op};
use crate::options::{Durability, Options};
use crate::poison::{FailStop, Poison};
use crate::recovery;
use crate::scan::Scan;
use crate::snapshot::Snapshot;
use crate::stats::OpenProgress;
use crate::storage::{OsStorage, Storage};
use crate::transaction::Transaction;

/// An open store. Cheap to clone, and safe to use from any number of threads at once.
///
/// Keys are byte strings of 1 byte to 64 KiB, values byte strings of up to 512 MiB. A write is
/// acknowledged when the call returns, and then survives what its [`Durability`] says; from then on
/// every read sees it.
///
/// Dropping the last handle closes the store cleanly; [`Db::close`] does so at once and reports
/// errors.
///
/// ```
/// use pakv::Db;
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path();
/// let db = Db::open(path)?;
/// db.set("name", "pakv")?;
/// assert_eq!(db.get("name")?.as_deref(), Some(&b"pakv"[..]));
/// assert!(db.delete("name")?);
/// assert_eq!(db.get("name")?, None);
/// db.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Db {
    handle: Arc<Handle>,
    durability: Durability,
}

impl Options {
    /// Opens the store in the directory `path`, or creates it there, and recovers its state.
    ///
    /// What recovery found is told by [`Db::recovery`](crate::Db::recovery). Behind the open of a
    /// store of many keys glibc is asked to give back memory that it keeps (`malloc_trim`), which
    /// concerns the whole process and takes some milliseconds.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] before anything is touched. [`Error::NoStore`],
    /// [`Error::NotADirectory`], [`Error::InUse`], [`Error::UnknownFormat`],
    /// [`Error::ManifestMissing`]: as they read, nothing was changed. [`Error::Corrupt`] where
    /// bytes known to be durable are damaged. [`Error::Io`] for the rest.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Db> {
        self.open_with(path, |_| ())
    }

    /// As [`Options::open`], telling `progress` after each sealed segment how far it has come: all
    /// keys are read, which takes about a quarter of a second for a million.
    ///
    /// ```
    /// use pakv::Options;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let db = Options::new().open_with(dir.path(), |progress| {
    ///     println!("{} of {} bytes", progress.bytes_done, progress.bytes_total);
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open_with(
        self,
        path: impl AsRef<Path>,
        mut progress: impl FnMut(OpenProgress),
    ) -> Result<Db> {
        let storage = Arc::new(OsStorage::new(path.as_ref()));
        Db::open_at(self, storage, &mut progress)
    }

    /// Opens a store that lives behind another [`Storage`]: a simulated disk in tests.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open_storage(self, storage: Arc<dyn Storage>) -> Result<Db> {
        Db::open_at(self, storage, &mut |_| ())
    }
}

impl Db {
    /// Opens the store in the directory `path` with the default options, creating it if there is
    /// none.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Db> {
        Options::new().open(path)
    }

    fn open_at(
        options: Options,
        storage: Arc<dyn Storage>,
        progress: &mut dyn FnMut(OpenProgress),
    ) -> Result<Db> {
        options.validate()?;
        let durability = options.durability;
        let poison = Arc::new(Poison::default());
        let storage: Arc<dyn Storage> = Arc::new(FailStop::new(storage, poison.clone()));
        let recovered = recovery::open(&options, &storage, progress)?;
        let core = Arc::new(Core::new(options, storage, poison, recovered));
        let handle = Arc::new(Handle::new(core)?);
        handle.ensure_syncer(durability)?;
        Ok(Db { handle, durability })
    }

    /// The value of a key; `None` if it is not there or has expired. A key that is not there
    /// touches no disk; one that is costs one read, and its checksum is verified.
    ///
    /// ```
    /// use pakv::Db;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// db.set("name", "pakv")?;
    /// assert_eq!(db.get("name")?.as_deref(), Some(&b"pakv"[..]));
    /// assert_eq!(db.get("nobody")?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::KeyEmpty`], [`Error::KeyTooLong`], [`Error::Closed`]; [`Error::Corrupt`] where the
    /// record is damaged, never `None` in its stead; [`Error::Io`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.core().get(check_key(key.as_ref())?, None)
    }

    /// What `read` makes of the value of a key, which it is shown where it stands, verified and
    /// without a copy; `None`, and no call, if the key is not there or has expired. No lock is held
    /// meanwhile: `read` may do with the store what it likes.
    ///
    /// ```
    /// use pakv::Db;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// db.set("name", "pakv")?;
    /// assert_eq!(db.get_with("name", |value| value.len())?, Some(4));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](Self::get).
    pub fn get_with<T>(
        &self,
        key: impl AsRef<[u8]>,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>> {
        let mut read = Some(read);
        let once = |value: &[u8]| read.take().map(|read| read(value));
        self.core().get_with(check_key(key.as_ref())?, None, once).map(Option::flatten)
    }

    /// Whether a key is there. Touches no disk.
    ///
    /// ```
    /// use pakv::Db;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// db.set("name", "pakv")?;
    /// assert!(db.contains("name")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::KeyEmpty`], [`Error::KeyTooLong`], [`Error::Closed`].
    pub fn contains(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.core().lookup(check_key(key.as_ref())?, None)?.is_some())
    }

    /// How many keys are there. Touches no disk.
    ///
    /// ```
    /// use pakv::Db;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// db.set("name", "pakv")?;
    /// assert_eq!(db.len()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn len(&self) -> Result<u64> {
        self.core().check_open()?;
        let now_ms = self.core().now_ms();
        Ok(self.core().index.read().len(now_ms))
    }

    /// Whether no key is there.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn is_empty(&self) -> Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// Sets a key to a value without expiry, whatever it was before.
    ///
    /// ```
    /// use pakv::Db;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// db.set("name", "pakv")?;
    /// db.set([0, 255], b"any bytes, newlines\nand NUL\0 too")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::KeyEmpty`], [`Error::KeyTooLong`], [`Error::ValueTooLong`], [`Error::ReadOnly`],
    /// [`Error::TransactionOpen`], [`Error::Closed`]: nothing was written. [`Error::Io`] where the
    /// disk failed: the store refuses writes from then on ([`Error::Poisoned`]), and whether this
    /// one survives is known after the next open.
    pub fn set(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.set_with_expiry(key, value, Expiry::Never)
    }

    /// Sets a key to a value that expires.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use pakv::{Db, Expiry};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// db.set_with_expiry("session", "ann", Expiry::After(Duration::from_secs(600)))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Db::set`].
    pub fn set_with_expiry(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        expiry: Expiry,
    ) -> Result<()> {
        let expires_at_ms = self.expires_at_ms(expiry);
        let op = Op::Set { expires_at_ms, key: key.as_ref(), value: value.as_ref() };
        self.commit(&[op], None).map(|_| ())
    }

    /// Deletes a key and tells whether it was there. One that is not there costs no write, and its
    /// absence is as durable as a write of this handle.
    ///
    /// ```
    /// use pakv::Db;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// db.set("name", "pakv")?;
    /// assert!(db.delete("name")?);
    /// assert!(!db.delete("name")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Db::set`].
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = check_key(key.as_ref())?;
        self.core().check_writable()?;
        if self.core().lookup(key, None)?.is_none() {
            self.nothing_to_write()?;
            return Ok(false);
        }
        let outcome = self.commit(&[Op::Tombstone { key }], None)?;
        Ok(outcome == Outcome::Written { existed: true })
    }

    /// Applies a batch: all of it or none, after a crash too. An empty one does nothing.
    ///
    /// ```
    /// use pakv::{Db, WriteBatch};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// let mut batch = WriteBatch::new();
    /// batch.set("a", "1").set("b", "2").delete("c");
    /// db.write(&batch)?;
    /// assert_eq!(db.len()?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Db::set`], and [`Error::BatchTooLarge`]. Every key and value is checked before anything
    /// is written.
    pub fn write(&self, batch: &WriteBatch) -> Result<()> {
        let mut ops = Vec::with_capacity(batch.ops.len());
        for op in &batch.ops {
            ops.push(match op {
                BatchOp::Set { key, value, expiry } => {
                    Op::Set { expires_at_ms: self.expires_at_ms(*expiry), key, value }
                }
                BatchOp::Delete { key } => Op::Tombstone { key },
            });
        }
        if ops.is_empty() {
            return self.core().check_writable();
        }
        self.commit(&ops, None).map(|_| ())
    }

    /// Begins a serializable transaction. Waits for another one to end; other writers wait for this
    /// one.
    ///
    /// ```
    /// use pakv::Db;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// db.set("from", "x")?;
    /// let mut transaction = db.transaction()?;
    /// if let Some(value) = transaction.get("from")? {
    ///     transaction.set("to", value);
    ///     transaction.delete("from");
    /// }
    /// transaction.commit()?;
    /// assert!(db.contains("to")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::TransactionOpen`] where this thread has one open, [`Error::ReadOnly`],
    /// [`Error::Poisoned`], [`Error::Closed`].
    pub fn transaction(&self) -> Result<Transaction> {
        Transaction::begin(&self.handle, self.durability)
    }

    /// A consistent view as of now.
    ///
    /// ```
    /// use pakv::Db;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// let before = db.snapshot()?;
    /// db.set("name", "pakv")?;
    /// assert!(!before.contains("name")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::open(&self.handle)
    }

    /// Every entry in order of key, as of now; lazily, from both ends. See [`Scan`].
    ///
    /// ```
    /// use pakv::Db;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// db.set("b", "2")?;
    /// db.set("a", "1")?;
    /// let keys: Vec<_> = db.scan()?.map(|entry| entry.key().to_vec()).collect();
    /// assert_eq!(keys, [b"a", b"b"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn scan(&self) -> Result<Scan> {
        Ok(self.snapshot()?.scan())
    }

    /// The entries whose key starts with `prefix`.
    ///
    /// ```
    /// use pakv::Db;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// for key in ["user/1", "user/2", "visit/1"] {
    ///     db.set(key, "")?;
    /// }
    /// assert_eq!(db.scan_prefix("user/")?.count(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn scan_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Scan> {
        Ok(self.snapshot()?.scan_prefix(prefix))
    }

    /// The entries whose key lies in `range`. A range whose ends exclude each other has none.
    ///
    /// ```
    /// use pakv::Db;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// for key in ["a", "b", "c"] {
    ///     db.set(key, "")?;
    /// }
    /// assert_eq!(db.scan_range("a".."c")?.count(), 2);
    /// let last = db.scan_range("b"..)?.next_back().map(|entry| entry.key().to_vec());
    /// assert_eq!(last.as_deref(), Some(&b"c"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn scan_range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<Scan> {
        Ok(self.snapshot()?.scan_range(range))
    }

    pub(crate) fn core(&self) -> &Core {
        &self.handle.core
    }

    fn expires_at_ms(&self, expiry: Expiry) -> Option<u64> {
        expiry.at_ms(&*self.core().options.clock)
    }

    /// What was asked for is so already, by the write of another handle perhaps, which may have asked
    /// for less: it is made as durable as this handle's own writes.
    fn nothing_to_write(&self) -> Result<()> {
        match self.durability {
            Durability::Buffered => Ok(()),
            Durability::Interval(_) | Durability::Sync => self.commit(&[], None).map(|_| ()),
        }
    }

    /// The version of `key` that a conditional write starts from.
    fn current(&self, key: &[u8]) -> Result<Current> {
        let found = self.core().lookup_any(key, None)?;
        let seqno = found.as_ref().map(|(found, _)| found.entry.seqno);
        let present = found.filter(|(_, is_there)| *is_there).map(|(found, _)| found);
        Ok(Current { seqno, present })
    }

    fn commit(&self, ops: &[Op<'_>], condition: Option<Condition<'_>>) -> Result<Outcome> {
        for op in ops {
            check_op(op)?;
        }
        let request = Request { durability: self.durability, condition, in_transaction: false };
        self.core().commit(ops, request)
    }
}

/// What a conditional write starts from: the keydir's entry, and whether it has expired.
struct Current {
    seqno: Option<SeqNo>,
    present: Option<crate::index::Found>,
}

impl Current {
    /// That nothing of it has changed.
    fn unchanged<'a>(&self, key: &'a [u8]) -> Option<Condition<'a>> {
        Some(Condition { key, seqno: self.seqno, is_there: self.present.is_some() })
    }

    fn value(&self, core: &Core, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.present.as_ref().map(|found| core.read(found, key)).transpose()
    }

    fn expires_at_ms(&self) -> Option<u64> {
        self.present.as_ref().and_then(|found| found.entry.expires_at_ms())
    }
}
