//! Random operations against the reference model. Opening again, compaction, expiry and snapshots
//! are operations like any other, and segments are tiny.
//!
//! `PAKV_MODEL_CASES` sets the number of cases; a failure prints `PAKV_SEED`, which repeats it, and
//! the shortest list of operations that fails.

use pakv::{FileAccess, Options};
use pakv_testkit::{Op, TestStore, ops};
use proptest::test_runner::{Config, RngSeed, TestError, TestRunner};

/// How long a list of operations gets: enough for several rotations and compactions.
const OPS: usize = 80;

#[test]
fn a_store_answers_like_the_model() {
    check(1_500, || TestStore::with(TestStore::options()));
}

#[test]
fn with_positional_reads_too() {
    let options = || TestStore::options().file_access(FileAccess::Positional).segment_bytes(1_024);
    check(500, || TestStore::with(options()));
}

#[test]
fn while_compaction_runs_in_the_background_too() {
    check(400, || TestStore::in_background(TestStore::options()));
}

#[test]
fn with_segments_that_are_never_full_too() {
    check(200, || TestStore::with(Options::new()));
}

fn check(cases: u32, store: impl Fn() -> TestStore) {
    on_random_ops(cases, |ops| {
        let mut store = store();
        for op in ops {
            store.apply(op);
        }
    });
}

/// Calls `run` with so many random lists of operations, and tells the shortest one that fails.
pub(crate) fn on_random_ops(cases: u32, run: impl Fn(&[Op])) {
    let cases = number("PAKV_MODEL_CASES")
        .map_or(cases, |cases| u32::try_from(cases).expect("PAKV_MODEL_CASES fits"));
    let seed = number("PAKV_SEED").unwrap_or_else(rand_seed);
    let config = Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&ops::ops(OPS), |ops: Vec<Op>| {
        run(&ops);
        Ok(())
    });
    match result {
        Ok(()) => {}
        Err(TestError::Abort(reason)) => panic!("no cases could be made: {reason}"),
        Err(TestError::Fail(reason, ops)) => {
            let ops: Vec<String> = ops.iter().map(|op| format!("    {op:?}")).collect();
            panic!("PAKV_SEED={seed} repeats this: {reason}\n{}", ops.join("\n"));
        }
    }
}

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} should be a number, not {value:?}")))
}

/// Another one in each run.
fn rand_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}
