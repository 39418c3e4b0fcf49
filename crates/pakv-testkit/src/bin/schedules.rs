//! Explores schedules of the engine's threads: builds the library on shuttle's scheduler and runs
//! `pakv::schedules`.
//!
//! ```text
//! schedules COUNT [SEED]
//! schedules 100000        100,000 schedules in all, from seed 0
//! ```
//!
//! Exits with 1 at a schedule that breaks something, and prints it: with `PAKV_SCHEDULE` set to it
//! the test shows it again.

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use pakv_testkit::cargo;

const FLAGS: &str = "--cfg shuttle";

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (count, seed): (u64, u64) = match arguments.as_slice() {
        [count] => (count.parse()?, 0),
        [count, seed] => (count.parse()?, seed.parse()?),
        _ => {
            eprintln!("usage: schedules COUNT [SEED]");
            return Ok(ExitCode::from(2));
        }
    };
    let started = Instant::now();
    let test = ["-p", "pakv", "--lib", "--", "schedules::"];
    let list =
        cargo::run(cargo::command("schedules", "test", FLAGS)?.args(test).arg("--list"))?.stdout;
    let explorations = list
        .lines()
        .filter(|line| line.ends_with(": test") && !line.contains("::planted::"))
        .count() as u64;
    if explorations == 0 {
        return Err("nothing was built to explore".into());
    }
    let ran = cargo::run(
        cargo::command("schedules", "test", FLAGS)?
            .args(test)
            .args(["--nocapture", "--test-threads=2"])
            .env("PAKV_SCHEDULES", count.div_ceil(explorations).to_string())
            .env("PAKV_SEED", seed.to_string()),
    )?;
    let is_well = ran.code == Some(0);
    if !is_well {
        eprintln!("{}\n{}", ran.stdout, ran.stderr);
    }
    let explored: u64 = ran
        .stdout
        .lines()
        .filter_map(|line| line.split_once("schedules=")?.1.parse::<u64>().ok())
        .sum();
    println!(
        "figures: schedules={explored} tests={} violations={} seconds={}",
        ran.passed(),
        u8::from(!is_well),
        started.elapsed().as_secs()
    );
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
