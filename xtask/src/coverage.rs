//! `cargo xtask coverage`: lines and branches of the engine that the whole suite reaches. Needs
//! `llvm-22` (Debian's package of that name), the version that Rust 1.95 is built on.

use std::path::PathBuf;
use std::process::Command;

use crate::process::{cargo, require, root, run as run_to_end, target};
use crate::{Outcome, Verdict};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Shows every line of these files with its counts instead of the table
    #[arg(long, value_name = "FILE")]
    show: Vec<PathBuf>,
}

const PROFDATA: &str = "llvm-profdata-22";
const COV: &str = "llvm-cov-22";

pub(crate) fn run(args: &Args) -> Outcome {
    if Command::new(COV).arg("--version").output().is_err() {
        println!("**** SKIPPED: {COV} is missing (Debian: apt-get install llvm-22) ****");
        return Ok(Verdict::Incomplete);
    }
    let dir = target().join("coverage");
    let profiles = dir.join("profiles");
    let _ = std::fs::remove_dir_all(&profiles);
    std::fs::create_dir_all(&profiles)?;
    let instrumented = |mut command: Command| {
        command
            .arg("--target-dir")
            .arg(&dir)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTFLAGS", "-Cinstrument-coverage -Zcoverage-options=branch")
            // A file for each process. What is killed leaves none behind: that is not counted.
            .env("LLVM_PROFILE_FILE", profiles.join("%p-%m.profraw"));
        command
    };
    const PACKAGES: [&str; 6] = ["-p", "pakv", "-p", "pakv-testkit", "-p", "pakv-cli"];
    let mut built = instrumented(cargo(&[
        "test",
        "--no-run",
        "--message-format=json",
        "--lib",
        "--bins",
        "--tests",
    ]));
    let output = built.args(PACKAGES).current_dir(root()).output()?;
    let programs = programs(&String::from_utf8_lossy(&output.stdout));
    if !output.status.success() || programs.is_empty() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let mut tests = instrumented(cargo(&["test", "--no-fail-fast", "--lib", "--bins", "--tests"]));
    let limit = std::time::Duration::from_secs(3600);
    let ended = run_to_end(tests.args(PACKAGES), &dir.join("tests.log"), limit)?;
    // What a test finds on standard error of a program that cannot write its counts is no bug.
    for line in ended.output.lines().filter(|line| line.ends_with("... FAILED")) {
        println!("**** {line}, while it was measured ****");
    }
    let data = dir.join("all.profdata");
    let mut merge = Command::new(PROFDATA);
    merge.args(["merge", "-sparse", "--failure-mode=all", "-o"]).arg(&data).arg(&profiles);
    require(&mut merge)?;

    let mut cov = Command::new(COV);
    cov.arg(if args.show.is_empty() { "report" } else { "show" });
    cov.arg(format!("--instr-profile={}", data.display()));
    cov.args(["--show-branch-summary=true", "--show-region-summary=false"]);
    for (index, program) in programs.iter().enumerate() {
        if index > 0 {
            cov.arg("--object");
        }
        cov.arg(program);
    }
    if args.show.is_empty() {
        cov.arg(root().join("crates/pakv/src"));
    } else {
        cov.arg("--show-branches=count").args(args.show.iter().map(|file| root().join(file)));
    }
    require(&mut cov)?;
    Ok(Verdict::Passed)
}

/// The executables that a build made, from cargo's messages.
fn programs(messages: &str) -> Vec<String> {
    let paths = messages.lines().filter_map(|line| line.split("\"executable\":\"").nth(1));
    let mut paths: Vec<String> =
        paths.filter_map(|rest| rest.split('"').next()).map(str::to_string).collect();
    paths.sort();
    paths.dedup();
    paths
}
