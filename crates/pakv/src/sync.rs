//! What the engine's threads meet at: locks, atomics, threads, and the time they wait by. Named in
//! one place so that a scheduler that explores (`schedules`) can put its own in theirs.

#[cfg(all(test, shuttle))]
mod explored;

#[cfg(all(test, shuttle))]
pub(crate) use explored::*;

#[cfg(not(all(test, shuttle)))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
#[cfg(not(all(test, shuttle)))]
pub(crate) use std::{
    sync::{OnceLock, atomic, mpsc},
    thread,
    time::Instant,
};
