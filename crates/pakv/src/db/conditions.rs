//! Writes that depend on what is there: compare-and-set and update. Optimistic: read, then write if
//! the key's newest record is still the one that was read, else start over.

use super::Db;
use crate::clock::Expiry;
use crate::commit::Outcome;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::format::record::Op;
use crate::limits::{check_key, check_op};

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

impl Db {
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
    /// ```
    /// use std::time::Duration;
    ///
    /// use pakv::{Db, Expected, Expiry};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// let lease = Expiry::After(Duration::from_secs(30));
    /// assert!(db.compare_and_set_with_expiry("lock", Expected::Absent, "ann", lease)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// use pakv::{Db, Expected};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// db.set("lock", "ann")?;
    /// assert!(!db.compare_and_delete("lock", Expected::Value(b"bob"))?);
    /// assert!(db.compare_and_delete("lock", Expected::Value(b"ann"))?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
                self.nothing_to_write()?;
                return Ok(new);
            }
            let op = match &new {
                Some(value) => Op::Set { expires_at_ms: current.expires_at_ms(), key, value },
                None => Op::Tombstone { key },
            };
            if self.commit(&[op], current.unchanged(key))? != Outcome::ConditionFailed {
                return Ok(new);
            }
        }
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
                self.nothing_to_write()?;
                return Ok(true);
            }
            if self.commit(&[op], current.unchanged(key))? != Outcome::ConditionFailed {
                return Ok(true);
            }
        }
    }
}
