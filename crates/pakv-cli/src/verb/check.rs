//! `check`: reads all of the store and says what is wrong, a line for each finding.

use std::io::Write as _;

use pakv::{CheckReport, Finding, Options};

use crate::args::{CheckArgs, OutputForm};
use crate::context::{Context, open_with_progress};
use crate::exit::Exit;
use crate::failure::{Failure, key_name};
use crate::output::{JsonLine, count, counted, escape_line, quoted, size, whole_ms};
use crate::progress::Progress;

/// So many keys are named in a line for people; JSON has all of them.
const KEYS_NAMED: usize = 10;

pub(super) fn run(cx: &mut Context, args: &CheckArgs) -> Result<Exit, Failure> {
    let report = {
        let progress = Progress::bytes("checking", Some(0));
        let tell = |step: pakv::CheckProgress| {
            progress.set_of(step.bytes_done, step.bytes_total);
        };
        // Where the store can be opened, what a reader makes of it is compared with the log too.
        let opened = match cx.open_db() {
            Some(db) => Some(db.clone()),
            None => open_with_progress(Options::new().read_only(true), &cx.db).ok(),
        };
        match opened {
            Some(db) => db.check_with(tell)?,
            None => pakv::check_with(&cx.db, tell)?,
        }
    };
    let json = args.json || cx.form == OutputForm::Json;
    for finding in &report.findings {
        write_finding(cx, finding, "finding", json)?;
    }
    if json {
        write_json(cx, &report)?;
    } else {
        write_summary(cx, &report)?;
    }
    Ok(if report.is_sound() { Exit::Done } else { Exit::Corrupt })
}

/// A line for a finding. `what` names its kind of line in JSON.
pub(super) fn write_finding(
    cx: &mut Context,
    finding: &Finding,
    what: &str,
    json: bool,
) -> Result<(), Failure> {
    if json {
        let line = JsonLine::new()
            .field(what, finding.kind.as_str())
            .bytes("file", finding.path.as_os_str().as_encoded_bytes())
            .field("offset", finding.offset)
            .field("length", finding.length)
            .field("reason", &finding.reason)
            .list("keys", finding.keys())
            .field("records", finding.records.len());
        writeln!(cx.out, "{}", line.into_string())?;
        return Ok(());
    }
    let mut line = escape_line(finding.to_string().as_bytes());
    let mut keys = finding.keys();
    let named: Vec<String> = keys.by_ref().take(KEYS_NAMED).map(key_name).collect();
    if !named.is_empty() {
        line.push_str(&format!("; keys: {}", named.join(", ")));
        match keys.count() {
            0 => {}
            more => line.push_str(&format!(" and {} more, which --json names", count(more as u64))),
        }
    }
    writeln!(cx.out, "{line}")?;
    Ok(())
}

fn write_json(cx: &mut Context, report: &CheckReport) -> Result<(), Failure> {
    let line = JsonLine::new()
        .field("sound", report.is_sound())
        .field("findings", report.findings.len())
        .field("segments", report.segments)
        .field("hints", report.hints)
        .field("records", report.records)
        .field("keys", report.keys)
        .field("segment_bytes", report.segment_bytes)
        .field("live_bytes", report.live_bytes)
        .field("garbage_bytes", report.garbage_bytes())
        .field("bytes_read", report.bytes_read)
        .field("tail_bytes", report.tail_bytes)
        .field("orphans", report.orphans.len())
        .field("duration_ms", whole_ms(report.duration));
    writeln!(cx.out, "{}", line.into_string())?;
    Ok(())
}

fn write_summary(cx: &mut Context, report: &CheckReport) -> Result<(), Failure> {
    writeln!(
        cx.out,
        "{}: {} in {}, {}; {} live, {} garbage; {} read in {:.1?}",
        if report.is_sound() {
            "sound".to_string()
        } else {
            counted(report.findings.len() as u64, "finding")
        },
        counted(report.records, "record"),
        counted(report.segments, "segment"),
        counted(report.keys, "key"),
        size(report.live_bytes),
        size(report.garbage_bytes()),
        size(report.bytes_read),
        report.duration,
    )?;
    if report.tail_bytes > 0 {
        let tail = size(report.tail_bytes);
        cx.note(&format!(
            "{tail} at the end of the log are being written, or are what a crash or an interrupted \
             backup has left there: no damage"
        ));
    }
    if !report.is_sound() {
        let store = quoted(&cx.db);
        cx.note(&format!("hint: `pakv repair {store} NEW` makes a new store of what is good"));
    }
    Ok(())
}
