//! The report: tables in Markdown and pictures in SVG, from the results of a run.

mod curves;
mod headline;
mod kept;
mod medians;
mod picture;
mod promises;
mod rows;
mod summary;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::engine::Kind;
use crate::machine::Setting;
use crate::work::Work;
pub(crate) use kept::Kept;
use medians::Section;
use rows::{ROWS, Row};

/// Where a report is looked for.
pub(crate) const OUT: &str = "docs/benchmarks";

/// Writes the report again from the results that a run left.
#[derive(Debug, clap::Args)]
pub(crate) struct Report {
    /// Where the results are and the report goes.
    #[arg(long, default_value = OUT)]
    out: PathBuf,
}

impl Report {
    pub(crate) fn run(&self) -> Result<()> {
        write(&self.out)
    }
}

const INTRODUCTION: &str = "\
# Benchmarks

Every figure is the median of the runs, or of a bound the largest; every ratio is pakv's figure over a peer's within one
run, then the median of these. Absolute figures are this machine's alone. What is fair and how is in
[bench](../../bench/README.md), where the time goes in [profile.md](profile.md).

";

pub(crate) fn write(out: &Path) -> Result<()> {
    let Kept { all, settings, .. } = Kept::read(out)?;
    let sections = medians::sections(&all);
    let mut page = String::from(INTRODUCTION);
    writeln!(page, "- made by: `{}`", command(&settings))?;
    for setting in &settings {
        writeln!(page, "- {}: {}", setting.label, setting.text)?;
    }
    if let Some(file) = headline::draw(&sections, out)? {
        writeln!(page, "\n![Speed of pakv against the best peer, work by work]({file})")?;
    }
    summary::write(&mut page, &sections)?;
    let curves = curves::draw(&sections, out)?;
    if !curves.is_empty() {
        page.push_str("\n## How cost grows\n");
    }
    for (title, file) in curves {
        writeln!(page, "\n![{title}]({file})")?;
    }
    // Those that are only points of the curves come last.
    let (main, points): (Vec<_>, Vec<_>) = sections.iter().partition(|section| section.is_main());
    for section in main.into_iter().chain(points) {
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

/// What was run, as a user would type it.
fn command(settings: &[Setting]) -> String {
    let mut parts = settings.iter().flat_map(|setting| setting.text.split(", "));
    let seconds = parts.find_map(|part| part.strip_suffix(" s a work"));
    let seconds = seconds.map(|seconds| format!(" --seconds {seconds}")).unwrap_or_default();
    format!(
        "cargo run --release --manifest-path bench/Cargo.toml --features rocksdb -- run{seconds}"
    )
}

fn part(page: &mut String, section: &Section<'_>, out: &Path) -> Result<()> {
    let engines = section.engines();
    let (keys, value) = (summary::count(section.keys), summary::bytes(section.value_bytes));
    let runs = section.runs();
    let times = if runs == 1 { "run" } else { "runs" };
    writeln!(page, "\n## {keys} keys of 24 bytes, values of {value}, {runs} {times}\n")?;
    writeln!(
        page,
        "A cell is the engine's figure, and pakv's over it in brackets. Of rates more is better, of all else less.\n"
    )?;
    let names: Vec<_> = engines.iter().map(|kind| kind.name()).collect();
    writeln!(page, "| work | {} | pakv ÷ best peer |", names.join(" | "))?;
    writeln!(page, "| --- |{} ---: |", " ---: |".repeat(names.len()))?;
    let mut failures = Vec::new();
    for row in &ROWS {
        let cells: Vec<_> = engines.iter().map(|&kind| cell(section, row, kind)).collect();
        if cells.iter().all(|cell| cell == NOTHING) {
            continue;
        }
        for &kind in &engines {
            let failure = section.failure(row, kind);
            failures
                .extend(failure.map(|why| format!("{}, {}: {why}.", kind.name(), row.work.arg())));
        }
        let best = section.best(row).map(|(ratio, kind)| medians::times(ratio, kind));
        let best = best.unwrap_or_default();
        writeln!(page, "| {} | {} | {best} |", row.title, cells.join(" | "))?;
    }
    let let_off = engines.iter().filter_map(|&kind| {
        let volumes = section.let_off_after(&rows::SPACE, kind)?;
        Some(format!("{} {volumes:.1}", kind.name()))
    });
    let let_off: Vec<_> = let_off.collect();
    if !let_off.is_empty() {
        writeln!(
            page,
            "\n\\* Out of time before all had been overwritten three times, so that it does not show a steady state and is \
             nobody's best peer. Times overwritten: {}.",
            let_off.join(", ")
        )?;
    }
    // Rows of the same work.
    failures.sort();
    failures.dedup();
    if !failures.is_empty() {
        writeln!(page, "\nFailed:\n")?;
    }
    for failure in failures {
        writeln!(page, "- {failure}")?;
    }
    latencies(page, section)?;
    memory(page, section)?;
    let pictures = if section.is_main() { picture::draw(section, out)? } else { Vec::new() };
    for (title, file) in pictures {
        writeln!(page, "\n![{title}]({file})")?;
    }
    Ok(())
}

/// What stands where nothing was measured.
const NOTHING: &str = "–";

fn cell(section: &Section<'_>, row: &Row, kind: Kind) -> String {
    if section.failure(row, kind).is_some() {
        return "failed".to_string();
    }
    let mark = if section.let_off_after(row, kind).is_some() { "\\*" } else { "" };
    match section.value(row, kind) {
        None => NOTHING.to_string(),
        Some(value) if kind == Kind::Pakv => format!("**{}**{mark}", row.show(value)),
        Some(value) => {
            let ratio = section.ratio(row, kind);
            let ratio = ratio.map(|ratio| format!(" ({})", medians::show_ratio(ratio)));
            format!("{}{}{mark}", row.show(value), ratio.unwrap_or_default())
        }
    }
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
        ("get, with those held up, idle", Work::Latency, "get_wait_idle"),
        ("get, with those held up, compacting", Work::Latency, "get_wait_busy"),
        ("set, with those held up, idle", Work::Latency, "set_wait_idle"),
        ("set, with those held up, compacting", Work::Latency, "set_wait_busy"),
        ("get, cold", Work::Cold, "get"),
        ("set, synced, 1 thread", Work::Sync1, "set"),
        ("set, synced, 16 threads", Work::Sync16, "set"),
    ];
    writeln!(page, "\nLatency in µs: p50 / p99 / p99.9 / longest.\n")?;
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
            match (of("p50"), of("p99"), of("p999"), of("max")) {
                (Some(p50), Some(p99), Some(p999), Some(max)) => {
                    format!("{p50:.1} / {p99:.1} / {p999:.1} / {max:.0}")
                }
                _ => NOTHING.to_string(),
            }
        });
        let cells: Vec<_> = cells.collect();
        if cells.iter().any(|cell| cell != NOTHING) {
            writeln!(page, "| {title} | {} |", cells.join(" | "))?;
        }
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
                _ => NOTHING.to_string(),
            }
        });
        writeln!(page, "| {title} | {} |", cells.collect::<Vec<_>>().join(" | "))?;
    }
    Ok(())
}
