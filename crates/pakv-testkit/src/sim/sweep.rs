//! Every call of one scripted run fails in turn: once and for ever, with EIO and with ENOSPC,
//! short, and with the power going off. After each the store must open again with what it owes.

use std::sync::Arc;

use pakv::{Clock, ManualClock, Options};

use super::checker::Failure;
use super::crash::CrashMode;
use super::fault::{Effect, Fault, FaultError};
use super::history::History;
use super::session::{Session, Setup, Step, Stop};
use super::storage::SimStorage;
use super::workload::{Level, Op, Value};

/// What a sweep has looked at.
#[derive(Debug, Clone, Copy, Default)]
pub struct SweepTally {
    /// Calls that the script makes.
    pub calls: u64,
    /// How many of them are of a compaction.
    pub in_compaction: u64,
    /// How many of them are of an open.
    pub in_open: u64,
    /// Runs of the script with a fault in them.
    pub runs: u64,
    /// Disks opened and compared afterwards.
    pub states: u64,
}

const MODES: [CrashMode; 3] = [CrashMode::Kill, CrashMode::Ext4, CrashMode::Posix];

/// What strikes the call.
const STRIKES: [Option<(Effect, bool)>; 6] = [
    None,
    Some((Effect::Error(FaultError::Io), false)),
    Some((Effect::Error(FaultError::Io), true)),
    Some((Effect::Error(FaultError::NoSpace), false)),
    Some((Effect::Error(FaultError::NoSpace), true)),
    Some((Effect::Short, false)),
];

/// Runs the script once for each of its calls and each way to fail. `crashes`: how many disks are
/// looked at after each.
///
/// # Errors
/// The first thing that was wrong; its seed is the index of the call.
pub fn sweep_script(crashes: u64) -> Result<SweepTally, Failure> {
    let mut tally = SweepTally::default();
    let calls = dry_run(&mut tally).map_err(|stop| failure(0, "nothing", stop))?;
    for index in 0..calls {
        for strike in STRIKES {
            for abrupt in [false, true] {
                let text = format!("call {index}, {strike:?}, abrupt: {abrupt}");
                run(index, strike, abrupt, crashes, &mut tally)
                    .map_err(|stop| failure(index, &text, stop))?;
            }
        }
    }
    Ok(tally)
}

fn failure(seed: u64, what: &str, stop: Stop) -> Failure {
    let reason = match stop {
        Stop::Wrong(reason) => reason,
        Stop::Down => "the store did not open again".to_string(),
    };
    let again = "cargo test -p pakv-testkit --test sim any_single_call".to_string();
    Failure { seed, again, what: format!("{what}: {reason}"), trail: Vec::new() }
}

/// Runs the script undisturbed and learns how many calls it makes, and in what.
fn dry_run(tally: &mut SweepTally) -> Step<u64> {
    let machine = SimStorage::new(0);
    let mut history = History::new();
    let mut session = Session::open(setup(&machine), &mut history, 1)?;
    tally.in_open = machine.calls();
    for op in script() {
        let before = machine.calls();
        session.apply(&op, &mut history)?;
        match op {
            Op::Compact | Op::Maintain => tally.in_compaction += machine.calls() - before,
            Op::Reopen => tally.in_open += machine.calls() - before,
            _ => {}
        }
    }
    tally.calls = machine.calls();
    Ok(tally.calls)
}

fn run(
    index: u64,
    strike: Option<(Effect, bool)>,
    abrupt: bool,
    crashes: u64,
    tally: &mut SweepTally,
) -> Step {
    let machine = SimStorage::new(index);
    match strike {
        None => machine.power_off_after(index),
        Some((effect, forever)) => {
            machine.set_fault(Some(Fault { kind: None, after: index, forever, effect }));
        }
    }
    let mut history = History::new();
    match play(&machine, abrupt, &mut history) {
        Ok(()) | Err(Stop::Down) => {}
        Err(wrong) => return Err(wrong),
    }
    let struck = machine.is_off() || !machine.fired().is_empty();
    machine.power_off();
    // A fault that cannot happen to this call leaves an undisturbed run.
    if !struck {
        return Ok(());
    }
    tally.runs += 1;
    for seed in 0..crashes {
        let mode = MODES[(seed % 3) as usize];
        tally.states += 1;
        let mut history = history.clone();
        let found = machine.crash(seed, mode);
        let mut session = Session::open(setup(&found), &mut history, 100)?;
        session.apply(&Op::Compact, &mut history)?;
        session.apply(&Op::Set(1, Value { len: 10, ttl_ms: None }, Level::Sync), &mut history)?;
        // What a kill has left pending, a power cut may take.
        let found = session.kill()?.crash(seed, MODES[((seed + seed / 3 + 1) % 3) as usize]);
        Session::open(setup(&found), &mut history, 101)?;
    }
    Ok(())
}

/// Plays the script. At its end, or where it is stopped, the process ends by itself or with the
/// machine.
fn play(machine: &SimStorage, abrupt: bool, history: &mut History) -> Step {
    let mut session = Session::open(setup(machine), history, 1)?;
    let result = script().iter().try_for_each(|op| session.apply(op, history));
    if abrupt {
        machine.power_off();
    }
    result
}

fn setup(machine: &SimStorage) -> Setup {
    let clock = Arc::new(ManualClock::new(1_000));
    let options = Options::new()
        .background_compaction(false)
        .segment_bytes(512)
        .compaction_min_garbage(1)
        .lock_wait(std::time::Duration::ZERO)
        .clock(clock.clone() as Arc<dyn Clock>);
    let storage = Arc::new(machine.clone());
    Setup { options, clock, last_key: 5, machine: machine.clone(), storage }
}

/// Rotation, batches, deletes, compaction, opens with and without garbage.
fn script() -> Vec<Op> {
    let value = |len| Value { len, ttl_ms: None };
    let mut ops = Vec::new();
    for number in 0..4 {
        ops.push(Op::Set(number, value(100), Level::Sync));
    }
    ops.push(Op::Set(0, value(40), Level::Buffered));
    ops.push(Op::Batch(vec![(1, Some(value(60))), (2, None), (4, Some(value(200)))], Level::Sync));
    ops.push(Op::Delete(3, Level::Buffered));
    ops.push(Op::Compact);
    ops.push(Op::Set(5, Value { len: 300, ttl_ms: Some(10_000) }, Level::Buffered));
    ops.push(Op::Reopen);
    ops.push(Op::Delete(4, Level::Sync));
    ops.push(Op::Set(0, value(250), Level::Buffered));
    ops.push(Op::Sync);
    ops.push(Op::Maintain);
    ops.push(Op::Delete(0, Level::Sync));
    ops.push(Op::Set(1, value(20), Level::Buffered));
    ops.push(Op::Compact);
    ops.push(Op::Set(2, value(20), Level::Sync));
    ops
}
