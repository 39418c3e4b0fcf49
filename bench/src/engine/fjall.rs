//! fjall.

use std::path::Path;

use anyhow::Result;
use fjall::config::CompressionPolicy;
use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode,
};

use super::{Durability, Each, Engine, Found, LONG_VALUE, Reader, Settings};

pub(crate) const NOTE: &str = "buffered: each write is handed to the OS by its journal (default); synced: \
     persist(SyncData) after each; values of 4 KiB and more apart from keys; compression off";

pub(crate) struct Fjall {
    db: Database,
    keys: Keyspace,
    synced: bool,
}

impl Fjall {
    pub(crate) fn open(dir: &Path, settings: Settings) -> Result<Self> {
        let db = Database::builder(dir)
            .cache_size(settings.cache_bytes)
            .journal_compression(CompressionType::None)
            .open()?;
        let keys = db.keyspace("bench", || {
            let apart = KvSeparationOptions::default().compression(CompressionType::None);
            KeyspaceCreateOptions::default()
                .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
                .with_kv_separation((settings.value_bytes >= LONG_VALUE).then_some(apart))
        })?;
        Ok(Self { db, keys, synced: settings.durability == Durability::Synced })
    }

    fn persist(&self) -> Result<()> {
        if self.synced {
            self.db.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }
}

impl Engine for Fjall {
    fn set(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.keys.insert(key, value)?;
        self.persist()
    }

    fn set_all(&self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut batch = self.db.batch();
        for (key, value) in pairs {
            batch.insert(&self.keys, key.as_slice(), value.as_slice());
        }
        batch.commit()?;
        self.persist()
    }

    fn get(&self, key: &[u8], found: Found<'_>) -> Result<bool> {
        Ok(self.keys.get(key)?.inspect(|value| found(value)).is_some())
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(self))
    }

    fn scan(&self, values: bool, each: Each<'_>) -> Result<()> {
        for entry in self.keys.iter() {
            if values {
                let (key, value) = entry.into_inner()?;
                each(&key, Some(&value));
            } else {
                each(&entry.key()?, None);
            }
        }
        Ok(())
    }

    fn compacting(&self) -> Option<bool> {
        Some(self.db.active_compactions() > 0)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.db.persist(PersistMode::SyncAll)?;
        Ok(())
    }
}

impl Reader for &Fjall {
    fn get(&self, key: &[u8], found: Found<'_>) -> Result<bool> {
        Engine::get(*self, key, found)
    }
}
