//! Every call of a scenario fails in turn: once and for ever, with EIO and with ENOSPC, short, a
//! sync dropping what was pending, and with the power going off in it. After each the store must
//! open again with what it owes, and again when the call that fails is one of that recovery.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use fastrand::Rng;
use pakv::{Clock, ManualClock, Options};

use super::checker::{Failure, panic_text};
use super::crash::CrashMode;
use super::fault::{CallKind, Effect, Fault, FaultError};
use super::history::History;
use super::session::{Session, Setup, Step, Stop};
use super::storage::SimStorage;
use super::workload::{Level, Mix, Op, Value};

/// What a sweep has looked at.
#[derive(Debug, Clone, Copy, Default)]
pub struct SweepTally {
    /// Calls that the scenarios make, each of which was struck.
    pub indices: u64,
    /// How many of them are of a compaction.
    pub in_compaction: u64,
    /// How many of them are of an open.
    pub in_open: u64,
    /// Power that went off in a call.
    pub crash_points: u64,
    /// Calls that failed otherwise.
    pub faults: u64,
    /// Syncs among them: what was pending was dropped.
    pub sync_faults: u64,
    /// Crash points and faults in the recovery from a crash.
    pub compound: u64,
    /// Disks opened and compared afterwards.
    pub states: u64,
}

impl SweepTally {
    /// Adds another's figures.
    pub fn add(&mut self, other: &SweepTally) {
        self.indices += other.indices;
        self.in_compaction += other.in_compaction;
        self.in_open += other.in_open;
        self.crash_points += other.crash_points;
        self.faults += other.faults;
        self.sync_faults += other.sync_faults;
        self.compound += other.compound;
        self.states += other.states;
    }
}

/// What is swept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// The open of a store that a crash has left in the middle of a compaction: outputs that are
    /// not listed, temporary files, a torn tail, hints that are missing.
    Open,
    /// A compaction of everything, and one of what the policy chooses.
    Compaction,
    /// A script of 200 operations, its opens and compactions included.
    Script,
}

/// How much of a scenario is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Depth {
    /// Of so many calls, one is struck. 1: all of them.
    pub every: usize,
    /// How many disks are looked at after each.
    pub crashes: u64,
    /// Of so many calls of the recovery from a crash, one is struck as well. 0: none.
    pub every_compound: usize,
}

const MODES: [CrashMode; 3] = [CrashMode::Kill, CrashMode::Ext4, CrashMode::Posix];

/// What strikes the call; `None`: the power goes off.
type Strike = Option<(Effect, bool)>;

const STRIKES: [Strike; 6] = [
    None,
    Some((Effect::Error(FaultError::Io), false)),
    Some((Effect::Error(FaultError::Io), true)),
    Some((Effect::Error(FaultError::NoSpace), false)),
    Some((Effect::Error(FaultError::NoSpace), true)),
    Some((Effect::Short, false)),
];

/// How often the store of [`Scenario::Open`] is left by a crash in a compaction.
const OPENS: u64 = 8;
const SCRIPT_OPS: usize = 200;

/// Plays a scenario once for each of its calls and each way to fail.
///
/// # Errors
/// The first thing that was wrong.
pub fn sweep(scenario: Scenario, seed: u64, depth: Depth) -> Result<SweepTally, Failure> {
    let mut sweep = Sweep { depth, tally: SweepTally::default(), at: "the preparation".into() };
    let result = catch_unwind(AssertUnwindSafe(|| -> Step {
        for scene in scenes(scenario, seed)? {
            sweep.scene(&scene)?;
        }
        Ok(())
    }));
    let what = match result {
        Ok(Ok(())) => return Ok(sweep.tally),
        Ok(Err(Stop::Wrong(reason))) => reason,
        Ok(Err(Stop::Down)) => "lost: the store did not open again".to_string(),
        Err(panic) => panic_text(&*panic),
    };
    let again = format!("cargo run --release -p pakv-testkit --bin fault_sweep -- {seed}");
    Err(Failure { seed, again, what, trail: vec![format!("{scenario:?}, {}", sweep.at)] })
}

/// What is played, and from where on its calls are struck.
struct Scene {
    disk: SimStorage,
    history: History,
    /// Operations after an open, none of whose calls is struck; `None`: those of the open are.
    before: Option<Vec<Op>>,
    ops: Vec<Op>,
}

fn scenes(scenario: Scenario, seed: u64) -> Step<Vec<Scene>> {
    let mut rng = Rng::with_seed(seed);
    let empty = || (SimStorage::new(seed), History::new());
    let set = Op::Set(0, Value { len: 10, ttl_ms: None }, Level::Sync);
    Ok(match scenario {
        Scenario::Script => {
            let (disk, history) = empty();
            let ops = script(&mut rng, SCRIPT_OPS);
            vec![Scene { disk, history, before: None, ops }]
        }
        Scenario::Compaction => {
            let of = |upkeep: Op, before: Vec<Op>| {
                let (disk, history) = empty();
                Scene { disk, history, before: Some(before), ops: vec![upkeep, set.clone()] }
            };
            let garbage = garbage(&mut rng);
            vec![of(Op::Compact, garbage.clone()), of(Op::Maintain, garbage)]
        }
        Scenario::Open => {
            let mut scenes = Vec::new();
            for number in 0..OPENS {
                let (disk, mut history) = empty();
                let mut session = Session::open(setup(&disk), &mut history, 1)?;
                for op in garbage(&mut rng) {
                    session.apply(&op, &mut history)?;
                }
                disk.power_off_after(rng.u64(5..45));
                if let Err(Stop::Wrong(reason)) = session.apply(&Op::Compact, &mut history) {
                    return Err(Stop::Wrong(reason));
                }
                let disk = session.kill()?.crash(rng.u64(..), MODES[(number % 3) as usize]);
                scenes.push(Scene { disk, history, before: None, ops: vec![set.clone()] });
            }
            scenes
        }
    })
}

impl Scene {
    /// Plays it with a fault. At its end, or where it is stopped, the process ends by itself or
    /// with the machine. Returns the machine, and what the calls struck were part of.
    fn play(&self, machine: &SimStorage, arm: impl Fn(), abrupt: bool) -> Step<History> {
        let mut history = self.history.clone();
        let result = self.steps(machine, arm, &mut history, abrupt);
        match result {
            Ok(()) | Err(Stop::Down) => Ok(history),
            Err(wrong) => Err(wrong),
        }
    }

    fn steps(
        &self,
        machine: &SimStorage,
        arm: impl Fn(),
        history: &mut History,
        abrupt: bool,
    ) -> Step {
        if self.before.is_none() {
            arm();
        }
        let mut session = Session::open(setup(machine), history, 1)?;
        if let Some(before) = &self.before {
            before.iter().try_for_each(|op| session.apply(op, history))?;
            arm();
        }
        let result = self.ops.iter().try_for_each(|op| session.apply(op, history));
        if abrupt {
            machine.power_off();
        }
        result
    }
}

struct Sweep {
    depth: Depth,
    tally: SweepTally,
    /// What is being looked at, for a failure.
    at: String,
}

impl Sweep {
    fn scene(&mut self, scene: &Scene) -> Step {
        let calls = self.dry_run(scene)?;
        for index in (0..calls).step_by(self.depth.every) {
            self.tally.indices += 1;
            for strike in STRIKES {
                // Where the power goes off, the process ends with it either way.
                for &abrupt in if strike.is_none() { &[true][..] } else { &[false, true] } {
                    self.at = format!("call {index}, {strike:?}, abrupt: {abrupt}");
                    self.run(scene, index, strike, abrupt)?;
                }
            }
        }
        Ok(())
    }

    /// Plays the scene undisturbed and learns how many calls it makes, and in what.
    fn dry_run(&mut self, scene: &Scene) -> Step<u64> {
        let machine = scene.disk.copy(0);
        let mut history = scene.history.clone();
        let mut session = Session::open(setup(&machine), &mut history, 1)?;
        let mut in_open = if scene.before.is_none() { machine.calls() } else { 0 };
        for op in scene.before.iter().flatten() {
            session.apply(op, &mut history)?;
        }
        let first = if scene.before.is_none() { 0 } else { machine.calls() };
        let mut in_compaction = 0;
        for op in &scene.ops {
            let before = machine.calls();
            session.apply(op, &mut history)?;
            match op {
                Op::Compact | Op::Maintain | Op::CompactMeanwhile(_) => {
                    in_compaction += machine.calls() - before;
                }
                Op::Reopen => in_open += machine.calls() - before,
                _ => {}
            }
        }
        self.tally.in_compaction += in_compaction / self.depth.every as u64;
        self.tally.in_open += in_open / self.depth.every as u64;
        Ok(machine.calls() - first)
    }

    fn run(&mut self, scene: &Scene, index: u64, strike: Strike, abrupt: bool) -> Step {
        let machine = scene.disk.copy(index);
        let history = scene.play(&machine, || arm(&machine, index, strike), abrupt)?;
        if !self.struck(&machine, strike) {
            return Ok(());
        }
        for seed in 0..self.depth.crashes {
            let mode = MODES[((seed + index) % 3) as usize];
            self.tally.states += 1;
            let found = machine.crash(seed, mode);
            self.look_at(&found.copy(seed), history.clone())?;
            if strike.is_none() && seed == 0 && self.depth.every_compound > 0 {
                self.recover_badly(&found, &history, index)?;
            }
        }
        Ok(())
    }

    /// Whether the fault could happen to the call it was meant for; if so it is counted, and the
    /// machine is off from here on.
    fn struck(&mut self, machine: &SimStorage, strike: Strike) -> bool {
        let fired = machine.fired();
        let went_off = strike.is_none() && machine.is_off();
        machine.power_off();
        self.tally.crash_points += u64::from(went_off);
        self.tally.faults += u64::from(!fired.is_empty());
        let is_sync = |kind| matches!(kind, CallKind::Sync | CallKind::SyncDir);
        self.tally.sync_faults += u64::from(fired.first().is_some_and(|(kind, _)| is_sync(*kind)));
        went_off || !fired.is_empty()
    }

    /// Opens what was found, uses it, and opens it again after another crash.
    fn look_at(&mut self, found: &SimStorage, mut history: History) -> Step {
        let mut session = Session::open(setup_later(found), &mut history, 100)?;
        session.apply(&Op::Compact, &mut history)?;
        session.apply(&Op::Set(1, Value { len: 10, ttl_ms: None }, Level::Sync), &mut history)?;
        // What a kill has left pending, a power cut may take.
        let mode = MODES[(self.tally.states % 3) as usize];
        let found = session.kill()?.crash(self.tally.states, mode);
        Session::open(setup_later(&found), &mut history, 101).map(|_| ())
    }

    /// The recovery from a crash is struck in its turn.
    fn recover_badly(&mut self, found: &SimStorage, history: &History, first: u64) -> Step {
        let calls = {
            let machine = found.copy(0);
            Session::open(setup_later(&machine), &mut history.clone(), 150)?.kill()?;
            machine.calls()
        };
        let at = self.at.clone();
        // Another part of the recovery after each crash.
        let from = first % self.depth.every_compound as u64;
        for index in (from..calls).step_by(self.depth.every_compound) {
            for strike in STRIKES {
                self.at = format!("{at}; in the recovery call {index}, {strike:?}");
                let machine = found.copy(index);
                arm(&machine, index, strike);
                let mut history = history.clone();
                match Session::open(setup_later(&machine), &mut history, 200) {
                    Ok(session) => drop(session),
                    Err(Stop::Down) => {}
                    Err(wrong) => return Err(wrong),
                }
                if self.struck(&machine, strike) {
                    self.tally.compound += 1;
                    self.tally.states += 1;
                    let mode = MODES[(index % 3) as usize];
                    self.look_at(&machine.crash(index, mode), history)?;
                }
            }
        }
        Ok(())
    }
}

fn arm(machine: &SimStorage, index: u64, strike: Strike) {
    match strike {
        None => machine.power_off_after(index),
        Some((effect, forever)) => {
            machine.set_fault(Some(Fault { kind: None, after: index, forever, effect }));
        }
    }
}

fn setup(machine: &SimStorage) -> Setup {
    setup_at(machine, 1_000)
}

/// By the time of an open after a crash half of the expiries of [`MIX`] have passed.
fn setup_later(machine: &SimStorage) -> Setup {
    setup_at(machine, 1_040)
}

fn setup_at(machine: &SimStorage, now_ms: u64) -> Setup {
    let clock = Arc::new(ManualClock::new(now_ms));
    let options = Options::new()
        .background_compaction(false)
        .segment_bytes(512)
        .compaction_min_garbage(1)
        .keydir_merge_keys(3)
        .lock_wait(std::time::Duration::ZERO)
        .clock(clock.clone() as Arc<dyn Clock>);
    let storage = Arc::new(machine.clone());
    Setup { options, clock, last_key: MIX.keys, machine: machine.clone(), storage }
}

const MIX: Mix = Mix {
    keys: 7,
    sync_in_ten: 5,
    value_len_max: 250,
    with_expiry: true,
    forced: true,
    ops_max: SCRIPT_OPS,
};

/// Time stands still in a script: a run of it must be the same whatever was struck before.
fn script(rng: &mut Rng, len: usize) -> Vec<Op> {
    let op = || Some(MIX.op(rng)).filter(|op| !matches!(op, Op::Wait(_)));
    std::iter::repeat_with(op).flatten().take(len).collect()
}

/// Writes that leave several segments with garbage and tombstones, and a tail that is not synced.
fn garbage(rng: &mut Rng) -> Vec<Op> {
    let mut ops = script(rng, 60);
    ops.retain(|op| !matches!(op, Op::Compact | Op::CompactMeanwhile(_) | Op::Maintain));
    ops.push(Op::Delete(1, Level::Buffered));
    ops.push(Op::Set(2, Value { len: 200, ttl_ms: None }, Level::Buffered));
    ops
}
