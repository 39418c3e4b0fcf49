//! `compact`: rewrites what holds garbage now, and says what that gave back.

use std::io::Write as _;

use crate::args::{CompactArgs, OutputForm};
use crate::context::{self, Context, Creates};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{JsonLine, counted, size, whole_ms};

pub(super) fn run(cx: &mut Context, _args: &CompactArgs) -> Result<Exit, Failure> {
    let store = cx.writer(Creates::No)?;
    let report = context::compact(&store)?;
    store.close()?;
    if cx.form == OutputForm::Json {
        let line = JsonLine::new()
            .field("bytes_reclaimed", report.bytes_reclaimed())
            .field("bytes_before", report.bytes_before)
            .field("bytes_after", report.bytes_after)
            .field("segments_in", report.segments_in)
            .field("segments_out", report.segments_out)
            .field("records_copied", report.records_copied)
            .field("tombstones_dropped", report.tombstones_dropped)
            .field("duration_ms", whole_ms(report.duration));
        writeln!(cx.out, "{}", line.into_string())?;
    } else if report.segments_in == 0 {
        writeln!(cx.out, "nothing to give back: the store holds no garbage")?;
    } else {
        writeln!(
            cx.out,
            "gave back {}: {} rewritten into {}, {} copied, in {:.1?}",
            size(report.bytes_reclaimed()),
            counted(report.segments_in, "segment"),
            report.segments_out,
            counted(report.records_copied, "record"),
            report.duration,
        )?;
    }
    Ok(Exit::Done)
}
