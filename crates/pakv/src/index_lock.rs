//! The lock around the index, for those who take it again and again: it knows whether somebody
//! waits.

use crate::index::Index;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A reader-writer lock that tells whether anybody waits for it.
#[derive(Debug)]
pub(crate) struct IndexLock {
    index: RwLock<Index>,
    /// How many wait. A hint: it orders nothing.
    waiting: AtomicU32,
}

/// How often somebody who has waited is looked for before the lock is taken again: some
/// microseconds, in which a thread that spins gets it; one that sleeps takes its turn later.
const LOOKS_MAX: u32 = if cfg!(shuttle) { 1 } else { 64 };

impl IndexLock {
    pub(crate) fn new(index: Index) -> Self {
        Self { index: RwLock::new(index), waiting: AtomicU32::new(0) }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.try_read().unwrap_or_else(|| self.wait(|index| index.read()))
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.try_write().unwrap_or_else(|| self.wait(|index| index.write()))
    }

    #[cold]
    fn wait<'a, G>(&'a self, take: impl FnOnce(&'a RwLock<Index>) -> G) -> G {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let guard = take(&self.index);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        guard
    }

    /// Stays away while somebody waits, for a moment. Called without the lock, before it is taken
    /// again: whoever does that at once keeps everybody else out.
    pub(crate) fn let_others_in(&self) {
        for _ in 0..LOOKS_MAX {
            if self.waiting.load(Ordering::Relaxed) == 0 {
                return;
            }
            std::hint::spin_loop();
        }
    }
}
