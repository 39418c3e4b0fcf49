//! Crashes on a simulated disk: the quick part of what `crash_soak` does for hours, and the proof
//! that it would notice.

mod backup;
mod beside;
mod clock;
mod disk;
mod prepared;
mod regressions;
mod stale;

use pakv_testkit::sim::{
    Config, Depth, Lie, Scenario, SweepTally, Tally, ThreadsTally, check_seed, check_threads, sweep,
};

/// Seeds of the quick run; a few thousand disks.
const QUICK_SEEDS: u64 = 400;
/// A lie must be found within so many seeds.
const SEEDS_PER_LIE: u64 = 1_000;

#[test]
fn whatever_a_crash_leaves_opens_and_holds_what_was_acknowledged() {
    let mut total = Tally::default();
    for seed in 0..QUICK_SEEDS {
        match check_seed(seed, &Config::default()) {
            Ok(tally) => total.add(&tally),
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("{total:?}");
    assert!(total.states > 4_000, "too few disks: {total:?}");
    assert!(total.in_compaction > 200, "too few crashes in compaction: {total:?}");
    assert!(total.in_open > 1_000, "too few crashes in an open: {total:?}");
    assert!(total.faults > 50, "too few faults: {total:?}");
}

/// Every call of a compaction, some of an open and of a long script: `fault_sweep` does the rest.
#[test]
fn any_single_call_may_fail() {
    let mut total = SweepTally::default();
    for (scenario, every) in
        [(Scenario::Open, 11), (Scenario::Compaction, 1), (Scenario::Script, 41)]
    {
        let depth = Depth { every, crashes: 1, every_compound: 31 };
        match sweep(scenario, 0, depth) {
            Ok(tally) => {
                println!("{scenario:?}: {tally:?}");
                total.add(&tally);
            }
            Err(failure) => panic!("{failure}"),
        }
    }
    assert!(total.in_compaction > 100 && total.in_open > 50, "{total:?}");
    assert!(total.crash_points > 200 && total.faults > 500, "{total:?}");
    assert!(total.sync_faults > 50 && total.compound > 500, "{total:?}");
}

#[test]
fn a_storage_that_lies_is_caught() {
    // What the lies do to the engine may well make it panic; that counts as caught, quietly.
    let mut missed = Vec::new();
    for lie in Lie::ALL {
        let config = Config { lie: Some(lie) };
        match (0..SEEDS_PER_LIE).find_map(|seed| check_seed(seed, &config).err()) {
            Some(failure) => println!("{lie:?}: seed {}: {}", failure.seed, failure.what),
            None => missed.push(lie),
        }
    }
    assert!(missed.is_empty(), "not caught in {SEEDS_PER_LIE} seeds: {missed:?}");
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..20 {
        let config = Config::default();
        let first = check_seed(seed, &config).map_err(|failure| failure.to_string());
        let second = check_seed(seed, &config).map_err(|failure| failure.to_string());
        assert_eq!(first, second, "seed {seed} went two ways");
    }
}

/// Writers, the background compaction, the thread that syncs, and a crash at some call of one of
/// them.
#[test]
fn a_store_with_all_its_threads_keeps_what_it_acknowledged() {
    let mut total = ThreadsTally::default();
    for seed in 0..24 {
        match check_threads(seed, &Config::default()) {
            Ok(tally) => total.add(&tally),
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("{total:?}");
    assert!(total.acknowledged > 1_000 && total.certain > 1_000, "{total:?}");
    assert!(total.compactions > 0 && total.faults > 0, "{total:?}");
}

#[test]
fn a_storage_that_lies_to_threads_is_caught() {
    for lie in [Lie::NoSync, Lie::SyncLate, Lie::NoDirSync, Lie::SyncErrorSwallowed] {
        let config = Config { lie: Some(lie) };
        let failure = (0..200).find_map(|seed| check_threads(seed, &config).err());
        let failure = failure.unwrap_or_else(|| panic!("{lie:?} is not caught in 200 seeds"));
        println!("{lie:?}: seed {}: {}", failure.seed, failure.what);
    }
}
