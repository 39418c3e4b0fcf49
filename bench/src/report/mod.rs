//! The report: tables in Markdown and pictures in SVG, from the results of a run.

mod medians;
mod picture;
mod rows;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::engine::Kind;
use crate::figures::Figures;
use crate::machine::Setting;
use crate::work::Work;
use medians::{Section, Verdict};
use rows::ROWS;

const RESULTS: &str = "results.jsonl";
const SETTINGS: &str = "settings.json";

/// Writes the report again from the results that a run left.
#[derive(Debug, clap::Args)]
pub(crate) struct Report {
    /// Where the results are and the report goes.
    #[arg(long, default_value = "docs/benchmarks")]
    out: PathBuf,
}

impl Report {
    pub(crate) fn run(&self) -> Result<()> {
        write(&self.out)
    }
}

/// Keeps what is measured: one line for each child, so that two runs can be compared by diff.
pub(crate) fn keep(out: &Path, all: &[Figures], settings: &[Setting]) -> Result<()> {
    let mut text = String::new();
    for figures in all {
        text.push_str(&serde_json::to_string(figures)?);
        text.push('\n');
    }
    fs::write(out.join(RESULTS), text)?;
    fs::write(out.join(SETTINGS), serde_json::to_string_pretty(settings)? + "\n")?;
    Ok(())
}

pub(crate) fn write(out: &Path) -> Result<()> {
    let text = fs::read_to_string(out.join(RESULTS)).context("no results: `run` makes them")?;
    let all = text.lines().map(serde_json::from_str).collect::<Result<Vec<Figures>, _>>()?;
    let settings: Vec<Setting> = serde_json::from_str(&fs::read_to_string(out.join(SETTINGS))?)?;
    let mut page = String::from(
        "# Benchmarks\n\nMade by `cargo run --release --manifest-path bench/Cargo.toml -- run`. Every figure is the \
         median of the runs;\nevery ratio is pakv's figure over a peer's within one run, then the median of these. \
         Absolute figures are this\nmachine's alone.\n\n",
    );
    for setting in &settings {
        writeln!(page, "- {}: {}", setting.label, setting.text)?;
    }
    let sections = medians::sections(&all);
    for section in &sections {
        part(&mut page, section, out)?;
    }
    page.push_str("\n## Settings of the engines\n\n");
    let mut kinds: Vec<_> = all.iter().map(|figures| figures.engine).collect();
    kinds.sort();
    kinds.dedup();
    for kind in kinds {
        writeln!(page, "- {}: {}.", kind.name(), kind.note())?;
    }
    fs::write(out.join("README.md"), page)?;
    Ok(())
}

fn part(page: &mut String, section: &Section<'_>, out: &Path) -> Result<()> {
    let engines = section.engines();
    let (keys, bytes, runs) = (section.keys, section.value_bytes, section.runs());
    let times = if runs == 1 { "run" } else { "runs" };
    writeln!(page, "\n## {keys} keys of 24 bytes, values of {bytes} bytes, {runs} {times}\n")?;
    writeln!(
        page,
        "A cell is the engine's figure, and pakv's over it in brackets. Goals are set for 1 M keys and 100 bytes, \
         open times\nfor 10 M keys; elsewhere they are a comparison.\n"
    )?;
    let names: Vec<_> = engines.iter().map(|kind| kind.name()).collect();
    writeln!(page, "| work | {} | pakv against its goal |", names.join(" | "))?;
    writeln!(page, "| --- |{} --- |", " ---: |".repeat(names.len()))?;
    for row in &ROWS {
        let cells = engines.iter().map(|&kind| match section.value(row, kind) {
            None => "–".to_string(),
            Some(value) if kind == Kind::Pakv => format!("**{}**", row.unit.show(value)),
            Some(value) => {
                let ratio = section.ratio(row, kind).map(|ratio| format!(" ({ratio:.2})"));
                format!("{}{}", row.unit.show(value), ratio.unwrap_or_default())
            }
        });
        let cells: Vec<_> = cells.collect();
        let verdict = match section.verdict(row) {
            Verdict::Reached(text) => format!("reached: {text}"),
            Verdict::Short(text) => format!("**NOT REACHED**: {text}"),
            Verdict::Unknown(text) => format!("**not measured**: {text}"),
        };
        writeln!(page, "| {} | {} | {verdict} |", row.title, cells.join(" | "))?;
    }
    latencies(page, section)?;
    memory(page, section)?;
    for (title, file) in picture::draw(section, out)? {
        writeln!(page, "\n![{title}]({file})")?;
    }
    Ok(())
}

/// Percentiles of single operations: of gets alone, of sets alone.
fn latencies(page: &mut String, section: &Section<'_>) -> Result<()> {
    let works = [
        ("get alone", Work::Get, "get"),
        ("overwrite alone", Work::Overwrite, "set"),
        ("get beside sets, idle", Work::Latency, "get_idle"),
        ("get beside sets, compacting", Work::Latency, "get_busy"),
        ("set beside gets, idle", Work::Latency, "set_idle"),
        ("set beside gets, compacting", Work::Latency, "set_busy"),
        ("get, cold", Work::Cold, "get"),
        ("set, synced, 1 thread", Work::Sync1, "set"),
        ("set, synced, 16 threads", Work::Sync16, "set"),
    ];
    writeln!(page, "\nLatency in µs: p50 / p99 / p99.9.\n")?;
    let engines = section.engines();
    let names: Vec<_> = engines.iter().map(|kind| kind.name()).collect();
    writeln!(page, "| work | {} |", names.join(" | "))?;
    writeln!(page, "| --- |{}", " ---: |".repeat(names.len()))?;
    for (title, work, name) in works {
        let cells = engines.iter().map(|&kind| {
            let of = |suffix: &str| {
                let children =
                    section.all.iter().filter(|child| (child.work, child.engine) == (work, kind));
                let name = format!("{name}_{suffix}_us");
                let values = children.filter_map(|child| child.values.get(&name).copied());
                medians::median(values.collect())
            };
            match (of("p50"), of("p99"), of("p999")) {
                (Some(p50), Some(p99), Some(p999)) => format!("{p50:.1} / {p99:.1} / {p999:.1}"),
                _ => "–".to_string(),
            }
        });
        writeln!(page, "| {title} | {} |", cells.collect::<Vec<_>>().join(" | "))?;
    }
    Ok(())
}

/// What a process takes after the work: its own, and pages of files, which can be dropped.
fn memory(page: &mut String, section: &Section<'_>) -> Result<()> {
    writeln!(page, "\nMemory in MiB at the end of the work: anonymous / of files.\n")?;
    let engines = section.engines();
    let names: Vec<_> = engines.iter().map(|kind| kind.name()).collect();
    writeln!(page, "| work | {} |", names.join(" | "))?;
    writeln!(page, "| --- |{}", " ---: |".repeat(names.len()))?;
    for (title, work) in [("set all", Work::Fill), ("get", Work::Get)] {
        let cells = engines.iter().map(|&kind| {
            let of = |name: &str| {
                let children =
                    section.all.iter().filter(|child| (child.work, child.engine) == (work, kind));
                let values = children.filter_map(|child| child.values.get(name).copied());
                Some(medians::median(values.collect())? / f64::from(1 << 20))
            };
            match (of("anonymous_bytes"), of("file_bytes")) {
                (Some(anonymous), Some(file)) => format!("{anonymous:.1} / {file:.1}"),
                _ => "–".to_string(),
            }
        });
        writeln!(page, "| {title} | {} |", cells.collect::<Vec<_>>().join(" | "))?;
    }
    Ok(())
}
