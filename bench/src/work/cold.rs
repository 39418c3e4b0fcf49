//! Gets that have to read the disk. The floor beside it reads one page at random from a file of the
//! same size, in the same memory.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{Advice, fadvise};

use super::Job;
use crate::data::{Random, key};
use crate::engine::{Durability, Kind, Settings};
use crate::figures::{Figures, histogram};
use crate::{cage, process};

const PAGE: u64 = 4096;
/// Memory that is full to this share is given back as gets go on.
const FULL: f64 = 0.97;
/// For so many times the usual limit it may take to get there.
const WARM: u32 = 20;

pub(super) fn run(job: &Job, out: &mut Figures) -> Result<()> {
    if job.engine == Kind::Bare {
        fs::create_dir_all(&job.dir)?;
        let file = File::create(job.dir.join("pages"))?;
        let page = vec![0xAB; 1 << 20];
        for at in (0..job.live_bytes()).step_by(page.len()) {
            file.write_all_at(&page, at)?;
        }
    }
    forget(&job.dir)?;
    // Only now: the pages that were written are not to count as this group's.
    cage::join(cage(job)?)?;
    let mut random = Random::new(u64::from(job.run) + 5);
    if job.engine == Kind::Bare {
        let file = File::open(job.dir.join("pages"))?;
        fadvise(&file, 0, None, Advice::Random)?;
        let (pages, mut page) = (job.live_bytes() / PAGE, [0; PAGE as usize]);
        return timed(job, out, || Ok(file.read_exact_at(&mut page, random.below(pages) * PAGE)?));
    }
    let cache_bytes = (job.cache_mib << 20).min(cage::limit(job.keys, job.value_bytes) / 4);
    let settings = Settings {
        durability: Durability::Buffered,
        cache_bytes,
        value_bytes: job.value_bytes,
        larger_than_memory: true,
    };
    let engine = job.engine.open(&job.dir, settings)?;
    let values = job.values();
    timed(job, out, || {
        let id = random.below(job.keys);
        let mut right = false;
        engine.get(&key(id), &mut |value| right = values.check(id, value))?;
        ensure!(right, "{}: key {id} is not what was set", job.engine.name());
        Ok(())
    })?;
    engine.close()
}

fn cage(job: &Job) -> Result<&Path> {
    job.cage.as_deref().context("cold works run in a control group")
}

fn timed(job: &Job, out: &mut Figures, mut one: impl FnMut() -> Result<()>) -> Result<()> {
    let cage = cage(job)?;
    let (start, full) = (Instant::now(), cage::limit(job.keys, job.value_bytes) as f64 * FULL);
    while (cage::used(cage)? as f64) < full && start.elapsed() < job.limit() * WARM {
        for _ in 0..256 {
            one()?;
        }
    }
    out.put(
        "memory_full",
        cage::used(cage)? as f64 / cage::limit(job.keys, job.value_bytes) as f64,
    );
    let read = process::read_bytes()?;
    let (mut times, mut done, start) = (histogram(), 0_u64, Instant::now());
    while start.elapsed() < job.limit() {
        let before = Instant::now();
        one()?;
        times.saturating_record(before.elapsed().as_nanos() as u64);
        done += 1;
    }
    out.put("ops", done as f64 / start.elapsed().as_secs_f64());
    out.put("read_bytes_per_get", (process::read_bytes()? - read) as f64 / done as f64);
    out.latency("get", &times);
    Ok(())
}

/// Drops every file under `dir` from the page cache.
fn forget(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            forget(&entry.path())?;
            continue;
        }
        let file = File::open(entry.path())?;
        // Dirty pages cannot be dropped.
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}
