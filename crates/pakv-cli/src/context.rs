//! What a verb runs in: where the store is and how to open it, where results go and in which form,
//! and what may be asked or read. The command line builds one for its one verb, the shell keeps one
//! for its session.

use std::io::{self, BufRead as _, BufWriter, IsTerminal as _, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anstream::AutoStream;
use pakv::{CompactionReport, Db, Options};

use crate::args::{GlobalArgs, OutputForm};
use crate::failure::Failure;
use crate::progress::Progress;

/// The global settings, the stream of results, and, in a shell, the store that stays open.
pub(crate) struct Context {
    pub(crate) db: PathBuf,
    pub(crate) form: OutputForm,
    pub(crate) out: Out,
    wait: Duration,
    shell: Option<Session>,
}

/// What a shell keeps from line to line.
#[derive(Debug, Default)]
struct Session {
    open: Option<Db>,
    /// The same for reading only, while another process holds the store.
    reader: Option<Db>,
}

impl Context {
    /// For one verb, results to standard output.
    pub(crate) fn new(global: &GlobalArgs) -> Self {
        Self {
            db: global.db.clone(),
            form: global.output,
            out: Out::stdout(),
            wait: global.wait,
            shell: None,
        }
    }

    /// Makes it a shell's: the store is opened when a line first needs it and stays open, standard
    /// input belongs to the shell, and every result ends its line. [`Context::leave_shell`] closes
    /// the store.
    pub(crate) fn enter_shell(&mut self) {
        self.shell.get_or_insert_default();
    }

    /// Closes the store if a line of the shell opened it.
    pub(crate) fn leave_shell(&mut self) -> Result<(), Failure> {
        match self.shell.take().and_then(|session| session.open) {
            Some(db) => Store::Written(db).close(),
            None => Ok(()),
        }
    }

    pub(crate) fn is_shell(&self) -> bool {
        self.shell.is_some()
    }

    /// The store that the shell has open, if a line has needed it yet.
    pub(crate) fn open_db(&self) -> Option<&Db> {
        self.shell.as_ref().and_then(|session| session.open.as_ref())
    }

    /// The store, for a verb that only reads. Creates nothing, and works beside another process
    /// that writes.
    pub(crate) fn reader(&mut self) -> Result<Store, Failure> {
        if self.is_shell() {
            // A shell's next line may write, so it tries for the whole store. One that cannot be
            // had for writing, as another process holds it, can still be read, and is not waited
            // for.
            if let Ok(store) = self.open(Creates::No, Duration::ZERO) {
                return Ok(store);
            }
        }
        // From line to line what was written meanwhile is read, and not all of the store.
        let known = self.shell.as_mut().and_then(|session| session.reader.take());
        let known = known.filter(|db| db.refresh().is_ok());
        let open = || open_with_progress(Options::new().read_only(true), &self.db);
        let db = known.map_or_else(open, Ok)?;
        Ok(match &mut self.shell {
            Some(session) => {
                session.reader = Some(db.clone());
                Store::Shells(db)
            }
            None => Store::Read(db),
        })
    }

    /// The store, for a verb that writes.
    pub(crate) fn writer(&mut self, creates: Creates) -> Result<Store, Failure> {
        self.open(creates, self.wait)
    }

    fn open(&mut self, creates: Creates, wait: Duration) -> Result<Store, Failure> {
        if let Some(db) = self.open_db() {
            return Ok(Store::Shells(db.clone()));
        }
        let create = creates == Creates::Yes;
        let options = Options::new().create(create).lock_wait(wait);
        let db = open_with_progress(options, &self.db)?;
        match &mut self.shell {
            Some(session) => {
                (session.open, session.reader) = (Some(db.clone()), None);
                Ok(Store::Shells(db))
            }
            None => Ok(Store::Written(db)),
        }
    }

    /// Standard input as data. A shell reads its own lines from there and gives it to nobody.
    pub(crate) fn stdin(&self) -> Result<io::StdinLock<'static>, Failure> {
        if self.is_shell() {
            return Err(Failure::usage("standard input holds the lines of the shell")
                .with_hint("name a file instead"));
        }
        Ok(io::stdin().lock())
    }

    /// Asks a question on the terminal. Where there is none, `instead` says how to do without.
    pub(crate) fn confirm(&mut self, question: &str, instead: &str) -> Result<bool, Failure> {
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Err(Failure::usage("there is no terminal to ask on").with_hint(instead));
        }
        self.out.flush()?;
        let mut answer = String::new();
        let asked = write!(io::stderr(), "{question} [y/N] ")
            .and_then(|()| io::stdin().lock().read_line(&mut answer));
        asked.map_err(|error| Failure::file("ask on", "the terminal".as_ref(), &error))?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes" | "Yes"))
    }

    /// Says on standard error why a verb failed, after the results it had.
    pub(crate) fn report(&mut self, failure: &Failure) {
        // If neither stream can be written to there is nobody left to tell; the exit code still
        // does.
        let _ = self.out.flush();
        failure.print(self.form);
    }

    /// A line for the person who waits, such as how many entries were loaded; not a result.
    pub(crate) fn note(&mut self, text: &str) {
        let _ = self.out.flush();
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// Whether a verb that writes creates the store if there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Creates {
    Yes,
    No,
}

/// An open store. One that the verb opened is the verb's to close; a shell's stays open.
#[derive(Debug)]
pub(crate) enum Store {
    Read(Db),
    Written(Db),
    Shells(Db),
}

impl Store {
    /// Closes the store and reports what went wrong, unless it is a shell's.
    pub(crate) fn close(self) -> Result<(), Failure> {
        match self {
            Store::Read(db) => Ok(db.close()?),
            Store::Written(db) => {
                tidy(&db);
                Ok(db.close()?)
            }
            Store::Shells(_) => Ok(()),
        }
    }
}

impl Deref for Store {
    type Target = Db;

    fn deref(&self) -> &Db {
        match self {
            Store::Read(db) | Store::Written(db) | Store::Shells(db) => db,
        }
    }
}

/// Keeps the store within its bound although no process stays: compaction in the background ends
/// with the process, and many short ones would each begin it and none finish. What it takes is in
/// proportion to what was overwritten.
fn tidy(db: &Db) {
    let progress = Progress::bytes("tidying up", Some(0));
    // What the verb did is done and safe: a run that fails is no failure of the verb, and is tried
    // again.
    let _ = db.maintain_with(|step| progress.set_of(step.bytes_done, step.bytes_total));
}

/// Opens a store, with progress.
pub(crate) fn open_with_progress(options: Options, path: &Path) -> pakv::Result<Db> {
    let progress = Progress::bytes("opening", Some(0));
    options.open_with(path, |step| progress.set_of(step.bytes_done, step.bytes_total))
}

/// Compacts now, with progress.
pub(crate) fn compact(db: &Db) -> pakv::Result<CompactionReport> {
    let progress = Progress::bytes("compacting", Some(0));
    db.compact_with(|step| progress.set_of(step.bytes_done, step.bytes_total))
}

/// Where results go, and what may be done there.
pub(crate) struct Out {
    writer: Box<dyn Write>,
    /// Whether the last line has no end yet.
    line_open: bool,
    pub(crate) terminal: bool,
    pub(crate) color: bool,
}

impl Out {
    pub(crate) fn stdout() -> Self {
        const BUFFER_BYTES: usize = 64 * 1024;
        let stdout = io::stdout();
        Self {
            terminal: stdout.is_terminal(),
            color: AutoStream::choice(&stdout) != anstream::ColorChoice::Never,
            line_open: false,
            writer: Box::new(BufWriter::with_capacity(BUFFER_BYTES, stdout)),
        }
    }

    /// Ends a line that the results left open, where a prompt would overwrite it.
    pub(crate) fn end_line(&mut self) -> io::Result<()> {
        if self.terminal && self.line_open {
            self.write_all(b"\n")?;
        }
        self.flush()
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.writer.write(bytes)?;
        if let Some(last) = bytes.get(..count).and_then(<[u8]>::last) {
            self.line_open = *last != b'\n';
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
