//! `repair`: makes a new store of what is good in a damaged one, and says what was left out.

use std::io::Write as _;

use super::check::write_finding;
use crate::args::{OutputForm, RepairArgs};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{JsonLine, counted, size, whole_ms};
use crate::progress::Progress;

pub(super) fn run(cx: &mut Context, args: &RepairArgs) -> Result<Exit, Failure> {
    let report = {
        let progress = Progress::bytes("repairing", Some(0));
        pakv::repair_with(&args.source, &args.target, |step| {
            progress.set_of(step.bytes_done, step.bytes_total);
        })
        .map_err(|error| Failure::from(error).of_argument())?
    };
    let json = args.json || cx.form == OutputForm::Json;
    for range in &report.left_out {
        write_finding(cx, range, "left_out", json)?;
    }
    for hint in &report.hints {
        write_finding(cx, hint, "hint", json)?;
    }
    let lost = report.lost_keys().count();
    if json {
        let line = JsonLine::new()
            .field("keys", report.keys)
            .field("lost_keys", lost)
            .field("expired", report.expired)
            .field("segments", report.segments)
            .field("records", report.records)
            .field("bytes_read", report.bytes_read)
            .field("bytes_written", report.bytes_written)
            .field("left_out", report.left_out.len())
            .field("orphans", &report.orphans)
            .field("doubts", &report.doubts)
            .field("duration_ms", whole_ms(report.duration));
        writeln!(cx.out, "{}", line.into_string())?;
        return Ok(Exit::Done);
    }
    writeln!(
        cx.out,
        "{} brought over, {} known to be lost; {} left out; {} read in {:.1?}",
        counted(report.keys, "key"),
        counted(lost as u64, "key"),
        counted(report.left_out.len() as u64, "range"),
        size(report.bytes_read),
        report.duration,
    )?;
    for doubt in &report.doubts {
        cx.note(&format!("note: {doubt}"));
    }
    Ok(Exit::Done)
}
