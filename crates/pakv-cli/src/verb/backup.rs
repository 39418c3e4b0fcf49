//! `backup` and `restore`: a copy of a store that may be in use, and a store out of it.

use std::io::Write as _;
use std::path::Path;

use pakv::backup::{self, BackupProgress, BackupReport, RestoreReport};

use crate::args::{BackupArgs, OutputForm, RestoreArgs};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{JsonLine, count, counted, size, whole_ms};
use crate::progress::Progress;

pub(super) fn run(cx: &mut Context, args: &BackupArgs) -> Result<Exit, Failure> {
    let bar = Progress::bytes("backing up", Some(0));
    let told = |progress: BackupProgress| tell(&bar, progress);
    // Without the store's lock, unless a shell has it: another process may be writing.
    let report = match cx.open_db() {
        Some(db) => db.backup_with(&args.dir, told)?,
        None => backup::take(&cx.db, &args.dir, told)?,
    };
    drop(bar);
    if cx.form == OutputForm::Json {
        writeln!(cx.out, "{}", backup_json(&args.dir, &report))?;
    } else {
        writeln!(cx.out, "{}", backup_text(&args.dir, &report))?;
    }
    Ok(Exit::Done)
}

pub(super) fn restore(cx: &mut Context, args: &RestoreArgs) -> Result<Exit, Failure> {
    let bar = Progress::bytes("restoring", Some(0));
    let report = backup::restore(&args.backup, &args.dir, |progress| tell(&bar, progress))
        .map_err(|error| Failure::from(error).of_argument())?;
    drop(bar);
    if cx.form == OutputForm::Json {
        writeln!(cx.out, "{}", restore_json(&args.dir, &report))?;
    } else {
        let RestoreReport { seqno, bytes, keys, duration, .. } = report;
        writeln!(
            cx.out,
            "{} is a store as of sequence number {}: {}, every one of them read; {} copied and verified in \
             {duration:.1?}",
            args.dir.display(),
            count(seqno),
            counted(keys, "key"),
            size(bytes),
        )?;
    }
    Ok(Exit::Done)
}

fn tell(bar: &Progress, progress: BackupProgress) {
    bar.set_of(progress.bytes_done, progress.bytes_total);
}

fn backup_text(dir: &Path, report: &BackupReport) -> String {
    let parts: Vec<String> = [
        (report.segments_kept, "there before"),
        (report.segments_linked, "shared"),
        (report.segments_copied, "copied"),
    ]
    .iter()
    .filter(|(segments, _)| *segments > 0)
    .map(|(segments, how)| format!("{} {how}", count(*segments)))
    .collect();
    let parts = if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) };
    format!(
        "{} holds the store as of sequence number {}: {}{parts}, {}, of which {} copied, in {:.1?}",
        dir.display(),
        count(report.seqno),
        counted(report.segments, "segment"),
        size(report.bytes),
        size(report.bytes_copied),
        report.duration,
    )
}

fn backup_json(dir: &Path, report: &BackupReport) -> String {
    JsonLine::new()
        .field("path", dir.display().to_string())
        .field("seqno", report.seqno)
        .field("segments", report.segments)
        .field("segments_kept", report.segments_kept)
        .field("segments_linked", report.segments_linked)
        .field("segments_copied", report.segments_copied)
        .field("bytes", report.bytes)
        .field("bytes_copied", report.bytes_copied)
        .field("files_removed", report.files_removed)
        .field("duration_ms", whole_ms(report.duration))
        .into_string()
}

fn restore_json(dir: &Path, report: &RestoreReport) -> String {
    JsonLine::new()
        .field("path", dir.display().to_string())
        .field("seqno", report.seqno)
        .field("keys", report.keys)
        .field("entry_bytes", report.entry_bytes)
        .field("segments", report.segments)
        .field("bytes", report.bytes)
        .field("duration_ms", whole_ms(report.duration))
        .into_string()
}
