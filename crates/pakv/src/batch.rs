//! `WriteBatch`: an ordered list of writes that is applied as one.

use crate::clock::Expiry;

/// Writes that are applied together: after a crash all of them are there or none, readers and
/// snapshots see all of them or none, and they cost one append. Later writes of a batch win over
/// earlier ones of the same key.
///
/// A batch is checked when it is written: see [`Db::write`](crate::Db::write).
///
/// ```
/// use pakv::{Db, WriteBatch};
///
/// # let dir = tempfile::tempdir()?;
/// # let db = Db::open(dir.path())?;
/// let mut batch = WriteBatch::new();
/// batch.set("from", "90").set("to", "110").delete("pending");
/// db.write(&batch)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct WriteBatch {
    pub(crate) ops: Vec<BatchOp>,
}

/// One write of a batch.
#[derive(Debug, Clone)]
pub(crate) enum BatchOp {
    Set { key: Vec<u8>, value: Vec<u8>, expiry: Expiry },
    Delete { key: Vec<u8> },
}

impl WriteBatch {
    /// An empty batch. Writing it does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a set of `key` to `value`, without expiry.
    pub fn set(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> &mut Self {
        self.set_with_expiry(key, value, Expiry::Never)
    }

    /// Adds a set with an expiry; `Expiry::After` counts from when the batch is written.
    pub fn set_with_expiry(
        &mut self,
        key: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
        expiry: Expiry,
    ) -> &mut Self {
        self.ops.push(BatchOp::Set { key: key.into(), value: value.into(), expiry });
        self
    }

    /// Adds a delete of `key`, whether or not it is there.
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) -> &mut Self {
        self.ops.push(BatchOp::Delete { key: key.into() });
        self
    }

    /// How many writes it holds.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Empties it and keeps its memory for reuse.
    pub fn clear(&mut self) {
        self.ops.clear();
    }
}
