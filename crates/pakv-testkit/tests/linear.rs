//! Histories of eight threads on ten keys have an order that explains them; those of a store that
//! lies have none.
//!
//! `PAKV_LINEAR_HISTORIES` sets how many there are (40 unless told), `PAKV_SEED` the first.

use pakv_testkit::linear::{Lie, Tally, check_seed};

/// A lie is told in every history; most show in the first, none may hide in so many.
const PATIENCE: u64 = 40;

#[test]
fn every_history_is_linearizable() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let count = number("PAKV_LINEAR_HISTORIES").unwrap_or(40);
    let first_seed = number("PAKV_SEED").unwrap_or_else(|| fastrand::u64(..u64::MAX / 2));
    let mut total = Tally::default();
    for seed in first_seed..first_seed + count {
        match check_seed(seed, None) {
            Ok(tally) => total.add(&tally),
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("from seed {first_seed}: {total:?}");
    assert_eq!(total.histories, count);
    assert!(total.compactions > 0 && total.refused > 0, "compaction and closes took part");
    assert!(
        total.overlapped > total.calls / 10,
        "threads were at work at the same time: {total:?}"
    );
}

#[test]
fn every_lie_is_caught() {
    for lie in [Lie::StaleRead, Lie::LostWrite, Lie::LostUpdate, Lie::LateSet, Lie::UndoneDelete] {
        let caught = (0..PATIENCE).find(|seed| check_seed(*seed, Some(lie)).is_err());
        println!("{lie:?} is caught in history {caught:?}");
        assert!(caught.is_some(), "{lie:?} was not caught in {PATIENCE} histories");
    }
}
