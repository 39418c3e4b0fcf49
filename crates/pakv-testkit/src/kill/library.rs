//! `kill -9` over the library: threads that write while a reader, a compaction and, from outside, a
//! second process go on.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fastrand::Rng;
use pakv::{Db, Error};
use tempfile::TempDir;

use super::ledger::{Contents, Ledger, Said, contents};
use super::moment::{CALLS, Moment, Sweep, Tally, can_kill_at_calls, doomed};
use super::{THREADS, options};
use crate::files;
use crate::power::Writer;

/// So many kills in a row hit the same store, each after a recovery from the one before.
const KILLS_PER_STORE: u64 = 10;
/// No call is waited for longer than this.
const PATIENCE: Duration = Duration::from_secs(1);

/// Runs on one store after the other.
#[derive(Debug)]
pub struct LibraryKills {
    /// A program with the verbs of [`super::child`].
    program: PathBuf,
    dir: TempDir,
    ledger: Ledger,
    /// A reader that outlives the writers.
    follower: Option<Db>,
    seed: u64,
    run: u64,
    moments: Rng,
    sweep: Option<Sweep>,
    tally: Tally,
}

impl LibraryKills {
    /// From a seed. The workload is the seed's; the moment of a kill stays the scheduler's.
    pub fn new(program: &Path, seed: u64) -> Self {
        Self {
            program: program.to_path_buf(),
            dir: files::scratch(),
            ledger: Ledger::new(seed),
            follower: None,
            seed,
            run: 0,
            moments: Rng::with_seed(seed),
            sweep: can_kill_at_calls().then(Sweep::default),
            tally: Tally::default(),
        }
    }

    /// What was done so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// One kill and the checks after it.
    ///
    /// # Errors
    /// What is wrong with the store, which is kept.
    pub fn kill(&mut self) -> Result<(), String> {
        let run = self.run;
        self.run += 1;
        if run > 0 && run.is_multiple_of(KILLS_PER_STORE) {
            let seed = self.seed.wrapping_add(1);
            (self.dir, self.seed, self.ledger) = (files::scratch(), seed, Ledger::new(seed));
            self.follower = None;
        }
        // One in five is killed while it opens the store, and one in three, where that can be done,
        // before a certain call.
        let opening = run % 5 == 4;
        let moment = match &self.sweep {
            Some(sweep) if run % 3 == 1 => {
                sweep.next("library", self.moments.choice(CALLS).unwrap_or(CALLS[0]))
            }
            _ => Moment::After(Duration::from_micros(
                self.moments.u64(..if opening { 4_000 } else { 60_000 }),
            )),
        };
        let seed = self.seed;
        self.kill_and_check(run, opening, moment).map_err(|problem| {
            self.dir.disable_cleanup(true);
            self.tally.failures += 1;
            format!(
                "PAKV_SEED={seed}, run {run}, killed {moment:?}, opening: {opening}: {problem}\n\
                 the store is kept in {}",
                self.dir.path().display()
            )
        })
    }

    fn kill_and_check(&mut self, run: u64, opening: bool, moment: Moment) -> Result<(), String> {
        let mut command = doomed(&self.program, moment);
        command.arg("write").arg(self.dir.path()).arg(self.seed.to_string());
        command.args(self.ledger.next_steps().map(|step| step.to_string()));
        let mut writer = Writer::start(&mut command);
        let mut lines = Vec::new();
        if opening && matches!(moment, Moment::After(_)) {
            lines.extend(writer.line());
        }
        let mut seen = Vec::new();
        match moment {
            Moment::After(delay) if run % 2 == 1 => seen = self.read_beside(delay)?,
            Moment::After(delay) => std::thread::sleep(delay),
            Moment::Call { .. } => {
                let started = Instant::now();
                while !writer.has_ended() && started.elapsed() < PATIENCE {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
        // A call that does not come is killed at any other moment.
        let came = writer.has_ended();
        let ended = writer.kill();
        lines.extend(ended.lines.iter().cloned());
        if ended.signal() != Some(libc::SIGKILL) {
            return Err(format!("the child ended by itself: {}", ended.errors));
        }
        if let Some(sweep) = &mut self.sweep {
            sweep.ended("library", moment, came);
        }
        let in_open =
            lines.iter().any(|line| line == "opening") && !lines.iter().any(|line| line == "open");
        self.tally.killed("library", in_open);

        self.ledger.forget(&mut seen);
        for line in &lines {
            if self.ledger.take(line, Said::Before)? {
                self.tally.acknowledged += 1;
                self.ledger.forget(&mut seen);
            }
        }
        let dir = self.dir.path();
        check_files(dir).map_err(|wrong| format!("after the kill: {wrong}"))?;
        self.ledger.check_after_cut(dir).map_err(|wrong| format!("first open: {wrong}"))?;
        self.ledger.forget(&mut seen);
        if !seen.is_empty() {
            return Err(format!("a reader beside the writer saw what was never there: {seen:?}"));
        }
        if run.is_multiple_of(3) {
            files::remove_hints(dir);
        }
        self.ledger.check_again(dir).map_err(|wrong| format!("second open: {wrong}"))?;
        check_files(dir)?;
        no_file_is_left_over(dir)?;
        if let Some(db) = &self.follower {
            look(db, &mut seen).map_err(|error| format!("the reader that follows: {error}"))?;
            self.ledger.forget(&mut seen);
            if !seen.is_empty() {
                return Err(format!("the reader that follows sees something else: {seen:?}"));
            }
        }
        Ok(())
    }

    /// Opens the store for reading again and again beside the child, and returns what it showed of
    /// each thread's keys, and so what a reader showed that was opened once and is refreshed.
    fn read_beside(&mut self, delay: Duration) -> Result<Vec<(usize, Contents)>, String> {
        let mut seen = Vec::new();
        let started = Instant::now();
        while started.elapsed() < delay {
            check_files(self.dir.path()).map_err(|wrong| format!("beside the writer: {wrong}"))?;
            match options(self.seed).read_only(true).open(self.dir.path()) {
                Ok(db) => {
                    look(&db, &mut seen).map_err(|error| format!("a reader: {error}"))?;
                    let follower = self.follower.get_or_insert(db);
                    look(follower, &mut seen)
                        .map_err(|error| format!("the reader that follows: {error}"))?;
                }
                // The child has not created it yet.
                Err(Error::NoStore { .. }) => {}
                Err(error) => return Err(format!("a reader beside the writer: {error}")),
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(seen)
    }
}

/// What a reader shows by now of each thread's keys.
fn look(reader: &Db, seen: &mut Vec<(usize, Contents)>) -> pakv::Result<()> {
    reader.refresh()?;
    for thread in 0..THREADS {
        seen.push((thread, contents(reader, thread)?));
    }
    Ok(())
}

/// `check` finds nothing, whoever is writing to the store or was.
pub(crate) fn check_files(dir: &Path) -> Result<(), String> {
    match pakv::check(dir) {
        Ok(report) if report.is_sound() => Ok(()),
        Ok(report) => Err(format!("check finds {:?}", report.findings)),
        // The child has not created it yet.
        Err(Error::NoStore { .. }) => Ok(()),
        Err(error) => Err(format!("a check: {error}")),
    }
}

/// A closed store has its lock, its manifest, one segment without a hint, the active one, and each
/// other one with its hint.
pub(super) fn no_file_is_left_over(dir: &Path) -> Result<(), String> {
    let names = files::names(dir, "");
    let logs: Vec<&str> = names.iter().filter_map(|name| name.strip_suffix(".log")).collect();
    let hints: Vec<&str> = names.iter().filter_map(|name| name.strip_suffix(".hint")).collect();
    let whole = names.len() == logs.len() + hints.len() + 2
        && logs.len() == hints.len() + 1
        && hints.iter().all(|hint| logs.contains(hint))
        && ["LOCK", "MANIFEST"].iter().all(|name| names.iter().any(|other| other == name));
    if whole { Ok(()) } else { Err(format!("a file is left over: {names:?}")) }
}
