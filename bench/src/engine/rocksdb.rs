//! RocksDB.

use std::path::Path;

use anyhow::Result;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, Options, ReadOptions, WriteBatch, WriteOptions,
};

use super::{Durability, Each, Engine, Found, LONG_VALUE, Reader, Settings};

pub(crate) const NOTE: &str = "buffered: write-ahead log without sync (handed to the OS at each write, the default); \
     synced: WriteOptions::sync; Bloom filter of 10 bits; values of 4 KiB and more apart from keys (BlobDB, with its garbage collection); compression off";

pub(crate) struct Rocks {
    db: DB,
    write: WriteOptions,
    /// Made once: the defaults, checksums verified among them.
    read: ReadOptions,
}

impl Rocks {
    pub(crate) fn open(dir: &Path, settings: Settings) -> Result<Self> {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&Cache::new_lru_cache(settings.cache_bytes as usize));
        // RocksDB's own tuning guide gives this to whoever gets single keys; the default is none.
        table.set_bloom_filter(10.0, false);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&table);
        options.set_compression_type(DBCompressionType::None);
        if settings.value_bytes >= LONG_VALUE {
            options.set_enable_blob_files(true);
            options.set_min_blob_size(LONG_VALUE as u64);
            options.set_enable_blob_gc(true);
        }
        let mut write = WriteOptions::default();
        write.set_sync(settings.durability == Durability::Synced);
        Ok(Self { db: DB::open(&options, dir)?, write, read: ReadOptions::default() })
    }
}

impl Engine for Rocks {
    fn set(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.db.put_opt(key, value, &self.write)?)
    }

    fn set_all(&self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for (key, value) in pairs {
            batch.put(key, value);
        }
        Ok(self.db.write_opt(batch, &self.write)?)
    }

    fn get(&self, key: &[u8], found: Found<'_>) -> Result<bool> {
        // Pinned: the value is lent from the block cache, not copied.
        Ok(self.db.get_pinned_opt(key, &self.read)?.inspect(|value| found(value)).is_some())
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(self))
    }

    fn scan(&self, values: bool, each: Each<'_>) -> Result<()> {
        let mut at = self.db.raw_iterator();
        at.seek_to_first();
        while at.valid() {
            let (Some(key), value) = (at.key(), if values { at.value() } else { None }) else {
                break;
            };
            each(key, value);
            at.next();
        }
        Ok(at.status()?)
    }

    fn compacting(&self) -> Option<bool> {
        let running = self.db.property_int_value("rocksdb.num-running-compactions");
        Some(running.ok()?? > 0)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.db.cancel_all_background_work(true);
        Ok(())
    }
}

impl Reader for &Rocks {
    fn get(&self, key: &[u8], found: Found<'_>) -> Result<bool> {
        Engine::get(*self, key, found)
    }
}
