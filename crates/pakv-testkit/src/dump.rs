//! What the files of a store hold, as text: for scripts.

use std::fmt::Write as _;
use std::path::Path;

use pakv::Result;
use pakv::inspect::{self, RecordInfo, RecordKind};

use crate::files;
use crate::script::text;

/// Every segment of a store, in the order of their numbers, record by record.
///
/// # Errors
/// Those of [`inspect::segment`].
pub fn store(dir: &Path) -> Result<String> {
    let mut output = String::new();
    for name in files::names(dir, ".log") {
        let _ = writeln!(output, "{name}");
        for record in inspect::segment(dir.join(&name))? {
            let _ = writeln!(output, "  {}", line(&record));
        }
    }
    Ok(output)
}

fn line(record: &RecordInfo) -> String {
    let RecordInfo { offset, length, seqno, kind, key, value_len, .. } = record;
    let mut line = format!("{offset}+{length} #{seqno} ");
    let _ = match kind {
        RecordKind::Tombstone => write!(line, "tombstone {}", text(key)),
        _ => write!(line, "set {} to {value_len} bytes", text(key)),
    };
    if let Some(at) = record.expires_at_ms {
        let _ = write!(line, ", expires at {at}");
    }
    if record.batch_rest > 0 {
        let _ = write!(line, ", {} more in the batch", record.batch_rest);
    }
    line
}
