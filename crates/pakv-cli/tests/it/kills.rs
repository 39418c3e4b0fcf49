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

/// A `pakv` that says that it is done and has done nothing, for one verb.
#[test]
fn a_verb_that_lies_is_caught() {
    for verb in ["set", "incr", "import", "rm", "persist"] {
        let sandbox = crate::kit::Sandbox::new();
        let liar = sandbox.path("liar");
        let pakv = env!("CARGO_BIN_EXE_pakv");
        let script = format!("#!/bin/sh\n[ \"$3\" = {verb} ] && exit 0\nexec '{pakv}' \"$@\"\n");
        std::fs::write(&liar, script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&liar, mode).unwrap();
        let mut kills = VerbKills::new(&liar, 1);
        let problem = (0..400).find_map(|_| kills.kill().err());
        let problem = problem.unwrap_or_else(|| panic!("{verb} lies and is not caught"));
        assert!(problem.contains(&format!(", {verb} killed ")), "{verb}: {problem}");
        let store = problem.lines().find_map(|line| line.strip_prefix("the store is kept in "));
        std::fs::remove_dir_all(store.unwrap()).unwrap();
    }
}
