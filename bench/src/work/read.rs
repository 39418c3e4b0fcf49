//! Works that read. Every value is compared with what it should be, to its last byte, while the
//! clock runs: that costs all engines the same.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Job;
use crate::data::{self, ABSENT, Random, key};
use crate::engine::Durability;
use crate::figures::{Figures, histogram};
use crate::process;

const CLOCK_EVERY: u64 = 256;
/// Gets before the clock starts: mappings are populated and caches filled.
const WARM: u64 = 1_000_000;
/// For how long an engine may tidy up before that.
const PATIENCE: Duration = Duration::from_secs(30);
/// Gets timed one by one, after the measure of speed.
const TIMED: u64 = 200_000;

/// `or` is 0, or [`ABSENT`] for keys that are not there.
pub(super) fn get(job: &Job, or: u64, out: &mut Figures) -> Result<()> {
    let engine = job.open(Durability::Buffered)?;
    let values = job.values();
    let mut random = Random::new(u64::from(job.run));
    super::settle(engine.as_ref(), PATIENCE);
    engine.scan(true, &mut |_, _| ())?;
    let reader = engine.reader()?;
    let mut wrong = 0_u64;
    let mut one = || -> Result<()> {
        let id = random.below(job.keys) | or;
        let there =
            reader.get(&key(id), &mut |value| wrong += u64::from(!values.check(id, value)))?;
        ensure!(there == (or != ABSENT), "{}: key {id} is there: {there}", job.engine.name());
        Ok(())
    };
    let (mut warm, start) = (0, Instant::now());
    while warm < WARM.min(job.keys) && (warm % CLOCK_EVERY != 0 || start.elapsed() < job.limit()) {
        one()?;
        warm += 1;
    }
    let (mut done, start) = (0, Instant::now());
    while done % CLOCK_EVERY != 0 || start.elapsed() < job.limit() {
        one()?;
        done += 1;
    }
    out.put("ops", done as f64 / start.elapsed().as_secs_f64());
    let (mut times, start) = (histogram(), Instant::now());
    while times.len() < TIMED && (times.len() % CLOCK_EVERY != 0 || start.elapsed() < job.limit()) {
        let before = Instant::now();
        one()?;
        times.saturating_record(before.elapsed().as_nanos() as u64);
    }
    out.put("calls", (warm + done + times.len()) as f64);
    out.latency("get", &times);
    ensure!(wrong == 0, "{}: {wrong} values are not what was set", job.engine.name());
    let memory = process::memory()?;
    out.put("anonymous_bytes", memory.anonymous as f64);
    out.put("file_bytes", memory.file as f64);
    drop(reader);
    engine.close()
}

pub(super) fn scan(job: &Job, with_values: bool, out: &mut Figures) -> Result<()> {
    let engine = job.open(Durability::Buffered)?;
    let values = job.values();
    super::settle(engine.as_ref(), PATIENCE);
    engine.scan(true, &mut |_, _| ())?; // warm, as for gets
    let (mut best, mut calls, begun) = (0.0_f64, 0, Instant::now());
    for pass in 0..3 {
        // A scan of a small store takes no time, one of a large store a long one: once is enough.
        if pass > 0 && begun.elapsed() > job.limit() {
            break;
        }
        let (mut count, mut wrong, mut last) = (0_u64, 0_u64, [0; data::KEY_BYTES]);
        let start = Instant::now();
        engine.scan(with_values, &mut |key, value| {
            // The check of a key costs as much as the step to it: its order and its last byte do.
            wrong += u64::from(count > 0 && key <= &last[..]);
            last.copy_from_slice(key);
            if let Some(value) = value {
                let id = u64::from_be_bytes(last[16..].try_into().expect("eight bytes"));
                wrong += u64::from(!values.check(id, value));
            }
            count += 1;
        })?;
        best = best.max(count as f64 / start.elapsed().as_secs_f64());
        calls += count;
        ensure!(count == job.keys, "{}: {count} of {} keys", job.engine.name(), job.keys);
        ensure!(wrong == 0, "{}: {wrong} entries are wrong", job.engine.name());
    }
    // Once more, untimed, for the keys themselves.
    let mut wrong = 0_u64;
    engine.scan(false, &mut |key, _| wrong += u64::from(data::id(key).is_none()))?;
    ensure!(wrong == 0, "{}: {wrong} keys are wrong", job.engine.name());
    out.put("ops", best);
    out.put("calls", calls as f64);
    engine.close()
}
