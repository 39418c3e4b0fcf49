//! Runs the tests of many threads under ThreadSanitizer.
//!
//! ```text
//! tsan [HISTORIES]        the tests, with so many histories (20 unless told), after a planted race
//!                         that must be reported
//! tsan race               that race: nothing else should be done with it
//! ```
//!
//! The standard library is built with it too: the order that its locks, channels and fences make is
//! not seen otherwise, and what is right would be reported. Its source is
//! `rustup component add rust-src`.
//!
//! Exits with 1 if anything is reported, or the planted race is not; with 3 where the compiler has
//! no sanitizer, or that source is missing.

use std::cell::UnsafeCell;
use std::error::Error;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Instant;

use pakv_testkit::cargo::{self, Ran};

const FLAGS: &str = "-Zsanitizer=thread";
/// What cargo ends with where it cannot build.
const NOT_BUILT: i32 = 101;
const REPORT: &str = "WARNING: ThreadSanitizer";
/// The sanitizer's own exit code.
const REPORTED: i32 = 66;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["race"] => {
            race();
            Ok(ExitCode::SUCCESS)
        }
        [] => check(20),
        [histories] => check(histories.parse()?),
        _ => {
            eprintln!("usage: tsan [HISTORIES]");
            Ok(ExitCode::from(2))
        }
    }
}

fn check(histories: u64) -> Result<ExitCode, Box<dyn Error>> {
    let started = Instant::now();
    let planted = cargo::run(
        sanitized("run")?.args(["-p", "pakv-testkit", "--bin", "tsan"]).args(["--", "race"]),
    )?;
    if planted.code == Some(NOT_BUILT) {
        eprintln!("\n**** SKIPPED, NOT TESTED: ThreadSanitizer: {} ****\n", planted.stderr);
        return Ok(ExitCode::from(3));
    }
    let is_found = planted.code == Some(REPORTED) && planted.stderr.contains(REPORT);
    if !is_found {
        eprintln!("the planted race was not reported: {planted:?}");
    }
    let mut total = (0, 0, is_found);
    let tests: [&[&str]; 2] = [
        &[
            "-p",
            "pakv",
            "--test",
            "it",
            "--",
            "concurrent::",
            "prefix::",
            "snapshot::",
            "regressions::",
        ],
        &["-p", "pakv-testkit", "--test", "linear", "--", "every_history"],
    ];
    for test in tests {
        let mut command = sanitized("test")?;
        command.args(test).env("PAKV_LINEAR_HISTORIES", histories.to_string());
        let Ran { code, .. } = &add(cargo::run(&mut command)?, &mut total);
        total.2 &= *code == Some(0);
    }
    let (tests, reports, is_well) = total;
    println!(
        "figures: tests={tests} histories={histories} reports={reports} planted_found={} \
         seconds={}",
        u8::from(is_found),
        started.elapsed().as_secs()
    );
    Ok(if is_well && reports == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Counts a run in, and shows it if something is wrong.
fn add(ran: Ran, (tests, reports, _): &mut (u64, u64, bool)) -> Ran {
    let found = (ran.stderr.matches(REPORT).count() + ran.stdout.matches(REPORT).count()) as u64;
    *tests += ran.passed();
    *reports += found;
    if found > 0 || ran.code != Some(0) {
        eprintln!("{}\n{}", ran.stdout, ran.stderr);
    }
    ran
}

fn sanitized(verb: &str) -> Result<Command, Box<dyn Error>> {
    let mut command = cargo::command("tsan", verb, FLAGS)?;
    command.arg("-Zbuild-std").env("RUSTC_BOOTSTRAP", "1");
    // The long history: of every race both sides can be told.
    command.env("TSAN_OPTIONS", "history_size=7");
    Ok(command)
}

/// A number that two threads change without any agreement.
struct Racy(UnsafeCell<u64>);

#[expect(unsafe_code, reason = "a race, which only such code can have")]
// SAFETY: none. That is what the sanitizer is to find.
unsafe impl Sync for Racy {}

fn race() {
    let racy = Arc::new(Racy(UnsafeCell::new(0)));
    let add = |racy: Arc<Racy>| {
        for _ in 0..1_000 {
            #[expect(unsafe_code, reason = "see above")]
            // SAFETY: see above.
            unsafe {
                *racy.0.get() += 1;
            }
        }
    };
    let other = std::thread::spawn({
        let racy = racy.clone();
        move || add(racy)
    });
    add(racy);
    let _ = other.join();
}
