//! pakv: a persistent, embedded key/value store.
//!
//! ```
//! use pakv::Db;
//!
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path();
//! let db = Db::open(path)?;
//! db.set("fruit/apple", "3")?;
//! db.set("fruit/pear", "5")?;
//! for entry in db.scan_prefix("fruit/")? {
//!     let (key, value) = entry.into_pair()?;
//!     println!("{} = {}", key.escape_ascii(), value.escape_ascii());
//! }
//! db.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How it works
//! The engine is log-structured, after [Bitcask](https://riak.com/assets/bitcask-intro.pdf): every
//! write is appended to the active *segment*; the *keydir*, in memory and ordered by key, maps each
//! key to the place of its newest record; a get is one read. *Compaction* runs in the background
//! and gives back the space of what was overwritten, deleted or has expired. A start reads the
//! keydir back from *hint* files and the tail of the log.
//!
//! # What it guarantees
//! - A write survives what its [`Durability`] says; by default, power loss.
//! - A [`WriteBatch`] or [`Transaction`] is applied whole or not at all, after a crash too.
//! - What survives a crash is a prefix of the order in which writes were acknowledged.
//! - A deleted or expired key does not come back, and neither does an older value.
//! - Every record's checksum is verified on every read: the right value or an error that names the
//!   place.
//! - Space stays within a bound of the live bytes, with no call to make.
//!
//! # What it costs
//! All keys are in memory, with some 60 bytes each for their place; values are not.
//!
//! # What it tells
//! [`tracing`](https://docs.rs/tracing) events of the target `pakv`, for whoever installs a
//! subscriber: an open and what it mended, segments that are sealed, compactions, slow syncs, and why
//! a store was poisoned. Nothing in the way of a get or a set.
//!
//! # Errors
//! One enum, [`Error`]; "not found" is not one of them. After a failed write or sync a store is
//! *poisoned*: it answers reads and refuses writes until it is opened again.
//!
//! The on-disk format is specified byte by byte in `docs/format.md` of this crate.

#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::unreachable
    )
)]

mod active;
pub mod backup;
mod batch;
mod check;
mod clock;
mod commit;
mod compaction;
mod core;
mod db;
mod error;
mod format;
mod handle;
mod history;
mod index;
mod index_lock;
pub mod inspect;
mod keydir;
mod limits;
mod manifest;
mod options;
mod page;
mod planted;
mod poison;
mod reader;
mod recovery;
mod repair;
mod scan;
#[cfg(all(test, shuttle))]
mod schedules;
mod segment;
mod snapshot;
mod stats;
pub mod storage;
mod sync;
mod transaction;
mod watch;
mod worker;

pub use batch::WriteBatch;
pub use check::{CheckProgress, CheckReport, Finding, FindingKind, LostRecord, check, check_with};
pub use clock::{Clock, Expiry, ManualClock, SystemClock, Ttl};
pub use db::{Db, Expected};
pub use error::{Error, Result};
pub use limits::{
    MAX_BATCH_BYTES, MAX_KEY_BYTES, MAX_SEGMENT_BYTES, MAX_VALUE_BYTES, MIN_SEGMENT_BYTES,
};
pub use options::{Durability, FileAccess, Options};
pub use repair::{RepairProgress, RepairReport, repair, repair_with};
pub use scan::{Entry, Scan};
pub use snapshot::Snapshot;
pub use stats::{
    CompactionProgress, CompactionReport, CompactionStats, OpenProgress, RecoveryReport,
    SegmentStats, Stats,
};
pub use transaction::{Transaction, TransactionScan};
pub use watch::{Change, Watch};

/// The README's program compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
