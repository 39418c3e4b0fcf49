//! `cargo xtask soak`: every layer for long, two lanes at a time.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::layers::{Lane, Layer, Share, layers};
use crate::process::{CANNOT_RUN, Ended, require, run as run_to_end, target};
use crate::{Outcome, Verdict};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Minutes that the fuzzers get; everything else is done beside them, as much of it as the
    /// figures of docs/testing.md take at 60
    #[arg(default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    minutes: u64,
    /// Runs only the layers whose name contains this
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Puts the report into docs/soak.md as well
    #[arg(long)]
    write: bool,
}

/// No layer takes longer than its lane's budget and this.
const GRACE: Duration = Duration::from_secs(40 * 60);

struct Result {
    layer: &'static str,
    ended: Ended,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let wanted = |layer: &Layer| {
        args.only.is_empty() || args.only.iter().any(|name| layer.name.contains(name.as_str()))
    };
    let layers: Vec<Layer> = layers().into_iter().filter(wanted).collect();
    if layers.is_empty() {
        return Err("no layer has such a name".into());
    }
    let logs = target().join("soak");
    std::fs::create_dir_all(&logs)?;
    for layer in &layers {
        for mut command in (layer.prepare)() {
            require(&mut command)?;
        }
    }
    let started = Instant::now();
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for lane in [Lane::Fuzzers, Lane::Others] {
            let (layers, results, logs) = (&layers, &results, &logs);
            scope.spawn(move || {
                let in_lane: Vec<&Layer> = layers.iter().filter(|one| one.lane == lane).collect();
                let share = Share { minutes: args.minutes, layers: in_lane.len() as u64 };
                for layer in in_lane {
                    let result = run_layer(layer, &share, logs);
                    results.lock().unwrap_or_else(|poison| poison.into_inner()).push(result);
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(|poison| poison.into_inner());
    let place = |result: &Result| layers.iter().position(|layer| layer.name == result.layer);
    results.sort_by_key(place);
    let report = report(&results, args.minutes, started.elapsed());
    print!("{report}");
    std::fs::write(logs.join("report.md"), &report)?;
    if args.write {
        std::fs::write(crate::process::root().join("docs/soak.md"), &report)?;
    }
    Ok(verdict(&results))
}

fn run_layer(layer: &Layer, share: &Share, logs: &Path) -> Result {
    eprintln!("{}: begins", layer.name);
    let log = logs.join(format!("{}.log", layer.name.replace(' ', "-")));
    let limit = Duration::from_secs(share.minutes * 60) + GRACE;
    let ended = run_to_end(&mut (layer.command)(share), &log, limit).unwrap_or_else(|error| {
        Ended { code: None, hung: false, took: Duration::ZERO, output: error.to_string() }
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

fn report(results: &[Result], minutes: u64, took: Duration) -> String {
    let mut report = format!(
        "# The last long run\n\n`cargo xtask soak {minutes}` at commit {}, on Linux {} with {} cores: \
         {:.0} minutes in all.\nWhat each layer does is said in [testing.md](testing.md).\n\n\
         | layer | figures | time | |\n| --- | --- | ---: | --- |\n",
        output_of("git", &["rev-parse", "--short", "HEAD"]),
        output_of("uname", &["-r"]),
        std::thread::available_parallelism().map_or(0, usize::from),
        took.as_secs_f64() / 60.0,
    );
    for Result { layer, ended } in results {
        let figures = ended.figures();
        let figures: Vec<String> = figures
            .iter()
            .map(|(key, value)| format!("{} {}", grouped(value), words(key)))
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

fn words(key: &str) -> String {
    key.replace('_', " ")
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
