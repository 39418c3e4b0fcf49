//! `cargo xtask soak`: every layer for long, two at a time.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::layers::{Layer, Share, builds, layers};
use crate::process::{CANNOT_RUN, Ended, require, run as run_to_end, target};
use crate::{Outcome, Verdict};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Minutes of fuzzing in all, and of everything else in proportion
    #[arg(default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    minutes: u64,
    /// Runs only the layers whose name contains this
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Puts the report into docs/soak.md as well
    #[arg(long)]
    write: bool,
}

/// How many layers run at a time: as many as the smallest machine has cores.
const LANES: usize = 2;

/// A layer that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(4 * 3600);

struct Result {
    layer: String,
    ended: Ended,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let wanted = |layer: &Layer| {
        args.only.is_empty() || args.only.iter().any(|name| layer.name.contains(name.as_str()))
    };
    let mut layers = layers(&Share { minutes: args.minutes });
    layers.retain(wanted);
    if layers.is_empty() {
        return Err("no layer has such a name".into());
    }
    let logs = target().join("soak");
    std::fs::create_dir_all(&logs)?;
    builds().iter_mut().try_for_each(require)?;
    let commit = output_of("git", &["rev-parse", "--short", "HEAD"]);
    let started = Instant::now();
    let names: Vec<String> = layers.iter().map(|layer| layer.name.clone()).collect();
    let queue = Mutex::new(layers.into_iter());
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                loop {
                    // In a statement of its own: the lock must not be held while the layer runs.
                    let next = lock(&queue).next();
                    let Some(layer) = next else { break };
                    let result = run_layer(layer, &logs);
                    lock(&results).push(result);
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|result| names.iter().position(|name| *name == result.layer));
    let report = report(&results, &commit, args.minutes, started.elapsed());
    print!("{report}");
    std::fs::write(logs.join("report.md"), &report)?;
    if args.write {
        std::fs::write(crate::process::root().join("docs/soak.md"), &report)?;
    }
    Ok(verdict(&results))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run_layer(mut layer: Layer, logs: &Path) -> Result {
    eprintln!("{}: begins", layer.name);
    let file = layer.name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
    let log = logs.join(format!("{file}.log"));
    let ended = run_to_end(&mut layer.command, &log, LIMIT).unwrap_or_else(|error| Ended {
        code: None,
        hung: false,
        took: Duration::ZERO,
        output: error.to_string(),
    });
    eprintln!("{}: {} after {:.0?}; {}", layer.name, said(&ended), ended.took, log.display());
    Result { layer: layer.name, ended }
}

fn said(ended: &Ended) -> &'static str {
    match ended.code {
        Some(0) => "nothing wrong",
        Some(CANNOT_RUN) => "**SKIPPED: this machine cannot run it**",
        _ if ended.hung => "**FAILED: it hung**",
        _ => "**FAILED**",
    }
}

fn verdict(results: &[Result]) -> Verdict {
    let codes = || results.iter().map(|result| result.ended.code);
    if codes().any(|code| code != Some(0) && code != Some(CANNOT_RUN)) {
        Verdict::Failed
    } else if codes().any(|code| code == Some(CANNOT_RUN)) {
        Verdict::Incomplete
    } else {
        Verdict::Passed
    }
}

fn report(results: &[Result], commit: &str, minutes: u64, took: Duration) -> String {
    let mut report = format!(
        "# The last long run\n\n`cargo xtask soak {minutes}` at commit {commit}, on Linux {} with {} cores: \
         {:.0} minutes in all.\nWhat each layer does is said in [testing.md](testing.md).\n\n\
         | layer | figures | time | |\n| --- | --- | ---: | --- |\n",
        output_of("uname", &["-r"]),
        std::thread::available_parallelism().map_or(0, usize::from),
        took.as_secs_f64() / 60.0,
    );
    for Result { layer, ended } in results {
        let figures: Vec<String> = figures(ended)
            .iter()
            .map(|(key, value)| format!("{} {}", grouped(value), key.replace('_', " ")))
            .collect();
        let _ = writeln!(
            report,
            "| {layer} | {} | {:.0} s | {} |",
            figures.join(", "),
            ended.took.as_secs_f64(),
            said(ended)
        );
    }
    report
}

/// The figures of a layer; of one that is a test, how many passed.
fn figures(ended: &Ended) -> Vec<(String, String)> {
    let mut figures = ended.figures();
    // The time has a column of its own.
    figures.retain(|(key, _)| !matches!(key.as_str(), "seconds" | "skipped" | "targets"));
    if !figures.is_empty() {
        return figures;
    }
    let results = ended.output.lines().filter_map(|line| line.strip_prefix("test result: ok. "));
    let passed = results.filter_map(|line| line.split_once(" passed")?.0.parse::<u64>().ok());
    vec![("tests_passed".to_string(), passed.sum::<u64>().to_string())]
}

/// Digits in groups of three.
fn grouped(number: &str) -> String {
    let (whole, rest) = number.split_at(number.find('.').unwrap_or(number.len()));
    if !whole.bytes().all(|byte| byte.is_ascii_digit()) {
        return number.to_string();
    }
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

fn output_of(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).current_dir(crate::process::root()).output();
    output.map_or_else(
        |_| "unknown".to_string(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_string(),
    )
}
