//! Works that set.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Job;
use crate::data::{Random, key};
use crate::engine::Durability;
use crate::figures::{Figures, histogram};
use crate::process;

/// Keys of one atomic batch.
const BATCH: u64 = 100;
/// How many operations go by between two looks at the clock.
const CLOCK_EVERY: u64 = 256;
/// How many operations are timed one by one, after the measure of speed, which is not slowed by it.
const TIMED: u64 = 100_000;

pub(super) fn fill(job: &Job, out: &mut Figures) -> Result<()> {
    let engine = job.open(Durability::Buffered)?;
    let values = job.values();
    let mut value = Vec::new();
    let (written, start) = (process::written()?, Instant::now());
    for id in 0..job.keys {
        values.put(id, 0, &mut value);
        engine.set(&key(id), &value)?;
    }
    out.put("ops", job.keys as f64 / start.elapsed().as_secs_f64());
    let memory = process::memory()?;
    out.put("anonymous_bytes", memory.anonymous as f64);
    out.put("file_bytes", memory.file as f64);
    engine.close()?;
    let written = process::written()?.since(&written);
    out.put("bytes_per_byte", written as f64 / job.live_bytes() as f64);
    out.put("space", process::disk_bytes(&job.dir) as f64 / job.live_bytes() as f64);
    Ok(())
}

pub(super) fn overwrite(job: &Job, out: &mut Figures) -> Result<()> {
    let engine = job.open(Durability::Buffered)?;
    let values = job.values();
    let (mut random, mut value) = (Random::new(u64::from(job.run)), Vec::new());
    let mut next = |version: u64, value: &mut Vec<u8>| {
        let id = random.below(job.keys);
        values.put(id, version, value);
        key(id)
    };
    let start = Instant::now();
    let mut done = 0;
    while done < job.keys && (done % CLOCK_EVERY != 0 || start.elapsed() < job.limit()) {
        done += 1;
        let key = next(done, &mut value);
        engine.set(&key, &value)?;
    }
    out.put("ops", done as f64 / start.elapsed().as_secs_f64());
    let (mut times, start) = (histogram(), Instant::now());
    for turn in 0..TIMED.min(job.keys) {
        let key = next(done + turn, &mut value);
        let before = Instant::now();
        engine.set(&key, &value)?;
        times.saturating_record(before.elapsed().as_nanos() as u64);
        if turn % CLOCK_EVERY == 0 && start.elapsed() > job.limit() {
            break;
        }
    }
    out.latency("set", &times);
    engine.close()
}

pub(super) fn batches(job: &Job, out: &mut Figures) -> Result<()> {
    let engine = job.open(Durability::Buffered)?;
    let values = job.values();
    let mut pairs = Vec::new();
    // The making of the pairs is not the engine's: it is left out of the time.
    let (mut spent, mut done) = (Duration::ZERO, 0);
    while done < job.keys {
        pairs.clear();
        for id in done..(done + BATCH).min(job.keys) {
            let mut value = Vec::new();
            values.put(id, 0, &mut value);
            pairs.push((key(id).to_vec(), value));
        }
        let before = Instant::now();
        engine.set_all(&pairs)?;
        spent += before.elapsed();
        done += pairs.len() as u64;
    }
    out.put("ops", done as f64 / spent.as_secs_f64());
    engine.close()
}

pub(super) fn synced(job: &Job, threads: u64, out: &mut Figures) -> Result<()> {
    let engine = job.open(Durability::Synced)?;
    let values = job.values();
    let (ready, stop) = (Barrier::new(threads as usize), AtomicBool::new(false));
    let each = |thread: u64| -> Result<(u64, Duration, hdrhistogram::Histogram<u64>)> {
        let (mut value, mut times, mut done) = (Vec::new(), histogram(), 0);
        ready.wait();
        let start = Instant::now();
        while start.elapsed() < job.limit() && !stop.load(Ordering::Relaxed) {
            // Every thread has keys of its own; all of them are new.
            let id = done * threads + thread;
            values.put(id, 0, &mut value);
            let before = Instant::now();
            engine.set(&key(id), &value).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            times.saturating_record(before.elapsed().as_nanos() as u64);
            done += 1;
        }
        Ok((done, start.elapsed(), times))
    };
    let each = &each;
    let parts: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || each(thread))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a writer panicked")).collect()
    });
    let (mut ops, mut times) = (0.0, histogram());
    for part in parts {
        let (done, time, part) = part?;
        ops += done as f64 / time.as_secs_f64();
        times.add(part)?;
    }
    out.put("ops", ops);
    out.latency("set", &times);
    engine.close()
}
