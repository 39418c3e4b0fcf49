//! pakv, as it comes: nothing is tuned for the benchmark.

use std::path::Path;

use anyhow::Result;
use pakv::{Db, Options, WriteBatch};

use super::{Durability, Each, Engine, Found, Reader, Settings};

pub(crate) struct Pakv(Db);

impl Pakv {
    pub(crate) fn open(dir: &Path, settings: Settings) -> Result<Self> {
        let durability = match settings.durability {
            Durability::Buffered => pakv::Durability::Buffered,
            Durability::Synced => pakv::Durability::Sync,
        };
        Ok(Self(Options::new().durability(durability).open(dir)?))
    }
}

impl Engine for Pakv {
    fn set(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.0.set(key, value)?)
    }

    fn set_all(&self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut batch = WriteBatch::new();
        for (key, value) in pairs {
            batch.set(key.as_slice(), value.as_slice());
        }
        Ok(self.0.write(&batch)?)
    }

    fn get(&self, key: &[u8], found: Found<'_>) -> Result<bool> {
        Ok(self.0.get_with(key, |value| found(value))?.is_some())
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(self))
    }

    fn scan(&self, values: bool, each: Each<'_>) -> Result<()> {
        for entry in self.0.scan()? {
            if values {
                entry.value_with(|value| each(entry.key(), Some(value)))?;
            } else {
                each(entry.key(), None);
            }
        }
        Ok(())
    }

    fn compacting(&self) -> Option<bool> {
        Some(self.0.stats().ok()?.compaction.running)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.0.close()?)
    }
}

impl Reader for &Pakv {
    fn get(&self, key: &[u8], found: Found<'_>) -> Result<bool> {
        Engine::get(*self, key, found)
    }
}
