//! Damages a small store at random, again and again, and uses it each time.
//!
//! ```text
//! mutations COUNT [SEED]
//! mutations 1000000       a million damaged stores, from a random seed on
//! mutations 1 77          what the store of seed 77 does
//! ```
//!
//! Every one that takes longer than a minute is a failure too. In the development profile sums that
//! overflow are found as well.

use std::error::Error;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pakv_testkit::HANG;
use pakv_testkit::mutations::{Mutations, Tally};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [count] => Ok(run(count.parse()?, fastrand::u64(..u64::MAX / 2))),
        [count, seed] => Ok(run(count.parse()?, seed.parse()?)),
        _ => {
            eprintln!("usage: mutations COUNT [SEED]");
            Ok(ExitCode::from(2))
        }
    }
}

fn run(count: u64, seed: u64) -> ExitCode {
    let started = Instant::now();
    let (next, ended) = (AtomicU64::new(0), AtomicUsize::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    // What each thread is at, and since when nobody asks: a minute without a change is a hang.
    let at: Vec<AtomicU64> = (0..threads).map(|_| AtomicU64::new(0)).collect();
    let results: Vec<(Tally, Option<String>)> = std::thread::scope(|scope| {
        let workers: Vec<_> = at
            .iter()
            .map(|at| {
                let (next, ended) = (&next, &ended);
                scope.spawn(move || {
                    let mut mutations = Mutations::new();
                    let mut failure = None;
                    while failure.is_none() {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        if index >= count {
                            break;
                        }
                        at.store(index, Ordering::Relaxed);
                        failure = mutations.mutate(seed.wrapping_add(index)).err();
                    }
                    if failure.is_some() {
                        next.store(count, Ordering::Relaxed);
                    }
                    ended.fetch_add(1, Ordering::Relaxed);
                    (mutations.tally(), failure)
                })
            })
            .collect();
        scope.spawn(|| watch(seed, &at, &ended));
        workers.into_iter().map(|worker| worker.join().expect("panics are caught")).collect()
    });
    let mut total = Tally::default();
    for (tally, _) in &results {
        total.mutations += tally.mutations;
        total.refused += tally.refused;
        total.damaged += tally.damaged;
        total.forged += tally.forged;
    }
    let failures: Vec<&String> =
        results.iter().filter_map(|(_, failure)| failure.as_ref()).collect();
    for failure in &failures {
        eprintln!("{failure}");
    }
    println!(
        "{} damaged stores from seed {seed} in {:.1} s{}",
        total.mutations,
        started.elapsed().as_secs_f64(),
        if failures.is_empty() { ": the truth or a typed error" } else { ": FAILED" },
    );
    println!(
        "figures: mutations={} refused={} damaged={} forged={} failures={}",
        total.mutations,
        total.refused,
        total.damaged,
        total.forged,
        failures.len(),
    );
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Ends the process where a thread does not come on; returns once all have ended.
fn watch(seed: u64, at: &[AtomicU64], ended: &AtomicUsize) {
    let look = || at.iter().map(|at| at.load(Ordering::Relaxed)).collect::<Vec<u64>>();
    let (mut before, mut since) = (look(), Instant::now());
    while ended.load(Ordering::Relaxed) < at.len() {
        std::thread::sleep(Duration::from_millis(20));
        let now = look();
        if now != before {
            (before, since) = (now, Instant::now());
        } else if since.elapsed() > HANG {
            for index in now {
                eprintln!(
                    "mutations 1 {}: it may be this one that hangs",
                    seed.wrapping_add(index)
                );
            }
            std::process::exit(1);
        }
    }
}
