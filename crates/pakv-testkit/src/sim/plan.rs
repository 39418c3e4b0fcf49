//! A run whose every choice is given, for a fuzzer: lives of a store, each with its faults, its
//! operations and its crash. What is checked is what a seeded run checks (`checker`), in the order
//! in which it is given and with nothing drawn.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use pakv::{Clock, FileAccess, ManualClock, Options};

use super::checker::Failure;
use super::crash::CrashMode;
use super::fault::Fault;
use super::history::{History, show};
use super::session::{Session, Setup, Step, Stop, wrong};
use super::storage::SimStorage;
use super::workload::Op;

/// A store's options and its lives.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "named after the setters of Options")]
pub struct Plan {
    /// Keys are numbered from 0 to one less than this.
    pub keys: u8,
    pub segment_bytes: u64,
    /// Whether sealed segments are read by position instead of through a mapping.
    pub positional: bool,
    pub min_garbage_bytes: u64,
    pub segment_garbage_ratio: f64,
    pub space_amplification: f64,
    pub lives: Vec<Life>,
}

/// From an open to a crash.
#[derive(Debug, Clone)]
pub struct Life {
    /// How many calls after its begin power goes off; `None`: at its end.
    pub power_off_after: Option<u64>,
    /// How many bytes more the disk has room for; `None`: any number.
    pub space_left: Option<usize>,
    /// The call that fails.
    pub fault: Option<Fault>,
    /// Whether reads and writes are sometimes short or interrupted.
    pub hiccups: bool,
    /// Whether the machine goes down with the process, and not after it has come to its end.
    pub abrupt: bool,
    /// What is done to the store.
    pub ops: Vec<Op>,
    /// How the machine goes down.
    pub crash: CrashMode,
    /// Which of the disks that this can leave the next life finds.
    pub crash_seed: u64,
}

/// Carries out a plan, and after each of its crashes opens what was left in other ways too: without
/// hints, for reading only, and again.
///
/// # Errors
/// What was wrong, a panic of the engine included.
pub fn check_plan(plan: &Plan) -> Result<(), Failure> {
    let mut run = Run::new(plan);
    let what = match catch_unwind(AssertUnwindSafe(|| run.lives(plan))) {
        Ok(Ok(()) | Err(Stop::Down)) => return Ok(()),
        Ok(Err(Stop::Wrong(what))) => what,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            format!("panic: {}", text.unwrap_or_default())
        }
    };
    let trail = run.machine.log().iter().rev().take(60).rev().map(ToString::to_string).collect();
    Err(Failure { seed: 0, again: "the same plan".to_string(), what, trail })
}

struct Run {
    options: Options,
    clock: Arc<ManualClock>,
    machine: SimStorage,
    history: History,
    last_key: u8,
    sessions: u64,
}

impl Run {
    fn new(plan: &Plan) -> Self {
        let clock = Arc::new(ManualClock::new(1_000_000));
        let method = if plan.positional { FileAccess::Positional } else { FileAccess::Mapped };
        let options = Options::new()
            .background_compaction(false)
            .segment_bytes(plan.segment_bytes)
            .compaction_min_garbage(plan.min_garbage_bytes)
            .keydir_merge_keys(3)
            .compaction_segment_garbage_ratio(plan.segment_garbage_ratio)
            .compaction_space_amplification(plan.space_amplification)
            .file_access(method)
            .lock_wait(std::time::Duration::ZERO)
            .clock(clock.clone() as Arc<dyn Clock>);
        Self {
            options,
            clock,
            machine: SimStorage::new(0),
            history: History::new(),
            last_key: plan.keys.saturating_sub(1),
            sessions: 0,
        }
    }

    fn lives(&mut self, plan: &Plan) -> Step {
        for life in &plan.lives {
            match self.live(life) {
                Ok(()) | Err(Stop::Down) => {}
                Err(wrong) => return Err(wrong),
            }
            self.machine.power_off();
            if let Some(violation) = self.machine.violations().first() {
                return wrong(violation);
            }
            self.machine = self.machine.crash(life.crash_seed, life.crash);
            self.look_at_crash()?;
        }
        Ok(())
    }

    fn live(&mut self, life: &Life) -> Step {
        let machine = self.machine.clone();
        if let Some(calls) = life.power_off_after {
            machine.power_off_after(calls);
        }
        if let Some(bytes) = life.space_left {
            machine.set_space(machine.used_bytes() + bytes);
        }
        machine.set_fault(life.fault);
        machine.set_hiccups(life.hiccups);
        let mut history = self.history.clone();
        let mut session = self.open(&machine, &mut history, &self.options.clone())?;
        self.history = history;
        let result = life.ops.iter().try_for_each(|op| session.apply(op, &mut self.history));
        if life.abrupt {
            machine.power_off();
        }
        result
    }

    /// What the crash left, looked at on machines of its own: the next life finds it untouched.
    fn look_at_crash(&mut self) -> Step {
        let options = self.options.clone();
        let before = self.history.clone();
        let copy = self.machine.copy(1);
        let session = self.open(&copy, &mut before.clone(), &options)?;
        let contents = session.contents()?;
        session.close()?;
        let mut history = before.clone();
        let session = self.open(&copy, &mut history, &options)?;
        if session.contents()? != contents {
            return wrong("a second open shows something else");
        }
        drop(session);
        let bare = self.machine.copy(2);
        bare.erase(|name| name.ends_with(".hint"));
        let without = self.open(&bare, &mut before.clone(), &options)?.contents()?;
        if without != contents {
            let (with, without) = (show(&contents), show(&without));
            return wrong(format!("with hints {with}, without {without}"));
        }
        let reading = self.machine.copy(3);
        if reading.names().iter().all(|name| name != "MANIFEST") {
            return Ok(());
        }
        let setup = self.setup(&reading, &options.read_only(true));
        let db = setup.options.clone().open_storage(setup.storage.clone());
        let db = db.or_else(|error| wrong(format!("open for reading only failed: {error}")))?;
        let found = Session::around(setup, db).contents()?;
        if found != contents {
            return wrong("a reader sees something else");
        }
        match reading.log().iter().find(|call| call.kind.is_write()) {
            Some(call) => wrong(format!("a store open for reading only was written to: {call}")),
            None => Ok(()),
        }
    }

    fn open(
        &mut self,
        machine: &SimStorage,
        history: &mut History,
        options: &Options,
    ) -> Step<Session> {
        self.sessions += 1;
        Session::open(self.setup(machine, options), history, self.sessions)
    }

    fn setup(&self, machine: &SimStorage, options: &Options) -> Setup {
        Setup {
            options: options.clone(),
            clock: self.clock.clone(),
            last_key: self.last_key,
            machine: machine.clone(),
            storage: Arc::new(machine.clone()),
        }
    }
}
