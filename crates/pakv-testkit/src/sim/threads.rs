//! A store with all its threads on a simulated disk: writers, the background compaction, the thread
//! that syncs, a reader, and compactions by call, while the power goes off, or a fault strikes, at
//! some call to the storage.
//!
//! Which call of which thread that is, the scheduler decides, so a seed does not replay such a run.
//! What must be there is known all the same: an operation that returned `Ok` had ended before the
//! machine was off, since every call after that fails. So every acknowledgement is certain, and
//! `power::order` says what may be left of the rest.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use fastrand::Rng;
use pakv::storage::Storage;
use pakv::{Db, Error};

use super::checker::{Config, Failure, panic_text};
use super::crash::CrashMode;
use super::fault::{CallKind, Effect, Fault, FaultError};
use super::liar::Lie;
use super::storage::SimStorage;
use crate::kill;
use crate::power::order::{Order, Promise, Said, Span, steps};

/// What runs with threads have looked at.
#[derive(Debug, Clone, Copy, Default)]
pub struct ThreadsTally {
    /// Runs of all the threads up to a crash.
    pub runs: u64,
    /// Disks opened and compared afterwards.
    pub states: u64,
    /// Steps that were acknowledged.
    pub acknowledged: u64,
    /// Those among them that had to be there, once for each disk.
    pub certain: u64,
    /// Runs that a fault ended.
    pub faults: u64,
    /// Compactions that came to their end.
    pub compactions: u64,
    /// Calls to the storage.
    pub calls: u64,
}

impl ThreadsTally {
    /// Adds another's figures.
    pub fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.states += other.states;
        self.acknowledged += other.acknowledged;
        self.certain += other.certain;
        self.faults += other.faults;
        self.compactions += other.compactions;
        self.calls += other.calls;
    }
}

/// Lives of the store in one run.
const LIVES: u64 = 3;
/// Disks that are looked at after each.
const DISKS_PER_CRASH: u64 = 6;
/// A run that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);
const MODES: [CrashMode; 3] = [CrashMode::Ext4, CrashMode::Posix, CrashMode::Kill];

/// One run with threads; the seed is that of the workload, and says by `kill::options` how steps
/// are acknowledged.
///
/// # Errors
/// What was wrong: a panic, and threads that do not end, included.
pub fn check_threads(seed: u64, config: &Config) -> Result<ThreadsTally, Failure> {
    let lie = config.lie;
    let (sender, receiver) = channel();
    // A thread of its own, so that a deadlock is a finding and does not stop everything.
    let run = std::thread::spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(|| run(seed, lie)));
        let _ = sender.send(result.unwrap_or_else(|panic| Err(panic_text(&*panic))));
    });
    let what = match receiver.recv_timeout(PATIENCE) {
        Ok(Ok(tally)) => {
            let _ = run.join();
            return Ok(tally);
        }
        Ok(Err(what)) => what,
        Err(RecvTimeoutError::Timeout) => "wrong: the threads wait for each other".to_string(),
        Err(RecvTimeoutError::Disconnected) => "panic: the run has gone".to_string(),
    };
    let again =
        format!("cargo run --release -p pakv-testkit --bin crash_soak -- threads 500 {seed}");
    let trail = vec!["threads: another run of the seed is like this one, not the same".to_string()];
    Err(Failure { seed, again, what, trail })
}

fn run(seed: u64, lie: Option<Lie>) -> Result<ThreadsTally, String> {
    let mut rng = Rng::with_seed(seed);
    let promise = if seed.is_multiple_of(3) { Promise::Acknowledged } else { Promise::Synced };
    let mut order = Order::new(seed, promise);
    let mut machine = SimStorage::new(seed);
    let mut tally = ThreadsTally::default();
    for _ in 0..LIVES {
        let now = AtomicU64::new(1);
        set_trap(&machine, &mut rng);
        for said in live(&machine, lie, seed, &order, &now, &mut tally)? {
            tally.acknowledged += u64::from(matches!(said, Said::Step { .. }));
            order.take(said)?;
        }
        machine.power_off();
        tally.runs += 1;
        tally.calls += machine.calls();
        tally.faults += u64::from(!machine.fired().is_empty());
        if let Some(violation) = machine.violations().first() {
            return Err(format!("wrong: {violation}"));
        }
        let last_call = now.into_inner();
        let crash = Span { begin: last_call, end: last_call };
        for number in 0..DISKS_PER_CRASH {
            tally.states += 1;
            let found = machine.crash(rng.u64(..), MODES[(number % 3) as usize]);
            let mut order = order.clone();
            tally.certain += look_at(&found, seed, &mut order, crash)?;
        }
        // The next life begins with another.
        let found = machine.crash(rng.u64(..), MODES[rng.usize(0..3)]);
        look_at(&found, seed, &mut order, crash)?;
        machine = found.copy(rng.u64(..));
    }
    Ok(tally)
}

/// The power goes off at some call, or a fault strikes first.
fn set_trap(machine: &SimStorage, rng: &mut Rng) {
    machine.power_off_after(rng.u64(20..2_500));
    if rng.u8(0..3) > 0 {
        return;
    }
    // A read that fails in the middle of an `update` would end a thread, and prove nothing.
    let kinds = [CallKind::Sync, CallKind::SyncDir, CallKind::Write, CallKind::Create];
    let error = if rng.bool() { FaultError::Io } else { FaultError::NoSpace };
    machine.set_fault(Some(Fault {
        kind: rng.choice(kinds),
        after: rng.u64(5..400),
        forever: rng.bool(),
        effect: Effect::Error(error),
    }));
}

/// Opens the store and lets all threads loose on it until each of them has met an error. Returns
/// what was acknowledged.
fn live(
    machine: &SimStorage,
    lie: Option<Lie>,
    seed: u64,
    order: &Order,
    now: &AtomicU64,
    tally: &mut ThreadsTally,
) -> Result<Vec<Said>, String> {
    let tick = || now.fetch_add(1, Ordering::SeqCst);
    let options = kill::options(seed).segment_bytes(1_024).lock_wait(Duration::ZERO);
    let storage: Arc<dyn Storage> = match lie {
        Some(lie) => lie.over(machine.clone()),
        None => Arc::new(machine.clone()),
    };
    let db = match options.open_storage(storage) {
        Ok(db) => db,
        Err(error) => return expected(machine, &error).map(|()| Vec::new()),
    };
    let ends = std::thread::scope(|scope| {
        let db = &db;
        let writers: Vec<_> = order
            .next_steps()
            .enumerate()
            .map(|(thread, first)| {
                scope.spawn(move || {
                    let mut said = Vec::new();
                    let result = steps(db, seed, thread, first, tick, |what| said.push(what));
                    (said, result, tick())
                })
            })
            .collect();
        let busy = || writers.iter().any(|writer| !writer.is_finished());
        // A snapshot keeps retired segments in use; compactions by call meet the background's.
        while busy() {
            if let Ok(snapshot) = db.snapshot() {
                snapshot.scan().take(20).for_each(|entry| drop(entry.value()));
                let _ = db.compact();
            }
        }
        writers.into_iter().map(|writer| writer.join()).collect::<Result<Vec<_>, _>>()
    });
    tally.compactions += db.stats().map_or(0, |stats| stats.compaction.runs);
    let closed = db.close();
    let mut all = Vec::new();
    let mut first_failure = u64::MAX;
    for (said, result, ended) in ends.map_err(|panic| panic_text(&*panic))? {
        if let Err(error) = result {
            expected(machine, &error)?;
            // A read that fails, in an `update`, does not poison.
            if !matches!(error, Error::Io { action: "read" | "open", .. }) {
                first_failure = first_failure.min(ended);
            }
        }
        all.extend(said);
    }
    if machine.fired().is_empty() && !machine.is_off() {
        return Err(format!("wrong: the threads end and nothing had failed: {closed:?}"));
    }
    // Once a write has failed nothing is acknowledged, whoever asks.
    let begun_later = |said: &&Said| match said {
        Said::Step { span, .. } | Said::Sync(span) => span.begin > first_failure,
    };
    match all.iter().find(begun_later) {
        Some(said) => Err(format!("wrong: acknowledged after a failure: {said:?}")),
        None => Ok(all),
    }
}

/// An error is typed, and comes of the power or of a fault.
fn expected(machine: &SimStorage, error: &Error) -> Result<(), String> {
    let typed = matches!(error, Error::Io { .. } | Error::Poisoned { .. });
    if typed && (machine.is_off() || !machine.fired().is_empty()) {
        return Ok(());
    }
    Err(format!("wrong: an error that nothing had led to: {error}"))
}

/// Opens what was found and compares it; compacts it, kills it, and opens it again. Returns how many
/// steps had to be there.
fn look_at(found: &SimStorage, seed: u64, order: &mut Order, crash: Span) -> Result<u64, String> {
    let options = kill::options(seed).background_compaction(false).lock_wait(Duration::ZERO);
    let open = |machine: &SimStorage| -> Result<Db, String> {
        let storage: Arc<dyn Storage> = Arc::new(machine.clone());
        options.clone().open_storage(storage).map_err(|error| format!("wrong: open: {error}"))
    };
    let failed = |error: Error| format!("wrong: {error}");
    let db = open(found)?;
    let certain = order.check(&db, crash)?.certain;
    db.compact().map_err(failed)?;
    order.check_again(&db)?;
    found.power_off();
    drop(db);
    let again = found.crash(seed, MODES[(seed % 3) as usize]);
    let db = open(&again)?;
    order.check_again(&db)?;
    db.close().map_err(failed)?;
    Ok(certain)
}
