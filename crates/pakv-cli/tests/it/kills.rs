//! `kill -9` of every verb, at random moments and before its system calls; what is checked is in
//! `pakv_testkit::kill`. `PAKV_KILL_RUNS` sets how many runs there are (120 unless told), `PAKV_SEED`
//! repeats a failed one's arguments. Many more: the program `kill_runs` of `pakv-testkit`.

use pakv_testkit::kill::{VerbKills, can_kill_at_calls};
use pakv_testkit::power::{Refusal, skipped};

#[test]
fn killed_verbs_lose_nothing_and_revive_nothing() {
    let number = |name: &str| {
        let value = std::env::var(name).ok()?;
        Some(value.parse().unwrap_or_else(|_| panic!("{name} should be a number, not {value:?}")))
    };
    let runs = number("PAKV_KILL_RUNS").unwrap_or(120);
    let seed = number("PAKV_SEED").unwrap_or_else(|| std::process::id().into());
    println!("PAKV_SEED={seed}");
    if !can_kill_at_calls() {
        skipped(
            "kills before each system call",
            &Refusal::new("there is no strace that may trace"),
        );
    }
    let mut kills = VerbKills::new(env!("CARGO_BIN_EXE_pakv").as_ref(), seed);
    for _ in 0..runs {
        kills.kill().unwrap_or_else(|problem| panic!("{problem}"));
    }
    println!("{}", kills.tally());
    assert!(kills.tally().kills > runs / 4, "hardly a run was killed: {}", kills.tally());
    assert!(kills.tally().acknowledged > 0, "no run acknowledged anything: {}", kills.tally());
}
