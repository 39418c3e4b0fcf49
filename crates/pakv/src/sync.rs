//! The locks of the engine, named in one place so that a model checker's can take theirs.

pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock, RwLockWriteGuard};
pub(crate) use std::sync::OnceLock;

/// Gives up a write lock for a moment if others wait for it.
pub(crate) fn let_others_in<T>(guard: &mut RwLockWriteGuard<'_, T>) {
    RwLockWriteGuard::bump(guard);
}
