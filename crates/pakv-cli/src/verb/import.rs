//! `import`: rows of a file into the store, in batches, synced at the end.

use std::fs::File;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use pakv::{Db, Durability, Expiry, WriteBatch};

use crate::args::{FileFormat, ImportArgs, OutputForm};
use crate::context::{Context, Creates};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{JsonLine, counted};
use crate::progress::Progress;
use crate::transfer::{self, Meter, ReadError, ReadRows};

pub(super) fn run(cx: &mut Context, args: &ImportArgs) -> Result<Exit, Failure> {
    let source = Source::open(cx, args.file.as_deref())?;
    let format = args.format.or_else(|| transfer::format_of(&source.name));
    let is_assumed = format.is_none();
    let format = format.unwrap_or(FileFormat::Jsonl);
    let import = Import::new(format, source.bytes, source.name, args.skip_bad);
    let mut import = Import { is_assumed, ..import };
    let progress = Progress::bytes("importing", source.size);
    let first = import.read_step();
    if first.batch.is_empty()
        && let Some(Err(failure)) = first.end
    {
        // A file that cannot be read from its first line on must not leave an empty store behind.
        return Err(failure);
    }
    let store = cx.writer(Creates::Yes)?;
    let read = import.run(&store, first, &progress);
    // What was read before a bad line is promised to be on the disk too.
    let synced = store.sync().map_err(Failure::from);
    let closed = store.close();
    drop(progress);
    read.and(synced).and(closed)?;
    import.tell(cx)?;
    import.check_any()?;
    Ok(Exit::Done)
}

/// Imports bytes into an open store; the numbers of entries imported and of lines skipped.
pub(crate) fn into_store(
    db: &Db,
    format: FileFormat,
    bytes: &[u8],
    skip_bad: bool,
) -> Result<(u64, u64), Failure> {
    let mut import = Import::new(format, bytes, "standard input".into(), skip_bad);
    let first = import.read_step();
    import.run(db, first, &Progress::hidden())?;
    Ok((import.imported, import.skipped))
}

const ASSUMED_HINT: &str = "it was read as jsonl; name another format with --format tsv or csv";

/// Where rows come from.
struct Source {
    bytes: Box<dyn Read>,
    name: PathBuf,
    size: Option<u64>,
}

impl Source {
    fn open(cx: &Context, file: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = file.filter(|path| path.as_os_str() != "-") else {
            let bytes = Box::new(cx.stdin()?);
            return Ok(Self { bytes, name: "standard input".into(), size: None });
        };
        let failure = |error| Failure::file("open", path, &error);
        let file = File::open(path).map_err(failure)?;
        let metadata = file.metadata().map_err(failure)?;
        let size = metadata.is_file().then_some(metadata.len());
        Ok(Self { bytes: Box::new(file), name: path.to_path_buf(), size })
    }
}

struct Import<'a> {
    rows: Box<dyn ReadRows + 'a>,
    meter: Meter,
    name: PathBuf,
    /// Nothing told the format.
    is_assumed: bool,
    skip_bad: bool,
    imported: u64,
    skipped: u64,
    first_bad: Option<String>,
}

/// Rows that are written together, and whether the file ended after them, and how.
struct Step {
    batch: WriteBatch,
    end: Option<Result<(), Failure>>,
}

impl<'a> Import<'a> {
    fn new(format: FileFormat, source: impl Read + 'a, name: PathBuf, skip_bad: bool) -> Self {
        let (rows, meter) = transfer::reader(format, source);
        let (is_assumed, imported, skipped) = (false, 0, 0);
        Self { rows, meter, name, is_assumed, skip_bad, imported, skipped, first_bad: None }
    }

    /// Writes the first step and all that follow, up to the end or the first bad line.
    fn run(&mut self, db: &Db, first: Step, progress: &Progress) -> Result<(), Failure> {
        // One sync at the end instead of one for each batch.
        let db = db.with_durability(Durability::Buffered)?;
        let mut step = first;
        loop {
            db.write(&step.batch)?;
            self.imported += u64::try_from(step.batch.len()).unwrap_or(u64::MAX);
            progress.set(self.meter.total());
            if let Some(end) = step.end {
                return end;
            }
            step = self.read_step();
        }
    }

    fn read_step(&mut self) -> Step {
        const BATCH_ROWS: usize = 1000;
        const BATCH_BYTES: usize = 1 << 20;
        let mut batch = WriteBatch::new();
        let mut batch_bytes = 0;
        while batch.len() < BATCH_ROWS && batch_bytes < BATCH_BYTES {
            match self.rows.next_row() {
                None => return Step { batch, end: Some(Ok(())) },
                Some(Ok(row)) => {
                    batch_bytes += row.key.len() + row.value.len();
                    batch.set_with_expiry(row.key, row.value, expiry(row.expires_at_ms));
                }
                Some(Err(ReadError::BadLine { line, reason })) if self.skip_bad => {
                    self.skipped += 1;
                    self.first_bad.get_or_insert_with(|| format!("line {line}: {reason}"));
                }
                Some(Err(error)) => return Step { batch, end: Some(Err(self.stopped(error))) },
            }
        }
        Step { batch, end: None }
    }

    fn stopped(&self, error: ReadError) -> Failure {
        let (line, reason, hint) = match error {
            ReadError::Io(error) => return Failure::file("read", &self.name, &error),
            ReadError::BadLine { line: 1, reason } if self.is_assumed => {
                let message = format!("{}, line 1: {reason}", self.name.display());
                return Failure::failed("bad_line", message).with_hint(ASSUMED_HINT);
            }
            ReadError::BadLine { line, reason } => {
                (line, reason, ", or leave bad lines out with --skip-bad")
            }
            ReadError::Unreadable { line, reason } => (line, reason, ""),
        };
        let message = format!("{}, line {line}: {reason}", self.name.display());
        let kept = if line > 1 { "the lines before it are in the store; " } else { "" };
        Failure::failed("bad_line", message).with_hint(format!("{kept}fix the line{hint}"))
    }

    /// A file without one good line was not what it was taken for.
    fn check_any(&self) -> Result<(), Failure> {
        if self.imported > 0 || self.skipped == 0 {
            return Ok(());
        }
        let name = self.name.display();
        let failure = Failure::failed("bad_line", format!("{name} has no line that can be read"));
        Err(if self.is_assumed { failure.with_hint(ASSUMED_HINT) } else { failure })
    }

    /// How many rows were stored; not a result, so it goes to standard error unless JSON was asked
    /// for.
    fn tell(&self, cx: &mut Context) -> Result<(), Failure> {
        if cx.form == OutputForm::Json {
            let line =
                JsonLine::new().field("imported", self.imported).field("skipped", self.skipped);
            writeln!(cx.out, "{}", line.into_string())?;
            return Ok(());
        }
        cx.note(&format!("{} imported", counted(self.imported, "entry")));
        if let Some(first) = &self.first_bad {
            cx.note(&format!(
                "{} skipped; the first was {first}",
                counted(self.skipped, "bad line")
            ));
        }
        Ok(())
    }
}

fn expiry(expires_at_ms: Option<u64>) -> Expiry {
    match expires_at_ms {
        None => Expiry::Never,
        // Past the end of what the system's clock can name, never comes to the same.
        Some(at) => {
            UNIX_EPOCH.checked_add(Duration::from_millis(at)).map_or(Expiry::Never, Expiry::At)
        }
    }
}
