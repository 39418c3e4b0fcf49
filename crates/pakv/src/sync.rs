//! What the engine's threads meet at: locks, atomics, threads, and the time they wait by. Named in
//! one place so that a scheduler that explores (`schedules`) can put its own in theirs.

#[cfg(all(test, shuttle))]
mod explored;

#[cfg(all(test, shuttle))]
pub(crate) use explored::*;

#[cfg(not(all(test, shuttle)))]
pub(crate) use parking_lot::{
    Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
/// Whether a wake is left out: a planted bug of explored schedules.
#[cfg(not(all(test, shuttle)))]
pub(crate) fn loses_this_wake() -> bool {
    false
}

#[cfg(not(all(test, shuttle)))]
pub(crate) use std::sync as plain;

#[cfg(not(all(test, shuttle)))]
pub(crate) use std::{
    sync::{OnceLock, atomic, mpsc},
    thread,
    time::Instant,
};
