//! LMDB through heed.

use std::path::Path;

use anyhow::Result;
use heed::types::{Bytes, DecodeIgnore};
use heed::{Database, Env, EnvFlags, EnvOpenOptions, RoTxn, WithTls};

use super::{Durability, Each, Engine, Found, Reader, Settings};

pub(crate) const NOTE: &str = "buffered: MDB_WRITEMAP and MDB_NOSYNC (what is set is in mapped pages of the file at each commit); synced: defaults; MDB_NORDAHEAD for cold gets";

/// Addresses, not bytes: the file grows as it is filled. Above what any run needs.
const MAP_BYTES: usize = 64 << 30;

pub(crate) struct Lmdb {
    env: Env<WithTls>,
    db: Database<Bytes, Bytes>,
}

impl Lmdb {
    pub(crate) fn open(dir: &Path, settings: Settings) -> Result<Self> {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES);
        let mut flags = EnvFlags::empty();
        if settings.durability == Durability::Buffered {
            // Exactly this class: the commit changes mapped pages of the file and does not wait for the
            // disk. Four times as many sets as with write calls.
            flags |= EnvFlags::NO_SYNC | EnvFlags::WRITE_MAP;
        }
        if settings.larger_than_memory {
            // What lmdb.h advises for random reads then.
            flags |= EnvFlags::NO_READ_AHEAD;
        }
        // SAFETY: NO_SYNC weakens what a power loss leaves, which is what is asked for; no stray pointer
        // of this program writes to the map; the last is advice.
        unsafe { options.flags(flags) };
        // SAFETY: the directory is this run's own; no other process changes the file.
        let env = unsafe { options.open(dir)? };
        let mut txn = env.write_txn()?;
        let db = env.create_database(&mut txn, None)?;
        txn.commit()?;
        Ok(Self { env, db })
    }
}

impl Engine for Lmdb {
    fn set(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let mut txn = self.env.write_txn()?;
        self.db.put(&mut txn, key, value)?;
        Ok(txn.commit()?)
    }

    fn set_all(&self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut txn = self.env.write_txn()?;
        for (key, value) in pairs {
            self.db.put(&mut txn, key, value)?;
        }
        Ok(txn.commit()?)
    }

    fn get(&self, key: &[u8], found: Found<'_>) -> Result<bool> {
        let txn = self.env.read_txn()?;
        Ok(self.db.get(&txn, key)?.inspect(|value| found(value)).is_some())
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(Read { txn: self.env.read_txn()?, db: self.db }))
    }

    fn scan(&self, values: bool, each: Each<'_>) -> Result<()> {
        let txn = self.env.read_txn()?;
        if values {
            for entry in self.db.iter(&txn)? {
                let (key, value) = entry?;
                each(key, Some(value));
            }
        } else {
            for entry in self.db.remap_data_type::<DecodeIgnore>().iter(&txn)? {
                each(entry?.0, None);
            }
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        // What NO_SYNC put off belongs to closing in good order.
        self.env.force_sync()?;
        self.env.prepare_for_closing().wait();
        Ok(())
    }
}

struct Read<'e> {
    txn: RoTxn<'e, WithTls>,
    db: Database<Bytes, Bytes>,
}

impl Reader for Read<'_> {
    fn get(&self, key: &[u8], found: Found<'_>) -> Result<bool> {
        Ok(self.db.get(&self.txn, key)?.inspect(|value| found(value)).is_some())
    }
}
