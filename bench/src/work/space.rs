//! Endless uniform overwrite: what the store takes on the disk, what it writes, what it remembers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Job;
use crate::data::{Random, key};
use crate::engine::Durability;
use crate::figures::Figures;
use crate::process;

const SAMPLE: Duration = Duration::from_millis(250);
/// How long a store may tidy up after the writes end.
const REST: Duration = Duration::from_secs(8);
/// Times the live bytes that are overwritten before what is measured counts: the steady state.
const SETTLED_AFTER: f64 = 2.0;

pub(super) fn run(job: &Job, out: &mut Figures) -> Result<()> {
    let engine = job.open(Durability::Buffered)?;
    let (live, pair) = (job.live_bytes() as f64, (job.live_bytes() / job.keys) as f64);
    let (sets, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let anonymous = process::memory()?.anonymous;
    let start = Instant::now();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<()> {
            let values = job.values();
            let (mut random, mut value) = (Random::new(u64::from(job.run) + 2), Vec::new());
            while !stop.load(Ordering::Relaxed) {
                let turn = sets.fetch_add(1, Ordering::Relaxed);
                let id = random.below(job.keys);
                values.put(id, turn, &mut value);
                engine.set(&key(id), &value)?;
            }
            Ok(())
        });
        let (mut steady, mut max, mut peak) = (None, 0.0_f64, 0);
        let first = process::written()?;
        let mut last = first;
        // Never shorter than the steady state needs, within reason: a slow engine is let off.
        let patience = job.limit() * 4;
        loop {
            std::thread::sleep(SAMPLE);
            let (at, done) = (start.elapsed(), sets.load(Ordering::Relaxed) as f64);
            let space = process::disk_bytes(&job.dir) as f64 / live;
            let volumes = done * pair / live;
            out.point("space", at.as_secs_f64(), space);
            out.point("overwritten", at.as_secs_f64(), volumes);
            peak = peak.max(process::memory()?.anonymous);
            if volumes >= SETTLED_AFTER {
                let written = process::written()?;
                let (from, done_then) = *steady.get_or_insert((written, done));
                if done > done_then {
                    last = written;
                    let user = (done - done_then) * pair;
                    out.put("bytes_per_byte", written.since(&from) as f64 / user);
                }
            }
            // Until the steady state the peak of the way there is the best that is known.
            max = max.max(space);
            let enough = volumes >= 2.0 * SETTLED_AFTER;
            if writer.is_finished() || (at >= job.limit() && enough) || at >= patience {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("the writer panicked")?;
        if steady.is_none() {
            last = process::written()?;
            let user = sets.load(Ordering::Relaxed) as f64 * pair;
            out.put("bytes_per_byte", last.since(&first) as f64 / user);
        }
        out.put("wchar", (last.wchar - first.wchar) as f64);
        out.put("write_bytes", (last.write_bytes - first.write_bytes) as f64);
        out.put("volumes", sets.load(Ordering::Relaxed) as f64 * pair / live);
        out.put("space_max", max);
        out.put("anonymous_grown", peak.saturating_sub(anonymous) as f64);
        out.put("ops", sets.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64());
        Ok::<_, anyhow::Error>(())
    })?;
    let ended = Instant::now();
    while ended.elapsed() < REST {
        std::thread::sleep(SAMPLE);
        let space = process::disk_bytes(&job.dir) as f64 / live;
        out.point("space", start.elapsed().as_secs_f64(), space);
        out.put("space_rested", space);
    }
    out.put("ended_s", (ended - start).as_secs_f64());
    engine.close()
}
