//! The order of the system calls of a writing child, which `strace` writes down: see
//! `pakv_testkit::power::trace` for the rules.
//!
//! Without `strace` nothing is tested, and a line says so. `PAKV_TRACE_STEPS` sets how many steps
//! are traced (400 unless told), `PAKV_SEED` repeats a workload.

use std::path::Path;

use pakv_testkit::power::trace::{Call, Looked, Trace, Traced, check};
use pakv_testkit::power::{Ended, Ledger, Refusal, Said, skipped};
use pakv_testkit::{files, kill};

const CHILD: &str = env!("CARGO_BIN_EXE_power_cut");

/// What a traced child did, and what its store must hold.
struct Run {
    dir: tempfile::TempDir,
    ledger: Ledger,
    /// All its lines.
    said: Vec<String>,
    ended: Ended,
    text: String,
}

impl Run {
    /// Lets a child write until it has acknowledged `steps`, or has ended.
    fn trace(seed: u64, steps: u64, options: &[&str]) -> Result<Self, Refusal> {
        let first_steps = vec!["0".to_string(); kill::THREADS];
        Self::start(seed, steps, "trace", first_steps, options)
    }

    /// Lets a child make its steps on one thread, and end.
    fn short(seed: u64, steps: u64, options: &[&str]) -> Result<Self, Refusal> {
        Self::start(seed, u64::MAX, "run", vec![steps.to_string()], options)
    }

    fn start(
        seed: u64,
        steps: u64,
        verb: &str,
        rest: Vec<String>,
        options: &[&str],
    ) -> Result<Self, Refusal> {
        let dir = files::scratch();
        let mut ledger = Ledger::new(seed);
        let store = dir.path().display().to_string();
        let mut args = vec![verb.to_string(), store, seed.to_string()];
        args.extend(rest);
        let mut said = Vec::new();
        let mut traced = Traced::start(Path::new(CHILD), options, &args)?;
        let mut acknowledged = 0;
        while acknowledged < steps
            && let Some(line) = traced.writer.line()
        {
            acknowledged += u64::from(ledger.take(&line, Said::Before).expect("steps in order"));
            said.push(line);
        }
        let (ended, text) = traced.kill();
        for line in &ended.lines {
            ledger.take(line, Said::Before).expect("a thread acknowledges its steps in order");
        }
        said.extend_from_slice(&ended.lines);
        Ok(Self { dir, ledger, said, ended, text })
    }

    /// Writes the trace to a file that stays.
    fn keep(&self) -> std::path::PathBuf {
        let path = files::scratch().keep().join("trace");
        files::write(&path, &self.text);
        path
    }

    fn look(&self) -> Result<Looked, String> {
        check(&Trace::parse(&self.text)?, &self.dir.path().display().to_string())
    }
}

/// A seed whose runs are with `Durability::Sync`.
fn seed() -> u64 {
    let seed = number("PAKV_SEED").unwrap_or_else(|| fastrand::u64(..)) / 3 * 3;
    println!("PAKV_SEED={seed}");
    seed
}

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} should be a number, not {value:?}")))
}

/// A run that is held against the rules, and in which a compaction came as far as its unlinks: on a
/// slow machine that can take more steps than were asked for.
fn trace_with_compactions(seed: u64, mut steps: u64) -> Result<(Run, Looked), Refusal> {
    loop {
        let run = Run::trace(seed, steps, &[])?;
        let looked = run.look().unwrap_or_else(|wrong| {
            panic!("seed {seed}: {wrong}\nthe trace: {}", run.keep().display())
        });
        if looked.manifests > 5 && looked.unlinks > 5 {
            return Ok((run, looked));
        }
        steps *= 2;
        assert!(steps < 20_000, "it neither rotates nor compacts: {looked:?}");
    }
}

#[test]
fn calls_come_in_an_order_that_loses_nothing() {
    let seed = seed();
    let steps = number("PAKV_TRACE_STEPS").unwrap_or(400);
    let (mut run, looked) = match trace_with_compactions(seed, steps) {
        Ok(traced) => traced,
        Err(refusal) => return skipped("the order of system calls", &refusal),
    };
    println!("{looked:?}");
    assert!(looked.acknowledgements as u64 > steps / 2, "most records are found: {looked:?}");
    run.ledger.check_after_cut(run.dir.path()).unwrap_or_else(|wrong| panic!("{wrong}"));

    the_rules_catch_what_is_left_out(&run);
}

/// Without the calls that keep a rule, it is broken.
fn the_rules_catch_what_is_left_out(run: &Run) {
    // What is left out, which calls that are, and the complaint.
    type LeftOut<'a> = (&'a str, &'a dyn Fn(&Call) -> bool, &'a str);
    let dir = run.dir.path().display().to_string();
    let is_sync_of = |call: &Call, suffix: &str| {
        call.name.ends_with("sync") && call.fd_path().is_some_and(|path| path.ends_with(suffix))
    };
    let left_out: [LeftOut<'_>; 4] = [
        ("syncs of manifests", &|call| is_sync_of(call, "/MANIFEST.tmp"), "renamed before it was"),
        ("syncs of segments", &|call| is_sync_of(call, ".log"), "before"),
        ("syncs of the directory", &|call| is_sync_of(call, &dir), "before"),
        // The first hundred lines have the first manifest; the later ones drop what is unlinked.
        (
            "later manifests",
            &|call| call.begin > 100 && call.name == "rename" && call.args.contains("MANIFEST"),
            "while a manifest lists it",
        ),
    ];
    for (what, is_left_out, complaint) in left_out {
        let mut trace = Trace::parse(&run.text).expect("it was understood before");
        let before = trace.0.len();
        trace.0.retain(|call| !is_left_out(call));
        assert!(trace.0.len() < before, "there are {what}");
        let found = check(&trace, &dir);
        let caught = found.as_ref().is_err_and(|wrong| wrong.contains(complaint));
        let acknowledged = found.as_ref().is_err_and(|wrong| wrong.contains("no manifest lists"));
        assert!(caught || acknowledged, "without the {what}: {found:?}");
    }
}

/// Far more than it takes to come to the sync that fails; a store that goes on after it ends too.
const STEPS_UNTIL_FAILED: u64 = 3_000;

/// The n-th sync of a thread fails: the store is poisoned, the sync is not tried again, and nothing
/// that was acknowledged is lost.
#[test]
fn a_failed_sync_is_not_tried_again() {
    let seed = seed();
    for nth in [3, 10, 25, 40] {
        for call in ["fdatasync", "fsync"] {
            let fault = format!("inject={call}:error=EIO:when={nth}");
            let context = format!("seed {seed}, {fault}");
            let mut run = match Run::trace(seed, STEPS_UNTIL_FAILED, &["-e", &fault]) {
                Ok(run) => run,
                Err(refusal) => return skipped("a failed sync under strace", &refusal),
            };
            run.ended.is_legal(false).unwrap_or_else(|wrong| panic!("{context}: {wrong}"));
            assert!(run.ended.signal().is_none(), "{context}: it ended by itself");
            let looked = run.look().unwrap_or_else(|wrong| {
                let kept = run.keep();
                panic!("{context}: {wrong}\nthe trace: {}", kept.display())
            });
            assert!(looked.failed_syncs > 0, "{context}: {looked:?}");
            let checked = run.ledger.check_after_cut(run.dir.path());
            checked.unwrap_or_else(|wrong| panic!("{context}: {wrong}"));
            kill::options(seed)
                .open(run.dir.path())
                .and_then(|db| db.set("another", "write"))
                .unwrap_or_else(|error| panic!("{context}: the store resumes: {error}"));
        }
    }
}

/// Every sync of a short run fails in turn: that of a file, and that of the directory. What follows
/// it is an error or nothing; no sync comes after it; the store opens again with all that was
/// acknowledged. `PAKV_SYNC_STEPS` sets how many steps a run has (24 unless told).
#[test]
fn whichever_sync_fails_nothing_is_acknowledged_after_it() {
    let seed = seed();
    let steps = number("PAKV_SYNC_STEPS").unwrap_or(24);
    for (call, least) in [("fdatasync", 20), ("fsync", 8)] {
        let mut nth = 1;
        loop {
            match with_failed_sync(seed, steps, call, nth) {
                Ok(true) => nth += 1,
                Ok(false) => break,
                Err(refusal) => return skipped("every sync failing in turn", &refusal),
            }
        }
        println!("{} syncs by {call} failed in turn", nth - 1);
        assert!(nth > least, "a run of {steps} steps has only {} calls of {call}", nth - 1);
    }
}

/// Returns whether the run had such a sync.
fn with_failed_sync(seed: u64, steps: u64, call: &str, nth: u64) -> Result<bool, Refusal> {
    let fault = format!("inject={call}:error=EIO:when={nth}");
    let context = format!("PAKV_SEED={seed}, {fault}");
    let mut run = Run::short(seed, steps, &["-e", &fault])?;
    let trace = Trace::parse(&run.text).unwrap_or_else(|wrong| panic!("{context}: {wrong}"));
    let is_sync = |call: &&Call| matches!(call.name.as_str(), "fsync" | "fdatasync");
    let Some(failed) = trace.0.iter().filter(is_sync).find(|call| call.failed()) else {
        assert!(run.said.iter().any(|line| line == "closed"), "{context}: {:?}", run.said);
        return Ok(false);
    };
    let later = |call: &&Call| call.begin > failed.end;
    let again = trace.0.iter().filter(is_sync).find(later);
    assert!(again.is_none(), "{context}: a sync after the one that failed: {again:?}");
    let is_acknowledgement = |call: &&Call| {
        let said = call.strings().concat();
        call.name == "write" && call.args.starts_with("1<") && said.starts_with(b"0 ")
    };
    let acknowledged = trace.0.iter().filter(later).find(is_acknowledgement);
    assert!(acknowledged.is_none(), "{context}: acknowledged after it: {acknowledged:?}");
    let opened = run.said.iter().any(|line| line == "open");
    let told = run.said.iter().any(|line| line.starts_with("failed Io {"))
        || run.said.iter().any(|line| line.starts_with("failed Poisoned {"));
    let ended_well =
        if opened { told && run.ended.succeeded() } else { run.ended.is_legal(false).is_ok() };
    assert!(ended_well, "{context}: {:?}, {}", run.said, run.ended.errors);
    let wrong = run.said.iter().find(|line| line.starts_with("acknowledged "));
    assert!(wrong.is_none(), "{context}: after the failure: {wrong:?}");

    run.ledger.check_after_cut(run.dir.path()).unwrap_or_else(|wrong| panic!("{context}: {wrong}"));
    kill::options(seed)
        .open(run.dir.path())
        .and_then(|db| db.set("another", "write"))
        .unwrap_or_else(|error| panic!("{context}: the store resumes: {error}"));
    Ok(true)
}
