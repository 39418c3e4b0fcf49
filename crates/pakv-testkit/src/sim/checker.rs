//! The checker: one seed is one store on one machine, through several lives that end in crashes.
//!
//! After each life some of the disks that its crash could have left are looked at, each on a
//! machine of its own, and one of them is what the next life begins with. Looking at a disk is:
//! crash in its recovery up to three times, open it, compare with the model, look for files left
//! behind; open it without hints, and for reading only; crash right after the open and open again;
//! write, compact, crash and open once more.

use std::any::Any;
use std::collections::HashSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use fastrand::Rng;
use pakv::storage::Storage;
use pakv::{Clock, FileAccess, ManualClock, Options};

use super::crash::CrashMode;
use super::fault::{CallKind, Effect, Fault, FaultError};
use super::history::{History, show};
use super::liar::Lie;
use super::session::{Session, Setup, Step, Stop, wrong};
use super::storage::SimStorage;
use super::workload::{Level, Mix, Op, Value};

/// What is asked of a run besides its seed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Config {
    /// The lie that the storage tells.
    pub lie: Option<Lie>,
}

/// What a run has looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Disks found after a crash, different ones of a crash, opened and compared.
    pub states: u64,
    /// Those among them whose crash was in a compaction.
    pub in_compaction: u64,
    /// Those whose crash was in an open.
    pub in_open: u64,
    /// Faults that struck.
    pub faults: u64,
    /// Calls to the storage.
    pub calls: u64,
}

impl Tally {
    /// Adds another's figures.
    pub fn add(&mut self, other: &Tally) {
        self.states += other.states;
        self.in_compaction += other.in_compaction;
        self.in_open += other.in_open;
        self.faults += other.faults;
        self.calls += other.calls;
    }
}

/// What was wrong, and all that is needed to see it again.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The run's seed.
    pub seed: u64,
    /// The command that runs it again.
    pub again: String,
    /// What was wrong.
    pub what: String,
    /// What was done to the store, and the last calls to its storage.
    pub trail: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trail {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "seed {}: {}", self.seed, self.what)?;
        write!(f, "again: {}", self.again)
    }
}

impl Failure {
    /// The figures of a program that looks for failures: what each kind of them came to. `None`:
    /// nothing was wrong.
    pub fn figures(failure: Option<&Self>) -> String {
        let kinds = ["lost", "revived", "panic"];
        let kind = failure.map(|failure| {
            let kind = kinds.into_iter().find(|kind| failure.what.starts_with(kind));
            kind.unwrap_or("wrong")
        });
        let count = |wanted| u8::from(kind == Some(wanted));
        format!(
            "lost={} revived={} wrong={} panics={}",
            count("lost"),
            count("revived"),
            count("wrong"),
            count("panic")
        )
    }
}

/// Lives of a store in one run, at most.
const LIVES_MAX: u64 = 4;
/// Disks that are looked at after each.
const DISKS_PER_CRASH: usize = 8;
/// Crashes inside a recovery from a crash, and in that one's.
const NESTED_MAX: usize = 3;
/// Calls of the log that a failure shows.
const CALLS_SHOWN: usize = 60;

/// One seeded run.
///
/// # Errors
/// What was wrong, a panic of the engine included.
pub fn check_seed(seed: u64, config: &Config) -> Result<Tally, Failure> {
    let mut run = Run::new(seed, config);
    let result = catch_unwind(AssertUnwindSafe(|| run.lives()));
    let what = match result {
        Ok(Ok(()) | Err(Stop::Down)) => return Ok(run.tally),
        Ok(Err(Stop::Wrong(what))) => what,
        Err(panic) => panic_text(&*panic),
    };
    let log = run.watched.log();
    let calls = log.iter().skip(log.len().saturating_sub(CALLS_SHOWN)).map(ToString::to_string);
    let trail = std::mem::take(&mut run.trail).into_iter().chain(calls).collect();
    let again = format!("cargo run -p pakv-testkit --bin crash_soak -- 1 {seed}");
    Err(Failure { seed, again, what, trail })
}

/// A panic of the engine, as a finding.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
    format!("panic: {}", text.unwrap_or_default())
}

struct Run {
    rng: Rng,
    mix: Mix,
    options: Options,
    clock: Arc<ManualClock>,
    lie: Option<Lie>,
    /// The machine of the store's next life.
    machine: SimStorage,
    /// The one that something is happening on, for its log.
    watched: SimStorage,
    history: History,
    sessions: u64,
    /// In what the life ended.
    ended_in: EndedIn,
    trail: Vec<String>,
    tally: Tally,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EndedIn {
    Open,
    Compaction,
    Else,
}

/// When power goes off in a life.
#[derive(Debug, Clone, Copy)]
enum PowerOff {
    /// In the open, or soon after.
    Early(u64),
    /// Anywhere.
    AtCall(u64),
    /// In the first compaction after so many operations.
    InCompaction(usize, u64),
    /// Between operations.
    AtTheEnd,
}

impl Run {
    fn new(seed: u64, config: &Config) -> Self {
        let mut rng = Rng::with_seed(seed);
        let clock = Arc::new(ManualClock::new(1_000_000));
        let mix = Mix::random(&mut rng);
        let options = options(&mut rng, &mix, &clock);
        let machine = SimStorage::new(rng.u64(..));
        Self {
            mix,
            trail: vec![format!("{mix:?} {options:?}")],
            options,
            clock,
            lie: config.lie,
            watched: machine.clone(),
            machine,
            history: History::new(),
            sessions: 0,
            ended_in: EndedIn::Else,
            tally: Tally::default(),
            rng,
        }
    }

    fn lives(&mut self) -> Step {
        for _ in 0..self.rng.u64(1..=LIVES_MAX) {
            let fired_before = self.machine.fired().len();
            match self.live() {
                Ok(()) | Err(Stop::Down) => {}
                Err(wrong) => return Err(wrong),
            }
            self.machine.power_off();
            self.tally.calls += self.machine.calls();
            self.tally.faults += (self.machine.fired().len() - fired_before) as u64;
            if let Some(violation) = self.machine.violations().first() {
                return wrong(violation);
            }
            self.look_at_crashes()?;
        }
        Ok(())
    }

    /// One life of the store: from an open to a crash or a fault.
    fn live(&mut self) -> Step {
        let machine = self.machine.clone();
        let power_off = self.plan_power_off();
        self.note(|| format!("a life: {power_off:?}"));
        match power_off {
            PowerOff::Early(calls) | PowerOff::AtCall(calls) => machine.power_off_after(calls),
            PowerOff::InCompaction(..) | PowerOff::AtTheEnd => {}
        }
        machine.set_hiccups(self.rng.u8(0..4) == 0);
        if self.rng.u8(0..4) == 0 {
            self.set_fault(&machine);
        }
        self.ended_in = EndedIn::Open;
        let mut history = self.history.clone();
        let mut session = self.open(&machine, &mut history)?;
        self.history = history;
        self.ended_in = EndedIn::Else;
        let result = self.operate(&mut session, power_off);
        // A process may come to its own end before the machine does.
        if self.rng.bool() {
            machine.power_off();
        }
        result
    }

    fn operate(&mut self, session: &mut Session, power_off: PowerOff) -> Step {
        for index in 0..self.rng.usize(0..self.mix.ops_max) {
            let op = self.mix.op(&mut self.rng);
            self.ended_in = match op {
                Op::Compact | Op::CompactMeanwhile(_) | Op::Maintain => EndedIn::Compaction,
                Op::Reopen => EndedIn::Open,
                _ => EndedIn::Else,
            };
            if let PowerOff::InCompaction(from, calls) = power_off
                && index >= from
                && self.ended_in == EndedIn::Compaction
            {
                self.machine.power_off_after(calls);
            }
            self.note(|| format!("{op:?}"));
            session.apply(&op, &mut self.history)?;
        }
        self.ended_in = EndedIn::Else;
        Ok(())
    }

    fn plan_power_off(&mut self) -> PowerOff {
        match self.rng.u8(0..6) {
            0 => PowerOff::Early(self.rng.u64(0..40)),
            1 | 2 => PowerOff::AtCall(self.rng.u64(0..8 * self.mix.ops_max as u64)),
            3 | 4 => {
                PowerOff::InCompaction(self.rng.usize(0..self.mix.ops_max), self.rng.u64(0..60))
            }
            _ => PowerOff::AtTheEnd,
        }
    }

    fn set_fault(&mut self, machine: &SimStorage) {
        let rng = &mut self.rng;
        if rng.u8(0..8) == 0 {
            let space = machine.used_bytes() + rng.usize(0..8192);
            machine.set_space(space);
            self.note(|| format!("the disk is full at {space} bytes"));
            return;
        }
        let kind = match rng.u8(0..4) {
            0 => None,
            1 => Some(CallKind::Sync),
            2 => Some(CallKind::Write),
            _ => rng.choice(CallKind::ALL),
        };
        let error = if rng.bool() { FaultError::Io } else { FaultError::NoSpace };
        let after = rng.u64(0..if kind.is_none() { 400 } else { 40 });
        let forever = rng.u8(0..3) == 0;
        let fault = Fault { kind, after, forever, effect: Effect::Error(error) };
        machine.set_fault(Some(fault));
        self.note(|| format!("{fault:?}"));
    }

    fn open(&mut self, machine: &SimStorage, history: &mut History) -> Step<Session> {
        self.watched = machine.clone();
        self.sessions += 1;
        Session::open(self.setup(machine, &self.options), history, self.sessions)
    }

    fn setup(&self, machine: &SimStorage, options: &Options) -> Setup {
        let storage: Arc<dyn Storage> = match self.lie {
            Some(lie) => lie.over(machine.clone()),
            None => Arc::new(machine.clone()),
        };
        let (options, clock) = (options.clone(), self.clock.clone());
        let last_key = self.mix.keys;
        Setup { options, clock, last_key, machine: machine.clone(), storage }
    }

    /// Looks at some of what the crash can have left; the next life begins with another.
    fn look_at_crashes(&mut self) -> Step {
        let crashed = self.machine.clone();
        let mut seen = HashSet::new();
        for _ in 0..DISKS_PER_CRASH {
            let machine = self.crash(&crashed);
            if !seen.insert(machine.fingerprint()) {
                continue;
            }
            self.count();
            let trail = self.trail.len();
            self.look_at(machine)?;
            self.trail.truncate(trail);
        }
        self.machine = self.crash(&crashed);
        Ok(())
    }

    fn crash(&mut self, machine: &SimStorage) -> SimStorage {
        let mode = match self.rng.u8(0..8) {
            0 => CrashMode::Kill,
            1..4 => CrashMode::Ext4,
            _ => CrashMode::Posix,
        };
        let seed = self.rng.u64(..);
        self.note(|| format!("crash {mode:?} {seed}"));
        let machine = machine.crash(seed, mode);
        machine.set_hiccups(self.rng.u8(0..8) == 0);
        machine
    }

    fn count(&mut self) {
        self.tally.states += 1;
        match self.ended_in {
            EndedIn::Open => self.tally.in_open += 1,
            EndedIn::Compaction => self.tally.in_compaction += 1,
            EndedIn::Else => {}
        }
    }

    /// One disk as it is found after a crash, with the model of the store on it.
    fn look_at(&mut self, found: SimStorage) -> Step {
        let mut history = self.history.clone();
        let found = self.crash_in_recovery(found, &mut history)?;
        let copy = self.rng.u64(..);
        let before = history.clone();
        let session = self.open(&found.copy(copy), &mut history)?;
        let contents = session.contents()?;
        session.check_files()?;
        if self.rng.u8(0..4) == 0 {
            let bare = found.copy(copy);
            bare.erase(|name| name.ends_with(".hint"));
            let bare = self.open(&bare, &mut before.clone())?;
            let without = bare.contents()?;
            if without != contents {
                let (with, without) = (show(&contents), show(&without));
                return wrong(format!("with hints {with}, without {without}"));
            }
        }
        if self.rng.u8(0..8) == 0 {
            self.look_only(&found.copy(copy), &history)?;
        }
        if self.rng.u8(0..8) == 0 {
            self.damage(&found.copy(copy), &mut history.clone())?;
        }
        self.note(|| "opened; killed, opened again".to_string());
        let killed = session.kill()?;
        let crashed = self.crash(&killed);
        let mut session = self.open(&crashed, &mut history)?;
        if self.rng.bool() {
            return Ok(());
        }
        for op in self.afterwards() {
            self.note(|| format!("afterwards {op:?}"));
            session.apply(&op, &mut history)?;
        }
        let killed = session.kill()?;
        let crashed = self.crash(&killed);
        self.open(&crashed, &mut history).map(|_| ())
    }

    /// Up to three crashes, each in the recovery from the one before.
    fn crash_in_recovery(
        &mut self,
        mut machine: SimStorage,
        history: &mut History,
    ) -> Step<SimStorage> {
        for _ in 0..NESTED_MAX {
            if self.rng.bool() {
                break;
            }
            let calls = self.rng.u64(0..60);
            self.note(|| format!("power goes off {calls} calls into the open"));
            machine.power_off_after(calls);
            match self.open(&machine, history) {
                Ok(session) => {
                    session.kill()?;
                }
                Err(Stop::Down) => {}
                Err(wrong) => return Err(wrong),
            }
            machine.power_off();
            machine = self.crash(&machine);
            self.tally.states += 1;
            self.tally.in_open += 1;
        }
        Ok(machine)
    }

    /// Opened for reading only, the store shows the same and is not written to.
    fn look_only(&mut self, machine: &SimStorage, history: &History) -> Step {
        let setup = self.setup(machine, &self.options.clone().read_only(true));
        self.watched = machine.clone();
        if machine.names().iter().all(|name| name != "MANIFEST") {
            return Ok(());
        }
        let db = setup.options.clone().open_storage(setup.storage.clone());
        let db = db.or_else(|error| wrong(format!("open for reading only failed: {error}")))?;
        Session::around(setup, db).check_contents(history)?;
        let calls = machine.log();
        match calls.iter().find(|call| call.kind.is_write()) {
            Some(call) => wrong(format!("a store open for reading only was written to: {call}")),
            None => Ok(()),
        }
    }

    /// A bit of a store that was closed cleanly is flipped: the truth or an error, never anything
    /// else. All of its bytes are known durable, so none of them passes for a torn tail.
    fn damage(&mut self, machine: &SimStorage, history: &mut History) -> Step {
        self.open(machine, history)?.close()?;
        let files = machine.names();
        let name = self.rng.choice(files).unwrap_or_default();
        let offset = self.rng.usize(0..machine.file_len(&name).unwrap_or(0).max(1));
        if !machine.flip(&name, offset, self.rng.u8(0..8)) {
            return Ok(());
        }
        self.note(|| format!("a bit of {name} flips at byte {offset}"));
        let setup = self.setup(machine, &self.options);
        match setup.options.clone().open_storage(setup.storage.clone()) {
            Ok(db) => Session::around(setup, db).check_damaged(history),
            Err(error) if is_damage(&error) => Ok(()),
            Err(error) => wrong(format!("damage was reported as: {error}")),
        }
    }

    /// Operations that would bring out what recovery has hidden.
    fn afterwards(&mut self) -> Vec<Op> {
        let (value, key) = (Value { len: 10, ttl_ms: None }, self.mix.keys);
        let upkeep = if self.mix.forced { Op::Compact } else { Op::Maintain };
        let mut ops = vec![upkeep, Op::Set(key, value, Level::Buffered)];
        ops.extend((0..self.rng.usize(0..6)).map(|_| self.mix.op(&mut self.rng)));
        ops.extend([Op::Maintain, Op::Set(key, value, Level::Sync)]);
        ops.retain(|op| !matches!(op, Op::Wait(_)));
        ops
    }

    fn note(&mut self, what: impl Fn() -> String) {
        self.trail.push(what());
    }
}

/// Whether an error says that the bytes are not those that were written.
fn is_damage(error: &pakv::Error) -> bool {
    error.is_corruption() || matches!(error, pakv::Error::UnknownFormat { .. })
}

/// Options that make every run rotate and compact. Where compaction is not forced the whole store
/// has room enough, mostly, and single segments are chosen by their own garbage.
fn options(rng: &mut Rng, mix: &Mix, clock: &Arc<ManualClock>) -> Options {
    let method = if rng.bool() { FileAccess::Mapped } else { FileAccess::Positional };
    let amplification = if mix.forced { [1.05, 1.4, 3.0] } else { [1.4, 3.0, 100.0] };
    // Some stores do without hints; looked at from aside, so that seeds mean what they meant.
    let hintless_from = if rng.clone().u8(0..3) == 0 { 0 } else { u64::MAX };
    Options::new()
        .background_compaction(false)
        .segment_bytes([512, 700, 1024, 2048, 4096][rng.usize(0..5)])
        .compaction_min_garbage([1, 100, 1000][rng.usize(0..3)])
        .keydir_merge_keys(3)
        .compaction_segment_garbage_ratio([0.05, 0.3, 0.6][rng.usize(0..3)])
        .compaction_space_amplification(amplification[rng.usize(0..3)])
        .hintless_segments_from(hintless_from)
        .file_access(method)
        .lock_wait(std::time::Duration::ZERO)
        .clock(clock.clone() as Arc<dyn Clock>)
}
