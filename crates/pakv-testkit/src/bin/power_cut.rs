//! Cuts the power of a file system under a store, again and again, and checks the store each time.
//!
//! ```text
//! power_cut COUNT [SEED [ext4|xfs [sync|interval|buffered]]]
//! power_cut 500                   500 cuts of ext4, from a random seed
//! power_cut 500 7 xfs             of XFS, with the workload and the delays of seed 7
//! power_cut 500 7 ext4 buffered   where an acknowledgement alone does not promise durability
//! power_cut control COUNT [SEED [ext4|xfs]]    under bare files, without a store
//! ```
//!
//! The last line of its output is `figures: …`. Needs root and loop mounts; exits with 3 where the
//! machine has none. Its other verbs are those of the children that it and tests start: `write DIR
//! SEED STEP…`, `trace DIR SEED STEP…`, `run DIR SEED STEPS`, `append DIR`, and those of
//! `kill::child`.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use pakv_testkit::kill;
use pakv_testkit::power::{
    Control, Cuts, Filesystem, Level, Refusal, Tally, child, private_mounts, skipped,
};

const USAGE: &str = "usage: power_cut COUNT [SEED [ext4|xfs [sync|interval|buffered]]]
       power_cut control COUNT [SEED [ext4|xfs]]";

type Outcome = Result<ExitCode, Box<dyn Error>>;

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["write", dir, seed, first_steps @ ..] => {
            child::write(Path::new(dir), seed.parse()?, &numbers(first_steps)?)?;
        }
        // Without the times, in the words that the ledger and the rules for traces know.
        ["trace", dir, seed, first_steps @ ..] => {
            kill::write_until_killed(Path::new(dir), seed.parse()?, &numbers(first_steps)?)?;
        }
        ["run", dir, seed, steps] => child::run(Path::new(dir), seed.parse()?, steps.parse()?)?,
        ["append", dir] => child::append(Path::new(dir))?,
        ["control", args @ ..] => return parse(args).map_or_else(usage, control),
        args => match kill::child(args) {
            Some(done) => done?,
            None => return parse(args).map_or_else(usage, cut),
        },
    }
    Ok(ExitCode::SUCCESS)
}

fn numbers(args: &[&str]) -> Result<Vec<u64>, std::num::ParseIntError> {
    args.iter().map(|step| step.parse()).collect()
}

fn usage() -> Outcome {
    eprintln!("{USAGE}");
    Ok(ExitCode::from(2))
}

/// What to cut.
struct Run {
    count: u64,
    seed: u64,
    filesystem: Filesystem,
    level: Level,
}

fn parse(args: &[&str]) -> Option<Run> {
    let (count, rest) = args.split_first()?;
    let seed = rest.first().map_or(Ok(fastrand::u64(..)), |seed| seed.parse()).ok()?;
    let filesystem = match rest.get(1) {
        None | Some(&"ext4") => Filesystem::Ext4,
        Some(&"xfs") => Filesystem::Xfs,
        Some(_) => return None,
    };
    let level = match rest.get(2) {
        None | Some(&"sync") => Level::Sync,
        Some(&"interval") => Level::Interval,
        Some(&"buffered") => Level::Buffered,
        Some(_) => return None,
    };
    (rest.len() <= 3).then_some(())?;
    Some(Run { count: count.parse().ok()?, seed, filesystem, level })
}

fn cut(run: Run) -> Outcome {
    let program = std::env::current_exe()?;
    let Run { count, seed, filesystem, level } = run;
    let seed = level.seed(seed);
    let started = Instant::now();
    let cuts =
        private_mounts().and_then(|()| Cuts::new(filesystem, &program, seed, level.promise()));
    let mut cuts = match cuts {
        Ok(cuts) => cuts,
        Err(refusal) => return refused(&refusal, filesystem),
    };
    let mut problem = None;
    while cuts.tally().cuts < count && problem.is_none() {
        problem = cuts.cut().err();
    }
    println!("{} under {level:?}, seed {seed}", filesystem.name());
    let lost = problem.as_ref().is_some_and(|problem| problem.contains("lost:"));
    let wrong = problem.is_some() && !lost;
    let wrong = format!("lost={} revived={}", u8::from(lost), u8::from(wrong));
    Ok(report(cuts.tally(), &wrong, started, problem))
}

fn control(run: Run) -> Outcome {
    let program = std::env::current_exe()?;
    let Run { count, seed, filesystem, .. } = run;
    let started = Instant::now();
    let control = private_mounts().and_then(|()| Control::new(filesystem, &program, seed));
    let mut control = match control {
        Ok(control) => control,
        Err(refusal) => return refused(&refusal, filesystem),
    };
    let mut problem = None;
    while control.tally().cuts < count && problem.is_none() {
        problem = control.cut().err();
    }
    println!("{} under bare files, seed {seed}", filesystem.name());
    let wrong = format!("lost={}", u8::from(problem.is_some()));
    Ok(report(control.tally(), &wrong, started, problem))
}

fn refused(refusal: &Refusal, filesystem: Filesystem) -> Outcome {
    skipped(&format!("power cuts of {}", filesystem.name()), refusal);
    println!("figures: cuts=0 skipped=1");
    Ok(ExitCode::from(3))
}

fn report(tally: Tally, wrong: &str, started: Instant, problem: Option<String>) -> ExitCode {
    if let Some(problem) = &problem {
        eprintln!("{problem}");
    }
    let Tally {
        cuts,
        in_open,
        acknowledged,
        certain,
        late,
        late_and_gone,
        gone,
        gone_age_us,
        bus_errors,
    } = tally;
    println!(
        "figures: cuts={cuts} in_open={in_open} acknowledged={acknowledged} looked_for={certain} \
         {wrong} late={late} late_and_gone={late_and_gone} unsynced_gone={gone} \
         unsynced_gone_age_us={gone_age_us} bus_errors={bus_errors} seconds={} skipped=0",
        started.elapsed().as_secs()
    );
    if problem.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
