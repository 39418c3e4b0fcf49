//! Makes histories of eight threads on ten keys and checks that each is linearizable.
//!
//! ```text
//! linear COUNT|SECONDSs [SEED [same]]
//! linear 1000             1,000 histories, from seed 0 on
//! linear 600s 5000        ten minutes of them, from seed 5000 on
//! linear 1000 7 same      seed 7 again and again: what a failure says to run
//! ```
//!
//! Exits with 1 at the first that is not.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use pakv_testkit::linear::{Tally, check_seed};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let parsed = match arguments.as_slice() {
        [budget] => parse(budget).zip(Some((0, 1))),
        [budget, seed] => parse(budget).zip(seed.parse().ok().zip(Some(1))),
        [budget, seed, "same"] => parse(budget).zip(seed.parse().ok().zip(Some(0))),
        _ => None,
    };
    let Some(((time, count), (first_seed, step))) = parsed else {
        eprintln!("usage: linear COUNT|SECONDSs [SEED [same]]");
        return ExitCode::from(2);
    };
    let started = Instant::now();
    let mut total = Tally::default();
    let mut violations = 0;
    while total.histories < count && started.elapsed() < time {
        match check_seed(first_seed + total.histories * step, None) {
            Ok(tally) => total.add(&tally),
            Err(failure) => {
                eprintln!("{failure}");
                violations = 1;
                break;
            }
        }
    }
    let Tally { histories, calls, overlapped, reopens, refused, compactions, audits } = total;
    println!(
        "{histories} histories from seed {first_seed}: {calls} calls, {overlapped} of them with \
         another in between, {refused} refused by a close; {reopens} reopens, {compactions} \
         compactions, {audits} audits; {:.1} s",
        started.elapsed().as_secs_f64()
    );
    println!(
        "figures: histories={histories} calls={calls} overlapped={overlapped} reopens={reopens} \
         refused={refused} compactions={compactions} audits={audits} violations={violations}"
    );
    ExitCode::from(violations)
}

/// Time and count; the one that is not given has no end.
fn parse(budget: &str) -> Option<(Duration, u64)> {
    match budget.strip_suffix('s') {
        Some(seconds) => Some((Duration::from_secs(seconds.parse().ok()?), u64::MAX)),
        None => Some((Duration::MAX, budget.parse().ok()?)),
    }
}
