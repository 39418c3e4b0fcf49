//! redb: no class between "in this process's memory" and "on the disk".

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use redb::{Database, ReadOnlyTable, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::{Durability, Each, Engine, Found, Reader, Settings};

pub(crate) const NOTE: &str = "buffered: Durability::None, with one durable commit in 10 000 (weaker than asked: a \
     kill -9 loses what is in the process's memory); synced: Immediate";

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("bench");

/// Pages that non-durable commits replace are free again only after a durable one: without any, the
/// file would grow for as long as the run lasts, and no user would run it so.
const DURABLE_EVERY: u64 = 10_000;

pub(crate) struct Redb {
    db: Database,
    durability: Durability,
    commits: AtomicU64,
}

impl Redb {
    pub(crate) fn open(dir: &Path, settings: Settings) -> Result<Self> {
        let mut builder = Database::builder();
        builder.set_cache_size(settings.cache_bytes as usize);
        let db = builder.create(dir.join("redb"))?;
        let txn = db.begin_write()?;
        txn.open_table(TABLE)?;
        txn.commit()?;
        Ok(Self { db, durability: settings.durability, commits: AtomicU64::new(0) })
    }

    fn write(
        &self,
        write: impl FnOnce(&mut redb::Table<'_, &[u8], &[u8]>) -> Result<()>,
    ) -> Result<()> {
        let mut txn = self.db.begin_write()?;
        let commit = self.commits.fetch_add(1, Ordering::Relaxed);
        let durable = self.durability == Durability::Synced || commit.is_multiple_of(DURABLE_EVERY);
        txn.set_durability(if durable {
            redb::Durability::Immediate
        } else {
            redb::Durability::None
        })?;
        write(&mut txn.open_table(TABLE)?)?;
        Ok(txn.commit()?)
    }
}

impl Engine for Redb {
    fn set(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.write(|table| {
            table.insert(key, value)?;
            Ok(())
        })
    }

    fn set_all(&self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        self.write(|table| {
            for (key, value) in pairs {
                table.insert(key.as_slice(), value.as_slice())?;
            }
            Ok(())
        })
    }

    fn get(&self, key: &[u8], found: Found<'_>) -> Result<bool> {
        Read(self.db.begin_read()?.open_table(TABLE)?).get(key, found)
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(Read(self.db.begin_read()?.open_table(TABLE)?)))
    }

    fn scan(&self, values: bool, each: Each<'_>) -> Result<()> {
        for entry in self.db.begin_read()?.open_table(TABLE)?.iter()? {
            let (key, value) = entry?;
            each(key.value(), values.then(|| value.value()));
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        let txn = self.db.begin_write()?;
        txn.commit()?;
        Ok(self.db.close()?)
    }
}

struct Read(ReadOnlyTable<&'static [u8], &'static [u8]>);

impl Reader for Read {
    fn get(&self, key: &[u8], found: Found<'_>) -> Result<bool> {
        Ok(self.0.get(key)?.inspect(|value| found(value.value())).is_some())
    }
}
