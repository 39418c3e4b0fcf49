//! How long gets and sets take while the store compacts, against while it does not: one writer and
//! one reader at a fixed pace, on a store that has been overwritten. Both states have the same load
//! and the same store, so that the ratio is compaction's.
//!
//! A call that takes longer than the pace allows holds up those behind it. Beside what each call took
//! there is what its caller waited: with those that were held up (Gil Tene's correction for coordinated
//! omission, as `record_correct` of HdrHistogram makes it). A store that stands still for a second has
//! one slow call, and fifty thousand callers that waited.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;

use super::Job;
use crate::data::{Random, key};
use crate::engine::{Durability, Engine};
use crate::figures::{Figures, LONGEST, histogram};

/// A point of the picture; a window counts as busy if half of its looks saw a compaction.
const WINDOW: Duration = Duration::from_millis(200);
const LOOKS_PER_WINDOW: u32 = 40;
/// Windows of either state that say enough.
const ENOUGH: usize = 20;
/// So often the store rests and is watched again for more of them.
const ROUNDS: u32 = 2;
/// Bytes a second that the pace does not exceed with long values: the disk is not what is measured.
const PACE_BYTES: u64 = 16 << 20;

pub(super) fn run(job: &Job, out: &mut Figures) -> Result<()> {
    let engine = job.open(Durability::Buffered)?;
    engine.scan(true, &mut |_, _| ())?; // warm
    let mut seen = Seen { start: Instant::now(), times: [two(), two()], windows: [0, 0] };
    age(job, engine.as_ref())?;
    for _ in 0..ROUNDS {
        // Where users pause a store tidies up, and has nothing to do for a while when they go on.
        std::thread::sleep(job.limit() * 3);
        super::settle(engine.as_ref(), job.limit() * 2);
        watch(job, engine.as_ref(), &mut seen, out)?;
        if engine.compacting().is_none() || seen.windows.iter().all(|&windows| windows >= ENOUGH) {
            break;
        }
    }
    for (slot, name) in ["get", "set"].into_iter().enumerate() {
        for (state, times) in ["idle", "busy"].into_iter().zip(&seen.times[slot]) {
            out.latency(&format!("{name}_{state}"), &times.calls);
            out.latency(&format!("{name}_wait_{state}"), &times.waits);
        }
    }
    out.put("busy_windows", seen.windows[BUSY] as f64);
    out.put("idle_windows", seen.windows[IDLE] as f64);
    engine.close()
}

/// Gets and sets at the pace, for half as many windows again as say enough of one state.
fn watch(job: &Job, engine: &dyn Engine, seen: &mut Seen, out: &mut Figures) -> Result<()> {
    let paced = [Paced::new(job), Paced::new(job)];
    let (compacting, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read(job, engine, &paced[0], (&compacting, &stop)));
        let writer = scope.spawn(|| write(job, engine, &paced[1], (&compacting, &stop)));
        let watched = (0..ENOUGH + ENOUGH / 2).try_for_each(|_| {
            if reader.is_finished() || writer.is_finished() || job.disk_is_full() {
                return Ok(());
            }
            let busy = window(engine, &compacting);
            seen.add(busy, &paced, out)
        });
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

/// What was seen so far.
struct Seen {
    start: Instant,
    /// Of gets and of sets: idle, busy.
    times: [[Times; 2]; 2],
    /// Idle ones, busy ones.
    windows: [usize; 2],
}

/// In nanoseconds.
struct Times {
    /// What each call took.
    calls: Histogram<u64>,
    /// What each caller waited, those that a slow call held up among them.
    waits: Histogram<u64>,
}

const IDLE: usize = 0;
const BUSY: usize = 1;

fn two() -> [Times; 2] {
    [(); 2].map(|()| Times { calls: histogram(), waits: histogram() })
}

impl Seen {
    fn add(&mut self, busy: bool, paced: &[Paced; 2], out: &mut Figures) -> Result<()> {
        self.windows[if busy { BUSY } else { IDLE }] += 1;
        let at = self.start.elapsed().as_secs_f64();
        for (slot, name) in ["get", "set"].into_iter().enumerate() {
            let states =
                std::mem::replace(&mut *paced[slot].times.lock().expect("not poisoned"), two());
            let mut window = histogram();
            for (all, new) in self.times[slot].iter_mut().zip(&states) {
                all.calls.add(&new.calls)?;
                all.waits.add(&new.waits)?;
                window.add(&new.waits)?;
            }
            let p99 = window.value_at_quantile(0.99) as f64 / 1000.0;
            out.point(&format!("{name}_p99_us"), at, p99);
        }
        out.point("compacting", at, f64::from(u8::from(busy)));
        Ok(())
    }
}

/// Waits for a window to pass, and shows meanwhile whether the store compacts; whether it did for half of
/// the window.
fn window(engine: &dyn Engine, compacting: &AtomicBool) -> bool {
    let mut busy = 0;
    for _ in 0..LOOKS_PER_WINDOW {
        std::thread::sleep(WINDOW / LOOKS_PER_WINDOW);
        let is_busy = engine.compacting() == Some(true);
        compacting.store(is_busy, Ordering::Relaxed);
        busy += u32::from(is_busy);
    }
    busy * 2 >= LOOKS_PER_WINDOW
}

/// Whether the store compacts, and whether to stop.
type Flags<'a> = (&'a AtomicBool, &'a AtomicBool);

fn read(job: &Job, engine: &dyn Engine, paced: &Paced, flags: Flags<'_>) -> Result<()> {
    let values = job.values();
    let mut random = Random::new(u64::from(job.run) + 3);
    let mut wrong = 0_u64;
    paced.run(flags, |_| {
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

fn write(job: &Job, engine: &dyn Engine, paced: &Paced, flags: Flags<'_>) -> Result<()> {
    let values = job.values();
    let (mut random, mut value) = (Random::new(u64::from(job.run) + 4), Vec::new());
    paced.run(flags, |turn| {
        let id = random.below(job.keys);
        values.put(id, turn, &mut value);
        let key = key(id);
        let before = Instant::now();
        engine.set(&key, &value)?;
        Ok(before.elapsed())
    })
}

/// Calls at a pace, and what they took.
struct Paced {
    /// Calls a second.
    pace: u64,
    /// Idle, busy.
    times: Mutex<[Times; 2]>,
}

impl Paced {
    fn new(job: &Job) -> Self {
        let pace = job.pace.min(PACE_BYTES / job.pair_bytes()).max(1);
        Self { pace, times: Mutex::new(two()) }
    }

    /// Calls `one` so many times a second, a burst each millisecond, until told to stop.
    fn run(
        &self,
        (compacting, stop): Flags<'_>,
        mut one: impl FnMut(u64) -> Result<Duration>,
    ) -> Result<()> {
        let (start, mut turn) = (Instant::now(), 0);
        let (interval, mut burst) = (1_000_000_000 / self.pace, Vec::new());
        while !stop.load(Ordering::Relaxed) {
            let due = (start.elapsed().as_secs_f64() * self.pace as f64) as u64;
            let mut busy = compacting.load(Ordering::Relaxed);
            // Some milliseconds are made up for. What a longer pause held up counts already.
            turn = turn.max(due.saturating_sub((self.pace / 200).max(1)));
            while turn < due {
                turn += 1;
                burst.push(one(turn)?.as_nanos() as u64);
            }
            busy |= compacting.load(Ordering::Relaxed);
            let mut states = self.times.lock().expect("not poisoned");
            let times = &mut states[if busy { BUSY } else { IDLE }];
            for time in burst.drain(..).map(|time: u64| time.min(LONGEST)) {
                times.calls.record(time)?;
                times.waits.record_correct(time, interval)?;
            }
            drop(states);
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}
