//! `dump`: what is in a file of a store, a line for each part.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use pakv::inspect::{self, Part, What};

use crate::args::{DumpArgs, OutputForm};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::JsonLine;

pub(super) fn run(cx: &mut Context, args: &DumpArgs) -> Result<Exit, Failure> {
    let path = find(&cx.db, &args.file);
    let json = args.json || cx.form == OutputForm::Json;
    let mut is_damaged = false;
    let mut has_heading = json;
    inspect::dump(&path, |part| {
        is_damaged |= matches!(part.what, What::Damaged { .. });
        if !has_heading {
            writeln!(cx.out, "{}", Part::HEADING)?;
            has_heading = true;
        }
        if json {
            writeln!(cx.out, "{}", to_json(&part).into_string())?;
        } else {
            writeln!(cx.out, "{part}")?;
        }
        Ok::<(), Failure>(())
    })?;
    Ok(if is_damaged { Exit::Corrupt } else { Exit::Done })
}

/// What the argument names: a file as it is, the number of a segment, or a file of the store.
fn find(db: &Path, file: &Path) -> PathBuf {
    if file.exists() {
        return file.to_path_buf();
    }
    match file.as_os_str().to_str().and_then(|number| number.parse().ok()) {
        Some(segment) => inspect::segment_path(db, segment),
        None if file.parent() == Some(Path::new(""))
            && file.file_name() != Some(OsStr::new("")) =>
        {
            db.join(file)
        }
        None => file.to_path_buf(),
    }
}

fn to_json(part: &Part) -> JsonLine {
    let line = JsonLine::new()
        .field("kind", part.kind())
        .field("offset", part.offset)
        .field("length", part.length)
        .field("checksum", part.checksum());
    match &part.what {
        What::Preamble { magic, version, salt } => {
            line.field("magic", magic).field("version", version).field("salt", salt)
        }
        What::Header { store, segment } => {
            line.field("store", hex(store)).field("segment", segment)
        }
        What::Record(record) => record_json(line, record)
            .field("value_length", record.value_len)
            .field("batch_rest", record.batch_rest)
            .field("unsynced", record.unsynced),
        What::HintEntry(record) => record_json(line.field("hint", true), record),
        What::HintBlock { entries } => line.field("entries", entries),
        What::HintEnd { records, segment_bytes } => {
            line.field("records", records).field("segment_bytes", segment_bytes)
        }
        What::Manifest { store, next_segment, next_seqno } => line
            .field("store", hex(store))
            .field("next_segment", next_segment)
            .field("next_seqno", next_seqno),
        What::Sealed { segment, bytes, records, min_seqno, max_seqno } => line
            .field("segment", segment)
            .field("bytes", bytes)
            .field("records", records)
            .field("min_seqno", min_seqno)
            .field("max_seqno", max_seqno),
        What::Active { segment, synced_bytes } => {
            line.field("segment", segment).field("synced_bytes", synced_bytes)
        }
        What::Damaged { reason } => line.field("reason", reason),
        _ => line,
    }
}

fn record_json(line: JsonLine, record: &inspect::RecordInfo) -> JsonLine {
    line.field("seqno", record.seqno).expiry(record.expires_at_ms).bytes("key", &record.key)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
