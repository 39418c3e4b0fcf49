//! How long gets and sets take while the store compacts, against while it does not: one writer and
//! one reader at a fixed pace. Both states have the same load, so that the ratio is compaction's.
//!
//! What is measured is how long each call takes, not how late it was: the pace is far below what the
//! engines can do.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;

use super::Job;
use crate::data::{Random, key};
use crate::engine::{Durability, Engine};
use crate::figures::{Figures, histogram};

/// A figure of the picture; a window counts as busy if a compaction was seen in it.
const WINDOW: Duration = Duration::from_millis(200);
const LOOKS_PER_WINDOW: u32 = 40;
/// Windows of either state that say enough.
const ENOUGH: usize = 20;
/// Bytes a second that the pace does not exceed with long values: the disk is not what is measured.
const PACE_BYTES: u64 = 16 << 20;

pub(super) fn run(job: &Job, out: &mut Figures) -> Result<()> {
    let engine = job.open(Durability::Buffered)?;
    engine.scan(true, &mut |_, _| ())?; // warm
    let mut seen = Seen { start: Instant::now(), idle: two(), busy: two(), windows: [0, 0] };
    // A store that was filled and never overwritten has nothing to compact for a while…
    watch(job, engine.as_ref(), IDLE, &mut seen, out)?;
    // …and one that has been, hardly ever nothing.
    age(job, engine.as_ref())?;
    watch(job, engine.as_ref(), BUSY, &mut seen, out)?;
    for (slot, name) in ["get", "set"].into_iter().enumerate() {
        out.latency(&format!("{name}_idle"), &seen.idle[slot]);
        out.latency(&format!("{name}_busy"), &seen.busy[slot]);
    }
    out.put("busy_windows", seen.windows[BUSY] as f64);
    out.put("idle_windows", seen.windows[IDLE] as f64);
    engine.close()
}

/// Gets and sets at the pace until there are enough windows of the wanted state, or no hope of them.
fn watch(
    job: &Job,
    engine: &dyn Engine,
    wanted: usize,
    seen: &mut Seen,
    out: &mut Figures,
) -> Result<()> {
    let start = Instant::now();
    let (gets, sets) = (Mutex::new(histogram()), Mutex::new(histogram()));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read(job, engine, &stop, &gets));
        let writer = scope.spawn(|| write(job, engine, &stop, &sets));
        let watched = loop {
            let finished = reader.is_finished() || writer.is_finished();
            if finished || seen.enough(job, wanted, start.elapsed()) || job.disk_is_full() {
                break Ok(());
            }
            let busy = window(engine);
            if let Err(error) = seen.add(busy, [&gets, &sets], out) {
                break Err(error);
            }
        };
        stop.store(true, Ordering::Relaxed);
        reader.join().expect("the reader panicked")?;
        writer.join().expect("the writer panicked")?;
        watched
    })
}

/// Overwrites at full speed until the store compacts, and lets it finish: what follows is then
/// neither the first compaction of its life nor long in coming, however large the store.
fn age(job: &Job, engine: &dyn Engine) -> Result<()> {
    let values = job.values();
    let (mut random, mut value) = (Random::new(u64::from(job.run) + 6), Vec::new());
    let (start, most) = (Instant::now(), job.keys);
    let mut compacted = false;
    // No key needs to be overwritten more than about once.
    for turn in 0..most {
        if turn % 256 == 0 {
            compacted |= engine.compacting() == Some(true);
            if compacted || start.elapsed() > job.limit() * 4 {
                break;
            }
        }
        let id = random.below(job.keys);
        values.put(id, turn, &mut value);
        engine.set(&key(id), &value)?;
    }
    super::settle(engine, job.limit() * 2);
    Ok(())
}

/// What was seen so far: of gets and of sets.
struct Seen {
    start: Instant,
    idle: [Histogram<u64>; 2],
    busy: [Histogram<u64>; 2],
    /// Idle ones, busy ones.
    windows: [usize; 2],
}

const IDLE: usize = 0;
const BUSY: usize = 1;

fn two() -> [Histogram<u64>; 2] {
    [histogram(), histogram()]
}

impl Seen {
    fn enough(&self, job: &Job, wanted: usize, elapsed: Duration) -> bool {
        // Who cannot tell, or is never in that state, is not waited for.
        let patience = if self.windows[wanted] == 0 { 2 } else { 6 };
        elapsed >= job.limit() && self.windows[wanted] >= ENOUGH
            || elapsed >= job.limit() * patience
    }

    fn add(
        &mut self,
        busy: bool,
        times: [&Mutex<Histogram<u64>>; 2],
        out: &mut Figures,
    ) -> Result<()> {
        self.windows[if busy { BUSY } else { IDLE }] += 1;
        let at = self.start.elapsed();
        for (slot, (name, times)) in ["get", "set"].into_iter().zip(times).enumerate() {
            let window = std::mem::replace(&mut *times.lock().expect("not poisoned"), histogram());
            let p99 = window.value_at_quantile(0.99) as f64 / 1000.0;
            out.point(&format!("{name}_p99_us"), at.as_secs_f64(), p99);
            let into = if busy { &mut self.busy } else { &mut self.idle };
            into[slot].add(&window)?;
        }
        out.point("compacting", at.as_secs_f64(), f64::from(u8::from(busy)));
        Ok(())
    }
}

/// Waits for a window to pass; whether a compaction was seen in it.
fn window(engine: &dyn Engine) -> bool {
    let mut busy = false;
    for _ in 0..LOOKS_PER_WINDOW {
        std::thread::sleep(WINDOW / LOOKS_PER_WINDOW);
        busy |= engine.compacting() == Some(true);
    }
    busy
}

type Times = Mutex<Histogram<u64>>;

fn read(job: &Job, engine: &dyn Engine, stop: &AtomicBool, times: &Times) -> Result<()> {
    let values = job.values();
    let mut random = Random::new(u64::from(job.run) + 3);
    let mut wrong = 0_u64;
    paced(pace(job), stop, times, |_| {
        let id = random.below(job.keys);
        let key = key(id);
        let mut right = false;
        let before = Instant::now();
        engine.get(&key, &mut |value| right = values.check(id, value))?;
        let time = before.elapsed();
        wrong += u64::from(!right);
        Ok(time)
    })?;
    ensure!(wrong == 0, "{}: {wrong} values are not what was set", job.engine.name());
    Ok(())
}

fn write(job: &Job, engine: &dyn Engine, stop: &AtomicBool, times: &Times) -> Result<()> {
    let values = job.values();
    let (mut random, mut value) = (Random::new(u64::from(job.run) + 4), Vec::new());
    paced(pace(job), stop, times, |turn| {
        let id = random.below(job.keys);
        values.put(id, turn, &mut value);
        let key = key(id);
        let before = Instant::now();
        engine.set(&key, &value)?;
        Ok(before.elapsed())
    })
}

fn pace(job: &Job) -> u64 {
    job.pace.min(PACE_BYTES / job.pair_bytes()).max(1)
}

/// Calls `one` so many times a second, a burst each millisecond, and notes what each call took.
fn paced(
    pace: u64,
    stop: &AtomicBool,
    times: &Times,
    mut one: impl FnMut(u64) -> Result<Duration>,
) -> Result<()> {
    let (start, mut turn) = (Instant::now(), 0);
    let mut burst = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_secs_f64() * pace as f64) as u64;
        // After a pause some of what was missed is made up for, so that pauses do not lower the pace.
        // An engine that cannot keep the pace does what it can; it owes nothing afterwards.
        for _ in 0..due.saturating_sub(turn).min(pace / 200 + 1) {
            turn += 1;
            burst.push(one(turn)?.as_nanos() as u64);
        }
        turn = turn.max(due.saturating_sub(pace / 100));
        {
            let mut times = times.lock().expect("not poisoned");
            burst.drain(..).for_each(|time| times.saturating_record(time));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
