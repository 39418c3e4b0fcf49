//! `Snapshot`: the store as of one sequence number.

use std::ops::RangeBounds;
use std::sync::Arc;

use crate::error::Result;
use crate::format::SeqNo;
use crate::handle::Handle;
use crate::limits::check_key;
use crate::scan::{Scan, owned_bounds, prefix_bounds};

/// A consistent view of the store at one moment, while writes and compaction go on.
///
/// It holds no copy of the keydir: it costs memory only for keys that are overwritten or deleted
/// while it lives, and disk space for segments that compaction has replaced meanwhile. Expiry goes
/// on: a key that expires is gone from the snapshot too. A snapshot keeps the store open until it
/// is dropped (an explicit [`Db::close`](crate::Db::close) ends that).
///
/// ```
/// use pakv::Db;
///
/// # let dir = tempfile::tempdir()?;
/// # let db = Db::open(dir.path())?;
/// db.set("stock", "7")?;
/// let before = db.snapshot()?;
/// db.set("stock", "6")?;
/// assert_eq!(before.get("stock")?.as_deref(), Some(&b"7"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Snapshot {
    handle: Arc<Handle>,
    seqno: SeqNo,
}

impl Snapshot {
    pub(crate) fn open(handle: &Arc<Handle>) -> Result<Self> {
        handle.core.check_open()?;
        let mut index = handle.core.index.write();
        let seqno = index.visible;
        index.history.open_snapshot(seqno);
        drop(index);
        Ok(Self { handle: handle.clone(), seqno })
    }

    /// The value that the key had.
    ///
    /// # Errors
    /// As [`Db::get`](crate::Db::get).
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.handle.core.get(check_key(key.as_ref())?, Some(self.seqno))
    }

    /// Whether the key was there. Touches no disk.
    ///
    /// # Errors
    /// As [`Db::contains`](crate::Db::contains).
    pub fn contains(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.handle.core.lookup(check_key(key.as_ref())?, Some(self.seqno))?.is_some())
    }

    /// Every entry, in order of key. The scan keeps its view when the snapshot is dropped.
    pub fn scan(&self) -> Scan {
        self.scan_range::<&[u8]>(..)
    }

    /// The entries whose key starts with `prefix`.
    pub fn scan_prefix(&self, prefix: impl AsRef<[u8]>) -> Scan {
        Scan::new(self.clone(), prefix_bounds(prefix.as_ref()))
    }

    /// The entries whose key lies in `range`. A range whose ends exclude each other has none.
    pub fn scan_range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Scan {
        Scan::new(self.clone(), owned_bounds(&range))
    }

    /// The sequence number of the newest write that it sees.
    pub fn seqno(&self) -> u64 {
        self.seqno
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Clone for Snapshot {
    fn clone(&self) -> Self {
        self.handle.core.index.write().history.open_snapshot(self.seqno);
        Self { handle: self.handle.clone(), seqno: self.seqno }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let forgotten = self.handle.core.index.write().history.close_snapshot(self.seqno);
        // Outside the lock: the last reference to a retired segment unlinks its files.
        drop(forgotten);
    }
}
