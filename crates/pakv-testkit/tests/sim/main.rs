//! Crashes on a simulated disk: the quick part of what `crash_soak` does for hours, and the proof
//! that it would notice.

mod disk;
mod regressions;

use pakv_testkit::sim::{Config, Lie, Tally, check_seed, sweep_script};

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

#[test]
fn any_single_call_may_fail() {
    match sweep_script(6) {
        Ok(tally) => {
            println!("{tally:?}");
            assert!(tally.in_compaction > 50 && tally.in_open > 20, "{tally:?}");
        }
        Err(failure) => panic!("{failure}"),
    }
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
