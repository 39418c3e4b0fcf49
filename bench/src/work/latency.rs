//! How long gets and sets take while the store compacts, against while it does not: one writer and
//! one reader at a fixed pace, from a store without garbage on. Both states have the same load.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;

use super::Job;
use crate::data::{Random, key};
use crate::engine::Durability;
use crate::figures::{Figures, histogram};

/// A figure of the picture; a window counts as busy if a compaction was seen in it.
const WINDOW: Duration = Duration::from_millis(250);
const LOOKS_PER_WINDOW: u32 = 25;

pub(super) fn run(job: &Job, out: &mut Figures) -> Result<()> {
    let engine = job.open(Durability::Buffered)?;
    let values = job.values();
    engine.scan(true, &mut |_, _| ())?; // warm
    let stop = AtomicBool::new(false);
    let (gets, sets) = (Mutex::new(histogram()), Mutex::new(histogram()));
    let wrong = AtomicU64::new(0);
    let mut busy = [histogram(), histogram()];
    let mut idle = [histogram(), histogram()];
    let start = Instant::now();
    let limit = job.limit() * 2;
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut random = Random::new(u64::from(job.run) + 3);
            paced(job.pace, &stop, &gets, |_| {
                let id = random.below(job.keys);
                let key = key(id);
                let before = Instant::now();
                let mut right = false;
                engine.get(&key, &mut |value| right = values.check(id, value))?;
                let time = before.elapsed();
                wrong.fetch_add(u64::from(!right), Ordering::Relaxed);
                Ok(time)
            })
        });
        let writer = scope.spawn(|| {
            let (mut random, mut value) = (Random::new(u64::from(job.run) + 4), Vec::new());
            paced(job.pace, &stop, &sets, |turn| {
                let id = random.below(job.keys);
                values.put(id, turn, &mut value);
                let key = key(id);
                let before = Instant::now();
                engine.set(&key, &value)?;
                Ok(before.elapsed())
            })
        });
        while start.elapsed() < limit && !reader.is_finished() && !writer.is_finished() {
            let mut compacting = None;
            for _ in 0..LOOKS_PER_WINDOW {
                std::thread::sleep(WINDOW / LOOKS_PER_WINDOW);
                compacting = engine.compacting().map(|now| now || compacting == Some(true));
            }
            let at = start.elapsed().as_secs_f64();
            let into = if compacting == Some(true) { &mut busy } else { &mut idle };
            for (slot, (name, times)) in [("get", &gets), ("set", &sets)].into_iter().enumerate() {
                let window =
                    std::mem::replace(&mut *times.lock().expect("not poisoned"), histogram());
                for (suffix, quantile) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
                    let value = window.value_at_quantile(quantile) as f64 / 1000.0;
                    out.point(&format!("{name}_{suffix}_us"), at, value);
                }
                into[slot].add(&window)?;
            }
            let running = f64::from(u8::from(compacting == Some(true)));
            out.point("compacting", at, running);
        }
        stop.store(true, Ordering::Relaxed);
        reader.join().expect("the reader panicked")?;
        writer.join().expect("the writer panicked")
    })?;
    let wrong = wrong.into_inner();
    ensure!(wrong == 0, "{}: {wrong} values are not what was set", job.engine.name());
    for (slot, name) in ["get", "set"].into_iter().enumerate() {
        out.latency(&format!("{name}_idle"), &idle[slot]);
        out.latency(&format!("{name}_busy"), &busy[slot]);
        let both = idle[slot].len() + busy[slot].len();
        out.put(&format!("{name}s_per_second"), both as f64 / start.elapsed().as_secs_f64());
    }
    engine.close()
}

/// Calls `one` so many times a second, a burst each millisecond, and notes what each call took.
fn paced(
    pace: u64,
    stop: &AtomicBool,
    times: &Mutex<Histogram<u64>>,
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
