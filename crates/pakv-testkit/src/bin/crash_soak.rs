//! Crashes stores on simulated disks for as long as it is told to.
//!
//! ```text
//! crash_soak [threads] SECONDSs|STATESstates|RUNS [FIRST_SEED]
//! crash_soak 60s          a minute, from seed 0 on
//! crash_soak 1000000states    until so many crash states were looked at
//! crash_soak 1000 500     the seeds 500 to 1499
//! crash_soak 1 500        seed 500 alone: what a failure says to run
//! crash_soak threads 60s  stores with writers and background threads
//! ```
//!
//! Prints what it has looked at, as `figures: …` in its last line; at the first thing that is wrong,
//! the seed and what was done.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pakv_testkit::sim::{Config, Failure, Tally, ThreadsTally, check_seed, check_threads};

/// When it ends.
#[derive(Clone, Copy)]
struct Budget {
    time: Duration,
    states: u64,
    runs: u64,
}

impl Budget {
    const ENDLESS: Self = Self { time: Duration::MAX, states: u64::MAX, runs: u64::MAX };

    fn parse(text: &str) -> Option<Self> {
        if let Some(states) = text.strip_suffix("states") {
            return Some(Self { states: states.parse().ok()?, ..Self::ENDLESS });
        }
        if let Some(seconds) = text.strip_suffix('s') {
            return Some(Self {
                time: Duration::from_secs(seconds.parse().ok()?),
                ..Self::ENDLESS
            });
        }
        Some(Self { runs: text.parse().ok()?, ..Self::ENDLESS })
    }
}

const USAGE: &str = "usage: crash_soak [threads] SECONDSs|STATESstates|RUNS [FIRST_SEED]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (with_threads, rest) = match &arguments[..] {
        [verb, rest @ ..] if verb == "threads" => (true, rest),
        rest => (false, rest),
    };
    let parsed = match rest {
        [budget] => Budget::parse(budget).zip(Some(0)),
        [budget, first] => Budget::parse(budget).zip(first.parse().ok()),
        _ => None,
    };
    let Some((budget, first_seed)) = parsed else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let started = Instant::now();
    let (figures, failure) = if with_threads {
        // Each run has threads enough of its own.
        let check = |seed| check_threads(seed, &Config::default());
        let (tally, failure) =
            soak(budget, first_seed, 1, check, |total: &mut ThreadsTally, run| {
                total.add(&run);
                total.states
            });
        let ThreadsTally { runs, states, acknowledged, certain, faults, compactions, calls } =
            tally;
        let figures = format!(
            "runs={runs} states={states} acknowledged={acknowledged} looked_for={certain} \
             faults={faults} compactions={compactions} calls={calls}"
        );
        (figures, failure)
    } else {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let check = |seed| check_seed(seed, &Config::default());
        let (tally, failure) =
            soak(budget, first_seed, threads, check, |total: &mut Tally, run| {
                total.add(&run);
                total.states
            });
        let Tally { states, in_compaction, in_open, faults, calls } = tally;
        let figures = format!(
            "states={states} in_compaction={in_compaction} in_open={in_open} faults={faults} \
             calls={calls}"
        );
        (figures, failure)
    };
    let seconds = started.elapsed().as_secs();
    println!("figures: {figures} seconds={seconds} {}", Failure::figures(failure.as_ref()));
    if failure.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Checks one seed after another. `add` adds a run's figures and says how many states that makes.
fn soak<T: Default + Send>(
    budget: Budget,
    first_seed: u64,
    threads: usize,
    check: impl Fn(u64) -> Result<T, Failure> + Sync,
    add: impl Fn(&mut T, T) -> u64 + Sync,
) -> (T, Option<Failure>) {
    let started = Instant::now();
    let (next, states) = (AtomicU64::new(0), AtomicU64::new(0));
    let (total, found) = (Mutex::new(T::default()), Mutex::new(None::<Failure>));
    let failed = AtomicBool::new(false);
    let work = || {
        while !failed.load(Ordering::Relaxed)
            && started.elapsed() < budget.time
            && states.load(Ordering::Relaxed) < budget.states
        {
            let run = next.fetch_add(1, Ordering::Relaxed);
            if run >= budget.runs {
                break;
            }
            match check(first_seed.wrapping_add(run)) {
                Ok(tally) => {
                    let so_far = add(&mut lock(&total), tally);
                    states.store(so_far, Ordering::Relaxed);
                }
                Err(failure) => {
                    if !failed.swap(true, Ordering::Relaxed) {
                        eprintln!("{failure}");
                        *lock(&found) = Some(failure);
                    }
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    (std::mem::take(&mut *lock(&total)), lock(&found).take())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
