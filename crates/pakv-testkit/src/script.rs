//! Plain-text scripts: a session with a store, the expected output beside each command.
//!
//! ```text
//! # A comment. Blank lines and comments stay where they are.
//! > set a 1 ttl=50
//! > get a
//! 1
//! ```
//!
//! A line that begins with `> ` is a command; the lines below it are its output.
//! `PAKV_UPDATE_SCRIPTS=1` writes the output that came instead of comparing it: review the
//! difference as you would code.
//!
//! In keys and values `\xNN` stands for any byte and `*` followed by a number and a byte for many:
//! `*300v`. The store has segments of 512 bytes, works on the calling thread only, and its clock
//! stands at 1,000,000 ms.
//!
//! | command | does |
//! | --- | --- |
//! | `set K V [ttl=MS]`, `get K`, `delete K`, `len` | as they read |
//! | `cas K absent\|present\|=OLD V` | compare and set |
//! | `batch K=V… -K…` | writes a batch of sets and deletes |
//! | `expire K MS`, `persist K`, `ttl K` | as they read |
//! | `scan [prefix=P] [from=K] [to=K] [keys] [reverse]` | the entries, `to` excluded |
//! | `snapshot take\|drop\|get K\|scan` | one snapshot |
//! | `advance MS` | moves the clock |
//! | `compact` | compacts and says what it did |
//! | `maintain` | compacts the best choice among segments with 30 % of garbage, till none is left |
//! | `open [segment=BYTES] [read-only]`, `close`, `reopen` | opens and says what it found, closes |
//! | `kill` | goes on with a copy of the files as `kill -9` would leave them, closed |
//! | `files` | the names of the files |
//! | `dump` | what the files hold |
//! | `stats` | keys, live and garbage bytes, of each segment too |
//! | `cut FILE LEN`, `flip FILE OFFSET` | damages a closed store; `-N` counts from the end |
//! | `append FILE BYTES`, `remove FILE` | as they read, on a closed store |

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pakv::{
    Db, Entry, Expected, Expiry, ManualClock, Options, RecoveryReport, Snapshot, Ttl, WriteBatch,
};
use tempfile::TempDir;

use crate::{TestStore, dump, files};

/// Runs one script and compares its output, or rewrites it if `PAKV_UPDATE_SCRIPTS` is set.
pub fn run(path: &Path) {
    let script = fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    let mut session = Session::new();
    let mut actual = String::new();
    for line in script.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            let output = session.run(command).unwrap_or_else(|error| format!("error: {error}\n"));
            let _ = write!(actual, "{line}\n{}", session.without_path(&output));
        } else if line.is_empty() || line.starts_with('#') {
            let _ = writeln!(actual, "{line}");
        }
    }
    if std::env::var_os("PAKV_UPDATE_SCRIPTS").is_some() {
        files::write(path, actual);
    } else if actual != script {
        let differs = actual
            .lines()
            .zip(script.lines())
            .take_while(|(actual, expected)| actual == expected)
            .count();
        panic!(
            "{}:{}: the output differs from here on (PAKV_UPDATE_SCRIPTS=1 rewrites the script)\n\
             expected: {}\n  actual: {}\nthe whole output:\n{actual}",
            path.display(),
            differs + 1,
            script.lines().nth(differs).unwrap_or("the end"),
            actual.lines().nth(differs).unwrap_or("the end"),
        );
    }
}

/// What a command printed, or the error that it ended in.
type Output = Result<String, Box<dyn std::error::Error>>;

struct Session {
    dir: TempDir,
    options: Options,
    clock: Arc<ManualClock>,
    db: Option<Db>,
    snapshot: Option<Snapshot>,
}

impl Session {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(1_000_000));
        let options = TestStore::options().clock(clock.clone());
        Self { dir: files::scratch(), options, clock, db: None, snapshot: None }
    }

    fn run(&mut self, command: &str) -> Output {
        let words: Vec<&str> = command.split_whitespace().collect();
        let (name, args) = words.split_first().ok_or("a command is expected")?;
        match (*name, args) {
            ("open", options) => self.open(options),
            ("close", []) => self.close(),
            ("reopen", []) => {
                self.close()?;
                self.open(&[])
            }
            ("kill", []) => {
                let copy = files::copied(self.dir.path());
                let original = std::mem::replace(&mut self.dir, copy);
                let closed = self.close();
                drop(original);
                closed
            }
            ("advance", [ms]) => {
                self.clock.advance(Duration::from_millis(ms.parse()?));
                Ok(String::new())
            }
            ("files", []) => Ok(lines(files::names(self.dir.path(), ""))),
            ("dump", []) => Ok(dump::store(self.dir.path())?),
            ("cut" | "flip" | "append" | "remove", _) => self.damage(name, args),
            _ => self.run_on_store(name, args),
        }
    }

    fn run_on_store(&mut self, name: &str, args: &[&str]) -> Output {
        let db = self.db.as_ref().ok_or("no store is open")?;
        match (name, args) {
            ("set", [key, value]) => {
                db.set(bytes(key)?, bytes(value)?).map(|()| String::new()).map_err(Into::into)
            }
            ("set", [key, value, ttl]) => {
                let ttl = ttl.strip_prefix("ttl=").ok_or("ttl=MS is expected")?;
                let expiry = Expiry::After(Duration::from_millis(ttl.parse()?));
                db.set_with_expiry(bytes(key)?, bytes(value)?, expiry)?;
                Ok(String::new())
            }
            ("get", [key]) => Ok(value(db.get(bytes(key)?)?)),
            ("delete", [key]) => Ok(format!("{}\n", db.delete(bytes(key)?)?)),
            ("len", []) => Ok(format!("{}\n", db.len()?)),
            ("cas", [key, expected, new]) => {
                let old = bytes(expected.strip_prefix('=').unwrap_or_default())?;
                let expected = match *expected {
                    "absent" => Expected::Absent,
                    "present" => Expected::Present,
                    _ => Expected::Value(&old),
                };
                Ok(format!("{}\n", db.compare_and_set(bytes(key)?, expected, bytes(new)?)?))
            }
            ("batch", writes) => {
                let mut batch = WriteBatch::new();
                for write in writes {
                    match write.split_once('=') {
                        Some((key, value)) => batch.set(bytes(key)?, bytes(value)?),
                        None => batch.delete(bytes(
                            write.strip_prefix('-').ok_or("K=V or -K is expected")?,
                        )?),
                    };
                }
                db.write(&batch)?;
                Ok(String::new())
            }
            ("expire", [key, ms]) => {
                let expiry = Expiry::After(Duration::from_millis(ms.parse()?));
                Ok(format!("{}\n", db.expire(bytes(key)?, expiry)?))
            }
            ("persist", [key]) => Ok(format!("{}\n", db.persist(bytes(key)?)?)),
            ("ttl", [key]) => Ok(match db.ttl(bytes(key)?)? {
                None => "(none)\n".to_string(),
                Some(Ttl::Forever) => "forever\n".to_string(),
                Some(Ttl::Left(left)) => format!("{} ms\n", left.as_millis()),
            }),
            ("scan", options) => scan(db, options),
            ("snapshot", ["take"]) => {
                self.snapshot = Some(db.snapshot()?);
                Ok(String::new())
            }
            ("snapshot", ["drop"]) => {
                self.snapshot = None;
                Ok(String::new())
            }
            ("snapshot", ["get", key]) => {
                let snapshot = self.snapshot.as_ref().ok_or("no snapshot was taken")?;
                Ok(value(snapshot.get(bytes(key)?)?))
            }
            ("snapshot", ["scan"]) => {
                let snapshot = self.snapshot.as_ref().ok_or("no snapshot was taken")?;
                entries(snapshot.scan())
            }
            ("compact", []) => {
                let report = db.compact()?;
                Ok(format!(
                    "{} segments in, {} out, {} records copied, {} tombstones dropped\n",
                    report.segments_in,
                    report.segments_out,
                    report.records_copied,
                    report.tombstones_dropped
                ))
            }
            ("maintain", []) => {
                db.maintain()?;
                Ok(String::new())
            }
            ("stats", []) => stats(db),
            _ => Err(format!("{name} is no command, or not with these arguments").into()),
        }
    }

    fn open(&mut self, options: &[&str]) -> Output {
        let mut opening = self.options.clone();
        for option in options {
            if let Some(bytes) = option.strip_prefix("segment=") {
                self.options = self.options.clone().segment_bytes(bytes.parse()?);
                opening = self.options.clone();
            } else if *option == "read-only" {
                opening = opening.read_only(true);
            } else {
                return Err(format!("{option} is no option").into());
            }
        }
        let db = opening.open(self.dir.path())?;
        let report = found(db.recovery());
        self.db = Some(db);
        Ok(report)
    }

    fn close(&mut self) -> Output {
        self.snapshot = None;
        self.db.take().ok_or("no store is open")?.close()?;
        Ok(String::new())
    }

    fn damage(&self, name: &str, args: &[&str]) -> Output {
        if self.db.is_some() {
            return Err("the store is open".into());
        }
        let file = args.first().ok_or("a file is expected")?;
        let path = self.dir.path().join(file);
        let place = |number: &str| -> Result<usize, Box<dyn std::error::Error>> {
            Ok(match number.strip_prefix('-') {
                Some(from_end) => files::read(&path).len() - from_end.parse::<usize>()?,
                None => number.parse()?,
            })
        };
        match (name, &args[1..]) {
            ("cut", [len]) => files::cut(&path, place(len)?),
            ("flip", [offset]) => files::flip(&path, place(offset)?, 0xff),
            ("append", [more]) => files::write(&path, [files::read(&path), bytes(more)?].concat()),
            ("remove", []) => files::remove(&path),
            _ => return Err(format!("{name} takes other arguments").into()),
        }
        Ok(String::new())
    }

    /// Output without the directory, which is another one in each run.
    fn without_path(&self, output: &str) -> String {
        output
            .replace(&format!("{}/", self.dir.path().display()), "")
            .replace(&self.dir.path().display().to_string(), "DIR")
    }
}

fn scan(db: &Db, options: &[&str]) -> Output {
    let mut prefix = None;
    let (mut from, mut to) = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
    let (mut keys, mut reverse) = (false, false);
    for option in options {
        match option.split_once('=') {
            Some(("prefix", bytes)) => prefix = Some(self::bytes(bytes)?),
            Some(("from", bytes)) => from = std::ops::Bound::Included(self::bytes(bytes)?),
            Some(("to", bytes)) => to = std::ops::Bound::Excluded(self::bytes(bytes)?),
            None if *option == "keys" => keys = true,
            None if *option == "reverse" => reverse = true,
            _ => return Err(format!("{option} is no option").into()),
        }
    }
    let scan = match prefix {
        Some(prefix) => db.scan_prefix(prefix)?,
        None => db.scan_range::<Vec<u8>>((from, to))?,
    };
    let scan: Box<dyn Iterator<Item = Entry>> =
        if reverse { Box::new(scan.rev()) } else { Box::new(scan) };
    if keys { Ok(lines(scan.map(|entry| text(entry.key())))) } else { entries(scan) }
}

fn entries(scan: impl Iterator<Item = Entry>) -> Output {
    let mut output = String::new();
    for entry in scan {
        let (key, value) = entry.into_pair()?;
        let _ = writeln!(output, "{} = {}", text(&key), text(&value));
    }
    Ok(output)
}

fn stats(db: &Db) -> Output {
    let stats = db.stats()?;
    let mut output = format!(
        "{} keys, {} expiring; {} live bytes, {} garbage\n",
        stats.keys,
        stats.expiring_keys,
        stats.live_bytes,
        stats.garbage_bytes()
    );
    for segment in &stats.segments {
        let kind = if segment.active { "active" } else { "sealed" };
        let _ = writeln!(
            output,
            "{:010} {kind}: {} live bytes, {} garbage, of these {} in tombstones",
            segment.segment,
            segment.live_bytes,
            segment.garbage_bytes(),
            segment.tombstone_bytes
        );
    }
    Ok(output)
}

/// The report of an open in a line: what is always told, then what was out of the ordinary.
fn found(report: &RecoveryReport) -> String {
    if report.created {
        return "created\n".to_string();
    }
    let mut line = format!(
        "{} keys, {} segments, {} records replayed",
        report.keys, report.segments, report.records_replayed
    );
    let extraordinary = [
        (report.bytes_cut, "bytes cut"),
        (report.orphans_removed, "orphans removed"),
        (report.hints_rebuilt, "hints rebuilt"),
    ];
    for (count, what) in extraordinary {
        if count > 0 {
            let _ = write!(line, ", {count} {what}");
        }
    }
    line.push('\n');
    line
}

fn value(value: Option<Vec<u8>>) -> String {
    value.map_or("(none)\n".to_string(), |value| text(&value) + "\n")
}

/// Bytes as text; many equal ones as the notation `*300v`, so that a large value is one word.
pub(crate) fn text(bytes: &[u8]) -> String {
    match bytes {
        [first, rest @ ..] if bytes.len() > 20 && rest.iter().all(|byte| byte == first) => {
            format!("*{}{}", bytes.len(), first.escape_ascii())
        }
        [] => "\"\"".to_string(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// The bytes that a word of a command stands for.
fn bytes(word: &str) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    if word == "\"\"" {
        return Ok(Vec::new());
    }
    if let Some(many) = word.strip_prefix('*') {
        let (count, byte) = many.split_at(many.len() - 1);
        return Ok(byte.repeat(count.parse()?).into_bytes());
    }
    let mut bytes = Vec::new();
    let mut rest = word;
    while let Some((plain, escaped)) = rest.split_once("\\x") {
        bytes.extend_from_slice(plain.as_bytes());
        bytes.push(u8::from_str_radix(escaped.get(..2).ok_or("two digits follow \\x")?, 16)?);
        rest = &escaped[2..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

fn lines(items: impl IntoIterator<Item = String>) -> String {
    items.into_iter().map(|item| item + "\n").collect()
}
