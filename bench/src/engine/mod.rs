//! What is compared: one trait, one adapter for each store.
//!
//! Fairness, for all of them: the same keys and values, the same class of durability, the same
//! budget for a cache of the engine's own (pakv and LMDB have none: the operating system's page
//! cache serves them, as it serves the others beside their own), no compression (the values cannot be
//! compressed; it would only cost), long values kept apart where the engine can, otherwise the
//! settings that it comes with. Where an engine has no such class, its adapter takes the nearest that
//! favours it, and says so.

mod fjall;
mod lmdb;
mod pakv;
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod sled;

use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Receives a value as the engine lends it: who hands out borrowed bytes is not made to copy them.
pub(crate) type Found<'a> = &'a mut dyn FnMut(&[u8]);
/// Receives keys in order, with values where they were asked for.
pub(crate) type Each<'a> = &'a mut dyn FnMut(&[u8], Option<&[u8]>);

pub(crate) trait Engine: Send + Sync {
    /// Sets one key; returns when it is as durable as [`Settings::durability`] asks.
    fn set(&self, key: &[u8], value: &[u8]) -> Result<()>;
    /// Sets all of them, atomically.
    fn set_all(&self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()>;
    /// The value as of now, to `found`; whether there is one.
    fn get(&self, key: &[u8], found: Found<'_>) -> Result<bool>;
    /// A way to get many values that may spare what an engine does at the start of a read, and may
    /// see the store as of its beginning. It favours engines whose reads are transactions.
    fn reader(&self) -> Result<Box<dyn Reader + '_>>;
    /// Every entry in order of key.
    fn scan(&self, values: bool, each: Each<'_>) -> Result<()>;
    /// Whether a compaction runs now, where the engine can tell.
    fn compacting(&self) -> Option<bool> {
        None
    }
    /// Closes in good order.
    fn close(self: Box<Self>) -> Result<()>;
}

pub(crate) trait Reader {
    fn get(&self, key: &[u8], found: Found<'_>) -> Result<bool>;
}

/// When a set returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// It is in the operating system's hands: survives kill -9.
    Buffered,
    /// It is on the disk: survives power loss.
    Synced,
}

/// From here on engines that can keep values apart from keys do: of their own accord they do not, but
/// their documents advise it for values that are long against a page.
pub(crate) const LONG_VALUE: usize = 4096;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) durability: Durability,
    pub(crate) cache_bytes: u64,
    /// How long the values are: who has a setting for long ones gets it.
    pub(crate) value_bytes: usize,
    /// The data is known to be larger than memory: who has a setting for that gets it.
    pub(crate) larger_than_memory: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Pakv,
    Lmdb,
    Redb,
    Fjall,
    Sled,
    #[cfg(feature = "rocksdb")]
    Rocksdb,
    /// Not a store: write + fdatasync into prepared space, below which no synced set can go.
    Bare,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pakv => "pakv",
            Self::Lmdb => "LMDB",
            Self::Redb => "redb",
            Self::Fjall => "fjall",
            Self::Sled => "sled",
            #[cfg(feature = "rocksdb")]
            Self::Rocksdb => "RocksDB",
            Self::Bare => "bare",
        }
    }

    /// As the command line and the results spell it.
    pub(crate) fn arg(self) -> String {
        self.name().to_lowercase()
    }

    /// Whether its build takes a quarter of an hour.
    pub(crate) fn builds_for_long(self) -> bool {
        self.arg() == "rocksdb"
    }

    /// What a reader of the tables has to know about its settings.
    pub(crate) fn note(self) -> &'static str {
        match self {
            Self::Pakv => "defaults; no cache of its own",
            Self::Lmdb => lmdb::NOTE,
            Self::Redb => redb::NOTE,
            Self::Fjall => fjall::NOTE,
            Self::Sled => sled::NOTE,
            #[cfg(feature = "rocksdb")]
            Self::Rocksdb => rocksdb::NOTE,
            Self::Bare => "write + fdatasync into space that was written and synced before",
        }
    }

    pub(crate) fn open(self, dir: &Path, settings: Settings) -> Result<Box<dyn Engine>> {
        std::fs::create_dir_all(dir)?;
        Ok(match self {
            Self::Pakv => Box::new(pakv::Pakv::open(dir, settings)?),
            Self::Lmdb => Box::new(lmdb::Lmdb::open(dir, settings)?),
            Self::Redb => Box::new(redb::Redb::open(dir, settings)?),
            Self::Fjall => Box::new(fjall::Fjall::open(dir, settings)?),
            Self::Sled => Box::new(sled::Sled::open(dir, settings)?),
            #[cfg(feature = "rocksdb")]
            Self::Rocksdb => Box::new(rocksdb::Rocks::open(dir, settings)?),
            Self::Bare => anyhow::bail!("the floor is no store"),
        })
    }
}
