//! Lets every storage call of an open, of a compaction and of a script of 200 operations fail in
//! turn, in every way, and the power go off in each; then every call of the recovery from that.
//!
//! ```text
//! fault_sweep [SEED]      of the scenarios that the seed makes; 0 unless told
//! ```
//!
//! The last line of its output is `figures: …`. At the first thing that is wrong it says what, and
//! exits with 1.

use std::process::ExitCode;
use std::time::Instant;

use pakv_testkit::sim::{Depth, Failure, Scenario, SweepTally, sweep};

/// Every call is struck. How many disks are looked at after each, and of the recoveries from the
/// crashes, which are many, one call in how many is struck as well.
const SWEEPS: [(Scenario, u64, usize); 3] =
    [(Scenario::Open, 2, 13), (Scenario::Compaction, 3, 3), (Scenario::Script, 1, 61)];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seed = match &arguments[..] {
        [] => Some(0),
        [seed] => seed.parse().ok(),
        _ => None,
    };
    let Some(seed) = seed else {
        eprintln!("usage: fault_sweep [SEED]");
        return ExitCode::from(2);
    };
    let started = Instant::now();
    let mut total = SweepTally::default();
    let mut failure: Option<Failure> = None;
    let results = std::thread::scope(|scope| {
        let run = move |(scenario, crashes, every_compound)| {
            let result = sweep(scenario, seed, Depth { every: 1, crashes, every_compound });
            println!("{scenario:?}: {result:?}, {:.0} s", started.elapsed().as_secs_f64());
            result
        };
        let threads = SWEEPS.map(|which| scope.spawn(move || run(which)));
        threads.map(|thread| thread.join().expect("a sweep catches panics"))
    });
    for result in results {
        match result {
            Ok(tally) => total.add(&tally),
            Err(found) => {
                eprintln!("{found}");
                failure.get_or_insert(found);
            }
        }
    }
    println!(
        "figures: indices={} in_open={} in_compaction={} faults={} sync_faults={} crash_points={} \
         compound={} states={} seconds={} {}",
        total.indices,
        total.in_open,
        total.in_compaction,
        total.faults,
        total.sync_faults,
        total.crash_points,
        total.compound,
        total.states,
        started.elapsed().as_secs(),
        Failure::figures(failure.as_ref()),
    );
    if failure.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
