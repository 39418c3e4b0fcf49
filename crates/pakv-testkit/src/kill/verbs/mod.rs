//! `kill -9` over the command line: every verb that writes and every one that reads is killed at
//! random moments and before each of its system calls, and others read beside it.
//!
//! A run that says that it is done, by its exit code or by what it printed, is there whole; one
//! that was killed is there whole or not at all, and one of many steps up to some step. What it
//! found there before stays.

mod plan;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use fastrand::Rng;
use pakv::{Db, Durability, Error, Options};
use tempfile::TempDir;

use self::plan::{KINDS, Made, Plan, Row, Rows, rows_as_tsv};
use super::library::{check_files, no_file_is_left_over};
use super::moment::{CALLS, Moment, Sweep, Tally, can_kill_at_calls, doomed, is_of_an_open};
use crate::files;

/// How long a run of a verb takes about, until more is known.
const SPAN_US: u64 = 8_000;

/// Runs on one store, and what it must hold.
#[derive(Debug)]
pub struct VerbKills {
    pakv: PathBuf,
    /// The store, and beside it the files that verbs read and write.
    dir: TempDir,
    rows: Rows,
    /// What the last export left.
    exported: Option<Vec<u8>>,
    /// What the backup shows.
    backed_up: Option<Rows>,
    seed: u64,
    rng: Rng,
    run: u64,
    sweep: Option<Sweep>,
    /// For each kind of run, in which time from its start it is killed.
    span_us: BTreeMap<&'static str, u64>,
    tally: Tally,
}

/// How a run ended.
struct Ended {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: String,
}

impl VerbKills {
    /// Runs of this binary, from a seed. The arguments are the seed's; the moment of a kill stays
    /// the scheduler's.
    pub fn new(pakv: &Path, seed: u64) -> Self {
        let dir = files::scratch();
        let store = dir.path().join("store");
        super::options(seed)
            .open(&store)
            .and_then(|db| db.close())
            .unwrap_or_else(|error| panic!("an empty directory becomes a store: {error}"));
        Self {
            pakv: pakv.to_path_buf(),
            dir,
            rows: Rows::new(),
            exported: None,
            backed_up: None,
            seed,
            rng: Rng::with_seed(seed),
            run: 0,
            sweep: can_kill_at_calls().then(Sweep::default),
            span_us: BTreeMap::new(),
            tally: Tally::default(),
        }
    }

    /// What was done so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// One run of a verb, killed or not, and the checks after it.
    ///
    /// # Errors
    /// What is wrong with the store, which is kept.
    pub fn kill(&mut self) -> Result<(), String> {
        let kind = KINDS[usize::try_from(self.run).unwrap_or(0) % KINDS.len()];
        self.run += 1;
        let plan = Plan::new(kind, &self.rows, self.dir.path(), &mut self.rng);
        let moment = self.moment(kind);
        let (seed, run) = (self.seed, self.run);
        self.run_and_check(&plan, moment).map_err(|problem| {
            self.dir.disable_cleanup(true);
            self.tally.failures += 1;
            format!(
                "PAKV_SEED={seed}, run {run}, {kind} killed {moment:?}: {problem}\nthe command: \
                 pakv {:?}\nthe store is kept in {}",
                plan.args,
                self.dir.path().display()
            )
        })
    }

    fn moment(&mut self, kind: &'static str) -> Moment {
        match &self.sweep {
            // Most calls of a process are its loader's; fewer of them are enough.
            Some(sweep) if self.rng.u8(..3) > 0 => {
                let calls = if self.rng.u8(..8) == 0 { &CALLS[..] } else { &CALLS[..9] };
                sweep.next(kind, self.rng.choice(calls).unwrap_or(&CALLS[0]))
            }
            _ => {
                let span_us = *self.span_us.entry(kind).or_insert(SPAN_US);
                Moment::After(Duration::from_micros(self.rng.u64(..span_us)))
            }
        }
    }

    fn run_and_check(&mut self, plan: &Plan, moment: Moment) -> Result<(), String> {
        let mut command = doomed(&self.pakv, moment);
        self.prepare(&mut command, plan);
        let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let mut seen = 0;
        if self.rng.u8(..3) == 0 {
            seen = self.read_beside(plan).inspect_err(|_| {
                let _ = child.kill();
                let _ = child.wait();
            })?;
        }
        if let Moment::After(delay) = moment {
            std::thread::sleep(delay);
            child.kill().map_err(|error| format!("kill: {error}"))?;
        }
        let output = child.wait_with_output().map_err(|error| format!("wait: {error}"))?;
        let ended = Ended {
            status: output.status,
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        let killed = ended.status.code().is_none();
        self.note(plan.kind, moment, killed);
        let least = plan.least(&ended.stdout, ended.status.code()).map_err(|wrong| {
            format!("{wrong}; {}, it said {}", ended.status, ended.stderr.trim())
        })?;
        self.tally.acknowledged += least as u64;
        self.check_export(plan, killed)?;
        self.check_made(plan, killed)?;
        self.check(plan, least.max(seen))
    }

    fn note(&mut self, kind: &'static str, moment: Moment, killed: bool) {
        if let Some(sweep) = &mut self.sweep {
            sweep.ended(kind, moment, killed);
        }
        let in_open = matches!(moment, Moment::Call { name, .. } if is_of_an_open(name));
        match killed {
            true => self.tally.killed(kind, in_open),
            false => self.tally.survived += 1,
        }
        // So that about three in four are killed in time.
        if let Moment::After(_) = moment {
            let span_us = self.span_us.entry(kind).or_insert(SPAN_US);
            *span_us = if killed { *span_us * 103 / 100 } else { *span_us * 9 / 10 }.max(500);
        }
    }

    fn prepare(&self, command: &mut Command, plan: &Plan) {
        command
            .arg("--db")
            .arg(self.store())
            .args(&plan.args)
            .current_dir(self.dir.path())
            .env_remove("PAKV_DB")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        match &plan.stdin {
            Some(path) => command.stdin(File::open(path).expect("it was just written")),
            None => command.stdin(Stdio::null()),
        };
    }

    /// Another process that reads meanwhile sees the state before some step, or after the last.
    /// Returns the least number of steps that it saw: a kill cannot take them back.
    fn read_beside(&self, plan: &Plan) -> Result<usize, String> {
        let output = self.pakv(&["scan"])?;
        let states = plan.states.iter().map(rows_as_tsv);
        let seen = states.into_iter().position(|state| state == output.stdout);
        seen.ok_or_else(|| {
            let output = String::from_utf8_lossy(&output.stdout);
            format!("a reader beside saw what was never there:\n{output}")
        })
    }

    fn pakv(&self, args: &[&str]) -> Result<Output, String> {
        let output = Command::new(&self.pakv)
            .arg("--db")
            .arg(self.store())
            .args(args)
            .env_remove("PAKV_DB")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("pakv {args:?}: {error}"))?;
        if output.status.success() {
            return Ok(output);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("pakv {args:?}: {}, {said}", output.status))
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// The file of an export is the old one or the new one, whole.
    fn check_export(&mut self, plan: &Plan, killed: bool) -> Result<(), String> {
        let Some(path) = &plan.exports_to else { return Ok(()) };
        let complete = rows_as_tsv(&self.rows);
        let found = std::fs::read(path).ok();
        if found.as_ref() != Some(&complete) && !(killed && found == self.exported) {
            return Err(format!("{} is neither the old file nor the new one", path.display()));
        }
        self.exported = found;
        // Half an export under its temporary name is what a kill leaves: nobody takes it for one.
        for name in files::names(self.dir.path(), ".partial") {
            if !killed {
                return Err(format!("{name} is left over"));
            }
            files::remove(&self.dir.path().join(name));
        }
        Ok(())
    }

    /// A backup is the one before or the new one; a restore is whole or nothing; what `repair` made
    /// is only looked at once it says that it is done.
    fn check_made(&mut self, plan: &Plan, killed: bool) -> Result<(), String> {
        let Some(made) = plan.makes else { return Ok(()) };
        let path = self.dir.path().join(made.name());
        let found = match Options::new().read_only(true).open(&path).and_then(|db| rows(&db)) {
            Ok(found) => Some(found),
            Err(Error::NoStore { .. } | Error::BackupUnfinished { .. }) if killed => None,
            Err(_) if killed && made == Made::Repaired => None,
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        if found.is_some() {
            check_files(&path).map_err(|wrong| format!("{}: {wrong}", path.display()))?;
        }
        let wanted = match made {
            Made::Restored => self.backed_up.as_ref(),
            Made::Backup | Made::Repaired => Some(&self.rows),
        };
        let before = match made {
            Made::Backup => self.backed_up.as_ref(),
            Made::Restored | Made::Repaired => None,
        };
        let is = |state: Option<&Rows>| match (&found, state) {
            (Some(found), Some(state)) => plan::fits(found, state),
            (found, state) => found.is_none() && state.is_none(),
        };
        let is_half = killed && made == Made::Repaired;
        if !(is(wanted) || killed && is(before) || is_half) {
            return Err(format!("{} is neither what it was nor what it should be", path.display()));
        }
        match made {
            Made::Backup => self.backed_up = found,
            Made::Restored | Made::Repaired if path.exists() => {
                std::fs::remove_dir_all(&path).map_err(|error| format!("remove: {error}"))?;
            }
            Made::Restored | Made::Repaired => {}
        }
        Ok(())
    }

    /// Opens the store and takes what is there as the state, if it is one that may be: after
    /// `least` steps or more.
    fn check(&mut self, plan: &Plan, least: usize) -> Result<(), String> {
        check_files(&self.store()).map_err(|wrong| format!("after the kill: {wrong}"))?;
        let found = self.contents()?;
        let fits = |state: &&Rows| plan::fits(&found, state);
        if !plan.states.iter().skip(least).any(|state| fits(&state)) {
            return Err(self.difference(&found, &plan.states[least..]));
        }
        self.rows = found;
        no_file_is_left_over(&self.store())?;
        match self.rng.u8(..6) {
            0 | 1 => files::remove_hints(&self.store()),
            2 => {
                let output = self.pakv(&["export", "--format", "tsv"])?;
                if output.stdout != rows_as_tsv(&self.rows) {
                    return Err("an export is not what the library reads".to_string());
                }
            }
            _ => {}
        }
        if self.rng.bool() {
            self.write_with_the_library()?;
        }
        if self.contents()? != self.rows {
            return Err("the second open found something else than the first".to_string());
        }
        Ok(())
    }

    fn contents(&self) -> Result<Rows, String> {
        let read = || {
            let options = super::options(self.seed).create(false).background_compaction(false);
            let db = options.open(self.store())?;
            let rows = rows(&db)?;
            db.close()?;
            Ok(rows)
        };
        read().map_err(|error: pakv::Error| format!("open: {error}"))
    }

    /// The command line fills a segment of its default size before it seals it; with those of the
    /// library, which are tiny, there is always something to compact.
    fn write_with_the_library(&mut self) -> Result<(), String> {
        let write = |rng: &mut Rng, rows: &mut Rows| {
            let options = super::options(self.seed).durability(Durability::Buffered);
            let db = options.background_compaction(false).open(self.dir.path().join("store"))?;
            for _ in 0..rng.usize(..16) {
                let key = format!("f{:02}", rng.u8(..30)).into_bytes();
                if rng.u8(..4) == 0 {
                    db.delete(&key)?;
                    rows.remove(&key);
                } else {
                    let value = plan::value(rng);
                    db.set(&key, &value)?;
                    rows.insert(key, Row { value, expiry: None });
                }
            }
            db.close()
        };
        write(&mut self.rng, &mut self.rows)
            .map_err(|error: pakv::Error| format!("the library: {error}"))
    }

    /// Says what is lost and what has come back.
    fn difference(&mut self, found: &Rows, states: &[Rows]) -> String {
        let show = |key: &[u8]| key.escape_ascii().to_string();
        let same = |key: &[u8], state: &Rows| match (found.get(key), state.get(key)) {
            (Some(found), Some(row)) => plan::fits_row(found, row),
            (None, None) => true,
            _ => false,
        };
        let every_key = || found.keys().chain(states.iter().flat_map(Rows::keys));
        let wrong: std::collections::BTreeSet<&Vec<u8>> =
            every_key().filter(|key| !states.iter().any(|state| same(key, state))).collect();
        let lost = wrong.iter().filter(|key| states.iter().any(|state| state.contains_key(**key)));
        let revived = wrong.iter().filter(|key| !states.iter().any(|s| s.contains_key(**key)));
        let lost: Vec<String> = lost.map(|key| show(key)).collect();
        let revived: Vec<String> = revived.map(|key| show(key)).collect();
        self.tally.lost += lost.len() as u64;
        self.tally.revived += revived.len() as u64;
        format!("lost or wrong: {lost:?}; revived: {revived:?}; or steps in no order of theirs")
    }
}

fn rows(db: &Db) -> pakv::Result<Rows> {
    let mut rows = Rows::new();
    for entry in db.scan()? {
        let expiry = entry.expires_at_ms().map(|at| (at, at));
        let (key, value) = entry.into_pair()?;
        rows.insert(key, Row { value, expiry });
    }
    Ok(rows)
}
