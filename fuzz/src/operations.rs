//! Operations on a store on the simulated disk, with faults, crashes and opens between them, against
//! the model: the checker of the simulation, its choices made by the fuzzer instead of a seed.

use arbitrary::{Result, Unstructured};
use pakv_testkit::sim::{
    CallKind, CrashMode, Effect, Fault, FaultError, Guess, Level, Life, Op, Plan, Value, check_plan,
};

const LIVES_MAX: usize = 4;
const OPS_MAX: usize = 120;
const KEYS: u8 = 8;

/// One input.
pub fn run(data: &[u8]) {
    if let Ok(plan) = plan(&mut Unstructured::new(data))
        && let Err(failure) = check_plan(&plan)
    {
        panic!("{failure}\n{plan:#?}");
    }
}

fn plan(u: &mut Unstructured<'_>) -> Result<Plan> {
    let mut plan = Plan {
        keys: KEYS,
        segment_bytes: *u.choose(&[512, 700, 1024, 4096])?,
        positional: u.arbitrary()?,
        min_garbage_bytes: *u.choose(&[1, 100, 1000])?,
        segment_garbage_ratio: *u.choose(&[0.05, 0.3, 0.6])?,
        space_amplification: *u.choose(&[1.05, 1.4, 3.0, 100.0])?,
        lives: Vec::new(),
    };
    while plan.lives.len() < LIVES_MAX && !u.is_empty() {
        plan.lives.push(life(u)?);
    }
    Ok(plan)
}

fn life(u: &mut Unstructured<'_>) -> Result<Life> {
    let mut life = Life {
        power_off_after: if u.ratio(1, 2)? {
            Some(u64::from(u.arbitrary::<u16>()? % 800))
        } else {
            None
        },
        space_left: if u.ratio(1, 8)? {
            Some(usize::from(u.arbitrary::<u16>()? % 8192))
        } else {
            None
        },
        fault: if u.ratio(1, 4)? { Some(fault(u)?) } else { None },
        hiccups: u.ratio(1, 4)?,
        abrupt: u.arbitrary()?,
        crash: *u.choose(&[CrashMode::Kill, CrashMode::Ext4, CrashMode::Posix])?,
        crash_seed: u64::from(u.arbitrary::<u16>()?),
        ops: Vec::new(),
    };
    // A byte says whether another follows: a mutation in one operation leaves the rest as it is.
    while life.ops.len() < OPS_MAX && !u.is_empty() && u.int_in_range(0..=31)? != 0 {
        life.ops.push(op(u)?);
    }
    Ok(life)
}

fn fault(u: &mut Unstructured<'_>) -> Result<Fault> {
    let kind = match u.int_in_range(0..=3)? {
        0 => None,
        1 => Some(CallKind::Sync),
        2 => Some(CallKind::Write),
        _ => Some(*u.choose(&CallKind::ALL)?),
    };
    let error = *u.choose(&[FaultError::Io, FaultError::NoSpace])?;
    let after = u64::from(u.arbitrary::<u16>()? % if kind.is_none() { 400 } else { 40 });
    Ok(Fault { kind, after, forever: u.ratio(1, 3)?, effect: Effect::Error(error) })
}

fn op(u: &mut Unstructured<'_>) -> Result<Op> {
    Ok(match u.int_in_range(0..=23)? {
        0..=5 => Op::Set(key(u)?, value(u)?, level(u)?),
        6..=8 => Op::Delete(key(u)?, level(u)?),
        9..=10 => Op::Batch(writes(u)?, level(u)?),
        11 => Op::Transaction(writes(u)?, level(u)?),
        12 => Op::CompareAndSet(key(u)?, guess(u)?, value(u)?, level(u)?),
        13 => Op::CompareAndDelete(key(u)?, guess(u)?, level(u)?),
        14 => Op::Expire(key(u)?, ttl_ms(u)?, level(u)?),
        15 => Op::Sync,
        16 => Op::Compact,
        17 => Op::CompactMeanwhile(meanwhile(u)?),
        18..=19 => Op::Maintain,
        20 => Op::Wait(u64::from(u.arbitrary::<u8>()? % 60)),
        21 => Op::Read,
        22 => Op::Snapshot,
        _ => Op::Reopen,
    })
}

/// What is done in the middle of a compaction: everything but another one, or an open.
fn meanwhile(u: &mut Unstructured<'_>) -> Result<Vec<(u64, Op)>> {
    let mut ops = Vec::new();
    for _ in 0..u.int_in_range(1..=4)? {
        let at = u.int_in_range(0..=11)?;
        let op = match u.int_in_range(0..=5)? {
            0..=1 => Op::Set(key(u)?, value(u)?, level(u)?),
            2 => Op::Delete(key(u)?, level(u)?),
            3 => Op::Batch(writes(u)?, level(u)?),
            4 => Op::Snapshot,
            _ => Op::Read,
        };
        ops.push((at, op));
    }
    Ok(ops)
}

fn key(u: &mut Unstructured<'_>) -> Result<u8> {
    u.int_in_range(0..=KEYS - 1)
}

fn value(u: &mut Unstructured<'_>) -> Result<Value> {
    let len = match u.int_in_range(0..=7)? {
        0 => usize::from(u.arbitrary::<u16>()? % 1500),
        _ => usize::from(u.arbitrary::<u8>()?),
    };
    Ok(Value { len, ttl_ms: ttl_ms(u)? })
}

fn ttl_ms(u: &mut Unstructured<'_>) -> Result<Option<u64>> {
    Ok(if u.ratio(1, 4)? { Some(u64::from(u.arbitrary::<u8>()? % 80)) } else { None })
}

fn level(u: &mut Unstructured<'_>) -> Result<Level> {
    Ok(if u.ratio(1, 3)? { Level::Sync } else { Level::Buffered })
}

fn guess(u: &mut Unstructured<'_>) -> Result<Guess> {
    let right = u.arbitrary()?;
    Ok(*u.choose(&[Guess::Absent, Guess::Present, Guess::Value { right }])?)
}

fn writes(u: &mut Unstructured<'_>) -> Result<Vec<(u8, Option<Value>)>> {
    let count = u.int_in_range(1..=5)?;
    (0..count).map(|_| Ok((key(u)?, if u.ratio(2, 3)? { Some(value(u)?) } else { None }))).collect()
}
