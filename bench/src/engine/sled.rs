//! sled 0.34: the release that is used, though its author calls it a beta.

use std::path::Path;

use anyhow::Result;

use super::{Durability, Each, Engine, Found, Reader, Settings};

pub(crate) const NOTE: &str = "buffered: flushed every 500 ms, the default (weaker than asked: a kill -9 loses what \
     is in the process's memory); synced: flush() after each, which has pages written but the disk's own cache not flushed (sync_file_range), so that it is shown and does not compete in these rows";

pub(crate) struct Sled {
    db: sled::Db,
    synced: bool,
}

impl Sled {
    pub(crate) fn open(dir: &Path, settings: Settings) -> Result<Self> {
        let db = sled::Config::new()
            .path(dir)
            .cache_capacity(settings.cache_bytes)
            // Its other mode trades speed for space; this one is the default.
            .mode(sled::Mode::LowSpace)
            .open()?;
        Ok(Self { db, synced: settings.durability == Durability::Synced })
    }

    fn flush(&self) -> Result<()> {
        if self.synced {
            self.db.flush()?;
        }
        Ok(())
    }
}

impl Engine for Sled {
    fn set(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.db.insert(key, value)?;
        self.flush()
    }

    fn set_all(&self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut batch = sled::Batch::default();
        for (key, value) in pairs {
            batch.insert(key.as_slice(), value.as_slice());
        }
        self.db.apply_batch(batch)?;
        self.flush()
    }

    fn get(&self, key: &[u8], found: Found<'_>) -> Result<bool> {
        Ok(self.db.get(key)?.inspect(|value| found(value)).is_some())
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(self))
    }

    fn scan(&self, values: bool, each: Each<'_>) -> Result<()> {
        for entry in self.db.iter() {
            let (key, value) = entry?;
            each(&key, values.then_some(&value[..]));
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.db.flush()?;
        Ok(())
    }
}

impl Reader for &Sled {
    fn get(&self, key: &[u8], found: Found<'_>) -> Result<bool> {
        Engine::get(*self, key, found)
    }
}
