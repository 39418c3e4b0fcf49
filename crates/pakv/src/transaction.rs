//! `Transaction`: reads and writes that happen as if nobody else were there.

use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;
use std::marker::PhantomData;
use std::ops::RangeBounds;
use std::sync::Arc;

use crate::clock::{Expiry, is_expired};
use crate::commit::Request;
use crate::error::Result;
use crate::format::record::Op;
use crate::handle::Handle;
use crate::keydir::is_empty_range;
use crate::limits::{check_key, check_op};
use crate::options::Durability;
use crate::scan::{Bounds, Scan, borrowed, owned_bounds, prefix_bounds};
use crate::snapshot::Snapshot;

/// A serializable read-write transaction: it sees the store as of its beginning and its own writes;
/// nobody else writes while it is open; [`commit`](Transaction::commit) applies all of its writes
/// as one batch, dropping it discards them.
///
/// Other writers wait for it, readers do not. A write past it from its own thread could only wait
/// for itself and is refused with [`Error::TransactionOpen`](crate::Error::TransactionOpen). It
/// stays on the thread that began it.
///
/// ```
/// use pakv::Db;
///
/// # let dir = tempfile::tempdir()?;
/// # let db = Db::open(dir.path())?;
/// db.set("from", "10")?;
/// let mut transaction = db.transaction()?;
/// if let Some(balance) = transaction.get("from")? {
///     transaction.set("to", balance);
///     transaction.delete("from");
/// }
/// transaction.commit()?;
/// assert_eq!(db.get("to")?.as_deref(), Some(&b"10"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Transaction {
    handle: Arc<Handle>,
    durability: Durability,
    snapshot: Snapshot,
    writes: BTreeMap<Vec<u8>, Write>,
    /// Its thread is the one that must not wait for it.
    not_send: PhantomData<*const ()>,
}

/// The last write of a key: a value with its expiry, or a delete.
type Write = Option<(Vec<u8>, Option<u64>)>;

impl Transaction {
    pub(crate) fn begin(handle: &Arc<Handle>, durability: Durability) -> Result<Self> {
        handle.core.begin_transaction()?;
        let snapshot = Snapshot::open(handle).inspect_err(|_| handle.core.end_transaction())?;
        Ok(Self {
            handle: handle.clone(),
            durability,
            snapshot,
            writes: BTreeMap::new(),
            not_send: PhantomData,
        })
    }

    /// The value of a key, own writes included.
    ///
    /// # Errors
    /// As [`Db::get`](crate::Db::get).
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        let key = check_key(key.as_ref())?;
        match self.writes.get(key) {
            Some(write) => Ok(self.present(write).map(<[u8]>::to_vec)),
            None => self.snapshot.get(key),
        }
    }

    /// Whether a key is there, own writes included.
    ///
    /// # Errors
    /// As [`Db::contains`](crate::Db::contains).
    pub fn contains(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = check_key(key.as_ref())?;
        match self.writes.get(key) {
            Some(write) => Ok(self.present(write).is_some()),
            None => self.snapshot.contains(key),
        }
    }

    /// Sets a key, without expiry. Its limits are checked at the commit.
    pub fn set(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.set_with_expiry(key, value, Expiry::Never);
    }

    /// Sets a key with an expiry; `Expiry::After` counts from now, not from the commit.
    pub fn set_with_expiry(
        &mut self,
        key: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
        expiry: Expiry,
    ) {
        let expires_at_ms = expiry.at_ms(&*self.handle.core.options.clock);
        self.writes.insert(key.into(), Some((value.into(), expires_at_ms)));
    }

    /// Deletes a key, whether or not it is there.
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) {
        self.writes.insert(key.into(), None);
    }

    /// The entries whose key lies in `range`, in order of key, own writes included.
    pub fn scan_range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> TransactionScan<'_> {
        TransactionScan::new(self, owned_bounds(&range))
    }

    /// The entries whose key starts with `prefix`, in order of key, own writes included.
    pub fn scan_prefix(&self, prefix: impl AsRef<[u8]>) -> TransactionScan<'_> {
        TransactionScan::new(self, prefix_bounds(prefix.as_ref()))
    }

    /// Applies all writes as one batch.
    ///
    /// # Errors
    /// As [`Db::write`](crate::Db::write); then nothing was applied, unless it was the disk that
    /// failed.
    pub fn commit(self) -> Result<()> {
        let mut ops = Vec::with_capacity(self.writes.len());
        for (key, write) in &self.writes {
            let op = match write {
                Some((value, expires_at_ms)) => {
                    Op::Set { expires_at_ms: *expires_at_ms, key, value }
                }
                None => Op::Tombstone { key },
            };
            check_op(&op)?;
            ops.push(op);
        }
        if !ops.is_empty() {
            let durability = self.durability;
            let request = Request { durability, condition: None, in_transaction: true };
            self.handle.core.commit(&ops, request)?;
        }
        Ok(())
    }

    /// Discards all writes; the same as dropping it, said aloud.
    pub fn rollback(self) {}

    /// The value of an own write, unless it deletes or has expired.
    fn present<'a>(&self, write: &'a Write) -> Option<&'a [u8]> {
        let (value, expires_at_ms) = write.as_ref()?;
        (!is_expired(*expires_at_ms, self.handle.core.now_ms())).then_some(&**value)
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.handle.core.end_transaction();
    }
}

/// A walk over the entries that a transaction sees: key and value, in order of key.
#[derive(Debug)]
pub struct TransactionScan<'a> {
    transaction: &'a Transaction,
    stored: Peekable<Scan>,
    written: Option<Peekable<btree_map::Range<'a, Vec<u8>, Write>>>,
}

impl<'a> TransactionScan<'a> {
    fn new(transaction: &'a Transaction, bounds: Bounds) -> Self {
        let (from, to) = (borrowed(&bounds.0), borrowed(&bounds.1));
        let written = (!is_empty_range(from, to))
            .then(|| transaction.writes.range::<[u8], _>((from, to)).peekable());
        let stored = Scan::new(transaction.snapshot.clone(), bounds).peekable();
        Self { transaction, stored, written }
    }
}

impl Iterator for TransactionScan<'_> {
    type Item = Result<(Vec<u8>, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let written = self.written.as_mut().and_then(|written| {
                let stored_key = self.stored.peek().map(|entry| entry.key());
                written.next_if(|(key, _)| stored_key.is_none_or(|stored| key.as_slice() <= stored))
            });
            let Some((key, write)) = written else {
                let entry = self.stored.next()?;
                // It was looked at before, perhaps long ago.
                if !entry.is_there(&self.transaction.handle.core) {
                    continue;
                }
                return Some(entry.into_pair());
            };
            // The own write hides what is stored under the same key.
            self.stored.next_if(|entry| entry.key() == key.as_slice());
            if let Some(value) = self.transaction.present(write) {
                return Some(Ok((key.clone(), value.to_vec())));
            }
        }
    }
}
