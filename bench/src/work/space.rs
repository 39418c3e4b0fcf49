//! Endless uniform overwrite: what the store takes on the disk, what it writes, what it remembers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Job;
use crate::data::{Random, key};
use crate::engine::{Durability, Engine};
use crate::figures::Figures;
use crate::process::{self, Written};

const SAMPLE: Duration = Duration::from_millis(250);
/// Looks at memory and disk, which may grow for a moment only, for each point of the picture.
const LOOKS_PER_SAMPLE: u32 = 25;
/// Memory that changes by less than this between two samples does not change.
const MEMORY_STEP: u64 = 1 << 20;
/// How long a store may tidy up after the writes end.
const REST: Duration = Duration::from_secs(8);
/// Times the live bytes that are overwritten before what is measured counts: the steady state…
const SETTLED_AFTER: f64 = 2.0;
/// …and when that was enough of it.
pub(crate) const ENOUGH_AFTER: f64 = 3.0;
/// For how many times the usual limit that is waited for, where it will come.
const PATIENCE: u32 = 24;

pub(super) fn run(job: &Job, out: &mut Figures) -> Result<()> {
    let engine = job.open(Durability::Buffered)?;
    let anonymous = memory_at_rest()?;
    let (sets, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let start = Instant::now();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| overwrite(job, engine.as_ref(), &sets, &stop));
        let watched = watch(job, (&sets, start), anonymous, &|| writer.is_finished(), out);
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("the writer panicked")?;
        watched
    })?;
    out.put("ops", sets.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64());
    let ended = Instant::now();
    out.put("ended_s", (ended - start).as_secs_f64());
    // Where time does not matter, what it is measured with does not either: a quick run.
    let rest = REST.min(job.limit() * 4);
    while ended.elapsed() < rest {
        std::thread::sleep(SAMPLE);
        let space = space(job);
        out.point("space", start.elapsed().as_secs_f64(), space);
        out.put("space_rested", space);
    }
    engine.close()
}

fn overwrite(job: &Job, engine: &dyn Engine, sets: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    let values = job.values();
    let (mut random, mut value) = (Random::new(u64::from(job.run) + 2), Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let turn = sets.fetch_add(1, Ordering::Relaxed);
        let id = random.below(job.keys);
        values.put(id, turn, &mut value);
        engine.set(&key(id), &value)?;
    }
    Ok(())
}

/// What an engine takes once it has tidied up in memory.
pub(super) fn memory_at_rest() -> Result<u64> {
    let (start, mut last, mut quiet) = (Instant::now(), process::anonymous_about()?, 0);
    while quiet < 4 && start.elapsed() < REST {
        std::thread::sleep(SAMPLE);
        let now = process::anonymous_about()?;
        quiet = if now.abs_diff(last) < MEMORY_STEP { quiet + 1 } else { 0 };
        last = now;
    }
    Ok(last)
}

fn space(job: &Job) -> f64 {
    process::disk_bytes(&job.dir) as f64 / job.live_bytes() as f64
}

/// Watches until there is enough to say what the steady state is like, or time is up.
fn watch(
    job: &Job,
    (sets, start): (&AtomicU64, Instant),
    anonymous: u64,
    finished: &dyn Fn() -> bool,
    out: &mut Figures,
) -> Result<()> {
    let pair = job.pair_bytes() as f64;
    // What was written and set when the steady state began.
    let mut steady: Option<(Written, f64)> = None;
    let (mut max, mut peak) = (0.0_f64, 0);
    // As long as the steady state needs. An engine that will not come there in time is let off.
    let patience = job.limit() * PATIENCE;
    let let_off_after = job.limit() * if job.keys > 1_000_000 { 12 } else { 4 };
    loop {
        for _ in 0..LOOKS_PER_SAMPLE {
            std::thread::sleep(SAMPLE / LOOKS_PER_SAMPLE);
            peak = peak.max(process::anonymous_about()?);
            max = max.max(space(job));
        }
        let (at, done) = (start.elapsed(), sets.load(Ordering::Relaxed) as f64);
        let volumes = done * pair / job.live_bytes() as f64;
        out.point("space", at.as_secs_f64(), space(job));
        out.point("overwritten", at.as_secs_f64(), volumes);
        if steady.is_none() && volumes >= SETTLED_AFTER {
            steady = Some((process::written()?, done));
        }
        let enough = at >= job.limit() && volumes >= ENOUGH_AFTER;
        let in_the_end = volumes / at.as_secs_f64() * patience.as_secs_f64();
        let is_let_off = at >= let_off_after && in_the_end < ENOUGH_AFTER;
        if finished() || enough || is_let_off || at >= patience || job.disk_is_full() {
            break;
        }
    }
    // Of an engine that never came so far, nothing is said.
    let (written, done) = (process::written()?, sets.load(Ordering::Relaxed) as f64);
    if let Some((from, done_then)) = steady.filter(|then| done > then.1) {
        out.put("bytes_per_byte", written.since(&from) as f64 / ((done - done_then) * pair));
    }
    out.put("volumes", done * pair / job.live_bytes() as f64);
    out.put("space_max", max);
    out.put("anonymous_grown", peak.saturating_sub(anonymous) as f64);
    Ok(())
}
