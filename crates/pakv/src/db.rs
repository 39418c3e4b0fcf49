//! `Db`: the handle. Every method checks its arguments, calls one room of the house, and says what
//! it guarantees.

use std::ops::RangeBounds;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::batch::{BatchOp, WriteBatch};
use crate::clock::{Expiry, Ttl};
use crate::commit::{Outcome, Request};
use crate::compaction;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::format::record::Op;
use crate::format::{SeqNo, decode_exact, encode_into};
use crate::handle::Handle;
use crate::limits::{check_key, check_op};
use crate::options::{Durability, Options, validate_durability};
use crate::recovery;
use crate::scan::Scan;
use crate::snapshot::Snapshot;
use crate::stats::{CompactionProgress, CompactionReport, RecoveryReport, Stats};
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

/// What a conditional write expects of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected<'a> {
    /// The key is not there.
    Absent,
    /// The key is there, with whatever value.
    Present,
    /// The key is there with exactly this value.
    Value(&'a [u8]),
}

impl Options {
    /// Opens the store in the directory `path`, or creates it there, and recovers its state.
    ///
    /// What recovery found is told by [`Db::recovery`](crate::Db::recovery).
    ///
    /// # Errors
    /// [`Error::InvalidOption`] before anything is touched. [`Error::NoStore`],
    /// [`Error::NotADirectory`], [`Error::InUse`], [`Error::UnknownFormat`],
    /// [`Error::ManifestMissing`]: as they read, nothing was changed. [`Error::Corrupt`] where
    /// bytes known to be durable are damaged. [`Error::Io`] for the rest.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Db> {
        let storage = Arc::new(OsStorage::new(path.as_ref()));
        self.open_storage(storage)
    }

    /// Opens a store that lives behind another [`Storage`]: a simulated disk in tests.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open_storage(self, storage: Arc<dyn Storage>) -> Result<Db> {
        self.validate()?;
        Db::open_with(self, storage)
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

    pub(crate) fn open_with(options: Options, storage: Arc<dyn Storage>) -> Result<Db> {
        let durability = options.durability;
        let recovered = recovery::open(&options, &storage)?;
        let core = Arc::new(Core::new(options, storage, recovered));
        let handle = Arc::new(Handle::new(core)?);
        handle.ensure_syncer(durability)?;
        Ok(Db { handle, durability })
    }

    /// The value of a key; `None` if it is not there or has expired. A key that is not there
    /// touches no disk; one that is costs one read, and its checksum is verified.
    ///
    /// # Errors
    /// [`Error::KeyEmpty`], [`Error::KeyTooLong`], [`Error::Closed`]; [`Error::Corrupt`] where the
    /// record is damaged, never `None` in its stead; [`Error::Io`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.core().get(check_key(key.as_ref())?, None)
    }

    /// Whether a key is there. Touches no disk.
    ///
    /// # Errors
    /// [`Error::KeyEmpty`], [`Error::KeyTooLong`], [`Error::Closed`].
    pub fn contains(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.core().lookup(check_key(key.as_ref())?, None)?.is_some())
    }

    /// How many keys are there. Touches no disk.
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

    /// Deletes a key and tells whether it was there. One that is not there costs no write.
    ///
    /// # Errors
    /// As [`Db::set`].
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = check_key(key.as_ref())?;
        self.core().check_writable()?;
        if self.core().lookup(key, None)?.is_none() {
            return Ok(false);
        }
        let outcome = self.commit(&[Op::Tombstone { key }], None)?;
        Ok(outcome == Outcome::Written { existed: true })
    }

    /// Sets a key if it is as expected, in one step that no other write can come between. Tells
    /// whether it was.
    ///
    /// ```
    /// use pakv::{Db, Expected};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// assert!(db.compare_and_set("leader", Expected::Absent, "a")?);
    /// assert!(!db.compare_and_set("leader", Expected::Absent, "b")?);
    /// assert!(db.compare_and_set("leader", Expected::Value(b"a"), "b")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Db::set`], and [`Error::Corrupt`] where the value to compare with is damaged.
    pub fn compare_and_set(
        &self,
        key: impl AsRef<[u8]>,
        expected: Expected<'_>,
        value: impl AsRef<[u8]>,
    ) -> Result<bool> {
        self.compare_and_set_with_expiry(key, expected, value, Expiry::Never)
    }

    /// Sets a key to a value that expires, if the key is as expected.
    ///
    /// # Errors
    /// As [`Db::compare_and_set`].
    pub fn compare_and_set_with_expiry(
        &self,
        key: impl AsRef<[u8]>,
        expected: Expected<'_>,
        value: impl AsRef<[u8]>,
        expiry: Expiry,
    ) -> Result<bool> {
        let expires_at_ms = self.expires_at_ms(expiry);
        let op = Op::Set { expires_at_ms, key: key.as_ref(), value: value.as_ref() };
        self.commit_if(op, expected)
    }

    /// Deletes a key if it is as expected. Tells whether it was; [`Expected::Absent`] has nothing
    /// to delete.
    ///
    /// # Errors
    /// As [`Db::compare_and_set`].
    pub fn compare_and_delete(
        &self,
        key: impl AsRef<[u8]>,
        expected: Expected<'_>,
    ) -> Result<bool> {
        self.commit_if(Op::Tombstone { key: key.as_ref() }, expected)
    }

    /// Replaces the value of a key by what `f` makes of it, in one step that no other write can
    /// come between; returns the new value. `None` stands for a key that is not there, both ways.
    /// The key keeps its expiry.
    ///
    /// `f` may be called several times, when others write the key meanwhile; what it returned last
    /// counts. A value that comes back as it went in is not written again.
    ///
    /// ```
    /// use pakv::Db;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// let count = |old: Option<&[u8]>| Some(vec![old.map_or(1, |old| old[0] + 1)]);
    /// db.update("visits", count)?;
    /// assert_eq!(db.update("visits", count)?, Some(vec![2]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Db::compare_and_set`].
    pub fn update(
        &self,
        key: impl AsRef<[u8]>,
        mut f: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>> {
        let key = check_key(key.as_ref())?;
        self.core().check_writable()?;
        loop {
            let current = self.current(key)?;
            let old = current.value(self.core(), key)?;
            let new = f(old.as_deref());
            if new == old {
                return Ok(new);
            }
            let op = match &new {
                Some(value) => Op::Set { expires_at_ms: current.expires_at_ms(), key, value },
                None => Op::Tombstone { key },
            };
            if self.commit(&[op], Some((key, current.seqno)))? != Outcome::ConditionFailed {
                return Ok(new);
            }
        }
    }

    /// Applies a batch: all of it or none, after a crash too. An empty one does nothing.
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
    /// # Errors
    /// [`Error::TransactionOpen`] where this thread has one open, [`Error::ReadOnly`],
    /// [`Error::Poisoned`], [`Error::Closed`].
    pub fn transaction(&self) -> Result<Transaction> {
        Transaction::begin(&self.handle, self.durability)
    }

    /// A consistent view as of now.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::open(&self.handle)
    }

    /// Every entry in order of key, as of now; lazily, from both ends. See [`Scan`].
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn scan(&self) -> Result<Scan> {
        Ok(self.snapshot()?.scan())
    }

    /// The entries whose key starts with `prefix`.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn scan_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Scan> {
        Ok(self.snapshot()?.scan_prefix(prefix))
    }

    /// The entries whose key lies in `range`. A range whose ends exclude each other has none.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn scan_range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<Scan> {
        Ok(self.snapshot()?.scan_range(range))
    }

    /// How much longer a key will be there; `None` if it is not there. Touches no disk.
    ///
    /// # Errors
    /// As [`Db::contains`].
    pub fn ttl(&self, key: impl AsRef<[u8]>) -> Result<Option<Ttl>> {
        let found = self.core().lookup(check_key(key.as_ref())?, None)?;
        Ok(found.map(|found| match found.entry.expires_at_ms() {
            None => Ttl::Forever,
            Some(at_ms) => {
                let left_ms = at_ms.saturating_sub(self.core().now_ms()).max(1);
                Ttl::Left(std::time::Duration::from_millis(left_ms))
            }
        }))
    }

    /// Gives a key another expiry, or none with [`Expiry::Never`]; its value stays. Tells whether
    /// the key was there.
    ///
    /// The value is written again: an expiry is a part of the record.
    ///
    /// # Errors
    /// As [`Db::compare_and_set`].
    pub fn expire(&self, key: impl AsRef<[u8]>, expiry: Expiry) -> Result<bool> {
        let key = check_key(key.as_ref())?;
        self.core().check_writable()?;
        let expires_at_ms = self.expires_at_ms(expiry);
        loop {
            let current = self.current(key)?;
            let Some(value) = current.value(self.core(), key)? else { return Ok(false) };
            if current.expires_at_ms() == expires_at_ms {
                return Ok(true);
            }
            let op = Op::Set { expires_at_ms, key, value: &value };
            if self.commit(&[op], Some((key, current.seqno)))? != Outcome::ConditionFailed {
                return Ok(true);
            }
        }
    }

    /// Lets a key expire at an instant. Tells whether it was there.
    ///
    /// # Errors
    /// As [`Db::compare_and_set`].
    pub fn expire_at(&self, key: impl AsRef<[u8]>, at: SystemTime) -> Result<bool> {
        self.expire(key, Expiry::At(at))
    }

    /// Takes the expiry of a key away. Tells whether the key was there, with or without one.
    ///
    /// # Errors
    /// As [`Db::compare_and_set`].
    pub fn persist(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.expire(key, Expiry::Never)
    }

    /// The value of a key as a `T` that [`Db::set_as`] wrote.
    ///
    /// # Errors
    /// As [`Db::get`], and [`Error::Decode`] where the key is there and its value is no `T`.
    pub fn get_as<T: DeserializeOwned>(&self, key: impl AsRef<[u8]>) -> Result<Option<T>> {
        let decode =
            |bytes: Vec<u8>| decode_exact(&bytes).map_err(|reason| Error::Decode { reason });
        self.get(key)?.map(decode).transpose()
    }

    /// Sets a key to a value of any type that serde can serialise, in postcard's wire format. The
    /// format does not describe itself: a type that changes needs a version of its own making, an
    /// enum for instance.
    ///
    /// ```
    /// use pakv::Db;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// db.set_as("point", &(3_i32, "north"))?;
    /// assert_eq!(db.get_as::<(i32, String)>("point")?, Some((3, "north".to_string())));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Db::set`], and [`Error::Encode`] where the value cannot be serialised.
    pub fn set_as<T: Serialize + ?Sized>(&self, key: impl AsRef<[u8]>, value: &T) -> Result<()> {
        let mut bytes = Vec::new();
        encode_into(&value, &mut bytes)
            .map_err(|error| Error::Encode { reason: error.to_string() })?;
        self.set(key, bytes)
    }

    /// Makes everything acknowledged so far durable, whatever its durability was.
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
    /// # Errors
    /// [`Error::Corrupt`] where a segment is damaged: it stays as it is. [`Error::Io`];
    /// [`Error::Closed`] where the store was closed meanwhile. Nothing is lost by any of them.
    pub fn compact(&self) -> Result<CompactionReport> {
        self.compact_with(|_| ())
    }

    /// As [`Db::compact`], telling `progress` after every record how far it has come.
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
    /// programs that switched the thread off with [`Options::background_compaction`], or that end
    /// too soon for it to finish anything.
    ///
    /// # Errors
    /// As [`Db::compact`]; [`Error::ReadOnly`], [`Error::Poisoned`].
    pub fn maintain(&self) -> Result<()> {
        self.core().check_writable()?;
        self.core().housekeep(None)
    }

    /// The store in figures. Costs no more than looking at each segment's.
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
    /// # Errors
    /// [`Error::Io`] where the last sync failed; [`Error::Poisoned`] where an earlier write did:
    /// not everything that was written may be durable. The store is closed all the same.
    pub fn close(self) -> Result<()> {
        self.handle.close()
    }

    fn core(&self) -> &Core {
        &self.handle.core
    }

    fn expires_at_ms(&self, expiry: Expiry) -> Option<u64> {
        expiry.at_ms(&*self.core().options.clock)
    }

    /// The version of `key` that a conditional write starts from.
    fn current(&self, key: &[u8]) -> Result<Current> {
        self.core().check_open()?;
        let found = self.core().index.read().lookup(key, None);
        let now_ms = self.core().now_ms();
        let seqno = found.as_ref().map(|found| found.entry.seqno);
        let present =
            found.filter(|found| !crate::clock::is_expired(found.entry.expires_at_ms(), now_ms));
        Ok(Current { seqno, present })
    }

    fn commit_if(&self, op: Op<'_>, expected: Expected<'_>) -> Result<bool> {
        check_op(&op)?;
        self.core().check_writable()?;
        let key = op.key();
        loop {
            let current = self.current(key)?;
            let holds = match expected {
                Expected::Absent => current.present.is_none(),
                Expected::Present => current.present.is_some(),
                Expected::Value(value) => {
                    current.value(self.core(), key)?.is_some_and(|found| found == value)
                }
            };
            if !holds {
                return Ok(false);
            }
            // Deleting what is absent is done already.
            if matches!(op, Op::Tombstone { .. }) && current.present.is_none() {
                return Ok(true);
            }
            if self.commit(&[op], Some((key, current.seqno)))? != Outcome::ConditionFailed {
                return Ok(true);
            }
        }
    }

    fn commit(&self, ops: &[Op<'_>], condition: Option<(&[u8], Option<SeqNo>)>) -> Result<Outcome> {
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
    fn value(&self, core: &Core, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.present.as_ref().map(|found| core.read(found, key)).transpose()
    }

    fn expires_at_ms(&self) -> Option<u64> {
        self.present.as_ref().and_then(|found| found.entry.expires_at_ms())
    }
}
