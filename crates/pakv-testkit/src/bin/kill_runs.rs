//! Kills processes that use a store, again and again, and checks the store each time: `kill -9`
//! over the library and over every verb of the command line.
//!
//! ```text
//! kill_runs COUNT [SEED [PAKV]]
//! kill_runs 2000            2000 kills, half of them over the library, from a random seed
//! kill_runs 2000 7 ./pakv   with the workload of seed 7, and this binary of the command line
//! ```
//!
//! The command line is the `pakv` beside this program, unless it is named: `cargo build --release`
//! makes both. Its other verbs are those of the child that it starts: see `kill::child`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use pakv_testkit::kill::{self, LibraryKills, Tally, VerbKills};
use pakv_testkit::power::{Refusal, skipped};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if let Some(done) = kill::child(&args) {
        return done.map(|()| ExitCode::SUCCESS);
    }
    let beside = std::env::current_exe()?.with_file_name("pakv");
    match args.as_slice() {
        [count] => run(count.parse()?, fastrand::u64(..), &beside),
        [count, seed] => run(count.parse()?, seed.parse()?, &beside),
        [count, seed, pakv] => run(count.parse()?, seed.parse()?, &PathBuf::from(pakv)),
        _ => {
            eprintln!("usage: kill_runs COUNT [SEED [PAKV]]");
            Ok(ExitCode::from(2))
        }
    }
}

fn run(count: u64, seed: u64, pakv: &Path) -> Result<ExitCode, Box<dyn Error>> {
    if !pakv.is_file() {
        let why = format!("there is no {}; cargo build --release makes it", pakv.display());
        skipped("kills over the command line", &Refusal::new(why));
        return Ok(ExitCode::from(3));
    }
    let can_kill_at_calls = kill::can_kill_at_calls();
    if !can_kill_at_calls {
        let why = Refusal::new("there is no strace that may trace");
        skipped("kills before each system call; only those at random moments are done", &why);
    }
    let started = Instant::now();
    let mut library = LibraryKills::new(&std::env::current_exe()?, seed);
    let mut verbs = VerbKills::new(pakv, seed);
    let mut failed = false;
    while !failed && library.tally().kills + verbs.tally().kills < count {
        let result = match library.tally().kills <= verbs.tally().kills {
            true => library.kill(),
            false => verbs.kill(),
        };
        if let Err(problem) = result {
            eprintln!("{problem}");
            failed = true;
        }
    }
    let mut tally = Tally::default();
    tally.add(library.tally());
    tally.add(verbs.tally());
    println!(
        "{} kills from seed {seed} in {:.1} s: {}",
        tally.kills,
        started.elapsed().as_secs_f64(),
        if failed { "FAILED" } else { "nothing lost, nothing revived" },
    );
    println!("figures: {tally} calls={}", u8::from(can_kill_at_calls));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
