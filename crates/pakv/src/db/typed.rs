//! Rust values in and out of keys, through serde.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Db;
use crate::error::{Error, Result};
use crate::format::{decode_exact, encode_into};

impl Db {
    /// The value of a key as a `T` that [`Db::set_as`] wrote.
    ///
    /// ```
    /// use pakv::{Db, Error};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path())?;
    /// db.set_as("primes", &vec![2_u32, 3, 5])?;
    /// assert_eq!(db.get_as::<Vec<u32>>("primes")?, Some(vec![2, 3, 5]));
    /// db.set("primes", [255])?;
    /// assert!(matches!(db.get_as::<Vec<u32>>("primes"), Err(Error::Decode { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
}
