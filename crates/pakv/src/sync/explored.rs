//! The same names for a scheduler that explores: every lock, atomic and thread is one of shuttle's,
//! with the interface that the engine knows.
//!
//! Time is what is waited for: a wait with a deadline lets others run once and is then over, and
//! the clock shows that deadline.

use std::cell::Cell;
use std::ops::{Add, Deref, DerefMut};
use std::sync::PoisonError;
use std::time::Duration;

use shuttle::rand::Rng;
use shuttle::sync as shuttled;

pub(crate) use shuttle::sync as plain;
pub(crate) use shuttled::{atomic, mpsc};

pub(crate) mod thread {
    pub(crate) use shuttle::thread::*;
    pub(crate) use std::thread::available_parallelism;
}

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(shuttled::Mutex<T>);

#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// `None` only in a wait.
    held: Option<shuttled::MutexGuard<'a, T>>,
}

const HELD: &str = "a guard holds its lock, but for the time of a wait";

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(shuttled::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        MutexGuard { mutex: self, held: Some(held) }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.held.as_ref().expect(HELD)
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().expect(HELD)
    }
}

#[derive(Debug)]
pub(crate) struct Condvar(shuttled::Condvar);

thread_local! {
    // The threads of an exploration are all run by the one that explores.
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static LOSES_WAKES: Cell<bool> = const { Cell::new(false) };
}

/// From here on some wakes are lost, or none are: a planted bug.
pub(crate) fn lose_wakes(lose: bool) {
    LOSES_WAKES.set(lose);
}

/// Whether a wake is left out.
pub(crate) fn loses_this_wake() -> bool {
    LOSES_WAKES.get() && shuttle::rand::thread_rng().gen_ratio(1, 4)
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(shuttled::Condvar::new())
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.held.take().expect(HELD);
        guard.held = Some(self.0.wait(held).unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, until: Instant) {
        guard.held = None;
        NOW.set(NOW.get().max(until.0));
        shuttle::thread::yield_now();
        guard.held = guard.mutex.lock().held;
    }

    pub(crate) fn notify_all(&self) {
        if !loses_this_wake() {
            self.0.notify_all();
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(shuttled::RwLock<T>);

pub(crate) type RwLockReadGuard<'a, T> = shuttled::RwLockReadGuard<'a, T>;

pub(crate) type RwLockWriteGuard<'a, T> = shuttled::RwLockWriteGuard<'a, T>;

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(shuttled::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        self.0.try_read().ok()
    }

    pub(crate) fn try_write(&self) -> Option<RwLockWriteGuard<'_, T>> {
        self.0.try_write().ok()
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looked at and set between others' steps, which shuttle learns by the load of an atomic.
#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    once: std::sync::OnceLock<T>,
    step: atomic::AtomicBool,
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self { once: std::sync::OnceLock::new(), step: atomic::AtomicBool::new(false) }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        self.step.load(atomic::Ordering::SeqCst);
        self.once.get()
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        self.step.load(atomic::Ordering::SeqCst);
        self.once.set(value)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

impl Instant {
    pub(crate) fn now() -> Self {
        Self(NOW.get())
    }

    pub(crate) fn elapsed(self) -> Duration {
        NOW.get() - self.0
    }

    pub(crate) fn checked_add(self, duration: Duration) -> Option<Self> {
        self.0.checked_add(duration).map(Self)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}
