//! Works that set.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Job;
use super::space::memory_at_rest;
use crate::data::{Random, key};
use crate::engine::{Durability, Engine};
use crate::figures::{Figures, histogram};
use crate::process;

/// Keys of one atomic batch.
const BATCH: u64 = 100;
/// A batch of long values ends here: some engines hold it in memory more than once.
const BATCH_BYTES: u64 = 16 << 20;
/// How many operations go by between two looks at the clock.
const CLOCK_EVERY: u64 = 64;
/// And between two looks at the disk.
const DISK_EVERY: u64 = 64 * 1024;
/// How many operations are timed one by one, after the measure of speed, which is not slowed by it.
const TIMED: u64 = 100_000;
/// For how many times the usual limit a store is filled one key at a time.
const FILL_LIMITS: u32 = 12;
/// For how many times the usual limit keys are overwritten, if they are not all by then.
const OVERWRITE_LIMITS: u32 = 12;
/// For how many times the usual limit batches are set, if they are not all by then.
const BATCH_LIMITS: u32 = 4;
/// A disk that syncs is the noisiest of all: twice the usual time is given to it.
const SYNCED_LIMITS: u32 = 2;

/// What a table says then.
const FULL: &str = "the disk has no room for that";

pub(super) fn fill(job: &Job, out: &mut Figures) -> Result<()> {
    let empty = process::memory()?.anonymous;
    let engine = job.open(Durability::Buffered)?;
    let values = job.values();
    let (mut value, mut done) = (Vec::new(), 0);
    let (written, start) = (process::written()?, Instant::now());
    let limit = job.limit() * FILL_LIMITS;
    while done < job.keys && (done % CLOCK_EVERY != 0 || start.elapsed() < limit) {
        values.put(done, 0, &mut value);
        engine.set(&key(done), &value)?;
        done += 1;
        ensure!(done % DISK_EVERY != 0 || !job.disk_is_full(), "{FULL}");
    }
    out.put("ops", done as f64 / start.elapsed().as_secs_f64());
    out.put("calls", done as f64);
    fill_rest(job, engine.as_ref(), done)?;
    let memory = process::memory()?;
    out.put("anonymous_bytes", memory.anonymous as f64);
    out.put("file_bytes", memory.file as f64);
    let grown = memory_at_rest()?.saturating_sub(empty);
    out.put("anonymous_per_key", grown as f64 / job.keys as f64);
    engine.close()?;
    let written = process::written()?.since(&written);
    out.put("bytes_per_byte", written as f64 / job.live_bytes() as f64);
    out.put("space", process::disk_bytes(&job.dir) as f64 / job.live_bytes() as f64);
    Ok(())
}

/// Whoever is too slow for that many keys one at a time gets the rest of them in large batches and in
/// order of key, which is the cheapest for a tree: the works that follow need all of them.
fn fill_rest(job: &Job, engine: &dyn Engine, from: u64) -> Result<()> {
    let values = job.values();
    let mut rest: Vec<_> = (from..job.keys).map(|id| (key(id), id)).collect();
    rest.sort_unstable();
    let count = (BATCH_BYTES / job.pair_bytes()).clamp(1, 10_000);
    for ids in rest.chunks(count as usize) {
        ensure!(!job.disk_is_full(), "{FULL}");
        let pair = |(key, id): &(crate::data::Key, u64)| {
            let mut value = Vec::new();
            values.put(*id, 0, &mut value);
            (key.to_vec(), value)
        };
        engine.set_all(&ids.iter().map(pair).collect::<Vec<_>>())?;
    }
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
    // Until each key has been overwritten twice, about: who tidies up later has begun to by then.
    let limit = |done| job.limit() * if done < 2 * job.keys { OVERWRITE_LIMITS } else { 1 };
    while done % CLOCK_EVERY != 0 || start.elapsed() < limit(done) {
        done += 1;
        let key = next(done, &mut value);
        engine.set(&key, &value)?;
        if done % DISK_EVERY == 0 && job.disk_is_full() {
            break;
        }
    }
    out.put("ops", done as f64 / start.elapsed().as_secs_f64());
    let (mut times, start, mut timed) = (histogram(), Instant::now(), 0);
    while timed < TIMED && (timed % CLOCK_EVERY != 0 || start.elapsed() < job.limit()) {
        timed += 1;
        let key = next(done + timed, &mut value);
        let before = Instant::now();
        engine.set(&key, &value)?;
        times.saturating_record(before.elapsed().as_nanos() as u64);
    }
    out.put("calls", (done + timed) as f64);
    out.latency("set", &times);
    engine.close()
}

pub(super) fn batches(job: &Job, out: &mut Figures) -> Result<()> {
    let engine = job.open(Durability::Buffered)?;
    let values = job.values();
    let mut pairs = Vec::new();
    let size = (BATCH_BYTES / job.pair_bytes()).clamp(1, BATCH);
    // The making of the pairs is not the engine's: it is left out of the time.
    let (mut spent, mut done, mut batches) = (Duration::ZERO, 0, 0);
    while done < job.keys && spent < job.limit() * BATCH_LIMITS {
        pairs.clear();
        for id in done..(done + size).min(job.keys) {
            let mut value = Vec::new();
            values.put(id, 0, &mut value);
            pairs.push((key(id).to_vec(), value));
        }
        let before = Instant::now();
        engine.set_all(&pairs)?;
        spent += before.elapsed();
        done += pairs.len() as u64;
        batches += 1;
    }
    out.put("ops", done as f64 / spent.as_secs_f64());
    out.put("calls", f64::from(batches));
    engine.close()
}

pub(super) fn synced(job: &Job, threads: u64, out: &mut Figures) -> Result<()> {
    let engine = job.open(Durability::Synced)?;
    let values = job.values();
    let (ready, stop) = (Barrier::new(threads as usize), AtomicBool::new(false));
    let limit = job.limit() * SYNCED_LIMITS;
    let each = |thread: u64| -> Result<(u64, Duration, hdrhistogram::Histogram<u64>)> {
        let (mut value, mut times, mut done) = (Vec::new(), histogram(), 0);
        ready.wait();
        let start = Instant::now();
        while start.elapsed() < limit && !stop.load(Ordering::Relaxed) {
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
    out.put("calls", times.len() as f64);
    out.latency("set", &times);
    engine.close()
}
