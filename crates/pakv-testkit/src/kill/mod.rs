//! `kill -9`: over the library ([`LibraryKills`]) and over every verb of the command line
//! ([`VerbKills`]), at random moments and, where there is `strace`, at every system call.
//!
//! The workload of the library's runs is a function of a seed, a thread and a step number, so that
//! the child that writes need only print how far it came and the parent knows what must be there.
//! Each thread of the child has keys of its own and prints a step once the store has acknowledged
//! it; so after a kill the keys of a thread show every printed step and perhaps the one that was in
//! flight, whole.

mod child;
pub(crate) mod ledger;
mod library;
mod moment;
mod verbs;

use std::time::{Duration, UNIX_EPOCH};

use fastrand::Rng;
use pakv::{Db, Durability, Expiry, Options, Result, WriteBatch};

pub use child::{child, fill_until_it_fails, fill_value, hold, read_all, write_until_killed};
pub use ledger::{Ledger, Said};
pub use library::LibraryKills;
pub(crate) use library::check_files;
pub use moment::{Tally, can_kill_at_calls};
pub use verbs::VerbKills;

use crate::Model;

/// How many threads of the child write.
pub const THREADS: usize = 3;

/// How many keys each of them has: few, so that most writes make garbage and compaction always
/// finds some.
const KEYS: usize = 24;

/// A step of one thread.
#[derive(Debug)]
pub struct Step {
    how: How,
    writes: Vec<Write>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Single,
    Update,
    Batch,
    Transaction,
}

#[derive(Debug)]
struct Write {
    key: Vec<u8>,
    /// `None` deletes.
    value: Option<Vec<u8>>,
    /// Whether the value's expiry has passed already: the key is then not there, and no older value
    /// either.
    expired: bool,
}

/// The name of a key begins with this.
pub fn key_prefix(thread: usize) -> String {
    format!("thread-{thread}/")
}

/// Step `number` of a thread.
pub fn step(seed: u64, thread: usize, number: u64) -> Step {
    // Mixed so that neighbouring steps have nothing in common.
    let mut rng =
        Rng::with_seed(seed ^ (number << 8 | thread as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let how = match rng.u8(..10) {
        0..=5 => How::Single,
        6 => How::Update,
        7 => How::Transaction,
        _ => How::Batch,
    };
    let count = if matches!(how, How::Batch | How::Transaction) { rng.usize(1..6) } else { 1 };
    let writes = (0..count).map(|index| {
        let key = format!("{}{:02}", key_prefix(thread), rng.usize(..KEYS)).into_bytes();
        let len = if rng.u8(..20) == 0 { 3_000 } else { rng.usize(..200) };
        let mut value = format!("step {number} write {index} ").into_bytes();
        value.resize(value.len() + len, b'.');
        let delete = how != How::Update && rng.u8(..4) == 0;
        let expired = how != How::Update && rng.u8(..10) == 0;
        Write { key, value: (!delete).then_some(value), expired }
    });
    Step { how, writes: writes.collect() }
}

impl Step {
    /// What the step does to the contents.
    pub fn apply_to(&self, model: &mut Model) {
        for write in &self.writes {
            match &write.value {
                Some(value) => model.set(&write.key, value, write.expired.then_some(0)),
                None => {
                    model.delete(&write.key);
                }
            }
        }
    }

    /// Does it to a store.
    ///
    /// # Errors
    /// Those of the store.
    pub fn apply(&self, db: &Db) -> Result<()> {
        let expiry = |write: &Write| match write.expired {
            true => Expiry::At(UNIX_EPOCH),
            false => Expiry::Never,
        };
        match self.how {
            How::Single => self.writes.iter().try_for_each(|write| match &write.value {
                Some(value) => db.set_with_expiry(&write.key, value, expiry(write)),
                None => db.delete(&write.key).map(|_| ()),
            }),
            How::Update => self
                .writes
                .iter()
                .try_for_each(|write| db.update(&write.key, |_| write.value.clone()).map(|_| ())),
            How::Batch => {
                let mut batch = WriteBatch::new();
                for write in &self.writes {
                    match &write.value {
                        Some(value) => batch.set_with_expiry(
                            write.key.as_slice(),
                            value.as_slice(),
                            expiry(write),
                        ),
                        None => batch.delete(write.key.as_slice()),
                    };
                }
                db.write(&batch)
            }
            How::Transaction => {
                let mut transaction = db.transaction()?;
                for write in &self.writes {
                    match &write.value {
                        Some(value) => {
                            transaction.set_with_expiry(
                                write.key.as_slice(),
                                value.as_slice(),
                                expiry(write),
                            );
                        }
                        None => transaction.delete(write.key.as_slice()),
                    }
                }
                transaction.commit()
            }
        }
    }
}

/// The options of the runs: tiny segments and an eager compaction, so that a run of a few
/// milliseconds rotates and compacts. The durability is the seed's; a killed process loses nothing
/// under any.
pub fn options(seed: u64) -> Options {
    let durability = match seed % 3 {
        0 => Durability::Sync,
        1 => Durability::Interval(Duration::from_millis(2)),
        _ => Durability::Buffered,
    };
    Options::new()
        .durability(durability)
        .segment_bytes(2_048)
        .compaction_min_garbage(1_024)
        .keydir_merge_keys(3)
        // What the command line imported may be sealed without a hint; here a missing one is a finding.
        .hintless_segments_from(u64::MAX)
        .compaction_space_amplification(1.2)
        .compaction_rate(None)
        .lock_wait(Duration::from_secs(5))
}
