//! What takes a second process: `kill -9` at a random moment, readers beside a writer, a store held
//! by somebody else, and limits that the operating system sets.
//!
//! `PAKV_KILL_RUNS` sets how many kills there are (20 unless told), `PAKV_SEED` repeats a failed
//! run's workload; the moment of the kill stays the scheduler's.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use pakv::{Db, Error, ManualClock, Options};
use pakv_testkit::{Model, files, kill};
use tempfile::TempDir;

const CHILD: &str = env!("CARGO_BIN_EXE_kill_child");

/// So many kills in a row hit the same store, each after a recovery from the one before.
const KILLS_PER_STORE: u64 = 10;

#[test]
fn a_killed_writer_loses_nothing_and_revives_nothing() {
    let runs = env_number("PAKV_KILL_RUNS").unwrap_or(20);
    let seed = env_number("PAKV_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("PAKV_SEED={seed}");
    let mut delays = fastrand::Rng::with_seed(seed);
    let mut acknowledged = 0;
    for store in 0..runs.div_ceil(KILLS_PER_STORE) {
        let mut victim = Victim::new(seed.wrapping_add(store));
        for run in store * KILLS_PER_STORE..runs.min((store + 1) * KILLS_PER_STORE) {
            // One in five is killed while it opens the store, the others at any time from their
            // start on.
            let moment = if run % 5 == 4 { Moment::Opening } else { Moment::Any };
            let delay = match moment {
                Moment::Opening => Duration::from_micros(delays.u64(..4_000)),
                Moment::Any => Duration::from_micros(delays.u64(..60_000)),
            };
            acknowledged += victim.kill_and_check(run, moment, delay);
        }
    }
    println!("{runs} kills, {acknowledged} acknowledged steps");
    assert!(acknowledged > 0, "no child came far enough to acknowledge a step: nothing was tested");
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Opening,
    Any,
}

/// A store, and what is known of its contents.
struct Victim {
    dir: TempDir,
    seed: u64,
    /// What each thread's keys held after the last check, and the number of its next step.
    threads: Vec<(Model, u64)>,
}

impl Victim {
    fn new(seed: u64) -> Self {
        let threads =
            (0..kill::THREADS).map(|_| (Model::new(Arc::new(ManualClock::new(2))), 0)).collect();
        Self { dir: files::scratch(), seed, threads }
    }

    /// One run; returns how many steps were acknowledged in it.
    fn kill_and_check(&mut self, run: u64, moment: Moment, delay: Duration) -> u64 {
        let mut args =
            vec!["write".to_string(), self.dir.path().display().to_string(), self.seed.to_string()];
        args.extend(self.threads.iter().map(|(_, next_step)| next_step.to_string()));
        let context =
            format!("PAKV_SEED={} run {run}, killed {moment:?} after {delay:?}", self.seed);
        let mut child = Killable::start(&args);
        if moment == Moment::Opening {
            assert_eq!(
                child.line().as_deref(),
                Some("opening"),
                "the child says that it opens the store"
            );
        }
        let mut seen = if run % 2 == 1 { self.read_beside(delay, &context) } else { Vec::new() };
        if seen.is_empty() {
            std::thread::sleep(delay);
        }
        let lines = child.kill();

        let mut acknowledged = 0;
        self.forget_states(&mut seen);
        for line in &lines {
            if let Some((thread, step)) = line.split_once(' ') {
                let (thread, step): (usize, u64) = (
                    thread.parse().expect("a thread's number"),
                    step.parse().expect("a step's number"),
                );
                let (model, next_step) = &mut self.threads[thread];
                assert_eq!(step, *next_step, "a thread acknowledges its steps in order");
                kill::step(self.seed, thread, step).apply_to(model);
                *next_step += 1;
                acknowledged += 1;
                self.forget_states(&mut seen);
            }
        }
        self.check(&format!("{context}, first open"), true);
        self.forget_states(&mut seen);
        assert_eq!(seen, [], "{context}: a reader beside the writer saw what was never there");
        if run.is_multiple_of(3) {
            files::remove_hints(self.dir.path());
        }
        self.check(&format!("{context}, second open"), false);
        acknowledged
    }

    /// Opens the store for reading again and again beside the child, and returns what it showed of
    /// each thread's keys.
    fn read_beside(&self, delay: Duration, context: &str) -> Vec<(usize, Contents)> {
        let mut seen = Vec::new();
        let started = std::time::Instant::now();
        while started.elapsed() < delay {
            match kill::options(self.seed).read_only(true).open(self.dir.path()) {
                Ok(db) => seen.extend(
                    (0..kill::THREADS).map(|thread| (thread, contents(&db, thread, context))),
                ),
                // The child has not created it yet.
                Err(Error::NoStore { .. }) => {}
                Err(error) => panic!("{context}: a reader beside the writer: {error}"),
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        seen
    }

    /// Takes out of `seen` what the threads' keys hold at the step that has been reached.
    fn forget_states(&self, seen: &mut Vec<(usize, Contents)>) {
        if seen.is_empty() {
            return;
        }
        let now: Vec<Contents> = self.threads.iter().map(|(model, _)| contents_of(model)).collect();
        seen.retain(|(thread, contents)| *contents != now[*thread]);
    }

    /// Opens the store and compares each thread's keys with what was acknowledged; `in_flight`: one
    /// more step may be there, and is then taken as done.
    fn check(&mut self, context: &str, in_flight: bool) {
        let options = kill::options(self.seed).background_compaction(false);
        let db = options.open(self.dir.path()).unwrap_or_else(|error| panic!("{context}: {error}"));
        for (thread, (model, next_step)) in self.threads.iter_mut().enumerate() {
            let found = contents(&db, thread, context);
            if found == contents_of(model) {
                continue;
            }
            let step = kill::step(self.seed, thread, *next_step);
            let mut after = model.clone();
            step.apply_to(&mut after);
            assert!(
                in_flight && found == contents_of(&after),
                "{context}: thread {thread} acknowledged the steps before {next_step}, which is\n\
                 {step:?};\nneither the contents before it nor those after it are there: {}",
                differences(&found, &contents_of(model)),
            );
            (*model, *next_step) = (after, *next_step + 1);
        }
        db.close().unwrap_or_else(|error| panic!("{context}: {error}"));
    }
}

impl Drop for Victim {
    /// Keeps the files of a store that failed.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.dir.disable_cleanup(true);
            println!("the store is kept in {}", self.dir.path().display());
        }
    }
}

type Contents = Vec<(Vec<u8>, Vec<u8>)>;

fn contents(db: &Db, thread: usize, context: &str) -> Contents {
    let scan = db
        .scan_prefix(kill::key_prefix(thread))
        .unwrap_or_else(|error| panic!("{context}: {error}"));
    scan.map(|entry| entry.into_pair().unwrap_or_else(|error| panic!("{context}: {error}")))
        .collect()
}

fn contents_of(model: &Model) -> Contents {
    model.rows().into_iter().map(|(key, value, _)| (key, value)).collect()
}

fn differences(found: &Contents, expected: &Contents) -> String {
    let show = |(key, value): &(Vec<u8>, Vec<u8>)| {
        format!("{} = {}", key.escape_ascii(), value[..value.len().min(30)].escape_ascii())
    };
    let only = |these: &Contents, others: &Contents| -> Vec<String> {
        these.iter().filter(|pair| !others.contains(pair)).map(show).collect()
    };
    format!("found {:#?} instead of {:#?}", only(found, expected), only(expected, found))
}

#[test]
fn a_store_held_by_another_process_names_it_and_is_free_once_that_is_killed() {
    let dir = files::scratch();
    Db::open(dir.path())
        .and_then(|db| db.set("key", "value").and_then(|()| db.close()))
        .expect("a store is made");
    let mut holder = Killable::start(&["hold".to_string(), dir.path().display().to_string()]);
    assert_eq!(holder.line().as_deref(), Some("open"), "the child says that it has the store open");

    match Options::new().lock_wait(Duration::ZERO).open(dir.path()) {
        Err(Error::InUse { path, pid, .. }) => {
            assert_eq!(path, dir.path(), "the error names the store");
            assert_eq!(pid, Some(holder.id()), "the error names the process");
        }
        other => panic!("a second open should say that the store is in use: {other:?}"),
    }
    let reader = Options::new().read_only(true).open(dir.path()).expect("a reader needs no lock");
    assert_eq!(reader.get("key").expect("a reader reads"), Some(b"value".to_vec()));

    holder.kill();
    let db = Options::new()
        .lock_wait(Duration::ZERO)
        .open(dir.path())
        .expect("a killed process holds no lock");
    assert_eq!(db.get("key").expect("get succeeds"), Some(b"value".to_vec()));
}

/// A file that may not grow past a limit, in the middle of a record or of a manifest: a typed
/// error, then no write is taken any more; reads go on; what was acknowledged is there afterwards
/// and the store can be written again.
#[test]
fn a_write_that_the_system_refuses_poisons_the_store_and_loses_nothing() {
    // With large segments it is the segment that grows too long, with small ones the manifest that
    // lists them.
    for (blocks, segment_bytes) in [(1, 4_096), (3, 4_096), (1, 512), (2, 512)] {
        let context = format!("files of {blocks} blocks, segments of {segment_bytes} bytes");
        let dir = files::scratch();
        Db::open(dir.path()).and_then(|db| db.close()).expect("a store is made");
        // The signal that would end the process is ignored, so that the call fails instead.
        let limited = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
        let output = Command::new("sh")
            .args(["-c", &limited, "sh", CHILD, "fill"])
            .arg(dir.path())
            .arg(segment_bytes.to_string())
            .output()
            .expect("the child runs");
        let said = String::from_utf8(output.stdout).expect("the child prints text");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{context}: {said}{errors}");
        let lines: Vec<&str> = said.lines().collect();
        let acknowledged = lines.iter().filter(|line| line.starts_with("ok ")).count() as u64;
        assert!(acknowledged > 1, "{context}: some writes fit: {said}");
        let failed = lines.iter().find(|line| line.starts_with("failed "));
        assert!(
            failed.is_some_and(|line| line.contains("Io {")),
            "{context}: the failure is typed: {said}"
        );
        let poisoned = lines.iter().find(|line| line.starts_with("poisoned "));
        assert!(
            poisoned.is_some_and(|line| line.contains("Poisoned {")),
            "{context}: the next is refused: {said}"
        );

        let db = Db::open(dir.path()).unwrap_or_else(|error| panic!("{context}: {error}"));
        for number in 0..acknowledged {
            let value =
                db.get(number.to_string()).unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!(value, Some(kill::fill_value(number)), "{context}: the value of {number}");
        }
        let len = db.len().expect("len succeeds");
        assert!(
            len == acknowledged || len == acknowledged + 1,
            "{context}: {len} keys of {acknowledged}"
        );
        db.set("another", "write").unwrap_or_else(|error| panic!("{context}: {error}"));
    }
}

/// Segments that are read through a mapping are not kept open, so a store has more of them than a
/// process may have files; with positional reads there is a limit, and passing it is an error like
/// any other.
#[test]
fn segments_beyond_the_limit_on_open_files() {
    let dir = files::scratch();
    let options = Options::new().segment_bytes(512).background_compaction(false);
    let db = options.open(dir.path()).expect("an empty directory becomes a store");
    for number in 0..300_u64 {
        db.set(number.to_string(), kill::fill_value(number).repeat(8)).expect("set succeeds");
    }
    db.close().expect("close succeeds");
    let segments = files::names(dir.path(), ".log").len();
    assert!(segments > 250, "there are many segments: {segments}");
    for (reads, done) in [("mapped", "300 values"), ("positional", "Too many open files")] {
        let output = Command::new("sh")
            .args(["-c", "ulimit -n 64; exec \"$@\"", "sh", CHILD, "read", reads])
            .arg(dir.path())
            .output()
            .expect("the child runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(done), "{reads}: {said}{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A child whose lines are read as they come, and which does not outlive the test.
struct Killable {
    child: Child,
    lines: Receiver<String>,
}

impl Killable {
    fn start(args: &[String]) -> Self {
        let mut child = Command::new(CHILD)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the child starts");
        let stdout = child.stdout.take().expect("its output is piped");
        Self { lines: read_lines(stdout), child }
    }

    fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line; `None` once the child has ended.
    fn line(&mut self) -> Option<String> {
        self.lines.recv().ok()
    }

    /// Kills it with SIGKILL and returns the lines that were not read yet.
    fn kill(&mut self) -> Vec<String> {
        self.child.kill().expect("the child can be killed");
        let status = self.child.wait().expect("the child has ended");
        assert_eq!(status.code(), None, "the child ended by itself before it was killed: {status}");
        self.lines.iter().collect()
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(stdout: ChildStdout) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn env_number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} should be a number, not {value:?}")))
}
