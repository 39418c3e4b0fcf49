//! Crashes stores on simulated disks for as long as it is told to.
//!
//! ```text
//! crash_soak SECONDSs|RUNS [FIRST_SEED]
//! crash_soak 60s          a minute, from seed 0 on
//! crash_soak 1000 500     the seeds 500 to 1499
//! crash_soak 1 500        seed 500 alone: what a failure says to run
//! ```
//!
//! Prints what it has looked at; at the first thing that is wrong, the seed and what was done.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pakv_testkit::sim::{Config, Tally, check_seed};

/// When it ends.
#[derive(Clone, Copy)]
struct Budget {
    time: Duration,
    runs: u64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let parsed = match &arguments[..] {
        [budget] => parse(budget).zip(Some(0)),
        [budget, first] => parse(budget).zip(first.parse().ok()),
        _ => None,
    };
    let Some((budget, first_seed)) = parsed else {
        eprintln!("usage: crash_soak SECONDSs|RUNS [FIRST_SEED]");
        return ExitCode::from(2);
    };
    let started = Instant::now();
    let (tally, runs, failed) = soak(budget, first_seed);
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{runs} runs from seed {first_seed}: {} crash states, {} of them in compaction, {} in an \
         open; {} faults, {} calls; {:.1} s, {:.0} states/s",
        tally.states,
        tally.in_compaction,
        tally.in_open,
        tally.faults,
        tally.calls,
        seconds,
        tally.states as f64 / seconds
    );
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn parse(budget: &str) -> Option<Budget> {
    match budget.strip_suffix('s') {
        Some(seconds) => {
            Some(Budget { time: Duration::from_secs(seconds.parse().ok()?), runs: u64::MAX })
        }
        None => Some(Budget { time: Duration::MAX, runs: budget.parse().ok()? }),
    }
}

fn soak(budget: Budget, first_seed: u64) -> (Tally, u64, bool) {
    let started = Instant::now();
    let (next, done, failed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let total = Mutex::new(Tally::default());
    let work = || {
        while !failed.load(Ordering::Relaxed) && started.elapsed() < budget.time {
            let run = next.fetch_add(1, Ordering::Relaxed);
            if run >= budget.runs {
                break;
            }
            match check_seed(first_seed + run, &Config::default()) {
                Ok(tally) => {
                    done.fetch_add(1, Ordering::Relaxed);
                    if let Ok(mut total) = total.lock() {
                        total.add(&tally);
                    }
                }
                Err(failure) => {
                    if !failed.swap(true, Ordering::Relaxed) {
                        eprintln!("{failure}");
                    }
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let total = total.into_inner().unwrap_or_default();
    (total, done.into_inner(), failed.into_inner())
}
