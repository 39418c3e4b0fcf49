//! `export`: entries of the store to a file, which is replaced once all of them are in it.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::ops::Bound;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::unistd::linkat;

use super::range::key_range;
use crate::args::{ExportArgs, FileFormat, OutputForm};
use crate::context::{Context, Store};
use crate::exit::Exit;
use crate::failure::{Failure, key_name};
use crate::output::{JsonLine, counted, directory_of};
use crate::progress::Progress;
use crate::transfer::{self, Row, WriteError, WriteRows};

pub(super) fn run(cx: &mut Context, args: &ExportArgs) -> Result<Exit, Failure> {
    let range = key_range(&args.range)?;
    let path = args.file.as_deref().filter(|path| path.as_os_str() != "-");
    let format =
        args.format.or_else(|| path.and_then(transfer::format_of)).unwrap_or(FileFormat::Jsonl);
    let store = cx.reader()?;
    let export = Export { store: &store, range, format };
    let done = match path {
        None => {
            let progress = if cx.out.terminal { Progress::hidden() } else { export.progress()? };
            let rows = transfer::writer(format, &mut cx.out)?;
            export.run(rows, &progress, Failure::from)?
        }
        Some(path) => export.to_file(path)?,
    };
    store.close()?;
    tell(cx, &done, format, path)?;
    Ok(Exit::Done)
}

/// Exports every entry of an open store.
pub(crate) fn whole_store(store: &Store, format: FileFormat) -> Result<Vec<u8>, Failure> {
    let export = Export { store, range: (Bound::Unbounded, Bound::Unbounded), format };
    let mut bytes = Vec::new();
    let rows = transfer::writer(format, &mut bytes)?;
    export.run(rows, &Progress::hidden(), Failure::from)?;
    Ok(bytes)
}

#[derive(Debug, Default)]
struct Counts {
    exported: u64,
    expiring: u64,
}

struct Export<'a> {
    store: &'a Store,
    range: super::range::KeyRange,
    format: FileFormat,
}

impl Export<'_> {
    /// Writes every entry; `failed` says what a failure of the stream means.
    fn run(
        &self,
        mut rows: Box<dyn WriteRows + '_>,
        progress: &Progress,
        failed: impl Fn(io::Error) -> Failure,
    ) -> Result<Counts, Failure> {
        const ENTRIES_A_DRAW: u64 = 1000;
        let mut done = Counts::default();
        for entry in self.store.scan_range(self.range.clone())? {
            let expires_at_ms = entry.expires_at_ms();
            let (key, value) = entry.into_pair()?;
            let row = Row { key, value, expires_at_ms };
            rows.write_row(&row).map_err(|error| match error {
                WriteError::Io(error) => failed(error),
                WriteError::NotCarried(reason) => {
                    let message =
                        format!("tsv cannot carry the entry {}: {reason}", key_name(&row.key));
                    Failure::failed("not_carried", message)
                        .with_hint("use --format jsonl, which carries any bytes")
                }
            })?;
            done.exported += 1;
            done.expiring += u64::from(expires_at_ms.is_some());
            if done.exported.is_multiple_of(ENTRIES_A_DRAW) {
                progress.set(done.exported);
            }
        }
        rows.finish().map_err(failed)?;
        Ok(done)
    }

    fn progress(&self) -> Result<Progress, Failure> {
        let total = match &self.range {
            (Bound::Unbounded, Bound::Unbounded) => Some(self.store.len()?),
            // How many are in a range is known once it has been walked.
            _ => None,
        };
        Ok(Progress::entries("exporting", total))
    }

    fn to_file(&self, path: &Path) -> Result<Counts, Failure> {
        let target = Target::open(path).map_err(|error| Failure::file("create", path, &error))?;
        let failed = |error: io::Error| Failure::file("write to", path, &error);
        let progress = self.progress()?;
        let written = transfer::writer(self.format, BufWriter::new(&target.file))
            .map_err(failed)
            .and_then(|rows| self.run(rows, &progress, failed));
        drop(progress);
        match written {
            Ok(done) => target.keep().map_err(failed).map(|()| done),
            Err(failure) => {
                target.discard();
                Err(failure)
            }
        }
    }
}

/// A file that is being written. An ordinary one is put into its place when it is whole; anything
/// else, a device or a named pipe, is written to as it is.
struct Target {
    file: File,
    place: Option<Place>,
}

/// Where an ordinary file will be, and how it gets there.
struct Place {
    path: PathBuf,
    /// A name beside it, from which it is renamed.
    partial: PathBuf,
    /// Whether it has that name from the beginning.
    named: bool,
}

impl Target {
    fn open(path: &Path) -> io::Result<Self> {
        // A symbolic link stays one: the file it points to is replaced.
        let place = match fs::canonicalize(path) {
            Ok(place) => place,
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_path_buf(),
            Err(error) => return Err(error),
        };
        let old = fs::metadata(&place).ok();
        if old.as_ref().is_some_and(|old| !old.is_file()) {
            return Ok(Self { file: File::options().write(true).open(&place)?, place: None });
        }
        let name = place.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let mut partial = name.to_os_string();
        partial.push(format!(".{}.partial", std::process::id()));
        let partial = place.with_file_name(partial);
        // Without a name until it is whole, where the file system can: whatever ends the process,
        // nothing is left of it.
        let unnamed = OFlag::O_TMPFILE.bits();
        let (file, named) =
            match File::options().write(true).custom_flags(unnamed).open(directory_of(&place)) {
                Ok(file) => (file, false),
                Err(_) => (File::create_new(&partial)?, true),
            };
        // Who may not read the old one may not read the new one either.
        if let Some(old) = old {
            file.set_permissions(old.permissions())?;
        }
        Ok(Self { file, place: Some(Place { path: place, partial, named }) })
    }

    fn keep(self) -> io::Result<()> {
        let Some(Place { path, partial, named }) = &self.place else { return Ok(()) };
        let kept = self
            .file
            .sync_all()
            .and_then(|()| if *named { Ok(()) } else { give_name(&self.file, partial) })
            .and_then(|()| fs::rename(partial, path));
        if kept.is_err() {
            self.discard();
        }
        kept
    }

    fn discard(&self) {
        if let Some(Place { partial, .. }) = &self.place {
            let _ = fs::remove_file(partial);
        }
    }
}

/// Gives a file that has no name one, which must be free.
fn give_name(file: &File, name: &Path) -> io::Result<()> {
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = AtFlags::AT_SYMLINK_FOLLOW;
    Ok(linkat(AT_FDCWD, unnamed.as_str(), AT_FDCWD, name, flags)?)
}

fn tell(
    cx: &mut Context,
    done: &Counts,
    format: FileFormat,
    path: Option<&Path>,
) -> Result<(), Failure> {
    if path.is_some() {
        // On standard output the entries are the result, and a count among them would be in the
        // way.
        if cx.form == OutputForm::Json {
            let line = JsonLine::new().field("exported", done.exported);
            writeln!(cx.out, "{}", line.into_string())?;
        } else {
            cx.note(&format!("{} exported", counted(done.exported, "entry")));
        }
    }
    if format == FileFormat::Tsv && done.expiring > 0 {
        cx.note(&format!("tsv carries no expiries: {} had one", counted(done.expiring, "entry")));
    }
    Ok(())
}
