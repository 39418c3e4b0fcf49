//! Fuzzes every target, one after the other, for a total time.
//!
//! ```text
//! fuzz_all SECONDSs [TARGET...]
//! fuzz_all 420s               a minute each
//! fuzz_all 60s import         one of them
//! ```
//!
//! Needs cargo-fuzz and a C++ compiler. What is found goes to `artifacts/TARGET`, what a longer run
//! learns to `work/TARGET`; the corpora in the repository are read and left alone. Exit codes: 0
//! nothing was wrong, 1 an input failed, 2 usage, 3 this machine cannot fuzz.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use pakv_fuzz::TARGETS;

/// How one target is run: its name, and how long an input may be. Longer ones find the same, later.
const LENGTHS: [(&str, usize); 7] = [
    ("record", 1024),
    ("hint", 2048),
    ("manifest", 1024),
    ("recovery", 4096),
    ("operations", 2048),
    ("import", 2048),
    ("shell_line", 256),
];

/// An input that takes longer hangs, and what needs more memory has lost its bounds. The store's own
/// bound, 64 MiB, is checked by the target itself.
const TIMEOUT_SECONDS: u64 = 20;
const MEMORY_MAX_MIB: u64 = 1024;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seconds = arguments.first().and_then(|time| time.strip_suffix('s')?.parse::<u64>().ok());
    let wanted = |name: &str| arguments.len() < 2 || arguments[1..].iter().any(|one| one == name);
    let known = |name: &String| TARGETS.iter().any(|(target, _)| target == name);
    let (Some(seconds), true) = (seconds, arguments.iter().skip(1).all(known)) else {
        eprintln!("usage: fuzz_all SECONDSs [TARGET...]");
        return ExitCode::from(2);
    };
    if !has_cargo_fuzz() {
        println!(
            "SKIPPED: no fuzzing, for `cargo fuzz` is not here: cargo install cargo-fuzz --locked"
        );
        println!("figures: targets=0 executions=0 failures=0");
        return ExitCode::from(3);
    }
    let targets: Vec<_> = LENGTHS.iter().filter(|(name, _)| wanted(name)).collect();
    let each = (seconds / targets.len().max(1) as u64).max(1);
    // Built first, so that a build that fails is not taken for an input that does.
    if !cargo_fuzz("build").status().is_ok_and(|status| status.success()) {
        println!("SKIPPED: no fuzzing, for the targets cannot be built here");
        println!("figures: targets=0 executions=0 failures=0");
        return ExitCode::from(3);
    }
    let (mut executions, mut failures, mut rates) = (0, 0, String::new());
    for (name, len) in &targets {
        let started = Instant::now();
        let run = run(name, *len, each);
        let rate = run.executions as f64 / started.elapsed().as_secs_f64();
        println!("{name}: {} executions, {rate:.0} a second", run.executions);
        if let Some(reason) = &run.failure {
            failures += 1;
            println!("{name} FAILED: {reason}");
        }
        executions += run.executions;
        rates += &format!(" {name}_executions={}", run.executions);
    }
    println!(
        "figures: targets={} executions={executions} failures={failures}{rates}",
        targets.len()
    );
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn has_cargo_fuzz() -> bool {
    let version = Command::new("cargo")
        .args(["fuzz", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}

/// A command of cargo-fuzz. No sanitizer: the engine has no unsafe code on the way of these targets,
/// and without one there are twice as many executions.
fn cargo_fuzz(command: &str) -> Command {
    let mut cargo = Command::new("cargo");
    // The fuzzing engine's instrumentation is an unstable option of a stable compiler.
    cargo.env("RUSTC_BOOTSTRAP", "1");
    cargo.args(["fuzz", command, "--sanitizer", "none", "--features", "libfuzzer"]);
    cargo.args(["--fuzz-dir", env!("CARGO_MANIFEST_DIR")]);
    if let Some(folder) = std::env::var_os("CARGO_TARGET_DIR") {
        cargo.arg("--target-dir").arg(folder);
    }
    cargo
}

struct Run {
    executions: u64,
    failure: Option<String>,
}

fn run(target: &str, len: usize, seconds: u64) -> Run {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = cargo_fuzz("run");
    command.arg(target);
    // The first folder gets what is new.
    for folder in ["work", "corpus", "regressions"] {
        let folder = home.join(folder).join(target);
        if folder.is_dir() || folder.starts_with(home.join("work")) {
            let _ = std::fs::create_dir_all(&folder);
            command.arg(folder);
        }
    }
    command.arg("--");
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-max_len={len}"));
    command.arg(format!("-timeout={TIMEOUT_SECONDS}"));
    command.arg(format!("-rss_limit_mb={MEMORY_MAX_MIB}"));
    command.arg("-print_final_stats=1");
    let dictionary = home.join("dictionaries").join(format!("{target}.dict"));
    if dictionary.is_file() {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    watch(command, target)
}

/// Runs to the end, and passes on what the fuzzing engine says once something is wrong.
fn watch(mut command: Command, target: &str) -> Run {
    let mut executions = 0;
    let mut last: Vec<String> = Vec::new();
    let status =
        command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().and_then(|mut child| {
            if let Some(lines) = child.stderr.take() {
                for line in BufReader::new(lines).split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line).into_owned();
                    if let Some(number) = line.strip_prefix("stat::number_of_executed_units:") {
                        executions = number.trim().parse().unwrap_or(0);
                    }
                    if last.len() == 80 {
                        last.remove(0);
                    }
                    last.push(line);
                }
            }
            child.wait()
        });
    let failure = match status {
        Ok(status) if status.success() && executions > 0 => None,
        Ok(status) => {
            last.iter().for_each(|line| println!("  {line}"));
            Some(format!("{status}; the input is in artifacts/{target}, see README.md"))
        }
        Err(error) => Some(error.to_string()),
    };
    Run { executions, failure }
}
