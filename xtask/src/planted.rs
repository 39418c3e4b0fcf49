//! `cargo xtask planted`: who notices what. Each bug is made in turn, in a build of its own, and
//! each layer is asked in turn; the table is that of docs/testing.md.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{Ended, cargo, require, root, run as run_to_end, target};
use crate::{Outcome, Verdict};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Asks the layers that need seconds, and no other once one has caught the bug
    #[arg(long)]
    quick: bool,
    /// Asks only the layers whose name contains this
    #[arg(long, value_name = "NAME")]
    layer: Vec<String>,
    /// Plants only the bugs whose name contains this
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
}

/// A check that hangs has noticed, too; sound ones are done long before.
const LIMIT: Duration = Duration::from_secs(120);

struct Layer {
    name: &'static str,
    quick: bool,
    command: fn(&Path) -> Command,
}

const LAYERS: [Layer; 6] = [
    Layer {
        name: "simulated disk",
        quick: true,
        command: |bins| tool(bins, "crash_soak", &["6000"]),
    },
    Layer {
        name: "system calls",
        quick: true,
        command: |_| tests(&["-p", "pakv-testkit", "--test", "syscalls"]),
    },
    Layer { name: "linearizability", quick: false, command: |bins| tool(bins, "linear", &["30"]) },
    Layer {
        name: "model, files, threads",
        quick: false,
        command: |_| tests(&["-p", "pakv", "--test", "it"]),
    },
    Layer {
        name: "kills",
        quick: false,
        command: |_| tests(&["-p", "pakv-testkit", "--test", "processes"]),
    },
    Layer {
        name: "power cuts",
        quick: false,
        command: |bins| tool(bins, "power_cut", &["60", "3", "ext4"]),
    },
];

pub(crate) fn run(args: &Args) -> Outcome {
    require(cargo(&["build"]).args(BUILD).args(["-p", "pakv-testkit", "--bins"]).args(features()))?;
    let wanted = |layer: &&Layer| {
        (layer.quick || !args.quick)
            && (args.layer.is_empty()
                || args.layer.iter().any(|name| layer.name.contains(name.as_str())))
    };
    let logs = target().join("planted-logs");
    std::fs::create_dir_all(&logs)?;
    let bins = target_of_planted().join("release");
    let layers: Vec<&Layer> = LAYERS.iter().filter(wanted).collect();

    if layers.is_empty() {
        return Err("no layer has such a name".into());
    }

    // Without a bug every layer must pass, or it proves nothing that one fails with a bug.
    for layer in &layers {
        let ended = run_to_end(&mut (layer.command)(&bins), &logs.join("sound.log"), LIMIT)?;
        if !ended.succeeded() {
            return Err(format!("{} without any bug: {}", layer.name, last_words(&ended)).into());
        }
    }
    let names: Vec<&str> = layers.iter().map(|layer| layer.name).collect();
    let mut table = format!("| planted bug | {} |\n", names.join(" | "));
    table += &format!("| --- |{}\n", " --- |".repeat(layers.len()));
    let mut missed = Vec::new();
    for bug in bugs()? {
        if !args.only.is_empty() && !args.only.iter().any(|name| bug.contains(name.as_str())) {
            continue;
        }
        let mut caught = false;
        table += &format!("| {bug} |");
        for layer in &layers {
            if args.quick && caught {
                table += " not asked |";
                continue;
            }
            let log = logs.join(format!("{bug}-{}.log", layer.name.replace([' ', ','], "-")));
            let mut command = (layer.command)(&bins);
            let ended = run_to_end(command.env("PAKV_PLANT", &bug), &log, LIMIT)?;
            let answer = match (ended.succeeded(), ended.hung) {
                (true, _) => "",
                (false, true) => "hangs",
                (false, false) => "caught",
            };
            caught |= !ended.succeeded();
            eprintln!("{bug}: {}: {answer}", layer.name);
            table += &format!(" {answer} |");
        }
        table.push('\n');
        if !caught {
            missed.push(bug);
        }
    }
    print!("{table}");
    if missed.is_empty() {
        return Ok(Verdict::Passed);
    }
    eprintln!("nothing noticed: {}", missed.join(", "));
    Ok(Verdict::Failed)
}

/// The bugs, as the engine names them: the source is the list.
fn bugs() -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let source = std::fs::read_to_string(root().join("crates/pakv/src/planted.rs"))?;
    let body = source.split("enum Bug {").nth(1).and_then(|rest| rest.split('}').next());
    let lines = body.unwrap_or_default().lines().map(str::trim);
    let names = lines.filter_map(|line| line.strip_suffix(',')).filter(|line| !line.contains(' '));
    let names: Vec<String> = names.map(str::to_string).collect();
    if names.is_empty() { Err("no bugs are named in planted.rs".into()) } else { Ok(names) }
}

const BUILD: [&str; 2] = ["--release", "--locked"];

/// Apart from the other builds, which must never run with a bug.
fn target_of_planted() -> PathBuf {
    target().join("planted")
}

fn features() -> [String; 3] {
    let target = target_of_planted().display().to_string();
    ["--features=pakv/planted".to_string(), "--target-dir".to_string(), target]
}

fn tool(bins: &Path, name: &str, args: &[&str]) -> Command {
    let mut command = Command::new(bins.join(name));
    command.args(args);
    command
}

fn tests(args: &[&str]) -> Command {
    let mut command = cargo(&["test"]);
    command.args(BUILD).args(args).args(features());
    command
}

fn last_words(ended: &Ended) -> String {
    let lines: Vec<&str> = ended.output.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
