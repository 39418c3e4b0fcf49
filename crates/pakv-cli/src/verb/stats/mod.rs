//! `stats`: the state of the store in figures, for people with a bar for each segment, for programs
//! as JSON.

mod top;
mod watch;

use std::fmt::Write as _;
use std::io::Write as _;

use anstyle::{AnsiColor, Style};
use pakv::{SegmentStats, Stats};
use serde::Serialize;

use crate::args::{OutputForm, StatsArgs};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{count, counted, size, whole_ms};

const LIVE: Style = AnsiColor::Green.on_default();
const GARBAGE: Style = AnsiColor::Yellow.on_default();
const BAR_CELLS: usize = 40;

/// What is shown to people and what to programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Json,
}

pub(super) fn run(cx: &mut Context, args: &StatsArgs) -> Result<Exit, Failure> {
    let is_json = args.json || cx.form == OutputForm::Json;
    let form = if is_json { Form::Json } else { Form::Text };
    if let Some(limit) = args.top {
        return top::run(cx, form, limit);
    }
    if args.watch {
        return watch::run(cx, form);
    }
    let store = cx.reader()?;
    let stats = store.stats()?;
    store.close()?;
    match form {
        Form::Json => writeln!(cx.out, "{}", json(&stats)?)?,
        Form::Text => {
            write!(cx.out, "{}{}", summary(&stats), segments(&stats, cx.out.color))?;
        }
    }
    Ok(Exit::Done)
}

fn json(stats: &Stats) -> Result<String, Failure> {
    serde_json::to_string(&StatsJson::from(stats))
        .map_err(|error| Failure::failed("failed", error.to_string()))
}

/// All but the segments, a line each.
fn summary(stats: &Stats) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<14}{value}");
    };
    line("store", stats.path.display().to_string());
    line(
        "keys",
        match stats.expiring_keys {
            0 => count(stats.keys),
            expiring => format!("{} ({} with an expiry)", count(stats.keys), count(expiring)),
        },
    );
    line("live", size(stats.live_bytes));
    line(
        "garbage",
        format!(
            "{} ({:.1} % of the segments)",
            size(stats.garbage_bytes()),
            stats.garbage_ratio() * 100.0
        ),
    );
    line(
        "on disk",
        format!(
            "{}, {:.2} times the live bytes",
            size(stats.disk_bytes()),
            stats.space_amplification()
        ),
    );
    line("keydir", format!("{} of memory", size(stats.keydir_bytes)));
    line("recovery", recovery(stats));
    line("compaction", compaction(stats));
    if stats.retired_segments > 0 {
        line("retired", format!("{} still being read", counted(stats.retired_segments, "segment")));
    }
    if let Some(reason) = &stats.poisoned {
        line("poisoned", reason.clone());
    }
    text
}

/// A bar for each segment.
fn segments(stats: &Stats, color: bool) -> String {
    let mut text = String::new();
    let (live, garbage) = if color { (LIVE, GARBAGE) } else { (Style::new(), Style::new()) };
    let _ = writeln!(text, "\nsegments ({live}█{live:#} live, {garbage}░{garbage:#} garbage)");
    let largest = stats.segments.iter().map(|segment| segment.bytes).max().unwrap_or(0);
    for segment in &stats.segments {
        let (filled, rest) = bar(segment, largest);
        let _ = writeln!(
            text,
            "{:>10} {live}{}{live:#}{garbage}{}{garbage:#}{} {:>10}, {:>3.0} % live{}",
            segment.segment,
            "█".repeat(filled),
            "░".repeat(rest),
            " ".repeat(BAR_CELLS.saturating_sub(filled + rest)),
            size(segment.bytes),
            (1.0 - segment.garbage_ratio()) * 100.0,
            if segment.active { ", active" } else { "" },
        );
    }
    text
}

/// How many cells of a segment's bar are live and how many garbage; every segment has at least one.
fn bar(segment: &SegmentStats, largest: u64) -> (usize, usize) {
    let cells = share(segment.bytes, largest, BAR_CELLS).max(1);
    let live = share(segment.live_bytes, segment.bytes, cells);
    (live, cells - live)
}

/// The part of `cells` that `part` is of `whole`, rounded to the nearest.
fn share(part: u64, whole: u64, cells: usize) -> usize {
    let (part, whole) = (u128::from(part), u128::from(whole).max(1));
    let rounded = (2 * part * cells as u128 + whole) / (2 * whole);
    usize::try_from(rounded).map_or(cells, |rounded| rounded.min(cells))
}

fn recovery(stats: &Stats) -> String {
    let report = &stats.recovery;
    let mut text =
        format!("opened {} in {:.1?}", counted(report.segments, "segment"), report.duration,);
    for (number, noun, what) in [
        (report.bytes_cut, "byte", "of a torn tail cut"),
        (report.orphans_removed, "orphan", "removed"),
        (report.hints_rebuilt, "hint", "rebuilt"),
    ] {
        if number > 0 {
            let _ = write!(text, ", {} {what}", counted(number, noun));
        }
    }
    text
}

fn compaction(stats: &Stats) -> String {
    let done = &stats.compaction;
    let mut text = if done.running { "running" } else { "not running" }.to_string();
    if done.runs > 0 {
        let _ = write!(
            text,
            ", {} since the open gave back {}",
            counted(done.runs, "run"),
            size(done.bytes_reclaimed)
        );
    }
    if let Some(error) = &done.last_error {
        let _ = write!(text, ", the last one failed: {error}");
    }
    text
}

/// `stats --json`: names are part of the interface, sizes are bytes, times whole milliseconds.
#[derive(Serialize)]
struct StatsJson<'a> {
    path: String,
    keys: u64,
    expiring_keys: u64,
    live_bytes: u64,
    garbage_bytes: u64,
    garbage_ratio: f64,
    segment_bytes: u64,
    metadata_bytes: u64,
    disk_bytes: u64,
    space_amplification: f64,
    keydir_bytes: u64,
    retired_segments: u64,
    snapshots: u64,
    seqno: u64,
    poisoned: Option<&'a str>,
    compaction: CompactionJson<'a>,
    recovery: RecoveryJson,
    segments: Vec<SegmentJson>,
}

#[derive(Serialize)]
struct CompactionJson<'a> {
    running: bool,
    runs: u64,
    bytes_written: u64,
    bytes_reclaimed: u64,
    last_error: Option<&'a str>,
}

#[derive(Serialize)]
struct RecoveryJson {
    keys: u64,
    segments: u64,
    records_replayed: u64,
    bytes_cut: u64,
    orphans_removed: u64,
    hints_rebuilt: u64,
    duration_ms: u64,
}

#[derive(Serialize)]
struct SegmentJson {
    segment: u32,
    bytes: u64,
    live_bytes: u64,
    garbage_bytes: u64,
    tombstone_bytes: u64,
    active: bool,
}

impl<'a> From<&'a Stats> for StatsJson<'a> {
    fn from(stats: &'a Stats) -> Self {
        let compaction = &stats.compaction;
        let recovery = &stats.recovery;
        Self {
            path: stats.path.display().to_string(),
            keys: stats.keys,
            expiring_keys: stats.expiring_keys,
            live_bytes: stats.live_bytes,
            garbage_bytes: stats.garbage_bytes(),
            garbage_ratio: stats.garbage_ratio(),
            segment_bytes: stats.segment_bytes(),
            metadata_bytes: stats.metadata_bytes,
            disk_bytes: stats.disk_bytes(),
            space_amplification: stats.space_amplification(),
            keydir_bytes: stats.keydir_bytes,
            retired_segments: stats.retired_segments,
            snapshots: stats.snapshots,
            seqno: stats.seqno,
            poisoned: stats.poisoned.as_deref(),
            compaction: CompactionJson {
                running: compaction.running,
                runs: compaction.runs,
                bytes_written: compaction.bytes_written,
                bytes_reclaimed: compaction.bytes_reclaimed,
                last_error: compaction.last_error.as_deref(),
            },
            recovery: RecoveryJson {
                keys: recovery.keys,
                segments: recovery.segments,
                records_replayed: recovery.records_replayed,
                bytes_cut: recovery.bytes_cut,
                orphans_removed: recovery.orphans_removed,
                hints_rebuilt: recovery.hints_rebuilt,
                duration_ms: whole_ms(recovery.duration),
            },
            segments: stats.segments.iter().map(SegmentJson::from).collect(),
        }
    }
}

impl From<&SegmentStats> for SegmentJson {
    fn from(segment: &SegmentStats) -> Self {
        Self {
            segment: segment.segment,
            bytes: segment.bytes,
            live_bytes: segment.live_bytes,
            garbage_bytes: segment.garbage_bytes(),
            tombstone_bytes: segment.tombstone_bytes,
            active: segment.active,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_and_stay_in_the_bar() {
        assert_eq!(share(0, 0, 40), 0);
        assert_eq!(share(1, 1 << 40, 40), 0);
        assert_eq!(share(1, 2, 40), 20);
        assert_eq!(share((1 << 40) - 1, 1 << 40, 40), 40);
        assert_eq!(share(u64::MAX, u64::MAX, 40), 40);
        assert_eq!(share(u64::MAX, 1, 40), 40);
    }
}
