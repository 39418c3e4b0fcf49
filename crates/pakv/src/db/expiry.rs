//! Asking for the expiry of a key, and changing it.

use std::time::SystemTime;

use super::Db;
use crate::clock::{Expiry, Ttl};
use crate::commit::Outcome;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::format::record::Op;
use crate::limits::check_key;

impl Db {
    /// How much longer a key will be there; `None` if it is not there. Touches no disk.
    ///
    /// ```
    /// use pakv::{Db, Ttl};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// db.set("name", "pakv")?;
    /// assert_eq!(db.ttl("name")?, Some(Ttl::Forever));
    /// assert_eq!(db.ttl("nobody")?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// use std::time::Duration;
    ///
    /// use pakv::{Db, Expiry};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// db.set("name", "pakv")?;
    /// assert!(db.expire("name", Expiry::After(Duration::from_secs(60)))?);
    /// assert!(!db.expire("nobody", Expiry::Never)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
                self.nothing_to_write()?;
                return Ok(true);
            }
            let op = Op::Set { expires_at_ms, key, value: &value };
            if self.commit(&[op], current.unchanged(key))? != Outcome::ConditionFailed {
                return Ok(true);
            }
        }
    }

    /// Lets a key expire at an instant. Tells whether it was there.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    ///
    /// use pakv::Db;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// db.set("offer", "half price")?;
    /// db.expire_at("offer", SystemTime::now() + Duration::from_secs(3600))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Db::compare_and_set`].
    pub fn expire_at(&self, key: impl AsRef<[u8]>, at: SystemTime) -> Result<bool> {
        self.expire(key, Expiry::At(at))
    }

    /// Takes the expiry of a key away. Tells whether the key was there, with or without one.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use pakv::{Db, Expiry, Ttl};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// db.set_with_expiry("draft", "hello", Expiry::After(Duration::from_secs(60)))?;
    /// assert!(db.persist("draft")?);
    /// assert_eq!(db.ttl("draft")?, Some(Ttl::Forever));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Db::compare_and_set`].
    pub fn persist(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.expire(key, Expiry::Never)
    }
}
